"""One backup server: queries of what it has, and its few actions.

Knows resources; how their pages arrive is in `_client/pagination`, how a request gets its response in
`_client/requester`, what both contain in `_protocol`.
"""

import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from copy import copy
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar, overload
from uuid import UUID

import aiohttp
from attrs import evolve
from multidict import CIMultiDict
from yarl import URL

from aiovbo._client.exploration import Exploration
from aiovbo._client.pagination import CollectionReader, ListingStart, PageIterator
from aiovbo._client.requester import Requester
from aiovbo._client.restore_events import EventPages
from aiovbo._client.shared_parts import SharedParts
from aiovbo._core.deadline import Deadline, Operation
from aiovbo._core.query import Query
from aiovbo._core.single_flight import SingleFlight
from aiovbo._core.status import ServerStatus
from aiovbo._decoding.listing import DecodedPage, decode_listing, decode_one
from aiovbo._decoding.recognition import ServerRecognition
from aiovbo._protocol.job_session_filter import JobSessionFilter
from aiovbo._protocol.messages import Reply, Request, Response
from aiovbo._protocol.requests import (
    ExploreOptions,
    Parameter,
    free_request,
    organizations_target,
    stop_request,
    with_large_pages,
)
from aiovbo._protocol.session_filter import OrderBy, SessionFilter, TimeBound, id_of
from aiovbo._protocol.urls import resolve_link, url_for
from aiovbo._resources.enums import JobSessionStatus, RestoreSessionType
from aiovbo._resources.links import M, Resource
from aiovbo._resources.structuring import BROKEN, check_model, read_json
from aiovbo._settings.api_versions import ApiVersion, supports, versions_with
from aiovbo._settings.clock import Clock, TimeSource
from aiovbo._settings.credentials import Assertion
from aiovbo._settings.events import Observer
from aiovbo._settings.limits import DEFAULTS, Options, other_limits
from aiovbo._settings.retry import Retry
from aiovbo._settings.servers import Server
from aiovbo._settings.token_store import TokenStore
from aiovbo._settings.transport import Transport
from aiovbo._transport.request_timeout import RequestTimeout
from aiovbo.errors import (
    ConfigError,
    NotFoundError,
    ResponseError,
    ServerError,
    ServerTimeoutError,
)
from aiovbo.models import (
    BackupOrganization,
    JobSession,
    Organization,
    RestoreEvent,
    RestoreSession,
    RestoreSessionEvent,
    ServiceInstance,
)

log = logging.getLogger("aiovbo.client")

_Filter = TypeVar("_Filter", SessionFilter, JobSessionFilter)

_PATIENCE = 3600.0
"""Seconds beyond a pause after which it is given up: a clock of the caller's may be slower than ours."""

_EARLY = 0.01
"""Seconds by which a timer may fire too early."""

_LAST_LOOK = 1.0
"""Seconds for a look that begins when the time to wait is over."""


class Client:
    """One backup server: query its restore sessions, follow their links.

    Use it as `async with Client(server) as client`, or take it from a fleet: `fleet["name"]`.
    """

    def __init__(  # each a limit of its own
        self,
        server: Server,
        *,
        deadline: float = DEFAULTS.deadline,
        connect_timeout: float = DEFAULTS.connect_timeout,
        read_timeout: float = DEFAULTS.read_timeout,
        idle_timeout: float = DEFAULTS.idle_timeout,
        retries: int | Retry = DEFAULTS.retries,
        connections: int = DEFAULTS.connections,
        max_body: int = DEFAULTS.max_body,
        max_resource: int = DEFAULTS.max_resource,
        user_agent: str = DEFAULTS.user_agent,
        login_cooldown: float = DEFAULTS.login_cooldown,
        strict: bool = DEFAULTS.strict,
        http: aiohttp.ClientSession | None = None,
        token_store: TokenStore | None = None,
        observer: Observer | None = None,
        clock: TimeSource | None = None,
        transport: Transport | None = None,
    ) -> None:
        """A client of its own; limits and all else are as for `Fleet`."""
        if not isinstance(server, Server):
            message = f"a client takes a Server('vbo1', Password(...)), not {type(server).__name__}"
            raise ConfigError(message)
        options = Options(
            deadline=deadline,
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
            idle_timeout=idle_timeout,
            retries=retries,
            connections=connections,
            max_body=max_body,
            max_resource=max_resource,
            user_agent=user_agent,
            login_cooldown=login_cooldown,
            strict=strict,
            observer=observer,
            clock=clock or Clock(),
        )
        shared = SharedParts(options, http, transport, token_store, lockout_guard=1)
        shared.register(server)
        self._bind(server, options, shared)
        self._closes_pool = True

    @classmethod
    def of_fleet(cls, server: Server, options: Options, shared: SharedParts) -> Self:
        """A client that shares a fleet's session."""
        client = cls.__new__(cls)
        client._bind(server, options, shared)  # noqa: SLF001  # its own
        return client

    def _bind(self, server: Server, options: Options, shared: SharedParts) -> None:
        self.name: str = server.name
        """The server's name."""
        self._options = options
        self._pool = shared.pool
        self._closes_pool = False
        self._requester = Requester(server, options, shared.pool, shared.guard)
        self._recognition = ServerRecognition(shared.recognition)
        self._fetches: SingleFlight[Any] = SingleFlight()

    def with_options(
        self,
        *,
        deadline: float | None = None,
        connect_timeout: float | None = None,
        read_timeout: float | None = None,
        retries: int | Retry | None = None,
        strict: bool | None = None,
    ) -> Self:
        """The same client with other limits: a view on the same connections, tokens and lock-out guard.

        What is not given stays as it is. The links of what it delivers are followed within its limits. To
        close a view does nothing: the client or fleet that it came from owns the connections.

        Raises: ConfigError for invalid limits.
        """
        given = {
            "deadline": deadline,
            "connect_timeout": connect_timeout,
            "read_timeout": read_timeout,
            "retries": retries,
            "strict": strict,
        }
        return self.with_limits(other_limits(self._options, given))

    def with_limits(self, options: Options) -> Self:
        """A view with these limits."""
        view = copy(self)
        view._options, view._closes_pool = options, False  # noqa: SLF001  # its own
        return view

    def claim(self) -> None:
        """Bind the client, with its fleet, to the running event loop at the first use.

        Raises: ClosedError where it belongs to another one.
        """
        self._pool.claim()

    def retire(self, when_idle: Callable[[], None]) -> None:
        """Begin no operation any more; call `when_idle` each time when nothing is left in progress."""
        self._recognition.forget()
        self._requester.usage.retire(when_idle)

    @property
    def is_in_use(self) -> bool:
        """Whether a request or a listing is in progress."""
        return self._requester.usage.is_active

    @property
    def is_removed(self) -> bool:
        """Whether its fleet has removed the server."""
        return self._requester.usage.is_removed

    @property
    def server(self) -> Server:
        """The address, credentials and trust of the server that is queried."""
        return self._requester.server

    def replace_server(self, server: Server) -> None:
        """Query the same server with other settings from now on; `Fleet.replace` calls this."""
        self._requester.replace(server)
        self._recognition.forget()
        self._fetches = SingleFlight()

    @property
    def is_out_of_reach(self) -> bool:
        """Whether the last request found the server unreachable; False before the first request."""
        return self._requester.endpoint.is_out_of_reach

    @property
    def api_version(self) -> ApiVersion | None:
        """The API version in use; None while it is not known."""
        return self._requester.endpoint.version

    @property
    def clock_skew(self) -> float | None:
        """Seconds that the server's clock is ahead of ours, to the second; None until it reports its time.

        It is reported, and otherwise not trusted: no time limit depends on it.
        """
        return self._requester.endpoint.clock_skew

    def status(self) -> ServerStatus:
        """How the server has been doing; sends no request."""
        return self._requester.status()

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
        """Log out where the API can, end what is under way, close every connection; safe to repeat.

        A fleet's client is closed only by its fleet.
        """
        if self._closes_pool:
            self._recognition.forget()
            await self._pool.close(self.log_out)

    async def log_out(self) -> None:
        """Log out where the API can do it (since v7), within a second; never raises."""
        await self._requester.log_out()

    def __repr__(self) -> str:
        return f"<Client {self.name} at {self.server.url}>"

    # ------------------------------------------------------------------------------- questions

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
    ) -> Query[RestoreSession]:
        """The restore sessions within these bounds, which are exclusive.

        A bound is an aware `datetime`, or a `timedelta` for "that long ago", counted when the query is used;
        from the server's time where its clock is known to be over a minute off.
        `ended_*` is filtered by the server on v8, and here on older versions. What a server sends outside
        the bounds is not delivered; where it ignored them, `Answer.complete` is False. `order_by` and
        `ascending` need v8: older servers have an order of their own.

        Raises: ConfigError at once for a naive time or a page_size outside 1 to 10,000, and when used for an
        order that the server's version does not know.
        """
        return self.filtered_sessions(
            SessionFilter(
                started_after=started_after,
                started_before=started_before,
                ended_after=ended_after,
                ended_before=ended_before,
                order_by=order_by,
                ascending=ascending,
                page_size=page_size,
            )
        )

    def filtered_sessions(
        self,
        bounds: SessionFilter,
        fixed: SessionFilter | None = None,
        now: datetime | None = None,
        *,
        reports_rejected: bool = False,
    ) -> Query[RestoreSession]:
        """The restore sessions within `bounds`.

        - `fixed`, `now`: the same bounds as of that time, computed once for many servers.
        - `reports_rejected`: whether the caller reports rejected rows: they are not logged, nor an error.
        """
        find = partial(self._start_within, bounds, fixed, now)
        return self._collection(RestoreSession, find, reports_rejected=reports_rejected)

    def restore_events(  # the API's own filters
        self,
        *,
        started_after: TimeBound | None = None,
        started_before: TimeBound | None = None,
        ended_after: TimeBound | None = None,
        ended_before: TimeBound | None = None,
        only: Callable[[RestoreSession], object] | None = None,
        page_size: int | None = None,
    ) -> Query[RestoreEvent]:
        """The events of the restore sessions within these bounds, each with its session.

        The bounds are those of `restore_sessions`, and are about sessions: all events of such a session are
        delivered, and none of another. Each session costs one request, several sessions at once (up to
        `connections`). A session that is deleted meanwhile has none.

        - `only`: function of a session; the events are requested only where it returns true.

        Raises: ConfigError at once as `restore_sessions`. Where the server rejects a request for events of a
        session, the events of the others are delivered first.
        """
        bounds = SessionFilter(
            started_after=started_after,
            started_before=started_before,
            ended_after=ended_after,
            ended_before=ended_before,
            page_size=page_size,
        )
        return self.filtered_events(bounds, only)

    def filtered_events(
        self,
        bounds: SessionFilter,
        only: Callable[[RestoreSession], object] | None,
        fixed: SessionFilter | None = None,
        now: datetime | None = None,
    ) -> Query[RestoreEvent]:
        """The events of the restore sessions within `bounds`; `fixed` and `now` as for the sessions."""
        find = partial(self._start_within, bounds, fixed, now)

        def open_pages(operation: Operation) -> EventPages:
            collection = CollectionReader(self._requester, self, self._recognition, RestoreSession, find)
            listing = collection.pages(operation)
            return EventPages(operation, self._events, self._check_session, listing=listing, only=only)

        return Query(self.name, self._options, open_pages)

    def events_of(self, sessions: Iterable[RestoreSession]) -> Query[RestoreEvent]:
        """The events of these sessions of the server, as for `restore_events`; they are not listed again.

        Raises: ConfigError at once for a session of another server.
        """
        known = [evolve(session, links=session.links.attached_to(self)) for session in sessions]
        foreign = next((session.server for session in known if session.server != self.name), None)
        if foreign is not None:
            message = f"these are the sessions of {foreign!r}: use events_of of that server's client"
            raise ConfigError(message)

        def open_pages(operation: Operation) -> EventPages:
            return EventPages(operation, self._events, self._check_session, known=known)

        return Query(self.name, self._options, open_pages)

    def _events(self, session: RestoreSession, operation: Operation) -> PageIterator[RestoreSessionEvent]:
        find = partial(self._start_of, session.link_to("Events").href)
        collection = CollectionReader(self._requester, self, self._recognition, RestoreSessionEvent, find)
        return collection.pages(operation)

    async def _check_session(self, session: RestoreSession) -> object:
        return await self.fetch_restore_session(session.id)

    async def _start_within(
        self,
        bounds: _Filter,
        fixed: _Filter | None,
        now: datetime | None,
        operation: Operation,
    ) -> ListingStart[Any]:
        version = self._requester.endpoint.version or await self._requester.find_version(operation)
        now = now or self._options.clock.now()
        fixed = fixed or bounds.as_of(now)
        if fixed is not bounds and (offset := self._requester.clock_offset()) is not None:
            fixed = bounds.as_of(now + offset)
        try:
            target, check = fixed.for_version(version)
        except ConfigError as error:
            message = f"{self.name}: {error}"
            raise ConfigError(message) from None
        return url_for(self._requester.server.url, target), check

    def _collection(
        self,
        cls: type[M],
        find: Callable[[Operation], Awaitable[ListingStart[M]]],
        *,
        reports_rejected: bool = False,
    ) -> Query[M]:
        collection = CollectionReader(self._requester, self, self._recognition, cls, find, reports_rejected)
        return Query(self.name, self._options, collection.pages, collection.first_page)

    async def fetch_restore_session(self, session_id: UUID | str) -> RestoreSession:
        """The restore session with this id, as it is now; one request."""
        return await self.fetch(f"RestoreSessions/{id_of(session_id)}", RestoreSession)

    @overload
    async def fetch(self, path_or_href: str) -> Resource: ...
    @overload
    async def fetch(self, path_or_href: str, cls: type[M]) -> M: ...
    async def fetch(self, path_or_href: str, cls: type[Any] = Resource) -> Any:
        """What is at a path below `/vN/`, or behind a link's text; several at once cost one request.

        - `cls`: a subclass of `Model`, or an attrs class of your own. The field `creation_time` is read from
          `creationTime`. A resource is rejected where a field without a default is missing or invalid.

        Raises: LinkError where it leads out of the API; ServerError where the server fails.
        """
        _check_requested(path_or_href, cls)
        operation = self._begin()
        with operation.deadline:
            await self._requester.find_version(operation)
            url = self.url_of(path_or_href)
            # Where a failed request may not be sent again, a call that would do so serves as well.
            key = (cls, url, operation.may_retry)
            return await self._requester.share(
                self._fetches, key, operation, partial(self._fetch_one, Request(url), cls), url
            )

    async def _fetch_one(self, request: Request, cls: type[M], operation: Operation) -> M:
        def read(reply: Reply) -> M:
            found = decode_one(reply.body, cls, self.name, self)
            if isinstance(found, BackupOrganization) and "self" not in found.links:
                # Its own members do not say which session's backup it belongs to: only its path does.
                found = evolve(found, links=found.links.with_self(request.url.raw_path))
            return found

        return await self._requester.send(request, operation, read)

    async def request(
        self,
        method: str,
        path_or_href: str,
        *,
        json: Any = None,  # whatever JSON can hold
        parameters: Mapping[str, Parameter | Sequence[Parameter] | None] | None = None,
        repeatable: bool = False,
    ) -> Response:
        """The response to any request, for operations that have no method of their own.

        Every 2xx status is a result, with or without a body. The token, the deadline and the rules for links
        are those of all other requests.

        - `method`: the HTTP method, such as "POST".
        - `path_or_href`: a path below `/vN/`, or the text of a link.
        - `json`: the body.
        - `parameters`: what to add to the URL's query; a list repeats the name, None leaves it out.
        - `repeatable`: True where it is safe to send the request again although it may have arrived. A GET
          always is.

        Raises: ConfigError at once for arguments that cannot be sent; LinkError where the path leads out of
        the API; ResponseError for other statuses, and another ServerError where the server fails.
        """
        _check_requested(path_or_href, Resource)
        make = free_request(method, parameters, json, repeatable=repeatable)
        operation = self._begin()
        with operation.deadline:
            await self._requester.find_version(operation)
            return await self._requester.send(make(self.url_of(path_or_href)), operation, _response)

    @overload
    def query(self, path_or_href: str) -> Query[Resource]: ...
    @overload
    def query(self, path_or_href: str, cls: type[M]) -> Query[M]: ...
    def query(self, path_or_href: str, cls: type[Any] = Resource) -> Query[Any]:
        """The collection at a path below `/vN/`, or behind a link's text, page after page."""
        _check_requested(path_or_href, cls)
        return self._collection(cls, partial(self._start_of, path_or_href))

    async def fetch_page(self, path_or_href: str, cls: type[M]) -> DecodedPage[M]:
        """One page of a collection, and nothing beyond it; its items are decoded as they are iterated."""

        def read(reply: Reply) -> DecodedPage[M]:
            return decode_listing(reply.body, cls, self.name, self)

        operation = self._begin()
        with operation.deadline:
            await self._requester.find_version(operation)
            return await self._requester.send(
                Request(self.url_of(path_or_href), may_be_large=True), operation, read
            )

    async def _start_of(self, path_or_href: str, operation: Operation) -> ListingStart[Any]:
        await self._requester.find_version(operation)
        return with_large_pages(self.url_of(path_or_href)), None

    async def _start_of_organizations(self, operation: Operation) -> ListingStart[Organization]:
        version = await self._requester.find_version(operation)
        return url_for(self.server.url, organizations_target(version)), None

    async def fetch_api_version(self) -> ApiVersion:
        """The API version in use; one request or a few, unless it is known already."""
        operation = self._begin()
        with operation.deadline:
            return await self._requester.find_version(operation)

    def _begin(self) -> Operation:
        """The operation that the current task is part of, or a new one.

        Raises: ClosedError where the fleet has removed the server, for a new one.
        """
        operation = Operation.current(self._options)
        self._requester.usage.check(operation)
        return operation

    def operation(self, *, may_retry: bool = True) -> Operation:
        """A block for several queries within one deadline."""
        return Operation(self._options, may_retry=may_retry)

    @property
    def longest_silence(self) -> float:
        """Seconds for which a response may be silent."""
        return min(self._options.read_timeout, self._options.deadline)

    def organizations(self) -> Query[Organization]:
        """The organizations that the server looks after."""
        return self._collection(Organization, self._start_of_organizations)

    def job_sessions(
        self,
        *,
        started_after: TimeBound | None = None,
        started_before: TimeBound | None = None,
        ended_after: TimeBound | None = None,
        ended_before: TimeBound | None = None,
        status: JobSessionStatus | str | Collection[str] | None = None,
        job: Resource | UUID | str | None = None,
        page_size: int | None = None,
    ) -> Query[JobSession]:
        """The runs of backup jobs within these bounds, which are exclusive.

        A bound is an aware `datetime`, or a `timedelta` for "that long ago", as for `restore_sessions`.
        What the server's version does not filter is filtered here: `started_*` in every version, so the
        whole history is read unless `ended_after` (since v6) bounds it.

        - `status`: one status such as "Failed", or several.
        - `job`: the job, or its id; its sessions only.

        Raises: ConfigError at once for a naive time, an unknown status, a job without an id, or a page_size
        outside 1 to 10,000.
        """
        bounds = JobSessionFilter(
            started_after=started_after,
            started_before=started_before,
            ended_after=ended_after,
            ended_before=ended_before,
            status=status,
            job=job,
            page_size=page_size,
        )
        return self.filtered_job_sessions(bounds)

    def filtered_job_sessions(
        self, bounds: JobSessionFilter, fixed: JobSessionFilter | None = None, now: datetime | None = None
    ) -> Query[JobSession]:
        """The runs of backup jobs within `bounds`; `fixed` and `now` as for restore sessions."""
        return self._collection(JobSession, partial(self._start_within, bounds, fixed, now))

    async def fetch_service_instance(self) -> ServiceInstance:
        """The installation that the server runs, and its build number; one request.

        Raises: NotFoundError on servers older than v6, which do not report it.
        """
        try:
            return await self.fetch("ServiceInstance", ServiceInstance)
        except NotFoundError as error:
            version = self.api_version
            if version is not None and not supports(version, "service instance"):
                first = versions_with("service instance")[0]
                error.hint = f"It needs API {first} or later, and this server is queried by {version}."
            raise

    async def stop_restore_session(self, session_id: UUID | str) -> None:
        """Stop a restore session; never repeated once the request may have arrived.

        Raises: ConflictError or ResponseError where it has ended already; ServerError where the server fails.
        """
        session_id = id_of(session_id)
        operation = self._begin()
        with operation.deadline:
            version = await self._requester.find_version(operation)
            request = stop_request(self.server.url, version, session_id)
            await self._requester.send(request, operation, _nothing)

    def explore(  # the API's own options
        self,
        type: RestoreSessionType | str,  # noqa: A002  # the API's own name
        *,
        at: TimeBound | None = None,
        organization: Organization | UUID | str | None = None,
        job: Resource | UUID | str | None = None,
        repository: Resource | UUID | str | None = None,
        data_retrieval: Resource | UUID | str | None = None,
        repository_id: UUID | str | None = None,
        scope: Mapping[str, Any] | None = None,
        reason: str | None = None,
        show_deleted: bool = False,
        show_all_versions: bool = False,
    ) -> Exploration:
        """A new restore session over a backup: await it, or `async with` it, which stops it at the end.

        - `type`: what to restore: Vex, Veod, Vesp, Vet.
        - `at`: the point in time; an aware datetime, or a timedelta for "that long ago". If not given, the
          latest backup.
        - `organization`: whose backup, for providers; tenants and operators leave it out.
        - `job`, `data_retrieval` (since v6), `repository` (since v7): start from one of these instead.
        - `repository_id`: the repository to use, with `organization` or for operators; since v8.
        - `scope`, `reason`: whose data an operator restores, as the API describes it, and why; since v6.

        Source: schemas RESTExploreOptions, RESTOperatorExploreOptions and RESTOrganizationExploreOptions, v6
        to v8, read 2026-11-27.
        Raises: ConfigError at once for a naive time, a value that is not an ID, or arguments that exclude
        each other, and when used for what the server's version cannot do; ServerError where the server fails.
        """
        options = ExploreOptions(
            type=type,
            at=at,
            organization=organization,
            job=job,
            repository=repository,
            data_retrieval=data_retrieval,
            repository_id=repository_id,
            scope=scope,
            reason=reason,
            show_deleted=show_deleted,
            show_all_versions=show_all_versions,
        )
        credentials = self.server.credentials
        # What a token of the caller's may do is not known here.
        is_operator = options.is_for_operators or (
            isinstance(credentials, Assertion) and credentials.operator
        )

        async def start() -> RestoreSession:
            self._requester.usage.check()
            with self.operation() as operation, operation.deadline:
                version = await self._requester.find_version(operation)
                fixed = options.as_of(self._options.clock.now())
                try:
                    request = fixed.request(self.server.url, version, is_operator=is_operator)
                except ConfigError as error:
                    message = f"{self.name}: {error}"
                    raise ConfigError(message) from None
                return await self._fetch_one(request, RestoreSession, operation)

        return Exploration(self.name, start, self._end_exploration, self._options.clock)

    async def _end_exploration(self, session: RestoreSession) -> None:
        """Stop a session, unless it has ended already."""
        # Not within what the caller may have used up: a session that stays open costs more.
        with self.operation():
            try:
                await self.stop_restore_session(session.id)
            except NotFoundError:
                log.debug("%s: restore session %s is gone already", self.name, session.id)
            except ResponseError as refused:
                # Only v8 has a status of its own for what has ended already, which says other things too.
                if refused.status not in (400, 409) or not await self._has_ended(session):
                    raise

    async def _has_ended(self, session: RestoreSession) -> bool:
        try:
            now = await self.fetch_restore_session(session.id)
        except NotFoundError:
            return True
        except ServerError:
            return False
        return now.has_ended

    async def poll(
        self,
        href: str,
        cls: type[M],
        until: Callable[[M], bool],
        *,
        timeout: float,  # over many requests, and by the clock that was handed in
        every: float,
    ) -> M:
        """What is behind a link once `until` holds for it, looked at again and again.

        Raises: ServerTimeoutError after `timeout` seconds; NotFoundError where it has vanished.
        """
        clock = self._options.clock
        waiting = Deadline(timeout, clock)
        looks = 0
        while True:
            looks += 1
            last = "it is not what was waited for"
            left = waiting.left()
            # Also a silent server ends with the time; the last poll has a moment for its response.
            limit = left if left > _EARLY else _LAST_LOOK
            operation = Operation(self._options, deadline=Deadline(min(self._options.deadline, limit), clock))
            self._requester.usage.check()
            try:
                await self._requester.find_version(operation)
                found = await self._fetch_one(Request(self.url_of(href)), cls, operation)
                if until(found):
                    return found
            except ServerError as error:
                if not error.retryable:
                    raise
                is_silent = limit < self._options.deadline and isinstance(error, ServerTimeoutError)
                last = "it had not responded" if is_silent else error.what
            left = waiting.left()
            if left < _EARLY:
                break
            pause = every * (0.5 + clock.random())
            if pause > left - min(every / 2, _LAST_LOOK):
                # The time would end in it, or soon after: a last look follows then.
                pause = left
            with RequestTimeout(self._pool.attempts, Deadline(pause + _PATIENCE, clock)):
                await clock.sleep(pause)
        what = f"timed out after {timeout:g} s; {last}"
        raise self._requester.endpoint.annotate(
            self.url_of(href),
            ServerTimeoutError(what, hint="Wait longer."),
            attempts=looks,
            elapsed=timeout,
        )

    def url_of(self, href: str) -> URL:
        """The URL that would be requested for a path below `/vN/` or a link's text."""
        version = self._requester.endpoint.likely_version
        return resolve_link(self.server.url, version, href, f"/{version}/")


def _check_requested(path_or_href: object, cls: object) -> None:
    if not isinstance(path_or_href, str):
        message = (
            f"what is requested is a path such as 'Organizations', or a link's text, not {path_or_href!r}"
        )
        raise ConfigError(message)
    check_model(cls)


def _response(reply: Reply) -> Response:
    try:
        document = read_json(reply.body.removeprefix(b"\xef\xbb\xbf"))
    except BROKEN:
        document = None
    # aiohttp's own headers cannot be pickled.
    headers = CIMultiDict(reply.headers)
    return Response(status=reply.status, headers=headers, body=reply.body, document=document)


def _nothing(_: Reply) -> None:
    return None
