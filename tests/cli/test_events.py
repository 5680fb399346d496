"""The command `events`: what was done in the sessions of all servers, item by item, and which part of it."""

import csv
import io
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from aiovbo._cli._app import main
from aiovbo.testing import BackupServer, Fault

EVENTS = "RestoreSessions/*/Events"


@pytest.fixture
def rows(inventory: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the command with CSV, and gives its rows."""
    assert inventory.exists()

    def run(*arguments: str, status: int = 0) -> list[dict[str, str]]:
        assert main(["events", "--output", "csv", *arguments]) == status
        return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))

    return run


def test_every_event_of_every_session_is_a_row(rows: Any, servers: list[BackupServer]) -> None:
    """With its session: who, of which organization (also on v4), from which host, why."""
    found = rows()
    sessions = {str(one.id): one for server in servers for one in server.world.sessions}
    assert {row["sessionId"] for row in found} == set(sessions)
    assert {row["server"] for row in found} == {"vbo0", "vbo1", "vbo2"}
    for row in found:
        session = sessions[row["sessionId"]]
        assert (row["organization"], row["initiatedBy"]) == (session.organization, session.initiated_by)
        assert (row["type"] == "None") == (row["itemName"] == "")
        old = row["server"] == "vbo0"
        assert row["reason"] == ("" if old else session.reason or "")
    began = [row["creationTime"] for row in found]
    assert began == sorted(began, reverse=True)


def test_filters_are_about_the_session_and_the_result_about_the_item(
    rows: Any, servers: list[BackupServer]
) -> None:
    """Each alone, without regard to case; only sessions that fit cost a request."""
    for server in servers:
        server.world.change(server.world.sessions[0].id, initiated_by="TECH\\zoe", type="Vet")
    every = rows()
    for server in servers:
        server.requests.clear()
    of_zoe = rows("--by", "tech\\ZO")
    assert {row["initiatedBy"] for row in of_zoe} == {"TECH\\zoe"}
    assert len({row["sessionId"] for row in of_zoe}) == 3
    assert sum("/events" in one.path.lower() for server in servers for one in server.requests) == 3
    assert rows("--type", "teams") == [row for row in every if row["sessionType"] == "Vet"]
    assert rows("--result", "FAILED") == [row for row in every if row["status"] == "Failed"]
    assert rows("--result", "skipped") == [row for row in every if row["status"] == "Skipped"]
    assert rows("--item", "ITEM 1") == [row for row in every if row["itemName"] == "Item 1"]
    name = every[0]["organization"]
    assert rows("--organization", name[:6]) == [
        row for row in every if name[:6].casefold() in row["organization"].casefold()
    ]


def test_a_session_outside_the_filter_costs_no_request(rows: Any, servers: list[BackupServer]) -> None:
    """Of five sessions in five hours, two are within it."""
    found = rows("--since", "150m")
    assert len({row["sessionId"] for row in found}) == 2 * 3
    assert sum("/events" in one.path.lower() for server in servers for one in server.requests) == 2 * 3


@pytest.mark.parametrize("output", ["json", "jsonl"])
def test_json_has_session_and_event_with_the_servers_own_fields(
    output: str, inventory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One document for each event."""
    assert inventory.exists()
    assert main(["events", "--output", output, "--item", "Item 1"]) == 0
    text = capsys.readouterr().out
    found = json.loads(text) if output == "json" else [json.loads(line) for line in text.splitlines()]
    assert len(found) == 15
    for one in found:
        assert one["session"]["server"] == one["server"]
        assert one["session"]["organization"]
        assert one["event"]["itemName"] == "Item 1"
        assert one["event"]["startTime"].endswith("Z")


def test_the_table_has_a_line_for_each_event_and_the_figures(
    inventory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With its zone; columns, order and limit as for sessions."""
    assert inventory.exists()
    assert main(["events", "--item", "Item 1", "--limit", "4"]) == 0
    out, err = capsys.readouterr()
    head, *lines = out.splitlines()
    assert head.split()[:2] == ["server", "organization"]
    assert "start UTC" in head
    assert len(lines) == 4
    assert "4 of 15 events of 3 servers, times in UTC" in err
    assert main(["events", "--item", "Item 1", "--columns", "server,item,bytes", "--sort", "-bytes"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["server", "item", "bytes"]
    sizes = [int(line.split()[-1]) for line in lines]
    assert sizes == sorted(sizes, reverse=True)


def test_a_server_that_fails_half_way_costs_only_what_it_did_not_send(
    rows: Any, servers: list[BackupServer]
) -> None:
    """Exit status 3; the others are complete."""
    whole = rows()
    servers[2].fail(Fault.status(403), on=EVENTS, times=1)
    found = rows(status=3)
    lost = [row for row in whole if row not in found]
    assert {row["server"] for row in lost} == {"vbo2"}
    assert len({row["sessionId"] for row in lost}) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--result", "faild"], "did you mean Failed?"),
        (["--columns", "itm"], "did you mean itemName?"),
        (["--columns", "server", "--output", "json"], "JSON has the server's own fields"),
        (["--since", "today", "--until", "yesterday"], "is not before --until"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_sent(
    arguments: list[str],
    said: str,
    inventory: Path,
    servers: list[BackupServer],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit status 2."""
    assert inventory.exists()
    assert main(["events", *arguments]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not any(server.requests for server in servers)


def test_sessions_are_selected_by_user_too(
    inventory: Path, servers: list[BackupServer], capsys: pytest.CaptureFixture[str]
) -> None:
    """As events are."""
    assert inventory.exists()
    began = servers[1].world.now - timedelta(hours=2)
    key = servers[1].world.add(creation_time=began, end_time=None, initiated_by="TECH\\zoe").id
    assert main(["sessions", "--by", "ZOE", "--output", "jsonl"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["id"] == str(key)
