"""One stream of many servers' answers: every item as it arrives, every end reported, nothing left behind.

Knows tasks and queues; knows nothing of requests. One server's failure is a value here; a bug is raised.
"""

import asyncio
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Awaitable,
    Callable,
    Iterable,
    Sequence,
)
from contextlib import AsyncExitStack, aclosing
from contextvars import copy_context
from functools import partial
from itertools import repeat
from operator import attrgetter
from typing import Any, Generic, Self, TypeVar, cast

from attrs import evolve

from aiovbo._client.client import Client
from aiovbo._core.deadline import Deadline, Operation
from aiovbo._core.query import Answer, Page, Query
from aiovbo._core.use import Uses
from aiovbo._settings.clock import Clock, Timer, Timers, TimeSource, timers_of
from aiovbo._settings.limits import Options
from aiovbo.errors import ClosedError, LinkError, PayloadError

T = TypeVar("T")

Question = Callable[[Client], Awaitable[T] | AsyncIterable[T]]
"""What to request from each server."""

SLOT_RELEASED_AFTER = 0.05
"""Seconds after which a server that has not finished no longer keeps others from being queried."""

_SLOT_RELEASED_FINALLY = 0.1
"""The same where the event loop is busy, with handshakes most of all: that is no sign of a slow server."""


_STOPPED = "closed while its answers were still being read"


class ConcurrencyLimiter:
    """How many servers are queried at once: the others begin one by one, as those before them end.

    A server that takes long while others wait is parked: it goes on outside, and no longer counts.
    """

    def __init__(self, count: int, clock: TimeSource | None = None) -> None:
        self._free = count
        self._clock = clock or Clock()
        self._waiting: deque[tuple[Run[Any], Client]] = deque()
        # Since when: the server that has held one longest comes first.
        self._held: dict[tuple[Run[Any], Client], float] = {}
        self._parking: Timer | None = None

    def queue(self, run: "Run[Any]", clients: Iterable[Client]) -> None:
        """Have each of them queried by the run, as soon as there is a slot for it."""
        self._waiting.extend(zip(repeat(run), clients))
        timers = timers_of(self._clock)
        while self._waiting and self._free:
            self._free -= 1
            self._begin_next(timers)
        if self._waiting:
            self._park(timers, SLOT_RELEASED_AFTER)

    def withdraw(self, run: "Run[Any]") -> int:
        """Begin none of the run's servers any more; how many still waited."""
        if not self._waiting:
            return 0
        before = len(self._waiting)
        self._waiting = deque(waiting for waiting in self._waiting if waiting[0] is not run)
        return before - len(self._waiting)

    def give_back(self, run: "Run[Any]", client: Client) -> None:
        """Let the next one have the slot of a server that the run is through with, unless it was parked."""
        if self._held.pop((run, client), None) is None:
            return
        if self._waiting:
            self._begin_next(timers_of(self._clock))
        else:
            self._free += 1

    def _begin_next(self, timers: Timers) -> None:
        run, client = holder = self._waiting.popleft()
        self._held[holder] = timers.time()
        run.begin(client)

    def _park(self, timers: Timers, delay: float) -> None:
        """Let those that wait have the slots that were held for so long; look again while any wait."""
        while self._waiting:
            # While anybody waits, every slot is held.
            holder, since = next(iter(self._held.items()))
            due = since + delay
            if due > timers.time():
                self._parking = self._parking or timers.call_at(due, self._park_again, timers, due)
                return
            del self._held[holder]
            self._begin_next(timers)

    def _park_again(self, timers: Timers, due: float) -> None:
        self._parking = None
        is_busy = timers.time() - due > SLOT_RELEASED_AFTER / 5
        self._park(timers, _SLOT_RELEASED_FINALLY if is_busy else SLOT_RELEASED_AFTER)


class Run(Generic[T]):
    """One use of a fleet query: a task per server, one queue to the consumer, and nothing after the block."""

    def __init__(  # what a query hands on, and how it is used
        self,
        clients: Sequence[Client],
        question: Question[T],
        options: Options,
        slots: ConcurrencyLimiter,
        registers: Sequence[Uses],
        *,
        stream: bool,
    ) -> None:
        """A run that is in all `registers` for as long as anything of it is under way."""
        self._clients = clients
        self._question = question
        self._options = options
        self._slots = slots
        self._registers = registers
        self._stream = stream
        self._tasks: set[asyncio.Task[Answer[T]]] = set()
        # Bounded by what is put in: one page a server, and one end.
        self._queue: asyncio.Queue[tuple[Page[T], asyncio.Event] | asyncio.Task[Answer[T]] | None]
        self._queue = asyncio.Queue()
        self._taken: asyncio.Event | None = None
        self._open = len(clients)
        self._context = copy_context()
        # What is left to a server as it begins: to wait for a slot counts, the consumer's own time does not.
        self._queued = Deadline(options.deadline, options.clock, suspended=True)
        self._bugs: list[BaseException] = []
        self._stopped = False

    async def __aenter__(self) -> Self:
        for register in self._registers:
            register.add(self)
        # Who was out of reach the last time is queried last, and keeps no other server's slot.
        self._slots.queue(self, sorted(self._clients, key=attrgetter("is_out_of_reach")))
        return self

    def begin(self, client: Client) -> None:
        """Begin to query a server, in a task of its own, of which the consumer hears however it ends."""
        # Not in the context of the task that leaves the slot: in the consumer's own.
        create = self._context.copy().run
        task = create(asyncio.create_task, self._answer(client), name=f"aiovbo {client.name}")
        task.add_done_callback(partial(self._ended, client))
        self._tasks.add(task)

    def _ended(self, client: Client, task: asyncio.Task[Answer[T]]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            if not self._stopped:
                # Cancelled from outside, for example at loop shutdown: start no queued servers.
                self._open -= self._slots.withdraw(self)
        else:
            # Also where its outcome is no longer retrieved, asyncio has nothing to complain about.
            task.exception()
        self._slots.give_back(self, client)
        if not self._stopped:
            self._queue.put_nowait(task)
        elif not self._tasks:
            self._leave_registers()

    def _leave_registers(self) -> None:
        for register in self._registers:
            register.discard(self)

    def check(self) -> None:
        """Nothing while it runs.

        Raises: ClosedError once it was stopped, so that no stream ends quietly.
        """
        if self._stopped:
            raise ClosedError(_STOPPED)

    async def next_event(self) -> Page[T] | Answer[T] | None:
        """A page (when streaming), a server's answer, or None at the end.

        Raises: ClosedError once stopped; a bug that a task died of, after all other servers have ended.
        """
        while not self._stopped:
            if self._taken is not None:
                self._taken.set()
                self._taken = None
            if not self._open:
                if self._bugs:
                    raise self._bugs.pop()
                return None
            with self._queued:
                event = await self._queue.get()
            if isinstance(event, tuple):
                page, self._taken = event
                return page
            if event is None or self._stopped:
                continue
            self._open -= 1
            if event.cancelled():
                bug: BaseException | None = ClosedError("a server's task was cancelled from outside")
            else:
                bug = event.exception()
            if bug is None:
                return event.result()
            if not self._bugs:
                self._bugs.append(bug)
            # It is raised from here at the end, and keeps this frame, which must not keep it in turn.
            del bug, event
        raise ClosedError(_STOPPED)

    async def stop(self, *_: object) -> None:
        """Cancel what is still under way, and wait until it has ended; a task of its own does not wait."""
        if not self._stopped:
            # Once: what is cancelled a second time would be hurried out of its own clean-up.
            self._stopped = True
            self._slots.withdraw(self)
            while not self._queue.empty():
                self._queue.get_nowait()
            self._queue.put_nowait(None)
            for task in self._tasks:
                task.cancel()
            if not self._tasks:
                self._leave_registers()
        if self._tasks and asyncio.current_task() not in self._tasks:
            await asyncio.wait(self._tasks)

    __aexit__ = stop

    async def _answer(self, client: Client) -> Answer[T]:
        deadline = Deadline(self._queued.left(), self._options.clock, suspended=True)
        with Operation(self._options, deadline=deadline):
            deliver = self._deliver if self._stream else None
            return await answer_of(client, self._question, self._options, deliver)

    async def _deliver(self, page: Page[T]) -> None:
        """Hand a page over, and wait until the consumer is through with it: a slow one is not buried."""
        taken = asyncio.Event()
        self._queue.put_nowait((page, taken))
        await taken.wait()


async def answer_of(
    client: Client,
    question: Question[T],
    options: Options,
    deliver: Callable[[Page[T]], Awaitable[None]] | None = None,
) -> Answer[T]:
    """What one server answers; its pages go to `deliver`, or into the answer where there is none."""
    result = question(client)
    query = cast("Query[T]", result) if isinstance(result, Query) else _as_query(client, result, options)
    answer = await query.run(deliver)
    # A question may also have been put to another server.
    name = client.name
    return answer if answer.server == name else evolve(answer, server=name)


def _as_query(client: Client, result: Awaitable[T] | AsyncIterable[T], options: Options) -> Query[T]:
    async def pages(_: Operation) -> AsyncGenerator[Page[T]]:
        try:
            if not isinstance(result, AsyncIterable):
                yield Page((await result,))
                return
            items = aiter(result)
            async with AsyncExitStack() as stack:
                if isinstance(items, AsyncGenerator):
                    # Its own `finally` is to run when we leave, not when the garbage collector finds it.
                    await stack.enter_async_context(aclosing(cast("AsyncGenerator[T]", items)))
                async for item in items:
                    yield Page((item,))
        except LinkError as error:
            # A link is what a server sent, or left out: its failure, and no other server's.
            raise PayloadError(str(error), retryable=False) from None

    return Query(client.name, options, pages)
