"""Beyond one process: the example with a Redis stream, as it is printed."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import closed_port
from harness.readme import ROOT
from test_examples import command, run

from aiovbo.testing import BackupServer, World


@pytest.fixture
def redis_port() -> int:
    """A free port for a Redis server."""
    pytest.importorskip("redis")
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    with closed_port() as port:
        return port


@contextmanager
def redis_at(port: int, folder: Path) -> Iterator[str]:
    """A Redis server of the test's own."""
    program = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with subprocess.Popen(program, stdout=subprocess.DEVNULL) as process:
        ends = time.monotonic() + 10
        while not answers(port) and time.monotonic() < ends:
            time.sleep(0.05)
        yield f"redis://127.0.0.1:{port}"
        process.kill()


@pytest.fixture
def redis_url(redis_port: int, tmp_path: Path) -> Iterator[str]:
    """The address of a running Redis server."""
    with redis_at(redis_port, tmp_path) as url:
        yield url


def answers(port: int) -> bool:
    """Whether Redis is up."""
    import redis  # may not be installed

    try:
        with redis.Redis(port=port) as client:
            return bool(client.ping())
    except redis.ConnectionError:
        return False


def test_every_change_reaches_the_stream_once(redis_url: str, tmp_path: Path) -> None:
    """Also when all is passed on again, because the place was lost."""
    import redis  # as above

    world = World(speed=0, sessions=0)
    keys = {str(world.add(end_time=world.now).id) for _ in range(10)}
    with (
        BackupServer(world).run_in_thread() as backup,
        redis.Redis.from_url(redis_url, decode_responses=True) as client,
    ):
        options = [backup.url, "--user", backup.username, "--ca-file", backup.ca_file]
        options += ["--redis", redis_url, "--every", "0.1", "--count", "20"]
        for place in ("one.db", "other.db"):
            place_options = [*options, "--place", str(tmp_path / place)]
            done = run("to_redis", *place_options, password=backup.password, plain=True)
            assert (done.returncode, done.stdout) == (0, "20 changes passed on\n"), done.stderr
            entries = [fields for _, fields in client.xrange("vbo:changes")]
            assert len({entry["id"] for entry in entries}) == len(entries) == 20
            assert {entry["kind"] for entry in entries} == {"Added", "Finished"}
            assert {json.loads(entry["body"])["id"] for entry in entries} == keys


def test_the_example_can_start_before_redis_and_trims_the_stream(redis_port: int, tmp_path: Path) -> None:
    """It states what it waits for; nothing is acknowledged before Redis has it."""
    import redis  # as above

    world = World(speed=0, sessions=0)
    for _ in range(150):
        world.add(end_time=world.now)
    with BackupServer(world).run_in_thread() as backup:
        options = [backup.url, "--user", backup.username, "--ca-file", backup.ca_file, "--every", "0.1"]
        options += ["--redis", f"redis://127.0.0.1:{redis_port}", "--place", str(tmp_path / "one.db")]
        with subprocess.Popen(
            command("to_redis", *options, "--count", "300", "--longest", "100", plain=True),
            cwd=ROOT,
            env={**os.environ, "VBO_PASSWORD": backup.password},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stderr is not None
            first = process.stderr.readline()
            with redis_at(redis_port, tmp_path) as url:
                output, _ = process.communicate(timeout=150)
                with redis.Redis.from_url(url) as client:
                    entries = client.xlen("vbo:changes")
    assert first.startswith("Redis cannot be reached, trying again: Error 111")
    assert (process.returncode, output) == (0, "300 changes passed on\n")
    # Trimming drops whole nodes of a hundred entries.
    assert 100 <= entries < 300
