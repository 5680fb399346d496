"""What surrounds every test: nothing may be left behind, and nothing of ours may block the event loop."""

import asyncio
import gc
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from blockbuster import BlockBuster

import aiovbo
import aiovbo.testing

SETTLE = 1.0
"""Seconds that the operating system gets to close what was closed."""


def _open_sockets() -> set[str]:
    found: set[str] = set()
    for descriptor in Path("/proc/self/fd").glob("*"):
        try:
            target = os.readlink(descriptor)
        except OSError:
            continue
        if target.startswith("socket:"):
            found.add(target)
    return found


@pytest.fixture(autouse=True)
def _no_socket_left() -> Iterator[None]:
    """Every socket that a test opened is closed when it ends."""
    before = _open_sockets()
    yield
    ends = time.monotonic() + SETTLE
    while (left := _open_sockets() - before) and time.monotonic() < ends:
        gc.collect()
        time.sleep(0.01)
    assert not left, f"sockets left open: {left}"


@pytest.fixture(autouse=True)
async def _no_task_left() -> AsyncIterator[None]:
    """Every task that a test started has ended when it ends."""
    before = asyncio.all_tasks()
    yield
    for _ in range(100):
        left = asyncio.all_tasks() - before - {asyncio.current_task()}
        if not left:
            return
        await asyncio.sleep(0.001)
    assert not left, f"tasks left running: {left}"


@pytest.fixture(autouse=True)
def _no_blocking_call() -> Iterator[None]:
    """Nothing of the SDK reads files, resolves names or sleeps in the event loop."""
    buster = BlockBuster(scanned_modules=[aiovbo], excluded_modules=[aiovbo.testing])
    buster.activate()
    # The CA file of a test's authority is removed by a finalizer, wherever the garbage collector happens to run.
    buster.functions["os.unlink"].deactivate()
    yield
    buster.deactivate()
