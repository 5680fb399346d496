"""The backup server against another project's client, which its author made from the vendor's documents."""

import ssl
from importlib import import_module
from typing import Any

import pytest

from aiovbo.testing import BackupServer, Starter, World

pytest.importorskip("veeam_365", reason="needs veeam-365, which has 50 MB: nox -s clients")


@pytest.mark.filterwarnings("ignore")  # of generated code
@pytest.mark.parametrize("version", ["v6", "v7", "v8"])
async def test_veeam_365_lists_explores_and_stops(vbo_start: Starter, version: Any) -> None:
    """Organizations, a restore session that it starts and stops, its organization, its events, the list."""
    from veeam_365.client import VeeamClient  # type: ignore[import-untyped]  # where it is installed

    server = vbo_start(BackupServer(World(sessions=3, speed=0), version=version))
    trust = ssl.create_default_context(cafile=server.ca_file)
    client = VeeamClient(server.url, server.username, server.password, version, verify_ssl=trust)

    async def call(operation: str, *arguments: Any, **options: Any) -> Any:
        return await client.call(client.api(operation), *arguments, **options)

    async with client:
        found = await call("organization.organization_get")
        organization = (found if version != "v8" else found.results)[0]
        options = import_module(f"veeam_365.{version}.models")
        name = "RESTOrganizationExploreOptions" if version == "v8" else "RESTExploreOptions"
        body = getattr(options, name).from_dict({"type": "Vex"})
        explore = "organization_explore" if version == "v8" else "organization_explore_action"
        started = await call(f"organization.{explore}", organization.id, body=body)
        assert started.state == "Working"
        assert str(started.id) in {str(one.id) for one in server.world.sessions}
        one = await call("restore_session.restore_session_get_by_restore_session_id", started.id)
        assert one.creation_time == started.creation_time
        its = await call("backup_organization.backup_organization_get_by_restore_session_id", started.id)
        assert its.name == organization.name
        events = await call("restore_session_event.restore_session_event_get", started.id)
        assert events.results
        event = await call(
            "restore_session_event.restore_session_event_get_by_id", started.id, events.results[0].id
        )
        assert event.message == events.results[0].message
        await call("restore_session.restore_session_stop_action", started.id)
        page = await call("restore_session.restore_session_get_page", limit=2)
        assert len(page.results) == 2
        everything = await call("restore_session.restore_session_get_page", limit=100)
        states = {str(session.id): session.state for session in everything.results}
        assert len(states) == 4
        assert states[str(started.id)] == "Stopped"
    assert server.logins == 1
    assert all(request.status in (200, 201, 204) for request in server.requests)
