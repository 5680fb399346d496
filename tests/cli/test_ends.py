"""How a command ends: where nobody reads it, where nothing can be written; and what its help says."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
from harness.readme import ROOT, TEXT

from aiovbo._cli import _commands, _terminal
from aiovbo._cli._app import _COMMANDS, app, main
from aiovbo.testing import BackupServer, Fault

COMMAND = [sys.executable, "-W", "error", "-m", "aiovbo"]
FULL = Path("/dev/full")


@pytest.mark.usefixtures("inventory")
@pytest.mark.parametrize(
    "command",
    [
        "--help", "sessions --help", "completion bash", "schema", "check", "pin URL", "show ID", "timeline",
        "sessions", "sessions --output json", "sessions --output jsonl", "sessions --output csv",
        "watch --since 24h --every 1s", "watch --since 24h --every 1s --output jsonl",
    ],
)  # fmt: skip
def test_a_reader_that_has_read_enough_is_no_error(command: str, servers: list[BackupServer]) -> None:
    """As with `head`: the same status for all commands, and not a word."""
    words = {"URL": servers[0].url, "ID": str(servers[2].world.sessions[0].id)}
    with subprocess.Popen(
        [*COMMAND, *(words.get(word, word) for word in command.split())],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
        process.wait(20)
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
        process.wait(20)
    assert (process.returncode, said) == (141, "")


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
@pytest.mark.usefixtures("inventory")
@pytest.mark.parametrize(
    "command", ["--help", "schema", "check", "sessions", "sessions --output jsonl", "sessions --output csv"]
)
def test_what_cannot_be_written_is_a_sentence(command: str) -> None:
    """As on a disk that is full."""
    with FULL.open("wb") as full:
        done = subprocess.run(
            [*COMMAND, *command.split()],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=40,
        )
    said = "aiovbo: the output cannot be written: No space left on device\n"
    assert (done.returncode, done.stderr) == (2, said)


def test_every_exit_status_is_documented() -> None:
    """In the page's table; those that one meets first in the README and below every help too."""
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    told = {int(n) for cell in re.findall(r"^\| ([\d, ]+) \|", page, re.MULTILINE) for n in cell.split(",")}
    names = ("OK", "SOME_FAILED", "ALL_FAILED", "INTERRUPTED", "TERMINATED", "BROKEN_PIPE")
    statuses = {name: getattr(_terminal, name) for name in names}
    assert told == set(statuses.values())
    (sentence,) = re.findall(r"^The exit status is .*?\n\n", TEXT, re.MULTILINE | re.DOTALL)
    for text in (sentence, app.help_epilogue or ""):
        assert {int(number) for number in re.findall(r"\b\d+\b", text)} == told - {141}


@pytest.mark.parametrize("name", _COMMANDS)
def test_help_is_what_the_command_says_of_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """All of it; its first line stands in the list of commands."""
    written = inspect.getdoc(getattr(_commands, name)) or ""
    assert main([name, "--help"]) == 0
    assert " ".join(written.split()) in " ".join(capsys.readouterr().out.split())
    assert main(["--help"]) == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert " ".join(written.partition("\n\n")[0].split()).rstrip(".") in shown


@pytest.mark.parametrize("name", [*_COMMANDS, "completion"])
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
