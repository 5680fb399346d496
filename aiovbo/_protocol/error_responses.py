"""Responses that are not a success, as errors that state what to do; without the secrets that they repeat.

Knows statuses and the vendor's form of an error; no I/O, no clock.
"""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from html import unescape
from http import HTTPStatus
from itertools import product
from typing import cast
from urllib.parse import quote, quote_plus

from attrs import evolve

from aiovbo._protocol.documents import decode_document, decode_object, holds_json
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

_SECRET_FIELDS = ("Authorization", "password", "assertion", "refresh_token", "integration_token")
_SHORTEST_SECRET = 4


def redact_secrets(reply: Reply, *sent: Redacted[dict[str, str]], is_json: bool = True) -> Reply:
    """The response without the secrets that were sent: servers and proxies quote what they reject.

    - `is_json`: whether it should be JSON. Of a web page in its place, only the beginning is kept then.
    """
    body = reply.body
    # Nearly always it is JSON, which is not looked at any further.
    is_page = body[:1] not in b"[{" and _is_page(body)
    if reply.status < HTTPStatus.BAD_REQUEST and not is_page:
        return reply
    is_cut = is_page and is_json and len(body) > 2 * _TITLE_WITHIN
    if is_cut:
        body = body[: 2 * _TITLE_WITHIN]
    found = [one.content.get(name, "").removeprefix("Bearer ") for one, name in product(sent, _SECRET_FIELDS)]
    # Most ways to write a secret are the same.
    for secret in dict.fromkeys(found):
        if len(secret) >= _SHORTEST_SECRET:
            ways = (secret, *_in_json(secret), quote(secret, safe=""), quote_plus(secret))
            for written in dict.fromkeys(ways):
                body = body.replace(written.encode(), b"***")
            body = _without_in_page(body, secret) if is_page else _without(body, secret)
    # A secret may lie across the place where it was cut: what is near it is not kept.
    return evolve(reply, body=body[:-_TITLE_WITHIN] if is_cut else body)


def _in_json(secret: str) -> tuple[str, str]:
    """The secret as JSON has it in a text."""
    return json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]


def _without(body: bytes, secret: str) -> bytes:
    """The body without a secret that is escaped in another way than ours, as .NET escapes a plus."""
    document = decode_document(body)
    redacted = _redacted(document, secret, _DEEPEST)
    return body if redacted == document else json.dumps(redacted).encode()


_DEEPEST = 8
"""Levels of a document that an error may quote."""


def _redacted(value: object, secret: str, levels: int) -> object:
    match value:
        case str():
            # A text may quote a request that was JSON itself.
            for written in (secret, *_in_json(secret)):
                value = value.replace(written, "***")
            return value
        case dict() | list() if not levels:
            return None
        case dict():
            members = cast("dict[str, object]", value)
            return {
                name.replace(secret, "***"): _redacted(member, secret, levels - 1)
                for name, member in members.items()
            }
        case list():
            return [_redacted(item, secret, levels - 1) for item in cast("list[object]", value)]
        case _:
            return value


def _without_in_page(body: bytes, secret: str) -> bytes:
    """The web page without a secret, however its characters are escaped there."""
    text = unescape(body.decode("utf-8", "replace"))
    return text.replace(secret, "***").encode() if secret in text else body


def error_from_response(reply: Reply, now: datetime, version: str | None = None) -> ServerError:
    """The error for a response that is not a success.

    Source: schema RESTExceptionInfo, v6 to v8, read 2026-11-23.
    """
    status = reply.status
    said = _members(reply.body)
    message = _words_of(reply)
    code = _line(said.get("errorcode")) or _line(said.get("error")) or None
    words = message or code or ""
    # The title of a page often begins with the status.
    what = f"HTTP {words}" if words.startswith(f"{status} ") else f"HTTP {status}"
    if words and what == f"HTTP {status}":
        what += f", {words}"
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        return PayloadError(
            f"HTTP {status}, a redirect, which is never followed",
            retryable=False,
            hint="Give the address that it leads to, or fix the proxy in front of the server.",
        )
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return PayloadError(f"HTTP {status} without the resource that was requested")
    # A server that says in its own words what is wrong is the right one, and speaks this version.
    own = _line(said.get("message")) or _line(said.get("error_description"))
    is_api = bool(own) and "no http resource was found" not in own.lower()
    cls, hint = _kind_of(status, version, is_api=is_api)
    error = cls(what, status=status, error_code=code, message=message, hint=_special_hint(reply) or hint)
    if isinstance(error, RateLimitedError | ServerFaultError):
        error.retry_after = _retry_after(reply.headers.get("Retry-After"), now)
        error.retryable = status in (429, 500, 502, 503, 504)
    return error


REJECTED = (400, 401, 403)
"""Statuses with which the API rejects a login."""

_ERROR_MEMBERS = {"message", "errorcode", "stacktrace", "messagedetail", "exceptionmessage", "exceptiontype"}
"""Members of the API's error object, in lower case."""


def is_throttled(reply: Reply) -> bool:
    """Whether the server's throttle of logins sent this response: the login was not processed.

    It is a JSON string, not an error object.
    """
    return reply.status == HTTPStatus.TOO_MANY_REQUESTS and bool(_throttle_said(reply.body))


def _throttle_said(body: bytes) -> str:
    return _line(decode_document(body))


def login_error(
    reply: Reply, now: datetime, version: str | None = None, *, rejection_hint: str = ""
) -> ServerError:
    """The error for a login whose response is not a success; `rejection_hint` is for a rejection.

    Only the API's own words are a rejection. A proxy, a web filter or a login page may respond with the same
    statuses, and says nothing of the credentials.
    """
    error = error_from_response(reply, now, version)
    if reply.status in REJECTED and is_api_error(reply.body):
        return AuthenticationError(f"the login was rejected ({error.what})", hint=rejection_hint)
    if isinstance(error, ResponseError) and is_throttled(reply):
        error.message = _throttle_said(reply.body)
        error.what = f"the token endpoint is throttled (HTTP 429, {error.message.rstrip('.')})"
        error.args = (error.what,)
        error.hint = (
            "The server limits the logins of a client address: all processes behind this address count "
            "together. Log in less often: keep one client open, or share tokens."
        )
        return error
    if isinstance(error, ResponseError) and not is_api_error(reply.body):
        error.what = f"HTTP {reply.status}, but not from the API: {kind_of_body(reply)}"
        error.args = (error.what,)
        is_version = reply.status == HTTPStatus.NOT_FOUND and version is not None
        error.hint = _special_hint(reply) or (error.hint + " " if is_version else "") + (
            "A proxy, a web filter or another program may have responded. Check the address, the port and "
            "what is in front of the server."
        )
    return error


def is_api_error(body: bytes) -> bool:
    """Whether a body is an error object of the API, or one of OAuth.

    Source: schema RESTExceptionInfo, v6 to v8, read 2026-11-23; RFC 6749, section 5.2.
    """
    members = _members(body)
    if isinstance(members.get("error"), str) and members["error"]:
        return True
    if not isinstance(members.get("message"), str):
        return False
    # Older versions send the message alone. Others send one too, but with members of their own.
    return "errorcode" in members or members.keys() <= _ERROR_MEMBERS


_BOM = b"\xef\xbb\xbf"
_TITLE_WITHIN = 64 * 1024
"""Bytes at the beginning of a page in which its title is looked for."""
_TITLE = re.compile(rb"(?is)<title[^>]*>(.{1,1000}?)</title")


def page_title(body: bytes) -> str:
    """The title of a web page; empty where it has none."""
    title = _TITLE.search(body, 0, _TITLE_WITHIN)
    return printable(unescape(title[1].decode("utf-8", "replace"))) if title else ""


def kind_of_body(reply: Reply) -> str:
    """What a body is that is not the expected one, in a few words."""
    body, words = reply.body.removeprefix(_BOM).strip(), _words_of(reply)
    if not body:
        return "an empty body"
    if _is_page(body):
        return f"a web page with the title {words!r}" if words else "a web page"
    if holds_json(body):
        return f"JSON of another form, {words!r}" if words else "JSON of another form"
    if words:
        return f"a JSON string, {words!r}"
    return "a text that is neither JSON nor a web page"


def _is_page(body: bytes) -> bool:
    return body.removeprefix(_BOM).lstrip()[:1] == b"<"


def _members(body: bytes) -> dict[str, object]:
    """The members of a JSON object by their names in lower case: .NET writes `Message`."""
    return {name.lower(): value for name, value in (decode_object(body) or {}).items()}


def _words_of(reply: Reply) -> str:
    """What a response states about the cause, as one line of at most 200 characters; empty where nothing.

    Source: schemas RESTExceptionInfo, v6 to v8, and RESTHealthReport, v8, read 2026-11-23; RFC 6749,
    section 5.2; RFC 9457, section 3.1.
    """
    if _is_page(reply.body):
        return page_title(reply.body)
    document = decode_document(reply.body)
    if isinstance(document, str):
        return printable(document)
    said = _members(reply.body)
    problem = ": ".join(filter(None, (_line(said.get("title")), _line(said.get("detail")))))
    return (
        _line(said.get("message"))
        or _line(said.get("error_description"))
        or _health_report(said)
        or printable(problem)
    )


def _health_report(said: Mapping[str, object]) -> str:
    """What a report of `Health` says, its unhealthy entries first; empty where it is none."""
    status, entries = _line(said.get("status")), said.get("entries")
    if not status or not isinstance(entries, dict):
        return ""
    unhealthy: list[str] = []
    for name, entry in cast("dict[str, object]", entries).items():
        found = cast("dict[str, object]", entry) if isinstance(entry, dict) else {}
        if _line(found.get("status")).lower() != "healthy":
            words = _line(found.get("description"))
            unhealthy.append(f"{name} ({words})" if words else name)
    return printable(f"{status}: {', '.join(unhealthy)}" if unhealthy else status)


_CLIENT_CERT = "Give a client certificate: TLS(client_cert=..., client_key=...)."
_PROXY_WANTS_CERT = f"A proxy in front of the server requires a client certificate. {_CLIENT_CERT}"
_REJECTS_CERT = f"A proxy in front of the server rejects the client certificate. {_CLIENT_CERT}"
_SPECIAL_HINTS: tuple[tuple[int, bytes, str], ...] = (
    (400, b"no required ssl certificate was sent", _PROXY_WANTS_CERT),
    (400, b"the ssl certificate error", _REJECTS_CERT),
    (
        400,
        b"invalid hostname",
        (
            "The server does not respond to this host name. Use the name or the address for which its web "
            "service or a proxy in front of it is configured."
        ),
    ),
    (
        413,
        b"",
        (
            "A proxy in front of the server limits the size of requests or responses. Raise its limit (in "
            "nginx, client_max_body_size), or send smaller requests."
        ),
    ),
)
"""Statuses, texts of their bodies in lower case, and what to do then."""


def _special_hint(reply: Reply) -> str:
    """What to do where the status and the body name the cause; empty where they do not."""
    text = reply.body.lower()
    for status, part, hint in _SPECIAL_HINTS:
        if reply.status == status and part in text and (not part or not decode_object(reply.body)):
            return hint
    if reply.status == HTTPStatus.SERVICE_UNAVAILABLE and _health_report(_members(reply.body)):
        return "The server reports itself as unhealthy. Check the services that its report names."
    return ""


def _kind_of(  # a table
    status: int, version: str | None, *, is_api: bool
) -> tuple[type[ResponseError], str]:
    match status:
        case 403:
            return ForbiddenError, "Give this account the rights, or use another account."
        case 404 if version and not is_api:
            return NotFoundError, f"Check that this server offers API {version}, or use api_version='auto'."
        case 404:
            return (
                NotFoundError,
                "It was deleted, the path or ID is wrong, or this API version does not have it.",
            )
        case 409:
            return (
                ConflictError,
                "Its current state does not allow it. Fetch it again before you repeat the request.",
            )
        case 429:
            return RateLimitedError, "Send fewer requests to this server."
        case _ if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return ServerFaultError, "Check the log of the server, and of the proxy in front of it."
        case _ if is_api:
            return ResponseError, "The server rejects this request. Check its parameters."
        case _:
            return ResponseError, "Check that this is the REST API of Veeam Backup for Microsoft 365."


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
