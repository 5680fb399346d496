"""A forward proxy on loopback."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class ForwardProxy:
    """A forward proxy on loopback that answers CONNECT as it is set to."""

    def __init__(self, answer: bytes = b"") -> None:
        self.port = 0
        self.heads: list[bytes] = []
        self.opened = 0
        """Tunnels that were opened."""
        self._answer = answer
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def targets(self) -> list[str]:
        """The hosts and ports that it was to connect to."""
        return [head.split()[1].decode() for head in self.heads]

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection."""
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # Also where it is cancelled before it has begun.
        task.add_done_callback(lambda _: writer.close())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward: asyncio.StreamWriter | None = None
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                self.heads.append(await reader.readuntil(b"\r\n\r\n"))
                if self._answer:
                    writer.write(self._answer)
                    await writer.drain()
                    return
                host, _, port = self.targets[-1].rpartition(":")
                back, onward = await asyncio.open_connection(host, int(port))
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                self.opened += 1
                await asyncio.gather(_pump(reader, onward), _pump(back, writer))
        finally:
            opened = [one for one in (writer, onward) if one is not None]
            # All of them first: a wait may be cancelled.
            for one in opened:
                one.close()
            for one in opened:
                with suppress(OSError):
                    await one.wait_closed()

    async def close(self) -> None:
        """Cut off what is still open."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()


@asynccontextmanager
async def forward_proxy(answer: bytes = b"") -> AsyncIterator[ForwardProxy]:
    """A proxy that connects, or gives this answer."""
    proxy = ForwardProxy(answer)
    listening = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    proxy.port = listening.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        listening.close()
        await proxy.close()
        await listening.wait_closed()
