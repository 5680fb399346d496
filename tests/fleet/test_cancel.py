"""Cancelling at every point where it can be cancelled: out at once, nothing left, everything usable."""

import asyncio
import gc
from datetime import timedelta

import pytest
from harness.backups import server_of
from harness.cancel import cancel_at_every_await

from aiovbo import Client, Fleet, UnreachableError
from aiovbo._core.deadline import Operation
from aiovbo._core.single_flight import SingleFlight
from aiovbo._settings.limits import Options
from aiovbo.testing import BackupFleet, BackupServer, World

ALL = timedelta(days=400)


def ours() -> list[asyncio.Task[object]]:
    """Tasks that the SDK started and that have not ended."""
    return [task for task in asyncio.all_tasks() if task.get_name().startswith("aiovbo")]


async def nothing_left() -> None:
    """No task of ours, a few turns of the loop later at most."""
    for _ in range(100):
        if not ours():
            return
        await asyncio.sleep(0)
    assert ours() == []


@pytest.mark.parametrize("what", ["await", "iterate", "pages", "answer", "link"])
async def test_a_query_is_cancelled_at_every_await(what: str) -> None:
    """From the first connection and the login to the last page."""
    async with BackupServer(World(sessions=6, speed=0), version="v6") as backup:

        async def operation() -> None:
            async with Client(server_of(backup)) as client:
                query = client.restore_sessions(page_size=2)
                match what:
                    case "await":
                        await query
                    case "iterate":
                        async for _ in query:
                            await asyncio.sleep(0)
                    case "pages":
                        async for _ in query.pages():
                            await asyncio.sleep(0)
                    case "answer":
                        await query.answer()
                    case _:
                        await (await query)[0].fetch_organization()

        assert await cancel_at_every_await(operation, nothing_left) > 5


@pytest.mark.parametrize("what", ["await", "iterate", "answers", "map"])
async def test_a_fleet_query_is_cancelled_at_every_await(what: str) -> None:
    """In a fleet that goes on living: after each cancellation it answers in full."""
    async with BackupFleet(3, sessions=4) as backups:  # noqa: SIM117  # the fleet needs its backups' URLs
        async with Fleet([server_of(backup) for backup in backups]) as fleet:

            async def operation() -> None:
                for backup in backups:
                    backup.revoke_tokens()
                query = fleet.restore_sessions(started_after=ALL, page_size=2)
                match what:
                    case "await":
                        await query
                    case "iterate":
                        async for _ in query:
                            await asyncio.sleep(0)
                    case "answers":
                        async for _ in query.answers():
                            await asyncio.sleep(0)
                    case _:
                        await fleet.map(lambda client: client.fetch_restore_session(known[client.name]))

            async def usable() -> None:
                await nothing_left()
                assert len((await fleet.restore_sessions(started_after=ALL)).items) == 12

            known = {s.server: s.id for s in (await fleet.restore_sessions(started_after=ALL)).items}
            assert await cancel_at_every_await(operation, usable) > 0


async def test_a_fleet_query_is_cancelled_in_any_turn_of_the_loop() -> None:
    """So also inside its own tasks: in a login, while the password is to be proven, and in a page ahead."""
    async with BackupFleet(5, sessions=4) as backups:  # noqa: SIM117  # the fleet needs its backups' URLs
        # Verdicts that count for no time: every login is one of few until it is answered.
        async with Fleet([server_of(backup) for backup in backups], login_cooldown=0) as fleet:

            async def ask() -> None:
                for backup in backups:
                    backup.revoke_tokens()
                assert len((await fleet.restore_sessions(started_after=ALL, page_size=2)).items) == 20

            turns, cancelled, asking = 0, 0, asyncio.create_task(ask())
            while not asking.done():
                turns += 1
                await asyncio.sleep(0)
            await asking
            for turn in range(0, turns, max(1, turns // 100)):
                asking = asyncio.create_task(ask())
                for _ in range(turn):
                    await asyncio.sleep(0)
                asking.cancel()
                async with asyncio.timeout(0.5):
                    await asyncio.wait([asking])
                cancelled += asking.cancelled()
                assert asking.cancelled() or asking.exception() is None
                await nothing_left()
                if turn % 5 == 0:
                    await ask()
            assert cancelled > 10


async def test_opening_and_closing_are_cancelled_at_every_await() -> None:
    """And closing again afterwards finds nothing left to close."""
    async with BackupServer() as backup:
        fleets: list[Fleet] = []

        async def operation() -> None:
            fleet = Fleet([server_of(backup)])
            fleets.append(fleet)
            async with fleet:
                await fleet.restore_sessions()

        async def closed() -> None:
            while fleets:
                await fleets.pop().aclose()
            await nothing_left()

        assert await cancel_at_every_await(operation, closed) > 2


async def test_a_shared_call_that_fails_while_its_last_waiter_is_cancelled_is_no_complaint() -> None:
    """No caller is left to receive the error, and asyncio has nothing to report."""
    complaints: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    calls: SingleFlight[None] = SingleFlight()
    for pause in range(6):
        go = asyncio.Event()

        async def fail(_: Operation, go: asyncio.Event = go) -> None:
            await go.wait()
            raise UnreachableError("gone")

        waiting = asyncio.create_task(calls.run("key", Operation(Options()), fail))
        await asyncio.sleep(0)
        go.set()
        for _ in range(pause):
            await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        _ = waiting.cancelled() or waiting.exception()
        del waiting
    gc.collect()
    assert complaints == []
