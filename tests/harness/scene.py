"""A watch of one backup server in memory, in virtual time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from aiovbo import AnyChange, Fleet, Heartbeat, MemoryCheckpoint, Password, Server, Watch
from aiovbo.testing import BackupServer, MemoryTransport, SimClock, World

YEARS = timedelta(days=4000)


class Scene:
    """A backup server in memory, and what a consumer of its watch has stored at the end."""

    def __init__(self, version: Any = "v6", **options: Any) -> None:
        self.clock = SimClock()
        self.world = World(clock=self.clock, sessions=0)
        self.backup = BackupServer(self.world, version=version, clock=self.clock, **options)
        self.servers = {"vbo.test": self.backup}
        self.store = MemoryCheckpoint()

    @asynccontextmanager
    async def watching(self, deadline: float = 60.0, **options: Any) -> AsyncIterator[Watch]:
        """A watch of the server, with the checkpoint of the one before."""
        server = Server("https://vbo.test", Password(self.backup.username, self.backup.password), name="vbo")
        settings = {"since": YEARS, "heartbeat": timedelta(minutes=20), "ack": "manual", **options}
        transport = MemoryTransport(self.servers)
        async with (
            Fleet([server], clock=self.clock, transport=transport, retries=0, deadline=deadline) as fleet,
            fleet.watch(checkpoint=self.store, **settings) as changes,
        ):
            yield changes

    async def take(self, changes: Watch) -> list[AnyChange]:
        """Every change until there is none for a while."""
        found: list[AnyChange] = []
        while not isinstance(change := await anext(changes), Heartbeat):
            found.append(change)
        return found
