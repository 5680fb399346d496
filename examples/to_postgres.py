r"""Every restore of a fleet in PostgreSQL, with its history: each change exactly once, by many processes.

    pip install 'aiovbo[postgres,testing]'
    python examples/to_postgres.py --database postgresql://localhost/restores

Start it on several machines with the same `--group`, and they share the servers. What is written and the
checkpoint are one transaction: after a crash, neither is missing and nothing is there twice.
"""

import argparse
import json
from datetime import timedelta
from typing import Any

from _servers import arguments, run_until_ended, servers_of
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from aiovbo import (
    Added,
    Batch,
    Change,
    Changed,
    Finished,
    Fleet,
    LeaseLostError,
    Recovered,
    Removed,
    RestoreSession,
    RowRejected,
    Unreachable,
)
from aiovbo.postgres import PostgresCheckpoint

TABLES = """
SELECT pg_advisory_xact_lock(1);
CREATE TABLE IF NOT EXISTS restores (
    server text, id uuid, organization text, type text, started timestamptz, ended timestamptz, result text,
    removed boolean NOT NULL DEFAULT false, PRIMARY KEY (server, id)
);
CREATE TABLE IF NOT EXISTS history (
    change text PRIMARY KEY, server text, kind text, at timestamptz, body jsonb
);
"""
RESTORE = """
INSERT INTO restores VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT (server, id) DO UPDATE SET
ended = excluded.ended, result = excluded.result, removed = false
"""
REMOVED = "UPDATE restores SET removed = true WHERE server = %s AND id = %s"
HISTORY = "INSERT INTO history VALUES (%s, %s, %s, clock_timestamp(), %s)"


def row_of(session: RestoreSession) -> tuple[Any, ...]:
    """A row of the table `restores`."""
    outcome = session.outcome
    kind, began, ended = session.type, session.creation_time, session.end_time
    return session.server, session.id, session.organization, kind, began, ended, outcome


def body_of(change: Change) -> Any:
    """The content of a change."""
    match change:
        case Added(session=session) | Changed(session=session) | Finished(session=session):
            return session.to_dict()
        case Removed(session_id=session_id, reset=reset):
            return {"id": str(session_id), "reset": reset}
        case RowRejected(row=row):
            return {"reason": row.reason, "raw": row.raw}
        case Unreachable(error=error):
            return {"error": str(error)}
        case Recovered(gap=gap):
            return {"gap": gap.total_seconds()}
        case _:
            return {}


async def write(connection: AsyncConnection[Any], batch: Batch) -> None:
    """All of a batch: the restores as they are now, and one row of history per change."""
    for change in batch:
        match change:
            case Added(session=session) | Changed(session=session) | Finished(session=session):
                await connection.execute(RESTORE, row_of(session))
            case Removed(server=server, session_id=session_id):
                await connection.execute(REMOVED, (server, session_id))
            case _:
                pass
        values = (change.id, change.server, type(change).__name__, json.dumps(body_of(change)))
        await connection.execute(HISTORY, values)


async def main(options: argparse.Namespace) -> None:
    """Watch, and write."""
    written = 0
    async with (
        servers_of(options) as servers,
        AsyncConnectionPool(options.database, min_size=1, max_size=2, open=False) as pool,
        Fleet(servers) as fleet,
    ):
        async with pool.connection() as connection:
            await connection.execute(TABLES)
        async with fleet.watch(
            every=timedelta(seconds=options.every),
            checkpoint=PostgresCheckpoint(options.database, group=options.group),
            since=timedelta(days=1),
            ack="manual",
        ) as changes:
            async for batch in changes.batches(100, within=timedelta(seconds=1)):
                try:
                    # Committed at the end of the block; rolled back by whatever is raised in it.
                    async with pool.connection() as connection:
                        await write(connection, batch)
                        await batch.ack(connection)
                except LeaseLostError as error:
                    print(error)
                    continue
                written += len(batch)
                if options.count and written >= options.count:
                    break
    print(f"{written} changes written")


if __name__ == "__main__":
    parser = arguments("Every restore of a fleet in PostgreSQL, each change exactly once.")
    parser.add_argument("--database", required=True, help="how to connect, as libpq takes it")
    parser.add_argument("--group", default="restores", help="the processes that share the servers")
    parser.add_argument("--every", type=float, default=30.0, help="seconds between two polls of a server")
    parser.add_argument("--count", type=int, help="end after so many changes")
    run_until_ended(main(parser.parse_args()))
