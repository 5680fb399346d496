"""The lock-out guard: how often a secret is sent, and that healthy servers do not wait for it."""

import asyncio
import gc
import types
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack

import aiohttp
import pytest
from harness import VirtualClock
from harness.backups import server_of
from harness.raw import (
    ANY,
    Connection,
    RawServer,
    Script,
    http,
    in_turn,
    json_answer,
    rst,
    token_answer,
    vbo_routes,
)

from aiovbo import (
    AuthenticationError,
    Client,
    ClientEvent,
    Clock,
    Fleet,
    Password,
    PayloadError,
    Server,
    ServerError,
    ServerStateChanged,
    ServerTimeoutError,
    SkippedError,
)
from aiovbo._auth.lockout_guard import LockoutGuard
from aiovbo._protocol.messages import Redacted
from aiovbo.testing import BackupFleet, BackupServer, Fault, MemoryTransport, SimClock, World

LOGIN = Password("TECH\\monitor", "correct horse")
PAGE = b"<html><head><title>Web Filter Violation</title></head><body>Denied</body></html>"
REJECTION = json_answer({"message": "Incorrect user name or password.", "errorCode": None}, 401)
BLOCK_PAGE = http(403, PAGE, content_type="text/html")
MINUTE, HOUR, DAY = 60, 3600, 86400


def clock_of(virtual: VirtualClock) -> Clock:
    """The SDK's clock that follows a virtual one."""
    return Clock(virtual.monotonic, virtual.now, virtual.sleep, virtual.random)


def servers_of(raw: RawServer, count: int) -> list[Server]:
    """So many servers behind one raw server, each with a path of its own."""
    return [
        Server(f"{raw.url}/s{n}", LOGIN, name=f"vbo{n}", allow_http=True, api_version="v8")
        for n in range(count)
    ]


def logins(raw: RawServer) -> int:
    """How often a raw server was sent a password."""
    return sum(b"password=" in request.body for request in raw.requests)


# ------------------------------------------------------------------- which responses are rejections

BODIES = {
    "empty": b"",
    "page": PAGE,
    "api": b'{"message": "Access is denied.", "errorCode": null}',
    "old api": b'{"Message": "Access is denied."}',
    "oauth": b'{"error": "invalid_grant", "error_description": "Access is denied."}',
    "other": b'{"status": "blocked", "message": "Access is denied.", "request": 7}',
    "array": b"[]",
    "text": b'"quota exceeded"',
}
OF_THE_API = ("api", "old api", "oauth")


@pytest.mark.parametrize("status", [200, 302, 400, 401, 403, 404, 413, 429, 500, 503])
async def test_a_password_is_not_sent_again_before_the_cooldown_whatever_the_response_is(status: int) -> None:
    """Only the API's own JSON with 400, 401 or 403 is a rejection. Faults that may pass allow five POSTs."""
    for name, body in BODIES.items():
        virtual, found = VirtualClock(), list[ServerError]()
        answer = http(status, body, content_type="text/html" if name == "page" else "application/json")
        async with RawServer({("*", ANY): answer}) as raw:
            (server,) = servers_of(raw, 1)
            async with Client(server, clock=clock_of(virtual)) as client:
                for minute in range(5):
                    virtual.advance(max(0, minute * MINUTE - virtual.monotonic()))
                    with pytest.raises(ServerError) as caught:
                        await client.restore_sessions()
                    found.append(caught.value)
                within = logins(raw)
                virtual.advance(6 * MINUTE)
                with pytest.raises(ServerError):
                    await client.restore_sessions()
        is_rejection = status in (400, 401, 403) and name in OF_THE_API
        kinds = {type(error) for error in found}
        assert len(kinds) == 1, (name, kinds)
        assert (kinds == {AuthenticationError}) is is_rejection, (name, kinds)
        assert within == (5 if status in (429, 500, 503) else 1), (name, within)
        assert logins(raw) > within, name
        assert found[-1].attempts == 0
        assert "not tried again for" in str(found[-1])


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (BLOCK_PAGE, "HTTP 403, but not from the API: a web page with the title 'Web Filter Violation'"),
        (http(401), "HTTP 401, but not from the API: an empty body"),
        (http(400, b'{"code": 7}'), "HTTP 400, but not from the API: JSON of another form"),
        (http(200, PAGE), "has no token, but a web page with the title 'Web Filter Violation'"),
        (http(200), "has no token, but an empty body"),
    ],
)
async def test_the_error_says_what_answered_a_login(answer: bytes, said: str) -> None:
    """A proxy or filter in front of the server is named as such, and the server counts as down."""
    seen: list[ClientEvent] = []
    async with RawServer({("*", ANY): answer}) as raw:
        (server,) = servers_of(raw, 1)
        async with Client(server, observer=seen.append) as client:
            with pytest.raises(ServerError) as caught:
                await client.restore_sessions()
            assert client.status().up is False
    assert said in str(caught.value)
    assert not isinstance(caught.value, AuthenticationError)
    assert [one.up for one in seen if isinstance(one, ServerStateChanged)] == [False]


@pytest.mark.parametrize("status", [200, 403])
async def test_a_page_that_repeats_the_password_in_its_title_does_not_reveal_it(status: int) -> None:
    """Escaped or not: the error shows the title without it."""
    secret = "hunter<2&more"
    page = b"<html><title>No hunter&lt;2&#38;more here</title>"
    async with RawServer({("*", ANY): http(status, page)}) as raw:
        server = Server(raw.url, Password("u", secret), allow_http=True, api_version="v8")
        async with Client(server) as client:
            with pytest.raises(ServerError) as caught:
                await client.restore_sessions()
    assert "No *** here" in str(caught.value)
    assert "hunter" not in repr(caught.value.__dict__)


# ---------------------------------------------------------------------------------- whole fleets


@pytest.mark.parametrize("answer", [BLOCK_PAGE, http(200, PAGE), http(401), http(404)])
async def test_servers_behind_a_filter_do_not_keep_a_healthy_server_from_being_tried(answer: bytes) -> None:
    """Three block pages come first, and all nine healthy servers deliver in the same poll."""
    async with (
        RawServer({("*", ANY): answer}) as raw,
        BackupFleet(9, sessions=1, versions=("v8",)) as backups,
    ):
        login = Password(backups.username, backups.password)
        servers = [
            Server(f"{raw.url}/{n}", login, allow_http=True, api_version="v8", name=f"waf{n}")
            for n in range(3)
        ]
        servers += [server_of(backup, credentials=login) for backup in backups]
        async with Fleet(servers) as fleet:
            for _ in range(2):
                result = await fleet.restore_sessions()
                assert {answer.server for answer in result.failed} == {"waf0", "waf1", "waf2"}
                assert not any(isinstance(a.error, AuthenticationError | SkippedError) for a in result.failed)
        assert logins(raw) == 3


async def test_a_login_page_is_not_an_acceptance() -> None:
    """One server answers logins with a page and status 200; of those that reject, three are tried."""

    async def log_in(connection: Connection) -> None:
        first = connection.requests[-1].target.startswith("/s0/")
        await connection.send(http(200, PAGE) if first else REJECTION)

    async with RawServer({("POST", ANY): log_in, ("GET", ANY): http(401)}) as raw:
        async with Fleet(servers_of(raw, 40), retries=0) as fleet:
            await fleet["vbo0"].restore_sessions().answer()
            kinds = Counter(type(answer.error) for answer in (await fleet.restore_sessions()).failed)
        assert kinds == {PayloadError: 1, AuthenticationError: 3, SkippedError: 36}
        assert logins(raw) == 1 + 3


async def test_servers_that_reject_block_the_others_for_one_cooldown_at_most() -> None:
    """Three that reject come first in every poll; after the cool-down three others are tried before them."""
    virtual = VirtualClock()
    async with BackupFleet(12, sessions=1, versions=("v8",)) as backups:
        login = Password(backups.username, backups.password)
        for backup in list(backups)[:3]:
            backup.password = "another"
        servers = [server_of(backup, credentials=login) for backup in backups]
        async with Fleet(servers, clock=clock_of(virtual)) as fleet:
            healthy = [server.name for server in servers[3:]]
            for minute in range(6):
                virtual.advance(max(0, minute * MINUTE - virtual.monotonic()))
                if minute == 0:
                    # As where the three are always the first to arrive.
                    for server in servers[:3]:
                        await fleet[server.name].restore_sessions().answer()
                result = await fleet.restore_sessions()
                delivered = [name for name in healthy if result.answers[name].error is None]
                assert len(delivered) == (9 if minute == 5 else 0)
                if minute < 5:
                    skipped = result.answers[healthy[0]].error
                    assert isinstance(skipped, SkippedError)
                    assert f"tried again in {300 - minute * MINUTE} s" in str(skipped)
        assert sum(backup.refused_logins for backup in backups) <= 6


async def test_after_an_acceptance_the_next_rejection_begins_with_the_first_cooldown() -> None:
    """Two cool-downs had passed before the password was right; when it is wrong again, 300 s count."""
    virtual = VirtualClock()
    async with BackupServer(version="v8") as backup:
        right, backup.password = backup.password, "another"
        login = Password(backup.username, right)
        async with Client(server_of(backup, credentials=login), clock=clock_of(virtual)) as client:

            async def is_rejected() -> bool:
                return isinstance((await client.restore_sessions().answer()).error, AuthenticationError)

            for seconds, expected in ((0, 1), (299, 1), (1, 2), (300, 2), (3299, 2), (1, 3)):
                virtual.advance(seconds)
                assert await is_rejected()
                assert backup.refused_logins == expected
            backup.password = right
            virtual.advance(HOUR)
            assert not await is_rejected()
            backup.password = "another"
            backup.revoke_tokens()
            for seconds, expected in ((0, 4), (299, 4), (1, 5)):
                virtual.advance(seconds)
                assert await is_rejected()
                assert backup.refused_logins == expected


async def test_when_the_account_is_unlocked_all_servers_are_tried_at_once() -> None:
    """In the hour in which one server is tried it accepts, and the others do not wait for their hours."""
    virtual = VirtualClock()
    async with BackupFleet(8, sessions=1, versions=("v8",)) as backups:
        login = Password(backups.username, backups.password)
        for backup in backups:
            backup.password = "another"
        servers = [server_of(backup, credentials=login) for backup in backups]
        async with Fleet(servers, clock=clock_of(virtual)) as fleet:
            for _ in range(70):
                virtual.advance(5 * MINUTE)
                await fleet.restore_sessions()
            assert min(backup.refused_logins for backup in backups) >= 1  # each had its turn
            for backup in backups:
                backup.password = login.password._source  # type: ignore[assignment]  # as given above
            virtual.advance(2 * HOUR)
            await fleet.restore_sessions()
            assert not (await fleet.restore_sessions()).failed


async def test_without_a_cooldown_every_call_sends_the_password() -> None:
    """0 disables the cool-downs, of rejections and of unclear responses, on one server and on many."""
    for answer in (REJECTION, BLOCK_PAGE):
        async with RawServer({("*", ANY): answer}) as raw:
            async with Fleet(servers_of(raw, 5), login_cooldown=0, retries=0) as fleet:
                for _ in range(3):
                    kinds = {type(answer.error) for answer in (await fleet.restore_sessions()).failed}
                    assert SkippedError not in kinds
            assert logins(raw) == 15


# ------------------------------------------------------------------------- responses that did not come


@pytest.mark.parametrize("cut", [[rst()], [b"HTTP/1.1 200 OK\r\n", rst()], [http(200, b'{"acc')[:-3], rst()]])
async def test_a_login_that_is_cut_off_is_sent_five_times_at_most(cut: Script) -> None:
    """It may have been judged; a single cut does not lock a healthy server out."""
    virtual = VirtualClock()
    async with RawServer(vbo_routes(token=in_turn(cut, token_answer()))) as raw:
        server = Server(raw.url, LOGIN, allow_http=True, api_version="v4")
        async with Client(server, retries=0, clock=clock_of(virtual)) as client:
            assert (await client.restore_sessions().answer()).error is not None
            assert await client.restore_sessions() == []
    async with RawServer(vbo_routes(token=cut)) as raw:
        async with Client(
            Server(raw.url, LOGIN, allow_http=True, api_version="v4"), clock=clock_of(virtual)
        ) as client:
            for _ in range(10):
                assert (await client.restore_sessions().answer()).error is not None
        assert logins(raw) == 5


async def test_a_login_that_was_given_up_counts_as_sent() -> None:
    """A server that is too slow for the deadline is sent five passwords in a cool-down, not one a poll."""
    clock = SimClock()
    backup = BackupServer(World(clock=clock), version="v8")
    backup.fail(Fault.stall(), on="token", times=None)
    server = Server("vbo1", Password(backup.username, backup.password), api_version="v8")
    transport = MemoryTransport({"vbo1": backup})
    async with Client(server, transport=transport, clock=clock, deadline=10) as client:
        for _ in range(5):
            assert isinstance((await client.restore_sessions().answer()).error, ServerTimeoutError)
        answer = await client.restore_sessions().answer()
    assert isinstance(answer.error, ServerTimeoutError)
    assert "not tried again" in str(answer.error)
    assert sum(request.resource.lower() == "token" for request in backup.requests) == 5


@pytest.mark.parametrize("borrowed", [False, True])
async def test_a_login_that_was_not_sent_begins_no_cooldown(borrowed: bool) -> None:  # noqa: FBT001  # parametrised
    """Nothing was sent to a port without a server, however often it was tried."""
    server = Server("127.0.0.1:9", LOGIN, api_version="v8")
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession()) if borrowed else None
        client = await stack.enter_async_context(Client(server, retries=0, http=http))
        for _ in range(8):
            error = (await client.restore_sessions().answer()).error
            assert error is not None
            assert error.attempts == 1
            assert "not tried again" not in str(error)


# ------------------------------------------------------------------------------------- virtual days

Login = Callable[[Server], Awaitable[ServerError | None]]


def rejected(server: Server) -> ServerError:
    """How a server rejects a password."""
    return AuthenticationError(f"the login was rejected by {server.name}")


def unclear(server: Server) -> ServerError:
    """How something else answers in place of a server."""
    return PayloadError(f"a web page at {server.name}")


def mixed(server: Server) -> ServerError:
    """Every second server rejects."""
    return (rejected if int(server.name[3:]) % 2 else unclear)(server)


def temporary(server: Server) -> ServerError:
    """How a connection is cut off."""
    return PayloadError(f"the connection to {server.name} was closed", phase="read", retryable=True)


class _Day:
    """A fleet that is polled in memory, and when each password was sent."""

    def __init__(
        self, size: int, response: Callable[[Server], ServerError | None], *, limit: int = 3
    ) -> None:
        self.virtual = VirtualClock()
        self.guard = LockoutGuard(limit, 300.0, clock_of(self.virtual))
        self.servers = [Server(f"vbo{n}", LOGIN, name=f"vbo{n}") for n in range(size)]
        for server in self.servers:
            self.guard.register(server)
        self.response = response
        self.posts: list[tuple[float, str, bool]] = []
        """When, to which server, and whether that rejected it."""

    async def poll(self) -> list[type[ServerError] | None]:
        """What each server's login ends with, one after the other."""
        return [await self._log_in(server) for server in self.servers]

    async def _log_in(self, server: Server) -> type[ServerError] | None:
        verdicts = self.guard.verdicts(Redacted({"username": "TECH\\monitor", "password": "wrong"}))
        try:
            verdicts.check(server)
            with await verdicts.turn(server, float("-inf")) as turn:
                turn.count("body")
                error = self.response(server)
                is_rejection = isinstance(error, AuthenticationError)
                self.posts.append((self.virtual.monotonic(), server.name, is_rejection))
                if error is not None:
                    raise error
        except ServerError as caught:
            return type(caught)
        return None

    async def run(self, seconds: float = DAY, every: float = MINUTE) -> None:
        """Poll for that long."""
        for _ in range(int(seconds / every)):
            await self.poll()
            self.virtual.advance(every)

    async def run_a_day(self) -> None:
        """Poll for a day: a large fleet every minute for ten minutes, then less often."""
        if len(self.servers) < 200:
            await self.run()
            return
        await self.run(10 * MINUTE)
        await self.run(HOUR, every=5 * MINUTE)
        await self.run(DAY - 70 * MINUTE, every=20 * MINUTE)

    def sent(self, start: float, end: float) -> int:
        """How many passwords were sent in a part of the day."""
        return sum(start <= at < end for at, _, _ in self.posts)


@pytest.mark.parametrize("limit", [1, 3, 20])
@pytest.mark.parametrize("size", [1, 12, 200])
async def test_a_wrong_password_is_sent_thirty_times_a_day_at_most(size: int, limit: int) -> None:
    """For any size of the fleet: a few at first, a few after 300 s, from an hour later on one in an hour."""
    day = _Day(size, rejected, limit=limit)
    await day.run_a_day()
    assert len(day.posts) <= 30
    first, second = day.sent(0, 300), day.sent(300, 3900)
    assert first == min(size, limit, 5)
    assert second == min(size, limit, 6 - first)
    for hour in range(22):
        assert day.sent(3900 + hour * HOUR, 3900 + (hour + 1) * HOUR) == 1
    tried = Counter(name for _, name, _ in day.posts)
    assert max(tried.values()) - min(tried[server.name] for server in day.servers) <= 2 or size == 200
    assert len(tried) == min(size, len(day.posts))  # never one of them again while others were not tried


@pytest.mark.parametrize("response", [unclear, temporary, mixed])
@pytest.mark.parametrize("size", [1, 12, 200])
async def test_unclear_responses_cost_ten_posts_in_each_of_the_first_two_cooldowns(
    size: int, response: Callable[[Server], ServerError]
) -> None:
    """Then one in an hour, also where some servers reject; and three rejections in a cool-down at most."""
    day = _Day(size, response)
    await day.run_a_day()
    assert (1 if size == 1 else 6) <= day.sent(0, 300) <= 10
    assert day.sent(300, 3900) <= 10
    for hour in range(2, 24):
        assert day.sent(hour * HOUR, (hour + 1) * HOUR) == 1
    assert sum(is_rejection for _, _, is_rejection in day.posts) <= 30


async def test_servers_that_fail_among_others_that_accept_are_limited_among_themselves() -> None:
    """Three that reject all day cost 30 POSTs at most, while nine others log in every hour and never wait."""
    day = _Day(12, lambda server: rejected(server) if int(server.name[3:]) < 3 else None)
    for minute in range(24 * 60):
        if minute % 60 == 0 or minute < 10:
            found = await day.poll()
            assert found[3:] == [SkippedError] * 9 if minute < 5 else [None] * 9
        else:
            for server in day.servers[:3]:
                await day._log_in(server)
        day.virtual.advance(MINUTE)
    assert sum(is_rejection for _, _, is_rejection in day.posts) <= 30


async def test_servers_behind_a_filter_are_tried_hourly_while_others_accept() -> None:
    """The first cool-down, the second, and then one of them in an hour, from the first response on."""
    day = _Day(12, lambda server: unclear(server) if int(server.name[3:]) < 3 else None)
    for _ in range(5 * 60):
        await day.poll()
        day.virtual.advance(MINUTE)
    sent = [at for at, name, _ in day.posts if int(name[3:]) < 3]
    assert sent == [0.0] * 3 + [300.0] * 3 + [3900.0, 7500.0, 11100.0, 14700.0]


async def test_servers_that_log_in_again_do_not_wait_for_those_that_reject() -> None:
    """Long after the last acceptance, three that always reject come first; the others log in in that poll."""
    day = _Day(12, lambda server: rejected(server) if int(server.name[3:]) < 3 else None)
    assert await day.poll() == [AuthenticationError] * 3 + [SkippedError] * 9
    day.virtual.advance(300)
    for server in day.servers[3:]:
        assert await day._log_in(server) is None
    day.virtual.advance(HOUR)
    assert await day.poll() == [AuthenticationError] * 3 + [None] * 9


def test_a_name_in_capitals_is_the_same_account() -> None:
    """Windows accounts do not distinguish case, passwords do."""
    guard = LockoutGuard(3, 300.0, Clock())
    form = {"grant_type": "password", "username": "TECH\\monitor", "password": "p"}
    same = guard.verdicts(Redacted(form))
    assert guard.verdicts(Redacted(form | {"username": "tech\\MONITOR"})) is same
    assert guard.verdicts(Redacted(form | {"password": "P"})) is not same


@pytest.mark.parametrize("seconds", [100, HOUR])
async def test_a_password_that_stops_being_right_is_tried_on_three_servers(seconds: int) -> None:
    """All had accepted it, lately or long ago; the next cool-downs are those of a wrong password."""
    day = _Day(12, lambda _: None)
    await day.poll()
    day.virtual.advance(seconds)
    day.response = rejected
    found = await day.poll()
    assert Counter(found) == {AuthenticationError: 3, SkippedError: 9}
    day.virtual.advance(300)
    await day.poll()
    assert day.sent(0, seconds) == 12
    assert sum(is_rejection for _, _, is_rejection in day.posts) == 6


async def test_a_server_that_fails_once_at_a_login_is_not_held_up_by_others_that_reject() -> None:
    """A cut connection is no rejection: while others accept, the server is tried again at once."""
    day = _Day(8, lambda server: rejected(server) if int(server.name[3:]) < 4 else None)
    day.servers.reverse()
    await day.run(3 * HOUR)
    day.response = temporary
    assert await day._log_in(day.servers[0]) is PayloadError
    day.response = lambda _: None
    assert await day._log_in(day.servers[1]) is None
    assert await day._log_in(day.servers[0]) is None


async def test_a_server_that_left_is_not_waited_for() -> None:
    """Servers that failed let others go first, but not those that were removed from the fleet."""
    day = _Day(6, rejected)
    await day.poll()
    for server in day.servers[3:]:
        day.guard.forget(server)
    del day.servers[3:]
    day.virtual.advance(300)
    assert await day.poll() == [AuthenticationError] * 3
    assert len(day.posts) == 6


async def test_servers_that_fail_are_tried_where_the_others_do_not_come() -> None:
    """They let others go first once in a round, and no longer."""
    day = _Day(6, rejected)
    await day.poll()
    del day.servers[3:]
    day.virtual.advance(300)
    assert await day.poll() == [SkippedError] * 3
    assert await day.poll() == [AuthenticationError] * 3


# -------------------------------------------------------------------------------------- a day on sockets


@pytest.mark.parametrize(("size", "most"), [(1, 25), (12, 29)])
async def test_a_day_of_polls_with_a_wrong_password_over_sockets(size: int, most: int) -> None:
    """The whole path: a fleet that is polled all day, and what arrives at its servers."""
    virtual = VirtualClock()
    async with RawServer({("POST", ANY): REJECTION, ("GET", ANY): http(401)}) as raw:
        async with Fleet(servers_of(raw, size), clock=clock_of(virtual)) as fleet:
            minutes = [*range(70), *range(70, 24 * 60, 10)]
            for minute in minutes:
                virtual.advance(max(0, minute * MINUTE - virtual.monotonic()))
                assert len((await fleet.restore_sessions()).failed) == size
        assert most - 1 <= logins(raw) <= most


# ------------------------------------------------------------------------------------------- secrets


def _reachable(root: object) -> list[object]:
    """All objects that lead from `root`, except code, classes and modules."""
    found: dict[int, object] = {}
    left = [root]
    while left:
        one = left.pop()
        skipped = isinstance(one, type | types.ModuleType | types.FunctionType | types.BuiltinFunctionType)
        if id(one) in found or skipped:
            continue
        found[id(one)] = one
        left += gc.get_referents(one)
    return list(found.values())


@pytest.mark.parametrize("answer", [REJECTION, BLOCK_PAGE, token_answer()])
async def test_the_guard_holds_no_password(answer: bytes) -> None:
    """Neither in its keys nor in what it remembers of a response; it recognises secrets by keyed digests."""
    routes = {("POST", ANY): answer, ("GET", ANY): json_answer([])}
    async with RawServer(routes) as raw, AsyncExitStack() as stack:
        fleet = await stack.enter_async_context(Fleet(servers_of(raw, 5)))
        await fleet.restore_sessions()
        held = _reachable(fleet._shared.guard)
        texts = [one for one in held if isinstance(one, str | bytes | bytearray)]
        assert len(texts) >= 10
        assert not [t for t in texts if "correct horse" in (t if isinstance(t, str) else t.decode("latin-1"))]


async def test_many_secrets_of_a_provider_are_not_all_remembered() -> None:
    """A provider that gives another secret for every login does not fill the memory."""
    guard = LockoutGuard(3, 300.0, Clock())
    kept = {id(guard.verdicts(Redacted({"password": str(n)}))) for n in range(1000)}
    assert len(kept) >= 1
    assert len(guard._verdicts) < 50


async def test_callers_that_wait_for_one_call_get_an_error_each() -> None:
    """What one of them notes on its error does not show on another's."""
    async with RawServer({("*", ANY): http(404)}) as raw:
        client = Client(Server(raw.url, LOGIN, allow_http=True))
        calls: Sequence[Awaitable[object]] = [client.fetch_api_version() for _ in range(3)]
        errors = await asyncio.gather(*calls, return_exceptions=True)
        await client.aclose()
        assert len(raw.requests) == 5  # one for each version, for all of them
    assert {type(error).__name__ for error in errors} == {"NotFoundError"}
    assert len({id(error) for error in errors}) == 3
