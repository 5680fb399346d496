"""The network and HTTP at their worst: each fault has its error, and a healthy server does not notice."""

import asyncio
import gzip
import json
import tracemalloc
import zlib

import pytest
from attrs import evolve
from harness import FaultProxy, VirtualClock, black_hole, closed_port
from harness import proxy as toxics
from harness.backups import beside_a_healthy_server, server_of
from harness.documents import V4_EXAMPLE
from harness.raw import (
    Connection,
    RawServer,
    Script,
    fin,
    http,
    json_answer,
    repeat,
    rst,
    send,
    sleep,
    stall,
    token_answer,
    vbo_routes,
)

from aiovbo import (
    AuthenticationError,
    Bearer,
    Client,
    Clock,
    ConfigError,
    Password,
    PayloadError,
    ResponseError,
    Server,
    ServerError,
    ServerFaultError,
    ServerTimeoutError,
    UnreachableError,
)
from aiovbo.testing import BackupServer, Fault, World

LOGIN = Password("u", "p")
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


async def error_of(server: Server, **limits: object) -> ServerError:
    """What asking `server` fails with, beside a healthy one; it does not hang."""
    async with beside_a_healthy_server(server, **limits) as fleet, asyncio.timeout(60):
        answer = await fleet[server.name].restore_sessions().answer()
        assert answer.error is not None
        assert not answer.complete
        assert answer.items == ()
        text = str(answer.error)
        assert server.name in text
        assert "tried" in text
        return answer.error


def at(url: str) -> Server:
    """A v4 server at a plain address."""
    return Server(url, LOGIN, allow_http=True, api_version="v4", name="bad")


async def error_behind(script: Script, **limits: object) -> ServerError:
    """What a listing that is answered by this script fails with."""
    async with RawServer(vbo_routes(sessions=script)) as raw:
        return await error_of(at(raw.url), **limits)


async def test_a_name_that_does_not_resolve() -> None:
    """Said as such, with the name, which need not be the server's in the fleet, and with the phase."""
    error = await error_of(at("http://name.invalid:4443"), deadline=5.0, connect_timeout=5.0)
    assert isinstance(error, UnreachableError)
    assert error.phase == "dns"
    assert "name.invalid" in error.what
    assert error.retryable


async def test_a_refused_connection() -> None:
    """At once."""
    with closed_port() as port:
        error = await error_of(at(f"http://127.0.0.1:{port}"))
    assert type(error) is UnreachableError
    assert error.phase == "connect"
    assert error.retryable
    assert error.attempts == 1


async def test_a_black_hole_ends_with_the_connect_timeout() -> None:
    """Not with the operating system's minutes."""
    with black_hole() as port:
        error = await error_of(at(f"http://127.0.0.1:{port}"))
    assert isinstance(error, ServerTimeoutError)
    assert error.phase == "connect"


async def test_localhost_is_reached_by_whichever_address_answers() -> None:
    """Where only IPv4 listens, ::1 does not stand in the way."""
    async with (
        RawServer(vbo_routes()) as raw,
        beside_a_healthy_server(at(f"http://localhost:{raw.port}")) as fleet,
    ):
        assert await fleet["bad"].restore_sessions() == []


SILENT: dict[str, tuple[Script, str]] = {
    "no answer": (stall(), "read"),
    "half a status line": ([send(b"HTTP/1.1 2"), stall()], "read"),
    "headers without end": ([send(b"HTTP/1.1 200 OK\r\n"), repeat(b"X: y\r\n", every=0.1)], "read"),
    "a body that stops": ([send(HEAD + b"Content-Length: 99\r\n\r\n["), stall()], "body"),
    "a body that trickles": ([send(HEAD + b"Content-Length: 9999\r\n\r\n"), repeat(b" ", every=0.1)], "body"),
    "a chunk that stops": ([send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n["), stall()], "body"),
    "endless interim responses": (repeat(b"HTTP/1.1 103 Early Hints\r\n\r\n", every=0.1), "read"),
}


@pytest.mark.parametrize("case", SILENT)
async def test_silence_ends_in_time_with_its_phase(case: str) -> None:
    """By the read timeout, or by the deadline where each gap is shorter."""
    script, phase = SILENT[case]
    error = await error_behind(script)
    assert isinstance(error, ServerTimeoutError)
    assert isinstance(error, TimeoutError)
    assert error.phase == phase
    assert error.retryable


GARBLED: dict[str, Script] = {
    "another protocol": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "an alert of TLS": [send(b"\x15\x03\x03\x00\x02\x02\x28"), fin()],
    "no status": b"HTTP/1.1 abc\r\n\r\n",
    "a bad chunk size": [send(HEAD + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n[]\r\n"), fin()],
    "two lengths": HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n[]",
    "a length and chunks": HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a header too long": http(body=b"[]", headers=[("X", "y" * 9000)]),
    "too many headers": http(body=b"[]", headers=[(f"X-{n}", "y") for n in range(10_000)]),
    "no answer but the end": [fin()],
    "a reset": [rst()],
    "a reset in the headers": [send(b"HTTP/1.1 200 OK\r\nContent-"), sleep(0.05), rst()],
    "a short body": [send(HEAD + b"Content-Length: 99\r\n\r\n["), fin()],
    "a reset body": [send(HEAD + b"Content-Length: 99\r\n\r\n["), sleep(0.05), rst()],
    "a short chunked body": [send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n["), fin()],
    "a body without length, cut": [send(HEAD + b"\r\n" + V4_EXAMPLE[:300]), fin()],
    "brotli that was not requested": http(body=b"\x0b\x02\x80[]\x03", headers=[("Content-Encoding", "br")]),
    "gzip that is none": http(body=b"no gzip at all", headers=[("Content-Encoding", "gzip")]),
    "gzip cut short": http(body=gzip.compress(V4_EXAMPLE)[:80], headers=[("Content-Encoding", "gzip")]),
}


@pytest.mark.parametrize("case", GARBLED)
async def test_what_is_garbled_is_an_error_that_may_pass_and_never_an_empty_listing(case: str) -> None:
    """Neither an HTTP 400 that the server never sent, nor aiohttp's own exception."""
    error = await error_behind(GARBLED[case])
    assert isinstance(error, PayloadError | UnreachableError)
    assert not isinstance(error, ResponseError)
    assert error.retryable


@pytest.mark.parametrize(
    "answer",
    [http(), http(204, content_type=None), http(304, content_type=None), http(206, b"[]"), http(body=b"null"),
     http(body=b"<html>sign in</html>", content_type="text/html"), http(301, headers=[("Location", "/x")])],
)  # fmt: skip
async def test_an_odd_success_is_an_error_and_never_no_sessions(answer: bytes) -> None:
    """Empty, not modified, partial, a web page, a redirect."""
    assert isinstance(await error_behind(answer), PayloadError)


ITEM = b'{"id": "0800471b-d0e2-422b-9d7c-35d15661c3fb", "creationTime": "2026-01-01T00:00:00Z"'
JSON = {
    "a depth bomb": b"[" * 100_000,
    "a depth bomb of objects": b'{"a":' * 100_000,
    "a depth bomb inside an item": b"[" + ITEM + b', "name": ' + b"[" * 100_000 + b"]" * 100_000 + b"}]",
    "a number of 5,000 digits": b"[" + ITEM + b', "eTag": ' + b"9" * 5000 + b"}]",
    "no number": b"[" + ITEM + b', "eTag": NaN}]',
    "an infinite number": b"[" + ITEM + b', "eTag": 1e400}]',
    "half a surrogate pair": b"[" + ITEM + rb', "name": "\ud800"}]',
    "what steers a terminal": b"[" + ITEM + rb', "name": "\u001b[2J\u0000\u202e\r\n"}]',
    "a byte order mark": b"\xef\xbb\xbf[" + ITEM + b"}]",
    "another encoding": ("[" + ITEM.decode() + "}]").encode("utf-16"),
    "bytes that are no text": b"[" + ITEM + b', "name": "\xff\xfe"}]',
    "a number where a list belongs": b"5",
    "null where a list belongs": b'{"results": null}',
    "an object where a list belongs": b'{"results": {}}',
    "items of every kind but the right one": b'[null, 5, "x", [], {}, true]',
    "the same name a thousand times": b"[" + ITEM + b', "name": "x"' * 1000 + b"}]",
    "ten thousand items": b"[" + b",".join([ITEM + b"}"] * 10_000) + b"]",
    "ten thousand invalid items": b"[" + b",".join([b'{"id": 5}'] * 10_000) + b"]",
    "an item of ten megabytes": b"[" + ITEM + b', "name": "' + b"x" * 10_000_000 + b'"}]',
}


@pytest.mark.parametrize("case", JSON)
async def test_json_at_its_worst_is_the_failure_of_one_server(case: str) -> None:
    """A listing without the rejected items, or a PayloadError; a healthy server goes on answering."""
    script = http(body=JSON[case])
    server = RawServer(vbo_routes(sessions=script))
    # Enough time on a busy machine to decode what is invalid row by row.
    async with server as raw, beside_a_healthy_server(at(raw.url), deadline=20) as fleet:
        answer = await fleet["bad"].restore_sessions().answer()
    if answer.error is not None:
        assert isinstance(answer.error, PayloadError)
        assert str(answer.error).isprintable()
        assert len(str(answer.error)) < 800
    for session in answer.items:
        assert str(session.name).encode()
    assert answer.complete is (answer.error is None and not answer.rejected)
    assert answer.error or answer.rejected or len(answer.items) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("where", ["sessions", "token"])
@pytest.mark.parametrize(
    "place", ["{other}/v4/x", "//{other_host}/v4/x", "file:///etc/passwd", "/v4/RestoreSessions"]
)
async def test_no_redirect_is_followed_wherever_it_leads(status: int, where: str, place: str) -> None:
    """To another server, another scheme, a file, or back to itself; no other server receives the password."""
    async with RawServer(vbo_routes()) as other:
        there = place.format(other=other.url, other_host=f"127.0.0.1:{other.port}")
        script = http(status, headers=[("Location", there)])
        async with (
            RawServer(vbo_routes(**{where: script})) as raw,
            beside_a_healthy_server(at(raw.url)) as fleet,
        ):
            answer = await fleet["bad"].restore_sessions().answer()
            asked = len(raw.requests)
        assert isinstance(answer.error, PayloadError)
        assert "redirect" in str(answer.error)
        assert other.received == 0
        assert asked <= 2


@pytest.mark.parametrize("text", ["vbo1\r\nX: y", "https://vbo1\x00", "https://vbo1/\n", "https://v bo1"])
def test_a_server_url_with_control_characters_is_refused_here(text: str) -> None:
    """Nothing of the caller's can end a line of a request."""
    with pytest.raises(ConfigError):
        Server(text, LOGIN)


@pytest.mark.parametrize("token", ["a\r\nX: y", "a b", "ü", "", "x" * 70_000])
async def test_a_token_that_no_header_can_hold_is_refused_here(token: str) -> None:
    """Before anything is sent."""
    async with RawServer(vbo_routes()) as raw:
        server = Server(raw.url, Bearer(token), allow_http=True, api_version="v4")
        async with Client(server) as client:
            with pytest.raises(AuthenticationError):
                await client.restore_sessions()
        assert raw.received == 0


@pytest.mark.parametrize("status", [405, 406, 415, 418, 299, 599, 501])
async def test_an_unknown_status_is_reported_with_its_number(status: int) -> None:
    """Whatever it means."""
    error = await error_behind(http(status, b'{"message": "odd"}'))
    assert str(status) in str(error)


async def test_a_proxys_page_is_not_shown_as_the_servers_words() -> None:
    """Of its HTML nothing is in the error; how long it asks to wait is."""
    page = b"<html><script>alert(1)</script>" + b"<p>gateway</p>" * 10_000
    away = http(503, page, content_type="text/html", headers=[("Retry-After", "90")])
    error = await error_behind(away)
    assert isinstance(error, ServerFaultError)
    assert (error.retry_after, error.message) == (90, "")
    assert "<" not in str(error)
    assert len(str(error)) < 300
    login_page = await error_behind(http(body=page, content_type="text/html"))
    assert "proxy, a login page" in login_page.hint


CHARSETS = [
    "utf-16",
    "UTF-16LE",
    "utf-16-be",
    "windows-1252",
    "Windows-1253",
    "iso-8859-1",
    "ISO-8859-7",
    "utf-8",
]


@pytest.mark.parametrize("charset", CHARSETS)
async def test_a_declared_charset_is_decoded(charset: str) -> None:
    """UTF-16, and the charsets of Windows and of ISO: for sessions, and for the texts of errors."""
    greek = charset.endswith(("3", "7")) or ("8859" not in charset and "125" not in charset)
    name = "\u03a9mega" if greek else "\xe9t\xe9"
    rows = json.dumps([{**json.loads(ITEM + b"}"), "name": name}], ensure_ascii=False).encode(charset)
    kind = f'application/json; Charset="{charset}"'
    async with (
        RawServer(vbo_routes(sessions=http(body=rows, content_type=kind))) as raw,
        beside_a_healthy_server(at(raw.url)) as fleet,
    ):
        answer = await fleet["bad"].restore_sessions().answer()
    assert [one.name for one in answer.items] == [name]
    assert answer.complete
    said = json.dumps({"message": name}, ensure_ascii=False).encode(charset)
    error = await error_behind(http(500, body=said, content_type=kind))
    assert isinstance(error, ServerFaultError)
    assert error.message == name


@pytest.mark.parametrize("charset", ["klingon", "utf-32", "shift_jis", "x" * 500, "a\\b"])
async def test_an_error_names_the_charset_that_is_not_supported(charset: str) -> None:
    """Guessing would change texts; what is plain ASCII needs no guess."""
    body = json.dumps([{"name": "\xe9"}], ensure_ascii=False).encode(
        "utf-32" if charset == "utf-32" else "utf-8"
    )
    error = await error_behind(http(body=body, content_type=f"application/json; charset={charset}"))
    assert isinstance(error, PayloadError)
    assert f"charset {charset[:30]}" in str(error)
    assert len(str(error)) < 300


async def test_an_answer_after_interim_ones_and_of_a_strange_charset_is_taken() -> None:
    """Plain ASCII is the same in every charset."""
    final = http(body=b"[]", content_type="application/json; charset=klingon")
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    async with (
        RawServer(vbo_routes(sessions=[interim * 3, final])) as raw,
        beside_a_healthy_server(at(raw.url)) as fleet,
    ):
        assert (await fleet["bad"].restore_sessions().answer()).complete


BOMBS = {
    "an honest length": http(body=b"", headers=[("Content-Length", str(10**12))]),
    "endless chunks": [
        send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n"),
        repeat(b"10000\r\n" + b" " * 65536 + b"\r\n"),
    ],
    "a gzip bomb": http(body=gzip.compress(b" " * 50_000_000), headers=[("Content-Encoding", "gzip")]),
    "a deflate bomb": http(body=zlib.compress(b" " * 50_000_000), headers=[("Content-Encoding", "deflate")]),
    "a text without end": [
        send(HEAD + b'Transfer-Encoding: chunked\r\n\r\n8\r\n[{"id":"\r\n'),
        repeat(b"10000\r\n" + b"x" * 65536 + b"\r\n"),
    ],
}


@pytest.mark.parametrize("case", BOMBS)
async def test_a_body_that_is_too_large_is_not_read_to_its_end(case: str) -> None:
    """The cap counts what comes out of the decompression, and memory stays within a few times of it."""
    tracemalloc.start()
    try:
        error = await error_behind(BOMBS[case], max_body=4_000_000, deadline=60.0, read_timeout=30.0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * 4_000_000
    assert isinstance(error, PayloadError)
    assert "larger than 4,000,000 bytes" in str(error)
    assert not error.retryable


SMUGGLED = {
    "two answers": HEAD + b"Content-Length: 2\r\n\r\n[]" + HEAD + b"Content-Length: 5\r\n\r\nevil!",
    "two lengths": HEAD + b"Content-Length: 2\r\nContent-Length: 7\r\n\r\n[]evil!",
    "chunks too": HEAD + b"Content-Length: 7\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n0\r\n\r\nevil!",
    "more than the length": HEAD + b"Content-Length: 2\r\n\r\n[]evil!",
}  # fmt: skip


@pytest.mark.parametrize("case", SMUGGLED)
async def test_a_connection_with_something_left_over_is_not_used_again(case: str) -> None:
    """What is left of one answer can never be taken for another."""
    async with (
        RawServer(vbo_routes(sessions=SMUGGLED[case])) as raw,
        beside_a_healthy_server(at(raw.url)) as fleet,
    ):
        for _ in range(3):
            answer = await fleet["bad"].restore_sessions().answer()
            assert answer.items == ()
            assert answer.error is None or isinstance(answer.error, PayloadError)
            assert "evil" not in str(answer.error)
        listings = [request.connection for request in raw.asked("GET", "*")]
        assert len(listings) == len(set(listings)) == 3


async def test_a_kept_connection_that_the_server_has_closed_costs_a_repetition_and_no_error() -> None:
    """Even without retries, since nothing was answered; the answer shows that it was sent twice."""

    async def hang_up_at_the_second(connection: Connection) -> None:
        while (request := await connection.read_request()) is not None:
            if request.method == "GET" and len(raw.asked("GET", "*")) == 2:
                return await connection.fin()
            await connection.send(token_answer() if request.method == "POST" else json_answer([]))
        return None

    async with (
        RawServer(hang_up_at_the_second) as raw,
        beside_a_healthy_server(at(raw.url)) as fleet,
    ):
        for attempts in (1, 2, 1):
            answer = await fleet["bad"].restore_sessions().answer()
            assert answer.error is None
            assert answer.attempts == attempts
        assert len(raw.asked("GET", "*")) == 4


async def test_latency_spikes_are_not_answered_by_a_storm() -> None:
    """Half of the answers come too late: some requests are repeated, few beyond the server's budget."""
    virtual = VirtualClock()
    clock = Clock(virtual.monotonic, virtual.now, virtual.sleep, virtual.random)
    async with RawServer(vbo_routes()) as raw, FaultProxy(raw.port) as proxy:
        server = at(f"http://127.0.0.1:{proxy.port}")
        async with beside_a_healthy_server(server, read_timeout=0.04, retries=2, clock=clock) as fleet:
            await fleet["bad"].restore_sessions()
            proxy.add(toxics.Latency(0.04, 0.04))
            outcomes = [(await fleet["bad"].restore_sessions().answer()).error for _ in range(50)]
        sent = len(raw.asked("GET", "*")) - 1
    assert {type(error) for error in outcomes} == {type(None), ServerTimeoutError}
    assert 50 < sent <= 50 + 10 + 50 * 0.1


async def test_a_narrow_line_ends_with_the_deadline_and_keeps_what_had_come() -> None:
    """A kilobyte per second: the first page is there, the second would take minutes."""
    async with BackupServer(World(sessions=40, speed=0)) as backup, FaultProxy(backup.port) as proxy:
        whole = server_of(backup)
        server = Server(f"https://127.0.0.1:{proxy.port}", whole.credentials, tls=whole.tls, name="bad")
        async with beside_a_healthy_server(server) as fleet:
            query = fleet["bad"].restore_sessions(page_size=20)
            assert (await query.answer()).complete
            backup.fail(Fault.delay(0.1), on="RestoreSessions", when=lambda r: "offset=20" in r.query)
            asyncio.get_running_loop().call_later(0.05, proxy.add, toxics.Bandwidth(1000))
            answer = await query.answer()
    assert isinstance(answer.error, ServerTimeoutError)
    assert answer.error.phase in ("read", "body")
    assert len(answer.items) == 20
    assert not answer.complete


async def test_an_outage_is_not_answered_by_a_flood() -> None:
    """Twenty servers at 503, each asked every second of a minute: at most 1.1 requests a call, once warm."""
    virtual = VirtualClock()

    async def sleep_without_others(_: float) -> None:
        await asyncio.sleep(0)

    clock = Clock(virtual.monotonic, virtual.now, sleep_without_others, virtual.random)
    async with (
        RawServer(vbo_routes(sessions=http(503))) as raw,
        beside_a_healthy_server(at(raw.url), retries=2, clock=clock) as fleet,
    ):
        for number in range(19):
            login = Password(f"user{number}", "p")
            fleet.add(evolve(at(raw.url), name=f"bad{number}", credentials=login))
        sick = [name for name in fleet if name != "healthy"]
        sent = [0]
        for _ in range(60):
            for name in sick:
                answer = await fleet[name].restore_sessions().answer()
                assert isinstance(answer.error, ServerFaultError)
            virtual.advance(1)
            sent.append(len(raw.asked("GET", "*")))
    assert sent[60] <= 20 * (60 + 10 + 60 * 0.1 + 1)
    assert sent[60] - sent[10] <= 20 * 50 * 1.1


async def test_a_link_that_flaps_recovers_by_itself() -> None:
    """Down: an error. Up again: an answer, without anything being reset by hand."""
    async with BackupServer() as backup, FaultProxy(backup.port) as proxy:
        whole = server_of(backup)
        server = Server(f"https://127.0.0.1:{proxy.port}", whole.credentials, tls=whole.tls, name="bad")
        async with beside_a_healthy_server(server) as fleet:
            for _ in range(3):
                assert (await fleet["bad"].restore_sessions().answer()).error is None
                await proxy.down()
                assert (await fleet["bad"].restore_sessions().answer()).error is not None
                await proxy.up()
            assert (await fleet["bad"].restore_sessions().answer()).error is None
