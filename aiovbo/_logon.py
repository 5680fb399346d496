"""The life of a server's token: obtained when first needed, renewed before it expires, replaced when refused.

Knows grants and clocks; how a logon is sent is handed in. Knows no aiohttp.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from attrs import frozen

from aiovbo._config import Assertion, Bearer, Options, Password, Secret, Server, can_be_sent
from aiovbo._deadline import Deadline, Operation
from aiovbo._grant import LOGON_REFUSED, checked_token, read_grant
from aiovbo._guard import LockoutGuard
from aiovbo._refusal import refusal
from aiovbo._single_flight import SingleFlight
from aiovbo._wire import Reply, Sealed
from aiovbo.errors import AuthenticationError, ConfigError, ServerTimeoutError

log = logging.getLogger("aiovbo.logon")

_MARGIN = 60.0
_ONE_WORD = "Nothing was sent. A token is one word, without 'Bearer' before it and a line's end after it."
_JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"


class Token:
    """A bearer token, shown to nobody."""

    __slots__ = ("_headers", "renew_at")

    def __init__(self, text: str, renew_at: float) -> None:
        self._headers = Sealed({"Authorization": f"Bearer {text}", "Accept": "application/json"})
        self.renew_at = renew_at
        """When to renew it, by the monotonic clock."""

    def headers(self, *, json: bool) -> Sealed[dict[str, str]]:
        """What a request carries; `json` where it has such a body."""
        return Sealed(self._headers.content | {"Content-Type": "application/json"}) if json else self._headers

    def __repr__(self) -> str:
        return "Token(***)"


@frozen
class _Refusal:
    """What was refused, when by the monotonic clock, and what there is to say of it."""

    form: Sealed[dict[str, str]]
    what: str
    hint: str
    at: float


class Logon:
    """One server's logon; many callers may want its token at once, and cost one request."""

    def __init__(
        self,
        server: Server,
        options: Options,
        guard: LockoutGuard,
        post: Callable[[Sealed[dict[str, str]]], Awaitable[Reply]],
        sign_of_life: Callable[[], Awaitable[None]],
    ) -> None:
        self._credentials = server.credentials
        self._server = server
        self._options = options
        self._guard = guard
        self._clock = options.clock
        self._post = post
        self._sign_of_life = sign_of_life
        self._calls: SingleFlight[Token] = SingleFlight()
        self.deadline = Deadline(options.deadline, options.clock)
        """The deadline of the login in progress: the latest one of the callers that wait for it."""
        self._token: Token | None = None
        self._refresh_token: str | None = None
        self._refusal: _Refusal | None = None
        self._doubtful_since = float("-inf")
        self.spoken: Sealed[dict[str, str]] = Sealed({})
        """The secrets that the server was told last, by which it may be caught repeating them."""
        self._asks_for: str | None = None

    async def token(self, operation: Operation) -> Token:
        """A token that is good now.

        Raises: AuthenticationError where the server refuses to log us on; other ServerErrors where it fails.
        """
        token = self._token
        if token is not None and self._clock.monotonic() < token.renew_at:
            return token
        return await self._calls.run("logon", operation, self._obtain)

    @property
    def ours(self) -> Token | None:
        """The token that this logon obtained, if there is one; not one that somebody else did."""
        return None if isinstance(self._credentials, Bearer) else self._token

    def overdue(self, timeout: ServerTimeoutError) -> ServerTimeoutError | AuthenticationError:
        """Whose trouble it is that no token came in time: a provider's, or the server's as it seemed."""
        if self._asks_for is None:
            return timeout
        return _provider_failed(self._asks_for, "it had given nothing when the deadline passed")

    def drop(self, token: Token) -> None:
        """Let go of `token`, which the server takes no more; a newer one stays, whatever came of an older."""
        if self._token is token:
            self._token = self._refresh_token = None
            self._doubtful_since = self._clock.monotonic()

    async def _obtain(self, operation: Operation) -> Token:
        self.deadline = operation.deadline
        self._token = self._asks_for = None
        token = await (
            self._ready_token(self._credentials)
            if isinstance(self._credentials, Bearer)
            else self._log_on(self._credentials)
        )
        self._token = token
        return token

    async def _ready_token(self, credentials: Bearer) -> Token:
        text = await self._reveal(credentials.token, "token")
        return Token(checked_token(text, phase="queue", hint=_ONE_WORD), float("inf"))

    async def _log_on(self, credentials: Password | Assertion) -> Token:
        refresh_token, self._refresh_token = self._refresh_token, None
        if refresh_token is not None:
            reply = await self._post(Sealed({"grant_type": "refresh_token", "refresh_token": refresh_token}))
            if reply.status not in LOGON_REFUSED:
                return self._take(reply)
            log.info("%s: the refresh token was refused, logging on anew", self._server.name)
            self._doubtful_since = self._clock.monotonic()
        form = await self._promising_form(credentials)
        reply = await self._post_guarded(credentials, form)
        if reply.status in LOGON_REFUSED:
            # A provider may have given what was true a moment ago; the same secret is not tried twice.
            refused, form = form, await self._newer_form(credentials, form)
            if form != refused:
                reply = await self._post_guarded(credentials, form)
        if reply.status in LOGON_REFUSED:
            raise self._refused(reply, form)
        return self._take(reply)

    async def _post_guarded(self, credentials: Password | Assertion, form: Sealed[dict[str, str]]) -> Reply:
        self.spoken = form
        told = credentials
        if isinstance(credentials, Password):
            told = Password(credentials.username, form.content["password"])
        return await self._guard.logon(
            self._server,
            told,
            lambda: self._post(form),
            self._sign_of_life,
            doubtful_since=self._doubtful_since,
        )

    def _take(self, reply: Reply) -> Token:
        grant = read_grant(reply)
        self._refresh_token = grant.refresh_token
        margin = min(_MARGIN, grant.lifetime / 10)
        return Token(grant.access_token, self._clock.monotonic() + grant.lifetime - margin)

    def _refused(self, reply: Reply, form: Sealed[dict[str, str]]) -> AuthenticationError:
        what = f"the logon was refused ({refusal(reply, self._clock.now()).what})"
        hint = (
            "Check the credentials, and that the account may use the REST API. It is not tried again for "
            f"{self._options.logon_cooldown:g} s by this process, since domain accounts lock."
        )
        self._refusal = _Refusal(form, what, hint, self._clock.monotonic())
        return AuthenticationError(what, hint=hint)

    async def _promising_form(self, credentials: Password | Assertion) -> Sealed[dict[str, str]]:
        """What to log on with.

        Raises: AuthenticationError where it was refused lately, or cannot be had.
        """
        lately = self._refusal
        if lately is None or self._clock.monotonic() - lately.at >= self._options.logon_cooldown:
            return await self._form(credentials)
        form = await self._newer_form(credentials, lately.form)
        if form == lately.form:
            raise AuthenticationError(lately.what, phase="queue", hint=lately.hint)
        return form

    async def _newer_form(
        self, credentials: Password | Assertion, refused: Sealed[dict[str, str]]
    ) -> Sealed[dict[str, str]]:
        """What the provider gives now; what was refused, where it fails or there is none."""
        try:
            return await self._form(credentials)
        except AuthenticationError:
            return refused

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
        except Exception as error:  # noqa: BLE001  # whatever it is, it is this server's trouble and no other's
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

    async def _form(self, credentials: Password | Assertion) -> Sealed[dict[str, str]]:
        """What is sent to log on.

        Source: operation token, v6 to v8, read 2026-11-23.
        """
        if isinstance(credentials, Password):
            return Sealed(
                {
                    "grant_type": "password",
                    "username": credentials.username,
                    "password": await self._reveal(credentials.password, "password"),
                }
            )
        return Sealed(
            {
                "grant_type": "operator" if credentials.operator else _JWT_BEARER,
                "client_id": credentials.client_id,
                "assertion": await self._reveal(credentials.assertion, "assertion"),
            }
        )


def _provider_failed(kind: str, problem: str) -> AuthenticationError:
    hint = "Nothing was sent to the server. Mend the provider, or give the secret itself."
    return AuthenticationError(f"the provider of its {kind} failed ({problem})", phase="queue", hint=hint)
