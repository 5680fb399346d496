"""Waiting with a limit, by the timers of the clock that is used.

Depends on asyncio and on the settings only.
"""

import asyncio
from contextlib import suppress
from typing import Any

from aiovbo._settings.clock import Timer, Timers, TimeSource, timers_of


async def wait_at_most(seconds: float, clock: TimeSource, *tasks: asyncio.Future[Any]) -> None:
    """Wait until one of the tasks is done, for so many seconds at most; none of them is cancelled."""
    timers = timers_of(clock)
    limit: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    timer = timers.call_at(timers.time() + seconds, _settle, limit)
    try:
        await asyncio.wait([*tasks, limit], return_when=asyncio.FIRST_COMPLETED)
    finally:
        timer.cancel()
        limit.cancel()


def limit(seconds: float | None, clock: TimeSource) -> "asyncio.Timeout | TimeLimit":
    """A context that raises TimeoutError after so many seconds; None is no limit."""
    timers = timers_of(clock)
    if seconds is None or timers is asyncio.get_running_loop():
        return asyncio.timeout(seconds)
    return TimeLimit(seconds, timers)


class TimeLimit:
    """What `asyncio.timeout` is, by other timers than the event loop's."""

    def __init__(self, seconds: float, timers: Timers) -> None:
        self._seconds = seconds
        self._timers = timers
        self._timer: Timer | None = None
        self._task: asyncio.Task[Any] | None = None
        self._cancelling = 0
        self._is_reached = False

    async def __aenter__(self) -> None:
        self._task = asyncio.current_task()
        assert self._task is not None  # coroutines run in tasks
        self._cancelling = self._task.cancelling()
        self._timer = self._timers.call_at(self._timers.time() + self._seconds, self._reach)

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        assert self._timer is not None  # made on entering
        assert self._task is not None  # the same
        self._timer.cancel()
        if self._is_reached:
            is_own = self._task.uncancel() <= self._cancelling
            if is_own and kind is not None and issubclass(kind, asyncio.CancelledError):
                raise TimeoutError

    def _reach(self) -> None:
        self._is_reached = True
        if self._task is not None:
            self._task.cancel()


def _settle(future: "asyncio.Future[None]") -> None:
    with suppress(asyncio.InvalidStateError):
        future.set_result(None)
