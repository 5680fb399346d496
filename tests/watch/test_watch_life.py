"""The life of a watch: its load on servers, slow consumers, servers that join and leave, its end."""

import asyncio
import gc
import pickle
import weakref
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from harness import VirtualClock
from harness.backups import asked, server_of, view_of
from harness.watches import FAST, NOW, ready, silent, summary, take, until, watching
from hypothesis import given
from hypothesis import strategies as st

from aiovbo import (
    Added,
    Checkpoint,
    CheckpointError,
    Clock,
    ClosedError,
    Finished,
    Fleet,
    Heartbeat,
    MemoryCheckpoint,
    Password,
    Recovered,
    RowRejected,
    Server,
    Unreachable,
    Watch,
)
from aiovbo._watch.poller import ServerPoller
from aiovbo.testing import BackupServer, Fault, MemoryTransport, SimClock, World


async def test_an_unreachable_server_is_reported_once_and_what_it_did_meanwhile_after() -> None:
    """Unreachable, recovered, and then all that happened, long ago as it may be; its neighbour goes on."""
    async with (
        BackupServer(World(now=NOW, speed=0, sessions=0), name="away") as away,
        BackupServer(World(now=NOW, speed=0, sessions=0), name="there") as there,
    ):
        past = NOW - timedelta(days=5)
        ended = away.world.add(creation_time=past, end_time=past)
        begun = away.world.add(creation_time=NOW, end_time=None)
        async with watching(away, there) as changes:
            assert summary(await take(changes, 1)) == [("Added", begun.id)]
            await away.stop()
            (gone,) = await take(changes, 1)
            assert isinstance(gone, Unreachable)
            assert (gone.server, gone.error.server) == ("away", "away")
            other = there.world.add(creation_time=NOW, end_time=None)
            assert summary(await take(changes, 1)) == [("Added", other.id)]
            assert not changes.status()["away"].up
            away.world.change(begun.id, state="Stopped", end_time=NOW)
            away.world.remove(ended.id)
            await away.start()
            back, *news = await take(changes, 3)
            assert isinstance(back, Recovered)
            assert back.gap > timedelta()
            assert summary(news) == [("Finished", begun.id), ("Removed", ended.id)]
            assert changes.status()["away"].errors == 0


async def test_a_dead_server_is_probed_by_one_request_and_ever_more_rarely() -> None:
    """Once it is known to be down, each poll is one request, and each pause is twice the one before."""
    virtual = VirtualClock()
    clock = Clock(monotonic=virtual.monotonic, now=virtual.now, sleep=virtual.sleep, random=lambda: 0.99)
    async with (
        BackupServer(World(now=virtual.now(), speed=0, sessions=1), version="v4") as backup,
        Fleet([server_of(backup, name="dead", api_version="v4")], clock=clock) as fleet,
    ):
        async with fleet.watch(every=timedelta(seconds=1)) as changes:
            await until(lambda: changes.status()["dead"].up)
            backup.fail(Fault.status(503), times=None)
            backup.requests.clear()
            await until(lambda: changes.status()["dead"].errors >= 8)
            errors, requests = changes.status()["dead"].errors, len(backup.requests)
        # Only the first poll that failed was repeated, twice; one may be under way, one may have succeeded.
        assert errors <= requests <= errors + 4
        first = next(number for number, pause in enumerate(virtual.slept) if pause == pytest.approx(0.995))
        assert virtual.slept[first : first + 7] == pytest.approx([0.995 * 2**number for number in range(7)])


async def test_a_slow_consumer_is_not_buried_and_misses_nothing() -> None:
    """Looks wait for it; nothing grows, nothing is dropped."""
    world = World(now=NOW, speed=0, sessions=400)
    async with (
        BackupServer(world) as backup,
        watching(backup, since=NOW - timedelta(days=4000)) as changes,
    ):
        seen = set[UUID]()
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


async def test_servers_that_all_come_back_at_once_are_not_all_logged_in_to_at_once() -> None:
    """After an outage that took every token with it, the logins are spread over the interval."""
    clock, count = SimClock(NOW), 100
    backups = {
        f"vbo{number}": BackupServer(World(sessions=1, clock=clock), version="v4") for number in range(count)
    }
    login = Password(backups["vbo0"].username, backups["vbo0"].password)
    servers = [Server(name, login, api_version="v4") for name in backups]
    async with (
        Fleet(servers, clock=clock, transport=MemoryTransport(backups), deadline=600) as fleet,
        fleet.watch(every=timedelta(seconds=10)) as changes,
    ):
        while not all(status.up for status in changes.status().values()):
            await clock.sleep(1)
        for one in backups.values():
            one.fail(Fault.status(503), times=None)
            one.revoke_tokens()
        await take(changes, count)
        for one in backups.values():
            one.requests.clear()
            one.heal()
        healed = clock.monotonic()
        while not all(status.up for status in changes.status().values()):
            await clock.sleep(1)
    logins = [r.at for one in backups.values() for r in one.requests if r.resource.lower() == "token"]
    assert len(logins) == count
    in_each_second = Counter(int(at - healed) for at in logins)
    assert max(in_each_second.values()) <= count / 4, in_each_second


@pytest.mark.parametrize(("chance", "looks"), [(0.0, 54), (0.5, 60), (0.99, 66)])
async def test_full_looks_are_spread_by_a_tenth_of_their_interval(chance: float, looks: int) -> None:
    """Servers that were all added at one time are not all read whole at one time ever after."""
    virtual = VirtualClock()
    clock = Clock(monotonic=virtual.monotonic, now=virtual.now, sleep=virtual.sleep, random=lambda: chance)
    world = World(now=virtual.now(), speed=0, sessions=0)
    world.add(creation_time=world.now, end_time=world.now)
    async with (
        BackupServer(world, version="v4", tls=False) as backup,
        Fleet([server_of(backup, api_version="v4")], clock=clock) as fleet,
        fleet.watch(every=timedelta(minutes=1), full_look_every=timedelta(hours=1)),
    ):
        await until(lambda: asked(backup) > 70)
        queries = [one.query for one in backup.requests if one.resource == "RestoreSessions"]
    whole = [number for number, query in enumerate(queries) if query != queries[1]]
    assert whole[0] == 0
    assert abs(whole[1] - looks) <= 1


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
        assert summary(await take(changes, 1)) == [("Added", begun.id)]
        fleet.remove("one")
        await asyncio.sleep(0.05)
        one.requests.clear()
        assert await silent(changes)
        assert one.requests == []
        with pytest.raises(KeyError):
            fleet.remove("one")


async def test_a_server_that_left_and_came_back_goes_on_where_it_was(backup: BackupServer) -> None:
    """Also when it left with changes still to be delivered; what waits is counted right ever after."""
    place = MemoryCheckpoint()
    world = backup.world
    server = server_of(backup, name="vbo")
    async with Fleet([server]) as fleet, fleet.watch(every=FAST, checkpoint=place) as changes:
        await ready(changes)
        keys = {world.add(creation_time=NOW, end_time=NOW).id for _ in range(8)}
        first = await take(changes, 1)
        await until(lambda: changes.status()["vbo"].backlog == 15)
        fleet.remove("vbo")
        assert "vbo" not in changes.status()
        fleet.add(server)
        seen = first + await take(changes, 15)
        while not await silent(changes):
            continue
        assert {one.session.id for one in seen if isinstance(one, Finished)} == keys
        assert changes.status()["vbo"].backlog == 0
        world.add(creation_time=NOW, end_time=None)
        await take(changes, 1)
        assert changes.status()["vbo"].backlog == 0


async def test_what_a_lookout_could_not_hand_over_when_its_server_left_does_not_wait() -> None:
    """More than wait at once: the last one is delivered by the next poller, and counted once."""
    async with (
        BackupServer(World(now=NOW, speed=0, sessions=0), version="v4") as backup,
        Fleet([server_of(backup, name="vbo")]) as fleet,
        fleet.watch(every=FAST) as changes,
    ):
        await until(lambda: changes.status()["vbo"].up)
        for number in range(60):
            last = backup.world.add(creation_time=NOW + timedelta(seconds=number), end_time=NOW)
        await until(lambda: changes.status()["vbo"].backlog == 101)
        server = fleet["vbo"].server
        fleet.remove("vbo")
        fleet.add(server)
        while summary(await take(changes, 1)) != [("Finished", last.id)]:
            continue
        assert changes.status()["vbo"].backlog == 0


async def test_a_server_that_joins_before_the_watch_is_entered_is_watched() -> None:
    """Who is in the fleet counts when the watch begins."""
    async with (
        BackupServer(World(now=NOW, speed=0, sessions=0), name="one") as one,
        BackupServer(World(now=NOW, speed=0, sessions=0), name="two") as two,
        Fleet([server_of(one, name="one")]) as fleet,
    ):
        changes = fleet.watch(every=FAST)
        fleet.add(server_of(two, name="two"))
        async with changes:
            assert set(changes.status()) == {"one", "two"}


async def test_a_watch_that_is_not_open_says_so() -> None:
    """It is entered once, and iterated meanwhile; otherwise nothing would ever come."""
    async with (
        BackupServer(World(now=NOW, speed=0, sessions=0)) as backup,
        Fleet([server_of(backup)]) as fleet,
    ):
        changes = fleet.watch(every=FAST)
        with pytest.raises(ClosedError, match="not open yet"):
            await anext(changes)
        async with changes:
            with pytest.raises(ClosedError, match="used once"):
                await changes.__aenter__()
        closed_unused = fleet.watch(every=FAST)
        await closed_unused.aclose()
        for over in (changes, closed_unused):
            with pytest.raises(ClosedError, match="used once"):
                await over.__aenter__()


async def test_a_watch_whose_closing_is_cancelled_releases_its_checkpoint(tmp_path: Path) -> None:
    """Another one may have the file at once."""
    path = tmp_path / "place.db"
    async with (
        BackupServer(World(now=NOW, speed=0, sessions=0)) as backup,
        Fleet([server_of(backup)]) as fleet,
    ):
        changes = fleet.watch(every=FAST, checkpoint=Checkpoint(path))
        await changes.__aenter__()
        closing = asyncio.create_task(changes.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])
        async with fleet.watch(every=FAST, checkpoint=Checkpoint(path)) as changes:
            assert await silent(changes)


async def test_replacing_a_server_that_was_unreachable_reports_that_it_is_back() -> None:
    """As with its new password, under the same name; and nothing is delivered twice."""
    async with (
        BackupServer(World(now=NOW, speed=0, sessions=0), name="vbo1") as backup,
        Fleet([server_of(backup, name="vbo1")], retries=0) as fleet,
        fleet.watch(every=FAST) as changes,
    ):
        begun = backup.world.add(creation_time=NOW, end_time=None)
        assert summary(await take(changes, 1)) == [("Added", begun.id)]
        backup.password = "another"
        backup.revoke_tokens()
        (gone,) = await take(changes, 1)
        assert isinstance(gone, Unreachable)
        fleet.remove("vbo1")
        fleet.add(server_of(backup, name="vbo1"))
        (back,) = await take(changes, 1)
        assert isinstance(back, Recovered)
        assert await silent(changes)


async def test_nothing_is_kept_of_servers_that_left() -> None:
    """A fleet whose servers come and go would remember the sessions of all that it ever had."""

    def lookouts() -> int:
        gc.collect()
        return sum(type(one) is ServerPoller for one in gc.get_objects())

    async with (
        BackupServer(World(now=NOW, speed=0, sessions=5), version="v4") as backup,
        Fleet([server_of(backup, name="stays")]) as fleet,
        fleet.watch(every=FAST, since=timedelta(days=400)) as changes,
    ):
        await take(changes, 10)
        before = lookouts()
        for number in range(5):
            fleet.add(view_of(backup, name=f"guest{number}"))
            await take(changes, 10)
            fleet.remove(f"guest{number}")
        assert await silent(changes)
        assert lookouts() == before


async def test_nothing_is_kept_of_a_watch_that_was_closed() -> None:
    """A fleet that is watched again and again would remember all that each of them knew."""
    async with (
        BackupServer(World(now=NOW, speed=0, sessions=0)) as backup,
        Fleet([server_of(backup)]) as fleet,
    ):
        async with fleet.watch(every=FAST) as changes:
            backup.world.add(creation_time=NOW, end_time=None)
            await take(changes, 1)
        kept = weakref.ref(changes)
        del changes
        gc.collect()
        assert kept() is None


async def test_a_watch_is_not_used_from_another_thread() -> None:
    """Nothing is half done, and it goes on where it belongs."""
    async with (
        BackupServer(World(now=NOW, speed=0, sessions=0)) as backup,
        Fleet([server_of(backup, name="one")]) as fleet,
        fleet.watch(every=FAST) as changes,
    ):
        for misuse in (
            lambda: fleet.add(server_of(backup, name="two")),
            lambda: fleet.remove("one"),
            lambda: asyncio.run(changes.aclose()),
            lambda: asyncio.run(changes.__anext__()),  # type: ignore[arg-type]  # it is a coroutine
        ):
            with pytest.raises(ClosedError, match="event loop in which it was entered"):
                await asyncio.to_thread(misuse)
        assert list(fleet) == list(changes.status()) == ["one"]
        begun = backup.world.add(creation_time=NOW, end_time=None)
        assert summary(await take(changes, 1)) == [("Added", begun.id)]


async def test_closing_ends_it_for_every_waiting_task() -> None:
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


@given(
    names=st.lists(st.text(st.characters(categories=("L", "N")), min_size=1), unique=True, max_size=40),
    count=st.integers(1, 12),
)
def test_a_new_worker_moves_only_its_share(names: list[str], count: int) -> None:
    """Whatever the servers' names and however many workers: each server belongs to exactly one of them."""
    fleet = Fleet([Server("vbo", Password(name, "p"), name=name) for name in names])

    def owners(workers: int) -> dict[str, int]:
        shares = [list(fleet.shard(index, workers)) for index in range(workers)]
        assert sorted(name for share in shares for name in share) == sorted(names)
        return {name: index for index, share in enumerate(shares) for name in share}

    before, after = owners(count), owners(count + 1)
    assert all(after[name] == count for name in names if after[name] != before[name])


async def test_every_waiting_task_is_notified_of_the_end() -> None:
    """Three tasks that share a watch: each of them learns that there will be no more changes."""
    async with BackupServer() as backup, Fleet([server_of(backup)]) as fleet:
        changes = fleet.watch(ack="manual")
        await changes.__aenter__()
        waiting = [asyncio.ensure_future(anext(changes)) for _ in range(3)]
        await asyncio.sleep(0.01)
        await changes.aclose()
        heard = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(one) for one in heard] == [ClosedError] * 3


async def test_a_watch_is_entered_once_and_closed_once() -> None:
    """Also by two tasks at the same time, whose store takes a while; neither returns before the end."""
    done: list[str] = []

    class Slow(MemoryCheckpoint):
        async def open(self) -> None:
            await asyncio.sleep(0.01)

        async def close(self) -> None:
            await asyncio.sleep(0.01)
            done.append("closed")

    async with BackupServer() as backup, Fleet([server_of(backup)]) as fleet:
        changes = fleet.watch(checkpoint=Slow())
        entered = await asyncio.gather(changes.__aenter__(), changes.__aenter__(), return_exceptions=True)
        assert [type(one) for one in entered] == [Watch, ClosedError]

        async def close() -> list[str]:
            await changes.aclose()
            return list(done)

        assert await asyncio.gather(close(), close()) == [["closed"], ["closed"]]


async def test_a_store_that_is_cancelled_by_others_ends_the_watch_in_words() -> None:
    """Otherwise it would go on delivering changes that are not saved."""

    class Cancelled(MemoryCheckpoint):
        async def save(self, *_: object) -> None:
            raise asyncio.CancelledError

    async with BackupServer() as backup, Fleet([server_of(backup)]) as fleet:
        with pytest.raises(CheckpointError, match="cancelled from outside"):
            watch = fleet.watch(every=timedelta(seconds=0.05), checkpoint=Cancelled())
            async with asyncio.timeout(10), watch as changes:
                async for _ in changes:
                    backup.world.add(type="Vex")


async def test_a_place_that_cannot_be_read_is_the_consumers_to_hear() -> None:
    """The store's own error, as it was raised."""
    error = CheckpointError("it is locked away")

    class Locked(MemoryCheckpoint):
        async def load(self, *_: object) -> None:
            raise error

    async with BackupServer() as backup, watching(backup, checkpoint=Locked()) as changes:
        with pytest.raises(CheckpointError) as caught:
            await take(changes, 1)
    assert caught.value is error


@pytest.mark.parametrize("takes", [0.0, 0.01], ids=["at once", "when it is closed"])
@pytest.mark.parametrize("has_failed", [False, True])
async def test_a_last_save_that_fails_is_heard_of(*, has_failed: bool, takes: float) -> None:
    """By an error of its own, or a note at the error of the block; also where no task waits for more."""

    class Full(MemoryCheckpoint):
        is_full = False

        async def save(self, *of: Any) -> None:
            if self.is_full:
                await asyncio.sleep(takes)
                saved.set()
                raise CheckpointError("no space left")
            await super().save(*of)

    store, saved = Full(), asyncio.Event()
    async with BackupServer(World(now=NOW, speed=0, sessions=0)) as backup:
        backup.world.add(creation_time=NOW, end_time=None)
        with pytest.raises((CheckpointError, RuntimeError)) as caught:
            async with watching(backup, checkpoint=store, ack="manual") as changes:
                (change,) = await take(changes, 1)
                store.is_full = True
                changes.ack(change)
                if not takes:
                    await saved.wait()
                if has_failed:
                    raise RuntimeError("of the block")
    if has_failed:
        assert str(caught.value) == "of the block"
        assert caught.value.__notes__ == ["While the watch was closed: no space left"]
    else:
        assert str(caught.value) == "no space left"


async def test_an_invalid_feed_is_the_failure_of_its_server_only() -> None:
    """Whatever its answer holds in place of events, or of the token that it goes on with."""
    async with (
        asyncio.timeout(20),
        BackupServer(World(1)) as bad,
        BackupServer(World(2)) as good,
        Fleet([server_of(bad), server_of(good)], retries=0) as fleet,
        fleet.watch(every=timedelta(seconds=0.05)) as changes,
    ):
        for odd in ({"results": 5}, {"results": True}, {"nextChangeToken": "x" * 100_000}):
            bad.fail(Fault.edit(lambda page, odd=odd: {**page, **odd}), on="Events", times=2)
            added = str(good.world.add(type="Vex").id)
            async for change in changes:
                if isinstance(change, Added) and str(change.session.id) == added:
                    break


@pytest.mark.parametrize("version", ["v4", "v6", "v8"])
async def test_rows_that_are_invalid_for_a_while_do_not_count_as_removed(version: str) -> None:
    """Eleven of twelve sessions, more than are fetched one by one, are rejected by several lists in a row."""

    def spoiled(document: Any) -> Any:  # JSON holds anything
        rows = document if isinstance(document, list) else document.get("results", [])
        for row in rows[1:]:
            row["creationTime"] = None
        return document

    every = timedelta(seconds=0.05)
    async with (
        asyncio.timeout(20),
        BackupServer(World(sessions=12, speed=0), version=version) as backup,  # type: ignore[arg-type]  # parametrised
        Fleet([server_of(backup)], retries=0) as fleet,
        fleet.watch(every=every, full_look_every=2 * every) as changes,
    ):
        await until(lambda: all(status.up for status in changes.status().values()))
        backup.requests.clear()
        backup.fail(Fault.edit(spoiled), on="RestoreSessions", times=6)
        await until(lambda: asked(backup) >= 8)
        added = backup.world.add(type="Vex")
        change = await anext(changes)
        while isinstance(change, RowRejected):
            change = await anext(changes)
        assert isinstance(change, Added)
        assert str(change.session.id) == str(added.id)


async def test_a_server_that_goes_down_is_retried_once_and_then_probed_without_retries() -> None:
    """The poll that finds it down repeats its request as usual; each later one is a single request."""
    clock = Clock(sleep=lambda seconds: asyncio.sleep(min(seconds, 0.02)), random=lambda: 0.0)
    async with (
        BackupServer(World(now=NOW, speed=0, sessions=1), version="v4", name="down") as down,
        BackupServer(World(now=NOW, speed=0, sessions=0), version="v4", name="healthy") as healthy,
        watching(down, healthy, clock=clock, retries=2) as changes,
    ):
        await ready(changes)
        down.requests.clear()
        down.fail(Fault.status(503), times=None)
        (gone,) = await take(changes, 1)
        assert isinstance(gone, Unreachable)
        assert len(down.requests) == 3
        await until(lambda: changes.status()["down"].errors >= 4)
        assert len(down.requests) <= 3 + changes.status()["down"].errors
        assert changes.status()["healthy"].errors == 0
