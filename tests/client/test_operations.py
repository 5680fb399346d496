"""The page's table of operations: every cell is tried against the embedded server of that version."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from harness.backups import asked, server_of

from aiovbo import Client, ConfigError, LinkError, NotFoundError, RestoreSession, RestoreSessionState
from aiovbo.testing import BackupServer, World

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
VERSIONS = ["v4", "v5", "v6", "v7", "v8"]
A_TICK = timedelta(microseconds=1)
"""What a server's time may have beyond the microseconds that Python keeps."""


def table() -> dict[str, dict[str, str]]:
    """The page's table, by operation and version."""
    rows: dict[str, dict[str, str]] = {}
    lines = iter(PAGE.read_text(encoding="utf-8").splitlines())
    for line in lines:
        if line.startswith("| operation |"):
            break
    next(lines)
    for line in lines:
        if not line.startswith("|"):
            break
        operation, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        rows[operation.strip("`")] = dict(zip(VERSIONS, cells, strict=True))
    return rows


def states(backup: BackupServer) -> dict[UUID, str]:
    """Every session of the server, with its state there."""
    return {session.id: session.state for session in backup.world.sessions}


async def latest(client: Client) -> RestoreSession:
    """A session to go on from."""
    return (await client.restore_sessions())[0]


async def listed(client: Client, backup: BackupServer) -> bool:
    """All that there are."""
    return {session.id for session in await client.restore_sessions()} == set(states(backup))


async def listed_by_start(client: Client, backup: BackupServer) -> bool:
    """Those that began after the second of four, and no other."""
    newest, second, *_ = backup.world.sessions
    found = await client.restore_sessions(started_after=second.creation_time + A_TICK)
    return [session.id for session in found] == [newest.id]


async def listed_by_end(client: Client, backup: BackupServer) -> bool:
    """Those that ended after the second-last end, and no other."""
    *_, second, last = sorted(backup.world.sessions, key=lambda one: one.end_time or backup.world.now)
    assert second.end_time is not None
    found = await client.restore_sessions(ended_after=second.end_time + A_TICK)
    return [session.id for session in found] == [last.id]


async def ordered(client: Client, backup: BackupServer) -> bool:
    """The first end first, also where that is not the first start."""
    earliest = backup.world.sessions[-1].creation_time - timedelta(days=1)
    backup.world.add(creation_time=earliest, end_time=backup.world.now)
    ends = [s.end_time for s in await client.restore_sessions(order_by="EndTime", ascending=True)]
    return ends == sorted(s.end_time for s in backup.world.sessions if s.end_time)


async def fetched_by_id(client: Client, backup: BackupServer) -> bool:
    """One of them, and not merely any."""
    key = backup.world.sessions[-1].id
    return (await client.fetch_restore_session(key)).id == key


async def refreshed(client: Client, backup: BackupServer) -> bool:
    """What has changed since is in the new value only."""
    session = await latest(client)
    backup.world.change(session.id, result="Failed", state="Paused")
    return (await session.refresh()).state == "Paused" and session.state == "Stopped"


async def organization(client: Client, backup: BackupServer) -> bool:
    """That of the session."""
    session = await latest(client)
    known = backup.world.session(session.id).organization
    return (await session.fetch_organization()).name == known


async def contents(client: Client, _: BackupServer) -> bool:
    """Each has an id, and a name to show."""
    found = await (await latest(client)).fetch_organization()
    boxes, drives, sites = await found.mailboxes(), await found.one_drives(), await found.sites()
    return all(item.id and item.name for items in (boxes, drives, sites) for item in items or [])


async def teams(client: Client, _: BackupServer) -> bool:
    """The same, of teams."""
    found = await (await (await latest(client)).fetch_organization()).teams()
    return bool(found) and all(team.id and team.name for team in found)


async def events(client: Client, _: BackupServer) -> bool:
    """From the first to the last."""
    found = await (await latest(client)).events()
    return len(found) >= 2 and [event.order for event in found] == list(range(len(found)))


async def statistics(client: Client, _: BackupServer) -> bool:
    """They count the events."""
    session = await latest(client)
    # The first event is the start of the session, and no item.
    return (await session.fetch_statistics()).total_items_count == len(await session.events()) - 1


async def stopped(client: Client, backup: BackupServer) -> bool:
    """The server says so."""
    session = await client.explore("Vex")
    assert states(backup)[session.id] == "Working"
    await session.stop()
    return states(backup)[session.id] == "Stopped"


async def waited(client: Client, backup: BackupServer) -> bool:
    """It goes on until the server says that it has stopped."""
    session = await client.explore("Vex")
    backup.world.change(session.id, state="Stopped", end_time=backup.world.now)
    ended = await session.wait(timeout=5, every=0.01)
    return (session.state, ended.state) == (RestoreSessionState.WORKING, RestoreSessionState.STOPPED)


async def explored(client: Client, backup: BackupServer) -> bool:
    """It is open in the block, and stopped after it."""
    async with client.explore("Veod", at=timedelta(days=1)) as session:
        assert states(backup)[session.id] == "Working"
        assert session.type == backup.world.session(session.id).type == "Veod"
    return states(backup)[session.id] == "Stopped"


async def explored_for_another(client: Client, backup: BackupServer) -> bool:
    """A provider names whose backup it is."""
    whose = (await client.organizations())[1]
    async with client.explore("Vesp", organization=whose) as session:
        return backup.world.session(session.id).organization == whose.name


async def organizations(client: Client, backup: BackupServer) -> bool:
    """All of them."""
    return [found.name for found in await client.organizations()] == list(backup.world.organizations)


async def restore_events(client: Client, backup: BackupServer) -> bool:
    """Those of all sessions."""
    found = await client.restore_events()
    return {one.session.id for one in found} == {session.id for session in backup.world.sessions}


async def jobs(client: Client, _: BackupServer) -> bool:
    """With the times of their runs."""
    found = await client.job_sessions()
    # In the first minutes of an hour, some are still running.
    ended = [job for job in found if job.end_time is not None]
    return bool(ended) and all(job.end_time and job.end_time > job.creation_time for job in ended)


async def installation(client: Client, _: BackupServer) -> bool:
    """By its id."""
    found = await client.fetch_service_instance()
    return bool(found.installation_id and found.version)


async def fetched(client: Client, backup: BackupServer) -> bool:
    """A resource by its path, whose links lead on."""
    found = await client.fetch(f"RestoreSessions/{backup.world.sessions[0].id}/organization")
    return bool(await found.links["mailboxes"].query())


async def queried(client: Client, backup: BackupServer) -> bool:
    """A collection by its path, whose items' links lead on."""
    found = await client.query("Organizations")
    again = await found[-1].links["self"].fetch()
    return len(found) == len(backup.world.organizations) and again["name"] == found[-1]["name"]


async def logged_out(client: Client, backup: BackupServer) -> bool:
    """The server received it."""
    await client.restore_sessions()
    await client.aclose()
    return asked(backup, "token/logout") == 1


async def requested(client: Client, backup: BackupServer) -> bool:
    """A request by method and path."""
    response = await client.request("get", "RestoreSessions", parameters={"limit": 1})
    return response.status == 200 and bool(response.document)


Operation = Callable[[Client, BackupServer], Awaitable[bool]]
OPERATIONS: dict[str, Operation] = {
    "client.restore_sessions()": listed,
    "restore_sessions(started_after=…)": listed_by_start,
    "restore_sessions(ended_after=…)": listed_by_end,
    "restore_sessions(order_by=…)": ordered,
    "client.fetch_restore_session(id)": fetched_by_id,
    "session.refresh()": refreshed,
    "session.events()": events,
    "client.restore_events()": restore_events,
    "session.fetch_statistics()": statistics,
    "session.stop()": stopped,
    "session.wait()": waited,
    "session.fetch_organization()": organization,
    "mailboxes(), one_drives(), sites()": contents,
    "organization.teams()": teams,
    "client.explore(type)": explored,
    "explore(type, organization=…)": explored_for_another,
    "client.organizations()": organizations,
    "client.job_sessions()": jobs,
    "client.fetch_service_instance()": installation,
    "client.fetch(path)": fetched,
    "client.query(path)": queried,
    "client.request(method, path)": requested,
    "client.aclose() logs out": logged_out,
}


def test_the_table_has_every_operation() -> None:
    """And no other, in this order."""
    assert list(table()) == list(OPERATIONS)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_every_cell_of_the_table_is_true(operation: str, version: str) -> None:
    """What is there does what it says; what is not says so by an error of its own, or is left out."""
    async with (
        BackupServer(World(sessions=4, speed=0), version=version) as backup,  # type: ignore[arg-type]  # parametrised
        Client(server_of(backup, api_version=version)) as client,
    ):
        cell = table()[operation][version]
        if cell == "yes":
            assert await OPERATIONS[operation](client, backup)
        elif operation == "client.aclose() logs out":
            assert not await OPERATIONS[operation](client, backup)
        else:
            assert cell == "\N{EN DASH}"
            with pytest.raises((ConfigError, LinkError, NotFoundError)):
                await OPERATIONS[operation](client, backup)
