"""What a test has left behind: tasks, threads, open files and sockets.

Knows asyncio and /proc. Must not know the SDK: it names what is left, and does not say why.
"""

import asyncio
import contextlib
import gc
import io
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FDS = Path("/proc/self/fd")
_SETTLING = 1.0
_PAUSE = 0.005
_QUICK_TURNS = 10
# The loop's default executor keeps its threads until the loop is closed.
_LOOPS_OWN_THREADS = ("asyncio_", "uvloop_")
_SERVERS = tuple(
    part.replace("/", os.sep) for part in ("/tests/harness/", "/aiovbo/testing/", "/aiohttp/web_")
)


@dataclass(frozen=True)
class Snapshot:
    """What there is at one moment."""

    tasks: frozenset["asyncio.Task[Any]"]
    """Of the running loop; none where no loop runs."""
    files: frozenset[tuple[int, str]]
    """Descriptors and what they lead to: a path, or a socket's number, which is never used again."""
    threads: frozenset[threading.Thread]


def snapshot() -> Snapshot:
    """What there is now."""
    threads = frozenset(
        thread for thread in threading.enumerate() if not thread.name.startswith(_LOOPS_OWN_THREADS)
    )
    return Snapshot(_tasks(), _files(), threads)


async def assert_nothing_left(before: Snapshot, *, serving: bool = False) -> None:
    """Fail if there are tasks, threads, files or sockets that were not there `before`.

    Gives transports that are closing, and threads that are ending, up to a second of loop turns. With
    `serving`, the tests' servers and a pool of connections go on in this loop: then neither files and
    sockets count, nor the tasks of servers, which see to their end themselves.
    """
    left = _left(before, serving=serving)
    patience = _patience()
    turns = 0
    while left and patience():
        turns += 1
        await asyncio.sleep(_PAUSE if turns > _QUICK_TURNS else 0)
        left = _left(before, serving=serving)
    _report(left)


def assert_nothing_open(before: Snapshot) -> None:
    """The same without a running loop: threads, files and sockets."""
    left = _left(before)
    patience = _patience()
    while left and patience():
        gc.collect()
        time.sleep(_PAUSE)
        left = _left(before)
    _report(left)


def _patience() -> Callable[[], bool]:
    ends = time.monotonic() + _SETTLING
    return lambda: time.monotonic() < ends


def _tasks() -> frozenset["asyncio.Task[Any]"]:
    try:
        return frozenset(asyncio.all_tasks()) - {asyncio.current_task()}
    except RuntimeError:
        return frozenset()


def _files() -> frozenset[tuple[int, str]]:
    if not _FDS.exists():
        return frozenset()
    found = set()
    for name in os.listdir(_FDS):  # three times as fast, and it runs twice per test
        # The descriptor of this very listing is gone by now.
        with contextlib.suppress(OSError):
            found.add((int(name), os.readlink(_FDS / name)))  # the same
    return frozenset(found)


def _left(before: Snapshot, *, serving: bool = False) -> list[str]:
    now = snapshot()
    tasks = [task for task in now.tasks - before.tasks if not (serving and _serves(task))]
    files = [] if serving else now.files - before.files
    return [
        *(_describe(task) for task in tasks),
        *(f"thread {thread.name!r}" for thread in now.threads - before.threads),
        *(f"file {fd}: {target}" for fd, target in files),
    ]


def _serves(task: "asyncio.Task[Any]") -> bool:
    code = getattr(task.get_coro(), "cr_code", None)
    return code is not None and any(part in code.co_filename for part in _SERVERS)


def _describe(task: "asyncio.Task[Any]") -> str:
    stack = io.StringIO()
    task.print_stack(file=stack)
    return f"task {task.get_name()!r} running {task.get_coro()!r}\n{stack.getvalue()}"


def _report(left: list[str]) -> None:
    if left:
        message = "left behind:\n" + "\n".join(f"- {thing}" for thing in sorted(left))
        raise AssertionError(message)
