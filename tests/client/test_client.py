"""One server: versions, paging, links, retries, deadlines, limits; against the embedded backup server."""

import asyncio
import pickle
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from harness import VirtualClock
from harness.backups import asked, server_of
from harness.raw import ANY, Connection, RawServer, http, json_answer, vbo_routes

from aiovbo import (
    TLS,
    AuthenticationError,
    BackupOrganization,
    Bearer,
    Client,
    Clock,
    ConfigError,
    Fleet,
    ForbiddenError,
    Link,
    LinkError,
    NotFoundError,
    Password,
    PayloadError,
    RateLimitedError,
    Resource,
    RestoreSession,
    Server,
    ServerError,
    ServerFaultError,
    ServerTimeoutError,
    UnreachableError,
    VboError,
)
from aiovbo.testing import BackupServer, Fault, World

VERSIONS = ["v4", "v5", "v6", "v7", "v8"]


@pytest.mark.parametrize("version", VERSIONS)
async def test_every_version_lists_all_its_sessions(version: str) -> None:
    """Arrays and pages of seven alike, newest version found by itself."""
    async with (
        BackupServer(World(3, speed=0), version=version) as backup,  # type: ignore[arg-type]  # parametrised
        Client(server_of(backup)) as client,
    ):
        sessions = await client.restore_sessions(page_size=7)
        assert client.api_version == version
        assert {str(s.id) for s in sessions} == {str(s.id) for s in backup.world.sessions}
        assert len({s.id for s in sessions}) == len(sessions) == 40
        assert {s.server for s in sessions} == {client.name}
        assert all(s.creation_time.tzinfo is UTC for s in sessions)


async def test_the_version_is_looked_for_once() -> None:
    """Ten queries at once and ten later cost one search."""
    async with BackupServer(version="v5") as backup, Client(server_of(backup)) as client:
        await asyncio.gather(*(client.restore_sessions() for _ in range(10)))
        await client.restore_sessions()
        assert asked(backup, "ServiceInstance") == 3
        assert backup.logins == 1


@pytest.mark.parametrize("fault", [Fault.empty(), Fault.body(b"<html>", "text/html"), Fault.body(b"[{")])
async def test_a_proxy_that_answers_for_the_server_does_not_decide_on_the_version(fault: Fault) -> None:
    """Its 200 is no sign that v8 is offered."""
    async with BackupServer(version="v5") as backup, Client(server_of(backup), retries=0) as client:
        backup.fail(fault)
        with pytest.raises(PayloadError):
            await client.restore_sessions()
        assert client.api_version is None
        assert len(await client.restore_sessions()) == 40
        assert client.api_version == "v5"


@pytest.mark.parametrize("later", [0, 4000])
async def test_a_version_that_is_no_longer_offered_is_looked_for_again(
    later: int, clock: VirtualClock
) -> None:
    """As after an upgrade: one operation fails, be it at its login, and the next one knows better."""
    old = BackupServer(World(sessions=3), version="v8", versions=["v8"])
    hands = Clock(monotonic=clock.monotonic)
    async with old, Client(server_of(old), retries=0, clock=hands) as client:
        assert len(await client.restore_sessions()) == 3
        clock.advance(later)
        port, trust = old.port, old.authority
        await old.stop()
        async with BackupServer(
            World(sessions=3), version="v6", port=port, authority=trust, password=old.password
        ):
            with pytest.raises(ServerError, match="POST /v8/token" if later else "GET /v8/Rest"):
                await client.restore_sessions()
            assert len(await client.restore_sessions()) == 3
            assert client.api_version == "v6"


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refusal_without_a_token_shows_that_a_version_is_offered(status: int) -> None:
    """Whichever way a server refuses who has none."""
    routes = {**vbo_routes(version="v6"), ("GET", "/v6/ServiceInstance"): http(status)}
    async with RawServer(routes) as raw:
        server = Server(raw.url, Password("u", "p"), allow_http=True)
        async with Client(server, retries=0) as client:
            assert await client.restore_sessions() == []
            assert client.api_version == "v6"
        assert [len(raw.asked("GET", f"/v{n}/ServiceInstance")) for n in (8, 7, 6)] == [1, 1, 1]


async def test_a_version_that_is_given_is_not_looked_for() -> None:
    """Nothing but the login and the question is sent."""
    async with (
        BackupServer(version="v8") as backup,
        Client(server_of(backup, api_version="v6")) as client,
    ):
        await client.restore_sessions()
        assert [r.resource for r in backup.requests] == ["token", "RestoreSessions"]
        assert {r.version for r in backup.requests} == {"v6"}


async def test_a_version_that_is_not_offered_says_so() -> None:
    """The error names the version, and how to find the right one."""
    async with (
        BackupServer(version="v8") as backup,
        Client(server_of(backup, api_version="v4")) as client,
    ):
        with pytest.raises(NotFoundError, match=r"v4.*auto"):
            await client.restore_sessions()


async def test_what_is_no_backup_server_says_so() -> None:
    """A server that offers no version at all is probably something else."""
    async with BackupServer() as backup, Client(server_of(backup), retries=0) as client:
        backup.fail(Fault.status(404), times=None)
        with pytest.raises(NotFoundError, match="none of the API versions") as caught:
            await client.restore_sessions()
        assert caught.value.status == 404


async def test_nothing_is_sent_before_a_query_is_used() -> None:
    """Making a query costs nothing, and each use asks again."""
    async with BackupServer() as backup, Client(server_of(backup)) as client:
        query = client.restore_sessions()
        assert backup.requests == []
        await query
        await query
        assert asked(backup) == 2


async def test_bounds_are_exclusive_and_may_be_given_as_ago() -> None:
    """What the server filters comes back filtered, to the second."""
    world = World(1, sessions=0, speed=0)
    for hours in (1, 2, 3, 4):
        world.add(creation_time=world.now - timedelta(hours=hours), name=f"{hours}")
    async with BackupServer(world) as backup, Client(server_of(backup)) as client:
        found = await client.restore_sessions(
            started_after=world.now - timedelta(hours=3),
            started_before=world.now - timedelta(hours=1),
        )
        assert [s.name for s in found] == ["2"]
        found = await client.restore_sessions(started_after=timedelta(hours=3, minutes=1))
        assert [s.name for s in found] == ["1", "2", "3"]


@pytest.mark.parametrize("version", ["v6", "v8"])
async def test_the_end_is_filtered_alike_by_every_version(version: str) -> None:
    """On v8 by the server, on older versions here; sessions that still go on have not ended."""
    world = World(1, sessions=30, speed=0)
    cut = world.now - timedelta(days=3)
    async with (
        BackupServer(world, version=version) as backup,  # type: ignore[arg-type]  # parametrised
        Client(server_of(backup)) as client,
    ):
        found = await client.restore_sessions(ended_after=cut)
        everything = await client.restore_sessions()
        expected = [s.id for s in everything if s.end_time is not None and s.end_time > cut]
        assert [s.id for s in found] == expected
        assert 0 < len(found) < len(everything)


def test_a_naive_time_is_refused_at_the_call_and_not_when_it_is_used() -> None:
    """The mistake shows where it was made."""
    client = Client(Server("vbo1", credentials=Bearer("token")))
    with pytest.raises(ConfigError, match="time zone"):
        client.restore_sessions(started_after=datetime(2026, 1, 1))  # noqa: DTZ001  # the point


async def test_invalid_arguments_are_rejected_with_a_reason_before_any_request() -> None:
    """Not by an error from deep inside, and not when a fleet has begun to ask."""
    async with BackupServer() as backup, Client(server_of(backup)) as client:
        with pytest.raises(ConfigError, match="beyond the calendar"):
            client.restore_sessions(started_after=timedelta(days=9_999_999))
        for ask in (client.fetch_restore_session, client.stop_restore_session):
            with pytest.raises(ConfigError, match="an id is a UUID such as"):
                await ask("nope")
        assert not backup.requests


async def test_a_server_that_reports_no_data_of_itself_names_the_version_that_does() -> None:
    """Not that it is gone."""
    async with BackupServer(version="v5") as backup, Client(server_of(backup)) as client:
        with pytest.raises(NotFoundError, match=r"needs API v6 or later.*queried by v5"):
            await client.fetch_service_instance()


async def test_pages_are_read_one_ahead_and_no_further() -> None:
    """While the first page is looked at, the second is fetched and the third is not."""
    async with BackupServer(World(sessions=40, speed=0)) as backup, Client(server_of(backup)) as client:
        pages = client.restore_sessions(page_size=10).pages()
        first = await anext(pages)
        while asked(backup) < 2:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        assert asked(backup) == 2
        rest = [page async for page in pages]
        assert [len(page) for page in (first, *rest) if page] == [10, 10, 10, 10]
        assert (first[0], first[-1], first[:2]) == (first.items[0], first.items[9], first.items[:2])


@pytest.mark.parametrize("version", VERSIONS)
async def test_links_lead_to_the_configured_address(version: str) -> None:
    """Absolute links with a name that cannot be resolved, and relative links, both work."""
    async with (
        BackupServer(version=version) as backup,  # type: ignore[arg-type]  # parametrised
        Client(server_of(backup)) as client,
    ):
        session = (await client.restore_sessions())[0]
        sent = len(backup.requests)
        link = session.links["ORGANIZATION"]
        assert str(link.url).startswith(f"{backup.url}/{version}/")
        assert len(backup.requests) == sent
        organization = await link.fetch()
        assert isinstance(organization, BackupOrganization)
        assert organization == await session.fetch_organization()
        assert len(backup.requests) == sent + 2
        again = await session.links["self"].fetch()
        assert isinstance(again, RestoreSession)
        assert again == await session.refresh() == await client.fetch_restore_session(session.id)


@pytest.mark.parametrize(
    ("status", "kind"), [(404, NotFoundError), (403, ForbiddenError), (500, ServerFaultError)]
)
async def test_a_link_that_fails_does_so_when_it_is_awaited(status: int, kind: type[ServerError]) -> None:
    """As where the organization was removed; the listing is as ever, and so is the next try."""
    async with BackupServer() as backup, Client(server_of(backup), retries=0) as client:
        backup.fail(Fault.status(status), when=lambda request: "rganization" in request.path)
        answer = await client.restore_sessions().answer()
        assert answer.complete
        with pytest.raises(kind):
            await answer.items[0].fetch_organization()
        assert (await answer.items[0].fetch_organization()).name


@pytest.mark.parametrize("end", ["expire_tokens", "revoke_tokens"])
async def test_a_token_that_ends_between_two_pages_costs_no_row(end: str) -> None:
    """The same page is asked for again: nothing is missing, nothing comes twice."""
    async with BackupServer(World(sessions=40, speed=0)) as backup, Client(server_of(backup)) as client:
        found: list[RestoreSession] = []
        async for page in client.restore_sessions(page_size=10).pages():
            found += page
            getattr(backup, end)()
        assert [one.id for one in found] == [one.id for one in await client.restore_sessions()]
        assert len(set(found)) == 40
        assert backup.logins > 1


async def test_paths_and_queries_are_sent_byte_for_byte() -> None:
    """Nothing is decoded, encoded or put in order on the way."""
    target = "/v8/a%20b+c/%7e/ABC?x=%3A:&y=a+b%2B&&x=;'"
    async with RawServer(vbo_routes(version="v8")) as raw:
        server = Server(raw.url, Bearer("access-1"), allow_http=True, api_version="v8")
        async with Client(server) as client:
            with pytest.raises(NotFoundError):
                await client.fetch(target)
        assert raw.requests[-1].target == target


async def test_links_work_behind_a_reverse_proxy_with_a_prefix() -> None:
    """The server does not know of the prefix, so its links lack it."""
    async with BackupServer(path_prefix="/vbo1") as backup, Client(server_of(backup)) as client:
        sessions = await client.restore_sessions(page_size=15)
        assert len(sessions) == 40
        assert (await sessions[0].fetch_organization()).name


async def test_a_thousand_waiting_for_one_organization_cost_one_request() -> None:
    """Those that ask for the same thing at once share its answer."""
    async with BackupServer() as backup, Client(server_of(backup)) as client:
        session = (await client.restore_sessions())[0]
        sent = len(backup.requests)
        found = await asyncio.gather(*(session.fetch_organization() for _ in range(1000)))
        assert len(backup.requests) == sent + 1
        assert len(set(map(id, found))) == 1


async def test_callers_with_different_time_left_share_a_request_and_each_ends_at_its_own_deadline() -> None:
    """A caller that is nearly out of time does not end the request of the other, and does not wait longer."""
    async with BackupServer() as backup, Fleet([server_of(backup)], deadline=0.5, retries=0) as fleet:
        client = fleet[next(iter(fleet))]
        one, other, *_ = await client.restore_sessions()
        backup.fail(Fault.delay(0.3), on="RestoreSessions/*", times=None)

        async def both(client: Client) -> None:
            await client.fetch_restore_session(other.id)
            await client.fetch_restore_session(one.id)

        async def in_a_hurry() -> ServerError | None:
            (answer,) = (await fleet.map(both)).answers.values()
            return answer.error

        hurry = asyncio.create_task(in_a_hurry())
        await asyncio.sleep(0.35)
        assert (await client.fetch_restore_session(one.id)).id == one.id
        assert isinstance(await hurry, ServerTimeoutError)


@pytest.mark.parametrize("opened", [True, False])
async def test_no_more_requests_at_once_than_connections(opened: bool) -> None:  # noqa: FBT001  # a parameter
    """Also where the first of them has to open the client, and all the others come meanwhile."""
    now, most = 0, 0

    async def slow(connection: Connection) -> None:
        nonlocal now, most
        now, most = now + 1, max(most, now + 1)
        await asyncio.sleep(0.01)
        now -= 1
        await connection.send(json_answer({"id": "x"}))

    async with RawServer({("GET", ANY): [slow]}) as raw:
        server = Server(raw.url, Bearer("token"), api_version="v7", allow_http=True)
        client = Client(server, connections=2)
        if opened:
            await client.__aenter__()
        await asyncio.gather(*(client.fetch(f"Things/{number}") for number in range(10)))
        await client.aclose()
    assert most == 2


async def test_any_other_resource_is_a_mapping_with_links() -> None:
    """What has no class of its own is still within reach."""
    async with BackupServer() as backup, Client(server_of(backup)) as client:
        instance = await client.fetch("ServiceInstance")
        assert isinstance(instance, Resource)
        assert instance["installationId"]
        page = await client.fetch("/v8/RestoreSessions?limit=1")
        assert isinstance(await page.links["self"].fetch(), Resource)
        copy = pickle.loads(pickle.dumps(page))
        assert copy == page
        assert copy.links == page.links


async def test_a_link_that_leads_out_of_the_api_is_a_link_error() -> None:
    """The listing is unharmed, and nothing is sent; only following the link fails."""
    links = [{"organization": {"href": "https://evil/other"}}, {"organization": {"href": "/v8/../token"}},
             {"self": {"href": "https://evil/other"}}]  # fmt: skip
    async with BackupServer(World(sessions=3)) as backup, Client(server_of(backup)) as client:
        sessions = await _sessions_with_links(backup, client, links)
        sent = len(backup.requests)
        for session in sessions:
            with pytest.raises(LinkError):
                await session.fetch_organization()
        assert len(backup.requests) == sent


async def test_where_a_session_has_no_usable_link_its_organization_is_at_the_documented_path() -> None:
    """Also where `_links` has only `self`, as in the vendor's examples of v8, or is malformed."""
    links = [None, [], {}, {"organization": None}, {"organization": {"href": 5}}, "only self"]
    async with BackupServer(World(sessions=6)) as backup, Client(server_of(backup)) as client:
        keys = [str(session.id) for session in await client.restore_sessions()]
        links[-1] = {"self": {"href": f"/v8/RestoreSessions/{keys[-1]}"}}
        sessions = await _sessions_with_links(backup, client, links)
        for session in sessions:
            assert (await session.fetch_organization()).name == session.organization
        paths = [r.path.casefold() for r in backup.requests if r.path.casefold().endswith("/organization")]
    assert paths == [f"/v8/restoresessions/{key}/organization".casefold() for key in keys]


async def test_an_organization_without_any_link_leads_on_from_where_it_was_fetched() -> None:
    """Its own members do not say whose backup it is, but its path does."""
    async with BackupServer(World(sessions=1)) as backup, Client(server_of(backup)) as client:
        (session,) = await client.restore_sessions()
        whole = await session.fetch_organization()
        backup.fail(Fault.edit(_without_links), on="*organization", times=1)
        bare = await session.fetch_organization()
        assert set(bare.links) == {"self"}
        assert await bare.mailboxes() == await whole.mailboxes()
        assert await bare.teams() == await whole.teams()


def _without_links(document: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in document.items() if name != "_links"}


async def _sessions_with_links(
    backup: BackupServer, client: Client, links: list[Any]
) -> list[RestoreSession]:
    def edit(answer: dict[str, list[dict[str, object]]]) -> dict[str, list[dict[str, object]]]:
        for session, odd in zip(answer["results"], links, strict=True):
            session["_links"] = odd
        return answer

    backup.fail(Fault.edit(edit), on="RestoreSessions", when=lambda request: request.token != "", times=1)
    return await client.restore_sessions()


async def test_a_copy_that_was_pickled_is_equal_and_detached() -> None:
    """It holds no client, and says so when a link is followed."""
    async with BackupServer() as backup, Client(server_of(backup)) as client:
        session = (await client.restore_sessions())[0]
        copy = pickle.loads(pickle.dumps(session))
        assert copy == session
        assert hash(copy) == hash(session)
        with pytest.raises(LinkError, match="lost its client"):
            await copy.fetch_organization()


async def test_links_are_equal_that_say_the_same() -> None:
    """Wherever they come from, and whether they still have their client."""
    async with BackupServer() as backup, Client(server_of(backup)) as client:
        one, other = (await client.restore_sessions())[:2]
        again = await client.fetch_restore_session(one.id)
    link = one.links["self"]
    same = [again.links["self"], pickle.loads(pickle.dumps(link))]
    different = [other.links["self"], one.links["organization"], Link("other", link.href, None, Resource)]
    assert all(link == twin and hash(link) == hash(twin) for twin in same)
    assert not any(link == odd for odd in (*different, link.href, (link.rel, link.href), None))
    assert len({link, *same, *different}) == 4


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault.status(403), ForbiddenError),
        (Fault.status(429, headers={"Retry-After": "9000"}), RateLimitedError),
        (Fault.status(500), ServerFaultError),
        (Fault.status(204), PayloadError),
        (Fault.empty(), PayloadError),
        (Fault.body(b"<html>login</html>", "text/html"), PayloadError),
        (Fault.body(b'{"results": null}'), PayloadError),
        (Fault.body(b"[1"), PayloadError),
        (Fault.redirect("https://evil.example/v8/RestoreSessions"), PayloadError),
        (Fault.drop(), PayloadError),
        (Fault.cut(after=20), PayloadError),
        (Fault.cut(after=20, reset=True), VboError),
    ],
    ids=str,
)
async def test_each_fault_has_its_error_which_says_what_to_do(fault: Fault, kind: type[VboError]) -> None:
    """Server, what was asked, what happened, how often: all of it is in the error; the next query is fine."""
    async with BackupServer() as backup, Client(server_of(backup, name="vbo-a"), retries=1) as client:
        await client.restore_sessions()
        backup.fail(fault, on="RestoreSessions", times=None)
        with pytest.raises(kind) as caught:
            await client.restore_sessions()
        text = str(caught.value)
        assert "vbo-a: GET /v8/RestoreSessions: " in text
        assert "tried" in text
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None
        assert str(pickle.loads(pickle.dumps(caught.value))) == text
        backup.heal()
        assert len(await client.restore_sessions()) == 40


@pytest.mark.parametrize("fault", [Fault.status(503), Fault.drop(), Fault.cut(after=20)], ids=str)
async def test_what_may_pass_is_tried_again(fault: Fault) -> None:
    """Two faults, two retries, and the answer shows how often it was sent."""
    async with BackupServer(World(sessions=5)) as backup, Client(server_of(backup)) as client:
        await client.restore_sessions()
        backup.fail(fault, on="RestoreSessions", times=2)
        answer = await client.restore_sessions().answer()
        assert answer.error is None
        assert answer.complete
        assert len(answer.items) == 5
        assert answer.attempts >= 2


async def test_without_retries_the_first_fault_is_the_last() -> None:
    """`retries=0` is a setting like any other."""
    async with BackupServer() as backup, Client(server_of(backup), retries=0) as client:
        await client.restore_sessions()
        before = asked(backup)
        backup.fail(Fault.status(503), on="RestoreSessions", times=None)
        with pytest.raises(ServerFaultError, match="tried once"):
            await client.restore_sessions()
        assert asked(backup) == before + 1


@pytest.mark.parametrize("fault", [Fault.stall(), Fault.stall(after=30), Fault.trickle(0.05)], ids=str)
async def test_the_deadline_ends_what_never_ends(fault: Fault) -> None:
    """Also an answer that trickles in, each byte in time."""
    async with BackupServer() as backup, Client(server_of(backup)) as client:
        await client.restore_sessions()
        backup.fail(fault, on="RestoreSessions", times=None)
        started = asyncio.get_running_loop().time()
        with pytest.raises(ServerTimeoutError, match=r"deadline of 0\.5 s") as caught:
            await client.with_options(deadline=0.5).restore_sessions()
        # Not the 30 s of the read timeout.
        assert asyncio.get_running_loop().time() - started < 15
        assert caught.value.phase in ("read", "body")


async def test_silence_is_given_up_after_the_read_timeout() -> None:
    """Before the deadline, and with the phase it happened in."""
    async with (
        BackupServer() as backup,
        Client(server_of(backup), read_timeout=0.2, retries=0) as client,
    ):
        await client.restore_sessions()
        backup.fail(Fault.stall(after=30), on="RestoreSessions")
        with pytest.raises(ServerTimeoutError, match=r"nothing came for 0\.2 s") as caught:
            await client.restore_sessions()
        assert caught.value.phase == "body"


async def test_an_answer_that_is_too_large_is_not_read() -> None:
    """The cap counts bytes after decompression."""
    async with BackupServer() as backup, Client(server_of(backup), max_body=1000) as client:
        with pytest.raises(PayloadError, match=r"larger than 1,000 bytes.*page_size"):
            await client.restore_sessions()


async def test_strict_makes_a_senseless_item_an_error() -> None:
    """By default it is rejected and the answer is not complete."""

    def edit(answer: dict[str, list[dict[str, object]]]) -> dict[str, list[dict[str, object]]]:
        del answer["results"][3]["id"]
        return answer

    async with BackupServer(World(sessions=9)) as backup:
        backup.fail(Fault.edit(edit), on="RestoreSessions", times=None, when=lambda r: r.token != "")
        async with Client(server_of(backup)) as client:
            answer = await client.restore_sessions().answer()
            assert len(answer.items) == 8
            assert [r.index for r in answer.rejected] == [3]
            assert not answer.complete
        async with Client(server_of(backup), strict=True) as client:
            with pytest.raises(PayloadError) as caught:
                await client.restore_sessions()
            assert caught.value.problems == ("item 3: missing @ $.id",)


async def test_a_dead_address_is_unreachable_and_says_what_to_check() -> None:
    """Connection refused, by a port without a server."""
    async with BackupServer() as backup:
        server = server_of(backup, tls=TLS(insecure=True))
    async with Client(server, retries=0) as client:
        with pytest.raises(UnreachableError, match=r"refused \(tried once.*service is running"):
            await client.restore_sessions()


async def test_a_refusal_of_fresh_tokens_is_an_authentication_error() -> None:
    """One new login and one resend, then an error; 401 to every request causes no loop."""
    async with BackupServer() as backup, Client(server_of(backup)) as client:
        backup.fail(Fault.status(401), on="RestoreSessions", times=None)
        with pytest.raises(AuthenticationError, match="just granted"):
            await client.restore_sessions()
        assert backup.logins == 2
        assert asked(backup) == 2
