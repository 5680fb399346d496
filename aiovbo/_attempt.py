"""One try at one request: how far it has come, and when that must be over.

Knows the event loop's clock and our limits; knows no HTTP. One timer serves all tries of a session, since
nearly every one of them ends long before its time.
"""

import asyncio
from collections.abc import Callable
from contextvars import Context
from copy import copy
from types import TracebackType
from typing import Self

from aiovbo._config import Options
from aiovbo.errors import ClosedError, Phase, ServerTimeoutError

EXCUSED = 0.1
"""Seconds that a try may be overdue before what ends it lets it look for an answer that came meanwhile."""

IS_IT_UP = "Is the server up, and does a firewall drop the connection?"

_RESOLUTION = 0.001
"""Seconds by which a timer may fire early."""

_NEVER = float("inf")


class Attempt:
    """One try at one request, as a context: the task inside is ended when a limit is reached."""

    __slots__ = (
        "_all",
        "_began",
        "_behind",
        "_cancelling",
        "_ends",
        "_excused",
        "_failure",
        "_left",
        "_loop",
        "_task",
        "due",
        "fresh",
        "phase",
        "sent",
    )

    def __init__(self, all_of_them: "Attempts", left: float, behind: Callable[[], "Attempt | None"]) -> None:
        self.phase: Phase = "queue"
        """How far it has come."""
        self.fresh = False
        """Whether its connection was made for it, not kept from an earlier request."""
        self.sent = 0
        """How often its request was given a connection: twice where a kept one proved dead, to aiohttp."""
        self._all = all_of_them
        self._left = left
        self._behind = behind
        self._excused = False
        self._began: float | None = None
        self._failure: Exception | None = None

    @property
    def seconds(self) -> float | None:
        """How long its request has taken so far; None where none was begun."""
        return None if self._began is None else self._loop.time() - self._began

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            message = "requests are sent from tasks"
            raise RuntimeError(message)
        self._task: asyncio.Task[object] | None = task
        self._cancelling = task.cancelling()
        self._loop = asyncio.get_running_loop()
        self.due = self._ends = self._loop.time() + self._left
        self._all.begin(self, self._loop)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._all.leave(self)
        # Let go of: the task holds what comes of it, which would be kept until the garbage collector came.
        task, self._task = self._task, None
        if self._failure is not None and task is not None:
            ours_alone = task.uncancel() <= self._cancelling
            if ours_alone and kind is not None and issubclass(kind, asyncio.CancelledError):
                raise copy(self._failure) from None

    def enter(self, phase: Phase) -> None:
        """Begin a phase: connecting and reading have limits of their own within the deadline."""
        self.phase = phase
        options = self._all.options
        limit = options.connect_timeout if phase == "connect" else options.read_timeout
        now = self._loop.time()
        if self._began is None:
            self._began = now
        self.due = min(self._ends, now + limit)
        self._all.watch(self.due)

    def abort(self) -> None:
        """End it now, as its session closes."""
        self._end(ClosedError("the fleet or client was closed while it was in use"))

    def look_at_the_time(self, now: float) -> None:
        """End it where its time is over."""
        if now < self.due - _RESOLUTION:
            return
        if now - self.due > EXCUSED and not self._excused:
            # Somebody held the loop: what came meanwhile is read before this is called a timeout.
            self._excused = True
            self.due = now + EXCUSED / 10
        else:
            self._end(self._timeout())

    def _end(self, failure: Exception) -> None:
        if self._task is not None and self._failure is None:
            self._failure, self.due = failure, _NEVER
            self._task.cancel()

    def _timeout(self) -> ServerTimeoutError:
        in_words: dict[Phase, str] = {
            "queue": "waiting for its turn, behind requests that had no answer",
            "dns": "resolving the name",
            "connect": "connecting",
            "tls": "shaking hands (TLS)",
            "read": "waiting for the answer",
            "body": "reading the answer",
        }
        first = self._behind() if self.phase == "queue" else None
        phase = first.phase if first else self.phase
        doing = in_words.get(phase, phase)
        options = self._all.options
        if self._loop.time() >= self._ends - _RESOLUTION:
            what = f"the deadline of {options.deadline:g} s passed while {doing}"
        elif phase in ("dns", "connect", "tls"):
            what = f"no connection within {options.connect_timeout:g} s, while {doing}"
        else:
            what = f"nothing came for {options.read_timeout:g} s, while {doing}"
        hint = "The server is slow or stuck: try again, or allow more time."
        if phase in ("dns", "connect"):
            hint = IS_IT_UP
        elif phase == "queue":
            hint = (
                "The server is slow or stuck; if it is not, ask less of it at once, or allow more time "
                "(deadline=...)."
            )
        elif phase == "tls":
            hint = "Is this the right port, does it speak https, and is the server alive?"
        return ServerTimeoutError(what, phase=phase, hint=hint)


class Attempts:
    """The tries of one session that are under way, and the one timer that ends those whose time is over."""

    def __init__(self, options: Options) -> None:
        self.options = options
        """Their limits."""
        self._under_way: set[Attempt] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._fires = _NEVER
        # Its own: what was asked first must not be kept for as long as the timer.
        self._context = Context()

    def begin(self, attempt: Attempt, loop: asyncio.AbstractEventLoop) -> None:
        """Count it among those under way, and see to its end."""
        if loop is not self._loop:
            self._forget_the_timer()
            self._loop = loop
        self._under_way.add(attempt)
        self.watch(attempt.due)

    def leave(self, attempt: Attempt) -> None:
        """Count it no longer."""
        self._under_way.discard(attempt)

    def watch(self, due: float) -> None:
        """See to it that somebody looks at that time."""
        if due < self._fires and self._loop is not None:
            self._forget_the_timer()
            self._fires = due
            self._timer = self._loop.call_at(due, self._look_at_the_time, self._loop, context=self._context)

    def abort(self) -> None:
        """End all of them now."""
        for attempt in list(self._under_way):
            attempt.abort()
        self._forget_the_timer()

    def _look_at_the_time(self, loop: asyncio.AbstractEventLoop) -> None:
        self._forget_the_timer()
        now = loop.time()
        for attempt in self._under_way:
            attempt.look_at_the_time(now)
        if self._under_way:
            # A moment later at least: those that are due nearly together are ended together.
            soon = now + EXCUSED / 10
            self.watch(max(soon, min(attempt.due for attempt in self._under_way)))

    def _forget_the_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._fires = _NEVER
