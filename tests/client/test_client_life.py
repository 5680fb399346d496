"""Closing, event loops, and sessions that the caller lends."""

import asyncio
import gc
import warnings
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from harness.backups import asked, server_of

from aiovbo import (
    Bearer,
    Client,
    ClosedError,
    ConfigError,
    Fleet,
    PayloadError,
    Server,
)
from aiovbo.testing import BackupServer, Exchange, Fault, World


async def test_a_client_that_is_closed_says_so() -> None:
    """Closing twice is fine; asking afterwards is not."""
    async with BackupServer() as backup:
        client = Client(server_of(backup))
        assert len(await client.restore_sessions()) == 40
        session = (await client.restore_sessions())[0]
        await client.aclose()
        await client.aclose()
        for use in (client.restore_sessions(), session.fetch_organization()):
            with pytest.raises(ClosedError):
                await use


async def test_closing_ends_what_is_under_way() -> None:
    """A query that waits for a silent server ends at once, and says why."""
    async with BackupServer() as backup:
        client = Client(server_of(backup))
        await client.restore_sessions()
        backup.fail(Fault.stall(), on="RestoreSessions", times=None)
        waiting = asyncio.ensure_future(client.restore_sessions().answer())
        while asked(backup) < 2:
            await asyncio.sleep(0.01)
        await client.aclose()
        with pytest.raises(ClosedError):
            await asyncio.wait_for(waiting, 20)


def test_a_client_belongs_to_one_event_loop() -> None:
    """Used from a second one it explains itself instead of hanging."""
    with BackupServer().run_in_thread() as backup:
        client = Client(server_of(backup))

        async def use() -> None:
            await client.restore_sessions()

        async def close() -> None:
            with pytest.raises(ClosedError, match="another event loop"):
                await client.restore_sessions()

        with asyncio.Runner() as first:
            first.run(use())
            with asyncio.Runner() as second:
                second.run(close())
                with pytest.raises(ClosedError, match="another event loop"):
                    second.run(client.aclose())
            first.run(client.aclose())


def test_what_was_never_closed_says_so() -> None:
    """By the names of its servers, beside what aiohttp says of its session."""

    async def forget(server: Server) -> None:
        await Client(server, retries=0).restore_sessions().answer()

    with BackupServer().run_in_thread() as backup, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        asyncio.run(forget(server_of(backup, name="vbo1")))
        gc.collect()
    said = [str(one.message) for one in caught if one.category is ResourceWarning]
    assert "a fleet or client (vbo1) was never closed: async with it, or await its aclose()" in said


async def test_a_borrowed_session_is_used_and_not_closed() -> None:
    """The application that lent it goes on using it."""
    async with BackupServer() as backup, aiohttp.ClientSession() as http:
        async with Client(server_of(backup), http=http) as client:
            assert len(await client.restore_sessions()) == 40
        assert not http.closed


async def test_on_a_borrowed_session_nothing_that_may_have_arrived_is_sent_again() -> None:
    """Its connector does not report when a connection is established: the handshake does."""

    async def do_it_and_hang_up(exchange: Exchange) -> web.StreamResponse:
        exchange.answer()
        exchange.hang_up(reset=False)
        return web.Response(status=500)

    connector = aiohttp.TCPConnector(force_close=True)
    async with (
        BackupServer(World(sessions=0), version="v8") as backup,
        BackupServer() as bystander,
        aiohttp.ClientSession(connector=connector) as http,
        Client(server_of(backup), http=http) as client,
        Client(server_of(bystander), http=http) as healthy,
    ):
        backup.fail(Fault("does it and hangs up", do_it_and_hang_up), on="Organization/explore", times=None)
        with pytest.raises(PayloadError, match=r"tried once.*It may have been done"):
            await client.explore("Vex")
        assert len(backup.world.sessions) == 1
        backup.fail(Fault.drop(), on="token", times=None)
        backup.expire_tokens()
        with pytest.raises(PayloadError):
            await client.restore_sessions()
        assert asked(backup, "token") == 1 + 1 + 2  # the first, the second, and its two repetitions
        assert len(await healthy.restore_sessions()) == 40


async def test_a_session_that_logs_in_by_itself_is_not_borrowed() -> None:
    """It would send its own credentials to every server."""
    with pytest.warns(DeprecationWarning, match="auth"):
        http = aiohttp.ClientSession(auth=aiohttp.BasicAuth("u", "hunter2"))
    async with http:
        with pytest.raises(ConfigError, match="would send it to every server") as refused:
            Client(Server("vbo1", Bearer("token")), http=http)
    assert "hunter2" not in str(refused.value)


OWN_WAYS: dict[str, tuple[dict[str, Any], str]] = {
    "Authorization": ({"headers": {"authorization": "Bearer hunter2"}}, "default Authorization header"),
    "Cookie": ({"headers": {"Cookie": "session=hunter2"}}, "default Cookie header"),
    "digest": ({"middlewares": [aiohttp.DigestAuthMiddleware("u", "hunter2")]}, "DigestAuthMiddleware"),
    "netrc": ({"trust_env": True}, "netrc"),
    "compressed responses": ({"auto_decompress": False}, "auto_decompress"),
}


@pytest.mark.parametrize("way", OWN_WAYS)
@pytest.mark.parametrize("kind", [Client, Fleet])
async def test_a_session_that_adds_something_of_its_own_is_not_borrowed(
    way: str, kind: type[Client | Fleet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is rejected at once, before a server receives anything, and the message holds no secret."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login u password hunter2")
    monkeypatch.setenv("NETRC", str(netrc))
    settings, words = OWN_WAYS[way]
    async with BackupServer() as backup, aiohttp.ClientSession(**settings) as http:
        server = server_of(backup)
        with pytest.raises(ConfigError, match=words) as refused:
            kind([server], http=http) if issubclass(kind, Fleet) else kind(server, http=http)
        assert backup.requests == []
        # What else a session has is the application's own affair.
        async with (
            aiohttp.ClientSession(headers={"X-Tenant": "t1"}) as other,
            Client(server, http=other) as client,
        ):
            assert len(await client.restore_sessions()) == 40
    assert "hunter2" not in str(refused.value)
