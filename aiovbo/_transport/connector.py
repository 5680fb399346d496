"""aiohttp's connector as our requests use it: how far connecting has come, and what is admitted to send.

May use aiohttp, and what is below in `_transport`. Must not know tokens, retries or resources.
"""

import asyncio
import socket
from collections.abc import Iterable
from contextvars import ContextVar
from functools import partial
from typing import Any
from weakref import WeakSet

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_middlewares import ClientHandlerType, ClientMiddlewareType
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

from aiovbo._core.threads import look_up
from aiovbo._transport.addressing import with_interface_number
from aiovbo._transport.connections import EarlyDataError, HttpConnection, current_connections
from aiovbo._transport.descriptors import CountedSocket, current_slot
from aiovbo._transport.request_timeout import RequestTimeout
from aiovbo._transport.tls import NotVerifiedError, ServerContext
from aiovbo.errors import Phase

current_timeout: ContextVar[RequestTimeout | None] = ContextVar("aiovbo_attempt", default=None)


def _mark(phase: Phase) -> None:
    """Note how far the current connection has come; called also from callbacks in its context."""
    attempt = current_timeout.get()
    if attempt is not None:
        attempt.phase = phase


def _mark_fresh() -> None:
    """Note that the current connection is a new one."""
    attempt = current_timeout.get()
    if attempt is not None:
        attempt.fresh = True


class PoolConnector(aiohttp.TCPConnector):
    """aiohttp's connector, with connections of one server each, which notes how far connecting has come."""

    def __init__(self, **settings: Any) -> None:  # aiohttp's own, which pass through
        super().__init__(socket_factory=self._new_socket, **settings)  # pyright: ignore[reportUnknownMemberType]  # aiohttp types it in part
        factory: type[ResponseHandler] = HttpConnection
        self._factory: partial[ResponseHandler] = partial(factory, loop=self._loop)
        self._sockets: WeakSet[socket.socket] = WeakSet()

    def _new_socket(self, address: tuple[int, int, int, str, tuple[object, ...]]) -> socket.socket:
        _mark_fresh()
        family, kind, protocol, *_ = address
        slot = current_slot.get()
        if slot is None:
            made = socket.socket(family, kind, protocol)
        else:
            made = CountedSocket(family, kind, protocol)
            slot.hold(made)
        self._sockets.add(made)
        return made

    def close_sockets(self) -> None:
        """Close every socket at once: transports cannot do it once their event loop is closed."""
        for one in list(self._sockets):
            one.close()

    async def connect(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # as aiohttp has it
    ) -> Connection:
        """A connection on which nothing arrived that no request asked for, and that may be used.

        Raises: EarlyDataError where something arrived on a new one; as `_admit`.
        """
        attempt = current_timeout.get()
        if attempt is not None:
            # Until a socket is made: aiohttp may send it a second time, over another kept connection.
            attempt.fresh = False
        while True:
            connection = await super().connect(req, traces, timeout)
            protocol = connection.protocol
            if not isinstance(protocol, HttpConnection):
                # aiohttp makes them in another way by now: nothing checks this one, so it serves one request.
                if protocol is not None:
                    protocol.force_close()
                break
            if protocol.begin(current_connections.get()):
                connection.add_callback(protocol.end)
                break
            connection.close()
            if not protocol.reused:
                raise EarlyDataError
        _admit(req, connection)
        return connection

    async def _wrap_create_connection(
        self,
        *args: Any,  # aiohttp's own, which pass through
        **kwargs: Any,
    ) -> tuple[asyncio.Transport, ResponseHandler]:
        factory, *rest = args

        def make() -> ResponseHandler:
            # Every event loop makes the protocol between connecting and the handshake.
            if kwargs.get("ssl") is not None:
                _mark("tls")
            made: ResponseHandler = factory()
            return made

        _mark("connect")
        kwargs["addr_infos"] = [with_interface_number(found) for found in kwargs["addr_infos"]]
        connect = super()._wrap_create_connection  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]  # aiohttp's
        return await connect(make, *rest, **kwargs)

    async def _start_tls_connection(
        self,
        *args: Any,  # aiohttp's own, which pass through
        **kwargs: Any,
    ) -> tuple[asyncio.BaseTransport, ResponseHandler]:
        # The proxy has connected, and the server's handshake begins.
        _mark("tls")
        return await super()._start_tls_connection(*args, **kwargs)  # pyright: ignore[reportUnknownMemberType]  # aiohttp's


def _admit(request: ClientRequest, connection: Connection) -> None:
    """Note that a request has its connection; where TLS is due, make sure that it was verified.

    Raises: NotVerifiedError where it was not, ClientConnectorError where the server cut it off after the
    handshake; the connection is closed then.
    """
    context, protocol = request.ssl, connection.protocol
    assert isinstance(context, ServerContext)  # exchange() gave it
    assert protocol is not None  # the connection was just handed out
    first = protocol not in context.admitted
    if first:
        try:
            if request.is_ssl():
                _verify(request, context, connection.transport)
        except BaseException:
            connection.close()
            raise
        context.admitted.add(protocol)
    attempt = current_timeout.get()
    if attempt is not None:
        attempt.fresh = first
        attempt.sent += 1
        attempt.enter("read")


def _verify(request: ClientRequest, context: ServerContext, transport: asyncio.Transport | None) -> None:
    if transport is None or transport.is_closing():
        cut_off = ConnectionResetError("cut off after the handshake")
        raise aiohttp.ClientConnectorError(request.connection_key, cut_off)
    context.check(transport)


async def admit_before_sending(request: ClientRequest, handler: ClientHandlerType) -> aiohttp.ClientResponse:
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
        raise NotVerifiedError
    return response


class BoundedResolver(AbstractResolver):
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


def middlewares_of(session: aiohttp.ClientSession) -> Iterable[ClientMiddlewareType]:
    # aiohttp has no public name for them; those of a request replace those of its session.
    found: Iterable[ClientMiddlewareType] = getattr(session, "_middlewares", None) or ()
    return found
