"""Which restore sessions are requested: bounds, order and page size, and the check that rows are within them.

Knows the path and the parameters in every API version; knows no aiohttp, no asyncio, no clock.
"""

from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any, Literal, Self, TypeVar, cast
from uuid import UUID

from attrs import evolve, field, frozen
from attrs.converters import optional
from yarl import URL

from aiovbo._resources.links import Resource
from aiovbo._settings.api_versions import ApiVersion, supports, versions_with
from aiovbo._settings.numbers import shown
from aiovbo.errors import ConfigError
from aiovbo.models import JobSession, RestoreSession, utc_text

TimeBound = datetime | timedelta
"""A point in time: aware, or that long ago."""

OrderBy = Literal["CreationTime", "EndTime"]
"""What a v8 server can order sessions by."""

PAGE_SIZE = 1000
"""Items requested at once; the API's own default is 30, its maximum 10,000."""


_FURTHEST = timedelta(days=365_000)
"""Further back, the calendar ends."""


def resolve(moment: TimeBound | None, now: datetime) -> datetime | None:
    """The point in time that is meant.

    Raises: ConfigError for a naive time, or one that is too far away.
    """
    moment = checked_bound(moment)
    return now - moment if isinstance(moment, timedelta) else moment


def checked_bound(value: TimeBound | None) -> TimeBound | None:
    """The bound as it is used, a time in UTC: times in one zone are compared several times faster.

    Raises: ConfigError for a naive time, or one that is too far away.
    """
    if isinstance(value, datetime) and value.utcoffset() is None:
        message = f"{value!r} has no time zone: give an aware datetime, or a timedelta for 'ago'"
        raise ConfigError(message)
    if value is not None and not isinstance(value, datetime | timedelta):
        message = f"a time is an aware datetime, or a timedelta for 'ago', not {value!r}"
        raise ConfigError(message)
    try:
        if isinstance(value, datetime):
            return value.astimezone(UTC)
        if value is None or abs(value) <= _FURTHEST:
            return value
    except OverflowError:
        pass
    message = f"{value} is beyond the calendar: leave the bound out, to request everything"
    raise ConfigError(message)


def id_of(value: UUID | str) -> UUID:
    """The id that is meant.

    Raises: ConfigError where it is none.
    """
    try:
        return value if isinstance(value, UUID) else UUID(value)
    except (ValueError, AttributeError, TypeError):
        message = f"an id is a UUID such as {UUID(int=7)}, also as a text, not {value!r}"
    raise ConfigError(message)


def id_or_none(value: "UUID | str | Resource | None") -> UUID | None:
    """The id of a resource that is given as it is, or by its id.

    Raises: ConfigError where it has none.
    """
    if isinstance(value, Resource):
        given: UUID | str | None = next((key for name, key in value.items() if name.casefold() == "id"), "")
    else:
        given = value
    return None if given is None else id_of(given)


def _order(value: OrderBy) -> OrderBy:
    if value not in ("CreationTime", "EndTime"):
        message = f"order_by is 'CreationTime' or 'EndTime', not {value!r}"
        raise ConfigError(message)
    return value


def checked_page_size(value: int) -> int:
    if type(value) is not int or value not in range(1, 10_001):  # the API's own most
        message = f"page_size is 1 to 10,000, not {shown(value)}"
        raise ConfigError(message)
    return value


@frozen(kw_only=True)
class TimeFilter:
    """When the sessions that are requested began and ended; bounds are exclusive, as the API's are."""

    started_after: TimeBound | None = field(default=None, converter=checked_bound)
    started_before: TimeBound | None = field(default=None, converter=checked_bound)
    ended_after: TimeBound | None = field(default=None, converter=checked_bound)
    ended_before: TimeBound | None = field(default=None, converter=checked_bound)

    def as_of(self, now: datetime) -> Self:
        """The same with every "ago" counted back from `now`."""
        points: dict[str, datetime] = {}
        for name in ("started_after", "started_before", "ended_after", "ended_before"):
            bound = getattr(self, name)
            if isinstance(bound, timedelta):
                points[name] = now - bound
        return evolve(self, **points) if points else self

    def checks(
        self, *, sent_start: tuple[str, ...] = (), sent_end: tuple[str, ...] = ()
    ) -> "SessionBounds | None":
        """What checks that rows are within the bounds; None where there are none. `as_of` comes first.

        - `sent_start`, `sent_end`: the parameters in which the server is sent the bounds of each time.
        """
        bounds = self.started_after, self.started_before, self.ended_after, self.ended_before
        # No "ago" is left.
        began, before, ended, ended_before = cast("tuple[datetime | None, ...]", bounds)
        spans: list[_Span] = []
        if began is not None or before is not None:
            spans.append(_Span(_created, "creationTime", began, before, sent_start))
        if ended is not None or ended_before is not None:
            spans.append(_Span(_ended, "endTime", ended, ended_before, sent_end))
        return SessionBounds(spans) if spans else None


@frozen(kw_only=True)
class SessionFilter(TimeFilter):
    """Which restore sessions are requested."""

    order_by: OrderBy | None = field(default=None, converter=optional(_order))
    ascending: bool = False
    page_size: int | None = field(default=None, converter=optional(checked_page_size))
    _made: "dict[ApiVersion, tuple[str, SessionBounds | None]]" = field(
        factory=dict[ApiVersion, "tuple[str, SessionBounds | None]"], init=False, eq=False, repr=False
    )

    def for_version(self, version: ApiVersion) -> "tuple[str, SessionBounds | None]":
        """Path and query that request them from a server of this version, and what checks the rows.

        `as_of` comes first. Without bounds, nothing is checked: None.
        Source: operation RestoreSession_GetPage, v6 to v8, read 2026-11-23.
        """
        made = self._made.get(version)
        if made is not None:
            # A fleet sends the same request to all its servers.
            return made
        bounds = {"startTimeFrom": self.started_after, "startTimeTo": self.started_before}
        filters_ends = supports(version, "end time filter")
        if filters_ends:
            bounds |= {"endTimeFrom": self.ended_after, "endTimeTo": self.ended_before}
        query: list[str] = []
        for name, bound in bounds.items():
            if isinstance(bound, datetime):
                query.append(f"{name}={utc_text(bound)}")
        if self.order_by is not None or self.ascending:
            if not supports(version, "order"):
                first = versions_with("order")[0]
                message = (
                    f"order_by and ascending need API {first}, and this server is queried by {version}, "
                    "which orders as it likes: sort what came instead"
                )
                raise ConfigError(message)
            query.append(f"orderBy={self.order_by or 'CreationTime'}&orderAsc={str(self.ascending).lower()}")
        query.append(f"limit={self.page_size or PAGE_SIZE}")
        checks = self.checks(sent_start=_START, sent_end=_END if filters_ends else ())
        made = self._made[version] = f"/{version}/RestoreSessions?{'&'.join(query)}", checks
        return made


_START, _END = ("startTimeFrom", "startTimeTo"), ("endTimeFrom", "endTimeTo")
_created: Callable[[RestoreSession | JobSession], datetime | None] = attrgetter("creation_time")
_ended: Callable[[RestoreSession | JobSession], datetime | None] = attrgetter("end_time")

AnySession = TypeVar("AnySession", RestoreSession, JobSession)

JustAfter = Callable[[str, datetime], Collection[UUID]]
"""The ids of sessions whose time, as it came, is less than a microsecond after another."""


@frozen
class _Span:
    """Two bounds of one time of a session, both exclusive."""

    time_of: Callable[[RestoreSession | JobSession], datetime | None]
    member: str
    after: datetime | None
    before: datetime | None
    parameters: tuple[str, ...]
    """The names under which the server is sent the bounds; none where it does not know them."""

    def within(self, sessions: Sequence[AnySession], just_after: JustAfter) -> Sequence[AnySession]:
        """Those whose time is within the bounds."""
        after, before = self.after, self.before
        # Any: one that has no such time cannot be compared.
        times: Any = list(map(self.time_of, sessions))
        try:
            # All of it in C: nearly always, every row is within.
            if (after is None or min(times) > after) and (before is None or max(times) < before):
                return sessions
        except (TypeError, ValueError):
            # One has no such time, or there are no rows.
            pass
        # The models' times are cut to the microsecond, and the server's are not.
        on_the_bound = just_after(self.member, after) if after is not None and after in times else ()
        return [
            one
            for one, time in zip(sessions, times, strict=True)
            if time is not None
            and (after is None or time > after or (time == after and one.id in on_the_bound))
            and (before is None or time < before)
        ]

    def was_sent_in(self, url: URL) -> bool:
        """Whether the server was sent these bounds: what lies outside is then its mistake."""
        bounds = zip(self.parameters, (self.after, self.before), strict=False)
        query = f"&{url.raw_query_string.lower()}"
        names = [f"&{name.lower()}=" for name, bound in bounds if bound is not None]
        return bool(names) and all(name in query for name in names)

    def is_unclear(self, session: RestoreSession | JobSession) -> bool:
        """Whether the server sent this time in a way that cannot be read."""
        name = self.member.casefold()
        return self.time_of(session) is None and any(key.casefold() == name for key in session.extra)


@frozen(eq=False)
class SessionBounds:
    """The bounds that were requested, to be checked on every row: a server may forget them or ignore them."""

    _spans: list[_Span]

    def __call__(
        self, sessions: Sequence[AnySession], url: URL, just_after: JustAfter
    ) -> tuple[Sequence[AnySession], bool]:
        """The sessions within the bounds, and whether the page at `url` can be trusted to lack none."""
        is_trusted = True
        for span in self._spans:
            within = span.within(sessions, just_after)
            if len(within) < len(sessions):
                is_trusted &= not (span.was_sent_in(url) or any(map(span.is_unclear, sessions)))
            sessions = within
        return sessions, is_trusted
