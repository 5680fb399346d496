"""Processes that tests start: what they complained of, and when they have nothing left to do."""

import subprocess
import time
from pathlib import Path


def complaints(errors: str) -> str:
    """Standard error without asyncio's lines on slow steps, which debug mode writes on a busy machine."""
    return "".join(line for line in errors.splitlines(keepends=True) if not line.startswith("Executing <"))


def wait_until_idle(process: subprocess.Popen[str]) -> None:
    """Return once the process sleeps and has used no CPU for a while, however slow the machine is."""
    used, quiet = -1, 0
    while quiet < 10:
        assert process.poll() is None
        # After the name, which may contain blanks: the state is the first field, CPU ticks the 12th and 13th.
        fields = Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        now = int(fields[11]) + int(fields[12])
        quiet = quiet + 1 if fields[0] == "S" and now == used else 0
        used = now
        time.sleep(0.05)
