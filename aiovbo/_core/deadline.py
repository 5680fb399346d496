"""The time that an operation may take, as one object that everything in the operation checks.

Depends on the settings and the errors only: no tasks, no HTTP.
"""

from collections.abc import Callable
from contextvars import ContextVar
from types import TracebackType
from typing import Self

from aiovbo._settings.clock import TimeSource
from aiovbo._settings.limits import Options
from aiovbo.errors import Phase, ServerTimeoutError

EXCUSED = 0.1
"""Seconds by which a limit may be overdue before the event loop counts as blocked by the application.

What arrived meanwhile is read before anything counts as late.
"""

RESOLUTION = 0.001
"""Seconds by which a timer may fire early."""

IS_IT_UP = "Check that the server is running, and that no firewall drops the connection."

DOING: dict[Phase, str] = {
    "queue": "waiting for its turn, behind requests that had no response",
    "dns": "resolving the name",
    "connect": "connecting",
    "tls": "shaking hands (TLS)",
    "read": "waiting for the response",
    "body": "reading the response",
    "decoding": "decoding the response",
    "paging": "paging through the list",
}
"""What an operation was doing in each phase."""

_MORE_TIME = "raise the deadline (deadline=...)"

HINTS: dict[Phase, str] = {
    "queue": f"The server is slow or stuck; if it is not, send it fewer requests at once, or {_MORE_TIME}.",
    "dns": IS_IT_UP,
    "connect": IS_IT_UP,
    "tls": "Check that the port is correct, that the server speaks https, and that it responds.",
    "decoding": f"The response has many rows: query a smaller span of time, or {_MORE_TIME}.",
    "paging": f"The list has many pages: query a smaller span of time, or {_MORE_TIME}.",
}
"""What to do next after a timeout in each phase."""


class Deadline:
    """The time that is left to an operation; it counts only while the operation is in progress.

    `with deadline:` counts the time of the block. Between the blocks, while a page waits for the consumer,
    the deadline is suspended.
    """

    __slots__ = (
        "_ends",
        "_excused",
        "_in_progress",
        "_monotonic",
        "_seconds",
        "_stopped_at",
        "options",
        "was_reached",
    )

    def __init__(self, seconds: float, clock: TimeSource, *, suspended: bool = False) -> None:
        self._monotonic = clock.monotonic
        self._stopped_at = clock.monotonic()
        self._seconds = seconds
        self._ends = self._stopped_at + seconds
        self._in_progress = 0 if suspended else 1
        self._excused = False
        self.was_reached: bool = False
        """Whether something was ended by it."""
        self.options: Options | None = None
        """The limits of its operation; None outside of one."""

    @property
    def ends(self) -> float:
        """When it is reached, by the monotonic clock; it moves while the deadline is suspended."""
        return self._ends if self._in_progress else self._ends + self._monotonic() - self._stopped_at

    def read(self) -> tuple[float, float]:
        """Seconds that are left, and when it is reached: what a timer needs, in one call."""
        if self._in_progress:
            return self._ends - self._monotonic(), self._ends
        return self._ends - self._stopped_at, self.ends

    def left(self) -> float:
        """Seconds that are left; negative once it was reached."""
        return self._ends - (self._monotonic() if self._in_progress else self._stopped_at)

    def spent(self) -> float:
        """Seconds that the operation has taken so far."""
        return self._seconds - self.left()

    def has_passed(self) -> bool:
        """Whether the operation must end now.

        Where the application blocked the event loop until long after the deadline, the operation gets a
        moment more, once.
        """
        left = self.left()
        if left > 0:
            return False
        if left < -EXCUSED and not self._excused:
            self._excused = True
            self._ends += EXCUSED - left
            return False
        self.was_reached = True
        return True

    def __enter__(self) -> Self:
        if not self._in_progress:
            self._ends += self._monotonic() - self._stopped_at
        self._in_progress += 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._in_progress -= 1
        if not self._in_progress:
            self._stopped_at = self._monotonic()


class SharedDeadline(Deadline):
    """The latest deadline of all callers that joined a shared call; it is never shortened."""

    __slots__ = ("_callers",)

    def __init__(self, clock: TimeSource) -> None:
        super().__init__(0.0, clock)
        self._callers: list[Deadline] = []

    @property
    def ends(self) -> float:
        """When the deadline of the last caller is reached."""
        return max([self._ends, *[caller.ends for caller in self._callers]])

    def read(self) -> tuple[float, float]:
        """Seconds that are left, and when it is reached."""
        return self.left(), self.ends

    def left(self) -> float:
        """Seconds that are left to the caller who has most of them."""
        return self.ends - self._monotonic()

    def join(self, caller: Deadline) -> None:
        """Last at least as long as a caller that waits from now on."""
        self._callers.append(caller)

    def leave(self, caller: Deadline) -> None:
        """Follow a caller's deadline no longer; what it has allowed until now stays allowed."""
        self._ends = max(self._ends, caller.ends)
        self._callers.remove(caller)


def deadline_passed(seconds: float, phase: Phase) -> ServerTimeoutError:
    """The error of an operation that its deadline has ended; `phase` is where the time went."""
    what = f"the deadline of {seconds:g} s passed while {DOING.get(phase, phase)}"
    hint = HINTS.get(phase, f"The server is slow or does not respond. Try again, or {_MORE_TIME}.")
    return ServerTimeoutError(what, phase=phase, hint=hint)


class Operation:
    """What one operation on a server may still spend, and what it has spent.

    Entered, it includes all that the current task, and tasks that it begins, request until it is left.
    """

    __slots__ = ("_before", "_is_over", "attempts", "deadline", "may_retry", "options", "phase")

    phase: Callable[[], Phase] | None
    """How far its current request has come; None before the first one."""

    def __init__(self, options: Options, *, deadline: Deadline | None = None, may_retry: bool = True) -> None:
        self.options: Options = options
        self.deadline: Deadline = deadline or Deadline(options.deadline, options.clock, suspended=True)
        """What ends it; the time of the consumer is not counted."""
        self.deadline.options = options
        self.attempts: int = 0
        """Requests sent."""
        self.may_retry: bool = may_retry
        """Whether a request may be sent again that failed."""
        self.phase = None
        self._is_over = False

    @classmethod
    def current(cls, options: Options) -> "Operation":
        """The operation that the current task is part of, or a new one."""
        found = _current.get()
        # A task that outlives the operation in which it was begun has all its time again.
        return cls(options) if found is None or found._is_over else found  # noqa: SLF001  # its own

    @property
    def is_entered(self) -> bool:
        """Whether the current task is inside the operation, and did not just begin it."""
        return _current.get() is self

    def __enter__(self) -> Self:
        self._before = _current.set(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _current.reset(self._before)
        self._is_over = True


_current: ContextVar[Operation | None] = ContextVar("aiovbo_operation", default=None)
