"""The pytest plugin, in a project that has nothing to do with this one."""

import subprocess
import sys

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


def test_fixtures_serve_any_project(tmp_path):
    """Servers come and go with each test, without warnings, and without asyncio plugins."""
    (tmp_path / "test_project.py").write_text(PROJECT)
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-W",
            "error",
            "-p",
            "no:asyncio",
            "-p",
            "no:cacheprovider",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=40,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "5 passed" in run.stdout
    assert "warning" not in run.stdout


def test_fixtures_are_listed_with_what_they_give(tmp_path):
    """`pytest --fixtures` shows each with its first line."""
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "--fixtures", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=40,
    )
    assert "A running backup server, a new one for each test." in run.stdout
    assert "vbo_fleet" in run.stdout
