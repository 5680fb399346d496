"""Bounds that are counted back from now, where the client's and the server's clock disagree."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from harness.backups import asked, server_of
from harness.documents import session
from harness.raw import Connection, RawServer, json_answer, vbo_routes

from aiovbo import Client, Clock, Fleet, Password, Server
from aiovbo.testing import BackupServer, World

SERVER_NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


async def bounds_sent(ahead: timedelta, *, fleet: bool, versions: str = "auto", **bounds: Any) -> list[str]:
    """The lower bounds that a client sends whose clock is ahead; its query must find the one session."""
    recent = session(1, _links={}, creationTime="2026-11-20T11:00:00Z", endTime=None)
    sent: list[str] = []

    async def listing(connection: Connection) -> None:
        query = parse_qs(urlsplit(connection.requests[-1].target).query)
        if "startTimeFrom" not in query:
            await connection.send(json_answer({"version": "8"}, headers=dated))
            return
        sent.extend(query["startTimeFrom"])
        found = [recent] if query["startTimeFrom"][0] < recent["creationTime"] else []
        await connection.send(json_answer({"results": found}, headers=dated))

    dated = [("Date", format_datetime(SERVER_NOW, usegmt=True))]
    routes = {**vbo_routes(version="v8"), ("GET", "/v8/RestoreSessions"): listing}
    routes["GET", "/v8/ServiceInstance"] = json_answer({"version": "8"}, headers=dated)
    async with RawServer(routes) as raw:
        server = Server(raw.url, Password("u", "p"), allow_http=True, api_version=versions)  # type: ignore[arg-type]  # as given
        clock = Clock(now=lambda: SERVER_NOW + ahead)
        if fleet:
            async with Fleet([server], clock=clock) as servers:
                found = (await servers.restore_sessions(**bounds)).items
        else:
            async with Client(server, clock=clock) as client:
                found = tuple(await client.restore_sessions(**bounds))
    assert len(found) == 1
    return sent


@pytest.mark.parametrize("fleet", [True, False])
@pytest.mark.parametrize("ahead", [timedelta(days=1), timedelta(days=-1), timedelta(seconds=90)])
async def test_a_span_is_counted_from_the_servers_time(ahead: timedelta, fleet: bool) -> None:  # noqa: FBT001  # a parameter
    """Where its clock is known to be over a minute off, as it is after the version was found."""
    assert await bounds_sent(ahead, fleet=fleet, started_after=timedelta(hours=2)) == [
        "2026-11-20T10:00:00.000000Z"
    ]


@pytest.mark.parametrize("fleet", [True, False])
async def test_a_clock_that_is_found_wrong_by_the_listing_itself_costs_one_more_request(
    fleet: bool,  # noqa: FBT001  # a parameter
) -> None:
    """Where the version is given, nothing came before it; the first page is not delivered."""
    sent = await bounds_sent(timedelta(days=1), fleet=fleet, versions="v8", started_after=timedelta(hours=2))
    assert sent == ["2026-11-21T10:00:00.000000Z", "2026-11-20T10:00:00.000000Z"]


async def test_a_clock_that_is_within_a_minute_changes_nothing() -> None:
    """Spans are counted from the client's time then, as everywhere else."""
    sent = await bounds_sent(timedelta(seconds=59), fleet=True, started_after=timedelta(hours=2))
    assert sent == ["2026-11-20T10:00:59.000000Z"]


async def test_a_point_in_time_is_sent_as_it_was_given() -> None:
    """However wrong a clock is."""
    start = datetime(2026, 11, 20, 9, tzinfo=UTC)
    assert await bounds_sent(timedelta(days=1), fleet=True, started_after=start) == [
        "2026-11-20T09:00:00.000000Z"
    ]


async def test_a_clock_that_is_right_costs_no_further_request() -> None:
    """Of a client whose first listing brings the server's time: the first page is requested once."""
    async with BackupServer(World(sessions=3), version="v8") as backup, Client(server_of(backup)) as client:
        assert len(await client.restore_sessions(started_after=timedelta(days=30))) == 3
        assert asked(backup) == 1
        assert len(await client.restore_sessions(started_after=timedelta(days=30))) == 3
        assert asked(backup) == 2
