"""Names and addresses: a faulty name server affects no server whose name is resolved.

The operating system's own look-up is replaced: there is no other way to have a name server that hangs.
"""

import asyncio
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
from harness.backups import beside_a_healthy_server
from harness.raw import RawServer, vbo_routes

from aiovbo import Client, Fleet, Password, Server, ServerTimeoutError, UnreachableError

LOGIN = Password("u", "p")
Addresses = Callable[[str], list[str]]


@pytest.fixture
def known_as(monkeypatch: pytest.MonkeyPatch) -> Callable[[Addresses], None]:
    """Makes names under `.test` lead where a function says; all others are looked up as ever."""
    real = socket.getaddrinfo

    def replace(addresses: Addresses) -> None:
        def look_up(host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
            if not str(host).endswith(".test"):
                return real(host, port, *arguments, **options)
            kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
            return [(*kind, (address, port)) for address in addresses(host)]

        monkeypatch.setattr(socket, "getaddrinfo", look_up)

    return replace


def named(name: str, port: int) -> Server:
    """A v4 server under a name."""
    return Server(f"http://{name}:{port}", LOGIN, allow_http=True, api_version="v4", name=name)


async def test_a_name_server_that_hangs_delays_no_other_server(
    known_as: Callable[[Addresses], None],
) -> None:
    """50 names that are never resolved: their servers time out in that phase, closing does not wait."""
    answered = threading.Event()

    def hang(_: str) -> list[str]:
        answered.wait(50)
        return ["127.0.0.1"]

    known_as(hang)
    try:
        bad = named("bad.test", 1)
        async with beside_a_healthy_server(bad) as fleet:
            answer = await fleet["bad.test"].restore_sessions().answer()
        assert isinstance(answer.error, ServerTimeoutError)
        assert answer.error.phase == "dns"
        servers = [named(f"vbo{n}.test", 1) for n in range(50)]
        async with RawServer(vbo_routes()) as raw:
            here = Server(raw.url, LOGIN, allow_http=True, api_version="v4", name="here")
            async with Fleet([*servers, here], connect_timeout=40, retries=0) as fleet:
                answers = fleet.restore_sessions().answers()
                first = await anext(answers)
                assert (first.server, first.error) == ("here", None)
                await answers.aclose()
            async with Fleet(servers, connect_timeout=0.5, retries=0) as fleet:
                for one in (await fleet.restore_sessions()).failed:
                    assert isinstance(one.error, ServerTimeoutError)
                    assert one.error.phase == "dns"
    finally:
        answered.set()
        while any(thread.name == "aiovbo blocking call" for thread in threading.enumerate()):
            await asyncio.sleep(0.01)


async def test_of_several_addresses_the_one_that_answers_is_taken(
    known_as: Callable[[Addresses], None],
) -> None:
    """The first one refuses."""
    known_as(lambda _: ["127.0.0.2", "127.0.0.1"])
    async with RawServer(vbo_routes()) as raw, Client(named("two.test", raw.port)) as client:
        assert await client.restore_sessions() == []


async def test_a_server_that_has_moved_is_found_at_once(known_as: Callable[[Addresses], None]) -> None:
    """No old address is remembered once the connection is gone."""
    address = ["127.0.0.2"]
    known_as(lambda _: address)
    async with RawServer(vbo_routes()) as raw, Client(named("moved.test", raw.port), retries=0) as client:
        with pytest.raises(UnreachableError, match="refused"):
            await client.restore_sessions()
        address[:] = ["127.0.0.1"]
        assert await client.restore_sessions() == []


async def test_where_everything_is_out_of_reach_our_own_network_is_suspected() -> None:
    """One sentence that saves an hour; not where a single server answers."""
    away = [Server(f"name{n}.invalid", LOGIN) for n in range(3)]
    async with Fleet(away, retries=0) as fleet:
        result = await fleet.restore_sessions()
        with pytest.raises(ExceptionGroup, match="own network"):
            result.raise_for_failures()
    async with RawServer(vbo_routes()) as raw:
        there = Server(raw.url, LOGIN, allow_http=True, api_version="v4")
        async with Fleet([*away, there], retries=0) as fleet:
            result = await fleet.restore_sessions()
            with pytest.raises(ExceptionGroup) as caught:
                result.raise_for_failures()
        assert "own network" not in str(caught.value)


async def test_proxies_and_netrc_of_the_environment_are_never_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """They would see the password, or add one of their own."""
    netrc = tmp_path / "netrc"
    netrc.write_text("default login evil password evil\n")
    netrc.chmod(0o600)
    async with RawServer(vbo_routes()) as proxy, RawServer(vbo_routes()) as raw:
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.setenv("NETRC", str(netrc))
        server = Server(raw.url, LOGIN, allow_http=True, api_version="v4")
        async with Client(server) as client:
            assert await client.restore_sessions() == []
        assert proxy.received == 0
        assert all("evil" not in str(request.headers) for request in raw.requests)
