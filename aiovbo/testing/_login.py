"""Who is logged in: grants, token pairs, their life and their end.

Knows passwords, access tokens, refresh tokens and antiforgery cookies. Must not know the API's
resources or HTTP.
"""

import math
import secrets
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

import attrs

from aiovbo.testing._clock import AnyClock

_ENTROPY_BYTES = 96
_MINUTE = 60.0


@attrs.frozen
class Grant:
    """A token pair that was given out."""

    access_token: str = attrs.field(repr=False)
    refresh_token: str = attrs.field(repr=False)
    cookie: str | None = attrs.field(repr=False)
    """The antiforgery cookie that requests must bring along; None where the client waived it."""
    user_name: str
    issued: datetime
    lifetime: int
    """Seconds until the access token expires."""

    def body(self) -> dict[str, object]:
        """The response to the login.

        Source: OAuthTokenResponse, v6 to v8, 2026-11-23.
        """
        expires = self.issued + timedelta(seconds=self.lifetime)
        return {
            "access_token": self.access_token,
            "refresh_token": self.refresh_token,
            "token_type": "bearer",
            "expires_in": self.lifetime,
            "userName": self.user_name,
            ".issued": f"{self.issued:%Y-%m-%dT%H:%M:%SZ}",
            ".expires": f"{expires:%Y-%m-%dT%H:%M:%SZ}",
        }


@attrs.frozen
class Refusal:
    """A login that was refused, in OAuth's words."""

    error: str
    """`invalid_grant`, `invalid_request` or `unsupported_grant_type`."""
    description: str


class Throttle:
    """At most so many token requests in a minute, counted from the first one; rejected ones do not count."""

    def __init__(self, limit: int | None, monotonic: Callable[[], float]) -> None:
        self.limit = limit
        """Requests per minute; None for no limit."""
        self._monotonic = monotonic
        self._began = float("-inf")
        self._admitted = 0

    def seconds_to_wait(self) -> int:
        """0 where one more request is admitted, which counts it; otherwise the value of Retry-After."""
        if self.limit is None:
            return 0
        now = self._monotonic()
        if now - self._began >= _MINUTE:
            self._began, self._admitted = now, 0
        if self._admitted < self.limit:
            self._admitted += 1
            return 0
        return max(1, math.ceil(self._began + _MINUTE - now))


class LoginDesk:
    """Gives out token pairs and knows which are good; all a server knows about its users."""

    def __init__(  # each is one independent property of a server
        self,
        username: str,
        password: str,
        *,
        token_lifetime: int,
        lockout_after: int | None,
        assertions: Mapping[str, str],
        operators_only: bool,
        integration_token: str | None,
        clock: AnyClock,
    ) -> None:
        self._username = username
        self.password = password
        """What is accepted; a new one counts from the next login."""
        self._token_lifetime = token_lifetime
        self._lockout_after = lockout_after
        self._assertions = assertions
        self._operators_only = operators_only
        self._integration_token = integration_token
        self._clock = clock
        self._wrong_in_a_row = 0
        self._access: dict[str, tuple[float, str | None]] = {}
        self._refresh: dict[str, str] = {}
        self.logins = 0
        self.refused_logins = 0
        self.refreshes = 0

    def grant(self, form: Mapping[str, str], *, needs_cookie: bool, has_integration: bool) -> Grant | Refusal:
        """A token pair for a form, or why not."""
        grant_type = form.get("grant_type", "")
        known = {
            "password": self._password_grant,
            "refresh_token": self._refresh_grant,
            "urn:ietf:params:oauth:grant-type:jwt-bearer": self._assertion_grant,
            "operator": self._assertion_grant,
        }
        if has_integration:
            known["integration"] = self._integration_grant
        if self._operators_only and grant_type not in {"operator", "refresh_token"}:
            return Refusal("invalid_grant", "Only restore operators may log in.")
        if grant_type not in known:
            return Refusal("unsupported_grant_type", f"Grant type '{grant_type}' is not supported.")
        refusal = known[grant_type](form)
        return refusal or self._issue(needs_cookie=needs_cookie)

    def admits(self, access_token: str, cookies: Mapping[str, str], cookie_name: str) -> bool:
        """Whether a token is good now, together with its antiforgery cookie where it has one."""
        expires, cookie = self._access.get(access_token, (0.0, None))
        if self._clock.monotonic() >= expires:
            return False
        return cookie is None or cookies.get(cookie_name) == cookie

    def log_out(self, access_token: str) -> None:
        """End a token pair."""
        self._access.pop(access_token, None)
        pairs = list(self._refresh.items())
        self._refresh = {refresh: access for refresh, access in pairs if access != access_token}

    def expire(self) -> None:
        """Let every access token be over; the refresh tokens stay good."""
        self._access.clear()

    def revoke(self) -> None:
        """Let every access token and every refresh token be over."""
        self._access.clear()
        self._refresh.clear()

    def _password_grant(self, form: Mapping[str, str]) -> Refusal | None:
        locked = self._lockout_after is not None and self._wrong_in_a_row >= self._lockout_after
        # Windows accounts do not distinguish case.
        same_name = form.get("username", "").casefold() == self._username.casefold()
        if locked or not same_name or form.get("password") != self.password:
            self.refused_logins += 1
            self._wrong_in_a_row += 1
            why = "The account is locked out." if locked else "Incorrect user name or password."
            return Refusal("invalid_grant", why)
        self.logins += 1
        self._wrong_in_a_row = 0
        return None

    def _assertion_grant(self, form: Mapping[str, str]) -> Refusal | None:
        if self._assertions.get(form.get("client_id", "")) != form.get("assertion", ""):
            self.refused_logins += 1
            return Refusal("invalid_grant", "The assertion is invalid or expired.")
        self.logins += 1
        return None

    def _integration_grant(self, form: Mapping[str, str]) -> Refusal | None:
        token = form.get("integration_token", "")
        if not token or token != self._integration_token:
            self.refused_logins += 1
            return Refusal("invalid_grant", "The integration token is invalid.")
        self.logins += 1
        return None

    def _refresh_grant(self, form: Mapping[str, str]) -> Refusal | None:
        # Each refresh token is good once; the access token given with it lives on to its expiry.
        if self._refresh.pop(form.get("refresh_token", ""), None) is None:
            return Refusal("invalid_grant", "The refresh token is invalid or expired.")
        self.refreshes += 1
        return None

    def _issue(self, *, needs_cookie: bool) -> Grant:
        grant = Grant(
            access_token=secrets.token_urlsafe(_ENTROPY_BYTES),
            refresh_token=secrets.token_urlsafe(_ENTROPY_BYTES),
            cookie=secrets.token_urlsafe(_ENTROPY_BYTES) if needs_cookie else None,
            user_name=self._username,
            issued=self._clock.now(),
            lifetime=self._token_lifetime,
        )
        expires = self._clock.monotonic() + self._token_lifetime
        self._access[grant.access_token] = (expires, grant.cookie)
        self._refresh[grant.refresh_token] = grant.access_token
        return grant
