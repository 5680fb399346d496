"""Queries of many servers: lazy, to iterate or to await, and their results.

What happens in one use of a query is in `_fleet/run`. Knows nothing of requests.
"""

from collections.abc import (
    AsyncGenerator,
    Callable,
    Generator,
    Mapping,
    Sequence,
)
from itertools import filterfalse
from operator import attrgetter
from types import TracebackType
from typing import Generic, Self

from attrs import define, field, frozen

from aiovbo._client.client import Client
from aiovbo._core.query import Answer
from aiovbo._core.use import Batch, Blocks, Stream, Uses
from aiovbo._fleet.run import ConcurrencyLimiter, Question, Run, T
from aiovbo._settings.limits import Options
from aiovbo.errors import FleetError


@frozen
class FleetResult(Generic[T]):
    """What all servers answered, failed ones included."""

    answers: Mapping[str, Answer[T]]
    """Each server's answer, by its name."""

    @property
    def items(self) -> tuple[T, ...]:
        """The items of all servers, in the fleet's order; also what came before a server failed."""
        return tuple(item for answer in self.answers.values() for item in answer.items)

    @property
    def failed(self) -> tuple[Answer[T], ...]:
        """The answers of servers that failed."""
        return tuple(answer for answer in self.answers.values() if answer.error is not None)

    def raise_for_failures(self) -> None:
        """Nothing where all servers answered.

        Raises: FleetError with the errors of those that failed.
        """
        errors = [answer.error for answer in self.answers.values() if answer.error is not None]
        if errors:
            raise FleetError.of(errors, len(self.answers))


@define(eq=False, repr=False)
class FleetQuery(Generic[T]):
    """A query of many servers; nothing is sent before it is used, and each use sends new requests.

    `async for item in query` delivers items of all servers as they arrive, and raises `FleetError` at the
    end if any server failed. `await query` is a `FleetResult`, which never raises for a server.
    `query.answers()` delivers one `Answer` per server as each finishes. `async with query:` stops, at the end
    of the block, what was started inside it; blocks may be nested.
    """

    _clients: Sequence[Client]
    _at_each_use: Callable[[], Question[T]]
    _options: Options
    _slots: ConcurrencyLimiter
    _running: Uses
    _blocks: Blocks = field(factory=Blocks, init=False)

    def __aiter__(self) -> AsyncGenerator[T]:
        return Stream(self._by_item())

    async def _by_item(self) -> AsyncGenerator[Batch[T]]:
        answers: dict[str, Answer[T]] = {}
        async with self._use(stream=True) as run:
            while (event := await run.next_event()) is not None:
                if isinstance(event, Answer):
                    answers[event.server] = event
                else:
                    yield run.check, event.items
        FleetResult(answers).raise_for_failures()

    def answers(self) -> AsyncGenerator[Answer[T]]:
        """One `Answer` per server, as each finishes; never raises for a server."""
        return Stream(self._by_server())

    async def _by_server(self) -> AsyncGenerator[Batch[Answer[T]]]:
        async with self._use(stream=False) as run:
            while (event := await run.next_event()) is not None:
                if isinstance(event, Answer):
                    yield run.check, (event,)

    def __await__(self) -> Generator[object, None, FleetResult[T]]:
        return self._result().__await__()

    async def _result(self) -> FleetResult[T]:
        found: dict[str, Answer[T]] = {}
        async with self._use(stream=False) as run:
            while (event := await run.next_event()) is not None:
                if isinstance(event, Answer):
                    found[event.server] = event
        # In the fleet's order, regardless of which came first.
        answers: dict[str, Answer[T]] = {}
        for client in self._clients:
            answer = found.get(client.name)
            if answer is not None:
                answers[answer.server] = answer
        return FleetResult(answers)

    def question(self) -> Question[T]:
        """What is requested from each server in one use of the query; sends nothing.

        Raises: ClosedError once the fleet is closed.
        """
        return self._at_each_use()

    def belongs_to(self, running: Uses) -> bool:
        """Whether it is a query of the fleet that keeps its uses in `running`."""
        return self._running is running

    def _use(self, *, stream: bool) -> "Run[T]":
        registers = [self._running, *(self._blocks.current() if self._blocks.opened else ())]
        clients = list(filterfalse(attrgetter("is_removed"), self._clients))
        return Run(clients, self._at_each_use(), self._options, self._slots, registers, stream=stream)

    async def __aenter__(self) -> Self:
        self._blocks.enter()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._blocks.leave()

    def __repr__(self) -> str:
        return f"<FleetQuery to {len(self._clients)} servers>"
