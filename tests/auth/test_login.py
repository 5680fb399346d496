"""The life of a token: how often the SDK logs in, and what it sends."""

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import timedelta

import pytest
from harness.backups import asked, server_of
from harness.raw import (
    ANY,
    Connection,
    RawServer,
    Request,
    http,
    in_turn,
    json_answer,
    token_answer,
    vbo_routes,
)

from aiovbo import (
    AuthenticationError,
    Client,
    ClientEvent,
    Clock,
    ConfigError,
    Fleet,
    Integration,
    NotFoundError,
    Password,
    PayloadError,
    RateLimitedError,
    RequestFinished,
    Server,
    ServerError,
    ServerFaultError,
    SkippedError,
)
from aiovbo.testing import BackupFleet, BackupServer, Fault, World


class Hands:
    """The hands of a clock, moved by the test."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.clock = Clock(monotonic=lambda: self.seconds)


def raw_server(raw: RawServer, **changes: object) -> Server:
    """How the SDK reaches a raw server."""
    settings: dict[str, object] = {"credentials": Password("u", "p"), "api_version": "v4"}
    return Server(raw.url, allow_http=True, **(settings | changes))  # type: ignore[arg-type]  # as given


def logins(raw: RawServer) -> list[Request]:
    """The logins that a raw server received."""
    return raw.asked("POST", "/v4/token")


async def test_three_hundred_calls_at_once_cost_one_login() -> None:
    """Those that meet an expired token cost one refresh, a revoked one another login; none of them fails."""
    hands = Hands()
    async with (
        BackupServer(World(sessions=1, speed=0)) as backup,
        Client(server_of(backup), connections=8, clock=hands.clock) as client,
    ):
        await asyncio.gather(*(client.restore_sessions() for _ in range(300)))
        assert (backup.logins, backup.refreshes) == (1, 0)
        hands.seconds += 3600
        found = await asyncio.gather(*(client.restore_sessions() for _ in range(300)))
        assert all(len(sessions) == 1 for sessions in found)
        assert (backup.logins, backup.refreshes) == (1, 1)
        backup.revoke_tokens()
        found = await asyncio.gather(*(client.restore_sessions() for _ in range(300)))
        assert all(len(sessions) == 1 for sessions in found)
        assert (backup.logins, backup.refreshes) == (2, 1)


async def test_a_token_is_renewed_before_it_expires_by_the_monotonic_clock() -> None:
    """With the refresh token, which is rotated; the wall clock has no say."""
    hands = Hands()
    async with BackupServer() as backup, Client(server_of(backup), clock=hands.clock) as client:
        await client.restore_sessions()
        hands.seconds += 3000
        await client.restore_sessions()
        assert (backup.logins, backup.refreshes) == (1, 0)
        for renewed in (1, 2, 3):
            hands.seconds += 3590
            await client.restore_sessions()
            assert (backup.logins, backup.refreshes) == (1, renewed)


async def test_a_refused_refresh_token_falls_back_to_the_password_once() -> None:
    """As after a restart of the server."""
    hands = Hands()
    async with BackupServer() as backup, Client(server_of(backup), clock=hands.clock) as client:
        await client.restore_sessions()
        backup.revoke_tokens()
        hands.seconds += 4000
        assert len(await client.restore_sessions()) == 40
        assert backup.logins == 2


@pytest.mark.parametrize("retries", [0, 1])
async def test_a_refresh_whose_answer_is_lost_is_not_sent_again(retries: int) -> None:
    """The server has rotated the refresh token meanwhile; the password is what is left."""
    hands = Hands()
    async with (
        BackupServer() as backup,
        Client(server_of(backup), clock=hands.clock, retries=retries) as client,
    ):
        await client.restore_sessions()
        hands.seconds += 4000
        backup.fail(Fault.cut(after=20), on="token")
        if not retries:
            with pytest.raises(PayloadError):
                await client.restore_sessions()
        assert len(await client.restore_sessions()) == 40
        assert (backup.logins, backup.refreshes) == (2, 1)
        assert asked(backup, "token") == 3


@pytest.mark.parametrize("answer", ["401", "empty"])
async def test_a_token_refused_in_mid_life_costs_one_login_and_one_resend(answer: str) -> None:
    """Whether the server says 401 or answers with nothing at all."""
    async with (
        BackupServer(rejected_token_answer=answer) as backup,  # type: ignore[arg-type]  # parametrised
        Client(server_of(backup)) as client,
    ):
        await client.restore_sessions()
        backup.revoke_tokens()
        before = asked(backup)
        assert len(await client.restore_sessions()) == 40
        assert backup.logins == 2
        assert asked(backup) == before + 2


@pytest.mark.parametrize("version", ["v4", "v8"])
async def test_a_refused_password_is_tried_once_however_many_ask(version: str) -> None:
    """Fifty calls, one try; ten more within the cool-down, none; after it, one. Accounts lock."""
    hands = Hands()
    wrong = Password("TECH\\monitor", "wrong")
    async with BackupServer(version=version) as backup:  # type: ignore[arg-type]  # parametrised
        server = server_of(backup, credentials=wrong)
        async with Client(server, clock=hands.clock) as client:
            errors = await asyncio.gather(
                *(client.restore_sessions() for _ in range(50)), return_exceptions=True
            )
            assert {type(error) for error in errors} == {AuthenticationError}
            assert "not tried again for 300 s" in str(errors[0])
            assert "POST /" in str(errors[0])
            assert "tried once" in str(errors[0])
            hands.seconds += 299
            for _ in range(10):
                with pytest.raises(AuthenticationError) as refused:
                    await client.restore_sessions()
                assert (refused.value.attempts, "tried once" in str(refused.value)) == (0, False)
            assert backup.refused_logins == 1
            hands.seconds += 2
            with pytest.raises(AuthenticationError):
                await client.restore_sessions()
            assert backup.refused_logins == 2


@pytest.mark.parametrize(
    ("answer", "kind"),
    [(http(429), RateLimitedError), (http(500), ServerFaultError), (http(503), ServerFaultError)],
)
async def test_a_fault_of_the_token_endpoint_is_no_verdict_on_the_password(
    answer: bytes, kind: type[ServerError]
) -> None:
    """It is tried again like any other, and the next call is not held off."""
    async with RawServer(vbo_routes(token=in_turn(answer, token_answer()))) as raw:
        async with Client(raw_server(raw)) as client:
            assert await client.restore_sessions() == []
        assert len(logins(raw)) == 2
    async with RawServer(vbo_routes(token=answer)) as raw:
        async with Client(raw_server(raw), retries=0) as client:
            for _ in range(2):
                with pytest.raises(kind, match="POST /v4/token"):
                    await client.restore_sessions()
        assert len(logins(raw)) == 2


async def test_a_late_401_for_an_old_token_does_not_drop_the_new_one() -> None:
    """Its answer belongs to a token that is gone already: it is asked again with the new one."""
    late = asyncio.Event()

    async def refuse_the_first_token(connection: Connection) -> None:
        asked = connection.requests[-1]
        if asked.headers["Authorization"] == "Bearer new":
            return await connection.send(json_answer([]))
        if len(raw.asked("GET", "*")) == 1:
            await late.wait()
        return await connection.send(http(401))

    tokens = in_turn(token_answer("old"), token_answer("new"), token_answer("needless"))
    routes = {("POST", "/v4/token"): tokens, ("GET", "/v4/RestoreSessions"): refuse_the_first_token}
    async with RawServer(routes) as raw, Client(raw_server(raw)) as client:
        slow = asyncio.create_task(client.restore_sessions().answer())
        await raw.until(lambda: len(raw.asked("GET", "*")) == 1)
        assert await client.restore_sessions() == []
        late.set()
        assert (await slow).error is None
        assert await client.restore_sessions() == []
        assert len(logins(raw)) == 2


async def test_a_cancelled_waiter_does_not_affect_the_others() -> None:
    """Also when it was the first, for whom the login was begun."""
    async with BackupServer() as backup, Client(server_of(backup)) as client:
        backup.fail(Fault.delay(0.2), on="token")
        waiting = [asyncio.ensure_future(client.restore_sessions().answer()) for _ in range(5)]
        while not asked(backup, "token"):
            await asyncio.sleep(0.01)
        waiting[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting[0]
        answers = await asyncio.gather(*waiting[1:])
        assert all(answer.error is None for answer in answers)
        assert backup.logins == 1


async def test_when_the_last_waiter_is_cancelled_the_login_ends_too() -> None:
    """Nothing goes on without a caller."""
    async with BackupServer() as backup, Client(server_of(backup)) as client:
        backup.fail(Fault.stall(), on="token", times=None)
        waiting = asyncio.ensure_future(client.restore_sessions().answer())
        while not asked(backup, "token"):
            await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not [t for t in asyncio.all_tasks() if t.get_name().startswith("aiovbo")]
        backup.heal()
        assert len(await client.restore_sessions()) == 40


async def test_the_login_is_sent_again_where_the_kept_connection_is_dead() -> None:
    """Once, silently: aiohttp resends a GET there, and not a POST."""

    async def hang_up_at_the_login(connection: object) -> None:
        while (request := await connection.read_request()) is not None:  # type: ignore[attr-defined]  # a Connection
            probed, logins = raw.asked("GET", "/v8/*"), raw.asked("POST", "/v8/token")
            if request.method == "POST" and probed and len(logins) == 1:
                await connection.fin()  # type: ignore[attr-defined]
                return
            if request.method == "POST":
                await connection.send(token_answer())  # type: ignore[attr-defined]
            elif "ServiceInstance" in request.target:
                await connection.send(http(401))  # type: ignore[attr-defined]
            else:
                await connection.send(json_answer([]))  # type: ignore[attr-defined]

    async with RawServer(hang_up_at_the_login) as raw:
        async with Client(raw_server(raw, api_version="auto"), retries=0) as client:
            assert await client.restore_sessions() == []
        assert len(raw.asked("POST", "/v8/token")) == 2


async def test_a_server_for_operators_only_says_what_to_check() -> None:
    """It refuses every password, so the account is not to blame alone."""
    async with BackupServer(version="v8", operators_only=True) as backup, Client(server_of(backup)) as client:
        with pytest.raises(AuthenticationError, match="may accept restore operators only"):
            await client.restore_sessions()


@pytest.mark.parametrize("versions", [("v6",), ("v6", "v7"), ("v6", "v7", "v8")])
async def test_an_integration_token_logs_in_by_the_newest_version_that_takes_it(
    versions: tuple[str, ...],
) -> None:
    """As text or from a provider: v7, or v6; also on a server that offers v8."""

    async def provide() -> str:
        return "an-integration-token"

    async with BackupServer(
        version=versions[-1],  # type: ignore[arg-type]  # parametrised
        versions=versions,  # type: ignore[arg-type]  # parametrised
        integration_token="an-integration-token",
    ) as backup:
        for token in ("an-integration-token", provide):
            async with Client(server_of(backup, credentials=Integration(token))) as client:
                assert len(await client.restore_sessions()) == 40
                assert client.api_version == ("v7" if "v7" in versions else "v6")
        (login, _) = [one for one in backup.requests if one.resource == "token"]
        assert login.grant_type == "integration"
        assert set(login.form) >= {"grant_type", "integration_token"}


async def test_an_integration_token_is_rejected_for_versions_that_do_not_take_it() -> None:
    """At once where the version is given, and by the server's versions otherwise; it is not sent."""
    with pytest.raises(ConfigError, match="API v6 and v7 only, not v8"):
        Server("vbo1", Integration("x"), api_version="v8")
    async with BackupServer(version="v5") as backup:
        async with Client(server_of(backup, credentials=Integration("x"))) as client:
            with pytest.raises(NotFoundError, match="v6 to v7, to which an integration token can log in"):
                await client.restore_sessions()
        assert not asked(backup, "token")


async def test_a_wrong_integration_token_is_rejected_and_not_shown() -> None:
    """The error says what to check, and counts towards no lock-out of an account."""
    async with BackupServer(version="v7", integration_token="right") as backup:
        wrong = Integration("a-wrong-one")
        async with Client(server_of(backup, credentials=wrong)) as client:
            with pytest.raises(AuthenticationError, match="Check that the integration token") as caught:
                await client.restore_sessions()
    assert "a-wrong-one" not in f"{caught.value!s}{caught.value.__dict__}{wrong!r}"


async def test_a_rejected_password_that_ends_with_a_line_break_is_reported_as_such() -> None:
    """The hint names the likely cause."""
    async with BackupServer() as backup:
        given = Password(backup.username, backup.password + "\n")
        async with Client(server_of(backup, credentials=given)) as client:
            with pytest.raises(AuthenticationError, match="ends with a line break"):
                await client.restore_sessions()


async def test_a_hanging_login_is_bounded_by_the_deadline_and_says_what_hung() -> None:
    """All that wait fail once, with the phase that the login was in."""
    async with BackupServer() as backup, Client(server_of(backup), deadline=0.4) as client:
        backup.fail(Fault.stall(), on="token", times=None)
        answers = await asyncio.gather(*(client.restore_sessions().answer() for _ in range(5)))
        for answer in answers:
            assert answer.error is not None
            assert answer.error.phase == "read"
            # Not the 30 s of the read timeout.
            assert answer.elapsed < 10


async def test_one_wrong_password_is_refused_three_times_by_a_fleet_and_not_two_hundred() -> None:
    """The others are skipped, and say why; after the cool-down they are tried anew."""
    hands = Hands()
    async with BackupFleet(200, sessions=1) as backups:
        servers = [server_of(b, credentials=Password("TECH\\monitor", "wrong")) for b in backups]
        async with Fleet(servers, retries=0, clock=hands.clock) as fleet:
            for refused in (3, 3, 6):
                result = await fleet.restore_sessions()
                assert sum(backup.refused_logins for backup in backups) == refused
                kinds = Counter(type(answer.error) for answer in result.failed)
                assert kinds == {AuthenticationError: 3, SkippedError: 197}
                skipped = [str(a.error) for a in result.failed if isinstance(a.error, SkippedError)]
                said = "3 servers rejected the same credentials, and none accepted them; last response: "
                assert sum(said in text and "Incorrect user name" in text for text in skipped) >= 194
                hands.seconds += 200


@pytest.mark.parametrize("slowness", [lambda n: 0.02 * (n % 4), lambda _: 1.5], ids=["uneven", "slow"])
async def test_however_long_the_refusals_take_no_more_servers_are_asked(
    slowness: Callable[[int], float],
) -> None:
    """A server that has not answered yet counts like one that rejected: a domain controller may be slow."""
    async with BackupFleet(20, sessions=1) as backups:
        for number, backup in enumerate(backups):
            backup.fail(Fault.delay(slowness(number)), on="token", times=None)
        servers = [server_of(b, credentials=Password("TECH\\monitor", "wrong")) for b in backups]
        async with Fleet(servers, retries=0) as fleet:
            result = await fleet.restore_sessions()
        assert len(result.failed) == 20
        assert sum(backup.refused_logins for backup in backups) == 3


async def test_a_fleet_starts_with_as_many_logins_as_may_fail() -> None:
    """The other 97 wait until the password is proven, and need a login each then; no more are sent."""
    proven = 0

    async def log_in(connection: Connection) -> None:
        nonlocal proven
        if not proven:
            await asyncio.sleep(0.05)
            proven = proven or len(raw.asked("POST", ANY))
        await connection.send(token_answer())

    # One URL each: servers at one URL must have different credentials.
    async with RawServer({("POST", ANY): log_in, ("GET", ANY): json_answer([])}) as raw:
        login = Password("u", "p")
        servers = [
            Server(f"{raw.url}/s{number}", login, name=f"vbo{number}", allow_http=True, api_version="v4")
            for number in range(100)
        ]
        async with Fleet(servers, connections=1) as fleet:
            assert not (await fleet.restore_sessions()).failed
        assert proven == 3
        assert len(raw.asked("POST", ANY)) == 100


async def test_a_right_password_is_not_delayed_by_the_guard() -> None:
    """Once one server has accepted it, all others are logged in to; some that refuse it change nothing."""
    common, refusing = BackupServer().password, (3, 4, 5, 6)
    async with BackupFleet(
        [
            BackupServer(World(n, sessions=1), password="another" if n in refusing else common)
            for n in range(30)
        ]
    ) as backups:
        servers = [server_of(backup, credentials=Password("TECH\\monitor", common)) for backup in backups]
        async with Fleet(servers, retries=0) as fleet:
            result = await fleet.restore_sessions(started_after=timedelta(days=400))
            assert {type(answer.error) for answer in result.failed} == {AuthenticationError}
            assert len(result.failed) == 4
            assert len(result.items) == 26


async def test_servers_that_do_not_answer_keep_no_other_from_being_logged_on_to() -> None:
    """Ten silent ones stand first in line, while the password is still to be proven."""
    async with BackupFleet(30, sessions=1, versions=("v4",)) as backups:
        for backup in list(backups)[:10]:
            backup.fail(Fault.stall(), times=None)
        servers = [server_of(backup, api_version="v4") for backup in backups]
        async with Fleet(servers, retries=0, deadline=40) as fleet:
            answers = fleet.restore_sessions(started_after=timedelta(days=400)).answers()
            first = [await anext(answers) for _ in range(20)]
            await answers.aclose()
        assert all(answer.error is None for answer in first)


async def test_a_password_that_changed_meanwhile_counts_as_accepted() -> None:
    """Calls that were given the old one get the new one at once, and every call gets a token."""
    given = 0

    async def provide() -> str:
        nonlocal given
        given += 1
        return "the old one" if given <= 3 else backups[0].password

    async with BackupFleet(8, sessions=1) as backups:
        login = Password(backups[0].username, provide)
        async with Fleet([server_of(one, credentials=login) for one in backups], lockout_guard=3) as fleet:
            assert not (await fleet.restore_sessions()).failed
    assert sum(backup.refused_logins for backup in backups) == 3


async def test_a_password_that_was_changed_is_not_tried_everywhere_because_it_was_right() -> None:
    """All servers drop their tokens and refuse the password that all had accepted; none of them is locked."""
    async with (
        BackupFleet(30, sessions=1, versions=("v4",)) as backups,
        Fleet([server_of(one, api_version="v4") for one in backups]) as fleet,
    ):
        assert not (await fleet.restore_sessions()).failed
        for backup in backups:
            backup.password = "another"
            backup.revoke_tokens()
        assert len((await fleet.restore_sessions()).failed) == 30
        assert sum(backup.refused_logins for backup in backups) == 3


async def test_servers_that_lose_their_tokens_are_logged_on_to_again() -> None:
    """As where all of them were restarted; the first one that accepts the password speaks for the others."""
    async with BackupFleet(30, sessions=1, versions=("v4",)) as backups:
        async with Fleet([server_of(one, api_version="v4") for one in backups]) as fleet:
            await fleet.restore_sessions()
            for backup in backups:
                backup.revoke_tokens()
            assert not (await fleet.restore_sessions()).failed
        assert [backup.logins for backup in backups] == [2] * 30


async def test_another_password_is_not_on_trial_for_the_one_before() -> None:
    """A provider gives a wrong one first, and the guard trips; as soon as it gives another, that is tried."""
    given = "wrong"

    async def provide() -> str:
        return given

    async with BackupFleet(10, sessions=1, versions=("v4",)) as backups:
        login = Password(backups[0].username, provide)
        servers = [server_of(one, credentials=login, api_version="v4") for one in backups]
        async with Fleet(servers) as fleet:
            failed = (await fleet.restore_sessions()).failed
            kinds = Counter(type(answer.error) for answer in failed)
            assert kinds == {AuthenticationError: 3, SkippedError: 7}
            skipped = next(str(answer.error) for answer in failed if isinstance(answer.error, SkippedError))
            assert "other credentials, from a provider, at once" in skipped
            given = backups[0].password
            assert not (await fleet.restore_sessions()).failed
        # Each sent a listing, and a probe at most, which is good for the second login too.
        assert all(asked(backup) in (1, 2) for backup in backups)


async def test_servers_that_come_and_go_are_not_counted_twice() -> None:
    """Three that share a password are as many as may try it at once: no server needs to be probed."""
    async with BackupFleet(3, sessions=1, versions=("v8",)) as backups:
        servers = [server_of(backup, api_version="v8") for backup in backups]
        async with Fleet(servers) as fleet:
            for _ in range(3):
                fleet.remove(next(iter(fleet)))
                fleet.add(next(one for one in servers if one.name not in fleet))
            assert not (await fleet.restore_sessions()).failed
        assert not any(asked(backup, "ServiceInstance") for backup in backups)


async def test_a_probe_without_a_response_is_reported_as_such() -> None:
    """The request that was sent is named and counted, not the login that was not."""
    signals: list[ClientEvent] = []
    async with BackupFleet(5, sessions=1, versions=("v8",)) as backups:
        servers = [server_of(backup, api_version="v8") for backup in backups]
        backups[0].fail(Fault.cut(5), times=None)
        async with Fleet(servers, retries=0, observer=signals.append) as fleet:
            (failed,) = (await fleet.restore_sessions()).failed
            assert failed.error is not None
            assert failed.error.operation == "GET /v8/ServiceInstance"
            assert fleet[failed.server].status().requests == 1
        sent = [one for one in signals if isinstance(one, RequestFinished) and one.server == failed.server]
        assert [one.operation for one in sent] == ["GET ServiceInstance"]


@pytest.mark.parametrize("expires_in", [0, -5, "x", None, 10**400])
async def test_a_senseless_lifetime_is_no_login_per_request(expires_in: object) -> None:
    """A token is used for five seconds at least."""
    async with RawServer(vbo_routes(token=token_answer(expires_in=expires_in))) as raw:
        async with Client(raw_server(raw)) as client:
            for _ in range(10):
                await client.restore_sessions()
        assert len(logins(raw)) == 1


async def test_nothing_kept_from_one_server_is_sent_to_another() -> None:
    """Neither its token nor its cookies, although both have the same host name."""
    cookie = [("Set-Cookie", "session=abc; Path=/")]
    answer = json_answer([], headers=cookie)
    async with (
        RawServer(vbo_routes(sessions=answer, access_token="token-a")) as one,
        RawServer(vbo_routes(access_token="token-b")) as other,
        Client(raw_server(one)) as a,
    ):
        for _ in range(2):
            await a.restore_sessions()
        async with Client(raw_server(other)) as b:
            await b.restore_sessions()
        assert not [r for r in (*one.requests, *other.requests) if "Cookie" in r.headers]
        assert {r.headers.get("Authorization") for r in one.requests} == {None, "Bearer token-a"}
        assert {r.headers.get("Authorization") for r in other.requests} == {None, "Bearer token-b"}
