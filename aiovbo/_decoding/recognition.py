"""Recognition of restore sessions: what arrives again byte for byte the same is the same object.

A poll sends the same query again, and nearly every item of the response is unchanged. To compare 30
unchanged sessions takes a tenth of the time of decoding them. Knows bytes and the items that were made of
them; knows no requests. Bodies are in UTF-8 here, whatever charset the server sent them in.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import cast

from attrs import evolve, frozen

from aiovbo._core.query import Rejected
from aiovbo._decoding.fast_sessions import SessionReader, as_text
from aiovbo._decoding.listing import DecodedPage, decode_listing, read_item, read_page
from aiovbo._protocol.documents import without_byte_order_mark
from aiovbo._resources.links import NOTHING_MORE, Fetcher
from aiovbo._resources.structuring import BROKEN, DOCUMENT
from aiovbo.models import RestoreSession

BUDGET = 64 * 1024 * 1024
"""Bytes that a fleet keeps for recognition; the servers that were queried longest ago lose theirs first."""

LARGEST = 64 * 1024
"""Bytes of the largest response that is kept; more would be compared for too long in one step."""

_RESPONSES = 4
"""Responses that are kept per server, so that alternating queries do not replace each other's."""

_PAUSE = 20
"""Responses that are decoded without recognition after some in which nothing was recognized."""

_PER_ITEM = 700
"""Bytes that a kept session takes beside its text."""

_PLACEHOLDER = b"365365365365365365"
"""Stands for the items while the rest of a page is decoded."""

_STARTS = (b'"results":[{', b'"results": [{')
"""How the items of a page begin, without and with blanks."""

_OPENING, _CLOSING = (b"[", b"{"), (b"]", b"}")

Item = RestoreSession | Rejected


def _cut(body: bytes) -> tuple[bytes, bytes] | None:
    """The parts of a response; None where it is written in another way.

    - The page with a placeholder in place of its items; empty for a bare array.
    - The items, without the first and the last brace.

    Whether the text between the two places is that of the items is not known before the envelope is decoded.
    """
    if body[:2] == b"[{":
        if body[-2:] != b"}]":
            return None
        return b"", body[2:-2]
    for start in _STARTS:
        begin = body.find(start)
        if begin >= 0:
            begin += len(start)
            end = body.rfind(b"}]")
            if end < begin:
                return None
            envelope = b"%b%b%b" % (body[: begin - 1], _PLACEHOLDER, body[end + 1 :])
            return envelope, body[begin:end]
    return None


@frozen(eq=False)
class _Response:
    """The items of one response, and the text that they were made of."""

    key: "_Key"
    """Only responses with an equal key share items."""
    size: int
    """Bytes of the text; -1 where some of its items are not kept, or come twice."""
    text: bytes
    """The text, as long as it was not cut into pieces."""
    border: bytes
    """What is between two items, where it was cut into pieces."""
    known: Mapping[bytes, Item]
    """The items by their own texts, each of which was decoded by itself; in the response's order."""
    sessions: tuple[RestoreSession, ...]
    rejected: tuple[Rejected, ...]

    @property
    def cost(self) -> int:
        """Bytes that it takes, by estimate."""
        return (
            len(self.text) + sum(map(len, self.known)) + _PER_ITEM * max(len(self.known), len(self.sessions))
        )


_Key = tuple[Fetcher | None, object, str]
"""Client, API version and name of the server."""

_Items = tuple[tuple[RestoreSession, ...], tuple[Rejected, ...]]


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
        self._misses = 0
        self._pause = 0

    def forget(self) -> None:
        """Keep nothing; begin again with the next response."""
        self._fleet.forget(self)

    def drop_responses(self) -> None:
        """Called when its bytes are needed for other servers."""
        self._responses = []

    def decode(
        self, body: bytes, server: str, fetcher: Fetcher | None, version: object
    ) -> DecodedPage[RestoreSession]:
        """What `decode_listing` gives; items that arrived before are the same objects.

        - `version`: the API version in which the server was queried.

        Raises: PayloadError where it is no listing.
        """
        if body[:1] not in _OPENING or body[-1:] not in _CLOSING:
            body = without_byte_order_mark(body)
        parts = _cut(body) if len(body) <= LARGEST else None
        if parts is None:
            return decode_listing(body, RestoreSession, server, fetcher)
        envelope, text = parts
        key = (fetcher, version, server)
        was_paused = self._pause > 0
        self._pause -= was_paused
        page = None
        try:
            for response in self._responses:
                if (
                    response.size == len(text)
                    and response.key == key
                    and (response.text or response.border.join(response.known)) == text
                ):
                    self._misses = 0
                    if response is not self._responses[0]:
                        self._move_to_front(response)
                    self._fleet.touch(self)
                    page = _page(body, envelope, key, response.sessions, response.rejected)
                    break
            else:
                page = None if self._pause else self._in_part(body, envelope, text, key)
        except BROKEN:
            # The response is not as it seemed.
            pass
        if page is None:
            page = decode_listing(body, RestoreSession, server, fetcher)
            if not was_paused:
                self._keep_whole(text, key, page.sessions)
        return page

    def _move_to_front(self, response: _Response) -> None:
        self._responses.remove(response)
        self._responses.insert(0, response)

    def _in_part(
        self, body: bytes, envelope: bytes, text: bytes, key: _Key
    ) -> DecodedPage[RestoreSession] | None:
        """The page, each of whose unknown items is decoded by itself; None where the client is new.

        Raises: one of `BROKEN` where the text is not that of whole items.
        """
        same = [response for response in self._responses if response.key == key]
        if not same:
            return None
        border = b"}, {" if b"}, {" in text and b"},{" not in text else b"},{"
        try:
            found = self._by_pieces(as_text(text).split(border), border, key, same)
        except BROKEN:
            self._pause = _PAUSE
            raise
        return _page(body, envelope, key, *found)

    def _by_pieces(self, pieces: list[bytes], border: bytes, key: _Key, same: list[_Response]) -> _Items:
        """The items whose texts are given, without braces; those that are not known are decoded now.

        Raises: one of `BROKEN` where one of them is not a whole object.
        """
        found: list[Item | None] = [None] * len(pieces)
        missing: Sequence[int] = range(len(pieces))
        former: _Response | None = None
        for response in same:
            known = response.known
            if not known:
                continue
            shared = sum(map(known.__contains__, pieces))
            if former is None and 2 * shared > max(len(known), len(pieces)):
                # Probably the last response to the same query: the new one takes its place.
                former = response
            if shared:
                for index in missing:
                    found[index] = known.get(pieces[index])
                missing = [index for index in missing if found[index] is None]
        self._count_miss(is_miss=len(missing) == len(pieces) and any(one.known for one in same))
        new = _read_each([pieces[index] for index in missing], key[2], key[0])
        for index, item in zip(missing, new, strict=True):
            found[index] = item
        items = cast("list[Item]", found)
        known = dict(zip(pieces, items, strict=True))
        rejected: tuple[Rejected, ...] = ()
        if any(one.rejected for one in same) or any(isinstance(item, Rejected) for item in new):
            items = [evolve(it, index=n) if isinstance(it, Rejected) else it for n, it in enumerate(items)]
            known = dict(zip(pieces, items, strict=True))
            rejected = tuple(item for item in items if isinstance(item, Rejected))
            items = [item for item in items if not isinstance(item, Rejected)]
        sessions = cast("tuple[RestoreSession, ...]", tuple(items))
        for index, item in zip(missing, new, strict=True):
            if not _may_be_shared(item):
                known.pop(pieces[index], None)
        # What was not cut into pieces is of no use any more.
        replaced = [one for one in same if one is former or not one.known]
        self._responses = [one for one in self._responses if one not in replaced]
        is_whole = len(known) == len(pieces)
        size = sum(map(len, pieces)) + len(border) * (len(pieces) - 1) if is_whole else -1
        self._keep(_Response(key, size, b"", border, known, sessions if is_whole else (), rejected))
        return sessions, rejected

    def _count_miss(self, *, is_miss: bool) -> None:
        self._misses = self._misses + 1 if is_miss else 0
        if self._misses > _RESPONSES:
            self._misses, self._pause = 0, _PAUSE

    def _keep_whole(self, text: bytes, key: _Key, sessions: Sequence[RestoreSession] | None) -> None:
        """Keep a response that was neither cut nor compared: a first one costs nothing."""
        if sessions is not None:
            self._keep(_Response(key, len(text), text, b"", {}, tuple(sessions), ()))
        elif all(response.key != key for response in self._responses):
            self._keep(_Response(key, -1, b"", b"", {}, (), ()))

    def _keep(self, response: _Response) -> None:
        self._responses.insert(0, response)
        del self._responses[_RESPONSES:]
        self._fleet.note(self, sum(one.cost for one in self._responses))


def _page(
    body: bytes,
    envelope: bytes,
    key: _Key,
    sessions: Sequence[RestoreSession],
    rejected: Sequence[Rejected],
) -> DecodedPage[RestoreSession] | None:
    """A page of these items; None where they are not its items, but those of something else in it.

    Raises: one of `BROKEN` where the rest of it is not a page.
    """
    page = None
    if envelope:
        page = read_page(envelope if envelope.isascii() else as_text(envelope))
        if len(page.results) != 1 or bytes(page.results[0]) != _PLACEHOLDER:
            return None
    return DecodedPage(
        page, (RestoreSession, key[2], key[0]), sessions=sessions, rejected=rejected, body=body
    )


def _read_each(pieces: list[bytes], server: str, fetcher: Fetcher | None) -> Sequence[Item]:
    """The items whose texts without braces are given, each decoded by itself.

    So the texts, with commas between them, are a list of exactly these items.

    Raises: one of `BROKEN` where one of them is not a whole object.
    """
    texts = [b"{%b}" % piece for piece in pieces]
    reader = SessionReader(server, fetcher)
    try:
        return reader.read_each(texts)
    except BROKEN:
        pass
    items: list[Item] = []
    for text in texts:
        # It is an object by itself, or the response was cut inside an item.
        DOCUMENT.decode(text)
        items.append(read_item(reader, text, (RestoreSession, server, fetcher), 0)[0])
    return items


def _may_be_shared(item: Item) -> bool:
    """Whether nothing in it can be changed: members without a field may be lists and objects."""
    if isinstance(item, Rejected):
        return True
    return item.extra is NOTHING_MORE or not any(
        isinstance(value, list | dict) for value in item.extra.values()
    )
