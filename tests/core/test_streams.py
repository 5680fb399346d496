"""Streams that are interrupted or stopped, and the `async with` blocks of queries."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest
from harness.backups import server_of
from harness.watches import FAST, NOW, take

from aiovbo import Client, ClosedError, Fleet
from aiovbo.testing import BackupServer, Fault, World

STREAMS: dict[str, Callable[[Fleet], AsyncIterator[Any]]] = {
    "fleet query": lambda fleet: aiter(fleet.restore_sessions(page_size=1)),
    "answers": lambda fleet: fleet.restore_sessions().answers(),
    "query": lambda fleet: aiter(fleet["vbo"].restore_sessions(page_size=1)),
    "pages": lambda fleet: fleet["vbo"].restore_sessions(page_size=1).pages(),
    "map": lambda fleet: aiter(fleet.map(lambda client: client.restore_sessions().pages())),
}


@pytest.fixture
async def backup() -> AsyncIterator[BackupServer]:
    """A server with three sessions."""
    async with BackupServer(World(now=NOW, speed=0, sessions=3), version="v8") as server:
        yield server


@pytest.fixture
async def fleet(backup: BackupServer) -> AsyncIterator[Fleet]:
    """A fleet of that server."""
    async with Fleet([server_of(backup, name="vbo")]) as fleet:
        yield fleet


async def interrupt(backup: BackupServer, stream: AsyncIterator[Any]) -> None:
    """End one `anext` from outside, while the server does not respond."""
    backup.fail(Fault.stall(), on="RestoreSessions", times=None)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            while True:
                await anext(stream)
    backup.heal()


@pytest.mark.parametrize("kind", STREAMS)
async def test_a_stream_that_was_interrupted_raises_when_it_is_used_again(
    kind: str, backup: BackupServer, fleet: Fleet
) -> None:
    """Each time: to end without an error would look as if there were no more items."""
    stream = STREAMS[kind](fleet)
    await interrupt(backup, stream)
    for _ in range(2):
        with pytest.raises(ClosedError, match="interrupted"):
            await anext(stream)


async def test_a_watch_continues_after_a_timeout_around_one_change(
    backup: BackupServer, fleet: Fleet
) -> None:
    """It keeps its place, so that no change is lost and it never ends without an error."""
    async with fleet.watch(every=FAST) as changes:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await anext(changes)
        added = backup.world.add(creation_time=NOW, end_time=None)
        (change,) = await take(changes, 1)
        assert change.session.id == added.id


async def test_a_block_of_a_query_stops_another_task_that_was_started_inside(
    backup: BackupServer, fleet: Fleet
) -> None:
    """Its consumer gets a ClosedError, and no task is left."""
    backup.fail(Fault.stall(), on="RestoreSessions", times=None)
    query = fleet["vbo"].restore_sessions()

    async def read() -> object:
        return await query

    async with query:
        reading = asyncio.create_task(read())
        while not backup.requests or backup.requests[-1].resource != "RestoreSessions":
            await asyncio.sleep(0)
    assert reading.done()
    assert isinstance(reading.exception(), ClosedError)


async def test_a_block_of_a_query_ends_its_page_that_is_read_ahead(
    backup: BackupServer, fleet: Fleet
) -> None:
    """A stream that was left inside the block raises afterwards."""
    async with fleet["vbo"].restore_sessions(page_size=1) as query:
        stream = aiter(query)
        await anext(stream)
        backup.fail(Fault.stall(), on="RestoreSessions", times=None)
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("aiovbo")]
    with pytest.raises(ClosedError, match="block"):
        await anext(stream)


@pytest.mark.parametrize("of_fleet", [True, False])
async def test_blocks_of_one_query_can_be_repeated_and_nested(
    of_fleet: bool,  # noqa: FBT001  # a parameter of the test
    fleet: Fleet,
) -> None:
    """Each stops what was begun inside it, and nothing that was begun before."""
    query: Any = fleet.restore_sessions() if of_fleet else fleet["vbo"].restore_sessions()
    for _ in range(2):
        async with query:
            seen = 0
            async for _ in query:
                async with query:
                    inner = aiter(query)
                    await anext(inner)
                with pytest.raises(ClosedError):
                    await anext(inner)
                seen += 1
            assert seen == 3
    seen = 0
    async for _ in query:
        async with query:
            seen += 1
    assert seen == 3


async def test_a_stream_of_one_client_is_closed_with_it(backup: BackupServer) -> None:
    """Items that have arrived are delivered; then it raises."""
    async with Client(server_of(backup)) as client:
        stream = aiter(client.restore_sessions(started_after=timedelta(days=999), page_size=1))
        await anext(stream)
    with pytest.raises(ClosedError):
        while True:
            await anext(stream)
