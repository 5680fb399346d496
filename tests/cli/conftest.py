"""What a command leaves open once and for all, before anything is compared."""

import asyncio
import os

import pytest

from aiovbo._cli._terminal import run


@pytest.fixture(scope="session", autouse=True)
def signals_ready() -> None:
    """The first loop of uvloop that minds signals opens a pipe that its library keeps for the process."""
    assert run(asyncio.sleep(0, 0)) == 0


@pytest.fixture(autouse=True)
def no_width_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may have said how wide his terminal is."""
    monkeypatch.delenv("COLUMNS", raising=False)
    # readline, which pytest imports, sets it for processes of ours, where os.environ does not see it.
    os.unsetenv("COLUMNS")
