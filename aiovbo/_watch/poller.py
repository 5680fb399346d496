"""The watch of one server: what to request, and when.

Which lists are read is here; the change feed is in `_watch/feed`, when the next poll is due in
`_watch/schedule`, what a response means in `_watch/tracker`, and what is delivered in `_watch/delivery`.
"""

import asyncio
import logging
import re
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import chain, count, islice
from typing import Any
from uuid import UUID

from attrs import define, evolve, field

from aiovbo._client.client import Client
from aiovbo._core.deadline import Operation
from aiovbo._core.query import Answer, Rejected
from aiovbo._protocol.requests import with_offset
from aiovbo._protocol.session_filter import SessionFilter
from aiovbo._settings.api_versions import supports
from aiovbo._watch.changes import SERVER_KEY, AnyChange, CheckpointEntry, ServerCheckpoint
from aiovbo._watch.delivery import Delivery
from aiovbo._watch.feed import ChangeFeed
from aiovbo._watch.options import WatchOptions
from aiovbo._watch.pending import PendingChange
from aiovbo._watch.schedule import PollSchedule
from aiovbo._watch.status import WatchStatus
from aiovbo._watch.tracker import Tracker
from aiovbo.errors import (
    NotFoundError,
    PayloadError,
    ResponseError,
    ServerError,
    ServerTimeoutError,
)
from aiovbo.models import RestoreSession

log = logging.getLogger("aiovbo.watch")

_ONE_BY_ONE = 10
"""Sessions up to which each is fetched by its id; more are listed."""
_MOST_CONFIRMED = 100
"""Sessions missing from a list that are requested by their IDs in one poll; the others in the next ones."""
_REQUESTED_AGAIN = 10
"""Polls in which a session is requested again that was not found although the feed says it was updated."""
_IDENTIFIED_AGAIN = 3
"""Polls that fail where the server does not say which installation it is, though it is known already."""
_SAVED_AT_ONCE = 100
"""Sessions whose changes are saved in one transaction, at most."""
_STEP = 500
"""Rows of the history that are read at once, at most, however long it is."""
_FEED_PAUSE = 1.0
"""Seconds from one poll of the feed to the next, at least: a busy one is not asked for every event."""
_ONE_ROW = "RestoreSessions?limit=1"
_ID = re.compile(r'"id"\s*:\s*"([0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})"', re.IGNORECASE)


@define(eq=False)
class _Stretch:
    """A part of the history that is read in steps, from look to look."""

    start: datetime | None
    """Only sessions created then or later."""
    end: datetime
    """Only sessions created then or before."""
    offset: int = 0
    """Rows that were read in this round."""
    first: UUID | None = None
    """The session that the last page began with."""
    seen: set[UUID] = field(factory=set[UUID])
    """The sessions that were read in this round."""
    is_over: bool = False
    """Whether it was read to its end."""


class ServerPoller:
    """One server that is being watched."""

    def __init__(
        self,
        client: Client,
        options: WatchOptions,
        delivery: Delivery,
        adopt_former: Callable[["ServerPoller", UUID | None], Coroutine[Any, Any, bool | None]],
        *,
        among: int = 1,
    ) -> None:
        """The poller of one server, `among` so many that start together."""
        self._client = client
        self._options = options
        self._delivery = delivery
        self._numbers = count(1)
        self._adopt_former = adopt_former
        self._among = among
        self.tracker = self._track(None)
        """What is known of the server."""
        self._beat = PollSchedule(client.name, options.every, options.clock, options.max_backoff)
        self._feed = ChangeFeed(client, options.every, options.full_look_every, options.clock)
        self._last_success: datetime | None = None
        self._answered_at: float | None = None
        self._errors = 0
        self._failing_since = 0.0
        self._full_look_at = float("-inf")
        self._identified: object = None
        self._not_identified = 0
        self._waits_for_former = False
        """Whether it is known to be another installation, whose checkpoint it cannot have yet."""
        self.reported: UUID | None = None
        """The installation that the server has reported; None where it has not."""
        self._has_reported = asyncio.Event()
        self._is_full_poll_due = False
        self._not_found: dict[UUID, int] = {}
        self._still_there: set[UUID] = set()
        """Sessions that a list did not have, and the server did: the others are requested first."""
        self._old: _Stretch | None = None
        self._unfinished: _Stretch | None = None
        self._history: _Stretch | None = None

    def _track(self, place: ServerCheckpoint | None) -> Tracker:
        options = self._options
        return Tracker(self._client.name, place, options.since, options.memory)

    def succeed(self, former: "ServerPoller") -> None:
        """Save in place of one of the same name until the checkpoint is loaded: changes of it still wait."""
        self.tracker = former.tracker
        self._last_success, self._answered_at = former._last_success, former._answered_at  # noqa: SLF001  # its own

    @property
    def name(self) -> str:
        """The server's name."""
        return self._client.name

    def status(self) -> WatchStatus:
        """How it goes."""
        last = self._last_success
        return WatchStatus(
            server=self._client.name,
            up=not self._errors and last is not None,
            last_success=last,
            lag=None if last is None else self._silence(),
            next_look=self._beat.next_poll,
            backlog=self._delivery.backlog(self._client.name),
            errors=self._errors,
            overruns=self._beat.overruns,
            rejected=self.tracker.rejected,
            oldest_unacknowledged=self._delivery.oldest(self._client.name),
        )

    async def save(self, steps: Sequence[CheckpointEntry]) -> None:
        """Save records of the server, together with how far they reach."""
        tracker = self.tracker
        await self._options.checkpoint.save(self._client.name, steps, tracker.horizon, tracker.installation)

    async def follow(self, after: asyncio.Task[None] | None = None) -> None:
        """Poll at every beat, until cancelled.

        - `after`: the task of a former one of this name, which ends first.

        Raises: CheckpointError where the place cannot be read or written.
        """
        if after is not None:
            await asyncio.wait([after])
        # Also those that are deleted while it is loaded.
        held = self._delivery.held(self._client.name)
        place = await self._options.checkpoint.load(self._client.name)
        self.tracker = self._track(place)
        try:
            await self._deliver_again(place, held)
            await self._poll_forever()
        finally:
            self._has_reported.set()

    async def _poll_forever(self) -> None:
        clock, beat = self._options.clock, self._beat
        await beat.wait(beat.until_first(self._among))
        while True:
            began = clock.monotonic()
            pause = await self._try_to_look()
            if pause is None:
                pause = beat.until_next(clock.monotonic() - began)
            await beat.wait(pause)

    async def _try_to_look(self) -> float | None:
        """Poll, and report how it went; seconds until the next look where that is not the next beat."""
        clock = self._options.clock
        try:
            pause = await self._look()
        except ServerError as error:
            self._errors += 1
            self._has_reported.set()
            log.debug("look %d in a row that failed: %s", self._errors, error)
            # All may have changed when it is back.
            self._full_look_at = float("-inf")
            self._feed.reset()
            pause = self._beat.backoff(self._errors)
            now = clock.monotonic()
            if self._errors == 1:
                self._failing_since = now
            missing = self._options.min_down.total_seconds() - (now - self._failing_since)
            if missing > 0:
                return min(pause, missing)
            await self._report(self.tracker.fail(error, self._last_success or clock.now()))
            return pause
        self._errors = 0
        self._last_success, self._answered_at = clock.now(), clock.monotonic()
        if entries := self.tracker.settle():
            await self.save(entries)
        return pause

    async def _report_recovery(self) -> None:
        """The server has responded: if it had been out of reach, that is over."""
        await self._report(self.tracker.succeed(self._options.clock.now(), self._silence()))

    def _silence(self) -> timedelta | None:
        """For how long it has not responded, by the monotonic clock; None where it never did here."""
        if self._answered_at is None:
            return None
        return timedelta(seconds=self._options.clock.monotonic() - self._answered_at)

    # ---------------------------------------------------------------------------------- one look

    async def _look(self) -> float | None:
        clock, feed = self._options.clock, self._feed
        if self.tracker.recover(clock.now()):
            log.warning(
                "%s: a clock was wrong; sessions that ended may be reported once more",
                self._client.name,
            )
            self._full_look_at = float("-inf")
        if self._identified is not None and self._identified is not self._client.server:
            # It has another address: perhaps it is another installation.
            self._identified, self._not_identified, self._full_look_at = None, 0, float("-inf")
            self._waits_for_former = False
            feed.reset()
        is_full = clock.monotonic() >= self._full_look_at
        version = self._client.api_version
        if self._errors and version is not None and supports(version, "event feed"):
            # A server that is down is probed by a single request, which is none of the feed.
            with self._operation():
                await self._client.fetch_page(_ONE_ROW, RestoreSession)
        if feed.is_open and not is_full:
            return await self._look_at_feed()
        # The token first: what changes during the look is in the feed after it.
        if not feed.is_open and await self._start_feed():
            is_full = True
        if not is_full:
            with self._operation():
                await self._look_at_latest()
            return None
        with self._operation():
            await self._look_at_all()
        every = self._options.full_look_every.total_seconds()
        self._full_look_at = clock.monotonic() + every * (0.9 + clock.random() / 5)
        if self._is_full_poll_due:
            self._full_look_at, self._is_full_poll_due = float("-inf"), False
            return None
        # Whatever happens next is in the feed, if that waits for it.
        is_next = (
            feed.is_open and self._seconds_to_wait() and self._options.every <= self._options.full_look_every
        )
        return 0.0 if is_next else None

    def _operation(self) -> Operation:
        # A server that is down is probed by a single request.
        return self._client.operation(may_retry=self._errors == 0)

    async def _start_feed(self) -> bool:
        """Whether the feed can be read from now on; a server that is older than v8 has none."""
        with self._operation():
            if not self._feed.is_due or not supports(await self._client.fetch_api_version(), "event feed"):
                return False
        return await self._feed.start()

    async def _look_at_all(self) -> None:
        """Everything that is remembered, and all that is unfinished; what is gone is noticed."""
        if self._identified is None:
            server = self._client.server
            if not await self._identify():
                self._is_full_poll_due = True
                await self._report_recovery()
                return
            self._identified = server
        tracker = self.tracker
        if self._history is None:
            # As far as the last such poll saw.
            if entries := tracker.forget(self._options.clock.now()):
                await self.save(entries)
            missing = await self._look_at_remembered()
        else:
            missing = await self._look_at_rest(self._history)
        if missing is None:
            self._is_full_poll_due = True
            return
        await self._confirm_removed(missing)
        if tracker.horizon is not None:
            seen = await self._look_at_old(tracker.horizon)
            await self._look_at_unfinished(
                [key for key in tracker.open_before(tracker.horizon) if key not in seen]
            )
        tracker.has_seen_all(self._options.clock.now())

    async def _look_at_remembered(self) -> list[UUID] | None:
        """Everything that is remembered, and which of it is missing; None where the deadline ended it."""
        tracker = self.tracker
        answer = await self._answer(tracker.horizon)
        sessions = sorted(answer.items, key=_creation_time)
        if answer.error is not None:
            if not sessions or not isinstance(answer.error, ServerTimeoutError):
                raise answer.error
            # The next polls go on from here: from the beginning, the same deadline would end each of them.
            seen = {one.id for one in sessions}
            end = sessions[-1].creation_time
            read = len(sessions) + len(answer.rejected)
            self._history = _Stretch(tracker.horizon, end, read, answer.items[0].id, seen)
            await self._report_recovery()
        is_all = answer.error is None
        if tracker.is_first:
            await self.save(tracker.begin(sessions, self._options.clock.now(), is_all=is_all))
        await self._observe(sessions)
        if not is_all:
            return None
        return tracker.missing([one.id for one in sessions] + _ids_of(answer.rejected), tracker.horizon)

    async def _look_at_rest(self, history: "_Stretch") -> list[UUID] | None:
        """Go on where the deadline ended a poll; what is missing, or None where it ended this one too."""
        tracker = self.tracker
        if not tracker.is_first:
            await self._look_at_latest()
        before = history.offset
        try:
            while not history.is_over:
                await self._read_on(history)
                await self._report_recovery()
        except ServerTimeoutError:
            if history.offset == before:
                raise
            return None
        self._history = None
        if tracker.is_first:
            await self.save(tracker.begin([], self._options.clock.now()))
        missing = tracker.missing(history.seen, history.start)
        return [key for key in missing if tracker.known[key].created <= history.end]

    async def _look_at_old(self, horizon: datetime) -> set[UUID]:
        """The next rows of what is forgotten, in which an unfinished session may have appeared; their ids."""
        if self._old is None or self._old.is_over:
            self._old = _Stretch(None, horizon)
        before = set(self._old.seen)
        await self._read_on(self._old)
        return self._old.seen - before

    async def _look_at_unfinished(self, unfinished: list[UUID]) -> None:
        """Sessions that go on although they are old: each by its id, or many by the rows around them."""
        if len(unfinished) <= _ONE_BY_ONE:
            self._unfinished = None
            await self._fetch_each(unfinished)
            return
        stretch = self._unfinished
        if stretch is None or stretch.is_over:
            created = [self.tracker.known[key].created for key in unfinished]
            self._unfinished = stretch = _Stretch(min(created), max(created))
        await self._read_on(stretch)
        if stretch.is_over:
            # Who is gone costs a request; of many, the others are requested after the next round.
            missing = [key for key in unfinished if key not in stretch.seen]
            await self._fetch_each([key for key in missing if self._lies_in(stretch, key)][:_ONE_BY_ONE])

    def _lies_in(self, stretch: _Stretch, key: UUID) -> bool:
        entry = self.tracker.known.get(key)
        return entry is not None and (stretch.start is None or stretch.start <= entry.created <= stretch.end)

    async def _read_on(self, stretch: _Stretch) -> None:
        """The next rows of a part of the history, a bounded number of them.

        By offsets: rows that move while it is read are read twice, or not before the next round.
        """
        bounds = SessionFilter(
            started_after=None if stretch.start is None else stretch.start - timedelta(microseconds=1),
            started_before=stretch.end + timedelta(microseconds=1),
            page_size=_STEP,
        )
        version = await self._client.fetch_api_version()
        path_and_query, _ = bounds.for_version(version)
        rows = 0
        while rows < _STEP and not stretch.is_over:
            target = with_offset(path_and_query, stretch.offset)
            page = await self._client.fetch_page(target, RestoreSession)
            ids: list[UUID] = []
            for sessions, rejected in page.slices():
                await asyncio.sleep(0)
                await self._reject(rejected)
                ids += [session.id for session in sessions]
                if self.tracker.is_first:
                    await self.save(self.tracker.begin(sessions, self._options.clock.now(), is_all=False))
                await self._observe(sorted(sessions, key=_creation_time))
            # A server that ignores the offset sends the same page indefinitely.
            is_same = bool(ids) and ids[0] == stretch.first
            stretch.first = ids[0] if ids else None
            stretch.seen.update(ids)
            stretch.offset += page.count
            rows += page.count
            stretch.is_over = is_same or not page.count or (page.next_href is None and page.count < _STEP)

    async def _identify(self) -> bool:
        """Which installation this is: one that had another name before goes on where it was.

        False where that has to wait until earlier changes are acknowledged.
        """
        name, tracker, known = self._client.name, self.tracker, self.tracker.installation
        installation = await self._ask_for_installation()
        self.reported = installation
        self._has_reported.set()
        is_another = installation is not None and known is not None and installation != known
        self._waits_for_former = False
        if tracker.is_first or is_another:
            is_adopted = await self._adopt_former(self, installation)
            self._waits_for_former = is_adopted is None
            if is_adopted is not False:
                return is_adopted is not None
        if installation is None or installation == known:
            return True
        if known is not None:
            log.warning("%s responds as installation %s, and was %s before", name, installation, known)
        tracker.installation = installation
        if not tracker.is_first:
            await self.save([])
        return True

    async def wait_for_report(self) -> None:
        """Wait until the server was polled, successfully or not, or is watched no more."""
        await self._has_reported.wait()

    async def adopt(self, place: ServerCheckpoint) -> None:
        """Continue from another checkpoint; whether the server is unreachable is known under this name."""
        adopted = {key: one for key, one in place.known.items() if key != SERVER_KEY}
        entries = [CheckpointEntry(key, None) for key in self.tracker.keys() - adopted.keys()]
        entries += [CheckpointEntry(key, one) for key, one in adopted.items()]
        await self._options.checkpoint.save(self._client.name, entries, place.horizon, place.installation)
        if self.tracker.outage is not None:
            adopted[SERVER_KEY] = self.tracker.outage
        self.tracker = self._track(evolve(place, known=adopted))
        await self._deliver_again(place)

    async def _ask_for_installation(self) -> UUID | None:
        if not supports(await self._client.fetch_api_version(), "service instance"):
            return None
        try:
            return (await self._client.fetch_service_instance()).installation_id
        except (ResponseError, PayloadError) as error:
            # To start over since a server is busy would lose what it did until now; to take it for another
            # one would report all of its sessions as removed.
            self._not_identified += 1
            is_early = self._not_identified < _IDENTIFIED_AGAIN
            is_unclear = error.retryable or self.tracker.installation is not None
            may_pass = (is_early and is_unclear) or (error.retryable and self.tracker.is_first)
            if may_pass or self._waits_for_former or "ServiceInstance" not in error.operation:
                # The latter where it is the login that failed.
                raise
            log.info("%s: no installation id: %s", self._client.name, error.what)
            return None

    async def _look_at_latest(self) -> None:
        """What is new since the newest session, with the overlap, and what is unfinished."""
        tracker = self.tracker
        newest = tracker.newest(self._options.clock.now())
        start = tracker.horizon if newest is None else newest - self._options.overlap
        unfinished = [] if start is None else tracker.open_before(start)
        sessions, rejected = await self._list(start)
        await self._observe(sessions)
        missing = tracker.missing([one.id for one in sessions] + rejected, start)
        if missing and self._history is None:
            # Where something vanished that had just been there, more may have.
            await self._look_at_all()
            return
        await self._confirm_removed(missing)
        await self._look_at_unfinished(unfinished)

    async def _list(self, start: datetime | None) -> tuple[list[RestoreSession], list[UUID]]:
        """All sessions created at or after `start`, the oldest first, and the IDs of rejected rows."""
        answer = await self._answer(start)
        if answer.error is not None:
            raise answer.error
        return sorted(answer.items, key=_creation_time), _ids_of(answer.rejected)

    async def _answer(self, start: datetime | None) -> Answer[RestoreSession]:
        # The API's bound is exclusive, and knows more digits than we do.
        after = None if start is None else start - timedelta(microseconds=1)
        bounds = SessionFilter(started_after=after)
        answer = await self._client.filtered_sessions(bounds, reports_rejected=True).answer()
        await self._reject(answer.rejected)
        if answer.error is None:
            await self._report_recovery()
        return answer

    async def _reject(self, rows: Sequence[Rejected]) -> None:
        now = self._options.clock.now()
        new = {row.raw: found for row in rows if (found := self.tracker.reject(row, now))}
        if new:
            first = next(row for row in rows if row.raw in new)
            said = "%s: %d rows were rejected that were not before, such as: %s @ %s"
            log.warning(said, self._client.name, len(new), first.reason, first.path)
        await self._report(chain.from_iterable(new.values()))

    async def _observe(self, sessions: Iterable[RestoreSession]) -> None:
        left = iter(sessions)
        while some := list(islice(left, _SAVED_AT_ONCE)):
            await self._report(chain.from_iterable(map(self.tracker.observe, some)))

    async def _report(self, found: Iterable[tuple[AnyChange, CheckpointEntry]]) -> None:
        """Save changes together with what they mean, then deliver them."""
        labels, now, only = dict(self._client.server.labels), self._options.clock.now(), self._options.only
        entries: list[CheckpointEntry] = []
        pending: list[PendingChange] = []
        for change, entry in found:
            entries.append(entry)
            labelled = evolve(change, labels=labels) if labels else change
            if only is None or only(labelled):
                pending.append(PendingChange(labelled, entry.session_id, next(self._numbers), now))
                entries.append(pending[-1].entry())
        if entries:
            await self.save(entries)
        if pending:
            await self._delivery.put(self._client.name, pending)

    async def _deliver_again(self, place: ServerCheckpoint | None, held: Collection[UUID] = ()) -> None:
        """Deliver what was saved and not acknowledged, but for what is `held` as it was delivered here."""
        records = () if place is None else place.known.items()
        pending = [(key, one) for key, one in records if one.kind == "pending"]
        if not pending:
            return
        pending.sort(key=lambda item: item[1].revision)
        self._numbers = count(max(next(self._numbers), pending[-1][1].revision + 1))
        name, client, only = self._client.name, self._client, self._options.only
        labels = dict(client.server.labels)
        found = [PendingChange.from_record(one, name, client) for key, one in pending if key not in held]
        found = [evolve(one, change=evolve(one.change, labels=labels)) for one in found]
        if unwanted := [one for one in found if only is not None and not only(one.change)]:
            await self.save([CheckpointEntry(one.key, None) for one in unwanted])
        await self._delivery.put(name, [one for one in found if one not in unwanted])

    async def _fetch_each(self, ids: Iterable[UUID]) -> None:
        """Request sessions by their IDs: those that are not found are removed."""
        gone = [key for key in ids if not await self._fetch_one(key)]
        await self._report(self.tracker.remove(gone, self._options.clock.now()))

    async def _fetch_one(self, key: UUID) -> bool:
        """Whether the server has a session; if so, what it shows is reported."""
        try:
            session = await self._client.fetch_restore_session(key)
        except NotFoundError as error:
            if error.error_code is None:
                # Perhaps not of the API: after a downgrade, the version is not found. Then this fails.
                await self._client.fetch_page(_ONE_ROW, RestoreSession)
            return False
        except PayloadError as error:
            # It exists, whatever it contains; the others are polled all the same.
            log.warning("%s: session %s is invalid: %s", self._client.name, key, error.what)
        else:
            await self._observe([session])
        return True

    async def _confirm_removed(self, ids: list[UUID]) -> None:
        """Report as removed, of sessions that a list did not have, those that the server does not find.

        The list may be truncated, and rows that move while it is read may be missing from it.
        """
        self._still_there.intersection_update(self.tracker.known)
        if self._still_there.issuperset(ids):
            # Another round of these; a list of a shorter time is no reason to begin again with the others.
            self._still_there.difference_update(ids)
        missing = [key for key in ids if key not in self._still_there]
        gone: list[UUID] = []
        found = 0
        for key in missing[:_MOST_CONFIRMED]:
            if not await self._fetch_one(key):
                gone.append(key)
                continue
            self._still_there.add(key)
            found += 1
            if found == _ONE_BY_ONE:
                # Lists of this server are incomplete: the next full poll goes on with the others.
                break
        else:
            if len(missing) > _MOST_CONFIRMED:
                self._is_full_poll_due = True
        is_incomplete = found > 0 or len(missing) < len(ids)
        is_reset = self.tracker.is_reset(len(gone) if is_incomplete else len(ids))
        await self._report(self.tracker.remove(gone, self._options.clock.now(), reset=is_reset))

    # ------------------------------------------------------------------------- the feed, since v8

    async def _look_at_feed(self) -> float | None:
        clock, every, feed = self._options.clock, self._options.every.total_seconds(), self._feed
        began, seconds = clock.monotonic(), self._seconds_to_wait()
        found = await feed.read(seconds)
        passed = clock.monotonic() - began
        if found is None:
            if feed.is_outdated:
                # As if nothing had been looked at yet.
                self._full_look_at = float("-inf")
                return await self._look()
            with self._operation():
                await self._look_at_latest()
            return None
        with self._operation():
            await self._report_recovery()
            await self._look_at_some(found)
        feed.keep()
        if not seconds or (not found and passed < seconds / 2):
            # It did not wait.
            return None
        return max(0.0, min(_FEED_PAUSE, every) - (clock.monotonic() - began))

    def _seconds_to_wait(self) -> int:
        """For how long a poll waits at the server: until this one's own moment, so that polls stay spread."""
        longest = min(
            self._options.every.total_seconds(), self._feed.longest_poll, self._client.longest_silence / 2
        )
        if longest < 1 or self._not_found:
            return 0
        left = self._beat.until_moment(longest)
        return round(left if left >= 1 else left + longest)

    async def _look_at_some(self, events: Mapping[UUID, bool]) -> None:
        """Sessions that were updated or deleted: each by its ID, or most by a list that has them all."""
        # Those that were not found although they were updated come again, before what is new.
        ids = {**dict.fromkeys(self._not_found, True), **events}
        left = set(ids)
        if len(left) > _ONE_BY_ONE:
            known = self.tracker.known
            newest = self.tracker.newest(self._options.clock.now())
            created = [known[key].created for key in left if key in known]
            if newest is not None:
                # A session that is not known yet is new, most likely.
                created.append(newest - self._options.overlap)
            sessions, _ = await self._list(min(created, default=None))
            await self._observe(sessions)
            left -= {one.id for one in sessions}
            for key in ids.keys() - left:
                self._not_found.pop(key, None)
        if len(left) > _ONE_BY_ONE:
            await self._look_at_all()
        else:
            await self._fetch_updated({key: is_update for key, is_update in ids.items() if key in left})

    async def _fetch_updated(self, events: Mapping[UUID, bool]) -> None:
        """Request sessions by their IDs; one that was updated and is not found is requested again."""
        gone: list[UUID] = []
        for key, is_update in events.items():
            if await self._fetch_one(key):
                self._not_found.pop(key, None)
            elif is_update and self._not_found.get(key, 0) < _REQUESTED_AGAIN:
                self._not_found[key] = self._not_found.get(key, 0) + 1
            else:
                self._not_found.pop(key, None)
                gone.append(key)
        await self._report(self.tracker.remove(gone, self._options.clock.now()))


def _creation_time(session: RestoreSession) -> datetime:
    return session.creation_time


def _ids_of(rows: Iterable[Rejected]) -> list[UUID]:
    return [key for row in rows if (key := _id_of(row)) is not None]


def _id_of(row: Rejected) -> UUID | None:
    """The ID of a rejected row, where it has a valid one."""
    found = _ID.search(row.raw)
    return None if found is None else UUID(found[1])
