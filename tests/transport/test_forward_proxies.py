"""Forward proxies: what is sent through them, and how their failures differ from those of servers."""

import base64
import pickle
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import aiohttp
import pytest
from harness import closed_port, tls
from harness.forward_proxy import ForwardProxy, forward_proxy
from harness.raw import RawServer, vbo_routes

from aiovbo import (
    TLS,
    Client,
    ConfigError,
    Fleet,
    Password,
    Server,
    ServerError,
    ServerTimeoutError,
    TlsError,
    UnreachableError,
    fetch_certificate,
)

LOGIN = Password("u", "p")
SECRET = "pr0xy-p@ss:word"
WRITTEN = "pr0xy-p%40ss%3Aword"
VARIABLES = (
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "https_proxy",
    "http_proxy",
    "no_proxy",
    "all_proxy",
)


@asynccontextmanager
async def two_proxies() -> AsyncIterator[tuple[ForwardProxy, ForwardProxy]]:
    """Two that connect."""
    async with forward_proxy() as one, forward_proxy() as two:
        yield one, two


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the proxy of the machine that the tests run on."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def server(raw: RawServer, **settings: Any) -> Server:
    """A server with the good certificate, trusted."""
    settings = {"credentials": LOGIN, "tls": TLS(pin=tls.good().pin), "api_version": "v4", **settings}
    return Server(raw.url, **settings)


async def failure(proxy: str, connect_timeout: float = 5.0) -> ServerError:
    """The error of a server behind this proxy."""
    behind = Server("vbo1.example", LOGIN, api_version="v4", proxy=proxy)
    async with Client(behind, retries=0, deadline=10, connect_timeout=connect_timeout) as client:
        error = (await client.restore_sessions().answer()).error
    assert error is not None
    return error


@pytest.mark.parametrize("trust", [TLS(pin=tls.good().pin), TLS(ca_file=tls.ca_file()), TLS(insecure=True)])
async def test_a_server_is_queried_through_its_proxy_over_one_tunnel(trust: TLS) -> None:
    """Login and listing use the same connection."""
    async with RawServer(vbo_routes(), ssl=tls.good().context) as raw, forward_proxy() as proxy:
        async with Client(server(raw, tls=trust, proxy=proxy.url)) as client:
            assert await client.restore_sessions() == []
            assert await client.restore_sessions() == []
        assert proxy.targets == [f"127.0.0.1:{raw.port}"]
        assert len(raw.connections) == 1


@pytest.mark.parametrize("trust", [TLS(pin=tls.renewed().pin), TLS(ca_file=tls.other_ca().cert_file)])
async def test_a_wrong_certificate_behind_a_proxy_sees_no_byte(trust: TLS) -> None:
    """As without a proxy."""
    async with RawServer(vbo_routes(), ssl=tls.good().context) as raw, forward_proxy() as proxy:
        async with Client(server(raw, tls=trust, proxy=proxy.url), retries=0) as client:
            error = (await client.restore_sessions().answer()).error
        assert isinstance(error, TlsError)
        assert error.phase == "tls"
        assert raw.received == 0


async def test_two_servers_with_two_proxies_share_no_connection() -> None:
    """Although their address is the same."""
    async with (
        RawServer(vbo_routes(), ssl=tls.good().context) as raw,
        forward_proxy() as one,
        forward_proxy() as two,
    ):
        servers = [
            Server(
                raw.url,
                Password(name, "p"),
                name=name,
                api_version="v4",
                tls=TLS(pin=tls.good().pin),
                proxy=proxy,
            )
            for name, proxy in {"one": one.url, "two": two.url, "direct": None}.items()
        ]
        async with Fleet(servers) as fleet:
            assert not (await fleet.restore_sessions()).failed
        assert (len(one.heads), len(two.heads), len(raw.connections)) == (1, 1, 3)


async def test_a_fleets_proxy_is_for_servers_that_have_none() -> None:
    """URLs and servers alike."""
    async with (
        RawServer(vbo_routes(), ssl=tls.good().context) as raw,
        forward_proxy() as one,
        forward_proxy() as two,
    ):
        own = server(raw, name="own", proxy=two.url)
        other = server(raw, name="other", credentials=Password("w", "p"))
        trust = TLS(insecure=True)
        async with Fleet([own, other, raw.url], Password("v", "p"), tls=trust, proxy=one.url) as fleet:
            assert not (await fleet.restore_sessions()).failed
        assert (len(one.heads), len(two.heads)) == (2, 1)


async def test_the_environment_names_the_proxy_and_who_needs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTPS_PROXY and NO_PROXY, only where `proxy` says so."""
    async with RawServer(vbo_routes(), ssl=tls.good().context) as raw, forward_proxy() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        for setting, used in ((None, 0), ("environment", 1)):
            async with Client(server(raw, proxy=setting)) as client:
                assert await client.restore_sessions() == []
            assert len(proxy.heads) == used
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        async with Client(server(raw, proxy="environment")) as client:
            assert await client.restore_sessions() == []
        assert len(proxy.heads) == 1


def test_an_environment_that_names_no_usable_proxy_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its password."""
    monkeypatch.setenv("HTTPS_PROXY", f"socks5://u:{WRITTEN}@proxy:1080")
    with pytest.raises(ConfigError, match="HTTPS_PROXY: a proxy is reached by http") as caught:
        Client(Server("vbo1", LOGIN, proxy="environment"))
    assert WRITTEN not in str(caught.value)


async def test_the_proxys_login_is_sent_to_the_proxy_alone() -> None:
    """And is shown nowhere."""
    async with RawServer(vbo_routes(), ssl=tls.good().context) as raw, forward_proxy() as proxy:
        url = proxy.url.replace("//", f"//us%C3%A9r:{WRITTEN}@")
        behind = server(raw, proxy=url)
        async with Client(behind) as client:
            assert await client.restore_sessions() == []
        login = base64.b64encode(f"usér:{SECRET}".encode())
        assert b"Proxy-Authorization: Basic " + login in proxy.heads[0]
        assert all(login not in bytes(connection.data) for connection in raw.connections)
        assert all("Proxy-Authorization" not in request.headers for request in raw.requests)
        shown = repr(behind) + str(behind) + repr(behind.proxy) + str(behind.proxy)
        assert SECRET not in shown
        assert WRITTEN not in shown
        with pytest.raises(TypeError, match="not pickled"):
            pickle.dumps(behind.proxy)


STATUSES = {
    403: ("SSL_ports", False),
    407: ("user name and the password", False),
    405: ("configuration of the proxy", False),
    502: ("resolve the server's name", True),
    503: ("resolve the server's name", True),
}


@pytest.mark.parametrize("status", STATUSES)
async def test_a_proxy_that_does_not_connect_is_named(status: int) -> None:
    """With the status, the server that it was to connect to, and what to do; without its password."""
    hint, retryable = STATUSES[status]
    head = f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n".encode()
    async with forward_proxy(head) as proxy:
        url = proxy.url.replace("//", f"//u:{WRITTEN}@")
        error = await failure(url)
        with pytest.raises(UnreachableError, match=f"HTTP {status}"):
            await fetch_certificate(Server("vbo1.example", LOGIN, proxy=url))
    assert type(error) is UnreachableError
    what = f"the proxy 127.0.0.1:{proxy.port} does not connect to vbo1.example:4443: HTTP {status}"
    assert what in str(error)
    assert hint in error.hint
    assert error.retryable is retryable
    assert error.phase == "connect"
    assert SECRET not in str(error) + repr(vars(error))
    assert WRITTEN not in str(error) + repr(vars(error))


async def test_a_proxy_that_refuses_connections_is_named() -> None:
    """The server is not blamed."""
    with closed_port() as port:
        error = await failure(f"http://127.0.0.1:{port}")
    assert f"the proxy 127.0.0.1:{port} cannot be reached" in str(error)
    assert error.phase == "connect"
    assert "REST API" not in error.hint


async def test_a_proxy_whose_name_is_unknown_is_named() -> None:
    """It is not the server's name that cannot be resolved."""
    error = await failure("http://proxy.invalid:3128")
    assert "the name of the proxy, proxy.invalid, cannot be resolved" in str(error)
    assert error.phase == "dns"
    with pytest.raises(UnreachableError, match=r"proxy, proxy\.invalid, cannot be resolved"):
        await fetch_certificate(Server("vbo1.example", LOGIN, proxy="http://proxy.invalid:3128"))


@pytest.mark.parametrize("answer", [b"SSH-2.0-x\r\n\r\n", b"\x00"])
async def test_a_proxy_that_is_none_is_named(answer: bytes) -> None:
    """Where it does not answer with HTTP."""
    async with forward_proxy(answer) as proxy:
        error = await failure(proxy.url)
        assert f"the proxy 127.0.0.1:{proxy.port} did not respond" in str(error)
        with pytest.raises(UnreachableError, match="did not respond"):
            await fetch_certificate(Server("vbo1.example", LOGIN, proxy=proxy.url))


async def test_a_proxy_that_does_not_answer_is_named() -> None:
    """When the time to connect is over."""
    async with RawServer({}) as silent:
        silent.script = lambda connection: connection.stall()
        error = await failure(silent.url, connect_timeout=0.1)
    assert isinstance(error, ServerTimeoutError)
    assert f"through the proxy 127.0.0.1:{silent.port}" in str(error)
    assert error.phase == "connect"


async def test_a_failing_server_behind_a_proxy_is_not_the_proxys_failure() -> None:
    """Its response is read as without a proxy."""
    async with (
        RawServer({}, ssl=tls.good().context) as raw,
        forward_proxy() as proxy,
        Client(server(raw, proxy=proxy.url), retries=0) as client,
    ):
        error = (await client.restore_sessions().answer()).error
    assert error is not None
    assert not isinstance(error, UnreachableError)
    assert "proxy" not in error.what


async def test_a_certificate_is_fetched_through_the_proxy() -> None:
    """As for a pin."""
    async with RawServer(vbo_routes(), ssl=tls.good().context) as raw, forward_proxy() as proxy:
        found = await fetch_certificate(server(raw, proxy=proxy.url))
        assert found.pin == tls.good().pin
        assert proxy.targets == [f"127.0.0.1:{raw.port}"]


@pytest.mark.parametrize(
    "proxy",
    [
        "https://proxy:3128",
        "socks5://proxy:1080",
        "http://",
        "http://a b:1",
        "http://proxy:1/path",
        "",
        "http://:s3cr3t@p:1",
        5,
    ],
)
def test_a_proxy_that_cannot_be_one_is_rejected(proxy: object) -> None:
    """When it is set, without a password."""
    with pytest.raises(ConfigError, match="proxy") as caught:
        Server("vbo1", LOGIN, proxy=cast("Any", proxy))
    assert "s3cr3t" not in str(caught.value)


async def test_a_session_with_trust_env_is_rejected_with_a_way_out() -> None:
    """The error names the setting."""
    async with aiohttp.ClientSession(trust_env=True) as session:
        with pytest.raises(ConfigError, match='proxy="environment"'):
            Fleet(["vbo1"], LOGIN, http=session)


def inventory(**settings: Any) -> dict[str, Any]:
    """One server."""
    return {
        "allow_literal_secrets": True,
        "servers": {"a": {"url": "vbo1", "credentials": {"token": "t"}}},
        **settings,
    }


def test_an_inventory_sets_proxies() -> None:
    """In defaults, groups and servers."""
    written = inventory(defaults={"proxy": "environment"})
    assert Fleet.from_mapping(written)["a"].server.proxy == "environment"
    written["servers"]["a"]["proxy"] = "http://proxy:3128"
    assert str(Fleet.from_mapping(written)["a"].server.proxy) == "proxy:3128"
    written["servers"]["a"]["proxy"] = "ftp://u:s3cr3t@proxy"
    with pytest.raises(ConfigError, match=r"servers\.a\.proxy: a proxy is reached by http") as caught:
        Fleet.from_mapping(written)
    assert "s3cr3t" not in str(caught.value)


def test_a_proxys_password_in_an_inventory_needs_permission(monkeypatch: pytest.MonkeyPatch) -> None:
    """As other secrets in plain text."""
    monkeypatch.setenv("A_TOKEN", "t")
    written = inventory(allow_literal_secrets=False, defaults={"proxy": "http://u:s3cr3t@proxy:3128"})
    written["servers"]["a"]["credentials"] = {"token": {"env": "A_TOKEN"}}
    with pytest.raises(ConfigError, match=r"defaults\.proxy: a password in plain text") as caught:
        Fleet.from_mapping(written)
    assert "s3cr3t" not in str(caught.value)
