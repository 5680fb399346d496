"""Connections of aiovbo's own session: which server each belongs to, and when one must not be used again.

In HTTP/1.1 a response does not name its request: whatever arrives on a connection is taken for the response
to the request that was sent there. So a connection serves one server only, and it is closed when anything
arrives on it without a request.

Knows aiohttp's protocol of a connection, and the key by which its connector keeps one. Must not know which
requests are sent, limits or errors of the SDK.
"""

import asyncio
import logging
import select
import socket
from contextlib import suppress
from contextvars import ContextVar
from http import HTTPStatus
from itertools import count

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest, ConnectionKey
from aiohttp.http import HttpProcessingError, RawResponseMessage
from aiohttp.streams import StreamReader
from yarl import URL

from aiovbo._protocol.messages import Redacted
from aiovbo._settings.proxies import Proxy
from aiovbo._settings.servers import TLS
from aiovbo._transport.addressing import own_headers, server_name
from aiovbo._transport.tls import LoadedTls, ServerContext

log = logging.getLogger("aiovbo.http")

_DEFAULT_TLS = TLS()

PROBED_AFTER, PROBED_EVERY = 60, 15
"""Seconds until the operating system probes an idle connection, and between two probes.

Routers and VPNs commonly forget connections that were idle for a few minutes: the probes also prevent that.
"""

UNACKNOWLEDGED = 30
"""Seconds without an acknowledgement after which the operating system ends a connection, where it can."""

_PROBES = {
    "TCP_KEEPIDLE": PROBED_AFTER,
    # The same on macOS.
    "TCP_KEEPALIVE": PROBED_AFTER,
    "TCP_KEEPINTVL": PROBED_EVERY,
    "TCP_USER_TIMEOUT": UNACKNOWLEDGED * 1000,
}

_REQUEST_TIMEOUT = HTTPStatus.REQUEST_TIMEOUT

_numbers = count()


class ServerConnections:
    """The connections of one server, which no other server's requests use, and how they are made."""

    __slots__ = ("idle", "loaded", "number", "proxy", "reads_files_again", "server", "target", "tls")

    loaded: LoadedTls | None
    """The context of their TLS policy; None before their first request."""

    def __init__(
        self,
        name: str,
        tls: TLS = _DEFAULT_TLS,
        proxy: Proxy | None = None,
        *,
        reads_files_again: bool = False,
    ) -> None:
        self.tls: TLS = tls
        """Whom they trust."""
        self.loaded = None
        self.proxy: Proxy | None = proxy
        """The forward proxy through which they go."""
        self.number: int = next(_numbers)
        """Identifies them in the pool's keys."""
        self.reads_files_again: bool = reads_files_again
        """Whether their TLS files may have changed since other servers' connections read them."""
        self.server: str = name
        """The name of the server."""
        self.idle: set[HttpConnection] = set()
        """Those that no request uses now."""
        self.target: GetTarget | None = None
        """What their GETs have in common; None before the first one."""

    def close_idle(self) -> None:
        """Close those that no request uses: one of them has failed, so the others probably will."""
        while self.idle:
            self.idle.pop().abort()

    def report_unsolicited(self) -> None:
        """Log that a connection was closed because of data that no request asked for."""
        log.debug("%s: closed a connection on which data arrived without a request", self.server)


current_connections: ContextVar[ServerConnections] = ContextVar("aiovbo_connections")
"""The connections that the current request may use."""


class EarlyDataError(aiohttp.ClientConnectionError):
    """A server sent data on a new connection before it was sent a request."""


class OwnedRequest(ClientRequest):
    """A request whose connection belongs to its server, not only to an address."""

    @property
    def connection_key(self) -> ConnectionKey:
        """The key of aiohttp with the server's number, so that two users of one URL share no connection."""
        # A field that only the key itself uses. One server has one proxy, with one set of headers.
        key = super().connection_key
        return ConnectionKey(*key[:6], current_connections.get().number, key.server_hostname)


class GetTarget(OwnedRequest):
    """What all GETs to a server have in common: a request of aiohttp by which connections are made.

    It is never sent itself.
    """

    plain: Redacted[dict[str, str]] | None = None
    """Headers in which nothing has to be checked any more: those of the last request."""

    def __init__(
        self, session: aiohttp.ClientSession, context: ServerContext, url: URL, user_agent: str
    ) -> None:
        own, name = own_headers(url, user_agent), server_name(url, context)
        super().__init__(
            "GET",
            url.origin(),
            headers=own,
            session=session,
            ssl=context,
            server_hostname=name,
        )
        self._key = super().connection_key
        self.authority: tuple[str, str] = url.scheme, url.raw_authority
        """What URLs have in common whose requests are sent to it."""
        fields = [f"{name}: {value}\r\n" for name, value in self.headers.items() if name != "Accept"]
        self.first: str = fields[0]
        """The field of the head before those of a request: Host."""
        self.last: str = "".join(fields[1:])
        """The fields after those of a request."""

    @property
    def connection_key(self) -> ConnectionKey:
        """The key of the pooled connections, made once."""
        return self._key


class HttpConnection(ResponseHandler):
    """aiohttp's protocol of a connection, which closes it when data arrives without a request."""

    _connections: ServerConnections | None = None
    # Until its first request it may be a tunnel, which aiohttp uses by itself.
    _in_use = True
    _has_answered = False
    _poll: "select.poll | None" = None
    reused: bool = False
    """Whether it has served a request already."""

    def begin(self, connections: ServerConnections) -> bool:
        """Whether a request may be sent; it is in use from then on."""
        if self.should_close or self._reading_paused or (self.reused and self._has_leftover()):
            self.abort()
            return False
        self._connections = connections
        self._in_use, self._has_answered = True, False
        connections.idle.discard(self)
        return True

    def end(self) -> None:
        """Note that the request has its complete response, or was given up."""
        self._in_use, self.reused = False, True
        if self._connections is not None and self.transport is not None:
            self._connections.idle.add(self)

    def _has_leftover(self) -> bool:
        """Whether anything arrived that `should_close` does not include."""
        parser = self._parser
        if parser is not None:
            try:
                # A part of a head: aiohttp's parser in C returns it or fails, the one in Python keeps it.
                if parser.feed_eof() is not None or getattr(parser, "_lines", None):
                    return True
            except Exception:  # whatever is wrong with the part
                return True
        # What the event loop has not read yet, the end of the stream included.
        return self._poll is not None and bool(self._poll.poll(0))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        super().connection_made(transport)
        sock = transport.get_extra_info("socket")
        _probe_when_idle(sock)
        # Windows has none; its event loop always has a read pending there.
        if hasattr(select, "poll"):
            self._poll = select.poll()
            self._poll.register(sock.fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        """Called by the event loop; by aiohttp with nothing, after a pause."""
        if self._in_use or not data:
            super().data_received(data)
        else:
            if self._connections is not None:
                self._connections.report_unsolicited()
            self.abort()

    def feed_data(self, data: tuple[RawResponseMessage, StreamReader], size: int = 0) -> None:
        """Called by aiohttp with the head of a response."""
        if data[0].code == _REQUEST_TIMEOUT and self.reused and self._connections is not None:
            # Sent before the request arrived, so it means what a closed connection means.
            self._connections.close_idle()
            self.abort()
            self.set_exception(aiohttp.ServerDisconnectedError())
        else:
            self._has_answered = True
            super().feed_data(data, size)

    def set_exception(self, exc: BaseException, exc_cause: BaseException | None = None) -> None:
        """Called by aiohttp when a response is invalid, or lost."""
        payload = self._payload
        if isinstance(exc, HttpProcessingError) and payload is not None and not payload.is_eof():
            # aiohttp ends who waits for a head only: who waits for more of a body would never be ended.
            payload.set_exception(aiohttp.ClientPayloadError(), exc)
        if exc_cause is None:
            super().set_exception(exc)
        else:
            super().set_exception(exc, exc_cause)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Called by the event loop."""
        if self._connections is not None:
            self._connections.idle.discard(self)
            if self._in_use and self.reused and not self._has_answered:
                self._connections.close_idle()
        super().connection_lost(exc)


def _probe_when_idle(sock: socket.socket) -> None:
    """Make the operating system notice when the connection is dead, as far as it can."""
    # Not before it is made, because the limit on acknowledgements would count for connecting too.
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _PROBES.items():
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
