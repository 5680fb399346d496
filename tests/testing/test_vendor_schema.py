"""Answers of v6 to v8 against the vendor's own OpenAPI documents, where those are at hand."""

import json
from datetime import UTC, datetime
from pathlib import Path

import jsonschema
import pytest

from aiovbo.testing import World

DOCUMENTS = Path(__file__).parents[3] / "shared" / "openapi"

pytestmark = pytest.mark.skipif(
    not DOCUMENTS.is_dir(), reason="the vendor's OpenAPI documents are not part of the project"
)


def as_json_schema(part):
    """OpenAPI 3.0 as JSON Schema: `nullable` becomes a further type, undocumented keys an error."""
    if isinstance(part, list):
        return [as_json_schema(one) for one in part]
    if not isinstance(part, dict):
        return part
    schema = {key: as_json_schema(value) for key, value in part.items()}
    if schema.pop("nullable", False):
        schema["type"] = [schema["type"], "null"]
        if "enum" in schema:
            schema["enum"] = [*schema["enum"], None]
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        schema.setdefault("additionalProperties", False)
    return schema


@pytest.fixture(params=["v6", "v7", "v8"])
def version(request):
    """A version with a document."""
    return request.param


@pytest.fixture
def validate(version):
    """Raises where a body is not as the vendor's schema of that name says."""
    document = json.loads((DOCUMENTS / f"vb365-{version}.json").read_text())
    root = {"components": as_json_schema(document["components"])}

    def check(body, name):
        schema = root | {"$ref": f"#/components/schemas/{name}"}
        checker = jsonschema.FormatChecker()
        jsonschema.Draft202012Validator(schema, format_checker=checker).validate(body)

    return check


async def test_answers_are_as_documented(connect, version, validate):
    """Token, instance, page, session and organization validate, and have no property beyond."""
    world = World(now=datetime(2026, 11, 23, tzinfo=UTC), speed=0, sessions=60)
    world.add(end_time=None)
    client = await connect(world, version=version, log_on=False)
    validate((await client.log_on()).body, "OAuthTokenResponse")
    validate((await client.get(f"/{version}/ServiceInstance")).body, "RESTServiceInstance")
    page = (await client.get(f"/{version}/RestoreSessions", offset="10")).body
    validate(page, "PageOfRESTRestoreSession")
    session = (await client.get(f"/{version}/RestoreSessions/{world.sessions[0].id}")).body
    validate(session, "RESTRestoreSession")
    assert session["endTime"] is None
    path = session["_links"]["organization"]["href"]
    validate((await client.get(path)).body, "RESTBackupOrganization")


async def test_refusals_are_as_documented(connect, version, validate):
    """Logon, token, parameter and unknown ID."""
    client = await connect(version=version)
    path = f"/{version}/RestoreSessions"
    refusals = [
        await client.grant(f"/{version}/token", grant_type="password", username="x", password="y"),
        await client.get(path, token="x"),
        await client.get(path, limit="x"),
        await client.get(f"{path}/x"),
    ]
    assert [one.status for one in refusals] == [401, 401, 400, 404]
    for refusal in refusals:
        validate(refusal.body, "RESTExceptionInfo")
