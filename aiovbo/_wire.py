"""What goes over the wire, without sending it: arguments to requests, and answers as they came.

Knows the paths and parameters of every API version; knows no aiohttp, no asyncio, no clock.
"""

import codecs
import json
import re
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from operator import attrgetter
from typing import Any, Generic, Literal, NoReturn, TypeVar
from uuid import UUID

from attrs import evolve, field, frozen
from yarl import URL

from aiovbo._config import ApiVersion
from aiovbo._enums import RestoreSessionType
from aiovbo._hrefs import url_for
from aiovbo.errors import ConfigError
from aiovbo.models import Organization, RestoreSession, utc_text

T = TypeVar("T")

Moment = datetime | timedelta
"""A point in time: aware, or that long ago."""

OrderBy = Literal["CreationTime", "EndTime"]
"""What a v8 server can order sessions by."""

PAGE_SIZE = 1000
"""Items asked for at once where the API has pages; its own default is 30, its most 10,000."""


@frozen
class Sealed(Generic[T]):
    """Something that holds a secret on its way into a request; no traceback and no pickle shows it."""

    content: T = field(repr=False)

    def __reduce__(self) -> NoReturn:
        message = "what is sealed is not pickled"
        raise TypeError(message)


@frozen
class Request:
    """A request to one server, before it has a token."""

    url: URL
    method: str = field(default="GET", kw_only=True)
    body: Sealed[bytes] | None = field(default=None, kw_only=True)
    """JSON."""
    expected: tuple[int, ...] = field(default=(200,), kw_only=True)
    """Statuses that are answers, and no errors."""
    needs_token: bool = field(default=True, kw_only=True)
    """Whether a token goes with it."""
    answer_may_be_empty: bool = field(default=False, kw_only=True)
    """Whether an empty success is one, and not a rejected token, which servers were seen to answer so."""

    @property
    def only_reads(self) -> bool:
        """Whether it changes nothing, so that it may be repeated."""
        return self.method == "GET"


@frozen
class Reply:
    """An answer as it came: status, headers by name in any case, the body."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    """In UTF-8."""
    unknown_charset: str = field(default="", kw_only=True)
    """The charset of the body, as declared, where it was not decoded."""

    @classmethod
    def of(cls, status: int, headers: Mapping[str, str], content: bytes) -> "Reply":
        """A response whose content may be in another charset than UTF-8, as its Content-Type declares."""
        charset, codec = _charset_of(headers.get("Content-Type", ""))
        if codec is not None:
            return cls(status, headers, content.decode(codec, "replace").encode())
        # ASCII is the same in all charsets but those with zero bytes.
        is_unknown = bool(charset) and not (content.isascii() and b"\0" not in content)
        return cls(status, headers, content, unknown_charset=charset if is_unknown else "")


_CHARSET = re.compile(r"""charset\s*=\s*["']?([^\s;"',]+)""", re.IGNORECASE)
_DECODED = ("utf-16", "cp", "iso")
"""How Python's names of the charsets begin that real servers and proxies declare beside UTF-8."""


@lru_cache(maxsize=64)
def _charset_of(content_type: str) -> tuple[str, str | None]:
    """A declared charset other than UTF-8, and the codec for it; None where it is not decoded."""
    found = _CHARSET.search(content_type)
    if found is None:
        return "", None
    charset = found[1]
    try:
        codec = codecs.lookup(charset).name
    except (LookupError, ValueError):
        return charset, None
    if codec in ("utf-8", "utf-8-sig", "ascii"):
        return "", None
    return charset, codec if codec.startswith(_DECODED) else None


_FURTHEST = timedelta(days=365_000)
"""Further back, the calendar ends."""


def resolve(moment: Moment | None, now: datetime) -> datetime | None:
    """The point in time that is meant.

    Raises: ConfigError for a naive time, or one that is too far away.
    """
    moment = _moment(moment)
    return now - moment if isinstance(moment, timedelta) else moment


def _moment(value: Moment | None) -> Moment | None:
    if isinstance(value, datetime) and value.utcoffset() is None:
        message = f"{value!r} has no time zone: give an aware datetime, or a timedelta for 'ago'"
        raise ConfigError(message)
    if value is not None and not isinstance(value, datetime | timedelta):
        message = f"a time is an aware datetime, or a timedelta for 'ago', not {value!r}"
        raise ConfigError(message)
    if not _is_in_the_calendar(value):
        message = f"{value} is beyond the calendar: leave the bound out, to ask for everything"
        raise ConfigError(message)
    return value


def _is_in_the_calendar(value: Moment | None) -> bool:
    match value:
        case timedelta():
            return abs(value) <= _FURTHEST
        case datetime():
            try:
                value.astimezone(UTC)
            except OverflowError:
                return False
            return True
        case None:
            return True


def id_of(value: UUID | str) -> UUID:
    """The id that is meant.

    Raises: ConfigError where it is none.
    """
    try:
        return value if isinstance(value, UUID) else UUID(value)
    except (ValueError, AttributeError, TypeError):
        message = f"an id is a UUID such as {UUID(int=7)}, also as a text, not {value!r}"
    raise ConfigError(message)


def _organization_id(value: "Organization | UUID | str | None") -> UUID | None:
    match value:
        case Organization(id=UUID() as key):
            return key
        case Organization():
            # Without an id it would be the caller's own organization, whose backup is opened.
            message = f"organization {value.name!r} has no id that is a UUID: give the id itself"
            raise ConfigError(message)
        case str() | UUID():
            return id_of(value)
        case None:
            return None
        case _:
            message = f"an organization is one of client.organizations() or its id, not {value!r}"
            raise ConfigError(message)


def _order(value: OrderBy | None) -> OrderBy | None:
    if value not in (None, "CreationTime", "EndTime"):
        message = f"order_by is 'CreationTime' or 'EndTime', not {value!r}"
        raise ConfigError(message)
    return value


def _page_size(value: int | None) -> int | None:
    if value is not None and (type(value) is not int or value not in range(1, 10_001)):  # the API's own most
        message = f"page_size is 1 to 10,000, not {value!r}"
        raise ConfigError(message)
    return value


@frozen(kw_only=True)
class SessionFilter:
    """Which restore sessions are asked for; bounds are exclusive, as the API's are."""

    started_after: Moment | None = field(default=None, converter=_moment)
    started_before: Moment | None = field(default=None, converter=_moment)
    ended_after: Moment | None = field(default=None, converter=_moment)
    ended_before: Moment | None = field(default=None, converter=_moment)
    order_by: OrderBy | None = field(default=None, converter=_order)
    ascending: bool = False
    page_size: int | None = field(default=None, converter=_page_size)
    _targets: dict[ApiVersion, str] = field(factory=dict[ApiVersion, str], init=False, eq=False, repr=False)
    _bounds: "dict[ApiVersion, SessionBounds | None]" = field(
        factory=dict[ApiVersion, "SessionBounds | None"], init=False, eq=False, repr=False
    )

    def as_of(self, now: datetime) -> "SessionFilter":
        """The same with every "ago" counted back from `now`."""
        bounds = (self.started_after, self.started_before, self.ended_after, self.ended_before)
        if not any(isinstance(bound, timedelta) for bound in bounds):
            return self
        return evolve(
            self,
            started_after=resolve(self.started_after, now),
            started_before=resolve(self.started_before, now),
            ended_after=resolve(self.ended_after, now),
            ended_before=resolve(self.ended_before, now),
        )

    def target(self, version: ApiVersion) -> str:
        """Path and query that ask a server of this version; `as_of` comes first.

        Source: operation RestoreSession_GetPage, v6 to v8, read 2026-11-23.
        """
        # Made once: a fleet asks all its servers the same.
        target = self._targets.get(version)
        if target is None:
            target = self._targets[version] = self._make_target(version)
        return target

    def _make_target(self, version: ApiVersion) -> str:
        bounds = {"startTimeFrom": self.started_after, "startTimeTo": self.started_before}
        if version == "v8":
            bounds |= {"endTimeFrom": self.ended_after, "endTimeTo": self.ended_before}
        query = [f"{name}={utc_text(bound)}" for name, bound in bounds.items() if isinstance(bound, datetime)]
        if self.order_by is not None or self.ascending:
            if version != "v8":
                message = (
                    f"order_by and ascending need API v8, and this server is asked by {version}, which "
                    "orders as it likes: sort what came instead"
                )
                raise ConfigError(message)
            query.append(f"orderBy={self.order_by or 'CreationTime'}&orderAsc={str(self.ascending).lower()}")
        # Up to v4 the answer is one bare array; a limit would cut it short without a word.
        size = self.page_size or (None if version == "v4" else PAGE_SIZE)
        if size is not None:
            query.append(f"limit={size}")
        path = f"/{version}/RestoreSessions"
        return f"{path}?{'&'.join(query)}" if query else path

    def bounds(self, version: ApiVersion) -> "SessionBounds | None":
        """What checks that rows are within the bounds; None where there are none. `as_of` comes first."""
        # Made once, as the target is.
        if version not in self._bounds:
            spans: list[_Span] = []
            if self.started_after is not None or self.started_before is not None:
                spans.append(_Span(_created, "creationTime", self.started_after, self.started_before, _START))
            if self.ended_after is not None or self.ended_before is not None:
                sent = _END if version == "v8" else ()
                spans.append(_Span(_ended, "endTime", self.ended_after, self.ended_before, sent))
            self._bounds[version] = SessionBounds(spans) if spans else None
        return self._bounds[version]


_START, _END = ("startTimeFrom", "startTimeTo"), ("endTimeFrom", "endTimeTo")
_created: Callable[[RestoreSession], datetime | None] = attrgetter("creation_time")
_ended: Callable[[RestoreSession], datetime | None] = attrgetter("end_time")

JustAfter = Callable[[str, datetime], Collection[UUID]]
"""The ids of sessions whose time, as it came, is less than a microsecond after another."""


def _in_utc(bound: Moment | None) -> datetime | None:
    # Times in one zone are compared several times faster.
    return bound.astimezone(UTC) if isinstance(bound, datetime) else None


@frozen
class _Span:
    """Two bounds of one time of a session, both exclusive."""

    time_of: Callable[[RestoreSession], datetime | None]
    member: str
    after: datetime | None = field(converter=_in_utc)
    before: datetime | None = field(converter=_in_utc)
    parameters: tuple[str, ...]
    """The names under which the server is sent the bounds; none where it does not know them."""

    def within(self, sessions: list[RestoreSession], just_after: JustAfter) -> list[RestoreSession]:
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

    def is_unclear(self, session: RestoreSession) -> bool:
        """Whether the server sent this time in a way that cannot be read."""
        name = self.member.casefold()
        return self.time_of(session) is None and any(key.casefold() == name for key in session.extra)


class SessionBounds:
    """The bounds that were asked for, to be checked on every row: a server may forget them or ignore them."""

    def __init__(self, spans: list[_Span]) -> None:
        self._spans = spans

    def __call__(
        self, sessions: list[RestoreSession], url: URL, just_after: JustAfter
    ) -> tuple[list[RestoreSession], bool]:
        """The sessions within the bounds, and whether the page at `url` can be trusted to lack none."""
        is_trusted = True
        for span in self._spans:
            within = span.within(sessions, just_after)
            if len(within) < len(sessions):
                is_trusted &= not (span.was_sent_in(url) or any(map(span.is_unclear, sessions)))
            sessions = within
        return sessions, is_trusted


def stop_request(base: URL, version: ApiVersion, session_id: UUID) -> Request:
    """What stops a restore session.

    Source: operation RestoreSession_Stop, v6 to v8; help center, "Stopping Restore Session", v4; read
    2026-11-23.
    """
    path = f"/{version}/RestoreSessions/{session_id}"
    if version in ("v4", "v5"):
        return evolve(_action(base, f"{path}/action", {"stop": None}), answer_may_be_empty=True)
    url = url_for(base, f"{path}/Stop")
    return Request(url, method="POST", expected=_DONE, answer_may_be_empty=True)


@frozen(kw_only=True)
class ExploreOptions:
    """Which backup a new restore session opens, and how."""

    at: Moment | None = field(default=None, converter=_moment)
    type: RestoreSessionType = field(converter=RestoreSessionType)
    organization: UUID | None = field(default=None, converter=_organization_id)
    show_deleted: bool = False
    show_all_versions: bool = False

    def as_of(self, now: datetime) -> "ExploreOptions":
        """The same with an "ago" counted back from `now`."""
        return evolve(self, at=resolve(self.at, now))

    def request(self, base: URL, version: ApiVersion, *, is_operator: bool) -> Request:
        """What starts the session, for the organization named, else the caller's own; `as_of` comes first.

        Source: operations Organization_Explore, RestoreSession_ExploreAction and
        RestoreSession_OperatorExploreAction, v6 to v8; help center, v4; read 2026-11-23.
        """
        old = version in ("v4", "v5")
        options: dict[str, object] = {
            "type": self.type.value.lower() if old else self.type.value,
            "showDeleted": self.show_deleted,
            "showAllVersions": self.show_all_versions,
        }
        if isinstance(self.at, datetime) and old:
            options["datetime"] = (
                f"{self.at.astimezone(UTC):%Y-%m-%d %H:%M:%S}.{self.at.microsecond // 1000:03}"
            )
        elif isinstance(self.at, datetime):
            options["dateTime"] = utc_text(self.at)
        whose = "Organization" if self.organization is None else f"Organizations/{self.organization}"
        if old:
            return _action(base, f"/{version}/{whose}/action", {"explore": options})
        if self.organization is not None:
            return _action(base, f"/{version}/{whose}/explore", options)
        return _action(base, f"/{version}/{whose}/{'OperatorExplore' if is_operator else 'Explore'}", options)


_DONE = (200, 201, 204)


def _action(base: URL, target: str, body: object) -> Request:
    sealed = Sealed(json.dumps(body).encode())
    return Request(url_for(base, target), method="POST", body=sealed, expected=_DONE)


def probe_target(version: ApiVersion) -> str:
    """What to ask without a token to see if a server offers this version: 401 if so, 404 if not."""
    return f"/{version}/{'RestoreSessions' if version in ('v4', 'v5') else 'ServiceInstance'}"


def with_offset(target: str, offset: int) -> str:
    """The same request for the items from `offset` on."""
    path, _, query = target.partition("?")
    kept = [part for part in query.split("&") if part and not part.lower().startswith("offset=")]
    return f"{path}?{'&'.join([*kept, f'offset={offset}'])}"
