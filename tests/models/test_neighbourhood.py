"""What surrounds a restore session, against the embedded backup server, on every version."""

import asyncio
from datetime import timedelta

import attrs
import pytest
from harness.backups import asked, server_of

from aiovbo import (
    BackupOrganization,
    Client,
    ClosedError,
    ConfigError,
    ConflictError,
    LinkError,
    Links,
    NotFoundError,
    ResponseError,
    RestoreSession,
    RestoreSessionState,
    ServerTimeoutError,
)
from aiovbo.testing import BackupServer, Fault, World

VERSIONS = ["v4", "v5", "v6", "v7", "v8"]


def open_sessions(backup: BackupServer) -> int:
    """How many sessions the server says are open."""
    return sum(session.state == "Working" for session in backup.world.sessions)


@pytest.mark.parametrize("version", VERSIONS)
async def test_events_and_contents_of_every_session_are_listed(version: str) -> None:
    """Page after page, typed, with links that lead on."""
    async with (
        BackupServer(World(sessions=4, speed=0), version=version) as backup,  # type: ignore[arg-type]  # parametrised
        Client(server_of(backup)) as client,
    ):
        for session in await client.restore_sessions():
            events = await session.events()
            assert 3 <= len(events) <= 8
            assert [event.order for event in events] == list(range(len(events)))
            assert all(event.type and event.type.is_known for event in events)
            assert all(event.duration is not None for event in events)
            organization = await session.fetch_organization()
            for query in (organization.mailboxes(), organization.one_drives(), organization.sites()):
                assert len(await query) >= 3
            if version != "v4":
                assert len(await organization.teams()) >= 3


@pytest.mark.parametrize("version", VERSIONS)
async def test_collections_and_the_installation_are_within_reach(version: str) -> None:
    """Organizations and job sessions everywhere, the installation since v6."""
    async with (
        BackupServer(version=version) as backup,  # type: ignore[arg-type]  # parametrised
        Client(server_of(backup)) as client,
    ):
        organizations = await client.organizations()
        assert {found.name for found in organizations} == set(backup.world.organizations)
        assert (await client.fetch(f"Organizations/{organizations[0].id}"))["name"] == organizations[0].name
        assert len(await client.job_sessions()) == 8 * len(organizations)
        if version in ("v4", "v5"):
            with pytest.raises(NotFoundError):
                await client.fetch_service_instance()
        else:
            assert (await client.fetch_service_instance()).installation_id is not None


@pytest.mark.parametrize("version", VERSIONS)
async def test_statistics_need_v8(version: str) -> None:
    """Elsewhere the error names it."""
    async with (
        BackupServer(version=version) as backup,  # type: ignore[arg-type]  # parametrised
        Client(server_of(backup)) as client,
    ):
        session = (await client.restore_sessions())[0]
        if version == "v8":
            figures = await session.fetch_statistics()
            assert figures.total_items_count == len(await session.events()) - 1
        else:
            before = len(backup.requests)
            with pytest.raises(ConfigError, match=f"^{client.name}: .*needs API v8, .*{version}"):
                await session.fetch_statistics()
            assert len(backup.requests) == before


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_session_is_started_waited_for_and_stopped(version: str) -> None:
    """Over an organization's backup and over the tenant's own; twice stopped is an error."""
    async with (
        BackupServer(World(sessions=0), version=version) as backup,  # type: ignore[arg-type]  # parametrised
        Client(server_of(backup)) as client,
    ):
        organization = (await client.organizations())[2]
        for whose in (None, organization):
            session = await client.explore("Vesp", at=backup.world.now, organization=whose)
            assert session.state is RestoreSessionState.WORKING
            assert open_sessions(backup) == 1
            with pytest.raises(ServerTimeoutError, match="waited for"):
                await session.wait(timeout=0.1, every=0.02)
            waiting = asyncio.create_task(session.wait(timeout=5, every=0.02))
            await session.stop()
            assert (await waiting).end_time is not None
            with pytest.raises(ResponseError) as caught:
                await session.stop()
            assert isinstance(caught.value, ConflictError) is (version == "v8")
        backup.world.remove(session.id)
        with pytest.raises(NotFoundError):
            await session.wait(lambda now: now.result == "never", timeout=5, every=0.02)


@pytest.mark.parametrize("version", VERSIONS)
async def test_wait_follows_a_session_of_a_world_that_goes_on_over_a_restart(version: str) -> None:
    """The server is gone for a while, and knows no token any more; what is waited for comes all the same."""
    world = World(sessions=0, speed=0)
    going = world.add(end_time=world.now + timedelta(seconds=30))
    async with (
        BackupServer(world, version=version, tls=False) as backup,  # type: ignore[arg-type]  # parametrised
        Client(server_of(backup), retries=0) as client,
    ):
        session = await client.fetch_restore_session(going.id)
        waiting = asyncio.create_task(session.wait(timeout=150, every=0.02))
        looks = asked(backup, f"RestoreSessions/{going.id}")
        while asked(backup, f"RestoreSessions/{going.id}") < looks + 2:
            await asyncio.sleep(0.01)
        await backup.stop()
        while not client.is_out_of_reach:
            await asyncio.sleep(0.01)
        backup.revoke_tokens()
        await backup.start()
        while client.is_out_of_reach:
            await asyncio.sleep(0.01)
        assert not waiting.done()
        world.advance(timedelta(seconds=31))
        ended = await waiting
        assert ended.state is RestoreSessionState.STOPPED
        assert ended.end_time is not None
        assert session.state is RestoreSessionState.WORKING


async def test_wait_ends_by_its_timeout_also_where_the_server_is_silent() -> None:
    """Whatever a single answer may take otherwise; the error says what was seen last."""
    async with BackupServer(World(sessions=0)) as backup, Client(server_of(backup)) as client:
        session = await client.explore("Vex")
        backup.fail(Fault.stall(), times=None, after=1)
        async with asyncio.timeout(30):
            with pytest.raises(ServerTimeoutError, match=r"timed out after 0\.3 s; it had not responded"):
                await session.wait(timeout=0.3, every=0.02)


async def test_wait_looks_once_more_at_the_end_however_long_its_pauses_are() -> None:
    """A pause that would outlast the time ends with it."""
    async with BackupServer(World(sessions=0)) as backup, Client(server_of(backup)) as client:
        session = await client.explore("Vex")
        waiting = asyncio.create_task(session.wait("stopped", timeout=0.3, every=60))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await session.stop()
        assert (await waiting).state is RestoreSessionState.STOPPED
        again = await client.explore("Vex")
        with pytest.raises(ServerTimeoutError, match=r"not what was waited for \(tried 2 times, 0.2 s\)"):
            await again.wait(timeout=0.2, every=60)


async def test_wait_ends_where_its_client_closes() -> None:
    """It can no longer be queried."""
    async with BackupServer(World(sessions=0)) as backup, Client(server_of(backup)) as client:
        session = await client.explore("Vex")
        waiting = asyncio.create_task(session.wait(every=60))
        await asyncio.sleep(0.05)
        await client.aclose()
        with pytest.raises(ClosedError):
            await waiting


async def test_a_session_without_links_is_found_by_its_id() -> None:
    """A server that leaves out `_links` is asked at the documented path."""
    async with BackupServer(World(sessions=1, speed=0)) as backup, Client(server_of(backup)) as client:
        (whole,) = await client.restore_sessions()
        bare = attrs.evolve(whole, links=Links(None, client, RestoreSession))
        assert await bare.refresh() == whole
        assert len(await bare.events()) == len(await whole.events())
        assert await bare.fetch_statistics() == await whole.fetch_statistics()
        assert await bare.wait(lambda _: True) == whole
        with pytest.raises(LinkError, match="lost its client"):
            await RestoreSession(id=whole.id, creation_time=whole.creation_time).refresh()


@pytest.mark.parametrize("version", VERSIONS)
async def test_an_organization_with_no_link_but_to_itself_leads_on_all_the_same(version: str) -> None:
    """As the vendor's own example has it: the paths of its contents are documented."""
    async with (
        BackupServer(World(sessions=1, speed=0), version=version) as backup,  # type: ignore[arg-type]  # parametrised
        Client(server_of(backup)) as client,
    ):
        organization = await (await client.restore_sessions())[0].fetch_organization()
        links = Links({"self": {"href": organization.links["self"].href}}, client, BackupOrganization)
        bare = attrs.evolve(organization, links=links)
        assert await bare.mailboxes() == await organization.mailboxes()
        assert await bare.one_drives() == await organization.one_drives()
        assert await bare.sites() == await organization.sites()
        if version == "v4":
            # Teams came with v5.
            with pytest.raises(NotFoundError):
                await bare.teams()
            return
        teams = await bare.teams()
        assert teams == await organization.teams()
        assert {team.name for team in teams} == {team.display_name for team in teams}
