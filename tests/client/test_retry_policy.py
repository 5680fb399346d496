"""`retries=` as a policy, and what every request states about the client."""

from contextlib import suppress

import pytest
from harness.backups import server_of
from harness.raw import RawServer, vbo_routes

from aiovbo import Client, Password, Retry, Server, ServerError, ServerFaultError, __version__
from aiovbo.testing import BackupServer, Fault, World


@pytest.mark.parametrize(
    ("retries", "sent"), [(0, 1), (2, 3), (Retry(attempts=1), 1), (Retry(attempts=4, base=0), 4)]
)
async def test_a_number_of_retries_is_a_policy_with_one_attempt_more(retries: int | Retry, sent: int) -> None:
    """`retries=n` is `Retry(attempts=n+1)`."""
    async with (
        BackupServer(World(sessions=1)) as backup,
        Client(server_of(backup), retries=retries) as client,
    ):
        await client.fetch_api_version()
        backup.fail(Fault.status(503), on="RestoreSessions", times=None)
        with pytest.raises(ServerFaultError) as caught:
            await client.restore_sessions()
    assert caught.value.attempts == sent


async def test_a_policy_may_forbid_a_retry() -> None:
    """It gets the error, complete."""
    asked: list[ServerError] = []

    def decide(error: ServerError) -> bool:
        asked.append(error)
        return error.attempts < 2

    policy = Retry(attempts=9, base=0, decide=decide)
    async with BackupServer(World(sessions=1)) as backup, Client(server_of(backup), retries=policy) as client:
        await client.fetch_api_version()
        backup.fail(Fault.status(503), on="RestoreSessions", times=None)
        with pytest.raises(ServerFaultError) as caught:
            await client.restore_sessions()
    assert caught.value.attempts == 2
    assert [(error.server, error.attempts) for error in asked] == [(client.name, 1), (client.name, 2)]


async def test_a_policy_never_permits_an_unsafe_retry() -> None:
    """What changes something is sent once, and what would fail again too."""
    asked: list[ServerError] = []
    policy = Retry(attempts=9, base=0, decide=lambda error: asked.append(error) or True)  # type: ignore[func-returns-value]
    async with BackupServer(World(sessions=1)) as backup, Client(server_of(backup), retries=policy) as client:
        (session,) = await client.restore_sessions()
        before = len(backup.requests)
        backup.fail(Fault.drop(), times=1)
        with pytest.raises(ServerError):
            await session.stop()
        backup.fail(Fault.status(404), times=None)
        with pytest.raises(ServerError):
            await client.fetch("Organizations/1")
        assert len(backup.requests) == before + 2
    assert not asked


@pytest.mark.parametrize("agent", [None, "portal/3.1 (ops@tech.local)"])
async def test_every_request_states_the_user_agent(agent: str | None) -> None:
    """The probe for the version, the login, listings and resources alike."""
    own = {} if agent is None else {"user_agent": agent}
    async with RawServer(vbo_routes()) as raw:
        server = Server(raw.url, Password("u", "p"), allow_http=True)
        async with Client(server, retries=0, **own) as client:
            await client.restore_sessions().answer()
            with suppress(ServerError):
                await client.fetch("Organizations/1")
    assert {request.method for request in raw.requests} == {"GET", "POST"}
    assert {request.headers["User-Agent"] for request in raw.requests} == {agent or f"aiovbo/{__version__}"}


@pytest.mark.parametrize(("idle_timeout", "opened"), [(300.0, 0), (0, 3)])
async def test_an_idle_connection_is_kept_as_long_as_the_setting_says(
    idle_timeout: float, opened: int
) -> None:
    """With 0, each request has a connection of its own."""
    async with RawServer(vbo_routes()) as raw:
        server = Server(raw.url, Password("u", "p"), allow_http=True, api_version="v4")
        async with Client(server, idle_timeout=idle_timeout) as client:
            await client.restore_sessions()
            before = len(raw.connections)
            for _ in range(3):
                await client.restore_sessions()
            assert len(raw.connections) - before == opened
