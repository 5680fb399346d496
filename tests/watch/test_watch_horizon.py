"""What a watch remembers: a wrong clock hides nothing for long, an open session counts whatever its date."""

from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from harness.watches import FAST, NOW, VERSIONS, polls, silent, summary, take, until, watching

from aiovbo import (
    Added,
    Clock,
    Finished,
    MemoryCheckpoint,
    RestoreSession,
    ServerCheckpoint,
    SessionRecord,
    Watch,
)
from aiovbo._watch.tracker import Tracker
from aiovbo.testing import BackupServer, World
from aiovbo.testing._world import WorldSession

YEARS = timedelta(days=4000)
MONTH = timedelta(days=30)
DAY = timedelta(days=1)


class WrongClock:
    """A wall clock that a test sets; the time of the event loop passes as ever."""

    def __init__(self) -> None:
        self.is_ahead_by = timedelta()
        self.clock = Clock(now=lambda: NOW + timedelta(seconds=1) + self.is_ahead_by)


def add_ended(backup: BackupServer, at: datetime) -> WorldSession:
    """A session that began then and has ended by now, also where that is the future."""
    one = backup.world.add(creation_time=at, end_time=None)
    return backup.world.change(one.id, state="Stopped", end_time=min(at, NOW))


async def all_of(changes: Watch) -> list[tuple[str, object]]:
    """What is reported until nothing is."""
    found: list[tuple[str, object]] = []
    with suppress(TimeoutError):
        while True:
            found += summary(await take(changes, 1, 0.3))
    return found


@pytest.mark.parametrize("days", [60, -40])
async def test_a_session_after_a_wrong_clock_is_reported(backup: BackupServer, days: int) -> None:
    """Both clocks are wrong for a while, as on one hypervisor; from then on each session is reported."""
    store, wrong = MemoryCheckpoint(), WrongClock()
    for age in (70, 35, 5, 1):
        backup.world.add(creation_time=NOW - age * DAY, end_time=NOW - age * DAY)
    options = {"checkpoint": store, "full_look_every": FAST, "since": YEARS, "clock": wrong.clock}
    async with watching(backup, **options) as changes:
        await take(changes, 8)
        await polls(backup)
    wrong.is_ahead_by = timedelta(days=days)
    odd = add_ended(backup, NOW + wrong.is_ahead_by)
    async with watching(backup, **options) as changes:
        found: list[tuple[str, object]] = []
        while ("Finished", odd.id) not in found:
            found += summary(await take(changes, 1))
        await all_of(changes)
        await polls(backup)
    wrong.is_ahead_by = timedelta()
    later = backup.world.add(creation_time=NOW, end_time=None)
    ended = backup.world.add(creation_time=NOW, end_time=NOW)
    async with watching(backup, **options) as changes:
        news = {("Added", later.id), ("Added", ended.id), ("Finished", ended.id)}
        assert set(summary(await take(changes, 3))) == news
        backup.world.change(later.id, state="Stopped", end_time=NOW, result="Failed")
        assert summary(await take(changes, 1)) == [("Finished", later.id)]
        assert await silent(changes)


async def test_a_session_after_a_clock_that_was_ahead_for_months_is_reported(backup: BackupServer) -> None:
    """Even sessions of those months are forgotten by then; what is new by the right clock is reported."""
    store, wrong = MemoryCheckpoint(), WrongClock()
    options = {"checkpoint": store, "full_look_every": FAST, "since": YEARS, "clock": wrong.clock}
    async with watching(backup, **options) as changes:
        for days in (60, 100, 140):
            wrong.is_ahead_by = timedelta(days=days)
            add_ended(backup, NOW + wrong.is_ahead_by)
            await take(changes, 2)
            await all_of(changes)
            await polls(backup)
        place = await store.load(backup.name)
        assert place is not None
        assert place.horizon is not None
        assert place.horizon > NOW
        wrong.is_ahead_by = timedelta()
        later = backup.world.add(creation_time=NOW, end_time=NOW)
        found: list[tuple[str, object]] = []
        while ("Finished", later.id) not in found:
            found += summary(await take(changes, 1))
        assert ("Added", later.id) in found
        await polls(backup)
        await all_of(changes)
    place = await store.load(backup.name)
    assert place is not None
    assert place.horizon is None or place.horizon <= NOW


def ended(days: float) -> tuple[UUID, SessionRecord]:
    """What is known of a session that ended so many days ago."""
    key = UUID(int=int(days * 100) + 100_000)
    return key, SessionRecord(NOW - days * DAY, is_open=False, marks=b"\0\0\0\7", revision=2)


def test_the_horizon_moves_no_further_than_what_is_forgotten() -> None:
    """One session dated two months ahead makes all others old; a new one is later than those."""
    known = dict(ended(days) for days in (50, 40, 3, 2, -60))
    tracker = Tracker("vbo", ServerCheckpoint(known), None, MONTH)
    tracker.has_seen_all(NOW + 90 * DAY)
    forgotten = {step.session_id for step in tracker.forget(NOW + 90 * DAY)}
    assert forgotten == {ended(days)[0] for days in (50, 40, 3, 2)}
    assert tracker.horizon == NOW - 2 * DAY + timedelta(microseconds=1)


def test_once_the_clock_is_right_again_nothing_recent_is_forgotten() -> None:
    """Also where everything was polled last while the clock was two months ahead."""
    known = dict(ended(days) for days in (50, 40, 3, 2, -60))
    tracker = Tracker("vbo", ServerCheckpoint(known), None, MONTH)
    tracker.has_seen_all(NOW + 90 * DAY)
    forgotten = {step.session_id for step in tracker.forget(NOW)}
    assert forgotten == {ended(days)[0] for days in (50, 40)}


def test_a_removed_session_that_comes_back_is_reported_however_old_it_is(monkeypatch: Any) -> None:
    """As where a server is restored from a backup; only the newest of very many are remembered."""
    found = RestoreSession.from_dict(
        {
            "id": str(UUID(int=7)),
            "type": "Vex",
            "creationTime": (NOW - 90 * DAY).isoformat(),
            "endTime": (NOW - 90 * DAY).isoformat(),
            "state": "Stopped",
        }
    )
    tracker = Tracker("vbo", ServerCheckpoint(dict([ended(40), ended(0)])), NOW - 4000 * DAY, MONTH)
    tracker.begin([], NOW)
    tracker.observe(found)
    tracker.remove([found.id], NOW)
    tracker.has_seen_all(NOW)
    assert [step.session_id for step in tracker.forget(NOW)] == [ended(40)[0]]
    assert [type(change) for change, _ in tracker.observe(found)] == [Added, Finished]
    tracker.remove([found.id, ended(0)[0]], NOW)
    monkeypatch.setattr("aiovbo._watch.tracker._MOST_REMOVED", 1)
    assert [step.session_id for step in tracker.forget(NOW)] == [found.id]


@pytest.mark.parametrize("restarts", [False, True])
async def test_an_open_session_older_than_all_that_is_remembered_is_reported(
    backup: BackupServer, *, restarts: bool
) -> None:
    """Its row appears late, dated long before the horizon; it is followed to its end."""
    store = MemoryCheckpoint()
    for age in (100, 60, 0):
        backup.world.add(creation_time=NOW - age * DAY, end_time=NOW - age * DAY)
    options: dict[str, Any] = {"checkpoint": store, "full_look_every": FAST, "since": YEARS}
    async with watching(backup, **options) as changes:
        await take(changes, 6)
        await silent(changes)
        await polls(backup)
        old = backup.world.add(creation_time=NOW - 80 * DAY, end_time=None)
        assert summary(await take(changes, 1)) == [("Added", old.id)]
        assert await silent(changes)
        if not restarts:
            backup.world.change(old.id, state="Stopped", end_time=NOW)
            assert summary(await take(changes, 1)) == [("Finished", old.id)]
            assert await silent(changes)
            return
    backup.world.change(old.id, state="Stopped", end_time=NOW)
    async with watching(backup, **options) as changes:
        assert summary(await take(changes, 1)) == [("Finished", old.id)]
        assert await silent(changes)


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_long_history_is_searched_in_steps(version: Any) -> None:
    """For an open session among 1,300 that ended long ago: at each full look some hundred rows more."""
    world = World(now=NOW, speed=0, sessions=0)
    for number in range(1300):
        at = NOW - 100 * DAY - timedelta(hours=number)
        world.add(creation_time=at, end_time=at)
    world.add(creation_time=NOW, end_time=NOW)
    async with (
        BackupServer(world, version=version) as backup,
        watching(backup, full_look_every=FAST) as changes,
    ):
        await until(lambda: changes.status()[backup.name].up)
        await polls(backup)
        old = world.add(creation_time=NOW - 120 * DAY, end_time=None)
        assert summary(await take(changes, 1, 20)) == [("Added", old.id)]
        # By now everything but what is remembered is forgotten, and listed no more in one go.
        backup.requests.clear()
        await polls(backup, 8)
        limits = [
            part.removeprefix("limit=")
            for one in backup.requests
            if one.resource == "RestoreSessions" and "startTimeTo" in one.query
            for part in one.query.split("&")
            if part.startswith("limit=")
        ]
        assert limits
        assert set(limits) == {"500"}
