"""The throttle of a token endpoint: until when it rejects every login from this client address.

Knows times and errors. Sends nothing.
"""

import math
from copy import copy

from aiovbo._core.deadline import Deadline
from aiovbo._settings.clock import TimeSource
from aiovbo.errors import RateLimitedError

_LONGEST = 3600.0
"""Seconds for which a Retry-After is obeyed at most: the server's own limits are per hour at most."""

_SPACING, _SPACED_FOR = 1.0, 60.0
"""Seconds between two logins at an address, and for how long after a throttle: servers admit one a second."""


class TokenThrottle:
    """When the next login may be sent to one address, for all servers there."""

    def __init__(self, clock: TimeSource) -> None:
        self._clock = clock
        self._ends = self._next = self._spaced_until = float("-inf")
        self._error: RateLimitedError | None = None

    def note(self, error: RateLimitedError) -> None:
        """Remember a response of the throttle until it ends, as far as it says when."""
        if error.retry_after:
            self._ends = max(self._ends, self._clock.monotonic() + min(error.retry_after, _LONGEST))
            self._next = max(self._next, self._ends)
            self._spaced_until = self._ends + _SPACED_FOR
            self._error = copy(error)

    def check(self, deadline: Deadline) -> None:
        """Return if the next login may be sent before the deadline.

        Raises: RateLimitedError where it may not.
        """
        error = self._rejection(self._next)
        if error is not None and (error.retry_after or 0.0) >= deadline.left():
            raise error

    def check_now(self) -> None:
        """Return if a login may be sent now.

        Raises: RateLimitedError where it may not.
        """
        error = self.rejection()
        if error is not None:
            raise error

    async def wait(self, deadline: Deadline) -> None:
        """Wait until a login may be sent; after a throttle, they are sent one after the other.

        Raises: RateLimitedError, at once, where that is after the deadline.
        """
        while (delay := self._next - self._clock.monotonic()) > 0:
            self.check(deadline)
            await self._clock.sleep(delay)
        now = self._clock.monotonic()
        if now < self._spaced_until:
            self._next = now + _SPACING

    def rejection(self) -> RateLimitedError | None:
        """The error of a login that the throttle does not let through now; None without a throttle."""
        return self._rejection(self._ends)

    def _rejection(self, until: float) -> RateLimitedError | None:
        left = until - self._clock.monotonic()
        if left <= 0 or self._error is None:
            return None
        error = copy(self._error)
        error.phase, error.attempts, error.retry_after = "queue", 0, left
        error.what = f"not sent: {error.what}"
        error.args = (error.what,)
        error.hint += f" The next login can be sent in {math.ceil(left)} s."
        return error
