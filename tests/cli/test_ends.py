"""How a command ends: when its output is closed or cannot be written; and what its help says."""

import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from harness.readme import ROOT

from aiovbo import CheckpointError, ClosedError, ConfigError, LinkError, UnreachableError, __version__
from aiovbo._cli import _commands, _statuses
from aiovbo._cli._app import COMMANDS, app, main
from aiovbo.testing import BackupServer, Fault

COMMAND = [sys.executable, "-W", "error", "-m", "aiovbo"]
FULL = Path("/dev/full")
NOT_WRITTEN = "aiovbo: the output cannot be written: No space left on device\n"

OutputTo = Callable[[int | Path], AbstractContextManager[None]]


@pytest.mark.usefixtures("inventory")
@pytest.mark.parametrize(
    "command",
    [
        "completion bash", "schema", "check", "pin URL", "show ID", "timeline",
        "sessions", "sessions --output json", "sessions --output jsonl", "sessions --output csv",
        "watch --since 24h --every 1s", "watch --since 24h --every 1s --output jsonl",
    ],
)  # fmt: skip
def test_a_reader_that_closes_the_pipe_is_no_error(
    command: str, servers: list[BackupServer], output_to: OutputTo, capsys: pytest.CaptureFixture[str]
) -> None:
    """As with `head`: every command ends with the same status, and reports nothing."""
    words = {"URL": servers[0].url, "ID": str(servers[2].world.sessions[0].id)}
    reader, writer = os.pipe()
    os.close(reader)
    with output_to(writer):
        assert main([words.get(word, word) for word in command.split()]) == 141
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("inventory")
@pytest.mark.parametrize("command", ["--help", "sessions --help", "sessions"])
def test_a_process_whose_reader_closes_the_pipe_reports_nothing(command: str) -> None:
    """Neither the command nor the interpreter at its own end."""
    with subprocess.Popen(
        [*COMMAND, *command.split()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
        process.wait(150)
    assert (process.returncode, said) == (141, "")


@pytest.mark.usefixtures("inventory")
def test_a_reader_may_go_while_servers_are_still_asked(servers: list[BackupServer]) -> None:
    """What is under way is ended in good order, and nothing is said of it."""
    for server in servers[1:]:
        server.fail(Fault.delay(0.5), on="RestoreSessions", times=None)
    with subprocess.Popen(
        [*COMMAND, "sessions", "--output", "jsonl"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith('{"server": "vbo0"')
        process.stdout.close()
        said = process.stderr.read()
        process.wait(150)
    assert (process.returncode, said) == (141, "")


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
@pytest.mark.usefixtures("inventory")
@pytest.mark.parametrize(
    "command", ["--help", "schema", "check", "sessions", "sessions --output jsonl", "sessions --output csv"]
)
def test_output_that_cannot_be_written_is_one_sentence(
    command: str, output_to: OutputTo, capsys: pytest.CaptureFixture[str]
) -> None:
    """As on a disk that is full."""
    with output_to(FULL):
        assert main(command.split()) == 2
    assert capsys.readouterr().err == NOT_WRITTEN


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("command", ["--help", "schema"])
def test_a_process_that_cannot_write_its_output_reports_it_once(command: str) -> None:
    """The interpreter adds nothing at its own end."""
    with FULL.open("wb") as full:
        done = subprocess.run(
            [*COMMAND, *command.split()],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=150,
        )
    assert (done.returncode, done.stderr) == (2, NOT_WRITTEN)


def test_every_exit_status_is_documented() -> None:
    """The page's table and every command's help list all of them."""
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    statuses = {value for name, value in vars(_statuses).items() if name.isupper()}
    assert {int(number) for number in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)} == statuses
    assert {int(number) for number in re.findall(r"\b\d+\b", app.help_epilogue or "")} == statuses


@pytest.mark.parametrize(
    "error", [TypeError("wrong"), ValueError("wrong"), ClosedError("wrong"), KeyError("x")]
)
def test_a_bug_ends_a_command_with_1_and_a_traceback(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Standard error has the traceback, and says that it is a bug to report."""

    def fail() -> None:
        raise error

    monkeypatch.setattr("aiovbo._inventory.schema.inventory_schema", fail)
    assert main(["schema"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Traceback (most recent call last):")
    assert "in fail" in err
    assert f"aiovbo: this is a bug in aiovbo {__version__}" in err


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ConfigError("wrong"), 2), (CheckpointError("wrong"), 2), (FileNotFoundError(2, "not found", "x"), 2),
        (ModuleNotFoundError("no trustme", name="trustme"), 2), (ImportError("no x", name="aiovbo._cli"), 1),
        (UnreachableError("refused", server="vbo1", operation="GET /v8/Jobs"), 3), (LinkError("unsafe"), 3),
        (BrokenPipeError(), 141), (KeyboardInterrupt(), 130),
    ],
    ids=repr,
)  # fmt: skip
def test_what_ends_a_command_decides_its_status(
    error: BaseException,
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Only a bug has a traceback."""

    def fail() -> None:
        raise error

    monkeypatch.setattr("aiovbo._inventory.schema.inventory_schema", fail)
    assert main(["schema"]) == status
    assert ("Traceback" in capsys.readouterr().err) is (status == 1)


@pytest.mark.usefixtures("inventory")
@pytest.mark.parametrize(("servers_asked", "status"), [([], 3), (["--server", "vbo2"], 4)])
@pytest.mark.parametrize("command", ["show", "stop --yes"])
def test_a_server_that_fails_after_the_session_was_found_counts_as_failed(
    command: str,
    servers_asked: list[str],
    status: int,
    servers: list[BackupServer],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The status is 4 if it is the only server, and 3 otherwise."""
    running = servers[2].world.add(end_time=None)
    for path in ("RestoreSessions/*/events", "RestoreSessions/*/Stop"):
        servers[2].fail(Fault.status(503), on=path, times=None)
    name, *options = command.split()
    assert main([name, str(running.id), *options, *servers_asked, "--retries", "0"]) == status
    assert "HTTP 503" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_what_the_command_says_of_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """All of it; its first line stands in the list of commands."""
    written = inspect.getdoc(getattr(_commands, name)) or ""
    assert main([name, "--help"]) == 0
    assert " ".join(written.split()) in " ".join(capsys.readouterr().out.split())
    assert main(["--help"]) == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert " ".join(written.partition("\n\n")[0].split()).rstrip(".") in shown


@pytest.mark.parametrize("name", [*COMMANDS, "completion"])
def test_where_servers_come_from_is_said_to_whom_it_concerns(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """To those commands that can be given an inventory."""
    assert main([name, "--help"]) == 0
    out = capsys.readouterr().out
    assert ("Servers come from an inventory" in out) is ("--fleet PATH" in out)


@pytest.mark.parametrize("name", ["show", "stop", "pin", "completion"])
def test_what_is_missing_is_called_as_in_the_usage(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A word to be put in its place, and no option."""
    assert main([name, "--help"]) == 0
    usage = capsys.readouterr().out.splitlines()[0]
    assert main([name]) == 2
    assert f"parameter {usage.split()[-1]} requires an argument" in capsys.readouterr().err
