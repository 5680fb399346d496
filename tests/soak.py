"""A watching process that is killed again and again, as by a power cut; and what must hold in the end.

A program, not a test: `python tests/soak.py --kills 50 --seed 1`. It prints its seed, a line for every kill
and what was lost, and ends with status 1 if anything was. Knows the SDK and its embedded servers.
"""

import argparse
import shutil
import sqlite3
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import ExitStack, closing
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from uuid import UUID

import attrs

from aiovbo.testing import BackupFleet, Fault
from aiovbo.testing._world import WorldSession

WATCHER = """
import asyncio, random, sys
from datetime import timedelta
from aiovbo import *

async def main(out, place, ack, ca_file, user, password, *urls):
    servers = [Server(url, Password(user, password), tls=TLS(ca_file=ca_file), name=url) for url in urls]
    options = {"every": timedelta(milliseconds=50), "full_look_every": timedelta(milliseconds=300)}
    async with Fleet(servers, retries=0) as fleet:
        place = Checkpoint(place)
        async with fleet.watch(checkpoint=place, since=timedelta(days=4000), ack=ack, **options) as changes:
            async for change in changes:
                match change:
                    case Added(session=s) | Changed(session=s) | Finished(session=s):
                        what = f"{s.id} {s.state} {s.result}"
                    case Removed(session_id=key):
                        what = f"{key} gone gone"
                    case _:
                        continue
                # Its work takes a moment, before and after it is done: killed there, it is to do again.
                await asyncio.sleep(random.choice((0, 0, 0.02)))
                with open(out, "a") as file:
                    file.write(f"{change.id} {type(change).__name__} {what}\\n")
                await asyncio.sleep(random.choice((0, 0, 0.02)))
                if ack == "manual":
                    changes.ack(change)

asyncio.run(main(*sys.argv[1:]))
"""
"""A consumer whose work is a line in a file: there once it is written, whatever becomes of the process."""

FAULTS = [
    Fault.status(503), Fault.drop(), Fault.drop(reset=True), Fault.empty(), Fault.body(b"[{"), Fault.cut(20),
    Fault.delay(0.2),
]  # fmt: skip
PATIENCE = 100.0
"""Seconds in which the last process must have delivered everything."""


@attrs.define
class History:
    """What the servers went through."""

    random: Random
    backups: BackupFleet
    number: int = 0
    removed: set[UUID] = attrs.field(factory=set)
    forgotten: dict[UUID, int] = attrs.field(factory=dict)
    """How often a session was delivered when a process died that had not saved it."""

    def go_on(self) -> None:
        """One thing or other happens on one of the servers."""
        random, self.number = self.random, self.number + 1
        backup = random.choice(self.backups.servers)
        world, sessions = backup.world, backup.world.sessions
        running = [one for one in sessions if one.state == "Working"]
        kind = random.choice(
            ("comes", "is over", "ends", "ends", "moves on", "vanishes", "fails", "logs out")
        )
        if kind == "comes" or not running:
            world.add(end_time=None, result=f"R{self.number}")
        elif kind == "is over":
            world.add(end_time=world.now, result=f"R{self.number}")
        elif kind == "ends":
            one = random.choice(running)
            world.change(one.id, state="Stopped", end_time=world.now, result=f"R{self.number}")
        elif kind == "moves on":
            world.change(random.choice(running).id, result=f"R{self.number}")
        elif kind == "vanishes" and random.random() < 0.3:
            self.removed.add(gone := random.choice(sessions).id)
            world.remove(gone)
        elif kind == "fails":
            backup.fail(random.choice(FAULTS), times=1)
        elif kind == "logs out":
            backup.revoke_tokens()

    def sessions(self) -> dict[UUID, WorldSession]:
        """What there is now, on all servers."""
        return {one.id: one for backup in self.backups for one in backup.world.sessions}


@attrs.define
class Delivered:
    """What the processes wrote, all lives together, in its order."""

    ids: dict[str, str] = attrs.field(factory=dict)
    """Each change, by its id."""
    kinds: defaultdict[UUID, list[str]] = attrs.field(factory=lambda: defaultdict(list))
    """The kinds of changes of each session."""
    now: dict[UUID, tuple[str, str]] = attrs.field(factory=dict)
    """Each session as it was delivered last."""
    lines: int = 0
    problems: list[str] = attrs.field(factory=list)

    @classmethod
    def read(cls, out: Path) -> "Delivered":
        """All of it."""
        delivered = cls()
        others: dict[str, str] = {}
        for line in out.read_text().splitlines():
            name, kind, key, state, result = line.split(" ")
            what = f"{kind} {key} {state} {result}"
            delivered.lines += 1
            if delivered.ids.setdefault(name, what) != what:
                delivered.problems.append(f"one id, two changes: {delivered.ids[name]}; {what}")
            if kind != "Removed" and others.setdefault(what, name) != name:
                delivered.problems.append(f"one change, two ids: {what}")
            delivered.kinds[UUID(key)].append(kind)
            delivered.now[UUID(key)] = state, result
            if kind == "Removed":
                del delivered.now[UUID(key)]
        return delivered

    def missing(self, history: History) -> list[str]:
        """What happened on the servers, and was not delivered."""
        there = history.sessions()
        # What was not acknowledged counts as not delivered: a removed session cannot be delivered again.
        known = {key for key, kinds in self.kinds.items() if history.forgotten.get(key) != len(kinds)}
        lost = [f"{key} is {self.now[key]}, and not there" for key in self.now.keys() & known - there.keys()]
        for key, one in there.items():
            wanted = {"Added"} | ({"Finished"} if one.state == "Stopped" else set())
            lost += [f"{kind} {key}" for kind in wanted - set(self.kinds.get(key, ()))]
            if self.now.get(key) != (one.state, one.result):
                lost.append(f"{key} is {one.state} {one.result}, and not {self.now.get(key)}")
        lost += [f"Removed {key}" for key in history.removed & known if self.kinds[key][-1] != "Removed"]
        return lost


def saved(place: Path) -> set[UUID]:
    """The sessions that a checkpoint knows, read from a copy: what is left of it is for the next process."""
    with TemporaryDirectory() as directory:
        for file in place.parent.glob(f"{place.name}*"):
            shutil.copy(file, directory)
        copy = Path(directory, place.name)
        if not copy.exists():
            return set()
        with closing(sqlite3.connect(copy)) as database:
            return {UUID(bytes=key) for (key,) in database.execute("SELECT id FROM records")}


def live(command: list[str], history: History, seconds: float, out: Path | None) -> str | None:
    """One life of the process, to its violent end; what it died of where it ended by itself.

    - `out`: the file whose growth begins the seconds, so that a busy machine does not end them before
          anything was delivered; None: they begin with the process.
    """
    size = 0 if out is None else out.stat().st_size
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        ends, gives_up = time.monotonic() + seconds, time.monotonic() + PATIENCE
        while time.monotonic() < ends and process.poll() is None:
            is_waiting = out is not None and out.stat().st_size == size and time.monotonic() < gives_up
            if is_waiting:
                ends = time.monotonic() + seconds
            if not is_waiting or history.random.random() < 0.1:
                history.go_on()
            time.sleep(history.random.random() / 50)
        died = process.poll()
        process.kill()
        _, errors = process.communicate()
    return None if died is None else errors


def run(kills: int, seed: int, directory: Path) -> list[str]:
    """The whole of it; what was wrong."""
    random, out = Random(seed), directory / "out"  # noqa: S311  # it is to be repeatable
    out.touch()
    problems: list[str] = []
    with ExitStack() as stack:
        backups = BackupFleet(3, sessions=5, speed=0, versions=("v4", "v6", "v8"))
        stack.enter_context(backups.run_in_thread())
        history = History(random, backups)
        login = [backups.ca_file, backups.username, backups.password, *backups.urls]
        begin = [sys.executable, "-c", WATCHER, str(out), str(directory / "place.db")]
        for number in range(kills):
            seconds, ack = random.random() * 1.2, random.choice(("auto", "manual"))
            # It takes about half a second to begin at all; also that is a moment to be killed at.
            begins = "first delivery" if random.random() < 0.8 else "start"
            before = Delivered.read(out)
            died = live([*begin, ack, *login], history, seconds, out if begins == "first delivery" else None)
            delivered = Delivered.read(out)
            unsaved = delivered.now.keys() - saved(directory / "place.db")
            history.forgotten |= {key: len(delivered.kinds[key]) for key in unsaved}
            news, again = len(delivered.ids) - len(before.ids), delivered.lines - before.lines
            print(
                f"{number + 1:3d}  killed {seconds:.2f} s after its {begins}, {again:3d} delivered, "
                f"{again - news} again",
                flush=True,
            )
            if died is not None:
                problems.append(f"life {number + 1} ended by itself: {died}")
        for backup in backups:
            backup.heal()
        with subprocess.Popen([*begin, "auto", *login]) as process:
            ends = time.monotonic() + PATIENCE
            while Delivered.read(out).missing(history) and time.monotonic() < ends:
                time.sleep(0.1)
            process.kill()
        delivered = Delivered.read(out)
        total = (
            f"{history.number} things happened to {len(history.sessions()) + len(history.removed)} sessions"
        )
        again = delivered.lines - len(delivered.ids)
        print(f"{total}; {len(delivered.ids)} changes delivered, {again} of them again")
        return [*problems, *delivered.problems, *delivered.missing(history)]


def main() -> None:
    """Run it, and say what was lost."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    with TemporaryDirectory() as directory:
        problems = run(options.kills, options.seed, Path(directory))
    for problem in problems[:20]:
        print(f"WRONG: {problem}")
    print("nothing was lost" if not problems else f"{len(problems)} findings, seed {options.seed}")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
