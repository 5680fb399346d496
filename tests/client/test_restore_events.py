"""The events of many restore sessions: which are requested, in which order, and what a failure costs."""

import asyncio
import logging
import pickle
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from harness import documents
from harness.backups import asked, server_of
from harness.cancel import cancel_at_every_await
from harness.watches import NOW, VERSIONS

from aiovbo import (
    Client,
    ConfigError,
    Fleet,
    ForbiddenError,
    Password,
    PayloadError,
    RestoreEvent,
    RestoreSession,
    Server,
    ServerFaultError,
    ServerTimeoutError,
    UnreachableError,
)
from aiovbo.testing import BackupServer, Fault, MemoryTransport, SimClock, World

HOUR = timedelta(hours=1)
EVENTS = "RestoreSessions/*/Events"


def world(sessions: int = 6) -> World:
    """Sessions that began at 1, 2, 3, ... hours before now, and ended after half an hour."""
    made = World(now=NOW, speed=0, sessions=0)
    for number in range(1, sessions + 1):
        begin = NOW - number * HOUR
        made.add(creation_time=begin, end_time=begin + HOUR / 2, type="Vex", initiated_by=f"user{number % 2}")
    return made


async def separately(client: Client, **bounds: Any) -> list[RestoreEvent]:
    """The same events, one session after the other."""
    return [
        RestoreEvent(session, event)
        for session in await client.restore_sessions(**bounds)
        for event in await session.events()
    ]


def event_requests(backup: BackupServer) -> list[str]:
    """The paths of the requests for events, with their queries, in lower case."""
    return [
        f"{r.resource}?{r.query}".lower() for r in backup.requests if r.resource.lower().endswith("/events")
    ]


@pytest.mark.parametrize("version", ["v4", "v5", "v6", "v7", "v8"])
async def test_the_events_of_every_session_come_with_their_session(version: Any) -> None:
    """All of them, in the order of the sessions, the events of a session together."""
    async with BackupServer(world(), version=version) as backup, Client(server_of(backup)) as client:
        found = await client.restore_events()
        assert found == await separately(client)
        assert len({one.session.id for one in found}) == 6
        assert {one.server for one in found} == {client.name}
        assert [pickle.loads(pickle.dumps(one)) for one in found] == found
        assert len(set(found)) == len(found)


@pytest.mark.parametrize("version", VERSIONS)
async def test_only_sessions_within_the_filter_cost_a_request(version: Any) -> None:
    """By their times and by a function, on servers that filter and on those that do not."""
    async with BackupServer(world(), version=version) as backup, Client(server_of(backup)) as client:
        bounds: dict[str, Any] = {"started_after": NOW - 5.5 * HOUR, "ended_before": NOW - 2 * HOUR}
        found = await client.restore_events(**bounds, only=lambda session: session.initiated_by == "user1")
        began = [NOW - hours * HOUR for hours in (3, 5)]
        assert list(dict.fromkeys(one.session.creation_time for one in found)) == began
        assert found == [
            one for one in await separately(client, **bounds) if one.session.creation_time in began
        ]
        assert len(event_requests(backup)) == 2 + 3


async def test_large_pages_are_requested_and_small_ones_followed() -> None:
    """1,000 items where nothing is said; a server that sends two at a time is read to the end."""
    async with BackupServer(world(3), version="v8") as backup, Client(server_of(backup)) as client:
        found = await client.restore_events()
        assert len(event_requests(backup)) == 3
        assert all("limit=1000" in request for request in event_requests(backup))
    async with (
        BackupServer(world(3), version="v8", page_limit_max=2) as backup,
        Client(server_of(backup)) as client,
    ):
        assert [one.event.id for one in await client.restore_events()] == [one.event.id for one in found]


async def test_requests_at_once_are_bounded_and_used() -> None:
    """As many as the client's connections, of a server with many sessions."""
    busy = most = 0

    def enter(page: Any) -> Any:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        return page

    async with (
        BackupServer(world(12), version="v8") as backup,
        Client(server_of(backup), connections=3) as client,
    ):
        backup.fail(Fault.edit(enter), on=EVENTS, times=None)

        async for page in client.restore_events().pages():
            # A session's events are delivered before a further session is requested.
            busy -= len(page.items) > 0
        assert most == 3


async def test_a_consumer_that_stops_stops_the_requests() -> None:
    """Of forty sessions, only those are requested whose events were to come next."""
    async with BackupServer(world(40), version="v8") as backup, Client(server_of(backup)) as client:
        async with client.restore_events() as query:
            async for _ in query:
                break
        sent = len(event_requests(backup))
        assert sent <= 4
        assert len(await client.organizations()) > 0
        assert len(event_requests(backup)) == sent


async def test_a_slow_consumer_costs_no_deadline() -> None:
    """The deadline is suspended while a page waits, however long that is."""
    clock = SimClock()
    backup = BackupServer(World(sessions=12, clock=clock), clock=clock)
    server = Server("vbo1", Password(backup.username, backup.password))
    transport = MemoryTransport({"vbo1": backup})
    async with Client(server, transport=transport, clock=clock, deadline=5) as client:
        pages = 0
        async for page in client.restore_events().pages():
            await clock.sleep(4)
            pages += bool(page.items)
        assert pages == 12


async def test_a_deadline_that_passes_is_the_servers_failure() -> None:
    """With what had come before it; no task is left."""
    async with BackupServer(world(8)) as backup, Client(server_of(backup), deadline=2) as client:
        await client.with_options(deadline=30).restore_sessions()
        backup.fail(Fault.stall(), on=EVENTS, times=None, after=2)
        answer = await client.restore_events().answer()
        assert len({one.session.id for one in answer.items}) == 2
        assert isinstance(answer.error, ServerTimeoutError)
        assert answer.error.server == client.name
        assert not answer.complete


async def test_a_session_that_was_deleted_meanwhile_has_no_events() -> None:
    """Servers delete old sessions: that is no failure, and nothing is missing."""
    async with BackupServer(world(5), version="v8") as backup, Client(server_of(backup)) as client:
        gone = backup.world.sessions[2].id

        def delete(page: Any) -> Any:
            backup.world.remove(gone)
            return page

        backup.fail(Fault.edit(delete), on="RestoreSessions")
        answer = await client.restore_events().answer()
        assert answer.error is None
        assert answer.complete
        assert len({one.session.id for one in answer.items} - {gone}) == 4


async def test_a_server_that_does_not_have_the_events_path_is_a_failure() -> None:
    """Although it says 404, as of a session that was deleted."""
    async with BackupServer(world(8), version="v8") as backup, Client(server_of(backup), retries=0) as client:
        backup.fail(Fault.status(404), on=EVENTS, times=None)
        answer = await client.restore_events().answer()
        assert answer.error is not None
        assert "/Events" in answer.error.operation
        assert answer.items == ()
        assert len(event_requests(backup)) <= 3 + 4


@pytest.mark.parametrize("kind", ["fault", "forbidden", "not JSON", "row without id"])
async def test_one_session_whose_events_fail_does_not_hide_the_others(kind: str) -> None:
    """The others' are delivered, then comes the error; the answer is not complete."""
    faults: dict[str, tuple[Fault, type[Exception]]] = {
        "fault": (Fault.status(500), ServerFaultError),
        "forbidden": (Fault.status(403), ForbiddenError),
        "not JSON": (Fault.body(b"<html>"), PayloadError),
        "row without id": (Fault.body(b'{"results": [{"type": "View"}]}'), PayloadError),
    }
    fault, error = faults[kind]
    async with BackupServer(world(6), version="v8") as backup, Client(server_of(backup), retries=0) as client:
        whole = await client.restore_events()
        backup.fail(fault, on=EVENTS)
        answer = await client.restore_events().answer()
        assert type(answer.error) is error
        assert len({one.session.id for one in answer.items}) == 5
        assert set(answer.items) < set(whole)
        assert not answer.complete
        backup.fail(fault, on=EVENTS)
        found: list[RestoreEvent] = []
        with pytest.raises(error):
            async for one in client.restore_events():
                found.append(one)  # noqa: PERF401  # what came before the error counts
        assert len({one.session.id for one in found}) == 5


async def test_a_server_that_is_down_is_not_asked_for_every_session() -> None:
    """One that no longer answers ends the query after what was in progress."""
    async with BackupServer(world(30)) as backup, Client(server_of(backup), retries=0) as client:
        backup.fail(Fault.drop(reset=True), on=EVENTS, times=None)
        answer = await client.restore_events().answer()
        assert isinstance(answer.error, UnreachableError)
        assert len(event_requests(backup)) <= 8


async def test_rejected_sessions_and_events_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    """With the others delivered; and where a session was rejected, something may be missing."""

    def without_id(page: Any) -> Any:
        del page["results"][0]["id"]
        return page

    async with BackupServer(world(4), version="v8") as backup, Client(server_of(backup)) as client:
        backup.fail(Fault.edit(without_id), on="RestoreSessions")
        backup.fail(Fault.edit(without_id), on=EVENTS)
        with caplog.at_level(logging.WARNING, "aiovbo"):
            answer = await client.restore_events().answer()
        assert answer.error is None
        assert len({one.session.id for one in answer.items}) == 3
        assert [one.path for one in answer.rejected] == ["$.id", "$.id"]
        assert not answer.complete
        assert len([one for one in caplog.records if one.name.startswith("aiovbo")]) == 2


async def test_events_are_cancelled_at_every_await() -> None:
    """From the first page to the last: no task is left, and the client goes on."""
    async with BackupServer(world(4)) as backup, Client(server_of(backup), connections=2) as client:
        whole = await client.restore_events()

        async def operation() -> None:
            async for _ in client.restore_events():
                pass

        assert await cancel_at_every_await(operation) > 3
        assert await client.restore_events() == whole


async def test_known_sessions_are_not_listed_again() -> None:
    """Also such as were stored and have lost their client; those of another server are rejected at once."""
    async with BackupServer(world(4), version="v4") as backup, Client(server_of(backup)) as client:
        sessions = await client.restore_sessions()
        stored = [pickle.loads(pickle.dumps(session)) for session in sessions[1:3]]
        listed = asked(backup)
        found = await client.events_of(stored)
        assert list(dict.fromkeys(one.session for one in found)) == sessions[1:3]
        assert asked(backup) == listed
        assert await client.events_of([]) == []
        foreign = RestoreSession(id=UUID(int=1), creation_time=NOW, server="elsewhere")
        with pytest.raises(ConfigError, match="elsewhere"):
            client.events_of([foreign])


async def test_a_session_without_links_has_events_by_the_documented_path() -> None:
    """Where the response has no link, the path is made of the id."""
    async with BackupServer(world(1), version="v8") as backup, Client(server_of(backup)) as client:
        whole = await client.restore_events()
        bare = documents.session(id=str(backup.world.sessions[0].id), _links=...)
        backup.fail(Fault.edit(lambda page: page | {"results": [bare]}), on="RestoreSessions")
        assert [one.event for one in await client.restore_events()] == [one.event for one in whole]


async def test_a_link_that_leads_away_is_a_failure_and_sends_nothing_there() -> None:
    """The other sessions' events are delivered."""

    def astray(page: Any) -> Any:
        page["results"][0]["_links"]["self"]["href"] = "https://elsewhere.example/x"
        return page

    async with BackupServer(world(3), version="v8") as backup, Client(server_of(backup)) as client:
        backup.fail(Fault.edit(astray), on="RestoreSessions")
        answer = await client.restore_events().answer()
        assert isinstance(answer.error, PayloadError)
        assert len({one.session.id for one in answer.items}) == 2


# ------------------------------------------------------------------------------------ of a fleet


async def test_a_fleet_gives_the_events_of_all_servers_beside_one_that_fails() -> None:
    """Streamed, collected and answer by answer; the failure is a value, and the others are complete."""
    async with (
        BackupServer(world(3), version="v4") as old,
        BackupServer(world(4), version="v8") as new,
        BackupServer(world(2), version="v6") as bad,
        Fleet(
            [server_of(old, name="old"), server_of(new, name="new"), server_of(bad, name="bad")], retries=0
        ) as fleet,
    ):
        bad.fail(Fault.drop(), on=EVENTS, times=None)
        result = await fleet.restore_events(started_after=timedelta(days=30000))
        assert [answer.server for answer in result.failed] == ["bad"]
        sessions = {name: {one.session.id for one in answer.items} for name, answer in result.answers.items()}
        assert {name: len(ids) for name, ids in sessions.items()} == {"old": 3, "new": 4, "bad": 0}
        assert all(one.server == name for name, a in result.answers.items() for one in a.items)
        streamed: list[RestoreEvent] = []
        with pytest.raises(ExceptionGroup) as caught:
            async for one in fleet.restore_events():
                streamed.append(one)  # noqa: PERF401  # what came before the error counts
        assert len(caught.value.exceptions) == 1
        assert set(streamed) == set(result.items)
        answers = {a.server: a async for a in fleet.restore_events(only=lambda _: False).answers()}
        assert [a.error for a in answers.values()] == [None] * 3
        assert [a.items for a in answers.values()] == [()] * 3


@pytest.mark.parametrize("how", ["break", "cancel", "close"])
async def test_no_task_of_a_fleet_is_left(how: str) -> None:
    """However the consumer ends."""

    def ours() -> list[str]:
        return [t.get_name() for t in asyncio.all_tasks() if t.get_name().startswith("aiovbo")]

    async with BackupServer(world(20)) as backup, Fleet([server_of(backup)]) as fleet:
        began = asyncio.Event()

        async def consume() -> None:
            async with fleet.restore_events() as query:
                async for _ in query:
                    began.set()
                    if how == "break":
                        break
                    await asyncio.sleep(0)

        consumer = asyncio.create_task(consume(), name="consumer")
        await began.wait()
        match how:
            case "cancel":
                consumer.cancel()
            case "close":
                await fleet.aclose()
            case _:
                pass
        await asyncio.wait([consumer])
        _ = consumer.cancelled() or consumer.exception()
        assert ours() == []


@pytest.mark.parametrize("of", ["fleet", "client"])
async def test_naive_times_are_rejected_at_the_call(of: str) -> None:
    """Before anything is sent, as for the sessions."""
    async with (
        BackupServer(world(1), name="vbo1") as backup,
        Fleet([server_of(backup, name="vbo1")]) as fleet,
    ):
        with pytest.raises(ValueError, match="time zone"):
            (fleet if of == "fleet" else fleet["vbo1"]).restore_events(started_after=NOW.replace(tzinfo=None))
        assert backup.requests == []
