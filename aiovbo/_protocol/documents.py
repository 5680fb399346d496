"""JSON documents in response bodies, whole or cut off.

Knows bytes and JSON; knows no resources, no HTTP, no asyncio, no clock.
"""

import re
from collections.abc import Mapping
from itertools import islice
from typing import Any, cast

from aiovbo._resources.structuring import BROKEN, DOCUMENT


def decode_document(body: bytes) -> object:
    """The JSON value in `body`; None where there is none, as in the error pages of proxies."""
    try:
        return cast("object", DOCUMENT.decode(without_byte_order_mark(body)))
    except BROKEN:
        return None


def decode_object(body: bytes) -> Mapping[str, Any] | None:
    """The JSON object in `body`; None where there is none."""
    document = decode_document(body)
    return cast("dict[str, Any]", document) if isinstance(document, dict) else None


def holds_json(body: bytes) -> bool:
    """Whether `body` is a JSON object or array, as every response of the API is."""
    return isinstance(decode_document(body), dict | list)


def without_byte_order_mark(body: bytes) -> bytes:
    """`body` without a byte order mark, and without blanks around it."""
    return body.removeprefix(b"\xef\xbb\xbf").strip(b" \t\r\n")


_TOKENS = re.compile(rb"""\"[^"\\]*(?:\\.[^"\\]*)*(?P<end>"?)|[{}\[\],]""", re.DOTALL)
_PARTIAL_ESCAPE = re.compile(rb"\\(u[0-9a-fA-F]{0,3})?\Z")
_MOST_TOKENS = 10_000
"""Texts, brackets and commas that are counted; an error whose cause is stated beyond them is not shown."""


def completed(body: bytes) -> bytes:
    """The JSON object of which `body` is the beginning, with the members that it has so far.

    A body of another kind is returned as it is.
    """
    body = without_byte_order_mark(body)
    if body[:1] != b"{":
        return body
    closing: list[bytes] = []
    last_member, is_text = 0, False
    for token in islice(_TOKENS.finditer(body), _MOST_TOKENS):
        text = token[0]
        if text in (b"{", b"["):
            closing.append(b"}" if text == b"{" else b"]")
        elif text in (b"}", b"]") and closing:
            closing.pop()
        elif text == b"," and len(closing) == 1:
            last_member = token.start()
        is_text = text[:1] == b'"' and not token["end"]
    cut = _PARTIAL_ESCAPE.sub(b"", body) if is_text else body
    whole = cut + (b'"' if is_text else b"") + b"".join(reversed(closing))
    # With a name without a value at its end it is no object: then without the last member.
    return next((text for text in (whole, body[:last_member] + b"}") if decode_object(text)), body)
