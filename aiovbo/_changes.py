"""What changes on a server, as values; and how two looks at its restore sessions become changes.

Knows what was seen of each session and what that means. Does no I/O, and has no clock: all times are the
server's own.
"""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import ClassVar
from uuid import UUID

from attrs import evolve, field, frozen

from aiovbo.errors import ServerError
from aiovbo.models import RestoreSession

_MARK_BYTES = 7
_UNHEARD_OF = 0
"""The mark of a session of which more is to be told than was told until now."""
_GONE = -1
"""The mark of a session that has vanished: one that comes back is new, and so must be its changes' ids."""


@frozen
class Known:
    """What has been told of one session."""

    created: datetime
    """When it was created, by the server's clock."""
    is_open: bool
    """Whether its end is still to be told."""
    mark: int
    """What it looked like, in short."""
    revision: int
    """How often it has changed, so that a session that is as it was before is a new change."""


@frozen
class Step:
    """What a change means for what is known: a session's new entry, or none where it is forgotten."""

    session_id: UUID
    """Which one."""
    known: Known | None
    """What has been told of it; None: it was long ago, and is forgotten."""


@frozen
class Place:
    """How far a server has been told of: everything that a watch needs to go on after a restart."""

    known: Mapping[UUID, Known] = field(factory=dict[UUID, Known])
    """What has been told of each session."""
    horizon: datetime | None = None
    """Sessions created before have been forgotten, unless they are open; None: none has been."""
    installation: UUID | None = None
    """Which installation the server is, whatever its name; None: it is older than v6, or does not tell."""


@frozen(kw_only=True)
class Change:
    """Something that happened on a server."""

    server: str
    """The server's name."""
    id: str
    """The same for the same change, also when it is told again after a crash."""


@frozen(kw_only=True)
class Added(Change):
    """A session that was not there before, or that a first look found unfinished."""

    session: RestoreSession
    """As it was when it was looked at."""


@frozen(kw_only=True)
class Changed(Change):
    """A session that is not as it was, and has not just ended."""

    session: RestoreSession
    """As it was when it was looked at."""


@frozen(kw_only=True)
class Finished(Change):
    """A session that has stopped; its `result` is its outcome."""

    session: RestoreSession
    """As it was when it was looked at."""


@frozen(kw_only=True)
class Removed(Change):
    """A session that the server does not know any more."""

    session_id: UUID
    """Which one."""
    reset: bool = False
    """Whether many vanished at once, as when a server is restored from a backup of itself."""


@frozen(kw_only=True)
class Unreachable(Change):
    """A server that could not be asked; told once, until it has recovered."""

    error: ServerError
    """Why not."""


@frozen(kw_only=True)
class Recovered(Change):
    """A server that can be asked again; what happened meanwhile follows."""

    gap: timedelta
    """For how long nothing was heard of it."""


@frozen(kw_only=True)
class Heartbeat(Change):
    """Nothing happened for a while, and the watch is alive; asked for by `heartbeat=`."""

    up: int
    """How many servers could be asked the last time."""


AnyChange = Added | Changed | Finished | Removed | Unreachable | Recovered | Heartbeat
"""Any of the changes; a `match` over it can be checked for completeness."""


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
        place: Place | None,
        since: datetime | None,
        remember: timedelta,
    ) -> None:
        self._server = server
        self.is_first = place is None
        """Whether nothing has ever been told of the server."""
        self._since = since
        self._remember = remember
        self.known: dict[UUID, Known] = dict(place.known) if place else {}
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

    def begin(self, sessions: Iterable[RestoreSession]) -> list[Step]:
        """On the very first look: take as told what had ended before anybody watched.

        Shape: the steps to save at once, before any change is told; then `observe` the same sessions.
        """
        steps: list[Step] = []
        for session in sessions:
            is_news = self._since is not None and session.creation_time > self._since
            if session.has_ended and not is_news:
                entry = Known(session.creation_time, is_open=False, mark=_mark(session), revision=1)
                self.known[session.id] = entry
                steps.append(Step(session.id, entry))
        return steps

    def observe(self, session: RestoreSession) -> list[tuple[AnyChange, Step]]:
        """What a look at one session tells."""
        before, mark, has_ended = self.known.get(session.id), _mark(session), session.has_ended
        told: list[tuple[AnyChange, Step]] = []
        if before is None or before.mark == _GONE:
            is_old = self.horizon is not None and session.creation_time < self.horizon
            if before is None and is_old and has_ended:
                # Most likely it was reported, and forgotten since. What is open is never forgotten.
                return []
            # Its end is a change of its own, so until that is told it counts as open.
            seen = _UNHEARD_OF if has_ended else mark
            revision = 1 if before is None else before.revision + 1
            before = Known(session.creation_time, is_open=True, mark=seen, revision=revision)
            told.append(self._tell(Added, session, before))
        if before.mark != mark:
            kind = Finished if has_ended and before.is_open else Changed
            after = evolve(before, is_open=not has_ended, mark=mark, revision=before.revision + 1)
            told.append(self._tell(kind, session, after))
        return told

    def remove(self, session_ids: list[UUID], now: datetime) -> list[tuple[AnyChange, Step]]:
        """What it tells that sessions are gone."""
        there = sum(entry.mark != _GONE for entry in self.known.values())
        reset = len(session_ids) >= max(self.MANY, there // 2)
        told: list[tuple[AnyChange, Step]] = []
        for key in session_ids:
            entry = self.known.get(key)
            if entry is not None and entry.mark != _GONE:
                name = f"{self._server}/{key}/removed/{entry.revision}"
                removed = Removed(server=self._server, id=name, session_id=key, reset=reset)
                # One that vanished while it was open stays known: it may come back, whatever its date.
                self.known[key] = evolve(entry, mark=_GONE)
                told.append((removed, Step(key, self.known[key])))
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

    def forget(self, pending: Collection[UUID] = ()) -> list[Step]:
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
        return [Step(key, None) for key in old]

    def recover(self, now: datetime) -> bool:
        """Move a horizon back that lies in the future, as after a clock was ahead for long; whether it did.

        What was forgotten since then is reported once more.
        """
        if self.horizon is None or self.horizon <= now:
            return False
        self.horizon, self._next_horizon = now - self._remember, None
        return True

    def _tell(
        self, kind: type[Added | Changed | Finished], session: RestoreSession, entry: Known
    ) -> tuple[AnyChange, Step]:
        self.known[session.id] = entry
        name = f"{self._server}/{session.id}/{kind.__name__.lower()}/{entry.revision}-{_mark(session):x}"
        return kind(server=self._server, id=name, session=session), Step(session.id, entry)


def _mark(session: RestoreSession) -> int:
    """What a session looks like, in a number that any process computes alike.

    Only members that every version of the API has, or that none has had before: a server that was upgraded
    has not changed all its sessions.
    """
    looks = (session.state, session.result, session.end_time and session.end_time.isoformat())
    text = repr(tuple(None if look is None else str(look) for look in looks))
    return int.from_bytes(blake2b(text.encode(), digest_size=_MARK_BYTES).digest(), "big") or 1
