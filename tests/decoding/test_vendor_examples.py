"""The vendor's example responses, each optional member changed: nothing that can be delivered is lost."""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from attrs import frozen
from harness.contract import vendors_document

from aiovbo import (
    BackupOrganization,
    Bearer,
    Client,
    JobSession,
    Mailbox,
    OneDrive,
    Organization,
    RestoreSession,
    RestoreSessionEvent,
    Server,
    ServiceInstance,
    SharePointSite,
    TeamsTeam,
)
from aiovbo.models import Model

Json = dict[str, Any]

ITEMS: dict[str, tuple[type[Model], set[str]]] = {
    "RESTRestoreSessionListExample": (RestoreSession, {"id", "creationTime"}),
    "RESTRestoreSessionExample": (RestoreSession, {"id", "creationTime"}),
    "RESTRestoreSessionCreatedExample": (RestoreSession, {"id", "creationTime"}),
    "RESTOperatorRestoreSessionCreatedExample": (RestoreSession, {"id", "creationTime"}),
    "RESTRestoreSessionEventListExample": (RestoreSessionEvent, {"id"}),
    "RESTRestoreSessionEventExample": (RestoreSessionEvent, {"id"}),
    "RESTJobSessionListExample": (JobSession, {"id"}),
    "RESTBackupOrganizationExample": (BackupOrganization, set()),
    "RestOrganizationComposedExample": (Organization, set()),
    "RestOrganizationComposedByIdExample": (Organization, set()),
    "RESTExchangeMailboxExample": (Mailbox, {"id"}),
    "RESTOneDriveExample": (OneDrive, {"id"}),
    "RESTSharePointSiteExample": (SharePointSite, {"id"}),
    "RESTTeamsTeamExample": (TeamsTeam, {"id"}),
    "RESTServiceInstanceExample": (ServiceInstance, set()),
}
"""The vendor's examples by name, each with the members without which an item is rejected."""

# Written for this test in the form that v4 servers were seen to send: a page, and few members.
PAGE_OF_V4: Json = {
    "offset": 0,
    "limit": 30,
    "_links": {"self": {"href": "/v4/RestoreSessions?offset=0&limit=30"}},
    "results": [
        {
            "id": "0f0a7a2e-30a5-4ce2-9c1a-20b6a6a9e7a1",
            "type": "Vesp",
            "creationTime": "2026-11-20T08:15:30.1234567Z",
            "endTime": "2026-11-20T08:17:02.0000001Z",
            "state": "Stopped",
            "result": "Warning",
            "details": None,
            "_links": {"organization": {"href": "/v4/RestoreSessions/0f0a7a2e/organization"}},
        }
    ],
}
OTHER_TYPES: list[object] = [0, -1.5, True, "", "text", "\udc00", [], [None], {}, {"a": 1}]


@frozen
class Reply:
    """A response of the transport below."""

    status: int
    headers: dict[str, str]
    body: bytes


class OneResponse:
    """A transport that always responds with one document."""

    def __init__(self) -> None:
        self.document: object = None

    async def send(self, request: object, deadline: object, /) -> Reply:
        """The document, as JSON."""
        del request, deadline
        return Reply(200, {"Content-Type": "application/json"}, json.dumps(self.document).encode())


def changes(members: Json, kept: set[str]) -> Iterator[tuple[str, Json]]:
    """The same object with one optional member changed, each with the kind of the change."""
    for name, value in members.items():
        others = {key: each for key, each in members.items() if key != name}
        for spelling in {name.upper(), name.lower(), name[:1].upper() + name[1:]} - {name}:
            yield "other case", {**others, spelling: value}
        if name in kept:
            continue
        yield "absent", others
        yield "null", {**others, name: None}
        for other in OTHER_TYPES:
            yield "other type", {**others, name: other}


def variants(example: Json, kept: set[str]) -> Iterator[tuple[str, Json]]:
    """A response as it is, and with each optional member of its page and its items changed."""
    yield "as it is", example
    if "results" not in example:
        for kind, changed in changes(example, kept):
            yield kind, changed
        return
    for kind, changed in changes(example, {"results"}):
        yield f"page: {kind}", changed
    for number, item in enumerate(example["results"]):
        for kind, changed in changes(item, kept):
            results = list(example["results"])
            results[number] = changed
            yield kind, {**example, "results": results}


async def delivered(example: Json, cls: type[Model], kept: set[str]) -> Counter[str]:
    """How many changed responses of each kind were read, each with all of its items."""
    counts: Counter[str] = Counter()
    transport = OneResponse()
    server = Server("https://vbo1", Bearer("t"), api_version="v8")
    async with Client(server, transport=transport) as client:
        for kind, document in variants(example, kept):
            transport.document = document
            if "results" in example:
                items = await client.query("/v8/Things", cls)
                assert len(items) == len(example["results"]), (kind, document)
            else:
                await client.fetch("/v8/Things/1", cls)
            counts[kind] += 1
    return counts


async def test_no_session_of_a_v4_page_is_lost_by_an_optional_member() -> None:
    """Null, absent, of another type or in another case, in the page or in the session."""
    counts = await delivered(PAGE_OF_V4, RestoreSession, {"id", "creationTime"})
    assert counts["other type"] == 6 * len(OTHER_TYPES)
    assert counts["page: other type"] == 3 * len(OTHER_TYPES)
    assert counts.keys() >= {"absent", "null", "other case", "page: absent", "page: null", "page: other case"}


@pytest.mark.parametrize("name", ITEMS)
async def test_no_item_of_a_vendor_s_example_is_lost_by_an_optional_member(
    name: str, record_property: Any
) -> None:
    """The same for every example of the vendor's document for v8."""
    document = vendors_document("v8")
    if document is None:
        pytest.skip("the vendor's OpenAPI documents are not there (AIOVBO_OPENAPI)")
    cls, kept = ITEMS[name]
    counts = await delivered(document["components"]["examples"][name]["value"], cls, kept)
    record_property("responses read", dict(counts))
    assert counts["absent"] >= 2
