"""What surrounds a restore session: events, statistics, stop, wait, explore; byte by byte, every version."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from harness import VirtualClock
from harness.documents import session
from harness.raw import (
    Connection,
    RawServer,
    Routes,
    fin,
    http,
    in_turn,
    json_answer,
    sleep,
    stall,
    token_answer,
)

from aiovbo import (
    Assertion,
    AuthenticationError,
    Client,
    Clock,
    ConfigError,
    ConflictError,
    LinkError,
    NotFoundError,
    Password,
    PayloadError,
    RestoreSession,
    RestoreSessionEventStatus,
    RestoreSessionEventType,
    RestoreSessionState,
    Server,
    ServerFaultError,
    ServerTimeoutError,
)

KEY = UUID(int=1)
VERSIONS = ["v4", "v5", "v6", "v7", "v8"]


def document(version: str, **changes: object) -> dict[str, Any]:
    """A session with the links of its version."""
    path = f"/{version}/RestoreSessions/{KEY}"
    if version in ("v4", "v5"):
        path = f"https://abc.tech.local:4443{path.lower()}"
    links = {"self": {"href": path}, "organization": {"href": f"{path}/organization"}}
    return session(0, _links=links, **changes)


@asynccontextmanager
async def asking(version: str, routes: Routes, **limits: Any) -> AsyncIterator[tuple[Client, RawServer]]:
    """A client of a server with these routes, and a login and a session beside them."""
    path = f"/{version}/RestoreSessions/{KEY}"
    table = {
        ("POST", f"/{version}/token"): token_answer(),
        ("GET", path): json_answer(document(version)),
        ("POST", f"/{version}/token/logout"): http(204, content_type=None),
        **routes,
    }
    async with RawServer(table) as raw:
        server = Server(raw.url, Password("u", "p"), allow_http=True, api_version=version, name="vbo")  # type: ignore[arg-type]  # parametrised
        async with Client(server, **{"retries": 2, **limits}) as client:
            yield client, raw


EVENT = {
    "id": str(UUID(int=9)),
    "type": "Restore",
    "status": "success",
    "startTime": "2026-11-20T08:31:00.1234567Z",
    "endTime": None,
    "duration": "1.02:03:04.5678901",
    "title": "Restoring",
    "message": "Done",
    "order": 3,
    "itemName": "Inbox",
    "itemType": "Folder",
    "itemSizeBytes": 2**60 + 1,
    "source": "a",
    "target": "b",
    "organizationId": str(UUID(int=5)),
    "surprise": {"x": 1},
}


@pytest.mark.parametrize("version", VERSIONS)
async def test_events_are_typed_on_every_version(version: str) -> None:
    """Open enums, durations, exact sizes; what has no field is kept."""
    body: object = [EVENT] if version == "v4" else {"results": [EVENT], "limit": 30}
    routes = {("GET", f"/{version}/RestoreSessions/{KEY}/Events"): json_answer(body)}
    async with asking(version, routes) as (client, raw):
        found = await client.fetch_restore_session(KEY)
        query = found.events()
        assert len(raw.asked("GET", "*")) == 1
        (event,) = await query
    assert event.type is RestoreSessionEventType.RESTORE
    assert event.status is RestoreSessionEventStatus.SUCCESS
    assert event.start_time == datetime(2026, 11, 20, 8, 31, 0, 123456, UTC)
    assert event.end_time is None
    assert event.duration == timedelta(days=1, hours=2, minutes=3, seconds=4, microseconds=567890)
    assert event.item_size_bytes == 2**60 + 1
    assert event.organization_id == UUID(int=5)
    assert dict(event.extra) == {"surprise": {"x": 1}}
    assert json.loads(json.dumps(event.to_dict()))["itemSizeBytes"] == 2**60 + 1


async def test_statistics_are_there_on_v8_and_elsewhere_an_error_names_it() -> None:
    """Nothing is sent to a server that has none."""
    body = {
        "totalItemsCount": 7, "restoredItemsCount": 5, "failedItemsCount": 1, "skippedItemsCount": 1,
        "warnings": ["w"], "errors": None, "items": [{"id": "x", "status": "Success"}],
    }  # fmt: skip
    routes = {("GET", f"/v8/RestoreSessions/{KEY}/Statistics"): json_answer(body)}
    async with asking("v8", routes) as (client, _):
        figures = await (await client.fetch_restore_session(KEY)).fetch_statistics()
        assert (figures.total_items_count, figures.restored_items_count) == (7, 5)
        assert (figures.warnings, figures.errors) == (("w",), ())
        assert figures.items[0]["status"] == "Success"
    async with asking("v7", {}) as (client, raw):
        found = await client.fetch_restore_session(KEY)
        with pytest.raises(ConfigError, match="needs API v8"):
            await found.fetch_statistics()
        assert len(raw.asked("GET", "*")) == 1


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_session_is_stopped_in_the_words_of_its_version(version: str) -> None:
    """An action with a body up to v5, a path of its own later; an answer without a body is fine."""
    old = version in ("v4", "v5")
    path = f"/{version}/RestoreSessions/{KEY}/{'action' if old else 'Stop'}"
    async with asking(version, {("POST", path): http(200)}) as (client, raw):
        await (await client.fetch_restore_session(KEY)).stop()
        (request,) = raw.asked("POST", path)
        assert request.target == path
        if old:
            assert json.loads(request.body) == {"stop": None}
            assert request.headers["Content-Type"] == "application/json"
        else:
            assert request.body == b""


@pytest.mark.parametrize(
    ("answer", "kind"),
    [(http(503), ServerFaultError), ([fin()], PayloadError), (http(409), ConflictError)],
)
async def test_a_stop_that_may_have_arrived_is_never_sent_again(answer: Any, kind: type[Exception]) -> None:
    """The error says that it may have been done."""
    path = f"/v8/RestoreSessions/{KEY}/Stop"
    async with asking("v8", {("POST", path): answer}) as (client, raw):
        with pytest.raises(kind) as caught:
            await client.stop_restore_session(KEY)
        assert len(raw.asked("POST", path)) == 1
        assert ("may have been done" in str(caught.value)) is (kind is not ConflictError)


async def test_a_stop_is_sent_again_after_a_refused_token() -> None:
    """A request that was refused was not carried out."""
    path = f"/v8/RestoreSessions/{KEY}/Stop"
    async with asking("v8", {("POST", path): in_turn(http(401), http(200))}) as (client, raw):
        await client.stop_restore_session(KEY)
        assert len(raw.asked("POST", path)) == 2
        assert len(raw.asked("POST", "/v8/token")) == 2


def clock_of(virtual: VirtualClock) -> Clock:
    """The SDK's clock, moved by a virtual one."""
    return Clock(virtual.monotonic, virtual.now, virtual.sleep, virtual.random)


async def test_wait_looks_again_until_the_state_is_reached() -> None:
    """A server that restarts in between is waited out; the old value stays as it is."""
    working, stopped = document("v8", state="Working", endTime=None), document("v8")
    answers = in_turn(json_answer(working), json_answer(working), [fin()], http(503), json_answer(stopped))
    virtual = VirtualClock()
    routes = {("GET", f"/v8/RestoreSessions/{KEY}"): answers}
    async with asking("v8", routes, clock=clock_of(virtual), retries=0) as (client, _):
        found = await client.fetch_restore_session(KEY)
        ended = await found.wait(every=10)
        assert found.state is RestoreSessionState.WORKING
        assert ended.state is RestoreSessionState.STOPPED
        assert ended.end_time is not None
        # aiohttp itself resends a GET whose kept connection was closed: the 503 is the second answer seen.
        assert len(virtual.slept) == 2
        assert all(5 <= pause <= 15 for pause in virtual.slept)
        # So that many who wait do not look all at once.
        assert 10 not in virtual.slept
        assert len(set(virtual.slept)) == 2


@pytest.mark.parametrize("times", [{"every": 0}, {"every": -1.0}, {"timeout": 0}, {"every": float("nan")}])
async def test_wait_takes_no_time_that_is_none(times: dict[str, float]) -> None:
    """A server would be asked without a pause."""
    async with asking("v8", {}) as (client, raw):
        found = await client.fetch_restore_session(KEY)
        already = len(raw.asked("GET", "*"))
        with pytest.raises(ConfigError, match="number of seconds above 0"):
            await found.wait(**times)
        assert len(raw.asked("GET", "*")) == already


@pytest.mark.parametrize(
    ("state", "end", "result", "outcome"),
    [
        ("Stopped", None, "Failed", "Failed"),
        ("Working", None, "Success", None),
        ("Stopping", "2026-11-20T08:31:00Z", "Success", "Success"),
        ("Completed", "2026-11-20T08:31:00Z", "Failed", "Failed"),
        (None, "2026-11-20T08:31:00Z", "Warning", "Warning"),
        (None, None, "Warning", None),
    ],
)
async def test_a_result_is_an_outcome_only_once_the_session_has_ended(
    state: str | None, end: str | None, result: str, outcome: str | None
) -> None:
    """While it works it may say Success; with an end time it has ended, whatever its state is called."""
    sent = json_answer(document("v8", state=state, endTime=end, result=result))
    async with asking("v8", {("GET", f"/v8/RestoreSessions/{KEY}"): sent}) as (client, _):
        found = await client.fetch_restore_session(KEY)
    assert found.has_ended is (outcome is not None)
    assert found.outcome == outcome


async def test_wait_ends_by_its_timeout_and_notices_what_has_vanished() -> None:
    """Both with an error that says so."""
    working = document("v8", state="Working", endTime=None)
    answers = in_turn(*[json_answer(working)] * 8, http(404, b'{"message": "gone"}'))
    routes = {("GET", f"/v8/RestoreSessions/{KEY}"): answers}
    async with asking("v8", routes, clock=clock_of(VirtualClock())) as (client, _):
        found = await client.fetch_restore_session(KEY)
        with pytest.raises(ServerTimeoutError, match="timed out after 30 s"):
            await found.wait(timeout=30, every=10)
        with pytest.raises(NotFoundError, match="gone"):
            await found.wait(lambda now: now.result == "Nonsense", every=10)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("organization", [None, str(UUID(int=7))])
async def test_a_session_is_started_in_the_words_of_its_version_and_stopped_at_the_end(
    version: str, organization: str | None
) -> None:
    """For the tenant, or for a provider's organization; as an action up to v5."""
    old = version in ("v4", "v5")
    whose = f"Organizations/{organization}" if organization else "Organization"
    start = f"/{version}/{whose}/{'action' if old else 'explore'}"
    stop = f"/{version}/RestoreSessions/{KEY}/{'action' if old else 'Stop'}"
    started = json_answer(document(version, state="Working"), 201)
    async with asking(version, {("POST", start): started, ("POST", stop): http(200)}) as (client, raw):
        at = datetime(2026, 11, 20, 8, 30, 0, 123456, UTC)
        exploration = client.explore("vex", at=at, organization=organization, show_deleted=True)
        async with exploration as opened:
            assert isinstance(opened, RestoreSession)
            assert opened.id == KEY
            assert raw.asked("POST", stop) == []
        assert len(raw.asked("POST", stop)) == 1
        (request,) = raw.asked("POST", start)
        sent = json.loads(request.body)
        options = sent["explore"] if old else sent
        when = {"datetime": "2026-11-20 08:30:00.123"} if old else {"dateTime": "2026-11-20T08:30:00.123456Z"}
        assert options == {
            "type": "vex" if old else "Vex", "showDeleted": True, "showAllVersions": False, **when
        }  # fmt: skip


async def test_an_exploration_is_stopped_after_an_exception_and_hides_nothing() -> None:
    """Where it cannot be stopped, the exception says which session may be open."""
    started = json_answer(document("v8", state="Working"), 201)
    stop = f"/v8/RestoreSessions/{KEY}/Stop"
    answers = in_turn(http(200), http(404), http(500))
    async with asking("v8", {("POST", "/v8/Organization/Explore"): started, ("POST", stop): answers}) as (
        client,
        raw,
    ):
        for noted in (False, False, True):
            with pytest.raises(KeyError) as caught:
                async with client.explore("Vex"):
                    raise KeyError
            assert any(str(KEY) in note for note in getattr(caught.value, "__notes__", [])) is noted
        assert len(raw.asked("POST", stop)) == 3
        with pytest.raises(ServerFaultError):
            async with client.explore("Vex"):
                pass


async def test_a_server_that_never_says_which_session_it_started_is_not_waited_for_long() -> None:
    """The cancellation goes on, with a note."""
    slow = [sleep(0.2), http(500)]
    async with asking("v8", {("POST", "/v8/Organization/Explore"): slow}) as (client, _):
        waiting = asyncio.ensure_future(client.explore("Vex")._begin())
        await asyncio.sleep(0.1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await waiting
        assert caught.value.__notes__ == ["a restore session may have been started on vbo, and be open still"]


@pytest.mark.parametrize("operator", [False, True])
async def test_an_assertion_is_exchanged_for_a_token(operator: bool) -> None:  # noqa: FBT001  # parametrised
    """By JWT bearer, or by the operators' grant; a provider is asked again once after a refusal."""
    given = iter(["stale", "fresh"])

    async def provide() -> str:
        return next(given)

    async def login(connection: Connection) -> None:
        fresh = connection.requests[-1].form["assertion"] == "fresh"
        await connection.send(token_answer() if fresh else http(401))

    async with RawServer({("POST", "/v8/token"): login, ("GET", "/v8/*"): json_answer([])}) as raw:
        login = Assertion("app-id", provide, operator=operator)
        async with Client(Server(raw.url, login, allow_http=True, api_version="v8")) as client:
            assert await client.restore_sessions() == []
        stale, fresh = raw.asked("POST", "/v8/token")
        grant = "operator" if operator else "urn:ietf:params:oauth:grant-type:jwt-bearer"
        assert stale.form["grant_type"] == grant
        assert (stale.form["assertion"], fresh.form["assertion"]) == ("stale", "fresh")
        assert fresh.form["client_id"] == "app-id"


async def test_an_assertion_that_stays_refused_is_sent_once() -> None:
    """The same secret is not tried twice."""
    refusal = json_answer({"error": "invalid_grant"}, 400)
    async with RawServer({("POST", "/v8/token"): refusal}) as raw:
        login = Assertion("app-id", "refused")
        async with Client(Server(raw.url, login, allow_http=True, api_version="v8")) as client:
            with pytest.raises(AuthenticationError):
                await client.restore_sessions()
        assert len(raw.asked("POST", "/v8/token")) == 1


@pytest.mark.parametrize("version", VERSIONS)
async def test_closing_logs_out_where_the_api_can(version: str) -> None:
    """Since v7; a server that does not answer delays closing by a second at most."""
    logout = f"/{version}/token/logout"
    async with asking(version, {}) as (client, raw):
        await client.fetch_restore_session(KEY)
        await client.aclose()
        expected = 1 if version in ("v7", "v8") else 0
        assert len(raw.asked("POST", logout)) == expected
        await client.aclose()
        assert len(raw.asked("POST", logout)) == expected


async def test_a_failed_logout_hides_nothing_and_takes_a_second_at_most() -> None:
    """The application's own exception comes out."""
    routes = {("POST", "/v8/token/logout"): stall()}
    async with RawServer(
        {("POST", "/v8/token"): token_answer(), ("GET", "/v8/*"): json_answer([]), **routes}
    ) as raw:
        server = Server(raw.url, Password("u", "p"), allow_http=True, api_version="v8")
        started = asyncio.get_running_loop().time()
        with pytest.raises(KeyError):
            async with Client(server) as client:
                await client.restore_sessions()
                raise KeyError
        assert asyncio.get_running_loop().time() - started < 10


async def test_order_is_asked_of_v8_and_refused_elsewhere() -> None:
    """With a reason, and what to do instead."""
    async with asking("v8", {("GET", "/v8/RestoreSessions"): json_answer([])}) as (client, raw):
        await client.restore_sessions(order_by="EndTime", ascending=True)
        assert "orderBy=EndTime&orderAsc=true" in raw.requests[-1].target
    async with asking("v7", {}) as (client, raw):
        with pytest.raises(ConfigError, match="need API v8"):
            await client.restore_sessions(order_by="EndTime")
        assert raw.requests == []


@pytest.mark.parametrize("version", VERSIONS)
async def test_every_collection_and_resource_of_the_api_is_within_reach(version: str) -> None:
    """Typed where there is a model, as a mapping elsewhere, page after page."""
    organization = {"id": str(UUID(int=7)), "name": "abc", "officeName": "ABC", "isBackedup": True, "x": 1}
    job = {
        "id": str(UUID(int=8)),
        "creationTime": "2026-01-01T00:00:00Z",
        "status": "Running",
        "progress": "5",
    }
    instance = {"installationId": str(UUID(int=1)), "version": "8.0"}
    proxied = {"id": "p", "_links": {"self": {"href": f"/{version}/Proxies/p"}}}
    routes: Routes = {
        ("GET", f"/{version}/Organizations"): json_answer([organization]),
        ("GET", f"/{version}/JobSessions"): json_answer({"results": [job]}),
        ("GET", f"/{version}/ServiceInstance"): json_answer(instance),
        ("GET", f"/{version}/Proxies"): json_answer([proxied]),
        ("GET", f"/{version}/Proxies/p"): json_answer({"id": "p"}),
    }  # fmt: skip
    async with asking(version, routes) as (client, _):
        (found,) = await client.organizations()
        assert (found.name, found.office_name, found.is_backedup, found.extra["x"]) == ("abc", "ABC", True, 1)
        (run,) = await client.job_sessions()
        assert (run.status, run.progress) == ("Running", 5)
        assert (await client.fetch_service_instance()).version == "8.0"
        (proxy,) = await client.query("Proxies")
        assert (await proxy.links["self"].fetch())["id"] == "p"


@pytest.mark.parametrize("version", VERSIONS)
async def test_what_is_in_a_backup_is_listed(version: str) -> None:
    """Mailboxes, OneDrives, sites and teams, by the organization's links."""
    path = f"/{version}/RestoreSessions/{KEY}/organization"
    kinds = {"mailboxes": "mailboxes", "oneDrives": "OneDrives", "sites": "Sites", "teams": "teams"}
    links = {rel: {"href": f"{path}/{name}"} for rel, name in kinds.items()}
    body = {"id": str(UUID(int=7)), "name": "abc", "_links": links}
    item = {"id": "i", "name": "n", "displayName": "d", "email": "e", "url": "u", "isArchive": False}
    routes: Routes = {
        **{("GET", f"{path}/{name}"): json_answer([item]) for name in kinds.values()},
        ("GET", path): json_answer(body),
    }
    async with asking(version, routes) as (client, _):
        found = await (await client.fetch_restore_session(KEY)).fetch_organization()
        assert [(m.id, m.email) for m in await found.mailboxes()] == [("i", "e")]
        assert [(d.id, d.url) for d in await found.one_drives()] == [("i", "u")]
        assert [(s.id, s.name) for s in await found.sites()] == [("i", "n")]
        assert [(t.id, t.display_name) for t in await found.teams()] == [("i", "d")]
    detached = type(found)(id=found.id)
    with pytest.raises(LinkError):
        detached.mailboxes()


async def test_nothing_that_the_server_sent_is_out_of_reach() -> None:
    """Fields, unknown members and links, as plain JSON under the API's own names."""
    sent = document("v8", name="n", eTag=7, initiatedBy="who", novelty=[1, {"a": None}])
    async with asking("v8", {("GET", f"/v8/RestoreSessions/{KEY}"): json_answer(sent)}) as (client, _):
        found = await client.fetch_restore_session(KEY)
    cut = {"creationTime": "2026-11-20T08:30:05.098397Z", "endTime": "2026-11-20T09:30:05.098397Z"}
    assert json.loads(json.dumps(found.to_dict())) == {**sent, **cut}
    assert found.raw["novelty"] == [1, {"a": None}]
