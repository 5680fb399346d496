"""The body of a listing, divided: its items, and what it says beside them. A large one is divided in steps.

Knows JSON as bytes; knows no resources and decodes none.
"""

import re
from collections.abc import Iterator, Sequence

import msgspec
from attrs import frozen

from aiovbo._decoding.fast_sessions import NULL, as_text
from aiovbo._resources.structuring import BROKEN, lone_surrogates_replaced, members_of, value_or_text

STEP = 64 * 1024
"""Most bytes that are decoded in one step; a larger item is a step by itself."""

_PLACEHOLDER = b"365365365365365365"
"""Stands for the items while the rest of a page is decoded."""

_TOO_MUCH = "no links or no results, and much more than a page has"

_RESULTS = re.compile(rb'"results"\s*:\s*\[', re.IGNORECASE)

_BETWEEN = re.compile(rb"\}\s*(,)\s*\{")

_EMPTY = re.compile(rb"[ \t\r\n]*")

_BRACKETS = 16
"""Brackets at the end of a large page that may be that of its items."""

_STARTS = (b'"results":[{', b'"results": [{')
"""How the items of a page begin, without and with blanks."""


class RawPage(msgspec.Struct, gc=False):
    """A page whose items are still bytes."""

    results: list[msgspec.Raw]
    limit: object = None
    total: object = msgspec.field(name="totalCount", default=None)
    links: msgspec.Raw = msgspec.field(name="_links", default=NULL)


class _UndividedPage(msgspec.Struct, gc=False):
    """A page whose list is still bytes."""

    results: msgspec.Raw
    limit: object = None
    total: object = msgspec.field(name="totalCount", default=None)
    links: msgspec.Raw = msgspec.field(name="_links", default=NULL)


_PAGE = msgspec.json.Decoder(RawPage)
_UNDIVIDED_PAGE = msgspec.json.Decoder(_UndividedPage)
_ITEMS = msgspec.json.Decoder(list[msgspec.Raw])


def read_page(body: bytes) -> RawPage:
    """A page whose items are not decoded.

    Raises: msgspec.MsgspecError or ValueError where it is not one.
    """
    try:
        page = _PAGE.decode(body)
        if page.links is not NULL and (page.limit is not None or len(body) > STEP):
            return page
    except msgspec.ValidationError:
        pass
    # It may have them in another case, and must not be taken for the last page then.
    if len(body) > STEP:
        raise ValueError(_TOO_MUCH)
    return read_odd_page(body)


def split_items(text: bytes) -> list[msgspec.Raw]:
    """The items of a listing, each as its bytes, without the brackets around all of them.

    Raises: msgspec.MsgspecError where the text is something else.
    """
    return _ITEMS.decode(b"[%b]" % text)


def read_odd_page(body: bytes) -> RawPage:
    """A page, whatever the case of its members' names.

    Raises: msgspec.MsgspecError or ValueError where it is not one.
    """
    page = _read_in_any_case(body)
    return RawPage(_ITEMS.decode(page.results), page.limit, page.total, page.links)


def _read_in_any_case(body: bytes) -> _UndividedPage:
    members = members_of(body)
    in_any_case = {name.casefold(): value for name, value in members.items()}

    def member(name: str) -> msgspec.Raw:
        return members.get(name) or in_any_case.get(name.casefold(), NULL)

    limit, total = value_or_text(member("limit")), value_or_text(member("totalCount"))
    return _UndividedPage(member("results"), limit, total, member("_links"))


@frozen(eq=False)
class Body:
    """A response as it came, and where its items seem to be."""

    whole: bytes
    begin: int
    """Where the first item begins."""
    end: int
    """Where the last one ends."""

    @classmethod
    def of(cls, whole: bytes) -> "Body | None":
        """None where the response is written in another way.

        Whether these are the places of its items is not known before the rest of it is decoded.
        """
        if whole[:2] == b"[{":
            return cls(whole, 1, len(whole) - 1) if whole[-2:] == b"}]" else None
        for start in _STARTS:
            begin = whole.find(start)
            if begin >= 0:
                begin += len(start) - 1
                end = whole.rfind(b"}]") + 1
                return cls(whole, begin, end) if end > begin else None
        return None

    @property
    def size(self) -> int:
        """Bytes from the first item to the last."""
        return self.end - self.begin

    @property
    def text(self) -> bytes:
        """The items, with the commas between them."""
        return self.whole[self.begin : self.end]

    def page(self) -> RawPage | None:
        """The rest of the response, which is a page; None where it is a bare array.

        Raises: one of `BROKEN` where it is no page, or has its items at another place.
        """
        whole = self.whole
        if whole[:1] == b"[":
            return None
        page = read_page(as_text(b"%b%b%b" % (whole[: self.begin], _PLACEHOLDER, whole[self.end :])))
        if len(page.results) != 1 or bytes(page.results[0]) != _PLACEHOLDER:
            raise ValueError("these are not its items")
        return page


def divide(whole: bytes) -> tuple[RawPage | None, Body]:
    """What a large response says beside its items, None where it is a bare array; and where its items are.

    Raises: one of `BROKEN` where it is no listing, or has much more than a page beside its items.
    """
    if whole[:1] == b"[":
        return None, Body(whole, 1, len(whole) - 1)
    found = _RESULTS.search(whole)
    begin, end = (found.end(), len(whole)) if found is not None else (0, 0)
    for _ in range(_BRACKETS):
        # Those of links may come after that of the items.
        end = whole.rfind(b"]", begin, end)
        if end < 0:
            break
        body = Body(whole, begin, end)
        try:
            return body.page(), body
        except BROKEN:
            continue
    # There is another list of that name, or much beside the items.
    page = _UNDIVIDED_PAGE.decode(whole)
    if len(whole) - len(page.results) <= STEP:
        page = _read_in_any_case(whole)
    elif page.links is NULL:
        raise ValueError(_TOO_MUCH)
    listed = bytes(page.results)
    if listed[:1] != b"[":
        raise ValueError("its results are no list")
    return RawPage([], page.limit, page.total, page.links), Body(listed, 1, len(listed) - 1)


def split_in_steps(body: Body) -> Iterator[Sequence[msgspec.Raw]]:
    """The items of a listing, about `STEP` bytes of them in a step.

    Some steps have none. The text is cut at commas. Where a part is not a list of whole items, it was cut
    inside one, and a longer part is tried. So the text is a list of exactly these items.

    Raises: one of `BROKEN` where the text is something else.
    """
    text, begin, last = body.whole, body.begin, body.end
    if _EMPTY.fullmatch(text, begin, last):
        return
    size = STEP
    while begin <= last:
        end = _comma_after(text, begin + size, last)
        part = text[begin:end]
        try:
            items = split_items(part)
        except BROKEN:
            # Half a surrogate pair, or the part was cut inside an item.
            try:
                repaired = yield from lone_surrogates_replaced(part)
                if repaired is part:
                    raise
                items = split_items(repaired)
            except BROKEN:
                if end == last:
                    raise
                size *= 2
                continue
        if not items:
            raise ValueError("no item beside a comma")
        yield items
        begin, size = end + 1, STEP


def _comma_after(text: bytes, place: int, last: int) -> int:
    """The place of a comma, between two items most likely; `last` where there is none before."""
    if place >= last:
        return last
    between = _BETWEEN.search(text, place, min(place + STEP, last))
    comma = between.start(1) if between is not None else text.find(b",", place, last)
    return comma if comma >= 0 else last
