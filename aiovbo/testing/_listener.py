"""A listening socket that knows every connection it accepted, and closes to the last of them.

Knows TCP, TLS and asyncio. Must not know HTTP: it hands each connection to a protocol.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable

_BACKLOG = 512


class _RememberingSocket(socket.socket):
    """A listening socket that keeps what it accepted."""

    accepted: set[socket.socket]

    def accept(self) -> tuple[socket.socket, object]:
        connection, address = super().accept()
        self.accepted = {connection, *still_open(self.accepted)}
        return connection, address


def still_open(connections: set[socket.socket]) -> set[socket.socket]:
    """Those of the connections that nobody has closed yet."""
    return {connection for connection in connections if connection.fileno() != -1}


class Listener:
    """Accepts connections from `open()` to `close()`, after which none is left.

    asyncio's own server does not know connections in the middle of a TLS handshake, and before
    Python 3.12 it knows none: they would outlive a stopped server. Loops that do not accept
    through the socket (Windows' proactor, uvloop) close what has finished its handshake only.
    """

    def __init__(self, factory: Callable[[], asyncio.Protocol], tls: ssl.SSLContext | None) -> None:
        self._factory = factory
        self._tls = tls

    async def open(self, host: str, port: int) -> int:
        """Start to accept; the port, also where `port` is 0.

        Raises: OSError where the port is taken.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        plain = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        self._socket = _RememberingSocket(fileno=plain.detach())
        self._socket.accepted = set()
        self._server = await asyncio.get_running_loop().create_server(
            self._factory, sock=self._socket, ssl=self._tls, backlog=_BACKLOG
        )
        bound: int = self._socket.getsockname()[1]
        return bound

    def refuse(self) -> None:
        """Accept no more; what is connected stays."""
        self._server.close()

    async def close(self) -> None:
        """Cut off what is still connected; returns when the last socket is closed."""
        self.refuse()
        left = still_open(self._socket.accepted)
        for connection in left:
            # Ends a TLS handshake too, in whatever state it is, also one that has not begun.
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        while left := still_open(left):
            # A transport closes its socket some loop iterations later, and tells nobody.
            await asyncio.sleep(0)
