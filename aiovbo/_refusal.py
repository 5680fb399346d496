"""Answers that are no success to errors that say what to do, without the secrets that the answer repeats.

Knows statuses and the vendor's form of an error; no I/O, no clock.
"""

import json
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import product
from urllib.parse import quote, quote_plus

from attrs import evolve

from aiovbo._decode import decode_object
from aiovbo._wire import Reply, Sealed
from aiovbo.errors import (
    ConflictError,
    ForbiddenError,
    NotFoundError,
    PayloadError,
    RateLimitedError,
    ResponseError,
    ServerError,
    ServerFaultError,
    printable,
)

_SECRET_FIELDS = ("Authorization", "password", "assertion", "refresh_token")
_SHORTEST_SECRET = 4


def without_echo(reply: Reply, *sent: Sealed[dict[str, str]]) -> Reply:
    """The answer without the secrets that were sent: servers and proxies quote what they refuse."""
    if reply.status < 400:  # noqa: PLR2004  # no error, and nobody's error text
        return reply
    body = reply.body
    for one, name in product(sent, _SECRET_FIELDS):
        secret = one.content.get(name, "").removeprefix("Bearer ")
        if len(secret) >= _SHORTEST_SECRET:
            in_json = json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]
            for written in (secret, *in_json, quote(secret, safe=""), quote_plus(secret)):
                body = body.replace(written.encode(), b"***")
            body = _without(body, secret)
    return evolve(reply, body=body)


def _without(body: bytes, secret: str) -> bytes:
    """The body without a secret that was escaped more than we do, as .NET does with a plus."""
    members = (decode_object(body) or {}).items()
    # All that an error may quote.
    said = {name: text for name, text in members if isinstance(text, str)}
    if not any(secret in text for text in said.values()):
        return body
    return json.dumps({name: text.replace(secret, "***") for name, text in said.items()}).encode()


def refusal(reply: Reply, now: datetime, version: str | None = None) -> ServerError:
    """The error for an answer that is no success.

    Source: schema RESTExceptionInfo, v6 to v8, read 2026-11-23.
    """
    status = reply.status
    said = decode_object(reply.body) or {}
    message = _line(said.get("message")) or _line(said.get("error_description"))
    code = _line(said.get("errorCode")) or _line(said.get("error")) or None
    what = f"HTTP {status}" + (f", {message}" if message else "")
    if 300 <= status < 400:  # noqa: PLR2004  # the class of redirections
        return PayloadError(
            f"HTTP {status}, a redirect, which is never followed",
            retryable=False,
            hint="Give the address that it leads to, or mend the proxy in front of the server.",
        )
    if 200 <= status < 300:  # noqa: PLR2004  # the class of successes
        return PayloadError(f"HTTP {status} without the answer that was asked for")
    # A server that says in its own words what is wrong is the right one, and speaks this version.
    cls, hint = _kind_of(status, version, is_api=bool(message))
    error = cls(what, status=status, error_code=code, message=message, hint=hint)
    if isinstance(error, RateLimitedError | ServerFaultError):
        error.retry_after = _retry_after(reply.headers.get("Retry-After"), now)
        error.retryable = status in (429, 500, 502, 503, 504)
    return error


def _kind_of(  # noqa: PLR0911  # a table
    status: int, version: str | None, *, is_api: bool
) -> tuple[type[ResponseError], str]:
    match status:
        case 403:
            return ForbiddenError, "This account may not do that: ask for the rights, or use another."
        case 404 if version and not is_api:
            return NotFoundError, f"Does this server offer API {version}? api_version='auto' finds out."
        case 404:
            return NotFoundError, "Is it gone, or was it never there?"
        case 409:
            return ConflictError, "Its present state forbids it: look at it again before you repeat it."
        case 429:
            return RateLimitedError, "Ask this server less often."
        case _ if status >= 500:  # noqa: PLR2004  # the class of server faults
            return ServerFaultError, "The cause is in the server's log, or in the proxy before it."
        case _ if is_api:
            return ResponseError, "The server refuses what was asked for: ask for something else."
        case _:
            return ResponseError, "Is this the REST API of Veeam Backup for Microsoft 365?"


def _line(value: object) -> str:
    return printable(value) if isinstance(value, str) else ""


def _retry_after(header: str | None, now: datetime) -> float | None:
    if header is None:
        return None
    if re.fullmatch(r"\s*\d{1,12}\s*", header):
        return float(header)
    ahead = seconds_ahead(header, now)
    return None if ahead is None else max(0.0, ahead)


def seconds_ahead(date: str, now: datetime) -> float | None:
    """By how many seconds an HTTP date is later than `now`; None where it is no date."""
    try:
        then = parsedate_to_datetime(date)
    except (ValueError, OverflowError):
        return None
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    return (then - now).total_seconds()
