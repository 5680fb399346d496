"""`python -m aiovbo demo`, as a process of its own."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from aiovbo import __version__
from aiovbo._cli._app import COMMANDS, main

COMMAND = [sys.executable, "-W", "error", "-m", "aiovbo"]
ESCAPE = "\x1b"


def test_the_demonstration_shows_sessions_failures_and_figures() -> None:
    """Twelve servers' sessions, newest first; three failures, each with a hint."""
    done = subprocess.run([*COMMAND, "demo"], capture_output=True, text=True, check=False, timeout=150)
    assert (done.returncode, done.stderr) == (0, "")
    text = done.stdout
    assert ESCAPE not in text
    assert max(map(len, text.splitlines())) <= 120
    rows = re.findall(r"^(vbo-\d\d\.demo) +(\w+\.onmicrosoft\.com) .*$", text, re.MULTILINE)
    figures = re.search(r"^(\d+) sessions from 12 servers, .*; 3 servers failed", text, re.MULTILINE)
    assert figures is not None
    assert len(rows) == int(figures[1]) > 10
    assert re.search(r"^vbo-13\.demo\n  .*the connection was refused", text, re.MULTILINE)
    assert re.search(r"^vbo-14\.demo\n  .*deadline of 5 s", text, re.MULTILINE)
    assert re.search(r"^vbo-15\.demo\n  .*the login was rejected", text, re.MULTILINE)
    for hint in (
        "REST API service is running and that the port is correct",
        "raise the deadline",
        "Check the user name and password",
    ):
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
    lines = [re.split(r"\x1b\[[\d]*[KA]|\r", line)[-1] for line in text.replace("\r\n", "\n").split("\n")]
    bare = [re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", line) for line in lines]
    assert max(map(len, bare)) <= columns
    assert any("newest first" in line for line in bare)
    assert ("\x1b[32mSuccess" in text) is coloured


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
    """The restored items are the same; only the times of day differ."""
    # At once: each of them waits for the deadline of a server that does not answer.
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen([*COMMAND, "demo", "--seed", seed], stdout=subprocess.PIPE, text=True)
            )
            for seed in ("7", "7", "8")
        ]
        texts = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    row = re.compile(r"^vbo-\d\d\.demo +\w+\.onmicrosoft.*?  (?:\S+@|\w+\\)\S+", re.MULTILINE)
    first, second, other = (row.findall(text) for text in texts)
    assert first == second != other
    assert first


@pytest.mark.parametrize("missing", ["cyclopts", "rich", "trustme"])
def test_without_the_extra_it_says_what_to_install(missing: str, tmp_path: Path) -> None:
    """A line or two and exit status 2, no traceback."""
    (tmp_path / f"{missing}.py").write_text("raise ImportError('gone')\n", encoding="utf-8")
    done = subprocess.run(
        [*COMMAND, "demo"],
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert re.match(r"aiovbo: .*: pip install .*\[(cli|testing)\]", done.stderr)


def test_the_command_line_prints_its_version_and_rejects_nonsense(capsys: pytest.CaptureFixture[str]) -> None:
    """With status 2, and the word that was meant; without a command it shows its help."""
    version = subprocess.run([*COMMAND, "--version"], capture_output=True, text=True, check=True)
    assert version.stdout.strip() == __version__
    assert main([]) == 0
    assert "Commands" in capsys.readouterr().out
    for arguments, said in ((["dmeo"], "demo"), (["demo", "--seed", "x"], "--seed")):
        assert main(arguments) == 2
        assert said in capsys.readouterr().err


def test_help_needs_no_http_library() -> None:
    """Nor anything else that only a command needs; nor does completion, which shells load when they start."""
    names = ("aiohttp", "asyncio", "cattrs", "msgspec", "sqlite3", "ssl", "aiovbo._fleet")
    words = {
        "--help": "timeline",
        "completion bash": "--organization",
        **{f"{command} --help": f"aiovbo {command}" for command in COMMANDS},
    }
    # All in one process: a later line names the modules of the earlier ones too.
    code = (
        "import sys; from aiovbo.__main__ import main\n"
        f"for line in {list(words)}:\n"
        "    sys.argv = ['aiovbo', *line.split()]; main()\n"
        f"    print('loaded:', *(n for n in {names} if n in sys.modules), end='\\f')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *pages, end = done.stdout.split("\f")
    assert end == ""
    for (line, word), page in zip(words.items(), pages, strict=True):
        assert page.endswith("loaded:"), line
        assert word in page
