"""All that the SDK asks and the embedded server answers, against the API's contract.

The contract is hand-written and small; where the vendor's documents are available, against those too.
"""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import aiohttp
import attrs
import pytest
from harness.backups import asked as asked_for
from harness.backups import server_of
from harness.contract import VERSIONS, Contract, our_document, vendors_document

from aiovbo import Assertion, Client, Clock, Fleet
from aiovbo.testing import BackupServer, World
from aiovbo.testing._requests import ReceivedRequest

START = datetime(2026, 1, 1, tzinfo=UTC)


async def everything(client: Client, version: str) -> None:
    """Each operation of the SDK that sends a request of its own kind."""
    filters = {
        "started_after": START,
        "started_before": timedelta(seconds=1),
        "ended_after": START,
        "ended_before": START + timedelta(days=10_000),
    }
    sessions = await client.restore_sessions(**filters)  # type: ignore[arg-type]  # each is a point in time
    await client.restore_sessions(page_size=3)
    if version == "v8":
        await client.restore_sessions(order_by="EndTime", ascending=True)
        await sessions[0].fetch_statistics()
    await sessions[0].refresh()
    for event in (await sessions[0].events())[:1]:
        await event.links["self"].fetch()
    organization = await sessions[0].fetch_organization()
    for contents in (organization.mailboxes(), organization.one_drives(), organization.sites()):
        await contents
    if version != "v4":
        await organization.teams()
    organizations = await client.organizations()
    await client.fetch(f"Organizations/{organizations[0].id}")
    await client.fetch("Organization")
    await client.job_sessions()
    jobs = await client.query("Jobs")
    await client.fetch(f"Jobs/{jobs[0]['id']}")
    if version == "v8":
        await client.fetch("Health")
    if version not in ("v4", "v5"):
        await client.query("RestorePoints")
    if version not in ("v4", "v5"):
        await client.fetch_service_instance()
    async with client.explore("Vex", at=START, show_deleted=True, show_all_versions=True):
        pass
    async with client.explore("Vet", organization=organizations[0]):
        pass


async def asked(version: str) -> AsyncIterator[tuple[BackupServer, list[ReceivedRequest]]]:
    """A server that still runs, and what the SDK asked it when it used everything."""
    world = World(sessions=12)
    login = {"application": "signed"}
    async with BackupServer(world, version=version, assertions=login) as backup:  # type: ignore[arg-type]  # parametrised
        server = server_of(backup, api_version=version)
        seconds = [0.0]
        async with Client(server, clock=Clock(monotonic=lambda: seconds[0])) as client:
            await everything(client, version)
            seconds[0] = 2 * 3600
            await client.restore_sessions()
        assertion = Assertion("application", "signed")
        async with Client(attrs.evolve(server, credentials=assertion)) as application:
            await application.restore_sessions()
        if version not in ("v4", "v5"):
            operator = Assertion("application", "signed", operator=True)
            async with Client(attrs.evolve(server, credentials=operator)) as client, client.explore("Vesp"):
                pass
        yield backup, list(backup.requests)


def contracts(version: str) -> list[Contract]:
    """Ours, and the vendor's where it is available."""
    documents = [our_document(version), vendors_document(version)]
    return [Contract(document) for document in documents if document is not None]


@pytest.mark.parametrize("version", VERSIONS)
async def test_every_request_is_as_documented(version: str) -> None:
    """Its path, its parameters and their values, its body or form."""
    async for _, requests in asked(version):
        for contract in contracts(version):
            for one in requests:
                assert one.status is not None
                assert one.status < 400 or one.status == 401
                contract.check_request(one.method, one.path, one.query, one.document, one.form)
        grants = {one.grant_type for one in requests if one.grant_type}
        operators = {"operator"} if version >= "v6" else set()
        assert grants - operators == {
            "password", "refresh_token", "urn:ietf:params:oauth:grant-type:jwt-bearer"
        }  # fmt: skip
        assert operators <= grants


@pytest.mark.parametrize("version", VERSIONS)
async def test_what_finds_out_a_version_and_what_watches_asks_as_documented(version: str) -> None:
    """The probes of its own version, the lists of a watch, and from v8 on its long poll."""
    world = World(sessions=3, speed=0)
    async with BackupServer(world, version=version) as backup:  # type: ignore[arg-type]  # parametrised
        async with Fleet([server_of(backup)]) as fleet:
            often = timedelta(seconds=0.05)
            async with fleet.watch(since=timedelta(days=400), every=often) as changes:
                for _ in range(3):
                    await anext(changes)
                while version == "v8" and asked_for(backup, "Events") < 2:
                    await asyncio.sleep(0.01)
        requests = [one for one in backup.requests if one.path.startswith(f"/{version}/")]
    assert asked_for(backup, "RestoreSessions") >= 1
    for contract in contracts(version):
        for one in requests:
            contract.check_request(one.method, one.path, one.query, one.document, one.form)


@pytest.mark.parametrize("version", VERSIONS)
async def test_every_answer_of_the_embedded_server_is_as_documented(version: str) -> None:
    """Its status, and every property of its body; those of requests that read are asked for again."""
    async for backup, requests in asked(version):
        tls = ssl.create_default_context(cafile=backup.ca_file)
        token = await log_in(backup, tls, version)
        seen = 0
        for contract in contracts(version):
            for one in requests:
                is_login = one.resource.lower().startswith("token")
                if is_login or one.resource.lower().endswith(("stop", "action", "explore")):
                    continue
                url = f"{backup.url}{one.path}?{one.query}".rstrip("?")
                status, body = await ask(tls, "GET", url, token)
                contract.check_answer("GET", one.path, status, body)
                seen += 1
        assert seen > 10


@pytest.mark.parametrize("version", VERSIONS)
async def test_starting_stopping_and_logging_out_are_answered_as_documented(version: str) -> None:
    """Each once more with the body that the SDK sent, each with the status of its version."""
    async for backup, requests in asked(version):
        tls = ssl.create_default_context(cafile=backup.ca_file)
        token = await log_in(backup, tls, version)
        started = [one for one in requests if one.method == "POST" and "rganization" in one.resource]
        stopped = [one for one in requests if one.method == "POST" and "RestoreSessions" in one.resource]
        assert len(started) == len(stopped) == (3 if version >= "v6" else 2)
        for contract in contracts(version):
            for start, stop in zip(started, stopped, strict=True):
                status, body = await ask(tls, "POST", f"{backup.url}{start.path}", token, start.document)
                contract.check_answer("POST", start.path, status, body)
                assert isinstance(body, dict)
                path = f"/{version}/RestoreSessions/{body['id']}/{stop.path.rpartition('/')[2]}"
                status, body = await ask(tls, "POST", f"{backup.url}{path}", token, stop.document)
                contract.check_answer("POST", path, status, body)
        if version in ("v7", "v8"):
            path = f"/{version}/token/logout"
            status, body = await ask(tls, "POST", f"{backup.url}{path}", token)
            for contract in contracts(version):
                contract.check_answer("POST", path, status, body)


@pytest.mark.parametrize("version", VERSIONS)
async def test_every_refusal_is_as_documented(version: str) -> None:
    """Token, parameter, unknown ID, and a login without a form; up to v5 the last is in OAuth's words."""
    async with BackupServer(version=version) as backup:  # type: ignore[arg-type]  # parametrised
        tls = ssl.create_default_context(cafile=backup.ca_file)
        token = await log_in(backup, tls, version)
        listing = f"/{version}/RestoreSessions"
        refused = [
            await ask(tls, "GET", f"{backup.url}{listing}", "odd"),
            await ask(tls, "GET", f"{backup.url}{listing}?limit=x", token),
            await ask(tls, "GET", f"{backup.url}{listing}/x", token),
            await ask(tls, "POST", f"{backup.url}/{version}/token", "", {}),
        ]
    assert [status for status, _ in refused] == [401, 400, 404, 400]
    for contract in contracts(version):
        for status, body in refused[: None if version >= "v6" else 3]:
            contract.check_answer("GET", listing, status, body)


@pytest.mark.parametrize("version", ["v6", "v7", "v8"])
def test_our_contract_says_no_more_than_the_vendors(version: str) -> None:
    """Each operation, parameter, status and property of ours is in the vendor's document too."""
    document = vendors_document(version)
    if document is None:
        pytest.skip("the vendor's OpenAPI documents are not part of the project")
    vendors = Contract(document)
    for path, methods in our_document(version)["paths"].items():
        for method, operation in methods.items():
            theirs = vendors.operation(method, path.replace("{", "").replace("}", ""))
            assert set(operation["responses"]) <= set(theirs["responses"])
            named = {vendors._resolved(one)["name"] for one in theirs.get("parameters", [])}
            assert {one["name"] for one in operation["parameters"]} <= named
            assert ("requestBody" in operation) == ("requestBody" in theirs)


async def log_in(backup: BackupServer, tls: ssl.SSLContext, version: str) -> str:
    """A token, with nothing of the SDK; the answer is checked on the way."""
    form = {"grant_type": "password", "username": backup.username, "password": backup.password}
    if version in ("v7", "v8"):
        form["disable_antiforgery_token"] = "true"
    path = f"/{version}/token"
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{backup.url}{path}", data=form, ssl=tls) as response,
    ):
        body = await response.json()
    for contract in contracts(version):
        contract.check_request("POST", path, "", None, tuple(form))
        contract.check_answer("POST", path, response.status, body)
    return str(body["access_token"])


async def ask(
    tls: ssl.SSLContext, method: str, url: str, token: str, document: object = None
) -> tuple[int, object]:
    """Status and JSON of one answer, with nothing of the SDK."""
    headers = {"Authorization": f"Bearer {token}"}
    sent = {} if document is None else {"json": document}
    async with (
        aiohttp.ClientSession() as http,
        http.request(method, url, headers=headers, ssl=tls, **sent) as response,
    ):
        text = await response.text()
    return response.status, json.loads(text) if text else None
