"""A fleet: many backup servers behind one HTTP session, queried at once.

Knows who is in the fleet, and when it opens and closes; how answers are merged is in `_fleet/run`.
"""

import asyncio
import threading
from collections.abc import AsyncIterable, Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack
from copy import copy
from datetime import timedelta
from functools import partial
from hashlib import blake2b
from os import PathLike
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, Unpack, overload

import aiohttp
from attrs import asdict, evolve
from yarl import URL

from aiovbo._client.client import Client
from aiovbo._client.shared_parts import SharedParts
from aiovbo._core.status import ServerStatus
from aiovbo._core.use import Uses
from aiovbo._fleet.poll import Poll
from aiovbo._fleet.query import FleetQuery
from aiovbo._fleet.run import ConcurrencyLimiter, Question
from aiovbo._protocol.job_session_filter import JobSessionFilter
from aiovbo._protocol.session_filter import OrderBy, SessionFilter, TimeBound, TimeFilter, resolve
from aiovbo._resources.enums import JobSessionStatus
from aiovbo._resources.links import Resource
from aiovbo._settings.clock import Clock, TimeSource
from aiovbo._settings.credentials import Credentials
from aiovbo._settings.events import Observer
from aiovbo._settings.limits import DEFAULTS, FleetOptions, Limits, Options, other_limits
from aiovbo._settings.numbers import check_count
from aiovbo._settings.proxies import Proxy, parse_proxy
from aiovbo._settings.retry import Retry
from aiovbo._settings.servers import TLS, Server, check_credentials, check_tls, same_server
from aiovbo._settings.token_store import TokenStore
from aiovbo._settings.transport import Transport
from aiovbo._watch.changes import Change
from aiovbo._watch.checkpoint import CheckpointStore, MemoryCheckpoint
from aiovbo._watch.options import WatchOptions
from aiovbo._watch.schedule import MAX_BACKOFF
from aiovbo._watch.watch import Watch
from aiovbo.errors import ClosedError, ConfigError, LinkError
from aiovbo.models import JobSession, Model, RestoreEvent, RestoreSession

T = TypeVar("T")
R = TypeVar("R", bound=Model | Resource)


class _Overrides(FleetOptions, total=False):
    """The arguments of a `Fleet` besides servers, which replace those of its inventory."""

    proxy: URL | str | None
    http: aiohttp.ClientSession | None
    token_store: TokenStore | None
    observer: Observer | None
    clock: TimeSource | None
    transport: Transport | None


class Fleet:
    """Many backup servers, queried at once over one HTTP session.

    `async with Fleet([...], Password(...)) as fleet:` opens it and closes it; without `async with` it opens
    when first used, and `await fleet.aclose()` closes it. `fleet["name"]` is one server's `Client`.
    """

    def __init__(  # each a limit of its own
        self,
        servers: Iterable[Server | str | URL],
        credentials: Credentials | None = None,
        *,
        tls: TLS | None = None,
        proxy: URL | str | None = None,
        deadline: float = DEFAULTS.deadline,
        connect_timeout: float = DEFAULTS.connect_timeout,
        read_timeout: float = DEFAULTS.read_timeout,
        idle_timeout: float = DEFAULTS.idle_timeout,
        retries: int | Retry = DEFAULTS.retries,
        concurrency: int = DEFAULTS.concurrency,
        connections: int = DEFAULTS.connections,
        max_body: int = DEFAULTS.max_body,
        max_resource: int = DEFAULTS.max_resource,
        user_agent: str = DEFAULTS.user_agent,
        login_cooldown: float = DEFAULTS.login_cooldown,
        lockout_guard: int = DEFAULTS.lockout_guard,
        strict: bool = DEFAULTS.strict,
        http: aiohttp.ClientSession | None = None,
        token_store: TokenStore | None = None,
        observer: Observer | None = None,
        clock: TimeSource | None = None,
        transport: Transport | None = None,
    ) -> None:
        """A fleet of `Server`s, or of URLs, which take the fleet's `credentials` and `tls`.

        Units: deadline, connect_timeout, read_timeout, idle_timeout and login_cooldown in seconds;
        max_body and max_resource in bytes.

        - `proxy`: forward proxy of the servers that have none of their own, as for `Server`.

        - `deadline`: for everything that one operation costs on one server, retries and waiting included.
        - `connect_timeout`: to resolve the name, connect and shake hands.
        - `read_timeout`: without a byte, after which a response is given up.
        - `idle_timeout`: for which an idle connection is kept; 0 keeps none.
        - `retries`: maximum number of retries for requests that are safe to repeat, or a `Retry`; 0 disables
          retries.
        - `concurrency`: servers queried at once; those that take long do not count. If in doubt, leave it.
        - `connections`: requests at once to one server.
        - `max_body`: the largest response that is read.
        - `max_resource`: the largest response of a single resource that is read.
        - `user_agent`: what is sent as `User-Agent` with every request.
        - `login_cooldown`: seconds of the first cool-down after a login that was not accepted, in which
          the same password is not sent to that server again. Later ones are an hour. 0 disables them.
        - `lockout_guard`: how many servers may reject the same credentials in a cool-down, while none
          accepts them, before the others are skipped; above 5 is as 5.
        - `strict`: a rejected item is an error of its server.
        - `http`: a ClientSession to borrow; it is never closed, and its connector's limits apply. It may
          share a connection between servers at one address, and use a connection that has unread data.
        - `token_store`: where processes share tokens and rejected logins, such as a `FileTokenStore`. With
          it, closing does not log out.
        - `observer`: a plain function that is notified of every request, retry and login, and of servers that
          go down and come up; at once and in the event loop, so it must be quick. Where it fails, it is
          notified no more of that server.
        - `clock`: where time and chance come from, for tests.
        - `transport`: what carries the requests in place of HTTP over sockets, for tests.

        Raises: ConfigError for invalid settings, for two servers with one name, and for two servers with
        one URL and equal credentials.
        """
        _check_list(servers)
        if credentials is not None:
            check_credentials(credentials)
        if tls is not None:
            check_tls(tls)
        options = Limits(
            deadline=deadline,
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
            idle_timeout=idle_timeout,
            retries=retries,
            concurrency=concurrency,
            connections=connections,
            max_body=max_body,
            max_resource=max_resource,
            user_agent=user_agent,
            login_cooldown=login_cooldown,
            lockout_guard=lockout_guard,
            strict=strict,
            observer=observer,
            clock=clock or Clock(),
        )
        self._defaults = credentials, tls, parse_proxy(proxy)
        # A debugger would show the password in it.
        del proxy
        self._options = self._own_options = options
        self._http, self._transport = http, transport
        self._shared = SharedParts(options, http, transport, token_store, lockout_guard)
        self._pool = self._shared.pool
        self._token_store = token_store
        self._clients: dict[str, Client] = {}
        self._members: Mapping[str, Client] = self._clients
        """Those of which it consists: a view has a part of them."""
        self._owns_pool = True
        self._names_by_url: dict[URL, list[str]] = {}
        self._removed: set[Client] = set()
        self._leaving: set[asyncio.Task[None]] = set()
        for entry in servers:
            self._join(_server(entry, *self._defaults))
        self._slots = ConcurrencyLimiter(concurrency, options.clock)
        self._closing = threading.Event()
        self._running = Uses()
        self._watches: set[Watch] = set()
        self._polls: set[Poll[Any]] = set()

    @classmethod
    def from_toml(cls, path: str | PathLike[str], **options: Unpack[_Overrides]) -> Self:
        """The fleet that a TOML file describes; `options` are as for `Fleet`, and override the file's.

        Reads the file at once, so call it before the event loop runs, or `await asyncio.to_thread(...)` it.
        Secrets that are kept elsewhere are read when they are needed.

        Raises: ConfigError with everything that is wrong, a line each, by file and key.
        """
        from aiovbo._inventory.reader import read_inventory  # many fleets are not written down

        found = read_inventory(path)
        return cls(found.servers, **_merged(found.options, options))

    @classmethod
    def from_env(cls, **options: Unpack[_Overrides]) -> Self:
        """The fleet that the environment names, as on the command line; `options` are as for `Fleet`.

        What comes first applies: `options`, variables, the file's `[fleet]`, the defaults. The servers come
        from `AIOVBO_URL` (addresses, with `AIOVBO_USER`, `VBO_PASSWORD`, and `AIOVBO_PIN` or
        `AIOVBO_CA_FILE`), or from an inventory: `AIOVBO_FLEET`, else `./fleet.toml`, else `fleet.toml` in the
        user's configuration folder, which needs platformdirs (extra `cli`). `AIOVBO_DEADLINE`,
        `AIOVBO_RETRIES` and `AIOVBO_PROXY` set these three.

        Reads the file at once, as `from_toml` does.
        Raises: ConfigError where no servers are configured, and with everything that is wrong.
        """
        from aiovbo._inventory.environment import Arguments, inventory_from  # as above

        found = inventory_from(Arguments(proxy=options.get("proxy")))
        return cls(found.servers, **_merged(found.options, options))

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any], **options: Unpack[_Overrides]) -> Self:
        """The fleet that a mapping of the same form describes; `options` replace its settings.

        Raises: ConfigError with everything that is wrong, a line each, by key.
        """
        from aiovbo._inventory.reader import inventory_of  # as above

        found = inventory_of(mapping)
        return cls(found.servers, **_merged(found.options, options))

    def _join(self, server: Server) -> Client:
        self._raise_if_repeated(server)
        if server.name in self._clients:
            message = f"two servers are called {server.name!r}: give one a name=... of its own"
            raise ConfigError(message)
        self._shared.register(server)
        client = self._clients[server.name] = Client.of_fleet(server, self._own_options, self._shared)
        self._names_by_url.setdefault(server.url, []).append(server.name)
        return client

    def _raise_if_repeated(self, server: Server, *, replaces: str | None = None) -> None:
        for name in self._names_by_url.get(server.url, ()):
            if name != replaces and self._clients[name].server.credentials == server.credentials:
                raise ConfigError(same_server(server.name, server.url, name))

    def add(self, server: Server | str | URL) -> Client:
        """One more server; queries that are used from now on include it, and watches begin to watch it.

        Raises: ConfigError where the fleet has a server of that name, or one with the same URL and equal
        credentials; ClosedError once the fleet is closed, or where a watch runs in another event loop.
        """
        self._raise_if_closed()
        self._raise_if_elsewhere()
        client = self._join(_server(server, *self._defaults))
        for watch in self._watches:
            watch.add(client)
        for poll in self._polls:
            poll.add(client)
        return client

    def replace(self, server: Server) -> Client:
        """Another address, password, pin or CA file for the server of the same name, in a running fleet.

        Queries and watches go on with the new settings, also those that are in progress. Watches keep their
        position, and a server without labels keeps the former ones. The token is kept where the credentials
        are equal. Files of its TLS settings are read again, so `fleet.replace(fleet["vbo1"].server)` reads a
        CA file that changed.

        Raises: KeyError where no server has this name; ConfigError for something else than a Server, and
        where another server has the same URL and equal credentials; ClosedError once the fleet is closed, or
        where a watch runs in another event loop.
        """
        given: object = server
        if not isinstance(given, Server):
            message = f"fleet.replace takes a Server, not {type(server).__name__}"
            raise ConfigError(message)
        self._raise_if_closed()
        client = self._clients[self[server.name].name]
        self._raise_if_elsewhere()
        former = client.server
        server = _server(server, *self._defaults)
        if not server.labels:
            server = evolve(server, labels=former.labels)
        # Before anything is changed.
        server.find_proxy()
        self._raise_if_repeated(server, replaces=server.name)
        self._names_by_url[former.url].remove(former.name)
        self._names_by_url.setdefault(server.url, []).append(server.name)
        self._shared.register(server)
        self._shared.forget(former)
        client.replace_server(server)
        return client

    def attach(self, resource: R) -> R:
        """The same session, or other resource, with links that can be followed again.

        Links lose their client when a value is pickled, or comes from a queue or a file.

        Raises: LinkError where this fleet has no server of the name in `resource.server`; ConfigError for
        something else than a resource.
        """
        given: object = resource
        if not isinstance(given, Model | Resource):
            message = f"what is attached is a session or another resource, not {type(resource).__name__}"
            raise ConfigError(message)
        if resource.server not in self._members:
            message = f"no server has the name {resource.server!r} in this fleet: add it first"
            raise LinkError(message)
        links = resource.links.attached_to(self._members[resource.server])
        if isinstance(resource, Model):
            return evolve(resource, links=links)
        return resource.with_links(links)

    def remove(self, name: str) -> None:
        """One server less. Requests in progress continue to their end; watches release the server at once.

        It is logged out when nothing is in progress any more, or when the fleet is closed. To use its
        `Client` for something new is a ClosedError.

        Raises: KeyError where no server is called so; ClosedError where a watch runs in another loop.
        """
        client = self[name]
        self._raise_if_elsewhere()
        del self._clients[name]
        names = self._names_by_url[client.server.url]
        names.remove(name)
        if not names:
            del self._names_by_url[client.server.url]
        self._shared.forget(client.server)
        for watch in self._watches:
            watch.remove(client.name)
        for poll in self._polls:
            poll.remove(client.name)
        self._removed.add(client)
        client.retire(partial(self._log_out_removed, client))

    def _log_out_removed(self, client: Client) -> None:
        try:
            task = asyncio.get_running_loop().create_task(
                client.log_out(), name=f"aiovbo leaves {client.name}"
            )
        except RuntimeError:
            # Outside of an event loop: it is logged out of when the fleet is closed.
            return
        self._leaving.add(task)
        task.add_done_callback(partial(self._has_left, client))

    def _has_left(self, client: Client, task: asyncio.Task[None]) -> None:
        self._leaving.discard(task)
        if not client.is_in_use and not task.cancelled():
            self._removed.discard(client)

    def with_options(
        self,
        *,
        deadline: float | None = None,
        connect_timeout: float | None = None,
        read_timeout: float | None = None,
        retries: int | Retry | None = None,
        strict: bool | None = None,
    ) -> "Fleet":
        """The same fleet with other limits: a view on the same connections, tokens and lock-out guard.

        What is not given stays as it is. Servers that are added or removed, here or there, join and leave
        both. To close a view does nothing: the fleet that it came from owns the connections.

        Raises: ConfigError for invalid limits.
        """
        given = {
            "deadline": deadline,
            "connect_timeout": connect_timeout,
            "read_timeout": read_timeout,
            "retries": retries,
            "strict": strict,
        }
        options = other_limits(self._options, given)
        return self._view(_Part(self._members, lambda _: True, options), options)

    def _view(self, members: Mapping[str, Client], options: Limits) -> "Fleet":
        view = copy(self)
        view.__dict__ |= {"_owns_pool": False, "_members": members, "_options": options}
        return view

    def where(self, predicate: Callable[[Client], bool] | None = None, /, **labels: str) -> "Fleet":
        """The servers with these labels, or for whose client `predicate` is true: a part of the fleet.

        It is a view on the same connections, tokens and lock-out guard, and follows the fleet: servers that
        join or leave later belong to it if they match. To close it does nothing.

        Raises: ConfigError for a predicate that is not a function, or without any condition.
        """
        given: object = predicate
        if given is None and not labels:
            raise ConfigError('where takes labels, such as where(site="athens"), or a function of a client')
        if given is not None and not callable(given):
            message = f"where takes a function of a client, or labels by name, not {predicate!r}"
            raise ConfigError(message)
        wanted = labels.items()

        def matches(client: Client) -> bool:
            return client.server.labels.items() >= wanted and (predicate is None or bool(predicate(client)))

        return self._view(_Part(self._members, matches, None), self._options)

    def shard(self, index: int, count: int) -> "Fleet":
        """The share of one of `count` workers: a fleet of its own, not open yet, with the same limits.

        Each server belongs to one worker, by its name; with one worker more, only the servers that it takes
        over move. Every worker makes the whole fleet, takes its share and opens that. This is for queries: a
        watch's checkpoint does not move with a server. To share a watch, use `PostgresCheckpoint`.

        Raises: ConfigError where there is no such worker.
        """
        check_count("count", count, 1)
        check_count("index", index, 0)
        if index >= count:
            message = f"of {count} workers, the index is 0 to {count - 1}, not {index}"
            raise ConfigError(message)
        servers = [
            client.server for client in self._members.values() if worker_of(client.name, count) == index
        ]
        credentials, tls, _ = self._defaults
        limits = asdict(self._options, recurse=False)
        share = Fleet(
            servers,
            credentials,
            tls=tls,
            http=self._http,
            token_store=self._token_store,
            transport=self._transport,
            **limits,
        )
        share._defaults = self._defaults  # its own class
        return share

    def watch(  # each independent of the others
        self,
        *,
        every: timedelta = timedelta(seconds=30),
        checkpoint: CheckpointStore | None = None,
        since: TimeBound | None = None,
        overlap: timedelta = timedelta(hours=1),
        full_look_every: timedelta = timedelta(hours=1),
        remember: timedelta = timedelta(days=30),
        heartbeat: timedelta | None = None,
        ack: Literal["auto", "manual"] = "auto",
        only: Callable[[Change], object] | None = None,
        min_down: timedelta = timedelta(),
        max_backoff: timedelta = MAX_BACKOFF,
    ) -> Watch:
        """Every change of every server, as it is noticed: `async with` it, and iterate.

        - `every`: from one look at a server to the next; each server has its own place in the interval. On v8
          the server reports changes by itself, as soon as they happen.
        - `checkpoint`: where the place is kept over restarts; if not given, it is not.
        - `since`: on the very first start, sessions created after it are reported even if they have ended; an
          aware `datetime`, or a `timedelta` for "that long ago". If not given: what is unfinished, and what
          changes from now on.
        - `overlap`: how far each look reaches back before the newest session, for rows that appear late.
        - `full_look_every`: how often everything that is remembered is polled.
        - `remember`: how long sessions that have ended are remembered, counted from the newest one.
        - `heartbeat`: after how long a silence a `Heartbeat` is delivered; if not given, none is.
        - `ack`: whether a change is acknowledged by the request for the next one, or by `changes.ack`.
        - `only`: which changes are delivered, by a function that takes a change; if not given, all.
        - `min_down`: for how long a server must fail before it is reported as `Unreachable`.
        - `max_backoff`: time between two polls of a server that is down, at most, unless `every` is longer.

        Raises: ConfigError at once for a naive time or an interval that is none; CheckpointError when entered
        or iterated, where the place cannot be read or written.
        """
        self._raise_if_closed()
        if ack not in ("auto", "manual"):
            message = f"ack is 'auto' or 'manual', not {ack!r}"
            raise ConfigError(message)
        options = WatchOptions(
            every=every,
            checkpoint=MemoryCheckpoint() if checkpoint is None else checkpoint,
            since=resolve(since, self._options.clock.now()),
            overlap=overlap,
            full_look_every=full_look_every,
            remember=remember,
            heartbeat=heartbeat,
            ack_by_hand=ack == "manual",
            only=only,
            min_down=min_down,
            max_backoff=max_backoff,
            clock=self._options.clock,
        )
        return Watch(self._members, options, self._watches)

    @overload
    def poll(self, query: None = None, *, every: timedelta = ...) -> Poll[RestoreSession]: ...
    @overload
    def poll(self, query: FleetQuery[T], *, every: timedelta = ...) -> Poll[T]: ...
    def poll(
        self, query: FleetQuery[Any] | None = None, *, every: timedelta = timedelta(seconds=30)
    ) -> Poll[Any]:
        """The answers of all servers, again and again: `async with` it, then iterate, or read `latest`.

        Each server is polled at its own time in the interval, and never twice at once; a slow one delays no
        other. A server that fails is probed with one request, after longer and longer pauses.

        - `query`: what to request, from this fleet's `restore_sessions` or `map`; if not given, the restore
          sessions of the last day. Servers that join the fleet later are queried too.
        - `every`: from one poll of a server to the next.

        Raises: ConfigError at once for a query of another fleet, or an interval that is not above 0.
        """
        self._raise_if_closed()
        if query is None:
            query = self.restore_sessions(started_after=timedelta(days=1))
        given: object = query
        if not isinstance(given, FleetQuery) or not query.belongs_to(self._running):
            message = "query is a query of this fleet, such as fleet.restore_sessions(...) or fleet.map(...)"
            raise ConfigError(message)
        return Poll(self._members, query, every, self._options, self._polls)

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
        """End what is under way, log out where the API can, close every connection.

        Safe to repeat, from any task. Streams that are still being read raise `ClosedError`.
        """
        if not self._owns_pool or not self._pool.begin_close():
            return
        self._closing.set()
        if self._pool.is_abandoned:
            # Its tasks can be neither cancelled nor awaited.
            self._running.clear()
        # From the last to the first, and all of them, whatever one of them raises.
        async with AsyncExitStack() as steps:
            steps.callback(self._shared.recognition.clear)
            steps.push_async_callback(self._pool.close, self._log_out)
            for run in list(self._running):
                steps.push_async_callback(run.stop)
            for watch in list(self._watches):
                steps.push_async_callback(watch.aclose)
            for poll in list(self._polls):
                steps.push_async_callback(poll.aclose)

    async def _log_out(self) -> None:
        leaving, self._leaving = self._leaving, set()
        clients = [*self._clients.values(), *self._removed]
        await asyncio.gather(*leaving, *(client.log_out() for client in clients))
        self._removed.clear()

    def restore_sessions(  # the API's own filters
        self,
        *,
        started_after: TimeBound | None = None,
        started_before: TimeBound | None = None,
        ended_after: TimeBound | None = None,
        ended_before: TimeBound | None = None,
        order_by: OrderBy | None = None,
        ascending: bool = False,
        page_size: int | None = None,
    ) -> FleetQuery[RestoreSession]:
        """The restore sessions of all servers within these bounds, which are exclusive.

        A bound is an aware `datetime`, or a `timedelta` for "that long ago", counted when the query is used.
        `ended_*` is filtered by the server on v8, and here on older versions. `order_by` and `ascending`
        order each server's sessions, and need v8: older servers have an order of their own.

        Raises: ConfigError at once for a naive time or a page_size outside 1 to 10,000, and, once all others
        have answered, for an order that a server's version does not know.
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
        return self._query(Client.filtered_sessions, bounds)

    def restore_events(  # the API's own filters
        self,
        *,
        started_after: TimeBound | None = None,
        started_before: TimeBound | None = None,
        ended_after: TimeBound | None = None,
        ended_before: TimeBound | None = None,
        only: Callable[[RestoreSession], object] | None = None,
        page_size: int | None = None,
    ) -> FleetQuery[RestoreEvent]:
        """The events of the restore sessions of all servers within these bounds, each with its session.

        The bounds are those of `restore_sessions`, and are about sessions: all events of such a session are
        delivered, and none of another. Each session costs one request, several sessions of a server at once
        (up to `connections`). A session that is deleted meanwhile has none.

        - `only`: function of a session; the events are requested only where it returns true.

        Raises: ConfigError at once as `restore_sessions`.
        """
        bounds = SessionFilter(
            started_after=started_after,
            started_before=started_before,
            ended_after=ended_after,
            ended_before=ended_before,
            page_size=page_size,
        )
        return self._query(partial(Client.filtered_events, only=only), bounds)

    def job_sessions(
        self,
        *,
        started_after: TimeBound | None = None,
        started_before: TimeBound | None = None,
        ended_after: TimeBound | None = None,
        ended_before: TimeBound | None = None,
        status: JobSessionStatus | str | Collection[str] | None = None,
        page_size: int | None = None,
    ) -> FleetQuery[JobSession]:
        """The runs of backup jobs of all servers within these bounds, which are exclusive.

        As for one server (`Client.job_sessions`, which also takes a job): `started_*` is filtered here, so
        the whole history is read unless `ended_after` (since v6) bounds it.

        - `status`: one status such as "Failed", or several.

        Raises: ConfigError at once for a naive time, an unknown status, or a page_size outside 1 to 10,000.
        """
        bounds = JobSessionFilter(
            started_after=started_after,
            started_before=started_before,
            ended_after=ended_after,
            ended_before=ended_before,
            status=status,
            page_size=page_size,
        )
        return self._query(Client.filtered_job_sessions, bounds)

    @overload
    def map(self, func: Callable[[Client], AsyncIterable[T]]) -> FleetQuery[T]: ...
    @overload
    def map(self, func: Callable[[Client], Awaitable[T]]) -> FleetQuery[T]: ...
    def map(self, func: Callable[[Client], Any]) -> FleetQuery[Any]:
        """What `func(client)` returns for each server, at once: something to await, or to iterate.

        A ServerError that comes of it is that server's, and so is a LinkError, which becomes a PayloadError;
        anything else is raised when all others have ended.
        """
        return self._query(func)

    def _query(
        self, ask: Callable[..., Awaitable[T] | AsyncIterable[T]], bounds: TimeFilter | None = None
    ) -> FleetQuery[T]:
        """The query of `ask(client)`; with bounds, of `ask(client, bounds=..., fixed=..., now=...)`."""
        self._raise_if_closed()
        question = partial(self._question, ask, bounds)
        return FleetQuery(list(self._members.values()), question, self._options, self._slots, self._running)

    def _question(
        self, ask: Callable[..., Awaitable[T] | AsyncIterable[T]], bounds: TimeFilter | None
    ) -> Question[T]:
        """What is requested from each server in one use of a query.

        Raises: ClosedError once the fleet is closed, and in another event loop.
        """
        self._raise_if_closed()
        self._pool.claim()
        if bounds is None:
            return ask
        # Counted back from one point in time for all servers.
        now = self._options.clock.now()
        return partial(ask, bounds=bounds, fixed=bounds.as_of(now), now=now)

    def status(self) -> dict[str, ServerStatus]:
        """How each server has been doing, by name; sends no request."""
        return {name: client.status() for name, client in self._members.items()}

    def _raise_if_closed(self) -> None:
        if self._closing.is_set() or self._pool.closed:
            message = "the fleet is closed"
            raise ClosedError(message)

    def _raise_if_elsewhere(self) -> None:
        """Before anything is changed, so that no half of a server is left."""
        for watch in self._watches:
            watch.check_loop()
        for poll in self._polls:
            poll.check_loop()

    def __getitem__(self, name: str) -> Client:
        if name not in self._members:
            message = f"no server is called {name!r} here"
            raise KeyError(message)
        return self._members[name]

    def __contains__(self, name: object) -> bool:
        return name in self._members

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __repr__(self) -> str:
        return f"<Fleet of {len(self)} servers>"


def _check_list(servers: object) -> None:
    if isinstance(servers, Mapping):
        raise ConfigError("servers are a list; for a mapping that describes them there is Fleet.from_mapping")
    if isinstance(servers, str):
        raise ConfigError("servers are a list, also of one: a text would be taken letter by letter")
    if isinstance(servers, URL | Server):
        raise ConfigError("servers are a list, also of one")


def _server(
    entry: Server | str | URL,
    credentials: Credentials | None,
    tls: TLS | None,
    proxy: Proxy | Literal["environment"] | None,
) -> Server:
    if isinstance(entry, Server):
        return entry if entry.proxy or not proxy else evolve(entry, proxy=proxy)
    if credentials is None:
        message = "a server given as a URL takes the fleet's credentials: Fleet(servers, Password(...))"
        raise ConfigError(message)
    return Server(entry, credentials, tls=tls or TLS(), proxy=proxy)


def _merged(written: FleetOptions, given: _Overrides) -> _Overrides:
    return {**written, **given}


def worker_of(name: str, count: int) -> int:
    """Which of `count` workers a server belongs to: the one that draws highest for its name."""
    return max(range(count), key=lambda index: blake2b(f"{index}/{name}".encode(), digest_size=8).digest())


class _Part(Mapping[str, Client]):
    """The clients that match, with limits of their own where there are any."""

    def __init__(
        self, clients: Mapping[str, Client], matches: Callable[[Client], bool], options: Options | None
    ) -> None:
        self._clients = clients
        self._matches = matches
        self._options = self._own_options = options

    def __getitem__(self, name: str) -> Client:
        client = self._clients[name]
        if not self._matches(client):
            raise KeyError(name)
        return client if self._options is None else client.with_limits(self._options)

    def __iter__(self) -> Iterator[str]:
        return (name for name, client in self._clients.items() if self._matches(client))

    def __len__(self) -> int:
        return sum(1 for _ in self)
