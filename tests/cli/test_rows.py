"""Restore sessions as lines of a table, and failures below it: what fits, and what is harmless."""

import io
import re
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from rich.cells import cell_len
from rich.console import Console

from aiovbo import (
    Added,
    RestoreSession,
    RestoreSessionResult,
    RestoreSessionState,
    RestoreSessionType,
    ServerError,
    UnreachableError,
)
from aiovbo._cli import _terminal
from aiovbo._cli._options import TableOptions
from aiovbo._cli._rows import SESSIONS, Row, table_of
from aiovbo._cli._statuses import status_of
from aiovbo._cli._terminal import show_failures
from aiovbo._cli._times import Times
from aiovbo._cli._watch import _line

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
TIMES = Times(UTC, NOW)


def session(server: str = "vbo-01", ago: float = 1.0, **changes: object) -> RestoreSession:
    fields: dict[str, object] = {
        "id": UUID(int=1),
        "type": RestoreSessionType.VEX,
        "creation_time": NOW - timedelta(hours=ago),
        "end_time": NOW,
        "state": RestoreSessionState.STOPPED,
        "result": RestoreSessionResult.SUCCESS,
        "initiated_by": "TECH\\anna.berg",
        "server": server,
    }
    return RestoreSession(**(fields | changes))


def console(width: int = 120) -> Console:
    return Console(file=io.StringIO(), width=width, markup=False, highlight=False, emoji=False)


def shown(*rows: Row, width: int = 120, ids: bool = False) -> list[str]:
    out = console(width)
    out.print(table_of(rows, TIMES, ids=ids))
    assert isinstance(out.file, io.StringIO)
    return [line.rstrip() for line in out.file.getvalue().splitlines()]


def test_rows_are_sorted_by_time_whatever_server_they_come_from() -> None:
    """Newest first."""
    rows = [Row(session(f"vbo-{ago}", ago), "contoso") for ago in (3, 1, 2)]
    assert [line.split()[0] for line in shown(*SESSIONS.arranged(rows, TableOptions()))[1:]] == [
        "vbo-1",
        "vbo-2",
        "vbo-3",
    ]


def test_what_a_server_sent_never_reaches_the_terminal_raw() -> None:
    """Escape sequences, line breaks, markup and overlong texts: in cells, in errors, in hints."""
    evil = "\x1b[2J\r\n[bold]root[/]\x07\u202e" + 5000 * "x"
    error = UnreachableError(evil, server="vbo-09\x1b[2J", operation=f"GET /v8/{evil}", hint=evil)
    row = Row(session(server=evil, initiated_by=evil, type=RestoreSessionType(evil)), evil)
    for width in (80, 120, 160):
        out = console(width)
        out.print(table_of([row], TIMES))
        show_failures([error], 1, out)
        assert isinstance(out.file, io.StringIO)
        text = out.file.getvalue()
        assert all(c.isprintable() or c == "\n" for c in text)
        assert "[bold]root" in text
        assert text.count("root") <= 8


@pytest.mark.parametrize("width", [80, 100, 120, 160])
def test_every_line_fits(width: int) -> None:
    """Long names are cut and end in an ellipsis; what is short is never cut."""
    long = session("vbo-01.demo", initiated_by="anna.berg@" + 9 * "department." + "example")
    lines = shown(Row(long, 9 * "subsidiary." + "onmicrosoft.com"), width=width)
    assert max(map(cell_len, lines)) <= width
    assert lines[1].count("…") == 2
    for whole in ("vbo-01.demo", "Success", "Mon 11:00", "1h 00m"):
        assert whole in lines[1]


@pytest.mark.parametrize("width", [80, 100, 109, 110, 120, 160])
@pytest.mark.parametrize("running", [False, True])
def test_an_id_is_never_cut(width: int, *, running: bool) -> None:
    """It is there to be copied; whose it is, how it came out and when is there to choose by."""
    long = 9 * "subsidiary." + "onmicrosoft.com"
    state = RestoreSessionState.WORKING if running else RestoreSessionState.STOPPED
    ended = None if running else NOW
    lines = shown(Row(session("vbo-01.demo", state=state, end_time=ended), long), width=width, ids=True)
    assert str(UUID(int=1)) in lines[1]
    for whole in ("vbo-01", "Working" if running else "Success", "Mon 11:00"):
        assert whole in lines[1]
    assert max(map(len, lines)) <= width


ALIKE = ["backup-athens-01.internal.example.com", "backup-athens-02.internal.example.com"]


@pytest.mark.parametrize("width", [40, 41, 50, 60, 70, 80, 90, 100, 120])
@pytest.mark.parametrize("ids", [False, True])
def test_what_a_row_is_known_by_is_there_however_narrow_the_terminal(width: int, *, ids: bool) -> None:
    """Folded, or on a line of its own; and nothing that may not be cut is cut, or left out unsaid."""
    long = [Row(session(name, initiated_by="TECH\\anna.berg"), "contoso.onmicrosoft.com") for name in ALIKE]
    for rows, names in ((long, ALIKE), ([Row(session(), "contoso")], ["vbo-01"])):
        lines = shown(*rows, width=width, ids=ids)
        text = "".join(lines)
        assert max(map(cell_len, lines)) <= width
        assert "Mon 11:00" in text
        assert "Success" in text
        assert not ids or text.count(str(UUID(int=1))) == len(rows)
        assert all(name in servers_in(lines) for name in names), lines


def servers_in(lines: list[str]) -> str:
    """What stands in the column of servers from top to bottom; where there is no table, everything."""
    column = re.search(r"server +", lines[0])
    if column is None:
        return "".join(lines)
    return "".join(line[slice(*column.span())].strip() for line in lines)


def test_a_running_session_has_no_result_yet() -> None:
    """The API already shows one; how long it has been running is counted up to now."""
    running = session(state=RestoreSessionState.WORKING, end_time=None, ago=1.5)
    line = shown(Row(running, "contoso", NOW))[1]
    assert "Success" not in line
    assert line.endswith("1h 30m")


def test_what_is_not_known_is_a_dash() -> None:
    """A v4 server says neither who began a session nor for whom."""
    bare = RestoreSession(id=UUID(int=2), creation_time=NOW, server="vbo-01")
    assert shown(Row(bare, "", NOW))[1].split() == ["vbo-01", "-", "-", "-", "-", "-", "Mon", "12:00", "0s"]


def test_a_name_stands_above_where_a_change_has_no_room_beside_it() -> None:
    """Neither of the two is cut."""
    change = Added(server=ALIKE[0], id="1", session=session(end_time=None, reason=20 * "because "))
    for width in (40, 60, 80):
        out = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
        out.print(_line(change, len(ALIKE[0]), TIMES, out))
        assert isinstance(out.file, io.StringIO)
        lines = out.file.getvalue().splitlines()
        assert max(map(cell_len, lines)) <= width
        assert ALIKE[0] in "".join(line.strip() for line in lines)
        assert "".join(lines).count("because") == 21
        assert str(UUID(int=1)) in "".join(line.strip() for line in lines)


def test_changes_stand_in_columns_on_a_terminal_and_in_one_line_elsewhere() -> None:
    """What is too long goes on below where it began, and not below the time."""
    change = Added(server="vbo-01", id="1", session=session(end_time=None, reason=20 * "because "))
    out = Console(file=io.StringIO(), width=60, force_terminal=True, color_system=None)
    out.print(_line(change, 8, TIMES, out))
    assert isinstance(out.file, io.StringIO)
    first, *others = out.file.getvalue().rstrip().splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d  vbo-01    started  Vex, .*", first)
    indent = first.index("Vex")
    assert len(others) > 3
    assert all(len(line) <= 60 and len(line) - len(line.lstrip()) == indent for line in others)
    out = console(60)
    out.print(_line(change, 8, TIMES, out), soft_wrap=True)
    assert isinstance(out.file, io.StringIO)
    assert out.file.getvalue().count("\n") == 1


def failures(*errors: ServerError, width: int = 120) -> str:
    out = console(width)
    show_failures(errors, 30, out)
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


def test_equal_failures_are_one_block_with_the_names_of_the_servers() -> None:
    """Whatever the API versions and the addresses are; other failures have blocks of their own."""
    refused = [
        UnreachableError(
            "the connection was refused",
            server=f"vbo{n}",
            operation=f"GET /v{4 + n % 2}/ServiceInstance",
            attempts=3,
            elapsed=0.1 * n,
            hint="Check the port.",
        )
        for n in range(1, 21)
    ]
    unknown = [
        UnreachableError(f"the name vbo{n}.invalid cannot be resolved", server=f"vbo{n}", operation="GET /x")
        for n in range(21, 26)
    ]
    text = failures(*refused, *unknown)
    assert text.count("the connection was refused") == text.count("Check the port.") == 1
    assert "25 of 30 servers gave no answer" in text
    names = " ".join(text.split())
    assert ", ".join(f"vbo{n}" for n in range(1, 21)) + " GET /v5/ServiceInstance, GET /v4" in names
    assert "(tried 3 times, 0.1 to 2.0 s)" in names
    assert "vbo21, vbo22, vbo23, vbo24, vbo25 GET /x: the names vbo21.invalid, vbo22.invalid," in names
    assert "vbo23.invalid and 2 more cannot be resolved" in names
    assert max(map(len, failures(*refused, width=50).splitlines())) <= 50


def test_failures_keep_the_order_in_which_they_are_given() -> None:
    """A block is where its first server is."""
    first, second, third = (
        UnreachableError(what, server=name, operation="GET /x")
        for name, what in (("vbo10", "refused"), ("vbo2", "silent"), ("vbo1", "refused"))
    )
    text = failures(first, second, third)
    assert text.index("vbo10, vbo1") < text.index("vbo2")


def test_one_server_is_not_counted() -> None:
    """Neither `1 of 1 servers`, nor a number at all."""
    out = console()
    show_failures([UnreachableError("refused", server="vbo1", operation="GET /x")], 1, out)
    assert isinstance(out.file, io.StringIO)
    assert "The server gave no answer" in out.file.getvalue()


@pytest.mark.parametrize(
    ("names", "words"), [(["vbo1"], "1 of 1 server "), (["vbo1", "vbo2"], "2 of 2 servers ")]
)
async def test_the_progress_counts_in_words(
    monkeypatch: pytest.MonkeyPatch, names: list[str], words: str
) -> None:
    """One server is not `1 servers`."""
    written = io.StringIO()
    terminal = Console(file=written, force_terminal=True, width=80)
    monkeypatch.setattr(_terminal, "console", lambda **_: terminal)

    async def answers() -> AsyncGenerator[Any, None]:
        for name in names:
            yield SimpleNamespace(server=name)

    await _terminal.collect(answers(), names)
    assert words in written.getvalue()


@pytest.mark.parametrize("width", [60, 120])
def test_no_line_of_a_table_ends_in_spaces(width: int) -> None:
    """A file or a pipe receives what can be compared and copied."""
    out = console(width)
    out.print(table_of([Row(session(result=None), "contoso"), Row(session("vbo-2"), "")], TIMES, ids=True))
    assert isinstance(out.file, io.StringIO)
    lines = out.file.getvalue().splitlines()
    assert lines == [line.rstrip() for line in lines]


@pytest.mark.parametrize(
    ("failed", "asked", "status"), [(0, 0, 0), (0, 3, 0), (1, 3, 3), (3, 3, 4), (1, 1, 4)]
)
def test_the_exit_status_says_how_many_failed(failed: int, asked: int, status: int) -> None:
    """None, some, or all of those that were asked."""
    assert status_of(failed, asked) == status
