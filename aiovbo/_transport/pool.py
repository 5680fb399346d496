"""One exchange over aiohttp: send a request, read its answer, within limits; and the session that carries it.

Knows aiohttp, and lets none of its exceptions out: their repr prints the bearer token. Knows no tokens, no
retries, no resources.
"""

import asyncio
import logging
import os
import re
import threading
import warnings
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from functools import partial
from http import HTTPStatus
from weakref import WeakKeyDictionary

import aiohttp
from attrs import evolve
from multidict import CIMultiDict
from yarl import URL

from aiovbo._core.deadline import Deadline
from aiovbo._core.threads import NoThreadError, in_thread, in_thread_if_possible
from aiovbo._protocol.documents import completed
from aiovbo._protocol.messages import Redacted, Reply
from aiovbo._settings.limits import Options
from aiovbo._settings.proxies import Proxy
from aiovbo._settings.servers import TLS, Server
from aiovbo._transport.connections import (
    OwnedRequest,
    ServerConnections,
    current_connections,
)
from aiovbo._transport.connector import (
    BoundedResolver,
    PoolConnector,
    admit_before_sending,
    current_timeout,
    middlewares_of,
)
from aiovbo._transport.descriptors import DescriptorLimit, spare_descriptors
from aiovbo._transport.error_mapping import TooLargeError, forget_origin, map_aiohttp_error
from aiovbo._transport.interface import Transport, TransportRequest
from aiovbo._transport.proxy import proxy_failure
from aiovbo._transport.request_timeout import RequestTimeout, TimeoutRegistry
from aiovbo._transport.tls import ServerContext
from aiovbo.errors import (
    ClosedError,
    ConfigError,
    Phase,
    TlsError,
    TlsReason,
)

log = logging.getLogger("aiovbo.http")

_SCOPE = re.compile(r"%[^]]*")

ERROR_LIMIT = 64 * 1024
"""Bytes of an error response that are read."""

_CLOSED = "the fleet or client that this came from is closed"

_LONG = 1_000_000
"""Bytes of an answer from which on it is handled in turns."""


class HttpPool:
    """The one aiohttp session of a fleet, made or borrowed, with its TLS contexts."""

    def __init__(
        self, options: Options, http: aiohttp.ClientSession | None, transport: Transport | None = None
    ) -> None:
        given: object = http
        if http is not None and transport is not None:
            raise ConfigError("http and transport exclude each other: each carries the requests")
        if transport is not None and not callable(getattr(transport, "send", None)):
            message = f"transport is an object with a method send(request, deadline), not {transport!r}"
            raise ConfigError(message)
        if given is not None and not isinstance(given, aiohttp.ClientSession):
            message = f"http is an aiohttp.ClientSession that is lent, not {given!r}"
            raise ConfigError(message)
        if http is not None:
            _refuse_what_it_adds(http)
        self._options = options
        self._servers: list[Server] = []
        self._session = http
        self._transport = transport
        self._connector: PoolConnector | None = None
        self._borrowed = http is not None
        # A borrowed session's connector does not report when it has connected: aiohttp has to watch it.
        connect_timeout = options.connect_timeout if self._borrowed else None
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout)
        self._middlewares: tuple[aiohttp.ClientMiddlewareType, ...] = ()
        if http is not None:
            self._middlewares = *middlewares_of(http), admit_before_sending
        self._contexts: dict[TLS, ServerContext] = {}
        self._own_contexts: WeakKeyDictionary[ServerConnections, ServerContext] = WeakKeyDictionary()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = 0
        self._claiming = threading.Lock()
        self._is_open = False
        self._opening = asyncio.Lock()
        self._closing = asyncio.Lock()
        self._attempts = TimeoutRegistry(options)
        self.closed: bool = False
        self.connections: int = options.connections
        """At most so many requests at once to one server, as file descriptors allow."""
        self._descriptors: AbstractAsyncContextManager[None] = nullcontext()

    def register(self, server: Server) -> None:
        """Note that a server will be asked."""
        self._servers.append(server)
        if self._is_open:
            _warn_of_insecure(server)

    def forget(self, server: Server) -> None:
        """Note that it will not be asked any more."""
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
        if self._closing.locked():
            raise ClosedError(_CLOSED)
        self._check()

    async def open(self) -> None:
        """Build the TLS contexts and the session; done once.

        Raises: ConfigError where a file of a TLS policy cannot be used.
        """
        if self._is_open:
            return self._check()
        self.claim()
        async with self._opening:
            if not self._is_open:
                # A task before this one may have failed to open it.
                self.claim()
                try:
                    await self._build()
                except BaseException:
                    # What was never open can be opened in another event loop.
                    self._loop, self._opening = None, asyncio.Lock()
                    raise
        return self._check()

    async def _build(self) -> None:
        if self._transport is not None:
            self._is_open = True
            return
        for server in list(self._servers):
            try:
                await self._context(server.tls)
            except ConfigError as error:
                problem = f"{server.name}: {error}"
                raise ConfigError(problem) from None
            _warn_of_insecure(server)
        try:
            spare = await in_thread(spare_descriptors)
        except NoThreadError:
            spare = None
        if self.closed:
            raise ClosedError("closed while it was opened")
        if self._session is None:
            self._session = self._make_session(spare)
        self._is_open = True

    async def _context(self, tls: TLS) -> ServerContext:
        if tls not in self._contexts:
            self._contexts[tls] = await in_thread_if_possible(partial(ServerContext, tls))
        return self._contexts[tls]

    async def _late_context(self, tls: TLS, *, again: bool = False) -> ServerContext:
        """The context of a server that joined after the opening, whose failure affects no other server."""
        try:
            if again:
                return await in_thread_if_possible(partial(ServerContext, tls))
            return await self._context(tls)
        except ConfigError as error:
            problem = str(error)
        reason: TlsReason = "client_cert" if tls.client_cert else "untrusted"
        raise TlsError(problem, reason=reason, hint="Fix this, then add the server again.")

    async def _own_context(self, tls: TLS, connections: ServerConnections) -> ServerContext:
        """The context of a server that was replaced: what is wrong with its files is its own failure."""
        context = self._own_contexts.get(connections)
        if context is None:
            context = await self._late_context(tls, again=True)
            self._own_contexts[connections] = context
        return context

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
            self._descriptors = DescriptorLimit(spare or 1)
        keeps = not short and self._options.idle_timeout > 0
        self._connector = PoolConnector(
            # A shared limit would be held by servers that do not answer.
            limit=0,
            # Connections are kept, so names are rarely looked up; an old address would only be in the way.
            use_dns_cache=False,
            keepalive_timeout=self._options.idle_timeout if keeps else None,
            force_close=not keeps,
            resolver=BoundedResolver(),
        )
        return aiohttp.ClientSession(
            connector=self._connector,
            request_class=OwnedRequest,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=self._timeout,
            trust_env=False,
        )

    def _check(self) -> None:
        if self.closed:
            raise ClosedError(_CLOSED)
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
                self.closed = True
                self._attempts.abort()
                if self._session is not None and not self._borrowed:
                    await self._session.close()

    @property
    def is_abandoned(self) -> bool:
        """Whether the event loop that it belongs to was closed."""
        return self._loop is not None and self._loop.is_closed()

    async def _close_abandoned(self) -> None:
        if self.closed:
            return
        self.closed = True
        if self._session is not None and not self._borrowed:
            # aiohttp cannot end what waits in a closed loop.
            with suppress(RuntimeError, ValueError):
                await self._session.close()
            if self._connector is not None:
                self._connector.close_sockets()
        names = ", ".join(server.name for server in self._servers[:3])
        log.warning(
            "the event loop was closed before the fleet or client (%s): its connections are closed now, and "
            "the servers were not logged out of; await its aclose() in the loop that uses it",
            names,
        )

    def __del__(self) -> None:
        # aiohttp only reports its own objects, which the user of the fleet does not know.
        session = getattr(self, "_session", None)
        if session is not None and not (self._borrowed or self.closed):
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
            self.closed = True
            return False
        if self._loop.is_closed():
            return True
        self._check()
        return True

    def attempt(
        self,
        deadline: Deadline,
        behind: Callable[[], RequestTimeout | None] = lambda: None,
        *,
        most: float = float("inf"),
    ) -> RequestTimeout:
        """A try until the deadline, for `most` seconds; `behind` is what it waits for while it is queued."""
        return RequestTimeout(self._attempts, deadline, behind, most)

    async def exchange(  # a request has that many parts
        self,
        attempt: RequestTimeout,
        method: str,
        url: URL,
        *,
        tls: TLS,
        proxy: Proxy | None,
        connections: ServerConnections,
        headers: Redacted[dict[str, str]],
        body: Redacted[bytes] | None = None,
        may_be_large: bool = False,
    ) -> Reply:
        """Send one request and read the whole answer, over one of the server's connections.

        After a timeout on a kept connection the server's other idle ones are closed: what made that one
        silent, such as a router that forgot it, probably made them silent too.

        Raises: ServerError, without its server and operation; ClosedError.
        """
        await self.open()
        context = await self._context_for(tls, connections)
        session = self._session
        mark = current_timeout.set(attempt)
        whose = current_connections.set(connections)
        failure: BaseException
        try:
            async with self._descriptors:
                attempt.enter("read" if session is None or self._borrowed else "connect")
                attempt.proxy = str(proxy or "")
                if session is None or context is None:
                    return await self._send_by_transport(
                        attempt, connections.server, method, url, headers, body, may_be_large=may_be_large
                    )
                return await self._send(
                    session, attempt, method, url, headers, body, context, proxy, may_be_large=may_be_large
                )
        except Exception as error:  # one server's failure, or a bug
            if self.closed:
                failure = ClosedError("the fleet or client was closed while it was in use")
            elif session is not None and session.closed:
                failure = ClosedError("the session that was lent (http=...) is closed")
            elif session is None and not isinstance(error, OSError | EOFError | TooLargeError):
                failure = error
            else:
                # Only a connection that was accepted is cut off, so this was the handshake.
                in_handshake = url.scheme == "https" and isinstance(error, aiohttp.ClientConnectorError)
                phase: Phase = "tls" if in_handshake else attempt.phase
                failure = proxy_failure(error, attempt.phase, proxy, url) or map_aiohttp_error(
                    error, phase, context
                )
        except BaseException as error:  # a cancellation or an interruption
            failure = error.with_traceback(None)
        finally:
            current_timeout.reset(mark)
            current_connections.reset(whose)
            if attempt.has_timed_out and attempt.phase in ("read", "body") and not attempt.fresh:
                connections.close_idle()
        forget_origin(failure)
        try:
            raise failure
        finally:
            # What is raised keeps this frame, which must not keep it in turn.
            del failure

    async def _context_for(self, tls: TLS, connections: ServerConnections) -> ServerContext | None:
        """The TLS context for a server's connections; None where another transport carries requests."""
        if self._transport is not None:
            return None
        if connections.reads_files_again:
            return await self._own_context(tls, connections)
        return self._contexts.get(tls) or await self._late_context(tls)

    async def _send_by_transport(
        self,
        attempt: RequestTimeout,
        server: str,
        method: str,
        url: URL,
        headers: Redacted[dict[str, str]],
        body: Redacted[bytes] | None,
        *,
        may_be_large: bool,
    ) -> Reply:
        """Send a request by the transport that was given in place of aiohttp."""
        assert self._transport is not None  # there is no session then
        reply = await self._transport.send(
            TransportRequest(
                server=server,
                method=method,
                url=url,
                headers=headers.content | {"User-Agent": self._options.user_agent},
                body=None if body is None else body.content,
            ),
            attempt.deadline,
        )
        attempt.enter("body")
        most = self._largest(may_be_large=may_be_large)
        content = reply.body
        is_error = reply.status >= HTTPStatus.MULTIPLE_CHOICES
        if len(content) > most and not is_error:
            raise TooLargeError(most, is_resource=most < self._options.max_body)
        headers_of_reply = CIMultiDict(reply.headers)
        if is_error and len(content) > ERROR_LIMIT:
            return Reply.of(reply.status, headers_of_reply, completed(content[:ERROR_LIMIT]))
        return Reply.of(reply.status, headers_of_reply, content)

    def _largest(self, *, may_be_large: bool) -> int:
        """Most bytes of the body of a response that is no error."""
        options = self._options
        return options.max_body if may_be_large else min(options.max_body, options.max_resource)

    async def _send(  # a request has that many parts
        self,
        session: aiohttp.ClientSession,
        attempt: RequestTimeout,
        method: str,
        url: URL,
        headers: Redacted[dict[str, str]],
        body: Redacted[bytes] | None,
        context: ServerContext,
        proxy: Proxy | None,
        *,
        may_be_large: bool,
    ) -> Reply:
        # The scope of an IPv6 address concerns this machine only (RFC 6874).
        address, scope, _ = (url.raw_host or "").partition("%")
        own = {"User-Agent": self._options.user_agent}
        if scope:
            own["Host"] = _SCOPE.sub("", url.host_port_subcomponent or "")
        async with session.request(
            method,
            url,
            # Without TLS there is no tunnel: the proxy reads the request itself.
            headers=headers.content | own | (proxy.headers() if proxy and url.scheme == "http" else {}),
            data=body and body.content,
            allow_redirects=False,
            raise_for_status=False,
            timeout=self._timeout,
            ssl=context,
            server_hostname=context.tls.server_name or (address if scope else None),
            proxy=None if proxy is None else proxy.address,
            proxy_headers=None if proxy is None else own | proxy.headers(),
            middlewares=self._middlewares,
        ) as response:
            content, is_cut = await self._read(response, attempt, may_be_large=may_be_large)
            reply = Reply.of(response.status, response.headers, content)
            return evolve(reply, body=completed(reply.body)) if is_cut else reply

    async def _read(
        self, response: aiohttp.ClientResponse, attempt: RequestTimeout, *, may_be_large: bool
    ) -> tuple[bytes, bool]:
        """The body, and whether it is only the beginning of one."""
        options = self._options
        limit = self._largest(may_be_large=may_be_large)
        # Of an error, only what its message is taken from.
        is_error = response.status >= HTTPStatus.MULTIPLE_CHOICES
        most = ERROR_LIMIT if is_error else limit
        if not is_error and (response.content_length or 0) > most:
            raise TooLargeError(most, is_resource=most < options.max_body)
        chunks: list[bytes] = []
        size = 0
        content = response.content
        while not content.at_eof():
            attempt.enter("body")
            chunk = await content.readany()
            chunks.append(chunk)
            size += len(chunk)
            if size > most and is_error:
                # The connection is closed, since the rest of the body is still to come.
                response.close()
                return b"".join(chunks)[:most], True
            if size > most:
                raise TooLargeError(most, is_resource=most < options.max_body)
        if len(chunks) == 1:
            return chunks[0], False
        body = b"".join(chunks)
        if size > _LONG:
            # To put it together took a while: the reader begins in another turn of the event loop.
            await asyncio.sleep(0)
        return body, False


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
    elif any(isinstance(one, aiohttp.DigestAuthMiddleware) for one in middlewares_of(session)):
        problem = "has a DigestAuthMiddleware, and would answer every server with its password"
    elif session.trust_env:
        problem = (
            "has trust_env=True, and would send the passwords of a netrc file to servers. For a proxy, "
            'use proxy="environment" instead'
        )
    elif not session.auto_decompress:
        problem = "has auto_decompress=False, so compressed responses cannot be read"
    if problem is not None:
        message = f"the session that is lent (http=...) {problem}"
        raise ConfigError(message)


def _warn_of_insecure(server: Server) -> None:
    if server.tls.insecure:
        log.warning("%s: its certificate is not checked (insecure=True)", server.name)
