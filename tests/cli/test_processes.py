"""Commands as processes of their own: signals, encodings, questions at a terminal."""

import io
import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from harness.processes import wait_until_idle

from aiovbo._cli._app import main
from aiovbo.testing import BackupServer, Fault, World

COMMAND = [sys.executable, "-W", "error", "-m", "aiovbo"]


# ---------------------------------------------------------------------------------- as a process


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)]
)
def test_an_interruption_prints_what_had_arrived(
    number: int, status: int, inventory: Path, servers: list[BackupServer]
) -> None:
    """The others' sessions, the status of the signal, and no traceback."""
    servers[0].fail(Fault.stall(), times=None)
    with subprocess.Popen(
        [*COMMAND, "sessions", "--fleet", inventory],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while not all(any("estoreSessions" in r.path for r in one.requests) for one in servers[1:]):
            assert process.poll() is None
            time.sleep(0.01)
        # Its responses are on their way by then; from outside it can be seen when they were processed.
        wait_until_idle(process)
        process.send_signal(number)
        out, err = process.communicate(timeout=150)
    assert process.returncode == status
    assert len(out.splitlines()) == 11
    assert "aiovbo: interrupted; 1 server had not answered yet\n" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_watch_that_is_terminated_saves_its_checkpoint_and_ends_with_0(
    number: int, inventory: Path, servers: list[BackupServer], tmp_path: Path
) -> None:
    """Once it is started again, it reports nothing that it had reported."""
    checkpoint = tmp_path / "watch.db"
    words = [*COMMAND, "watch", "--fleet", inventory, "--since", "30d", "--output", "jsonl"]
    words += ["--checkpoint", checkpoint]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = {json.loads(process.stdout.readline())["id"] for _ in range(3)}
        assert process.stderr is not None
        process.send_signal(number)
        # Not communicate(): it would lose what the stream has buffered.
        rest, err = process.stdout.read(), process.stderr.read()
        process.wait(150)
    assert (process.returncode, "Traceback" in err) == (0, False)
    first |= {json.loads(line)["id"] for line in rest.splitlines()}
    servers[0].world.add(type="Vex")
    done = subprocess.run([*words, "--count", "1"], capture_output=True, text=True, check=True, timeout=150)
    assert json.loads(done.stdout)["id"] not in first


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
@pytest.mark.parametrize(
    "arguments",
    [["sessions"], ["sessions", "--output", "csv"], ["check"], ["watch", "--since", "1m", "--count", "1"]],
)
@pytest.mark.usefixtures("inventory")
def test_a_name_that_an_encoding_does_not_have_loses_only_those_letters(
    encoding: str, arguments: list[str], servers: list[BackupServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a pipe on Windows."""
    add_foreign_names(servers[2].world)
    out, errors = (io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2))
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", out)
        patched.setattr(sys, "stderr", errors)
        status = main([*arguments, "--server", "vbo2"])
    texts = []
    for stream in (out, errors):
        stream.seek(0)
        texts.append(stream.read())
    assert (status, "aiovbo:" in texts[1]) == (0, False), texts[1]
    assert "vbo2" in texts[0]
    assert "TECH\\zo" in texts[0] or arguments == ["check"]


def add_foreign_names(world: World) -> None:
    world.add(initiated_by="TECH\\zoë ☕", organization="日本", creation_time=world.now, end_time=None)


def test_a_process_writes_in_the_encoding_of_its_environment(
    inventory: Path, servers: list[BackupServer]
) -> None:
    """Letters that ASCII does not have are replaced."""
    add_foreign_names(servers[2].world)
    done = subprocess.run(
        [*COMMAND, "sessions", "--fleet", inventory, "--server", "vbo2"],
        capture_output=True,
        check=False,
        timeout=150,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert (done.returncode, b"aiovbo:" in done.stderr) == (0, False), done.stderr
    assert "TECH\\zo? ?" in done.stdout.decode("ascii")


@pytest.mark.parametrize(
    ("answer", "status", "said", "stopped"),
    [(b"y\n", 0, "Stop requested.", True), (b"\n", 0, "Not stopped.", False), (None, 130, "[y/N]", False)],
    ids=["yes", "nothing", "Ctrl-C"],
)
def test_a_confirmation_may_be_answered_yes_or_no_or_interrupted(
    answer: bytes | None,
    status: int,
    said: str,
    *,
    stopped: bool,
    inventory: Path,
    servers: list[BackupServer],
) -> None:
    """Only a yes stops it, and Ctrl-C does not wait for an answer."""
    running = servers[2].world.add(end_time=None)
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, "stop", str(running.id), "--fleet", inventory], stdin=theirs, stdout=subprocess.PIPE
    ) as process:
        os.close(theirs)
        assert process.stdout is not None
        out = b""
        while not out.endswith(b"[y/N] "):
            chunk = os.read(process.stdout.fileno(), 4096)
            assert chunk, out
            out += chunk
        if answer is None:
            process.send_signal(signal.SIGINT)
        else:
            os.write(ours, answer)
        out += process.communicate(timeout=150)[0]
    os.close(ours)
    assert process.returncode == status
    assert said in out.decode()
    asked = [one for one in servers[2].requests if one.method == "POST" and one.path.endswith("Stop")]
    assert bool(asked) is stopped
