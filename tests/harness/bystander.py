"""A healthy server that is asked all the while something else fails.

It only sends the queries that it is given. It shows that a fault does not affect other servers.

How long an answer took is counted in the event loop's own time, not by the clock on the wall: each beat of a
timer in the same loop counts as its interval, and so does CPU time that this thread burns. A machine whose
cores are busy stretches the beats as it stretches the answer.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Generic, Self, TypeVar

T = TypeVar("T")

_BEAT = 0.01


class Bystander(Generic[T]):
    """Awaits `ask()` again and again during the block, and fails at its end if anything was to be noticed.

    The first answer is had before the block begins, so it may take the time of a login; all others must be
    equal to it. `at_least` so many must have come during the block, 99 % of them within `p99` seconds of the
    loop's own time.
    """

    def __init__(
        self,
        ask: Callable[[], Awaitable[T]],
        *,
        every: float = 0.01,
        at_least: int = 3,
        p99: float = 0.5,
    ) -> None:
        self.latencies: list[float] = []
        """Seconds of the loop's own time that each answer took, without the first."""
        self._ask = ask
        self._every = every
        self._at_least = at_least
        self._p99 = p99
        self._beats = 0

    @property
    def p99(self) -> float:
        """The 99th percentile of the latencies, in seconds."""
        ordered = sorted(self.latencies)
        return ordered[math.ceil(len(ordered) * 0.99) - 1]

    async def __aenter__(self) -> Self:
        self._first = await self._ask()
        self._leaving = asyncio.Event()
        self._beating = asyncio.create_task(self._beat(), name="bystander's timer")
        self._polling = asyncio.create_task(self._poll(), name="bystander")
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._leaving.set()
        # The answer that is under way still counts: it may be the one that hangs.
        left = math.ceil(self._p99 / _BEAT)
        while left and not self._polling.done():
            await asyncio.wait([self._polling], timeout=_BEAT)
            left -= 1
        finished = self._polling.done()
        self._polling.cancel()
        self._beating.cancel()
        results = await asyncio.gather(self._polling, self._beating, return_exceptions=True)
        try:
            self._judge(finished=finished, failure=results[0])
        except AssertionError as noticed:
            if error is None:
                raise
            error.add_note(str(noticed))

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(_BEAT)
            self._beats += 1

    async def _poll(self) -> None:
        while not self._leaving.is_set():
            beats, burnt = self._beats, time.thread_time()
            answer = await self._ask()
            waited = (self._beats - beats) * _BEAT
            self.latencies.append(max(waited, time.thread_time() - burnt))
            assert answer == self._first, f"the answer changed from {self._first!r} to {answer!r}"
            try:
                async with asyncio.timeout(self._every):
                    await self._leaving.wait()
            except TimeoutError:
                continue

    def _judge(self, *, finished: bool, failure: BaseException | None) -> None:
        assert finished, f"the bystander had to wait longer than {self._p99} s for its last answer"
        if failure is not None:
            message = f"the bystander failed: {failure!r}"
            raise AssertionError(message) from failure
        count = len(self.latencies)
        assert count >= self._at_least, f"the bystander got {count} answers, not {self._at_least}"
        if self.latencies:
            assert self.p99 <= self._p99, f"the bystander's p99 is {self.p99:.3f} s"
