"""The README's table of operations: every cell is tried against the embedded server of that version."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest
from backups import server_of

from aiovbo import Client, ConfigError, NotFoundError
from aiovbo.testing import BackupServer, World

README = Path(__file__).parents[1] / "README.md"
VERSIONS = ["v4", "v5", "v6", "v7", "v8"]


def table() -> dict[str, dict[str, str]]:
    """The README's table, by operation and version."""
    rows: dict[str, dict[str, str]] = {}
    lines = iter(README.read_text(encoding="utf-8").splitlines())
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


async def explored(client: Client) -> object:
    """A session that was started."""
    return await client.explore("Vex")


async def stopped(client: Client) -> object:
    """A session that was stopped."""
    await (await client.explore("Vex")).stop()
    return True


async def waited(client: Client) -> object:
    """A session that had stopped when it was waited for."""
    session = await client.explore("Vex")
    await session.stop()
    return await session.wait(timeout=1, every=0.01)


async def first(client: Client) -> object:
    """Any session, by its id."""
    return await client.fetch_restore_session((await client.restore_sessions())[0].id)


async def refreshed(client: Client) -> object:
    """A session as it is now."""
    return await (await client.restore_sessions())[0].refresh()


async def organization(client: Client) -> object:
    """A session's organization."""
    return await (await client.restore_sessions())[0].fetch_organization()


async def events(client: Client) -> object:
    """A session's events."""
    return await (await client.restore_sessions())[0].events()


async def statistics(client: Client) -> object:
    """A session's statistics."""
    return await (await client.restore_sessions())[0].fetch_statistics()


async def fetched(client: Client) -> object:
    """A resource by its path."""
    return await client.fetch(f"Organizations/{(await client.organizations())[0].id}")


OPERATIONS: dict[str, Callable[[Client], Awaitable[object]]] = {
    "client.restore_sessions()": lambda c: c.restore_sessions(),
    "restore_sessions(ended_after=…)": lambda c: c.restore_sessions(ended_after=timedelta(days=300)),
    "restore_sessions(order_by=…)": lambda c: c.restore_sessions(order_by="EndTime"),
    "client.fetch_restore_session(id)": first,
    "session.refresh()": refreshed,
    "session.fetch_organization()": organization,
    "session.events()": events,
    "session.fetch_statistics()": statistics,
    "session.stop()": stopped,
    "session.wait()": waited,
    "client.explore(type)": explored,
    "client.organizations()": lambda c: c.organizations(),
    "client.job_sessions()": lambda c: c.job_sessions(),
    "client.fetch_service_instance()": lambda c: c.fetch_service_instance(),
    "client.fetch(path)": fetched,
    "client.query(path)": lambda c: c.query("Organizations"),
}


def test_the_table_has_every_operation() -> None:
    """And no other."""
    assert set(table()) == set(OPERATIONS)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_every_cell_of_the_table_is_true(operation: str, version: str) -> None:
    """What is there works; what is not says so by an error of its own."""
    async with (
        BackupServer(World(sessions=4), version=version) as backup,  # type: ignore[arg-type]  # parametrised
        Client(server_of(backup, api_version=version)) as client,
    ):
        if table()[operation][version] == "yes":
            assert await OPERATIONS[operation](client)
        else:
            assert table()[operation][version] == "\N{EN DASH}"
            with pytest.raises((ConfigError, NotFoundError)):
                await OPERATIONS[operation](client)
