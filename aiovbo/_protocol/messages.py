"""A request before it has a token, a response as it came, and secrets on their way into a request.

Knows methods, headers and charsets; knows no paths of the API, no aiohttp, no asyncio, no clock.
"""

import codecs
import re
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from typing import Any, Generic, NoReturn, TypeVar

from attrs import define, field, frozen
from yarl import URL

T = TypeVar("T")

SUCCESS = range(200, 300)
"""Statuses of success."""


@frozen
class Redacted(Generic[T]):
    """Something that holds a secret on its way into a request; no traceback and no pickle shows it."""

    content: T = field(repr=False)

    def __reduce__(self) -> NoReturn:
        message = "what is sealed is not pickled"
        raise TypeError(message)


@define
class Request:
    """A request to one server, before it has a token; nothing changes it."""

    url: URL
    method: str = field(default="GET", kw_only=True)
    body: Redacted[bytes] | None = field(default=None, kw_only=True)
    """JSON."""
    expected: Collection[int] = field(default=(200,), kw_only=True)
    """Statuses that are results, and no errors."""
    needs_token: bool = field(default=True, kw_only=True)
    """Whether a token goes with it."""
    body_is_optional: bool = field(default=False, kw_only=True)
    """Whether an expected status is a result by itself, whatever the body is."""
    may_be_large: bool = field(default=False, kw_only=True)
    """Whether the response may have up to `max_body` bytes, as listings do; others have `max_resource`."""
    repeatable: bool = field(default=False, kw_only=True)
    """Whether it may be sent again although it may have arrived; a GET always may."""
    smaller: Callable[[], URL | None] | None = field(default=None, kw_only=True, eq=False)
    """Gives the URL of a smaller part of the same, after the whole took too long or was too large."""

    @property
    def may_repeat(self) -> bool:
        """Whether it may be sent again although it may have arrived."""
        return self.repeatable or self.method == "GET"


@define
class Reply:
    """A response as it came: status, headers by name in any case, the body."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    """In UTF-8."""
    unknown_charset: str = field(default="", kw_only=True)
    """The charset of the body, as declared, where it was not decoded."""

    @classmethod
    def of(cls, status: int, headers: Mapping[str, str], content: bytes) -> "Reply":
        """A response whose content may be in another charset than UTF-8, as its Content-Type declares."""
        charset, codec = _charset_of(headers.get("Content-Type", ""))
        if codec is not None:
            return cls(status, headers, content.decode(codec, "replace").encode())
        # ASCII is the same in all charsets but those with zero bytes.
        is_unknown = bool(charset) and not (content.isascii() and b"\0" not in content)
        return cls(status, headers, content, unknown_charset=charset if is_unknown else "")


@frozen(kw_only=True)
class Response:
    """The response to `client.request`, whichever 2xx status it has, and with or without a body."""

    status: int
    """The HTTP status, 200 to 299."""
    headers: Mapping[str, str] = field(repr=False, hash=False)
    """The headers; their names in any case."""
    body: bytes = field(repr=False)
    """The body after decompression; in UTF-8 where the server declares another charset that is supported."""
    document: Any = field(repr=False, hash=False)
    """The body as parsed JSON; None where it is empty or not JSON."""


_CHARSET = re.compile(r"""charset\s*=\s*["']?([^\s;"',]+)""", re.IGNORECASE)
_DECODED = ("utf-16", "cp", "iso")
"""How Python's names of the charsets begin that real servers and proxies declare beside UTF-8."""


@lru_cache(maxsize=64)
def _charset_of(content_type: str) -> tuple[str, str | None]:
    """A declared charset other than UTF-8, and the codec for it; None where it is not decoded."""
    found = _CHARSET.search(content_type)
    if found is None:
        return "", None
    charset = found[1]
    try:
        codec = codecs.lookup(charset).name
    except (LookupError, ValueError):
        return charset, None
    if codec in ("utf-8", "utf-8-sig", "ascii"):
        return "", None
    return charset, codec if codec.startswith(_DECODED) else None
