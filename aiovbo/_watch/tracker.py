"""What changes on a server, as values; and how two looks at its restore sessions become changes.

Knows what was seen of each session and what that means. Does no I/O, and has no clock: all times are the
server's own.
"""

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import ClassVar
from uuid import UUID

from attrs import evolve

from aiovbo._watch.changes import (
    Added,
    AnyChange,
    Changed,
    CheckpointEntry,
    Finished,
    Removed,
    ServerCheckpoint,
    SessionRecord,
)
from aiovbo.models import RestoreSession

_MARK_BYTES = 7
_UNHEARD_OF = 0
"""The mark of a session of which more is to be told than was told until now."""
_GONE = -1
"""The mark of a session that has vanished: one that comes back is new, and so must be its changes' ids."""


class Tracker:
    """What one server has told, and what that changes: a look in, changes and their steps out.

    The present is taken over at once; whoever tells the changes keeps the steps, and saves each after its
    change was told.
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
        self.is_first = place is None
        """Whether nothing has ever been told of the server."""
        self._since = since
        self._remember = remember
        self.known: dict[UUID, SessionRecord] = dict(place.known) if place else {}
        """What has been seen, told or about to be."""
        self.horizon = place.horizon if place else None
        """All sessions that were forgotten were created before; it moves only over what is forgotten."""
        self.installation = place.installation if place else None
        """Which installation the server is, as far as it has told."""
        self._next_horizon: datetime | None = None

    def newest(self, now: datetime) -> datetime | None:
        """When the newest session was created that is known; None while none is.

        - `now`: by our own clock. A session that is dated after it, by a server whose clock is ahead or was
          wrong for a moment, makes nothing else old.
        """
        return max(
            (entry.created for entry in self.known.values() if entry.mark != _GONE and entry.created <= now),
            default=None,
        )

    def open_before(self, moment: datetime) -> list[UUID]:
        """Sessions created before whose end is still to come."""
        return [
            key
            for key, entry in self.known.items()
            if entry.is_open and entry.mark != _GONE and entry.created < moment
        ]

    def missing(self, seen: Iterable[UUID], since: datetime | None) -> list[UUID]:
        """Sessions that a whole listing of everything created since should have had."""
        there = set(seen)
        return [
            key
            for key, entry in self.known.items()
            if key not in there and entry.mark != _GONE and (since is None or entry.created >= since)
        ]

    def begin(self, sessions: Iterable[RestoreSession]) -> list[CheckpointEntry]:
        """On the very first look: take as told what had ended before anybody watched.

        Shape: the steps to save at once, before any change is told; then `observe` the same sessions.
        """
        steps: list[CheckpointEntry] = []
        for session in sessions:
            is_news = self._since is not None and session.creation_time > self._since
            if session.has_ended and not is_news:
                entry = SessionRecord(
                    session.creation_time, is_open=False, mark=fingerprint(session), revision=1
                )
                self.known[session.id] = entry
                steps.append(CheckpointEntry(session.id, entry))
        return steps

    def observe(self, session: RestoreSession) -> list[tuple[AnyChange, CheckpointEntry]]:
        """What a look at one session tells."""
        before, mark, has_ended = self.known.get(session.id), fingerprint(session), session.has_ended
        told: list[tuple[AnyChange, CheckpointEntry]] = []
        if before is None or before.mark == _GONE:
            is_old = self.horizon is not None and session.creation_time < self.horizon
            if before is None and is_old and has_ended:
                # Most likely it was reported, and forgotten since. What is open is never forgotten.
                return []
            # Its end is a change of its own, so until that is told it counts as open.
            seen = _UNHEARD_OF if has_ended else mark
            revision = 1 if before is None else before.revision + 1
            before = SessionRecord(session.creation_time, is_open=True, mark=seen, revision=revision)
            told.append(self._tell(Added, session, before))
        if before.mark != mark:
            kind = Finished if has_ended and before.is_open else Changed
            after = evolve(before, is_open=not has_ended, mark=mark, revision=before.revision + 1)
            told.append(self._tell(kind, session, after))
        return told

    def remove(self, session_ids: list[UUID], now: datetime) -> list[tuple[AnyChange, CheckpointEntry]]:
        """What it tells that sessions are gone."""
        there = sum(entry.mark != _GONE for entry in self.known.values())
        reset = len(session_ids) >= max(self.MANY, there // 2)
        told: list[tuple[AnyChange, CheckpointEntry]] = []
        for key in session_ids:
            entry = self.known.get(key)
            if entry is not None and entry.mark != _GONE:
                name = f"{self._server}/{key}/removed/{entry.revision}"
                removed = Removed(server=self._server, id=name, session_id=key, reset=reset)
                # One that vanished while it was open stays known: it may come back, whatever its date.
                self.known[key] = evolve(entry, mark=_GONE)
                told.append((removed, CheckpointEntry(key, self.known[key])))
        if reset and self.horizon is not None:
            # The server's time may have gone back with it; what it has now is to be seen again.
            newest = self.newest(now)
            self.horizon = None if newest is None else min(self.horizon, newest - self._remember)
            self._next_horizon = None
        return told

    def has_seen_all(self, now: datetime) -> None:
        """Note that everything was looked at; what ended long before may be forgotten, once all is told."""
        newest = self.newest(now)
        self._next_horizon = None if newest is None else newest - self._remember

    def forget(self, pending: Collection[UUID] = ()) -> list[CheckpointEntry]:
        """Discard what ended long ago, so that memory is bounded; the steps to save.

        The horizon moves only as far as what is discarded, and not with the newest session: a clock that is
        ahead for a while makes sessions old too early, but hides none that comes later.

        - `pending`: sessions of which changes are not saved yet; after a crash they must be found again.
        """
        limit = self._next_horizon
        if limit is None:
            return []
        for key in pending:
            created = self.known[key].created if key in self.known else None
            if created is not None and (self.horizon is None or created >= self.horizon):
                limit = min(limit, created)
        ended = {key: entry.created for key, entry in self.known.items() if not entry.is_open}
        old = {key: created for key, created in ended.items() if created < limit and key not in pending}
        if not old:
            return []
        reached = max(old.values()) + timedelta.resolution
        self.horizon = reached if self.horizon is None else max(self.horizon, reached)
        for key in old:
            del self.known[key]
        return [CheckpointEntry(key, None) for key in old]

    def recover(self, now: datetime) -> bool:
        """Move a horizon back that lies in the future, as after a clock was ahead for long; whether it did.

        What was forgotten since then is reported once more.
        """
        if self.horizon is None or self.horizon <= now:
            return False
        self.horizon, self._next_horizon = now - self._remember, None
        return True

    def _tell(
        self, kind: type[Added | Changed | Finished], session: RestoreSession, entry: SessionRecord
    ) -> tuple[AnyChange, CheckpointEntry]:
        self.known[session.id] = entry
        name = (
            f"{self._server}/{session.id}/{kind.__name__.lower()}/{entry.revision}-{fingerprint(session):x}"
        )
        return kind(server=self._server, id=name, session=session), CheckpointEntry(session.id, entry)


def fingerprint(session: RestoreSession) -> int:
    """What a session looks like, in a number that any process computes alike.

    Only members that every version of the API has, or that none has had before: a server that was upgraded
    has not changed all its sessions.
    """
    looks = (session.state, session.result, session.end_time and session.end_time.isoformat())
    text = repr(tuple(None if look is None else str(look) for look in looks))
    return int.from_bytes(blake2b(text.encode(), digest_size=_MARK_BYTES).digest(), "big") or 1
