"""The transport of one fleet or client: opened at the first use, in one event loop, and closed once.

May use `_core` and below. Must not know how requests are carried: over aiohttp, or by a transport that was
given.
"""

import asyncio
import logging
import os
import threading
import warnings
from collections.abc import Awaitable, Callable

import aiohttp

from aiovbo._settings.limits import Options
from aiovbo._settings.servers import Server
from aiovbo._settings.transport import Transport
from aiovbo._transport.given_transport import GivenTransport
from aiovbo._transport.http_session import HttpSession
from aiovbo._transport.request_timeout import TimeoutRegistry
from aiovbo.errors import ClosedError, ConfigError

log = logging.getLogger("aiovbo.http")

_CLOSED = "the fleet or client that this came from is closed"
_OTHER_PROCESS = (
    "the fleet or client was opened in another process than the one it is used in: make one per process"
)
_OTHER_LOOP = (
    "the fleet or client was opened in another event loop than the one it is used in: "
    "make one per loop, and per asyncio.run()"
)


class HttpPool:
    """What carries the requests of all servers of a fleet, and in which event loop it lives."""

    def __init__(
        self, options: Options, http: aiohttp.ClientSession | None, transport: Transport | None = None
    ) -> None:
        if http is not None and transport is not None:
            raise ConfigError("http and transport exclude each other: each carries the requests")
        self._options = options
        self._servers: list[Server] = []
        self._session: HttpSession | None = None
        self._given: GivenTransport | None = None
        if transport is None:
            self._session = HttpSession(options, http)
        else:
            self._given = GivenTransport(transport, options.user_agent)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = 0
        self._claiming = threading.Lock()
        self.carrier: HttpSession | GivenTransport | None = None
        """What carries requests now; None before it is open, and once it is closed."""
        self._opening = asyncio.Lock()
        self._closing = asyncio.Lock()
        self.attempts: TimeoutRegistry = TimeoutRegistry(options)
        """The tries that are in progress."""
        self.closed: bool = False

    @property
    def connections_per_server(self) -> int:
        """At most so many requests at once to one server; known once it is open."""
        return self._options.connections if self._session is None else self._session.connections_per_server

    def register(self, server: Server) -> None:
        """Note that a server will be queried."""
        self._servers.append(server)
        if self.carrier is not None:
            _warn_of_insecure(server)

    def forget(self, server: Server) -> None:
        """Note that it will not be queried any more."""
        self._servers.remove(server)

    def claim(self) -> None:
        """Note at the first use which event loop this belongs to: it cannot be used in any other.

        Raises: ClosedError once it closes, and in another event loop or process.
        """
        if self._loop is None:
            with self._claiming:
                # Another thread may have been faster.
                if self._loop is None:
                    self._loop, self._process = asyncio.get_running_loop(), os.getpid()
        if self.closed or self._closing.locked():
            raise ClosedError(_CLOSED)
        if os.getpid() != self._process:
            raise ClosedError(_OTHER_PROCESS)
        if asyncio.get_running_loop() is not self._loop:
            raise ClosedError(_OTHER_LOOP)

    async def open(self) -> HttpSession | GivenTransport:
        """Build the TLS contexts and the session; done once.

        Raises: ConfigError where a file of a TLS policy cannot be used.
        """
        self.claim()
        async with self._opening:
            if self.carrier is None:
                # A task before this one may have failed to open it.
                self.claim()
                try:
                    self.carrier = await self._build()
                except BaseException:
                    # What was never open can be opened in another event loop.
                    self._loop, self._opening = None, asyncio.Lock()
                    raise
        self.claim()
        return self.carrier

    async def _build(self) -> HttpSession | GivenTransport:
        servers = list(self._servers)
        if self._session is not None:
            await self._session.open(servers)
        for server in servers:
            _warn_of_insecure(server)
        if self.closed:
            if self._session is not None:
                await self._session.close()
            raise ClosedError("closed while it was opened")
        carrier = self._session or self._given
        assert carrier is not None  # one of them was made
        return carrier

    async def close(self, take_leave: Callable[[], Awaitable[None]]) -> None:
        """Take leave of the servers, end what is under way, close the session unless it was borrowed.

        Safe to repeat: a concurrent call waits for the end. Where the event loop was closed before,
        nothing can be sent any more: only the connections are closed.
        """
        if self.is_abandoned:
            await self._close_abandoned()
            return
        async with self._closing:
            if not self.begin_close():
                return
            try:
                await take_leave()
            finally:
                self.closed, self.carrier = True, None
                self.attempts.abort()
                if self._session is not None:
                    await self._session.close()

    @property
    def is_abandoned(self) -> bool:
        """Whether the event loop that it belongs to was closed."""
        return self._loop is not None and self._loop.is_closed()

    async def _close_abandoned(self) -> None:
        if self.closed:
            return
        self.closed, self.carrier = True, None
        if self._session is not None:
            await self._session.close_abandoned()
        names = ", ".join(server.name for server in self._servers[:3])
        log.warning(
            "the event loop was closed before the fleet or client (%s): its connections are closed now, and "
            "the servers were not logged out of; await its aclose() in the loop that uses it",
            names,
        )

    def __del__(self) -> None:
        # aiohttp only reports its own objects, which the user of the fleet does not know.
        session = getattr(self, "_session", None)
        if session is not None and session.must_be_closed and not self.closed:
            names = ", ".join(server.name for server in self._servers[:3])
            message = f"a fleet or client ({names}) was never closed: async with it, or await its aclose()"
            warnings.warn(message, ResourceWarning, source=self, stacklevel=2)

    def begin_close(self) -> bool:
        """Whether there is anything to close here: to a fork, the connections are its parent's.

        Raises: ClosedError in another event loop than the one it was opened in, while that one lives.
        """
        if self.closed:
            return False
        if self._loop is None:
            return True
        if os.getpid() != self._process:
            self.closed, self.carrier = True, None
            return False
        if not self._loop.is_closed() and asyncio.get_running_loop() is not self._loop:
            raise ClosedError(_OTHER_LOOP)
        return True


def _warn_of_insecure(server: Server) -> None:
    if server.tls.insecure:
        log.warning("%s: its certificate is not checked (insecure=True)", server.name)
