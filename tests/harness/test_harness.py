"""The tests' own tools do what they say, and catch what they are there to catch."""

import asyncio
import base64
import hashlib
import logging
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import aiohttp
import attrs
import pytest
from yarl import URL

from harness import (
    ANY,
    Bandwidth,
    Bystander,
    FaultProxy,
    Latency,
    LimitData,
    RawServer,
    ResetPeer,
    Slicer,
    SlowClose,
    Timeout,
    VirtualClock,
    assert_nothing_left,
    assert_nothing_open,
    black_hole,
    cancel_at_every_await,
    closed_port,
    fin,
    half_close,
    http,
    in_turn,
    json_answer,
    repeat,
    request,
    rst,
    send,
    sleep,
    snapshot,
    stall,
    token_answer,
    vbo_routes,
    wait,
)
from harness import tls as identities

HERE = Path(__file__).parents[1]


@pytest.fixture
async def client():
    """A plain aiohttp client."""
    async with aiohttp.ClientSession() as session:
        yield session


@asynccontextmanager
async def talking(server, **options):
    """A plain connection to a server or proxy."""
    reader, writer = await asyncio.open_connection(server.host, server.port, **options)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)


# ------------------------------------------------------------------------------------ raw server


async def test_routes_answer_on_one_connection_and_record_what_was_sent(client):
    """Requests, bodies and headers are kept as they came, and the connection is kept open."""
    async with RawServer({("*", ANY): json_answer([1])}) as raw:
        target = URL(f"{raw.url}/a%2Fb?c=%2f", encoded=True)
        async with client.post(target, data={"a": "b&c"}, headers={"X-Odd": "1"}) as answer:
            assert await answer.json() == [1]
        async with client.get(f"{raw.url}/2") as answer:
            assert answer.status == 200
        first, second = raw.requests
        assert (first.method, first.target, first.form) == ("POST", "/a%2Fb?c=%2f", {"a": "b&c"})
        assert (first.headers["x-odd"], second.target) == ("1", "/2")
        assert [first.connection, second.connection] == [0, 0]
        assert raw.connections[0].requests == raw.requests


@pytest.mark.parametrize(
    ("key", "matches"),
    [
        (("GET", "/V4/sessions"), True),
        (("GET", "/v4/sessions?offset=7"), True),
        (("GET", "/v4/sessions?offset=8"), False),
        (("GET", "/v4/*"), True),
        (("GET", "/v5/*"), False),
        (("GET", "/v4"), False),
        (("POST", "/v4/sessions"), False),
        (("*", "/v4/sessions"), True),
        (("GET", re.compile(r"/v\d/")), True),
        (("GET", re.compile("sessions")), False),
        (("GET", ANY), True),
    ],
)
async def test_a_route_is_a_path_a_query_a_prefix_or_a_pattern(client, key, matches):
    """What no route matches is answered 404."""
    async with RawServer({key: json_answer({})}) as raw:
        async with client.get(f"{raw.url}/v4/sessions?offset=7") as answer:
            assert answer.status == (200 if matches else 404)
        assert len(raw.asked(*key)) == matches


async def test_vbo_routes_log_on_and_list_for_that_token_alone(client):
    """The path of a login knows no case, and a listing no token but its own."""
    async with RawServer(vbo_routes(b'[{"id": 1}]', "v5", access_token="mine")) as raw:
        async with client.post(f"{raw.url}/v5/Token") as answer:
            grant = await answer.json()
        assert (grant["access_token"], grant["expires_in"]) == ("mine", 3600)
        for token, status in (("mine", 200), ("yours", 401)):
            headers = {"Authorization": f"Bearer {token}"}
            async with client.get(f"{raw.url}/v5/restoreSessions?limit=1", headers=headers) as answer:
                assert answer.status == status
        async with client.get(f"{raw.url}/v5/ServiceInstance") as answer:
            assert answer.status == 401


async def test_vbo_routes_can_answer_anything_else(client):
    """Both answers can be replaced, and a login can be odd."""
    token, sessions = token_answer(None, expires_in="x", extra=1), http(status=600)
    async with RawServer(vbo_routes(token=token, sessions=sessions)) as raw:
        async with client.post(f"{raw.url}/v4/token") as answer:
            grant = await answer.json()
        assert (grant["access_token"], grant["expires_in"], grant["extra"]) == (None, "x", 1)
        headers = {"Authorization": "Bearer access-1"}
        async with client.get(f"{raw.url}/v4/RestoreSessions", headers=headers) as answer:
            assert answer.status == 600


async def test_scripts_take_turns_and_the_last_one_stays(client):
    """First an error, then good responses only."""
    async with RawServer({("GET", ANY): in_turn(http(503), http(200))}) as raw:
        statuses = []
        for _ in range(3):
            async with client.get(raw.url) as answer:
                statuses.append(answer.status)
        assert statuses == [503, 200, 200]


async def test_a_script_may_be_replaced_while_it_runs(client):
    """The next request gets the new answer, on the old connection."""
    async with RawServer({("GET", ANY): http(200)}) as raw:
        async with client.get(raw.url):
            raw.script = {("GET", ANY): http(204)}
        async with client.get(raw.url) as answer:
            assert answer.status == 204
        assert len(raw.connections) == 1


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (rst(), aiohttp.ClientOSError),
        ([b"HTTP/1.1 200 OK\r\n", rst()], aiohttp.ClientOSError),
        (fin(), aiohttp.ServerDisconnectedError),
        (half_close(), aiohttp.ServerDisconnectedError),
        ([http(headers=[("Content-Length", "9")], body=b"123"), fin()], aiohttp.ClientPayloadError),
        ([http(headers=[("Content-Length", "9")], body=b"123"), rst()], aiohttp.ClientError),
        (b"SSH-2.0-OpenSSH_9.2\r\n", aiohttp.ClientResponseError),
        (stall(), TimeoutError),
        ([send(b"HTTP"), sleep(0.3), fin()], TimeoutError),
    ],
)
async def test_a_byte_script_breaks_an_answer_where_it_says(client, script, error):
    """Each way of breaking off is what the client sees."""
    limit = aiohttp.ClientTimeout(total=0.15 if error is TimeoutError else 10)
    async with RawServer({("GET", ANY): script}) as raw:
        with pytest.raises(error):
            async with client.get(raw.url, timeout=limit) as answer:
                await answer.read()
        assert len(raw.requests) >= 1


async def test_an_answer_waits_for_the_test(client):
    """A request can be held up until an event is set."""
    go = asyncio.Event()
    async with RawServer({("GET", ANY): [wait(go), http(200)]}) as raw:
        asking = asyncio.create_task(client.get(raw.url))
        await raw.until(lambda: len(raw.requests) == 1)
        assert not asking.done()
        go.set()
        async with await asking as answer:
            assert answer.status == 200


async def test_a_script_of_a_connection_may_speak_first():
    """A banner is sent before any request, and what came is counted."""
    async with RawServer([b"220 hello\r\n", request(), http(418), stall()]) as raw:
        async with talking(raw) as (reader, writer):
            assert await reader.readline() == b"220 hello\r\n"
            assert raw.received == 0
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"418" in await reader.readline()
            assert (raw.requests[0].target, raw.received) == ("/", 27)
        await raw.until(lambda: raw.connections[0].closed)


async def test_after_half_close_the_server_still_listens():
    """The client reads the end, and what it sends then arrives."""
    async with RawServer([half_close(), stall()]) as raw, talking(raw) as (reader, writer):
        assert await reader.read() == b""
        writer.write(b"late")
        await raw.until(lambda: raw.connections[0].data == b"late")


@pytest.mark.parametrize("secure", [False, True])
async def test_close_is_said_and_done(client, secure):
    """`close=True` says so in the answer, and the connection is closed after it."""
    identity = identities.good()
    context = identity.context if secure else None
    async with RawServer({("GET", ANY): http(close=True)}, ssl=context) as raw:
        for _ in range(2):
            async with client.get(raw.url, ssl=identity.client_context()) as answer:
                assert answer.headers["Connection"] == "close"
        await raw.until(lambda: [c.closed for c in raw.connections] == [True, True])


async def test_an_endless_answer_ends_with_the_client(client):
    """Endless chunks: sent only as fast as they are read, until the client closes."""
    endless = [http(headers=[("Transfer-Encoding", "chunked")]), repeat(b"5\r\nhello\r\n")]
    async with RawServer({("GET", ANY): endless}) as raw:
        async with client.get(raw.url) as answer:
            assert await answer.content.readexactly(10) == b"hellohello"
        await raw.until(lambda: raw.connections[0].closed)


async def test_repeat_counts_and_pauses(client):
    """Three interim answers before the final one."""
    interim = repeat(b"HTTP/1.1 102 Processing\r\n\r\n", 3, every=0.01)
    async with RawServer({("GET", ANY): [interim, http(200)]}) as raw:
        began = time.monotonic()
        async with client.get(raw.url) as answer:
            assert answer.status == 200
        assert time.monotonic() - began > 0.02


@pytest.mark.parametrize(("cut", "error"), [(half_close(), None), (rst(), ConnectionResetError)])
async def test_an_encrypted_stream_is_cut_without_a_goodbye(cut, error):
    """The client over TLS sees the end, or the reset."""
    identity = identities.good()
    go = asyncio.Event()
    async with (
        RawServer([b"hello", wait(go), cut, stall()], ssl=identity.context) as raw,
        talking(raw, ssl=identity.client_context()) as (reader, _),
    ):
        assert await reader.readexactly(5) == b"hello"
        go.set()
        if error is None:
            assert await reader.read() == b""
        else:
            with pytest.raises(error):
                await reader.read()


async def test_a_refused_handshake_is_a_connection_without_a_byte():
    """A client that does not trust the server is seen, and so is that it sent nothing."""
    async with RawServer(stall(), ssl=identities.other_ca().context) as raw:
        client = identities.good().client_context()
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection(raw.host, raw.port, ssl=client)
        await raw.until(lambda: raw.connections[0].handshake_error is not None)
        assert raw.received == 0


async def test_a_connection_without_a_request_is_seen():
    """Who only connects is counted, with zero bytes."""
    async with RawServer({}) as raw:
        async with talking(raw):
            await raw.until(lambda: len(raw.connections) == 1)
        assert (raw.received, raw.requests) == (0, [])


async def test_the_server_stops_whatever_its_clients_do():
    """Handshakes that never begin and answers that never end do not outlive it."""
    before = snapshot()
    async with RawServer(stall(), ssl=identities.good().context) as raw:
        _, silent = await asyncio.open_connection(raw.host, raw.port)
        context = identities.good().client_context()
        _, idle = await asyncio.open_connection(raw.host, raw.port, ssl=context)
        await raw.until(lambda: len(raw.connections) == 2)
    for writer in (silent, idle):
        writer.transport.abort()
    await assert_nothing_left(before)


async def test_a_script_that_fails_fails_the_test(client):
    """A mistake in a script is not taken for the server's misbehaviour."""

    async def mistaken(_connection):
        raise KeyError("typo")

    with pytest.raises(ExceptionGroup) as caught:
        async with RawServer({("GET", ANY): mistaken}) as raw:
            with pytest.raises(aiohttp.ServerDisconnectedError):
                await client.get(raw.url)
    assert caught.group_contains(KeyError)


async def test_a_client_that_sends_no_http_fails_the_test():
    """Where a request is expected, anything else is a fault of the client."""
    with pytest.raises(ExceptionGroup) as caught:
        async with RawServer({}) as raw, talking(raw) as (reader, writer):
            writer.write(b"EHLO\r\n\r\n")
            assert await reader.read() == b""
    assert caught.group_contains(AssertionError, match="no HTTP request but 'EHLO'")


async def test_waiting_for_what_never_happens_ends():
    """`until` gives up."""
    async with RawServer({}) as raw:
        with pytest.raises(TimeoutError):
            await raw.until(lambda: False, within=0.01)


# ----------------------------------------------------------------------------------------- ports


async def test_a_closed_port_refuses():
    """At once."""
    with closed_port() as port, pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels refuse what does not fit")
async def test_a_black_hole_swallows_connections():
    """Connecting neither succeeds nor fails."""
    with black_hole() as port, pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await asyncio.open_connection("127.0.0.1", port)


# ----------------------------------------------------------------------------------- fault proxy


@asynccontextmanager
async def proxied(script, *, seed=0):
    """A raw server and a proxy in front of it."""
    async with RawServer(script) as raw, FaultProxy(raw.port, seed=seed) as proxy:
        yield raw, proxy


async def test_without_toxics_bytes_and_ends_pass():
    """A proxy alone changes nothing."""
    async with proxied([b"hello", half_close(), stall()]) as (raw, proxy):
        async with talking(proxy) as (reader, writer):
            writer.write(b"question")
            writer.write_eof()
            assert await reader.read() == b"hello"
        await raw.until(lambda: raw.connections[0].closed)
        assert raw.connections[0].data == b"question"


async def test_latency_delays_every_byte_once():
    """Two pieces sent at once arrive together, late by the latency and no more than the jitter."""
    async with proxied([b"a", sleep(0.02), b"b", stall()]) as (_, proxy):
        proxy.add(Latency(0.3, jitter=0.02))
        began = time.monotonic()
        async with talking(proxy) as (reader, _):
            assert await reader.readexactly(2) == b"ab"
        assert time.monotonic() - began >= 0.28


async def test_latency_upstream_leaves_downstream_alone():
    """A toxic works in its own direction."""
    async with proxied([b"banner", stall()]) as (raw, proxy):
        proxy.add(Latency(30), "upstream")
        async with talking(proxy) as (reader, writer):
            writer.write(b"slow")
            assert await reader.readexactly(6) == b"banner"
            assert raw.received == 0


async def test_bandwidth_stretches_the_transfer():
    """A thousand bytes at five thousand per second take a fifth of a second."""
    async with proxied([b"x" * 1000, stall()]) as (_, proxy):
        proxy.add(Bandwidth(5000))
        began = time.monotonic()
        async with talking(proxy) as (reader, _):
            await reader.readexactly(1000)
        assert time.monotonic() - began >= 0.18


async def test_slow_close_delays_the_end_but_not_the_data():
    """The end of the stream comes late."""
    async with proxied([b"bye", fin()]) as (_, proxy):
        proxy.add(SlowClose(0.1))
        async with talking(proxy) as (reader, _):
            assert await reader.readexactly(3) == b"bye"
            began = time.monotonic()
            assert await reader.read() == b""
        assert time.monotonic() - began >= 0.08


async def test_timeout_drops_the_data_and_closes():
    """Nothing arrives but the end."""
    async with proxied([b"lost", stall()]) as (_, proxy):
        proxy.add(Timeout(0.05))
        async with talking(proxy) as (reader, _):
            assert await reader.read() == b""


async def test_timeout_of_zero_lasts_until_it_is_removed():
    """Data is dropped, the connection stays, and recovers."""
    async with proxied([request(), b"lost", request(), b"found", stall()]) as (raw, proxy):
        name = proxy.add(Timeout())
        async with talking(proxy) as (reader, writer):
            writer.write(b"GET /1 HTTP/1.1\r\n\r\n")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await reader.read(1)
            assert len(raw.requests) == 1
            proxy.remove(name)
            writer.write(b"GET /2 HTTP/1.1\r\n\r\n")
            assert await reader.readexactly(5) == b"found"


@pytest.mark.parametrize("after", [0.0, 0.05])
async def test_reset_peer_resets_both_ends(after):
    """The client gets a reset instead of an end, and the server does too."""
    async with proxied([b"lost", stall()]) as (raw, proxy):
        proxy.add(ResetPeer(after))
        async with talking(proxy) as (reader, _):
            with pytest.raises(ConnectionResetError):
                await reader.read()
        if after:
            await raw.until(lambda: raw.connections[0].closed)


async def test_slicer_cuts_into_small_pieces():
    """Every read gets little, and all of it comes."""
    async with proxied([b"0123456789" * 3, fin()]) as (_, proxy):
        proxy.add(Slicer(5, size_variation=2, delay=0.005))
        pieces = []
        async with talking(proxy) as (reader, _):
            while piece := await reader.read(100):
                pieces.append(piece)
        assert b"".join(pieces) == b"0123456789" * 3
        assert len(pieces) >= 4
        assert max(map(len, pieces)) <= 14


async def test_limit_data_closes_after_so_many_bytes():
    """Seven bytes pass, then the connection is closed at both ends."""
    async with proxied([b"0123456789", stall()]) as (raw, proxy):
        proxy.add(LimitData(7))
        async with talking(proxy) as (reader, _):
            assert await reader.read() == b"0123456"
        await raw.until(lambda: raw.connections[0].closed)


async def test_removing_a_toxic_relieves_what_it_holds():
    """An open connection that was to wait for half a minute goes on at once."""
    async with proxied([b"held", stall()]) as (raw, proxy):
        name = proxy.add(Latency(30))
        async with talking(proxy) as (reader, _):
            await raw.until(lambda: len(raw.connections) == 1)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await reader.read(1)
            proxy.remove(name)
            assert await reader.readexactly(4) == b"held"


async def test_toxicity_spares_some_connections_and_repeats_itself():
    """Half of the connections are hit, the same ones for the same seed."""
    hit = []
    for _ in range(2):
        async with proxied([b"1", fin()], seed=5) as (_, proxy):
            proxy.add(Timeout(0.01), toxicity=0.5)
            answers = []
            for _ in range(12):
                async with talking(proxy) as (reader, _):
                    answers.append(await reader.read())
            assert proxy.accepted == 12
            hit.append(answers)
    assert hit[0] == hit[1]
    assert set(hit[0]) == {b"", b"1"}


async def test_down_refuses_and_cuts_until_up():
    """The port is closed, open connections end, and later it is the same port again."""
    async with proxied([b"1", stall()]) as (_, proxy):
        async with talking(proxy) as (reader, _):
            assert await reader.read(1) == b"1"
            await proxy.down()
            assert await reader.read() == b""
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(proxy.host, proxy.port)
        await proxy.up()
        async with talking(proxy) as (reader, _):
            assert await reader.read(1) == b"1"


async def test_a_dead_server_ends_the_clients_connection():
    """Where no server listens behind the proxy, the client's connection is closed."""
    async with RawServer({}) as raw:
        port = raw.port
    async with FaultProxy(port) as proxy, talking(proxy) as (reader, _):
        assert await reader.read() == b""


# ----------------------------------------------------------------------------------------- clock


async def test_virtual_time_passes_when_somebody_sleeps():
    """An hour takes one turn of the loop, and both clocks show it."""
    clock = VirtualClock()
    began = clock.now()
    turns = []
    asyncio.get_running_loop().call_soon(turns.append, 1)
    await clock.sleep(3600)
    clock.advance(60)
    assert (clock.monotonic(), clock.slept, turns) == (3660, [3600], [1])
    assert clock.now() - began == timedelta(seconds=3660)
    with pytest.raises(ValueError, match="does not go back"):
        clock.advance(-1)


def test_a_wall_clock_may_jump():
    """Setting the wall clock leaves the monotonic one alone."""
    clock = VirtualClock()
    began = clock.now()
    clock.set_wall(timedelta(hours=-8))
    assert (clock.monotonic(), clock.now() - began) == (0, timedelta(hours=-8))


def test_chance_repeats_itself():
    """The same seed, the same numbers."""
    first, second, other = VirtualClock(seed=1), VirtualClock(seed=1), VirtualClock(seed=2)
    assert first.random() == second.random() != other.random()


# ----------------------------------------------------------------------------------------- leaks


@pytest.fixture
def impatient(monkeypatch):
    """Leaks are not given a second to go away by themselves."""
    monkeypatch.setattr("harness.leaks._SETTLING", 0.02)


async def test_a_task_left_behind_is_named_with_its_stack(impatient):
    """The report says which task, and where it waits."""
    before = snapshot()
    stray = asyncio.create_task(asyncio.Event().wait(), name="stray")
    with pytest.raises(AssertionError, match=r"(?s)task 'stray' running.*Event.wait.*locks.py"):
        await assert_nothing_left(before)
    stray.cancel()
    await assert_nothing_left(before)


async def test_a_socket_left_behind_is_named(impatient):
    """The report says which descriptor, and that it is a socket; pools may be spared."""
    before = snapshot()
    with closing(socket.socket()) as stray:
        with pytest.raises(AssertionError, match=rf"file {stray.fileno()}: socket:"):
            await assert_nothing_left(before)
        await assert_nothing_left(before, serving=True)
        with pytest.raises(AssertionError, match="socket:"):
            assert_nothing_open(before)
    assert_nothing_open(before)


def test_a_file_left_behind_is_named(impatient):
    """The report says which file."""
    before = snapshot()
    with Path(__file__).open(), pytest.raises(AssertionError, match=r"test_harness\.py"):
        assert_nothing_open(before)


def test_a_thread_left_behind_is_named(impatient):
    """The report says which thread."""
    before = snapshot()
    go = threading.Event()
    stray = threading.Thread(target=go.wait, name="stray")
    stray.start()
    with pytest.raises(AssertionError, match="thread 'stray'"):
        assert_nothing_open(before)
    go.set()
    stray.join()
    assert_nothing_open(before)


async def test_what_is_just_ending_is_waited_for():
    """A task, a thread and a transport that need some more turns are no leaks."""
    before = snapshot()
    async with RawServer(stall()) as raw:
        _, writer = await asyncio.open_connection(raw.host, raw.port)
        writer.close()
    threading.Timer(0.03, int).start()
    ending = asyncio.create_task(asyncio.sleep(0.03))
    await assert_nothing_left(before)
    assert ending.done()


LEAKY = """
import asyncio, socket, time
import aiovbo

kept = []

async def test_task():
    kept.append(asyncio.create_task(asyncio.sleep(60), name="stray"))

def test_socket():
    kept.append(socket.socket())

async def test_forgotten():
    socket.socket()

async def test_blocking():
    source = "import time" + chr(10) + "time.sleep(0.01)"
    exec(compile(source, aiovbo.__path__[0] + "/_made_up.py", "exec"))

async def test_blocking_of_others():
    time.sleep(0.001)

async def test_sound():
    server = await asyncio.start_server(print, "127.0.0.1", 0)
    await asyncio.to_thread(int)
    server.close()
"""


def test_every_test_is_watched(tmp_path):
    """The fixtures around every test report each kind of leak where it happened, and nothing else."""
    file = tmp_path / "test_leaky.py"
    file.write_text(LEAKY)
    command = [sys.executable, "-m", "pytest", "-c", HERE.parent / "pyproject.toml", "-p", "conftest"]
    run = subprocess.run(  # our own file
        [*command, "-p", "no:cacheprovider", file],
        env={**os.environ, "PYTHONPATH": str(HERE)},
        capture_output=True,
        text=True,
        check=False,
    )
    summary = run.stdout[run.stdout.index("short test summary") :]
    found = set(re.findall(r"(ERROR|FAILED) .*::test_(\w+) - (\w+)", summary))
    assert found == {
        ("ERROR", "task", "AssertionError"),
        ("ERROR", "socket", "AssertionError"),
        ("FAILED", "forgotten", "pytest"),
        ("FAILED", "blocking", "blockbuster"),
    }, run.stdout
    assert "task 'stray'" in run.stdout
    assert "2 failed, 4 passed, 2 errors" in run.stdout


# ---------------------------------------------------------------------------------------- canary


@attrs.frozen
class Shown:
    """A value that shows what it holds."""

    text: str


@attrs.frozen
class Hidden:
    """A value that hides it from repr, and from nothing else."""

    text: str = attrs.field(repr=False)


class Plain:
    """An object that keeps it in an attribute."""

    def __init__(self, text):
        self.text = text


def raised(error, cause=None):
    """An exception that was raised, and of what."""
    try:
        raise error from cause  # noqa: TRY301  # it is to be raised, and no more
    except Exception as caught:  # whatever it is
        return caught


def noted(text):
    """An exception with a note."""
    error = ValueError("x")
    error.add_note(text)
    return error


def unsaid(text):
    """An exception whose context is not printed, and still there."""
    try:
        try:
            raise ValueError(text)  # noqa: TRY301  # the same
        except ValueError:
            raise KeyError("x") from None
    except KeyError as caught:
        return caught


def in_sdk_frame(text, file="_made_up.py"):
    """An exception that went through a frame of the SDK with the text in a local."""
    import aiovbo  # only its folder is needed

    path = Path(aiovbo.__file__).parent / file
    scope = {}
    exec(compile("def f(password):\n    raise ValueError\n", path, "exec"), scope)  # noqa: S102  # our own text
    try:
        scope["f"](text)
    except ValueError as caught:
        return caught


HIDING_PLACES = {
    "text": lambda text: f"<{text}>",
    "items.text": lambda text: {"a": [1, (text,)]},
    "repr": Shown,
    "asdict": Hidden,
    "vars": Plain,
    "pickle 0": noted,
    "args": lambda text: ValueError({"a": text}),
    "cause.repr": lambda text: raised(ValueError("x"), KeyError(text)),
    "context.repr": unsaid,
    "notes.text": noted,
    "group.repr": lambda text: ExceptionGroup("x", [ValueError(text)]),
    "group.cause.repr": lambda text: ExceptionGroup("x", [raised(ValueError(), OSError(text))]),
    "_made_up.py:2 local password": in_sdk_frame,
}


@pytest.mark.parametrize("place", HIDING_PLACES)
def test_a_canary_is_found_wherever_it_hides(canary, place):
    """Each place is searched, and named without giving the secret away."""
    secret = canary.secret()
    thing = HIDING_PLACES[place](secret)
    assert any(place in found for found in canary.found_in(thing)), canary.found_in(thing)
    with pytest.raises(AssertionError) as caught:
        canary.assert_absent(1, thing)
    assert canary.found_in(str(caught.value)) == []


WRITTEN = {
    "percent": lambda text: quote(text, safe=""),
    "form": lambda text: aiohttp.FormData({"password": text})()._value.decode(),  # what is sent
    "json": lambda text: str(json_answer({"a": text}).decode()),
    "basic": lambda text: base64.b64encode(f"DOM\\u:{text}".encode()).decode(),
    "base64": lambda text: base64.b64encode(f"ab{text}c".encode()).decode(),
    "urlsafe": lambda text: base64.urlsafe_b64encode(f"{text}".encode()).decode(),
    "hex": lambda text: text.encode().hex(),
    "repr": lambda text: repr([text]),
}


@pytest.mark.parametrize("way", WRITTEN)
def test_a_canary_is_found_however_it_is_written(canary, way):
    """Encodings do not hide it."""
    secret = canary.watch('Pä&ss+ w%rd\\"/x')
    assert canary.found_in(WRITTEN[way](secret)) == ["text"]


def test_what_holds_no_canary_is_clean(canary):
    """Other secrets, frames of others, and what will not be pickled are no finds."""
    secret = canary.secret()
    frame_of_test = raised(ValueError())
    frame_of_server = in_sdk_frame(secret, "testing/_made_up.py")
    canary.assert_absent("other", frame_of_test, frame_of_server, threading.Lock(), {1: None}, secret[:9])


def test_logs_are_heard_from_debug_on_with_what_they_hold(canary):
    """Arguments and exceptions of log records are searched, of every logger."""
    secret = canary.secret()
    log = logging.getLogger("another.package")
    for said in (
        lambda: log.debug("password %s", secret),
        lambda: log.debug("object %s", Hidden(secret)),
        lambda: log.debug("failed", exc_info=raised(KeyError(), ValueError(secret))),
    ):
        said()
        with pytest.raises(AssertionError, match="LogRecord"):
            canary.assert_absent()
        canary.records.clear()


def test_a_short_secret_is_refused(canary):
    """It might be found by chance."""
    with pytest.raises(ValueError, match="by chance"):
        canary.watch("secret")


# ---------------------------------------------------------------------------------- cancellation


async def test_every_await_is_cancelled_once():
    """Each suspension of the operation, in its callees too, gets its cancellation and its check."""
    seen, checks = [], []

    async def inner(name):
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            seen.append(name)
            raise

    async def operation():
        await inner("a")
        try:
            async with asyncio.timeout(1):
                await asyncio.create_task(inner("child"))
        except asyncio.CancelledError:
            seen.append("b")
            raise
        await inner("c")

    async def check():
        checks.append(1)

    assert await cancel_at_every_await(operation, check) == 3
    assert ([name for name in seen if name != "child"], len(checks)) == (["a", "b", "c"], 5)


async def test_an_operation_that_never_waits_has_no_points():
    """There is nowhere to cancel it."""

    async def operation():
        return 1

    assert await cancel_at_every_await(operation) == 0


async def test_a_swallowed_cancellation_is_reported_with_its_place():
    """Ending as if nothing had happened is a failure."""

    async def operation():
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            return

    with pytest.raises(AssertionError, match=r"point 1, .*and swallowed it"):
        await cancel_at_every_await(operation)


async def test_an_error_instead_of_the_cancellation_is_reported():
    """Something else that comes out is a failure, with its cause."""

    async def operation():
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            raise KeyError("lost") from None

    with pytest.raises(AssertionError, match="failed instead") as caught:
        await cancel_at_every_await(operation)
    assert isinstance(caught.value.__cause__, KeyError)


async def test_a_slow_cancellation_is_reported_and_ended():
    """Who takes longer than allowed to give up is reported, and not left running."""
    before = snapshot()

    async def operation():
        try:
            await asyncio.sleep(0)
        finally:
            await asyncio.sleep(0.3 if asyncio.current_task().cancelling() else 0)

    with pytest.raises(AssertionError, match=r"operation > tasks.py.*still running 0.05 s later"):
        await cancel_at_every_await(operation, within=0.05)
    await assert_nothing_left(before)


async def test_what_is_left_after_a_cancellation_is_found_by_the_check():
    """A child that outlives its cancelled parent does not go unnoticed."""
    before = snapshot()
    children = []

    async def operation():
        children.append(asyncio.create_task(asyncio.sleep(0.01)))
        await asyncio.wait(children)

    async def check():
        assert all(child.done() for child in children), "outlived"

    with pytest.raises(AssertionError, match="outlived"):
        await cancel_at_every_await(operation, check)
    await assert_nothing_left(before)


async def test_too_many_points_are_a_failure():
    """A limit that was reached is not taken for a pass."""

    async def operation():
        for _ in range(10):
            await asyncio.sleep(0)

    with pytest.raises(AssertionError, match="more than 5 points"):
        await cancel_at_every_await(operation, limit=5)
    assert await cancel_at_every_await(operation, limit=10) == 10


async def test_real_requests_are_cancelled_at_their_suspensions(client):
    """An operation over a network can be driven too, and nothing of it is left."""
    async with RawServer({("GET", ANY): http(200, b"[]")}) as raw:
        before = snapshot()

        async def operation():
            async with client.get(raw.url) as answer:
                assert await answer.json() == []

        async def check():
            await assert_nothing_left(before, serving=True)

        assert await cancel_at_every_await(operation, check) >= 1


# ------------------------------------------------------------------------------------- bystander


async def test_an_undisturbed_bystander_says_nothing():
    """Equal answers, in time, are all that is wanted."""

    async def ask():
        await asyncio.sleep(0)
        return [1]

    async with Bystander(ask, every=0.001) as bystander:
        while len(bystander.latencies) < 3:
            await asyncio.sleep(0.001)
    assert bystander.p99 < 0.5


def burn(seconds):
    """Keep the thread busy for so much CPU time."""
    ends = time.thread_time() + seconds
    while time.thread_time() < ends:
        pass


@pytest.mark.parametrize(
    ("failure", "noticed"),
    [
        (lambda: 2, "the answer changed from 1 to 2"),
        (lambda: {}["gone"], "KeyError"),
        (lambda: burn(0.25), "p99 is"),
        (lambda: asyncio.sleep(60), "longer than 0.2 s"),
    ],
)
async def test_a_bystander_notices(failure, noticed):
    """A changed answer, an error, a slow answer and one that never comes are noticed."""
    happening = []

    async def ask():
        if not happening:
            return 1
        result = failure()
        return await result if asyncio.iscoroutine(result) else result or 1

    with pytest.raises(AssertionError, match=noticed):
        async with Bystander(ask, every=0.001, at_least=1, p99=0.2):
            await asyncio.sleep(0.005)
            happening.append(1)
            await asyncio.sleep(0.02)


async def test_too_few_answers_prove_nothing():
    """A block that was over too soon is a failure."""

    async def ask():
        return 1

    with pytest.raises(AssertionError, match="got 1 answers, not 3"):
        async with Bystander(ask, every=60):
            await asyncio.sleep(0)


async def test_a_bystander_does_not_hide_the_tests_own_error():
    """The error of the block is raised, with the bystander's failure as a note."""

    async def ask():
        return object()

    with pytest.raises(KeyError) as caught:
        async with Bystander(ask):
            await asyncio.sleep(0.005)
            raise KeyError
    assert "the answer changed" in caught.value.__notes__[0]


# ------------------------------------------------------------------------------------ identities


async def greeted(identity, *, host="127.0.0.1", strict=False, client_cert=None):
    """Connect, and read the server's greeting."""
    context = identity.client_context()
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if strict:
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    if client_cert is not None:
        context.load_cert_chain(client_cert.cert_file, client_cert.key_file)
    async with (
        RawServer([b"hello", stall()], ssl=identity.context) as raw,
        talking(raw, ssl=context, server_hostname=host) as (reader, writer),
    ):
        assert await reader.readexactly(5) == b"hello"
        return writer.get_extra_info("ssl_object").getpeercert(binary_form=True)


@pytest.mark.parametrize(
    "make",
    [
        identities.good,
        identities.renewed,
        identities.reversed_chain,
        identities.weak_ca,
    ],
)
async def test_a_good_identity_is_trusted(make):
    """Nothing stands in the way of a client with its authority, and the fingerprint is its own."""
    certificate = await greeted(make())
    assert make().pin == f"sha256:{hashlib.sha256(certificate).hexdigest()}"
    assert make() is make()
    assert identities.good().pin != identities.renewed().pin


@pytest.mark.parametrize("make", [identities.good, identities.reversed_chain])
async def test_a_good_identity_is_trusted_by_the_strict(make):
    """Python 3.13's stricter rules change nothing for them."""
    await greeted(make(), strict=True)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (identities.other_ca, "unable to get local issuer|self-signed certificate in"),
        (identities.self_signed, "self-signed certificate"),
        (identities.expired, "has expired"),
        (identities.not_yet_valid, "not yet valid"),
        (identities.wrong_host, "IP address mismatch"),
        (identities.no_ip_san, "IP address mismatch"),
        (identities.cn_only, "IP address mismatch"),
        (identities.incomplete_chain, "unable to get local issuer"),
    ],
)
async def test_a_bad_identity_is_refused_for_its_one_fault(make, said):
    """Each is refused, and for the reason it is named for."""
    with pytest.raises(ssl.SSLCertVerificationError, match=said):
        await greeted(make())


async def test_a_weak_authority_is_refused_by_the_strict():
    """It lacks what Python 3.13 asks for by default."""
    with pytest.raises(ssl.SSLCertVerificationError, match="key usage"):
        await greeted(identities.weak_ca(), strict=True)


async def test_no_ip_san_is_good_for_the_name():
    """Its only fault is the address."""
    await greeted(identities.no_ip_san(), host="localhost")


async def test_a_huge_certificate_is_too_much_for_openssl():
    """Ten thousand names make a message that a client rejects, unless it is configured to accept it."""
    assert len(Path(identities.many_sans().cert_file).read_bytes()) > 100_000
    with pytest.raises(ssl.SSLError, match="EXCESSIVE_MESSAGE_SIZE"):
        await greeted(identities.many_sans())


async def test_an_old_protocol_is_refused():
    """TLS 1.1 is not spoken any more."""
    # Python before 3.11.4 lets the client's own OpenSSL refuse it first, for TLS 1.1's signature.
    with pytest.raises(ssl.SSLError, match=r"PROTOCOL|legacy sigalg"):
        await greeted(identities.tls11_only())


async def test_a_client_certificate_is_required():
    """Without one, and with an expired one, the connection fails after the handshake."""
    identity = identities.client_cert_required()
    await greeted(identity, client_cert=identities.client())
    for bad in (None, identities.expired_client()):
        with pytest.raises(ssl.SSLError, match="ALERT_CERTIFICATE"):
            await greeted(identity, client_cert=bad)
