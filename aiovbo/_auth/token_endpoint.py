"""Requests for tokens to one server: the login itself, what is sent before it, and giving a token back.

May use `_transport` and below. Must not know which secret is tried when.
"""

import asyncio
import logging
from http import HTTPStatus

from aiovbo._auth.credential_verdicts import LoginTurn
from aiovbo._auth.token_throttle import TokenThrottle
from aiovbo._core.deadline import Deadline
from aiovbo._protocol.error_responses import is_throttled, login_error, redact_secrets
from aiovbo._protocol.messages import Redacted, Reply
from aiovbo._protocol.requests import probe_target
from aiovbo._protocol.tokens import Grant, read_grant, rejection_hint, token_form, token_target
from aiovbo._settings.api_versions import supports
from aiovbo._settings.limits import Options
from aiovbo._transport.endpoint import Endpoint
from aiovbo._transport.request_timeout import RequestTimeout
from aiovbo.errors import ClosedError, PayloadError, RateLimitedError, ServerError, ServerTimeoutError

log = logging.getLogger("aiovbo.requests")

LOGOUT = 1.0
"""Seconds that closing spends on giving a token back."""

ACCEPT = Redacted({"Accept": "application/json"})
"""The headers of a request without a token."""
_FORM = Redacted(ACCEPT.content | {"Content-Type": "application/x-www-form-urlencoded"})


class TokenEndpoint:
    """Sends what a login needs, and reports it."""

    def __init__(self, endpoint: Endpoint, options: Options, throttle: TokenThrottle) -> None:
        self._endpoint = endpoint
        self._clock = options.clock
        self._longest = options.connect_timeout + options.read_timeout
        self._throttle = throttle
        self.in_progress: RequestTimeout | None = None
        """The request for which all wait who need a token."""

    @property
    def has_responded(self) -> bool:
        """Whether the server has sent any response."""
        return self._endpoint.has_responded

    def annotate(self, failure: ServerError) -> None:
        """Complete the error of a login."""
        self._endpoint.annotate(
            self._endpoint.url(token_target(self._endpoint.likely_version)), failure, "POST"
        )

    async def probe(self, deadline: Deadline) -> None:
        """Return once the server has sent any response at all.

        Raises: ServerError where it does not.
        """
        endpoint = self._endpoint
        if endpoint.has_responded:
            return
        url = endpoint.url(probe_target(endpoint.likely_version))
        attempt = self._attempt(deadline)
        try:
            with attempt:
                await endpoint.exchange(attempt, "GET", url, headers=ACCEPT)
        except ServerError as error:
            self.in_progress = None
            endpoint.record(attempt, "GET", url, error)
            endpoint.annotate(url, error)
            raise
        self.in_progress = None
        endpoint.record(attempt, "GET", url, None)

    async def log_in(
        self, fields: Redacted[dict[str, str]], turn: LoginTurn | None, deadline: Deadline
    ) -> Grant:
        """What a login grants; sent once more where the kept connection proves dead.

        Raises: AuthenticationError where the API rejects the login; another ServerError where it fails.
        """
        endpoint = self._endpoint
        is_repeated = False
        while True:
            attempt = self._attempt(deadline)
            version = endpoint.likely_version
            url = endpoint.url(token_target(version))
            body = token_form(fields, version)
            try:
                with attempt:
                    reply = await endpoint.exchange(attempt, "POST", url, headers=_FORM, body=body)
            except ServerError as error:
                self.in_progress = None
                self._record(attempt, error)
                if turn is not None:
                    turn.count(error.phase)
                stale = error.phase == "read" and not isinstance(error, ServerTimeoutError)
                if attempt.fresh or not stale or is_repeated or not (turn is None or turn.may_repeat):
                    raise
                is_repeated = True
            except asyncio.CancelledError:
                # `in_progress` stays: a task that waited for it reports how far it came.
                if turn is not None:
                    turn.count(attempt.phase)
                raise
            else:
                self.in_progress = None
                # The throttle responds before the secret is looked at, and says for itself when to go on.
                if turn is not None and not (is_throttled(reply) and "Retry-After" in reply.headers):
                    turn.count("body")
                return self._granted(attempt, redact_secrets(reply, fields), fields)

    async def log_out(self, headers: Redacted[dict[str, str]]) -> None:
        """Give a token back where the API takes it (since v7); whatever happens, nothing is raised."""
        endpoint = self._endpoint
        if endpoint.version is None or not supports(endpoint.version, "logout"):
            return
        url = endpoint.url(f"{token_target(endpoint.version)}/logout")
        try:
            with RequestTimeout(endpoint.pool.attempts, Deadline(LOGOUT, self._clock)) as attempt:
                await endpoint.exchange(attempt, "POST", url, headers=headers)
        except (ServerError, ClosedError) as error:
            log.debug("%s: not logged out: %s", endpoint.server.name, error)

    def _attempt(self, deadline: Deadline) -> RequestTimeout:
        self.in_progress = RequestTimeout(self._endpoint.pool.attempts, deadline, most=self._longest)
        return self.in_progress

    def _granted(self, attempt: RequestTimeout, reply: Reply, sent: Redacted[dict[str, str]]) -> Grant:
        endpoint = self._endpoint
        if reply.status != HTTPStatus.OK:
            self._record(attempt, reply.status)
            hint = rejection_hint(sent, endpoint.likely_version)
            endpoint.doubt_version(reply)
            error = login_error(reply, self._clock.now(), endpoint.given_version, rejection_hint=hint)
            if isinstance(error, RateLimitedError):
                self._throttle.note(error)
            raise error
        try:
            grant = read_grant(reply)
        except PayloadError as error:
            self._record(attempt, error)
            raise
        self._record(attempt, None)
        return grant

    def _record(self, attempt: RequestTimeout, outcome: int | ServerError | None) -> None:
        endpoint = self._endpoint
        url = endpoint.url(token_target(endpoint.likely_version))
        endpoint.record(attempt, "POST", url, outcome)
        seconds = attempt.seconds
        if seconds is not None:
            endpoint.status.login(outcome, seconds)
