"""A server that sends exactly the given bytes, and records every byte that it receives.

Knows sockets, TLS and as much of HTTP as it takes to read requests. Must not know the SDK: it is there to
show what really goes over the wire. A script is bytes, a step, or a sequence of scripts; a step is any
coroutine function that takes the `Connection`.
"""

import asyncio
import contextlib
import re
import socket
import ssl as tls
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, cast
from urllib.parse import parse_qsl

from multidict import CIMultiDict

from harness.responses import http, json_answer, token_answer

Step = Callable[["Connection"], Awaitable[None]]
Script = bytes | Step | Sequence["Script"]
Pattern = str | re.Pattern[str]
Routes = Mapping[tuple[str, Pattern], Script]

ANY = re.compile("")
"""A path that matches every request; put it last in a table."""

_BACKLOG = 512
_CHUNK = 65536
_CLOSING = 5.0


# --------------------------------------------------------------------------------------- steps


def send(data: bytes) -> Step:
    """Send these bytes."""

    async def step(connection: "Connection") -> None:
        await connection.send(data)

    return step


def repeat(data: bytes, times: int | None = None, *, every: float = 0.0) -> Step:
    """Send these bytes again and again, indefinitely without `times`, with a pause in between."""

    async def step(connection: "Connection") -> None:
        left = times
        while left is None or left > 0:
            await connection.send(data)
            await asyncio.sleep(every)
            left = None if left is None else left - 1

    return step


def sleep(seconds: float) -> Step:
    """Do nothing for that long."""

    async def step(_connection: "Connection") -> None:
        await asyncio.sleep(seconds)

    return step


def wait(event: asyncio.Event) -> Step:
    """Do nothing until the test sets `event`."""

    async def step(_connection: "Connection") -> None:
        await event.wait()

    return step


def rst() -> Step:
    """Cut the connection off with a TCP reset."""
    return Connection.rst


def fin() -> Step:
    """Close the connection in good order."""
    return Connection.fin


def half_close() -> Step:
    """Send no more, but go on reading; over TLS without the goodbye that TLS asks for."""
    return Connection.half_close


def stall() -> Step:
    """Do nothing for as long as the client keeps the connection open."""
    return Connection.stall


def request() -> Step:
    """Read one request; only for scripts of whole connections, routes do it themselves."""

    async def step(connection: "Connection") -> None:
        await connection.read_request()

    return step


def in_turn(*scripts: Script) -> Step:
    """Each time it is run the next of `scripts`, the last one from then on."""
    left = deque(scripts)

    async def step(connection: "Connection") -> None:
        await run(left.popleft() if len(left) > 1 else left[0], connection)

    return step


async def run(script: Script, connection: "Connection") -> None:
    """Run a script of any kind."""
    if isinstance(script, bytes):
        await connection.send(script)
    elif callable(script):
        await script(connection)
    else:
        for part in script:
            await run(part, connection)


def vbo_routes(
    sessions_body: bytes = b"[]",
    version: str = "v4",
    *,
    sessions: Script | None = None,
    token: Script | None = None,
    access_token: str = "access-1",  # noqa: S107  # worth nothing
) -> dict[tuple[str, Pattern], Script]:
    """What it takes to log in to a server and list its restore sessions.

    - `sessions`: the whole answer to a listing, instead of 200 with `sessions_body`.
    - `token`: the whole answer to a login.
    - `access_token`: what a login yields, and the only token that a listing accepts.
    """
    answer = http(body=sessions_body) if sessions is None else sessions
    listing = _authorized(access_token, answer)
    probe = _authorized(access_token, json_answer({"version": version}))
    login = token_answer(access_token) if token is None else token
    return {
        ("POST", f"/{version}/token"): login,
        ("GET", f"/{version}/RestoreSessions"): listing,
        ("GET", f"/{version}/ServiceInstance"): probe,
    }


def _authorized(access_token: str, script: Script) -> Step:
    async def step(connection: "Connection") -> None:
        sent = connection.requests[-1].headers.get("Authorization")
        if sent == f"Bearer {access_token}":
            await run(script, connection)
        else:
            await connection.send(json_answer({"message": "Unauthorized", "errorCode": None}, 401))

    return step


# ---------------------------------------------------------------------------------- connections


@dataclass(frozen=True)
class Request:
    """One request, as it came over the wire."""

    method: str
    target: str
    """Exactly what was sent, query included."""
    protocol: str
    headers: CIMultiDict[str]
    body: bytes
    connection: int
    """The number of its connection, counted from 0."""

    @property
    def form(self) -> dict[str, str]:
        """The body, as a form."""
        return dict(parse_qsl(self.body.decode(), keep_blank_values=True, strict_parsing=True))

    @property
    def last(self) -> bool:
        """Whether the client wants the connection closed afterwards."""
        return self.headers.get("Connection", "").lower() == "close" or self.protocol == "HTTP/1.0"

    def matches(self, method: str, path: Pattern) -> bool:
        """Whether a table's key means this request; the paths of VB365 know no case."""
        if method not in ("*", self.method):
            return False
        if isinstance(path, re.Pattern):
            return path.match(self.target) is not None
        wanted, asked = path.lower(), self.target.lower()
        if wanted.endswith("*"):
            return asked.startswith(wanted[:-1])
        return wanted == (asked if "?" in wanted else asked.partition("?")[0])


class Connection(asyncio.Protocol):
    """One accepted connection: what came in over it, and how to answer."""

    # TLS is done here and not by asyncio, whose servers send no alert when a handshake fails.

    def __init__(
        self,
        number: int,
        sock: socket.socket,
        news: asyncio.Event,
        record: list[Request],
        secure: tls.SSLContext | None,
    ) -> None:
        self.number = number
        self.data = bytearray()
        """Everything received, decrypted where there is TLS."""
        self.requests: list[Request] = []
        self.handshake_error: Exception | None = None
        """Why no TLS connection came about."""
        self.half_closed = False
        self._incoming, self._outgoing = tls.MemoryBIO(), tls.MemoryBIO()
        self._tls: tls.SSLObject | None = None
        if secure is not None:
            self._tls = secure.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._ready = asyncio.Event()
        self._socket = sock
        self._news = news
        self._record = record
        self._transport: asyncio.Transport | None = None
        self._consumed = 0
        self._ended = asyncio.Event()
        self._lost = asyncio.Event()
        self._arrived = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._said_close = False

    @property
    def received(self) -> int:
        """How many bytes came in; a TLS handshake does not count."""
        return len(self.data)

    @property
    def closed(self) -> bool:
        """Whether its socket is gone."""
        return self._socket.fileno() == -1

    @property
    def finished(self) -> bool:
        """Whether no further request is to be expected."""
        return self._said_close or self.half_closed or self.requests[-1].last

    async def ready(self) -> bool:
        """Whether it came about; with TLS, once the handshake is over."""
        await self._ready.wait()
        return self.handshake_error is None

    async def read_request(self) -> Request | None:
        """The next request, or None once the client has closed.

        Raises: AssertionError where what came is not a request.
        """
        head = await self._read_head()
        if head is None:
            return None
        line, *fields = head.split("\r\n")
        try:
            method, target, protocol = line.split(" ")
            headers = CIMultiDict(_field(text) for text in fields)
        except ValueError:
            message = f"connection {self.number} received no HTTP request but {head!r}"
            raise AssertionError(message) from None
        assert "Transfer-Encoding" not in headers, "only bodies with a Content-Length are read"
        body = await self._read(int(headers.get("Content-Length", "0")))
        if body is None:
            return None
        asked = Request(method, target, protocol, headers, body, self.number)
        self.requests.append(asked)
        self._record.append(asked)
        self._news.set()
        return asked

    async def send(self, data: bytes) -> None:
        """Send, and wait while the client takes nothing in."""
        if self._transport is None or self._transport.is_closing():
            raise ConnectionResetError
        self._said_close |= b"\r\nconnection: close\r\n" in data[:8192].lower()
        if self._tls is None:
            self._transport.write(data)
        else:
            self._tls.write(data)
            self._flush()
        await self._writable.wait()

    async def rst(self) -> None:
        """Cut off with a TCP reset."""
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.abort()
        await self._lost.wait()

    async def fin(self) -> None:
        """Send what is left, and close."""
        # uvloop's transports refuse to be closed twice.
        if self._transport is None or self._transport.is_closing():
            return
        if self._tls is not None and not self.half_closed:
            # Says goodbye, and does not wait for the client's.
            with contextlib.suppress(tls.SSLError):
                self._tls.unwrap()
            self._flush()
        self._transport.close()

    async def half_close(self) -> None:
        """Send no more, but go on reading."""
        assert self._transport is not None
        self.half_closed = True
        self._transport.write_eof()

    async def stall(self) -> None:
        """Wait until the client closes."""
        await self._ended.wait()

    def abort(self) -> None:
        """Drop the connection with all that is unsent."""
        if self._transport is not None:
            self._transport.abort()

    async def _read_head(self) -> str | None:
        while (end := self.data.find(b"\r\n\r\n", self._consumed)) < 0:
            if not await self._more():
                return None
        head = self.data[self._consumed : end].decode("latin-1")
        self._consumed = end + 4
        return head

    async def _read(self, size: int) -> bytes | None:
        while self.received < self._consumed + size:
            if not await self._more():
                return None
        body = bytes(self.data[self._consumed : self._consumed + size])
        self._consumed += size
        return body

    async def _more(self) -> bool:
        if self._ended.is_set():
            return False
        self._arrived.clear()
        await self._arrived.wait()
        return True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asyncio says: here it is."""
        # Not checked: uvloop's are of no class of asyncio.
        self._transport = cast("asyncio.Transport", transport)
        if self._tls is None:
            self._ready.set()
        self._news.set()

    def data_received(self, data: bytes) -> None:
        """Asyncio says: this came."""
        if self._tls is None:
            self._take(data)
            return
        self._incoming.write(data)
        try:
            self._decrypt(self._tls)
        except tls.SSLWantReadError:
            pass
        except tls.SSLZeroReturnError:
            self._end()
        except tls.SSLError as error:
            self._fail(error)
        # Also of a failure: it is the alert.
        self._flush()

    def eof_received(self) -> bool:
        """The peer has sent everything; our half of the connection stays open."""
        self._end()
        return True

    def connection_lost(self, _exc: Exception | None) -> None:
        """Asyncio says: it is closed."""
        self._end()
        self._writable.set()
        self._lost.set()

    def pause_writing(self) -> None:
        """Asyncio says: the client takes in no more."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Asyncio says: it does again."""
        self._writable.set()

    def _decrypt(self, secure: tls.SSLObject) -> None:
        if not self._ready.is_set():
            secure.do_handshake()
            self._ready.set()
        while data := secure.read(_CHUNK):
            self._take(data)

    def _flush(self) -> None:
        if self._transport is not None and not self.half_closed:
            self._transport.write(self._outgoing.read())

    def _take(self, data: bytes) -> None:
        self.data += data
        self._arrived.set()
        self._news.set()

    def _fail(self, error: Exception) -> None:
        self.handshake_error = error
        self._ready.set()
        self._end()

    def _end(self) -> None:
        self._ended.set()
        self._arrived.set()
        if not self._ready.is_set():
            self._fail(ConnectionResetError("the client left during the handshake"))
        self._news.set()


def _field(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise ValueError
    return name, value.strip()


# --------------------------------------------------------------------------------------- server


class RawServer:
    """Answers by script: a table of routes, run once per request, or any script, run once per connection.

    A route's key is a method ("*" for all) and a path without the query, a path with one, a prefix ending in
    "*", or a compiled pattern for the beginning of the target; the first that matches is used, and a request
    that none matches is answered 404. A connection is closed when its script ends; with routes, when the
    request or the answer says `Connection: close`, or the client closes.

    A script that fails of itself, or a client that sends no HTTP where some is read, fails the `async with`.
    """

    # Not asyncio.start_server: before 3.12 it does not wait for its connections when it closes.

    def __init__(
        self,
        script: Script | Routes,
        *,
        ssl: tls.SSLContext | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.script = script
        """May be replaced at any time; counts from the next request or connection on."""
        self.host = host
        self.port = port
        self.connections: list[Connection] = []
        self.requests: list[Request] = []
        self.errors: list[BaseException] = []
        """What went wrong in the scripts."""
        self._ssl = ssl
        self._news = asyncio.Event()
        self._listening: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Where it is found, without a slash at the end."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'http' if self._ssl is None else 'https'}://{host}:{self.port}"

    @property
    def received(self) -> int:
        """How many bytes came in over all connections; TLS handshakes do not count."""
        return sum(connection.received for connection in self.connections)

    def asked(self, method: str, path: Pattern) -> list[Request]:
        """The requests so far that such a route would match."""
        return [request for request in self.requests if request.matches(method, path)]

    async def until(self, met: Callable[[], bool], *, within: float = 5.0) -> None:
        """Wait until `met()`, which is asked whenever something arrived or a connection came or went."""
        async with asyncio.timeout(within):
            while not met():
                self._news.clear()
                await self._news.wait()

    async def __aenter__(self) -> Self:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        self._listening = socket.create_server((self.host, self.port), family=family, backlog=_BACKLOG)
        self._listening.setblocking(False)  # noqa: FBT003  # has no name
        self.port = self._listening.getsockname()[1]
        self._start(self._accept(self._listening))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        await self._stop()
        if kind is None and self.errors:
            message = "the server's script failed"
            raise BaseExceptionGroup(message, self.errors)

    async def _stop(self) -> None:
        assert self._listening is not None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._listening.close()
        for connection in self.connections:
            connection.abort()
        async with asyncio.timeout(_CLOSING):
            # A transport closes its socket some loop iterations later, without a callback.
            while not all(connection.closed for connection in self.connections):
                await asyncio.sleep(0)

    def _start(self, work: Any) -> None:  # a coroutine, of a type too long to say
        task = asyncio.create_task(work, name="raw server")
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.errors.append(error)

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            accepted, _ = await loop.sock_accept(listening)
            connection = Connection(len(self.connections), accepted, self._news, self.requests, self._ssl)
            self.connections.append(connection)
            self._start(self._serve(connection, accepted))

    async def _serve(self, connection: Connection, accepted: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(lambda: connection, accepted)
        try:
            # The client may go away whenever it likes.
            with contextlib.suppress(ConnectionError):
                if not await connection.ready():
                    return
                if isinstance(self.script, Mapping):
                    await self._converse(connection)
                else:
                    await run(self.script, connection)
        finally:
            await connection.fin()

    async def _converse(self, connection: Connection) -> None:
        while (asked := await connection.read_request()) is not None:
            await run(self._answer_to(asked), connection)
            if connection.finished:
                return

    def _answer_to(self, asked: Request) -> Script:
        assert isinstance(self.script, Mapping)
        for (method, path), script in self.script.items():
            if asked.matches(method, path):
                return script
        return json_answer({"message": "Not found", "errorCode": None}, 404)
