"""What a user sees of the SDK's log: which lines, how many, and how they are switched on."""

import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from aiovbo import Fleet, Password, Server, Unreachable
from aiovbo.testing import BackupServer, MemoryTransport, SimClock, World

HOSTS = ["vbo1", "vbo2"]
PROGRAM = """
import asyncio, logging, sys
from aiovbo import Bearer, Fleet
if "own" in sys.argv:
    logging.basicConfig(stream=sys.stdout, format="own: %(message)s")
async def main():
    async with Fleet(["127.0.0.1:1"], Bearer("secret-token"), retries=0) as fleet:
        await fleet.restore_sessions()
asyncio.run(main())
"""


@pytest.fixture
async def simulated() -> AsyncIterator[tuple[Fleet, dict[str, BackupServer]]]:
    """A fleet of two servers in memory, on virtual time."""
    clock = SimClock()
    backups = {host: BackupServer(World(sessions=1, clock=clock)) for host in HOSTS}
    one = backups["vbo1"]
    servers = [Server(f"https://{host}", Password(one.username, one.password)) for host in HOSTS]
    async with Fleet(servers, clock=clock, transport=MemoryTransport(backups)) as fleet:
        yield fleet, backups


def lines_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The messages at INFO and above."""
    return [one.getMessage() for one in caplog.records if one.levelno >= logging.INFO]


async def test_a_fleet_logs_one_line_when_a_server_goes_and_one_when_it_is_back(
    simulated: tuple[Fleet, dict[str, BackupServer]], caplog: pytest.LogCaptureFixture
) -> None:
    """However often it fails in between; the healthy server is not mentioned."""
    fleet, backups = simulated
    caplog.set_level(logging.INFO, logger="aiovbo")
    assert not (await fleet.restore_sessions()).failed
    gone = backups.pop("vbo1")
    for _ in range(3):
        assert [one.server for one in (await fleet.restore_sessions()).failed] == ["vbo1"]
    backups["vbo1"] = gone
    for _ in range(2):
        assert not (await fleet.restore_sessions()).failed
    first, second = lines_of(caplog)
    assert first.startswith("vbo1: unreachable: ")
    assert second == "vbo1: reachable again"


async def test_a_poll_adds_no_line_of_its_own(
    simulated: tuple[Fleet, dict[str, BackupServer]], caplog: pytest.LogCaptureFixture
) -> None:
    """The same two lines while a fleet is polled."""
    fleet, backups = simulated
    caplog.set_level(logging.INFO, logger="aiovbo")
    async with fleet.poll(every=timedelta(minutes=1)) as poll:
        gone, seen = None, 0
        async for answer in poll:
            if answer.server != "vbo1":
                continue
            seen += answer.error is not None
            if gone is None:
                gone = backups.pop("vbo1")
            elif seen == 3 and "vbo1" not in backups:
                backups["vbo1"] = gone
            elif seen == 3 and answer.error is None:
                break
    assert [line.split(": ")[1] for line in lines_of(caplog)] == ["unreachable", "reachable again"]


async def test_a_watch_adds_no_line_of_its_own(
    simulated: tuple[Fleet, dict[str, BackupServer]], caplog: pytest.LogCaptureFixture
) -> None:
    """The same two lines while a fleet is watched."""
    fleet, backups = simulated
    caplog.set_level(logging.INFO, logger="aiovbo")
    async with fleet.watch(every=timedelta(minutes=1)) as changes:
        gone = backups.pop("vbo1")
        async for change in changes:
            if isinstance(change, Unreachable):
                break
        backups["vbo1"] = gone
        async for change in changes:
            if change.server == "vbo1" and not isinstance(change, Unreachable):
                break
    assert [line.split(": ")[1] for line in lines_of(caplog)] == ["unreachable", "reachable again"]


def run(level: str, *arguments: str) -> tuple[str, str]:
    """Standard output and standard error of a program that queries a server that is down."""
    command = [sys.executable, "-c", PROGRAM, *arguments]
    environment = {**os.environ, "AIOVBO_LOG": level}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "secret-token" not in done.stdout + done.stderr
    return done.stdout, done.stderr


def test_the_variable_shows_the_log_of_a_program_that_sets_up_no_logging() -> None:
    """On standard error, with level and logger."""
    out, log = run("info")
    assert not out
    assert "INFO aiovbo.status: 127.0.0.1:1: unreachable: " in log
    assert len(log.splitlines()) == 1


def test_the_application_s_own_handlers_get_each_line_once() -> None:
    """The SDK's handler is silent where the application has one."""
    out, log = run("info", "own")
    assert out.startswith("own: 127.0.0.1:1: unreachable: ")
    assert not log


def test_a_level_that_does_not_exist_is_mentioned_and_stops_nothing() -> None:
    """One line says what the variable takes."""
    _, log = run("loud")
    assert "AIOVBO_LOG must be debug, info, warning or error, not 'loud'" in log


def test_the_command_line_shows_the_log() -> None:
    """`-vv` shows every request, `-v` (not here) only what happens to servers."""
    command = [sys.executable, "-m", "aiovbo", "sessions", "--url", "127.0.0.1:1", "--user", "u", "-vv"]
    environment = {**os.environ, "VBO_PASSWORD": "p", "AIOVBO_LOG": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert {line.split()[2] for line in done.stderr.splitlines() if " aiovbo." in line} == {"INFO", "DEBUG"}
