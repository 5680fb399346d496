"""What type checkers make of the public API; checked by `nox -s typing`, never run."""

from collections.abc import AsyncGenerator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, assert_never, assert_type
from uuid import UUID

from yarl import URL

from aiovbo import (
    TLS,
    Added,
    Answer,
    ApiVersion,
    BackupOrganization,
    Bearer,
    Changed,
    Client,
    Credentials,
    Finished,
    Fleet,
    FleetError,
    FleetQuery,
    FleetResult,
    Heartbeat,
    JobSession,
    Link,
    Page,
    Password,
    Query,
    Recovered,
    Rejected,
    Removed,
    Resource,
    RestoreEvent,
    RestoreSession,
    RestoreSessionEvent,
    RestoreSessionResult,
    RestoreSessionState,
    RestoreSessionType,
    RowRejected,
    Server,
    ServerError,
    ServerTimeoutError,
    TimeBound,
    TlsError,
    Unreachable,
)


async def token() -> str:
    return ""


def settings() -> None:
    login = Password("TECH\\monitor", token)
    pinned = TLS(pin=["sha256:" + 64 * "0"])
    server = Server("vbo1", Bearer("text"), name="one", api_version="v8", tls=pinned)
    assert_type(server.url, URL)
    assert_type(server.name, str)
    assert_type(server.tls.pin, tuple[str, ...])
    Fleet([server, "vbo2", URL("https://vbo3")], login, tls=TLS(ca_file="ca.pem"), retries=0)
    Fleet(["vbo1"], "password")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # a bare text is no login


async def one_server(client: Client) -> None:
    assert_type(client.name, str)
    query = client.restore_sessions(started_after=timedelta(days=1), page_size=100)
    assert_type(query, Query[RestoreSession])
    assert_type(await query, list[RestoreSession])
    assert_type(await query.answer(), Answer[RestoreSession])
    events = client.restore_events(started_after=timedelta(days=1), only=lambda session: session.has_ended)
    assert_type(events, Query[RestoreEvent])
    async for one in events:
        assert_type(one.session, RestoreSession)
        assert_type(one.event, RestoreSessionEvent)
    assert_type(client.events_of(await query), Query[RestoreEvent])
    assert_type(client.job_sessions(status="Failed", ended_after=timedelta(days=1)), Query[JobSession])
    async for session in query:
        assert_type(session, RestoreSession)
    async for page in query.pages():
        assert_type(page, Page[RestoreSession])
        assert_type(page[0], RestoreSession)
        assert_type(page[1:], tuple[RestoreSession, ...])
        assert_type(page.rejected, tuple[Rejected, ...])
    assert_type(await client.fetch_restore_session(UUID(int=1)), RestoreSession)
    assert_type(await client.fetch("Organizations"), Resource)
    assert_type(await client.fetch("RestoreSessions/1", RestoreSession), RestoreSession)


async def values(session: RestoreSession) -> None:
    assert_type(session.id, UUID)
    assert_type(session.type, RestoreSessionType | None)
    assert_type(session.state, RestoreSessionState | None)
    assert_type(session.result, RestoreSessionResult | None)
    assert_type(session.creation_time, datetime)
    assert_type(session.end_time, datetime | None)
    assert_type(session.organization, str | None)
    assert_type(await session.fetch_organization(), BackupOrganization)
    assert_type(await session.refresh(), RestoreSession)
    link = session.links["organization"]
    assert_type(link, Link)
    assert_type(link.url, URL)
    assert_type(await link.fetch(), Any)
    assert_type(await link.fetch(BackupOrganization), BackupOrganization)
    assert_type(link.query(), Query[Resource])
    assert_type(link.query(BackupOrganization), Query[BackupOrganization])
    session.name = "other"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]  # frozen


async def count(client: Client) -> int:
    return len(await client.restore_sessions())


async def names(client: Client) -> AsyncGenerator[str]:
    async for session in client.restore_sessions():
        yield session.name or ""


def recent(client: Client) -> Query[RestoreSession]:
    return client.restore_sessions(started_before=datetime.now(UTC))


async def many_servers(fleet: Fleet) -> None:
    query = fleet.restore_sessions(ended_after=timedelta(hours=1))
    assert_type(query, FleetQuery[RestoreSession])
    async for session in query:
        assert_type(session, RestoreSession)
    result = await query
    assert_type(result, FleetResult[RestoreSession])
    assert_type(result.items, tuple[RestoreSession, ...])
    assert_type(result.answers, Mapping[str, Answer[RestoreSession]])
    assert_type(result.failed, tuple[Answer[RestoreSession], ...])
    async for answer in query.answers():
        assert_type(answer, Answer[RestoreSession])
        assert_type(answer.error, ServerError | None)
        assert_type(answer.fetched_at, datetime)
    async with query as same:
        assert_type(same, FleetQuery[RestoreSession])
    assert_type(fleet.restore_events(started_after=timedelta(days=1)), FleetQuery[RestoreEvent])
    assert_type(fleet.job_sessions(status=["Failed", "Warning"]), FleetQuery[JobSession])
    assert_type(Fleet.from_env(deadline=30), Fleet)
    assert_type(fleet.map(count), FleetQuery[int])
    assert_type(fleet.map(names), FleetQuery[str])
    assert_type(fleet.map(recent), FleetQuery[RestoreSession])
    assert_type(fleet["vbo1"], Client)
    assert_type([name for name in fleet], list[str])  # noqa: C416  # the iteration is the point


async def changes(fleet: Fleet) -> None:
    async with fleet.watch() as watch:
        async for change in watch:
            match change:
                case Added() | Changed() | Finished():
                    assert_type(change.session, RestoreSession)
                case Removed():
                    assert_type(change.session_id, UUID)
                case RowRejected():
                    assert_type(change.row, Rejected)
                case Unreachable():
                    assert_type(change.error, ServerError)
                case Recovered():
                    assert_type(change.gap, timedelta)
                case Heartbeat():
                    assert_type(change.up, int)
                case _:
                    assert_never(change)


def names_of_types(version: ApiVersion, login: Credentials, ago: TimeBound) -> Server:
    return Server(f"vbo{ago}", login, api_version=version)


async def errors(fleet: Fleet) -> None:
    try:
        _ = [session async for session in fleet.restore_sessions()]
    except FleetError as error:
        assert_type(error.exceptions, tuple[ServerError, ...])
    except TlsError as error:
        assert_type(error.server, str)
    except ServerTimeoutError as error:
        assert_type(error.retryable, bool)
