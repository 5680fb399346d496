"""Changes that a watch must report and does not yet: each test fails today, and its reason says how."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from harness.backups import asked, server_of
from harness.watches import NOW, take, until, watching

from aiovbo import AnyChange, Fleet, MemoryCheckpoint, Watch
from aiovbo.testing import BackupServer, Fault, World

YEARS = timedelta(days=3650)


@asynccontextmanager
async def listening(changes: Watch) -> AsyncIterator[list[AnyChange]]:
    """The changes that arrive during the block."""
    arrived: list[AnyChange] = []

    async def listen() -> None:
        async for change in changes:
            arrived.append(change)  # noqa: PERF401  # the test reads it while more arrive

    listener = asyncio.create_task(listen())
    try:
        yield arrived
    finally:
        listener.cancel()
        await asyncio.gather(listener, return_exceptions=True)


async def polls(backup: BackupServer, count: int = 3) -> None:
    """Wait until the server was polled so often from now on: all but the last poll are over."""
    wanted = asked(backup) + count
    await until(lambda: asked(backup) >= wanted)


def kinds(changes: list[AnyChange]) -> list[str]:
    """The kind of each change."""
    return [type(change).__name__ for change in changes]


async def test_recovered_is_reported_after_a_restart_too() -> None:
    """An alert that was opened by Unreachable can be closed, whichever process reported it."""
    store = MemoryCheckpoint()
    async with BackupServer(World(now=NOW, speed=0, sessions=1), version="v6") as backup:
        async with watching(backup, checkpoint=store):
            await polls(backup)
        backup.fail(Fault.status(503), times=None)
        async with watching(backup, checkpoint=store) as changes, listening(changes) as arrived:
            await until(lambda: bool(arrived))
            # The listener has asked for the next change: this one is acknowledged.
            await asyncio.sleep(0)
        assert kinds(arrived) == ["Unreachable"]
        backup.heal()
        async with watching(backup, checkpoint=store) as changes, listening(changes) as arrived:
            await polls(backup)
        assert kinds(arrived) == ["Recovered"]


def with_a_row_without_a_time(backup: BackupServer) -> None:
    """Every list of the server has one valid row, and one that cannot be delivered."""
    good = {
        "id": str(uuid4()),
        "type": "Vex",
        "creationTime": NOW.isoformat(),
        "endTime": NOW.isoformat(),
        "state": "Stopped",
        "result": "Failed",
    }
    bad = {"id": str(uuid4()), "type": "Vex", "state": "Stopped", "result": "Failed"}

    def edit(_: Any) -> Any:  # JSON
        return {"offset": 0, "limit": 1000, "results": [bad, good], "_links": {}}

    backup.fail(Fault.edit(edit), on="RestoreSessions", times=None)


@pytest.mark.parametrize("strict", [False, True])
async def test_a_rejected_row_is_reported_once_and_hides_no_other(
    strict: bool,  # noqa: FBT001  # as the setting is
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One change for the row, however often it arrives; the valid row beside it arrives too."""
    caplog.set_level(logging.WARNING, "aiovbo")
    async with BackupServer(World(now=NOW, speed=0, sessions=0), version="v6") as backup:
        with_a_row_without_a_time(backup)
        async with (
            Fleet([server_of(backup)], strict=strict, retries=0) as fleet,
            fleet.watch(every=timedelta(milliseconds=20), since=NOW - YEARS) as changes,
            listening(changes) as arrived,
        ):
            await polls(backup, 6)
    assert Counter(kinds(arrived)) == Counter(["RowRejected", "Added", "Finished"])
    assert len([one for one in caplog.records if one.name.startswith("aiovbo")]) <= 1


async def test_a_row_that_is_rejected_at_every_poll_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """A log that is full of one row hides the others."""
    caplog.set_level(logging.WARNING, "aiovbo")
    async with BackupServer(World(now=NOW, speed=0, sessions=0), version="v6") as backup:
        with_a_row_without_a_time(backup)
        async with watching(backup):
            await polls(backup, 6)
    assert len([one for one in caplog.records if one.name.startswith("aiovbo")]) <= 1


MEMBERS = {
    "type": "Vet",
    "name": "another name",
    "organization": "another.onmicrosoft.com",
    "initiated_by": "TECH\\another",
    "details": "Restore failed: the mailbox is locked",
    "scope_name": "another scope",
    "client_host": "another-host",
    "reason": "another reason",
    "result": "Failed",
}


@pytest.mark.parametrize("version", ["v6", "v8"])
async def test_a_change_of_any_documented_member_is_reported(version: str) -> None:
    """One `Changed` for each member, whether by lists or by the feed."""
    async with BackupServer(World(now=NOW, speed=0, sessions=0), version=version) as backup:
        one = backup.world.add(
            type="Vex", creation_time=NOW, end_time=None, result="Success", organization="contoso"
        )
        silent = list[str]()
        async with (
            watching(backup, full_look_every=timedelta(milliseconds=20)) as changes,
            listening(changes) as arrived,
        ):
            await until(lambda: kinds(arrived) == ["Added"])
            for member, value in MEMBERS.items():
                arrived.clear()
                before = getattr(backup.world.session(one.id), member)
                assert value != before
                backup.world.change(one.id, **{member: value})
                await noticed(backup, changes)
                if "Changed" not in kinds(arrived):
                    silent.append(member)
    assert silent == []


async def noticed(backup: BackupServer, changes: Watch) -> None:
    """Wait until the watch has read, by list or feed, what the server has now."""
    before = len(backup.requests)
    await until(lambda: len(backup.requests) >= before + 3)
    await until(lambda: changes.status()[backup.name].backlog == 0)


async def test_no_change_is_delivered_twice_when_its_server_leaves_and_returns() -> None:
    """Without a crash, each change arrives once."""
    async with (
        BackupServer(World(now=NOW, speed=0, sessions=0), version="v6") as backup,
        Fleet([server_of(backup, name="vbo")]) as fleet,
        fleet.watch(every=timedelta(milliseconds=20), since=NOW - YEARS) as changes,
    ):
        for _ in range(30):
            backup.world.add(creation_time=NOW, end_time=NOW)
        first = await take(changes, 10)
        server = fleet["vbo"].server
        await until(lambda: changes.status()["vbo"].backlog >= 50)
        fleet.remove("vbo")
        fleet.add(server)
        async with listening(changes) as arrived:
            await polls(backup)
            await until(lambda: changes.status()["vbo"].backlog == 0)
            await polls(backup)
    delivered = Counter(change.id for change in [*first, *arrived])
    assert set(delivered.values()) == {1}
    assert len(delivered) == 60


async def test_many_changes_of_one_server_do_not_hold_back_another_servers_change() -> None:
    """The servers take turns: a slow consumer gets the quiet server's change among the next few."""
    async with (
        BackupServer(World(now=NOW, speed=0, sessions=0), version="v6", name="noisy") as noisy,
        BackupServer(World(now=NOW, speed=0, sessions=0), version="v6", name="quiet") as quiet,
        watching(noisy, quiet) as changes,
    ):
        await until(lambda: all(status.up for status in changes.status().values()))
        for _ in range(40):
            noisy.world.add(creation_time=NOW, end_time=NOW)
        await take(changes, 1)
        await until(lambda: changes.status()["noisy"].backlog >= 79)
        quiet.world.add(creation_time=NOW, end_time=NOW, result="Failed")
        await until(lambda: changes.status()["quiet"].backlog == 2)
        assert "quiet" in {change.server for change in await take(changes, 4)}


async def test_a_session_with_an_invalid_optional_member_is_reported() -> None:
    """It is running: its end time says nothing, all else can be read."""

    def without_end(document: Any) -> Any:  # JSON
        for row in document["results"]:
            row["endTime"] = ""
        return document

    async with BackupServer(World(now=NOW, speed=0, sessions=0), version="v7") as backup:
        backup.fail(Fault.edit(without_end), on="RestoreSessions", times=None)
        async with watching(backup) as changes, listening(changes) as arrived:
            await until(lambda: changes.status()[backup.name].up)
            backup.world.add(creation_time=NOW, end_time=None)
            await polls(backup)
    assert kinds(arrived) == ["Added"]


def test_shard_says_that_checkpoints_do_not_move_with_it() -> None:
    """A watch of another share starts over, unless both have one store."""
    assert "checkpoint" in (Fleet.shard.__doc__ or "")
