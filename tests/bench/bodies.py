"""Answers of a backup server, as bytes: the same sessions for everybody who is measured.

Knows the API's shapes and sizes; knows no server and none of those who are measured.
"""

import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

_SEED = 365
_KINDS = ("Vex", "Veod", "Vesp")
_RESULTS = ("Success", "Success", "Success", "Warning", "Failed")


def _time(moment: datetime, chance: random.Random) -> str:
    # Seven digits, as .NET has them.
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{chance.randrange(10**7):07}Z"


def _sessions(count: int) -> Iterator[tuple[dict[str, Any], random.Random]]:
    chance = random.Random(_SEED)  # noqa: S311  # the same in every run
    began = datetime(2026, 11, 1, tzinfo=UTC)
    for number in range(count):
        key = UUID(int=chance.getrandbits(128), version=4)
        start = began + timedelta(minutes=number)
        session: dict[str, Any] = {
            "id": str(key),
            "type": chance.choice(_KINDS),
            "creationTime": _time(start, chance),
        }
        works = chance.random() < 0.05
        if not works:
            session["endTime"] = _time(start + timedelta(minutes=chance.randrange(1, 90)), chance)
        session["state"] = "Working" if works else "Stopped"
        session["result"] = chance.choice(_RESULTS)
        yield session, chance


def v4_sessions(count: int) -> list[dict[str, Any]]:
    """Sessions as v4 sends them: seven fields, two absolute links, some 400 bytes."""
    found: list[dict[str, Any]] = []
    for session, _ in _sessions(count):
        href = f"https://abc.tech.local:4443/v4/restoresessions/{session['id']}"
        links = {"self": {"href": href}, "organization": {"href": f"{href}/organization"}}
        found.append({**session, "_links": links})
    return found


def v8_sessions(count: int) -> list[dict[str, Any]]:
    """Sessions as v8 sends them: every field, relative links, some 600 bytes."""
    found: list[dict[str, Any]] = []
    for session, chance in _sessions(count):
        href = f"/v8/RestoreSessions/{session['id']}"
        more = {
            "name": "Restore mailboxes",
            "organization": f"customer{chance.randrange(40)}.onmicrosoft.com",
            "initiatedBy": f"user{chance.randrange(200)}@contoso.onmicrosoft.com",
            "details": "All items processed successfully.",
            "clientHost": "srv01.abc.local",
            "reason": "Accidental deletion of mailbox items.",
            "eTag": chance.randrange(1, 10**6),
            "_links": {
                "self": {"href": href},
                "organization": {"href": f"{href}/organization"},
                "restoreSessionEvents": {"href": f"{href}/Events"},
            },
        }
        found.append({**session, **more})
    return found


def array(sessions: list[dict[str, Any]]) -> bytes:
    """A bare array, as v4 answers."""
    return json.dumps(sessions, separators=(",", ":")).encode()


def page(sessions: list[dict[str, Any]], *, path: str = "/v8/RestoreSessions") -> bytes:
    """The one page that there is, as v5 and later answer."""
    document = {
        "offset": 0,
        "limit": max(1000, len(sessions)),
        "setId": "f0e1d2c3-b4a5-4789-8123-456789abcdef",
        "results": sessions,
        "_links": {"self": {"href": path}},
    }
    return json.dumps(document, separators=(",", ":")).encode()


def body(version: str, count: int) -> bytes:
    """The answer of a server of this version."""
    return array(v4_sessions(count)) if version == "v4" else page(v8_sessions(count))


def odd_body(version: str, count: int) -> bytes:
    """The same with one item that is not as documented: it has an unknown field."""
    sessions = v4_sessions(count) if version == "v4" else v8_sessions(count)
    sessions[count // 2]["pointInTime"] = "2017-06-26T22:07:39-07:00"
    return array(sessions) if version == "v4" else page(sessions)
