"""How what is found on a server becomes changes, and the records that are saved with them.

Knows what was found of each session and what that means. Does no I/O, and has no clock.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from operator import attrgetter
from typing import ClassVar
from uuid import UUID, uuid4
from zlib import crc32

from attrs import evolve

from aiovbo._core.query import Rejected
from aiovbo._watch.changes import (
    POLLED_KEY,
    SERVER_KEY,
    Added,
    AnyChange,
    Changed,
    CheckpointEntry,
    Finished,
    Recovered,
    Removed,
    RowRejected,
    ServerCheckpoint,
    SessionRecord,
    Unreachable,
)
from aiovbo.errors import ServerError
from aiovbo.models import RestoreSession

_MEMBERS = (
    "state", "result", "end_time", "type", "creation_time", "name", "organization", "initiated_by", "details",
    "scope_name", "client_host", "reason",
)  # fmt: skip
"""The documented members, without the ID and the etag. The order is stored: append only."""
_values_of = attrgetter(*_MEMBERS)
_MARK_BYTES = 4
_ABSENT = bytes(_MARK_BYTES)
_MOST_REJECTED = 10_000
"""Rejected rows of one server that are remembered, at most."""
_MOST_REMOVED = 10_000
"""Removed sessions of one server that are remembered, at most, however old they are."""


class Tracker:
    """What one server has reported, and what that changes: responses in, changes and their records out.

    The caller saves the records with the changes, before it delivers them.
    """

    MANY: ClassVar[int] = 3
    """So many sessions that vanish at once, and nearly half of all, are a reset."""

    def __init__(
        self,
        server: str,
        place: ServerCheckpoint | None,
        since: datetime | None,
        remember: timedelta,
    ) -> None:
        self._server = server
        self._since = since
        self._remember = remember
        records: Mapping[UUID, SessionRecord] = place.known if place else {}
        self.known = {key: one for key, one in records.items() if one.kind in ("session", "removed")}
        """What was found of each session."""
        self._rejected = {key: one for key, one in records.items() if one.kind == "rejected"}
        self.outage = records.get(SERVER_KEY)
        """The record of the server's last failure; None where it never failed."""
        self.horizon = place.horizon if place else None
        """All sessions that were forgotten were created before; it moves only over what is forgotten."""
        self.installation = place.installation if place else None
        """Which installation the server is, as far as it has reported it."""
        self.is_first = POLLED_KEY not in records
        """Whether the server's sessions have never been listed."""
        self._next_horizon: datetime | None = None
        self._unsaved: dict[UUID, None] = {}

    def keys(self) -> set[UUID]:
        """The keys of the records of sessions and rejected rows."""
        return {*self.known, *self._rejected}

    @property
    def is_unreachable(self) -> bool:
        """Whether the server's failure was reported, and not yet that it has recovered."""
        return self.outage is not None and self.outage.is_open

    @property
    def rejected(self) -> int:
        """How many rejected rows are known."""
        return len(self._rejected)

    def newest(self, now: datetime) -> datetime | None:
        """When the newest session was created that is known; None while none is.

        - `now`: by our own clock. A session that is dated after it, by a server whose clock is ahead or was
          wrong for a moment, makes nothing else old.
        """
        return max(
            (
                entry.created
                for entry in self.known.values()
                if entry.kind == "session" and entry.created <= now
            ),
            default=None,
        )

    def open_before(self, moment: datetime) -> list[UUID]:
        """Sessions created before whose end is still to come."""
        return [
            key
            for key, entry in self.known.items()
            if entry.is_open and entry.kind == "session" and entry.created < moment
        ]

    def missing(self, seen: Iterable[UUID], since: datetime | None) -> list[UUID]:
        """Sessions that a whole listing of everything created since should have had."""
        there = set(seen)
        return [
            key
            for key, entry in self.known.items()
            if key not in there and entry.kind == "session" and (since is None or entry.created >= since)
        ]

    def begin(
        self, sessions: Iterable[RestoreSession], now: datetime, *, is_all: bool = True
    ) -> list[CheckpointEntry]:
        """On the very first poll: what had ended before the watch began is known, and not reported.

        Shape: the records to save at once, together with the note that the server was polled; then `observe`
        the same sessions.

        - `is_all`: whether these are the last ones, where the history takes several polls.
        """
        entries: list[CheckpointEntry] = []
        if is_all:
            self.is_first = False
            entries.append(CheckpointEntry(POLLED_KEY, SessionRecord(now, is_open=False, kind="server")))
        for session in sessions:
            is_news = self._since is not None and session.creation_time > self._since
            if session.has_ended and not is_news and session.id not in self.known:
                entry = SessionRecord(session.creation_time, is_open=False, marks=_marks_of(session))
                self.known[session.id] = entry
                entries.append(CheckpointEntry(session.id, entry))
        return entries

    def observe(self, session: RestoreSession) -> list[tuple[AnyChange, CheckpointEntry]]:
        """What a poll of one session changes."""
        before, marks, has_ended = self.known.get(session.id), _marks_of(session), session.has_ended
        reported: list[tuple[AnyChange, CheckpointEntry]] = []
        if before is None or before.kind == "removed":
            is_old = self.horizon is not None and session.creation_time < self.horizon
            if before is None and is_old and has_ended:
                # Most likely it was reported, and forgotten since. What is open is never forgotten.
                return []
            # Its end is a change of its own, so until that is reported it counts as open.
            revision = 1 if before is None else before.revision + 1
            before = SessionRecord(session.creation_time, is_open=True, marks=marks, revision=revision)
            reported.append(self._report_change(Added, session, before))
        has_finished = has_ended and before.is_open
        merged = _merged(before.marks, marks)
        if has_finished or _differ(before.marks, marks):
            kind = Finished if has_finished else Changed
            after = SessionRecord(
                session.creation_time, is_open=not has_ended, marks=merged, revision=before.revision + 1
            )
            reported.append(self._report_change(kind, session, after))
        elif merged != before.marks:
            # Members that were absent until now, as after an upgrade, are known from now on.
            self.known[session.id] = evolve(before, marks=merged)
            self._unsaved[session.id] = None
        return reported

    def reject(self, row: Rejected, now: datetime) -> list[tuple[AnyChange, CheckpointEntry]]:
        """What it reports that a row was rejected: nothing where the same content was reported before."""
        key = UUID(bytes=blake2b(row.raw.encode(errors="surrogatepass"), digest_size=16).digest())
        if key in self._rejected:
            return []
        if len(self._rejected) >= _MOST_REJECTED:
            oldest = next(iter(self._rejected))
            del self._rejected[oldest]
            self._unsaved[oldest] = None
        record = self._rejected[key] = SessionRecord(now, is_open=False, kind="rejected")
        change = RowRejected(server=self._server, id=f"{self._server}/rejected/{key.hex}", row=row)
        return [(change, CheckpointEntry(key, record))]

    def fail(self, error: ServerError, since: datetime) -> list[tuple[AnyChange, CheckpointEntry]]:
        """What it reports that a poll failed: `Unreachable`, once until the server has recovered.

        - `since`: when it responded last, or else when it failed, by the wall clock.
        """
        if self.is_unreachable:
            return []
        record = self.outage = SessionRecord(since, is_open=True, kind="server")
        name = f"{self._server}/unreachable/{uuid4().hex}"
        return [(Unreachable(server=self._server, id=name, error=error), CheckpointEntry(SERVER_KEY, record))]

    def succeed(self, now: datetime, silence: timedelta | None) -> list[tuple[AnyChange, CheckpointEntry]]:
        """What it reports when the server responded: `Recovered` where it had been unreachable.

        - `silence`: for how long it did not respond, by the monotonic clock; None where that began before
          this process did.
        """
        before = self.outage
        if before is None or not before.is_open:
            return []
        record = self.outage = evolve(before, is_open=False)
        gap = max(timedelta(), now - before.created) if silence is None else silence
        name = f"{self._server}/recovered/{uuid4().hex}"
        return [(Recovered(server=self._server, id=name, gap=gap), CheckpointEntry(SERVER_KEY, record))]

    def is_reset(self, missing: int) -> bool:
        """Whether the server was reset, as by a restore of itself, where so many sessions are missing."""
        there = sum(entry.kind == "session" for entry in self.known.values())
        return missing >= max(self.MANY, there // 2)

    def remove(
        self, session_ids: list[UUID], now: datetime, *, reset: bool | None = None
    ) -> list[tuple[AnyChange, CheckpointEntry]]:
        """What it reports that sessions were removed; `reset` where more than these may be missing."""
        reset = self.is_reset(len(session_ids)) if reset is None else reset
        reported: list[tuple[AnyChange, CheckpointEntry]] = []
        for key in session_ids:
            entry = self.known.get(key)
            if entry is not None and entry.kind == "session":
                name = f"{self._server}/{key}/removed/{entry.revision}"
                removed = Removed(server=self._server, id=name, session_id=key, reset=reset)
                # One that vanished while it was open stays known: it may come back, whatever its date.
                self.known[key] = evolve(entry, kind="removed")
                reported.append((removed, CheckpointEntry(key, self.known[key])))
        if reset and self.horizon is not None:
            # The server's time may have gone back with it; what it has now is to be seen again.
            newest = self.newest(now)
            self.horizon = None if newest is None else min(self.horizon, newest - self._remember)
            self._next_horizon = None
        return reported

    def has_seen_all(self, now: datetime) -> None:
        """Note that all was polled; what ended long before may be forgotten, once all is delivered."""
        newest = self.newest(now)
        self._next_horizon = None if newest is None else newest - self._remember

    def forget(self, now: datetime) -> list[CheckpointEntry]:
        """Discard what ended long ago, so that memory is bounded; the records to save.

        The horizon moves only as far as what is discarded, and not with the newest session: a clock that is
        ahead for a while makes sessions old too early, but hides none that comes later. Removed sessions are
        remembered whatever their date is: they come back where a server is restored from a backup.

        - `now`: by our own clock. What came since all was polled is judged by it too: it may be right again.
        """
        saved, limit, newest = self.settle() + self._forget_removed(), self._next_horizon, self.newest(now)
        if limit is None or newest is None:
            return saved
        limit = min(limit, newest - self._remember)
        old = {
            key: entry.created
            for key, entry in self.known.items()
            if not entry.is_open and entry.kind == "session" and entry.created < limit
        }
        if not old:
            return saved
        reached = max(old.values()) + timedelta.resolution
        self.horizon = reached if self.horizon is None else max(self.horizon, reached)
        for key in old:
            del self.known[key]
        return saved + [CheckpointEntry(key, None) for key in old]

    def _forget_removed(self) -> list[CheckpointEntry]:
        """Discard the oldest removed sessions where there are too many; the records to delete."""
        removed = [key for key, entry in self.known.items() if entry.kind == "removed"]
        removed.sort(key=lambda key: self.known[key].created)
        surplus = removed[: max(0, len(removed) - _MOST_REMOVED)]
        for key in surplus:
            del self.known[key]
        return [CheckpointEntry(key, None) for key in surplus]

    def settle(self) -> list[CheckpointEntry]:
        """The records that changed without a change to report."""
        entries = [CheckpointEntry(key, self.known.get(key)) for key in self._unsaved]
        self._unsaved.clear()
        return entries

    def recover(self, now: datetime) -> bool:
        """Move a horizon back that lies in the future, as after a clock was ahead for long; whether it did.

        What was forgotten since then is reported once more.
        """
        if self.horizon is None or self.horizon <= now:
            return False
        self.horizon, self._next_horizon = now - self._remember, None
        return True

    def _report_change(
        self, kind: type[Added | Changed | Finished], session: RestoreSession, entry: SessionRecord
    ) -> tuple[AnyChange, CheckpointEntry]:
        self.known[session.id] = entry
        name = f"{self._server}/{session.id}/{kind.__name__.lower()}/{entry.revision}-{_look(session)}"
        return kind(server=self._server, id=name, session=session), CheckpointEntry(session.id, entry)


def _marks_of(session: RestoreSession) -> bytes:
    """Four bytes for each documented member, the same in every process; zeros where it is absent."""
    found = bytearray()
    for value in _values_of(session):
        if value is None:
            found += _ABSENT
            continue
        text = value.astimezone(UTC).isoformat() if isinstance(value, datetime) else str(value)
        found += (crc32(text.encode(errors="surrogatepass")) or 1).to_bytes(_MARK_BYTES, "big")
    return bytes(found)


def _differ(before: bytes, after: bytes) -> bool:
    """Whether a member differs that is present on both sides."""
    if before == after:
        return False
    pairs = zip(_each(before), _each(after), strict=False)
    return any(one != other and _ABSENT not in (one, other) for one, other in pairs)


def _merged(before: bytes, after: bytes) -> bytes:
    """The newest of each member; what is absent now is as it was when it was present."""
    if before == after or not before:
        return after
    pairs = zip(_each(before.ljust(len(after), b"\0")), _each(after.ljust(len(before), b"\0")), strict=True)
    return b"".join(one if other == _ABSENT else other for one, other in pairs)


def _each(marks: bytes) -> list[bytes]:
    return [marks[at : at + _MARK_BYTES] for at in range(0, len(marks), _MARK_BYTES)]


def _look(session: RestoreSession) -> str:
    """What distinguishes the changes of one session that have the same revision."""
    return blake2b(_marks_of(session), digest_size=7).hexdigest()
