"""Leaving a stream, closing a fleet: nothing is left behind, and every consumer gets an error."""

import asyncio
from datetime import timedelta

import pytest
from harness.backups import asked, server_of

from aiovbo import (
    ClosedError,
    Fleet,
    Password,
    Server,
)
from aiovbo.testing import BackupFleet, BackupServer, Fault

ALL = timedelta(days=400)


def servers_of(backups: BackupFleet) -> list[Server]:
    """How the SDK reaches all of them."""
    return [server_of(backup) for backup in backups]


async def leave_after_one(fleet: Fleet) -> None:
    """Read one item and break."""
    async for _ in fleet.restore_sessions(started_after=ALL, page_size=2):
        break


async def leave_by_exception(fleet: Fleet) -> None:
    """Read one item and fail."""
    with pytest.raises(KeyError):
        async for _ in fleet.restore_sessions(started_after=ALL, page_size=2):
            raise KeyError


async def leave_by_block(fleet: Fleet) -> None:
    """Leave the block around a query that is being read."""
    async with fleet.restore_sessions(started_after=ALL, page_size=2) as query:
        stream = aiter(query)
        await anext(stream)
    with pytest.raises(ClosedError):
        await anext(stream)


async def leave_by_timeout(fleet: Fleet) -> None:
    """Run out of the consumer's own time, in the middle of its own await."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            async for _ in fleet.restore_sessions(started_after=ALL, page_size=2):
                await asyncio.sleep(10)


@pytest.mark.parametrize("leave", [leave_after_one, leave_by_exception, leave_by_block, leave_by_timeout])
async def test_leaving_early_leaves_nothing_behind(leave: object) -> None:
    """However a consumer goes, every task of ours is gone, and the fleet goes on working."""
    async with BackupFleet(5, sessions=10) as backups:
        backups[0].fail(Fault.stall(), on="RestoreSessions", times=3)
        async with Fleet(servers_of(backups), deadline=5) as fleet:
            await leave(fleet)  # type: ignore[operator]  # parametrised
            # After a `break`, Python itself closes an asynchronous generator a few turns of the loop later.
            for _ in range(50):
                await asyncio.sleep(0)
            assert [t for t in asyncio.all_tasks() if t.get_name().startswith("aiovbo")] == []
            backups[0].heal()
            assert len((await fleet.restore_sessions(started_after=ALL)).items) == 50


async def test_closing_the_fleet_ends_a_stream_with_an_error() -> None:
    """It never ends quietly, as if that had been everything."""
    async with BackupFleet(3, sessions=10) as backups:
        fleet = Fleet(servers_of(backups))
        stream = aiter(fleet.restore_sessions(started_after=ALL, page_size=2))
        await anext(stream)
        await fleet.aclose()
        with pytest.raises(ClosedError):
            async for _ in stream:
                pass
        with pytest.raises(ClosedError):
            fleet.restore_sessions()
        await fleet.aclose()


async def test_nothing_new_is_asked_while_the_fleet_takes_leave() -> None:
    """Or a token would be left behind; a task that closes meanwhile waits until it has ended."""
    async with BackupServer(version="v8") as backup, BackupServer(version="v8") as bystander:
        backup.fail(Fault.delay(0.3), on="token/logout", times=None)
        fleet = Fleet([server_of(backup, name="slow"), server_of(bystander, name="healthy")])
        assert not (await fleet.restore_sessions()).failed
        closing = [asyncio.create_task(fleet.aclose())]
        while not asked(bystander, "token/logout"):
            await asyncio.sleep(0.01)
        with pytest.raises(ClosedError):
            await fleet["slow"].fetch_service_instance()
        closing.append(asyncio.create_task(fleet.aclose()))
        await asyncio.sleep(0)
        assert not any(task.done() for task in closing)
        await asyncio.gather(*closing)
        for one in (backup, bystander):
            assert (one.logins, asked(one, "token/logout")) == (1, 1)
            assert one.requests[-1].status == 204


async def test_a_query_that_two_tasks_use_is_two_uses() -> None:
    """What one of them leaves, the other goes on with; what a block's helper began ends with it."""
    async with BackupFleet(3, sessions=4) as backups, Fleet(servers_of(backups)) as fleet:
        query = fleet.restore_sessions(started_after=ALL, page_size=2)
        both, left = asyncio.Barrier(2), asyncio.Event()

        async def leave_early() -> None:
            async with query as sessions:
                async for _ in sessions:
                    await both.wait()
                    break
            left.set()

        async def read_on() -> int:
            count = 0
            async with query as sessions:
                async for _ in sessions:
                    count += 1
                    if count == 1:
                        await both.wait()
                        await left.wait()
            return count

        _, count = await asyncio.gather(leave_early(), read_on())
        assert count == 12

        async with query:
            helper = asyncio.ensure_future(anext(aiter(query)))
            await helper
        assert not [t for t in asyncio.all_tasks() if t.get_name().startswith("aiovbo")]


async def test_closing_while_it_opens_leaves_no_session_behind() -> None:
    """The caller gets an error; nothing is left open."""
    fleet = Fleet(["vbo1"], Password("u", "p"))
    opening = asyncio.create_task(fleet.__aenter__())
    await asyncio.sleep(0)
    await fleet.aclose()
    with pytest.raises(ClosedError):
        await opening


async def test_closing_while_awaited_is_an_error_for_the_one_who_waits() -> None:
    """A result that would lack servers is no result; a hundred wait, and two tasks close."""
    async with BackupFleet(3) as backups:
        backups[0].fail(Fault.stall(), times=None)
        fleet = Fleet(servers_of(backups))

        async def wait() -> None:
            await fleet.restore_sessions()

        waiting = [asyncio.create_task(wait()) for _ in range(100)]
        while not backups[1].requests:
            await asyncio.sleep(0.01)
        await asyncio.gather(fleet.aclose(), fleet.aclose())
        for one in waiting:
            with pytest.raises(ClosedError):
                await one
