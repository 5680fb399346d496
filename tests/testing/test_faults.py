"""Faults on purpose: what arrives at the client, and which request it hits."""

import asyncio
import time

import aiohttp
import pytest

from aiovbo.testing import BackupServer, Fault, World

PATH = "/v8/RestoreSessions"


async def until(condition):
    """Wait for something that is about to happen."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def statuses(client, count):
    return [(await client.get(PATH)).status for _ in range(count)]


async def test_status_comes_with_headers_and_the_vendors_body(connect):
    """As from the server itself, or with a body as from a proxy."""
    client = await connect()
    client.server.fail(Fault.status(429, headers={"Retry-After": "7"}))
    answer = await client.get(PATH)
    assert (answer.status, answer.headers["Retry-After"]) == (429, "7")
    assert answer.body["errorCode"] is None
    headers = {"Content-Type": "text/html"}
    client.server.fail(Fault.status(503, headers=headers, body=b"<html>"))
    answer = await client.get(PATH)
    assert (answer.status, answer.body, answer.headers["Content-Type"]) == (
        503,
        b"<html>",
        "text/html",
    )


async def test_redirect_empty_and_foreign_bodies(connect):
    """Each instead of the good answer, once."""
    client = await connect()
    client.server.fail(Fault.redirect("https://elsewhere.example/", 307))
    client.server.fail(Fault.empty())
    client.server.fail(Fault.body(b"<html>", "text/html"))
    client.server.fail(Fault.body(b'{"results": 5}'))
    redirect, empty, page, wrong, good = [await client.get(PATH) for _ in range(5)]
    assert (redirect.status, redirect.headers["Location"]) == (307, "https://elsewhere.example/")
    assert (empty.status, empty.body) == (200, b"")
    assert (page.status, page.body) == (200, b"<html>")
    assert (wrong.status, wrong.body) == (200, {"results": 5})
    assert (good.status, good.body["offset"]) == (200, 0)


async def test_edit_changes_the_good_answer_and_leaves_refusals_alone(connect):
    """The function sees decoded JSON; what it returns is sent."""
    client = await connect(World(sessions=3))
    client.server.fail(Fault.edit(lambda page: page | {"results": None}), times=2)
    assert (await client.get(PATH)).body["results"] is None
    assert (await client.get(PATH, token="wrong")).status == 401


async def test_delay_gives_the_good_answer_late(connect):
    """Not before the time is over."""
    client = await connect()
    client.server.fail(Fault.delay(0.1))
    start = time.monotonic()
    assert (await client.get(PATH)).status == 200
    assert time.monotonic() - start >= 0.09


@pytest.mark.parametrize("reset", [False, True])
async def test_drop_closes_before_any_byte(connect, reset):
    """What was asked for is not done: a dropped login is none."""
    client = await connect(log_in=False)
    client.server.fail(Fault.drop(reset=reset), on="token")
    with pytest.raises(aiohttp.ClientConnectionError):
        await client.log_in()
    assert client.server.logins == 0
    assert [one.status for one in client.server.requests] == [None]


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("after", [0, 100, 10**9])
async def test_cut_sends_a_part_of_the_body(connect, reset, after):
    """The head promises the whole; at most all but one byte come."""
    client = await connect()
    client.server.fail(Fault.cut(after, reset=reset))
    headers = {"Authorization": f"Bearer {client.token}"}
    url = client.server.url + PATH
    async with client.http.get(url, headers=headers, ssl=client.tls) as response:
        assert response.status == 200
        promised, received = response.content_length, b""
        with pytest.raises((aiohttp.ClientPayloadError, aiohttp.ClientConnectionError)):
            while True:
                received += await response.content.readany()
    assert promised > 1000
    assert len(received) == min(after, promised - 1) or (reset and len(received) < promised)


async def test_cut_login_was_done_all_the_same(connect):
    """The reply is lost, the token was given out."""
    client = await connect(log_in=False)
    client.server.fail(Fault.cut(10), on="token")
    with pytest.raises(aiohttp.ClientError):
        await client.log_in()
    assert client.server.logins == 1


@pytest.mark.parametrize("after", [None, 0, 100])
async def test_stall_sends_a_part_and_then_nothing(connect, after):
    """It ends when the client goes; the next request is answered."""
    client = await connect()
    client.server.fail(Fault.stall(after))
    headers = {"Authorization": f"Bearer {client.token}"}
    asking = client.http.get(client.server.url + PATH, headers=headers, ssl=client.tls)
    if after is None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3), asking:
                pytest.fail("an answer begins")
    else:
        async with asking as response:
            assert len(await response.content.readexactly(after)) == after
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    pytest.fail(f"more arrives: {await response.content.readany()!r}")
    assert (await client.get(PATH)).status == 200


@pytest.mark.parametrize("after", [None, 50])
async def test_stall_does_not_hold_up_stopping(connect, after):
    """A stopping server leaves stalled clients at once."""
    client = await connect()
    client.server.fail(Fault.stall(after), times=None)
    already = len(client.server.requests)
    waiting = [asyncio.create_task(client.get(PATH)) for _ in range(5)]
    await until(lambda: len(client.server.requests) == already + 5)
    start = time.monotonic()
    await client.server.stop()
    assert time.monotonic() - start < 10
    ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(end, aiohttp.ClientError) for end in ended)


async def test_stopping_cuts_delays_short(connect):
    """A delayed answer does not hold up the stop."""
    client = await connect()
    client.server.fail(Fault.delay(60))
    already = len(client.server.requests)
    waiting = asyncio.create_task(client.get(PATH))
    await until(lambda: len(client.server.requests) > already)
    start = time.monotonic()
    await client.server.stop()
    assert time.monotonic() - start < 10
    await asyncio.gather(waiting, return_exceptions=True)


async def test_trickle_sends_the_whole_body_in_pieces(connect):
    """Nothing is lost, and it takes its time; a client that closes its connection causes no error."""
    client = await connect(World(sessions=1))
    whole = (await client.get(f"{PATH}/{client.server.world.sessions[0].id}")).body
    client.server.fail(Fault.trickle(0.01, 100), times=2)
    start = time.monotonic()
    assert (await client.get(f"{PATH}/{whole['id']}")).body == whole
    assert time.monotonic() - start > 0.04
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.03):
            await client.get(PATH)
    assert (await client.get(PATH)).status == 200


async def test_faults_hit_the_paths_they_are_meant_for(connect):
    """Globs on the path below the version, in any case."""
    client = await connect(World(sessions=1))
    server = client.server
    one = f"{PATH}/{server.world.sessions[0].id}"
    for on, hit in [
        ("restoresessions", [PATH]),
        ("RestoreSessions/*", [one, f"{one}/organization"]),
        ("RestoreSessions*", [PATH, one, f"{one}/organization"]),
        ("*/organization", [f"{one}/organization"]),
        ("ServiceInstance", ["/v8/ServiceInstance", "/v6/serviceinstance"]),
        (None, [PATH, one, "/v8/ServiceInstance", "/nowhere"]),
        ("token", []),
    ]:
        server.fail(Fault.status(503), on=on, times=None)
        for path in [PATH, one, f"{one}/organization", "/v8/ServiceInstance", *hit]:
            status = (await client.get(path)).status
            assert (status == 503) == (path in hit or on is None), (on, path)
        server.heal()


async def test_faults_come_as_often_and_as_late_as_planned(connect):
    """`after` spares requests, `times` limits, None goes on until healing."""
    client = await connect()
    client.server.fail(Fault.status(503), after=1, times=2)
    assert await statuses(client, 5) == [200, 503, 503, 200, 200]
    client.server.fail(Fault.status(503), times=None)
    assert await statuses(client, 3) == [503] * 3
    client.server.heal()
    assert await statuses(client, 1) == [200]


async def test_faults_come_in_the_order_planned(connect):
    """The first planned that fits takes the request."""
    client = await connect()
    client.server.fail(Fault.status(500), times=1)
    client.server.fail(Fault.status(502), times=1)
    assert await statuses(client, 3) == [500, 502, 200]


async def test_faults_can_wait_for_a_certain_request(connect):
    """Any condition on the request will do, such as the page or the kind of login."""
    client = await connect()
    client.server.fail(Fault.status(503), when=lambda one: "offset=30" in one.query)
    client.server.fail(Fault.status(502), when=lambda one: one.grant_type == "refresh_token")
    assert (await client.get(PATH)).status == 200
    assert (await client.get(PATH, offset="30")).status == 503
    await client.log_in()
    assert (await client.grant("/v8/token", grant_type="refresh_token")).status == 502


async def test_faults_are_planned_from_any_thread():
    """A server in a thread of its own can be controlled from outside."""
    server = BackupServer(tls=False)
    with server.run_in_thread():
        server.fail(Fault.status(418))
        async with aiohttp.ClientSession() as http, http.get(server.url + PATH) as response:
            assert response.status == 418


def test_faults_say_what_they_do():
    """Their text names them, so that a failing test can print its plan."""
    assert "cut(10)" in repr(Fault.cut(10))
    assert Fault.cut(10) == Fault.cut(10) != Fault.cut(11)
