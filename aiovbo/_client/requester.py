"""Requests to one server: its API version, a token on each, retries, deadline, and what went wrong.

Knows how requests follow from each other; what they look like is in `_wire`, how they travel in `_http`.
Knows no resources.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Hashable
from copy import copy
from datetime import datetime, timedelta
from functools import partial
from http import HTTPStatus
from typing import Any, TypeVar

from attrs import define, evolve
from yarl import URL

from aiovbo._auth.lockout_guard import LockoutGuard, LoginTurn
from aiovbo._auth.token_manager import Token, TokenManager
from aiovbo._core.deadline import Deadline, Operation, deadline_passed
from aiovbo._core.single_flight import SingleFlight
from aiovbo._core.status import ServerStatus, StatusRecorder
from aiovbo._protocol.documents import holds_json
from aiovbo._protocol.error_responses import (
    error_from_response,
    is_throttled,
    login_error,
    redact_secrets,
    seconds_ahead,
)
from aiovbo._protocol.messages import SUCCESS, Redacted, Reply, Request
from aiovbo._protocol.requests import probe_target
from aiovbo._protocol.tokens import Grant, read_grant, rejection_hint, token_form, token_target
from aiovbo._protocol.urls import url_for
from aiovbo._settings.api_versions import ApiVersion, supports
from aiovbo._settings.credentials import Bearer, Integration
from aiovbo._settings.limits import Options
from aiovbo._settings.proxies import Proxy
from aiovbo._settings.retry import Retry
from aiovbo._settings.servers import TLS, Server
from aiovbo._transport.connections import ServerConnections
from aiovbo._transport.pool import HttpPool
from aiovbo._transport.request_timeout import RequestTimeout
from aiovbo.errors import (
    BEFORE_SENDING,
    AuthenticationError,
    ClosedError,
    NotFoundError,
    PayloadError,
    Phase,
    RateLimitedError,
    ResponseError,
    ServerError,
    ServerFaultError,
    ServerTimeoutError,
    UnreachableError,
    printable,
)

log = logging.getLogger("aiovbo.requests")

R = TypeVar("R")
E = TypeVar("E", bound=ServerError)

_SHORTEST_PAUSE = 0.1
"""Seconds before a retry that does not count against the limit of retries."""
_TOLERATED_SKEW = 60.0
"""Seconds between a server's clock and ours that do not matter."""

_CREDIT, _EARNED = 10.0, 0.1
"""Retries a server may cost at once, and what each request earns back: no flood answers an outage."""

LOGOUT = 1.0
"""Seconds that closing spends on giving a token back."""

_MAY_BE_DONE = " It may have been done all the same: look before you repeat it."

_ACCEPT = Redacted({"Accept": "application/json"})
_FORM = Redacted(_ACCEPT.content | {"Content-Type": "application/x-www-form-urlencoded"})


class Requester:
    """Sends one server's requests, whatever they ask for."""

    def __init__(self, server: Server, options: Options, pool: HttpPool, guard: LockoutGuard) -> None:
        self.server = server
        """Whom it asks."""
        self.options = options
        """Its limits."""
        self._clock = options.clock
        self._retry = Retry.of(options.retries)
        self._pool = pool
        self.version: ApiVersion | None = self._given_version
        """The API version spoken; None while it has not been found out."""
        self._versions: SingleFlight[ApiVersion] = SingleFlight()
        self._guard = guard
        self._token_manager = self._make_token_manager(server)
        self._throttle = guard.throttle(server)
        self._tally = StatusRecorder(server.name, options.clock.now, options.observer)
        self._has_answered = False
        self._skew: Callable[[], float | None] = lambda: None
        self.time_is_known = False
        """Whether the server has sent its time."""
        self.is_out_of_reach = False
        """Whether the last request found the server unreachable."""
        self._was_unreachable = False
        self._logging_on: RequestTimeout | None = None
        self._turns: asyncio.Semaphore | None = None
        self._credit = _CREDIT
        self._connections = ServerConnections(server.name)
        self._uses = 0
        self._when_idle: Callable[[], None] | None = None
        self.is_removed = False
        """Whether its fleet has removed the server: no further operation begins."""
        # To this server, over its own connections.
        self._exchange = self._exchange_with(server.tls, server.find_proxy())
        self._former_urls: set[URL] = set()

    def replace(self, server: Server) -> None:
        """Query the same server at another address, or with other credentials or TLS, from now on.

        The token is kept where the credentials are the same, the API version where the address is.
        """
        proxy = server.find_proxy()
        former, self.server = self.server, server
        if server.url != former.url:
            self._former_urls.add(former.url)
            self.version = None
            self._skew, self.time_is_known = lambda: None, False
        if self._given_version is not None or former.api_version != "auto":
            self.version = self._given_version
        self._versions = SingleFlight()
        self._has_answered = self.is_out_of_reach = self._was_unreachable = False
        manager = self._make_token_manager(server)
        if server.credentials == former.credentials:
            manager.take_over(self._token_manager)
        self._token_manager = manager
        self._throttle = self._guard.throttle(server)
        self._connections.close_idle()
        self._connections = ServerConnections(server.name, reads_files_again=True)
        self._exchange = self._exchange_with(server.tls, proxy)

    def _make_token_manager(self, server: Server) -> TokenManager:
        return TokenManager(
            server,
            self.options,
            self._guard,
            self._post_login,
            self._sign_of_life,
            lambda: self._has_answered,
        )

    def _exchange_with(self, tls: TLS, proxy: Proxy | None) -> Callable[..., Coroutine[Any, Any, Reply]]:
        return partial(self._pool.exchange, tls=tls, proxy=proxy, connections=self._connections)

    def _at_current_address(self, url: URL) -> URL:
        """The same URL at the current address: a listing may have begun at a former one."""
        for former in self._former_urls:
            prefix = former.raw_path.rstrip("/")
            if url.origin() == former.origin() and url.raw_path.startswith(f"{prefix}/"):
                return url_for(self.server.url, url.raw_path_qs.removeprefix(prefix))
        return url

    def _doubt_version(self, reply: Reply) -> None:
        """Where what every version has is not there, look for the version again the next time."""
        if reply.status == HTTPStatus.NOT_FOUND and self._given_version is None:
            self.version = None

    @property
    def _given_version(self) -> ApiVersion | None:
        """The version that the user chose, and may have to choose again."""
        return None if self.server.api_version == "auto" else self.server.api_version

    @property
    def likely_version(self) -> ApiVersion:
        """The API version spoken; the newest, while it has not been found out."""
        return self.version or self.server.usable_versions[-1]

    @property
    def clock_skew(self) -> float | None:
        """Seconds that the server's clock is ahead of ours; None while it has not reported its time."""
        return self._skew()

    def server_time(self, now: datetime) -> datetime:
        """The server's time at `now` where its clock is known to be over a minute off, else `now`."""
        skew = self._skew()
        return now if skew is None or abs(skew) <= _TOLERATED_SKEW else now + timedelta(seconds=skew)

    def status(self) -> ServerStatus:
        """How the server has been doing."""
        return self._tally.status(self.version, self.clock_skew)

    def begin_use(self) -> None:
        """Note that a request or a listing is in progress, which needs the token; followed by `end_use`."""
        self._uses += 1

    def end_use(self) -> None:
        """Note that it has ended."""
        self._uses -= 1
        if not self._uses and self._when_idle is not None:
            self._when_idle()

    @property
    def is_in_use(self) -> bool:
        """Whether a request or a listing is in progress."""
        return self._uses > 0

    def retire(self, when_idle: Callable[[], None]) -> None:
        """Begin no operation any more, and call `when_idle` each time when nothing is left in progress."""
        self.is_removed, self._when_idle = True, when_idle
        if not self._uses:
            when_idle()

    def check_not_removed(self, operation: Operation | None = None) -> None:
        """Return where an operation may go on: one that had begun before the server was removed may.

        Raises: ClosedError otherwise.
        """
        if self.is_removed and (operation is None or not operation.is_entered):
            message = (
                f"the server {self.server.name!r} was removed from its fleet: use the client that "
                "fleet.add(...) returns"
            )
            raise ClosedError(message)

    async def find_version(self, operation: Operation) -> ApiVersion:
        """The API version spoken: what was given, or the newest that the server offers, asked for once."""
        if self.version is None:
            url = url_for(self.server.url, probe_target(self.likely_version))
            server = self.server
            found = await self.share(self._versions, operation.may_retry, operation, self._probe, url)
            if server is not self.server:
                # It was replaced meanwhile.
                return found
            self.version = found
        return self.version

    async def share(
        self,
        flights: SingleFlight[R],
        key: Hashable,
        operation: Operation,
        call: Callable[[Operation], Coroutine[Any, Any, R]],
        url: URL,
    ) -> R:
        """The outcome of a call that all callers with the same key share, each until its own deadline.

        Raises: what `call` raises; ServerTimeoutError, complete.
        """
        # A call in another event loop could not be joined.
        self._pool.claim()
        started = self._clock.monotonic()
        try:
            return await flights.run(key, operation, call)
        except ServerTimeoutError as error:
            if not error.server:
                self.annotate(url, error, attempts=error.attempts, elapsed=self._clock.monotonic() - started)
                self._tally.failure(error)
            raise

    async def _probe(self, operation: Operation) -> ApiVersion:
        usable = self.server.usable_versions
        for version in reversed(usable):
            url = url_for(self.server.url, probe_target(version))
            probe = Request(url, expected=(200, 401, 403, 404), needs_token=False)
            status = await self.send(probe, operation, _status_of_probe)
            if status != HTTPStatus.NOT_FOUND:
                log.debug("%s offers %s", self.server.name, version)
                return version
        hint = "Is this the REST API of Veeam Backup for Microsoft 365?"
        what = f"it offers none of the API versions {usable[0]} to {usable[-1]}"
        if isinstance(self.server.credentials, Integration):
            what += ", to which an integration token can log in"
            hint = "Use other credentials."
        raise self.annotate(self.server.url, NotFoundError(what, status=404, hint=hint))

    async def send(self, request: Request, operation: Operation, read: Callable[[Reply], R]) -> R:
        """What `read` makes of the answer, whatever it takes within the operation's limits.

        What changes something is sent again only where it cannot have arrived.

        Raises: ServerError, complete; ClosedError.
        """
        self.begin_use()
        try:
            return await self._send(request, operation, read)
        finally:
            self.end_use()

    async def _send(self, request: Request, operation: Operation, read: Callable[[Reply], R]) -> R:
        clock = self._clock
        started = clock.monotonic()
        self._credit = min(_CREDIT, self._credit + _EARNED)
        attempts, logins, renewed = 0, 0, False
        retries: _Retries | None = None
        was_unreachable = self._was_unreachable
        while True:
            outcome, token, sent = await self._send_once(request, operation)
            attempts += sent
            logins += 0 if token else sent
            operation.attempts += sent
            if isinstance(outcome, Reply) and token is not None and _refuses_token(request, outcome):
                if not renewed:
                    self._token_manager.drop(token)
                    renewed = True
                    continue
                if outcome.status == HTTPStatus.UNAUTHORIZED:
                    outcome = self._token_refused()
            if isinstance(outcome, Reply):
                try:
                    answer = self._judged(request, outcome, read)
                except ServerError as error:
                    outcome = copy(error)
                else:
                    self._tally.success()
                    return answer
            if retries is None:
                # Most likely it is still unreachable: the other tries would only cost time.
                retries = _Retries(0 if was_unreachable else self._policy(operation).attempts - 1)
            has_token = token is not None
            following = await self._following(request, outcome, retries, operation, has_token=has_token)
            if following is None:
                break
            request = following
        # Where the login failed, it is the login that was tried so often.
        of_login = bool(outcome.operation)
        tried = logins if of_login else attempts
        failure = self.annotate(request.url, outcome, request.method, tried, clock.monotonic() - started)
        self._tally.failure(failure, of_login=of_login)
        self._was_unreachable |= _shows_unreachable(failure)
        # A copy, since what is raised gets a traceback: a caller that kept it would keep all its frames.
        raise copy(failure)

    def overdue(self, url: URL, operation: Operation, phase: Phase) -> ServerTimeoutError:
        """The error, complete, of an operation whose deadline has passed between two requests."""
        failure = deadline_passed(operation.options.deadline, phase)
        self.annotate(url, failure, attempts=operation.attempts, elapsed=operation.deadline.spent())
        self._tally.failure(failure)
        return failure

    async def log_out(self) -> None:
        """Give the token back where the API takes it (since v7); whatever happens, nothing is raised."""
        token = self._token_manager.ours
        if token is None or self.version is None or not supports(self.version, "logout"):
            return
        self._token_manager.drop(token)
        url = url_for(self.server.url, f"{token_target(self.version)}/logout")
        try:
            with self._pool.attempt(Deadline(LOGOUT, self._clock)) as attempt:
                headers = token.headers(json=False)
                await self._exchange(attempt, "POST", url, headers=headers)
        except (ServerError, ClosedError) as error:
            log.debug("%s: not logged out: %s", self.server.name, error)

    async def _send_once(
        self, request: Request, operation: Operation
    ) -> tuple[Reply | ServerError, Token | None, int]:
        """The answer or the error, the token that went with it, and how often it was sent."""
        # Not once it closes: a new login would leave a token behind.
        self._pool.claim()
        token: Token | None = None
        url = self._at_current_address(request.url) if self._former_urls else request.url
        attempt = self._pool.attempt(operation.deadline, self._first_in_line)
        operation.phase = attempt.where
        try:
            with attempt:
                token = await self._token_manager.token(operation) if request.needs_token else None
                if self._turns is None:
                    await self._pool.open()
                # Not in the branch above: while it opened, another request may have come this far.
                self._turns = self._turns or asyncio.Semaphore(self._pool.connections)
                async with self._turns:
                    headers = token.headers(json=request.body is not None) if token else _ACCEPT
                    reply = await self._exchange(
                        attempt,
                        request.method,
                        url,
                        headers=headers,
                        body=request.body,
                        may_be_large=request.may_be_large,
                    )
        except ServerError as error:
            # A copy has no traceback and no context, where aiohttp's own errors would print the token.
            failure = copy(error)
            self._count(attempt, request.method, url, failure)
        else:
            is_odd = reply.status not in request.expected
            self._count(attempt, request.method, url, reply.status if is_odd else None)
            self._has_answered, self.is_out_of_reach, self._was_unreachable = True, False, False
            date = reply.headers.get("Date")
            if date is not None:
                self._skew = partial(seconds_ahead, date, self._clock.now())
                self.time_is_known = True
            return redact_secrets(reply, headers, self._token_manager.last_sent), token, max(1, attempt.sent)
        if request.needs_token and token is None:
            if isinstance(failure, ServerTimeoutError):
                failure = self._token_manager.overdue(failure)
            if not isinstance(self.server.credentials, Bearer):
                self.annotate(self._token_url(), failure, "POST")
        self.is_out_of_reach = isinstance(failure, UnreachableError)
        return failure, token, 0 if failure.phase == "queue" else max(1, attempt.sent)

    def _token_refused(self) -> AuthenticationError:
        if isinstance(self.server.credentials, Bearer):
            hint = (
                "Is it this server's, and has it expired? A Bearer cannot be renewed here: provide a new one."
            )
            return AuthenticationError("it refused the token that was given", hint=hint)
        hint = "Does the account have the rights, and do the clocks of the servers agree?"
        return AuthenticationError("it refused a token that it had just granted", hint=hint)

    def _count(
        self, attempt: RequestTimeout, method: str, url: URL, outcome: int | ServerError | None
    ) -> None:
        """Report how a try has ended: None where as it should."""
        seconds = attempt.seconds
        if seconds is not None:
            self._tally.request(method, url.raw_path, outcome, seconds)
            how = "answered" if outcome is None else f"HTTP {outcome}"
            if isinstance(outcome, ServerError):
                how = outcome.what
            log.debug("%s: %s %s: %s (%.2f s)", self.server.name, method, url.raw_path, how, seconds)

    def _count_login(self, attempt: RequestTimeout, outcome: int | ServerError | None) -> None:
        self._count(attempt, "POST", self._token_url(), outcome)
        seconds = attempt.seconds
        if seconds is not None:
            self._tally.login(outcome, seconds)

    def _judged(self, request: Request, reply: Reply, read: Callable[[Reply], R]) -> R:
        if reply.status not in request.expected:
            if request.url.raw_path.lower().endswith("/restoresessions"):
                # Every version has this collection.
                self._doubt_version(reply)
            raise error_from_response(reply, self._clock.now(), self._given_version)
        if request.body_is_optional:
            return read(reply)
        if reply.status in SUCCESS and not reply.body.strip():
            hint = "Rejected tokens are answered like that too: check the account's rights."
            raise PayloadError("the answer is empty", hint=hint)
        if reply.unknown_charset:
            charset = printable(reply.unknown_charset, 40)
            what = f"the response is in the charset {charset}, which is not supported"
            raise PayloadError(what, hint="Let the server, or the proxy in front of it, send UTF-8.")
        return read(reply)

    async def _following(
        self,
        request: Request,
        failure: ServerError,
        retries: "_Retries",
        operation: Operation,
        *,
        has_token: bool,
    ) -> Request | None:
        """The request to send after one that failed, once it is time to; None where none may help."""
        arrived = has_token and failure.phase not in BEFORE_SENDING
        if arrived and not request.may_repeat:
            failure.hint += _MAY_BE_DONE if failure.retryable else ""
            return None
        if isinstance(failure, ResponseError) and failure.status == 413:  # noqa: PLR2004  # content too large
            return _smaller(request)
        if not await self._worth_a_retry(request, failure, retries, operation):
            return None
        is_silent = isinstance(failure, ServerTimeoutError) and failure.phase in ("read", "body")
        return (_smaller(request) if is_silent else None) or request

    def _policy(self, operation: Operation) -> Retry:
        """How the operation retries, which may have limits of its own."""
        own = operation.options.retries
        return self._retry if own is self.options.retries else Retry.of(own)

    async def _worth_a_retry(
        self, request: Request, failure: ServerError, retries: "_Retries", operation: Operation
    ) -> bool:
        """Wait for the backoff, if another try is allowed and may help."""
        if not failure.retryable or not operation.may_retry:
            return False
        retry_after: float | None = None
        if isinstance(failure, RateLimitedError | ServerFaultError):
            retry_after = failure.retry_after
        # Not of the login: how often a secret is sent has limits of its own.
        is_uncounted = isinstance(failure, RateLimitedError) and not (retry_after or failure.operation)
        policy = self._policy(operation)
        if is_uncounted and policy.attempts > 1:
            delay = max(_SHORTEST_PAUSE, policy.delay(retries.of_rate_limit, self._clock.random()))
        elif retries.counted < retries.most and self._credit >= 1:
            delay = retry_after or policy.delay(retries.counted, self._clock.random())
        else:
            return False
        done = retries.counted + retries.of_rate_limit
        if delay >= operation.deadline.left() or not self._is_permitted(request, failure, done, policy):
            return False
        if is_uncounted:
            retries.of_rate_limit += 1
        else:
            self._credit -= 1
            retries.counted += 1
        asked, what = f"{request.method} {request.url.raw_path}", failure.what.rstrip(".")
        number = retries.counted + retries.of_rate_limit + 1
        log.debug("%s: %s: %s; try %d in %.2f s", self.server.name, asked, what, number, delay)
        self._tally.retry(request.method, request.url.raw_path, failure, delay)
        try:
            with self._pool.attempt(operation.deadline):
                await self._clock.sleep(delay)
        except ServerTimeoutError:
            # The application blocked the event loop until the deadline: what failed before is the error.
            return False
        return True

    def _is_permitted(self, request: Request, failure: ServerError, retries: int, policy: Retry) -> bool:
        """Whether the caller's own policy permits a retry that is safe and has time."""
        decide = policy.decide
        # A copy, since the caller may keep it.
        return decide is None or decide(
            self.annotate(request.url, copy(failure), request.method, retries + 1)
        )

    def annotate(
        self,
        url: URL,
        failure: E,
        method: str = "GET",
        attempts: int = 1,
        elapsed: float = 0.0,
    ) -> E:
        """The failure, with what only we know: whom we asked for what, and how often."""
        failure.server = self.server.name
        failure.operation = failure.operation or f"{method} {url.raw_path}"
        failure.attempts = attempts
        failure.elapsed = elapsed
        return failure

    # ----------------------------------------------------------------------------------- login

    def _token_url(self) -> URL:
        return url_for(self.server.url, token_target(self.likely_version))

    def _first_in_line(self) -> RequestTimeout | None:
        return self._logging_on

    async def _sign_of_life(self) -> None:
        """Nothing, once the server has answered anything at all.

        Raises: ServerError where it does not.
        """
        if not self._has_answered:
            url = url_for(self.server.url, probe_target(self.likely_version))
            attempt = self._first_attempt()
            try:
                with attempt:
                    await self._exchange(attempt, "GET", url, headers=_ACCEPT)
            except ServerError as error:
                self._logging_on = None
                self._count(attempt, "GET", url, error)
                self.annotate(url, error)
                raise
            self._logging_on = None
            self._count(attempt, "GET", url, None)
            self._has_answered = True

    def _first_attempt(self) -> RequestTimeout:
        """The try that all wait for who want to be logged in."""
        limit = self.options.connect_timeout + self.options.read_timeout
        self._logging_on = self._pool.attempt(self._token_manager.deadline, most=limit)
        return self._logging_on

    async def _post_login(self, fields: Redacted[dict[str, str]], turn: LoginTurn | None) -> Grant:
        """What a login grants; sent once more where the kept connection proves dead.

        Raises: AuthenticationError where the API rejects the login; another ServerError where it fails.
        """
        is_repeated = False
        while True:
            attempt = self._first_attempt()
            try:
                with attempt:
                    reply = await self._exchange(
                        attempt,
                        "POST",
                        self._token_url(),
                        headers=_FORM,
                        body=token_form(fields, self.likely_version),
                    )
            except ServerError as error:
                self._logging_on = None
                self._count_login(attempt, error)
                if turn is not None:
                    turn.count(error.phase)
                stale = error.phase == "read" and not isinstance(error, ServerTimeoutError)
                if attempt.fresh or not stale or is_repeated or not (turn is None or turn.may_repeat):
                    raise
                is_repeated = True
            except asyncio.CancelledError:
                # `_logging_on` stays: a task that waited for it reports how far it came.
                if turn is not None:
                    turn.count(attempt.phase)
                raise
            else:
                self._logging_on = None
                # The throttle answers before the secret is looked at, and says for itself when to go on.
                if turn is not None and not (is_throttled(reply) and "Retry-After" in reply.headers):
                    turn.count("body")
                return self._granted(attempt, redact_secrets(reply, fields), fields)

    def _granted(self, attempt: RequestTimeout, reply: Reply, sent: Redacted[dict[str, str]]) -> Grant:
        if reply.status != HTTPStatus.OK:
            self._count_login(attempt, reply.status)
            hint = rejection_hint(sent, self.likely_version)
            self._doubt_version(reply)
            error = login_error(reply, self._clock.now(), self._given_version, rejection_hint=hint)
            if isinstance(error, RateLimitedError):
                self._throttle.note(error)
            raise error
        try:
            grant = read_grant(reply)
        except PayloadError as error:
            self._count_login(attempt, error)
            raise
        self._count_login(attempt, None)
        return grant


@define
class _Retries:
    """How often one request was sent again so far."""

    most: int
    """Most of those that count."""
    counted: int = 0
    of_rate_limit: int = 0
    """After a rate limit that does not say how long it lasts: only the deadline limits these."""


def _smaller(request: Request) -> Request | None:
    """A request for a smaller part of the same, where there is one."""
    url = request.smaller() if request.smaller is not None else None
    return None if url is None else evolve(request, url=url)


def _shows_unreachable(failure: ServerError) -> bool:
    """Whether no connection was possible, or it was cut; a response that is slow does not show it."""
    if isinstance(failure, ServerTimeoutError):
        return failure.phase in ("dns", "connect", "tls")
    return isinstance(failure, UnreachableError) and failure.phase not in ("decoding", "queue")


def _refuses_token(request: Request, reply: Reply) -> bool:
    # An empty success is how VB365 was seen to answer a token that it no longer accepts. Where no body is
    # needed it is a result, and the request would do the same again.
    may_be_refusal = request.method == "GET" or (
        reply.status == HTTPStatus.OK and not request.body_is_optional
    )
    is_empty = may_be_refusal and reply.status in SUCCESS and not reply.body.strip()
    return is_empty or reply.status == HTTPStatus.UNAUTHORIZED


def _status_of_probe(reply: Reply) -> int:
    if reply.status == HTTPStatus.OK and not holds_json(reply.body):
        hint = "Is there a proxy, a login page or another product at this address?"
        raise PayloadError("asked without a token, it answered with something that is no resource", hint=hint)
    return reply.status
