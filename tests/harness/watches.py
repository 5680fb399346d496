"""Watches as tests need them: hasty, of servers whose worlds stand still until a test moves them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from aiovbo import (
    Change,
    Fleet,
    Removed,
    Watch,
)
from aiovbo.testing import BackupServer
from harness.backups import asked, server_of

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
FAST = timedelta(milliseconds=20)
VERSIONS = ["v4", "v6", "v8"]


@asynccontextmanager
async def watching(*backups: BackupServer, **options: object) -> AsyncIterator[Watch]:
    """A watch of these servers, hasty."""
    servers = [server_of(one, name=one.name) for one in backups]
    settings = {"every": FAST, **options}
    limits: dict[str, Any] = {"retries": 0}
    limits |= {name: settings.pop(name) for name in ("clock", "read_timeout", "retries") if name in settings}
    async with Fleet(servers, **limits) as fleet, fleet.watch(**settings) as changes:  # type: ignore[arg-type]  # as given
        yield changes


async def take(changes: Watch, count: int, seconds: float = 30.0) -> list[Change]:
    """The next changes, in time."""
    taken: list[Change] = []
    async with asyncio.timeout(seconds):
        while len(taken) < count:
            taken.append(await anext(changes))
    return taken


async def silent(changes: Watch, seconds: float = 0.15) -> bool:
    """Whether nothing happens for a while."""
    try:
        async with asyncio.timeout(seconds):
            await anext(changes)
    except TimeoutError:
        return True
    return False


async def ready(changes: Watch) -> None:
    """Wait until each server was polled once."""
    await until(lambda: all(status.up for status in changes.status().values()))


async def polls(backup: BackupServer, count: int = 4) -> None:
    """Wait until lists of the server, or its feed, were requested so often from now on."""
    wanted = asked(backup) + asked(backup, "Events") + count
    await until(lambda: asked(backup) + asked(backup, "Events") >= wanted)


async def until(it_is: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait for something that is bound to happen."""
    async with asyncio.timeout(seconds):
        while not it_is():
            await asyncio.sleep(0.01)


def summary(changes: list[Change]) -> list[tuple[str, object]]:
    """Kind and session of each change."""
    return [(type(c).__name__, c.session_id if isinstance(c, Removed) else c.session.id) for c in changes]  # type: ignore[attr-defined]  # all of these have one
