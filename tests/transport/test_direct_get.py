"""The direct path of GETs and aiohttp's public API: what users and servers see of either is the same."""

import asyncio
import functools
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, cast

import aiohttp
import pytest
from aiohttp.client_proto import ResponseHandler
from attrs import evolve, frozen
from harness.cancel import cancel_at_every_await
from harness.forward_proxy import forward_proxy
from harness.raw import RawServer, Script, Step, fin, in_turn, rst, stall
from harness.response_corpus import CHUNKED, CORPUS, CUT_OFF, GOOD, LIMIT, turns
from harness.tls import good
from hypothesis import given
from hypothesis import strategies as st

from aiovbo import TLS, Bearer, Client, Fleet, PayloadError, Server, ServerError
from aiovbo._protocol.messages import Redacted
from aiovbo._transport import direct_get
from aiovbo._transport.direct_get import SWITCH, DirectGet
from aiovbo._transport.http_session import HttpSession
from aiovbo.testing import SimClock

PUBLIC, DIRECT = "1", "0"


@frozen
class Seen:
    """What three requests look like from outside: an ordinary one, an odd one, an ordinary one."""

    outcomes: tuple[object, ...]
    """To the user: status, headers and body, or the error."""
    requests: tuple[object, ...]
    """To the server: the bytes of each request, and over which connection it came."""


def session_of(fleet: Fleet) -> HttpSession:
    """What carries the fleet's requests."""
    carrier = fleet._pool.carrier
    assert isinstance(carrier, HttpSession)
    return carrier


async def outcome(client: Client, path: str) -> object:
    """The response to a request, or its error."""
    try:
        found = await client.request("GET", path)
    except ServerError as error:
        known = (type(error), error.what, error.phase, error.attempts, error.retryable, error.hint)
        return (*known, getattr(error, "status", None))
    return found.status, sorted(found.headers.items()), found.body


def server_at(raw: RawServer, name: str = "raw") -> Server:
    """How a raw server is reached; it needs no login."""
    tls = TLS(ca_file=good().ca_file) if raw.url.startswith("https") else TLS()
    return Server(raw.url, Bearer("t"), api_version="v4", name=name, allow_http=True, tls=tls)


@asynccontextmanager
async def reached(
    script: Script, *, secure: bool = False, **limits: Any
) -> AsyncGenerator[tuple[Fleet, RawServer]]:
    """A fleet, and a server of it that gives an odd response at /v4/Odd; a healthy one is beside it."""
    routes: dict[tuple[str, Any], Script] = {
        ("GET", "/v4/First"): GOOD,
        ("GET", "/v4/Odd"): script,
        ("GET", "/v4/Last"): GOOD,
    }
    context = good().context if secure else None
    settings: dict[str, Any] = {"retries": 0, "max_body": LIMIT, "max_resource": LIMIT, **limits}
    async with (
        RawServer(routes, ssl=context) as raw,
        RawServer({("GET", "/v4/First"): GOOD}, ssl=context) as other,
    ):
        tls = TLS(ca_file=good().ca_file) if secure else TLS()
        servers = [
            Server(one.url, Bearer("t"), api_version="v4", name=name, allow_http=True, tls=tls)
            for name, one in (("raw", raw), ("healthy", other))
        ]
        async with Fleet(servers, **settings) as fleet:
            before = await outcome(fleet["healthy"], "First")
            yield fleet, raw
            assert await outcome(fleet["healthy"], "First") == before
        assert len(other.connections) == 1


def seen_by(raw: RawServer) -> list[object]:
    """The bytes of the requests of each connection, how many there were, and whether it was ended."""
    port = b":%d" % raw.port
    return [
        (bytes(one.data).replace(port, b":port"), len(one.requests), one._ended.is_set())
        for one in raw.connections
    ]


async def seen_of(
    script: Script, monkeypatch: pytest.MonkeyPatch, path: str, *, secure: bool = False
) -> Seen:
    """What is seen of an odd response between two good ones, on one of the two paths."""
    monkeypatch.setenv(SWITCH, path)
    async with reached(script, secure=secure) as (fleet, raw):
        outcomes: list[object] = []
        for name in ("First", "Odd", "Last"):
            outcomes.append(await outcome(fleet["raw"], name))
            await turns()(raw.connections[0])
        seen = seen_by(raw)
        direct = session_of(fleet).direct
        assert (direct is None) == (path == PUBLIC)
        # Which path carried them, the healthy server's among them. Some statuses are requested twice.
        assert direct is None or direct.sent > len(outcomes)
    return Seen(tuple(outcomes), tuple(seen))


async def assert_same(
    script: Callable[[], Script], monkeypatch: pytest.MonkeyPatch, *, secure: bool = False
) -> None:
    """Fails where the two paths differ."""
    public = await seen_of(script(), monkeypatch, PUBLIC, secure=secure)
    direct = await seen_of(script(), monkeypatch, DIRECT, secure=secure)
    assert direct == public


@pytest.mark.parametrize("case", CORPUS)
async def test_both_paths_give_the_same_response_or_error(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And send the same bytes over the same connections, before and after it."""
    await assert_same(lambda: CORPUS[case], monkeypatch)


@pytest.mark.parametrize("case", [*CUT_OFF, "chunks", "a second response", "an error that goes on", "408"])
async def test_both_paths_are_the_same_over_tls(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where an end of the connection may come with or without TLS's own."""
    await assert_same(lambda: CORPUS[case], monkeypatch, secure=True)


KEPT: dict[str, Callable[[], Script]] = {
    "closed when the request comes": lambda: in_turn(fin(), GOOD),
    "reset when the request comes": lambda: in_turn(rst(), GOOD),
    "closed twice": lambda: in_turn(fin(), fin(), GOOD),
    "closed in the response": lambda: in_turn([GOOD[:20], fin()], GOOD),
    "closed behind an interim response": lambda: in_turn([b"HTTP/1.1 100 Continue\r\n\r\n", fin()], GOOD),
    "closed while idle": lambda: [GOOD, turns(), fin()],
    "reset while idle": lambda: [GOOD, turns(), rst()],
}
"""What a server does with a connection that was kept."""


@pytest.mark.parametrize("case", KEPT)
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_a_kept_connection_that_proves_dead_costs_the_same_attempts(
    case: str, *, secure: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GET is sent a second time where aiohttp would, and never a third time."""
    await assert_same(KEPT[case], monkeypatch, secure=secure)


@given(data=st.data())
async def test_a_response_in_any_packets_cut_off_anywhere_is_the_same(data: st.DataObject) -> None:
    """With bytes changed, left out and put in."""
    whole = bytearray(data.draw(st.sampled_from([one for one in CORPUS.values() if isinstance(one, bytes)])))
    for _ in range(data.draw(st.integers(0, 2))):
        at = data.draw(st.integers(0, min(len(whole), 200)))
        whole[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=3)))
    parts = [bytes(whole[a:b]) for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    end = data.draw(st.sampled_from([fin(), rst()]))
    script: Script = [step for part in parts for step in (part, turns())] + [end]
    with pytest.MonkeyPatch.context() as monkeypatch:
        # It is chance whether a reset overtakes what was sent ahead of it: its difference counts if it stays.
        for _ in range(2 if end == rst() else 0):
            public, direct = [await seen_of(script, monkeypatch, path) for path in (PUBLIC, DIRECT)]
            if direct == public:
                return
        await assert_same(lambda: script, monkeypatch)


INVALID_LATER: dict[str, tuple[bytes, bytes]] = {
    "longer than its size": (b"1\r\n{", b"}\r\n0\r\n\r\n"),
    "a size that is no number": (b"2\r\n{}\r\n", b"zz\r\n{}\r\n"),
    "a size of 40 digits": (b"2\r\n{}\r\nfff", b"f" * 37 + b"\r\n{}"),
    "an invalid trailer": (b"2\r\n{}\r\n0\r\n", b"no trailer\r\n\r\n"),
}
"""Chunks that begin well."""


@pytest.mark.parametrize("path", [PUBLIC, DIRECT], ids=["public", "direct"])
@pytest.mark.parametrize("end", [fin, rst, stall])
@pytest.mark.parametrize("case", INVALID_LATER)
async def test_chunks_that_become_invalid_end_the_request_at_once(
    case: str, end: Callable[[], Step], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the server leaves the connection open: nothing waits until the limit for silence."""
    first, then = INVALID_LATER[case]
    seen = await seen_of([CHUNKED + first, turns(), then, turns(), end()], monkeypatch, path)
    kind, what, phase, *_ = cast("tuple[object, ...]", seen.outcomes[1])
    assert (kind, what, phase) == (PayloadError, "the response broke off", "body")


STOPS: dict[str, Script] = {
    "no response": stall(),
    "half a head": [GOOD[:30], stall()],
    "an interim response only": [b"HTTP/1.1 100 Continue\r\n\r\n", stall()],
    "half a body": [GOOD[:-3], stall()],
}


@pytest.mark.skipif("AIOVBO_TEST_LOOP" in os.environ, reason="SimClock works with asyncio's event loops only")
@pytest.mark.parametrize("case", STOPS)
async def test_silence_times_out_in_the_same_phase(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the next request goes over a new connection."""
    seen: list[Seen] = []
    for path in (PUBLIC, DIRECT):
        monkeypatch.setenv(SWITCH, path)
        clock = SimClock(auto=False)
        async with reached(STOPS[case], clock=clock) as (fleet, raw):
            outcomes = [await outcome(fleet["raw"], "First")]
            request = asyncio.create_task(outcome(fleet["raw"], "Odd"))
            await raw.until(lambda raw=raw: len(raw.requests) == 2)
            await turns()(raw.connections[0])
            await clock.advance(100)
            outcomes += [await request, await outcome(fleet["raw"], "Last")]
        seen.append(Seen(tuple(outcomes), tuple(seen_by(raw))))
    assert seen[0] == seen[1]
    assert "ServerTimeoutError" in str(seen[0].outcomes[1])


@pytest.mark.parametrize("path", [PUBLIC, DIRECT])
async def test_a_cancelled_request_leaves_no_connection_in_use(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it is cancelled; the next request gets its own response."""
    monkeypatch.setenv(SWITCH, path)
    parts: Script = [step for at in range(0, len(GOOD), 40) for step in (GOOD[at : at + 40], turns(5))]
    async with reached(parts) as (fleet, raw):
        whole = await outcome(fleet["raw"], "Odd")

        async def check() -> None:
            connector = session_of(fleet)._connector
            assert connector is not None
            assert not connector._acquired
            assert await outcome(fleet["raw"], "First") == await outcome(fleet["raw"], "Odd") == whole

        assert await cancel_at_every_await(lambda: fleet["raw"].request("GET", "Odd"), check, within=5.0) > 0
        for number in range(60):
            task = asyncio.create_task(fleet["raw"].request("GET", "Odd"))
            await turns(number)(raw.connections[0])
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await check()
        direct = session_of(fleet).direct
        assert (direct is None) == (path == PUBLIC)
        assert direct is None or direct.sent >= len(raw.requests)


@pytest.mark.parametrize("case", ["interim", "letters", "no second try", "a third try", "never kept"])
async def test_the_comparison_finds_a_broken_direct_path(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each way in which it could differ is put in, and one of the responses shows it."""
    shown_by = break_direct_path(case, monkeypatch)
    with pytest.raises(AssertionError):
        await assert_same(shown_by, monkeypatch)


def break_direct_path(case: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Script]:
    """Put a fault into the direct path; gives the response that shows it."""
    exchange = DirectGet._exchange
    match case:
        case "interim":
            monkeypatch.setattr(direct_get, "_INTERIM", frozenset())
            return lambda: CORPUS["continue"]
        case "letters":
            head = direct_get._head
            monkeypatch.setattr(
                direct_get, "_head", lambda *given: head(*given).replace(b"Accept: ", b"accept: ")
            )
            return lambda: CORPUS["204"]
        case "no second try":
            monkeypatch.setattr(DirectGet, "__aenter__", entered_once)
            return KEPT["closed when the request comes"]
        case "a third try":

            async def twice(request: DirectGet) -> None:
                try:
                    await exchange(request)
                except aiohttp.ServerDisconnectedError:
                    await exchange(request)

            monkeypatch.setattr(DirectGet, "_exchange", twice)
            return KEPT["closed twice"]
        case _:

            async def leave(request: DirectGet, *_: object) -> None:
                connection, request._connection = request._connection, None
                if connection is not None:
                    connection.close()

            monkeypatch.setattr(DirectGet, "__aexit__", leave)
            return lambda: CORPUS["an error of 64 KiB and more"]


async def entered_once(request: DirectGet) -> DirectGet:
    """The direct path without its second try."""
    await request._exchange()
    return request


@pytest.fixture
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """The direct path may be used, also where the whole run is one without it."""
    monkeypatch.delenv(SWITCH, raising=False)


async def sent_directly(fleet: Fleet, name: str = "raw") -> bool:
    """Whether the next GET takes the direct path."""
    direct = session_of(fleet).direct
    assert direct is not None
    before = direct.sent
    assert (await outcome(fleet[name], "First"))[0] == HTTPStatus.OK  # type: ignore[index]  # it is a response
    return direct.sent > before


@pytest.mark.usefixtures("direct")
@pytest.mark.parametrize("name", ["request", "_request"])
async def test_a_replaced_function_of_aiohttp_sees_every_request(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For as long as it is replaced, as libraries that mock or instrument aiohttp do it."""
    called: list[object] = []
    original = getattr(aiohttp.ClientSession, name)

    @functools.wraps(original)
    def instead(*given: Any, **named: Any) -> Any:
        called.append(given)
        return original(*given, **named)

    async with reached(GOOD) as (fleet, _):
        assert await sent_directly(fleet)
        with monkeypatch.context() as patch:
            patch.setattr(aiohttp.ClientSession, name, instead)
            assert not await sent_directly(fleet)
        assert len(called) == 1
        assert await sent_directly(fleet)


class Proxy:
    """Stands for a function and equals it, as the wrappers of instrumentation packages do."""

    def __init__(self, wrapped: Callable[..., Any], called: list[str]) -> None:
        self.wrapped = wrapped
        self.called = called

    def __get__(self, session: object, owner: type) -> Any:
        return self if session is None else functools.partial(self, session)

    def __call__(self, *given: Any, **named: Any) -> Any:
        """Note the call, and make it."""
        self.called.append(self.wrapped.__name__)
        return self.wrapped(*given, **named)

    def __eq__(self, other: object) -> bool:
        return self.wrapped == other

    def __hash__(self) -> int:
        return hash(self.wrapped)


@pytest.mark.usefixtures("direct")
async def test_a_wrapper_that_equals_what_it_wraps_sees_every_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A function of aiohttp is recognized by identity."""
    called: list[str] = []
    async with reached(GOOD) as (fleet, _):
        assert await sent_directly(fleet)
        with monkeypatch.context() as patch:
            patch.setattr(aiohttp.ClientSession, "_request", Proxy(aiohttp.ClientSession._request, called))
            assert not await sent_directly(fleet)
        assert called == ["_request"]
        assert await sent_directly(fleet)


@pytest.mark.usefixtures("direct")
async def test_a_function_that_was_replaced_before_the_fleet_began_rules_it_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where the replacement has name and module of aiohttp's own."""
    original = aiohttp.ClientSession._request

    @functools.wraps(original)
    async def instead(*given: Any, **named: Any) -> Any:
        return await original(*given, **named)

    monkeypatch.setattr(aiohttp.ClientSession, "_request", instead)
    async with reached(GOOD) as (fleet, _):
        assert session_of(fleet).direct is None


@pytest.mark.usefixtures("direct")
async def test_a_trace_that_is_added_later_sees_every_request() -> None:
    """As a library may add one to a session that is open."""
    seen: list[str] = []

    async def note(_: object, __: object, parameters: aiohttp.TraceRequestStartParams) -> None:
        seen.append(parameters.url.path)

    async with reached(GOOD) as (fleet, _):
        assert await sent_directly(fleet)
        trace = aiohttp.TraceConfig()
        trace.on_request_start.append(note)
        trace.freeze()
        session = session_of(fleet)._session
        assert session is not None
        session.trace_configs.append(trace)
        assert not await sent_directly(fleet)
    assert seen == ["/v4/First", "/v4/First"]  # of the healthy server too


@pytest.mark.usefixtures("direct")
async def test_an_aiohttp_that_parses_otherwise_rules_it_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shown by a response that is parsed when the session is opened."""

    async def read(_: ResponseHandler) -> object:
        raise NotImplementedError

    monkeypatch.setattr(ResponseHandler, "read", read)
    async with Fleet([Server("http://127.0.0.1:1", Bearer("t"), name="raw", allow_http=True)]) as fleet:
        await fleet._pool.open()
        assert session_of(fleet).direct is None


@pytest.mark.usefixtures("direct")
async def test_other_methods_proxies_and_lent_sessions_use_the_public_interface() -> None:
    """They are no plain GETs over a connection of the SDK."""
    async with reached(GOOD) as (fleet, raw):
        direct = session_of(fleet).direct
        assert direct is not None
        before = direct.sent
        with pytest.raises(ServerError):
            await fleet["raw"].request("POST", "First", json={})
        assert direct.sent == before
        server = server_at(raw)
        async with aiohttp.ClientSession() as lent, Client(server, http=lent) as client:
            assert (await client.request("GET", "First")).status == HTTPStatus.OK
            carrier = client._requester.endpoint.pool.carrier
            assert isinstance(carrier, HttpSession)
            assert carrier.direct is None
    async with (
        reached(GOOD, secure=True) as (_, raw),
        forward_proxy() as proxy,
        Fleet([evolve(server_at(raw), proxy=proxy.url)]) as fleet,
    ):
        assert not await sent_directly(fleet)


async def test_a_token_with_odd_characters_is_left_to_aiohttp() -> None:
    """Which refuses what could end a header."""
    headers = Redacted({"Accept": "*/*", "Authorization": "Bearer a\r\nX: y"})
    assert not direct_get._are_plain(headers)
