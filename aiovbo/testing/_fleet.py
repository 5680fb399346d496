"""Several backup servers at once, with one certificate authority and one login.

Knows servers only by their constructor, start and stop. Must not know HTTP or the API.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from types import TracebackType
from typing import Self

from aiovbo.testing._answers import VERSIONS, ApiVersion
from aiovbo.testing._authority import Authority
from aiovbo.testing._clock import SimClock
from aiovbo.testing._quirks import Quirks
from aiovbo.testing._server import PASSWORD, USERNAME, BackupServer
from aiovbo.testing._thread import in_thread
from aiovbo.testing._world import World


class BackupFleet:
    """Several running backup servers: `async with BackupFleet(20) as fleet:`.

    - `servers`: how many to make, or servers that were made already; those without an authority
          get the fleet's.
    - `seed`: picks the worlds, a different one for each server.
    - `versions`: newest API version of each server in turn.
    - `sessions`: how many sessions each world starts with.
    - `now`: where the worlds' clocks start; the real present if in doubt.
    - `speed`: world seconds per real second.
    - `username`: who may log in.
    - `password`: that user's password.
    - `host`: the address that all listen on.
    - `port`: the first server's port, the others follow; 0 takes free ones.
    - `quirks`: what every server does unlike others; nothing if not given.
    - `clock`: what the time of all servers passes by, instead of the real clock.
    - `ca_file`: path of a file that keeps the CA with its key, and with it the certificates' trust,
          between runs; a file that goes with the fleet if not given.
    """

    def __init__(  # each is one independent property of the servers
        self,
        servers: int | Sequence[BackupServer] = 3,
        *,
        seed: int = 0,
        versions: Sequence[ApiVersion] = VERSIONS[::-1],
        sessions: int = 40,
        now: datetime | None = None,
        speed: float = 1.0,
        username: str = USERNAME,
        password: str = PASSWORD,
        host: str = "127.0.0.1",
        port: int = 0,
        quirks: Quirks | None = None,
        clock: SimClock | None = None,
        ca_file: str | None = None,
    ) -> None:
        if isinstance(servers, int):
            servers = [
                BackupServer(
                    World(f"{seed}/{index}", sessions=sessions, now=now, speed=speed, clock=clock),
                    version=versions[index % len(versions)],
                    username=username,
                    password=password,
                    host=host,
                    port=port and port + index,
                    quirks=quirks,
                    name=f"vbo{index + 1}",
                    host_name=f"vbo{index + 1}.tech.local",
                )
                for index in range(servers)
            ]
        if not servers:
            raise ValueError("a fleet needs a server")
        self.servers: tuple[BackupServer, ...] = tuple(servers)
        self._host = host
        self._ca_file = ca_file
        self._authority: Authority | None = None

    @property
    def urls(self) -> list[str]:
        """Every server's base URL.

        Raises: RuntimeError before the first start.
        """
        return [server.url for server in self.servers]

    @property
    def ca_file(self) -> str:
        """Path of the CA file that clients must trust.

        It is there from the first start to `close`, or to the end of the `with` block.

        Raises: RuntimeError before the first start.
        """
        if self._authority is None:
            raise RuntimeError("the fleet has no CA file yet: start it first")
        return self._authority.ca_file

    @property
    def username(self) -> str:
        """Who may log in to the first server, and to all that the fleet made."""
        return self.servers[0].username

    @property
    def password(self) -> str:
        """That user's password."""
        return self.servers[0].password

    async def start(self) -> Self:
        """Begin to listen with every server; what already runs is left alone.

        Raises: OSError where a port is taken, after stopping what had started.
        """
        # Keys, certificates and files block, so they are made away from the loop.
        authority = await asyncio.to_thread(self._open_authority)
        try:
            for server in self.servers:
                server.authority = server.authority or authority
                await server.start()
        except BaseException:
            await self.close()
            raise
        return self

    async def stop(self) -> None:
        """Stop every server; what is stopped is left alone. The CA file stays until `close`."""
        await asyncio.gather(*(server.stop() for server in self.servers))

    async def close(self) -> None:
        """Stop every server, and remove the CA files; a later start writes them again."""
        await asyncio.gather(*(server.close() for server in self.servers))
        if self._authority is not None:
            await asyncio.to_thread(self._authority.close)

    def run_in_thread(self) -> AbstractContextManager[Self]:
        """The fleet, running in a thread of its own: `with fleet.run_in_thread():`."""
        return in_thread(self)

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        await self.close()

    def __len__(self) -> int:
        return len(self.servers)

    def __iter__(self) -> Iterator[BackupServer]:
        return iter(self.servers)

    def __getitem__(self, index: int) -> BackupServer:
        return self.servers[index]

    def _open_authority(self) -> Authority:
        if self._authority is None:
            self._authority = Authority(self._host, ca_file=self._ca_file)
        self._authority.open()
        return self._authority
