"""What a restore session can be started from, and with which options, by API version."""

import json
from typing import Any
from uuid import UUID

import pytest
from harness.documents import session
from harness.raw import ANY, RawServer, json_answer, vbo_routes

from aiovbo import Assertion, Bearer, Client, ConfigError, Credentials, Links, Password, Resource, Server

KEY = UUID(int=5)
SCOPE = {"type": "Group", "id": "g"}
OPERATOR = Assertion("userId.tenantId", "signed", operator=True)


async def started(
    version: str, credentials: Credentials | None = None, **options: Any
) -> tuple[str, dict[str, Any]]:
    """The path and the body that start a session."""
    routes = {**vbo_routes(version=version), ("POST", ANY): json_answer(session(1), 201)}
    async with RawServer(routes) as raw:
        server = Server(
            raw.url,
            credentials or Password("u", "p"),
            allow_http=True,
            api_version=version,  # type: ignore[arg-type]  # as given
        )
        async with Client(server, retries=0) as client:
            await client.explore("Vex", **options)
        (sent,) = (request for request in raw.asked("POST", ANY) if "/token" not in request.target)
    return sent.target.removeprefix(f"/{version}/"), json.loads(sent.body)


@pytest.mark.parametrize("version", ["v6", "v7", "v8"])
async def test_a_session_starts_from_a_job_or_a_data_retrieval(version: str) -> None:
    """By its ID, or by the resource that was fetched."""
    path, body = await started(version, job=KEY)
    assert path == f"Jobs/{KEY}/explore"
    assert body == {"type": "Vex", "showDeleted": False, "showAllVersions": False}
    job = Resource({"Id": str(KEY)}, "vbo1", Links())
    assert await started(version, job=job) == (path, body)
    path, _ = await started(version, data_retrieval=str(KEY))
    assert path == f"DataRetrievals/{KEY}/explore"


@pytest.mark.parametrize("version", ["v7", "v8"])
async def test_a_session_starts_from_a_repository(version: str) -> None:
    """Since v7."""
    path, _ = await started(version, repository=KEY)
    assert path == f"BackupRepositories/{KEY}/explore"


@pytest.mark.parametrize("version", ["v6", "v7", "v8"])
async def test_operators_send_a_scope_and_a_reason(version: str) -> None:
    """By their own path, also with a token whose rights are not known here."""
    for credentials in (OPERATOR, Bearer("access-1")):
        path, body = await started(version, credentials, scope=SCOPE, reason="lost mail")
        assert path == "Organization/OperatorExplore"
        assert (body["scope"], body["reason"]) == (SCOPE, "lost mail")


async def test_a_repository_is_chosen_by_providers_and_operators() -> None:
    """Since v8."""
    path, body = await started("v8", organization=KEY, repository_id=UUID(int=6))
    assert (path, body["repositoryId"]) == (f"Organizations/{KEY}/explore", str(UUID(int=6)))
    path, body = await started("v8", OPERATOR, repository_id=UUID(int=6))
    assert (path, body["repositoryId"]) == ("Organization/OperatorExplore", str(UUID(int=6)))


@pytest.mark.parametrize(
    ("version", "options"),
    [
        ("v5", {"job": KEY}),
        ("v5", {"data_retrieval": KEY}),
        ("v6", {"repository": KEY}),
        ("v7", {"organization": KEY, "repository_id": KEY}),
        ("v8", {"repository_id": KEY}),
        ("v5", {"reason": "lost mail"}),
    ],
)
async def test_what_a_version_cannot_do_is_an_error_before_anything_is_started(
    version: str, options: dict[str, Any]
) -> None:
    """It names the version that can."""
    async with RawServer(vbo_routes(version=version)) as raw:
        server = Server(raw.url, Password("u", "p"), allow_http=True, api_version=version)  # type: ignore[arg-type]  # parametrised
        async with Client(server) as client:
            with pytest.raises(ConfigError, match="needs"):
                await client.explore("Vex", **options)
        assert raw.received == 0


@pytest.mark.parametrize(
    "options",
    [
        {"job": KEY, "organization": KEY},
        {"job": KEY, "repository": KEY},
        {"job": "x"},
        {"job": Resource({}, "vbo1", Links())},
        {"scope": "x"},
        {"reason": 5},
        {"organization": KEY, "reason": "lost mail"},
    ],
)
def test_options_that_exclude_each_other_are_refused_at_the_call(options: dict[str, Any]) -> None:
    """As values that are no IDs are."""
    with pytest.raises(ConfigError):
        Client(Server("vbo1", Password("u", "p"))).explore("Vex", **options)


@pytest.mark.parametrize(("version", "query"), [("v6", "extendedView=true&limit=1000"), ("v8", "limit=1000")])
async def test_organizations_of_v6_are_requested_in_the_extended_view(version: str, query: str) -> None:
    """That version requires the parameter; others have a default."""
    routes = {**vbo_routes(version=version), ("GET", f"/{version}/Organizations"): json_answer([])}
    async with RawServer(routes) as raw:
        server = Server(raw.url, Password("u", "p"), allow_http=True, api_version=version)  # type: ignore[arg-type]  # parametrised
        async with Client(server) as client:
            assert await client.organizations() == []
        (sent,) = raw.asked("GET", ANY)
    assert sent.target == f"/{version}/Organizations?{query}"
