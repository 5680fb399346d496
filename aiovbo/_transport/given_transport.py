"""Requests over the transport that the caller gave in place of aiohttp, such as one in memory.

May use `_protocol` and below. Must not know aiohttp, TLS or connections.
"""

from http import HTTPStatus

from multidict import CIMultiDict

from aiovbo._protocol.documents import completed
from aiovbo._protocol.messages import Reply
from aiovbo._settings.transport import Transport, TransportRequest
from aiovbo._transport.connections import ServerConnections
from aiovbo._transport.error_mapping import ERROR_LIMIT, TooLargeError, forget_origin, map_aiohttp_error
from aiovbo._transport.interface import OutgoingRequest
from aiovbo._transport.request_timeout import RequestTimeout
from aiovbo.errors import ConfigError


class GivenTransport:
    """Sends requests by `transport=`."""

    def __init__(self, transport: Transport, user_agent: str) -> None:
        if not callable(getattr(transport, "send", None)):
            message = f"transport is an object with a method send(request, deadline), not {transport!r}"
            raise ConfigError(message)
        self._transport = transport
        self._user_agent = user_agent

    async def send(
        self, attempt: RequestTimeout, connections: ServerConnections, request: OutgoingRequest
    ) -> Reply:
        """The response to a request.

        Raises: ServerError, without its server and operation; what the transport raises by mistake.
        """
        failure: BaseException
        try:
            return await self._send(attempt, connections.server, request)
        except (OSError, EOFError, TooLargeError) as error:
            failure = map_aiohttp_error(error, attempt.phase, None)
        except BaseException as error:  # a cancellation, or a mistake in the transport
            failure = error.with_traceback(None)
        forget_origin(failure)
        try:
            raise failure
        finally:
            del failure

    async def _send(self, attempt: RequestTimeout, server: str, request: OutgoingRequest) -> Reply:
        attempt.enter("read")
        reply = await self._transport.send(
            TransportRequest(
                server=server,
                method=request.method,
                url=request.url,
                headers=request.headers.content | {"User-Agent": self._user_agent},
                body=None if request.body is None else request.body.content,
            ),
            attempt.deadline,
        )
        attempt.enter("body")
        headers, content = CIMultiDict(reply.headers), reply.body
        if reply.status < HTTPStatus.MULTIPLE_CHOICES:
            if len(content) > request.limit:
                raise TooLargeError(request.limit, is_resource=request.is_resource)
        elif len(content) > ERROR_LIMIT:
            content = completed(content[:ERROR_LIMIT])
        return Reply.of(reply.status, headers, content)
