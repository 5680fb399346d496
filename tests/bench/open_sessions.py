"""What a poll of a watched server costs with sessions that never end: `python tests/bench/open_sessions.py`.

Beside 5,000 ended sessions of 90 days, some are open, spread over all of them. In virtual time and in memory.
Prints the requests and rows of the polls after the first one, by API version.
"""

import asyncio
import logging
import re
from datetime import UTC, datetime, timedelta
from typing import Any

from aiovbo import Fleet, MemoryCheckpoint, Password, Server
from aiovbo.testing import BackupServer, MemoryTransport, SimClock, World

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
ENDED = 5000
OPEN = (0, 5, 11, 50, 500)
DAYS = 90
POLLS = 60


class Counting(MemoryTransport):
    """Counts the requests of sessions, and the rows of the responses."""

    requests = 0
    rows = 0

    async def send(self, request: Any, *rest: Any) -> Any:
        """As it does."""
        reply = await super().send(request, *rest)
        if "sessions" in str(request.url.path).lower():
            self.requests += 1
            self.rows += len(re.findall(rb'"creationTime"', reply.body))
        return reply


def backup_of(version: Any, count: int, clock: SimClock) -> BackupServer:
    """A server with so many sessions that never end."""
    world = World(now=NOW, clock=clock, sessions=0, speed=0)
    step = timedelta(days=DAYS) / ENDED
    for number in range(ENDED):
        at = NOW - step * number
        world.add(creation_time=at, end_time=at + timedelta(minutes=1), state="Stopped")
    for number in range(count):
        world.add(creation_time=NOW - timedelta(days=DAYS) * (number + 1) / count, end_time=None)
    return BackupServer(world, version=version)


async def costs(version: Any, count: int) -> tuple[float, float, int]:
    """Requests and rows of one poll on average, and the most rows of one poll."""
    clock = SimClock(NOW)
    backup = backup_of(version, count, clock)
    transport = Counting({"vbo": backup})
    server = Server("vbo", Password(backup.username, backup.password))
    most, began = 0, (0, 0)
    async with (
        Fleet([server], clock=clock, transport=transport) as fleet,
        fleet.watch(
            every=timedelta(minutes=1), full_look_every=timedelta(hours=12), checkpoint=MemoryCheckpoint()
        ) as changes,
    ):
        reading = asyncio.ensure_future(read(changes))
        await clock.sleep(600)
        began = before = transport.requests, transport.rows
        for _ in range(POLLS):
            await clock.sleep(60)
            most = max(most, transport.rows - before[1])
            before = transport.requests, transport.rows
        reading.cancel()
    return (before[0] - began[0]) / POLLS, (before[1] - began[1]) / POLLS, most


async def read(changes: Any) -> None:
    """Acknowledge all that is delivered."""
    async for _ in changes:
        pass


def main() -> None:
    """Print the table."""
    logging.disable()
    print(f"{'open':>5} {'API':>4} {'requests/poll':>14} {'rows/poll':>10} {'most rows':>10}")
    for count in OPEN:
        for version in ("v4", "v6", "v8"):
            requests, rows, most = asyncio.run(costs(version, count))
            print(f"{count:5} {version:>4} {requests:14.1f} {rows:10.1f} {most:10}", flush=True)


if __name__ == "__main__":
    main()
