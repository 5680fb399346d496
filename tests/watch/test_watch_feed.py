"""The change feed of v8: the same changes as by lists, sooner and for less."""

import asyncio
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from urllib.parse import parse_qs
from uuid import UUID

import pytest
from aiohttp import web
from harness.backups import asked
from harness.watches import NOW, VERSIONS, silent, summary, take, until, watching

from aiovbo import Checkpoint, Clock, Recovered, Removed, Unreachable
from aiovbo.testing import BackupServer, Fault, World
from aiovbo.testing._faults import Exchange
from aiovbo.testing._requests import ReceivedRequest


async def test_a_token_of_the_feed_goes_back_as_it_came() -> None:
    """It is the server's, and may be any text."""
    token = "a+b/c==&limit=0#ü %41"
    asked_with: list[str | None] = []

    async def odd(_: Exchange) -> web.StreamResponse:
        return web.json_response({"nextChangeToken": token, "limit": 1, "results": []})

    async def note(exchange: Exchange) -> web.StreamResponse:
        asked_with.append(exchange.request.query.get("from"))
        return web.json_response({"nextChangeToken": token, "limit": 1, "results": []})

    async with BackupServer(World(now=NOW, speed=0, sessions=0)) as backup:
        backup.fail(Fault("odd", odd), on="Events", times=1)
        backup.fail(Fault("note", note), on="Events", times=None)
        async with watching(backup):
            await until(lambda: len(asked_with) >= 2)
    assert set(asked_with) == {token}


async def test_many_sessions_of_the_feed_cost_one_list_no_longer_than_needed() -> None:
    """Few are fetched one by one; many by a list that begins with the oldest of them."""
    async with BackupServer(World(now=NOW, speed=0, sessions=0)) as backup:
        old, *others = [
            backup.world.add(creation_time=NOW - timedelta(days=day), end_time=None)
            for day in range(20, 0, -1)
        ]
        async with watching(backup) as changes:
            await take(changes, 20)
            await silent(changes)
            backup.requests.clear()
            for one in others[:3]:
                backup.world.change(one.id, result="Failed")
            await take(changes, 3)
            assert asked(backup) == 0
            for one in others[4:]:
                backup.world.change(one.id, state="Stopped", end_time=NOW)
            assert {key for _, key in summary(await take(changes, 15))} == {one.id for one in others[4:]}
            listed = [one for one in backup.requests if one.resource == "RestoreSessions"]
            fetched = [one for one in backup.requests if one.resource.startswith("RestoreSessions/")]
            assert 1 <= len(listed) <= 2
            assert len(fetched) <= 3 + 10
            since = min(datetime.fromisoformat(parse_qs(one.query)["startTimeFrom"][0]) for one in listed)
            assert since > old.creation_time + timedelta(days=1)


async def test_every_version_reports_the_same(tmp_path: Path) -> None:
    """By lists or by the feed: the same history is the same changes, in the same order."""
    worlds = [World(now=NOW, speed=0, sessions=0) for _ in VERSIONS]
    random = Random(5)  # noqa: S311  # it is to be repeatable
    keys = [UUID(int=number) for number in range(30)]
    async with AsyncExitStack() as stack:
        backups = [
            await stack.enter_async_context(BackupServer(world, version=version, name=version))  # type: ignore[arg-type]  # one of them
            for world, version in zip(worlds, VERSIONS, strict=True)
        ]
        changes = await stack.enter_async_context(
            watching(*backups, checkpoint=Checkpoint(tmp_path / "p.db"))
        )
        for key in keys:
            running = [one.id for one in worlds[0].sessions if one.state == "Working"]
            kind = random.choice(("comes", "is over", "ends", "moves on", "vanishes"))
            chosen = random.choice(running) if running else None
            for world in worlds:
                if kind in ("comes", "is over") or chosen is None:
                    world.add(id=key, creation_time=NOW, end_time=NOW if kind == "is over" else None)
                elif kind == "ends":
                    world.change(chosen, state="Stopped", end_time=NOW, result="Success")
                elif kind == "moves on":
                    world.change(chosen, result=f"R{key.int}")
                else:
                    world.remove(chosen)
            each = 2 if kind == "is over" else 1
            found: dict[str, list[tuple[str, object]]] = {version: [] for version in VERSIONS}
            for change in await take(changes, each * len(VERSIONS)):
                found[change.server] += summary([change])
            assert found["v4"] == found["v6"] == found["v8"], kind


async def test_an_outdated_change_token_costs_a_full_look_and_loses_nothing() -> None:
    """The server has forgotten what happened since."""
    async with BackupServer(World(now=NOW, speed=0, sessions=0)) as backup, watching(backup) as changes:
        await silent(changes)
        backup.forget_events()
        begun = backup.world.add(creation_time=NOW, end_time=None)
        assert summary(await take(changes, 1)) == [("Added", begun.id)]


@pytest.mark.parametrize("status", [403, 404])
async def test_a_server_without_the_feed_is_asked_for_lists(status: int) -> None:
    """One that has none, or not for this account; the server is not out of reach for that."""
    async with BackupServer(World(now=NOW, speed=0, sessions=0)) as backup:
        backup.fail(Fault.status(status), on="Events", times=None)
        async with watching(backup) as changes:
            await until(lambda: asked(backup) >= 3)
            begun = backup.world.add(creation_time=NOW, end_time=None)
            assert summary(await take(changes, 1)) == [("Added", begun.id)]
        assert asked(backup, "Events") == 1


async def test_v8_reports_long_before_the_next_scheduled_poll() -> None:
    """The poll waits at the server."""
    async with (
        BackupServer(World(now=NOW, speed=0, sessions=0)) as backup,
        watching(backup, every=timedelta(seconds=3)) as changes,
    ):
        while not any("from=" in one.query and "latest" not in one.query for one in backup.requests):
            await asyncio.sleep(0.05)
        polls, lists = asked(backup, "Events"), asked(backup)
        backup.world.add(creation_time=NOW, end_time=None)
        await take(changes, 1, seconds=20)
        # The poll that waited has reported it: no list was requested, and at most the next poll has begun.
        assert asked(backup) == lists
        assert asked(backup, "Events") <= polls + 1


FAILING = [
    Fault.status(400),
    Fault.status(405),
    Fault.status(429),
    Fault.status(500),
    Fault.status(501),
    Fault.status(503),
    Fault.empty(),
    Fault.body(b"<html>blocked</html>", "text/html"),
    Fault.body(b'{"results": 5}'),
    Fault.drop(),
]


@pytest.mark.parametrize("fault", FAILING, ids=lambda fault: fault.name)
async def test_a_feed_that_fails_hides_no_change(fault: Fault, caplog: pytest.LogCaptureFixture) -> None:
    """Lists report everything; the server stays up; few requests are for the feed, and one line is logged."""
    async with BackupServer(World(now=NOW, speed=0, sessions=0)) as backup:
        backup.fail(fault, on="Events", times=None)
        begun = backup.world.add(creation_time=NOW, end_time=None)
        async with watching(backup) as changes:
            assert summary(await take(changes, 1)) == [("Added", begun.id)]
            backup.world.change(begun.id, state="Stopped", end_time=NOW)
            assert summary(await take(changes, 1)) == [("Finished", begun.id)]
            lists = asked(backup)
            await until(lambda: asked(backup) >= lists + 10)
            assert changes.status()[backup.name].errors == 0
            assert asked(backup, "Events") <= asked(backup) / 2
    assert backup.logins <= 4
    assert caplog.text.count("the change feed does not work") == 1


async def test_a_feed_that_fails_while_it_is_read_hides_no_change() -> None:
    """It had worked; what happens meanwhile comes by lists, and the feed is used again once it works."""
    async with BackupServer(World(now=NOW, speed=0, sessions=0)) as backup, watching(backup) as changes:
        await until(lambda: any("from=" in r.query and "latest" not in r.query for r in backup.requests))
        backup.fail(Fault.status(500), on="Events", times=None)
        begun = backup.world.add(creation_time=NOW, end_time=None)
        assert summary(await take(changes, 1)) == [("Added", begun.id)]
        lists = asked(backup)
        await until(lambda: asked(backup) >= lists + 3)
        backup.heal()
        backup.world.remove(begun.id)
        (removed,) = await take(changes, 1)
        assert isinstance(removed, Removed)
        events = asked(backup, "Events")
        await until(lambda: asked(backup, "Events") >= events + 10)
        assert changes.status()[backup.name].errors == 0


async def test_a_poll_of_the_feed_that_is_cut_off_waits_less_the_next_time() -> None:
    """A proxy that cuts off what is silent for two seconds: the feed is used all the same."""
    waits: list[int] = []

    def is_too_long(request: ReceivedRequest) -> bool:
        seconds = parse_qs(request.query).get("timeoutSeconds")
        if seconds:
            waits.append(int(seconds[0]))
        return bool(seconds) and waits[-1] > 1

    clock = Clock(sleep=lambda seconds: asyncio.sleep(seconds / 100))
    async with BackupServer(World(now=NOW, speed=0, sessions=0)) as backup:
        backup.fail(Fault.drop(), on="Events", times=None, when=is_too_long)
        async with watching(backup, every=timedelta(seconds=30), clock=clock) as changes:
            # The first poll may be a short one by itself: until the server's own moment in the interval.
            await until(lambda: max(waits, default=0) > 1 and waits[-1] <= 1)
            begun = backup.world.add(creation_time=NOW, end_time=None)
            assert summary(await take(changes, 1)) == [("Added", begun.id)]
            assert changes.status()[backup.name].errors == 0
    assert len(waits) <= 12
    assert max(waits) > 1


async def test_a_poll_waits_for_half_the_longest_silence_at_most() -> None:
    """A silent answer counts as lost after 6 seconds; its own moment may be a second later than the half."""
    seconds: list[int] = []
    passed = 0.0

    async def sleep(pause: float) -> None:
        nonlocal passed
        passed += pause + 5.3
        await asyncio.sleep(0)

    async def at_once(exchange: Exchange) -> web.StreamResponse:
        seconds.append(int(exchange.request.query.get("timeoutSeconds", 0)))
        return web.json_response({"nextChangeToken": "again", "limit": 1, "results": []})

    clock = Clock(sleep=sleep, now=lambda: NOW + timedelta(seconds=passed))
    async with BackupServer(World(now=NOW, speed=0, sessions=0)) as backup:
        backup.fail(Fault("at once", at_once), on="Events", times=None)
        async with watching(backup, every=timedelta(seconds=30), read_timeout=6.0, clock=clock):
            await until(lambda: len(seconds) >= 20)
    assert 3 <= max(seconds) <= 4


async def test_the_feed_is_read_right_after_all_was_listed() -> None:
    """What happens then is reported at once, and not after the next interval."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await asyncio.sleep(seconds / 1000)

    async with BackupServer(World(now=NOW, speed=0, sessions=0)) as backup:
        options = {"every": timedelta(seconds=30), "clock": Clock(sleep=sleep)}
        async with watching(backup, **options) as changes:
            await until(lambda: any("timeoutSeconds" in one.query for one in backup.requests))
            begun = backup.world.add(creation_time=NOW, end_time=None)
            assert summary(await take(changes, 1)) == [("Added", begun.id)]
    assert slept[1] == 0


async def test_a_feed_that_does_not_wait_is_read_once_per_interval() -> None:
    """Whatever it is asked to wait for: it would be read every second otherwise."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await asyncio.sleep(0.001)

    async def at_once(_: Exchange) -> web.StreamResponse:
        return web.json_response({"nextChangeToken": "again", "limit": 1, "results": []})

    async with BackupServer(World(now=NOW, speed=0, sessions=0)) as backup:
        backup.fail(Fault("at once", at_once), on="Events", times=None)
        options = {"every": timedelta(seconds=30), "clock": Clock(sleep=sleep)}
        async with watching(backup, **options):
            await until(lambda: asked(backup, "Events") >= 20)
    # The first one is until the first look, the second one leads from it to the feed.
    assert all(pause > 1 for pause in slept[2:])


async def test_a_feed_that_is_outdated_every_time_does_not_cost_a_whole_list_each_time() -> None:
    """A server that forgets its events at once: lists of what is new report the changes."""
    async with BackupServer(World(now=NOW, speed=0, sessions=0)) as backup:
        backup.world.add(creation_time=NOW, end_time=NOW)
        async with watching(backup) as changes:

            def forget(_: ReceivedRequest) -> bool:
                backup.forget_events()
                return False

            await until(lambda: changes.status()[backup.name].up)
            backup.fail(Fault.drop(), on="RestoreSessions", times=None, when=forget)
            backup.forget_events()
            backup.requests.clear()
            await until(lambda: asked(backup) >= 8)
            begun = backup.world.add(creation_time=NOW, end_time=None)
            assert summary(await take(changes, 1)) == [("Added", begun.id)]
            lists = [one.query for one in backup.requests if one.resource == "RestoreSessions"]
    assert sum("startTimeFrom" not in query for query in lists) <= 3


async def test_a_v8_server_that_is_down_is_probed_by_one_request() -> None:
    """Neither the feed nor the lists are tried as long as the probe fails; then all is read."""
    async with BackupServer(World(now=NOW, speed=0, sessions=0)) as backup, watching(backup) as changes:
        await until(lambda: changes.status()[backup.name].up)
        backup.fail(Fault.status(503), times=None)
        (gone,) = await take(changes, 1)
        assert isinstance(gone, Unreachable)
        before, errors = len(backup.requests), changes.status()[backup.name].errors
        await until(lambda: changes.status()[backup.name].errors >= errors + 4)
        probes = backup.requests[before:]
        assert len(probes) <= changes.status()[backup.name].errors - errors + 1
        assert {one.resource for one in probes} == {"RestoreSessions"}
        backup.heal()
        (back,) = await take(changes, 1)
        assert isinstance(back, Recovered)
