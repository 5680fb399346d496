"""Watching a fleet: every change at least once, in each server's order, and none lost over a crash.

Knows when changes are delivered and saved; which are waiting is in `_watch/delivery`, how a server is polled
in `_watch/poller`.
"""

import asyncio
import logging
from collections.abc import (
    AsyncGenerator,
    Callable,
    Collection,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import suppress
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import Any, Self, overload
from uuid import UUID, uuid4

from aiovbo._client.client import Client
from aiovbo._core.timers import limit
from aiovbo._settings.numbers import check_interval
from aiovbo._watch.changes import AnyChange, Change, Heartbeat
from aiovbo._watch.delivery import Delivery
from aiovbo._watch.former_names import FormerNames
from aiovbo._watch.leases import LeaseKeeper, LeaseStore
from aiovbo._watch.options import WatchOptions
from aiovbo._watch.poller import ServerPoller
from aiovbo._watch.status import WatchStatus
from aiovbo._watch.transactions import Transactions
from aiovbo.errors import CheckpointError, ClosedError, ConfigError, LeaseLostError

log = logging.getLogger("aiovbo.watch")

_STARTED_AT_ONCE = 100
"""Servers that are started in one step of the event loop."""


class Batch(Sequence[AnyChange]):
    """Changes that are processed together: a sequence, in the order in which they were found."""

    def __init__(
        self,
        changes: Iterable[AnyChange],
        acknowledge: Callable[[Change], None],
        write: Callable[[Sequence[Change], object], Coroutine[Any, Any, None]],
    ) -> None:
        self._changes = tuple(changes)
        self._acknowledge = acknowledge
        self._write = write

    @overload
    def __getitem__(self, index: int) -> AnyChange: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[AnyChange, ...]: ...
    def __getitem__(self, index: int | slice) -> AnyChange | tuple[AnyChange, ...]:
        return self._changes[index]

    def __len__(self) -> int:
        return len(self._changes)

    def __iter__(self) -> Iterator[AnyChange]:
        return iter(self._changes)

    @overload
    def ack(self) -> None: ...
    @overload
    def ack(self, connection: object) -> Coroutine[Any, Any, None]: ...
    def ack(self, connection: object = None) -> Coroutine[Any, Any, None] | None:
        """Acknowledge all of its changes, as `changes.ack` does one; safe to repeat.

        With a `PostgresCheckpoint`, `await batch.ack(connection)` writes it in your own transaction: the
        changes are acknowledged if, and only if, that is committed. If it is rolled back, or if this raises,
        they are delivered again. Process such batches one after another.

        - `connection`: an open `psycopg.AsyncConnection` to the checkpoint's database, in a transaction.

        Raises: with a connection, LeaseLostError where another process watches one of the servers by now;
        CheckpointError where an earlier change of one of the sessions is not acknowledged; ConfigError where
        the checkpoint or the connection cannot do this; what the connection raises.
        """
        if connection is not None:
            return self._write(self._changes, connection)
        for change in self._changes:
            self._acknowledge(change)
        return None

    def __repr__(self) -> str:
        return f"<Batch of {len(self)} changes>"


class Watch:
    """Changes of all servers of a fleet: `async with fleet.watch(...) as changes`, then iterate.

    Each change is saved in the checkpoint before it is delivered, until it is acknowledged: when the next one
    is requested, or by `ack` where that was chosen. After a crash, all that was not acknowledged is delivered
    again, with the same `id`, and nothing is lost. Several tasks may share a watch only where they `ack`:
    otherwise each acknowledges what the others have not processed yet.
    """

    def __init__(self, members: Mapping[str, Client], options: WatchOptions, running: "set[Watch]") -> None:
        self._members = members
        self._options = options
        self._checkpoint = options.checkpoint
        self._running = running
        self._lookouts: dict[str, tuple[ServerPoller, asyncio.Task[None]]] = {}
        self._removed: dict[str, ServerPoller] = {}
        self._delivery = Delivery()
        self._news = asyncio.Event()
        self._leaving: dict[str, asyncio.Task[None]] = {}
        self._saver: asyncio.Task[None] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._failure: BaseException | None = None
        self._is_failure_told = False
        self._leases: LeaseKeeper | None = None
        self._transactions: Transactions | None = None
        store: object = self._checkpoint
        if isinstance(store, LeaseStore):
            self._share(store)
        self._former_names = FormerNames(
            self._checkpoint, self._poller_of, is_shared=self._leases is not None
        )

    def _share(self, store: LeaseStore) -> None:
        transactions = Transactions(store, self._delivery, self._lose)
        self._transactions = transactions
        self._leases = LeaseKeeper(
            store,
            self._members,
            start=self._start,
            revoke=self._revoke,
            drain=self._stop_polling,
            is_delivered=self._delivery.is_delivered,
            is_drained=self._is_drained,
            settle=transactions.settle,
        )

    @property
    def _closed(self) -> bool:
        return self._ending is not None

    # ------------------------------------------------------------------------------- the consumer

    async def __aenter__(self) -> Self:
        if self._closed or self._loop is not None:
            message = "a watch is used once: call fleet.watch(...) again"
            raise ClosedError(message)
        for client in self._members.values():
            client.claim()
        self._loop = asyncio.get_running_loop()
        try:
            await self._checkpoint.open()
        except BaseException:
            self._loop = None
            raise
        self._running.add(self)
        self._saver = asyncio.create_task(self._save_forever(), name="aiovbo watch saves")
        if self._leases is not None:
            self._keeper = asyncio.create_task(self._leases.run(), name="aiovbo watch leases")
            self._keeper.add_done_callback(self._learn_of_its_end)
            return self
        try:
            for count, name in enumerate(list(self._members), 1):
                # Meanwhile, servers may have been added or removed.
                if name in self._members and name not in self._lookouts:
                    self._start(name, len(self._members))
                if count % _STARTED_AT_ONCE == 0:
                    await asyncio.sleep(0)
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self.aclose()
        except CheckpointError as failure:
            if error is None:
                raise
            # What ended the block comes first.
            error.add_note(f"While the watch was closed: {failure}")

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> AnyChange:
        if not self._options.ack_by_hand:
            self._delivery.acknowledge_all()
            if self._delivery.has_steps:
                self._news.set()
        wait = self._options.heartbeat
        self.check_loop()
        while True:
            self._check()
            try:
                async with limit(None if wait is None else wait.total_seconds(), self._options.clock):
                    change = await self._next()
            except TimeoutError:
                return self._heartbeat()
            if change is not None:
                return change

    async def _next(self) -> AnyChange | None:
        while (change := await self._delivery.get()) is not None:
            if self._leases is None or self._leases.is_valid:
                break
            # Perhaps this process was stopped for a while, and another one watches its servers.
            self._leases.expire()
        return change

    def batches(self, size: int, *, within: timedelta) -> AsyncGenerator[Batch]:
        """Changes in batches: `async for batch in changes.batches(100, within=timedelta(seconds=1))`.

        With `ack="manual"`, `batch.ack()` acknowledges all of them; otherwise the next request does.

        - `size`: changes of one batch, at most.
        - `within`: how long a batch waits for more, counted from its first change.

        Raises: ConfigError at once for a size below 1, or an interval that is not above 0.
        """
        given: object = size
        if not isinstance(given, int) or isinstance(given, bool) or given < 1:
            message = f"size is a whole number of at least 1, not {size!r}"
            raise ConfigError(message)
        check_interval("within", within)
        return self._batches(size, within.total_seconds())

    async def _batches(self, size: int, seconds: float) -> AsyncGenerator[Batch]:
        while True:
            changes = [await anext(self)]
            with suppress(TimeoutError):
                async with limit(seconds, self._options.clock):
                    while len(changes) < size and (change := await self._next()) is not None:
                        changes.append(change)
            yield Batch(changes, self.ack, self._write)
            if self._transactions is not None:
                await self._transactions.settle()

    async def _write(self, changes: Sequence[Change], connection: object) -> None:
        self.check_loop()
        if self._transactions is None:
            raise ConfigError("batch.ack(connection) needs checkpoint=PostgresCheckpoint(...)")
        if self._closed:
            raise ClosedError("the watch is closed: its changes are delivered again after the next start")
        await self._transactions.acknowledge(changes, connection)

    def ack(self, change: Change) -> None:
        """Acknowledge one change, in any order; the others stay as they are.

        It is saved a moment later. A crash before delivers the change again. So does one while an earlier
        change of the same session is not acknowledged: its changes are delivered again in their order.
        """
        self._delivery.acknowledge(change)
        if self._delivery.has_steps:
            self._news.set()

    @property
    def ignored_acks(self) -> int:
        """Acknowledgements that were ignored, because another process watches the server by now."""
        return self._delivery.ignored_acks

    def status(self) -> dict[str, WatchStatus]:
        """How the watch of each server goes, by name; with shared servers, of those that it watches now."""
        return {name: lookout.status() for name, (lookout, _) in list(self._lookouts.items())}

    async def aclose(self) -> None:
        """Stop looking, save what was acknowledged, release the checkpoint; safe to repeat.

        Raises: what the checkpoint's store raises, where the consumer has not heard of it yet.
        """
        self.check_loop()
        if self._ending is None or self._ending.get_loop().is_closed():
            self._ending = asyncio.create_task(self._end(), name="aiovbo watch ends")
            self._ending.add_done_callback(_retrieve)
        try:
            await asyncio.shield(self._ending)
        except asyncio.CancelledError:
            # Half closed, the checkpoint would be of no use.
            await asyncio.wait([self._ending])
            raise

    async def _end(self) -> None:
        tasks = [task for _, task in self._lookouts.values()] + list(self._leaving.values())
        tasks += [task for task in (self._saver, self._keeper) if task is not None]
        if self._loop is not None and self._loop.is_closed():
            # They can be neither cancelled nor awaited; what was acknowledged can still be saved.
            tasks.clear()
        else:
            self._delivery.close()
        for task in tasks:
            task.cancel()
        try:
            if tasks:
                await asyncio.wait(tasks)
            if self._failure is None:
                await self._save()
        finally:
            self._running.discard(self)
            if self._loop is not None:
                await self._checkpoint.close()
        if self._failure is not None and not self._is_failure_told:
            raise self._failure

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
                "a watch belongs to the event loop in which it was entered, and so does adding and removing "
                "servers while it runs: from a thread, loop.call_soon_threadsafe(...)"
            )

    def _check(self) -> None:
        if self._failure is not None:
            self._is_failure_told = True
            raise self._failure
        if self._closed or self._saver is None:
            message = "the watch is closed" if self._closed else "the watch is not open yet: async with it"
            raise ClosedError(message)

    def _heartbeat(self) -> Heartbeat:
        up = sum(status.up for status in self.status().values())
        return Heartbeat(server="", id=f"heartbeat/{uuid4().hex}", up=up)

    # --------------------------------------------------------------------------------- the place

    async def _save_forever(self) -> None:
        try:
            while True:
                await self._news.wait()
                await self._save()
        except asyncio.CancelledError:
            if not self._closed:
                self._fail(_given_up())
            raise
        except BaseException as error:  # it is the consumer's to hear
            self._fail(error)

    async def _save(self) -> None:
        self._news.clear()
        while (batch := self._delivery.begin_save()) is not None:
            server, steps = batch
            try:
                lookout = self._lookouts[server][0] if server in self._lookouts else self._removed[server]
                await lookout.save(steps)
            except LeaseLostError as error:
                self._delivery.end_save(server)
                self._lose(error.servers)
                continue
            except BaseException:
                # Not saved is not lost: it goes before what came since.
                self._delivery.end_save(server, unsaved=steps)
                raise
            self._delivery.end_save(server, steps)
        self._forget_removed()

    def _fail(self, error: BaseException) -> None:
        self._failure = self._failure or error
        self._delivery.interrupt()

    # -------------------------------------------------------------------------------- the servers

    def add(self, client: Client) -> None:
        """Watch one more server, unless the watch closes or belongs to a part of the fleet without it."""
        if self._closed or client.name not in self._members:
            return
        if self._leases is not None:
            self._leases.wake()
        else:
            self._start(client.name)

    def _start(self, name: str, among: int = 1) -> None:
        client = self._members[name]
        lookout = ServerPoller(client, self._options, self._delivery, self._adopt_former, among=among)
        if former := self._removed.pop(name, None):
            lookout.succeed(former)
        task = asyncio.create_task(lookout.follow(self._leaving.get(name)), name=f"aiovbo watch {name}")
        task.add_done_callback(self._learn_of_its_end)
        self._lookouts[name] = lookout, task

    def remove(self, name: str) -> None:
        """Watch a server no more; what waits of it is still delivered, its place stays saved."""
        if self._leases is not None:
            self._leases.hand_over(name)
            self._leases.wake()
        else:
            self._stop_polling(name)

    def _stop_polling(self, name: str) -> None:
        if name in self._lookouts:
            self._removed[name], task = self._lookouts.pop(name)
            task.remove_done_callback(self._learn_of_its_end)
            self._leaving[name] = task
            task.add_done_callback(partial(self._has_left, name))
            task.cancel()

    def _has_left(self, name: str, task: asyncio.Task[None]) -> None:
        _retrieve(task)
        if self._leaving.get(name) is task:
            del self._leaving[name]
        self._forget_removed()

    def _is_drained(self, name: str) -> bool:
        self._forget_removed()
        return name not in self._leaving and name not in self._removed

    def _revoke(self, names: Collection[str]) -> list[asyncio.Task[None]]:
        """Stop servers that another process may watch from now on, and discard what was found of them."""
        for name in names:
            self._stop_polling(name)
            self._removed.pop(name, None)
            self._delivery.discard(name)
        return [self._leaving[name] for name in names if name in self._leaving]

    def _lose(self, servers: Collection[str]) -> None:
        if self._leases is not None:
            self._leases.lose(servers)

    def _forget_removed(self) -> None:
        """Discard removed servers of which nothing waits: should they come back, their place is saved."""
        for name in list(self._removed):
            if name not in self._leaving and self._delivery.forget(name):
                del self._removed[name]

    def _poller_of(self, name: str) -> ServerPoller | None:
        return self._lookouts[name][0] if name in self._lookouts else None

    async def _adopt_former(self, poller: ServerPoller, installation: UUID | None) -> bool | None:
        """As `FormerNames.adopt` does."""
        name = poller.name
        # Of a removed one, changes may still wait.
        members = self._members if self._leases is not None else {*self._lookouts, *self._removed}
        known = None if poller.tracker.is_first else poller.tracker.installation
        return await self._former_names.adopt(name, installation, known, members, poller)

    def _learn_of_its_end(self, task: asyncio.Task[None]) -> None:
        if self._closed:
            _retrieve(task)
        elif task.cancelled():
            self._fail(_given_up())
        elif isinstance(error := task.exception(), LeaseLostError) and self._leases is not None:
            self._leases.lose(error.servers)
        else:
            # It never ends by itself: a bug, or a checkpoint that fails, and the consumer's to hear.
            self._fail(error or AssertionError(task.get_name()))


def _given_up() -> CheckpointError:
    return CheckpointError("the checkpoint's store was cancelled from outside: nothing more is saved")


def _retrieve(task: asyncio.Task[None]) -> None:
    """Retrieve an outcome that may not be retrieved elsewhere, which asyncio would complain about."""
    _ = task.cancelled() or task.exception()
