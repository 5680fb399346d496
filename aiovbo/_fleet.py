"""A fleet: many backup servers behind one HTTP session, asked at once.

Knows the life of the session and who is in the fleet; how answers are merged is in `_merge`.
"""

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Iterator, Mapping
from os import PathLike
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack, overload

import aiohttp
from yarl import URL

from aiovbo._client import Client
from aiovbo._config import TLS, Clock, Credentials, Options, Server
from aiovbo._guard import LockoutGuard
from aiovbo._http import HttpPool
from aiovbo._inventory import FleetOptions, Inventory, inventory_of, read_inventory
from aiovbo._merge import FleetQuery, Run, Slots
from aiovbo._wire import Moment, OrderBy, SessionFilter
from aiovbo.errors import ClosedError, ConfigError
from aiovbo.models import RestoreSession

T = TypeVar("T")


class _Overrides(FleetOptions, total=False):
    """What a `Fleet` takes besides servers, whatever its inventory says."""

    http: aiohttp.ClientSession | None
    clock: Clock | None


class Fleet:
    """Many backup servers, asked at once over one HTTP session.

    `async with Fleet([...], Password(...)) as fleet:` opens it and closes it; without `async with` it opens
    when first used, and `await fleet.aclose()` closes it. `fleet["name"]` is one server's `Client`.
    """

    def __init__(  # noqa: PLR0913  # each a limit of its own
        self,
        servers: Iterable[Server | str | URL],
        credentials: Credentials | None = None,
        *,
        tls: TLS | None = None,
        deadline: float = 60.0,
        connect_timeout: float = 10.0,
        read_timeout: float = 30.0,
        retries: int = 2,
        concurrency: int = 100,
        connections: int = 4,
        max_body: int = 32 * 1024 * 1024,
        logon_cooldown: float = 300.0,
        lockout_guard: int = 3,
        strict: bool = False,
        http: aiohttp.ClientSession | None = None,
        clock: Clock | None = None,
    ) -> None:
        """A fleet of `Server`s, or of URLs, which take the fleet's `credentials` and `tls`.

        Units: deadline, connect_timeout, read_timeout and logon_cooldown in seconds; max_body in bytes.

        - `deadline`: for everything that one operation costs on one server, retries and waiting included.
        - `connect_timeout`: to resolve the name, connect and shake hands.
        - `read_timeout`: without a byte, until an answer is given up.
        - `retries`: how often a request is repeated that may be; 0 is fine.
        - `concurrency`: servers asked at once; those that take long do not count. If in doubt, leave it.
        - `connections`: requests at once to one server.
        - `max_body`: the largest answer that is read.
        - `logon_cooldown`: for how long a refused password is not tried again.
        - `lockout_guard`: how many servers may refuse the same credentials, none accepting them, until the
          others are not asked.
        - `strict`: an item that makes no sense is an error of its server, instead of being set aside.
        - `http`: a ClientSession to borrow; it is never closed, and its connector's limits apply.
        - `clock`: where time and chance come from, for tests.

        Raises: ConfigError for settings that cannot work.
        """
        options = Options(
            deadline=deadline,
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
            retries=retries,
            connections=connections,
            max_body=max_body,
            logon_cooldown=logon_cooldown,
            strict=strict,
            clock=clock or Clock(),
        )
        for name, value in (("concurrency", concurrency), ("lockout_guard", lockout_guard)):
            if value < 1:
                message = f"{name} is a whole number of at least 1, not {value!r}"
                raise ConfigError(message)
        members = [_server(entry, credentials, tls) for entry in servers]
        self._options = options
        self._pool = HttpPool(options, members, http)
        self._clients: dict[str, Client] = {}
        guard = LockoutGuard(lockout_guard, members, logon_cooldown, options.clock)
        for server in members:
            if server.name in self._clients:
                message = f"two servers are called {server.name!r}: give one a name=... of its own"
                raise ConfigError(message)
            self._clients[server.name] = Client.of_fleet(server, options, self._pool, guard)
        self._slots = Slots(concurrency)
        self._running: set[Run[Any]] = set()

    @classmethod
    def from_toml(cls, path: str | PathLike[str], **options: Unpack[_Overrides]) -> Self:
        """The fleet that a TOML file describes; `options` are as for `Fleet`, and override the file's.

        Reads the file at once, so call it before the event loop runs, or `await asyncio.to_thread(...)` it.
        Secrets that are kept elsewhere are read when they are needed.

        Raises: ConfigError with everything that is wrong, a line each, by file and key.
        """
        return cls._of(read_inventory(path), options)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any], **options: Unpack[_Overrides]) -> Self:
        """The fleet that a mapping of the same form describes; `options` override what it says.

        Raises: ConfigError with everything that is wrong, a line each, by key.
        """
        return cls._of(inventory_of(mapping), options)

    @classmethod
    def _of(cls, inventory: Inventory, options: _Overrides) -> Self:
        merged: _Overrides = {**inventory.options, **options}
        return cls(inventory.servers, **merged)

    async def __aenter__(self) -> Self:
        await self._pool.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End what is under way, log out where the API can, let go of every connection.

        Safe to repeat, from any task. Streams that are still being read raise `ClosedError`.
        """
        try:
            for run in list(self._running):
                await run.stop()
            await asyncio.gather(*(client.log_out() for client in self._clients.values()))
        finally:
            await self._pool.close()

    def restore_sessions(  # noqa: PLR0913  # the API's own filters
        self,
        *,
        started_after: Moment | None = None,
        started_before: Moment | None = None,
        ended_after: Moment | None = None,
        ended_before: Moment | None = None,
        order_by: OrderBy | None = None,
        ascending: bool = False,
        page_size: int | None = None,
    ) -> FleetQuery[RestoreSession]:
        """The restore sessions of all servers within these bounds, which are exclusive.

        A bound is an aware `datetime`, or a `timedelta` for "that long ago", counted when the query is used.
        `ended_*` is filtered by the server on v8, and here on older versions. `order_by` and `ascending`
        order each server's sessions, and need v8: older servers have an order of their own.

        Raises: ValueError at once for a naive time; ConfigError for a page_size outside 1 to 10,000, and when
        used for an order that a server's version does not know.
        """
        bounds = SessionFilter(
            started_after=started_after,
            started_before=started_before,
            ended_after=ended_after,
            ended_before=ended_before,
            order_by=order_by,
            ascending=ascending,
            page_size=page_size,
        )
        return self.map(lambda client: client.filtered_sessions(bounds))

    @overload
    def map(self, func: Callable[[Client], AsyncIterable[T]]) -> FleetQuery[T]: ...
    @overload
    def map(self, func: Callable[[Client], Awaitable[T]]) -> FleetQuery[T]: ...
    def map(self, func: Callable[[Client], Any]) -> FleetQuery[Any]:
        """What `func(client)` gives for each server, at once: something to await, or to iterate."""
        if self._pool.closed:
            message = "the fleet is closed"
            raise ClosedError(message)
        clients = list(self._clients.values())
        return FleetQuery(clients, func, self._options, self._slots, self._running)

    def __getitem__(self, name: str) -> Client:
        if name not in self._clients:
            message = f"no server is called {name!r} here"
            raise KeyError(message)
        return self._clients[name]

    def __contains__(self, name: object) -> bool:
        return name in self._clients

    def __iter__(self) -> Iterator[str]:
        return iter(self._clients)

    def __len__(self) -> int:
        return len(self._clients)

    def __repr__(self) -> str:
        return f"<Fleet of {len(self)} servers>"


def _server(entry: Server | str | URL, credentials: Credentials | None, tls: TLS | None) -> Server:
    if isinstance(entry, Server):
        return entry
    if credentials is None:
        message = "a server given as a URL takes the fleet's credentials: Fleet(servers, Password(...))"
        raise ConfigError(message)
    return Server(entry, credentials, tls=tls or TLS())
