"""What goes over the wire, without sending it: arguments to requests, and answers as they came.

Knows the paths and parameters of every API version; knows no aiohttp, no asyncio, no clock.
"""

import codecs
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Generic, NoReturn, TypeVar

from attrs import field, frozen
from yarl import URL

T = TypeVar("T")


@frozen
class Redacted(Generic[T]):
    """Something that holds a secret on its way into a request; no traceback and no pickle shows it."""

    content: T = field(repr=False)

    def __reduce__(self) -> NoReturn:
        message = "what is sealed is not pickled"
        raise TypeError(message)


@frozen
class Request:
    """A request to one server, before it has a token."""

    url: URL
    method: str = field(default="GET", kw_only=True)
    body: Redacted[bytes] | None = field(default=None, kw_only=True)
    """JSON."""
    expected: tuple[int, ...] = field(default=(200,), kw_only=True)
    """Statuses that are answers, and no errors."""
    needs_token: bool = field(default=True, kw_only=True)
    """Whether a token goes with it."""
    answer_may_be_empty: bool = field(default=False, kw_only=True)
    """Whether an empty success is one, and not a rejected token, which servers were seen to answer so."""

    @property
    def only_reads(self) -> bool:
        """Whether it changes nothing, so that it may be repeated."""
        return self.method == "GET"


@frozen
class Reply:
    """An answer as it came: status, headers by name in any case, the body."""

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
