"""Where the next page of a listing is, and whether anything may be missing.

Knows what pages say of each other; sends nothing.
"""

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Generic
from uuid import UUID

from yarl import URL

from aiovbo._decode import Listing
from aiovbo._links import M, Resource
from aiovbo._wire import with_offset
from aiovbo.errors import PayloadError

_number_of = attrgetter("id.int")

PATIENCE = 3
"""Pages in a row that bring nothing new before a listing is taken for endless."""


class Paging(Generic[M]):
    """One walk through a listing: takes its pages in turn, says what is new and where to go on."""

    def __init__(self, follow: Callable[[str, URL], URL]) -> None:
        self._follow = follow
        self._asked: set[URL] = set()
        self._known: set[object] = set()
        self._page: list[object] = []
        self._last: list[object] = []
        self._idle = 0
        self._guessed = False
        self._total: int | None = None
        self.received = 0
        """Rows on the pages so far, as the server counts them."""
        self.complete = True
        """False once something may be missing."""

    def new(self, items: list[M]) -> list[M]:
        """The current page's items that were not seen before: rows that move while one pages come twice."""
        keys = _keys(items)
        self._page += keys
        known, distinct = self._known, set(keys)
        if len(distinct) == len(keys) and None not in distinct and known.isdisjoint(distinct):
            known |= distinct
            return items
        fresh: list[M] = []
        for item, key in zip(items, keys, strict=True):
            if key is None or key not in known:
                fresh.append(item)
                known.add(key)
        return fresh

    def next_url(self, url: URL, listing: Listing[M], *, news: bool) -> URL | None:
        """What to ask after the page at `url`, all of whose items were given to `new`; None at the end.

        Raises: PayloadError where the server leads in circles.
        """
        self._asked.add(url)
        self.received += len(listing)
        if listing.total is not None:
            if self._total is not None and listing.total < self._total:
                # Rows went away while we paged: those behind them moved up, perhaps past us.
                self.complete = False
            self._total = listing.total
        repeated = bool(self._page) and self._page == self._last
        self._last, self._page = self._page, []
        if repeated and self._guessed:
            # We guessed that there is more; a server that ignores offsets sends the same again.
            self.complete = False
            return None
        self._idle = 0 if news else self._idle + 1
        following = self._following(url, listing)
        if following is not None and (repeated or following in self._asked or self._idle > PATIENCE):
            raise PayloadError(
                "its pages lead in circles",
                phase="paging",
                retryable=False,
                hint="What had come until then was kept; a smaller span of time may need one page only.",
            )
        return following

    def _following(self, url: URL, listing: Listing[M]) -> URL | None:
        self._guessed = False
        if listing.next_href is not None:
            return self._follow(listing.next_href, url)
        asked = url.query.get("limit", "")
        limit = listing.limit or (int(asked) if asked.isdigit() else None)
        if listing.total is not None:
            more = self.received < listing.total and len(listing) > 0
            self.complete &= more or self.received >= listing.total
        elif listing.is_array:
            more = limit is not None and len(listing) == limit
        else:
            more = limit is not None and len(listing) >= limit > 0
        if not more:
            return None
        self._guessed = True
        target = with_offset(url.raw_path_qs, self.received)
        return url.join(URL(target, encoded=True))


def _keys(items: Sequence[object]) -> list[object]:
    """What tells the items apart; None where they have no id."""
    try:
        # All of it in C: of sessions, there are many. A number is hashed in C, a UUID in Python.
        return list(map(_number_of, items))
    except AttributeError:
        pass
    ids = (item.get("id") if isinstance(item, Resource) else getattr(item, "id", None) for item in items)
    return [key.int if isinstance(key, UUID) else key for key in ids]
