"""Watching a server: every change once at least, none lost, whatever it and the network do."""

import asyncio
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from aiohttp import web
from harness.backups import asked, server_of, view_of
from harness.scene import Scene
from harness.watches import FAST, NOW, VERSIONS, polls, ready, silent, summary, take, until, watching

from aiovbo import (
    Added,
    Change,
    Checkpoint,
    Finished,
    Fleet,
    MemoryCheckpoint,
    Removed,
    RestoreSessionResult,
    ServerCheckpoint,
    SessionRecord,
)
from aiovbo._watch.tracker import Tracker
from aiovbo.testing import BackupServer, Fault, World
from aiovbo.testing._faults import Exchange


async def test_a_session_is_added_and_finished_each_once(backup: BackupServer) -> None:
    """Also when a result stands there before the end: it is an outcome only when the session has stopped."""
    async with watching(backup) as changes:
        assert await silent(changes)
        begun = backup.world.add(creation_time=NOW, end_time=None, result="Success")
        (added,) = await take(changes, 1)
        assert isinstance(added, Added)
        assert added.session.id == begun.id
        assert await silent(changes)
        backup.world.change(begun.id, state="Stopped", end_time=NOW, result="Failed")
        (finished,) = await take(changes, 1)
        assert isinstance(finished, Finished)
        assert finished.session.result is RestoreSessionResult.FAILED
        assert await silent(changes)


async def test_what_starts_and_ends_between_two_polls_is_reported_completely(backup: BackupServer) -> None:
    """Added, then finished."""
    async with watching(backup) as changes:
        await ready(changes)
        done = backup.world.add(creation_time=NOW - timedelta(seconds=5), end_time=NOW)
        assert summary(await take(changes, 2)) == [("Added", done.id), ("Finished", done.id)]
        assert await silent(changes)


async def test_an_old_session_that_ends_now_is_reported(backup: BackupServer) -> None:
    """It was created long before the newest one, and before anybody watched."""
    old = backup.world.add(creation_time=NOW - timedelta(days=300), end_time=None)
    new = backup.world.add(creation_time=NOW, end_time=NOW)
    async with watching(backup) as changes:
        assert summary(await take(changes, 1)) == [("Added", old.id)]
        backup.world.change(old.id, state="Stopped", end_time=NOW)
        assert summary(await take(changes, 1)) == [("Finished", old.id)]
        assert await silent(changes)
        assert new.id != old.id


async def test_a_first_start_may_begin_in_the_past(backup: BackupServer) -> None:
    """Everything that was created since is delivered; what had ended before is not."""
    backup.world.add(creation_time=NOW - timedelta(days=3), end_time=NOW - timedelta(days=3))
    late = backup.world.add(creation_time=NOW - timedelta(hours=1), end_time=NOW)
    async with watching(backup, since=NOW - timedelta(days=1)) as changes:
        assert summary(await take(changes, 2)) == [("Added", late.id), ("Finished", late.id)]
        assert await silent(changes)


async def test_what_had_ended_before_anybody_watched_is_left_alone(backup: BackupServer) -> None:
    """It is not asked for at every look; where it is corrected later, that is no end."""
    long_ago = NOW - timedelta(days=3)
    old = [backup.world.add(creation_time=long_ago, end_time=long_ago) for _ in range(3)]
    backup.world.add(creation_time=NOW, end_time=NOW)
    async with watching(backup) as changes:
        await until(lambda: asked(backup) + asked(backup, "Events") >= 5)
        assert not [one for one in backup.requests if one.resource.startswith("RestoreSessions/")]
    async with watching(backup, full_look_every=FAST) as changes:
        await until(lambda: changes.status()[backup.name].up)
        backup.world.change(old[0].id, end_time=NOW)
        assert summary(await take(changes, 1)) == [("Changed", old[0].id)]


async def test_a_row_that_appears_late_is_caught_by_the_overlap(backup: BackupServer) -> None:
    """By the next look, whatever it asks for; a row of the very moment of the newest, too."""
    backup.world.add(creation_time=NOW, end_time=NOW)
    async with watching(backup, full_look_every=timedelta(days=1)) as changes:
        await ready(changes)
        for age in (timedelta(minutes=59), timedelta()):
            late = backup.world.add(creation_time=NOW - age, end_time=NOW)
            assert summary(await take(changes, 2)) == [("Added", late.id), ("Finished", late.id)]


async def test_a_row_that_appears_days_late_is_caught_by_a_full_look(backup: BackupServer) -> None:
    """Beyond the overlap."""
    backup.world.add(creation_time=NOW, end_time=NOW)
    async with watching(backup, full_look_every=timedelta(milliseconds=100)) as changes:
        await ready(changes)
        late = backup.world.add(creation_time=NOW - timedelta(days=3), end_time=NOW)
        assert summary(await take(changes, 2)) == [("Added", late.id), ("Finished", late.id)]


async def test_a_session_that_vanishes_is_removed(backup: BackupServer) -> None:
    """One by itself is no reset."""
    keys = [backup.world.add(creation_time=NOW, end_time=None).id for _ in range(6)]
    async with watching(backup) as changes:
        await take(changes, 6)
        backup.world.remove(keys[0])
        (removed,) = await take(changes, 1)
        assert isinstance(removed, Removed)
        assert (removed.session_id, removed.reset) == (keys[0], False)
        assert await silent(changes)


@pytest.mark.parametrize(
    ("there", "gone", "reset"), [(10, 4, False), (10, 5, True), (3, 2, False), (3, 3, True)]
)
def test_half_of_all_sessions_that_vanish_at_once_are_a_reset(there: int, gone: int, *, reset: bool) -> None:
    """But not fewer than three."""
    entry = SessionRecord(NOW, is_open=False, marks=b"\0\0\0\7", revision=1)
    keys = [UUID(int=number) for number in range(there)]
    tracker = Tracker("vbo", ServerCheckpoint(dict.fromkeys(keys, entry)), None, timedelta(days=30))
    removed = [change for change, _ in tracker.remove(keys[:gone], NOW)]
    assert [(type(one), one.reset) for one in removed] == [(Removed, reset)] * gone  # type: ignore[union-attr]  # they are


async def test_a_server_that_is_restored_from_a_backup_of_itself_breaks_nothing(backup: BackupServer) -> None:
    """Ids vanish and its clock goes back; what happens from then on is delivered."""
    first = backup.world.add(creation_time=NOW, end_time=None)
    async with watching(backup) as changes:
        await take(changes, 1)
        snapshot = backup.world.snapshot()
        backup.world.advance(timedelta(days=2))
        for hour in range(5):
            backup.world.add(creation_time=NOW + timedelta(days=1, hours=hour), end_time=None)
        await take(changes, 5)
        backup.world.restore(snapshot)
        removed = await take(changes, 5)
        assert all(isinstance(change, Removed) and change.reset for change in removed)
        after = backup.world.add(creation_time=NOW + timedelta(minutes=1), end_time=None)
        assert summary(await take(changes, 1)) == [("Added", after.id)]
        backup.world.change(first.id, state="Stopped", end_time=NOW)
        assert summary(await take(changes, 1)) == [("Finished", first.id)]


async def test_what_a_restored_server_does_is_reported_though_its_time_was_forgotten(
    backup: BackupServer,
) -> None:
    """Its clock is back where the watch remembers nothing any more."""
    long_ago = NOW - timedelta(days=100)
    backup.world.add(creation_time=long_ago, end_time=long_ago)
    snapshot = backup.world.snapshot()
    for days in range(40, 50):
        at = NOW - timedelta(days=days)
        backup.world.add(creation_time=at, end_time=at)
    options = {"full_look_every": FAST, "remember": timedelta(days=15), "since": timedelta(days=4000)}
    async with watching(backup, **options) as changes:
        await take(changes, 22)
        # What is remembered now begins 55 days ago.
        await silent(changes, 0.3)
        backup.world.restore(snapshot)
        removed = await take(changes, 10)
        assert all(isinstance(change, Removed) and change.reset for change in removed)
        after = backup.world.add(creation_time=long_ago + timedelta(days=1), end_time=None)
        # What the server knows again may be delivered again.
        async with asyncio.timeout(30):
            async for change in changes:
                if isinstance(change, Added) and change.session.id == after.id:
                    break


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("full_look_every", [timedelta(milliseconds=1), timedelta(hours=1)])
async def test_old_sessions_that_go_on_cost_a_list_and_not_a_request_each(
    version: Any, full_look_every: timedelta
) -> None:
    """Forty of them, older than all that is remembered; the end of one or of all is delivered too."""
    long_ago = NOW - timedelta(days=100)
    world = World(now=NOW, speed=0, sessions=0)
    last, *others = [
        world.add(creation_time=long_ago - timedelta(hours=n), end_time=None).id for n in range(40)
    ]
    world.add(creation_time=NOW, end_time=NOW)
    options = {"remember": timedelta(days=5), "since": timedelta(days=4000)}
    async with (
        BackupServer(world, version=version) as backup,
        watching(backup, full_look_every=full_look_every, **options) as changes,
    ):
        await take(changes, 42)
        # Once all is dealt with, what ended is forgotten, and looks reach no further back than that.
        assert await silent(changes)
        backup.requests.clear()
        for some in ([last], others):
            for key in some:
                world.change(key, end_time=NOW, state="Stopped")
            assert sorted(summary(await take(changes, len(some)))) == sorted(
                ("Finished", key) for key in some
            )
        by_id = [one for one in backup.requests if one.resource.startswith("RestoreSessions/")]
        assert len(by_id) <= 10


async def test_a_restart_goes_on_where_it_was(backup: BackupServer, tmp_path: Path) -> None:
    """What was delivered is not delivered again; what happened meanwhile is."""
    file = tmp_path / "place.db"
    one = backup.world.add(creation_time=NOW, end_time=None)
    async with watching(backup, checkpoint=Checkpoint(file)) as changes:
        await take(changes, 1)
        # Asking for the next one is what says that the last was dealt with.
        await silent(changes)
    two = backup.world.add(creation_time=NOW, end_time=None)
    backup.world.change(one.id, state="Stopped", end_time=NOW)
    async with watching(backup, checkpoint=Checkpoint(file)) as changes:
        assert set(summary(await take(changes, 2))) == {("Finished", one.id), ("Added", two.id)}
        assert await silent(changes)


async def test_what_was_not_acknowledged_is_delivered_again_with_the_same_id(backup: BackupServer) -> None:
    """A consumer that stops in the midst of a change has not had it."""
    place = MemoryCheckpoint()
    backup.world.add(creation_time=NOW - timedelta(seconds=1), end_time=NOW)
    options = {"checkpoint": place, "since": NOW - timedelta(days=1)}
    async with watching(backup, **options) as changes:
        (first,) = await take(changes, 1)
    async with watching(backup, **options) as changes:
        again, finished = await take(changes, 2)
    assert again.id == first.id
    async with watching(backup, **options) as changes:
        (again,) = await take(changes, 1)
    assert again.id == finished.id


async def test_changes_may_be_acknowledged_by_hand(backup: BackupServer) -> None:
    """Then asking for the next one says nothing; an ack counts for one change, and for no other."""
    place = MemoryCheckpoint()
    for _ in range(3):
        backup.world.add(creation_time=NOW, end_time=None)
    options = {"checkpoint": place, "since": NOW - timedelta(days=1), "ack": "manual"}
    async with watching(backup, **options) as changes:
        first = await take(changes, 3)
        changes.ack(first[1])
        changes.ack(first[1])
    async with watching(backup, **options) as changes:
        again = await take(changes, 2)
        assert {change.id for change in again} == {first[0].id, first[2].id}
        assert await silent(changes)
        for change in again:
            changes.ack(change)
    async with watching(backup, **options) as changes:
        assert await silent(changes)


async def test_an_end_that_is_acknowledged_before_its_beginning_repeats_both(backup: BackupServer) -> None:
    """One task is slow with a session's first change, another one is done with its last: none is lost."""
    place = MemoryCheckpoint()
    slow = backup.world.add(creation_time=NOW, end_time=NOW)
    other = backup.world.add(creation_time=NOW, end_time=NOW)
    options = {"checkpoint": place, "since": NOW - timedelta(days=1), "ack": "manual"}
    async with watching(backup, **options) as changes:
        for change in await take(changes, 4):
            if summary([change]) != [("Added", slow.id)]:
                changes.ack(change)
    async with watching(backup, **options) as changes:
        again = await take(changes, 2)
        assert summary(again) == [("Added", slow.id), ("Finished", slow.id)]
        assert await silent(changes)
        changes.ack(again[1])
        changes.ack(again[0])
    saved = await place.load(backup.name)
    assert saved is not None
    known = {key: one.is_open for key, one in saved.known.items() if one.kind in ("session", "pending")}
    assert known == {slow.id: False, other.id: False}


async def test_what_is_still_to_be_dealt_with_is_not_forgotten(backup: BackupServer) -> None:
    """Though it ended long before what came since: after a crash nothing else would deliver it."""
    place = MemoryCheckpoint()
    at = NOW - timedelta(days=60)
    old = backup.world.add(creation_time=at, end_time=at)
    options = {
        "checkpoint": place, "since": timedelta(days=4000), "ack": "manual", "remember": timedelta(days=5),
    }  # fmt: skip
    async with watching(backup, full_look_every=FAST, **options) as changes:
        await take(changes, 2)
        backup.world.add(creation_time=NOW - timedelta(days=30), end_time=NOW)
        await take(changes, 2)
        backup.requests.clear()
        await until(lambda: asked(backup) >= 4)
    async with watching(backup, **options) as changes:
        assert summary(await take(changes, 2)) == [("Added", old.id), ("Finished", old.id)]


async def test_a_crash_between_two_pages_loses_nothing(backup: BackupServer) -> None:
    """What the first pages brought is no place to go on from; what was away for days is caught up with."""
    place = MemoryCheckpoint()
    async with watching(backup, checkpoint=place) as changes:
        await ready(changes)
    backup.world.advance(timedelta(days=3))
    news = [
        backup.world.add(creation_time=NOW + timedelta(hours=hour), end_time=NOW + timedelta(days=3)).id
        for hour in range(25)
    ]
    held = asyncio.Event()

    async def hold(_: Exchange) -> web.StreamResponse:
        held.set()
        await asyncio.sleep(60)
        raise AssertionError

    backup.fail(Fault("hold", hold), on="RestoreSessions", after=2 if backup.version != "v4" else 0)
    async with watching(backup, checkpoint=place) as changes:
        assert await silent(changes, 0.05)
        await asyncio.wait_for(held.wait(), 30)
    backup.heal()
    async with watching(backup, checkpoint=place) as changes:
        found = summary(await take(changes, 50))
    assert found == [(kind, key) for key in news for kind in ("Added", "Finished")]


async def renamed(backup: BackupServer, expected: int, *, then: BackupServer | None = None) -> list[Change]:
    """The changes of a server that was known by another name, or of another server with a known name."""
    store = MemoryCheckpoint()
    old = backup.world.add(creation_time=NOW - timedelta(days=2), end_time=None)
    backup.world.add(creation_time=NOW - timedelta(days=1), end_time=NOW)
    async with (
        Fleet([server_of(backup, name="vbo1")]) as fleet,
        fleet.watch(every=FAST, checkpoint=store) as changes,
    ):
        assert summary(await take(changes, 1)) == [("Added", old.id)]
        await silent(changes)
    new = backup.world.add(creation_time=NOW, state="Stopped", end_time=NOW)
    backup.world.change(old.id, state="Stopped", end_time=NOW)
    backup.fail(Fault.status(503), on="ServiceInstance")
    backup.fail(Fault.cut(5), on="ServiceInstance", when=lambda request: bool(request.token))
    name = "berlin" if then is None else "vbo1"
    async with (
        Fleet([server_of(then or backup, name=name)], retries=0) as fleet,
        fleet.watch(every=FAST, checkpoint=store) as changes,
    ):
        found = await take(changes, expected)
        # Nothing else is delivered, whatever is polled afterwards.
        await polls(then or backup)
        with suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                found.append(await anext(changes))
        assert {one.session.id for one in found if isinstance(one, Finished)} <= {old.id, new.id}
        return found


async def test_a_server_with_another_name_goes_on_where_it_was(
    backup: BackupServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The installation counts; where a server reports none, the log asks for the old name."""
    expected = 0 if backup.version == "v4" else 5
    found = [type(one).__name__ for one in await renamed(backup, expected) if one.server == "berlin"]
    if backup.version == "v4":
        assert not {"Added", "Finished"} & {*found}
        assert "if it was called vbo1 before, give it that name again" in caplog.text
    else:
        assert found == ["Unreachable", "Recovered", "Finished", "Added", "Finished"]
        assert "berlin is the installation that was called vbo1, and goes on there" in caplog.text


async def test_another_installation_under_an_old_name_is_noticed(caplog: pytest.LogCaptureFixture) -> None:
    """What the former one had is gone, all at once, and the log says which is which."""
    async with (
        BackupServer(World(now=NOW, speed=0, sessions=0), name="one") as one,
        BackupServer(World(now=NOW, speed=0, sessions=0), name="two") as two,
    ):
        found = await renamed(one, 2, then=two)
    assert [type(change).__name__ for change in found] == ["Removed", "Removed"]
    assert "vbo1 responds as installation" in caplog.text


async def test_a_server_that_is_known_to_be_new_is_warned_of_by_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It reported its installation, and so did all that are watched no more."""
    store = MemoryCheckpoint()
    for name in ("one", "two"):
        async with BackupServer(World(now=NOW, speed=0, sessions=0), name=name) as backup:
            begun = backup.world.add(creation_time=NOW, end_time=None)
            async with watching(backup, checkpoint=store) as changes:
                assert summary(await take(changes, 1)) == [("Added", begun.id)]
    assert len({*(await store.servers()).values()} - {None}) == 2
    assert "is new" not in caplog.text


async def test_a_clone_beside_its_original_takes_nothing_from_it(backup: BackupServer) -> None:
    """Two names of one installation in a fleet are two servers, each with changes from its own beginning."""
    begun = backup.world.add(creation_time=NOW, end_time=None)
    servers = [server_of(backup, name="one"), view_of(backup, name="two")]
    async with Fleet(servers) as fleet, fleet.watch(every=FAST) as changes:
        assert {one.server for one in await take(changes, 2)} == {"one", "two"}
        backup.world.change(begun.id, state="Stopped", end_time=NOW)
        assert {one.server for one in await take(changes, 2)} == {"one", "two"}


@pytest.mark.parametrize("version", ["v4", "v6", "v8"])
async def test_what_is_remembered_does_not_grow_with_the_years(version: str) -> None:
    """What is open, and what ended within the time to remember; in memory and in the place."""
    scene = Scene(version)
    now = scene.clock.now()
    first = scene.world.add(creation_time=now - timedelta(days=200), end_time=None)
    minute = timedelta(minutes=1)
    options = {"every": minute, "full_look_every": minute, "heartbeat": 3 * minute, "ack": "auto"}
    async with scene.watching(remember=timedelta(days=5), overlap=timedelta(hours=1), **options) as changes:
        assert [type(one) for one in await scene.take(changes)] == [Added]

        def size() -> int:
            return sum(one.kind == "session" for one in scene.store._places["vbo"].known.values())

        for day in range(60):
            at = now - timedelta(days=60 - day)
            scene.world.add(creation_time=at, state="Stopped", end_time=at)
            assert [type(one) for one in await scene.take(changes)] == [Added, Finished]
            if day % 10 == 9:
                assert size() <= 8
                assert first.id in scene.store._places["vbo"].known
