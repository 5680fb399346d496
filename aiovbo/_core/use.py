"""One use of a query: the stream that the caller iterates, and the `async with` blocks that stop uses.

Depends on the errors only: no requests, no pages.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import Generic, Protocol, Self, TypeVar

from aiovbo.errors import ClosedError

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

Batch = tuple[Callable[[], None], Iterable[T]]
"""Items that arrived together, and a function that raises ClosedError once their use was stopped."""


class Stream(AsyncGenerator[T, None]):
    """Items one by one, as an async generator that never ends without an error after it was interrupted.

    Python ends an async generator when its consumer is cancelled inside it, as by a timeout around one
    `anext`: used again, the generator would look as if there were no more items.
    """

    def __init__(self, batches: AsyncGenerator[Batch[T]]) -> None:
        # Nothing of it refers to this stream: when the consumer drops the stream, the event loop closes it.
        self._batches = batches
        self._items: Iterator[T] = iter(())
        self._check: Callable[[], None] | None = None
        self._failure: ClosedError | None = None

    async def __anext__(self) -> T:
        if self._check is not None:
            self._check()
            for item in self._items:
                return item
        if self._failure is not None:
            raise ClosedError(str(self._failure))
        self._check = None
        try:
            while True:
                check, items = await anext(self._batches)
                self._items = iter(items)
                for item in self._items:
                    self._check = check
                    return item
        except ClosedError as error:
            self._failure = ClosedError(str(error))
            raise
        except Exception:
            raise
        except BaseException:
            what = "the stream was interrupted, as by a timeout around one item, and cannot continue"
            self._failure = ClosedError(f"{what}: use the query again")
            raise

    async def asend(self, _: None) -> T:
        """The next item."""
        return await self.__anext__()

    async def athrow(self, kind: type[BaseException] | BaseException, /, *_: object) -> T:
        """Close the stream and raise the exception."""
        await self.aclose()
        raise kind

    async def aclose(self) -> None:
        """End what is in progress; nothing follows."""
        self._check = None
        self._items = iter(())
        await self._batches.aclose()


class Stoppable(Protocol):
    """A use of a query that is in progress."""

    def stop(self) -> Awaitable[None]:
        """End it, so that its consumer gets a ClosedError."""
        ...


Uses = set[Stoppable]


class Blocks:
    """The `async with` blocks of one query: nested, repeated, or in several tasks.

    A block stops what was begun inside it, by its own task or by tasks that were started inside it, and
    what tasks outside of all blocks began while it was open. It does not stop what was begun in a block
    inside of it: that block does.
    """

    opened: tuple[Uses, ...] = ()
    """What was begun in each block that has not ended."""

    def enter(self) -> None:
        """Begin a block."""
        block = Uses()
        self.opened = (*self.opened, block)
        _entered.set((*_entered.get(), block))

    async def leave(self) -> None:
        """End the innermost block of the current task, and stop what was begun in it."""
        block = self._innermost() or self.opened[-1]
        self.opened = tuple(one for one in self.opened if one is not block)
        _entered.set(tuple(one for one in _entered.get() if one is not block))
        for use in list(block):
            await use.stop()

    def current(self) -> list[Uses]:
        """Where to note a use that begins now: its block, or all that are open where it is in none."""
        if not self.opened:
            return []
        block = self._innermost()
        return list(self.opened) if block is None else [block]

    def _innermost(self) -> Uses | None:
        # By identity: empty sets are equal.
        return next((one for one in reversed(_entered.get()) if any(one is o for o in self.opened)), None)


_entered: ContextVar[tuple[Uses, ...]] = ContextVar("aiovbo_query_blocks", default=())


class Pages(Protocol[T_co]):
    """Where a use gets its pages from."""

    def __anext__(self) -> Awaitable[T_co]:
        """The next page."""
        ...

    def aclose(self) -> Awaitable[None]:
        """End what is in progress."""
        ...


class Use(Generic[T]):
    """Pages for one consumer, which another task can stop."""

    def __init__(self, pages: Pages[T], registers: list[Uses]) -> None:
        self._pages = pages
        self._registers = registers
        self._waiting: tuple[asyncio.Task[object], asyncio.Event] | None = None
        self._is_stopped = False
        for register in registers:
            register.add(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        self.check()
        if not self._registers:
            return await anext(self._pages)
        task = asyncio.current_task()
        assert task is not None  # a coroutine that awaits is in a task
        cancelling = task.cancelling()
        has_left = asyncio.Event()
        self._waiting = task, has_left
        try:
            return await anext(self._pages)
        except asyncio.CancelledError:
            if self._is_stopped and task.uncancel() <= cancelling:
                # Cancelled by `stop` only.
                self.check()
            raise
        finally:
            self._waiting = None
            has_left.set()
            # The task keeps what is raised, which keeps this frame.
            del task

    def check(self) -> None:
        """Return while it may go on.

        Raises: ClosedError once it was stopped.
        """
        if self._is_stopped:
            message = "the `async with` block of the query ended while its items were being read"
            raise ClosedError(message)

    async def stop(self) -> None:
        """Interrupt the consumer if it waits for a page, and wait until nothing is in progress."""
        waiting = self._waiting
        if waiting is not None:
            task, has_left = waiting
            if not self._is_stopped:
                self._is_stopped = True
                task.cancel()
            await has_left.wait()
        self._is_stopped = True
        await self.aclose()

    async def aclose(self) -> None:
        """End what is in progress."""
        for register in self._registers:
            register.discard(self)
        await self._pages.aclose()
