"""The form of a login, and the token in its response.

Knows forms and tokens; does no I/O, and has no clock: how long a token is good is counted from its receipt.
"""

import re
from urllib.parse import urlencode

from attrs import frozen

from aiovbo._protocol.documents import decode_object
from aiovbo._protocol.error_responses import kind_of_body
from aiovbo._protocol.messages import Redacted, Reply
from aiovbo._settings.api_versions import ApiVersion, supports
from aiovbo.errors import AuthenticationError, PayloadError, Phase

_LIFETIME = 3600.0
_SHORTEST, _LONGEST = 5.0, 30 * 86400.0


def token_target(version: ApiVersion) -> str:
    """Where a login is sent."""
    return f"/{version}/token"


def token_form(fields: Redacted[dict[str, str]], version: ApiVersion) -> Redacted[bytes]:
    """The body of a login.

    Source: operation token, v6 to v8, read 2026-11-23: from v7 on the response also requires a cookie, unless
    the antiforgery token is declined.
    """
    extra = {"disable_antiforgery_token": "true"} if supports(version, "antiforgery cookie") else {}
    return Redacted(urlencode(fields.content | extra).encode())


_SECRETS = {
    "integration": "Check that the integration token is one of this server",
    "operator": (
        "Check the client ID, that the assertion has not expired, and that the user is a restore operator"
    ),
    "password": (
        "Check the user name and password. Other causes: an account with multi-factor authentication must be "
        "marked as a service account"
    ),
}


def rejection_hint(fields: Redacted[dict[str, str]], version: ApiVersion) -> str:
    """What to check after the API rejected a login: the likely causes in this product.

    Source: vendor's help center, REST API v6 to v8, authorization, read 2026-11-23.
    """
    grant = fields.content.get("grant_type", "")
    hint = _SECRETS.get(grant, "Check the client ID, and that the assertion has not expired")
    if grant == "password" and supports(version, "administrator role"):
        hint += "; the account needs the Veeam Backup Administrator role"
    if any(value.endswith(("\n", "\r")) for value in fields.content.values()):
        hint = f"What was sent ends with a line break: remove it. {hint}"
    if grant in ("operator", "integration"):
        return f"{hint}."
    return (
        f"{hint}; the server may accept restore operators only; tenants' logins must be enabled, and work "
        "only with the account that added the organization."
    )


@frozen(repr=False)
class Grant:
    """A token, how to renew it, and for how long it is good."""

    access_token: str
    refresh_token: str | None
    lifetime: float
    """Seconds from its receipt."""


def read_grant(reply: Reply) -> Grant:
    """The token in the response to a login.

    Source: schema OAuthTokenResponse, v6 to v8, read 2026-11-23.
    Raises: PayloadError where it has no token that can be used.
    """
    members = decode_object(reply.body) or {}
    token = members.get("access_token")
    if not isinstance(token, str):
        raise _unusable("has no token, but " + kind_of_body(reply))
    if str(members.get("token_type", "bearer")).lower() != "bearer":
        raise _unusable("has a token that is not of type 'bearer'")
    if not _TOKEN.fullmatch(token):
        raise _unusable("has a token that is " + _INVALID)
    refresh = members.get("refresh_token")
    return Grant(
        token,
        refresh if isinstance(refresh, str) and refresh else None,
        _seconds(members.get("expires_in")),
    )


_IS_IT_VBO = "Check that this is the REST API of Veeam Backup for Microsoft 365, and that it is enabled."
_TOKEN = re.compile(r"[\x21-\x7e]{1,65536}")
_INVALID = "empty, too long, or has characters that no header can have"


def checked_token(token: str, *, phase: Phase, hint: str) -> str:
    """The token that the caller gave, if it can stand in a header.

    Raises: AuthenticationError where it cannot.
    """
    if not _TOKEN.fullmatch(token):
        raise AuthenticationError("the token is " + _INVALID, phase=phase, hint=hint)
    return token


def _unusable(what: str) -> PayloadError:
    return PayloadError(f"the response to the login {what}", hint=_IS_IT_VBO)


def _seconds(value: object) -> float:
    # The vendor's own example has it as a text.
    if isinstance(value, str) and re.fullmatch(r"\d{1,20}", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return _LIFETIME
    # Compared first: a number of 400 digits is no float.
    return float(min(max(value, _SHORTEST), _LONGEST))
