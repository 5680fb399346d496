"""Backup servers without sockets: HTTP between a client and servers in one process's memory.

Knows asyncio's transports and aiohttp. Must not know the SDK: what it gets and returns has the attributes
that the SDK's `transport=` documents.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import aiohttp
import attrs
from aiohttp import web
from aiohttp.client_proto import ResponseHandler

from aiovbo.testing._http import PlainRequest
from aiovbo.testing._server import BackupServer


@attrs.frozen
class MemoryReply:
    """The complete response to a request."""

    status: int
    """The HTTP status."""
    headers: Mapping[str, str] = attrs.field(repr=False)
    """The headers."""
    body: bytes = attrs.field(repr=False)
    """The body, after decompression."""


class MemoryTransport:
    """Connects a fleet with backup servers in memory: `Fleet(..., transport=MemoryTransport({...}))`.

    No port is opened and no certificate is made. The servers need not be started. Requests and responses
    are the same as over sockets, and faults and quirks take effect. Only while a server has a fault planned
    are they written as HTTP, so that the fault can break it: plan faults for the requests that need one.

    - `servers`: the servers by host name. Remove one to make its host unreachable.
    """

    def __init__(self, servers: Mapping[str, BackupServer]) -> None:
        self.servers = servers
        """The servers by host name."""

    async def send(self, request: PlainRequest, _deadline: object = None, /) -> MemoryReply:
        """The response of the server with the request's host name.

        Raises: ConnectionRefusedError where there is none, EOFError where it closes the connection,
        ConnectionResetError where the connection fails, or carries what is not HTTP.
        """
        backup = self.servers.get(request.url.host or "")
        if backup is None:
            msg = f"connection refused: no server in memory is {request.url.host}"
            raise ConnectionRefusedError(msg)
        # As over sockets, other tasks run before a request arrives, and before its response does.
        await asyncio.sleep(0)
        direct = await backup.respond(request)
        if direct is not None:
            await asyncio.sleep(0)
            return MemoryReply(*direct)
        http = backup.make_http()
        problem: Exception
        try:
            async with (
                aiohttp.ClientSession(
                    connector=_MemoryConnector(http), cookie_jar=aiohttp.DummyCookieJar()
                ) as session,
                session.request(
                    request.method,
                    request.url.with_scheme("http"),
                    headers=request.headers,
                    data=request.body,
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(total=None),
                ) as response,
            ):
                return MemoryReply(response.status, response.headers, await response.read())
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError):
            problem = EOFError("the connection was closed before the response was complete")
        except aiohttp.ClientError as error:
            problem = ConnectionResetError(f"the connection failed ({type(error).__name__})")
        finally:
            await http.shutdown(0)
        # Without aiohttp's error, which shows the token.
        raise problem


class _MemoryConnector(aiohttp.BaseConnector):
    """Connections to one server's HTTP protocol."""

    def __init__(self, http: web.Server) -> None:
        super().__init__(force_close=True)
        self._http = http

    async def _create_connection(self, *_: Any, **__: Any) -> ResponseHandler:
        loop = asyncio.get_running_loop()
        ours = ResponseHandler(loop)
        near, far = _End(ours), _End(self._http())
        near.peer, far.peer = far, near
        far.protocol.connection_made(far)
        near.protocol.connection_made(near)
        return ours


class _End(asyncio.Transport):
    """One end of a connection: what is written arrives at its peer in the next turn of the event loop."""

    peer: "_End"

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self.protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._is_closing = False
        self._held: list[bytes] | None = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Called by aiohttp."""
        if data and not self._is_closing:
            self._loop.call_soon(self.peer.receive, bytes(data))

    def receive(self, data: bytes) -> None:
        """Take what the peer has written."""
        if self._held is not None:
            self._held.append(data)
        elif not self._is_closing:
            self.protocol.data_received(data)

    def pause_reading(self) -> None:
        """Called by aiohttp."""
        self._held = self._held or []

    def resume_reading(self) -> None:
        """Called by aiohttp."""
        held, self._held = self._held or [], None
        for data in held:
            self._loop.call_soon(self.receive, data)

    def is_reading(self) -> bool:
        """Called by aiohttp."""
        return self._held is None

    def is_closing(self) -> bool:
        """Called by aiohttp."""
        return self._is_closing

    def close(self) -> None:
        """Called by aiohttp."""
        self._end(None, None)

    def abort(self) -> None:
        """Called by aiohttp, and by faults that reset a connection."""
        self._end(None, ConnectionResetError("connection reset by peer"))

    def _end(self, error: Exception | None, error_of_peer: Exception | None) -> None:
        if not self._is_closing:
            self._is_closing = True
            self._loop.call_soon(self.protocol.connection_lost, error)
            self._loop.call_soon(partial(self.peer.end_of_stream, error_of_peer))

    def end_of_stream(self, error: Exception | None) -> None:
        """Take the end of what the peer has written."""
        if self._held:
            self.resume_reading()
            self._loop.call_soon(self.end_of_stream, error)
            return
        if not self._is_closing:
            with suppress(NotImplementedError):
                self.protocol.eof_received()
            self._end(error, None)

    def can_write_eof(self) -> bool:
        """Called by aiohttp."""
        return False

    def get_write_buffer_size(self) -> int:
        """Called by aiohttp."""
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Called by aiohttp."""
