"""One exchange over aiohttp: send a request, read its answer, within limits; and the session that carries it.

Knows aiohttp, and lets none of its exceptions out: their repr prints the bearer token. Knows no tokens, no
retries, no resources.
"""

import asyncio
import errno
import logging
import os
import re
import socket
import ssl
import warnings
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, nullcontext
from contextvars import ContextVar
from functools import partial
from types import FrameType, TracebackType
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_middlewares import ClientHandlerType, ClientMiddlewareType
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import Connection
from aiohttp.tracing import Trace
from yarl import URL

from aiovbo._attempt import Attempt, Attempts
from aiovbo._config import TLS, Options, Server
from aiovbo._connections import (
    EarlyDataError,
    OwnedConnector,
    OwnedRequest,
    ServerConnections,
    current_connections,
)
from aiovbo._deadline import IS_IT_UP, Deadline
from aiovbo._threads import NoThreadError, in_thread, in_thread_if_possible, look_up
from aiovbo._tls import NotVerifiedError, ServerContext, tls_error
from aiovbo._wire import Reply, Sealed
from aiovbo.errors import (
    ClosedError,
    ConfigError,
    PayloadError,
    Phase,
    ServerError,
    ServerTimeoutError,
    TlsError,
    TlsReason,
    UnreachableError,
    printable,
)

log = logging.getLogger("aiovbo.http")

KEEP_ALIVE = 300.0
"""Seconds an idle connection is kept: longer than people usually wait between two polls."""

SPARED_DESCRIPTORS = 32
"""File descriptors left to the rest of the application."""

_LONG = 1_000_000
"""Bytes of an answer from which on it is handled in turns."""

_WHOSE_PROXY = "It is the proxy of the session that was lent (http=...): look there."
_QUOTED = re.compile(r"""[\s:(]+b?['"]""")

_current: ContextVar[Attempt | None] = ContextVar("aiovbo_attempt", default=None)


def _mark(phase: Phase) -> None:
    """Note how far the current connection has come; called also from callbacks in its context."""
    attempt = _current.get()
    if attempt is not None:
        attempt.phase = phase


def _mark_fresh() -> None:
    """Note that the current connection is a new one."""
    attempt = _current.get()
    if attempt is not None:
        attempt.fresh = True


class _Connector(OwnedConnector):
    """aiohttp's connector, telling the attempt when the connection is there."""

    async def connect(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109  # as aiohttp has it
    ) -> Connection:
        attempt = _current.get()
        if attempt is not None:
            # Until a socket is made: aiohttp may send it a second time, over another kept connection.
            attempt.fresh = False
        connection = await super().connect(req, traces, timeout)
        _admit(req, connection)
        return connection

    async def _wrap_create_connection(
        self,
        *args: Any,  # noqa: ANN401  # aiohttp's own, which pass through
        **kwargs: Any,  # noqa: ANN401
    ) -> tuple[asyncio.Transport, ResponseHandler]:
        factory, *rest = args

        def make() -> ResponseHandler:
            # Every event loop makes the protocol between connecting and the handshake.
            if kwargs.get("ssl") is not None:
                _mark("tls")
            made: ResponseHandler = factory()
            return made

        _mark("connect")
        connect = super()._wrap_create_connection  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]  # aiohttp's
        return await connect(make, *rest, **kwargs)


def _admit(request: ClientRequest, connection: Connection) -> None:
    """Note that a request has its connection; where TLS is due, make sure that it was verified.

    Raises: NotVerifiedError where it was not, ClientConnectorError where the server cut it off after the
    handshake; the connection is closed then.
    """
    context, protocol = request.ssl, connection.protocol
    assert isinstance(context, ServerContext)  # noqa: S101  # exchange() gave it
    assert protocol is not None  # noqa: S101  # the connection was just handed out
    first = protocol not in context.admitted
    if first:
        try:
            if request.is_ssl():
                _verify(request, context, connection.transport)
        except BaseException:
            connection.close()
            raise
        context.admitted.add(protocol)
    attempt = _current.get()
    if attempt is not None:
        attempt.fresh = first
        attempt.sent += 1
        attempt.enter("read")


def _verify(request: ClientRequest, context: ServerContext, transport: asyncio.Transport | None) -> None:
    if transport is None or transport.is_closing():
        cut_off = ConnectionResetError("cut off after the handshake")
        raise aiohttp.ClientConnectorError(request.connection_key, cut_off)
    context.check(transport)


async def _admit_before_sending(request: ClientRequest, handler: ClientHandlerType) -> aiohttp.ClientResponse:
    """A middleware for borrowed sessions, whose connector does not call `_admit`."""

    async def send(connection: Connection) -> aiohttp.ClientResponse:
        del request.send
        _admit(request, connection)
        return await request.send(connection)

    # No hook of aiohttp is called between the connection and the first byte.
    request.send = send  # type: ignore[method-assign, assignment]
    try:
        response = await handler(request)
    finally:
        was_sent_past_us = request.__dict__.pop("send", None) is not None
    if was_sent_past_us and request.is_ssl():
        response.close()
        raise NotVerifiedError(b"", b"", "", 0)
    return response


def _new_socket(address: tuple[int, int, int, str, tuple[object, ...]]) -> socket.socket:
    _mark_fresh()
    family, kind, protocol, *_ = address
    return socket.socket(family, kind, protocol)


class _Resolver(AbstractResolver):
    """Names to addresses, in the threads that all look-ups share."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        _mark("dns")
        found = await look_up(host, port, family)
        _mark("connect")
        return [
            ResolveResult(
                hostname=host,
                host=address.host,
                port=address.port,
                family=address.family,
                proto=address.protocol,
                flags=socket.AI_NUMERICHOST,
            )
            for address in found
        ]

    async def close(self) -> None:
        """Nothing to release."""


class HttpPool:
    """The one aiohttp session of a fleet, made or borrowed, with its TLS contexts."""

    def __init__(self, options: Options, http: aiohttp.ClientSession | None) -> None:
        given: object = http
        if given is not None and not isinstance(given, aiohttp.ClientSession):
            message = f"http is an aiohttp.ClientSession that is lent, not {given!r}"
            raise ConfigError(message)
        if http is not None:
            _refuse_what_it_adds(http)
        self._options = options
        self._servers: list[Server] = []
        self._session = http
        self._borrowed = http is not None
        # A borrowed session's connector does not tell when the connection is there: aiohttp has to watch it.
        connect_timeout = options.connect_timeout if self._borrowed else None
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout)
        self._middlewares: tuple[ClientMiddlewareType, ...] = ()
        if http is not None:
            self._middlewares = *_middlewares_of(http), _admit_before_sending
        self._contexts: dict[TLS, ServerContext] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = 0
        self._opening = asyncio.Lock()
        self._closing = asyncio.Lock()
        self._attempts = Attempts(options)
        self.closed = False
        self.connections = options.connections
        """At most so many requests at once to one server, as file descriptors allow."""
        self._descriptors: AbstractAsyncContextManager[None] = nullcontext()

    def expect(self, server: Server) -> None:
        """Note that a server will be asked."""
        self._servers.append(server)
        if self._loop is not None:
            _warn_of_insecure(server)

    def forget(self, server: Server) -> None:
        """Note that it will not be asked any more."""
        self._servers.remove(server)

    async def open(self) -> None:
        """Build the TLS contexts and the session; done once.

        Raises: ConfigError where a file of a TLS policy cannot be used.
        """
        if self._loop is not None:
            return self._check()
        async with self._opening:
            if self._loop is not None:
                return self._check()
            for server in list(self._servers):
                try:
                    await self._context(server.tls)
                except ConfigError as error:
                    problem = f"{server.name}: {error}"
                    raise ConfigError(problem) from None
                _warn_of_insecure(server)
            try:
                spare = await in_thread(_spare_descriptors)
            except NoThreadError:
                spare = None
            if self.closed:
                raise ClosedError("closed while it was opened")
            if self._session is None:
                self._session = self._make_session(spare)
            self._loop, self._process = asyncio.get_running_loop(), os.getpid()
        return self._check()

    async def _context(self, tls: TLS) -> ServerContext:
        if tls not in self._contexts:
            self._contexts[tls] = await in_thread_if_possible(partial(ServerContext, tls))
        return self._contexts[tls]

    async def _late_context(self, tls: TLS) -> ServerContext:
        """The context of a server that joined after the opening, whose trouble is its own."""
        try:
            return await self._context(tls)
        except ConfigError as error:
            problem = str(error)
        reason: TlsReason = "client_cert" if tls.client_cert else "untrusted"
        raise TlsError(problem, reason=reason, hint="Mend that, and add the server anew.")

    def _make_session(self, spare: int | None) -> aiohttp.ClientSession:
        servers = len(self._servers)
        if spare is not None:
            self.connections = max(1, min(self.connections, spare // max(1, servers)))
        short = spare is not None and spare < servers
        if short:
            log.warning(
                "%d servers, but this process may open only %d more files: no connection is kept, and at "
                "most so many are open at once; raise the limit (ulimit -n) to keep one per server",
                servers,
                spare,
            )
            self._descriptors = asyncio.Semaphore(spare or 1)
        connector = _Connector(
            # A shared limit would be held by servers that do not answer.
            limit=0,
            # Connections are kept, so names are rarely looked up; an old address would only be in the way.
            use_dns_cache=False,
            keepalive_timeout=None if short else KEEP_ALIVE,
            force_close=short,
            resolver=_Resolver(),
            socket_factory=_new_socket,
        )
        return aiohttp.ClientSession(
            connector=connector,
            request_class=OwnedRequest,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=self._timeout,
            trust_env=False,
        )

    def _check(self) -> None:
        if self.closed:
            raise ClosedError("the fleet or client that this came from is closed")
        if os.getpid() != self._process:
            raise ClosedError(
                "the fleet or client was opened in another process than the one it is used in: "
                "make one per process"
            )
        if asyncio.get_running_loop() is not self._loop:
            raise ClosedError(
                "the fleet or client was opened in another event loop than the one it is used in: "
                "make one per loop, and per asyncio.run()"
            )

    async def close(self, take_leave: Callable[[], Awaitable[None]]) -> None:
        """Take leave of the servers, end what is under way, close the session unless it was borrowed.

        Safe to repeat: whoever closes meanwhile waits for the end.
        """
        async with self._closing:
            if not self.may_be_closed():
                return
            try:
                await take_leave()
            finally:
                self.closed = True
                self._attempts.abort()
                if self._session is not None and not self._borrowed:
                    await self._session.close()

    @property
    def is_taking_leave(self) -> bool:
        """Whether nothing new may be asked any more."""
        return self.closed or self._closing.locked()

    def __del__(self) -> None:
        # aiohttp only tells of its own objects, of which whoever forgot the fleet has never heard.
        session = getattr(self, "_session", None)
        if session is not None and not (self._borrowed or self.closed):
            names = ", ".join(server.name for server in self._servers[:3])
            message = f"a fleet or client ({names}) was never closed: async with it, or await its aclose()"
            warnings.warn(message, ResourceWarning, source=self, stacklevel=2)

    def may_be_closed(self) -> bool:
        """Whether there is anything to close here: to a fork, the connections are its parent's.

        Raises: ClosedError in another event loop than the one it was opened in, while that one lives.
        """
        if self.closed:
            return False
        if self._loop is None or self._loop.is_closed():
            return True
        if os.getpid() != self._process:
            self.closed = True
            return False
        self._check()
        return True

    def attempt(
        self,
        deadline: Deadline,
        behind: Callable[[], Attempt | None] = lambda: None,
        *,
        most: float = float("inf"),
    ) -> Attempt:
        """A try until the deadline, for `most` seconds; `behind` is what it waits for while it is queued."""
        return Attempt(self._attempts, deadline, behind, most)

    async def exchange(  # noqa: PLR0913  # a request has that many parts
        self,
        attempt: Attempt,
        method: str,
        url: URL,
        *,
        tls: TLS,
        connections: ServerConnections,
        headers: Sealed[dict[str, str]],
        body: Sealed[bytes] | None = None,
    ) -> Reply:
        """Send one request and read the whole answer, over one of the server's connections.

        After a timeout on a kept connection the server's other idle ones are closed: what made that one
        silent, such as a router that forgot it, probably made them silent too.

        Raises: ServerError, without its server and operation; ClosedError.
        """
        await self.open()
        context = self._contexts.get(tls) or await self._late_context(tls)
        session = self._session
        assert session is not None  # noqa: S101  # open() made it
        mark = _current.set(attempt)
        whose = current_connections.set(connections)
        failure: BaseException
        try:
            async with self._descriptors:
                attempt.enter("read" if self._borrowed else "connect")
                return await self._send(session, attempt, method, url, headers, body, context)
        except Exception as error:  # noqa: BLE001  # one server's failure, or a bug
            if self.closed:
                failure = ClosedError("the fleet or client was closed while it was in use")
            elif session.closed:
                failure = ClosedError("the session that was lent (http=...) is closed")
            else:
                # Only a connection that was accepted is cut off, so this was the handshake.
                in_handshake = url.scheme == "https" and isinstance(error, aiohttp.ClientConnectorError)
                failure = translate(error, "tls" if in_handshake else attempt.phase)
        except BaseException as error:  # noqa: BLE001  # a cancellation or an interruption
            failure = error.with_traceback(None)
        finally:
            _current.reset(mark)
            current_connections.reset(whose)
            if attempt.has_timed_out and attempt.phase in ("read", "body") and not attempt.fresh:
                connections.close_idle()
        _forget_origin(failure)
        try:
            raise failure
        finally:
            # What is raised keeps this frame, which must not keep it in turn.
            del failure

    async def _send(  # noqa: PLR0913, PLR0917  # a request has that many parts
        self,
        session: aiohttp.ClientSession,
        attempt: Attempt,
        method: str,
        url: URL,
        headers: Sealed[dict[str, str]],
        body: Sealed[bytes] | None,
        context: ServerContext,
    ) -> Reply:
        async with session.request(
            method,
            url,
            headers=headers.content,
            data=body and body.content,
            allow_redirects=False,
            raise_for_status=False,
            timeout=self._timeout,
            ssl=context,
            middlewares=self._middlewares,
        ) as response:
            content = await self._read(response, attempt)
            return Reply.of(response.status, response.headers, content)

    async def _read(self, response: aiohttp.ClientResponse, attempt: Attempt) -> bytes:
        most = self._options.max_body
        if (response.content_length or 0) > most:
            raise _TooLargeError(most)
        chunks: list[bytes] = []
        size = 0
        content = response.content
        while not content.at_eof():
            attempt.enter("body")
            chunk = await content.readany()
            chunks.append(chunk)
            size += len(chunk)
            if size > most:
                raise _TooLargeError(most)
        if len(chunks) == 1:
            return chunks[0]
        body = b"".join(chunks)
        if size > _LONG:
            # To put it together took a while: whoever reads it begins in another turn of the event loop.
            await asyncio.sleep(0)
        return body


def _middlewares_of(session: aiohttp.ClientSession) -> Iterable[ClientMiddlewareType]:
    # aiohttp has no public name for them; those of a request replace those of its session.
    found: Iterable[ClientMiddlewareType] = getattr(session, "_middlewares", None) or ()
    return found


def _refuse_what_it_adds(session: aiohttp.ClientSession) -> None:
    """Refuse a session that is lent if it sends something of its own to every server, or garbles responses.

    Raises: ConfigError, without the secret.
    """
    problem: str | None = None
    secret = next((name for name in ("Authorization", "Cookie") if name in session.headers), None)
    if session.auth is not None:
        problem = "has auth=..., and would send it to every server"
    elif secret is not None:
        problem = f"has a default {secret} header, and would send it to every server"
    elif any(isinstance(one, aiohttp.DigestAuthMiddleware) for one in _middlewares_of(session)):
        problem = "has a DigestAuthMiddleware, and would answer every server with its password"
    elif session.trust_env:
        problem = (
            "has trust_env=True, and would send the passwords of a netrc file to servers. For a proxy, "
            "make it with aiohttp.ClientSession(proxy=...)"
        )
    elif not session.auto_decompress:
        problem = "has auto_decompress=False, so compressed responses cannot be read"
    if problem is not None:
        message = f"the session that is lent (http=...) {problem}"
        raise ConfigError(message)


def _warn_of_insecure(server: Server) -> None:
    if server.tls.insecure:
        log.warning("%s: its certificate is not checked (insecure=True)", server.name)


class _TooLargeError(Exception):
    """The body is larger than we are ready to read."""

    def __init__(self, most: int) -> None:
        super().__init__(f"the answer is larger than {most:,} bytes")


def _forget_origin(error: BaseException) -> None:
    """Drop the frames of other packages, and the errors that it came from.

    The frames of the HTTP library hold the token in their locals, and its errors show it in their repr.
    """
    entries = list(_entries(error.__traceback__))
    kept: TracebackType | None = None
    for entry in reversed(entries):
        if _is_ours(entry.tb_frame):
            kept = TracebackType(kept, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    error.__traceback__ = kept
    error.__cause__ = error.__context__ = None
    # Set with the cause, it would hide what the caller was handling.
    error.__suppress_context__ = False


def _entries(traceback: TracebackType | None) -> Iterator[TracebackType]:
    while traceback is not None:
        yield traceback
        traceback = traceback.tb_next


def _is_ours(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).partition(".")[0] == __name__.partition(".")[0]


def _is_bug(error: Exception) -> bool:
    """Whether it was raised by this package, neither by the HTTP library nor by the operating system."""
    *_, last = _entries(error.__traceback__)
    return _is_ours(last.tb_frame)


def translate(  # noqa: C901, PLR0911, PLR0912  # a table, one line of thought per row
    error: Exception, phase: Phase
) -> Exception:
    """Our error for one of aiohttp's, of the operating system's, or of zlib's."""
    # aiohttp tries another address of the server then, and may fail in that.
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, NotVerifiedError):
            return tls_error(cause)
        cause = cause.__context__
    match error:
        case ServerError() | ConfigError() | ClosedError():
            return error
        case _TooLargeError():
            hint = "Ask for fewer items (page_size=...), or raise max_body."
            return PayloadError(str(error), retryable=False, hint=hint)
        case aiohttp.ServerFingerprintMismatch():
            return tls_error(error)
        case aiohttp.ClientConnectorCertificateError():
            return tls_error(error.certificate_error)
        case aiohttp.ClientSSLError():
            return tls_error(error.os_error)
        case aiohttp.ConnectionTimeoutError():
            return ServerTimeoutError("no connection in time", phase="connect", hint=IS_IT_UP)
        case aiohttp.ClientHttpProxyError():
            what = f"the proxy does not let us through: HTTP {error.status}"
            may_pass = error.status >= 500  # noqa: PLR2004  # the class of server faults
            return UnreachableError(what, phase="connect", retryable=may_pass, hint=_WHOSE_PROXY)
        case aiohttp.ClientProxyConnectionError():
            return UnreachableError("the proxy cannot be reached", phase="connect", hint=_WHOSE_PROXY)
        case aiohttp.ClientConnectorDNSError(os_error=NoThreadError()):
            return no_thread_left()
        case RuntimeError() if "new thread" in str(error):
            # A borrowed session looks names up in the event loop's own threads.
            return no_thread_left()
        case aiohttp.ClientConnectorDNSError():
            hint = "Is the name right, and does this machine's name server know it?"
            what = f"the name {printable(error.host)} cannot be resolved"
            return UnreachableError(what, phase="dns", hint=hint)
        case aiohttp.ClientConnectorError():
            return _unreachable(error.os_error, phase)
        case aiohttp.ServerDisconnectedError():
            hint = "The server, or a proxy before it, hung up: try again."
            what = "the connection was closed without an answer"
            return PayloadError(what, phase=phase, retryable=True, hint=hint)
        case EarlyDataError():
            hint = "Is this the right port, and does a proxy garble answers?"
            what = "it sent data before it was sent a request, so this is not HTTP"
            return PayloadError(what, phase="read", retryable=True, hint=hint)
        case aiohttp.ClientPayloadError():
            hint = "The connection was cut, or a proxy garbles answers: try again."
            return PayloadError("the answer broke off", retryable=True, hint=hint)
        case aiohttp.ClientResponseError():
            # Without what it quotes of the answer, which may be an echo of our request.
            said = _QUOTED.split(error.message, maxsplit=1)[0]
            what = f"the answer is not HTTP: {printable(said)}"
            hint = "Is this the right port, and does a proxy garble answers?"
            return PayloadError(what, phase="read", retryable=True, hint=hint)
        case OSError():
            # After the handshake of TLS 1.3, a server may still refuse our certificate.
            for cause in (error.__cause__, error.__context__, error):
                if isinstance(cause, ssl.SSLError):
                    return tls_error(cause)
            hint = "The server, or something on the way, cut it off: try again."
            return UnreachableError("the connection was lost", phase=phase, hint=hint)
        case aiohttp.ClientError():
            return UnreachableError("no conversation came about", phase=phase)
        case MemoryError():
            hint = "Query fewer servers at once (concurrency=...), or allow this process more memory."
            return UnreachableError("this process has no memory left for the request", phase=phase, hint=hint)
        case _ if _is_bug(error):
            return error
        case _:
            # Without its text, which may quote the request.
            what = f"the HTTP library failed with {type(error).__name__}"
            hint = "Try again. If it fails again, check the server's address and its responses."
            return UnreachableError(what, phase=phase, hint=hint)


def no_thread_left() -> UnreachableError:
    """The error where no thread can be started to look a name up."""
    hint = (
        "Allow this process more threads (ulimit -u, TasksMax, the container's limit of processes), or "
        "configure the server by its IP address, which needs no thread."
    )
    return UnreachableError("no thread is left to look up its name", phase="dns", hint=hint)


def handshake_failure(error: OSError) -> UnreachableError:
    """Our error for an OSError on the way to a TLS connection."""
    return tls_error(error) if isinstance(error, ssl.SSLError) else _unreachable(error, "tls")


def _unreachable(error: OSError, phase: Phase) -> UnreachableError:
    # A connection attempt over several addresses carries its cause in its text only.
    words = error.strerror or str(error)
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return UnreachableError(
            "this process has no file descriptor left for a connection",
            phase="connect",
            hint="Raise the limit (ulimit -n), or ask fewer servers at once (concurrency=...).",
        )
    if error.errno == errno.ECONNREFUSED or "refused" in words:
        hint = "Does the Veeam Backup for Microsoft 365 REST API service run, and on this port?"
        return UnreachableError("the connection was refused", phase="connect", hint=hint)
    if phase == "tls" and isinstance(error, ConnectionResetError):
        hint = (
            "Is this the right port? The server may refuse our versions of TLS, or ask for a certificate "
            "of ours: TLS(client_cert=..., client_key=...)."
        )
        what = "the connection was cut off during the TLS handshake"
        return UnreachableError(what, phase="tls", hint=hint)
    hint = "Is the server up, and is there a route to it?"
    return UnreachableError(f"no connection: {printable(words)}", phase="connect", hint=hint)


def _spare_descriptors() -> int | None:
    """How many files this process may still open; None where there is no such limit."""
    try:
        import resource  # noqa: PLC0415  # not on Windows, where there is no limit either

        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        used = len(os.listdir("/dev/fd"))  # noqa: PTH208  # names suffice
    except (ImportError, OSError):
        return None
    spare = limit - used - SPARED_DESCRIPTORS
    if spare < 1:
        message = f"no file descriptor left for connections ({used} of {limit} used): raise ulimit -n"
        raise ConfigError(message)
    return spare
