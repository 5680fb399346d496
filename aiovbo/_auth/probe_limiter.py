"""Which servers are probed at a cold start, before a secret is sent to them."""

import asyncio
from collections.abc import Callable

from aiovbo._settings.clock import Timer, TimeSource, timers_of

PROBE_PATIENCE = 0.05
"""Seconds without a verdict after which twice as many servers are probed."""


class ProbeLimiter:
    """Which servers are probed before they are sent a secret: a few, and more while no verdict comes.

    A cold start sends one request less to nearly every server.
    """

    def __init__(self, most: int, clock: TimeSource) -> None:
        self._first = self._most = max(1, most)
        self._clock = clock
        self._begun = 0
        self._waiting = 0
        self._news = asyncio.Event()
        self._timer: Timer | None = None

    async def begin(self, rejections: Callable[[], int | None]) -> bool:
        """Wait for a turn; True where the server must be probed, and `end` follows.

        - `rejections`: how many servers have rejected the secret; None after a verdict, which needs no probe.
        """
        self._waiting += 1
        try:
            while (rejected := rejections()) is not None:
                if self._begun + rejected < self._most:
                    self._begun += 1
                    return True
                if self._timer is None:
                    timers = timers_of(self._clock)
                    self._timer = timers.call_at(timers.time() + PROBE_PATIENCE, self._allow_more)
                await self._news.wait()
            return False
        finally:
            self._waiting -= 1
            if not self._waiting and self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def end(self) -> None:
        """Note that a server that was probed has its verdict, or failed."""
        self._begun -= 1
        if not self._begun:
            self._most = self._first
        self.check_again()

    def check_again(self) -> None:
        """Let the servers that wait look for a verdict."""
        self._news.set()
        self._news = asyncio.Event()

    def _allow_more(self) -> None:
        self._timer = None
        self._most *= 2
        self.check_again()
