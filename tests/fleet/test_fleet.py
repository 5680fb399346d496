"""Many servers at once: the merge rules, isolation, and that nothing is left behind."""

import asyncio
import gc
import itertools
import pickle
import socket
from collections import Counter
from contextvars import ContextVar
from datetime import timedelta
from itertools import zip_longest
from typing import Any

import pytest
from harness import closed_port
from harness.backups import asked, server_of, view_of
from harness.documents import session
from harness.raw import Connection, RawServer, json_answer, stall, vbo_routes

from aiovbo import (
    TLS,
    Answer,
    AuthenticationError,
    Bearer,
    Client,
    ClientEvent,
    ClosedError,
    ConfigError,
    Fleet,
    FleetError,
    Password,
    PayloadError,
    RestoreSession,
    Server,
    ServerError,
    ServerStateChanged,
    ServerTimeoutError,
    TlsError,
    UnreachableError,
)
from aiovbo.testing import BackupFleet, BackupServer, Fault, MemoryTransport, SimClock, World

ALL = timedelta(days=400)
LOGIN = Password("portal", "secret")


def servers_of(backups: BackupFleet) -> list[Server]:
    """How the SDK reaches all of them."""
    return [server_of(backup) for backup in backups]


def refusing_port() -> int:
    """A port without a server."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


async def test_all_servers_are_asked_for_the_same_span_of_time_at_each_use_another() -> None:
    """An "ago" counts back from when the query is used, also for a server that has to wait for its turn."""
    async with BackupFleet(3, sessions=1) as backups, Fleet(servers_of(backups), concurrency=1) as fleet:
        query = fleet.restore_sessions(started_after=timedelta(days=400))
        for _ in range(2):
            await query
        spans = [
            [request.query for request in backup.requests if request.query.startswith("startTimeFrom=")]
            for backup in backups
        ]
        first, second = zip(*spans, strict=True)
        assert len(set(first)) == len(set(second)) == 1
        assert first < second


async def test_servers_are_queried_in_the_context_of_the_caller() -> None:
    """What the application notes for itself is there, also where the turn came from another query's end."""
    whose: ContextVar[str] = ContextVar("whose")
    async with Fleet([f"https://vbo{n}.example" for n in range(9)], LOGIN, concurrency=1) as fleet:

        async def note(client: Client) -> tuple[str, str]:
            await asyncio.sleep(0)
            return client.name, whose.get()

        async def ask(name: str) -> None:
            whose.set(name)
            assert (await fleet.map(note)).items == tuple((server, name) for server in fleet)

        await asyncio.gather(*map(ask, ("portal", "audit", "monitoring")))


@pytest.mark.parametrize("eager", [False, True])
async def test_a_question_may_ask_the_fleet_itself(eager: bool) -> None:  # noqa: FBT001  # a parameter
    """A task that holds the only turn and waits for another one gets it, as where it takes long."""
    factory = getattr(asyncio, "eager_task_factory", None) if eager else None
    if eager and factory is None:
        pytest.skip("needs Python 3.12")
    async with BackupFleet(3, sessions=2) as backups, Fleet(servers_of(backups), concurrency=1) as fleet:

        async def total(_: Client) -> int:
            return len((await fleet.restore_sessions()).items)

        asyncio.get_running_loop().set_task_factory(factory)
        try:
            async with asyncio.timeout(20):
                assert (await fleet.map(total)).items == (6, 6, 6)
        finally:
            asyncio.get_running_loop().set_task_factory(None)


@pytest.mark.parametrize("how", ["left", "left, then something else", "closed", "cancelled, then closed"])
async def test_cancelled_work_is_notified_once_and_may_clean_up(how: str) -> None:
    """However a query ends, its questions' own clean-up runs to its end, and is waited for."""
    cleaned: list[str] = []

    async def ask(client: Client) -> int:
        if client.name == "a":
            return 1
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.03)
            cleaned.append(client.name)
        return 2

    async with Fleet([Server(name, LOGIN, name=name) for name in ("a", "b", "c")]) as fleet:
        if how.startswith("left"):
            async with fleet.map(ask) as query:
                async for _ in query:
                    break
                if how != "left":
                    await asyncio.sleep(0.01)
        else:

            async def consume() -> None:
                async for _ in fleet.map(ask):
                    await asyncio.sleep(60 if how == "closed" else 0)

            consumer = asyncio.create_task(consume())
            await asyncio.sleep(0.01)
            if how != "closed":
                consumer.cancel()
                await asyncio.sleep(0)
            await fleet.aclose()
            consumer.cancel()
        assert sorted(cleaned) == ["b", "c"]
    if not how.startswith("left"):
        await asyncio.wait([consumer])


async def test_a_consumer_that_is_cancelled_twice_leaves_nothing_to_complain_about() -> None:
    """Neither a bug that it had not heard of, nor a question that takes a moment to let go."""
    complaints: list[dict[str, object]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context))

    async def ask(client: Client) -> int:
        if client.name == "a":
            raise KeyError(client.name)
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.02)
        return 2

    async def consume() -> None:
        await fleet.map(ask)

    async with Fleet([Server(name, LOGIN, name=name) for name in ("a", "b")]) as fleet:
        for turns in range(8):
            consumer = asyncio.create_task(consume())
            for _ in range(turns):
                await asyncio.sleep(0)
            consumer.cancel()
            await asyncio.sleep(0.005)
            consumer.cancel()
            await asyncio.wait([consumer])
            assert consumer.cancelled()
            del consumer
            await asyncio.sleep(0.03)
    gc.collect()
    assert complaints == []


def test_a_program_that_ends_starts_no_further_server() -> None:
    """Servers that waited for their turn are not asked while the event loop shuts down."""
    asked_for: list[str] = []

    async def ask(client: Client) -> str:
        asked_for.append(client.name)
        await asyncio.sleep(0 if client.name == "a" else 60)
        return client.name

    async def program() -> None:
        fleet = Fleet([Server(name, LOGIN, name=name) for name in "abcdef"], concurrency=1)
        held = aiter(fleet.map(ask))
        asked_for.append(await anext(held))
        while asked_for[-1] != "b":
            await asyncio.sleep(0)
        message = "the program fails"
        raise RuntimeError(message)

    with pytest.raises(RuntimeError, match="the program fails"):
        asyncio.run(program())
    assert asked_for == ["a", "a", "b"]


async def test_a_query_made_before_the_fleet_closed_sends_no_request_afterwards() -> None:
    """Nor while it closes: what would begin then would be left behind."""
    fleet = Fleet(["vbo1"], LOGIN)
    query = fleet.map(lambda client: asyncio.sleep(0, client.name))
    await fleet.aclose()
    with pytest.raises(ClosedError):
        await query


async def test_an_answer_has_the_name_of_the_server_even_if_another_was_queried() -> None:
    """A mapped function may pass the question on, also to a client of another fleet."""
    async with BackupServer() as backup, Client(server_of(backup)) as other:
        async with Fleet(["vbo1", "vbo2"], LOGIN) as fleet:
            result = await fleet.map(lambda _: other.restore_sessions())
        assert list(result.answers) == ["vbo1", "vbo2"]
        assert [answer.server for answer in result.answers.values()] == ["vbo1", "vbo2"]
        assert len(result.items) == 80


async def test_two_hundred_servers_three_of_them_dead() -> None:
    """Every healthy server's sessions come, then an error that names the three; awaiting never raises."""
    async with BackupFleet(200, sessions=3) as backups:
        servers = servers_of(backups)
        servers[17] = Server(f"https://127.0.0.1:{refusing_port()}", servers[17].credentials)
        backups[60].fail(Fault.stall(), times=None)
        servers[120] = server_of(backups[120], credentials=Password("TECH\\monitor", "wrong"))
        healthy = {s.name for n, s in enumerate(servers) if n not in (17, 60, 120)}
        async with Fleet(servers, read_timeout=5, retries=0) as fleet:
            found: list[RestoreSession] = []
            with pytest.raises(FleetError) as caught:
                async for session in fleet.restore_sessions(started_after=ALL):
                    found.append(session)  # noqa: PERF401  # the point
            assert {s.server for s in found} == healthy
            assert len(found) == 197 * 3
            kinds = {error.server: type(error) for error in caught.value.exceptions}
            assert kinds == {
                servers[17].name: UnreachableError,
                servers[60].name: ServerTimeoutError,
                servers[120].name: AuthenticationError,
            }
            # Another failure of the same server, which takes no time.
            backups[60].heal()
            backups[60].fail(Fault.status(503), times=None)
            result = await fleet.restore_sessions(started_after=ALL)
            assert len(result.failed) == 3
            assert list(result.answers) == [s.name for s in servers]
            assert set(result.items) == set(found)
            with pytest.raises(FleetError, match="3 of 200"):
                result.raise_for_failures()
        assert backups[120].refused_logins == 1


async def test_items_come_before_the_slowest_server_has_answered() -> None:
    """A slow server delays no items of the others."""
    async with BackupFleet(3, sessions=2) as backups:
        backups[0].fail(Fault.stall(), on="RestoreSessions", times=None)
        async with Fleet(servers_of(backups)) as fleet:
            stream = aiter(fleet.restore_sessions(started_after=ALL))
            first = [await asyncio.wait_for(anext(stream), 30) for _ in range(4)]
            assert len({s.server for s in first}) == 2
            await stream.aclose()  # type: ignore[attr-defined]  # an async generator


async def test_healthy_servers_wait_for_none_of_the_dead() -> None:
    """30 of 100 answer nothing from the first moment, and ten are asked at a time: 70 answers come first."""
    async with BackupFleet(70, sessions=1) as backups, RawServer(stall()) as silent:
        dead = [
            Server(silent.url, Password(f"u{number}", "p"), allow_http=True, name=f"dead{number}")
            for number in range(30)
        ]
        servers = [one for pair in zip_longest(dead, servers_of(backups)) for one in pair if one is not None]
        async with Fleet(servers, concurrency=10, retries=0, deadline=30) as fleet:
            answers = fleet.restore_sessions(started_after=ALL).answers()
            for _ in range(70):
                answer = await anext(answers)
                assert answer.error is None
                assert len(answer.items) == 1
            await answers.aclose()


async def test_a_huge_server_keeps_no_small_one_waiting() -> None:
    """What the small ones have is given in between its 100,000 sessions, not after them."""
    huge, page_of = 100_000, 1000
    asked_for = itertools.count()

    async def page(connection: Connection) -> None:
        offset = next(asked_for) * page_of
        rows = [session(number, _links={}) for number in range(offset, offset + page_of)]
        more = {"_links": {"next": {"href": f"?offset={offset + page_of}"}}}
        await connection.send(json_answer({"results": rows, **(more if offset + page_of < huge else {})}))

    routes = {**vbo_routes(version="v8"), ("GET", "/v8/RestoreSessions"): page}
    async with RawServer(routes) as raw, BackupFleet(5, sessions=2) as backups:
        large = Server(raw.url, Password("u", "p"), allow_http=True, api_version="v8", name="huge")
        async with Fleet([large, *servers_of(backups)]) as fleet:
            small, before = Counter[str](), 0
            async with fleet.restore_sessions(started_after=ALL) as query:
                async for one in query:
                    if one.server == "huge":
                        before += 1
                    else:
                        small[one.server or ""] += 1
                        if small.total() == 10:
                            break
            assert before < huge / 2
            assert next(asked_for) < huge / page_of / 2


async def test_the_consumers_own_time_is_not_the_servers() -> None:
    """Who takes longer over all pages than the deadline allows for asking still gets all of them."""
    clock = SimClock()
    backup = BackupServer(World(clock=clock, sessions=20, speed=0), version="v8")
    login = Password(backup.username, backup.password)
    transport = MemoryTransport({"vbo1": backup})
    async with Fleet(["vbo1"], login, clock=clock, transport=transport, deadline=6) as fleet:
        count = 0
        async for _ in fleet.restore_sessions(page_size=5):
            count += 1
            if count % 5 == 0:
                await clock.sleep(4)
        assert count == 20


async def test_a_server_that_is_removed_is_finished_with_in_what_is_under_way() -> None:
    """And not asked by what is asked later."""
    async with BackupFleet(2, sessions=6) as backups, Fleet(servers_of(backups)) as fleet:
        gone, kept = fleet
        stream = aiter(fleet.restore_sessions(started_after=ALL, page_size=2))
        seen = [await anext(stream)]
        fleet.remove(gone)
        seen += [one async for one in stream]
        assert Counter(one.server for one in seen) == {gone: 6, kept: 6}
        assert {one.server for one in (await fleet.restore_sessions(started_after=ALL)).items} == {kept}


async def test_answers_come_one_per_server_and_never_raise() -> None:
    """Each as it finishes, the failed ones with their error."""
    async with BackupFleet(4, sessions=5) as backups:
        backups[1].fail(Fault.status(500), on="RestoreSessions", times=None)
        async with Fleet(servers_of(backups), retries=0) as fleet:
            answers = {a.server: a async for a in fleet.restore_sessions(started_after=ALL).answers()}
            assert set(answers) == set(fleet)
            bad = answers.pop(fleet[list(fleet)[1]].name)
            assert isinstance(bad.error, ServerError)
            assert not bad.complete
            for answer in answers.values():
                assert answer.error is None
                assert answer.complete
                assert len(answer.items) == 5
                assert answer.elapsed > 0
                assert answer.fetched_at.utcoffset() == timedelta(0)


async def test_a_server_that_fails_half_way_keeps_what_it_sent() -> None:
    """Its first page is there, its error too, and the answer is not complete."""
    world = World(sessions=30, speed=0)
    async with BackupServer(world) as backup, Fleet([server_of(backup)], retries=0) as fleet:
        backup.fail(Fault.status(500), on="RestoreSessions", when=lambda r: "offset=20" in r.query)
        result = await fleet.restore_sessions(page_size=10)
        (answer,) = result.failed
        assert len(answer.items) == len(result.items) == 20
        assert not answer.complete


async def test_who_left_before_the_opening_has_no_say_in_it(caplog: pytest.LogCaptureFixture) -> None:
    """Neither its certificate that is gone, nor its open door."""
    async with BackupServer() as backup:
        lost = view_of(backup, name="lost", tls=TLS(ca_file="/nowhere.pem"))
        careless = view_of(backup, name="careless", tls=TLS(insecure=True))
        fleet = Fleet([server_of(backup, name="vbo1"), lost, careless])
        fleet.remove("lost")
        fleet.remove("careless")
        async with fleet:
            assert len((await fleet.restore_sessions()).items) == 40
            assert "careless" not in caplog.text
            fleet.add(careless)
            assert "careless: its certificate is not checked" in caplog.text


async def test_a_share_takes_urls_as_its_fleet_does() -> None:
    """Credentials and trust that the fleet was given go with it."""
    async with BackupServer() as backup:
        login, tls = Password(backup.username, backup.password), TLS(ca_file=backup.ca_file)
        whole = Fleet([], login, tls=tls)
        async with whole.shard(0, 1) as share:
            share.add(backup.url)
            assert len((await share.restore_sessions()).items) == 40


async def test_a_link_that_leads_nowhere_is_the_failure_of_its_own_server() -> None:
    """Whatever a question makes of what one server sent, the others' answers are not lost with it."""

    async def organizations(client: Client) -> list[str | None]:
        return [(await one.fetch_organization()).name for one in await client.restore_sessions()]

    def without(document: dict[str, Any]) -> dict[str, Any]:
        for one in document["results"]:
            one["_links"]["organization"] = {"href": "/elsewhere"}
        return document

    async with BackupFleet(3, sessions=2, versions=("v8",)) as backups, Fleet(servers_of(backups)) as fleet:
        backups[0].fail(Fault.edit(without), on="RestoreSessions", times=None)
        result = await fleet.map(organizations)
        (failed,) = result.failed
        assert isinstance(failed.error, PayloadError)
        assert not failed.error.retryable
        assert failed.error.server == failed.server == server_of(backups[0]).name
        assert "/elsewhere" in str(failed.error)
        assert [len(answer.items[0]) for answer in result.answers.values() if not answer.error] == [2, 2]


async def test_a_task_that_outlives_a_question_has_all_its_time_again() -> None:
    """As one that an observer starts when a server goes down, or a worker that is started by a map."""
    async with BackupServer() as backup:
        rechecks: list[asyncio.Task[list[RestoreSession]]] = []

        async def recheck() -> list[RestoreSession]:
            await healed.wait()
            return await fleet[server_of(backup).name].restore_sessions()

        def observe(signal: ClientEvent) -> None:
            if isinstance(signal, ServerStateChanged) and not signal.up:
                rechecks.append(asyncio.create_task(recheck()))

        healed = asyncio.Event()
        async with Fleet([server_of(backup)], deadline=1, observer=observe) as fleet:
            backup.fail(Fault.stall(), times=None)
            assert len((await fleet.restore_sessions()).failed) == 1
            backup.heal()
            healed.set()
            assert [len(await one) for one in rechecks] == [40]


async def test_a_slow_consumer_is_not_buried() -> None:
    """A page per server waits at most, with one read ahead; the servers are not asked for more."""
    async with BackupFleet(4, sessions=40) as backups, Fleet(servers_of(backups)) as fleet:
        stream = aiter(fleet.restore_sessions(started_after=ALL, page_size=4))
        await anext(stream)
        await asyncio.sleep(0.3)
        assert all(asked(backup) <= 3 for backup in backups if backup.version != "v4")
        rest = [session async for session in stream]
        assert len(rest) == 159


async def test_a_fleets_client_is_not_closed_by_its_borrower() -> None:
    """Its block, or closing it, ends nothing: the HTTP session and the token are the fleet's."""
    async with BackupFleet(2, sessions=4) as backups, Fleet(servers_of(backups)) as fleet:
        async with fleet[next(iter(fleet))] as client:
            assert len(await client.restore_sessions()) == 4
        await client.aclose()
        assert len((await fleet.restore_sessions()).items) == 8
        assert [backup.logins for backup in backups] == [1, 1]
    with pytest.raises(ClosedError):
        await client.restore_sessions()


async def test_a_task_that_is_cancelled_from_outside_does_not_hang_the_consumer() -> None:
    """Not even before its first step."""
    async with BackupFleet(3, sessions=2) as backups, Fleet(servers_of(backups)) as fleet:
        waiting = asyncio.ensure_future(anext(aiter(fleet.restore_sessions())))
        await asyncio.sleep(0)
        for task in asyncio.all_tasks():
            if task.get_name().startswith("aiovbo 127"):
                task.cancel()
        with pytest.raises(ClosedError, match="from outside"):
            await asyncio.wait_for(waiting, 30)


async def test_no_request_goes_anywhere_but_to_the_configured_servers() -> None:
    """Two live servers: whatever links and redirects of one say, the other sees nothing."""
    async with BackupServer(World(sessions=3), name="evil") as evil, BackupServer(World(sessions=3)) as good:
        lure = {"href": f"{evil.url}/v8/RestoreSessions"}

        def edit(answer: dict[str, object]) -> dict[str, object]:
            answer["_links"] = {"next": {"href": f"{evil.url}/v8/RestoreSessions?offset=1"}}
            for session in answer["results"]:  # type: ignore[attr-defined]  # a page
                session["_links"] = {"organization": lure, "self": lure}
            return answer

        async with Fleet([server_of(good)], retries=0) as fleet:
            await fleet.restore_sessions()
            good.fail(Fault.edit(edit), on="RestoreSessions")
            found = await fleet.restore_sessions()
            for session in found.items:
                with pytest.raises(ServerError):
                    await session.fetch_organization()
            for status in (301, 302, 303, 307, 308):
                good.fail(Fault.redirect(f"{evil.url}/v8/RestoreSessions", status), on="*")
                assert (await fleet.restore_sessions()).failed
            good.fail(Fault.redirect(f"{evil.url}/v8/token", 307), on="token")
            good.revoke_tokens()
            assert (await fleet.restore_sessions()).failed
        assert evil.requests == []


async def test_one_name_twice_is_an_error() -> None:
    """Results are distinguished by name."""
    login = Password("u", "p")
    with pytest.raises(ConfigError, match="two servers are called 'vbo1'"):
        Fleet(["vbo1", Server("vbo2", login, name="vbo1")], login)
    assert list(Fleet(["vbo1", Server("vbo2", login, name="again")], login)) == ["vbo1", "again"]


async def test_a_url_needs_the_fleets_credentials() -> None:
    """Said before anything is sent."""
    with pytest.raises(ConfigError, match="credentials"):
        Fleet(["vbo1"])


async def test_trust_that_cannot_be_set_up_is_reported_by_server() -> None:
    """At the opening it stops everything, before anything is sent; of one that joins later it is its own."""
    async with BackupServer() as backup:
        broken = Server("vbo9", LOGIN, tls=TLS(ca_file="nowhere.pem"))
        with pytest.raises(ConfigError, match=r"^vbo9: TLS\(ca_file='nowhere.pem'\) cannot be used"):
            await Fleet([server_of(backup), broken]).restore_sessions()
        async with Fleet([server_of(backup)]) as fleet:
            await fleet.restore_sessions()
            fleet.add(broken)
            result = await fleet.restore_sessions()
        (failed,) = result.failed
        assert isinstance(failed.error, TlsError)
        assert "nowhere.pem" in str(failed.error)
        assert len(result.items) == 40


async def test_an_empty_fleet_answers_with_nothing() -> None:
    """No servers, no answers, no error."""
    async with Fleet([]) as fleet:
        assert [s async for s in fleet.restore_sessions()] == []
        assert (await fleet.restore_sessions()).items == ()


async def test_an_unknown_name_says_so() -> None:
    """As a mapping does."""
    with pytest.raises(KeyError, match="no server is called 'x'"):
        Fleet([])["x"]


async def test_servers_that_were_unreachable_are_queried_last_the_next_time() -> None:
    """Whatever their place in the fleet; the others keep their order."""
    begun: list[str] = []

    async def ask(client: Client) -> None:
        begun.append(client.name)

    with closed_port() as port:
        dead = [Server(f"127.0.0.1:{port}", Bearer(str(number)), name=f"dead{number}") for number in range(2)]
        async with BackupFleet(3, sessions=1) as backups:
            first, second, third = servers_of(backups)
            async with Fleet([dead[0], first, dead[1], second, third], retries=0, concurrency=1) as fleet:
                await fleet.map(ask)
                assert begun == list(fleet)
                await fleet.restore_sessions()
                begun.clear()
                await fleet.map(ask)
                assert begun == [first.name, second.name, third.name, "dead0", "dead1"]


async def test_one_policy_of_trust_is_one_context() -> None:
    """A context costs 30 ms and a megabyte; 300 servers share theirs."""
    servers = [Server(f"vbo{n}", Password("u", "p"), tls=TLS(insecure=n % 2 == 1)) for n in range(300)]
    async with Fleet(servers) as fleet:
        assert len(fleet._pool._session._contexts._shared) == 2  # nothing public shows it


def test_answers_hold_no_live_object() -> None:
    """An answer pickles with its items and its error, and comes back equal."""
    with BackupFleet(2, sessions=3).run_in_thread() as backups:

        async def ask() -> dict[str, Answer[RestoreSession]]:
            backups[0].fail(Fault.status(500), on="RestoreSessions", times=None)
            async with Fleet(servers_of(backups), retries=0) as fleet:
                return dict((await fleet.restore_sessions()).answers)

        answers = asyncio.run(ask())
        copies = pickle.loads(pickle.dumps(answers))
        for name, answer in answers.items():
            assert copies[name].items == answer.items
            assert str(copies[name].error) == str(answer.error)
