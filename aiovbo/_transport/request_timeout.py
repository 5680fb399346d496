"""One try at one request: how far it has come, and when that must be over.

Knows the clock and our limits; knows no HTTP. One timer serves all tries of a session, since
nearly every one of them ends long before its time.
"""

import asyncio
from collections.abc import Callable
from contextvars import Context
from copy import copy
from types import TracebackType
from typing import Self

from aiovbo._core.deadline import DOING, EXCUSED, HINTS, RESOLUTION, Deadline, deadline_passed
from aiovbo._settings.clock import Timer, Timers, timers_of
from aiovbo._settings.limits import Options
from aiovbo.errors import ClosedError, Phase, ServerTimeoutError

_NEVER = float("inf")


class RequestTimeout:
    """One try at one request, as a context: the task inside is ended when a limit is reached."""

    __slots__ = (
        "_all",
        "_began",
        "_behind",
        "_cancelling",
        "_deadline",
        "_ends",
        "_excused",
        "_failure",
        "_last",
        "_limit",
        "_most",
        "_options",
        "_seen",
        "_task",
        "_timers",
        "due",
        "fresh",
        "phase",
        "proxy",
        "sent",
    )

    def __init__(
        self,
        all_of_them: "TimeoutRegistry",
        deadline: Deadline,
        behind: Callable[[], "RequestTimeout | None"] = lambda: None,
        *,
        most: float = _NEVER,
    ) -> None:
        """A try until the deadline, for `most` seconds; `behind` returns what it waits for in the queue."""
        self.phase: Phase = "queue"
        """How far it has come."""
        self.fresh: bool = False
        """Whether its connection was made for it, not kept from an earlier request."""
        self.sent: int = 0
        """How often its request was given a connection: twice where a kept one proved dead, to aiohttp."""
        self._all = all_of_them
        self._deadline = deadline
        self._options = deadline.options or all_of_them.options
        self._most = most
        self._behind = behind
        self._excused = False
        self.proxy: str = ""
        """The forward proxy through which it is sent; empty where there is none."""
        self._began: float | None = None
        self._failure: Exception | None = None

    @property
    def deadline(self) -> Deadline:
        """The deadline of the operation that it belongs to."""
        return self._deadline

    @property
    def seconds(self) -> float | None:
        """How long its request has taken so far; None where none was begun."""
        return None if self._began is None else self._timers.time() - self._began

    @property
    def has_timed_out(self) -> bool:
        """Whether a limit was reached, so that its task was ended."""
        return isinstance(self._failure, ServerTimeoutError)

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            message = "requests are sent from tasks"
            raise RuntimeError(message)
        self._task: asyncio.Task[object] | None = task
        self._cancelling = task.cancelling()
        self._timers = timers_of(self._options.clock)
        left, self._seen = self._deadline.read()
        if left <= 0:
            # Where the application blocked the event loop, there may be a moment more.
            if self._deadline.has_passed():
                raise deadline_passed(self._options.deadline, self.where())
            left, self._seen = self._deadline.read()
        now = self._timers.time()
        # By the timers' clock; `_seen` is the same by the deadline's own, by which it may move.
        self._ends = now + left
        self._last = self._limit = now + self._most
        self.due: float = min(self._ends, self._last)
        self._all.in_progress.add(self)
        if self.due < self._all.fires or self._timers is not self._all.timers:
            self._all.watch(self.due, self._timers)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._all.in_progress.discard(self)
        # Released: the task holds what comes of it, which would be kept until the garbage collector came.
        task, self._task = self._task, None
        if self._failure is not None and task is not None:
            ours_alone = task.uncancel() <= self._cancelling
            if ours_alone and kind is not None and issubclass(kind, asyncio.CancelledError):
                raise copy(self._failure) from None

    def enter(self, phase: Phase) -> None:
        """Begin a phase: connecting and reading have limits of their own within the deadline."""
        self.phase = phase
        options = self._options
        limit = options.connect_timeout if phase == "connect" else options.read_timeout
        now = self._timers.time()
        if self._began is None:
            self._began = now
        self._limit = min(now + limit, self._last)
        self.due = due = min(self._ends, self._limit)
        if due < self._all.fires:
            self._all.watch(due, self._timers)

    def where(self) -> Phase:
        """The phase in which time passes now: its own, or that of the request that it waits for."""
        first = self._behind() if self.phase == "queue" else None
        return first.phase if first else self.phase

    def abort(self) -> None:
        """End it now, as its session closes."""
        self._end(ClosedError("the fleet or client was closed while it was in use"))

    def look_at_the_time(self, now: float) -> None:
        """End it where its time is over."""
        if now < self.due - RESOLUTION:
            return
        if now - self.due > EXCUSED and not self._excused:
            # The event loop was blocked: what came meanwhile is read before this is called a timeout.
            self._excused = True
            self.due = now + EXCUSED / 10
            return
        ends = self._deadline.ends
        if now >= self._ends - RESOLUTION and ends - self._seen > RESOLUTION:
            # Suspended meanwhile, or shared with a caller that has more time.
            self._ends += ends - self._seen
            self._seen = ends
            self.due = min(self._ends, self._limit)
        if now >= self.due - RESOLUTION:
            self._end(self._timeout())

    def _end(self, failure: Exception) -> None:
        if self._task is not None and self._failure is None:
            self._failure, self.due = failure, _NEVER
            self._task.cancel()

    def _timeout(self) -> ServerTimeoutError:
        phase, options, now = self.where(), self._options, self._timers.time()
        if now >= self._ends - RESOLUTION:
            self._deadline.was_reached = True
            return deadline_passed(options.deadline, phase)
        doing = DOING.get(phase, phase)
        if self.proxy and phase in ("dns", "connect"):
            doing += f", through the proxy {self.proxy}"
        if now >= self._last - RESOLUTION:
            what = f"no complete answer within {self._most:g} s, while {doing}"
        elif phase in ("dns", "connect", "tls"):
            what = f"no connection within {options.connect_timeout:g} s, while {doing}"
        else:
            what = f"nothing came for {options.read_timeout:g} s, while {doing}"
        if self.proxy and phase in ("dns", "connect"):
            hint = "Check that the proxy is running, and that it can connect to the server."
            return ServerTimeoutError(what, phase=phase, hint=hint)
        hint = HINTS.get(phase, "The server is slow or does not respond. Try again, or allow more time.")
        return ServerTimeoutError(what, phase=phase, hint=hint)


class TimeoutRegistry:
    """The tries of one session that are under way, and the one timer that ends those whose time is over."""

    def __init__(self, options: Options) -> None:
        self.options = options
        """Their limits."""
        self.in_progress: set[RequestTimeout] = set()
        self.timers: Timers | None = None
        """What the timer belongs to: the event loop, or a clock that has timers."""
        self._timer: Timer | None = None
        self.fires: float = _NEVER
        """When the timer fires, by the timers' clock."""
        # Its own: what was asked first must not be kept for as long as the timer.
        self._context = Context()

    def watch(self, due: float, timers: Timers) -> None:
        """Check the limits at that time, in place of the time that the timer was set to."""
        self._forget_the_timer()
        self.timers, self.fires = timers, due
        self._timer = timers.call_at(due, self._look_at_the_time, timers, context=self._context)

    def abort(self) -> None:
        """End all of them now."""
        for attempt in list(self.in_progress):
            attempt.abort()
        self._forget_the_timer()

    def _look_at_the_time(self, timers: Timers) -> None:
        self._forget_the_timer()
        now = timers.time()
        for attempt in self.in_progress:
            attempt.look_at_the_time(now)
        if self.in_progress:
            # A moment later at least: those that are due nearly together are ended together.
            soon = now + EXCUSED / 10
            self.watch(max(soon, min(attempt.due for attempt in self.in_progress)), timers)

    def _forget_the_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.fires = _NEVER
