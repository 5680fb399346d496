"""A bad network between a client and a server: TCP passes through, and toxics spoil it.

The toxics and their meaning are those of Shopify's toxiproxy, with seconds and bytes as units. Knows TCP;
what it carries, TLS or not, it does not look at.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from random import Random
from types import TracebackType
from typing import Literal, Self

Direction = Literal["upstream", "downstream"]
Onward = Callable[[bytes], Awaitable[None]]

_CHUNK = 65536
_AHEAD = 64
_CLOSING = 0.2
_SLICES_PER_SECOND = 10


class Toxic:
    """What happens to the data of one direction; this one lets everything pass."""

    def attach(self, stream: "_Stream") -> asyncio.TimerHandle | None:  # noqa: ARG002  # for those below
        """Begin with a connection; what is returned is cancelled when the toxic is removed."""
        return None

    async def carry(self, stream: "_Stream", data: bytes, onward: Onward) -> None:  # noqa: ARG002  # the same
        """Pass data on, later or in pieces, or not at all."""
        await onward(data)

    async def end(self, stream: "_Stream") -> None:
        """Hold back the end of the stream."""


@dataclass(frozen=True)
class Latency(Toxic):
    """Everything arrives later, by `latency` ± `jitter` seconds."""

    latency: float
    jitter: float = 0.0

    async def carry(self, stream: "_Stream", data: bytes, onward: Onward) -> None:
        """Late by what is still missing."""
        late = self.latency + self.jitter * (2 * stream.random.random() - 1)
        await stream.pause(late - stream.age)
        await onward(data)


@dataclass(frozen=True)
class Bandwidth(Toxic):
    """At most `rate` bytes arrive per second."""

    rate: float

    async def carry(self, stream: "_Stream", data: bytes, onward: Onward) -> None:
        """Slice by slice."""
        size = max(1, int(self.rate / _SLICES_PER_SECOND))
        for start in range(0, len(data), size):
            piece = data[start : start + size]
            await stream.pause(len(piece) / self.rate)
            await onward(piece)


@dataclass(frozen=True)
class SlowClose(Toxic):
    """The end of the stream arrives `delay` seconds late."""

    delay: float

    async def end(self, stream: "_Stream") -> None:
        """Late."""
        await stream.pause(self.delay)


@dataclass(frozen=True)
class Timeout(Toxic):
    """Nothing arrives, and the connection is closed after `timeout` seconds; never, where that is 0."""

    timeout: float = 0.0

    def attach(self, stream: "_Stream") -> asyncio.TimerHandle | None:
        """The clock starts."""
        return stream.later(self.timeout, stream.link.close) if self.timeout else None

    async def carry(self, stream: "_Stream", data: bytes, onward: Onward) -> None:
        """Drop it."""


@dataclass(frozen=True)
class ResetPeer(Toxic):
    """Nothing arrives, and both ends get a TCP reset after `timeout` seconds."""

    timeout: float = 0.0

    def attach(self, stream: "_Stream") -> asyncio.TimerHandle | None:
        """The clock starts."""
        return stream.later(self.timeout, stream.link.reset)

    async def carry(self, stream: "_Stream", data: bytes, onward: Onward) -> None:
        """Drop it."""


@dataclass(frozen=True)
class Slicer(Toxic):
    """Data arrives in pieces of `average_size` ± `size_variation` bytes, `delay` seconds apart."""

    average_size: int
    size_variation: int = 0
    delay: float = 0.0

    async def carry(self, stream: "_Stream", data: bytes, onward: Onward) -> None:
        """Piece by piece."""
        start = 0
        while start < len(data):
            off = stream.random.randint(-self.size_variation, self.size_variation)
            end = start + max(1, self.average_size + off)
            await onward(data[start:end])
            start = end
            await stream.pause(self.delay)


@dataclass(frozen=True)
class LimitData(Toxic):
    """The connection is closed once `limit` bytes have passed."""

    limit: int

    async def carry(self, stream: "_Stream", data: bytes, onward: Onward) -> None:
        """What is left of the limit."""
        await onward(data[: max(0, self.limit - stream.passed)])
        if stream.passed >= self.limit:
            stream.link.close()


class _Stream:
    """One direction of one connection."""

    def __init__(self, link: "_Link", direction: Direction) -> None:
        self.link = link
        self.direction = direction
        self.passed = 0
        self.random = link.proxy.random
        self._toxics: dict[str, tuple[Toxic, asyncio.TimerHandle | None]] = {}
        self._arrived = 0.0
        self._relieved = asyncio.Event()

    @property
    def age(self) -> float:
        """Seconds since the data that is being carried was received."""
        return asyncio.get_running_loop().time() - self._arrived

    def add(self, name: str, toxic: Toxic) -> None:
        self._toxics[name] = toxic, toxic.attach(self)

    def remove(self, name: str) -> None:
        _, timer = self._toxics.pop(name, (None, None))
        if timer is not None:
            timer.cancel()
        self._relieved.set()

    def clear(self) -> None:
        for name in list(self._toxics):
            self.remove(name)

    def later(self, seconds: float, action: Callable[[], None]) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(seconds, action)

    async def pause(self, seconds: float) -> None:
        """Sleep, but not longer than until a toxic is removed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, seconds)):
                await self._relieved.wait()

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry what is read to the writer until it ends."""
        # Read ahead, so that latency delays each byte once instead of each chunk after the other.
        chunks: asyncio.Queue[tuple[bytes, float]] = asyncio.Queue(_AHEAD)
        reading = asyncio.create_task(_read(reader, chunks), name="fault proxy reading")
        reading.add_done_callback(self._cut_off)
        reading.add_done_callback(_overlook)
        try:
            while True:
                data, self._arrived = await chunks.get()
                self._relieved.clear()
                if not data:
                    break
                await self._through(self._chain(), writer, data)
            for toxic in self._chain():
                await toxic.end(self)
            writer.write_eof()
        except OSError:
            self.link.reset()
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    def _cut_off(self, reading: asyncio.Task[None]) -> None:
        if not reading.cancelled() and reading.exception() is not None:
            self.link.reset()

    def _chain(self) -> list[Toxic]:
        return [toxic for toxic, _ in self._toxics.values()]

    async def _through(self, chain: list[Toxic], writer: asyncio.StreamWriter, data: bytes) -> None:
        if chain:
            onward = partial(self._through, chain[1:], writer)
            await chain[0].carry(self, data, onward)
            return
        self.passed += len(data)
        writer.write(data)
        await writer.drain()


def _overlook(ended: asyncio.Future[None]) -> None:
    _ = ended.cancelled() or ended.exception()


async def _read(reader: asyncio.StreamReader, chunks: "asyncio.Queue[tuple[bytes, float]]") -> None:
    data = b"-"
    while data:
        data = await reader.read(_CHUNK)
        await chunks.put((data, asyncio.get_running_loop().time()))


class _Link:
    """One connection of a client, and the one to the server that belongs to it."""

    def __init__(
        self, proxy: "FaultProxy", reader: asyncio.StreamReader, client: asyncio.StreamWriter
    ) -> None:
        self.proxy = proxy
        self.streams = _Stream(self, "upstream"), _Stream(self, "downstream")
        self.task = asyncio.create_task(self._carry(reader, client), name="fault proxy")
        self._writers = [client]

    def close(self) -> None:
        """Close both ends in good order."""
        self.task.cancel()

    def reset(self) -> None:
        """Cut both ends off with a TCP reset."""
        for writer in self._writers:
            sock = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        self.task.cancel()

    async def end(self) -> None:
        """Close both ends, whatever the state they are in; returns when that is done."""
        for stream in self.streams:
            stream.clear()
        for writer in self._writers:
            writer.close()
            # A task of its own: if one waiting task is cancelled, the others go on waiting for it.
            closing = asyncio.ensure_future(writer.wait_closed())
            # A reset has been an error already; it is retrieved also where the waiting task is cancelled.
            closing.add_done_callback(_overlook)
            try:
                # A peer that reads no more must not delay this.
                await asyncio.wait([closing], timeout=_CLOSING)
            finally:
                writer.transport.abort()
            await asyncio.wait([closing])

    async def _carry(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError):
                from_server, server = await asyncio.open_connection(*self.proxy.target)
                self._writers.append(server)
                upstream, downstream = self.streams
                await asyncio.gather(upstream.pump(reader, server), downstream.pump(from_server, client))
        finally:
            await self.end()


class FaultProxy:
    """Carries TCP connections to `host:port`, spoiled by the toxics that are in force at the moment.

    A toxic spoils each connection with the probability `toxicity`, decided once per connection. Removing
    one ends the waiting that is under way. `seed` makes chance repeatable.
    """

    def __init__(self, port: int, host: str = "127.0.0.1", *, seed: int = 0) -> None:
        self.target = host, port
        self.random = Random(seed)  # noqa: S311  # it is to be repeatable
        self.host = "127.0.0.1"
        self.port = 0
        self.accepted = 0
        """How many connections came in."""
        self._toxics: dict[str, tuple[Toxic, Direction, float]] = {}
        self._links: set[_Link] = set()
        self._server: asyncio.Server | None = None

    def add(
        self,
        toxic: Toxic,
        direction: Direction = "downstream",
        *,
        toxicity: float = 1.0,
        name: str | None = None,
    ) -> str:
        """Put a toxic in force, also for connections that are open; the name to remove it by."""
        name = name or f"{type(toxic).__name__}_{direction}"
        assert name not in self._toxics, f"there is a toxic {name} already"
        self._toxics[name] = toxic, direction, toxicity
        for link in self._links:
            self._expose(link, name)
        return name

    def remove(self, name: str) -> None:
        """End a toxic, for open connections too."""
        del self._toxics[name]
        for link in self._links:
            for stream in link.streams:
                stream.remove(name)

    async def down(self) -> None:
        """Refuse connections, and cut those that are open."""
        if self._server is not None:
            self._server.close()
            self._server = None
        links = list(self._links)
        for link in links:
            link.close()
        await asyncio.gather(*(link.task for link in links), return_exceptions=True)
        for link in links:
            # A task that is cancelled before its first step ends nothing.
            await link.end()

    async def up(self) -> None:
        """Accept connections again, on the same port."""
        self._server = await asyncio.start_server(self._accept, self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def __aenter__(self) -> Self:
        await self.up()
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        await self.down()

    # Not a coroutine function: asyncio would make a task of it that no code could cancel.
    def _accept(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        self.accepted += 1
        link = _Link(self, reader, client)
        self._links.add(link)
        link.task.add_done_callback(lambda _: self._links.discard(link))
        for name in self._toxics:
            self._expose(link, name)

    def _expose(self, link: _Link, name: str) -> None:
        toxic, direction, toxicity = self._toxics[name]
        if self.random.random() < toxicity:
            next(s for s in link.streams if s.direction == direction).add(name, toxic)
