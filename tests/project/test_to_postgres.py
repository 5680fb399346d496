"""The example that writes every restore into PostgreSQL: each change once, also after a crash."""

import os
import subprocess
import time

from harness.postgres import execute
from harness.readme import ROOT
from test_examples import command, run

from aiovbo.testing import BackupServer, World


def test_every_change_is_written_once_also_when_the_process_is_killed(database: str) -> None:
    """A second process continues where the first one was killed, and a third one has nothing left to do."""
    world = World(speed=0, sessions=0)
    keys = {str(world.add(end_time=world.now).id) for _ in range(150)}
    with BackupServer(world, version="v6").run_in_thread() as backup:
        options = [backup.url, "--user", backup.username, "--ca-file", backup.ca_file]
        options += ["--database", database, "--every", "0.1"]
        with subprocess.Popen(
            command("to_postgres", *options, plain=True),
            cwd=ROOT,
            env={**os.environ, "VBO_PASSWORD": backup.password},
        ) as process:
            ends = time.monotonic() + 50
            while not _written(database):
                assert time.monotonic() < ends
                time.sleep(0.02)
            process.kill()
        first = _written(database)
        # The lease of one that was killed runs out; here, it is ended.
        execute(database, "DELETE FROM aiovbo_processes")
        world.add(end_time=world.now)
        done = run("to_postgres", *options, "--count", str(302 - first), password=backup.password, plain=True)
        assert (done.returncode, done.stdout) == (0, f"{302 - first} changes written\n"), done.stderr
    rows = execute(database, "SELECT kind, body ->> 'id' FROM history")
    assert len(rows) == 302
    assert {key for kind, key in rows if kind == "Finished"} > keys
    assert execute(database, "SELECT count(*) FROM restores WHERE result IS NOT NULL") == [(151,)]


def _written(database: str) -> int:
    """How many changes are in the history; 0 before there is one."""
    if execute(database, "SELECT to_regclass('history')") == [(None,)]:
        return 0
    found: int = execute(database, "SELECT count(*) FROM history")[0][0]
    return found
