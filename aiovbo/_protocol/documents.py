"""Bytes of an answer to models: fast where all is as documented, item by item and tolerant where not.

Both paths end in the same frozen classes, equal for equal input. Knows listings and pages; knows no URLs, no
HTTP, no asyncio, no clock.
"""

from collections.abc import Mapping
from typing import Any, cast

from aiovbo._resources.structuring import BROKEN, DOCUMENT


def decode_document(body: bytes) -> object:
    """The JSON value in `body`; None where there is none, as in the error pages of proxies."""
    try:
        return cast("object", DOCUMENT.decode(_bare(body)))
    except BROKEN:
        return None


def decode_object(body: bytes) -> Mapping[str, Any] | None:
    """The JSON object in `body`; None where there is none."""
    document = decode_document(body)
    return cast("dict[str, Any]", document) if isinstance(document, dict) else None


def holds_json(body: bytes) -> bool:
    """Whether `body` is a JSON object or array, as every answer of the API is."""
    return isinstance(decode_document(body), dict | list)


def _bare(body: bytes) -> bytes:
    """`body` without a byte order mark, and without blanks around it."""
    return body.removeprefix(b"\xef\xbb\xbf").strip(b" \t\r\n")
