"""Requests to one server: its API version, a token on each, retries, and what went wrong.

May use `_auth`, `_transport` and below. Must not know resources or pages.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Hashable, Sequence
from copy import copy
from datetime import timedelta
from http import HTTPStatus
from typing import Any, TypeVar

from yarl import URL

from aiovbo._auth.lockout_guard import LockoutGuard
from aiovbo._auth.token_endpoint import ACCEPT
from aiovbo._auth.token_manager import Token, TokenManager
from aiovbo._client.retries import RetryCount, RetryPolicy, after_silence, is_too_large, may_repeat, smaller
from aiovbo._client.usage import Usage
from aiovbo._core.deadline import Operation, deadline_passed
from aiovbo._core.single_flight import SingleFlight
from aiovbo._core.status import ServerStatus, StatusRecorder
from aiovbo._protocol.documents import holds_json
from aiovbo._protocol.error_responses import error_from_response, redact_secrets
from aiovbo._protocol.messages import SUCCESS, Reply, Request
from aiovbo._protocol.requests import probe_target
from aiovbo._protocol.urls import url_for
from aiovbo._settings.api_versions import ApiVersion
from aiovbo._settings.credentials import Integration
from aiovbo._settings.limits import Options
from aiovbo._settings.servers import Server
from aiovbo._transport.endpoint import Endpoint
from aiovbo._transport.pool import HttpPool
from aiovbo._transport.request_timeout import RequestTimeout
from aiovbo.errors import (
    NotFoundError,
    PayloadError,
    Phase,
    ServerError,
    ServerTimeoutError,
    UnreachableError,
    printable,
)

log = logging.getLogger("aiovbo.requests")

R = TypeVar("R")

_TOLERATED_SKEW = 60.0
"""Seconds between a server's clock and ours that do not matter."""

_UNAUTHORIZED = HTTPStatus.UNAUTHORIZED
"""Looked up once, as every response is compared with it."""


class Requester:
    """Sends one server's requests."""

    def __init__(self, server: Server, options: Options, pool: HttpPool, guard: LockoutGuard) -> None:
        self._options = options
        self._clock = options.clock
        self._pool = pool
        self._guard = guard
        self.server: Server = server
        """Whom it queries."""
        self._status = StatusRecorder(server.name, options.clock.now, options.observer)
        self.endpoint: Endpoint = Endpoint(server, options, pool, self._status)
        """How the server is reached now."""
        self._token_manager = TokenManager(options, guard, self.endpoint)
        self._versions: SingleFlight[ApiVersion] = SingleFlight()
        self._retries = RetryPolicy(options)
        self._turns: asyncio.Semaphore | None = None
        self.usage: Usage = Usage(server.name)
        """What is in progress, and whether anything may begin."""
        self.checked_page: Sequence[object] = ()
        """The page of a listing after which a request for more was sent, and the server had no more."""
        self._former_urls: set[URL] = set()

    def replace(self, server: Server) -> None:
        """Query the same server at another address, or with other credentials or TLS, from now on.

        The token is kept where the credentials are the same, the API version where the address is.
        """
        former, self.server = self.server, server
        self.endpoint = self.endpoint.moved_to(server, self._options)
        if server.url != former.url:
            self._former_urls.add(former.url)
        self._versions = SingleFlight()
        manager = TokenManager(self._options, self._guard, self.endpoint)
        if server.credentials == former.credentials:
            manager.take_over(self._token_manager)
        self._token_manager = manager

    def _at_current_address(self, url: URL) -> URL:
        """The same URL at the current address: a listing may have begun at a former one."""
        for former in self._former_urls:
            prefix = former.raw_path.rstrip("/")
            if url.origin() == former.origin() and url.raw_path.startswith(f"{prefix}/"):
                return url_for(self.server.url, url.raw_path_qs.removeprefix(prefix))
        return url

    def clock_offset(self) -> timedelta | None:
        """How far the server's clock is ahead of ours; None where it is not known to be over a minute off."""
        skew = self.endpoint.clock_skew
        return None if skew is None or abs(skew) <= _TOLERATED_SKEW else timedelta(seconds=skew)

    def status(self) -> ServerStatus:
        """How the server has been doing."""
        return self._status.status(self.endpoint.version, self.endpoint.clock_skew)

    async def find_version(self, operation: Operation) -> ApiVersion:
        """The API version spoken: what was given, or the newest that the server offers, found once."""
        endpoint = self.endpoint
        if endpoint.version is None:
            url = endpoint.url(probe_target(endpoint.likely_version))
            # Where the server is replaced meanwhile, this is what its former address offers.
            found = await self.share(self._versions, operation.may_retry, operation, self._probe, url)
            endpoint.version = found
            return found
        return endpoint.version

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
                self.endpoint.annotate(
                    url, error, attempts=error.attempts, elapsed=self._clock.monotonic() - started
                )
                self._status.failure(error)
            raise

    async def _probe(self, operation: Operation) -> ApiVersion:
        usable = self.server.usable_versions
        for version in reversed(usable):
            url = self.endpoint.url(probe_target(version))
            probe = Request(url, expected=(200, 401, 403, 404), needs_token=False)
            status = await self.send(probe, operation, _status_of_probe)
            if status != HTTPStatus.NOT_FOUND:
                log.debug("%s offers %s", self.server.name, version)
                return version
        hint = "Check that this is the REST API of Veeam Backup for Microsoft 365."
        what = f"it offers none of the API versions {usable[0]} to {usable[-1]}"
        if isinstance(self.server.credentials, Integration):
            what += ", to which an integration token can log in"
            hint = "Use other credentials."
        raise self.endpoint.annotate(self.server.url, NotFoundError(what, status=404, hint=hint))

    async def send(self, request: Request, operation: Operation, read: Callable[[Reply], R]) -> R:
        """What `read` makes of the response, whatever it takes within the operation's limits.

        What changes something is sent again only where it cannot have arrived.

        Raises: ServerError, complete; ClosedError.
        """
        started = self._clock.monotonic()
        attempts, logins, renewed = 0, 0, False
        count: RetryCount | None = None
        was_unreachable = self.endpoint.was_unreachable
        self._retries.requests += 1
        with self.usage:
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
                        outcome = self._token_manager.rejection()
                if isinstance(outcome, Reply):
                    try:
                        result = self._judged(request, outcome, read)
                    except ServerError as error:
                        outcome = copy(error)
                    else:
                        self._status.success()
                        return result
                if count is None:
                    # Most likely it is still unreachable: the other tries would only cost time.
                    count = self._retries.begin(operation, may_retry=not was_unreachable)
                has_token = token is not None
                following = await self._following(request, outcome, count, operation, has_token=has_token)
                if following is None:
                    break
                request = following
        # Where the login failed, it is the login that was tried so often.
        of_login = bool(outcome.operation)
        tried, elapsed = logins if of_login else attempts, self._clock.monotonic() - started
        failure = self.endpoint.annotate(request.url, outcome, request.method, tried, elapsed)
        self._status.failure(failure, of_login=of_login)
        self.endpoint.was_unreachable |= _shows_unreachable(failure)
        # A copy, since what is raised gets a traceback: a caller that kept it would keep all its frames.
        raise copy(failure)

    def overdue(self, url: URL, operation: Operation, phase: Phase) -> ServerTimeoutError:
        """The error, complete, of an operation whose deadline has passed between two requests."""
        failure = deadline_passed(operation.options.deadline, phase)
        self.endpoint.annotate(url, failure, attempts=operation.attempts, elapsed=operation.deadline.spent())
        self._status.failure(failure)
        return failure

    async def log_out(self) -> None:
        """Give the token back where the API takes it; whatever happens, nothing is raised."""
        await self._token_manager.log_out()

    async def _send_once(
        self, request: Request, operation: Operation
    ) -> tuple[Reply | ServerError, Token | None, int]:
        """The response or the error, the token that went with it, and how often it was sent."""
        # Not once it closes: a new login would leave a token behind.
        self._pool.claim()
        token: Token | None = None
        url = self._at_current_address(request.url) if self._former_urls else request.url
        attempt = RequestTimeout(
            self._pool.attempts, operation.deadline, lambda: self._token_manager.in_progress
        )
        operation.phase = attempt.where
        headers = ACCEPT
        try:
            with attempt:
                token = await self._token_manager.token(operation) if request.needs_token else None
                if self._turns is None:
                    await self._pool.open()
                # Not in the branch above: while it opened, another request may have come this far.
                self._turns = self._turns or asyncio.Semaphore(self._pool.connections_per_server)
                async with self._turns:
                    if token is not None:
                        headers = token.headers if request.body is None else token.json_headers
                    reply = await self.endpoint.exchange(
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
            self.endpoint.record(attempt, request.method, url, failure)
        else:
            is_odd = reply.status not in request.expected
            self.endpoint.record(attempt, request.method, url, reply.status if is_odd else None)
            sent = (headers, self._token_manager.last_sent)
            reply = redact_secrets(reply, *sent, is_json=not request.body_is_optional)
            return reply, token, max(1, attempt.sent)
        if request.needs_token and token is None:
            failure = self._token_manager.failure_of(failure)
        self.endpoint.is_out_of_reach = isinstance(failure, UnreachableError)
        return failure, token, 0 if failure.phase == "queue" else max(1, attempt.sent)

    def _judged(self, request: Request, reply: Reply, read: Callable[[Reply], R]) -> R:
        if reply.status not in request.expected:
            if request.url.raw_path.lower().endswith("/restoresessions"):
                # Every version has this collection.
                self.endpoint.doubt_version(reply)
            raise error_from_response(reply, self._clock.now(), self.endpoint.given_version)
        if request.body_is_optional:
            return read(reply)
        if reply.status in SUCCESS and not reply.body.strip():
            hint = "Check the account's rights: servers respond to rejected tokens like this too."
            raise PayloadError("the response is empty", hint=hint)
        if reply.unknown_charset:
            charset = printable(reply.unknown_charset, 40)
            what = f"the response is in the charset {charset}, which is not supported"
            raise PayloadError(what, hint="Configure the server, or the proxy in front of it, to send UTF-8.")
        return read(reply)

    async def _following(
        self,
        request: Request,
        failure: ServerError,
        count: RetryCount,
        operation: Operation,
        *,
        has_token: bool,
    ) -> Request | None:
        """The request to send after one that failed, once it is time to; None where none may help."""
        if not may_repeat(request, failure, has_token=has_token):
            return None
        if is_too_large(failure):
            return smaller(request)
        url, method, tries = request.url, request.method, count.total + 1
        delay = self._retries.pause_before(
            failure,
            count,
            operation,
            lambda error: self.endpoint.annotate(url, error, method, tries),
        )
        if delay is None:
            return None
        sent, what = f"{method} {url.raw_path}", failure.what.rstrip(".")
        log.debug("%s: %s: %s; try %d in %.2f s", self.server.name, sent, what, count.total + 1, delay)
        self._status.retry(method, url.raw_path, failure, delay)
        try:
            with RequestTimeout(self._pool.attempts, operation.deadline):
                await self._clock.sleep(delay)
        except ServerTimeoutError:
            # The application blocked the event loop until the deadline: what failed before is the error.
            return None
        return after_silence(request, failure)


def _shows_unreachable(failure: ServerError) -> bool:
    """Whether no connection was possible, or it was cut; a response that is slow does not show it."""
    if isinstance(failure, ServerTimeoutError):
        return failure.phase in ("dns", "connect", "tls")
    return isinstance(failure, UnreachableError) and failure.phase not in ("decoding", "queue")


def _refuses_token(request: Request, reply: Reply) -> bool:
    # An empty success is how VB365 was seen to respond to a token that it no longer accepts. Where no body is
    # needed it is a result, and the request would do the same again.
    may_be_refusal = request.method == "GET" or (
        reply.status == HTTPStatus.OK and not request.body_is_optional
    )
    is_empty = may_be_refusal and reply.status in SUCCESS and not reply.body.strip()
    return is_empty or reply.status == _UNAUTHORIZED


def _status_of_probe(reply: Reply) -> int:
    if reply.status == HTTPStatus.OK and not holds_json(reply.body):
        hint = "Check whether a proxy, a login page or another product is at this address."
        raise PayloadError("the response to a request without a token is not a resource", hint=hint)
    return reply.status
