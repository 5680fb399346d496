"""Checkpoints and leases in PostgreSQL, without servers to watch: what the tables and locks guarantee."""

import asyncio
import pickle
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from harness.postgres import cut_connections, execute

from aiovbo import (
    CheckpointEntry,
    CheckpointError,
    CheckpointStore,
    ConfigError,
    LeaseLostError,
    ServerCheckpoint,
    SessionRecord,
)

psycopg = pytest.importorskip("psycopg")
pytest.importorskip("psycopg_pool")

from aiovbo._watch.leases import LeaseStore  # noqa: E402  # after the extra was found
from aiovbo.postgres import PostgresCheckpoint  # noqa: E402  # the same

NOW = datetime(2026, 11, 23, 12, 0, 0, 123456, tzinfo=UTC)
KEYS = [UUID(int=number) for number in range(4)]
SOME = SessionRecord(NOW, is_open=True, marks=b"\0\0\0\7", revision=3, kind="removed")
LONG = timedelta(minutes=5)
SERVERS = [f"vbo{number}" for number in range(7)]


@asynccontextmanager
async def member(
    conninfo: str, lease: timedelta = LONG, **options: timedelta
) -> AsyncIterator[PostgresCheckpoint]:
    """One process of the group."""
    store = PostgresCheckpoint(conninfo, group="tests", lease=lease, **options)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def expire(conninfo: str) -> None:
    """Let all leases end, as if every process had been stopped for long."""
    execute(conninfo, "UPDATE aiovbo_processes SET expires = clock_timestamp() - interval '1 second'")


async def test_what_was_saved_is_loaded_again(database: str) -> None:
    """Records, horizon and installation, by another process; of several steps the last one counts."""
    async with member(database) as store:
        assert isinstance(store, CheckpointStore)
        assert isinstance(store, LeaseStore)
        await store.renew(SERVERS)
        assert await store.load("vbo1") is None
        assert await store.servers() == {}
        steps = [
            CheckpointEntry(KEYS[0], SOME),
            CheckpointEntry(KEYS[1], SOME),
            CheckpointEntry(KEYS[0], SessionRecord(NOW, is_open=False)),
        ]
        await store.save("vbo1", steps, NOW, KEYS[3])
        await store.save("vbo0", [], None, None)
        await store.save(
            "vbo1", [CheckpointEntry(KEYS[1], None), CheckpointEntry(KEYS[2], SOME)], NOW, KEYS[3]
        )
    async with member(database) as store:
        known = {KEYS[0]: SessionRecord(NOW, is_open=False), KEYS[2]: SOME}
        assert await store.load("vbo1") == ServerCheckpoint(known, NOW, KEYS[3])
        assert list((await store.servers()).items()) == [("vbo0", None), ("vbo1", KEYS[3])]


async def test_groups_know_nothing_of_each_other(database: str) -> None:
    """Each has its own checkpoints, and its processes share only its own servers."""
    async with member(database) as store:
        other = PostgresCheckpoint(database, group="others")
        await other.open()
        try:
            for each in (store, other):
                assert len((await each.renew(SERVERS)).epochs) == 7
            await store.save("vbo1", [], NOW, None)
            assert await other.load("vbo1") is None
        finally:
            await other.close()


@pytest.mark.parametrize("count", [2, 3, 4])
async def test_servers_are_shared_evenly(count: int, database: str) -> None:
    """No worker has more than its share once the surplus is released; each server has one owner."""
    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(member(database)) for _ in range(count)]
        for _ in range(3):
            held = []
            for store in stores:
                leases = await store.renew(SERVERS)
                surplus = list(leases.epochs)[: leases.surplus]
                await store.release(surplus)
                held.append([name for name in leases.epochs if name not in surplus])
        assert sorted(name for names in held for name in names) == SERVERS
        assert max(len(names) for names in held) == -(-7 // count)


async def test_the_servers_of_a_process_that_ended_are_free_at_once(database: str) -> None:
    """A clean end deletes the process's row; the next renewal of another process claims them."""
    async with member(database) as one:
        async with member(database) as other:
            assert len((await other.renew(SERVERS)).epochs) == 7
            assert (await one.renew(SERVERS)).epochs == {}
        assert execute(database, "SELECT count(*) FROM aiovbo_processes") == [(1,)]
        assert (await one.renew(SERVERS)).epochs == dict.fromkeys(SERVERS, 2)


async def test_a_process_that_expired_joins_again_as_another_one(database: str) -> None:
    """All of its leases have ended, also where no other process has claimed them."""
    async with member(database) as store:
        before = await store.renew(SERVERS)
        ids = execute(database, "SELECT id FROM aiovbo_processes")
        expire(database)
        after = await store.renew(SERVERS)
        assert ids[0] not in execute(database, "SELECT id FROM aiovbo_processes WHERE expires > now()")
        assert after.epochs == {name: epoch + 1 for name, epoch in before.epochs.items()}


async def test_a_lease_that_ends_while_it_is_renewed_is_no_error(database: str) -> None:
    """As after a process was stopped between two statements: it counts as a process all the same."""
    async with member(database, lease=timedelta(microseconds=1)) as store:
        assert len((await store.renew(SERVERS)).epochs) == 7


async def test_a_late_save_is_refused(database: str) -> None:
    """A process that was stopped for longer than its lease cannot write over its successor's checkpoint."""
    async with member(database) as late, member(database) as successor:
        await late.renew(SERVERS)
        expire(database)
        await successor.renew(SERVERS)
        await successor.save("vbo1", [CheckpointEntry(KEYS[0], SOME)], NOW, None)
        with pytest.raises(LeaseLostError, match="another process watches vbo1") as caught:
            await late.save("vbo1", [], None, None)
        assert caught.value.servers == ("vbo1",)
        assert pickle.loads(pickle.dumps(caught.value)).servers == ("vbo1",)
        assert await late.load("vbo1") == ServerCheckpoint({KEYS[0]: SOME}, NOW, None)


async def test_a_server_cannot_be_claimed_while_a_transaction_writes_for_it(database: str) -> None:
    """The lease is locked until the transaction ends; renewals and other servers do not wait for it."""
    async with (
        member(database) as late,
        member(database) as successor,
        await psycopg.AsyncConnection.connect(database) as connection,
    ):
        await late.renew(SERVERS)
        transaction = await late.save_within(connection, {"vbo1": [CheckpointEntry(KEYS[0], SOME)]})
        expire(database)
        async with asyncio.timeout(20):
            assert sorted((await successor.renew(SERVERS)).epochs) == [
                name for name in SERVERS if name != "vbo1"
            ]
            assert await successor.outcomes([transaction]) == {}
            await connection.commit()
            assert await successor.outcomes([transaction]) == {transaction: True}
            assert "vbo1" in (await successor.renew(SERVERS)).epochs
        assert await successor.load("vbo1") == ServerCheckpoint({KEYS[0]: SOME}, None, None)


async def test_a_renewal_does_not_wait_for_a_transaction_of_the_consumer(database: str) -> None:
    """However long that is open: it locks the leases of its servers, which a renewal leaves alone."""
    async with member(database) as store:
        await store.renew(SERVERS)
        async with await psycopg.AsyncConnection.connect(database) as connection:
            await store.save_within(connection, {name: [] for name in SERVERS})
            async with asyncio.timeout(30):
                assert len((await store.renew(SERVERS)).epochs) == 7


async def test_a_transaction_that_comes_after_the_lease_ended_cannot_be_committed(database: str) -> None:
    """LeaseLostError names the servers; what was written before in the transaction is rolled back."""
    async with (
        member(database) as late,
        member(database) as successor,
        await psycopg.AsyncConnection.connect(database) as connection,
    ):
        await late.renew(SERVERS)
        expire(database)
        await successor.renew(SERVERS)
        await connection.execute("CREATE TABLE sink (id text)")
        with pytest.raises(LeaseLostError):
            await late.save_within(connection, {"vbo1": [CheckpointEntry(KEYS[0], SOME)]})
        await late.abort(connection)
        await connection.commit()
        assert execute(database, "SELECT to_regclass('sink')") == [(None,)]


async def test_a_transaction_that_was_rolled_back_is_known_as_such(database: str) -> None:
    """Also where the connection was lost before the outcome was known."""
    async with member(database) as store:
        await store.renew(SERVERS)
        connection = await psycopg.AsyncConnection.connect(database)
        transaction = await store.save_within(connection, {"vbo1": [CheckpointEntry(KEYS[0], SOME)]})
        execute(database, f"SELECT pg_terminate_backend({connection.info.backend_pid})")
        await connection.close()
        async with asyncio.timeout(20):
            while not (found := await store.outcomes([transaction])):
                await asyncio.sleep(0.01)
        assert found == {transaction: False}
        assert await store.load("vbo1") is None


async def test_only_a_connection_in_a_transaction_can_acknowledge(database: str) -> None:
    """Anything else would be saved apart from what the consumer writes."""
    async with (
        member(database) as store,
        await psycopg.AsyncConnection.connect(database, autocommit=True) as connection,
    ):
        await store.renew(SERVERS)
        with pytest.raises(ConfigError, match=r"needs a transaction"):
            await store.save_within(connection, {"vbo1": []})
        with pytest.raises(ConfigError, match=r"psycopg.AsyncConnection, not str"):
            await store.save_within("connection", {"vbo1": []})


async def test_an_idle_process_sends_two_statements_per_renewal(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One renews its row, one sees who watches what, however many servers there are."""
    servers = [f"vbo{number}" for number in range(300)]
    statements: list[object] = []
    execute = psycopg.AsyncCursor.execute

    async def counted(self: object, query: object, *arguments: object, **options: object) -> object:
        statements.append(query)
        return await execute(self, query, *arguments, **options)

    async with member(database) as store:
        await store.renew(servers)
        monkeypatch.setattr(psycopg.AsyncCursor, "execute", counted)
        leases = await store.renew(servers)
        monkeypatch.undo()
    assert len(leases.epochs) == 300
    assert len(statements) == 2


async def test_a_lost_connection_is_replaced(database: str) -> None:
    """Whatever was lost: the save is repeated, and done once."""
    async with member(database) as store:
        await store.renew(SERVERS)
        for number in range(3):
            cut_connections(database)
            await store.save("vbo1", [CheckpointEntry(KEYS[number], SOME)], NOW, None)
        assert len((await store.load("vbo1") or ServerCheckpoint()).known) == 3


async def test_a_database_that_stays_away_is_an_error_without_secrets() -> None:
    """It states the cause, after the checkpoint's own attempts; no frame shows the password."""
    conninfo = "postgresql://watcher:s3cret-Password@127.0.0.1:1/vbo"
    store = PostgresCheckpoint(conninfo, group="tests", retry_for=timedelta(milliseconds=50))
    began = time.monotonic()
    with pytest.raises(CheckpointError, match=r"group tests: .*port 1 failed: Connection refused") as caught:
        await store.open()
    assert time.monotonic() - began < 30
    assert caught.value.__context__ is None
    assert caught.value.__traceback__ is not None
    frame = caught.value.__traceback__.tb_next
    while frame is not None:
        assert "s3cret" not in repr(frame.tb_frame.f_locals)
        frame = frame.tb_next
    with pytest.raises(CheckpointError, match="not open"):
        await store.load("vbo1")


@pytest.mark.parametrize("conninfo", ["", "no such option", "host='s3cret", 7])
def test_an_invalid_conninfo_is_an_error_at_once(conninfo: str) -> None:
    """Its text is not repeated: it may contain a password."""
    with pytest.raises(ConfigError, match="conninfo") as caught:
        PostgresCheckpoint(conninfo, group="tests")
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_settings_are_checked_at_once() -> None:
    """The group has a name, and intervals are above 0."""
    with pytest.raises(ConfigError, match="group"):
        PostgresCheckpoint("host=vbo", group="")
    with pytest.raises(ConfigError, match="lease"):
        PostgresCheckpoint("host=vbo", group="tests", lease=timedelta(0))
    with pytest.raises(ConfigError, match="retry_for"):
        PostgresCheckpoint("host=vbo", group="tests", retry_for=timedelta(-1))
    assert "vbo" not in repr(PostgresCheckpoint("host=vbo", group="tests"))


async def test_tables_of_a_later_version_are_an_error(database: str) -> None:
    """They are left as they are."""
    async with member(database):
        pass
    execute(database, "UPDATE aiovbo_format SET version = 99")
    with pytest.raises(CheckpointError, match=r"format 99.*upgrade aiovbo"):
        async with member(database):
            pass


async def test_a_checkpoint_belongs_to_one_watch_at_a_time(database: str) -> None:
    """A second one must be created for a second watch; after the end it can be used again."""
    async with member(database) as store:
        with pytest.raises(CheckpointError, match="another watch"):
            await store.open()
    await store.open()
    await store.close()


async def test_a_server_is_rewound_while_no_process_watches_it(database: str) -> None:
    """What was created since is forgotten, and the horizon moves back; what is pending stays."""
    hour = timedelta(hours=1)
    records = {
        key: SessionRecord(NOW - number * hour, is_open=False, kind=kind)
        for number, (key, kind) in enumerate(
            zip(KEYS, ("session", "pending", "removed", "session"), strict=True)
        )
    }
    async with member(database) as store:
        await store.renew(SERVERS)
        for name in ("vbo1", "vbo2"):
            await store.save(name, [CheckpointEntry(*one) for one in records.items()], NOW, KEYS[3])
        with pytest.raises(CheckpointError, match="rewind before it starts"):
            await store.rewind("vbo1", NOW)
        other = PostgresCheckpoint(database, group="tests")
        with pytest.raises(CheckpointError, match="watches vbo1: stop all"):
            await other.rewind("vbo1", NOW)
        expire(database)
        await other.rewind("vbo1", NOW - 2.5 * hour)
        with pytest.raises(LeaseLostError):
            await store.save("vbo1", [], NOW, None)
    with pytest.raises(CheckpointError, match="no server 'vbo9'; it has: 'vbo1', 'vbo2'"):
        await other.rewind("vbo9", hour)
    with pytest.raises(ConfigError):
        await other.rewind("vbo1", datetime(2026, 1, 1))  # noqa: DTZ001  # refused
    async with member(database) as store:
        left = {key: records[key] for key in (KEYS[1], KEYS[3])}
        assert await store.load("vbo1") == ServerCheckpoint(left, NOW - 2.5 * hour, KEYS[3])
        assert await store.load("vbo2") == ServerCheckpoint(records, NOW, KEYS[3])


async def test_many_processes_can_start_at_once(database: str) -> None:
    """The tables are created once."""
    stores = [PostgresCheckpoint(database, group="tests") for _ in range(5)]
    try:
        await asyncio.gather(*(store.open() for store in stores))
        found = await asyncio.gather(*(store.renew(SERVERS) for store in stores))
    finally:
        await asyncio.gather(*(store.close() for store in stores))
    claimed = [name for leases in found for name in leases.epochs]
    assert len(claimed) == len(set(claimed))
