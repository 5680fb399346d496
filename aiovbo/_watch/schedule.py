"""When a watched server is polled: at its own steady time in every interval, later where it is down.

Knows a server's name, an interval and a clock; knows nothing of what a poll is.
"""

import logging
from datetime import datetime, timedelta
from hashlib import blake2b

from aiovbo._settings.clock import TimeSource

log = logging.getLogger("aiovbo.watch")

_SPREAD = 5.0
"""Seconds over which the first polls are spread, at most: the user waits for the first results."""
_FIRST_POLLS_PER_SECOND = 100
"""First polls that are started in a second, at most: each costs a TLS handshake and a login."""
MAX_BACKOFF = timedelta(minutes=5)
"""Between two polls of a server that is down, at most, unless the interval is longer."""
_DOUBLINGS = 16
"""The backoff is at its longest long before, and a few hundred more would be beyond what a float holds."""


class PollSchedule:
    """The looks at one server: when the next one is due, and how many were left out."""

    def __init__(
        self, name: str, every: timedelta, clock: TimeSource, max_backoff: timedelta = MAX_BACKOFF
    ) -> None:
        self._name = name
        self._every = every.total_seconds()
        self._clock = clock
        self._longest_backoff = max(every, max_backoff).total_seconds()
        # The same in every process and after every restart, so that a fleet's looks stay spread.
        self._offset = int.from_bytes(blake2b(name.encode(), digest_size=4).digest(), "big") / 2**32
        self._due: float | None = None
        self.overruns = 0
        """Looks that were left out because the one before took too long."""

    async def wait(self, seconds: float) -> None:
        """Wait until the next look."""
        self._due = self._clock.monotonic() + seconds
        await self._clock.sleep(seconds)
        self._due = None

    @property
    def next_poll(self) -> datetime | None:
        """When the next poll is due, also after the wall clock was set; None while one is in progress."""
        if self._due is None:
            return None
        return self._clock.now() + timedelta(seconds=self._due - self._clock.monotonic())

    def until_first(self, servers: int = 1) -> float:
        """Seconds until the first poll, where it is one of so many servers that start together."""
        return self._offset * min(self._every, max(_SPREAD, servers / _FIRST_POLLS_PER_SECOND))

    def until_next(self, passed: float) -> float:
        """Seconds until the next beat, after a look that took so many."""
        beats = int(passed // self._every)
        if beats:
            self.overruns += beats
            log.info("%s: a look took %.1f s, longer than %g s", self._name, passed, self._every)
        pause = self.until_moment(self._every)
        # A clock that ticks a little early is no reason to look twice.
        return pause + self._every if pause < self._every / 4 and passed < self._every / 2 else pause

    def until_moment(self, interval: float) -> float:
        """Seconds until the server's own place in an interval."""
        return (self._offset * interval - self._clock.now().timestamp()) % interval

    def backoff(self, errors: int) -> float:
        """Seconds until the next look after so many that failed in a row."""
        backoff: float = min(self._longest_backoff, self._every * 2 ** min(errors - 1, _DOUBLINGS))
        return backoff * (0.5 + self._clock.random() / 2)
