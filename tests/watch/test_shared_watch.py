"""Watches of several processes that share the servers of a fleet by leases in PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from harness.backups import server_of
from harness.postgres import execute
from harness.watches import NOW, take, until

from aiovbo import (
    Added,
    Change,
    Checkpoint,
    ConfigError,
    Finished,
    Fleet,
    LeaseLostError,
    MemoryCheckpoint,
    Watch,
)
from aiovbo.testing import BackupServer, World

psycopg = pytest.importorskip("psycopg")
pytest.importorskip("psycopg_pool")

from aiovbo.postgres import PostgresCheckpoint  # noqa: E402  # after the extra was found

LEASE = timedelta(seconds=1.5)
LONG = timedelta(minutes=5)
SINCE = timedelta(days=3650)
SOON = timedelta(milliseconds=50)
EXPIRES = """
SELECT expires FROM aiovbo_processes
ORDER BY EXISTS (SELECT 1 FROM aiovbo_leases WHERE owner = id) DESC
"""


@asynccontextmanager
async def backups(count: int, sessions: int = 1) -> AsyncIterator[list[BackupServer]]:
    """Servers whose worlds stand still, each with some ended sessions."""
    async with AsyncExitStack() as stack:
        found = []
        for number in range(count):
            world = World(now=NOW, speed=0, sessions=0)
            for _ in range(sessions):
                world.add(creation_time=NOW, end_time=NOW)
            backup = BackupServer(world, version="v6", name=f"vbo{number}")
            found.append(await stack.enter_async_context(backup))
        yield found


@asynccontextmanager
async def process(conninfo: str, servers: list[BackupServer], **options: Any) -> AsyncIterator[Watch]:
    """One process that watches its share of the servers."""
    lease = options.pop("lease", LEASE)
    store = PostgresCheckpoint(conninfo, group="tests", lease=lease)
    settings = {"every": SOON, "since": SINCE, "ack": "manual", "checkpoint": store, **options}
    fleet = Fleet([server_of(one, name=one.name) for one in servers], retries=0)
    async with fleet, fleet.watch(**settings) as changes:
        yield changes


def expire(conninfo: str) -> None:
    """Let all leases end, as if every process had been stopped for long."""
    execute(conninfo, "UPDATE aiovbo_processes SET expires = clock_timestamp() - interval '1 second'")


def pending(conninfo: str) -> int:
    """How many changes are saved that are not acknowledged."""
    return execute(conninfo, "SELECT count(*) FROM aiovbo_records WHERE kind = 'pending'")[0][0]


async def test_processes_share_the_servers(database: str) -> None:
    """The second one takes over what is above the first one's share, and nothing is delivered twice."""
    async with backups(4) as servers, process(database, servers) as one:
        first = await take(one, 8)
        assert len(one.status()) == 4
        for change in first:
            one.ack(change)
        async with process(database, servers) as other:
            await until(lambda: len(one.status()) == 2 and len(other.status()) == 2)
            assert one.status().keys() | other.status().keys() == {server.name for server in servers}
            for server in servers:
                server.world.add(creation_time=NOW, end_time=NOW)
            second = [*await take(one, 4), *await take(other, 4)]
    assert {type(change) for change in second} == {Added, Finished}
    assert len({change.id for change in [*first, *second]}) == 16


async def test_a_server_above_the_share_is_kept_until_its_changes_are_delivered(database: str) -> None:
    """However often the process renews its leases; once they are acknowledged, the server is released."""
    async with backups(2) as servers, process(database, servers, lease=LONG) as one:
        await until(lambda: sum(status.backlog for status in one.status().values()) == 4)
        (before,) = execute(database, EXPIRES)
        async with process(database, servers, lease=LONG) as other:
            await until(lambda: len(execute(database, EXPIRES)) == 2)
            for _ in range(4):
                assert one._leases is not None
                one._leases.wake()
                renewed = before
                while renewed == before:
                    await asyncio.sleep(0.01)
                    renewed = execute(database, EXPIRES)[0]
                before = renewed
            owners = "SELECT count(*) FROM aiovbo_leases WHERE owner IS NOT NULL AND epoch = 1"
            assert execute(database, owners) == [(2,)]
            for change in await take(one, 4):
                one.ack(change)
            await until(lambda: execute(database, owners) == [(1,)])
            assert other._leases is not None
            other._leases.wake()
            await until(lambda: len(other.status()) == 1)


async def test_a_consumer_that_does_not_acknowledge_keeps_no_server_above_its_share(database: str) -> None:
    """Once all was delivered, it has one lease to acknowledge; then the next owner delivers it again."""
    async with backups(2) as servers, process(database, servers) as one:
        before = await take(one, 4)
        async with process(database, servers) as other:
            again = await take(other, 2)
            for change in before:
                one.ack(change)
            assert one.ignored_acks == 2
    assert {change.id for change in again} < {change.id for change in before}


async def test_the_servers_of_a_process_that_ends_are_taken_over(database: str) -> None:
    """The other one continues at the saved position: what was not acknowledged is delivered again."""
    async with backups(2) as servers, process(database, servers, lease=LONG) as one:
        changes = await take(one, 4)
        one.ack(changes[0])
        one.ack(changes[1])
        await until(lambda: pending(database) < 4)
        store = PostgresCheckpoint(database, group="tests", lease=LEASE)
        fleet = Fleet([server_of(backup, name=backup.name) for backup in servers], retries=0)
        async with fleet, fleet.watch(every=SOON, since=SINCE, checkpoint=store) as other:
            assert other.status() == {}
            await one.aclose()
            again = await take(other, 2)
    unacknowledged = {change.id for change in changes[2:]}
    assert {change.id for change in again} <= {change.id for change in changes}
    assert unacknowledged & {change.id for change in again}


async def test_the_servers_of_a_dead_process_are_claimed_when_its_lease_ends(database: str) -> None:
    """Not only at the next renewal, which is more than a minute later here."""
    async with backups(2) as servers, process(database, servers, lease=LONG) as one:
        await take(one, 4)
        execute(
            database,
            "INSERT INTO aiovbo_processes "
            "SELECT 'tests', gen_random_uuid(), clock_timestamp() + interval '1 day'",
            "UPDATE aiovbo_leases SET epoch = epoch + 1, owner = "
            "(SELECT id FROM aiovbo_processes ORDER BY expires DESC LIMIT 1) WHERE server = 'vbo0'",
        )
        assert one._leases is not None
        one._leases.wake()
        await until(lambda: one.status().keys() == {"vbo1"})
        execute(
            database,
            "UPDATE aiovbo_processes SET expires = clock_timestamp() + interval '1 second' "
            "WHERE expires > clock_timestamp() + interval '1 hour'",
        )
        one._leases.wake()
        await until(lambda: one.status().keys() == {"vbo0", "vbo1"})


async def test_an_acknowledgement_after_the_lease_was_lost_is_ignored_and_counted(database: str) -> None:
    """The watch goes on: it takes its servers again as a new process, and delivers what was not saved."""
    async with backups(2) as servers, process(database, servers) as changes:
        before = await take(changes, 4)
        expire(database)
        after = await take(changes, 4)
        assert {change.id for change in after} == {change.id for change in before}
        changes.ack(before[0])
        assert changes.ignored_acks == 1
        for change in after:
            changes.ack(change)
        await until(lambda: pending(database) == 0)
        assert changes.ignored_acks == 1


async def test_a_batch_is_saved_in_the_transaction_of_the_consumer(database: str) -> None:
    """All or nothing: if it is rolled back, the batch is delivered again, and can be acknowledged then."""
    async with (
        backups(2) as servers,
        process(database, servers, lease=LONG) as changes,
        await psycopg.AsyncConnection.connect(database) as connection,
        asyncio.timeout(20),
    ):
        batches = changes.batches(4, within=LONG)
        async with connection.transaction(force_rollback=True):
            first = await anext(batches)
            await first.ack(connection)
        assert pending(database) == 4
        second = await anext(batches)
        assert {change.id for change in second} == {change.id for change in first}
        async with connection.transaction():
            await second.ack(connection)
        assert pending(database) == 0
        for server in servers:
            server.world.add(creation_time=NOW, end_time=NOW)
        third = await anext(batches)
        assert not {change.id for change in third} & {change.id for change in first}
        await batches.aclose()


async def test_a_batch_whose_lease_was_lost_is_refused_and_the_rest_delivered_again(
    database: str,
) -> None:
    """LeaseLostError names the lost server; the changes of the other one come with the next batch."""
    async with (
        backups(2) as servers,
        process(database, servers, lease=LONG) as changes,
        await psycopg.AsyncConnection.connect(database) as connection,
        asyncio.timeout(20),
    ):
        batches = changes.batches(4, within=LONG)
        batch = await anext(batches)
        execute(
            database,
            "INSERT INTO aiovbo_processes VALUES "
            "('tests', gen_random_uuid(), clock_timestamp() + interval '1 hour')",
            "UPDATE aiovbo_leases SET epoch = epoch + 1, owner = "
            "(SELECT id FROM aiovbo_processes ORDER BY expires DESC LIMIT 1) WHERE server = 'vbo0'",
        )
        await connection.execute("CREATE TABLE sink (id text)")
        with pytest.raises(LeaseLostError) as caught:
            await batch.ack(connection)
        # Even a consumer that goes on in the transaction cannot commit it.
        await connection.commit()
        assert execute(database, "SELECT to_regclass('sink')") == [(None,)]
        assert caught.value.servers == ("vbo0",)
        again: list[Change] = []
        while len(again) < 2:
            again.append(await anext(changes))
        assert {change.server for change in again} == {"vbo1"}
        assert changes.status().keys() == {"vbo1"}
        await batches.aclose()


async def test_a_batch_is_written_once_however_often_it_is_acknowledged(database: str) -> None:
    """A second transaction for the same changes cannot be committed, whether the first one was or is open."""
    async with (
        backups(1) as servers,
        process(database, servers, lease=LONG) as changes,
        await psycopg.AsyncConnection.connect(database) as connection,
        await psycopg.AsyncConnection.connect(database) as other,
        asyncio.timeout(20),
    ):
        batches = changes.batches(2, within=LONG)
        batch = await anext(batches)
        await batch.ack(connection)
        for end in (connection.commit, connection.rollback):
            with pytest.raises(Exception, match="another transaction"):
                await batch.ack(other)
            await other.rollback()
            await end()
        assert pending(database) == 0
        await batches.aclose()


async def test_batches_are_acknowledged_in_their_order(database: str) -> None:
    """A later change of a session whose earlier one is not acknowledged cannot be saved."""
    async with (
        backups(1) as servers,
        process(database, servers, lease=LONG) as changes,
        await psycopg.AsyncConnection.connect(database) as connection,
        asyncio.timeout(20),
    ):
        batches = changes.batches(1, within=SOON)
        first, second = await anext(batches), await anext(batches)
        with pytest.raises(Exception, match="process batches in their order"):
            await second.ack(connection)
        await connection.rollback()
        await first.ack(connection)
        await second.ack(connection)
        await connection.commit()
        await until(lambda: pending(database) == 0)
        await batches.aclose()


@pytest.mark.parametrize("store", [MemoryCheckpoint, Checkpoint])
async def test_other_checkpoints_cannot_be_saved_in_a_transaction(store: Any, tmp_path: Any) -> None:
    """ConfigError states which one can."""
    checkpoint = store() if store is MemoryCheckpoint else store(tmp_path / "restores.db")
    async with backups(1) as servers:
        fleet = Fleet([server_of(servers[0])])
        async with fleet, fleet.watch(every=SOON, since=SINCE, checkpoint=checkpoint) as changes:
            batches = changes.batches(1, within=SOON)
            batch = await anext(batches)
            with pytest.raises(ConfigError, match="PostgresCheckpoint"):
                await batch.ack(object())
            await batches.aclose()


async def test_a_server_that_leaves_the_fleet_is_released(database: str) -> None:
    """And one that joins is claimed, both without waiting for the next renewal."""
    async with backups(2) as servers:
        store = PostgresCheckpoint(database, group="tests", lease=LONG)
        one, other = (server_of(backup, name=backup.name) for backup in servers)
        fleet = Fleet([one], retries=0)
        async with fleet, fleet.watch(every=SOON, since=SINCE, checkpoint=store, ack="manual") as changes:
            await until(lambda: changes.status().keys() == {"vbo0"})
            fleet.add(other)
            await until(lambda: changes.status().keys() == {"vbo0", "vbo1"})
            found = await take(changes, 4)
            for change in found:
                changes.ack(change)
            fleet.remove("vbo0")
            owners = "SELECT server FROM aiovbo_leases WHERE owner IS NOT NULL"
            await until(lambda: execute(database, owners) == [("vbo1",)])


async def test_a_process_that_was_stopped_delivers_nothing_of_before(database: str) -> None:
    """What waited for the consumer is discarded once the lease may have ended, before it is delivered."""
    async with backups(1) as servers, process(database, servers) as changes:
        await until(lambda: sum(one.backlog for one in changes.status().values()) == 2)
        keeper = changes._leases
        assert keeper is not None
        # As after SIGSTOP: the time of the last renewal is long ago.
        keeper._valid_until = 0.0
        before = execute(database, "SELECT epoch FROM aiovbo_leases")
        found = await take(changes, 2)
        assert len(found) == 2
        assert execute(database, "SELECT epoch FROM aiovbo_leases") > before


async def test_an_unreachable_database_ends_the_watch_with_an_error(database: str) -> None:
    """After the checkpoint's own attempts; what was not saved is delivered again after the next start."""
    store = PostgresCheckpoint(database, group="tests", lease=LONG, retry_for=timedelta(milliseconds=10))
    async with backups(1) as servers:
        fleet = Fleet([server_of(servers[0], name="vbo0")])
        async with fleet:
            changes = fleet.watch(every=SOON, since=SINCE, checkpoint=store, ack="manual")
            async with changes:
                (change, _) = await take(changes, 2)
                execute(database, "ALTER TABLE aiovbo_leases RENAME TO hidden")
                changes.ack(change)
                with pytest.raises(Exception, match=r"group tests: .*aiovbo_leases"):
                    await take(changes, 1)
                execute(database, "ALTER TABLE hidden RENAME TO aiovbo_leases")
            async with process(database, servers, lease=LONG) as changes:
                again = await take(changes, 2)
    assert again[0].id == change.id
