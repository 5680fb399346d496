"""Two ways to run something apart: one call for many waiters, a blocking call in a thread of its own.

Knows asyncio and nothing of servers.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Hashable
from contextlib import suppress
from copy import copy
from typing import Any, Generic, TypeVar

from aiovbo.errors import VboError

T = TypeVar("T")


class SharedCalls(Generic[T]):
    """Calls that several tasks wait for at once: the first one starts it, all get its outcome.

    A waiter that is cancelled leaves the others undisturbed; when the last has left, the call is cancelled.
    """

    def __init__(self) -> None:
        self._calls: dict[Hashable, tuple[asyncio.Task[T], list[None]]] = {}

    async def join(self, key: Hashable, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The outcome of the call that is under way for `key`, or of `call()`."""
        while True:
            if key not in self._calls:
                self._calls[key] = asyncio.create_task(call(), name="aiovbo shared call"), []
            task, waiters = self._calls[key]
            waiters.append(None)
            try:
                await asyncio.wait([task])
            finally:
                waiters.pop()
                await self._leave(key, task, waiters)
            if task.cancelled():
                continue
            error = task.exception()
            if error is None:
                return task.result()
            # Each waiter gets an error of its own: it notes there what it asked, and for how long.
            raise copy(error) if isinstance(error, VboError) else error

    async def _leave(self, key: Hashable, task: asyncio.Task[T], waiters: list[None]) -> None:
        if (task.done() or not waiters) and self._calls.get(key, (None,))[0] is task:
            del self._calls[key]
        if not waiters and not task.done():
            task.cancel()
            await asyncio.wait([task])
        if task.done() and not task.cancelled():
            # Whoever was cancelled in the moment of its failure does not ask for it; asyncio would complain.
            task.exception()


async def in_thread(function: Callable[[], T]) -> T:
    """What the blocking `function` returns, run in a daemon thread of its own.

    A pool would let a name server that hangs hold the threads that other servers' names need, and would be
    waited for at exit.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result)  # type: ignore[arg-type]  # T itself may be None
        else:
            future.set_exception(error)

    def run() -> None:
        result, error = None, None
        try:
            result = function()
        except BaseException as caught:  # noqa: BLE001  # it belongs to whoever waits
            error = caught
        with suppress(RuntimeError):  # the loop is gone, and with it whoever waited
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name="aiovbo blocking call", daemon=True).start()
    return await future
