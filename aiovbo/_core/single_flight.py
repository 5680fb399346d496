"""One call for all callers that need the same result at the same time.

Depends on deadlines and on asyncio; must not depend on requests.
"""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from copy import copy
from typing import Any, Generic, TypeVar

from aiovbo._core.deadline import EXCUSED, RESOLUTION, Operation, SharedDeadline, deadline_passed
from aiovbo._core.timers import wait_at_most
from aiovbo.errors import VboError

T = TypeVar("T")

_PAUSE = 0.02
"""Seconds that a caller leaves the call to end by the deadline that they share."""


class _Flight(Generic[T]):
    """A call in progress, and how many callers wait for it."""

    __slots__ = ("deadline", "operation", "task", "waiters")

    def __init__(self, caller: Operation, call: Callable[[Operation], Coroutine[Any, Any, T]]) -> None:
        self.deadline = SharedDeadline(caller.options.clock)
        # Before the task is made: an eager one runs at once.
        self.deadline.join(caller.deadline)
        self.operation = Operation(caller.options, deadline=self.deadline, may_retry=caller.may_retry)
        self.task = asyncio.create_task(call(self.operation), name="aiovbo shared call")
        self.waiters = 0


class SingleFlight(Generic[T]):
    """Calls that several callers wait for at once: the first one starts it, all get its outcome.

    A call runs until the latest deadline of all callers that joined it, and each caller waits until its own.
    A caller that is cancelled does not affect the others; when the last one has left, the call is cancelled.
    """

    def __init__(self) -> None:
        self._flights: dict[Hashable, _Flight[T]] = {}

    async def run(
        self, key: Hashable, caller: Operation, call: Callable[[Operation], Coroutine[Any, Any, T]]
    ) -> T:
        """The outcome of the call in progress for `key`, or of a new one, with an operation of its own.

        Raises: what the call raises; ServerTimeoutError, without its server, at the caller's own deadline.
        """
        while True:
            flight = self._flights.get(key)
            # A call that its deadline is ending would pass the error on to a caller that has time left.
            if flight is None or flight.task.done() or flight.deadline.was_reached:
                flight = self._flights[key] = _Flight(caller, call)
            else:
                flight.deadline.join(caller.deadline)
            task, sent = flight.task, flight.operation.attempts
            flight.waiters += 1
            try:
                await _wait(flight, caller, sent)
            finally:
                flight.waiters -= 1
                flight.deadline.leave(caller.deadline)
                caller.attempts += flight.operation.attempts - sent
                await self._leave(key, flight)
            if task.cancelled():
                continue
            error = task.exception()
            if error is None:
                return task.result()
            # Each caller gets an error of its own: it notes there what it requested, and for how long.
            raise copy(error) if isinstance(error, VboError) else error

    async def _leave(self, key: Hashable, flight: _Flight[T]) -> None:
        task = flight.task
        if (task.done() or not flight.waiters) and self._flights.get(key) is flight:
            del self._flights[key]
        if not flight.waiters and not task.done():
            task.cancel()
            await asyncio.wait([task])
        if task.done() and not task.cancelled():
            # A caller that is cancelled as the call fails does not fetch the error; asyncio would complain.
            task.exception()


async def _wait(flight: _Flight[Any], caller: Operation, sent: int) -> None:
    """Wait for the end of the call.

    Raises: ServerTimeoutError at the caller's deadline, where the call goes on for others.
    """
    deadline = caller.deadline
    while not flight.task.done():
        left = deadline.left()
        # Without others, the call ends by the same deadline, and its own error says more.
        goes_on = flight.deadline.ends > deadline.ends + RESOLUTION or left < -EXCUSED
        if left <= 0 and goes_on and deadline.has_passed():
            phase = flight.operation.phase
            failure = deadline_passed(caller.options.deadline, "queue" if phase is None else phase())
            failure.attempts = flight.operation.attempts - sent + 1
            raise failure
        await wait_at_most(max(left, _PAUSE), caller.options.clock, flight.task)
