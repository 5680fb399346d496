"""Answers that are no success to errors that say what to do, without the secrets that the answer repeats.

Knows statuses and the vendor's form of an error; no I/O, no clock.
"""

import json
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from html import unescape
from itertools import product
from urllib.parse import quote, quote_plus

from attrs import evolve

from aiovbo._protocol.documents import decode_object, holds_json
from aiovbo._protocol.messages import Redacted, Reply
from aiovbo.errors import (
    AuthenticationError,
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


def redact_secrets(reply: Reply, *sent: Redacted[dict[str, str]]) -> Reply:
    """The answer without the secrets that were sent: servers and proxies quote what they refuse."""
    body = reply.body
    is_page = body.lstrip()[:1] == b"<"
    if reply.status < 400 and not is_page:  # noqa: PLR2004  # no error, and no text of one
        return reply
    for one, name in product(sent, _SECRET_FIELDS):
        secret = one.content.get(name, "").removeprefix("Bearer ")
        if len(secret) >= _SHORTEST_SECRET:
            in_json = json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]
            for written in (secret, *in_json, quote(secret, safe=""), quote_plus(secret)):
                body = body.replace(written.encode(), b"***")
            body = _without_in_page(body, secret) if is_page else _without(body, secret)
    return evolve(reply, body=body)


def _without(body: bytes, secret: str) -> bytes:
    """The body without a secret that was escaped more than we do, as .NET does with a plus."""
    members = (decode_object(body) or {}).items()
    # All that an error may quote.
    said = {name: text for name, text in members if isinstance(text, str)}
    if not any(secret in text for text in said.values()):
        return body
    return json.dumps({name: text.replace(secret, "***") for name, text in said.items()}).encode()


def _without_in_page(body: bytes, secret: str) -> bytes:
    """The web page without a secret, however its characters are escaped there."""
    text = unescape(body.decode("utf-8", "replace"))
    return text.replace(secret, "***").encode() if secret in text else body


def error_from_response(reply: Reply, now: datetime, version: str | None = None) -> ServerError:
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


REJECTED = (400, 401, 403)
"""Statuses with which the API rejects a login."""

_ERROR_MEMBERS = {"message", "errorcode", "stacktrace", "messagedetail", "exceptionmessage", "exceptiontype"}
"""Members of the API's error object, in lower case."""


def login_error(reply: Reply, now: datetime, version: str | None = None) -> ServerError:
    """The error for a login that was answered without success.

    Only the API's own words are a rejection. A proxy, a web filter or a login page may answer with the same
    statuses, and says nothing of the credentials.
    """
    error = error_from_response(reply, now, version)
    if reply.status in REJECTED and is_api_error(reply.body):
        hint = "Check the credentials, and that the account may use the REST API."
        return AuthenticationError(f"the login was rejected ({error.what})", hint=hint)
    if isinstance(error, ResponseError) and not is_api_error(reply.body):
        error.what = f"HTTP {reply.status}, but not from the API: {kind_of_body(reply)}"
        error.args = (error.what,)
        is_version = reply.status == 404 and version is not None  # noqa: PLR2004  # not found
        error.hint = (error.hint + " " if is_version else "") + (
            "A proxy, a web filter or another program may have answered. Check the address, the port and "
            "what is in front of the server."
        )
    return error


def is_api_error(body: bytes) -> bool:
    """Whether a body is an error object of the API, or one of OAuth.

    Source: schema RESTExceptionInfo, v6 to v8, read 2026-11-23; RFC 6749, section 5.2.
    """
    found = decode_object(body) or {}
    members = {name.lower(): value for name, value in found.items()}
    if isinstance(members.get("error"), str) and members["error"]:
        return True
    if not isinstance(members.get("message"), str):
        return False
    # Older versions send the message alone. Others send one too, but with members of their own.
    return "errorcode" in members or members.keys() <= _ERROR_MEMBERS


_TITLE = re.compile(rb"(?is)<title[^>]*>(.{1,1000}?)</title")


def kind_of_body(reply: Reply) -> str:
    """What a body is that is not the expected one, in a few words."""
    body = reply.body.removeprefix(b"\xef\xbb\xbf").strip()
    if not body:
        return "an empty body"
    if body[:1] == b"<":
        title = _TITLE.search(body)
        name = printable(unescape(title[1].decode("utf-8", "replace"))) if title else ""
        return f"a web page with the title {name!r}" if name else "a web page"
    if holds_json(body):
        return "JSON of another form"
    return "a text that is neither JSON nor a web page"


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
