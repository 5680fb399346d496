"""The limit on open sockets, for processes that may open fewer files than the fleet has servers.

Knows sockets and the operating system's limit; knows nothing of requests.
"""

import asyncio
import os
import socket
from collections.abc import Callable
from contextvars import ContextVar

from aiovbo.errors import ConfigError

SPARED_DESCRIPTORS = 32
"""File descriptors left to the rest of the application."""


class CountedSocket(socket.socket):
    """A socket that reports when it is closed."""

    on_close: Callable[[], None] | None = None

    def close(self) -> None:
        """Close it, and report that once."""
        super().close()
        report, self.on_close = self.on_close, None
        if report is not None:
            report()


class DescriptorSlot:
    """The descriptor of one request; in use until the request has ended and its sockets are closed."""

    def __init__(self, release: Callable[[], None]) -> None:
        self._release = release
        self._holders = 1

    def hold(self, made: CountedSocket) -> None:
        """Keep it in use until this socket is closed, which for TLS is after the request has ended."""
        self._holders += 1
        made.on_close = self.drop

    def drop(self) -> None:
        """Note that a socket, or the request, does not use it any more."""
        self._holders -= 1
        if not self._holders:
            self._release()


current_slot: ContextVar[DescriptorSlot | None] = ContextVar("aiovbo_slot", default=None)
"""The slot of the current request; None where the number of sockets is not limited."""


class DescriptorLimit:
    """The slots of requests, of which at most so many have sockets that are not closed yet."""

    def __init__(self, most: int) -> None:
        self._free = asyncio.Semaphore(most)
        self._loop = asyncio.get_running_loop()

    async def acquire(self) -> DescriptorSlot:
        """The slot of the current request, which must drop it."""
        await self._free.acquire()
        slot = DescriptorSlot(self._release)
        current_slot.set(slot)
        return slot

    def _release(self) -> None:
        # In a closed event loop nothing waits that could be woken up.
        if not self._loop.is_closed():
            self._free.release()


def spare_descriptors() -> int | None:
    """How many files this process may still open; None where there is no such limit.

    Raises: ConfigError where there is none left.
    """
    try:
        import resource  # not on Windows, where there is no limit either

        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        used = len(os.listdir("/dev/fd"))  # names suffice
    except (ImportError, OSError):
        return None
    spare = limit - used - SPARED_DESCRIPTORS
    if spare < 1:
        message = f"no file descriptor left for connections ({used} of {limit} used): raise ulimit -n"
        raise ConfigError(message)
    return spare
