"""A process that forks while a checkpoint is open."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import asyncio, gc, os, sys
from datetime import UTC, datetime
from aiovbo import Checkpoint

path = sys.argv[1]
checkpoint = Checkpoint(path)
first, second = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)

async def write():
    await checkpoint.open()
    await checkpoint.save("a", [], first, None)

async def go_on():
    await checkpoint.save("b", [], second, None)
    await checkpoint.close()
    await checkpoint.open()
    print(sorted(await checkpoint.servers()))
    await checkpoint.close()

asyncio.run(write())
before = os.stat(path + "-wal").st_ino
child = os.fork()
if not child:
    checkpoint._close()
    del checkpoint
    gc.collect()
    sys.exit(0)
print(os.waitpid(child, 0)[1], os.path.exists(path + "-wal") and os.stat(path + "-wal").st_ino == before)
asyncio.run(go_on())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_forked_process_leaves_the_checkpoint_to_its_parent(tmp_path: Path) -> None:
    """The parent's `-wal` file stays, and what it saves afterwards is kept."""
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "checkpoint")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
    assert done.stdout.splitlines() == ["0 True", "['a', 'b']"], done.stderr
