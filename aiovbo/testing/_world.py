"""A plausible world of restore sessions that goes on by itself, and repeats for the same seed.

Knows what a restore session is, how one comes and ends, and what changed lately. Must not know API
versions, JSON or HTTP; safe to use from several threads.
"""

import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from heapq import heapify, heappop, heappush
from itertools import islice
from random import Random
from typing import Any, TypedDict, Unpack
from uuid import UUID, uuid4

import attrs

from aiovbo.testing._clock import AnyClock, RealClock, SimClock
from aiovbo.testing._times import TICKS_PER_SECOND, span_ticks, to_datetime, to_ticks

ORGANIZATIONS = (
    "contoso.onmicrosoft.com",
    "fabrikam.onmicrosoft.com",
    "northwind.onmicrosoft.com",
    "tailspin.onmicrosoft.com",
    "wingtip.onmicrosoft.com",
    "adatum.onmicrosoft.com",
)
"""Microsoft 365 tenants of the default world."""

CHANGES_KEPT = 10_000
"""How many of its last changes a world remembers."""

_STALE_ENDS = 100
_TYPICAL_MINUTES = 25
_SHORTEST = timedelta(minutes=1)
_LONGEST = timedelta(hours=12)

_TYPES = {"Vex": 45, "Veod": 25, "Vesp": 18, "Vet": 12}
_RESULTS = {"Success": 86, "Warning": 9, "Failed": 5}
_DETAILS = {
    "Success": "All items were processed.",
    "Warning": "Some items were skipped.",
    "Failed": "Restore failed: the target could not be found.",
}
_WORKLOADS = {
    "Vex": ("mailboxes", "mailbox items"),
    "Veod": ("OneDrives", "OneDrive files"),
    "Vesp": ("sites", "site documents"),
    "Vet": ("teams", "team channels"),
}
_USERS = ("anna.berg", "j.smith", "m.keller", "priya.nair", "svc-restore", "helpdesk", "o.haddad")
_SHARE_OF_DOMAIN_USERS = 0.6
_DOMAINS = ("TECH", "CONTOSO", "MSP")
_REASONS = (
    "",
    "Accidental deletion of mailbox items.",
    "Ticket 48213: folder overwritten by sync.",
    "Legal hold request.",
    "Former employee's data for the successor.",
    "Monthly restore test.",
    "Site permissions broken after migration.",
)
_HOSTS = ("vbo1.tech.local", "srv01.abc.local", "explorer-02.tech.local", "10.20.0.15")
_SCOPES = ("", "", "", "Helpdesk operators", "Sales department", "EMEA tenants")


class SessionFields(TypedDict, total=False):
    """What can be said of a session by hand; times are aware `datetime` or the API's own text."""

    id: UUID
    type: str
    creation_time: datetime | str
    end_time: datetime | str | None
    state: str
    result: str | None
    name: str | None
    organization: str | None
    initiated_by: str | None
    details: str | None
    scope_name: str | None
    client_host: str | None
    reason: str | None
    etag: int


@attrs.frozen(kw_only=True)
class WorldSession:
    """One restore session, as it is at one instant.

    Source: RESTRestoreSession, v8, 2026-11-23.
    """

    id: UUID
    """The session's ID."""
    type: str
    """`Vex` Exchange, `Veod` OneDrive, `Vesp` SharePoint, `Vet` Teams; any text by hand."""
    creation_ticks: int
    """When it began, in ticks of 100 ns since year 1."""
    end_ticks: int | None
    """When it ended, in ticks; None while it works."""
    state: str
    """`Working`, then `Stopped`; any text by hand."""
    result: str | None
    """`Success`, `Warning` or `Failed`; a working session shows `Success`."""
    name: str | None
    """What the session is called in the console."""
    organization: str | None
    """The organization's name."""
    initiated_by: str | None
    """Who restored: `DOMAIN\\user` or a UPN."""
    details: str | None
    """The outcome in a sentence; empty while it works."""
    scope_name: str | None
    """The Restore Portal scope; empty outside the portal."""
    client_host: str | None
    """Where the restore was run from."""
    reason: str | None
    """The reason that the restoring person gave; often empty."""
    etag: int
    """Grows with each change of this session; 1 for a new one."""

    @property
    def creation_time(self) -> datetime:
        """When it began, UTC, its seventh digit cut."""
        return to_datetime(self.creation_ticks)

    @property
    def end_time(self) -> datetime | None:
        """When it ended, UTC, its seventh digit cut; None while it works."""
        return None if self.end_ticks is None else to_datetime(self.end_ticks)


@attrs.frozen
class WorldChange:
    """Something that happened to a session: it came, changed, ended or went."""

    id: UUID
    """The session's ID."""
    etag: int | None
    """The session's eTag after it; None where the session was removed."""


@attrs.frozen
class WorldChanges:
    """Changes of a world, oldest first, with their place among all that there were."""

    era: UUID
    """Of which history they are; another one after `restore`, and in another world."""
    first: int
    """How many changes came before the oldest that is still remembered."""
    total: int
    """How many changes there were, remembered or not."""
    changes: tuple[WorldChange, ...]
    """Those that were requested."""


Listener = Callable[[UUID, WorldSession | None], object]
"""Called with a session's ID, and with the session as it is now; None where it was removed."""


@attrs.frozen(repr=False)
class WorldSnapshot:
    """A world's sessions and clock at one instant, for `World.restore`."""

    clock: int
    """The world's present then, in ticks."""
    records: tuple[WorldSession, ...]
    """Its sessions, each as it will be once it has ended."""


class World:
    """Restore sessions that begin, work and end while time goes on.

    The same seed at the same instants gives the same sessions, however often and in whatever
    steps one looks. Sessions changed by hand stay outside of the chance that draws the others.

    - `seed`: picks the world.
    - `sessions`: how many there are at the start, and in each further `span` on average.
    - `span`: the length of the past that those sessions lie in.
    - `now`: where its clock starts, aware; the real present if in doubt.
    - `speed`: world seconds per real second; 0 freezes the clock.
    - `organizations`: names of the organizations that data is restored for.
    - `clock`: what time passes by, instead of the real clock.
    """

    def __init__(  # each is one independent property of the world
        self,
        seed: int | str = 0,
        *,
        sessions: int = 40,
        span: timedelta = timedelta(days=7),
        now: datetime | None = None,
        speed: float = 1.0,
        organizations: Sequence[str] = ORGANIZATIONS,
        clock: SimClock | None = None,
    ) -> None:
        if sessions < 0 or span <= timedelta(0) or speed < 0 or not organizations:
            raise ValueError("a world needs sessions >= 0, span > 0, speed >= 0 and an organization")
        self.seed = seed
        self.speed = speed
        self.organizations: tuple[str, ...] = tuple(organizations)
        self._lock = threading.RLock()
        self._records: dict[UUID, WorldSession] = {}
        self._ends: list[tuple[int, int, WorldSession]] = []
        self._scheduled = 0
        self._era = uuid4()
        self._changes: deque[WorldChange] = deque(maxlen=CHANGES_KEPT)
        self._changed = 0
        self._listeners: list[Listener] = []
        self._drawn = 0
        self._added = 0
        self.clock: AnyClock = clock or RealClock()
        """What time passes by."""
        self._clock = to_ticks(now or self.clock.now())
        self._real_start = self.clock.monotonic()
        self._arrivals = Random(f"{seed} arrivals")  # a plausible past, no secret
        self._mean_gap = span_ticks(span) / sessions if sessions else math.inf
        for share in sorted(self._arrivals.random() for _ in range(sessions)):
            self._store(self._next(self._clock - round(span_ticks(span) * (1 - share))), self._clock)
        self._next_arrival = self._after(self._clock)

    @property
    def now(self) -> datetime:
        """The world's present, UTC."""
        return to_datetime(self._now_ticks())

    def advance(self, by: timedelta) -> None:
        """Move the world's clock on; sessions begin and end accordingly."""
        if by < timedelta(0):
            raise ValueError("a world's clock never goes back")
        with self._lock:
            self._clock += span_ticks(by)
            self._catch_up()

    def listen(self, listener: Listener) -> None:
        """Call `listener` for each session that comes, changes, ends or goes from now on, in their order.

        What happens by time alone is noticed when the world is looked at.
        """
        with self._lock:
            self._catch_up()
            self._listeners.append(listener)

    @property
    def seconds_to_next(self) -> float:
        """Seconds of its clock until a session comes or ends by itself; infinite where none does."""
        with self._lock:
            now = self._catch_up()
            end = self._ends[0][0] if self._ends else math.inf
            ticks = min(end, self._next_arrival) - now + 1
            return ticks / TICKS_PER_SECOND / self.speed if self.speed else math.inf

    @property
    def sessions(self) -> list[WorldSession]:
        """Every session as it is now, newest first."""
        with self._lock:
            now = self._catch_up()
            seen = [_as_of(now, record) for record in self._records.values()]
        return sorted(seen, key=lambda one: (one.creation_ticks, one.id.int), reverse=True)

    def session(self, session_id: UUID) -> WorldSession:
        """One session as it is now.

        Raises: KeyError where there is none with that ID.
        """
        with self._lock:
            now = self._catch_up()
            return _as_of(now, self._records[session_id])

    def add(self, **fields: Unpack[SessionFields]) -> WorldSession:
        """A session put in by hand, begun now if not said otherwise; what is not given is drawn.

        Without a `state` it works until its end, and indefinitely with `end_time=None`. With one it
        keeps that state; only `Stopped` with an end to come works until then.

        Raises: ValueError for an ID that is taken, and for naive times.
        """
        with self._lock:
            now = self._catch_up()
            self._added += 1
            given = fields.get("creation_time")
            begin = now if given is None else to_ticks(given)
            drawn = self._draw(Random(f"{self.seed} added {self._added}"), begin)  # no secret
            state = fields.get("state")
            if state is None and fields.get("end_time", "drawn") is None:
                drawn = attrs.evolve(drawn, state="Working", result="Success", details="", etag=1)
            elif state == "Stopped" and drawn.end_ticks is not None:
                drawn = attrs.evolve(drawn, end_ticks=max(begin, min(drawn.end_ticks, now)))
            elif state is not None:
                drawn = attrs.evolve(drawn, end_ticks=None)
            record = _with(drawn, fields)
            if record.id in self._records:
                msg = f"there is a session {record.id} already"
                raise ValueError(msg)
            self._put(record, now)
            return _as_of(now, record)

    def change(self, session_id: UUID, **fields: Unpack[SessionFields]) -> WorldSession:
        """A session changed by hand, from what it is now; its eTag grows by one if not given.

        From then on it stays as it is: a working session no longer ends by itself.

        Raises: KeyError where there is none with that ID.
        """
        with self._lock:
            now = self._catch_up()
            record = _as_of(now, self._records[session_id])
            changed = _with(attrs.evolve(record, etag=record.etag + 1), fields)
            del self._records[session_id]
            if changed.id != session_id:
                self._note(session_id, None)
            self._put(changed, now)
            return changed

    def remove(self, session_id: UUID) -> None:
        """Take a session out.

        Raises: KeyError where there is none with that ID.
        """
        with self._lock:
            self._catch_up()
            del self._records[session_id]
            self._note(session_id, None)

    def changes(self, after: int = 0) -> WorldChanges:
        """What happened to sessions, by hand or because time passed, but for the first `after` changes.

        Only the last 10,000 are remembered; the sessions of the start are no change.
        """
        with self._lock:
            self._catch_up()
            first = self._changed - len(self._changes)
            wanted = tuple(islice(self._changes, max(0, after - first), None))
            return WorldChanges(self._era, first, self._changed, wanted)

    def snapshot(self) -> WorldSnapshot:
        """The world as it is now, to go back to with `restore`."""
        with self._lock:
            return WorldSnapshot(self._catch_up(), tuple(self._records.values()))

    def restore(self, snapshot: WorldSnapshot) -> None:
        """Go back to a snapshot, as a server restored from backup does: later sessions are gone.

        The clock goes back too, and from there another future comes: no drawn ID comes twice. What
        changed is forgotten and counted anew, so that the change feed's tokens are outdated.
        """
        with self._lock:
            now = self._catch_up()
            before = {key: _as_of(now, record) for key, record in self._records.items()}
            self._clock, self._real_start = snapshot.clock, self.clock.monotonic()
            self._next_arrival = self._after(self._clock)
            self._records.clear()
            self._ends.clear()
            for record in snapshot.records:
                self._store(record, self._clock)
            self._era, self._changed = uuid4(), 0
            self._changes.clear()
            after = {key: _as_of(self._clock, record) for key, record in self._records.items()}
            for key in {**before, **after}:
                if before.get(key) != after.get(key):
                    self._report(key, after.get(key))

    def _now_ticks(self) -> int:
        real = self.clock.monotonic() - self._real_start
        return self._clock + round(real * self.speed * TICKS_PER_SECOND)

    def _after(self, ticks: int) -> float:
        if math.isinf(self._mean_gap):
            return math.inf
        return ticks + 1 + round(self._arrivals.expovariate(1 / self._mean_gap))

    def _catch_up(self) -> int:
        now = self._now_ticks()
        while True:
            end = self._ends[0][0] if self._ends else math.inf
            if min(end, self._next_arrival) > now:
                return now
            # One by one in the order of their instants, so that the changes are in it too.
            if end <= self._next_arrival:
                _, _, record = heappop(self._ends)
                if self._records.get(record.id) is record:
                    self._note(record.id, record)
            else:
                arrival = int(self._next_arrival)
                self._put(self._next(arrival), arrival)
                self._next_arrival = self._after(arrival)

    def _note(self, key: UUID, session: WorldSession | None) -> None:
        self._changes.append(WorldChange(key, None if session is None else session.etag))
        self._changed += 1
        self._report(key, session)

    def _report(self, key: UUID, session: WorldSession | None) -> None:
        for listener in self._listeners:
            listener(key, session)

    def _put(self, record: WorldSession, now: int) -> None:
        self._store(record, now)
        self._note(record.id, _as_of(now, record))

    def _store(self, record: WorldSession, now: int) -> None:
        """Hold a session, and remember when it will end by itself."""
        self._records[record.id] = record
        end = _end_to_come(now, record)
        if end is None:
            return
        self._scheduled += 1
        heappush(self._ends, (end, self._scheduled, record))
        # Ends of what was changed or removed stay until their time, which a frozen clock never reaches.
        if len(self._ends) > 2 * len(self._records) + _STALE_ENDS:
            self._ends = [one for one in self._ends if self._records.get(one[2].id) is one[2]]
            heapify(self._ends)

    def _next(self, begin: int) -> WorldSession:
        self._drawn += 1
        return self._draw(Random(f"{self.seed} session {self._drawn}"), begin)  # no secret

    def _draw(self, rng: Random, begin: int) -> WorldSession:
        """A session as it will be once it has ended; `_as_of` shows it while it works."""
        kind = _pick(rng, _TYPES)
        result = _pick(rng, _RESULTS)
        organization = rng.choice(self.organizations)
        user = rng.choice(_USERS)
        is_domain_user = rng.random() < _SHARE_OF_DOMAIN_USERS
        length = timedelta(minutes=rng.lognormvariate(math.log(_TYPICAL_MINUTES), 1.0))
        length = min(max(length, _SHORTEST), _LONGEST)
        return WorldSession(
            id=UUID(int=rng.getrandbits(128), version=4),
            type=kind,
            creation_ticks=begin,
            end_ticks=begin + span_ticks(length) + rng.randrange(10),
            state="Stopped",
            result=result,
            name=f"Restore {rng.choice(_WORKLOADS[kind])}",
            organization=organization,
            initiated_by=f"{rng.choice(_DOMAINS)}\\{user}" if is_domain_user else f"{user}@{organization}",
            details=_DETAILS[result],
            scope_name=rng.choice(_SCOPES),
            client_host=rng.choice(_HOSTS),
            reason=rng.choice(_REASONS),
            etag=2,
        )


def _pick(rng: Random, weights: dict[str, int]) -> str:
    return rng.choices(list(weights), list(weights.values()))[0]


def _end_to_come(now: int, record: WorldSession) -> int | None:
    if record.state != "Stopped" or record.end_ticks is None or record.end_ticks <= now:
        return None
    return record.end_ticks


def _as_of(now: int, record: WorldSession) -> WorldSession:
    if _end_to_come(now, record) is None:
        return record
    return attrs.evolve(
        record,
        end_ticks=None,
        state="Working",
        result="Success",
        details="",
        etag=record.etag - 1,
    )


def _with(record: WorldSession, fields: SessionFields) -> WorldSession:
    changes: dict[str, Any] = dict(fields)
    if record.details and "details" not in fields:
        # The drawn text would contradict a result that was given.
        changes["details"] = _DETAILS.get(fields.get("result") or "", record.details)
    for name in ("creation", "end"):
        if f"{name}_time" in changes:
            given = changes.pop(f"{name}_time")
            ticks = to_ticks(given) if isinstance(given, datetime | str) else None
            changes[f"{name}_ticks"] = ticks
    return attrs.evolve(record, **changes)
