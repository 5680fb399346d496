"""HTTP responses as bytes, for the raw server."""

import json
from collections.abc import Iterable
from http import HTTPStatus

_BODILESS = frozenset({204, 304})


def http(
    status: int = 200,
    body: bytes = b"",
    *,
    headers: Iterable[tuple[str, str]] = (),
    content_type: str | None = "application/json",
    close: bool = False,
) -> bytes:
    """A whole HTTP/1.1 answer; `headers` may contradict it, also with a Content-Length of their own."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Unheard Of"
    fields = list(headers)
    named = {name.lower() for name, _ in fields}
    if content_type is not None:
        fields.append(("Content-Type", content_type))
    if not named & {"content-length", "transfer-encoding"} and status not in _BODILESS:
        fields.append(("Content-Length", str(len(body))))
    if close:
        fields.append(("Connection", "close"))
    head = "".join(f"{name}: {value}\r\n" for name, value in fields)
    return f"HTTP/1.1 {status} {phrase}\r\n{head}\r\n".encode("latin-1") + body


def json_answer(
    obj: object,
    status: int = 200,
    *,
    headers: Iterable[tuple[str, str]] = (),
    close: bool = False,
) -> bytes:
    """An answer whose body is `obj` as JSON."""
    return http(status, json.dumps(obj).encode(), headers=headers, close=close)


def token_answer(
    access_token: object = "access-1",  # noqa: S107  # worth nothing
    refresh_token: object = "refresh-1",  # noqa: S107  # the same
    *,
    expires_in: object = 3600,
    token_type: object = "bearer",  # noqa: S107  # no secret
    **more: object,
) -> bytes:
    """A server's answer to a login; values of wrong types are sent as they are."""
    answer = {
        "access_token": access_token,
        "refresh_token": refresh_token,
        "token_type": token_type,
        "expires_in": expires_in,
    }
    return json_answer(answer | more)
