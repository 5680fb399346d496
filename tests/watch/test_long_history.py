"""A history that takes longer to read than the deadline of one poll."""

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from harness.scene import Scene

from aiovbo import Added, Finished, Fleet, Password, Removed, Server
from aiovbo.testing import Fault, MemoryTransport, SimClock

SESSIONS = 65


def slow_scene(version: Any) -> Scene:
    """Pages of ten rows, each of which takes two seconds."""
    scene = Scene(version, page_limit_max=10)
    for number in range(SESSIONS):
        at = scene.clock.now() - timedelta(hours=number)
        scene.world.add(creation_time=at, end_time=None if number % 10 == 9 else at)
    scene.backup.fail(Fault.delay(2), on="RestoreSessions", times=None)
    return scene


def pages(scene: Scene) -> int:
    """How many pages were requested."""
    return sum(request.resource == "RestoreSessions" for request in scene.backup.requests)


@pytest.mark.parametrize("version", ["v6", "v8"])
async def test_a_first_poll_that_the_deadline_ends_goes_on_at_the_next(version: Any) -> None:
    """Every session is reported once, the server is not reported as unreachable, and pages are read once."""
    scene = slow_scene(version)
    async with scene.watching(deadline=7) as changes:
        found = await scene.take(changes)
        status = changes.status()["vbo"]
        assert (status.up, status.errors) == (True, 0)
        assert {type(change) for change in found} == {Added, Finished}
        assert len(found) == SESSIONS * 2 - 6
        assert len({change.id for change in found}) == len(found)
        # What happens from then on is reported as ever.
        gone = scene.world.sessions[SESSIONS - 2].id
        scene.world.remove(gone)
        scene.backup.heal()
        await scene.clock.advance(2 * 3600)
        (removed,) = await scene.take(changes)
    assert isinstance(removed, Removed)
    assert removed.session_id == gone


async def test_what_had_ended_is_not_reported_although_the_first_poll_takes_long() -> None:
    """Without `since`: only the open sessions, whichever page they are on; also over a restart in between."""
    scene = slow_scene("v6")
    found = []
    for polls in (1, 100):
        async with scene.watching(deadline=7, since=None) as changes:
            await scene.clock.advance(35 * polls)
            assert (await scene.store.load("vbo")) is not None
            more = await scene.take(changes)
            for change in more:
                changes.ack(change)
            found += more
    assert {type(change) for change in found} == {Added}
    assert len(found) == 6


async def test_a_long_history_does_not_cost_the_pages_again_that_were_read() -> None:
    """65 rows on pages of ten, some of which are read twice where a poll ends."""
    scene = slow_scene("v6")
    async with scene.watching(deadline=7, full_look_every=timedelta(days=1)) as changes:
        await scene.clock.advance(600)
        assert changes.status()["vbo"].up
        read = pages(scene)
        assert read < 40


async def test_the_first_polls_of_a_large_fleet_are_spread_by_its_size() -> None:
    """About 100 servers a second: each first poll costs a TLS handshake and a login."""
    clock = SimClock(auto=False)
    servers = [Server(f"https://vbo{number}.test", Password("u", "p")) for number in range(1000)]
    transport = MemoryTransport({})
    async with (
        Fleet(servers, clock=clock, transport=transport) as fleet,
        fleet.watch(every=timedelta(minutes=1)) as changes,
    ):
        await clock.settle()
        due = [status.next_look for status in changes.status().values()]
        seconds = Counter(int((one - clock.now()).total_seconds()) for one in due if one is not None)
    assert sum(seconds.values()) == len(servers)
    assert seconds.keys() == set(range(10))
    assert max(seconds.values()) < 150
