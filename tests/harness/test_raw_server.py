"""The raw server of the tests: it sends what a test says, and records what it receives."""

import asyncio
import re
import ssl
import sys
import time

import aiohttp
import pytest
from yarl import URL

from harness import (
    ANY,
    RawServer,
    assert_nothing_left,
    black_hole,
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
from harness.peers import talking


@pytest.fixture
async def client():
    """A plain aiohttp client."""
    async with aiohttp.ClientSession() as session:
        yield session


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
