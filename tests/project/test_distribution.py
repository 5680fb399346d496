"""Beyond one process: the example with a Redis stream, as it is printed."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import closed_port
from test_examples import run

from aiovbo.testing import BackupServer, World


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    """A Redis server of the test's own."""
    pytest.importorskip("redis")
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed")
    with closed_port() as port:
        pass
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        ends = time.monotonic() + 10
        while not answers(port) and time.monotonic() < ends:
            time.sleep(0.05)
        yield f"redis://127.0.0.1:{port}"
        process.kill()


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
