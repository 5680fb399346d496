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
from backups import asked
from watches import NOW, VERSIONS, silent, take, told, until, watching

from aiovbo import (
    Checkpoint,
)
from aiovbo.testing import BackupServer, Fault, World
from aiovbo.testing._faults import Exchange


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
            assert {key for _, key in told(await take(changes, 15))} == {one.id for one in others[4:]}
            listed = [one for one in backup.requests if one.resource == "RestoreSessions"]
            fetched = [one for one in backup.requests if one.resource.startswith("RestoreSessions/")]
            assert 1 <= len(listed) <= 2
            assert len(fetched) <= 3 + 10
            since = min(datetime.fromisoformat(parse_qs(one.query)["startTimeFrom"][0]) for one in listed)
            assert since > old.creation_time + timedelta(days=1)


async def test_every_version_tells_the_same(tmp_path: Path) -> None:
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
                found[change.server] += told([change])
            assert found["v4"] == found["v6"] == found["v8"], kind


async def test_an_outdated_change_token_costs_a_full_look_and_loses_nothing() -> None:
    """The server has forgotten what happened since."""
    async with BackupServer(World(now=NOW, speed=0, sessions=0)) as backup, watching(backup) as changes:
        await silent(changes)
        backup.forget_events()
        begun = backup.world.add(creation_time=NOW, end_time=None)
        assert told(await take(changes, 1)) == [("Added", begun.id)]


@pytest.mark.parametrize("status", [403, 404])
async def test_a_server_without_the_feed_is_asked_for_lists(status: int) -> None:
    """One that has none, or not for this account; the server is not out of reach for that."""
    async with BackupServer(World(now=NOW, speed=0, sessions=0)) as backup:
        backup.fail(Fault.status(status), on="Events", times=None)
        async with watching(backup) as changes:
            await until(lambda: asked(backup) >= 3)
            begun = backup.world.add(creation_time=NOW, end_time=None)
            assert told(await take(changes, 1)) == [("Added", begun.id)]
        assert asked(backup, "Events") == 1


async def test_v8_tells_by_itself_long_before_the_next_beat() -> None:
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
        # The poll that waited has told of it: no list was asked for, and at most the next poll has begun.
        assert asked(backup) == lists
        assert asked(backup, "Events") <= polls + 1
