"""GET requests below `aiohttp.ClientSession`: over the session's own connector, read by aiohttp's own parser.

`ClientSession._request` makes a request and a response, with a timer, cookies, redirects and a writer, none
of which a GET of ours uses. Gain, for a warm poll of a server with 30 sessions: 927 to 758 thousand
instructions.

A request takes this path only where it makes no difference. aiohttp's public API carries it in every
other case and in any doubt: other methods, proxies, sessions that were lent, traces, functions of aiohttp
that another package has replaced, an aiohttp that parses a response otherwise, and wherever
AIOVBO_PUBLIC_HTTP=1 is set. Both paths share the connector, the parser, and all that follows.

May use aiohttp, and the rest of `_transport` that knows connections. Must not know limits of time, tokens,
or the errors of the SDK.
"""

import asyncio
import logging
import os
from collections.abc import Mapping
from http import HTTPStatus
from operator import attrgetter, is_
from pathlib import Path
from types import FunctionType, TracebackType
from typing import Self

import aiohttp
from aiohttp.connector import Connection
from aiohttp.http import HttpProcessingError
from aiohttp.streams import StreamReader
from attrs import define, field
from yarl import URL

from aiovbo._protocol.messages import Redacted
from aiovbo._transport.connections import GetTarget, HttpConnection, ServerConnections
from aiovbo._transport.connector import PoolConnector
from aiovbo._transport.tls import ServerContext

log = logging.getLogger("aiovbo.http")

SWITCH = "AIOVBO_PUBLIC_HTTP"
"""The environment variable that, set to 1, leaves every request to aiohttp's public API."""

READ_BUFFER = 2**18
"""Bytes of a response that may be received before they are read, as aiohttp has it by itself."""

_INTERIM = set(range(HTTPStatus.CONTINUE, HTTPStatus.OK)) - {HTTPStatus.SWITCHING_PROTOCOLS}
"""Statuses that are followed by the response's own."""

_FOLDER = Path(aiohttp.__file__).parent

_SAMPLE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{}"


class DirectGets:
    """Decides which requests of one session take the direct path, and counts them."""

    def __init__(self, session: aiohttp.ClientSession, connector: PoolConnector, user_agent: str) -> None:
        self._session = session
        self._connector = connector
        self._user_agent = user_agent
        self._passed_by = _passed_by(aiohttp)
        self.sent: int = 0
        """How many requests took it."""

    @property
    def may_be_used(self) -> bool:
        """Whether the environment, the session and aiohttp are such that it makes no difference."""
        return (
            os.environ.get(SWITCH, "0") in ("", "0")
            and type(self._session) is aiohttp.ClientSession
            and all(map(_is_of_aiohttp, (aiohttp.ClientSession.__init__, *self._passed_by)))
            and _can_parse()
        )

    def get(
        self,
        connections: ServerConnections,
        context: ServerContext,
        url: URL,
        headers: Redacted[dict[str, str]],
    ) -> "DirectGet | None":
        """The request as an async context that gives the response; None where aiohttp has to send it."""
        session = self._session
        if (
            connections.proxy is not None
            or session.closed
            or session.trace_configs
            # Wrappers may equal what they wrap.
            or not all(map(is_, _passed_by(aiohttp), self._passed_by))
        ):
            return None
        target = connections.target
        if target is None or target.ssl is not context or target.authority != (url.scheme, url.raw_authority):
            target = connections.target = GetTarget(session, context, url, self._user_agent)
        if not url.raw_path_qs.isprintable():
            return None
        if headers is not target.plain:
            # Once for each token.
            if not _are_plain(headers):
                return None
            target.plain = headers
        self.sent += 1
        return DirectGet(self._connector, session.timeout, target, url, headers)


@define(eq=False, repr=False)
class DirectGet:
    """A GET as an async context, which gives itself as the response, as far as it is used."""

    _connector: PoolConnector
    _timeout: aiohttp.ClientTimeout
    _target: GetTarget
    _url: URL
    _request_headers: Redacted[dict[str, str]]
    _connection: Connection | None = field(default=None, init=False)
    status: int = field(init=False)
    """The HTTP status."""
    headers: Mapping[str, str] = field(init=False)
    """The headers of the response."""
    content_length: int | None = field(init=False)
    """The length of the body, where it is declared."""
    content: StreamReader = field(init=False)
    """The body."""

    async def __aenter__(self) -> Self:
        try:
            await self._exchange()
        except aiohttp.ClientConnectorError:
            raise
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
            # A kept connection may have been dead: aiohttp too sends a GET a second time.
            pass
        else:
            return self
        await self._exchange()
        return self

    async def _exchange(self) -> None:
        """Send the request over a connection, and receive the head of the response."""
        connection = await self._connector.connect(self._target, [], self._timeout)
        protocol, transport = connection.protocol, connection.transport
        if protocol is None or transport is None or transport.is_closing():
            connection.close()
            raise aiohttp.ClientConnectionResetError
        try:
            protocol.set_response_params(read_until_eof=True, read_bufsize=READ_BUFFER)
            transport.write(_head(self._target, self._url, self._request_headers))
            message, self.content = await protocol.read()
            while message.code in _INTERIM:
                message, self.content = await protocol.read()
            self.status, self.headers = message.code, message.headers
            length = message.headers.get("Content-Length")
            self.content_length = None if length is None else int(length)
        except HttpProcessingError as error:
            connection.close()
            raise aiohttp.ClientResponseError(
                self._target.request_info,
                (),
                status=error.code,
                message=error.message,
                headers=error.headers,
            ) from error
        except BaseException:
            connection.close()
            raise
        self._connection = connection

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            # The connector closes it where the whole body has not arrived.
            connection.release()


def _head(target: GetTarget, url: URL, headers: Redacted[dict[str, str]]) -> bytes:
    """The bytes of a request, as aiohttp would send them.

    In a function of its own, so that no frame that waits holds the token.
    """
    fields = "".join(map("%s: %s\r\n".__mod__, headers.content.items()))
    return f"GET {url.raw_path_qs} HTTP/1.1\r\n{target.first}{fields}{target.last}\r\n".encode()


def _are_plain(headers: Redacted[dict[str, str]]) -> bool:
    """Whether the headers are the usual ones, and have no character that aiohttp would refuse."""
    return "Accept" in headers.content and all(map(str.isprintable, headers.content.values()))


_passed_by = attrgetter(
    "ClientSession.request",
    "ClientSession._request",
    "ClientRequest.__init__",
    "ClientRequest.update_headers",
    "ClientRequest.send",
    "ClientResponse.start",
)
"""Functions of aiohttp that are not called for a request; packages that observe or mock it replace them."""


def _is_of_aiohttp(function: object) -> bool:
    # What replaces it may have its name and its module, but not its code.
    return type(function) is FunctionType and Path(function.__code__.co_filename).parent == _FOLDER


def _can_parse() -> bool:
    """Whether aiohttp's protocol of a connection, used as it is here, parses a response without a socket."""
    try:
        protocol = HttpConnection(asyncio.get_running_loop())
        protocol.set_response_params(read_until_eof=True, read_bufsize=READ_BUFFER)
        protocol.data_received(_SAMPLE)
        reading = protocol.read()
        try:
            # It has arrived, so nothing is waited for.
            reading.send(None)
        except StopIteration as found:
            message, content = found.value
        else:
            reading.close()
            return False
        head = (message.code, message.headers["Content-Type"], protocol.upgraded, content.is_eof())
        return head == (HTTPStatus.OK, "application/json", False, True) and content.read_nowait() == b"{}"
    except Exception as error:  # whatever another version of aiohttp does
        log.debug("aiohttp's public API sends all requests: %s", type(error).__name__)
        return False
