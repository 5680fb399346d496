"""Connections: which requests may use one, what closes one, and what happens when one is dead."""

import asyncio
import gc
import os
import select
import socket
import stat
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import aiohttp
import pytest
from aiohttp.client_proto import ResponseHandler
from harness import VirtualClock
from harness.backups import beside_a_healthy_server
from harness.documents import session
from harness.raw import (
    Connection,
    RawServer,
    Request,
    Script,
    fin,
    http,
    json_answer,
    rst,
    run,
    send,
    sleep,
    stall,
    token_answer,
    vbo_routes,
)
from harness.tls import good

from aiovbo import (
    TLS,
    Answer,
    Clock,
    Fleet,
    Password,
    PayloadError,
    RestoreSession,
    Server,
    ServerTimeoutError,
)
from aiovbo._transport.connections import (
    EarlyDataError,
    HttpConnection,
    OwnedRequest,
    ServerConnections,
    current_connections,
)
from aiovbo._transport.connector import PoolConnector
from aiovbo._transport.error_mapping import map_aiohttp_error
from aiovbo._transport.tls import ServerContext

OURS = json_answer([session(0, name="ours")])
FOREIGN = json_answer([session(1, name="foreign")])


def at(raw: RawServer, user: str = "ours", **changes: Any) -> Server:
    """How a user reaches a raw server."""
    settings: dict[str, Any] = {"allow_http": True, "api_version": "v4", "name": user, **changes}
    if raw.url.startswith("https"):
        settings["tls"] = TLS(ca_file=good().ca_file)
    return Server(raw.url, Password(user, "p"), **settings)


def names(answer: Answer[RestoreSession]) -> list[str | None]:
    """The names of the sessions of a complete answer."""
    assert answer.error is None, answer.error
    assert answer.complete
    return [found.name for found in answer.items]


async def poll(fleet: Fleet, user: str = "ours") -> list[str | None]:
    """The names of the sessions that one user sees now."""
    return names(await fleet[user].restore_sessions().answer())


def used(raw: RawServer, method: str = "GET") -> list[int]:
    """The connections of the requests so far, in order."""
    return [request.connection for request in raw.asked(method, "*")]


def is_socket(descriptor: int) -> bool:
    """Whether a file descriptor is open, and a socket's."""
    try:
        return stat.S_ISSOCK(os.fstat(descriptor).st_mode)
    except OSError:
        return False


def client_sockets(port: int) -> list[socket.socket]:
    """Duplicates of this process's sockets that are connected to a port."""
    found: list[socket.socket] = []
    everything = [int(name) for name in os.listdir("/dev/fd")]  # names suffice
    for descriptor in [one for one in everything if is_socket(one)]:
        copy = socket.socket(fileno=os.dup(descriptor))
        try:
            is_ours = copy.getpeername()[1] == port
        except (OSError, IndexError):
            is_ours = False
        if is_ours:
            found.append(copy)
        else:
            copy.close()
    return found


def wait_until_readable(port: int) -> None:
    """Wait for data to arrive at this process's sockets, without the event loop, which would read it."""
    for sock in client_sockets(port):
        with sock:
            ready = select.poll()
            ready.register(sock, select.POLLIN)
            for _ in range(1_000_000):
                if ready.poll(0):
                    break


UNSOLICITED = {
    "a listing": FOREIGN,
    "a listing and another": FOREIGN + FOREIGN,
    "a token": token_answer("foreign"),
    "a timeout": http(408, close=True),
    "a timeout that does not announce closing": http(408),
    "an interim response": b"HTTP/1.1 103 Early Hints\r\n\r\n",
    "a response without a body": http(204),
    "part of a head": b"HTTP/1.1 200 OK\r\nContent-Type: applica",
    "a head without its body": FOREIGN[:-20],
    "one byte": b"H",
    "no HTTP": b"\x00\x01\x02",
}


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("moment", ["idle", "unread"])
@pytest.mark.parametrize("case", UNSOLICITED)
async def test_data_on_an_idle_connection_is_no_response_to_a_later_request(
    case: str, moment: str, *, secure: bool
) -> None:
    """Delivered by the event loop, or still unread when the next request begins: the connection is closed."""
    tls = good().context if secure else None
    async with (
        RawServer(vbo_routes(sessions=OURS), ssl=tls) as raw,
        beside_a_healthy_server(at(raw)) as fleet,
    ):
        assert await poll(fleet) == ["ours"]
        (connection,) = raw.connections
        await connection.send(UNSOLICITED[case])
        if moment == "idle":
            await raw.until(lambda: connection.closed)
        else:
            wait_until_readable(raw.port)
        for _ in range(3):
            assert await poll(fleet) == ["ours"]
        assert used(raw) == [0, 1, 1, 1]


LEFT_OVER: dict[str, Script] = {
    "a response in the same segment": OURS + FOREIGN,
    "part of a head in the same segment": OURS + FOREIGN[:25],
    "a response in the last of two segments": [send(OURS[:-5]), sleep(0.01), send(OURS[-5:] + FOREIGN)],
    "part of a head in the last of two segments": [
        send(OURS[:-5]), sleep(0.01), send(OURS[-5:] + FOREIGN[:25])
    ],
    "a response in a segment of its own": [send(OURS), sleep(0.01), send(FOREIGN)],
    "no HTTP in a segment of its own": [send(OURS), sleep(0.01), send(b"foreign")],
}  # fmt: skip


@pytest.mark.parametrize("case", LEFT_OVER)
async def test_bytes_behind_a_response_are_no_response_to_the_next_request(case: str) -> None:
    """Each poll opens a new connection, because each response has something behind it."""
    async with (
        RawServer(vbo_routes(sessions=LEFT_OVER[case])) as raw,
        beside_a_healthy_server(at(raw)) as fleet,
    ):
        assert await poll(fleet) == ["ours"]
        if "own" in case:
            await raw.until(lambda: raw.connections[-1].closed)
        assert await poll(fleet) == ["ours"]
        assert used(raw) == [0, 1]


async def by_user(connection: Connection, asked: Request) -> None:
    """Log in any user, and list what belongs to the token."""
    if asked.method == "POST":
        await connection.send(token_answer(f"token-{asked.form['username']}"))
    else:
        user = asked.headers["Authorization"].removeprefix("Bearer token-")
        await connection.send(json_answer([session(0, name=user)]))


@pytest.mark.parametrize("behind", [b"", b"HTTP/1.1 "], ids=["twice", "twice and a bit"])
@pytest.mark.parametrize("pause", [0.0, 0.01])
async def test_a_login_that_is_answered_twice_shifts_no_response(pause: float, behind: bytes) -> None:
    """In one segment or in two, the second answer is dropped with its connection."""

    async def converse(connection: Connection) -> None:
        while (asked := await connection.read_request()) is not None:
            if asked.method == "POST" and not pause:
                await connection.send(token_answer("token-ours") * 2 + behind)
            else:
                await by_user(connection, asked)
                if asked.method == "POST":
                    await asyncio.sleep(pause)
                    await connection.send(token_answer("token-ours") + behind)

    async with RawServer(converse) as raw, beside_a_healthy_server(at(raw), retries=2) as fleet:
        for _ in range(3):
            await fleet["ours"].restore_sessions().answer()
            await asyncio.sleep(2 * pause)
        assert await poll(fleet) == ["ours"]
        assert len(raw.asked("POST", "*")) == 1


async def test_a_second_login_answer_that_arrives_with_the_next_request_costs_one_error() -> None:
    """It cannot be distinguished from a response, so that request fails; the one after it is not shifted."""

    async def converse(connection: Connection) -> None:
        while (asked := await connection.read_request()) is not None:
            if connection.number == 0 and asked.method == "GET":
                await connection.send(token_answer("token-ours"))
                await asyncio.sleep(0.01)
            await by_user(connection, asked)

    async with RawServer(converse) as raw, beside_a_healthy_server(at(raw)) as fleet:
        answer = await fleet["ours"].restore_sessions().answer()
        assert isinstance(answer.error, PayloadError)
        await raw.until(lambda: raw.connections[0].closed)
        for _ in range(3):
            assert await poll(fleet) == ["ours"]
        assert used(raw) == [0, 1, 1, 1]


async def test_two_users_of_one_url_share_no_connection() -> None:
    """Each has its own, so that an unsolicited response for one never reaches the other."""

    async def converse(connection: Connection) -> None:
        while (asked := await connection.read_request()) is not None:
            await by_user(connection, asked)

    async with (
        RawServer(converse) as raw,
        beside_a_healthy_server(at(raw, "alice")) as fleet,
    ):
        fleet.add(at(raw, "bob"))
        for _ in range(3):
            assert await poll(fleet, "alice") == ["alice"]
            assert await poll(fleet, "bob") == ["bob"]
        whose = {(asked.connection, asked.headers.get("Authorization")) for asked in raw.asked("GET", "*")}
        assert whose == {(0, "Bearer token-alice"), (1, "Bearer token-bob")}
        assert used(raw, "POST") == [0, 1]


async def test_a_response_that_arrives_with_the_next_request_reaches_its_own_user_only() -> None:
    """Alice's server answers everything twice, each time too late to notice: Bob never sees it."""

    async def converse(connection: Connection) -> None:
        while (asked := await connection.read_request()) is not None:
            if connection.number == 0 and len(connection.requests) > 1:
                await connection.send(json_answer([session(0, name="alice")]))
            await by_user(connection, asked)

    async with RawServer(converse) as raw, beside_a_healthy_server(at(raw, "alice")) as fleet:
        fleet.add(at(raw, "bob"))
        for _ in range(3):
            assert await poll(fleet, "alice") == ["alice"]
            assert await poll(fleet, "bob") == ["bob"]


CUT: dict[str, int] = {"before the response": 0, "in its head": 20, "before its body": -9, "in its body": -3}


@pytest.mark.parametrize("place", CUT)
async def test_the_connection_of_a_cancelled_request_is_not_used_again(place: str) -> None:
    """What the server still sends for it is not the response to the next request."""
    cut = CUT[place]
    part, rest = FOREIGN[:cut], FOREIGN[cut:]
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def converse(connection: Connection) -> None:
        while (asked := await connection.read_request()) is not None:
            if asked.method == "GET" and len(raw.asked("GET", "*")) == 2:
                await connection.send(part)
                arrived.set()
                await go_on.wait()
                await connection.send(rest)
            else:
                await connection.send(token_answer() if asked.method == "POST" else OURS)

    async with (
        RawServer(converse) as raw,
        beside_a_healthy_server(at(raw), read_timeout=5, deadline=5) as fleet,
    ):
        assert await poll(fleet) == ["ours"]
        cancelled = asyncio.create_task(poll(fleet))
        await arrived.wait()
        await asyncio.sleep(0.01)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        go_on.set()
        for _ in range(2):
            assert await poll(fleet) == ["ours"]
        assert used(raw) == [0, 0, 1, 1]


async def test_nothing_is_sent_on_a_new_connection_on_which_data_arrived_first() -> None:
    """A response that is sent before the first request is an error, which says so."""
    sent = asyncio.Event()

    async def answer_at_once(connection: Connection) -> None:
        await connection.send(OURS)
        sent.set()
        await connection.stall()

    async def let_it_arrive(*_: object) -> None:
        await sent.wait()
        await asyncio.sleep(0.05)

    trace = aiohttp.TraceConfig()
    trace.on_connection_create_end.append(let_it_arrive)
    context = ServerContext(TLS(insecure=True))
    mark = current_connections.set(ServerConnections("ours"))
    try:
        async with (
            RawServer(answer_at_once) as raw,
            aiohttp.ClientSession(
                connector=PoolConnector(), request_class=OwnedRequest, trace_configs=[trace]
            ) as http_session,
        ):
            with pytest.raises(EarlyDataError) as caught:
                await http_session.get(raw.url, ssl=context)
            assert raw.received == 0
    finally:
        current_connections.reset(mark)
    error = map_aiohttp_error(caught.value, "read", context)
    assert isinstance(error, PayloadError)
    assert "before it was sent a request" in str(error)


async def test_a_connection_that_cannot_be_checked_serves_one_request() -> None:
    """As where aiohttp makes its protocols in another way some day."""

    class Unchecked(PoolConnector):
        def __init__(self) -> None:
            super().__init__()
            self._factory = partial(ResponseHandler, loop=self._loop)

    mark = current_connections.set(ServerConnections("ours"))
    try:
        async with (
            RawServer({("GET", "/"): OURS}) as raw,
            aiohttp.ClientSession(connector=Unchecked(), request_class=OwnedRequest) as http_session,
        ):
            for _ in range(2):
                async with http_session.get(raw.url, ssl=ServerContext(TLS(insecure=True))) as response:
                    assert await response.read() == OURS.partition(b"\r\n\r\n")[2]
        assert used(raw) == [0, 1]
    finally:
        current_connections.reset(mark)


async def test_lost_connections_are_not_kept_in_memory() -> None:
    """Whether the server closes them while they are idle or in use."""

    async def hang_up(connection: Connection) -> None:
        while (asked := await connection.read_request()) is not None:
            if len(connection.requests) == 3:
                return await connection.rst()
            await by_user(connection, asked)
        return None

    async with RawServer(hang_up) as raw, Fleet([at(raw)]) as fleet:
        for _ in range(6):
            assert await poll(fleet) == ["ours"]
        assert len(raw.connections) > 2
        gc.collect()
        assert sum(isinstance(found, HttpConnection) for found in gc.get_objects()) == 1


# ------------------------------------------------------------------------------ dead connections


@asynccontextmanager
async def kept_connections(
    count: int, dies_by: Script, **limits: Any
) -> AsyncGenerator[tuple[Fleet, RawServer, asyncio.Event]]:
    """A fleet that keeps so many connections to a server.

    Once the event is set, a request on one of them is answered by `dies_by`; new connections work.
    """
    dead, together = asyncio.Event(), asyncio.Event()

    async def converse(connection: Connection) -> None:
        while (asked := await connection.read_request()) is not None:
            if dead.is_set() and connection.number < count:
                return await run(dies_by, connection)
            if asked.method == "POST":
                await connection.send(token_answer("token", None))
                continue
            if len(raw.asked("GET", "*")) >= count:
                together.set()
            await together.wait()
            await connection.send(OURS)
        return None

    async with RawServer(converse) as raw, beside_a_healthy_server(at(raw), **limits) as fleet:
        await asyncio.gather(*(poll(fleet) for _ in range(count)))
        assert len(raw.connections) == count
        yield fleet, raw, dead


async def test_a_retry_after_a_read_timeout_does_not_take_the_next_dead_connection() -> None:
    """A router forgot four idle connections: one is tried, the others are closed, a new one answers."""
    async with kept_connections(4, stall(), retries=1, read_timeout=0.2, deadline=5) as (fleet, raw, dead):
        before = len(raw.requests)
        dead.set()
        answer = await fleet["ours"].restore_sessions().answer()
        assert names(answer) == ["ours"]
        assert answer.attempts == 2
        assert len(raw.requests) == before + 2
        assert len(raw.connections) == 5
        await raw.until(lambda: all(connection.closed for connection in raw.connections[:4]))
        assert not raw.connections[4].closed
        assert await poll(fleet) == ["ours"]
        assert used(raw)[-2:] == [4, 4]


async def test_a_poll_after_one_that_ended_at_its_deadline_does_not_take_the_next_dead_connection() -> None:
    """Also without retries, and where the deadline comes before the read timeout."""
    limits = {"retries": 0, "read_timeout": 30, "deadline": 0.2}
    async with kept_connections(4, stall(), **limits) as (fleet, raw, dead):
        dead.set()
        answer = await fleet["ours"].restore_sessions().answer()
        assert isinstance(answer.error, ServerTimeoutError)
        assert await poll(fleet) == ["ours"]
        assert len(raw.connections) == 5


async def test_a_body_that_stops_on_a_kept_connection_closes_the_others_too() -> None:
    """The route may be lost between the head and the body."""
    dies = [send(OURS[:-5]), stall()]
    async with kept_connections(4, dies, retries=1, read_timeout=0.2, deadline=5) as (fleet, raw, dead):
        dead.set()
        assert await poll(fleet) == ["ours"]
        assert len(raw.connections) == 5


async def test_a_read_timeout_on_a_new_connection_closes_no_other() -> None:
    """A slow request is no reason to close connections that have just answered."""
    slow = asyncio.Event()

    async def converse(connection: Connection) -> None:
        while (asked := await connection.read_request()) is not None:
            if asked.method == "POST":
                await connection.send(token_answer())
            elif connection.number == 1:
                slow.set()
                await connection.stall()
            else:
                await slow.wait()
                await connection.send(OURS)

    async with (
        RawServer(converse) as raw,
        beside_a_healthy_server(at(raw), read_timeout=0.2, deadline=5) as fleet,
    ):
        answers = await asyncio.gather(*(fleet["ours"].restore_sessions().answer() for _ in range(2)))
        assert sorted(type(answer.error).__name__ for answer in answers) == ["NoneType", "ServerTimeoutError"]
        assert await poll(fleet) == ["ours"]
        assert len(raw.connections) == 2


async def test_dead_connections_of_one_server_close_none_of_another() -> None:
    """Two servers at one address: the second keeps its own."""
    async with kept_connections(2, stall(), retries=1, read_timeout=0.2, deadline=5) as (fleet, raw, dead):
        fleet.add(at(raw, "other"))
        assert await poll(fleet, "other") == ["ours"]
        other = used(raw)[-1]
        dead.set()
        assert await poll(fleet) == ["ours"]
        assert await poll(fleet, "other") == ["ours"]
        assert used(raw)[-1] == other


DIES: dict[str, Script] = {
    "closed": fin(),
    "reset": rst(),
    "timed out": [send(http(408, close=True)), fin()],
    "timed out, and left open": [send(http(408)), stall()],
}


@pytest.mark.parametrize("case", DIES)
async def test_a_get_is_sent_once_more_however_many_kept_connections_are_dead(case: str) -> None:
    """Also without retries: the second time over a new connection."""
    async with kept_connections(4, DIES[case], retries=0) as (fleet, raw, dead):
        dead.set()
        answer = await fleet["ours"].restore_sessions().answer()
        assert names(answer) == ["ours"]
        assert answer.attempts == 2
        assert len(raw.connections) == 5


@pytest.mark.parametrize("case", DIES)
async def test_a_login_is_sent_once_more_however_many_kept_connections_are_dead(case: str) -> None:
    """Two POSTs, and no third: the second goes over a new connection."""
    virtual = VirtualClock()
    clock = Clock(virtual.monotonic, virtual.now, virtual.sleep, virtual.random)
    async with kept_connections(4, DIES[case], retries=0, clock=clock) as (fleet, raw, dead):
        before = len(raw.asked("POST", "*"))
        virtual.advance(4000)
        dead.set()
        assert await poll(fleet) == ["ours"]
        assert len(raw.asked("POST", "*")) == before + 2
        assert len(raw.connections) == 5


async def test_a_timeout_response_on_a_new_connection_is_an_error() -> None:
    """It answers the request that was sent, so the request is not sent again behind the caller's back."""
    login = token_answer().replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
    async with (
        RawServer(vbo_routes(sessions=http(408), token=login)) as raw,
        beside_a_healthy_server(at(raw)) as fleet,
    ):
        answer = await fleet["ours"].restore_sessions().answer()
        assert answer.error is not None
        assert "408" in str(answer.error)
        assert len(raw.asked("GET", "*")) == 1


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this system has no TCP_USER_TIMEOUT")
async def test_the_operating_system_notices_a_dead_connection() -> None:
    """By probes while it is idle, and by a limit on data that is not acknowledged."""
    async with (
        RawServer(vbo_routes(sessions=OURS)) as raw,
        beside_a_healthy_server(at(raw)) as fleet,
    ):
        await poll(fleet)
        (sock,) = client_sockets(raw.port)
        with sock:
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert 0 < sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) <= 60
            assert 0 < sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) <= 30
            assert 0 < sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) <= 60_000
