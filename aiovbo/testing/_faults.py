"""Faults on purpose: what a server does to a request instead of a good response.

Knows how a response can go wrong on the wire, and which request is next in line for it. Must not
know the API's resources.
"""

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import Any

import attrs
from aiohttp import web

from aiovbo.testing._clock import AnyClock, RealClock
from aiovbo.testing._requests import ReceivedRequest

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)

Headers = Mapping[str, str]


@attrs.frozen
class Exchange:
    """One request on its way to a response, in the hands of a fault."""

    request: web.BaseRequest
    """What was requested."""
    answer: Callable[[], web.Response]
    """Makes the good response; what the request is for happens with it."""
    refuse: Callable[[int], web.Response]
    """Makes a response with a status and the vendor's error body."""
    closing: asyncio.Event
    """Set when the server stops: waiting tasks go on at once."""
    clock: AnyClock = attrs.field(factory=RealClock, repr=False)
    """What the server's time passes by."""

    async def pause(self, seconds: float | None = None) -> None:
        """Wait, at most until the server stops; with None until then."""
        await self.clock.wait(self.closing, seconds)

    def hang_up(self, *, reset: bool) -> None:
        """End the connection, with a TCP reset or in good order."""
        transport = self.request.transport
        if transport is None:
            return
        if reset:
            connection = transport.get_extra_info("socket")
            if connection is not None:  # in memory there is none
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            transport.abort()
        else:
            transport.close()


Act = Callable[[Exchange], Awaitable[web.StreamResponse]]


@attrs.frozen
class Fault:
    """Something that goes wrong with a request; made by one of the class methods."""

    name: str
    """What it does, in the words of the class method that made it."""
    act: Act = attrs.field(repr=False, eq=False)
    """Does it, in place of the good response."""

    @classmethod
    def delay(cls, seconds: float) -> "Fault":
        """A good response, late."""

        async def act(exchange: Exchange) -> web.StreamResponse:
            await exchange.pause(seconds)
            return exchange.answer()

        return cls(f"delay({seconds})", act)

    @classmethod
    def status(cls, status: int, *, headers: Headers | None = None, body: bytes | None = None) -> "Fault":
        """Another status instead of the response, with the vendor's error body or with `body`."""

        async def act(exchange: Exchange) -> web.StreamResponse:
            answer = exchange.refuse(status)
            if body is not None:
                answer = web.Response(status=status, body=body)
            answer.headers.update(headers or {})
            return answer

        return cls(f"status({status})", act)

    @classmethod
    def redirect(cls, location: str, status: int = 302) -> "Fault":
        """A redirection instead of the response."""
        fault = cls.status(status, headers={"Location": location}, body=b"")
        return cls(f"redirect({location!r}, {status})", fault.act)

    @classmethod
    def empty(cls) -> "Fault":
        """Status 200 without a body, as real servers respond to a rejected token."""
        return cls("empty()", cls.status(200, body=b"").act)

    @classmethod
    def body(cls, body: bytes, content_type: str = "application/json") -> "Fault":
        """Status 200 with these bytes instead of the response."""
        fault = cls.status(200, headers={"Content-Type": content_type}, body=body)
        return cls(f"body({len(body)} bytes)", fault.act)

    @classmethod
    def edit(cls, function: Callable[[Any], Any]) -> "Fault":
        """The good response, its decoded JSON passed through `function`; refusals are left alone."""

        async def act(exchange: Exchange) -> web.StreamResponse:
            answer = exchange.answer()
            if answer.status == web.HTTPOk.status_code:
                answer.body = json.dumps(function(json.loads(_body(answer) or b"null"))).encode()
            return answer

        return cls("edit()", act)

    @classmethod
    def drop(cls, *, reset: bool = False) -> "Fault":
        """The connection closed before any byte of a response; what was requested is not done."""

        async def act(exchange: Exchange) -> web.StreamResponse:
            exchange.hang_up(reset=reset)
            return web.Response(status=500)

        return cls("drop()", act)

    @classmethod
    def cut(cls, after: int = 0, *, reset: bool = False) -> "Fault":
        """The connection closed after the head and `after` bytes of the good response's body.

        What was requested is done: with a login it is the reply that gets lost.
        """

        async def act(exchange: Exchange) -> web.StreamResponse:
            begun = await _begin(exchange, after)
            exchange.hang_up(reset=reset)
            return begun

        return cls(f"cut({after})", act)

    @classmethod
    def stall(cls, after: int | None = None) -> "Fault":
        """The head and `after` bytes of the good response's body, then nothing until the client goes.

        With None not even the head is sent, and what was requested is not done.
        """

        async def act(exchange: Exchange) -> web.StreamResponse:
            begun = web.StreamResponse() if after is None else await _begin(exchange, after)
            await exchange.pause()
            exchange.hang_up(reset=False)
            return begun

        return cls(f"stall({after})", act)

    @classmethod
    def trickle(cls, pause: float, size: int = 1) -> "Fault":
        """The good response's body in pieces of `size` bytes, with `pause` seconds before each."""

        async def act(exchange: Exchange) -> web.StreamResponse:
            answer = exchange.answer()
            begun = await _head(exchange, answer)
            body = _body(answer)
            with suppress(ConnectionError):  # the client may have gone meanwhile
                for start in range(0, len(body), size):
                    await exchange.pause(pause)
                    await begun.write(body[start : start + size])
            return begun

        return cls(f"trickle({pause}, {size})", act)


def _body(answer: web.Response) -> bytes:
    return answer.body if isinstance(answer.body, bytes) else b""


async def _head(exchange: Exchange, answer: web.Response) -> web.StreamResponse:
    begun = web.StreamResponse(status=answer.status, headers=answer.headers)
    begun.content_length = len(_body(answer))
    with suppress(ConnectionError):  # as above
        await begun.prepare(exchange.request)
    return begun


async def _begin(exchange: Exchange, after: int) -> web.StreamResponse:
    """The response's head and the first part of its body, never the whole of it."""
    answer = exchange.answer()
    begun = await _head(exchange, answer)
    body = _body(answer)
    with suppress(ConnectionError):  # as above
        await begun.write(body[: min(after, max(0, len(body) - 1))])
    return begun


@attrs.define(kw_only=True)
class PlannedFault:
    """A fault, and which requests it is meant for."""

    fault: Fault
    on: str | None
    """Glob for the path below the version, in any case; None for all."""
    when: Callable[[ReceivedRequest], bool] | None
    times: int | None
    """How many requests it still hits; None for all."""
    after: int
    """How many matching requests it still spares."""

    def hits(self, request: ReceivedRequest) -> bool:
        """Whether this request is meant; one that is spared is counted."""
        if self.times == 0:
            return False
        if self.on is not None and not fnmatchcase(request.resource.lower(), self.on.lower()):
            return False
        if self.when is not None and not self.when(request):
            return False
        if self.after > 0:
            self.after -= 1
            return False
        return True


class FaultScript:
    """The faults that are planned for a server, in order."""

    def __init__(self) -> None:
        self._planned: list[PlannedFault] = []

    def plan(self, planned: PlannedFault) -> None:
        """Put a fault in line behind the others."""
        self._planned.append(planned)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is to go wrong any more."""
        return all(planned.times == 0 for planned in self._planned)

    def next_for(self, request: ReceivedRequest) -> Fault | None:
        """The fault for this request, which is thereby used up once."""
        for planned in list(self._planned):
            if planned.hits(request):
                if planned.times is not None:
                    planned.times -= 1
                return planned.fault
        return None

    def clear(self) -> None:
        """Plan nothing any more."""
        self._planned.clear()
