"""Explorations: no session stays open, or the caller learns which one may still be open."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from uuid import UUID

import pytest
from harness.backups import asked, server_of
from harness.cancel import cancel_after_every_turn, cancel_at_every_await

from aiovbo import (
    Assertion,
    Client,
    Clock,
    ConfigError,
    ConflictError,
    Fleet,
    Organization,
    ResponseError,
    RestoreSession,
    ServerFaultError,
)
from aiovbo._client import exploration
from aiovbo.testing import BackupServer, Fault, World

VERSIONS = ["v4", "v5", "v6", "v7", "v8"]
STOPS = {"v4": "*/action", "v5": "*/action", "v6": "*/Stop", "v7": "*/Stop", "v8": "*/Stop"}


def open_sessions(backup: BackupServer) -> set[UUID]:
    """The sessions that the server says are open."""
    return {session.id for session in backup.world.sessions if session.state == "Working"}


@asynccontextmanager
async def exploring(version: str = "v8", **limits: Any) -> AsyncIterator[tuple[BackupServer, Client]]:
    """An empty server of this version and its client, logged in."""
    async with (
        BackupServer(World(sessions=0), version=version, tls=False) as backup,  # type: ignore[arg-type]  # parametrised
        Client(server_of(backup, api_version=version), **limits) as client,
    ):
        await client.restore_sessions()
        yield backup, client


async def nothing_under_way() -> None:
    """No start and no stop that goes on by itself."""
    async with asyncio.timeout(30):
        while exploration._under_way:
            await asyncio.wait(set(exploration._under_way))


async def explored(client: Client) -> None:
    """A session is started, looked at and stopped."""
    async with client.explore("Vet") as session:
        await session.refresh()


@pytest.mark.parametrize("version", VERSIONS)
async def test_cancelled_at_any_await_it_leaves_no_session_open(version: str) -> None:
    """The server says so: while it starts, in the block, and while it stops."""
    async with exploring(version) as (backup, client):

        async def closed() -> None:
            assert not open_sessions(backup)
            assert not exploration._under_way

        assert await cancel_at_every_await(lambda: explored(client), closed) >= 3


@pytest.mark.parametrize("version", ["v4", "v8"])
async def test_cancelled_at_any_turn_of_the_loop_it_leaves_no_session_open(version: str) -> None:
    """Also inside its own tasks, and in the moment when an answer arrives."""
    async with exploring(version) as (backup, client):

        async def closed() -> None:
            assert not open_sessions(backup)
            assert not exploration._under_way

        assert await cancel_after_every_turn(lambda: explored(client), closed) >= 10


@pytest.mark.parametrize("later", [1, 2, 4, 8])
async def test_cancelled_twice_at_any_turn_it_names_what_may_be_open_and_stops_it_behind_the_scenes(
    later: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A second cancellation ends the wait: the session's id is in a note and in the log, or not known yet."""
    caplog.set_level(logging.WARNING, logger="aiovbo.explore")
    async with exploring() as (backup, client):
        notes: list[str] = []
        named: set[UUID] = set()

        async def noting() -> None:
            try:
                await explored(client)
            except asyncio.CancelledError as cancelled:
                notes.extend(getattr(cancelled, "__notes__", []))
                raise

        async def reported() -> None:
            left = open_sessions(backup)
            for key in left:
                assert [n for n in notes if str(key) in n or "may have been started" in n]
            named.update(key for key in left if str(key) in " ".join(notes))
            assert caplog.messages == notes
            await nothing_under_way()
            assert not open_sessions(backup)
            notes.clear()
            caplog.clear()

        assert await cancel_after_every_turn(noting, reported, again_after=later) >= 10
        assert named


async def test_the_end_is_not_waited_for_beyond_its_grace(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that does not answer the stop: the cancellation goes on and names the session."""
    monkeypatch.setattr(exploration, "GRACE", 0.05)
    async with exploring(retries=0) as (backup, client):
        backup.fail(Fault.stall(), on=STOPS["v8"])
        entered = asyncio.Event()

        async def block() -> None:
            async with client.explore("Vex"):
                entered.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(block())
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        (left,) = open_sessions(backup)
        (note,) = caught.value.__notes__
        assert note == f"restore session {left} on {client.name} may be open still"
        assert note in caplog.messages


async def test_a_timeout_around_it_still_names_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """The note is on the cancellation that the timeout came from."""
    monkeypatch.setattr(exploration, "GRACE", 0.05)
    async with exploring(retries=0) as (backup, client):
        backup.fail(Fault.stall(), on=STOPS["v8"])
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(0.2), client.explore("Vex"):
                await asyncio.Event().wait()
        (left,) = open_sessions(backup)
        # Before 3.11.5, a timeout has no cause, but a context.
        cancelled = caught.value.__cause__ or caught.value.__context__
        assert str(left) in cancelled.__notes__[0]  # type: ignore[union-attr]  # a CancelledError


async def test_a_start_whose_answer_does_not_come_is_said_to_be_perhaps_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The id is not known; when the response arrives after all, the session is stopped."""
    monkeypatch.setattr(exploration, "GRACE", 0.01)
    async with exploring() as (backup, client):
        backup.fail(Fault.delay(0.2), on="Organization/Explore")
        task = asyncio.ensure_future(explored(client))
        while not asked(backup, "Organization/Explore"):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert caught.value.__notes__ == [
            f"a restore session may have been started on {client.name}, and be open still"
        ]
        await nothing_under_way()
        assert asked(backup, "Organization/Explore") == 1
        assert len(backup.world.sessions) == 1
        assert not open_sessions(backup)


async def test_a_start_that_is_cut_off_by_the_closing_is_said_to_be_perhaps_open() -> None:
    """Cancelled, it waits for its answer no longer than the client is there to receive it."""
    async with exploring(retries=0) as (backup, client):
        backup.fail(Fault.stall(), on="Organization/Explore")
        task = asyncio.ensure_future(explored(client))
        while not asked(backup, "Organization/Explore"):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        await client.aclose()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert caught.value.__notes__ == [
            f"a restore session may have been started on {client.name}, and be open still"
        ]


def test_a_program_that_ends_while_a_session_starts_learns_that_it_may_be_open(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """All its tasks are cancelled at once, the start among them: no task receives the response."""
    notes: list[str] = []

    async def explore(backup: BackupServer) -> None:
        async with Client(server_of(backup, api_version="v8", name="one")) as client:
            try:
                await client.explore("Vex")
            except asyncio.CancelledError as cancelled:
                notes.extend(cancelled.__notes__)
                raise

    async def main(backup: BackupServer) -> asyncio.Task[None]:
        backup.fail(Fault.stall(), on="Organization/Explore")
        task = asyncio.create_task(explore(backup))
        while not asked(backup, "Organization/Explore"):
            await asyncio.sleep(0.001)
        return task

    with BackupServer(World(sessions=0), version="v8", tls=False).run_in_thread() as backup:
        assert asyncio.run(main(backup)).cancelled()
    assert notes == ["a restore session may have been started on one, and be open still"]
    assert notes[0] in caplog.messages


async def test_a_start_that_was_rejected_while_it_was_cancelled_reports_nothing() -> None:
    """The server said no, so there is no session."""
    async with exploring() as (backup, client):
        backup.fail(Fault.delay(0.05), on="Organization/Explore")
        task = asyncio.ensure_future(client.explore("Nonsense")._begin())
        while not asked(backup, "Organization/Explore"):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert not hasattr(caught.value, "__notes__")


@pytest.mark.parametrize("version", VERSIONS)
async def test_what_was_stopped_in_the_block_is_not_stopped_again_with_an_error(version: str) -> None:
    """By us, by the server since it was idle, or gone altogether: it has ended, on every version."""
    async with exploring(version) as (backup, client):
        async with client.explore("Vex") as session:
            await session.stop()
        async with client.explore("Vex") as session:
            backup.world.change(session.id, state="Stopped", end_time=backup.world.now)
        async with client.explore("Vex") as session:
            backup.world.remove(session.id)
        assert not open_sessions(backup)


@pytest.mark.parametrize("status", [400, 409])
async def test_a_stop_that_is_refused_while_the_session_goes_on_is_an_error(status: int) -> None:
    """A server that is busy with something else says the same as one whose session has ended."""
    async with exploring() as (backup, client):
        backup.fail(Fault.status(status), on=STOPS["v8"])
        with pytest.raises(ResponseError) as caught:
            async with client.explore("Vex"):
                pass
        assert isinstance(caught.value, ConflictError) is (status == 409)
        assert str(*open_sessions(backup)) in str(caught.value)


@pytest.mark.parametrize("version", VERSIONS)
async def test_neither_start_nor_stop_is_sent_twice_once_it_may_have_arrived(version: str) -> None:
    """A 503 and a lost connection alike, with retries allowed; the error says so."""
    for fault in (Fault.status(503), Fault.drop()):
        for on in ("Organization/*", STOPS[version]):
            async with exploring(version, retries=3) as (backup, client):
                session = await client.explore("Vex")
                backup.requests.clear()
                backup.fail(fault, on=on, times=None)
                with pytest.raises(Exception, match="may have been done all the same"):
                    await (session.stop() if on == STOPS[version] else client.explore("Vex")._begin())
                assert sum(request.method == "POST" for request in backup.requests) == 1


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("answer", ["401", "empty"])
async def test_a_start_with_a_token_that_is_rejected_is_sent_again_with_another(
    version: str, answer: Literal["401", "empty"]
) -> None:
    """A session that was started is always listed, so an empty response means that there is none."""
    world = World(sessions=0)
    async with (
        BackupServer(world, version=version, rejected_token_answer=answer) as backup,  # type: ignore[arg-type]  # parametrised
        Client(server_of(backup)) as client,
    ):
        await client.restore_sessions()
        backup.revoke_tokens()
        async with client.explore("Vex") as session:
            assert open_sessions(backup) == {session.id}
        assert len(backup.world.sessions) == 1
        assert backup.logins == 2


async def test_the_callers_exception_comes_out_whatever_happens_to_the_stop() -> None:
    """A server that fails, a client that was closed: a note names the session."""
    async with exploring(retries=0) as (backup, client):
        backup.fail(Fault.status(500), on=STOPS["v8"])
        with pytest.raises(KeyError) as failed:
            async with client.explore("Vex") as first:
                raise KeyError
        with pytest.raises(KeyError) as closed:
            async with client.explore("Vex") as second:
                await client.aclose()
                raise KeyError
        for caught, session in ((failed, first), (closed, second)):
            (note,) = caught.value.__notes__
            assert note.startswith(f"restore session {session.id} on {client.name} may be open still: ")
        assert open_sessions(backup) == {first.id, second.id}


async def test_without_an_exception_of_the_callers_the_stops_own_comes_out() -> None:
    """It says which session it was about."""
    async with exploring(retries=0) as (backup, client):
        backup.fail(Fault.status(500), on=STOPS["v8"])
        with pytest.raises(ServerFaultError) as caught:
            async with client.explore("Vex"):
                pass
        assert str(*open_sessions(backup)) in str(caught.value)


async def test_an_operation_that_has_used_up_its_deadline_still_stops_its_session() -> None:
    """The stop at the end has a deadline of its own."""
    async with BackupServer(World(sessions=0)) as backup:
        async with Fleet([server_of(backup)], deadline=0.4, retries=0) as fleet:
            (client,) = (fleet[name] for name in fleet)

            async def work(client: Client) -> None:
                async with client.explore("Vex") as session:
                    backup.fail(Fault.stall(), on="RestoreSessions/*-*")
                    await session.refresh()

            await client.restore_sessions()
            (failed,) = (await fleet.map(work)).failed
            assert "the deadline of 0.4 s passed" in str(failed.error)
        assert not open_sessions(backup)


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_point_in_time_may_be_that_long_ago(version: str) -> None:
    """Counted when the session is started, and written as the version takes it."""
    now = datetime(2026, 11, 23, 12, tzinfo=UTC)
    async with exploring(version, clock=Clock(now=lambda: now)) as (backup, client):
        async with client.explore("Vex", at=timedelta(days=1, microseconds=-1234)):
            pass
        (start,) = (
            r for r in backup.requests if r.method == "POST" and r.resource.startswith("Organization")
        )
    document: Any = start.document
    if version in ("v4", "v5"):
        assert document["explore"]["datetime"] == "2026-11-22 12:00:00.001"
    else:
        assert document["dateTime"] == "2026-11-22T12:00:00.001234Z"


async def test_what_names_no_organization_is_refused_at_the_call() -> None:
    """Nothing is sent; one of client.organizations() and its id are the same."""
    async with exploring() as (backup, client):
        organization = (await client.organizations())[0]
        backup.requests.clear()
        for wrong in ("contoso", 5, RestoreSession(id=UUID(int=1), creation_time=backup.world.now)):
            with pytest.raises(ConfigError, match=r"an id is a UUID|one of client\.organizations"):
                client.explore("Vex", organization=wrong)  # type: ignore[arg-type]  # the point
        assert not backup.requests
        for right in (organization, organization.id, str(organization.id)):
            assert isinstance(organization, Organization)
            async with client.explore("Vex", organization=right) as session:
                assert session.organization == organization.name


@pytest.mark.parametrize("version", ["v6", "v7", "v8"])
@pytest.mark.parametrize("operator", [True, False])
async def test_an_operator_explores_by_the_operators_path(version: str, operator: bool) -> None:  # noqa: FBT001  # parametrised
    """An application that logs in with an assertion is a tenant like any other."""
    login = {"userId.tenantId": "signed"}
    backup = BackupServer(World(sessions=0), version=version, assertions=login, operators_only=operator)  # type: ignore[arg-type]  # parametrised
    async with backup:
        assertion = Assertion("userId.tenantId", "signed", operator=operator)
        async with Client(server_of(backup, credentials=assertion)) as client, client.explore("Vex"):
            assert len(open_sessions(backup)) == 1
        assert not open_sessions(backup)
        assert asked(backup, "Organization/OperatorExplore") == operator
        assert asked(backup, "Organization/Explore") == (not operator)
