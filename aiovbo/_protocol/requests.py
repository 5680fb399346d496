"""What goes over the wire, without sending it: arguments to requests, and answers as they came.

Knows the paths and parameters of every API version; knows no aiohttp, no asyncio, no clock.
"""

import json
from datetime import UTC, datetime
from uuid import UUID

from attrs import evolve, field, frozen
from yarl import URL

from aiovbo._protocol.messages import Redacted, Request
from aiovbo._protocol.session_filter import TimeBound, _moment, id_of, resolve
from aiovbo._protocol.urls import url_for
from aiovbo._resources.enums import RestoreSessionType
from aiovbo._settings.servers import ApiVersion
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
    if version in ("v4", "v5"):
        return evolve(_action(base, f"{path}/action", {"stop": None}), answer_may_be_empty=True)
    url = url_for(base, f"{path}/Stop")
    return Request(url, method="POST", expected=_DONE, answer_may_be_empty=True)


@frozen(kw_only=True)
class ExploreOptions:
    """Which backup a new restore session opens, and how."""

    at: TimeBound | None = field(default=None, converter=_moment)
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
    sealed = Redacted(json.dumps(body).encode())
    return Request(url_for(base, target), method="POST", body=sealed, expected=_DONE)


def probe_target(version: ApiVersion) -> str:
    """What to ask without a token to see if a server offers this version: 401 if so, 404 if not."""
    return f"/{version}/{'RestoreSessions' if version in ('v4', 'v5') else 'ServiceInstance'}"


def with_offset(target: str, offset: int) -> str:
    """The same request for the items from `offset` on."""
    path, _, query = target.partition("?")
    kept = [part for part in query.split("&") if part and not part.lower().startswith("offset=")]
    return f"{path}?{'&'.join([*kept, f'offset={offset}'])}"
