"""Recognition of restore sessions: what arrives again byte for byte the same is the same object.

A poll sends the same query again, and nearly every item of the response is unchanged. To compare a response
of 30 sessions takes a hundredth of the instructions of decoding it to dictionaries; where one of them
changed, a third. What a response has in common with one before it is looked for at its beginning and at its
end: new sessions are added at one of them, and few change in between. Knows bytes and the items that were
made of them; knows no requests. Bodies are in UTF-8 here, whatever charset the server sent them in.
"""

from bisect import bisect_left
from collections import OrderedDict, deque
from collections.abc import Sequence
from operator import attrgetter
from typing import Self, cast

from attrs import define, evolve, frozen

from aiovbo._core.query import Rejected
from aiovbo._decoding.fast_sessions import SessionReader, as_text
from aiovbo._decoding.listing import DecodedPage, RawPage, decode_listing, read_item, read_page, split_items
from aiovbo._protocol.documents import without_byte_order_mark
from aiovbo._resources.links import NOTHING_MORE, Fetcher
from aiovbo._resources.structuring import BROKEN
from aiovbo.models import RestoreSession

BUDGET = 64 * 1024 * 1024
"""Bytes that a fleet keeps for recognition; the servers that were queried longest ago lose theirs first."""

LARGEST = 64 * 1024
"""Bytes of the largest response that is kept; more would be compared for too long in one step."""

_RESPONSES = 4
"""Responses that are kept per server, so that alternating queries do not replace each other's."""

_PER_ITEM = 700
"""Bytes that a kept session takes beside its text."""

_WORTH_PACKING = 4
"""Sessions from which on what their links have in common takes less memory than what is saved."""

_PLACEHOLDER = b"365365365365365365"
"""Stands for the items while the rest of a page is decoded."""

_STARTS = (b'"results":[{', b'"results": [{')
"""How the items of a page begin, without and with blanks."""

_OPENING, _CLOSING = (b"[", b"{"), (b"]", b"}")

_BLANKS = b" \t\r\n"

Item = RestoreSession | Rejected

_Key = tuple[Fetcher | None, object, str]
"""Client, API version and name of the server: only responses with an equal key share items."""


@frozen(eq=False)
class _Body:
    """A response as it came, and where its items seem to be."""

    whole: bytes
    begin: int
    """Where the first item begins."""
    end: int
    """Where the last one ends."""

    @classmethod
    def of(cls, whole: bytes) -> "_Body | None":
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


@define(eq=False)
class _Response:
    """A response, and what was made of it."""

    key: _Key
    body: _Body
    items: tuple[Item, ...]
    """All of its items, in its order."""
    page: DecodedPage[RestoreSession]
    starts: Sequence[int] = ()
    """Where each item begins, counted from the first one; empty as long as that is not known."""

    @property
    def cost(self) -> int:
        """Bytes that it takes, by estimate."""
        return len(self.body.whole) + _PER_ITEM * len(self.items)

    def may_resemble(self, body: _Body) -> bool:
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
class _Common:
    """What a new response has in common with a former one: items at its beginning, and at its end."""

    former: _Response
    body: _Body
    first: int
    """How many items at the beginning."""
    last: int
    """From which item of the former one on."""
    begin: int
    """Bytes at the beginning, with the comma after them."""
    end: int
    """Bytes at the end, without the comma before them."""

    @classmethod
    def of(cls, former: _Response, body: _Body) -> Self:
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


class Recognition:
    """What is kept for all servers of a fleet, within one budget of bytes."""

    def __init__(self, budget: int = BUDGET) -> None:
        self._budget = budget
        self._costs: OrderedDict[ServerRecognition, int] = OrderedDict()
        self.size: int = 0
        """Bytes that are kept now, by estimate."""

    def note(self, server: "ServerRecognition", cost: int) -> None:
        """Note that a server was queried now, and takes so many bytes; drop what was not used for longest."""
        self.size += cost - self._costs.pop(server, 0)
        self._costs[server] = cost
        while self.size > self._budget:
            oldest, freed = self._costs.popitem(last=False)
            self.size -= freed
            oldest.drop_responses()

    def touch(self, server: "ServerRecognition") -> None:
        """Note that a server was queried now, and takes as much as before."""
        self._costs.move_to_end(server)

    def forget(self, server: "ServerRecognition") -> None:
        """Keep nothing of a server."""
        self.size -= self._costs.pop(server, 0)
        server.drop_responses()

    def clear(self) -> None:
        """Keep nothing."""
        for server in list(self._costs):
            self.forget(server)


class ServerRecognition:
    """Decodes the restore sessions of one server; keeps some of its responses, and what was made of them."""

    def __init__(self, fleet: Recognition) -> None:
        self._fleet = fleet
        self._responses: list[_Response] = []
        """The one that was used last is first."""
        self._odd: deque[_Key] = deque(maxlen=_RESPONSES)
        """Where a response had sessions that were not exactly as documented."""

    def forget(self) -> None:
        """Keep nothing; begin again with the next response."""
        self._fleet.forget(self)

    def drop_responses(self) -> None:
        """Called when its bytes are needed for other servers."""
        self._responses = []
        self._odd.clear()

    def decode(
        self, body: bytes, server: str, fetcher: Fetcher | None, version: object
    ) -> DecodedPage[RestoreSession]:
        """What `decode_listing` gives; items that arrived before are the same objects.

        - `version`: the API version in which the server was queried.

        Raises: PayloadError where it is no listing.
        """
        key = (fetcher, version, server)
        for response in self._responses:
            if response.body.whole == body and response.key == key:
                if response is not self._responses[0]:
                    self._drop(response)
                    self._responses.insert(0, response)
                self._fleet.touch(self)
                return response.page
        return self._decode_new(body, key)

    def _decode_new(self, whole: bytes, key: _Key) -> DecodedPage[RestoreSession]:
        """What a response contains that did not arrive before, or not as a whole."""
        fetcher, _, server = key
        if whole[:1] not in _OPENING or whole[-1:] not in _CLOSING:
            whole = without_byte_order_mark(whole)
        body = _Body.of(whole) if len(whole) <= LARGEST else None
        if body is not None:
            try:
                page = self._in_part(body, key)
            except BROKEN:
                # The response is not as it seemed.
                page = None
            if page is not None:
                return page
        page = decode_listing(whole, RestoreSession, server, fetcher)
        if body is not None and page.sessions:
            # Neither compared nor cut into items: a first response costs nothing.
            self._keep(_Response(key, body, page.sessions, page))
        elif body is not None and page.sessions is None and key not in self._odd:
            self._odd.append(key)
        return page

    def _in_part(self, body: _Body, key: _Key) -> DecodedPage[RestoreSession] | None:
        """The page; None where no item of it is known, and it is better decoded as a whole.

        Raises: one of `BROKEN` where the items are at another place.
        """
        common: list[_Common] = []
        for response in self._responses:
            if response.key == key and response.may_resemble(body):
                if response.find_starts():
                    common.append(_Common.of(response, body))
                else:
                    self._drop(response)
        most = max(common, key=attrgetter("size"), default=None)
        if most is not None and most.size:
            new, starts = _read_items(most.between(), key)
            response = _response(key, body, *most.joined(new, starts))
            if most.is_most:
                # Probably it was the last response to the same query: the new one takes its place.
                self._drop(most.former)
        elif key in self._odd:
            # As with newer servers: item by item now, since the next response may have the same ones.
            new, starts = _read_items(body.text, key)
            response = _response(key, body, new, starts)
        else:
            return None
        if all(map(_may_be_shared, new)):
            self._keep(response)
        return response.page

    def _drop(self, response: _Response) -> None:
        # Another list: this one may be gone through.
        self._responses = [one for one in self._responses if one is not response]

    def _keep(self, response: _Response) -> None:
        self._responses.insert(0, response)
        del self._responses[_RESPONSES:]
        self._fleet.note(self, sum(one.cost for one in self._responses))


def _response(key: _Key, body: _Body, items: tuple[Item, ...], starts: Sequence[int]) -> _Response:
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
    return _Response(key, body, items, page, starts)


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


def _read_items(text: bytes, key: _Key) -> tuple[tuple[Item, ...], Sequence[int]]:
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


def _may_be_shared(item: Item) -> bool:
    """Whether nothing in it can be changed: members without a field may be lists and objects."""
    if isinstance(item, Rejected):
        return True
    return item.extra is NOTHING_MORE or not any(
        isinstance(value, list | dict) for value in item.extra.values()
    )
