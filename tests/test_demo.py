"""`python -m aiovbo demo`, as a process of its own; and its report of what servers may send."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from aiovbo import (
    Answer,
    RestoreSession,
    RestoreSessionResult,
    RestoreSessionState,
    RestoreSessionType,
    ServerError,
    UnreachableError,
    __version__,
)
from aiovbo._report import Report, Row

COMMAND = [sys.executable, "-W", "error", "-X", "dev", "-m", "aiovbo"]
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
ESCAPE = "\x1b"


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


def answer(*rows: Row, error: ServerError | None = None) -> Answer[list[Row]]:
    return Answer(
        server="vbo-01",
        items=(list(rows),),
        error=error,
        complete=error is None,
        attempts=1,
        elapsed=0.1,
        fetched_at=NOW,
    )


def report(*rows: Row, error: ServerError | None = None, width: int = 120) -> list[str]:
    return Report([answer(*rows, error=error)], elapsed=0.2).text(width).splitlines()


# ---------------------------------------------------------------------------------- as a process


def test_the_demonstration_shows_sessions_failures_and_figures() -> None:
    """Twelve servers' sessions, newest first; three failures, each with a hint; within 15 s."""
    started = time.monotonic()
    done = subprocess.run([*COMMAND, "demo"], capture_output=True, text=True, check=False, timeout=40)
    took = time.monotonic() - started
    assert (done.returncode, done.stderr) == (0, "")
    assert took < 15
    text = done.stdout
    assert ESCAPE not in text
    assert max(map(len, text.splitlines())) <= 120
    rows = re.findall(r"^(vbo-\d\d\.demo) +(\w+\.onmicrosoft\.com) .*$", text, re.MULTILINE)
    figures = re.search(r"^(\d+) sessions from 12 servers, .*; 3 servers failed", text, re.MULTILINE)
    assert figures is not None
    assert len(rows) == int(figures[1]) > 10
    assert re.search(r"^vbo-13\.demo .*the connection was refused", text, re.MULTILINE)
    assert re.search(r"^vbo-14\.demo .*deadline of 5 s", text, re.MULTILINE)
    assert re.search(r"^vbo-15\.demo .*the logon was refused", text, re.MULTILINE)
    for hint in ("REST API service run, and on this port?", "allow more time.", "Check the credentials"):
        assert hint in text


@pytest.mark.parametrize(
    ("columns", "environment", "coloured"),
    [(80, {}, True), (160, {"NO_COLOR": "1"}, False)],
    ids=["80 columns", "160 columns without colour"],
)
def test_on_a_terminal_it_keeps_to_the_width(
    columns: int, environment: dict[str, str], *, coloured: bool
) -> None:
    """No line is broken by the terminal; results have colours unless NO_COLOR is set."""
    text = on_terminal(columns, environment)
    # What was overwritten is no line of its own.
    lines = [line.rpartition("\x1b[K")[2] for line in text.replace("\r\n", "\n").split("\n")]
    bare = [re.sub(r"\x1b\[[\d;]*m", "", line) for line in lines]
    assert max(map(len, bare)) <= columns
    assert any("newest first" in line for line in bare)
    assert ("\x1b[32mSuccess" in text) is coloured
    assert ("\x1b[1m" in text) is coloured


def on_terminal(columns: int, environment: dict[str, str]) -> str:
    """What the demonstration writes to a terminal of this width."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    hidden = {"COLUMNS", "LINES", "NO_COLOR"}
    kept = {key: value for key, value in os.environ.items() if key not in hidden}
    with subprocess.Popen(
        [*COMMAND, "demo"], stdout=theirs, stderr=theirs, env={**kept, **environment}
    ) as process:
        os.close(theirs)
        written = b""
        # Linux says EIO where the other side is gone.
        with suppress(OSError):
            while chunk := os.read(ours, 65536):
                written += chunk
        os.close(ours)
    assert process.returncode == 0, written
    return written.decode()


def test_the_same_seed_shows_the_same_world() -> None:
    """What was restored is the same; only the times of day move on."""
    first, second, other = (
        re.findall(r"^vbo-\d\d\.demo +\w+\.onmicrosoft.*?  (?:\S+@|\w+\\)\S+", text, re.MULTILINE)
        for text in parallel(["--seed", "7"], ["--seed", "7"], ["--seed", "8"])
    )
    assert first == second != other


def parallel(*arguments: list[str]) -> list[str]:
    runs = [
        subprocess.Popen([*COMMAND, "demo", *some], stdout=subprocess.PIPE, text=True) for some in arguments
    ]
    return [process.communicate(timeout=40)[0] for process in runs]


def test_without_trustme_it_says_what_to_install(tmp_path: Path) -> None:
    """One line and exit status 2, no traceback."""
    (tmp_path / "trustme.py").write_text("raise ImportError('gone')\n", encoding="utf-8")
    done = subprocess.run(
        [*COMMAND, "demo"],
        capture_output=True,
        text=True,
        check=False,
        timeout=40,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert re.fullmatch(r"python -m aiovbo demo: .*pip install.*aiovbo\[testing\].*\n", done.stderr)


def test_the_command_line_says_its_version_and_refuses_nonsense() -> None:
    """As argparse does; without a command there is nothing to do."""
    version = subprocess.run([*COMMAND, "--version"], capture_output=True, text=True, check=True)
    assert version.stdout.strip() == f"aiovbo {__version__}"
    for arguments in ([], ["dmeo"], ["demo", "--seed", "x"]):
        done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert "usage: python -m aiovbo" in done.stderr


# ------------------------------------------------------------------------------------ the report


def test_rows_are_sorted_by_time_whatever_server_they_come_from() -> None:
    """Newest first."""
    rows = [Row(session(f"vbo-{ago}", ago), "contoso") for ago in (3, 1, 2)]
    shown = [line.split()[0] for line in report(*rows) if line.startswith("vbo-")]
    assert shown == ["vbo-1", "vbo-2", "vbo-3"]


def test_what_a_server_sent_never_reaches_the_terminal_raw() -> None:
    """Escape sequences, line breaks and overlong texts: in cells, in errors, in hints."""
    evil = "\x1b[2J\r\nroot\x07\u202e" + 5000 * "x"
    error = UnreachableError(evil, server="vbo-09\x1b[2J", operation=f"GET /v8/{evil}", hint=evil)
    row = Row(session(server=evil, initiated_by=evil, type=RestoreSessionType(evil)), evil)
    for width in (80, 120, 160):
        text = Report([answer(row, error=error)], elapsed=0.2).text(width)
        assert ESCAPE not in text
        assert all(c.isprintable() or c == "\n" for c in text)
        assert text.count("root") <= 8


@pytest.mark.parametrize("width", [80, 100, 120, 160])
def test_every_line_fits(width: int) -> None:
    """Long names are cut and end in an ellipsis; what is short is never cut."""
    long = session("vbo-01.demo", initiated_by="anna.berg@" + 9 * "department." + "example")
    lines = report(Row(long, 9 * "subsidiary." + "onmicrosoft.com"), width=width)
    assert max(map(len, lines)) <= width
    row = next(line for line in lines if line.startswith("vbo-01"))
    assert row.count("…") == 2
    assert "vbo-01.demo" in row
    assert "Success" in row


def test_a_narrow_terminal_still_gets_every_column() -> None:
    """Below what fits, lines may be long, but nothing is lost and nothing fails."""
    lines = report(Row(session(), "contoso.onmicrosoft.com"), width=20)
    assert any("Success" in line for line in lines)


def test_a_running_session_has_no_result_yet() -> None:
    """The API already shows one; how long it has been running is counted up to the answer."""
    running = session(state=RestoreSessionState.WORKING, end_time=None, ago=1.5)
    (line,) = (line for line in report(Row(running, "contoso")) if line.startswith("vbo-01"))
    assert "Success" not in line
    assert line.endswith("1h 30m")


def test_what_is_not_known_is_a_dash() -> None:
    """A v4 server says neither who began a session nor for whom."""
    bare = RestoreSession(id=UUID(int=2), creation_time=NOW, server="vbo-01")
    (line,) = (line for line in report(Row(bare, "")) if line.startswith("vbo-01"))
    assert line.split() == ["vbo-01", "-", "-", "-", "-", "-", "Mon", "12:00", "0m"]


def test_without_sessions_there_are_still_titles_and_figures() -> None:
    """Nothing restored is an answer too."""
    lines = report()
    assert any(line.startswith("server") for line in lines)
    assert lines[-1] == "0 sessions from 1 servers, the slowest of them after 0.10 s. All in 0.20 s."


def test_where_all_servers_fail_it_says_so() -> None:
    """No healthy server means no slowest one."""
    error = UnreachableError("the connection was refused", server="vbo-01", hint="Is it up?")
    lines = report(error=error)
    assert "1 of 1 servers gave no answer" in lines
    assert lines[-1].startswith("0 sessions from 0 servers; 1 servers failed")
