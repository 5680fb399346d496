"""Servers and an inventory of them, and what a command leaves open before anything is compared."""

import asyncio
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from aiovbo._cli._terminal import run
from aiovbo.testing import BackupFleet, BackupServer, World


@pytest.fixture(scope="session", autouse=True)
def signals_ready() -> None:
    """The first loop of uvloop that minds signals opens a pipe that its library keeps for the process."""
    assert run(asyncio.sleep(0, 0)) == 0


@pytest.fixture(autouse=True)
def no_width_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of the test run may have the width of a terminal."""
    monkeypatch.delenv("COLUMNS", raising=False)
    # readline, which pytest imports, sets it for processes of ours, where os.environ does not see it.
    os.unsetenv("COLUMNS")


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The local time zone is UTC, whatever it is on this computer."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def output_to(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | Path], AbstractContextManager[None]]:
    """Makes a descriptor or a file the standard output of a block."""

    @contextmanager
    def redirected(target: int | Path) -> Iterator[None]:
        # What is still to be written is written at the end, as the interpreter does; failures are raised.
        with open(target, "w", encoding="utf-8") as stream, monkeypatch.context() as patched:
            patched.setattr(sys, "stdout", stream)
            yield

    return redirected


@pytest.fixture
def servers() -> Iterator[list[BackupServer]]:
    """Three servers of different versions, with five sessions each of the last hours."""
    found = [
        BackupServer(World(f"seed{version}", sessions=0), version=version, name=f"vbo{number}")
        for number, version in enumerate(("v4", "v6", "v8"))
    ]
    for server in found:
        for hours in range(1, 6):
            began = server.world.now - timedelta(hours=hours)
            server.world.add(creation_time=began, end_time=began + timedelta(minutes=20))
    with BackupFleet(found).run_in_thread():
        yield found


@pytest.fixture
def inventory(servers: list[BackupServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the file that lists them is, and their password in the environment."""
    monkeypatch.setenv("VBO_TEST_PASSWORD", servers[0].password)
    lines = [
        "[defaults]",
        f"credentials = {{ username = '{servers[0].username}', password = {{ env = 'VBO_TEST_PASSWORD' }} }}",
        f"tls = {{ ca_file = '{servers[0].ca_file}' }}",
        "[servers]",
        *(
            f"{one.name} = {{ url = '{one.url}', labels = {{ site = '{'ab'[n % 2]}' }} }}"
            for n, one in enumerate(servers)
        ),
    ]
    path = tmp_path / "fleet.toml"
    path.write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.setenv("AIOVBO_FLEET", str(path))
    return path
