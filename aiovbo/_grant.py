"""What a logon is asked, and what its answer grants.

Knows forms and tokens; does no I/O, and has no clock: how long a token is good is counted from its receipt.
"""

import re
from urllib.parse import urlencode

from attrs import frozen

from aiovbo._config import ApiVersion
from aiovbo._decode import decode_object
from aiovbo._wire import Reply, Sealed
from aiovbo.errors import AuthenticationError, Phase

LOGON_REFUSED = (400, 401, 403)
"""How a server says that it will not log us on; anything else says nothing of the credentials."""

_LIFETIME = 3600.0
_SHORTEST, _LONGEST = 5.0, 30 * 86400.0


def token_target(version: ApiVersion) -> str:
    """Where a logon is sent."""
    return f"/{version}/token"


def token_form(fields: Sealed[dict[str, str]], version: ApiVersion) -> Sealed[bytes]:
    """The body of a logon.

    Source: operation token, v6 to v8, read 2026-11-23: from v7 on the answer also wants a cookie, unless
    the antiforgery token is declined.
    """
    extra = {"disable_antiforgery_token": "true"} if version in ("v7", "v8") else {}
    return Sealed(urlencode(fields.content | extra).encode())


@frozen(repr=False)
class Grant:
    """A token, how to renew it, and for how long it is good."""

    access_token: str
    refresh_token: str | None
    lifetime: float
    """Seconds from its receipt."""


def read_grant(reply: Reply) -> Grant:
    """The token in the answer to a logon.

    Source: schema OAuthTokenResponse, v6 to v8, read 2026-11-23.
    Raises: AuthenticationError where there is none that could be used.
    """
    members = decode_object(reply.body)
    if members is None or not isinstance(members.get("access_token"), str):
        raise _unusable("the logon was answered without a token")
    if str(members.get("token_type", "bearer")).lower() != "bearer":
        raise _unusable("the logon was answered with a token that is not of type 'bearer'")
    refresh = members.get("refresh_token")
    return Grant(
        checked_token(members["access_token"]),
        refresh if isinstance(refresh, str) and refresh else None,
        _seconds(members.get("expires_in")),
    )


_IS_IT_VBO = "Is this the REST API of Veeam Backup for Microsoft 365, and is it enabled?"


def checked_token(token: str, *, phase: Phase | None = None, hint: str = _IS_IT_VBO) -> str:
    """The token, if it can stand in a header.

    Raises: AuthenticationError where it cannot.
    """
    if not re.fullmatch(r"[\x21-\x7e]{1,65536}", token):
        what = "the token is empty, too long, or has characters that no header can have"
        raise AuthenticationError(what, phase=phase, hint=hint)
    return token


def _unusable(what: str) -> AuthenticationError:
    return AuthenticationError(what, hint=_IS_IT_VBO)


def _seconds(value: object) -> float:
    # The vendor's own example has it as a text.
    if isinstance(value, str) and re.fullmatch(r"\d{1,20}", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return _LIFETIME
    return min(max(float(value), _SHORTEST), _LONGEST)
