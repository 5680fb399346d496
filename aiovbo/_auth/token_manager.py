"""The life of a server's token: obtained when first needed, renewed before it expires, replaced when refused.

Decides when to log in and with what. Must not know requests other than those for tokens.
"""

import asyncio
import logging
from copy import copy

from aiovbo._auth.credential_verdicts import CredentialVerdicts
from aiovbo._auth.lockout_guard import LockoutGuard
from aiovbo._auth.shared_logins import SharedLogins
from aiovbo._auth.token_endpoint import TokenEndpoint
from aiovbo._core.deadline import Deadline, Operation
from aiovbo._core.single_flight import SingleFlight
from aiovbo._protocol.error_responses import REJECTED
from aiovbo._protocol.messages import Redacted
from aiovbo._protocol.tokens import Grant, checked_token
from aiovbo._settings.credentials import Assertion, Bearer, Integration, Password, Secret, can_be_sent
from aiovbo._settings.limits import Options
from aiovbo._transport.endpoint import Endpoint
from aiovbo._transport.request_timeout import RequestTimeout
from aiovbo.errors import (
    AuthenticationError,
    ConfigError,
    RateLimitedError,
    ResponseError,
    ServerError,
    ServerTimeoutError,
)

log = logging.getLogger("aiovbo.login")

_Granted = Password | Assertion | Integration
"""Credentials that are exchanged for a token."""

_MARGIN = 60.0
_ONE_WORD = "Nothing was sent. A token is one word, without 'Bearer' before it and a line's end after it."
_JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"


class Token:
    """A bearer token, never shown."""

    __slots__ = ("headers", "json_headers", "renew_at", "text")

    def __init__(self, text: str, renew_at: float) -> None:
        headers = {"Authorization": f"Bearer {text}", "Accept": "application/json"}
        self.text: Redacted[str] = Redacted(text)
        self.headers: Redacted[dict[str, str]] = Redacted(headers)
        """The headers of a request without a body."""
        self.json_headers: Redacted[dict[str, str]] = Redacted(headers | {"Content-Type": "application/json"})
        """The headers of a request with a body."""
        self.renew_at: float = renew_at
        """When to renew it, by the monotonic clock."""

    def __repr__(self) -> str:
        return "Token(***)"


class TokenManager:
    """One server's login; many callers may want its token at once, and cost one request."""

    def __init__(
        self,
        options: Options,
        guard: LockoutGuard,
        endpoint: Endpoint,
    ) -> None:
        server = endpoint.server
        self._credentials = server.credentials
        self._server = server
        self._guard = guard
        self._throttle = guard.throttle(server)
        self._clock = options.clock
        self._endpoint = TokenEndpoint(endpoint, options, self._throttle)
        self._calls: SingleFlight[Token] = SingleFlight()
        self._deadline = Deadline(options.deadline, options.clock)
        # That of the login in progress: the latest one of the callers that wait for it.
        self._token: Token | None = None
        self._refresh_token: Redacted[str] | None = None
        self._last_tried: CredentialVerdicts | None = None
        self._doubtful_since = float("-inf")
        self._shared = guard.shared
        self._dropped: Redacted[str] | None = None
        """The access token that the server rejected last."""
        self.last_sent: Redacted[dict[str, str]] = Redacted({})
        """The secrets that were last sent to the server, by which it may be caught repeating them."""
        self._asks_for: str | None = None

    async def token(self, operation: Operation) -> Token:
        """A token that is good now.

        Raises: AuthenticationError where the API rejects the credentials; another ServerError where it fails.
        """
        token = self._token
        if token is not None and self._clock.monotonic() < token.renew_at:
            return token
        if not isinstance(self._credentials, Bearer) and self._shared is None:
            # Each caller by its own deadline: a login in progress may wait for longer than this one can.
            self._throttle.check(operation.deadline)
        return await self._calls.run("login", operation, self._obtain)

    async def log_out(self) -> None:
        """Give back the token that this login obtained; not one that others may use too."""
        token = self._token
        if token is not None and not isinstance(self._credentials, Bearer) and self._shared is None:
            self.drop(token)
            await self._endpoint.log_out(token.headers)

    @property
    def in_progress(self) -> RequestTimeout | None:
        """The request of a login for which all wait who need a token."""
        return self._endpoint.in_progress

    def failure_of(self, error: ServerError) -> ServerError:
        """The error, complete, of a request that got no token because of `error`."""
        failure = error
        if isinstance(error, ServerTimeoutError):
            if self._asks_for is not None:
                what = "it had given nothing when the deadline passed"
                failure = _provider_failed(self._asks_for, what)
            else:
                failure = self._throttle.rejection() or error
        if not isinstance(self._credentials, Bearer):
            self._endpoint.annotate(failure)
        return failure

    def rejection(self) -> AuthenticationError:
        """The error for a token that the server rejects although it is new."""
        if isinstance(self._credentials, Bearer):
            hint = (
                "Is it this server's, and has it expired? A Bearer cannot be renewed here: provide a new one."
            )
            return AuthenticationError("it refused the token that was given", hint=hint)
        hint = "Check the account's rights, and that the clocks of the servers agree."
        return AuthenticationError("it refused a token that it had just granted", hint=hint)

    def take_over(self, former: "TokenManager") -> None:
        """Keep what another manager of the same credentials has."""
        self._token, self._refresh_token = former._token, former._refresh_token  # noqa: SLF001  # its own class
        self._last_tried, self._doubtful_since = former._last_tried, former._doubtful_since  # noqa: SLF001
        self.last_sent = former.last_sent

    def drop(self, token: Token) -> None:
        """Discard `token`, which the server rejects; a newer one stays, whatever came of an older."""
        if self._token is token:
            self._dropped = token.text
            self._token = self._refresh_token = None
            self._doubtful_since = self._clock.monotonic()

    async def _obtain(self, operation: Operation) -> Token:
        self._deadline = operation.deadline
        self._token = self._asks_for = None
        token = await (
            self._ready_token(self._credentials)
            if isinstance(self._credentials, Bearer)
            else self._log_in(self._credentials)
        )
        self._token = token
        return token

    async def _ready_token(self, credentials: Bearer) -> Token:
        text = await self._reveal(credentials.token, "token")
        return Token(checked_token(text, phase="queue", hint=_ONE_WORD), float("inf"))

    async def _log_in(self, credentials: _Granted) -> Token:
        form: Redacted[dict[str, str]] | None = None
        if self._shared is not None:
            # Also after a login of this process: another one may have renewed the token since.
            form = await self._form_or_failure(credentials)
            token = await self._stored_token(self._shared, form)
            if token is not None:
                return token
        refresh_token, self._refresh_token = self._refresh_token, None
        if refresh_token is not None:
            token = await self._refresh(refresh_token, form)
            if token is not None:
                return token
            log.info("%s: the refresh token was rejected, logging in again", self._server.name)
            self._doubtful_since = self._clock.monotonic()
        return await self._log_in_with(credentials, form or await self._form_or_failure(credentials))

    async def _log_in_with(self, credentials: _Granted, form: Redacted[dict[str, str]]) -> Token:
        self._last_tried = verdicts = await self._guard.load(form)
        verdicts.check(self._server)
        try:
            return await self._take(await self._send(verdicts, form), form)
        except RateLimitedError:
            # Another process behind this address may have been let through.
            token = await self._stored_token(self._shared, form) if self._shared is not None else None
            if token is None:
                raise
            return token
        except (AuthenticationError, ResponseError) as error:
            if isinstance(error, ResponseError) and error.status not in REJECTED:
                raise
            failure = copy(error)
        # A provider may have given what was right a moment ago; the same secret is not sent twice.
        newer = await self._newer_form(credentials, form)
        if newer == form:
            raise failure
        self._last_tried = verdicts = await self._guard.load(newer)
        verdicts.check(self._server)
        return await self._take(await self._send(verdicts, newer), newer)

    async def _stored_token(self, shared: SharedLogins, form: Redacted[dict[str, str]]) -> Token | None:
        """A token of another process that is good now; its refresh token is kept where it is not."""
        grant = await shared.token(self._server, form)
        if grant is None or (self._dropped is not None and grant.access_token == self._dropped.content):
            return None
        token = self._token_of(grant)
        return token if self._clock.monotonic() < token.renew_at else None

    async def _refresh(
        self, refresh_token: Redacted[str], login: Redacted[dict[str, str]] | None
    ) -> Token | None:
        """A token for the refresh token; None where the server rejects that. `login` is for the store."""
        form = Redacted({"grant_type": "refresh_token", "refresh_token": refresh_token.content})
        try:
            await self._throttle.wait(self._deadline)
            return await self._take(await self._endpoint.log_in(form, None, self._deadline), login)
        except RateLimitedError:
            # The refresh token was not used, and is good for the next try.
            self._refresh_token = self._refresh_token or refresh_token
            raise
        except ServerError as error:
            is_rejected = isinstance(error, ResponseError) and error.status in REJECTED
            if is_rejected or isinstance(error, AuthenticationError):
                return None
            raise

    async def _send(self, verdicts: CredentialVerdicts, form: Redacted[dict[str, str]]) -> Grant:
        """What the server grants, once it may be sent the secret."""
        await self._throttle.wait(self._deadline)
        # A server that does not respond at all would keep the others waiting for its verdict.
        is_shared = self._guard.is_widely_shared(self._server.credentials)
        if self._endpoint.has_responded or not is_shared or verdicts.is_trusted(self._doubtful_since):
            return await self._send_in_turn(verdicts, form)
        async with verdicts.probed(self._server, self._doubtful_since) as must_probe:
            if must_probe:
                await self._endpoint.probe(self._deadline)
            return await self._send_in_turn(verdicts, form)

    async def _send_in_turn(self, verdicts: CredentialVerdicts, form: Redacted[dict[str, str]]) -> Grant:
        turn = await verdicts.turn(self._server, self._doubtful_since)
        self.last_sent = form
        try:
            with turn:
                # A login of another server at this address may have met the throttle meanwhile.
                self._throttle.check_now()
                return await self._endpoint.log_in(form, turn, self._deadline)
        finally:
            await self._guard.save(form, self._server, turn)

    async def _take(self, grant: Grant, form: Redacted[dict[str, str]] | None) -> Token:
        """The token that was granted, shared with other processes that know what the form contains."""
        token = self._token_of(grant)
        if self._shared is not None and form is not None:
            await self._shared.save_token(self._server, form, grant)
        return token

    def _token_of(self, grant: Grant) -> Token:
        # Redacted, as a traceback shows the locals of what uses it.
        self._refresh_token = Redacted(grant.refresh_token) if grant.refresh_token else None
        margin = min(_MARGIN, grant.lifetime / 10)
        return Token(grant.access_token, self._clock.monotonic() + grant.lifetime - margin)

    async def _form_or_failure(self, credentials: _Granted) -> Redacted[dict[str, str]]:
        """What to log in with.

        Raises: AuthenticationError where the provider fails; the error of the last try instead, while its
        cool-down lasts.
        """
        try:
            return await self._form(credentials)
        except AuthenticationError:
            if self._last_tried is not None:
                self._last_tried.check(self._server)
            raise

    async def _newer_form(
        self, credentials: _Granted, sent: Redacted[dict[str, str]]
    ) -> Redacted[dict[str, str]]:
        """What the provider gives now; what was sent, where it fails or there is none."""
        try:
            return await self._form(credentials)
        except AuthenticationError:
            return sent

    async def _reveal(self, secret: Secret, kind: str) -> str:
        """The secret's text, from its provider where it has one.

        Raises: AuthenticationError where that fails; without its words, which may hold the secret.
        """
        self._asks_for = kind
        try:
            text: object = await secret.reveal()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            problem = "what it waited for was cancelled"
        except ConfigError as error:
            # An inventory's: it names the place of the secret, and was made to be shown.
            problem = str(error)
        except Exception as error:  # whatever it is, it is this server's failure and no other's
            problem = f"it raised {type(error).__name__}"
        else:
            # What was given as a text is not the provider's fault, and judged where it is used.
            if isinstance(text, str) and (text or not secret.has_provider) and can_be_sent(text):
                self._asks_for = None
                return text
            what = "a text that is not UTF-8" if text else "an empty text"
            problem = f"it gave {what if isinstance(text, str) else type(text).__name__}"
        self._asks_for = None
        raise _provider_failed(kind, problem)

    async def _form(self, credentials: _Granted) -> Redacted[dict[str, str]]:
        """What is sent to log in.

        Source: operation token, v6 to v8, read 2026-11-23.
        """
        if isinstance(credentials, Password):
            return Redacted(
                {
                    "grant_type": "password",
                    "username": credentials.username,
                    "password": await self._reveal(credentials.password, "password"),
                }
            )
        if isinstance(credentials, Integration):
            return Redacted(
                {
                    "grant_type": "integration",
                    "integration_token": await self._reveal(
                        credentials.integration_token, "integration token"
                    ),
                }
            )
        return Redacted(
            {
                "grant_type": "operator" if credentials.operator else _JWT_BEARER,
                "client_id": credentials.client_id,
                "assertion": await self._reveal(credentials.assertion, "assertion"),
            }
        )


def _provider_failed(kind: str, problem: str) -> AuthenticationError:
    hint = "Nothing was sent to the server. Fix the provider, or give the secret itself."
    return AuthenticationError(f"the provider of its {kind} failed ({problem})", phase="queue", hint=hint)
