"""Which servers a fleet may have, and what happens when servers join and leave."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

import pytest
from harness.backups import server_of
from harness.watches import NOW

from aiovbo import Bearer, ClientEvent, ClosedError, ConfigError, Fleet, Password, Server
from aiovbo.testing import BackupServer, World

LOGIN = Password("TECH\\monitor", "p")
ONE = Server("vbo1", LOGIN, name="one")


@pytest.mark.parametrize("url", ["vbo1", "https://VBO1:4443/", "//vbo1:4443"])
def test_one_server_twice_is_an_error(url: str) -> None:
    """One URL with equal credentials, whatever the name: its sessions would be delivered twice."""
    same = Server(url, Password("TECH\\monitor", "p"), name="two")
    with pytest.raises(ConfigError, match=r"'two' is the same server as 'one'.*equal credentials"):
        Fleet([ONE, same])
    fleet = Fleet([ONE])
    with pytest.raises(ConfigError, match="'two' is the same server as 'one'"):
        fleet.add(same)
    assert list(fleet) == ["one"]


def test_one_url_twice_in_a_list_is_an_error() -> None:
    """Both take the credentials of the fleet."""
    with pytest.raises(ConfigError, match="'vbo1' is the same server as 'vbo1'"):
        Fleet(["vbo1", "https://vbo1:4443"], LOGIN)


@pytest.mark.parametrize("other", [Password("TECH\\monitor", "q"), Password("TECH\\other", "p"), Bearer("t")])
def test_one_url_with_different_credentials_is_two_servers(other: Password | Bearer) -> None:
    """They are two views of one server, as two tenants have."""
    fleet = Fleet([ONE, Server("vbo1", other, name="two")])
    assert list(fleet) == ["one", "two"]


def test_a_server_can_join_again_after_it_was_removed() -> None:
    """Also under another name."""
    fleet = Fleet([ONE])
    fleet.remove("one")
    fleet.add(Server("vbo1", LOGIN, name="two"))
    assert list(fleet) == ["two"]


async def test_a_server_cannot_be_replaced_by_one_that_is_in_the_fleet() -> None:
    """It would be there twice; its own URL and credentials are no obstacle, and its former URL is free."""
    fleet = Fleet([ONE, Server("vbo2", LOGIN, name="two")])
    with pytest.raises(ConfigError, match="'two' is the same server as 'one'"):
        fleet.replace(Server("vbo1", LOGIN, name="two"))
    fleet.replace(ONE)
    fleet.replace(Server("vbo3", LOGIN, name="one"))
    fleet.add(Server("vbo1", LOGIN, name="three"))
    assert list(fleet) == ["one", "two", "three"]


def test_one_server_twice_in_an_inventory_is_reported_with_all_other_problems(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the key of its table."""
    monkeypatch.setenv("VBO_PASSWORD", "p")
    login = {"username": "TECH\\monitor", "password": {"env": "VBO_PASSWORD"}}
    written = {
        "defaults": {"credentials": login},
        "servers": {"a": {"url": "vbo1"}, "b": {"url": "https://vbo1:4443"}, "c": {"url": "vbo2"}},
    }
    with pytest.raises(ConfigError) as raised:
        Fleet.from_mapping({**written, "oddity": 1})
    assert "servers.b: 'b' is the same server as 'a'" in str(raised.value)
    assert len(str(raised.value).splitlines()) == 2


@dataclass
class Vault:
    """Provides a secret; as a dataclass that can be compared, it has no hash."""

    path: str

    async def __call__(self) -> str:
        """The secret."""
        return self.path


def test_providers_without_a_hash_are_compared() -> None:
    """Equal ones are equal credentials."""
    one = Server("vbo1", Password("u", Vault("x")), name="one")
    assert hash(one.credentials) == hash(Password("u", Vault("x")))
    with pytest.raises(ConfigError, match="equal credentials"):
        Fleet([one, Server("vbo1", Password("u", Vault("x")), name="two")])
    fleet = Fleet([one, Server("vbo1", Password("u", Vault("y")), name="two")])
    fleet.remove("one")
    assert list(fleet) == ["two"]


@pytest.fixture
async def backup() -> AsyncIterator[BackupServer]:
    """A server with three sessions."""
    async with BackupServer(World(now=NOW, speed=0, sessions=3), version="v8") as server:
        yield server


def logouts(backup: BackupServer) -> int:
    """How many tokens were given back."""
    return sum(request.path.endswith("/logout") for request in backup.requests)


async def test_the_client_of_a_server_that_was_removed_begins_nothing(backup: BackupServer) -> None:
    """A ClosedError says so, without a request; a server that joins under its name has its own client."""
    async with Fleet([server_of(backup, name="vbo")]) as fleet:
        client = fleet["vbo"]
        (session, *_) = await client.restore_sessions()
        fleet.remove("vbo")
        sent = len(backup.requests)
        uses: list[Callable[[], Awaitable[object]]] = [
            client.restore_sessions,
            lambda: client.fetch("Organizations"),
            lambda: client.request("GET", "Organizations"),
            lambda: client.fetch_restore_session(session.id),
            lambda: client.stop_restore_session(session.id),
            lambda: client.explore("Vex"),
            client.fetch_api_version,
            session.fetch_organization,
            session.events,
        ]
        for use in uses:
            with pytest.raises(ClosedError, match="'vbo' was removed"):
                await use()
        assert len(backup.requests) == sent
        assert len(await fleet.add(server_of(backup, name="vbo")).restore_sessions()) == 3


async def test_a_query_that_was_made_before_a_server_was_removed_leaves_it_out(backup: BackupServer) -> None:
    """What is in progress goes on to its end; a later use does not include it."""
    async with (
        BackupServer(World(now=NOW, speed=0, sessions=2)) as other,
        Fleet([server_of(backup, name="vbo"), server_of(other, name="other")]) as fleet,
    ):
        query = fleet.restore_sessions(page_size=1)
        count = 0
        async for _ in query:
            if not count:
                fleet.remove("vbo")
            count += 1
        assert count == 5
        assert list((await query).answers) == ["other"]


async def test_the_token_of_a_removed_server_is_given_back_when_nothing_is_in_progress(
    backup: BackupServer,
) -> None:
    """Not before a listing has ended, which needs it; and before the fleet is closed."""
    async with Fleet([server_of(backup, name="vbo")]) as fleet:
        async for _ in fleet.restore_sessions(page_size=1):
            if "vbo" in fleet:
                fleet.remove("vbo")
            assert logouts(backup) == 0
        while not logouts(backup):
            await asyncio.sleep(0.01)
    assert (backup.logins, logouts(backup)) == (1, 1)


async def test_the_token_of_a_server_that_is_still_in_use_is_given_back_with_the_fleet(
    backup: BackupServer,
) -> None:
    """A stream that its consumer has left open does not keep it."""
    async with Fleet([server_of(backup, name="vbo")]) as fleet:
        stream = aiter(fleet["vbo"].restore_sessions(page_size=1))
        await anext(stream)
        fleet.remove("vbo")
    assert (backup.logins, logouts(backup)) == (1, 1)
    with pytest.raises(ClosedError):
        while True:
            await anext(stream)


async def test_an_observer_may_add_and_remove_servers(backup: BackupServer) -> None:
    """From inside an event of the server that it removes, while it is queried, watched and polled."""
    async with BackupServer(World(now=NOW, speed=0, sessions=2)) as other:

        def change(_: ClientEvent) -> None:
            if "vbo" in fleet:
                fleet.remove("vbo")
                fleet.add(server_of(other, name="other"))

        fleet = Fleet([server_of(backup, name="vbo")], observer=change)
        async with fleet, fleet.watch(), fleet.poll(fleet.restore_sessions(), every=timedelta(hours=1)):
            assert len((await fleet.restore_sessions()).items) in (2, 3)
            assert list(fleet) == ["other"]
            assert len((await fleet.restore_sessions()).items) == 2
