"""Requests for everything but sessions in lists: organizations, actions, free requests, and pages of lists.

Knows the paths and parameters of every API version; knows no aiohttp, no asyncio, no clock.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast
from urllib.parse import quote
from uuid import UUID

from attrs import evolve, field, frozen
from yarl import URL

from aiovbo._protocol.messages import SUCCESS, Redacted, Request
from aiovbo._protocol.session_filter import PAGE_SIZE, TimeBound, checked_bound, id_of, id_or_none, resolve
from aiovbo._protocol.urls import url_for
from aiovbo._resources.enums import RestoreSessionType
from aiovbo._settings.api_versions import ApiVersion, Feature, supports, versions_with
from aiovbo.errors import ConfigError
from aiovbo.models import Organization, utc_text


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


def stop_request(base: URL, version: ApiVersion, session_id: UUID) -> Request:
    """What stops a restore session.

    Source: operation RestoreSession_Stop, v6 to v8; help center, "Stopping Restore Session", v4; read
    2026-11-23.
    """
    path = f"/{version}/RestoreSessions/{session_id}"
    if supports(version, "actions"):
        return evolve(_action(base, f"{path}/action", {"stop": None}), body_is_optional=True)
    url = url_for(base, f"{path}/Stop")
    return Request(url, method="POST", expected=SUCCESS, body_is_optional=True)


_STARTS: dict[str, tuple[str, Feature]] = {
    "job": ("Jobs", "explore by job"),
    "data_retrieval": ("DataRetrievals", "explore by data_retrieval"),
    "repository": ("BackupRepositories", "explore by repository"),
}
"""The other objects that a session can start from: their collection, and what the API must support."""


@frozen(kw_only=True)
class ExploreOptions:
    """Which backup a new restore session opens, and how."""

    at: TimeBound | None = field(default=None, converter=checked_bound)
    type: RestoreSessionType = field(converter=RestoreSessionType)
    organization: UUID | None = field(default=None, converter=_organization_id)
    job: UUID | None = field(default=None, converter=id_or_none)
    repository: UUID | None = field(default=None, converter=id_or_none)
    data_retrieval: UUID | None = field(default=None, converter=id_or_none)
    repository_id: UUID | None = field(default=None, converter=id_or_none)
    scope: Mapping[str, Any] | None = None
    reason: str | None = None
    show_deleted: bool = False
    show_all_versions: bool = False

    def __attrs_post_init__(self) -> None:
        starts = [name for name in ("organization", *_STARTS) if getattr(self, name) is not None]
        if len(starts) > 1:
            message = f"a session starts from one of {', '.join(starts)}: leave the others out"
            raise ConfigError(message)
        for name, kind in (("scope", Mapping), ("reason", str)):
            value: object = getattr(self, name)
            if value is not None and not isinstance(value, kind):
                message = (
                    f"{name} is {'an object of the API' if kind is Mapping else 'a text'}, not {value!r}"
                )
                raise ConfigError(message)
        if starts and self.is_for_operators:
            message = f"scope and reason are for operators, who cannot start from {starts[0]}: leave one out"
            raise ConfigError(message)

    @property
    def is_for_operators(self) -> bool:
        """Whether it has what only operators may send."""
        return self.scope is not None or self.reason is not None

    def as_of(self, now: datetime) -> "ExploreOptions":
        """The same with an "ago" counted back from `now`."""
        return evolve(self, at=resolve(self.at, now))

    def request(self, base: URL, version: ApiVersion, *, is_operator: bool) -> Request:
        """What starts the session, for the organization named, else the caller's own; `as_of` comes first.

        Source: operations Organization_Explore, RestoreSession_ExploreAction, Job_Explore and
        RestoreSession_OperatorExploreAction, v6 to v8; help center, v4; read 2026-11-23.
        Raises: ConfigError for what this version cannot do.
        """
        old = supports(version, "actions")
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
        start = next((name for name in _STARTS if getattr(self, name) is not None), None)
        if self.repository_id is not None:
            _need("repository_id", "explore by repository_id", version)
            if start is not None or not (self.organization or is_operator):
                raise ConfigError("repository_id needs an organization, or an operator's credentials")
            options["repositoryId"] = str(self.repository_id)
        if self.is_for_operators:
            _need("scope and reason", "explore by operators", version)
            options |= {} if self.scope is None else {"scope": dict(self.scope)}
            options |= {} if self.reason is None else {"reason": self.reason}
        if start is not None:
            collection, feature = _STARTS[start]
            _need(start, feature, version)
            return _action(base, f"/{version}/{collection}/{getattr(self, start)}/explore", options)
        whose = "Organization" if self.organization is None else f"Organizations/{self.organization}"
        if old:
            return _action(base, f"/{version}/{whose}/action", {"explore": options})
        if self.organization is not None:
            return _action(base, f"/{version}/{whose}/explore", options)
        return _action(base, f"/{version}/{whose}/{'OperatorExplore' if is_operator else 'Explore'}", options)


def _need(what: str, feature: Feature, version: ApiVersion) -> None:
    if not supports(version, feature):
        first = versions_with(feature)[0]
        message = f"to explore by {what} needs API {first}, and this server is queried by {version}"
        raise ConfigError(message)


def _action(base: URL, target: str, body: object) -> Request:
    sealed = Redacted(json.dumps(body).encode())
    return Request(url_for(base, target), method="POST", body=sealed, expected=SUCCESS)


METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
Parameter = str | int | float | bool | datetime | UUID
"""A value of a parameter in a URL."""


def free_request(
    method: str,
    parameters: "Mapping[str, Parameter | Sequence[Parameter] | None] | None",
    document: object,
    *,
    repeatable: bool,
) -> Callable[[URL], Request]:
    """A request that the caller describes, once its URL is known.

    Raises: ConfigError where it cannot be sent.
    """
    given: object = method
    name = given.upper() if isinstance(given, str) else ""
    if name not in METHODS:
        message = f"method is one of {', '.join(METHODS)}, not {method!r}"
        raise ConfigError(message)
    query = _query_of(parameters or {})
    body: Redacted[bytes] | None = None
    if document is not None:
        try:
            body = Redacted(json.dumps(document, default=_json_text, allow_nan=False).encode())
        except (TypeError, ValueError, RecursionError) as error:
            # Without its value, which may hold a secret.
            message = f"json is what JSON can hold, and this is not: {type(error).__name__}"
            raise ConfigError(message) from None

    def request(url: URL) -> Request:
        target = url.raw_path_qs
        if query:
            target += f"{'&' if '?' in target else '?'}{query}"
        return Request(
            url.join(URL(target, encoded=True)),
            may_be_large=True,
            method=name,
            body=body,
            expected=SUCCESS,
            body_is_optional=True,
            repeatable=repeatable,
        )

    return request


def _query_of(parameters: "Mapping[str, Parameter | Sequence[Parameter] | None]") -> str:
    given: object = parameters
    if not isinstance(given, Mapping):
        message = f"parameters are values by name, such as {{'limit': 10}}, not {parameters!r}"
        raise ConfigError(message)
    pairs: list[str] = []
    for name, value in parameters.items():
        values = value if isinstance(value, list | tuple) else [value]
        pairs += [f"{quote(name, safe='')}={_parameter(name, one)}" for one in values if one is not None]
    return "&".join(pairs)


def _parameter(name: str, value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case datetime():
            # Checked as the bounds of a query are: a naive time could mean any zone.
            return utc_text(cast("datetime", checked_bound(value)))
        case str() | int() | float() | UUID():
            return quote(str(value), safe="")
        case _:
            message = f"the parameter {name!r} is a text, a number, a time or several, not {value!r}"
            raise ConfigError(message)


def _json_text(value: object) -> str:
    match value:
        case datetime():
            return utc_text(cast("datetime", checked_bound(value)))
        case UUID():
            return str(value)
        case _:
            raise TypeError


def organizations_target(version: ApiVersion) -> str:
    """Path and query of the organizations; v6 requires the parameter that other versions default.

    Source: operation Organization_Get, v6, read 2026-11-27.
    """
    view = "extendedView=true&" if supports(version, "extended view") else ""
    return f"/{version}/Organizations?{view}limit={PAGE_SIZE}"


def probe_target(version: ApiVersion) -> str:
    """What to request without a token to see if a server offers this version: 401 if so, 404 if not."""
    return f"/{version}/{'ServiceInstance' if supports(version, 'service instance') else 'RestoreSessions'}"


def with_large_pages(url: URL) -> URL:
    """The same collection in pages of `PAGE_SIZE` items, unless the URL has a limit of its own."""
    if asked_limit(url) is not None:
        return url
    query = f"{url.raw_query_string}&" if url.raw_query_string else ""
    return url.join(URL(f"{url.raw_path}?{query}limit={PAGE_SIZE}", encoded=True))


def with_smaller_pages(url: URL) -> URL | None:
    """The same items in pages of half the size; None where the URL has no limit that can be halved."""
    limit = asked_limit(url)
    if limit is None or limit <= 1:
        return None
    target = _LIMIT.sub(rf"\g<1>{limit // 2}", url.raw_path_qs)
    return url.join(URL(target, encoded=True))


_LIMIT = re.compile(r"(?i)([?&]limit=)(\d{1,9})(?=&|$)")


def asked_limit(url: URL) -> int | None:
    """How many items of a collection a URL requests at once; None where it does not say."""
    # No more digits: a server may lead to URLs with thousands of them.
    found = _LIMIT.search(url.raw_path_qs)
    return int(found[2]) if found else None


def with_offset(target: str, offset: int) -> str:
    """The same request for the items from `offset` on."""
    path, _, query = target.partition("?")
    kept = [part for part in query.split("&") if part and not part.lower().startswith("offset=")]
    return f"{path}?{'&'.join([*kept, f'offset={offset}'])}"
