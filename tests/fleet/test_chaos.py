"""A short run of the chaos program; `nox -s chaos` is the long one."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from Linux's /proc")
def test_a_few_seconds_of_chaos_break_nothing() -> None:
    """Whatever fails, every server is whole in the result or named in an error, and no secret goes astray."""
    program = Path(__file__).parents[1] / "chaos.py"
    command = [sys.executable, str(program), "--seconds", "4", "--seed", "7"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "nothing broke" in ended.stdout
    assert "Traceback" not in ended.stderr
