"""Where time and chance come from: the real clock, or one that a test moves."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextvars import Context
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol, cast

from attrs import field, frozen


class TimeSource(Protocol):
    """What `clock=` must have: a `Clock`, `aiovbo.testing.SimClock`, or an object of your own.

    A clock that is also a `Timers`, as `SimClock` is, ends requests and waits as well. For any other clock,
    the event loop's real timers do.
    """

    def monotonic(self) -> float:
        """Seconds that only ever go forward: deadlines, expiry, backoff."""
        ...

    def now(self) -> datetime:
        """The wall clock, aware UTC: "a day ago", and the date of a response."""
        ...

    def sleep(self, seconds: float, /) -> Awaitable[None]:
        """Wait for that many seconds."""
        ...

    def random(self) -> float:
        """A number in [0, 1): the jitter between retries."""
        ...


class Timer(Protocol):
    """A call that is planned."""

    def cancel(self) -> None:
        """Plan it no longer."""


class Timers(Protocol):
    """Calls at a later time: every event loop has these two methods."""

    def time(self) -> float:
        """Seconds that only ever go forward."""
        ...

    def call_at(
        self, when: float, callback: Callable[..., object], /, *args: Any, context: Context | None = None
    ) -> Timer:
        """Call `callback` when `time()` has reached `when`."""
        ...


@frozen
class Clock:
    """A `TimeSource` whose parts can be replaced one by one; unchanged, it is the real clock."""

    monotonic: Callable[[], float] = time.monotonic
    """Seconds that only ever go forward: deadlines, expiry, backoff."""
    now: Callable[[], datetime] = field(default=partial(datetime.now, UTC))
    """The wall clock, aware UTC: "a day ago", and the date of a response."""
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    """Waits for that many seconds."""
    random: Callable[[], float] = random.random
    """A number in [0, 1): the jitter between retries."""


def timers_of(clock: TimeSource) -> Timers:
    """The clock's own timers, or those of the running event loop."""
    # Not isinstance: to check for a protocol takes as long as planning the wait.
    if hasattr(clock, "call_at") and hasattr(clock, "time"):
        return cast("Timers", clock)
    return asyncio.get_running_loop()
