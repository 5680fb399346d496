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


class _ListeningSocket(socket.socket):
    """A listening socket that hands in each connection before anybody can lose it.

    A cancelled `loop.sock_accept` drops the connection that it had just accepted.
    """

    on_accept: Callable[[socket.socket], None]

    def accept(self) -> tuple[socket.socket, object]:
        accepted, address = super().accept()
        self.on_accept(accepted)
        return accepted, address


class Listener:
    """Accepts connections from `open()` to `close()`, after which none is left.

    asyncio's own server (before 3.12) neither waits for its connections nor knows those in the
    middle of a TLS handshake, and both would outlive a stopped server.
    """

    def __init__(self, factory: Callable[[], asyncio.Protocol], tls: ssl.SSLContext | None) -> None:
        self._factory = factory
        self._tls = tls
        self._socket: _ListeningSocket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._greeting: set[asyncio.Task[None]] = set()
        self._connections: dict[socket.socket, asyncio.Transport | None] = {}

    def open(self, host: str, port: int) -> int:
        """Start to accept; the port, also where `port` is 0.

        Raises: OSError where the port is taken.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        plain = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        self._socket = _ListeningSocket(fileno=plain.detach())
        self._socket.on_accept = self._remember
        self._socket.setblocking(False)
        self._accepting = asyncio.create_task(self._accept(self._socket))
        bound: int = self._socket.getsockname()[1]
        return bound

    async def refuse(self) -> None:
        """Accept no more, and give up what has not finished its handshake."""
        if self._accepting is None or self._socket is None:
            return
        self._accepting.cancel()
        await asyncio.gather(self._accepting, return_exceptions=True)
        self._socket.close()
        self._socket = self._accepting = None
        in_handshake = [sock for sock, transport in self._connections.items() if transport is None]
        for accepted in in_handshake:
            # Ends a handshake in whatever state it is, also one that has not begun.
            with contextlib.suppress(OSError):
                accepted.shutdown(socket.SHUT_RDWR)
        await asyncio.gather(*self._greeting)
        for accepted in in_handshake:
            if self._connections.get(accepted) is None:
                accepted.close()

    async def close(self) -> None:
        """Accept no more and cut off what is open; returns when the last socket is closed."""
        await self.refuse()
        for transport in self._connections.values():
            if transport is not None:
                transport.abort()
        # A transport closes its socket some loop iterations later and tells nobody.
        while self._prune():
            await asyncio.sleep(0)

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, _ = await loop.sock_accept(listening)
            except OSError:
                # Out of descriptors: those in use come back, the listening socket stays.
                await asyncio.sleep(_PAUSE_WITHOUT_DESCRIPTORS)
                continue
            self._prune()
            self._remember(accepted)
            task = asyncio.create_task(self._greet(accepted))
            self._greeting.add(task)
            task.add_done_callback(self._greeting.discard)

    async def _greet(self, accepted: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        # A client that goes away or trusts nobody during the handshake is its own business.
        with contextlib.suppress(OSError):
            transport, _ = await loop.connect_accepted_socket(
                self._factory, accepted, ssl=self._tls
            )
            self._connections[accepted] = transport

    def _remember(self, accepted: socket.socket) -> None:
        self._connections.setdefault(accepted, None)

    def _prune(self) -> bool:
        open_ones = {sock: how for sock, how in self._connections.items() if sock.fileno() != -1}
        self._connections = open_ones
        return bool(open_ones)
