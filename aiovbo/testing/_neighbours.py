"""What surrounds a restore session: its events, statistics and contents; starting and stopping one.

Knows the API's paths and shapes around a session, version by version. Must not know sockets or TLS.
"""

import re
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any, cast
from uuid import UUID, uuid5

from aiovbo.testing._answers import Json, Links, session_body
from aiovbo.testing._infrastructure import organization_id
from aiovbo.testing._routes import (
    SESSION,
    Api,
    Call,
    MalformedError,
    NotFoundError,
    ParameterError,
    RefusedError,
    Reply,
    Route,
)
from aiovbo.testing._times import TICKS_PER_SECOND, to_offset_text, to_text, to_ticks
from aiovbo.testing._world import WorldSession

_TYPES = {name.lower(): name for name in ("Vex", "Veod", "Vesp", "Vet")}
_ITEMS = {"Vex": "Message", "Veod": "File", "Vesp": "Document", "Vet": "Post"}
_MESSAGES = {
    "Success": "Item processed.",
    "Warning": "Item processed with warnings.",
    "Failed": "The target could not be found.",
    "Skipped": "Item exists already.",
}
_ANY_STATUS = ("Success", "Success", "Success", "Warning", "Failed", "Skipped")
_STATUSES = {"Success": ("Success",), "Warning": ("Success", "Warning", "Skipped")}
"""What became of the items of a session, by its result; anything for other results."""
_OPTIONS = {"showdeleted": bool, "showallversions": bool, "repositoryid": str, "reason": str, "scope": dict}
"""Further options to explore, and the type of each."""
_V4, _V6, _V8 = 4, 6, 8
_HOURS_AHEAD = 3
"""Of UTC, on the clock that events are written by up to v5."""
_EXPLORED_WITH_200 = (6, 7)
"""Versions whose documents state this status; all others say 201."""


def events_of(session: WorldSession, now_ticks: int, version: int) -> list[Json]:
    """The events of a session so far, in their order, the same for the same session.

    Source: RESTRestoreSessionEvent, v6 to v8, 2026-11-23; v4 and v5: "Getting Restore Session Events",
            2026-11-27.
    """
    text = to_text if version >= _V6 else partial(to_offset_text, hours=_HOURS_AHEAD)
    rng = Random(f"{session.id} events")  # plausible, no secret
    end = session.end_ticks or now_ticks
    begin = text(session.creation_ticks)
    events: list[Json] = [
        {
            "id": str(uuid5(session.id, "started")),
            "type": "None",
            "status": "Success",
            "startTime": begin,
            "endTime": begin,
            "duration": "00:00:00",
            "title": "Restore session started",
            "message": "Restore session started",
            "order": 0,
        }
    ]
    for order in range(1, rng.randint(3, 8)):
        share = rng.random()
        start = session.creation_ticks + round((end - session.creation_ticks) * share)
        length = rng.randrange(1, 90 * TICKS_PER_SECOND)
        size = rng.choice((0, rng.randrange(1, 10**5), rng.randrange(1, 10**8)))
        status = rng.choice(_STATUSES.get(session.result or "", _ANY_STATUS))
        seconds, fraction = divmod(length, TICKS_PER_SECOND)
        events.append(
            {
                "id": str(UUID(int=rng.getrandbits(128), version=4)),
                "type": rng.choice(("Save", "Export", "Send", "Restore", "View")),
                "status": status,
                "startTime": text(start),
                "endTime": text(start + length),
                "duration": f"00:{seconds // 60:02}:{seconds % 60:02}.{fraction:07}",
                "title": f"Restoring item {order}",
                "message": _MESSAGES[status],
                "order": order,
                "itemName": f"Item {order}",
                "itemType": _ITEMS.get(session.type, "Item"),
                "itemSizeBytes": size,
                "source": f"{session.organization}/backup",
                "target": f"{session.organization}/original location",
            }
        )
    return events


def _event(event: Json, session: WorldSession, links: Links) -> Json:
    more: Json = {}
    if links.version >= _V8:
        more["organizationId"] = organization_id(session.organization)
    path = f"RestoreSessions/{session.id}"
    around = {"self": links.href(f"{path}/Events/{event['id']}"), "restoreSession": links.href(path)}
    return event | more | {"_links": around}


def list_events(api: Api, call: Call, found: re.Match[str]) -> Reply:
    """What was done in a session."""
    session, links = api.session(found), api.links(call)
    events = [_event(event, session, links) for event in events_of(session, api.now_ticks, call.version)]
    return api.listing(call, events, f"RestoreSessions/{session.id}/Events")


def get_event(api: Api, call: Call, found: re.Match[str]) -> Reply:
    """One event of a session."""
    session, links = api.session(found), api.links(call)
    for event in events_of(session, api.now_ticks, call.version):
        if event["id"] == found["event"]:
            return Reply(200, _event(event, session, links))
    msg = f"Restore session event with the ID '{found['event']}' was not found."
    raise NotFoundError(msg)


def get_statistics(api: Api, call: Call, found: re.Match[str]) -> Reply:
    """What came of a session, in figures.

    Source: RESTRestoreSessionStatistics, v8, 2026-11-23.
    """
    events = events_of(api.session(found), api.now_ticks, call.version)[1:]
    failed = [event for event in events if event["status"] == "Failed"]
    skipped = [event for event in events if event["status"] == "Skipped"]
    body: Json = {
        "totalItemsCount": len(events),
        "restoredItemsCount": len(events) - len(failed) - len(skipped),
        "failedItemsCount": len(failed),
        "skippedItemsCount": len(skipped),
        "warnings": [str(event["title"]) for event in events if event["status"] == "Warning"],
        "errors": [str(event["title"]) for event in failed],
        "items": [],
    }
    return Reply(200, body)


def stop(api: Api, call: Call, found: re.Match[str]) -> Reply:
    """Stop a session: an action up to v5, a path of its own later."""
    _require_json(call)
    if call.version < _V6 and call.document != {"stop": None}:
        raise ParameterError("The action is not supported.")
    session = api.session(found)
    if session.state == "Stopped":
        msg = f"Restore session '{session.id}' has been stopped already."
        raise RefusedError(msg)
    api.world.change(session.id, state="Stopped", end_time=api.world.now)
    return Reply(204 if call.version >= _V8 else 200)


def explore(api: Api, call: Call, found: re.Match[str]) -> Reply:
    """Start a session, over an organization's backup or the tenant's own.

    Source: RESTExploreOptions, v6 to v8, 2026-11-23; v4: "Exploring Organization", 2026-11-23.
    """
    options = _options(call)
    kind = _TYPES.get(str(options.get("type") or "Vex").lower())
    if kind is None:
        msg = f"The value '{options['type']}' is not valid for type."
        raise ParameterError(msg)
    at = options.get("datetime")
    if at is not None:
        # Both `yyyy-MM-dd HH:mm:ss.SSS` and `yyyy.MM.dd hh:mm:ss` are documented.
        day, _, rest = str(at).partition(" ")
        try:
            to_ticks(f"{day.replace('.', '-')} {rest}" if rest else str(at))
        except ValueError:
            msg = f"The value '{at}' is not valid for dateTime."
            raise ParameterError(msg) from None
    for option, expected in _OPTIONS.items():
        if not isinstance(options.get(option), expected | None):
            msg = f"The value '{options[option]}' is not valid for {option}."
            raise ParameterError(msg)
    named = found.groupdict().get("organization")
    name = api.world.organizations[0] if named is None else _named(api, named)
    begun = api.world.add(type=kind, organization=name, creation_time=api.world.now, end_time=None)
    return Reply(200 if call.version in _EXPLORED_WITH_200 else 201, session_body(begun, api.links(call)))


def _require_json(call: Call) -> None:
    if call.version == _V4 and call.document is None:
        raise MalformedError


def _options(call: Call) -> dict[str, object]:
    _require_json(call)
    document: Any = call.document
    if call.version < _V6 and isinstance(document, dict):
        document = cast("dict[str, Any]", document).get("explore")
    if not isinstance(document, dict):
        raise ParameterError("Options to explore are missing.")
    return {key.lower(): value for key, value in cast("dict[str, object]", document).items()}


def _named(api: Api, key: str) -> str:
    for name in api.world.organizations:
        if organization_id(name) == key:
            return name
    msg = f"Organization with the ID '{key}' was not found."
    raise NotFoundError(msg)


def _organization(name: str, links: Links) -> Json:
    key = organization_id(name)
    return {
        "type": "Office365",
        "region": "Worldwide",
        "id": key,
        "name": name,
        "officeName": name,
        "isBackedup": True,
        "_links": {"self": links.href(f"Organizations/{key}")},
    }


def list_organizations(api: Api, call: Call, _found: re.Match[str]) -> Reply:
    """The organizations that the server looks after.

    Source: RestOrganizationComposed, v6 to v8, 2026-11-23.
    """
    bodies = [_organization(name, api.links(call)) for name in api.world.organizations]
    return api.listing(call, bodies, "Organizations", pages_since=_V8)


def get_organization(api: Api, call: Call, found: re.Match[str]) -> Reply:
    """One organization that the server looks after."""
    return Reply(200, _organization(_named(api, found["organization"]), api.links(call)))


def get_own_organization(api: Api, _call: Call, _found: re.Match[str]) -> Reply:
    """The organization of a user who is a tenant.

    Source: RESTLoggedInOrganization, v6 to v8, 2026-11-23.
    """
    name = api.world.organizations[0]
    key = organization_id(name)
    return Reply(200, {"id": key, "name": name, "type": "Office365", "isBackedup": True})


def _contents(kind: str, path: str, item: Callable[[str, Random], Json], since: int = 4) -> Route:
    def listing(api: Api, call: Call, found: re.Match[str]) -> Reply:
        session = api.session(found)
        rng = Random(f"{session.organization} {kind}")  # plausible, no secret
        domain = session.organization or "unknown.example"
        bodies = [item(domain, rng) for _ in range(rng.randint(3, 12))]
        return api.listing(call, bodies, f"RestoreSessions/{session.id}/{path}")

    return Route("GET", re.compile(f"{SESSION}/{path.lower()}"), since, listing)


def _mailbox(domain: str, rng: Random) -> Json:
    user = f"user{rng.randrange(1000)}"
    key = str(UUID(int=rng.getrandbits(128), version=4))
    return {"id": key, "name": user, "email": f"{user}@{domain}", "isArchive": False, "_links": {}}


def _site(domain: str, rng: Random) -> Json:
    number = rng.randrange(1000)
    url = f"https://{domain.partition('.')[0]}.sharepoint.com/sites/{number}"
    return {"id": f"{rng.getrandbits(64):x}", "name": f"Site {number}", "url": url, "_links": {}}


def _team(domain: str, rng: Random) -> Json:
    number = rng.randrange(1000)
    key = str(UUID(int=rng.getrandbits(128), version=4))
    mail = f"team{number}@{domain}"
    return {"id": key, "displayName": f"Team {number}", "groupEmail": mail, "isArchived": False, "_links": {}}


_ORGANIZATION = r"organizations/(?P<organization>[^/]+)"
NEIGHBOUR_ROUTES = (
    Route("GET", re.compile(f"{SESSION}/events"), 4, list_events),
    Route("GET", re.compile(rf"{SESSION}/events/(?P<event>[^/]+)"), 4, get_event),
    Route("GET", re.compile(f"{SESSION}/statistics"), 8, get_statistics),
    Route("POST", re.compile(f"{SESSION}/action"), 4, stop, until=5),
    Route("POST", re.compile(f"{SESSION}/stop"), 6, stop),
    _contents("mailboxes", "organization/mailboxes", _mailbox),
    _contents("oneDrives", "organization/oneDrives", _site),
    _contents("sites", "organization/sites", _site),
    _contents("teams", "organization/teams", _team, since=5),
    Route("POST", re.compile(f"{_ORGANIZATION}/action"), 4, explore, until=5),
    Route("POST", re.compile(f"{_ORGANIZATION}/explore"), 6, explore),
    Route("POST", re.compile("organization/action"), 4, explore, until=5),
    Route("POST", re.compile("organization/(operator)?explore"), 6, explore),
    Route("GET", re.compile("organizations"), 4, list_organizations),
    Route("GET", re.compile(_ORGANIZATION), 4, get_organization),
    Route("GET", re.compile("organization"), 4, get_own_organization),
)
"""The routes around a restore session."""
