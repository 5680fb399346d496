"""Queries on many machines: a fleet whose servers are queried by the workers of a dask cluster.

Needs the extra `dask`: distributed, imported here only. Knows workers and which of them queries a server;
knows nothing of requests.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Coroutine, Generator, Mapping
from contextlib import aclosing
from functools import partial
from os import PathLike, fspath
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, overload
from uuid import uuid4

import distributed
from attrs import define, evolve, field

from aiovbo._client.client import Client
from aiovbo._core.query import Answer
from aiovbo._core.use import Batch, Stream
from aiovbo._fleet.fleet import Fleet, worker_of
from aiovbo._fleet.query import FleetQuery, FleetResult
from aiovbo._protocol.session_filter import OrderBy, TimeBound
from aiovbo._resources.links import Resource
from aiovbo.errors import AuthenticationError, ClosedError, ConfigError, SkippedError
from aiovbo.models import Model, RestoreSession

__all__ = ["DaskFleet", "DaskQuery"]

log: logging.Logger = logging.getLogger("aiovbo.dask")

T = TypeVar("T")

Ask = Callable[[Fleet], FleetQuery[T]]

_dask: Any = distributed
"""It has few types of its own."""
_WORKER_PAUSE = 0.2
"""Seconds between two looks for a worker while the cluster has none."""
_LOST_WORKERS = 3
"""Workers that may be lost while a fleet is opened on all of them."""
_CHECKS = 100
"""Checks whether a worker has opened its share, before it counts as closed."""
_CALLS = 100
"""Servers that are queried or wait for the consumer at once, at most, per worker."""


class _Share(_dask.WorkerPlugin):  # type: ignore[misc]  # the base class is Any
    """What each worker has: a fleet of its own, open as long as the worker lives or the plugin is there."""

    def __init__(self, name: str, inventory: Mapping[str, Any] | str) -> None:
        self.name = name
        self._inventory = inventory
        self._fleet: Fleet | None = None
        self._views: dict[str, Fleet] = {}

    @property
    def is_open(self) -> bool:
        """Whether it can be used."""
        return self._fleet is not None

    async def setup(self, worker: object) -> None:
        """Open the fleet; what it logs in to is decided by what is asked."""
        del worker
        # Reads files, which may take a moment on a network drive.
        fleet = await asyncio.to_thread(_fleet_of, self._inventory)
        self._fleet = await fleet.__aenter__()

    async def teardown(self, worker: object) -> None:
        """Log out and close."""
        del worker
        fleet, self._fleet = self._fleet, None
        if fleet is not None:
            await fleet.aclose()

    async def answer(self, name: str, ask: Ask[T]) -> Answer[T]:
        """The answer of one server."""
        if self._fleet is None:
            raise ClosedError("the fleet of this dask worker is closed")
        view = self._views.get(name)
        if view is None:
            view = self._views[name] = self._fleet.where(lambda client: client.name == name)
        return (await ask(view)).answers[name]


def _fleet_of(inventory: Mapping[str, Any] | str) -> Fleet:
    return Fleet.from_toml(inventory) if isinstance(inventory, str) else Fleet.from_mapping(inventory)


async def _answer(
    share: str, name: str, ask: Ask[T], dask_worker: Any = None
) -> tuple[Answer[T] | None, Exception | None]:
    """Runs on a worker: the answer of one server, or what is no server's failure."""
    # A worker that has just joined may not have opened its share yet.
    for _ in range(_CHECKS):
        plugin: _Share | None = dask_worker.plugins.get(share)
        if plugin is not None and plugin.is_open:
            break
        await asyncio.sleep(_WORKER_PAUSE)
    else:
        return None, ClosedError("the DaskFleet is closed")
    try:
        return await plugin.answer(name, ask), None
    except Exception as error:
        return None, error


async def _close_share(share: str, dask_worker: Any = None) -> None:
    """Runs on a worker: close the fleet that it has open, if it still has it."""
    plugin: _Share | None = dask_worker.plugins.pop(share, None)
    if plugin is not None:
        await plugin.teardown(dask_worker)


@define(eq=False)
class _Login:
    """What is known of credentials: the servers that have them, and whether one has accepted them."""

    servers: list[str] = field(factory=list[str])
    is_accepted: bool = False
    turn: asyncio.Lock = field(factory=asyncio.Lock)


class DaskFleet:
    """A fleet that the workers of a dask cluster query: `async with DaskFleet(client, inventory) as fleet:`.

    Each worker opens the fleet once, and closes it at the end of the block, or with the worker. Servers are
    distributed by their names. If a worker dies, the others repeat what it had not finished. Credentials are
    not sent: the workers read the inventory's environment variables, files and keyring themselves.

    Wrong passwords do not multiply with the workers: until a server has accepted credentials, one worker
    queries the servers that have them, one after the other, under its lock-out guard.
    """

    def __init__(
        self,
        client: Any,
        inventory: Mapping[str, Any] | str | PathLike[str],
        *,
        fleet: Fleet | None = None,
    ) -> None:
        """The fleet of an inventory, on a cluster.

        - `client`: a `distributed.Client`.
        - `inventory`: the path of a TOML file, which each worker reads, or a mapping of the same form, which
          is sent to the workers.
        - `fleet`: a fleet in this process with the same servers, to which sessions are attached
          (`Fleet.attach`), so that their links can be followed.

        Raises: ConfigError at once with everything that is wrong in the inventory.
        """
        given: object = client
        if not isinstance(given, _dask.Client):
            message = f"client is a distributed.Client, not {type(client).__name__}"
            raise ConfigError(message)
        self._client = client
        self._inventory = inventory if isinstance(inventory, Mapping) else fspath(inventory)
        # It is never opened: for names, and to check arguments.
        self._local = _fleet_of(self._inventory)
        self._attach_to = fleet
        self._share = f"aiovbo-{uuid4().hex}"
        self._is_open = False
        self._known: list[str] = []
        self._logins: dict[object, _Login] = {}
        for name in self._local:
            login = self._logins.setdefault(self._local[name].server.credentials, _Login())
            login.servers.append(name)

    async def __aenter__(self) -> Self:
        await self._open_shares()
        self._is_open = True
        return self

    async def _open_shares(self) -> None:
        """Open one on every worker; again if a worker was lost meanwhile, which ends dask's call for all."""
        plugin = _Share(self._share, self._inventory)
        for attempt in range(_LOST_WORKERS, -1, -1):
            try:
                await self._on_loop(lambda: self._client.register_plugin(plugin))
            except OSError as lost:
                if not attempt:
                    raise
                log.warning("a dask worker was lost while the fleet was opened on it: %s", lost)
                await asyncio.sleep(_WORKER_PAUSE)
            else:
                return

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the workers' fleets, which log out; safe to repeat."""
        if self._is_open:
            self._is_open = False
            try:
                await self._on_loop(lambda: self._client.unregister_worker_plugin(self._share))
            except OSError as lost:
                # The scheduler forgot the plugin, but may not have reached the workers that are left.
                log.warning("a dask worker was lost while the fleet was closed on it: %s", lost)
                await self._on_loop(partial(self._client.run, _close_share, self._share, on_error="ignore"))

    def __len__(self) -> int:
        return len(self._local)

    def __repr__(self) -> str:
        return f"<DaskFleet of {len(self)} servers>"

    def restore_sessions(  # as Fleet.restore_sessions
        self,
        *,
        started_after: TimeBound | None = None,
        started_before: TimeBound | None = None,
        ended_after: TimeBound | None = None,
        ended_before: TimeBound | None = None,
        order_by: OrderBy | None = None,
        ascending: bool = False,
        page_size: int | None = None,
    ) -> "DaskQuery[RestoreSession]":
        """The restore sessions of all servers within these bounds, as `Fleet.restore_sessions`.

        Raises: ConfigError at once for a naive time or an invalid page_size.
        """
        bounds: dict[str, Any] = {
            "started_after": started_after,
            "started_before": started_before,
            "ended_after": ended_after,
            "ended_before": ended_before,
            "order_by": order_by,
            "ascending": ascending,
            "page_size": page_size,
        }
        self._local.restore_sessions(**bounds)
        return DaskQuery(self, partial(_restore_sessions, bounds))

    @overload
    def map(self, func: Callable[[Client], AsyncIterable[T]]) -> "DaskQuery[T]": ...
    @overload
    def map(self, func: Callable[[Client], Awaitable[T]]) -> "DaskQuery[T]": ...
    def map(self, func: Callable[[Client], Any]) -> "DaskQuery[Any]":
        """What `func(client)` returns for each server, as `Fleet.map`; it runs on the workers.

        `func` and what it returns are pickled; a lambda or a function of a script works too.
        """
        return DaskQuery(self, partial(_map, func))

    # -------------------------------------------------------------------------- one use of a query

    async def ask_all(self, ask: Ask[T], deliver: Callable[[Answer[T]], Awaitable[None]]) -> None:
        """Query all servers, and hand over the answer of each as it comes.

        Raises: what is no server's failure, such as a bug in the function that `map` was given.
        """
        if not self._is_open:
            raise ClosedError("this DaskFleet is not open: async with it")
        workers = await self._workers(refresh=True)
        slots = asyncio.Semaphore(_CALLS * len(workers))
        await _together([self._ask_login(login, ask, deliver, slots) for login in self._logins.values()])

    async def _ask_login(
        self,
        login: _Login,
        ask: Ask[T],
        deliver: Callable[[Answer[T]], Awaitable[None]],
        slots: asyncio.Semaphore,
    ) -> None:
        """Query the servers that have the same credentials: first until one has accepted them."""
        left = list(login.servers)
        is_skipped = False
        while left and not login.is_accepted and not is_skipped:
            async with login.turn:
                if login.is_accepted:
                    break
                answer = await self._ask(left.pop(0), ask, login)
            # The guard of that worker lets no further server be queried for now.
            is_skipped = isinstance(answer.error, SkippedError)
            await deliver(answer)

        async def one(name: str) -> None:
            async with slots:
                await deliver(await self._ask(name, ask, login))

        await _together([one(name) for name in left])

    async def _ask(self, name: str, ask: Ask[T], login: _Login) -> Answer[T]:
        while True:
            workers = await self._workers()
            # One worker per credentials: its guard remembers which servers have rejected them.
            key = name if login.is_accepted else login.servers[0]
            worker = workers[worker_of(key, len(workers))]
            run = partial(self._client.run, _answer, self._share, name, ask, workers=[worker])
            try:
                answer, error = (await self._on_loop(run))[worker]
            except OSError as lost:
                log.warning("dask worker %s was lost, and %s is queried again: %s", worker, name, lost)
                if worker in self._known:
                    self._known.remove(worker)
                continue
            if error is not None:
                raise error
            login.is_accepted = _is_accepted(answer, before=login.is_accepted)
            return self._attached(answer)

    async def _workers(self, *, refresh: bool = False) -> list[str]:
        """The addresses of the cluster's workers; waits until there is one."""
        while refresh or not self._known:
            identity = partial(self._client.scheduler.identity, n_workers=-1)
            found: dict[str, Any] = await self._on_loop(identity)
            self._known = sorted(found["workers"])
            if self._known:
                break
            await asyncio.sleep(_WORKER_PAUSE)
        return self._known

    def _attached(self, answer: Answer[T]) -> Answer[T]:
        fleet = self._attach_to
        if fleet is None or answer.server not in fleet:
            return answer
        items: Any = (fleet.attach(one) if isinstance(one, Model | Resource) else one for one in answer.items)
        return evolve(answer, items=tuple(items))

    async def _on_loop(self, call: Callable[[], Any]) -> Any:
        """What a call of dask's client gives, which must begin in the client's own event loop."""
        loop: asyncio.AbstractEventLoop = self._client.loop.asyncio_loop
        if loop is asyncio.get_running_loop():
            return await call()

        async def elsewhere() -> Any:
            return await call()

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(elsewhere(), loop))

    @property
    def names(self) -> list[str]:
        """The servers' names, in the inventory's order."""
        return list(self._local)


class DaskQuery(Generic[T]):
    """A query of all servers of a `DaskFleet`; used as a `FleetQuery`. Each use sends new requests.

    `async for item in query` delivers items of all servers as they arrive, and raises `FleetError` at
    the end if any server failed. `await query` is a `FleetResult`. `query.answers()` gives one `Answer` per
    server as each finishes. A use that is stopped sends nothing further; what a worker has begun ends by
    itself.
    """

    def __init__(self, fleet: DaskFleet, ask: Ask[T]) -> None:
        self._fleet = fleet
        self._ask = ask

    def __aiter__(self) -> AsyncGenerator[T]:
        return Stream(self._by_item())

    async def _by_item(self) -> AsyncGenerator[Batch[T]]:
        answers: dict[str, Answer[T]] = {}
        async with aclosing(self._found()) as found:
            async for answer in found:
                answers[answer.server] = answer
                yield _no_check, answer.items
        FleetResult(answers).raise_for_failures()

    def answers(self) -> AsyncGenerator[Answer[T]]:
        """One `Answer` per server, as each finishes; never raises for a server."""
        return Stream(self._by_server())

    async def _by_server(self) -> AsyncGenerator[Batch[Answer[T]]]:
        async with aclosing(self._found()) as found:
            async for answer in found:
                yield _no_check, (answer,)

    async def _found(self) -> AsyncGenerator[Answer[T]]:
        arrived: asyncio.Queue[Answer[T] | None] = asyncio.Queue()
        room = asyncio.Semaphore(_CALLS)

        async def deliver(answer: Answer[T]) -> None:
            # Until the consumer takes answers, few more are requested.
            await room.acquire()
            arrived.put_nowait(answer)

        asking = asyncio.create_task(self._fleet.ask_all(self._ask, deliver), name="aiovbo dask query")
        asking.add_done_callback(lambda _: arrived.put_nowait(None))
        try:
            while (answer := await arrived.get()) is not None:
                room.release()
                yield answer
            await asking
        finally:
            asking.cancel()
            await asyncio.wait([asking])

    def __await__(self) -> Generator[object, None, FleetResult[T]]:
        return self._result().__await__()

    async def _result(self) -> FleetResult[T]:
        async with aclosing(self.answers()) as answers:
            found = {answer.server: answer async for answer in answers}
        return FleetResult({name: found[name] for name in self._fleet.names if name in found})

    def __repr__(self) -> str:
        return f"<DaskQuery to {len(self._fleet)} servers>"


def _restore_sessions(bounds: Mapping[str, Any], fleet: Fleet) -> FleetQuery[RestoreSession]:
    return fleet.restore_sessions(**bounds)


def _map(func: Callable[[Client], Any], fleet: Fleet) -> FleetQuery[Any]:
    return fleet.map(func)


def _is_accepted(answer: Answer[Any], *, before: bool) -> bool:
    """Whether its credentials are known to be accepted: a failure on the way says nothing of them."""
    if answer.error is None:
        return True
    return before and not isinstance(answer.error, AuthenticationError | SkippedError)


def _no_check() -> None:
    """An answer that has arrived stays valid."""


async def _together(calls: list[Coroutine[Any, Any, None]]) -> None:
    """All of them; the first error cancels the others."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    if not tasks:
        return
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
