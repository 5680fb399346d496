"""`python -m aiovbo.testing`, as a process of its own."""

import json
import os
import re
import signal
import ssl
import subprocess
import sys
import urllib.parse
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness.processes import complaints

from aiovbo.testing.__main__ import main

COMMAND = [sys.executable, "-W", "error", "-X", "dev", "-m", "aiovbo.testing"]


@contextmanager
def running(*arguments):
    with subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            lines = []
            for line in process.stdout:
                lines.append(line.rstrip())
                if "Ctrl-C" in line:
                    break
            yield process, lines
        finally:
            process.terminate()


def value(lines, label):
    return next(line.split(": ", 1)[1].strip() for line in lines if line.startswith(label))


def test_an_inventory_is_there_as_long_as_the_servers_run(tmp_path: Path) -> None:
    """The command line queries them with it. It is for its owner only, and no other file is replaced."""
    path = tmp_path / "fleet.toml"
    arguments = [
        "--servers",
        "2",
        "--inventory",
        str(path),
        "--user",
        "TECH\\it's",
        "--password",
        'a"b\U0001f511',
    ]
    with running(*arguments) as (process, _):
        assert path.stat().st_mode & 0o077 == 0
        query = [sys.executable, "-m", "aiovbo", "check", "--format", "nagios", "--failed", "9999"]
        done = subprocess.run(query, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=150)
        assert "2 servers, all can be queried" in done.stdout, done.stdout + done.stderr
        again = subprocess.run(
            [*COMMAND, *arguments], capture_output=True, text=True, check=False, timeout=150
        )
        assert again.returncode == 2
        assert "File exists" in again.stderr
        assert path.exists()
        process.terminate()
        process.wait(timeout=150)
    assert not path.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_fleet_runs_until_interrupted(number):
    """URLs with versions, CA file and login are printed and true; the end is clean."""
    with running("--servers", "4", "--seed", "3") as (process, lines):
        servers = [line.split(maxsplit=1) for line in lines if line.startswith("https://")]
        assert [versions for _, versions in servers] == [
            "v5, v6, v7, v8",
            "v4, v5, v6, v7",
            "v4, v5, v6",
            "v4, v5",
        ]
        ca_file = value(lines, "CA file")
        context = ssl.create_default_context(cafile=ca_file)
        form = urllib.parse.urlencode(
            {
                "grant_type": "password",
                "username": value(lines, "Username"),
                "password": value(lines, "Password"),
            }
        )
        url = f"{servers[3][0]}/v5/token"
        with urllib.request.urlopen(url, form.encode(), context=context) as answer:  # noqa: S310  # https
            assert json.load(answer)["access_token"]
        process.send_signal(number)
        _, errors = process.communicate(timeout=150)
        assert (process.returncode, complaints(errors)) == (0, "")
        assert not Path(ca_file).exists()


def test_ports_follow_the_first_and_a_taken_one_is_said_in_one_line():
    """Port P, P+1, …; what is in use gives exit 2 and no traceback."""
    port = 20_000 + os.getpid() % 10_000  # below the range that systems give out by themselves
    with running("--servers", "2", "--port", str(port)) as (_, lines):
        assert [line.split()[0] for line in lines[:2]] == [
            f"https://127.0.0.1:{port}",
            f"https://127.0.0.1:{port + 1}",
        ]
        second = subprocess.run(
            [*COMMAND, "--port", str(port)],
            capture_output=True,
            text=True,
            check=False,
            timeout=150,
        )
    assert second.returncode == 2
    assert re.fullmatch(rf"python -m aiovbo.testing: .*in use.*{port}.*\n", complaints(second.stderr))


def test_version_login_quirks_and_a_kept_ca_file_are_options(tmp_path):
    """A second run has the same CA, which the first one wrote; the key is for its owner only."""
    ca_file = tmp_path / "ca.pem"
    options = ["--servers", "2", "--version", "v7", "--user", "anna", "--password", "secret"]
    options += ["--ca-file", str(ca_file), "--quirk", "list-cap", "--quirk", "oldest-first"]
    written = []
    for _ in range(2):
        with running(*options) as (process, lines):
            urls = [line.split()[0] for line in lines if line.startswith("https://")]
            assert [line.split(maxsplit=1)[1] for line in lines[:2]] == ["v4, v5, v6, v7"] * 2
            assert (value(lines, "Username"), value(lines, "Password")) == ("anna", "secret")
            written.append(ca_file.read_bytes())
            context = ssl.create_default_context(cafile=ca_file)
            form = {"grant_type": "password", "username": "anna", "password": "secret"}
            form["disable_antiforgery_token"] = "true"
            data = urllib.parse.urlencode(form).encode()
            with urllib.request.urlopen(f"{urls[1]}/v7/token", data, context=context) as answer:  # noqa: S310  # https
                token = json.load(answer)["access_token"]
            listing = urllib.request.Request(  # noqa: S310  # https
                f"{urls[1]}/v7/RestoreSessions", headers={"Authorization": f"Bearer {token}"}
            )
            with urllib.request.urlopen(listing, context=context) as answer:  # noqa: S310  # https
                rows = json.load(answer)["results"]
            assert len(rows) == 10
            assert rows == sorted(rows, key=lambda row: row["creationTime"])
            process.terminate()
            assert process.wait(150) == 0
    assert written[0] == written[1]
    assert Path(f"{ca_file}.key").stat().st_mode & 0o077 == 0


def test_a_ca_file_that_holds_something_else_is_left_alone(tmp_path):
    """Exit 2 with the file's name."""
    (tmp_path / "ca.pem").write_text("notes")
    (tmp_path / "ca.pem.key").write_text("notes")
    command = [*COMMAND, "--ca-file", str(tmp_path / "ca.pem")]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=150)
    assert run.returncode == 2
    assert re.fullmatch(
        r"python -m aiovbo.testing: .*ca\.pem and .*do not hold a CA.*\n", complaints(run.stderr)
    )
    assert (tmp_path / "ca.pem").read_text() == "notes"


@pytest.mark.parametrize(
    "arguments",
    [["--quirk", "x"], ["--version", "v9"], ["--servers", "0"], ["--port", "x"]],
)
def test_invalid_arguments_are_rejected(arguments, capsys):
    """Exit status 2, and the option that is wrong."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_a_port_that_does_not_exist_is_rejected():
    """Exit status 2, and no traceback."""
    run = subprocess.run(
        [*COMMAND, "--port", "70000"], capture_output=True, text=True, check=False, timeout=150
    )
    assert run.returncode == 2
    assert "Traceback" not in run.stderr
