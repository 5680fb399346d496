"""A short run of the program that kills a watching process; `nox -s soak` is the long one."""

import subprocess
import sys
from pathlib import Path


def test_a_watch_that_is_killed_at_any_moment_loses_nothing() -> None:
    """Six processes that are killed while they watch three servers, and one that delivers the rest."""
    program = Path(__file__).parents[1] / "soak.py"
    command = [sys.executable, str(program), "--kills", "6", "--seed", "1"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "nothing was lost" in ended.stdout
