"""Polling a fleet: each server at its own time in every interval, and the newest answer of each.

Decides when each server is queried and which answers are kept. What is queried is a `FleetQuery`.
"""

import asyncio
import logging
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import partial
from types import MappingProxyType, TracebackType
from typing import Any, Generic, Self, TypeVar

from attrs import define, frozen

from aiovbo._client.client import Client
from aiovbo._core.query import Answer
from aiovbo._fleet.query import FleetQuery
from aiovbo._fleet.run import answer_of
from aiovbo._settings.limits import Options
from aiovbo._settings.numbers import check_interval
from aiovbo._watch.schedule import PollSchedule
from aiovbo.errors import ClosedError, ServerError

T = TypeVar("T")

log = logging.getLogger("aiovbo.poll")

_STARTED_AT_ONCE = 100
"""Servers whose tasks are started in one step of the event loop."""


@frozen(kw_only=True)
class PollStatus:
    """How the polls of one server go."""

    server: str
    """The server's name."""
    up: bool
    """Whether its last poll succeeded; False before the first one."""
    last_success: datetime | None
    """When its last successful answer arrived, aware UTC; None while there was none."""
    age: timedelta | None
    """How long ago that was, by the monotonic clock; None while there was none."""
    error: ServerError | None
    """Why its last poll failed; None where it succeeded, and before the first one."""
    errors: int
    """Polls that failed, in a row."""
    next_poll: datetime | None
    """When it is polled again, aware UTC; None while it is being polled."""
    overruns: int
    """Polls that were left out because the one before took longer than the interval."""


@define(eq=False)
class _PolledServer(Generic[T]):
    """One server: when it is due, and what it answered."""

    client: Client
    schedule: PollSchedule
    after: list[asyncio.Task[None]]
    """The tasks of former servers of this name, which end first."""
    task: asyncio.Task[None] | None = None
    latest: Answer[T] | None = None
    answered_at: float = 0.0
    error: ServerError | None = None
    errors: int = 0


class Poll(Generic[T]):
    """A query that is repeated: `async with fleet.poll(...) as poll`, then iterate, or read `poll.latest`.

    `async for answer in poll` delivers each server's `Answer` as it arrives, failed ones included; it never
    raises for a server. A consumer that is slower than the servers gets the newest answer of each. Several
    tasks that iterate share the answers. Servers that join the fleet are polled too; those that leave are
    not polled any more, and their answers are discarded.
    """

    def __init__(
        self,
        members: Mapping[str, Client],
        query: FleetQuery[T],
        every: timedelta,
        options: Options,
        running: "set[Poll[Any]]",
    ) -> None:
        check_interval("every", every)
        self._query = query
        self._every = every
        self._options = options
        self._running = running
        self._members = members
        self._servers: dict[str, _PolledServer[T]] = {}
        self._leaving: dict[asyncio.Task[None], str] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._pending: dict[str, Answer[T]] = {}
        self._changed = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closed = False
        self._failure: BaseException | None = None
        self._is_failure_raised = False

    # ------------------------------------------------------------------------------- the consumer

    async def __aenter__(self) -> Self:
        if self._is_closed or self._loop is not None:
            message = "a poll is used once: call fleet.poll(...) again"
            raise ClosedError(message)
        # Raises where the fleet was closed in the meantime.
        self._query.question()
        self._loop = asyncio.get_running_loop()
        self._running.add(self)
        for client in self._members.values():
            self._register(client)
        self._own(asyncio.create_task(self._start_all(), name="aiovbo poll starts"))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()
        if self._failure is not None and not self._is_failure_raised and error is None:
            self._is_failure_raised = True
            raise self._failure

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Answer[T]:
        self.check_loop()
        while True:
            self._check()
            if self._pending:
                # Of the servers whose answers wait, the one that waits longest.
                return self._pending.pop(next(iter(self._pending)))
            self._changed.clear()
            await self._changed.wait()

    @property
    def latest(self) -> Mapping[str, Answer[T]]:
        """The last successful `Answer` of each server, by name; without servers that had none yet.

        `status()` has its age, and why the polls after it failed.
        """
        found = {name: its.latest for name, its in self._servers.items() if its.latest is not None}
        return MappingProxyType(found)

    def status(self) -> dict[str, PollStatus]:
        """How the polls of each server go, by name; sends nothing."""
        now = self._options.clock.monotonic()
        return {name: _status(its, now) for name, its in self._servers.items()}

    async def aclose(self) -> None:
        """Stop polling, and wait until nothing is in progress; safe to repeat.

        Iterating raises ClosedError from then on.
        """
        self.check_loop()
        self._is_closed = True
        self._running.discard(self)
        if self._loop is not None and self._loop.is_closed():
            # Its tasks can be neither cancelled nor awaited.
            return
        self._changed.set()
        for task in self._tasks:
            task.cancel()
        others = self._tasks - {asyncio.current_task()}
        if others:
            await asyncio.wait(others)

    def check_loop(self) -> None:
        """Nothing in the event loop in which it was entered, and once that is closed.

        Raises: ClosedError anywhere else.
        """
        if self._loop is None or self._loop.is_closed():
            return
        try:
            is_here = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            is_here = False
        if not is_here:
            raise ClosedError(
                "a poll belongs to the event loop in which it was entered, and so does adding and removing "
                "servers while it runs: from a thread, loop.call_soon_threadsafe(...)"
            )

    def _check(self) -> None:
        if self._failure is not None:
            self._is_failure_raised = True
            raise self._failure
        if self._is_closed or self._loop is None:
            message = "the poll is closed" if self._is_closed else "the poll is not open yet: async with it"
            raise ClosedError(message)

    # -------------------------------------------------------------------------------- the servers

    def add(self, client: Client) -> None:
        """Poll one more server, if it belongs to the part of the fleet that is polled."""
        if client.name in self._members:
            self._start(self._register(self._members[client.name]))

    def remove(self, name: str) -> None:
        """Stop polling a server, and discard its answers."""
        its = self._servers.pop(name, None)
        self._pending.pop(name, None)
        if its is not None and its.task is not None:
            its.task.cancel()
            self._leaving[its.task] = name

    def _register(self, client: Client) -> _PolledServer[T]:
        name = client.name
        schedule = PollSchedule(name, self._every, self._options.clock)
        after = [task for task, former in self._leaving.items() if former == name]
        its = self._servers[name] = _PolledServer[T](client, schedule, after)
        return its

    async def _start_all(self) -> None:
        for count, its in enumerate(list(self._servers.values()), 1):
            if its.task is None and self._servers.get(its.client.name) is its:
                self._start(its)
            if count % _STARTED_AT_ONCE == 0:
                await asyncio.sleep(0)

    def _start(self, its: _PolledServer[T]) -> None:
        its.task = asyncio.create_task(self._follow(its), name=f"aiovbo poll {its.client.name}")
        self._own(its.task)

    def _own(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(partial(self._ended, task.get_name()))

    def _ended(self, name: str, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        is_expected = self._leaving.pop(task, None) is not None or self._is_closed
        if not task.cancelled():
            error = task.exception()
        elif is_expected:
            error = None
        else:
            error = ClosedError(f"the task {name!r} was cancelled from outside")
        if error is not None:
            self._failure = self._failure or error
            self._changed.set()

    # --------------------------------------------------------------------------------- the polls

    async def _follow(self, its: _PolledServer[T]) -> None:
        """Poll one server until cancelled: its next poll begins after the one before has ended."""
        clock, schedule = self._options.clock, its.schedule
        if its.after:
            await asyncio.wait(its.after)
            its.after.clear()
        await schedule.wait(schedule.until_first(len(self._servers)))
        while True:
            began = clock.monotonic()
            # A server that failed is probed by a single request.
            with its.client.operation(may_retry=not its.errors):
                answer = await answer_of(its.client, self._query.question(), self._options)
            self._take(its, answer)
            passed = clock.monotonic() - began
            await schedule.wait(schedule.backoff(its.errors) if its.errors else schedule.until_next(passed))

    def _take(self, its: _PolledServer[T], answer: Answer[T]) -> None:
        its.error = answer.error
        if answer.error is None:
            its.latest, its.answered_at, its.errors = answer, self._options.clock.monotonic(), 0
        else:
            its.errors += 1
            log.debug("poll %d in a row that failed: %s", its.errors, answer.error)
        # It keeps its place in the queue: a server that answers often is not moved to the end.
        self._pending[its.client.name] = answer
        self._changed.set()


def _status(its: _PolledServer[Any], now: float) -> PollStatus:
    latest = its.latest
    return PollStatus(
        server=its.client.name,
        up=latest is not None and its.error is None,
        last_success=None if latest is None else latest.fetched_at,
        age=None if latest is None else timedelta(seconds=now - its.answered_at),
        error=its.error,
        errors=its.errors,
        next_poll=its.schedule.next_poll,
        overruns=its.schedule.overruns,
    )
