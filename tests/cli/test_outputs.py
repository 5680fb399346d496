"""Every form of output, to a file, a pipe and a terminal, with and without progress: what arrives is read."""

import csv
import fcntl
import io
import json
import os
import pty
import re
import struct
import sys
import tempfile
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from aiovbo._cli._app import main

ESCAPE = "\x1b"
PROGRESS = "0 of 3 servers"
SESSIONS = 15


class Place:
    """Where a command writes, and what arrived there."""

    def __init__(self, kind: str) -> None:
        self._arrived: list[bytes] = []
        self._reader: threading.Thread | None = None
        if kind == "file":
            self.descriptor, self._path = tempfile.mkstemp()
            return
        ours, self.descriptor = pty.openpty() if kind == "terminal" else os.pipe()
        if kind == "terminal":
            # No line is broken.
            fcntl.ioctl(self.descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
        self._reader = threading.Thread(target=self._drain, args=(ours,))
        self._reader.start()

    def _drain(self, ours: int) -> None:
        with open(ours, "rb", buffering=0) as source:
            while True:
                try:
                    chunk = source.read(65536)
                except OSError:  # Linux reports EIO where the other side of a terminal is closed
                    return
                if not chunk:
                    return
                self._arrived.append(chunk)

    def read(self) -> str:
        """What arrived, once the command has closed its side."""
        if self._reader is None:
            text = Path(self._path).read_text(encoding="utf-8")
            Path(self._path).unlink()
            return text
        self._reader.join()
        return b"".join(self._arrived).decode().replace("\r\n", "\n")


@contextmanager
def writing_to(monkeypatch: pytest.MonkeyPatch, **kinds: str) -> Iterator[dict[str, Place]]:
    """Let `stdout` and `stderr` lead to such places."""
    places = {name: Place(kind) for name, kind in kinds.items()}
    with monkeypatch.context() as patched, ExitStack() as stack:
        for name, place in places.items():
            stream = stack.enter_context(os.fdopen(place.descriptor, "w", encoding="utf-8"))
            patched.setattr(sys, name, stream)
        yield places


READ: dict[str, Callable[[str], int]] = {
    "table": lambda text: len(re.findall(r"^\S*vbo\d", text, re.MULTILINE)),
    "json": lambda text: len(json.loads(text)),
    "jsonl": lambda text: len([json.loads(line) for line in text.splitlines()]),
    "csv": lambda text: len(list(csv.DictReader(io.StringIO(text)))),
}


@pytest.mark.usefixtures("inventory")
@pytest.mark.parametrize("colour", [None, "1"], ids=["", "FORCE_COLOR"])
@pytest.mark.parametrize("progress", [False, True], ids=["without progress", "with progress"])
@pytest.mark.parametrize("place", ["file", "pipe", "terminal"])
@pytest.mark.parametrize("form", READ)
def test_every_session_arrives_on_standard_output(
    form: str, place: str, colour: str | None, monkeypatch: pytest.MonkeyPatch, *, progress: bool
) -> None:
    """All of them, and nothing else; progress appears on a terminal only, and never among them."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if colour is not None:
        monkeypatch.setenv("FORCE_COLOR", colour)
    else:
        monkeypatch.delenv("FORCE_COLOR", raising=False)
    with writing_to(monkeypatch, stdout=place, stderr="terminal" if progress else "pipe") as places:
        assert main(["sessions", "--output", form]) == 0
    out, err = places["stdout"].read(), places["stderr"].read()
    assert READ[form](out) == SESSIONS
    assert PROGRESS not in out
    # Lines that are printed one by one on a terminal are their own progress.
    assert (PROGRESS in err) is (progress and not (form == "jsonl" and place == "terminal"))
    assert (ESCAPE in out) is (form == "table" and (place == "terminal" or colour is not None))
    assert "\x1b[?25l" not in out


@pytest.mark.usefixtures("inventory")
@pytest.mark.parametrize("form", ["json", "jsonl", "csv"])
def test_on_one_terminal_nothing_is_written_into_a_line(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress and output share it: every line of the output is whole once progress is erased."""
    monkeypatch.setenv("TERM", "xterm")
    with writing_to(monkeypatch, stdout="terminal") as places:
        monkeypatch.setattr(sys, "stderr", sys.stdout)
        assert main(["sessions", "--output", form]) == 0
        monkeypatch.undo()
    shown = re.split(r"\x1b\[\?25h", places["stdout"].read())[-1]
    # What progress erases last is its own line.
    assert READ[form](re.sub(r"^(\r|\x1b\[\d*[A-Z])*", "", shown)) == SESSIONS


@pytest.mark.usefixtures("inventory")
@pytest.mark.parametrize("place", ["file", "pipe", "terminal"])
def test_every_change_of_a_watch_is_a_line_of_json(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever standard error is."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    with writing_to(monkeypatch, stdout=place, stderr="terminal") as places:
        command = ["watch", "--since", "24h", "--every", "1s", "--output", "jsonl", "--count", "3"]
        assert main(command) == 0
    changes = [json.loads(line) for line in places["stdout"].read().splitlines()]
    assert len([change["server"] for change in changes]) == 3


@pytest.mark.usefixtures("inventory")
@pytest.mark.parametrize("place", ["file", "pipe"])
def test_a_change_is_one_line_in_a_file_also_where_colours_are_forced(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file has no columns to fit in."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    with writing_to(monkeypatch, stdout=place, stderr="terminal") as places:
        assert main(["watch", "--since", "24h", "--every", "1s", "--count", "3"]) == 0
    out = places["stdout"].read()
    assert len(out.splitlines()) == 3
    assert ESCAPE in out
