"""A server running beside code that is not async, or under another async framework.

Knows threads and event loops. Must not know what it runs.
"""

import asyncio
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Protocol, Self, TypeVar


class Service(Protocol):
    """What can be started and closed."""

    async def start(self) -> object:
        """Begin; return once it is ready."""

    async def close(self) -> None:
        """End for good; return once nothing is left."""


S = TypeVar("S", bound=Service)


@contextmanager
def in_thread(service: S) -> Generator[S, None, None]:
    """The service, started and stopped in a thread with an event loop of its own."""
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        stopping = asyncio.Event()
        try:
            await service.start()
        except BaseException as error:
            started.set_exception(error)
            raise
        started.set_result((asyncio.get_running_loop(), stopping))
        try:
            await stopping.wait()
        finally:
            await service.close()

    with ThreadPoolExecutor(1, thread_name_prefix="aiovbo-testing") as thread:
        ended = thread.submit(lambda: asyncio.run(serve()))
        loop, stopping = started.result()
        try:
            yield service
        finally:
            loop.call_soon_threadsafe(stopping.set)
            ended.result()


class Starter:
    """Starts servers and fleets, each in a thread of its own, and stops them all at its end.

    `with Starter() as start:`, then `server = start(BackupServer(...))`, as often as needed.
    """

    def __init__(self) -> None:
        self.started: list[Service] = []
        """What was started, in that order."""
        self._running = ExitStack()

    def __call__(self, service: S) -> S:
        """The service, running.

        Raises: OSError where a port is taken; ImportError where TLS needs trustme.
        """
        self._running.enter_context(in_thread(service))
        self.started.append(service)
        return service

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._running.close()
