"""The models against the vendor's schemas: every property has a field, every enum value is known."""

import json
from typing import Any

import attrs
import pytest
from harness.contract import vendors_document

from aiovbo import (
    BackupOrganization,
    JobSession,
    Mailbox,
    OneDrive,
    Organization,
    RestoreSession,
    RestoreSessionEvent,
    RestoreSessionEventStatus,
    RestoreSessionEventType,
    RestoreSessionResult,
    RestoreSessionState,
    RestoreSessionStatistics,
    RestoreSessionType,
    ServiceInstance,
    SharePointSite,
    TeamsTeam,
)
from aiovbo._decoding.listing import decode_listing, decode_one
from aiovbo._resources.enums import OpenEnum
from aiovbo._resources.structuring import CLIENT_FIELDS, api_name
from aiovbo.models import Model

# Source: schemas of the same names in the vendor's OpenAPI document for v8, read 2026-11-23.
PROPERTIES: dict[str, tuple[type[Model], str]] = {
    "RESTRestoreSession": (
        RestoreSession,
        """id name organization type creationTime endTime state result initiatedBy details scopeName
        clientHost reason eTag _links""",
    ),
    "RESTRestoreSessionEvent": (
        RestoreSessionEvent,
        """itemName itemType itemSizeBytes source target id type status startTime endTime duration title
        message order organizationId backedUpOrganizationId userId groupId siteId teamId _links""",
    ),
    "RESTRestoreSessionStatistics": (
        RestoreSessionStatistics,
        "totalItemsCount restoredItemsCount failedItemsCount skippedItemsCount warnings errors items",
    ),
    "RESTBackupOrganization": (BackupOrganization, "id name type _links"),
    "RESTServiceInstance": (ServiceInstance, "installationId version"),
}
ENUMS: dict[tuple[str, str], tuple[type[OpenEnum], str]] = {
    ("RESTRestoreSession", "type"): (RestoreSessionType, "Vex Veod Vesp Vet"),
    ("RESTRestoreSession", "state"): (RestoreSessionState, "Working Stopped"),
    ("RESTRestoreSession", "result"): (RestoreSessionResult, "Success Warning Failed"),
    ("RESTRestoreSessionEvent", "type"): (
        RestoreSessionEventType,
        "None Save Export Send Restore View",
    ),
    ("RESTRestoreSessionEvent", "status"): (
        RestoreSessionEventStatus,
        "Running Success Warning Failed Cancelled Skipped",
    ),
}


def vendor(version: str, part: str = "schemas") -> dict[str, Any]:
    """The schemas or examples of the vendor's document, which is not part of the project."""
    document = vendors_document(version)
    if document is None:
        pytest.skip("the vendor's OpenAPI documents are not there (AIOVBO_OPENAPI)")
    found: dict[str, Any] = document["components"][part]
    return found


def reachable(model: type[Model]) -> set[str]:
    """The API's names of what a model has a field for."""
    own = {api_name(field.name) for field in attrs.fields(model) if field.name not in CLIENT_FIELDS}
    return own | {"_links"}


@pytest.mark.parametrize("schema", PROPERTIES)
def test_every_property_has_a_field(schema: str) -> None:
    """And no field has a name that the API does not know."""
    model, names = PROPERTIES[schema]
    assert reachable(model) == {*names.split(), "_links"}


@pytest.mark.parametrize(("schema", "name"), ENUMS)
def test_every_enum_value_is_known(schema: str, name: str) -> None:
    """As it is written, and in any case."""
    enum, values = ENUMS[schema, name]
    for value in values.split():
        assert enum(value).is_known
        assert enum(value.lower()) is enum(value)
    assert not enum("Sideways").is_known


@pytest.mark.parametrize("schema", PROPERTIES)
def test_the_table_is_the_vendors(schema: str) -> None:
    """Where the vendor's document for v8 is available."""
    _, names = PROPERTIES[schema]
    assert set(names.split()) == set(vendor("v8")[schema]["properties"])


@pytest.mark.parametrize("version", ["v6", "v7", "v8"])
def test_no_version_has_a_property_or_a_value_that_we_lack(version: str) -> None:
    """The schemas of older versions are smaller."""
    schemas = vendor(version)
    for schema, (model, _) in PROPERTIES.items():
        if schema in schemas:
            assert set(schemas[schema]["properties"]) <= reachable(model)
    for (schema, name), (enum, _) in ENUMS.items():
        for value in schemas[schema]["properties"][name]["enum"]:
            assert enum(value).is_known


EXAMPLES: dict[str, type[Model]] = {
    "RESTBackupOrganizationExample": BackupOrganization,
    "RESTExchangeMailboxExample": Mailbox,
    "RESTJobSessionListExample": JobSession,
    "RESTOneDriveExample": OneDrive,
    "RESTOperatorRestoreSessionCreatedExample": RestoreSession,
    "RESTRestoreSessionCreatedExample": RestoreSession,
    "RESTRestoreSessionEventExample": RestoreSessionEvent,
    "RESTRestoreSessionEventListExample": RestoreSessionEvent,
    "RESTRestoreSessionExample": RestoreSession,
    "RESTRestoreSessionListExample": RestoreSession,
    "RESTRestoreSessionStatisticsExample": RestoreSessionStatistics,
    "RESTServiceInstanceExample": ServiceInstance,
    "RESTSharePointSiteExample": SharePointSite,
    "RESTTeamsTeamExample": TeamsTeam,
    "RestOrganizationComposedByIdExample": Organization,
    "RestOrganizationComposedExample": Organization,
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_vendors_own_examples_are_read(name: str) -> None:
    """Numbers and booleans are texts; nothing is rejected, and every member can be read."""
    sent = vendor("v8", "examples")[name]["value"]
    model = EXAMPLES[name]
    if "results" in sent:
        slices = decode_listing(json.dumps(sent).encode(), model, "vbo1", None).slices()
        found = [item for items, _ in slices for item in items]
        documents = sent["results"]
    else:
        found, documents = [decode_one(json.dumps(sent).encode(), model, "vbo1", None)], [sent]
    assert found
    for item, document in zip(found, documents, strict=True):
        kept = item.to_dict()
        assert set(document) <= set(kept)
        for field in attrs.fields(model):
            if field.name not in CLIENT_FIELDS and api_name(field.name) in document:
                assert getattr(item, field.name) is not None
        assert {key: kept[key] for key in item.extra} == {key: document[key] for key in item.extra}
