"""Queries of one server: lazy, to iterate or to await, and their results.

Knows pages and answers; how a page is fetched is handed in. Knows no HTTP.
"""

from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Generator,
    Iterator,
    Sequence,
)
from contextlib import aclosing
from copy import copy
from datetime import datetime
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar, overload

from attrs import define, field, frozen

from aiovbo._core.deadline import Operation
from aiovbo._core.use import Batch, Blocks, Stream, Use
from aiovbo._settings.limits import Options
from aiovbo.errors import ServerError, UnreachableError

T = TypeVar("T")


@frozen
class Rejected:
    """An item that was rejected: what identifies it is missing or invalid. The others are delivered."""

    index: int
    """Its place in the listing, from 0."""
    path: str
    """The location of what is invalid inside the item, such as `$.id`."""
    reason: str
    """What is wrong there."""
    raw: str
    """The item as the server sent it, the first 10,000 bytes."""


@frozen
class Page(Sequence[T]):
    """Some items of a listing, as one response brought them."""

    items: tuple[T, ...] = field(converter=tuple)
    """The items, in the server's order."""
    rejected: tuple[Rejected, ...] = ()
    """The items of this page that were rejected."""
    complete: bool = True
    """False once something may be missing from this page or an earlier one."""

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[T, ...]: ...
    def __getitem__(self, index: int | slice) -> T | tuple[T, ...]:
        return self.items[index]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)


@frozen(kw_only=True)
class Answer(Generic[T]):
    """What one server answered: its items, or its error, or both where it failed half-way."""

    server: str
    """The server's name."""
    items: tuple[T, ...] = ()
    """What it sent."""
    error: ServerError | None = None
    """Why there is nothing, or nothing further."""
    rejected: tuple[Rejected, ...] = ()
    """Items that were rejected."""
    complete: bool
    """Whether this is known to be everything that was requested, as far as the server reports.

    What it deletes between two pages shows only where it counts its rows: v8 does not.
    """
    attempts: int
    """Requests sent for it, retries included; not the login, which many queries share."""
    elapsed: float
    """Seconds from the first request to the end."""
    fetched_at: datetime
    """When it was complete; aware, UTC."""


class PageSource(Protocol[T]):
    """Where pages come from, one by one; closed by its consumer."""

    def __anext__(self) -> Awaitable[Page[T]]:
        """The next page."""
        ...

    def aclose(self) -> Awaitable[None]:
        """End what is under way."""
        ...


@define(eq=False, repr=False)
class Query(Generic[T]):
    """A query of one server; nothing is sent before it is used, and each use sends new requests.

    `async for item in query` pages to the end, `await query` is the list, `query.pages()` iterates pages,
    `await query.answer()` is an `Answer` that never raises for the server. `async with query:` stops, at the
    end of the block, what was begun inside it and is still in progress.
    """

    _server: str
    _options: Options
    _open_pages: Callable[[Operation], PageSource[T]]
    _first_page: Callable[[Operation], Awaitable[Page[T] | PageSource[T]]] | None = None
    """Returns the page where it is the only one, else all pages."""
    _blocks: Blocks = field(factory=Blocks, init=False)

    def pages(self) -> AsyncGenerator[Page[T]]:
        """The pages, one read ahead."""
        return Stream(self._by_page())

    def __aiter__(self) -> AsyncGenerator[T]:
        return Stream(self._by_item())

    async def _by_page(self) -> AsyncGenerator[Batch[Page[T]]]:
        async with aclosing(self._use()) as use:
            async for page in use:
                yield use.check, (page,)

    async def _by_item(self) -> AsyncGenerator[Batch[T]]:
        async with aclosing(self._use()) as use:
            async for page in use:
                yield use.check, page.items

    def _use(self) -> Use[Page[T]]:
        return Use(self._open_pages(Operation.current(self._options)), self._blocks.current())

    def __await__(self) -> Generator[object, None, list[T]]:
        return self._collect().__await__()

    async def _collect(self) -> list[T]:
        operation = Operation.current(self._options)
        first = await self._begin(operation)
        if isinstance(first, Page):
            return [*first.items]
        items: list[T] = []
        async with aclosing(Use(first, self._blocks.current())) as pages:
            async for page in pages:
                items.extend(page.items)
        return items

    async def _begin(self, operation: Operation) -> Page[T] | PageSource[T]:
        """The only page, or what gives all pages, as while an `async with` block is open."""
        if self._first_page is None or self._blocks.opened:
            return self._open_pages(operation)
        return await self._first_page(operation)

    async def answer(self) -> Answer[T]:
        """Everything at once: items, error, what was rejected; never raises for the server."""
        return await self.run()

    async def run(self, deliver: Callable[[Page[T]], Awaitable[None]] | None = None) -> Answer[T]:
        """Hand every page to `deliver`, and say how it ended; if not given, the answer holds the items."""
        clock = self._options.clock
        operation = Operation.current(self._options)
        before, started = operation.attempts, clock.monotonic()
        items: Sequence[T] = ()
        rejected: Sequence[Rejected] = ()
        complete, error = True, None
        try:
            first = await self._begin(operation)
            if isinstance(first, Page):
                complete = first.complete
                if deliver is None:
                    items = first.items
                else:
                    await deliver(first)
            else:
                items, rejected = [], []
                async with aclosing(Use(first, self._blocks.current())) as pages:
                    async for page in pages:
                        rejected.extend(page.rejected)
                        complete = page.complete
                        if deliver is None:
                            items.extend(page.items)
                        else:
                            await deliver(page)
        except ServerError as failure:
            error = copy(failure)
            error.server = error.server or self._server
        except MemoryError:
            # Of this server only: its responses may be much larger than the others'.
            what = "this process has no memory left for its responses"
            hint = "Query fewer servers at once (concurrency=...), or allow this process more memory."
            error = UnreachableError(what, server=self._server, phase="decoding", retryable=False, hint=hint)
        return Answer(
            server=self._server,
            items=tuple(items),
            error=error,
            rejected=tuple(rejected),
            complete=complete and error is None,
            attempts=operation.attempts - before,
            elapsed=clock.monotonic() - started,
            fetched_at=clock.now(),
        )

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
        return f"<Query to {self._server}>"
