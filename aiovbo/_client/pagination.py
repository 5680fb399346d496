"""The pages of a collection, in turn, the next one read ahead; and whether anything may be missing.

How a request gets its response is in `_client/requester`; what pages say of each other, in
`_client/page_tracker`. Knows no HTTP.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from copy import copy
from datetime import datetime
from functools import partial
from typing import Any, Generic, Self, cast
from uuid import UUID

from attrs import define, evolve, frozen
from yarl import URL

from aiovbo._client.page_tracker import SMALLER_SPAN, PageTracker, has_more, may_be_short, number_of
from aiovbo._client.requester import Requester
from aiovbo._core.deadline import Operation
from aiovbo._core.query import Page, Rejected
from aiovbo._decoding.listing import DecodedPage, decode_listing
from aiovbo._decoding.recognition import ServerRecognition
from aiovbo._protocol.messages import Reply, Request
from aiovbo._protocol.requests import with_smaller_pages
from aiovbo._protocol.urls import resolve_link
from aiovbo._resources.links import Fetcher, M
from aiovbo.errors import LinkError, PayloadError
from aiovbo.models import RestoreSession

# A client's, to those who set levels: the module that reads the pages does not matter.
log = logging.getLogger("aiovbo.client")

_SHOWN = 3
"""Rejected rows that the log names, of one listing."""
_MOST_PROBLEMS = 20
"""Rejected rows that an error names."""

Check = Callable[[Sequence[M], URL, Callable[[str, datetime], Collection[UUID]]], tuple[Sequence[M], bool]]
"""Which of a page's items to keep, and whether the page can be trusted to lack none."""

ListingStart = tuple[URL, Check[M] | None]
"""Where a listing begins, and the check of its items; None keeps them all."""


@frozen(eq=False)
class CollectionReader(Generic[M]):
    """What to read: a collection of one server, and where its pages begin."""

    requester: Requester
    fetcher: Fetcher
    recognition: ServerRecognition
    cls: type[M]
    find: Callable[[Operation], Awaitable[ListingStart[M]]]
    reports_rejected: bool = False
    """Whether the caller reports rejected rows: they are not logged, nor an error."""

    def pages(self, operation: Operation) -> "PageIterator[M]":
        """The pages; nothing is sent before the first one is requested."""
        return PageIterator(self, operation)

    async def first_page(self, operation: Operation) -> "Page[M] | PageIterator[M]":
        """The page, where it is the only one and all of its items are valid; else an iterator of all pages.

        Nearly every poll is one page: without an iterator and what that keeps, a round of polls takes a tenth
        less. The iterator goes on with the response that has arrived, and must be closed.
        """
        requester = self.requester
        requester.usage.check(operation)
        with requester.usage:
            with operation.deadline:
                time_was_known = requester.endpoint.time_is_known
                url, check = await self.find(operation)
                asked = _RequestedPage(url)
                request = Request(url, smaller=asked.halve, may_be_large=True)
                listing = await requester.send(request, operation, self.read)
            if asked.url is url and (time_was_known or requester.clock_offset() is None):
                page = _only_page(listing, url, check, requester.checked_page)
                if page is not None:
                    return page
            first = _FirstResponse(time_was_known, url, check, asked.url, listing)
            return PageIterator(self, operation, first)

    def read(self, reply: Reply) -> DecodedPage[M]:
        """The page in a response."""
        requester, cls = self.requester, self.cls
        if cls is RestoreSession:
            page = self.recognition.decode(
                reply.body, requester.server.name, self.fetcher, requester.endpoint.version
            )
            return cast("DecodedPage[M]", page)
        return decode_listing(reply.body, cls, requester.server.name, self.fetcher)


@frozen(eq=False)
class _FirstResponse(Generic[M]):
    """The response to the first request of a listing that has more pages, or invalid items."""

    time_was_known: bool
    """Whether the server had sent its time before."""
    start: URL
    check: Check[M] | None
    url: URL
    """What was requested; less than at the start where that was too large."""
    listing: DecodedPage[M]


def _only_page(
    listing: DecodedPage[M], url: URL, check: Check[M] | None, checked_page: Sequence[object]
) -> Page[M] | None:
    """The page where nothing follows it, and nothing in it needs a closer look; None elsewhere."""
    items = listing.sessions
    if items is None or listing.rejected or listing.is_doubtful or listing.next_href is not None:
        return None
    numbers = list(map(number_of, items))
    if len(set(numbers)) < len(numbers) or may_be_short(listing, url, numbers, checked_page):
        return None
    if has_more(listing, url, listing.count):
        return None
    if check is None:
        return Page(items)
    kept, is_trusted = check(items, url, listing.just_after)
    return Page(kept, (), is_trusted)


class PageIterator(Generic[M]):
    """The pages of one collection, as an async iterator; `aclose` ends what is read ahead."""

    def __init__(
        self, collection: CollectionReader[M], operation: Operation, first: _FirstResponse[M] | None = None
    ) -> None:
        """The pages from the first on, which has arrived already where it is given."""
        self._requester = collection.requester
        self._reports_rejected = collection.reports_rejected
        self._read = collection.read
        self._find: Callable[[Operation], Awaitable[ListingStart[M]]] | None = collection.find
        self._operation = operation
        self._check: Check[M] | None = None
        # Not a method of ours: nothing that a query made may wait for the garbage collector.
        self._walk: PageTracker[M] = _tracker(collection.requester)
        self._ahead: asyncio.Task[tuple[Page[M], URL | PayloadError | None]] | None = None
        self._failure: PayloadError | None = None
        self._first = first
        self._is_in_use = first is not None
        if self._is_in_use:
            self._requester.usage.begin()
        self._structured = 0
        self._rejected = 0
        self._problems: list[str] = []

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Page[M]:
        # From a page's return until the next one is requested, the time is the consumer's.
        with self._operation.deadline:
            return await self.next_page()

    async def next_page(self) -> Page[M]:
        """The next page, for a caller that itself counts the time that it waits.

        Raises: StopAsyncIteration after the last page.
        """
        while True:
            if self._find is not None:
                find, self._find = self._find, None
                if not self._is_in_use:
                    self._requester.usage.check(self._operation)
                    self._requester.usage.begin()
                    self._is_in_use = True
                page, following = await self._first_page(find)
            elif self._ahead is not None:
                page, following = await self._ahead
                self._ahead = None
            elif self._failure is not None:
                # Only now, so that what had come is not lost with what cannot be had.
                failure, self._failure = self._failure, None
                raise copy(failure)
            else:
                raise StopAsyncIteration
            if not isinstance(following, URL):
                # The last one also when it is empty: it says whether the listing is complete.
                self._failure = following
                return page
            self._ahead = asyncio.create_task(self._page(following))
            if page.items or page.rejected:
                return page

    async def _first_page(
        self, find: Callable[[Operation], Awaitable[ListingStart[M]]]
    ) -> tuple[Page[M], URL | PayloadError | None]:
        arrived, self._first = self._first, None
        if arrived is None:
            time_was_known = self._requester.endpoint.time_is_known
            url, self._check = await find(self._operation)
            first = await self._page(url)
        else:
            time_was_known, url, self._check = arrived.time_was_known, arrived.start, arrived.check
            first = await self._take(arrived.url, arrived.listing)
        if time_was_known or self._requester.clock_offset() is None:
            return first
        # Bounds that were counted back from our time may be others by the server's, which is known only now.
        corrected, self._check = await find(self._operation)
        if corrected == url:
            return first
        self._walk = _tracker(self._requester)
        self._rejected = self._structured = 0
        self._problems.clear()
        return await self._page(corrected)

    async def aclose(self) -> None:
        """End what is under way, and log what was rejected: one line a listing, however many rows it has."""
        if self._rejected and not self._reports_rejected:
            rejected, self._rejected = self._rejected, 0
            name, received = self._requester.server.name, self._walk.received
            shown = "; ".join(_first(self._problems[:_SHOWN], rejected))
            log.warning("%s: %s: rejected %d of %d items: %s", name, self._path, rejected, received, shown)
        if self._is_in_use:
            self._is_in_use = False
            self._requester.usage.end()
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.cancel()
            await asyncio.wait([ahead])
            # Its outcome is not retrieved elsewhere, which asyncio would complain about.
            _ = ahead.cancelled() or ahead.exception()

    async def _page(self, url: URL) -> tuple[Page[M], URL | PayloadError | None]:
        operation = self._operation
        if self._walk.received and operation.deadline.has_passed():
            raise self._requester.overdue(url, operation, "paging")
        asked = _RequestedPage(url)
        listing = await self._requester.send(
            Request(url, smaller=asked.halve, may_be_large=True), operation, self._read
        )
        return await self._take(asked.url, listing)

    async def _take(self, url: URL, listing: DecodedPage[M]) -> tuple[Page[M], URL | PayloadError | None]:
        """The page in a response, and what to request after it."""
        walk = self._walk
        try:
            items, rejected, news = await self._rows(url, listing)
        except PayloadError as error:
            # Of a large response: what is wrong with it is seen only where it is reached.
            raise self._requester.endpoint.annotate(url, error) from None
        if rejected:
            self._note(url, rejected)
        following: URL | PayloadError | None
        try:
            following = walk.next_url(url, listing, news=news)
            self._requester.checked_page = walk.checked_page
        except LinkError as error:
            failure = PayloadError(f"paging: {error}", phase="paging", retryable=False, hint=SMALLER_SPAN)
            following = self._requester.endpoint.annotate(url, failure)
            walk.complete = False
        walk.complete &= not rejected
        if self._rejected and not self._structured and not isinstance(following, URL):
            what = f"all {self._rejected} items were rejected"
            following = self._requester.endpoint.annotate(url, self._error_of_rejected(what))
        return Page(items, tuple(rejected), walk.complete), following

    async def _rows(self, url: URL, listing: DecodedPage[M]) -> tuple[list[M], list[Rejected], bool]:
        """The items and the rejected rows of a response, step by step; and whether any of them is new."""
        walk, check, operation = self._walk, self._check, self._operation
        items: list[M] = []
        rejected: list[Rejected] = []
        news = False
        for number, (some, others) in enumerate(listing.slices()):
            if number:
                # A long response must not block the event loop.
                await asyncio.sleep(0)
                if operation.deadline.has_passed():
                    raise self._requester.overdue(url, operation, "decoding")
            fresh = walk.new(some)
            news |= bool(fresh)
            self._structured += len(some)
            if check is not None:
                fresh, is_trusted = check(fresh, url, listing.just_after)
                walk.complete &= is_trusted
            items += fresh
            if others:
                news |= walk.has_new_rejections(others)
                rejected += [evolve(r, index=walk.received + r.index) for r in others]
        return items, rejected, news

    def _note(self, url: URL, rejected: list[Rejected]) -> None:
        self._path = url.raw_path
        self._rejected += len(rejected)
        missing = rejected[: _MOST_PROBLEMS - len(self._problems)]
        self._problems += [f"item {r.index}: {r.reason} @ {r.path}" for r in missing]
        if self._operation.options.strict and not self._reports_rejected:
            failure = self._error_of_rejected(f"{self._rejected} items were rejected")
            # The error says it all.
            self._rejected = 0
            raise self._requester.endpoint.annotate(url, failure)

    def _error_of_rejected(self, what: str) -> PayloadError:
        problems = _first(self._problems, self._rejected)
        hint = "Check that this is the API of Veeam Backup for Microsoft 365; `problems` has the details."
        return PayloadError(f"{what}: {problems[0]}", problems=problems, hint=hint)


@define(eq=False)
class _RequestedPage:
    """Where a page is requested, which changes while servers and proxies find it too large."""

    url: URL
    """The URL that is requested now."""

    def halve(self) -> URL | None:
        """The URL of half the page; None where it cannot be smaller."""
        smaller = with_smaller_pages(self.url)
        if smaller is not None:
            self.url = smaller
        return smaller


def _first(problems: list[str], count: int) -> list[str]:
    """The first few of so many problems, and how many more there are."""
    more = count - len(problems)
    return [*problems, f"and {more} more"] if more else problems


def _tracker(requester: Requester) -> PageTracker[Any]:
    return PageTracker(partial(_follow, requester), requester.checked_page)


def _follow(requester: Requester, href: str, asked: URL) -> URL:
    # Its address may change while a listing is read.
    base = requester.server.url
    path = asked.raw_path.removeprefix(base.raw_path.rstrip("/"))
    # A listing goes on as it began, whatever version others come to think of meanwhile.
    version = path.split("/")[1]
    return resolve_link(base, version, href, path)
