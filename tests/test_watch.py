"""Watching a fleet: every change once at least, none lost, whatever the server and the network do."""

import asyncio
import os
import pickle
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from uuid import UUID

import pytest
from backups import asked, server_of

from aiovbo import (
    Added,
    Change,
    Changed,
    Checkpoint,
    Clock,
    ClosedError,
    Finished,
    Fleet,
    Heartbeat,
    MemoryCheckpoint,
    Recovered,
    Removed,
    RestoreSessionResult,
    Unreachable,
    Watch,
)
from aiovbo.testing import BackupFleet, BackupServer, Fault, World

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
FAST = timedelta(milliseconds=20)
VERSIONS = ["v4", "v6", "v8"]


@pytest.fixture(params=VERSIONS)
async def backup(request: pytest.FixtureRequest) -> AsyncIterator[BackupServer]:
    """A server whose world stands still until a test moves it."""
    async with BackupServer(World(now=NOW, speed=0, sessions=0), version=request.param) as server:
        yield server


@asynccontextmanager
async def watching(*backups: BackupServer, **options: object) -> AsyncIterator[Watch]:
    """A watch of these servers, hasty."""
    servers = [server_of(one, name=one.name) for one in backups]
    settings = {"every": FAST, **options}
    async with Fleet(servers, retries=0) as fleet, fleet.watch(**settings) as changes:  # type: ignore[arg-type]  # as given
        yield changes


async def take(changes: Watch, count: int, seconds: float = 5.0) -> list[Change]:
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


async def until(it_is: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait for something that is bound to happen."""
    async with asyncio.timeout(seconds):
        while not it_is():
            await asyncio.sleep(0.01)


def told(changes: list[Change]) -> list[tuple[str, object]]:
    """Kind and session of each change."""
    return [(type(c).__name__, c.session_id if isinstance(c, Removed) else c.session.id) for c in changes]  # type: ignore[attr-defined]  # all of these have one


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


async def test_what_starts_and_ends_between_two_looks_is_told_whole(backup: BackupServer) -> None:
    """Added, then finished."""
    async with watching(backup) as changes:
        await silent(changes)
        done = backup.world.add(creation_time=NOW - timedelta(seconds=5), end_time=NOW)
        assert told(await take(changes, 2)) == [("Added", done.id), ("Finished", done.id)]
        assert await silent(changes)


async def test_an_old_session_that_ends_now_is_told(backup: BackupServer) -> None:
    """It was created long before the newest one, and before anybody watched."""
    old = backup.world.add(creation_time=NOW - timedelta(days=300), end_time=None)
    new = backup.world.add(creation_time=NOW, end_time=NOW)
    async with watching(backup) as changes:
        assert told(await take(changes, 1)) == [("Added", old.id)]
        backup.world.change(old.id, state="Stopped", end_time=NOW)
        assert told(await take(changes, 1)) == [("Finished", old.id)]
        assert await silent(changes)
        assert new.id != old.id


async def test_a_first_start_may_begin_in_the_past(backup: BackupServer) -> None:
    """What was created since is told whole; what had ended before is not."""
    backup.world.add(creation_time=NOW - timedelta(days=3), end_time=NOW - timedelta(days=3))
    late = backup.world.add(creation_time=NOW - timedelta(hours=1), end_time=NOW)
    async with watching(backup, since=NOW - timedelta(days=1)) as changes:
        assert told(await take(changes, 2)) == [("Added", late.id), ("Finished", late.id)]
        assert await silent(changes)


@pytest.mark.parametrize("age", [timedelta(minutes=30), timedelta(days=3)])
async def test_a_row_that_appears_late_is_caught(backup: BackupServer, age: timedelta) -> None:
    """By the overlap, or beyond it by the next full look."""
    backup.world.add(creation_time=NOW, end_time=NOW)
    async with watching(backup, full_look_every=timedelta(milliseconds=100)) as changes:
        await silent(changes, 0.1)
        late = backup.world.add(creation_time=NOW - age, end_time=NOW - age)
        assert told(await take(changes, 2)) == [("Added", late.id), ("Finished", late.id)]


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


async def test_a_server_that_is_restored_from_a_backup_of_itself_breaks_nothing(backup: BackupServer) -> None:
    """Ids vanish and its clock goes back; what it does from then on is told."""
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
        assert told(await take(changes, 1)) == [("Added", after.id)]
        backup.world.change(first.id, state="Stopped", end_time=NOW)
        assert told(await take(changes, 1)) == [("Finished", first.id)]


async def test_a_server_that_is_away_is_told_once_and_what_it_did_meanwhile_after() -> None:
    """Unreachable, recovered, and then all that happened; its neighbour goes on."""
    async with (
        BackupServer(World(now=NOW, speed=0, sessions=0), name="away") as away,
        BackupServer(World(now=NOW, speed=0, sessions=0), name="there") as there,
    ):
        begun = away.world.add(creation_time=NOW, end_time=None)
        async with watching(away, there) as changes:
            assert told(await take(changes, 1)) == [("Added", begun.id)]
            await away.stop()
            (gone,) = await take(changes, 1)
            assert isinstance(gone, Unreachable)
            assert (gone.server, gone.error.server) == ("away", "away")
            other = there.world.add(creation_time=NOW, end_time=None)
            assert told(await take(changes, 1)) == [("Added", other.id)]
            assert not changes.status()["away"].up
            away.world.change(begun.id, state="Stopped", end_time=NOW)
            await away.start()
            back, finished = await take(changes, 2)
            assert isinstance(back, Recovered)
            assert back.gap > timedelta()
            assert told([finished]) == [("Finished", begun.id)]
            assert changes.status()["away"].errors == 0


async def test_a_dead_server_is_probed_by_one_request_and_ever_more_rarely() -> None:
    """No flood, however long it is dead."""
    async with BackupServer(World(now=NOW, speed=0, sessions=1)) as backup:
        servers = [server_of(backup, name="dead", api_version="v8")]
        async with Fleet(servers) as fleet, fleet.watch(every=FAST) as changes:
            await silent(changes, 0.1)
            backup.fail(Fault.status(503), times=None)
            await take(changes, 1)
            backup.requests.clear()
            await asyncio.sleep(0.6)
            assert len(backup.requests) <= 6


async def test_a_restart_goes_on_where_it_was(backup: BackupServer, tmp_path: Path) -> None:
    """What was delivered is not told again; what happened meanwhile is."""
    file = tmp_path / "place.db"
    one = backup.world.add(creation_time=NOW, end_time=None)
    async with watching(backup, checkpoint=Checkpoint(file)) as changes:
        await take(changes, 1)
        # Asking for the next one is what says that the last was dealt with.
        await silent(changes)
    two = backup.world.add(creation_time=NOW, end_time=None)
    backup.world.change(one.id, state="Stopped", end_time=NOW)
    async with watching(backup, checkpoint=Checkpoint(file)) as changes:
        assert set(told(await take(changes, 2))) == {("Finished", one.id), ("Added", two.id)}
        assert await silent(changes)


async def test_what_was_not_dealt_with_is_told_again_with_the_same_id(backup: BackupServer) -> None:
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
    """Then asking for the next one says nothing; an ack counts for what came before it, too."""
    place = MemoryCheckpoint()
    for _ in range(3):
        backup.world.add(creation_time=NOW, end_time=None)
    options = {"checkpoint": place, "since": NOW - timedelta(days=1), "ack": "manual"}
    async with watching(backup, **options) as changes:
        first = await take(changes, 3)
        changes.ack(first[1])
    async with watching(backup, **options) as changes:
        assert [change.id for change in await take(changes, 1)] == [first[2].id]
        assert await silent(changes)


async def test_a_slow_consumer_is_not_buried_and_misses_nothing() -> None:
    """Looks wait for it; nothing grows, nothing is dropped."""
    world = World(now=NOW, speed=0, sessions=400)
    async with (
        BackupServer(world) as backup,
        watching(backup, since=NOW - timedelta(days=4000)) as changes,
    ):
        seen: set[UUID] = set()
        most = 0
        while len(seen) < 400:
            (change,) = await take(changes, 1)
            most = max(most, changes.status()[backup.name].backlog)
            if isinstance(change, Added):
                seen.add(change.session.id)
            if len(seen) % 100 == 0:
                await asyncio.sleep(0.05)
        assert most <= 103


async def test_a_heartbeat_says_that_the_watch_is_alive() -> None:
    """Where nothing happens."""
    async with BackupServer(World(now=NOW, speed=0, sessions=1)) as backup:
        async with watching(backup, heartbeat=timedelta(milliseconds=100)) as changes:
            await asyncio.sleep(0.05)
            beats = await take(changes, 2)
        assert all(isinstance(beat, Heartbeat) and beat.up == 1 for beat in beats)


async def test_a_look_that_takes_longer_than_the_interval_skips_beats() -> None:
    """Two looks at one server never overlap."""
    async with BackupServer(World(now=NOW, speed=0, sessions=1), version="v4") as backup:
        backup.fail(Fault.delay(0.1), on="RestoreSessions", times=None)
        async with watching(backup) as changes:
            await silent(changes, 0.6)
            assert changes.status()[backup.name].overruns >= 3
        assert asked(backup) <= 8


async def test_servers_that_all_come_back_at_once_are_not_all_logged_on_to_at_once() -> None:
    """After an outage that took every token with it, the logons are spread over the interval."""
    faster, count = 10, 100
    begin = time.monotonic()
    clock = Clock(
        monotonic=lambda: time.monotonic() * faster,
        now=lambda: NOW + timedelta(seconds=(time.monotonic() - begin) * faster),
        sleep=lambda seconds: asyncio.sleep(seconds / faster),
    )
    async with BackupFleet(count, sessions=1, versions=("v4",)) as backups:
        servers = [
            server_of(one, name=f"vbo{number}", api_version="v4") for number, one in enumerate(backups)
        ]
        async with (
            Fleet(servers, clock=clock, deadline=600) as fleet,
            fleet.watch(every=timedelta(seconds=10)) as changes,
        ):
            await until(lambda: all(status.up for status in changes.status().values()))
            for one in backups:
                one.fail(Fault.status(503), times=None)
                one.revoke_tokens()
            await take(changes, count)
            for one in backups:
                one.requests.clear()
                one.heal()
            healed = time.monotonic()
            await until(lambda: all(status.up for status in changes.status().values()))
        logons = [r.at for one in backups for r in one.requests if r.resource.lower() == "token"]
        assert len(logons) == count
        in_each_second = Counter(int((at - healed) * faster) for at in logons)
        assert max(in_each_second.values()) <= count / 4, in_each_second


async def test_many_watches_of_one_moment_are_spread_and_steady() -> None:
    """Each server has its own place in the interval, the same after a restart."""
    async with BackupFleet(20, sessions=1, versions=("v4",)) as backups:
        servers = [
            server_of(one, name=f"vbo{number}", api_version="v4") for number, one in enumerate(backups)
        ]
        places: list[list[float]] = []
        for _ in range(2):
            for one in backups:
                one.requests.clear()
            async with Fleet(servers) as fleet, fleet.watch(every=timedelta(seconds=1)) as changes:
                await silent(changes, 2.6)
                offset = time.time() - time.monotonic()
                last = [
                    [r.at for r in one.requests if r.resource == "RestoreSessions"][-1] for one in backups
                ]
                places.append([(at + offset) % 1 for at in last])
        assert len({round(place, 1) for place in places[0]}) >= 6
        differences = [min((a - b) % 1, (b - a) % 1) for a, b in zip(*places, strict=True)]
        assert sum(difference < 0.15 for difference in differences) >= 17


async def renamed(backup: BackupServer, *, then: BackupServer | None = None) -> list[Change]:
    """What a watch tells of a server that it knew by another name; of another server, by the same name."""
    store = MemoryCheckpoint()
    old = backup.world.add(creation_time=NOW - timedelta(days=2), end_time=None)
    backup.world.add(creation_time=NOW - timedelta(days=1), end_time=NOW)
    async with (
        Fleet([server_of(backup, name="vbo1")]) as fleet,
        fleet.watch(every=FAST, checkpoint=store) as changes,
    ):
        assert told(await take(changes, 1)) == [("Added", old.id)]
        await silent(changes)
    new = backup.world.add(creation_time=NOW, state="Stopped", end_time=NOW)
    backup.world.change(old.id, state="Stopped", end_time=NOW)
    backup.fail(Fault.status(503), on="ServiceInstance", times=2)
    name = "berlin" if then is None else "vbo1"
    async with (
        Fleet([server_of(then or backup, name=name)], retries=0) as fleet,
        fleet.watch(every=FAST, checkpoint=store) as changes,
    ):
        found: list[Change] = []
        with suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                async for change in changes:
                    found.append(change)  # noqa: PERF401  # what came before the timeout counts
        assert {one.session.id for one in found if isinstance(one, Finished)} <= {old.id, new.id}
        return found


async def test_a_server_with_another_name_goes_on_where_it_was(
    backup: BackupServer, caplog: pytest.LogCaptureFixture
) -> None:
    """It is the installation that counts; where a server tells none, the log asks for the old name."""
    found = [type(one).__name__ for one in await renamed(backup) if one.server == "berlin"]
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
        found = await renamed(one, then=two)
    assert [type(change).__name__ for change in found] == ["Removed", "Removed"]
    assert "vbo1 answers as installation" in caplog.text


async def test_a_clone_beside_its_original_takes_nothing_from_it(backup: BackupServer) -> None:
    """Two names of one installation in a fleet are two servers, each told from its own beginning."""
    begun = backup.world.add(creation_time=NOW, end_time=None)
    servers = [server_of(backup, name="one"), server_of(backup, name="two")]
    async with Fleet(servers) as fleet, fleet.watch(every=FAST) as changes:
        assert {one.server for one in await take(changes, 2)} == {"one", "two"}
        backup.world.change(begun.id, state="Stopped", end_time=NOW)
        assert {one.server for one in await take(changes, 2)} == {"one", "two"}


async def test_what_is_remembered_does_not_grow_with_the_years(backup: BackupServer) -> None:
    """What is open, and what ended within the time to remember; in memory and in the place."""
    store = MemoryCheckpoint()
    first = backup.world.add(creation_time=NOW - timedelta(days=200), end_time=None)
    options = {"checkpoint": store, "remember": timedelta(days=5), "overlap": timedelta(hours=1)}
    async with watching(backup, every=FAST, full_look_every=FAST, **options) as changes:
        await take(changes, 1)
        sizes: list[int] = []
        for day in range(60):
            at = NOW - timedelta(days=60 - day)
            backup.world.add(creation_time=at, state="Stopped", end_time=at)
            assert [type(one) for one in await take(changes, 2)] == [Added, Finished]
            if day % 10 == 9:
                await silent(changes, 0.1)
                place = await store.load(backup.name)
                assert place is not None
                assert first.id in place.known
                sizes.append(len(place.known))
    assert max(sizes) <= 8, sizes


async def test_servers_come_and_go_while_it_runs() -> None:
    """A new one is watched from then on; one that left is not asked any more."""
    async with (
        BackupServer(World(now=NOW, speed=0, sessions=0), name="one") as one,
        BackupServer(World(now=NOW, speed=0, sessions=0), name="two") as two,
        Fleet([server_of(one, name="one")]) as fleet,
        fleet.watch(every=FAST) as changes,
    ):
        await silent(changes, 0.1)
        fleet.add(server_of(two, name="two"))
        assert set(fleet) == {"one", "two"}
        begun = two.world.add(creation_time=NOW, end_time=None)
        assert told(await take(changes, 1)) == [("Added", begun.id)]
        fleet.remove("one")
        await asyncio.sleep(0.05)
        one.requests.clear()
        assert await silent(changes)
        assert one.requests == []
        with pytest.raises(KeyError):
            fleet.remove("one")


async def test_an_outdated_change_token_costs_a_full_look_and_loses_nothing() -> None:
    """The server has forgotten what happened since."""
    async with BackupServer(World(now=NOW, speed=0, sessions=0)) as backup, watching(backup) as changes:
        await silent(changes)
        backup.forget_events()
        begun = backup.world.add(creation_time=NOW, end_time=None)
        assert told(await take(changes, 1)) == [("Added", begun.id)]


async def test_v8_tells_by_itself_long_before_the_next_beat() -> None:
    """The poll waits at the server."""
    async with (
        BackupServer(World(now=NOW, speed=0, sessions=0)) as backup,
        watching(backup, every=timedelta(seconds=3)) as changes,
    ):
        while not any("from=" in one.query and "latest" not in one.query for one in backup.requests):
            await asyncio.sleep(0.05)
        started = time.monotonic()
        backup.world.add(creation_time=NOW, end_time=None)
        await take(changes, 1)
        assert time.monotonic() - started < 1.0


async def test_closing_ends_it_for_whoever_waits() -> None:
    """The fleet's end is the watch's end."""
    async with BackupServer(World(now=NOW, speed=0, sessions=0)) as backup:
        fleet = Fleet([server_of(backup)])
        async with fleet.watch(every=FAST) as changes:
            waiting = asyncio.create_task(anext(changes))
            await asyncio.sleep(0.1)
            await fleet.aclose()
            with pytest.raises(ClosedError):
                await waiting
        with pytest.raises(ClosedError):
            fleet.watch()


async def test_changes_travel_to_other_processes() -> None:
    """They pickle, whatever they hold."""
    async with BackupServer(World(now=NOW, speed=0, sessions=0)) as backup:
        backup.world.add(creation_time=NOW, end_time=None)
        async with watching(backup) as changes:
            (change,) = await take(changes, 1)
            await backup.stop()
            (gone,) = await take(changes, 1)
        assert pickle.loads(pickle.dumps(change)) == change
        assert str(pickle.loads(pickle.dumps(gone)).error) == str(gone.error)  # type: ignore[attr-defined]  # an Unreachable


def test_a_fleet_is_shared_out_by_name_and_a_new_worker_moves_only_its_share() -> None:
    """Each server belongs to exactly one worker."""
    from aiovbo import Password, Server  # noqa: PLC0415  # here only

    fleet = Fleet([Server(f"vbo{number}", Password("u", "p")) for number in range(300)])
    before = {name: index for index in range(3) for name in fleet.shard(index, 3)}
    after = {name: index for index in range(4) for name in fleet.shard(index, 4)}
    assert set(before) == set(after) == set(fleet)
    moved = [name for name in before if before[name] != after[name]]
    assert all(after[name] == 3 for name in moved)
    assert 40 < len(moved) < 110
    with pytest.raises(ValueError, match="index"):
        fleet.shard(3, 3)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("seed", range(4))
async def test_random_histories_are_rebuilt_from_the_changes(  # noqa: C901  # one history, told in order
    version: str, seed: int, tmp_path: Path
) -> None:
    """Sessions come, go on, end and vanish, late and early, with faults, and restarts before or after an ack.

    What the changes say is what the server went through; a repeated change has the id that it had.
    """
    random = Random(seed)  # noqa: S311  # it is to be repeatable
    file = tmp_path / "place.db"
    async with BackupServer(World(now=NOW, speed=0, sessions=3), version=version) as backup:  # type: ignore[arg-type]  # parametrised
        world = backup.world
        model: dict[UUID, str] = {}
        ids: set[str] = set()
        history: dict[UUID, list[str]] = {}

        def take_in(change: Change) -> None:
            if isinstance(change, Unreachable | Recovered) or change.id in ids:
                return
            ids.add(change.id)
            if isinstance(change, Removed):
                model.pop(change.session_id, None)
                history.setdefault(change.session_id, []).append("Removed")
            elif isinstance(change, Added | Changed | Finished):
                model[change.session.id] = str(change.session.state)
                history.setdefault(change.session.id, []).append(type(change).__name__)

        ended: set[UUID] = set()
        for round_ in range(6):
            options = {"full_look_every": timedelta(milliseconds=60), "since": NOW - timedelta(days=4000)}
            async with watching(backup, checkpoint=Checkpoint(file), **options) as changes:
                for _ in range(random.randint(2, 6)):
                    ended |= happen(backup, random)
                    deadline = time.monotonic() + random.choice((0.03, 0.1))
                    while (left := deadline - time.monotonic()) > 0:
                        try:
                            async with asyncio.timeout(left):
                                take_in(await anext(changes))
                        except TimeoutError:
                            break
                backup.heal()
                if round_ == 5:
                    await catch_up(changes, take_in, world, model)
        assert model == {one.id: one.state for one in world.sessions}
        for key in ended:
            assert "Finished" in history[key] or "Removed" in history[key]


def happen(backup: BackupServer, random: Random) -> set[UUID]:
    """One thing or other that servers and networks do; the sessions that ended."""
    world = backup.world
    kind = random.choice(("add", "add", "late", "done", "end", "end", "remove", "fault", "advance", "revoke"))
    open_ones = [one for one in world.sessions if one.state == "Working"]
    if kind in ("add", "late", "done"):
        age = timedelta(days=random.randint(0, 20) if kind == "late" else 0)
        begun = world.now - age
        added = world.add(creation_time=begun, end_time=begun if kind == "done" else None)
        return {added.id} if kind == "done" else set()
    if kind == "end" and open_ones:
        one = random.choice(open_ones)
        world.change(one.id, state="Stopped", end_time=world.now)
        return {one.id}
    if kind == "remove" and world.sessions:
        world.remove(random.choice(world.sessions).id)
    elif kind == "fault":
        fault = random.choice(
            (Fault.status(503), Fault.drop(), Fault.empty(), Fault.body(b"[{"), Fault.cut(5))
        )
        backup.fail(fault, times=random.randint(1, 3))
    elif kind == "advance":
        world.advance(timedelta(hours=random.randint(1, 40)))
    elif kind == "revoke":
        backup.revoke_tokens()
    return set()


async def catch_up(changes: Watch, take_in: object, world: World, model: dict[UUID, str]) -> None:
    """Wait until the changes have told what is there now."""
    ends = time.monotonic() + 20
    while model != {one.id: one.state for one in world.sessions}:
        assert time.monotonic() < ends, (model, world.sessions, changes.status())
        with suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                take_in(await anext(changes))  # type: ignore[operator]  # a function


WATCHER = """
import asyncio, sys
from datetime import timedelta
from aiovbo import *
async def main(url, user, password, ca, place, out):
    login, trust = Password(user, password), TLS(ca_file=ca)
    async with Fleet([Server(url, login, tls=trust, name="vbo")]) as fleet:
        options = {"checkpoint": Checkpoint(place), "since": timedelta(days=4000)}
        async with fleet.watch(every=timedelta(milliseconds=20), **options) as changes:
            async for change in changes:
                if isinstance(change, Added | Finished):
                    with open(out, "a") as file:
                        file.write(f"{change.id} {type(change).__name__} {change.session.id}\\n")
asyncio.run(main(*sys.argv[1:]))
"""


def test_killed_at_any_moment_it_loses_nothing(tmp_path: Path) -> None:
    """A process that watches is killed again and again, as by a power cut, and started anew."""
    place, out = tmp_path / "place.db", tmp_path / "out"
    out.touch()
    random = Random(1)  # noqa: S311  # it is to be repeatable
    world = World(now=NOW, speed=0, sessions=0)
    kills = int(os.environ.get("AIOVBO_TEST_KILLS", "6"))
    with BackupServer(world, version="v6").run_in_thread() as backup:
        arguments = [backup.url, backup.username, backup.password, backup.ca_file, str(place), str(out)]
        for number in range(kills):
            watcher = subprocess.Popen([sys.executable, "-c", WATCHER, *arguments])
            ends = time.monotonic() + 0.5 + random.random() / 2
            while time.monotonic() < ends:
                world.add(creation_time=NOW - timedelta(seconds=60 - number), end_time=NOW)
                time.sleep(random.random() / 50)
            watcher.send_signal(signal.SIGKILL)
            watcher.wait()
        watcher = subprocess.Popen([sys.executable, "-c", WATCHER, *arguments])
        wanted = {f"{kind} {one.id}" for one in world.sessions for kind in ("Added", "Finished")}
        ends = time.monotonic() + 30
        seen: set[str] = set()
        while not wanted <= seen and time.monotonic() < ends:
            time.sleep(0.1)
            lines = [line.split(" ", 1) for line in out.read_text().splitlines()]
            seen = {rest for _, rest in lines}
        watcher.kill()
        watcher.wait()
    assert wanted <= seen
    by_id: dict[str, set[str]] = {}
    for key, rest in lines:
        by_id.setdefault(key, set()).add(rest)
    # What came twice came with the id that it had.
    assert all(len(rests) == 1 for rests in by_id.values())
    assert len(by_id) == len(wanted)
