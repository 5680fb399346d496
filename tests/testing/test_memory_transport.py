"""Fleets and backup servers without sockets, and transports of one's own."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from http.cookies import SimpleCookie
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import attrs
import pytest
from yarl import URL

from aiovbo import (
    Client,
    ConfigError,
    Fleet,
    Password,
    PayloadError,
    Server,
    ServerTimeoutError,
    UnreachableError,
)
from aiovbo.testing import BackupServer, Fault, MemoryTransport, SimClock, World

HOSTS = ["vbo1.tech.local", "vbo2.tech.local"]


def backups(**settings: Any) -> dict[str, BackupServer]:
    return {host: BackupServer(World(sessions=5), **settings) for host in HOSTS}


def login_of(servers: dict[str, BackupServer]) -> Password:
    one = servers[HOSTS[0]]
    return Password(one.username, one.password)


@pytest.mark.parametrize("version", ["v4", "v6", "v8"])
async def test_a_fleet_queries_servers_in_memory_as_over_sockets(version: Any) -> None:
    """Sessions, organizations and events, with one login per server and no port."""
    servers = backups(version=version)
    async with Fleet(HOSTS, login_of(servers), transport=MemoryTransport(servers)) as fleet:
        result = await fleet.restore_sessions()
        result.raise_for_failures()
        session = result.items[0]
        organization = await session.fetch_organization()
        events = await session.events()
    assert len(result.items) == 10
    assert organization.name
    assert events
    assert [servers[host].logins for host in HOSTS] == [1, 1]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault.drop(), PayloadError),
        (Fault.stall(), ServerTimeoutError),
        (Fault.drop(reset=True), UnreachableError),
        (Fault.status(503), Exception),
    ],
    ids=["drop", "stall", "reset", "503"],
)
async def test_faults_take_effect_in_memory_and_spare_the_other_server(fault: Any, error: Any) -> None:
    """Each is the error that it is over sockets."""
    servers = backups()
    servers[HOSTS[0]].fail(fault, on="RestoreSessions", times=None)
    transport = MemoryTransport(servers)
    async with Fleet(HOSTS, login_of(servers), transport=transport, retries=0, read_timeout=0.3) as fleet:
        answers = (await fleet.restore_sessions()).answers
    assert isinstance(answers[HOSTS[0]].error, error)
    assert len(answers[HOSTS[1]].items) == 5


@pytest.mark.parametrize("version", ["v4", "v7", "v8"])
async def test_a_response_without_a_connection_is_what_a_connection_would_carry(version: Any) -> None:
    """Status, headers and body of good responses, refusals, logins and cookies."""
    backup = BackupServer(World(sessions=5, speed=0), version=version, path_prefix="vbo")
    transport = MemoryTransport({"vbo": backup})
    key = backup.world.sessions[0].id
    form = f"grant_type=password&username={quote(backup.username)}&password={quote(backup.password)}"
    as_form = {"Content-Type": "application/x-www-form-urlencoded"}
    as_json = {"Content-Type": "application/json; charset=utf-8"}

    async def both(method: str, path: str, headers: dict[str, str], body: bytes | None = None) -> Any:
        request = SimpleNamespace(
            method=method, url=URL(f"https://vbo:4443/vbo/{version}/{path}"), headers=headers, body=body
        )
        direct = await transport.send(request)
        backup.fail(Fault.edit(lambda it: it), on="nothing of this name")
        carried = await transport.send(request)
        backup.heal()
        one, other = backup.requests[-2:]
        assert attrs.evolve(one, at=0.0) == attrs.evolve(other, at=0.0)
        changing = {"Connection", "Date", "Set-Cookie"}
        assert {*direct.headers} == {*carried.headers} - {"Connection"}
        assert {k: v for k, v in direct.headers.items() if k not in changing} == {
            k: v for k, v in carried.headers.items() if k not in changing
        }
        cookies = [SimpleCookie(reply.headers.get("Set-Cookie", "")) for reply in (direct, carried)]
        assert [str(one).partition("=")[0] for one in cookies[:1]] == [
            str(one).partition("=")[0] for one in cookies[1:]
        ]
        assert direct.status == carried.status
        return direct, carried

    for body, kind in ((form, as_form), (f"{form}&disable_antiforgery_token=true", as_form), ("{}", as_json)):
        await both("POST", "token", kind, body.encode())
    login, _ = await both("POST", "token", as_form, f"{form}&disable_antiforgery_token=true".encode())
    token = {"Authorization": f"Bearer {json.loads(login.body)['access_token']}"}
    for path in (
        f"RestoreSessions/{key}",
        f"RestoreSessions/{key}/organization",
        "Nothing",
        "RestoreSessions/x",
    ):
        direct, carried = await both("GET", path, token)
        assert direct.body == carried.body
    await both("GET", "RestoreSessions?limit=3&startTimeFrom=2020-01-01T00%3A00%3A00Z", token)
    await both("GET", "RestoreSessions", {})
    await both("DELETE", "RestoreSessions", token)
    await both("POST", f"RestoreSessions/{key}/action", {**token, **as_json}, b"{no json")


async def test_a_host_without_a_server_is_unreachable() -> None:
    """A server that is removed from the mapping refuses connections."""
    servers = backups()
    async with Fleet(HOSTS, login_of(servers), transport=MemoryTransport(servers), retries=0) as fleet:
        assert not (await fleet.restore_sessions()).failed
        del servers[HOSTS[0]]
        (failed,) = (await fleet.restore_sessions()).failed
    assert isinstance(failed.error, UnreachableError)
    assert "refused" in str(failed.error)


def test_a_day_of_polls_in_memory_and_virtual_time_takes_no_day() -> None:
    """`clock=` and `transport=` together: 24 polls of two servers, an hour apart."""

    async def work() -> tuple[int, float]:
        clock = SimClock()
        servers = {host: BackupServer(World(sessions=5, clock=clock)) for host in HOSTS}
        fleet = Fleet(HOSTS, login_of(servers), transport=MemoryTransport(servers), clock=clock)
        answers = 0
        async with fleet, fleet.poll(every=timedelta(hours=1)) as poll:
            async for answer in poll:
                assert answer.error is None
                answers += 1
                if answers == 48:
                    break
        return answers, clock.monotonic()

    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        answers, seconds = runner.run(work())
    assert answers == 48
    assert 22 * 3600 < seconds < 25 * 3600


class Own:
    """A transport of a test's own: one function."""

    def __init__(self, respond: Callable[[Any], Awaitable[Any]]) -> None:
        self._respond = respond

    async def send(self, request: Any, deadline: Any, /) -> Any:
        """The response to a request."""
        assert deadline.left() > 0
        return await self._respond(request)


LOCAL = Server("vbo.tech.local", Password("user", "hush-hush"), api_version="v8")


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (ConnectionRefusedError(111, "Connection refused"), UnreachableError),
        (ConnectionResetError(104, "reset"), UnreachableError),
        (OSError("no route"), UnreachableError),
        (EOFError(), PayloadError),
    ],
)
async def test_errors_of_an_own_transport_are_errors_of_the_server(
    raised: Exception, expected: type[Exception]
) -> None:
    """With the server's name, and without a secret."""

    async def respond(_: Any) -> Any:
        raise raised

    async with Client(LOCAL, transport=Own(respond), retries=0) as client:
        with pytest.raises(expected, match=r"vbo\.tech\.local") as caught:
            await client.restore_sessions()
    assert "hush" not in str(caught.value)


async def test_a_bug_in_an_own_transport_is_raised() -> None:
    """It is not a failure of the server."""

    async def respond(_: Any) -> Any:
        raise KeyError("a bug")

    async with Client(LOCAL, transport=Own(respond)) as client:
        with pytest.raises(KeyError, match="a bug"):
            await client.restore_sessions()


async def test_an_own_transport_gets_requests_without_secrets_in_their_repr() -> None:
    """Method, URL, headers and body are there; repr shows neither headers nor body."""
    seen: list[Any] = []

    async def respond(request: Any) -> Any:
        seen.append(request)
        raise ConnectionRefusedError

    async with Client(LOCAL, transport=Own(respond), retries=0) as client:
        with pytest.raises(UnreachableError):
            await client.restore_sessions()
    assert {one.server for one in seen} == {"vbo.tech.local"}
    assert all(one.headers["User-Agent"].startswith("aiovbo/") for one in seen)
    assert "hush" not in repr(seen)


async def test_a_share_of_a_fleet_uses_its_transport() -> None:
    """Without it, the share would look for the servers in the network."""
    servers = backups()
    whole = Fleet(HOSTS, login_of(servers), transport=MemoryTransport(servers))
    async with whole.shard(0, 1) as share:
        (await share.restore_sessions()).raise_for_failures()


@pytest.mark.parametrize("transport", [5, object(), "send"])
def test_a_transport_without_send_is_a_configuration_error(transport: Any) -> None:
    """Before anything is sent."""
    with pytest.raises(ConfigError, match="send"):
        Client(LOCAL, transport=transport)
