"""Servers whose settings change in a running fleet, and sessions that come back to it."""

import json
import pickle
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from attrs import evolve
from harness.backups import server_of
from harness.watches import FAST, NOW, summary, take

from aiovbo import (
    TLS,
    AuthenticationError,
    ConfigError,
    Fleet,
    LinkError,
    Password,
    Resource,
    RestoreSession,
    Server,
    TlsError,
)
from aiovbo.testing import Authority, BackupServer, World


def logins(backup: BackupServer) -> int:
    """How many logins a server received."""
    return sum(request.resource.lower() == "token" for request in backup.requests)


async def test_an_attached_session_leads_on_again() -> None:
    """Whether it came by pickle or as a dictionary; it is equal to the one that it was made from."""
    async with BackupServer(World(sessions=1)) as backup, Fleet([server_of(backup, name="vbo1")]) as fleet:
        (session,) = (await fleet.restore_sessions()).items
        document = json.loads(json.dumps(session.to_dict()))
        for copy in (
            pickle.loads(pickle.dumps(session)),
            RestoreSession.from_dict(document, server="vbo1"),
        ):
            attached = fleet.attach(copy)
            assert attached == session
            assert (await attached.fetch_organization()).name == session.organization
            assert len(await attached.events()) > 0


async def test_an_attached_mapping_leads_on_again() -> None:
    """What has no class of its own has links too."""
    async with BackupServer() as backup, Fleet([server_of(backup, name="vbo1")]) as fleet:
        page = await fleet["vbo1"].fetch("/v8/RestoreSessions?limit=1")
        attached = fleet.attach(pickle.loads(pickle.dumps(page)))
        assert isinstance(await attached.links["self"].fetch(), Resource)


async def test_what_belongs_to_no_server_of_the_fleet_cannot_be_attached() -> None:
    """The error names the server."""
    fleet = Fleet(["vbo1"], Password("u", "p"))
    session = RestoreSession.from_dict(
        {"id": "0" * 32, "creationTime": "2026-01-01T00:00:00Z"}, server="vbo2"
    )
    with pytest.raises(LinkError, match="vbo2"):
        fleet.attach(session)
    with pytest.raises(ConfigError, match="session"):
        fleet.attach("session")  # type: ignore[type-var]  # wrong, to be refused


async def test_a_new_password_is_used_by_the_next_query() -> None:
    """The former one was rejected, and its cool-down does not hold up the new one."""
    async with BackupServer(World(sessions=1), password="new") as backup:
        former = server_of(backup, name="vbo1", credentials=Password(backup.username, "old"))
        async with Fleet([former]) as fleet:
            with pytest.raises(AuthenticationError):
                await fleet["vbo1"].restore_sessions()
            fleet.replace(evolve(former, credentials=Password(backup.username, "new")))
            assert len(await fleet["vbo1"].restore_sessions()) == 1
            assert logins(backup) == 2


async def test_the_token_is_kept_where_the_credentials_are_equal() -> None:
    """Also at another address, of a server without a new login; and labels that are not given again."""
    async with BackupServer(World(sessions=1)) as backup:
        former = server_of(backup, name="vbo1", labels={"site": "athens"})
        async with Fleet([former]) as fleet:
            (session,) = await fleet["vbo1"].restore_sessions()
            other = former.url.with_host("localhost")
            client = fleet.replace(
                Server(other, former.credentials, name="vbo1", tls=former.tls, allow_http=True)
            )
            assert client is fleet["vbo1"]
            assert client.server.url == other
            assert client.server.labels == {"site": "athens"}
            assert session.links["self"].url.host == "localhost"
            assert await session.refresh() == session
            assert logins(backup) == 1
            fleet.replace(evolve(client.server, labels={"site": "oslo"}))
            assert fleet["vbo1"].server.labels == {"site": "oslo"}


async def test_a_listing_goes_on_at_the_new_address() -> None:
    """What was begun at the former one, with pages that are still to come."""
    async with BackupServer(World(sessions=9)) as former, BackupServer(former.world) as current:
        async with Fleet([server_of(former, name="vbo1")]) as fleet:
            pages = fleet["vbo1"].restore_sessions(page_size=2).pages()
            keys = [item.id for item in await anext(pages)]
            fleet.replace(server_of(current, name="vbo1"))
            keys += [item.id async for page in pages for item in page]
            assert len(set(keys)) == len(keys) == 9
        assert any(request.resource == "RestoreSessions" for request in current.requests)


async def test_a_new_pin_is_checked_from_the_next_connection_on() -> None:
    """The connections that were verified against the former one are not used again."""
    async with BackupServer(World(sessions=1)) as backup:
        former = server_of(backup, name="vbo1")
        async with Fleet([former]) as fleet:
            assert len(await fleet["vbo1"].restore_sessions()) == 1
            fleet.replace(evolve(former, tls=TLS(pin="ab" * 32)))
            with pytest.raises(TlsError) as caught:
                await fleet["vbo1"].restore_sessions()
            assert caught.value.reason == "pin"
            fleet.replace(former)
            assert len(await fleet["vbo1"].restore_sessions()) == 1


async def test_a_ca_file_that_changed_is_read_again(tmp_path: Path) -> None:
    """By replacing a server with itself; another server with the same file keeps what it has."""
    file = tmp_path / "ca.pem"
    with Authority() as wrong, Authority() as right:
        async with AsyncExitStack() as stack:
            first, second = [
                await stack.enter_async_context(BackupServer(World(sessions=1), authority=authority))
                for authority in (right, wrong)
            ]
            file.write_bytes(Path(wrong.ca_file).read_bytes())  # in a test
            servers = [
                server_of(backup, name=name, tls=TLS(ca_file=file))
                for backup, name in ((first, "vbo1"), (second, "vbo2"))
            ]
            fleet = await stack.enter_async_context(Fleet(servers))
            with pytest.raises(TlsError):
                await fleet["vbo1"].restore_sessions()
            file.write_bytes(Path(right.ca_file).read_bytes())  # in a test
            fleet.replace(fleet["vbo1"].server)
            assert len(await fleet["vbo1"].restore_sessions()) == 1
            assert len(await fleet["vbo2"].restore_sessions()) == 1


async def test_a_watch_goes_on_where_it_was_after_its_server_moved() -> None:
    """Nothing is reported twice, and nothing that changed meanwhile is lost."""
    world = World(now=NOW, speed=0, sessions=0)
    first = world.add(creation_time=NOW, end_time=None)
    async with BackupServer(world, version="v7") as former, BackupServer(world, version="v7") as current:
        async with (
            Fleet([server_of(former, name="vbo1")]) as fleet,
            fleet.watch(every=FAST) as changes,
        ):
            assert summary(await take(changes, 1)) == [("Added", first.id)]
            fleet.replace(server_of(current, name="vbo1"))
            second = world.add(creation_time=NOW, end_time=None)
            assert summary(await take(changes, 1)) == [("Added", second.id)]
        assert any(request.resource == "RestoreSessions" for request in current.requests)


async def test_only_a_server_of_the_fleet_can_be_replaced() -> None:
    """By its name, with a `Server`."""
    fleet = Fleet(["vbo1"], Password("u", "p"))
    with pytest.raises(KeyError, match="vbo2"):
        fleet.replace(Server("vbo2", Password("u", "p")))
    with pytest.raises(ConfigError, match="Server"):
        fleet.replace("vbo1")  # type: ignore[arg-type]  # wrong, to be refused
