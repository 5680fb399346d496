"""The change feed of one v8 server: from token to token, and when to use lists instead.

Knows the requests of the feed and how they fail. A failure of the feed is not a failure of the server.
"""

import logging
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, cast
from urllib.parse import quote
from uuid import UUID

from aiovbo._client.client import Client
from aiovbo._settings.api_versions import supports
from aiovbo._settings.clock import TimeSource
from aiovbo.errors import (
    ForbiddenError,
    NotFoundError,
    PayloadError,
    ResponseError,
    ServerError,
    UnreachableError,
)

log = logging.getLogger("aiovbo.watch")

_PAGE = 1000
"""Events requested at once."""
_LONGEST_POLL = 25.0
"""Seconds that a poll waits at the server, at most: proxies tend to cut off what is silent for 30."""
_FIRST_PAUSE = 10
"""Intervals between polls for which a feed that failed is left alone; twice as many after each failure."""
_LONGEST_PAUSE = 3600.0
"""Seconds for which a feed that failed is left alone, at most, unless ten intervals are longer."""
_DOUBLINGS = 10
_LONGEST_TOKEN = 2000
"""Characters; it goes into a URL."""
_GATEWAY_STATUSES = (408, 502, 504)
"""What a proxy responds with in place of the server."""
_UNREACHED = ("queue", "dns", "connect", "tls")
"""Phases in which a request has not reached anything that could treat the feed differently."""


class ChangeFeed:
    """The feed of one server: whether it works, where it continues, and what it reports.

    - `every`: from one poll of the server to the next.
    - `absent_for`: how long a server that has no feed, or not for this account, is not queried for one.
    """

    def __init__(self, client: Client, every: timedelta, absent_for: timedelta, clock: TimeSource) -> None:
        self._client = client
        self._every = every.total_seconds()
        self._absent_for = absent_for.total_seconds()
        self._clock = clock
        self._token: str | None = None
        self._following: str | None = None
        self._retry_at = float("-inf")
        self._failures = 0
        self.longest_poll = _LONGEST_POLL
        """Seconds that a poll may wait at the server; fewer where longer ones were cut off."""
        self.is_outdated = False
        """Whether the server has discarded the events that came next: read everything, from `start` on."""

    @property
    def is_due(self) -> bool:
        """Whether it has not failed, or may be tried again."""
        return self._clock.monotonic() >= self._retry_at

    @property
    def is_open(self) -> bool:
        """Whether it can be read now."""
        return self._token is not None and self.is_due

    @property
    def has_failed(self) -> bool:
        """Whether its last request failed."""
        return self._failures > 0

    def reset(self) -> None:
        """Begin again: the server itself failed."""
        self._token, self._retry_at, self.longest_poll = None, float("-inf"), _LONGEST_POLL

    async def start(self) -> bool:
        """Continue from now on, where it is due; whether it can be read.

        Source: operation Events_Get, v8, read 2026-11-23.

        Raises: ServerError where the server cannot be reached at all.
        """
        self._token = None
        if not self.is_due or not supports(await self._client.fetch_api_version(), "event feed"):
            return False
        try:
            page = await self._fetch("Events?from=latest&limit=1")
            self._token = _token_of(page)
        except ServerError as error:
            if error.phase in _UNREACHED:
                raise
            self._fail(error)
        return self._token is not None

    async def read(self, seconds: int) -> dict[UUID, bool] | None:
        """The sessions that were updated (True) or deleted, once there are some or the seconds are over.

        None where the feed failed, or is outdated. `keep` follows, once the sessions are dealt with.

        Raises: ServerError where the server cannot be reached at all.
        """
        token = quote(self._token or "", safe="")
        try:
            page = await self._fetch(f"Events?from={token}&limit={_PAGE}&timeoutSeconds={seconds}")
            found = _sessions_of(page)
        except ServerError as error:
            if error.phase in _UNREACHED:
                raise
            if seconds and _is_cut_off(error):
                # Something in between does not wait as long. The token is as good as before.
                log.info("%s: a poll of the change feed was cut off: %s", self._client.name, error.what)
                self.longest_poll = min(self.longest_poll, seconds) / 2
                return None
            is_outdated = isinstance(error, ResponseError) and error.error_code == "OutdatedChangeToken"
            if is_outdated and not self.is_outdated:
                self._token, self.is_outdated = None, True
            else:
                self._fail(error)
            return None
        self.is_outdated = False
        try:
            self._following = _token_of(page)
        except PayloadError as error:
            # What it reported counts all the same.
            self._fail(error)
            self._following = None
        else:
            self._works()
        return found

    def keep(self) -> None:
        """Continue after what was read last."""
        self._token = self._following

    async def _fetch(self, path: str) -> Mapping[str, Any]:
        # One request, with a deadline of its own: what it takes is not taken from the lists.
        with self._client.operation(may_retry=False):
            return await self._client.fetch(path)

    def _fail(self, error: ServerError) -> None:
        self._failures += 1
        if isinstance(error, ForbiddenError | NotFoundError):
            pause, level = max(self._absent_for, _FIRST_PAUSE * self._every), logging.INFO
        else:
            pause, level = _FIRST_PAUSE * self._every, logging.WARNING
            pause = min(pause * 2 ** min(self._failures - 1, _DOUBLINGS), max(pause, _LONGEST_PAUSE))
            if self._failures == 1 and error.retryable:
                pause = self._every
        if self._failures == 1:
            log.log(
                level,
                "%s: the change feed does not work, lists are polled until it does: %s",
                self._client.name,
                error.what,
            )
        self._retry_at = self._clock.monotonic() + pause

    def _works(self) -> None:
        if self._failures:
            log.info("%s: the change feed works again", self._client.name)
        self._failures = 0


def _is_cut_off(error: ServerError) -> bool:
    """Whether a request ended without a response of the server, as where a proxy waits less long."""
    if isinstance(error, ResponseError):
        return error.status in _GATEWAY_STATUSES
    return error.retryable and isinstance(error, UnreachableError | PayloadError)


def _sessions_of(page: Mapping[str, Any]) -> dict[UUID, bool]:
    """The sessions of a page's events, each once: those that were deleted (False) after the others.

    Raises: PayloadError where it holds no list of events.
    """
    events: object = page.get("results") or []
    if not isinstance(events, list):
        raise PayloadError("its change feed holds no list of events")
    updated: dict[UUID, bool] = {}
    deleted: dict[UUID, bool] = {}
    for event in cast("list[object]", events):
        kind, key = _of_a_session(event)
        if key is not None and kind == "RestoreSessionUpdate":
            updated[key] = True
        elif key is not None and kind == "RestoreSessionDelete":
            deleted[key] = False
    return {**updated, **deleted}


def _of_a_session(event: object) -> tuple[str, UUID | None]:
    if isinstance(event, dict):
        members = cast("dict[str, object]", event)
        kind, key = str(members.get("eventType")), members.get("id")
        if kind.startswith("RestoreSession") and isinstance(key, str):
            try:
                return kind, UUID(key)
            except ValueError:
                pass
    return "", None


def _token_of(page: Mapping[str, Any]) -> str:
    """Where the feed continues.

    Raises: PayloadError where that is not a valid token.
    """
    token = page.get("nextChangeToken")
    if isinstance(token, str) and token.isprintable() and 0 < len(token) <= _LONGEST_TOKEN:
        return token
    raise PayloadError("its change feed does not say where it continues")
