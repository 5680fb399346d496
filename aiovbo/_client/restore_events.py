"""The events of many restore sessions of one server, as one stream of pages.

Requests the events of several sessions at once, and delivers them in the order of the sessions. Must not know
how a request is sent.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from copy import copy
from typing import Self

from attrs import define

from aiovbo._client.pagination import PageIterator
from aiovbo._core.deadline import Operation
from aiovbo._core.query import Page, Rejected
from aiovbo.errors import LinkError, NotFoundError, PayloadError, ResponseError, ServerError
from aiovbo.models import RestoreEvent, RestoreSession, RestoreSessionEvent

# As for listings: users set the level of the client.
log = logging.getLogger("aiovbo.client")

_MOST_FAILURES = 3
"""Sessions whose events the server may refuse before no further session is tried."""

EventListing = Callable[[RestoreSession, Operation], PageIterator[RestoreSessionEvent]]
"""Opens the events of a session."""

SessionCheck = Callable[[RestoreSession], Awaitable[object]]
"""Fetches a session.

Raises: NotFoundError where it no longer exists.
"""


@define(eq=False)
class _Reading:
    """A session whose events are being read."""

    session: RestoreSession
    pages: PageIterator[RestoreSessionEvent]
    first: asyncio.Task[Page[RestoreSessionEvent]] | None
    """The request for the first page; None once the page was delivered."""


class EventPages:
    """Pages of events, as an async iterator; `aclose` ends what is in progress.

    The first pages of several sessions are requested at once, as many as the server gets requests at once.
    The events of a session stay together.
    """

    def __init__(
        self,
        operation: Operation,
        open_events: EventListing,
        check_session: SessionCheck,
        *,
        known: Iterable[RestoreSession] = (),
        listing: PageIterator[RestoreSession] | None = None,
        only: Callable[[RestoreSession], object] | None = None,
    ) -> None:
        """The events of the sessions that are `known`, and of those that `listing` brings."""
        self._operation = operation
        self._open_events = open_events
        self._check_session = check_session
        self._only = only
        self._sessions = deque(known)
        self._listing = listing
        self._ahead: deque[_Reading] = deque()
        self._rejected: list[Rejected] = []
        self._complete = True
        self._failure: ServerError | None = None
        self._failures = 0
        self._is_over = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Page[RestoreEvent]:
        # As for listings: from a page's return until the next request, the time is the consumer's.
        with self._operation.deadline:
            while not self._is_over:
                await self._read_ahead()
                if not self._ahead:
                    # Also where it is empty: it states whether everything was complete.
                    self._is_over = True
                    return self._page_of([])
                page = await self._next_page(self._ahead[0])
                if page is not None:
                    return page
        if self._failure is not None:
            # Only now, so that the events of the other sessions are not lost.
            failure, self._failure = self._failure, None
            raise copy(failure)
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """End what is in progress."""
        self._is_over = True
        self._sessions.clear()
        ahead, self._ahead = self._ahead, deque[_Reading]()
        listing, self._listing = self._listing, None
        first = [reading.first for reading in ahead if reading.first is not None]
        for task in first:
            task.cancel()
        async with AsyncExitStack() as steps:
            if listing is not None:
                steps.push_async_callback(listing.aclose)
            for reading in ahead:
                steps.push_async_callback(reading.pages.aclose)
            if first:
                await asyncio.wait(first)
        for task in first:
            # Retrieved, or asyncio would report it.
            _ = task.cancelled() or task.exception()

    async def _read_ahead(self) -> None:
        while len(self._ahead) < self._operation.options.connections:
            if not self._sessions:
                await self._list_more()
            if not self._sessions:
                return
            session = self._sessions.popleft()
            pages = self._open_events(session, self._operation)
            self._ahead.append(_Reading(session, pages, asyncio.create_task(pages.next_page())))

    async def _list_more(self) -> None:
        """The next sessions, if there are any more."""
        while not self._sessions and self._listing is not None:
            try:
                page = await self._listing.next_page()
            except StopAsyncIteration:
                await self._end_listing()
            except ServerError as error:
                self._failure = self._failure or error
                await self._end_listing()
            else:
                self._rejected += page.rejected
                self._complete &= page.complete
                self._sessions.extend(filter(self._only, page.items))

    async def _end_listing(self) -> None:
        listing, self._listing = self._listing, None
        if listing is not None:
            await listing.aclose()

    async def _next_page(self, reading: _Reading) -> Page[RestoreEvent] | None:
        """The next page of a session's events; None after the last one."""
        try:
            if reading.first is None:
                page = await reading.pages.next_page()
            else:
                page = await reading.first
                reading.first = None
        except StopAsyncIteration:
            await self._end_reading()
            return None
        except (ServerError, LinkError) as error:
            reading.first = None
            await self._end_reading()
            await self._note_failure(reading.session, error)
            return None
        self._rejected += page.rejected
        self._complete &= page.complete
        return self._page_of([RestoreEvent(reading.session, event) for event in page.items])

    async def _end_reading(self) -> None:
        await self._ahead.popleft().pages.aclose()

    async def _note_failure(self, session: RestoreSession, error: ServerError | LinkError) -> None:
        if isinstance(error, NotFoundError) and await self._no_longer_exists(session):
            log.debug("%s: restore session %s was deleted meanwhile", session.server, session.id)
            return
        if isinstance(error, LinkError):
            # A link is what a server sent, so it is this server's failure.
            error = PayloadError(f"session {session.id}: {error}", retryable=False)
            error.server = session.server
        self._complete = False
        self._failure = self._failure or error
        self._failures += 1
        # Its response about one session may differ from those about others. Whether it responds at all does
        # not depend on the session.
        is_about_the_session = isinstance(error, ResponseError | PayloadError)
        if not is_about_the_session or self._failures >= _MOST_FAILURES:
            self._sessions.clear()
            await self._end_listing()

    async def _no_longer_exists(self, session: RestoreSession) -> bool:
        """Whether a session was deleted, and it is not only its events that the server does not have."""
        try:
            await self._check_session(session)
        except NotFoundError:
            return True
        except ServerError:
            pass
        return False

    def _page_of(self, events: list[RestoreEvent]) -> Page[RestoreEvent]:
        rejected, self._rejected = tuple(self._rejected), []
        return Page(events, rejected, self._complete)
