"""Certificate trust does not depend on the event loop, or on what makes its TLS connections."""

import asyncio
import json
import ssl
import sys
import textwrap
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import pytest
from harness import tls
from harness.backups import server_of
from harness.forward_proxy import ForwardProxy, forward_proxy
from harness.raw import RawServer, fin, vbo_routes

from aiovbo import (
    TLS,
    Client,
    Fleet,
    Password,
    PayloadError,
    Server,
    ServerTimeoutError,
    TlsError,
    UnreachableError,
    fetch_certificate,
)
from aiovbo.testing import BackupServer

aiofastnet = pytest.importorskip("aiofastnet")
uvloop = pytest.importorskip("uvloop")

# The first loop of libuv opens a pipe for the whole process, which is no leak of a test.
uvloop.new_event_loop().close()

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.SelectorEventLoop,
    "uvloop": uvloop.new_event_loop,
    "aiofastnet": aiofastnet.loop_factory(asyncio.SelectorEventLoop),
    "aiofastnet on uvloop": aiofastnet.loop_factory(uvloop.new_event_loop),
}
T = TypeVar("T")
LIMITS: dict[str, Any] = {"retries": 0, "deadline": 10, "connect_timeout": 5}

every_loop = pytest.mark.parametrize("loop", LOOPS)
each_implementation = pytest.mark.parametrize("loop", ["asyncio", "uvloop", "aiofastnet"])
two_implementations = pytest.mark.parametrize("loop", ["asyncio", "aiofastnet"])


async def run_on(loop: str, program: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run the client's side of a test in a thread, on this kind of event loop; the servers stay in ours."""

    def run() -> T:
        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            return runner.run(program())

    return await asyncio.to_thread(run)


@asynccontextmanager
async def session_for(way: str, proxy: ForwardProxy) -> AsyncIterator[aiohttp.ClientSession | None]:
    """The session to lend, or None where the client makes its own."""
    if way in ("own", "own, with a client certificate"):
        yield None
        return
    settings = {"proxy": proxy.url} if way == "through a proxy" else {}
    async with aiohttp.ClientSession(**settings) as session:
        yield session


WAYS = ("own", "own, with a client certificate", "borrowed", "through a proxy")


def policy(way: str, pin: str | list[str]) -> TLS:
    """A policy of pins, with a client certificate where the way needs one."""
    ours = tls.client()
    if "client certificate" in way:
        return TLS(pin=pin, client_cert=ours.cert_file, client_key=ours.key_file)
    return TLS(pin=pin)


@every_loop
@pytest.mark.parametrize("way", WAYS)
async def test_a_certificate_that_is_not_pinned_receives_no_byte_of_a_request(loop: str, way: str) -> None:
    """The error names the fingerprint that was seen; a healthy server of the same fleet answers."""
    identity = tls.client_cert_required() if "client certificate" in way else tls.renewed()
    pins = [tls.good().pin, tls.self_signed().pin]
    async with (
        RawServer(vbo_routes(), ssl=identity.context) as raw,
        BackupServer() as healthy,
        forward_proxy() as proxy,
    ):
        bad = Server(raw.url, Password("u", "p"), tls=policy(way, pins), name="bad")

        async def program() -> tuple[Any, int]:
            async with (
                session_for(way, proxy) as http,
                Fleet([bad, server_of(healthy, name="healthy")], http=http, **LIMITS) as fleet,
            ):
                answers = (await fleet.restore_sessions()).answers
                return answers["bad"].error, len(answers["healthy"].items)

        error, items = await run_on(loop, program)
        assert raw.received == 0
        assert isinstance(error, TlsError), repr(error)
        assert error.reason == "pin"
        assert identity.pin in str(error)
        assert error.attempts == 1
        assert not error.retryable
        assert items == 40
        assert (proxy.opened > 0) is (way == "through a proxy")


@each_implementation
@pytest.mark.parametrize("way", WAYS)
async def test_a_pinned_certificate_is_accepted(loop: str, way: str) -> None:
    """One of two pins, twice over one connection."""
    identity = tls.client_cert_required() if "client certificate" in way else tls.renewed()
    async with RawServer(vbo_routes(), ssl=identity.context) as raw, forward_proxy() as proxy:
        trust = policy(way, [tls.good().pin, identity.pin])
        server = Server(raw.url, Password("u", "p"), api_version="v4", tls=trust)

        async def program() -> None:
            async with session_for(way, proxy) as http, Client(server, http=http, **LIMITS) as client:
                assert await client.restore_sessions() == []
                assert await client.restore_sessions() == []

        await run_on(loop, program)
        assert len(raw.asked("POST", "/v4/token")) == 1
        assert len(raw.connections) == 1


@two_implementations
@pytest.mark.parametrize("borrowed", [False, True])
@pytest.mark.parametrize("name", ["other_ca", "expired", "wrong_host"])
async def test_a_certificate_that_is_not_trusted_receives_no_byte_of_a_request(
    loop: str,
    borrowed: bool,  # noqa: FBT001  # parametrised
    name: str,
) -> None:
    """By authority, date and name, without a pin."""
    reason = {"other_ca": "untrusted", "expired": "expired", "wrong_host": "hostname"}[name]
    identity: tls.Identity = getattr(tls, name)()
    async with RawServer(vbo_routes(), ssl=identity.context) as raw, forward_proxy() as proxy:
        server = Server(raw.url, Password("u", "p"), tls=TLS(ca_file=tls.good().ca_file))

        async def program() -> object:
            way = "borrowed" if borrowed else "own"
            async with session_for(way, proxy) as http, Client(server, http=http, **LIMITS) as client:
                return (await client.restore_sessions().answer()).error

        error = await run_on(loop, program)
        assert raw.received == 0
        assert isinstance(error, TlsError), repr(error)
        assert error.reason == reason


@each_implementation
async def test_a_server_that_refuses_a_client_certificate_receives_no_request(loop: str) -> None:
    """With TLS 1.3 it refuses after the handshake, and the reason may be lost with the connection."""
    identity, ours = tls.client_cert_required(), tls.expired_client()
    trust = TLS(pin=identity.pin, client_cert=ours.cert_file, client_key=ours.key_file)
    async with RawServer(vbo_routes(), ssl=identity.context) as raw:
        server = Server(raw.url, Password("u", "p"), api_version="v4", tls=trust)

        async def program() -> object:
            async with Client(server, **LIMITS) as client:
                return (await client.restore_sessions().answer()).error

        error = await run_on(loop, program)
        assert isinstance(error, UnreachableError), repr(error)
        assert not isinstance(error, TlsError) or error.reason == "client_cert"
        assert raw.received == 0


@each_implementation
async def test_a_handshake_that_stalls_is_reported_as_a_handshake(loop: str) -> None:
    """The phase is known whatever makes the handshake."""
    async with RawServer(vbo_routes()) as raw:
        server = Server(raw.url.replace("http:", "https:"), Password("u", "p"))

        async def program() -> object:
            async with Client(server, **LIMITS | {"connect_timeout": 0.3}) as client:
                return (await client.restore_sessions().answer()).error

        error = await run_on(loop, program)
    assert isinstance(error, ServerTimeoutError), repr(error)
    assert error.phase == "tls"


@each_implementation
@pytest.mark.parametrize("borrowed", [False, True])
async def test_a_handshake_that_is_cut_off_is_reported_as_a_handshake(
    loop: str,
    borrowed: bool,  # noqa: FBT001  # parametrised
) -> None:
    """With the hint on TLS versions and client certificates."""
    async with RawServer([fin()]) as raw, forward_proxy() as proxy:
        server = Server(raw.url.replace("http:", "https:"), Password("u", "p"))

        async def program() -> object:
            way = "borrowed" if borrowed else "own"
            async with session_for(way, proxy) as http, Client(server, http=http, **LIMITS) as client:
                return (await client.restore_sessions().answer()).error

        error = await run_on(loop, program)
    assert isinstance(error, UnreachableError), repr(error)
    assert error.phase == "tls", error
    assert "client_cert=" in str(error)


@two_implementations
async def test_a_certificate_is_fetched_on_every_event_loop(loop: str) -> None:
    """Its pin is the one of the server."""
    async with RawServer(vbo_routes(), ssl=tls.good().context) as raw:

        async def program() -> str:
            return (await fetch_certificate(raw.url)).pin

        assert await run_on(loop, program) == tls.good().pin
        assert raw.received == 0


@each_implementation
@pytest.mark.parametrize("scheme", ["https", "http"])
async def test_a_login_on_a_new_connection_of_a_borrowed_session_is_sent_once(loop: str, scheme: str) -> None:
    """Only a kept connection may be dead; a server that hangs up on a new one may have read the password."""
    identity = tls.good()
    routes = {("POST", "/v4/token"): [fin()]}
    async with RawServer(routes, ssl=identity.context if scheme == "https" else None) as raw:
        server = Server(
            raw.url, Password("u", "p"), api_version="v4", tls=TLS(pin=identity.pin), allow_http=True
        )

        async def program() -> object:
            async with aiohttp.ClientSession() as http, Client(server, http=http, **LIMITS) as client:
                return (await client.restore_sessions().answer()).error

        error = await run_on(loop, program)
        assert isinstance(error, PayloadError | UnreachableError), repr(error)
        assert len(raw.asked("POST", "/v4/token")) == 1


@each_implementation
@pytest.mark.parametrize("borrowed", [False, True])
async def test_a_connection_that_was_verified_under_one_policy_serves_no_other(
    loop: str,
    borrowed: bool,  # noqa: FBT001  # parametrised
) -> None:
    """Two views of one server in one fleet: the pooled connection of one is nothing to the other."""
    identity = tls.self_signed()
    async with RawServer(vbo_routes(), ssl=identity.context) as raw, forward_proxy() as proxy:
        trusts = {"pinned": TLS(pin=identity.pin), "other pin": TLS(pin=tls.good().pin), "system": TLS()}
        servers = [
            Server(raw.url, Password(f"user-{name}", "p"), api_version="v4", tls=trust, name=name)
            for name, trust in trusts.items()
        ]

        async def program() -> dict[str, object]:
            way = "borrowed" if borrowed else "own"
            async with session_for(way, proxy) as http, Fleet(servers, http=http, **LIMITS) as fleet:
                # Sequentially, so that the connection of the first is idle in the pool.
                found = {name: (await fleet[name].restore_sessions().answer()).error for name in trusts}
                assert await fleet["pinned"].restore_sessions() == []
                return found

        errors = await run_on(loop, program)
        assert errors["pinned"] is None
        for name, reason in (("other pin", "pin"), ("system", "untrusted")):
            error = errors[name]
            assert isinstance(error, TlsError), repr(error)
            assert error.reason == reason
        logins = raw.asked("POST", "/v4/token")
        assert [request.form["username"] for request in logins] == ["user-pinned"]


class _NoCheck(aiohttp.TCPConnector):
    """A connector that makes the connection with our context, and forgets to check it."""

    def _get_fingerprint(self, req: aiohttp.ClientRequest) -> None:
        pass


class _OwnContext(_NoCheck):
    """A connector that uses its own context, which verifies nothing."""

    def _get_ssl_context(self, req: aiohttp.ClientRequest) -> ssl.SSLContext | None:
        if not req.is_ssl():
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context


POLICIES = {
    "pin": lambda: TLS(pin=tls.good().pin),
    "authority": lambda: TLS(ca_file=tls.good().ca_file),
    "insecure": lambda: TLS(insecure=True),
}


@two_implementations
@pytest.mark.parametrize("trust", POLICIES)
async def test_a_borrowed_connector_that_ignores_the_policy_sends_nothing(loop: str, trust: str) -> None:
    """It connects with a context of its own: what it verified is unknown."""
    # With a pin, what counts is the certificate, and this server has another one.
    identity = tls.renewed()
    async with RawServer(vbo_routes(), ssl=identity.context) as raw:
        server = Server(raw.url, Password("u", "p"), tls=POLICIES[trust]())

        async def program() -> object:
            async with (
                aiohttp.ClientSession(connector=_OwnContext()) as http,
                Client(server, http=http, **LIMITS) as client,
            ):
                return (await client.restore_sessions().answer()).error

        error = await run_on(loop, program)
        assert raw.received == 0
        assert isinstance(error, TlsError), repr(error)
        assert error.reason == ("pin" if trust == "pin" else "untrusted")


@two_implementations
async def test_a_borrowed_connector_that_skips_the_check_sends_nothing_to_another_certificate(
    loop: str,
) -> None:
    """The connection is verified once more before a request is sent."""
    async with RawServer(vbo_routes(), ssl=tls.renewed().context) as raw:
        server = Server(raw.url, Password("u", "p"), tls=TLS(pin=tls.good().pin))

        async def program() -> object:
            async with (
                aiohttp.ClientSession(connector=_NoCheck()) as http,
                Client(server, http=http, **LIMITS) as client,
            ):
                return (await client.restore_sessions().answer()).error

        error = await run_on(loop, program)
        assert raw.received == 0
        assert isinstance(error, TlsError), repr(error)
        assert tls.renewed().pin in str(error)


@two_implementations
@pytest.mark.parametrize("trust", POLICIES)
async def test_a_borrowed_connector_without_tls_sends_nothing(loop: str, trust: str, tmp_path: Path) -> None:
    """A connector for Unix sockets makes no TLS connection, whatever the URL says."""
    received: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append(await reader.read(100))
        writer.close()

    path = str(tmp_path / "s")
    listening = await asyncio.start_unix_server(listen, path)
    server = Server("https://vbo1", Password("u", "p"), tls=POLICIES[trust]())

    async def program() -> object:
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(path)) as http,
            Client(server, http=http, **LIMITS) as client,
        ):
            return (await client.restore_sessions().answer()).error

    error = await run_on(loop, program)
    while not received:
        await asyncio.sleep(0.01)
    listening.close()
    await listening.wait_closed()
    assert received == [b""]
    assert isinstance(error, TlsError), repr(error)
    assert "nothing was sent" in str(error)


async def test_middlewares_of_a_borrowed_session_still_see_its_requests() -> None:
    """The verification is added to them."""
    seen: list[str] = []

    async def note(request: aiohttp.ClientRequest, handler: Any) -> aiohttp.ClientResponse:
        seen.append(request.method)
        response: aiohttp.ClientResponse = await handler(request)
        return response

    async with RawServer(vbo_routes(), ssl=tls.good().context) as raw:
        server = Server(raw.url, Password("u", "p"), api_version="v4", tls=TLS(pin=tls.good().pin))
        async with (
            aiohttp.ClientSession(middlewares=[note]) as session,
            Client(server, http=session, **LIMITS) as client,
        ):
            assert await client.restore_sessions() == []
    assert seen == ["POST", "GET"]


PROGRAM = """
    import asyncio, json, sys
    import aiofastnet
    from aiovbo import TLS, Client, Fleet, Password, Server

    async def main(url, pin, healthy, its_pin):
        servers = [
            Server(url, Password("u", "p"), tls=TLS(pin=pin), name="bad"),
            Server(healthy, Password("u", "p"), api_version="v4", tls=TLS(pin=its_pin), name="healthy"),
        ]
        async with Fleet(servers, retries=0, deadline=20) as fleet:
            answers = (await fleet.restore_sessions()).answers
            loop = asyncio.get_running_loop()
            error = answers["bad"].error
            print(json.dumps([
                type(error).__name__, getattr(error, "reason", None), str(error),
                repr(answers["healthy"].error), type(loop.create_connection).__name__,
            ]))

    aiofastnet.install_policy()
    asyncio.run(main(*sys.argv[1:]))
"""


async def test_with_the_policy_of_aiofastnet_installed_a_pin_is_verified() -> None:
    """In a process of its own, where every event loop is made by that policy."""
    async with (
        RawServer(vbo_routes(), ssl=tls.renewed().context) as raw,
        RawServer(vbo_routes(), ssl=tls.good().context) as healthy,
    ):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(PROGRAM),
            raw.url, tls.good().pin, healthy.url, tls.good().pin,
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        output, _ = await process.communicate()
        kind, reason, words, other, method = json.loads(output)
        assert (kind, reason) == ("TlsError", "pin")
        assert tls.renewed().pin in words
        assert other == "None"
        # Not a method of the loop any more, but a replacement of aiofastnet's.
        assert method == "partial"
        assert raw.received == 0
        assert len(healthy.requests) == 2
