"""Recognition of restore sessions: what arrives again byte for byte the same is the same object.

A poll sends the same query again, and nearly every item of the response is unchanged. An unchanged response
of 30 sessions takes a thirtieth of the instructions of decoding it to dictionaries, one with one changed
session half of them. How responses are compared is in `_decoding/kept_responses`. Knows no requests.
"""

from collections import OrderedDict, deque
from operator import attrgetter

from aiovbo._decoding.kept_responses import (
    CommonItems,
    KeptResponse,
    Key,
    made_of,
    may_be_shared,
    read_items,
)
from aiovbo._decoding.listing import DecodedPage, decode_listing
from aiovbo._decoding.listing_body import Body
from aiovbo._protocol.documents import without_byte_order_mark
from aiovbo._resources.links import Fetcher
from aiovbo._resources.structuring import BROKEN
from aiovbo.models import RestoreSession

BUDGET = 64 * 1024 * 1024
"""Bytes that a fleet keeps for recognition; the servers that were queried longest ago lose theirs first."""

LARGEST = 64 * 1024
"""Bytes of the largest response that is kept; more would be compared for too long in one step."""

_RESPONSES = 4
"""Responses that are kept per server, so that alternating queries do not replace each other's."""

_OPENING, _CLOSING = (b"[", b"{"), (b"]", b"}")


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
        self._responses: list[KeptResponse] = []
        """The one that was used last is first."""
        self._odd: deque[Key] = deque(maxlen=_RESPONSES)
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

    def _decode_new(self, whole: bytes, key: Key) -> DecodedPage[RestoreSession]:
        """What a response contains that did not arrive before, or not as a whole."""
        fetcher, _, server = key
        if whole[:1] not in _OPENING or whole[-1:] not in _CLOSING:
            whole = without_byte_order_mark(whole)
        body = Body.of(whole) if len(whole) <= LARGEST else None
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
            self._keep(KeptResponse(key, body, page.sessions, page))
        elif body is not None and page.sessions is None and key not in self._odd:
            self._odd.append(key)
        return page

    def _in_part(self, body: Body, key: Key) -> DecodedPage[RestoreSession] | None:
        """The page; None where no item of it is known, and it is better decoded as a whole.

        Raises: one of `BROKEN` where the items are at another place.
        """
        common: list[CommonItems] = []
        for response in self._responses:
            if response.key == key and response.may_resemble(body):
                if response.find_starts():
                    common.append(CommonItems.of(response, body))
                else:
                    self._drop(response)
        most = max(common, key=attrgetter("size"), default=None)
        if most is not None and most.size:
            new, starts = read_items(most.between(), key)
            response = made_of(key, body, *most.joined(new, starts))
            if most.is_most:
                # Probably it was the last response to the same query: the new one takes its place.
                self._drop(most.former)
        elif key in self._odd:
            # As with newer servers: item by item now, since the next response may have the same ones.
            new, starts = read_items(body.text, key)
            response = made_of(key, body, new, starts)
        else:
            return None
        if all(map(may_be_shared, new)):
            self._keep(response)
        return response.page

    def _drop(self, response: KeptResponse) -> None:
        # Another list: this one may be gone through.
        self._responses = [one for one in self._responses if one is not response]

    def _keep(self, response: KeptResponse) -> None:
        self._responses.insert(0, response)
        del self._responses[_RESPONSES:]
        self._fleet.note(self, sum(one.cost for one in self._responses))
