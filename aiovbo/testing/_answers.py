"""What the API's responses look like in each version, v4 to v8.

Knows the vendor's shapes: sessions, pages, organizations, errors, links. Must not know tokens,
routing or HTTP.
"""

from collections.abc import Sequence
from typing import Literal
from urllib.parse import urlencode
from uuid import NAMESPACE_DNS, uuid4, uuid5

import attrs

from aiovbo.testing._times import to_text
from aiovbo.testing._world import WorldSession

ApiVersion = Literal["v4", "v5", "v6", "v7", "v8"]
"""An API version that the server can speak."""

VERSIONS: tuple[ApiVersion, ...] = ("v4", "v5", "v6", "v7", "v8")
"""Every one of them, oldest first."""

_RELATIVE_LINKS_SINCE = 6
_NULL_END_TIME_SINCE = 6
_ERROR_CODE_SINCE = 7
_STACK_TRACE_SINCE = 8
_NO_TOTAL_COUNT_SINCE = 8

_SINCE = {
    "scopeName": 6,
    "clientHost": 6,
    "reason": 6,
    "eTag": 8,
}
"""Which version added a property of a session; the others were always there."""
_FIRST = 4
_EVENTS_SINCE = 5
_TEAMS_SINCE = 5

_BUILDS = {
    4: "10.0.4.1345",
    5: "10.0.5.1137",
    6: "6.1.0.423",
    7: "7.1.0.2031",
    8: "8.1.0.305",
}
"""A product build for each API version: plausible numbers without meaning."""

Query = Sequence[tuple[str, str]]
Json = dict[str, object]


@attrs.frozen
class Links:
    """Hrefs in one version's manner.

    Up to v5 they are absolute, lower-case, with the server's own name, which clients often cannot
    resolve; from v6 on relative. A reverse proxy's path prefix is in neither.
    """

    version: int
    host_name: str
    """The server's own name; it believes to be on port 4443."""
    complete: bool = True
    """Whether a session has links beside `self`."""

    def href(self, path: str, query: Query = ()) -> Json:
        """A link to what lies at `path` below the version, as `_links` holds it."""
        text = f"/v{self.version}/{path}"
        if self.version < _RELATIVE_LINKS_SINCE:
            text = f"https://{self.host_name}:4443{text.lower()}"
        return {"href": f"{text}?{urlencode(query)}" if query else text}


def added_in(name: str) -> int:
    """The API version that added a property of sessions."""
    return _SINCE.get(name, _FIRST)


def session_body(session: WorldSession, links: Links) -> Json:
    """One restore session.

    Source: RESTRestoreSession, v6 to v8, 2026-11-23; v4: "Getting Restore Sessions", 2026-11-23.
    """
    path = f"RestoreSessions/{session.id}"
    ended = session.end_ticks is not None
    everything: Json = {
        "id": str(session.id),
        "name": session.name,
        "organization": session.organization,
        "type": session.type,
        "creationTime": to_text(session.creation_ticks),
        "endTime": None if session.end_ticks is None else to_text(session.end_ticks),
        "state": session.state,
        "result": session.result,
        "initiatedBy": session.initiated_by,
        "details": session.details,
        "scopeName": session.scope_name,
        "clientHost": session.client_host,
        "reason": session.reason,
        "eTag": session.etag,
    }
    body = {key: value for key, value in everything.items() if links.version >= _SINCE.get(key, 0)}
    if not ended and links.version < _NULL_END_TIME_SINCE:
        del body["endTime"]
    related = {"self": links.href(path)}
    if links.complete:
        related["organization"] = links.href(f"{path}/organization")
    if links.complete and links.version >= _EVENTS_SINCE:
        related["restoreSessionEvents"] = links.href(f"{path}/events")
    return body | {"_links": related}


@attrs.frozen
class Window:
    """Which part of a listing a page shows."""

    offset: int
    limit: int
    total: int
    """How many items the whole listing has."""


def page_body(items: Sequence[Json], window: Window, links: Links, path: str, query: Query) -> Json:
    """A page of `items`, with links to the pages around it that keep the request's filters.

    Shape:  `next` is absent on the last page, `prev` on the first; v8 has no `totalCount`.
    Source: PageOfRESTRestoreSession, v6 to v8, 2026-11-23.
    """
    filters = [(key, value) for key, value in query if key.lower() not in {"offset", "limit"}]

    def at(offset: int) -> Json:
        place = [("offset", str(offset)), ("limit", str(window.limit))]
        return links.href(path, [*place, *filters])

    around = {"first": at(0), "self": at(window.offset)}
    if window.offset > 0:
        around["prev"] = at(max(0, window.offset - window.limit))
    # A row of the page before may be repeated.
    if window.offset + min(len(items), window.limit) < window.total:
        around["next"] = at(window.offset + window.limit)
    body: Json = {
        "offset": window.offset,
        "limit": window.limit,
        "setId": str(uuid4()),
        "results": list(items),
    }
    if links.version < _NO_TOTAL_COUNT_SINCE:
        body["totalCount"] = window.total
    return body | {"_links": around}


def organization_body(session: WorldSession, links: Links) -> Json:
    """The backed-up organization that a session restores from.

    Source: RESTBackupOrganization, v6 to v8, 2026-11-23.
    """
    path = f"RestoreSessions/{session.id}/organization"
    contents = ["mailboxes", "oneDrives", "sites"]
    if links.version >= _TEAMS_SINCE:
        contents.append("teams")
    return {
        "id": str(uuid5(NAMESPACE_DNS, session.organization or "")),
        "name": session.organization,
        "type": "Office365",
        "_links": {"self": links.href(path)}
        | {content: links.href(f"{path}/{content}") for content in contents},
    }


def service_instance_body(newest: int, name: str) -> Json:
    """The product's build and the installation's ID, which stays the same for a server's name.

    Source: RESTServiceInstance, v6 to v8, 2026-11-23.
    """
    return {"installationId": str(uuid5(NAMESPACE_DNS, name)), "version": _BUILDS[newest]}


def error_body(version: int, message: str, code: str | None = None) -> Json:
    """A refusal in the vendor's own form: v7 has a null for the error code, older ones have none.

    Source: RESTExceptionInfo, v6 to v8, 2026-11-23.
    """
    body: Json = {"message": message}
    if version >= _ERROR_CODE_SINCE:
        body["errorCode"] = code if version >= _STACK_TRACE_SINCE else None
    if version >= _STACK_TRACE_SINCE:
        body["stackTrace"] = None
    return body
