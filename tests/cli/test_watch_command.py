"""`aiovbo watch --exec`: a command for each change, retried until it succeeds."""

import asyncio
import json
import shlex
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from aiovbo import Recovered
from aiovbo._cli import _command_runner
from aiovbo._cli._app import main
from aiovbo._cli._command_runner import CommandRunner
from aiovbo._cli._options import CommandOptions
from aiovbo._cli._terminal import run
from aiovbo.testing import BackupServer

WATCH = ["watch", "--every", "0.1s", "--since", "24h"]
SOON = timedelta(milliseconds=10)


def change_of(server: str) -> Recovered:
    """A change that needs no session."""
    return Recovered(server=server, id=f"{server}/1", gap=timedelta(seconds=1))


async def processed(command: str, options: CommandOptions, *servers: str) -> tuple[list[str], int]:
    """The servers whose change was acknowledged, in order, and how many changes were given up."""
    acknowledged: list[str] = []
    runner = CommandRunner(
        command, options, lambda change: acknowledged.append(change.server), first_delay=SOON
    )
    for server in servers:
        await runner.add(change_of(server), server, f'{{"server": "{server}"}}\n')
    await runner.finish()
    await runner.aclose()
    return acknowledged, runner.given_up


@pytest.mark.usefixtures("inventory")
def test_the_command_gets_only_failed_restores_as_json(
    servers: list[BackupServer], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--only finished --result failed`: one document per failed restore, with the time it was noticed."""
    now = servers[2].world.now
    failed = servers[2].world.add(creation_time=now - timedelta(hours=3), end_time=now, result="Failed")
    sink = tmp_path / "alerts"
    command = f"cat >> {shlex.quote(str(sink))}"
    arguments = ["--only", "finished", "--result", "failed", "--server", "vbo2", "--exec", command]
    expected = [one for one in servers[2].world.sessions if one.result == "Failed" and one.end_time]
    assert failed in expected
    assert main([*WATCH, *arguments, "--output", "jsonl", "--count", str(len(expected))]) == 0
    alerts = [json.loads(line) for line in sink.read_text(encoding="utf-8").splitlines()]
    assert {one["session"]["id"] for one in alerts} == {str(one.id) for one in expected}
    assert {(one["change"], one["session"]["result"]) for one in alerts} == {("Finished", "Failed")}
    noticed = datetime.fromisoformat(alerts[0]["noticedAt"])
    assert abs(datetime.now(UTC) - noticed) < timedelta(hours=1)
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == alerts


@pytest.mark.usefixtures("inventory")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--result", "faild"], "--result is Success, Warning or Failed, not 'faild'"),
        (["--give-up", "3"], "--timeout and --give-up need --exec"),
        (["--timeout", "3s"], "--timeout and --give-up need --exec"),
        (["--exec", " "], "the command of --exec is empty"),
        (["--rewind", "24h"], "--rewind needs --checkpoint or --postgres"),
        (["--postgres", "host=db1"], "--postgres needs --group"),
        (["--group", "alerts"], "--postgres needs --group"),
        (["--postgres", "host=db1", "--group", "a", "--checkpoint", "a.db"], "exclude each other"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before any server is queried."""
    assert main([*WATCH, *arguments]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.usefixtures("inventory")
def test_the_position_is_kept_in_postgresql(database: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A second run continues where the first one ended; `--rewind` reports everything again."""
    pytest.importorskip("psycopg_pool")

    def watched(*arguments: str, count: int) -> list[str]:
        place = ["--postgres", database, "--group", "alerts", "--count", f"{count}"]
        assert main([*WATCH, "--output", "jsonl", *place, *arguments]) == 0
        return [json.loads(line)["id"] for line in capsys.readouterr().out.splitlines()]

    # Fifteen sessions, all of which have ended.
    first, second = watched(count=16), watched(count=14)
    assert len({*first, *second}) == 30
    again = watched("--rewind", "24h", count=10)
    assert {*first, *second} & {*again} == {*again}


async def test_a_command_that_fails_is_retried_and_holds_up_no_other_change(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The change is acknowledged after the attempt that ends with 0; others are acknowledged before."""
    flag = shlex.quote(str(tmp_path / "flag"))
    command = f"grep -q vbo2 || {{ test -e {flag} || {{ touch {flag}; exit 7; }}; }}"
    acknowledged, given_up = await processed(command, CommandOptions(), "vbo1", "vbo2")
    assert (acknowledged, given_up) == (["vbo2", "vbo1"], 0)
    said = capsys.readouterr().err
    assert "vbo1: the command ended with 7 for change vbo1/1 (attempt 1); next attempt in 0.01 s" in said


async def test_changes_of_one_session_stay_in_order(tmp_path: Path) -> None:
    """A later change waits for the retries of an earlier one."""
    sink = tmp_path / "sink"
    path = shlex.quote(str(sink))
    command = f"tee -a {path} | grep -q second || test $(grep -c first {path}) = 3"
    runner = CommandRunner(command, CommandOptions(), lambda _: None, first_delay=SOON)
    await runner.add(change_of("vbo1"), "one session", "first\n")
    await runner.add(change_of("vbo1"), "one session", "second\n")
    await runner.finish()
    await runner.aclose()
    assert sink.read_text(encoding="utf-8").split() == ["first", "first", "first", "second"]


async def test_give_up_ends_the_retries_and_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    """After N attempts the change is acknowledged, and standard error states how many were given up."""
    acknowledged, given_up = await processed("exit 3", CommandOptions(give_up=2), "vbo1", "vbo2")
    assert (sorted(acknowledged), given_up) == (["vbo1", "vbo2"], 2)
    said = capsys.readouterr().err
    assert "vbo1: the command ended with 3 for change vbo1/1 (attempt 2); given up, 1 change so far" in said
    assert said.endswith("aiovbo: 2 changes given up in all\n")


def test_a_command_that_does_not_read_its_input_is_retried_like_any_other() -> None:
    """Also on the event loop of the command line, on which a closed pipe is an error of its own kind."""
    names = [f"vbo{number}" for number in range(10)]
    given_up: list[int] = []

    async def work() -> int:
        given_up.append((await processed("exit 1", CommandOptions(give_up=2), *names))[1])
        return 0

    assert run(work()) == 0
    assert given_up == [10]


async def test_a_bug_while_a_change_is_processed_ends_the_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The change is not acknowledged, and nothing waits for it."""

    def fail(_: str) -> None:
        raise LookupError("a bug")

    monkeypatch.setattr(_command_runner, "complain", fail)
    acknowledged: list[str] = []
    runner = CommandRunner("exit 1", CommandOptions(), lambda change: acknowledged.append(change.id))
    with pytest.raises(asyncio.CancelledError):
        await runner.add(change_of("vbo1"), "vbo1", "{}")
        await asyncio.sleep(60)
    with pytest.raises(LookupError, match="a bug"):
        await runner.aclose()
    assert acknowledged == []


async def test_a_command_that_takes_too_long_is_killed_with_its_children(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The timeout is a failed attempt, and no process is left."""
    options = CommandOptions(timeout=timedelta(seconds=0.3), give_up=1)
    assert await processed(pid_written(tmp_path), options, "vbo1") == (["vbo1"], 1)
    assert "the command took longer than 0.3 s" in capsys.readouterr().err
    assert has_ended(tmp_path)


async def test_closing_kills_the_running_command_and_acknowledges_nothing(tmp_path: Path) -> None:
    """The change is delivered again after the next start."""
    acknowledged: list[str] = []
    runner = CommandRunner(
        pid_written(tmp_path), CommandOptions(), lambda change: acknowledged.append(change.server)
    )
    await runner.add(change_of("vbo1"), "vbo1", "{}")
    await asyncio.to_thread(wait_for, (tmp_path / "pid").exists)
    await runner.aclose()
    assert acknowledged == []
    assert has_ended(tmp_path)


def test_each_failed_restore_is_reported_once_over_kills_and_restarts(
    servers: list[BackupServer], inventory: Path, tmp_path: Path
) -> None:
    """`kill -9` while the command still fails, `kill -9` after it succeeded, and a clean end.

    Only a kill between the command's success and the save a moment later repeats an alert, with the same ID.
    """
    world, sink, down, checkpoint = servers[2].world, tmp_path / "alerts", tmp_path / "down", tmp_path / "db"
    command = f"test ! -e {down} || {{ echo >> {down}; exit 1; }}; cat >> {shlex.quote(str(sink))}"
    place = ["--fleet", str(inventory), "--checkpoint", str(checkpoint), "--server", "vbo2"]
    arguments = [*WATCH, *place, "--only", "finished", "--result", "failed", "--exec", command]

    def alerts() -> list[tuple[str, str]]:
        found = map(json.loads, sink.read_text(encoding="utf-8").splitlines() if sink.exists() else [])
        return sorted((one["session"]["id"], one["id"]) for one in found)

    def are_saved() -> bool:
        failed = {str(one.id) for one in world.sessions if one.result == "Failed"}
        if {session for session, _ in alerts()} != failed:
            return False
        return pending_in(checkpoint) == 0

    down.touch()
    repeated = 0
    for how, holds in (
        (signal.SIGKILL, lambda: down.stat().st_size > 0),
        (signal.SIGKILL, are_saved),
        (signal.SIGTERM, are_saved),
    ):
        world.add(end_time=world.now, result="Failed")
        with subprocess.Popen([sys.executable, "-m", "aiovbo", *arguments]) as process:
            try:
                wait_for(holds)
                process.send_signal(how)
            except BaseException:
                process.kill()
                raise
        if down.exists():
            assert alerts() == []
            down.unlink()
        else:
            repeated += pending_in(checkpoint)
    assert process.returncode == 0
    assert len(set(alerts())) == len({session for session, _ in alerts()}) >= 3
    assert len(alerts()) == len(set(alerts())) + repeated


def pending_in(checkpoint: Path) -> int:
    """The number of changes that are saved as not acknowledged; the watch may have the file open."""
    with closing(sqlite3.connect(checkpoint)) as file:
        (count,) = file.execute("SELECT count(*) FROM records WHERE kind = 'pending'").fetchone()
    return int(count)


def pid_written(folder: Path) -> str:
    """A command that writes the ID of a child of its own, and never ends."""
    return f"sleep 60 & echo $! > {shlex.quote(str(folder / 'new'))}; cd {folder} && mv new pid; wait"


def has_ended(folder: Path) -> bool:
    """Whether that child no longer runs; a zombie process does not."""
    pid = int((folder / "pid").read_text(encoding="utf-8"))
    stat = Path(f"/proc/{pid}/stat")
    wait_for(
        lambda: not stat.exists() or stat.read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] == "Z"
    )
    return True


def wait_for(holds: Callable[[], bool]) -> None:
    """Wait until it holds."""
    for _ in range(2000):
        if holds():
            return
        signal.sigtimedwait([], 0.01)
    raise AssertionError("it never came to hold")
