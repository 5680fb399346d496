"""The pytest plugin, in a project that has nothing to do with this one."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from aiovbo import testing

NOT_NEEDED = ("-p", "no:hypothesispytest")
"""Hypothesis takes longer to import than such a project takes to run."""

PROJECT = """
import asyncio, ssl, urllib.error, urllib.request
import pytest

def status(server, path):
    context = ssl.create_default_context(cafile=server.ca_file)
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(server.url + path, context=context)
    caught.value.close()
    return caught.value.code

def test_server_serves_plain_tests(vbo_server):
    assert status(vbo_server, "/v8/RestoreSessions") == 401
    assert len(vbo_server.requests) == 1

def test_each_test_has_a_new_server(vbo_server):
    assert vbo_server.requests == []

def test_server_serves_under_a_loop_of_the_test(vbo_server):
    async def connect():
        _, writer = await asyncio.open_connection("127.0.0.1", vbo_server.port)
        writer.close()
        await writer.wait_closed()
    asyncio.run(connect())

def test_fleet_has_three_servers(vbo_fleet):
    assert len(vbo_fleet) == 3
    assert {status(server, "/v6/RestoreSessions") for server in vbo_fleet} == {401}

class TestLarger:
    @pytest.fixture
    def vbo_fleet_size(self):
        return 5

    def test_fleet_has_the_size_asked_for(self, vbo_fleet):
        assert len(vbo_fleet) == 5
"""


@pytest.fixture
def project(tmp_path):
    """Writes a project with these tests and nothing else, and runs them, strictly."""

    def run(tests, *arguments):
        settings = "[project]\nname = 'theirs'\nversion = '1'\n[tool.pytest.ini_options]\ntestpaths = ['t']\n"
        (tmp_path / "pyproject.toml").write_text(settings)
        (tmp_path / "t").mkdir(exist_ok=True)
        (tmp_path / "t" / "test_project.py").write_text(tests)
        strict = ["-q", "-W", "error", "-p", "no:asyncio", "-p", "no:cacheprovider", *NOT_NEEDED]
        return subprocess.run(
            [sys.executable, "-m", "pytest", *strict, *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=150,
        )

    return run


def test_fixtures_serve_any_project(project):
    """Servers come and go with each test, without warnings, and without asyncio plugins."""
    run = project(PROJECT)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "5 passed" in run.stdout
    assert "warning" not in run.stdout


def test_fixtures_are_listed_with_what_they_give(project):
    """`pytest --fixtures` shows each with its first line."""
    run = project("", "--fixtures")
    assert "A running backup server, a new one for each test." in run.stdout
    assert "Starts what the test makes, and stops it at its end" in run.stdout
    assert "vbo_fleet" in run.stdout


STARTING = """
import socket
import pytest
from aiovbo.testing import BackupFleet, BackupServer, Starter, World

started = []

def is_open(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0

def test_one_of_each(vbo_start: Starter):
    old = vbo_start(BackupServer(World(sessions=0), version="v4"))
    fleet = vbo_start(BackupFleet(4, sessions=1))
    started.extend([old.port, *(one.port for one in fleet)])
    assert old.version == "v4" and old.world.sessions == []
    assert all(map(is_open, started))

def test_all_have_stopped():
    assert len(started) == 5 and not any(map(is_open, started))

def test_what_cannot_start_says_so_and_stops_the_others(vbo_start):
    first = vbo_start(BackupServer())
    with pytest.raises(OSError):
        vbo_start(BackupServer(port=first.port))
"""


def test_a_test_starts_what_it_makes_itself(project):
    """Servers of any kind, as many as it likes; all are stopped after it."""
    run = project(STARTING)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "3 passed" in run.stdout


LAZY = """
import sys

def servers_modules():
    ours = {"aiohttp", "attrs", "trustme", "cryptography"}
    return {name for name in sys.modules if name.startswith("aiovbo.testing.") or name in ours}

def test_nothing_is_imported_before():
    assert "aiovbo.testing.plugin" in sys.modules
    assert servers_modules() == {"aiovbo.testing.plugin"}

def test_a_fixture_is_used(vbo_server):
    assert "aiovbo.testing._server" in servers_modules()
"""


def test_the_plugin_imports_no_server_before_a_fixture_is_used(project):
    """Other people's test runs do not pay for it: neither aiohttp nor our own modules."""
    run = project(LAZY)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "2 passed" in run.stdout


@pytest.mark.parametrize("code", ["import aiovbo", "import aiovbo.testing", "from aiovbo.testing import *"])
def test_importing_needs_no_pytest(code):
    """Neither the SDK nor the backup server; both are used without any tests."""
    code += "; import sys; sys.exit('pytest' in sys.modules or 'aiovbo.testing.plugin' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=150).returncode == 0


FAILING = """
import ssl, urllib.error, urllib.request

def test_that_fails(vbo_server, vbo_fleet):
    context = ssl.create_default_context(cafile=vbo_server.ca_file)
    for number in range(25):
        try:
            urllib.request.urlopen(f"{vbo_server.url}/v8/RestoreSessions?offset={number}", context=context)
        except urllib.error.HTTPError as error:
            error.close()
    assert False

def test_that_fails_without_servers():
    assert False
"""


def test_a_failing_test_shows_what_its_servers_were_asked(project):
    """The last 20 requests with their answers, and which servers were left alone."""
    run = project(FAILING)
    assert run.returncode == 1
    assert run.stdout.count(" requests to vbo ") == 1
    assert "(5 more before)\n401 GET /v8/RestoreSessions?offset=5\n" in run.stdout
    assert "\n401 GET /v8/RestoreSessions?offset=24\n" in run.stdout
    assert "\nvbo1, vbo2, vbo3\n" in run.stdout


def test_the_table_of_names_is_what_the_stub_says():
    """Each name is imported from the module that type checkers look for it in, and others are not there."""
    stub = ast.parse(Path(testing.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    homes = {alias.name: node.module for node in imports for alias in node.names}
    assert homes == {name: f"aiovbo.testing.{module}" for name, module in testing._HOMES.items()}
    (listed,) = (node for node in stub.body if isinstance(node, ast.Assign))
    assert ast.literal_eval(listed.value) == testing.__all__
    assert dir(testing) == sorted(testing.__all__)
    with pytest.raises(AttributeError, match="no attribute 'BackupServr'"):
        _ = testing.BackupServr
