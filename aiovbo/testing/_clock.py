"""Time that a test controls: for the SDK, or any client that takes a clock, and for the servers.

Knows asyncio. Must not know servers, requests or the SDK.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Sized
from contextlib import suppress
from contextvars import Context, copy_context
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from itertools import count
from math import inf
from random import Random
from typing import Any

_START = datetime(2026, 1, 5, 12, tzinfo=UTC)
_QUIET_TURNS = 3
"""Turns of the event loop without anything else to run after which it is idle, where it has sockets."""
_BLOCKING = "aiovbo blocking call"
"""The name of threads in which files are accessed: while there are any, no time passes."""
_LOOK_AT_THREADS = 0.001


class RealClock:
    """The real time, for servers that are given no other."""

    def monotonic(self) -> float:
        """Seconds that only ever go forward."""
        return time.monotonic()

    def now(self) -> datetime:
        """The wall clock, aware UTC."""
        return datetime.now(UTC)

    async def wait(self, event: asyncio.Event, seconds: float | None) -> bool:
        """Whether the event was set within so many seconds; None waits without a limit."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await event.wait()
        return event.is_set()


class SimTimer:
    """A call that is planned on a `SimClock`."""

    __slots__ = ("_call", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> None:
        self.loop: asyncio.AbstractEventLoop = loop
        self._call: Callable[[], object] | None = call

    def cancel(self) -> None:
        """Plan it no longer."""
        self._call = None

    @property
    def is_planned(self) -> bool:
        """Whether it is still to be called."""
        return self._call is not None and not self.loop.is_closed()

    def fire(self) -> None:
        """Call it in the next turn of its event loop."""
        if self._call is not None:
            self.loop.call_soon(self._call)
            self._call = None


class SimClock:
    """Virtual time: it moves to the next timer as soon as nothing else can run, so nothing waits really.

    `Fleet(..., clock=clock)` and `BackupServer(clock=clock)` follow it together. The same program runs
    the same way each time: timers end in the order of their times, and chance comes from `seed`.

    - `start`: the time that `now()` begins with, aware.
    - `seed`: picks the series of `random()`.
    - `auto`: False for time that passes only in `advance`.

    It works with asyncio's own event loops. Another one, such as uvloop's, is a RuntimeError.
    """

    def __init__(self, start: datetime = _START, *, seed: int = 0, auto: bool = True) -> None:
        if start.tzinfo is None:
            msg = f"start is an aware time, not {start!r}"
            raise ValueError(msg)
        self._start = start
        self._random = Random(seed)
        self._elapsed = 0.0
        self._until = inf if auto else 0.0
        self._timers: list[tuple[float, int, SimTimer]] = []
        self._numbers = count()
        self._driven: asyncio.AbstractEventLoop | None = None
        self._context = Context()
        self._settling: list[asyncio.Future[None]] = []

    def monotonic(self) -> float:
        """Seconds since the start; they only ever go forward."""
        return self._elapsed

    def time(self) -> float:
        """The same, under the name that an event loop has for it."""
        return self._elapsed

    def now(self) -> datetime:
        """The wall clock, aware UTC."""
        return self._start + timedelta(seconds=self._elapsed)

    def set_wall(self, by: timedelta) -> None:
        """Set the wall clock forward, or back; the seconds of `monotonic` do not change."""
        self._start += by

    def random(self) -> float:
        """A number in [0, 1), the same series for the same seed."""
        return self._random.random()

    async def sleep(self, seconds: float) -> None:
        """Wait for so many virtual seconds."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        over = asyncio.get_running_loop().create_future()
        timer = self.call_at(self._elapsed + seconds, _settle, over)
        try:
            await over
        finally:
            timer.cancel()

    async def wait(self, event: asyncio.Event, seconds: float | None) -> bool:
        """Whether the event was set within so many virtual seconds; None waits without a limit."""
        if seconds is None or event.is_set():
            return await event.wait()
        waiting = asyncio.ensure_future(event.wait())
        over = asyncio.get_running_loop().create_future()
        timer = self.call_at(self._elapsed + seconds, _settle, over)
        try:
            await asyncio.wait({waiting, over}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
            over.cancel()
            waiting.cancel()
            with suppress(asyncio.CancelledError):
                await waiting
        return event.is_set()

    async def wait_for(self, future: "asyncio.Future[None]", seconds: float) -> None:
        """Wait until the future is done, which it is after so many virtual seconds."""
        timer = None if seconds == inf else self.call_at(self._elapsed + seconds, _settle, future)
        try:
            await future
        finally:
            if timer is not None:
                timer.cancel()

    def call_at(
        self, when: float, callback: Callable[..., object], /, *args: Any, context: Context | None = None
    ) -> SimTimer:
        """Call `callback` when `monotonic()` has reached `when`, as an event loop's `call_at` does."""
        loop = asyncio.get_running_loop()
        context = context or copy_context()
        timer = SimTimer(loop, lambda: context.run(callback, *args))
        heappush(self._timers, (when, next(self._numbers), timer))
        self._drive(loop)
        return timer

    async def advance(self, seconds: float) -> None:
        """Let so many virtual seconds pass, and everything run that is due in them.

        Raises: ValueError for less than 0 seconds.
        """
        if seconds < 0:
            msg = f"time does not go back, by {seconds} s"
            raise ValueError(msg)
        end = self._elapsed + seconds
        self._until = max(self._until, end)
        over = asyncio.get_running_loop().create_future()
        self.call_at(end, _settle, over)
        await over
        await self.settle()

    async def settle(self) -> None:
        """Wait until nothing can run before time passes."""
        loop = asyncio.get_running_loop()
        settled = loop.create_future()
        self._settling.append(settled)
        self._drive(loop)
        await settled

    # --------------------------------------------------------------------------------- the driver

    def _drive(self, loop: asyncio.AbstractEventLoop) -> None:
        """See to it that time goes on, once in each turn of the event loop."""
        if self._driven is not loop:
            _ready_of(loop)
            self._driven = loop
            loop.call_soon(self._turn, loop, 0, context=self._context)

    def _turn(self, loop: asyncio.AbstractEventLoop, quiet: int) -> None:
        if self._driven is not loop:
            return
        self._drop_cancelled()
        is_due = bool(self._timers) and self._timers[0][0] <= self._until
        if not is_due and not self._settling:
            self._driven = None
            return
        quiet = 0 if _ready_of(loop) else quiet + 1
        if quiet >= _QUIET_TURNS or (quiet and not _has_sockets(loop)):
            quiet = 0
            if any(thread.name.startswith(_BLOCKING) for thread in threading.enumerate()):
                loop.call_later(_LOOK_AT_THREADS, self._turn, loop, 0, context=self._context)
                return
            self._go_on()
        loop.call_soon(self._turn, loop, quiet, context=self._context)

    def _go_on(self) -> None:
        """Nothing can run: end what is due now, else what waits for that, else let time pass."""
        if self._settling and not (self._timers and self._timers[0][0] <= self._elapsed):
            settling, self._settling = self._settling, []
            for one in settling:
                _settle(one)
            return
        self._elapsed = max(self._elapsed, self._timers[0][0])
        while self._timers and self._timers[0][0] <= self._elapsed:
            heappop(self._timers)[2].fire()

    def _drop_cancelled(self) -> None:
        while self._timers and not self._timers[0][2].is_planned:
            heappop(self._timers)


AnyClock = RealClock | SimClock
"""What servers take their time from."""


def _ready_of(loop: asyncio.AbstractEventLoop) -> Sized:
    """The callbacks that the event loop is about to run.

    Raises: RuntimeError for an event loop that does not show them.
    """
    ready: Sized | None = getattr(loop, "_ready", None)
    if ready is None:
        msg = f"SimClock works with asyncio's own event loops, not with {type(loop).__module__}"
        raise RuntimeError(msg)
    return ready


def _has_sockets(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether the event loop waits for more than for calls from other threads."""
    selector: Any = getattr(loop, "_selector", None)
    files: Sized | None = None if selector is None else selector.get_map()
    return files is None or len(files) > 1


def _settle(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
