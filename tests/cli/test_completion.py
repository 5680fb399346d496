"""Completion in real shells, on a terminal, set up as the documentation states."""

import os
import pty
import re
import select
import shutil
import signal
from contextlib import redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path

import pytest
from harness.readme import ROOT, blocks

from aiovbo._cli._app import main

PAGE = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
PROMPT = "ready> "

# The shell's start-up file, and what gives it a prompt that can be waited for.
START_UP = {
    "bash": (".bashrc", f"PS1='{PROMPT}'"),
    "zsh": (".zshrc", f"PROMPT='{PROMPT}'"),
    "fish": (".config/fish/config.fish", f"function fish_prompt; echo -n '{PROMPT}'; end"),
}
# Files that hold the script where no line of the start-up file loads it, and what zsh needs to find its own.
FILES = {
    "zsh": ("functions/_aiovbo", "fpath=(~/functions $fpath); autoload -Uz compinit; compinit"),
    "fish": (".config/fish/completions/aiovbo.fish", ""),
}

TYPED = ("aiovbo wat\t--outp\tjs\t\n", "aiovbo tim\t--organ\tTech\n", "aiovbo comp\tz\t\n")
RUN = ["watch --output jsonl", "timeline --organization Tech", "completion zsh"]


@cache
def script_of(shell: str) -> str:
    """What `aiovbo completion` prints; it takes a while to make."""
    with redirect_stdout(StringIO()) as out:
        assert main(["completion", shell]) == 0
    return out.getvalue()


@pytest.fixture
def home(tmp_path: Path, shell: str) -> Path:
    """A user's empty folder, with an `aiovbo` that prints its script, and after start-up its arguments."""
    write(tmp_path / "script", script_of(shell))
    write(
        tmp_path / "bin" / "aiovbo",
        f'#!/bin/sh\n[ -e {tmp_path}/started ] || exec cat {tmp_path}/script\necho "ran: $*"\n',
    )
    (tmp_path / "bin" / "aiovbo").chmod(0o700)
    # fish would begin to read all manual pages of the system, and go on after the test.
    (tmp_path / ".local/share/fish/generated_completions").mkdir(parents=True)
    return tmp_path


def write(path: Path, text: str) -> None:
    """A file, in folders that are made for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def ran(shell: str, home: Path, lines: tuple[str, ...]) -> list[str]:
    """Type lines into a shell on a terminal; the arguments with which it then ran aiovbo."""
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    environment = {"HOME": str(home), "PATH": f"{home}/bin:/usr/bin:/bin", "TERM": "xterm", "LANG": "C.UTF-8"}
    child, terminal = pty.fork()
    if child == 0:
        try:
            os.execve(program, [program, "-i"], environment)  # noqa: S606  # the system's own shell
        finally:
            os._exit(127)
    screen, arguments = "", list[str]()

    def until(mark: str) -> None:
        nonlocal screen
        while re.search(f"{mark}.*{PROMPT}", screen, re.DOTALL) is None:
            assert select.select([terminal], [], [], 150)[0], screen
            screen += os.read(terminal, 65536).decode(errors="replace")

    try:
        until("")
        write(home / "started", "")
        for line in lines:
            screen = ""
            os.write(terminal, line.encode())
            until("ran: ")
            arguments.append(re.findall(r"ran: (.*?)\r?\n", screen)[-1])
    finally:
        os.kill(child, signal.SIGKILL)
        os.close(terminal)
        os.waitpid(child, 0)
    return arguments


@pytest.mark.parametrize("shell", START_UP)
def test_the_documented_line_completes_commands_options_and_values(shell: str, home: Path) -> None:
    """In a new shell of a user who has nothing else set up."""
    (line,) = blocks(shell, PAGE)
    file, prompt = START_UP[shell]
    write(home / file, f"{prompt}\n{line}")
    assert ran(shell, home, TYPED) == RUN


@pytest.mark.parametrize("shell", FILES)
def test_a_file_in_the_shells_folder_completes_too(shell: str, home: Path) -> None:
    """The script is loaded when it is first needed."""
    path, found = FILES[shell]
    write(home / path, script_of(shell))
    file, prompt = START_UP[shell]
    write(home / file, f"{prompt}\n{found}\n")
    assert ran(shell, home, TYPED[:1]) == RUN[:1]


def test_every_option_is_named_by_words() -> None:
    """And by no part of the value that it is read into, such as `--since.day`."""
    options = re.findall(r"--[\w.-]+", script_of("bash"))
    assert "--since" in options
    assert [option for option in options if not re.fullmatch(r"--[a-z]+(-[a-z]+)*", option)] == []
