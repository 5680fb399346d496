"""Time that passes only in `sleep`, and random numbers that repeat.

Knows nothing of the SDK; it has the four functions that the SDK takes time and chance from.
"""

import asyncio
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from random import Random

_START = datetime(2026, 3, 1, 12, tzinfo=UTC)


class VirtualClock:
    """A clock for tests: `sleep` returns after one turn of the loop, and the time has passed."""

    def __init__(self, start: datetime = _START, *, seed: int = 0) -> None:
        self.slept: list[float] = []
        """Every sleep that was asked for, in seconds and in order."""
        self._elapsed = 0.0
        self._start = start
        self._random = Random(seed)  # noqa: S311  # it is to be repeatable

    def monotonic(self) -> float:
        """Seconds that only ever go forward."""
        return self._elapsed

    def now(self) -> datetime:
        """The wall clock, aware UTC."""
        return self._start + timedelta(seconds=self._elapsed)

    async def sleep(self, seconds: float) -> None:
        """Let that much time pass at once."""
        self.slept.append(seconds)
        self.advance(seconds)
        await asyncio.sleep(0)

    def random(self) -> float:
        """A number in [0, 1), the same series for the same seed."""
        return self._random.random()

    def advance(self, seconds: float) -> None:
        """Let time pass without anybody sleeping.

        Raises: ValueError where it would go back.
        """
        if seconds < 0:
            message = f"monotonic time does not go back, by {seconds} s"
            raise ValueError(message)
        self._elapsed += seconds

    def set_wall(self, by: timedelta) -> None:
        """Set the wall clock; the monotonic time does not change."""
        self._start += by


class TimersClock(VirtualClock):
    """A clock that stands still until the test moves it: every sleep ends when its time has come."""

    def __init__(self) -> None:
        super().__init__()
        self._timers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0

    async def sleep(self, seconds: float) -> None:
        """Wait until the test has moved the clock by that much."""
        self.slept.append(seconds)
        self._count += 1
        timer = asyncio.get_running_loop().create_future()
        heappush(self._timers, (self.monotonic() + seconds, self._count, timer))
        await timer

    async def go_on(self, seconds: float, *, step: float = 0.0) -> None:
        """Move the clock, from one sleep's end to the next, or by steps; what wakes up then runs."""
        end = self.monotonic() + seconds
        await self._settle()
        while self._timers and self._timers[0][0] <= end:
            due = min(end, self._timers[0][0] + step)
            self.advance(max(0.0, self._timers[0][0] - self.monotonic()))
            while self._timers and self._timers[0][0] <= due:
                at, _, timer = heappop(self._timers)
                self.advance(max(0.0, at - self.monotonic()))
                if not timer.done():
                    timer.set_result(None)
            await self._settle()
        self.advance(max(0.0, end - self.monotonic()))

    @staticmethod
    async def _settle() -> None:
        for _ in range(20):
            await asyncio.sleep(0)
