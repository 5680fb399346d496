"""Requests over aiohttp: the one session of a fleet, made or borrowed, and its TLS contexts.

Uses aiohttp, and lets none of its exceptions out: their repr prints the bearer token. Must not know tokens,
retries, resources, or who opens and closes it.
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, suppress
from http import HTTPStatus

import aiohttp

from aiovbo._core.threads import NoThreadError, in_thread
from aiovbo._protocol.documents import completed
from aiovbo._protocol.messages import Reply
from aiovbo._settings.limits import Options
from aiovbo._settings.servers import Server
from aiovbo._transport.addressing import own_headers, server_name
from aiovbo._transport.connections import OwnedRequest, ServerConnections, current_connections
from aiovbo._transport.connector import (
    BoundedResolver,
    PoolConnector,
    admit_before_sending,
    current_timeout,
    middlewares_of,
)
from aiovbo._transport.descriptors import DescriptorLimit, DescriptorSlot, current_slot, spare_descriptors
from aiovbo._transport.direct_get import READ_BUFFER, DirectGet, DirectGets
from aiovbo._transport.error_mapping import ERROR_LIMIT, TooLargeError, forget_origin, map_aiohttp_error
from aiovbo._transport.interface import OutgoingRequest
from aiovbo._transport.proxy import proxy_failure
from aiovbo._transport.request_timeout import RequestTimeout
from aiovbo._transport.tls import ServerContext
from aiovbo._transport.tls_contexts import TlsContexts
from aiovbo.errors import ClosedError, ConfigError, Phase, TlsError

log = logging.getLogger("aiovbo.http")

_NO_SUCCESS = HTTPStatus.MULTIPLE_CHOICES
"""The first status that is no success; the lookup in the enumeration is as slow as a call."""

_LONG = 1_000_000
"""Bytes of a response from which on it is handled in turns of the event loop."""


class HttpSession:
    """Sends requests over one aiohttp session."""

    def __init__(self, options: Options, borrowed: aiohttp.ClientSession | None) -> None:
        given: object = borrowed
        if given is not None and not isinstance(given, aiohttp.ClientSession):
            message = f"http is an aiohttp.ClientSession that is lent, not {given!r}"
            raise ConfigError(message)
        self._options = options
        self._session = borrowed
        self._is_borrowed = borrowed is not None
        self._connector: PoolConnector | None = None
        # A borrowed session's connector does not report when it has connected: aiohttp has to watch it.
        connect_timeout = options.connect_timeout if self._is_borrowed else None
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout)
        self._middlewares: tuple[aiohttp.ClientMiddlewareType, ...] = ()
        if borrowed is not None:
            _refuse_what_it_adds(borrowed)
            self._middlewares = *middlewares_of(borrowed), admit_before_sending
        self.direct: DirectGets | None = None
        """What sends GETs past `aiohttp.ClientSession`; None where nothing may."""
        self._contexts = TlsContexts()
        self._descriptors: DescriptorLimit | None = None
        self.connections_per_server: int = options.connections
        """At most so many requests at once to one server, as file descriptors allow."""

    async def open(self, servers: Sequence[Server]) -> None:
        """Read the files of the servers' TLS policies, and make the session.

        Raises: ConfigError where a file cannot be used.
        """
        for server in servers:
            try:
                await self._contexts.load(server.tls)
            except ConfigError as error:
                problem = f"{server.name}: {error}"
                raise ConfigError(problem) from None
        try:
            spare = await in_thread(spare_descriptors)
        except NoThreadError:
            spare = None
        if self._session is None:
            self._session = self._make_session(spare, len(servers))

    def _make_session(self, spare: int | None, servers: int) -> aiohttp.ClientSession:
        if spare is not None:
            most = max(1, spare // max(1, servers))
            self.connections_per_server = min(self.connections_per_server, most)
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
        connector = self._connector = PoolConnector(
            # A shared limit would be held by servers that do not answer.
            limit=0,
            # Connections are kept, so names are rarely looked up; an old address would only be in the way.
            use_dns_cache=False,
            keepalive_timeout=self._options.idle_timeout if keeps else None,
            force_close=not keeps,
            resolver=BoundedResolver(),
        )
        session = aiohttp.ClientSession(
            connector=connector,
            request_class=OwnedRequest,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=self._timeout,
            trust_env=False,
            read_bufsize=READ_BUFFER,
        )
        direct = DirectGets(session, connector, self._options.user_agent)
        if keeps and direct.may_be_used:
            self.direct = direct
        return session

    async def close(self) -> None:
        """Close the session, unless it was borrowed."""
        if self._session is not None and not self._is_borrowed:
            await self._session.close()

    async def close_abandoned(self) -> None:
        """Close the session after its event loop, which cannot end what waits in it."""
        if self._session is not None and not self._is_borrowed:
            with suppress(RuntimeError, ValueError):
                await self._session.close()
            if self._connector is not None:
                self._connector.close_sockets()

    @property
    def must_be_closed(self) -> bool:
        """Whether there is a session that aiohttp would report if it were not closed."""
        return self._session is not None and not self._is_borrowed

    async def send(
        self, attempt: RequestTimeout, connections: ServerConnections, request: OutgoingRequest
    ) -> Reply:
        """The whole response to a request, over one of the server's connections.

        A handshake that fails is tried once more where the files of the TLS policy have changed since.

        Raises: ServerError, without its server and operation; ClosedError.
        """
        context = (connections.loaded or await self._contexts.load_for(connections)).context
        try:
            return await self._exchange(attempt, connections, request, context)
        except TlsError as error:
            # Raised here, so that no frame of the request is in its traceback twice.
            failure = error.with_traceback(None)
        renewed = await self._contexts.reload(connections, context)
        if renewed is None:
            raise failure
        return await self._exchange(attempt, connections, request, renewed)

    async def _exchange(
        self,
        attempt: RequestTimeout,
        connections: ServerConnections,
        request: OutgoingRequest,
        context: ServerContext,
    ) -> Reply:
        """Send the request, and read the response.

        After a timeout on a kept connection the server's other idle ones are closed: what made that one
        silent, such as a router that forgot it, probably made them silent too.
        """
        session, proxy, url = self._session, connections.proxy, request.url
        assert session is not None  # it was opened
        mark = current_timeout.set(attempt)
        whose = current_connections.set(connections)
        slot: DescriptorSlot | None = None
        failure: BaseException
        response: aiohttp.ClientResponse | DirectGet | None = None
        try:
            if self._descriptors is not None:
                slot = await self._descriptors.acquire()
            attempt.enter("read" if self._is_borrowed else "connect")
            attempt.proxy = str(proxy or "")
            async with self._request(session, connections, request, context) as response:
                content, is_cut = await self._read(response, attempt, request)
                return Reply.of(response.status, response.headers, completed(content) if is_cut else content)
        except Exception as error:  # one server's failure, or a bug
            if session.closed and self._is_borrowed:
                failure = ClosedError("the session that was lent (http=...) is closed")
            elif session.closed:
                failure = ClosedError("the fleet or client was closed while it was in use")
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
            # This frame is in the traceback of what is raised, and a response may show the token.
            response = None
            current_timeout.reset(mark)
            current_connections.reset(whose)
            if slot is not None:
                current_slot.set(None)
                slot.drop()
        if attempt.has_timed_out and attempt.phase in ("read", "body") and not attempt.fresh:
            connections.close_idle()
        forget_origin(failure)
        try:
            raise failure
        finally:
            # What is raised keeps this frame, which must not keep it in turn.
            del failure

    def _request(
        self,
        session: aiohttp.ClientSession,
        connections: ServerConnections,
        request: OutgoingRequest,
        context: ServerContext,
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse | DirectGet]:
        """The request as a context that gives the response; past `ClientSession` where that may be."""
        url, proxy, headers = request.url, connections.proxy, request.headers
        if self.direct is not None and request.method == "GET" and request.body is None:
            direct = self.direct.get(connections, context, url, headers)
            if direct is not None:
                return direct
        own = own_headers(url, self._options.user_agent)
        return session.request(
            request.method,
            url,
            # Without TLS there is no tunnel: the proxy reads the request itself.
            headers=headers.content | own | (proxy.headers() if proxy and url.scheme == "http" else {}),
            data=request.body and request.body.content,
            allow_redirects=False,
            raise_for_status=False,
            timeout=self._timeout,
            ssl=context,
            server_hostname=server_name(url, context),
            proxy=None if proxy is None else proxy.address,
            proxy_headers=None if proxy is None else own | proxy.headers(),
            middlewares=self._middlewares,
        )

    async def _read(
        self, response: aiohttp.ClientResponse | DirectGet, attempt: RequestTimeout, request: OutgoingRequest
    ) -> tuple[bytes, bool]:
        """The body, and whether it is only the beginning of one."""
        # Of an error, only what its message is taken from.
        is_error = response.status >= _NO_SUCCESS
        most = ERROR_LIMIT if is_error else request.limit
        if not is_error and (response.content_length or 0) > most:
            raise TooLargeError(most, is_resource=request.is_resource)
        chunks: list[bytes] = []
        size = 0
        content = response.content
        while not content.at_eof():
            attempt.enter("body")
            chunk = await content.readany()
            chunks.append(chunk)
            size += len(chunk)
            if size > most and is_error:
                # The connection is closed where the rest of the body is still to come.
                return b"".join(chunks)[:most], True
            if size > most:
                raise TooLargeError(most, is_resource=request.is_resource)
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
