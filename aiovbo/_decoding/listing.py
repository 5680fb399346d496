"""Response bytes to models: fast where all is as documented, item by item and tolerant where not.

Both paths end in the same frozen classes, equal for equal input. Knows listings and pages; knows no URLs, no
HTTP, no asyncio, no clock.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import chain
from typing import Any, Generic, cast
from uuid import UUID

import msgspec

from aiovbo._core.query import Rejected
from aiovbo._decoding.fast_sessions import NULL, SessionReader, WireSession, as_text
from aiovbo._decoding.listing_body import (
    STEP,
    Body,
    RawPage,
    divide,
    read_odd_page,
    split_in_steps,
    split_items,
)
from aiovbo._protocol.documents import without_byte_order_mark
from aiovbo._protocol.error_responses import page_title
from aiovbo._resources.links import Fetcher, M, href_in
from aiovbo._resources.structuring import (
    BROKEN,
    DOCUMENT,
    read_json,
    read_tolerant,
    repaired,
    whole_number,
)
from aiovbo.errors import PayloadError, printable
from aiovbo.models import RestoreSession

SLICE = 500
"""Most items that are structured in one step, about a millisecond: an event loop stays responsive."""

_CLOSING = {b"[": b"]", b"{": b"}"}
"""How JSON ends that begins so."""

_AT_ONCE = 50
"""Items decoded together, which costs half; where one of them is odd, each of them for itself."""

_PRICE_OF_MORE, _PRICE_OF_TOLERANCE = 3, 20
"""How much longer an item takes that is not exactly as documented."""

ItemOrigin = tuple[type[M], str, Fetcher | None]
"""Class, name of the server, and client of the items."""


class _TypedPage(msgspec.Struct, gc=False):
    """A page whose items are exactly as documented."""

    results: list[WireSession]
    limit: object = None
    total: object = msgspec.field(name="totalCount", default=None)
    links: msgspec.Raw = msgspec.field(name="_links", default=NULL)


class _Next(msgspec.Struct, gc=False):
    """The link to the next page; others are skipped."""

    next: msgspec.Raw = NULL


_NEXT = msgspec.json.Decoder(_Next)
_SESSION_PAGE = msgspec.json.Decoder(_TypedPage)


class DecodedPage(Generic[M]):
    """One response of a collection: its items, slice by slice, and what it says of further pages."""

    def __init__(  # what a response can consist of
        self,
        page: _TypedPage | RawPage | None,
        origin: ItemOrigin[M],
        *,
        raws: Sequence[msgspec.Raw] = (),
        large: Body | None = None,
        sessions: tuple[M, ...] | None = None,
        rejected: tuple[Rejected, ...] = (),
        body: bytes = b"",
    ) -> None:
        self._body = body
        self._raws = raws
        self._large = large
        self.sessions = sessions
        """All of its items but the rejected ones, where they were decoded with the page."""
        self.rejected = rejected
        """Those of its items that were rejected when they were decoded with the page."""
        self.count: int = len(raws) if sessions is None else len(sessions) + len(rejected)
        """The rows on the page, rejected ones included; of a large one, those in the slices so far."""
        self._origin = origin
        cls, server, fetcher = origin
        is_raw = cls is RestoreSession and sessions is None
        self._reader = SessionReader(server, fetcher) if is_raw else None
        self.is_array: bool = page is None
        """Whether the server sent a bare array, without paging information."""
        self.limit: int | None = None
        """How many items the server puts on a page, where it says so."""
        self.total: int | None = None
        """How many items there are on all pages, where it says so."""
        self.next_href: str | None = None
        """The link to the next page."""
        self.is_doubtful: bool = False
        """Whether what it says of further pages is invalid."""
        if page is not None:
            limit = page.limit
            self.limit = limit if type(limit) is int else self._number(limit)
            if page.total is not None:
                self.total = self._number(page.total)
            self.next_href = self._next_href(bytes(page.links))

    def _number(self, value: object) -> int | None:
        try:
            return None if value is None else whole_number(value)
        except TypeError:
            self.is_doubtful = True
            return None

    def _next_href(self, raw: bytes) -> str | None:
        try:
            if len(raw) > STEP:
                # To parse all of it would block the event loop; in another case it is not recognized.
                self.is_doubtful = True
                raw = b'{"next":%b}' % bytes(_NEXT.decode(raw).next)[:STEP]
            return href_in(DOCUMENT.decode(raw), "next")
        except BROKEN:
            # A link that cannot be read means that there is more.
            self.is_doubtful = True
            return None

    def just_after(self, member: str, moment: datetime) -> set[UUID]:
        """The ids of sessions whose time, as it came, is later than `moment` by less than a microsecond."""
        finer = re.compile(rf"[.,]{moment.microsecond:06}\d*[1-9]")
        found: set[UUID] = set()
        parts = self._parts() if self.sessions is None else (_raws_of(self._body),)
        for raw in chain.from_iterable(parts):
            # Few have such a time; the others are not read a second time.
            document = read_json(raw) if finer.search(bytes(raw).decode("utf-8", "replace")) else None
            if isinstance(document, dict):
                names = {name.casefold(): name for name in cast("dict[str, Any]", document)}
                time = cast("dict[str, Any]", document).get(names.get(member.casefold(), ""))
                session = read_tolerant(raw, RestoreSession, "", None)
                if isinstance(session, RestoreSession) and isinstance(time, str) and finer.search(time):
                    found.add(session.id)
        return found

    def slices(self) -> Iterator[tuple[Sequence[M], Sequence[Rejected]]]:
        """The items, at most `SLICE` of them or `STEP` bytes in a step, and those that were rejected."""
        if self.sessions is not None:
            yield self.sessions, self.rejected
            return
        items: list[M] = []
        rejected: list[Rejected] = []
        spent = size = 0
        for first, some in _groups(self._parts()):
            length = sum(map(len, some))
            self.count = max(self.count, first + len(some))
            if not some:
                yield items, rejected
                items, rejected, spent, size = [], [], 0, 0
                continue
            if (items or rejected) and (size + length > STEP or spent + len(some) > SLICE):
                yield items, rejected
                items, rejected, spent, size = [], [], 0, 0
            size += length
            sessions = self._read_at_once(some)
            if sessions is not None:
                items += sessions
                spent += len(sessions)
                continue
            for index, raw in enumerate(some, first):
                if spent >= SLICE:
                    yield items, rejected
                    items, rejected, spent, size = [], [], 0, 0
                read, price = read_item(self._reader, raw, self._origin, index)
                spent += price
                if isinstance(read, Rejected):
                    rejected.append(read)
                else:
                    items.append(read)
        if items or rejected:
            yield items, rejected

    def _parts(self) -> Iterator[Sequence[msgspec.Raw]]:
        """The items as bytes; those of a large response in steps, some of which have none.

        Raises: PayloadError where the rest of a large response is no list of items.
        """
        if self._large is None:
            if self._raws:
                yield self._raws
            return
        try:
            yield from split_in_steps(self._large)
        except BROKEN as error:
            failure = _not_the_promised(self._large.whole, "a list of items", str(error), retryable=True)
            failure.server = self._origin[1]
            raise failure from None

    def _read_at_once(self, raws: Sequence[msgspec.Raw]) -> list[M] | None:
        """The items, where all of them are sessions exactly as documented."""
        if self._reader is None:
            return None
        try:
            return cast("list[M]", self._reader.read_many(b"[%b]" % b",".join(raws), pack=True))
        except BROKEN:
            return None


def _groups(parts: Iterable[Sequence[msgspec.Raw]]) -> Iterator[tuple[int, Sequence[msgspec.Raw]]]:
    """Items to decode together, at most `_AT_ONCE` and half a step, and the index of the first of them.

    A part without items is a group without items.
    """
    before = 0
    for raws in parts:
        first = size = 0
        for index, raw in enumerate(raws):
            size += len(raw)
            if index > first and (size > STEP // 2 or index - first == _AT_ONCE):
                yield before + first, raws[first:index]
                first, size = index, len(raw)
        yield before + first, raws[first:]
        before += len(raws)


def read_item(
    reader: SessionReader | None, raw: bytes | msgspec.Raw, origin: ItemOrigin[M], index: int
) -> tuple[M | Rejected, int]:
    """An item, and what it cost, in sessions exactly as documented."""
    if reader is not None:
        try:
            return cast("M", reader.read(raw)), 1
        except BROKEN:
            pass
        try:
            return cast("M", reader.read_with_more(raw)), _PRICE_OF_MORE
        except BROKEN:
            pass
    return read_tolerant(raw, *origin, index), _PRICE_OF_TOLERANCE


def decode_listing(body: bytes, cls: type[M], server: str, fetcher: Fetcher | None) -> DecodedPage[M]:
    """What a collection's response contains: a bare array (up to v4) or a page (from v5), in every version.

    Shape: `[...]`, or `{"results": [...], "limit": ..., "_links": {"next": {"href": ...}}}`.
    Raises: PayloadError where it is neither.
    """
    body = without_byte_order_mark(body)
    origin = (cls, server, fetcher)
    # These two are seen at once; to look for a mistake in a large body would block the event loop.
    if body[:1] == b"<":
        raise _not_the_promised(body, "a list of items", "")
    if body[-1:] != _CLOSING.get(body[:1], body[-1:]):
        raise _not_the_promised(body, "a list of items", "it does not end as JSON does", retryable=True)
    try:
        return _listing(body, origin)
    except BROKEN as error:
        # A body that ends too early is JSON cut short: the next attempt may bring all of it.
        said, cut_short = str(error), type(error) is msgspec.DecodeError
    # The items of a large one are repaired one by one, as they are divided.
    if len(body) <= STEP and (fixed := repaired(body)) is not body:
        try:
            return _listing(fixed, origin)
        except BROKEN as error:
            said, cut_short = str(error), type(error) is msgspec.DecodeError
    raise _not_the_promised(body, "a list of items", said, retryable=cut_short)


def _listing(body: bytes, origin: ItemOrigin[M]) -> DecodedPage[M]:
    cls, server, fetcher = origin
    is_array = body[:1] == b"["
    if cls is RestoreSession and len(body) <= STEP:
        try:
            reader = SessionReader(server, fetcher)
            typed = None if is_array else _SESSION_PAGE.decode(as_text(body))
            read = reader.read_many(body) if typed is None else reader.models(typed.results)
            sessions = cast("tuple[M, ...]", tuple(read))
            if typed is not None and (typed.links is NULL or typed.limit is None):
                # It may have them in another case, and must not be taken for the last page then.
                return DecodedPage(read_odd_page(body), origin, sessions=sessions, body=body)
            return DecodedPage(typed, origin, sessions=sessions, body=body)
        except BROKEN:
            pass
    if len(body) > STEP:
        rest, large = divide(body)
        return DecodedPage(rest, origin, large=large)
    page = None if is_array else read_odd_page(body)
    raws = split_items(body[1:-1]) if page is None else page.results
    return DecodedPage(page, origin, raws=raws)


def _raws_of(body: bytes) -> Sequence[msgspec.Raw]:
    return split_items(body[1:-1]) if body[:1] == b"[" else read_odd_page(body).results


def decode_one(body: bytes, cls: type[M], server: str, fetcher: Fetcher | None) -> M:
    """The one resource that a response contains.

    Raises: PayloadError where it is none.
    """
    body = without_byte_order_mark(body)
    read = read_tolerant(body, cls, server, fetcher)
    if isinstance(read, Rejected):
        raise _not_the_promised(body, f"a {cls.__name__}", f"{read.reason} @ {read.path}")
    return read


def _not_the_promised(body: bytes, promised: str, said: str, *, retryable: bool = False) -> PayloadError:
    if body[:1] == b"<":
        hint = "Check whether a proxy, a login page or another product is at this address."
        title = page_title(body)
        named = f" with the title {title!r}" if title else ""
        return PayloadError(f"the response is a web page{named}, not JSON", hint=hint)
    return PayloadError(
        f"the response is not {promised}",
        problems=(printable(said),),
        retryable=retryable,
        hint=f"It says: {printable(said)}.",
    )
