"""What processes that share a watch do at the same moment: one of them waits while another one acts."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from harness.postgres import execute
from harness.watches import until

psycopg = pytest.importorskip("psycopg")
pytest.importorskip("psycopg_pool")

from aiovbo.postgres import PostgresCheckpoint  # noqa: E402  # after the extra was found

LEASE = timedelta(minutes=5)
SERVERS = ["vbo0", "vbo1", "vbo2"]
WAITING = """
SELECT count(*) FROM pg_stat_activity
WHERE wait_event_type = 'Lock' AND application_name = current_setting('application_name')
"""
PROCESSES = "SELECT id FROM aiovbo_processes WHERE expires > clock_timestamp()"
# A claim waits for the lock between its snapshot and its own locks, as if the database were slow there.
SLOW_CLAIM = """
CREATE FUNCTION pass() RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$ BEGIN
    IF current_query() LIKE '%SKIP LOCKED%' THEN PERFORM pg_advisory_xact_lock(4711); END IF;
    RETURN true;
END $$
"""


@asynccontextmanager
async def member(conninfo: str) -> AsyncIterator[PostgresCheckpoint]:
    """One process of the group."""
    store = PostgresCheckpoint(conninfo, group="tests", lease=LEASE)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def waits(conninfo: str) -> None:
    """Wait until a statement waits for a lock."""
    await until(lambda: execute(conninfo, WAITING) == [(1,)])


async def test_a_renewal_that_waits_until_its_lease_has_ended_joins_as_a_new_process(database: str) -> None:
    """The end of the lease is compared with the time of writing, not with the start of the transaction."""
    async with (
        member(database) as store,
        await psycopg.AsyncConnection.connect(database) as other,
        asyncio.timeout(60),
    ):
        before = await store.renew(SERVERS)
        (process,) = execute(database, PROCESSES)
        await other.execute("SELECT FROM aiovbo_processes FOR UPDATE")
        renewal = asyncio.create_task(store.renew(SERVERS))
        await waits(database)
        await other.execute("UPDATE aiovbo_processes SET expires = clock_timestamp()")
        await other.commit()
        after = await renewal
        assert process not in execute(database, PROCESSES)
        assert after.epochs == {name: epoch + 1 for name, epoch in before.epochs.items()}


async def test_a_lease_that_ends_while_a_claim_waits_is_claimed(database: str) -> None:
    """Which processes are alive is judged when the rows are read, not when the transaction began."""
    async with (
        member(database) as one,
        member(database) as other,
        await psycopg.AsyncConnection.connect(database) as connection,
        asyncio.timeout(60),
    ):
        assert sorted((await one.renew(SERVERS)).epochs) == SERVERS
        (process,) = execute(database, PROCESSES)
        await other.renew(SERVERS)
        await connection.execute("LOCK TABLE aiovbo_leases")
        renewal = asyncio.create_task(other.renew(SERVERS))
        await waits(database)
        ends = "UPDATE aiovbo_processes SET expires = clock_timestamp() WHERE id = %s"
        await connection.execute(ends, process)
        await connection.commit()
        assert sorted((await renewal).epochs) == SERVERS


async def test_a_claim_takes_no_server_that_another_process_claimed_a_moment_before(database: str) -> None:
    """Also where that process joined after the claim began, so that the claim's snapshot has no row of it."""
    async with (
        member(database) as store,
        await psycopg.AsyncConnection.connect(database) as other,
        asyncio.timeout(60),
    ):
        await store.renew([])
        execute(
            database,
            "INSERT INTO aiovbo_leases VALUES ('tests', 'vbo0'), ('tests', 'vbo1')",
            SLOW_CLAIM,
            "ALTER TABLE aiovbo_leases RENAME TO leases",
            "CREATE VIEW aiovbo_leases AS SELECT * FROM leases WHERE pass()",
        )
        await other.execute("SELECT pg_advisory_xact_lock(4711)")
        renewal = asyncio.create_task(store.renew(["vbo0", "vbo1"]))
        await waits(database)
        execute(
            database,
            "INSERT INTO aiovbo_processes VALUES "
            "('tests', '00000000-0000-0000-0000-000000000001', clock_timestamp() + interval '1 hour')",
            "UPDATE leases SET owner = '00000000-0000-0000-0000-000000000001', epoch = 1 "
            "WHERE server = 'vbo0'",
        )
        await other.commit()
        assert (await renewal).epochs == {"vbo1": 1}


async def test_a_process_delivers_for_a_lease_less_a_margin_from_before_its_renewal(database: str) -> None:
    """However long the renewal waits: others count the lease from a later moment, and must not be early."""
    async with (
        member(database) as store,
        await psycopg.AsyncConnection.connect(database) as other,
        asyncio.timeout(60),
    ):
        await store.renew(SERVERS)
        await other.execute("SELECT FROM aiovbo_processes FOR UPDATE")
        renewal = asyncio.create_task(store.renew(SERVERS))
        await waits(database)
        sent = time.monotonic()
        await other.commit()
        margin = LEASE / 6
        assert (await renewal).valid_until < sent + (LEASE - margin).total_seconds()


async def test_a_process_claims_no_more_than_its_share(database: str) -> None:
    """Free servers above it are left to the other processes, which renew in a moment."""
    async with member(database) as one, member(database) as other:
        await other.renew([])
        assert len((await one.renew(SERVERS)).epochs) == 2
        assert len((await one.renew(SERVERS)).epochs) == 2
        assert len((await other.renew(SERVERS)).epochs) == 1
