"""The programs in `examples/` run as they are, against servers of their own and against others."""

import contextlib
import io
import json
import os
import re
import runpy
import subprocess
import sys
import time
import urllib.error
import urllib.request
from unittest.mock import patch

import pytest
from harness.processes import complaints
from harness.readme import ROOT

from aiovbo.testing import BackupFleet, Fault

EXAMPLES = sorted(path.stem for path in (ROOT / "examples").glob("*.py") if not path.stem.startswith("_"))
NEED_MORE = ["exporter", "in_fastapi", "to_postgres", "to_redis", "with_dask"]
"""Those need more than the package, and are run by tests of their own."""
ONE_LINERS = [name for name in EXAMPLES if name not in {"fleet_page", "in_an_app", *NEED_MORE}]


def command(name: str, *arguments: str, plain: bool = False) -> list[str]:
    strict = [] if plain else ["-W", "error", "-X", "dev"]
    return [sys.executable, *strict, f"examples/{name}.py", *arguments]


def run(
    name: str, *arguments: str, password: str = "", plain: bool = False, within: float = 50
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command(name, *arguments, plain=plain),
        cwd=ROOT,
        env={**os.environ, "VBO_PASSWORD": password},
        capture_output=True,
        text=True,
        check=False,
        timeout=within,
    )
    done.stderr = complaints(done.stderr)
    return done


def run_here(name: str, *arguments: str, password: str = "") -> subprocess.CompletedProcess[str]:
    """The same in this process, which has imported already what an example needs."""
    out, errors, status = io.StringIO(), io.StringIO(), 0
    with (
        patch.object(sys, "argv", [f"examples/{name}.py", *arguments]),
        patch.object(sys, "path", [str(ROOT / "examples"), *sys.path]),
        patch.dict(os.environ, {"VBO_PASSWORD": password, "PYTHONASYNCIODEBUG": "1"}),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(errors),
    ):
        try:
            runpy.run_path(str(ROOT / "examples" / f"{name}.py"), run_name="__main__")
        except SystemExit as ended:
            # As the interpreter does: a text is printed, and the status is 1.
            status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
            if isinstance(ended.code, str):
                errors.write(f"{ended.code}\n")
    return subprocess.CompletedProcess(arguments, status, out.getvalue(), complaints(errors.getvalue()))


@pytest.fixture
def named(vbo_fleet: BackupFleet) -> list[str]:
    """Arguments that name running servers."""
    return [*vbo_fleet.urls, "--user", vbo_fleet.username, "--ca-file", vbo_fleet.ca_file]


@pytest.mark.parametrize("name", ONE_LINERS)
def test_an_example_needs_no_arguments(name: str) -> None:
    """It starts servers, asks them, prints, and ends with nothing to complain about."""
    done = run(name)
    assert (done.returncode, done.stderr) == (0, "")
    assert "sessions" in done.stdout


@pytest.mark.parametrize("name", ONE_LINERS)
def test_an_example_asks_the_servers_that_are_named(
    name: str, named: list[str], vbo_fleet: BackupFleet
) -> None:
    """With a user, a CA file, and the password from the environment."""
    done = run_here(name, *named, password=vbo_fleet.password)
    assert (done.returncode, done.stderr) == (0, "")
    assert vbo_fleet[0].logins == 1


@pytest.mark.parametrize("name", ONE_LINERS)
def test_an_example_says_in_a_line_which_server_failed(
    name: str, named: list[str], vbo_fleet: BackupFleet
) -> None:
    """No traceback, and an exit status that scripts can test."""
    vbo_fleet[0].fail(Fault.status(403), on="RestoreSessions", times=None)
    done = run_here(name, *named, password=vbo_fleet.password)
    assert done.returncode == 1
    assert re.fullmatch(rf"127.0.0.1:{vbo_fleet[0].port}: GET .*403.*\n", done.stderr)


def test_the_application_serves_what_it_knows_and_ends_in_time() -> None:
    """Every server's sessions as JSON, while it polls; nothing is left to complain about."""
    ends = time.monotonic() + 20
    with subprocess.Popen(
        command("in_an_app", "--seconds", "3", "--every", "0.1"),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.match(r"http://127\.0\.0\.1:\d+/", line)
            assert found, line
            known = None
            while known is None and time.monotonic() < ends:
                known = look(found[0])
            assert known is not None
            assert set(known) == {"vbo1", "vbo2", "vbo3"}
            assert all(one["error"] is None and one["sessions"] >= 0 for one in known.values())
            _, errors = process.communicate(timeout=150)
        finally:
            process.kill()
    assert (process.returncode, complaints(errors)) == (0, "")


def look(url: str) -> dict[str, dict[str, object]] | None:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310  # http, on loopback
            return json.load(answer)
    except urllib.error.HTTPError as early:
        early.close()
        if early.code != 503:
            raise
        time.sleep(0.05)
        return None


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name not in NEED_MORE])
def test_an_example_explains_its_arguments(name: str) -> None:
    """`--help` says what it does, and how to name servers."""
    done = run_here(name, "--help")
    assert done.returncode == 0
    assert "--ca-file" in done.stdout
    assert "VBO_PASSWORD" in done.stdout


def test_certificates_of_named_servers_are_checked(vbo_fleet: BackupFleet) -> None:
    """Without the CA file a server on loopback is not trusted, and the hint says what to do."""
    done = run_here("one_server", vbo_fleet[0].url, password=vbo_fleet.password)
    assert done.returncode == 1
    assert "certificate is rejected" in done.stderr
    assert "TLS(ca_file=...)" in done.stderr
