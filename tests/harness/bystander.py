"""A healthy server that is asked all the while something else fails.

Knows nothing but what it is told to ask. It proves "the others never noticed".
"""

import asyncio
import math
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Generic, Self, TypeVar

T = TypeVar("T")


class Bystander(Generic[T]):
    """Awaits `ask()` again and again during the block, and fails at its end if anything was to be noticed.

    The first answer is had before the block begins, so it may take the time of a logon; all others must be
    equal to it. `at_least` so many must have come during the block, 99 % of them within `p99` seconds.
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
        """Seconds that each answer took, without the first."""
        self._ask = ask
        self._every = every
        self._at_least = at_least
        self._p99 = p99

    @property
    def p99(self) -> float:
        """The 99th percentile of the latencies, in seconds."""
        ordered = sorted(self.latencies)
        return ordered[math.ceil(len(ordered) * 0.99) - 1]

    async def __aenter__(self) -> Self:
        self._first = await self._ask()
        self._leaving = asyncio.Event()
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
        await asyncio.wait([self._polling], timeout=self._p99)
        finished = self._polling.done()
        self._polling.cancel()
        results = await asyncio.gather(self._polling, return_exceptions=True)
        try:
            self._judge(finished=finished, trouble=results[0])
        except AssertionError as noticed:
            if error is None:
                raise
            error.add_note(str(noticed))

    async def _poll(self) -> None:
        now = asyncio.get_running_loop().time
        while not self._leaving.is_set():
            began = now()
            answer = await self._ask()
            self.latencies.append(now() - began)
            assert answer == self._first, f"the answer changed from {self._first!r} to {answer!r}"
            try:
                async with asyncio.timeout(self._every):
                    await self._leaving.wait()
            except TimeoutError:
                continue

    def _judge(self, *, finished: bool, trouble: BaseException | None) -> None:
        assert finished, f"the bystander had to wait longer than {self._p99} s for its last answer"
        if trouble is not None:
            message = f"the bystander was hurt: {trouble!r}"
            raise AssertionError(message) from trouble
        count = len(self.latencies)
        assert count >= self._at_least, f"the bystander got {count} answers, not {self._at_least}"
        if self.latencies:
            assert self.p99 <= self._p99, f"the bystander's p99 is {self.p99:.3f} s"
