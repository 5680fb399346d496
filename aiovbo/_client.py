"""One backup server: requests with token, retries and deadline, and the questions it can be asked.

Knows how requests follow from each other; what they look like is in `_wire`, how they travel in `_http`.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from copy import copy
from types import TracebackType
from typing import Any, Self, TypeVar, overload
from uuid import UUID

import aiohttp
from attrs import evolve
from yarl import URL

from aiovbo._config import API_VERSIONS, ApiVersion, Clock, Options, Server
from aiovbo._decode import SLICE, Listing, decode_listing, decode_one
from aiovbo._http import Attempt, HttpPool
from aiovbo._logon import VERDICTS, Logon, Token
from aiovbo._paging import Paging
from aiovbo._query import Operation, Page, Query
from aiovbo._tasks import SharedCalls
from aiovbo._wire import (
    Moment,
    Reply,
    Sealed,
    SessionFilter,
    anchor,
    probe_target,
    refusal,
    token_form,
    token_target,
    url_for,
)
from aiovbo.errors import (
    AuthenticationError,
    LinkError,
    NotFoundError,
    PayloadError,
    RateLimitedError,
    ServerError,
    ServerFaultError,
    ServerTimeoutError,
    UnreachableError,
)
from aiovbo.models import M, Rejected, Resource, RestoreSession

log = logging.getLogger("aiovbo.client")

R = TypeVar("R")
E = TypeVar("E", bound=ServerError)

_BACKOFF, _LONGEST_BACKOFF = 0.25, 8.0
_CREDIT, _EARNED = 10.0, 0.1
"""Retries a server may cost at once, and what each request earns back: no flood answers an outage."""

_ACCEPT = Sealed({"Accept": "application/json"})
_FORM = Sealed(_ACCEPT.content | {"Content-Type": "application/x-www-form-urlencoded"})


class Client:
    """One backup server: ask it for its restore sessions, follow their links.

    Use it as `async with Client(server) as client`, or take it from a fleet: `fleet["name"]`.
    """

    def __init__(  # noqa: PLR0913  # each a limit of its own
        self,
        server: Server,
        *,
        deadline: float = 60.0,
        connect_timeout: float = 10.0,
        read_timeout: float = 30.0,
        retries: int = 2,
        connections: int = 4,
        max_body: int = 32 * 1024 * 1024,
        logon_cooldown: float = 300.0,
        strict: bool = False,
        http: aiohttp.ClientSession | None = None,
        clock: Clock | None = None,
    ) -> None:
        """A client of its own; see `Options` for the limits, `http` lends it a session."""
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
        self._bind(server, options, HttpPool(options, [server], http))

    @classmethod
    def of_fleet(cls, server: Server, options: Options, pool: HttpPool) -> Self:
        """A client that shares a fleet's session."""
        client = cls.__new__(cls)
        client._bind(server, options, pool)  # noqa: SLF001  # its own
        return client

    def _bind(self, server: Server, options: Options, pool: HttpPool) -> None:
        self.server = server
        """Where and how it is asked."""
        self._options = options
        self._clock = options.clock
        self._pool = pool
        self._version: ApiVersion | None = None
        if server.api_version != "auto":
            self._version = server.api_version
        self._versions: SharedCalls[ApiVersion] = SharedCalls()
        self._fetches: SharedCalls[Any] = SharedCalls()
        self._logon = Logon(server.credentials, options, self._post_logon)
        self._logging_on: Attempt | None = None
        self._turns: asyncio.Semaphore | None = None
        self._credit = _CREDIT

    @property
    def name(self) -> str:
        """The server's name."""
        return self.server.name

    @property
    def api_version(self) -> ApiVersion | None:
        """The API version spoken; None while it has not been found out."""
        return self._version

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
        """End what is under way and let go of every connection; safe to repeat."""
        await self._pool.close()

    def __repr__(self) -> str:
        return f"<Client {self.name} at {self.server.url}>"

    # ------------------------------------------------------------------------------- questions

    def restore_sessions(
        self,
        *,
        started_after: Moment | None = None,
        started_before: Moment | None = None,
        ended_after: Moment | None = None,
        ended_before: Moment | None = None,
        page_size: int | None = None,
    ) -> Query[RestoreSession]:
        """The restore sessions within these bounds, which are exclusive.

        A bound is an aware `datetime`, or a `timedelta` for "that long ago", counted when the query is used.
        `ended_*` is filtered by the server on v8, and here on older versions.

        Raises: ValueError at once for a naive time; ConfigError for a page_size outside 1 to 10,000.
        """
        return self.filtered_sessions(
            SessionFilter(
                started_after=started_after,
                started_before=started_before,
                ended_after=ended_after,
                ended_before=ended_before,
                page_size=page_size,
            )
        )

    def filtered_sessions(self, bounds: SessionFilter) -> Query[RestoreSession]:
        """The restore sessions within `bounds`."""

        async def ask(operation: Operation) -> AsyncGenerator[Page[RestoreSession]]:
            fixed = bounds.at(self._clock.now())
            version = await self._find_version(operation)
            url = url_for(self.server.url, fixed.target(version))
            async with aclosing(self._pages(url, RestoreSession, operation, fixed.keeps)) as pages:
                async for page in pages:
                    yield page

        return Query(self.name, self._options, ask)

    async def fetch_restore_session(self, session_id: UUID | str) -> RestoreSession:
        """The restore session with this id, as it is now; one request."""
        return await self.fetch(f"RestoreSessions/{UUID(str(session_id))}", RestoreSession)

    @overload
    async def fetch(self, path_or_href: str) -> Resource: ...
    @overload
    async def fetch(self, path_or_href: str, cls: type[M]) -> M: ...
    async def fetch(self, path_or_href: str, cls: type[Any] = Resource) -> Any:
        """What is at a path below `/vN/`, or behind a link's text; several at once cost one request.

        Raises: LinkError where it leads out of the API; ServerError where the server fails.
        """
        operation = Operation.current(self._options)
        await self._find_version(operation)
        url = self.url_of(path_or_href)

        def read(reply: Reply) -> Any:  # noqa: ANN401  # a `cls`, which only the overloads can say
            return decode_one(reply.body, cls, self.name, self)

        return await self._fetches.join((cls, url), lambda: self._send("GET", url, operation, read))

    def url_of(self, href: str) -> URL:
        """The URL that would be asked for a path below `/vN/` or a link's text."""
        version = self._version or API_VERSIONS[-1]
        return anchor(self.server.url, version, href, f"/{version}/")

    # ---------------------------------------------------------------------------------- paging

    async def _pages(
        self, url: URL, cls: type[M], operation: Operation, keeps: Callable[[M], bool]
    ) -> AsyncGenerator[Page[M]]:
        paging: Paging[M] = Paging(self._follow)
        ahead: asyncio.Task[tuple[Page[M], URL | None]] | None = None
        try:
            page, following = await self._page(url, cls, operation, keeps, paging)
            while following is not None:
                ahead = asyncio.create_task(self._page(following, cls, operation, keeps, paging))
                if page.items or page.rejected:
                    yield page
                page, following = await ahead
                ahead = None
            # The last one also when it is empty: it says whether the listing is complete.
            yield page
        finally:
            if ahead is not None:
                ahead.cancel()
                await asyncio.wait([ahead])
                # Nobody else will ask for its outcome, which asyncio would complain about.
                _ = ahead.cancelled() or ahead.exception()

    async def _page(
        self,
        url: URL,
        cls: type[M],
        operation: Operation,
        keeps: Callable[[M], bool],
        paging: Paging[M],
    ) -> tuple[Page[M], URL | None]:
        def read(reply: Reply) -> Listing[M]:
            return decode_listing(reply.body, cls, self.name, self)

        listing = await self._send("GET", url, operation, read)
        items: list[M] = []
        rejected: list[Rejected] = []
        news = False
        for some, others in listing.slices():
            fresh = paging.new(some)
            news |= bool(fresh)
            items += filter(keeps, fresh)
            rejected += [evolve(r, index=paging.received + r.index) for r in others]
            if len(listing) > SLICE:
                # A long answer must not hold the event loop.
                await asyncio.sleep(0)
        problems = [f"item {r.index}: {r.reason} @ {r.path}" for r in rejected]
        if problems and self._options.strict:
            error = PayloadError("it has items that make no sense", problems=problems)
            raise self._at(url, error)
        for problem in problems:
            log.warning("%s: %s: set aside %s", self.name, url.raw_path, problem)
        try:
            following = paging.next_url(url, listing, news=news)
        except (PayloadError, LinkError) as error:
            failure = PayloadError(f"paging: {error}", phase="paging", retryable=False)
        else:
            paging.complete &= not rejected
            return Page(items, tuple(rejected), paging.complete), following
        raise self._at(url, failure)

    def _follow(self, href: str, asked: URL) -> URL:
        prefix = self.server.url.raw_path.rstrip("/")
        path = asked.raw_path.removeprefix(prefix)
        return anchor(self.server.url, self._version or "", href, path)

    # -------------------------------------------------------------------------------- requests

    async def _find_version(self, operation: Operation) -> ApiVersion:
        if self._version is None:
            self._version = await self._versions.join("version", lambda: self._probe(operation))
        return self._version

    async def _probe(self, operation: Operation) -> ApiVersion:
        for version in reversed(API_VERSIONS):
            url = url_for(self.server.url, probe_target(version))
            status = await self._send(
                "GET", url, operation, _status, logged_on=False, expected=(401, 403, 404)
            )
            if status != 404:  # noqa: PLR2004  # how a version that is not offered is answered
                log.debug("%s offers %s", self.name, version)
                return version
        hint = "Is this the REST API of Veeam Backup for Microsoft 365?"
        error = NotFoundError("it offers none of the API versions v4 to v8", status=404, hint=hint)
        raise self._at(self.server.url, error)

    async def _send(  # noqa: PLR0913  # a request has that many parts
        self,
        method: str,
        url: URL,
        operation: Operation,
        read: Callable[[Reply], R],
        *,
        logged_on: bool = True,
        expected: Sequence[int] = (),
    ) -> R:
        """What `read` makes of the answer, whatever it takes within the operation's limits.

        Raises: ServerError, complete; ClosedError.
        """
        clock = self._clock
        started, left = clock.monotonic(), operation.left
        self._credit = min(_CREDIT, self._credit + _EARNED)
        attempts, retries, renewed = 0, 0, False
        while True:
            attempts += 1
            operation.attempts += 1
            outcome, token = await self._try(method, url, operation, logged_on=logged_on)
            operation.left = min(operation.left, left - (clock.monotonic() - started))
            if isinstance(outcome, Reply) and token is not None and _refuses_token(outcome):
                if not renewed:
                    self._logon.reject(token)
                    renewed = True
                    continue
                if outcome.status == 401:  # noqa: PLR2004  # unauthorized
                    outcome = AuthenticationError(
                        "it refused a token that it had just granted",
                        hint="Does the account have the rights, and do the clocks of the servers agree?",
                    )
            if isinstance(outcome, Reply):
                try:
                    return self._judged(outcome, read, expected)
                except ServerError as error:
                    outcome = copy(error)
            if not await self._worth_a_retry(outcome, retries, operation):
                break
            retries += 1
            operation.left = min(operation.left, left - (clock.monotonic() - started))
        raise self._at(url, outcome, method, attempts, clock.monotonic() - started)

    async def _try(
        self, method: str, url: URL, operation: Operation, *, logged_on: bool
    ) -> tuple[Reply | ServerError, Token | None]:
        token: Token | None = None
        try:
            async with self._pool.attempt(operation.left, self._first_in_line) as attempt:
                token = await self._logon.token() if logged_on else None
                if self._turns is None:
                    await self._pool.open()
                    self._turns = asyncio.Semaphore(self._pool.connections)
                async with self._turns:
                    reply = await self._pool.exchange(
                        attempt,
                        method,
                        url,
                        tls=self.server.tls,
                        headers=token.headers() if token else _ACCEPT,
                    )
        except ServerError as error:
            # A copy has no traceback and no context, where aiohttp's own errors would print the token.
            failure = copy(error)
        else:
            log.debug("%s: %s %s: HTTP %d", self.name, method, url.raw_path, reply.status)
            return reply, token
        if logged_on and token is None:
            self._at(self._token_url(), failure, "POST")
        return failure, token

    def _judged(self, reply: Reply, read: Callable[[Reply], R], expected: Sequence[int]) -> R:
        if reply.status not in expected:
            if reply.status != 200:  # noqa: PLR2004  # the only success a GET has
                raise refusal(reply, self._clock.now(), self._version)
            if not reply.body.strip():
                hint = "Rejected tokens are answered like that too: check the account's rights."
                raise PayloadError("the answer is empty", hint=hint)
        return read(reply)

    async def _worth_a_retry(self, failure: ServerError, retries: int, operation: Operation) -> bool:
        """Wait as long as is decent, if another try is allowed and may help."""
        if not failure.retryable or retries >= self._options.retries or self._credit < 1:
            return False
        delay = min(_LONGEST_BACKOFF, _BACKOFF * 2**retries) * self._clock.random()
        if isinstance(failure, RateLimitedError | ServerFaultError) and failure.retry_after:
            delay = failure.retry_after
        if delay >= operation.left:
            return False
        self._credit -= 1
        log.info("%s: %s; next try in %.2f s", self.name, failure.what, delay)
        async with self._pool.attempt(operation.left):
            await self._clock.sleep(delay)
        return True

    def _at(
        self,
        url: URL,
        failure: E,
        method: str = "GET",
        attempts: int = 1,
        elapsed: float = 0.0,
    ) -> E:
        """The failure, with what only we know: whom we asked for what, and how often."""
        failure.server = self.name
        failure.operation = failure.operation or f"{method} {url.raw_path}"
        failure.attempts = attempts
        failure.elapsed = elapsed
        return failure

    # ----------------------------------------------------------------------------------- logon

    def _token_url(self) -> URL:
        return url_for(self.server.url, token_target(self._version or API_VERSIONS[-1]))

    def _first_in_line(self) -> Attempt | None:
        return self._logging_on

    async def _post_logon(self, fields: Sealed[dict[str, str]]) -> Reply:
        """A logon's answer, granted or refused; sent once more where the kept connection proves dead."""
        limit = self._options.connect_timeout + self._options.read_timeout
        for may_repeat in (True, False):
            attempt = self._pool.attempt(min(limit, self._options.deadline))
            try:
                async with attempt:
                    self._logging_on = attempt
                    reply = await self._pool.exchange(
                        attempt,
                        "POST",
                        self._token_url(),
                        tls=self.server.tls,
                        headers=_FORM,
                        body=token_form(fields, self._version or API_VERSIONS[-1]),
                    )
            except (PayloadError, UnreachableError) as error:
                self._logging_on = None
                stale = error.phase == "read" and not isinstance(error, ServerTimeoutError)
                if attempt.fresh or not stale or not may_repeat:
                    raise
            else:
                # Not where it was cancelled: whoever waited for it tells how far it had come.
                self._logging_on = None
                if reply.status != 200 and reply.status not in VERDICTS:  # noqa: PLR2004
                    raise refusal(reply, self._clock.now(), self._version)
                return reply
        raise AssertionError  # the second round returns or raises


def _refuses_token(reply: Reply) -> bool:
    # An empty success is how VB365 was seen to answer a token that it no longer accepts.
    return reply.status == 401 or (reply.status == 200 and not reply.body.strip())  # noqa: PLR2004


def _status(reply: Reply) -> int:
    return reply.status
