"""Responses that are kept, and what a new one has in common with them.

Two responses are compared at both ends, byte by byte: new sessions are added at one of them, and few change
in between. Only what is in between is decoded. Knows bytes and the items that were made of them; knows no
servers and no requests. Bodies are in UTF-8 here.
"""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Self, cast

from attrs import define, evolve, frozen

from aiovbo._core.query import Rejected
from aiovbo._decoding.fast_sessions import SessionReader, as_text
from aiovbo._decoding.listing import DecodedPage, read_item
from aiovbo._decoding.listing_body import Body, split_items
from aiovbo._resources.links import NOTHING_MORE, Fetcher
from aiovbo._resources.structuring import BROKEN
from aiovbo.models import RestoreSession

_PER_ITEM = 700
"""Bytes that a kept session takes beside its text."""

_WORTH_PACKING = 4
"""Sessions from which on what their links have in common takes less memory than what is saved."""

_BLANKS = b" \t\r\n"

Item = RestoreSession | Rejected

Key = tuple[Fetcher | None, object, str]
"""Client, API version and name of the server: only responses with an equal key share items."""


@define(eq=False)
class KeptResponse:
    """A response, and what was made of it."""

    key: Key
    body: Body
    items: tuple[Item, ...]
    """All of its items, in its order."""
    page: DecodedPage[RestoreSession]
    starts: Sequence[int] = ()
    """Where each item begins, counted from the first one; empty as long as that is not known."""

    @property
    def cost(self) -> int:
        """Bytes that it takes, by estimate."""
        return len(self.body.whole) + _PER_ITEM * len(self.items)

    def may_resemble(self, body: Body) -> bool:
        """Whether one end of another response is as if it had an item in common with this one."""
        known, begin, end = self.body.whole, self.body.begin, self.body.end
        length = self.body.size * 3 // (2 * len(self.items))
        return body.whole.startswith(known[begin : begin + length], body.begin, body.end) or (
            body.whole.endswith(known[end - length : end], body.begin, body.end)
        )

    def find_starts(self) -> bool:
        """Find where each item begins, unless that is known; False where the items are at another place."""
        if not self.starts:
            try:
                self.body.page()
                starts = _starts_in(self.body.text)
            except BROKEN:
                return False
            if len(starts) != len(self.items):
                return False
            self.starts = starts
        return True


@frozen(eq=False)
class CommonItems:
    """What a new response has in common with a former one: items at its beginning, and at its end."""

    former: KeptResponse
    body: Body
    first: int
    """How many items at the beginning."""
    last: int
    """From which item of the former one on."""
    begin: int
    """Bytes at the beginning, with the comma after them."""
    end: int
    """Bytes at the end, without the comma before them."""

    @classmethod
    def of(cls, former: KeptResponse, body: Body) -> Self:
        """What there is in common, in a few comparisons of bytes."""
        known, starts = memoryview(former.body.whole)[former.body.begin : former.body.end], former.starts
        text, begin, end = body.whole, body.begin, body.end
        first = bisect_left(starts, x=True, key=lambda one: not text.startswith(known[:one], begin, end)) - 1
        begin += starts[first]
        last = bisect_left(starts, x=True, lo=first, key=lambda one: text.endswith(known[one:], begin, end))
        of_end = len(known) - starts[last] if last < len(starts) else 0
        return cls(former, body, first, last, starts[first], of_end)

    @property
    def size(self) -> int:
        """Bytes in common."""
        return self.begin + self.end

    @property
    def is_most(self) -> bool:
        """Whether more than half of both is in common."""
        return 2 * self.size > max(self.body.size, self.former.body.size)

    def between(self) -> bytes:
        """The text of the items that are not in common; empty where there are none.

        Between what is in common and with commas where they must be, it makes a list of exactly these items.

        Raises: ValueError where a comma is missing, or is followed by nothing.
        """
        body = self.body
        text = body.whole[body.begin + self.begin : body.end - self.end].rstrip(_BLANKS)
        if not self.end:
            if not text:
                raise ValueError("no item after a comma")
            return text
        if text and text[-1:] != b",":
            raise ValueError("no comma between two items")
        if text == b",":
            raise ValueError("no item before a comma")
        return text[:-1]

    def joined(self, new: tuple[Item, ...], starts: Sequence[int]) -> tuple[tuple[Item, ...], list[int]]:
        """The new response's items, and where each begins, given those between the items in common."""
        former, first, last = self.former, self.first, self.last
        shift = self.body.size - former.body.size
        return (*former.items[:first], *new, *former.items[last:]), [
            *former.starts[:first],
            *[self.begin + start for start in starts],
            *[shift + start for start in former.starts[last:]],
        ]


def made_of(key: Key, body: Body, items: tuple[Item, ...], starts: Sequence[int]) -> KeptResponse:
    """A response of these items, with the rejected ones apart.

    Raises: one of `BROKEN` where the rest of it is not a page.
    """
    fetcher, _, server = key
    sessions = cast("tuple[RestoreSession, ...]", items)
    rejected: tuple[Rejected, ...] = ()
    if Rejected in set(map(type, items)):
        items = tuple(evolve(it, index=n) if isinstance(it, Rejected) else it for n, it in enumerate(items))
        sessions = tuple(item for item in items if isinstance(item, RestoreSession))
        rejected = tuple(item for item in items if isinstance(item, Rejected))
    origin = (RestoreSession, server, fetcher)
    page = DecodedPage(body.page(), origin, sessions=sessions, rejected=rejected, body=body.whole)
    return KeptResponse(key, body, items, page, starts)


def _starts_in(text: bytes) -> list[int]:
    """Where each item of a text begins.

    Raises: one of `BROKEN` where it is not that of objects.
    """
    starts: list[int] = []
    end = 0
    for item in split_items(text):
        start = text.index(b"{", end)
        end = start + len(item)
        if text[start:end] != bytes(item):
            raise ValueError("an item is no object")
        starts.append(start)
    return starts


def read_items(text: bytes, key: Key) -> tuple[tuple[Item, ...], Sequence[int]]:
    """The items of a text, and where each of them begins.

    Raises: one of `BROKEN` where it is not that of objects.
    """
    if not text:
        return (), ()
    fetcher, _, server = key
    starts = _starts_in(as_text(text))
    if not starts:
        raise ValueError("no item where there must be one")
    reader = SessionReader(server, fetcher)
    try:
        return tuple(reader.read_many(b"[%b]" % text, pack=len(starts) >= _WORTH_PACKING)), starts
    except BROKEN:
        pass
    origin = (RestoreSession, server, fetcher)
    return tuple(read_item(reader, raw, origin, 0)[0] for raw in split_items(text)), starts


def may_be_shared(item: Item) -> bool:
    """Whether nothing in it can be changed: members without a field may be lists and objects."""
    if isinstance(item, Rejected):
        return True
    return item.extra is NOTHING_MORE or not any(
        isinstance(value, list | dict) for value in item.extra.values()
    )
