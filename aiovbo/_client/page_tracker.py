"""One reading of a listing, page by page: what is new, what may be missing, where the next page is.

Knows pages that were decoded; requests nothing.
"""

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, Generic
from uuid import UUID

from yarl import URL

from aiovbo._client.seen_ids import SeenIds
from aiovbo._core.query import Rejected
from aiovbo._decoding.listing import DecodedPage
from aiovbo._protocol.requests import asked_limit, with_offset
from aiovbo._resources.links import M, Resource
from aiovbo.errors import LinkError

number_of = attrgetter("id.int")
"""The number that an ID is; read and hashed in C."""

_DEFAULT_LIMIT = 30
"""Rows on a page where no limit is requested.

Source: vendor's help center, REST API v4 to v8, pagination, read 2026-11-23.
"""

_MOST_IDLE_PAGES = 3
"""Pages in a row that bring nothing new before a listing is taken for endless."""

SMALLER_SPAN = "What had come until then was kept; a smaller span of time may need one page only."
"""What to do where a listing cannot be followed further."""


class PageTracker(Generic[M]):
    """One walk through a listing: takes its pages in turn, says what is new and where to go on."""

    def __init__(self, follow: Callable[[str, URL], URL], checked_page: Sequence[object] = ()) -> None:
        self._follow = follow
        self._asked: set[URL] = set()
        self._known = SeenIds()
        self._page: list[object] = []
        self._last: list[object] = []
        self._idle = 0
        self._guessed = False
        self._is_check = False
        """Whether the second page was requested only to see whether the first one was short."""
        self._total: int | None = None
        self.checked_page: Sequence[object] = checked_page
        """The keys on a first page of default length after which the server had no more."""
        self.received = 0
        """Rows on the pages so far, as the server counts them."""
        self.complete = True
        """False once something may be missing."""

    def new(self, items: Sequence[M]) -> Sequence[M]:
        """The current page's items that were not seen before: rows that move while one pages come twice."""
        keys = _keys(items)
        known, distinct = self._known, set(keys)
        if None in distinct:
            # What has no id is known by all that it says.
            self._page += [item if key is None else key for item, key in zip(items, keys, strict=True)]
        else:
            self._page += keys
        if len(distinct) == len(keys) and None not in distinct and known.isdisjoint(distinct):
            known.update(distinct)
            return items
        fresh: list[M] = []
        for item, key in zip(items, keys, strict=True):
            if key is None or key not in known:
                fresh.append(item)
                known.update((key,))
        return fresh

    def has_new_rejections(self, rejected: Sequence[Rejected]) -> bool:
        """Whether any of the current page's rejected rows was not seen before: they are rows as any other."""
        keys: list[object] = [("rejected", hash(one.raw)) for one in rejected]
        self._page += keys
        is_new = not all(key in self._known for key in keys)
        self._known.update(keys)
        return is_new

    def next_url(self, url: URL, listing: DecodedPage[M], *, news: bool) -> URL | None:
        """What to request after the page at `url`, all of whose items were given to `new`; None at the end.

        Raises: LinkError where the server leads in circles, or out of the API.
        """
        self.received += listing.count
        self.complete &= not listing.is_doubtful
        if listing.total is not None:
            if self._total is not None and listing.total < self._total:
                # Rows went away while we paged: those behind them moved up, perhaps past us.
                self.complete = False
            self._total = listing.total
        before, self._last, self._page = self._last, self._page, []
        repeated = bool(self._last) and self._last == before
        if self._is_check and (repeated or not listing.count):
            # It has no further rows, or no pages at all.
            self.checked_page = before
            return None
        if repeated and self._guessed:
            # We guessed that there is more; a server that ignores offsets sends the same again.
            self.complete = False
            return None
        self._idle = 0 if news else self._idle + 1
        following = self._following(url, listing)
        if following is None:
            return None
        self._asked.add(url)
        if repeated or following in self._asked or self._idle > _MOST_IDLE_PAGES:
            raise LinkError("its pages lead in circles")
        return following

    def _following(self, url: URL, listing: DecodedPage[M]) -> URL | None:
        self._guessed = self._is_check = False
        if listing.next_href is not None:
            return self._follow(listing.next_href, url)
        is_short = may_be_short(listing, url, self._last, self.checked_page)
        self._is_check = is_short and self.received == listing.count
        more = is_short or has_more(listing, url, self.received)
        if listing.total is not None:
            self.complete &= more or self.received >= listing.total
        if not more:
            return None
        self._guessed = True
        target = with_offset(url.raw_path_qs, self.received)
        return url.join(URL(target, encoded=True))


def has_more(page: DecodedPage[Any], url: URL, received: int) -> bool:
    """Whether more rows must exist than were received, to the end of this page; without a link."""
    if page.total is not None:
        return received < page.total and page.count > 0
    limit = page.limit or asked_limit(url)
    if page.is_array:
        return page.count == limit
    return limit is not None and page.count >= limit > 0


def may_be_short(
    listing: DecodedPage[Any], url: URL, keys: Sequence[object], checked_page: Sequence[object]
) -> bool:
    """Whether the server may have ignored the requested limit without saying so, and have more rows."""
    if listing.count != _DEFAULT_LIMIT or keys == checked_page:
        return False
    return listing.limit is None and listing.total is None and asked_limit(url) != _DEFAULT_LIMIT


def _keys(items: Sequence[object]) -> list[object]:
    """What distinguishes the items; None where they have no id."""
    try:
        # All of it in C: of sessions, there are many. A number is hashed in C, a UUID in Python.
        return list(map(number_of, items))
    except AttributeError:
        pass
    return [_key(item) for item in items]


def _key(item: object) -> object:
    if isinstance(item, Resource):
        # Older property tables write `Id`.
        found = next((value for name, value in item.items() if name.casefold() == "id"), None)
    else:
        found = getattr(item, "id", None)
    if isinstance(found, UUID):
        return found.int
    # Of one kind, or 1 and True were the same.
    return (type(found), found) if isinstance(found, str | int) else None
