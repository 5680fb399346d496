"""What the states of a server's sessions become: changes, by the members that are present on both sides."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from attrs import evolve
from harness.backups import asked, server_of
from harness.watches import NOW, ready, take, until, watching

from aiovbo import (
    Added,
    Checkpoint,
    CheckpointEntry,
    Finished,
    Fleet,
    MemoryCheckpoint,
    Recovered,
    Rejected,
    Removed,
    RestoreSession,
    ServerCheckpoint,
    SessionRecord,
    UnreachableError,
)
from aiovbo._watch.tracker import Tracker
from aiovbo.testing import BackupServer, Fault, World

KEY = UUID(int=5)
FULL = {
    "id": str(KEY),
    "type": "Vex",
    "creationTime": "2026-11-23T10:00:00Z",
    "endTime": "2026-11-23T11:00:00Z",
    "state": "Stopped",
    "result": "Success",
    "name": "a name",
    "organization": "contoso",
    "initiatedBy": "TECH\\admin",
    "details": "details",
    "scopeName": "scope",
    "clientHost": "host",
    "reason": "a reason",
    "eTag": 4,
}
OTHERS = {
    "type": "Vet",
    "creationTime": "2026-11-23T09:00:00Z",
    "endTime": "2026-11-23T12:00:00Z",
    "state": "NotConfigured",
    "result": "Failed",
    **dict.fromkeys(
        ["name", "organization", "initiatedBy", "details", "scopeName", "clientHost", "reason"], "another"
    ),
}
SINCE_V6 = ("details", "scopeName", "clientHost", "reason")


def session(**changes: object) -> RestoreSession:
    """The session with all members, except for these; None leaves one out."""
    document = {name: value for name, value in {**FULL, **changes}.items() if value is not None}
    return RestoreSession.from_dict(document)


def tracker(place: ServerCheckpoint | None = None) -> Tracker:
    """A tracker that was restored from this checkpoint."""
    return Tracker("vbo", place or ServerCheckpoint(), None, timedelta(days=30))


def kinds(found: list[tuple[object, CheckpointEntry]]) -> list[str]:
    """The kinds of the changes."""
    return [type(change).__name__ for change, _ in found]


@pytest.mark.parametrize("member", OTHERS)
def test_a_change_of_one_documented_member_is_reported_once(member: str) -> None:
    """`Changed`, and nothing when the same session arrives again."""
    one = tracker()
    assert kinds(one.observe(session())) == ["Added", "Finished"]
    assert kinds(one.observe(session(**{member: OTHERS[member]}))) == ["Changed"]
    assert one.observe(session(**{member: OTHERS[member]})) == []


@pytest.mark.parametrize("member", sorted({*OTHERS, "eTag"} - {"creationTime"}))
def test_a_member_that_is_absent_on_either_side_is_not_compared(member: str) -> None:
    """It leaves and returns as after a request by ID: nothing; what it was before is still known."""
    one = tracker()
    one.observe(session())
    assert one.observe(session(**{member: None})) == []
    assert one.observe(session()) == []
    if member != "eTag":
        assert one.observe(session(**{member: None})) == []
        assert kinds(one.observe(session(**{member: OTHERS[member]}))) == ["Changed"]


def test_the_etag_is_not_compared() -> None:
    """It grows also where nothing else changes."""
    one = tracker()
    one.observe(session())
    assert one.observe(session(eTag=5)) == []


def test_an_upgrade_reports_nothing_and_what_it_added_is_compared_from_then_on() -> None:
    """v5, then v6, then v8; also over a restart after each."""
    before = session(**dict.fromkeys((*SINCE_V6, "eTag")))
    one = tracker()
    found = one.observe(before)
    saved = {entry.session_id: entry.known for _, entry in found if entry.known}
    for after in (session(eTag=None), session()):
        one = tracker(ServerCheckpoint(dict(saved)))
        assert one.observe(after) == []
        saved |= {entry.session_id: entry.known for entry in one.settle() if entry.known}
    one = tracker(ServerCheckpoint(dict(saved)))
    assert kinds(one.observe(session(reason="another"))) == ["Changed"]


def test_a_member_that_appeared_is_saved_once_although_it_is_no_change() -> None:
    """It is compared from then on, also after a restart."""
    one = tracker()
    one.observe(session(reason=None))
    one.observe(session())
    assert [entry.session_id for entry in one.settle()] == [KEY]
    assert one.settle() == []


def test_a_rejected_row_is_reported_once_per_content_also_after_a_restart() -> None:
    """Another content of the row is another change."""
    row = Rejected(3, "$.id", "invalid", '{"id": "x"}')
    one = tracker()
    ((change, entry),) = one.reject(row, NOW)
    assert one.reject(evolve(row, index=7), NOW) == []
    assert one.rejected == 1
    assert entry.known is not None
    again = tracker(ServerCheckpoint({entry.session_id: entry.known}))
    assert again.reject(row, NOW) == []
    assert again.known == {}
    ((other, _),) = again.reject(evolve(row, raw='{"id": "y"}'), NOW)
    assert other.id != change.id
    assert again.rejected == 2


def test_ids_of_failures_are_unique_on_a_frozen_clock() -> None:
    """A server that fails three times within one tick of the clock, for two watches without a file."""
    error = UnreachableError("refused", server="vbo")
    found = [
        change.id
        for one in (tracker(), tracker())
        for _ in range(3)
        for change, _ in [*one.fail(error, NOW), *one.succeed(NOW, None)]
    ]
    assert len(set(found)) == 12


def test_the_gap_is_by_the_monotonic_clock_and_after_a_restart_by_the_wall_clock() -> None:
    """The wall clock is set back by an hour while the server is unreachable."""
    one = tracker()
    one.fail(UnreachableError("refused", server="vbo"), NOW)
    ((up, _),) = one.succeed(NOW - timedelta(hours=1), timedelta(minutes=5))
    assert isinstance(up, Recovered)
    assert up.gap == timedelta(minutes=5)
    one.fail(UnreachableError("refused", server="vbo"), NOW)
    ((up, _),) = one.succeed(NOW + timedelta(hours=1), None)
    assert isinstance(up, Recovered)
    assert up.gap == timedelta(hours=1)


def test_a_server_that_was_never_polled_is_new_although_its_failure_is_saved() -> None:
    """`since=` still decides about its ended sessions when it is reached for the first time."""
    one = Tracker("vbo", None, None, timedelta(days=30))
    ((_, entry),) = one.fail(UnreachableError("refused", server="vbo"), NOW)
    assert entry.known is not None
    again = tracker(ServerCheckpoint({entry.session_id: entry.known}))
    assert again.is_first
    assert again.is_unreachable
    ((_, rejected),) = one.reject(Rejected(0, "$.id", "invalid", "{}"), NOW)
    assert rejected.known is not None
    assert tracker(ServerCheckpoint({rejected.session_id: rejected.known})).is_first
    # Polled once, it is not new any more.
    saved = {step.session_id: step.known for step in one.begin([], NOW) if step.known}
    assert not tracker(ServerCheckpoint({**saved, entry.session_id: entry.known})).is_first


async def test_a_failure_is_reported_once_although_the_watch_restarts() -> None:
    """Unreachable before the restart, nothing at it, and Recovered when the server is back."""
    store = MemoryCheckpoint()
    async with BackupServer(World(now=NOW, speed=0, sessions=0), version="v6") as backup:
        backup.fail(Fault.status(503), times=None)
        async with watching(backup, checkpoint=store, ack="manual") as changes:
            (down,) = await take(changes, 1)
            changes.ack(down)
        async with watching(backup, checkpoint=store) as changes:
            await until(lambda: changes.status()[backup.name].errors >= 2)
            assert changes.status()[backup.name].backlog == 0
            backup.heal()
            (up,) = await take(changes, 1)
    assert [type(change).__name__ for change in (down, up)] == ["Unreachable", "Recovered"]


async def test_a_file_of_the_first_format_is_upgraded_when_it_is_opened(tmp_path: Path) -> None:
    """Its sessions, the removed ones, and how far it has come; the next poll reports no ended one again."""
    file, gone = tmp_path / "old.db", uuid4()
    with closing(sqlite3.connect(file)) as old:
        old.executescript("""
            CREATE TABLE servers (name TEXT PRIMARY KEY, horizon TEXT, installation BLOB);
            CREATE TABLE sessions (server TEXT, id BLOB, created TEXT, open INTEGER, mark INTEGER,
                revision INTEGER, PRIMARY KEY (server, id)) WITHOUT ROWID;
            PRAGMA application_id=1447186263; PRAGMA user_version=1;
        """)
        old.execute("INSERT INTO servers VALUES ('vbo', ?, NULL)", (NOW.isoformat(),))
        rows = [(KEY.bytes, NOW.isoformat(), 0, 77, 3), (gone.bytes, NOW.isoformat(), 1, -1, 2)]
        old.executemany("INSERT INTO sessions VALUES ('vbo', ?, ?, ?, ?, ?)", rows)
        old.commit()
    for _ in range(2):
        store = Checkpoint(file)
        await store.open()
        try:
            place = await store.load("vbo")
        finally:
            await store.close()
        assert place is not None
        assert place.horizon == NOW
        assert place.known == {
            KEY: SessionRecord(NOW, is_open=False, revision=3),
            gone: SessionRecord(NOW, is_open=True, revision=2, kind="removed"),
            UUID(int=1): SessionRecord(datetime(1970, 1, 1, tzinfo=UTC), is_open=False, kind="server"),
        }
    assert tracker(place).observe(session()) == []


@pytest.mark.parametrize("missing", [3, 15])
async def test_sessions_missing_from_a_truncated_list_are_not_removed(missing: int) -> None:
    """The server is queried for each: it has them; one that it does not find is removed."""

    def truncated(document: object) -> object:
        assert isinstance(document, dict)
        return {**document, "results": document["results"][:-missing]}

    async with BackupServer(World(now=NOW, speed=0, sessions=0), version="v8") as backup:
        keys = [backup.world.add(creation_time=NOW, end_time=NOW).id for _ in range(20)]
        options = {"since": NOW - timedelta(days=1), "full_look_every": timedelta(milliseconds=20)}
        async with watching(backup, **options) as changes:
            await take(changes, 40)
            backup.fail(Fault.edit(truncated), on="RestoreSessions", times=None)
            wanted = asked(backup) + 4
            await until(lambda: asked(backup) >= wanted)
            assert changes.status()[backup.name].backlog == 0
            backup.heal()
            backup.world.remove(keys[0])
            (change,) = await take(changes, 1)
    assert isinstance(change, Removed)
    assert change.session_id == keys[0]


@pytest.mark.parametrize(("apart", "full"), [(timedelta(seconds=1), 1), (timedelta(hours=2), 5)])
async def test_a_removed_session_is_found_among_many_that_a_truncated_list_does_not_have(
    apart: timedelta, full: int
) -> None:
    """Each full poll requests ten of them: others than the one before, whatever is polled between them."""

    def truncated(document: object) -> object:
        assert isinstance(document, dict)
        newest = sorted(document["results"], key=lambda row: row["creationTime"])[-2:]
        return {**document, "results": newest, "totalCount": 2}

    async with BackupServer(World(now=NOW, speed=0, sessions=0), version="v6") as backup:
        times = [NOW - apart * (50 - n) for n in range(45)]
        keys = [backup.world.add(creation_time=time, end_time=time).id for time in times]
        options = {"since": NOW - timedelta(days=9), "full_look_every": timedelta(milliseconds=20) * full}
        async with watching(backup, **options) as changes:
            await take(changes, 90)
            backup.fail(Fault.edit(truncated), on="RestoreSessions", times=None)
            for key in (keys[40], keys[20], keys[5]):
                backup.world.remove(key)
                (change,) = await take(changes, 1)
                assert isinstance(change, Removed)
                assert change.session_id == key


async def test_a_session_that_is_not_found_after_its_update_event_is_requested_again() -> None:
    """Its change arrives with one of the next polls, and it is not reported as removed."""
    async with BackupServer(World(now=NOW, speed=0, sessions=0), version="v8") as backup:
        one = backup.world.add(creation_time=NOW, end_time=None)
        async with watching(backup) as changes:
            (added,) = await take(changes, 1)
            await ready(changes)
            backup.fail(Fault.status(404), on="RestoreSessions/*", times=2)
            backup.world.change(one.id, state="Stopped", end_time=NOW)
            (finished,) = await take(changes, 1)
    assert isinstance(added, Added)
    assert isinstance(finished, Finished)


async def test_rejected_rows_are_counted_in_the_status() -> None:
    """Rows of which all are rejected are reported too, and the server counts as failed."""

    def without_times(document: object) -> object:
        assert isinstance(document, dict)
        return {**document, "results": [{**row, "creationTime": None} for row in document["results"]]}

    async with BackupServer(World(now=datetime(2026, 11, 23, tzinfo=UTC), speed=0, sessions=2)) as backup:
        backup.fail(Fault.edit(without_times), on="RestoreSessions", times=None)
        async with (
            Fleet([server_of(backup, name="vbo")], strict=True, retries=0) as fleet,
            fleet.watch(every=timedelta(milliseconds=20)) as changes,
        ):
            found = await take(changes, 3)
            assert changes.status()["vbo"].rejected == 2
    assert [type(change).__name__ for change in found] == ["RowRejected", "RowRejected", "Unreachable"]
