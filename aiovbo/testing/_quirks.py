"""Unusual but valid behaviour of servers, declared as data.

Knows restore sessions and requests by number. Must not know paths, JSON encoding or sockets.
"""

from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Literal

import attrs

from aiovbo.testing._answers import Json
from aiovbo.testing._times import TICKS_PER_SECOND, span_ticks
from aiovbo.testing._world import World, WorldSession, WorldSnapshot

FieldQuirk = Literal["null", "absent", "type", "case"]
"""What happens to a property: it is null, it is absent, its type differs, or its case differs."""
FeedQuirk = Literal["skips", "delays", "repeats", "immediate", "4xx", "5xx", "empty", "html"]
"""What v8's change feed does to events, or how it responds instead."""

_EVERY_OTHER = 2


@attrs.frozen(kw_only=True)
class Quirks:
    """What a server does unlike others: `BackupServer(quirks=Quirks(duplicate_rows=True))`.

    `Quirks.named("duplicate-rows", "clock-skewed")` makes those with a name, as the command line does.
    """

    late_rows: timedelta = timedelta(0)
    """How long after its start a session is first listed; the change feed reports it at once."""
    earlier_rows: timedelta = timedelta(0)
    """The same, for every second session only: a row appears below rows that were listed before it."""
    duplicate_rows: bool = False
    """Whether each page after the first begins with the last row of the page before."""
    moving_rows: bool = False
    """Whether a new session begins before each page after the first, so that rows move down by one."""
    list_cap: int | None = None
    """Maximum number of rows of a list; the others are left out, and no `next` leads to them."""
    sort: Literal["oldest", "id"] | None = None
    """The order of a list of sessions, whatever order is requested."""
    inclusive_bounds: bool = False
    """Whether a session at the very bound of a filter is listed."""
    next_without_filter: bool = False
    """Whether links between pages leave out the filters."""
    clock_skew: timedelta = timedelta(0)
    """What the server's clock is ahead; negative behind. It shows in `Date`, times and filters."""
    clock_jump: timedelta = timedelta(0)
    """By what the clock jumps after some requests; earlier sessions keep their times."""
    clock_jump_after: int = 3
    """Number of requests, without logins, before the clock jumps."""
    feed: FeedQuirk | None = None
    """What the change feed does: skip every second event, hold back the newest event, repeat the last
    one, never wait, or respond with an error (400, 500), an empty body or a web page."""
    expired_tokens: bool = False
    """Whether every change token is outdated as soon as it is used."""
    fields: Mapping[str, FieldQuirk] = attrs.field(factory=dict[str, FieldQuirk])
    """Properties of restore sessions, each with how it is sent."""
    upgraded_after: int | None = None
    """Number of requests, without logins, before the newest API version is served; first it is the one
    before it."""
    downgraded_after: int | None = None
    """Number of requests, without logins, before the newest API version is no longer served."""
    restored_after: int | None = None
    """Number of requests, without logins, before the server goes back to its state at the first one."""

    @classmethod
    def named(cls, *names: str) -> "Quirks":
        """The quirks of these names together, as `QUIRK_NAMES` lists them.

        Raises: ValueError for an unknown name.
        """
        options: dict[str, Any] = {}
        for name in names:
            if name not in _NAMED:
                msg = f"there is no quirk {name!r}; there are {', '.join(_NAMED)}"
                raise ValueError(msg)
            options |= _NAMED[name]
        return cls(**options)


_SOME_FIELDS = ("result", "organization", "initiatedBy")
_NAMED: dict[str, dict[str, Any]] = {
    "late-rows": {"late_rows": timedelta(seconds=30)},
    "earlier-rows": {"earlier_rows": timedelta(seconds=30)},
    "duplicate-rows": {"duplicate_rows": True},
    "moving-rows": {"moving_rows": True},
    "list-cap": {"list_cap": 10},
    "oldest-first": {"sort": "oldest"},
    "sorted-by-id": {"sort": "id"},
    "inclusive-bounds": {"inclusive_bounds": True},
    "next-without-filter": {"next_without_filter": True},
    "clock-ahead": {"clock_skew": timedelta(hours=1)},
    "clock-behind": {"clock_skew": timedelta(hours=-1)},
    "clock-jumps": {"clock_jump": timedelta(hours=1)},
    "clock-jumps-back": {"clock_jump": timedelta(hours=-1)},
    "feed-skips": {"feed": "skips"},
    "feed-delays": {"feed": "delays"},
    "feed-repeats": {"feed": "repeats"},
    "feed-early": {"late_rows": timedelta(seconds=2)},
    "feed-immediate": {"feed": "immediate"},
    "feed-4xx": {"feed": "4xx"},
    "feed-5xx": {"feed": "5xx"},
    "feed-empty": {"feed": "empty"},
    "feed-html": {"feed": "html"},
    "expired-tokens": {"expired_tokens": True},
    "fields-null": {"fields": dict.fromkeys(_SOME_FIELDS, "null")},
    "fields-absent": {"fields": dict.fromkeys(_SOME_FIELDS, "absent")},
    "fields-type": {"fields": dict.fromkeys(("eTag", "result"), "type")},
    "fields-case": {"fields": dict.fromkeys(("state", "result", "type"), "case")},
    "upgraded": {"upgraded_after": 3},
    "downgraded": {"downgraded_after": 3},
    "restored": {"restored_after": 3},
}
QUIRK_NAMES: tuple[str, ...] = tuple(_NAMED)
"""The names that `Quirks.named` and the command line take."""


class Oddities:
    """The quirks of one server, with how far it has come in them."""

    def __init__(self, quirks: Quirks) -> None:
        self.quirks = quirks
        self.effects: Counter[str] = Counter()
        """How often each quirk took effect, by its name in `Quirks`."""
        self._requests = 0
        self._jumped_at: int | None = None
        self._first: WorldSnapshot | None = None

    def count(self, world: World, now_ticks: int) -> None:
        """Note a request that is no login; what is to happen after so many requests happens."""
        quirks = self.quirks
        if quirks.restored_after is not None:
            if self._first is None:
                self._first = world.snapshot()
            elif self._requests == quirks.restored_after:
                world.restore(self._first)
                self.effects["restored_after"] += 1
        if quirks.clock_jump and self._requests == quirks.clock_jump_after:
            self._jumped_at = now_ticks
            self.effects["clock_jump"] += 1
        self._requests += 1

    def versions(self, versions: frozenset[int]) -> frozenset[int]:
        """Those of a server's versions that it serves now."""
        up, down = self.quirks.upgraded_after, self.quirks.downgraded_after
        before_upgrade = up is not None and self._requests <= up
        after_downgrade = down is not None and self._requests > down
        if not before_upgrade and not after_downgrade:
            return versions
        self.effects["upgraded_after" if before_upgrade else "downgraded_after"] += 1
        return versions - {max(versions)}

    def shift(self, ticks: int) -> int:
        """What the server's clock shows at an instant of its world."""
        jump = self._jumped_at is not None and ticks >= self._jumped_at
        return (
            ticks + span_ticks(self.quirks.clock_skew) + (span_ticks(self.quirks.clock_jump) if jump else 0)
        )

    def seconds_ahead(self, now_ticks: int) -> float:
        """How far ahead the server's clock is; negative behind."""
        return (self.shift(now_ticks) - now_ticks) / TICKS_PER_SECOND

    def session(self, session: WorldSession) -> WorldSession:
        """A session with the times that the server's clock showed."""
        if not self.quirks.clock_skew and self._jumped_at is None:
            return session
        end = session.end_ticks
        return attrs.evolve(
            session,
            creation_ticks=self.shift(session.creation_ticks),
            end_ticks=None if end is None else self.shift(end),
        )

    def listed(self, sessions: list[WorldSession], now_ticks: int) -> list[WorldSession]:
        """Those that are listed by now, with the times that the server's clock showed."""
        late, earlier = span_ticks(self.quirks.late_rows), span_ticks(self.quirks.earlier_rows)

        def is_listed(session: WorldSession) -> bool:
            delay = earlier if session.id.int % _EVERY_OTHER and earlier else late
            # Without a delay, a session of the future is listed too, as after a wrong clock.
            return not delay or now_ticks - session.creation_ticks >= delay

        found = [self.session(one) for one in sessions if is_listed(one)]
        self.note("earlier_rows" if earlier and not late else "late_rows", len(found) < len(sessions))
        self.note("clock_skew", bool(self.quirks.clock_skew and found))
        return found

    def note(self, quirk: str, has_effect: bool) -> None:  # noqa: FBT001  # one fact
        """Count an effect of a quirk."""
        self.effects[quirk] += has_effect

    def arranged(self, sessions: list[WorldSession]) -> list[WorldSession]:
        """In the order of the server, up to its cap."""
        requested = sessions
        if self.quirks.sort == "oldest":
            sessions = sorted(sessions, key=lambda one: (one.creation_ticks, one.id.int))
        elif self.quirks.sort == "id":
            sessions = sorted(sessions, key=lambda one: one.id.int)
        self.note("sort", sessions != requested)
        cap = self.quirks.list_cap
        self.note("list_cap", cap is not None and len(sessions) > cap)
        return sessions[:cap]

    def body(self, body: Json) -> Json:
        """A session's JSON with its properties as the server sends them."""
        for name, how in self.quirks.fields.items():
            if name not in body:
                continue
            value = body[name]
            self.effects["fields"] += 1
            if how == "null":
                body[name] = None
            elif how == "absent":
                del body[name]
            elif how == "type":
                body[name] = str(value) if isinstance(value, int) else [value]
            else:
                del body[name]
                upper = name[:1].upper() + name[1:]
                body[upper] = value.lower() if isinstance(value, str) else value
        return body
