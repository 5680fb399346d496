"""Which request gets which response.

Knows the API's paths, parameters and statuses, version by version. Must not know sockets, TLS or
aiohttp: a `Call` comes in, a `Reply` goes out.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from email.utils import formatdate
from typing import Literal, TypeVar
from uuid import UUID

import attrs

from aiovbo.testing._answers import (
    Json,
    Links,
    Window,
    error_body,
    organization_body,
    page_body,
    service_instance_body,
    session_body,
)
from aiovbo.testing._clock import AnyClock, RealClock
from aiovbo.testing._login import Grant, LoginDesk, Throttle
from aiovbo.testing._quirks import Oddities, Quirks
from aiovbo.testing._times import to_ticks
from aiovbo.testing._world import World, WorldSession

Item = TypeVar("Item")

COOKIE = "vbo-antiforgery"
"""The antiforgery cookie's name; the vendor's own is not documented."""

_DEFAULT_LIMIT = 30
_V8 = 8
_COOKIES_SINCE = 7
_VENDOR_LOGON_ERRORS_SINCE = 6
_INTEGRATION_IN = (6, 7)
_PATHS_KNOWN = 64
_BODIES_KEPT = 1000
_INTEGER_MAX = 2**31 - 1
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_BOOLEAN = re.compile("true|false", re.IGNORECASE)
_VALUES = {
    **dict.fromkeys(("organizationid", "jobid", "repositoryid", "proxyid", "msid", "teamid"), _ID),
    **dict.fromkeys(("orderasc", "extendedview", "islongtermcopy", "iscopy", "isretrieved"), _BOOLEAN),
}
"""Query parameters by what their values look like, wherever they are used."""


@attrs.frozen(kw_only=True)
class Call:
    """One request, taken apart."""

    method: str
    version: int
    path: str
    """Below the version, without slashes at its ends, in lower case."""
    query: tuple[tuple[str, str], ...] = ()
    form: Mapping[str, str] = attrs.field(factory=dict[str, str], repr=False)
    token: str | None = attrs.field(default=None, repr=False)
    cookies: Mapping[str, str] = attrs.field(factory=dict[str, str], repr=False)
    document: object = None
    """The body, where it is JSON."""

    def parameter(self, name: str) -> str | None:
        """A query parameter, whatever its case; None where it is absent or empty."""
        for key, value in self.query:
            if key.lower() == name.lower():
                return value or None
        return None


@attrs.frozen
class Reply:
    """One response, not yet sent."""

    status: int
    body: Json | list[Json] | str | None = None
    """What is sent as JSON; None for an empty body."""
    retry_after: int | None = attrs.field(default=None, kw_only=True)
    """Seconds for the header Retry-After; None for none."""
    cookie: str | None = attrs.field(default=None, repr=False)
    """The antiforgery cookie to set."""
    headers: Mapping[str, str] = attrs.field(factory=dict[str, str])
    """Further headers."""
    wait: "Wait | None" = attrs.field(default=None, repr=False)
    """How a better response may come; None where this one is final."""


@attrs.frozen
class Wait:
    """A reply that may be kept back until there is more to report, as a long poll's is."""

    seconds: float
    """For how long, from the request on."""
    again: Callable[[], Reply]
    """The reply as it is by now."""


@attrs.frozen(kw_only=True)
class Habits:
    """In what a server differs from others of its version."""

    name: str
    newest: int
    versions: frozenset[int]
    host_name: str
    page_limit_max: int
    operators_only: bool
    unhealthy: bool
    quirks: Quirks
    session_links: Literal["all", "self"]
    list_shape: Literal["page", "array"]
    refused_login_answer: Literal["oauth", "vendor"] | None
    rejected_token_answer: Literal["401", "empty"]
    token_limit: int | None


class ParameterError(ValueError):
    """A query parameter that cannot be understood."""


class NotFoundError(LookupError):
    """A resource that is not there."""


class RefusedError(RuntimeError):
    """Something that the present state forbids."""


class MalformedError(ValueError):
    """A body that is not JSON."""


class OutdatedError(RuntimeError):
    """A change token whose place in the history is forgotten."""


@attrs.frozen
class Route:
    """What a method and a path lead to, in which versions."""

    method: str
    """GET or POST."""
    path: re.Pattern[str]
    """The path below the version, in lower case."""
    since: int
    """The first version that has it."""
    answer: Callable[["Api", Call, re.Match[str]], Reply]
    """Makes the good response."""
    needs_token: bool = attrs.field(default=True, kw_only=True)
    """Whether it requires a login."""
    until: int = attrs.field(default=99, kw_only=True)
    """The last version that has it."""


class Api:
    """The REST API of one backup server: its world, its users and its habits."""

    def __init__(
        self, world: World, desk: LoginDesk, habits: Habits, routes: Sequence["Route"], clock: AnyClock
    ) -> None:
        self.world = world
        self.oddities = Oddities(habits.quirks)
        """What there is to report."""
        self._routes = routes
        self._found: dict[str, list[tuple[Route, re.Match[str]]]] = {}
        self._written: dict[int, tuple[WorldSession, Links, Json]] = {}
        self._desk = desk
        self._habits = habits
        self._clock = clock
        self._throttle = Throttle(habits.token_limit, clock.monotonic)

    def answer(self, call: Call) -> Reply:
        """The response to a call."""
        if call.path != "token":
            self.oddities.count(self.world, self.now_ticks)
        reply = self._answer(call)
        ahead = self.oddities.seconds_ahead(self.now_ticks)
        if ahead or not isinstance(self._clock, RealClock):
            date = formatdate(self._clock.now().timestamp() + ahead, usegmt=True)
            headers = {**reply.headers, "Date": date}
            return Reply(
                reply.status,
                reply.body,
                retry_after=reply.retry_after,
                cookie=reply.cookie,
                headers=headers,
                wait=reply.wait,
            )
        return reply

    def _answer(self, call: Call) -> Reply:
        if call.version not in self.oddities.versions(self._habits.versions):
            return Reply(404)
        # Paths are looked up before tokens: an unknown one is 404 for anybody.
        allowed: set[str] = set()
        for route, found in self._routes_of(call.path):
            if route.since <= call.version <= route.until:
                if call.method == route.method:
                    return self._follow(route, found, call)
                allowed.add(route.method)
        if not allowed:
            return Reply(404)
        body = error_body(call.version, f"{call.method} is not allowed here.")
        return Reply(405, body, headers={"Allow": ", ".join(sorted(allowed))})

    def _routes_of(self, path: str) -> list[tuple[Route, re.Match[str]]]:
        """The routes that a path matches, in all versions and for all methods."""
        known = self._found.get(path)
        if known is None:
            known = [(route, found) for route in self._routes if (found := route.path.fullmatch(path))]
            if len(self._found) >= _PATHS_KNOWN:
                self._found.clear()
            self._found[path] = known
        return known

    def _follow(self, route: Route, found: re.Match[str], call: Call) -> Reply:
        if self._habits.operators_only and not _FOR_OPERATORS.fullmatch(call.path):
            # The status is not documented.
            refusal = "Only restore operators have access to this server."
            return Reply(403, error_body(call.version, refusal, "ResourceAccessDenied"))
        if route.needs_token and (rejection := self._rejection(call)):
            return rejection

        def answer() -> Reply:
            _check_types(call)
            return route.answer(self, call, found)

        return self.attempt(call, answer)

    def attempt(self, call: Call, make: Callable[[], Reply]) -> Reply:
        """What `make` gives, or the refusal that its error stands for."""
        try:
            return make()
        except ParameterError as error:
            code = "ParameterValidationFailure"
            return Reply(400, error_body(call.version, str(error), code))
        except MalformedError:
            return Reply(500, error_body(call.version, "JSON is not well-formed"))
        except OutdatedError as error:
            # Only the error code is documented, not the status that it comes with.
            return Reply(400, error_body(call.version, str(error), "OutdatedChangeToken"))
        except RefusedError as error:
            status = 409 if call.version >= _V8 else 400
            return Reply(status, error_body(call.version, str(error), "OperationConflict"))
        except NotFoundError as error:
            return Reply(404, error_body(call.version, str(error), "ResourceNotFound"))

    def _rejection(self, call: Call) -> Reply | None:
        if call.token is not None:
            if self._desk.admits(call.token, call.cookies, COOKIE):
                return None
            if self._habits.rejected_token_answer == "empty":  # no password
                return Reply(200)
        return Reply(401, error_body(call.version, "Authorization has been denied."))

    def log_in(self, call: Call, _found: re.Match[str]) -> Reply:
        """Token pair for a form."""
        seconds = self._throttle.seconds_to_wait()
        if seconds:
            # A JSON string, not an error object.
            said = f"API calls quota exceeded! maximum admitted {self._throttle.limit} per Minute."
            return Reply(429, said, retry_after=seconds)
        waived = call.form.get("disable_antiforgery_token", "").lower() == "true"
        needs_cookie = call.version >= _COOKIES_SINCE and not waived
        has_integration = call.version in _INTEGRATION_IN
        grant = self._desk.grant(call.form, needs_cookie=needs_cookie, has_integration=has_integration)
        if isinstance(grant, Grant):
            return Reply(200, grant.body(), cookie=grant.cookie)
        by_version = "vendor" if call.version >= _VENDOR_LOGON_ERRORS_SINCE else "oauth"
        if (self._habits.refused_login_answer or by_version) == "oauth":
            return Reply(400, {"error": grant.error, "error_description": grant.description})
        status = 401 if grant.error == "invalid_grant" else 400
        return Reply(status, error_body(call.version, grant.description))

    def log_out(self, call: Call, _found: re.Match[str]) -> Reply:
        """End the token pair that the call came with."""
        self._desk.log_out(call.token or "")
        return Reply(204 if call.version >= _V8 else 200)

    def service_instance(self, _call: Call, _found: re.Match[str]) -> Reply:
        """Build and installation."""
        return Reply(200, service_instance_body(self._habits.newest, self._habits.name))

    def list_sessions(self, call: Call, _found: re.Match[str]) -> Reply:
        """Restore sessions: a page of them, or a bare array."""
        odd = self.oddities
        if odd.quirks.moving_rows and integer(call, "offset", at_least=0):
            self.world.add(end_time=None)
            odd.effects["moving_rows"] += 1
        sessions = odd.listed(self.world.sessions, self.now_ticks)
        filtered = _filtered(call, sessions, inclusive=odd.quirks.inclusive_bounds)
        odd.note("inclusive_bounds", len(filtered) > len(_filtered(call, sessions, inclusive=False)))
        sessions = odd.arranged(filtered)
        links = self.links(call)
        # Of a long history, most lists show a part: only that is written.
        return self._listing(call, sessions, lambda one: self._body(one, links), "RestoreSessions")

    def listing(self, call: Call, bodies: list[Json], path: str, *, pages_since: int = 0) -> Reply:
        """The requested part of a list: a page, or a bare array.

        - `pages_since`: the first version in which this list is a page.
        """
        return self._listing(call, bodies, lambda body: body, path, pages_since=pages_since)

    def _listing(
        self,
        call: Call,
        items: Sequence[Item],
        body_of: Callable[[Item], Json],
        path: str,
        *,
        pages_since: int = 0,
    ) -> Reply:
        is_page = call.version >= pages_since and self._habits.list_shape == "page"
        window = self._window(call, len(items), is_page=is_page)
        odd = self.oddities
        repeated = 1 if odd.quirks.duplicate_rows and window.offset else 0
        odd.effects["duplicate_rows"] += repeated
        shown = [body_of(one) for one in items[window.offset - repeated : window.offset + window.limit]]
        if not is_page:
            return Reply(200, shown)
        query = () if odd.quirks.next_without_filter else call.query
        is_cut = window.offset + len(shown) - repeated < window.total
        odd.note("next_without_filter", is_cut and query != call.query)
        return Reply(200, page_body(shown, window, self.links(call), path, query))

    def _body(self, session: WorldSession, links: Links) -> Json:
        """A session's JSON; what has not changed since it was last written is copied."""
        written = self._written.get(id(session))
        if written is None or written[0] is not session or written[1] != links:
            if len(self._written) >= _BODIES_KEPT:
                self._written.clear()
            written = self._written[id(session)] = (session, links, session_body(session, links))
        return self.oddities.body(dict(written[2]))

    def limit(self, call: Call) -> int:
        """How many items a page shows at most."""
        limit = integer(call, "limit", at_least=1) or _DEFAULT_LIMIT
        return min(limit, self._habits.page_limit_max)

    @property
    def host_name(self) -> str:
        """The server's own name."""
        return self._habits.host_name

    @property
    def is_healthy(self) -> bool:
        """Whether the product's services work."""
        return not self._habits.unhealthy

    @property
    def now_ticks(self) -> int:
        """The world's present, in ticks."""
        return to_ticks(self.world.now)

    def get_session(self, call: Call, found: re.Match[str]) -> Reply:
        """One restore session."""
        session = self.oddities.session(self.session(found))
        return Reply(200, self._body(session, self.links(call)))

    def get_organization(self, call: Call, found: re.Match[str]) -> Reply:
        """The backed-up organization of a session."""
        return Reply(200, organization_body(self.session(found), self.links(call)))

    def links(self, call: Call) -> Links:
        """Hrefs in the manner of the version that was queried."""
        complete = self._habits.session_links == "all"
        return Links(call.version, self._habits.host_name, complete)

    def session(self, found: re.Match[str]) -> WorldSession:
        """The session that a path names."""
        try:
            return self.world.session(UUID(found["id"]))
        except (ValueError, KeyError):
            msg = f"Restore session with the ID '{found['id']}' was not found."
            raise NotFoundError(msg) from None

    def _window(self, call: Call, total: int, *, is_page: bool) -> Window:
        limit = self.limit(call) if is_page else min(integer(call, "limit", at_least=1) or total, total)
        return Window(integer(call, "offset", at_least=0) or 0, limit, total)


def _check_types(call: Call) -> None:
    """Raises ParameterError for a query parameter whose value has another type than documented."""
    for name, value in call.query:
        pattern = _VALUES.get(name.lower())
        if value and pattern and not pattern.fullmatch(value):
            msg = f"The value '{value}' is not valid for {name}."
            raise ParameterError(msg)


def _filtered(call: Call, sessions: list[WorldSession], *, inclusive: bool) -> list[WorldSession]:
    span = 1 if inclusive else 0
    # The vendor's bounds are "after" and "prior to": both are exclusive.
    earliest, latest = time_parameter(call, "startTimeFrom"), time_parameter(call, "startTimeTo")
    if earliest is not None:
        sessions = [one for one in sessions if one.creation_ticks > earliest - span]
    if latest is not None:
        sessions = [one for one in sessions if one.creation_ticks < latest + span]
    if call.version < _V8:
        return sessions
    earliest, latest = time_parameter(call, "endTimeFrom"), time_parameter(call, "endTimeTo")
    if earliest is not None:
        sessions = [one for one in sessions if one.end_ticks and one.end_ticks > earliest - span]
    if latest is not None:
        sessions = [one for one in sessions if one.end_ticks and one.end_ticks < latest + span]
    return _ordered(call, sessions)


def _ordered(call: Call, sessions: list[WorldSession]) -> list[WorldSession]:
    order_by = (call.parameter("orderBy") or "CreationTime").lower()
    ascending = (call.parameter("orderAsc") or "false").lower()
    if order_by not in {"creationtime", "endtime"} or ascending not in {"true", "false"}:
        raise ParameterError("orderBy is CreationTime or EndTime, orderAsc is true or false.")

    def place(session: WorldSession) -> tuple[bool, int, int]:
        if order_by == "creationtime":
            return False, session.creation_ticks, session.id.int
        # What has not ended comes after all that has.
        return session.end_ticks is None, session.end_ticks or 0, session.id.int

    return sorted(sessions, key=place, reverse=ascending == "false")


def time_parameter(call: Call, name: str) -> int | None:
    """A query parameter that is a time, in ticks; None where it is absent.

    Raises: ParameterError for anything else.
    """
    text = call.parameter(name)
    try:
        return None if text is None else to_ticks(text)
    except (ValueError, OverflowError):
        msg = f"The value '{text}' is not valid for {name}."
        raise ParameterError(msg) from None


def integer(call: Call, name: str, *, at_least: int) -> int | None:
    """A query parameter that is a number; None where it is absent.

    Raises: ParameterError for anything else.
    """
    text = call.parameter(name)
    if text is None:
        return None
    if not re.fullmatch(r"\d{1,10}", text, re.ASCII) or not at_least <= int(text) <= _INTEGER_MAX:
        msg = f"The value '{text}' is not valid for {name}."
        raise ParameterError(msg)
    return int(text)


_FOR_OPERATORS = re.compile(r"token(/.*)?|restoresessions(/.*)?|organization(/operatorexplore)?")
"""What stays open on a server for restore operators only."""
SESSION = r"restoresessions/(?P<id>[^/]+)"
"""The path of one session."""
ROUTES = (
    Route("POST", re.compile("token"), 4, Api.log_in, needs_token=False),
    Route("POST", re.compile("token/logout"), 7, Api.log_out),
    Route("GET", re.compile("serviceinstance"), 6, Api.service_instance),
    Route("GET", re.compile("restoresessions"), 4, Api.list_sessions),
    Route("GET", re.compile(SESSION), 4, Api.get_session),
    Route("GET", re.compile(f"{SESSION}/organization"), 4, Api.get_organization),
)
"""The routes to log in, and to restore sessions themselves."""
