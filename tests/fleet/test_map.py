"""`Fleet.map`: any function of a client, over all servers."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from harness.backups import server_of

from aiovbo import (
    Client,
    Fleet,
    Server,
)
from aiovbo.testing import BackupFleet


def servers_of(backups: BackupFleet) -> list[Server]:
    """How the SDK reaches all of them."""
    return [server_of(backup) for backup in backups]


async def test_map_takes_coroutines_queries_and_iterables() -> None:
    """Whatever a function gives for one server, the fleet gives for all."""
    async with BackupFleet(3, sessions=4) as backups, Fleet(servers_of(backups)) as fleet:

        async def count(client: Client) -> int:
            return len(await client.restore_sessions())

        async def names(client: Client) -> AsyncIterator[str]:
            async for session in client.restore_sessions():
                yield f"{client.name} {session.id}"

        counted, named = await fleet.map(count), await fleet.map(names)
        listed = await fleet.map(lambda client: client.restore_sessions())
        assert counted.items == (4, 4, 4)
        assert len(named.items) == len(listed.items) == 12
        for result in (counted, named, listed):
            assert [answer.complete for answer in result.answers.values()] == [True] * 3


async def test_a_mapped_generator_is_closed_when_the_query_is_left() -> None:
    """Its own `finally` runs at the end of the block, and not some time later; also an iterable's."""
    closed: list[str] = []

    class Names:
        def __init__(self, client: Client) -> None:
            self.client = client

        async def __aiter__(self) -> AsyncIterator[str]:
            try:
                async for session in self.client.restore_sessions():
                    yield f"{session.id}"
            finally:
                await asyncio.sleep(0.01)
                closed.append(self.client.name)

    async with BackupFleet(3, sessions=4) as backups, Fleet(servers_of(backups)) as fleet:
        for given in (Names, lambda client: aiter(Names(client))):
            closed.clear()
            async with fleet.map(given) as query:
                async for _ in query:
                    break
            assert sorted(closed) == sorted(fleet)


async def test_a_bug_in_a_mapped_function_is_raised_as_it_is_after_all_others_were_served() -> None:
    """It is no failure of a server, and hides no items."""
    async with BackupFleet(5, sessions=2) as backups, Fleet(servers_of(backups)) as fleet:
        broken = next(iter(fleet))

        async def names(client: Client) -> str:
            if client.name == broken:
                raise KeyError("a bug")
            await client.restore_sessions()
            return client.name

        found: list[str] = []
        with pytest.raises(KeyError, match="a bug"):
            async for name in fleet.map(names):
                found.append(name)  # noqa: PERF401  # the point
        assert len(found) == 4
