"""A listening socket that knows every connection it accepted, and closes to the last of them.

Knows TCP, TLS and asyncio. Must not know HTTP: it hands each connection to a protocol.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable

_BACKLOG = 512
_PAUSE_WITHOUT_DESCRIPTORS = 0.05


class Listener:
    """Accepts connections from `open()` to `close()`, after which none is left.

    asyncio's own server does not know its connections before Python 3.12, nor ever those in the
    middle of a TLS handshake: they would outlive a stopped server.
    """

    def __init__(self, factory: Callable[[], asyncio.Protocol], tls: ssl.SSLContext | None) -> None:
        self._factory = factory
        self._tls = tls
        self._refusing = False
        self._greetings: set[asyncio.Task[None]] = set()
        self._connections: dict[socket.socket, asyncio.Transport | None] = {}

    def open(self, host: str, port: int) -> int:
        """Start to accept; the port, also where `port` is 0.

        Raises: OSError where the port is taken.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        self._socket.settimeout(0)
        self._accepting = asyncio.create_task(self._accept())
        bound: int = self._socket.getsockname()[1]
        return bound

    async def refuse(self) -> None:
        """Accept no more; what has finished its handshake stays connected."""
        self._refusing = True
        # Cancelling `sock_accept` can lose a connection just accepted: knock instead.
        with socket.socket(self._socket.family) as knock:
            knock.settimeout(0)
            knock.connect_ex(self._socket.getsockname())
            await self._accepting
        self._socket.close()
        for connection, transport in self._connections.items():
            if transport is None:
                # Ends a handshake in whatever state it is, also one that has not begun.
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        await asyncio.gather(*self._greetings)

    async def close(self) -> None:
        """Cut off what is still connected; returns when the last socket is closed."""
        for connection, transport in self._connections.items():
            if transport is not None:
                # Before Python 3.11.5 a TLS transport that was closed twice cannot be aborted; it
                # would wait 30 s for the client's farewell, unless the socket ends.
                with contextlib.suppress(AttributeError):
                    transport.abort()
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        # A transport closes its socket some loop iterations later, without a notification.
        while self._forget_closed():  # noqa: ASYNC110  # there is no event to wait for
            await asyncio.sleep(0)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._refusing:
            try:
                connection, _ = await loop.sock_accept(self._socket)
            except OSError:
                # Out of descriptors: some come back, and the client waits in the backlog.
                await asyncio.sleep(_PAUSE_WITHOUT_DESCRIPTORS)
                continue
            self._forget_closed()
            self._connections[connection] = None
            greeting = asyncio.create_task(self._greet(connection))
            self._greetings.add(greeting)
            greeting.add_done_callback(self._greetings.discard)

    async def _greet(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        # A client that goes away, or trusts no certificate, during the handshake is its own business.
        with contextlib.suppress(OSError):
            transport, _ = await loop.connect_accepted_socket(self._factory, connection, ssl=self._tls)
            self._connections[connection] = transport

    def _forget_closed(self) -> bool:
        still_open = {sock: how for sock, how in self._connections.items() if sock.fileno() != -1}
        self._connections = still_open
        return bool(still_open)
