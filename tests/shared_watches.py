"""Processes that share a watch by PostgreSQL, and die, hang, join, leave and lose their connections.

A program, not a test: `python tests/shared_watches.py --seeds 1000 --processes 50`. Each seed has a history
of its own on several servers, and members that write every change into a table, in the transaction of the
checkpoint. In the end, no change may be missing, and none may be there twice. Members are threads with event
loops of their own; in the seeds of `--processes`, they are processes of the operating system.
"""

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, Protocol

import psycopg
from harness.postgres import cut_connections, execute, schema, server
from psycopg_pool import AsyncConnectionPool

from aiovbo import (
    Added,
    Changed,
    CheckpointError,
    Finished,
    Fleet,
    LeaseLostError,
    Password,
    Removed,
    Server,
)
from aiovbo.postgres import PostgresCheckpoint
from aiovbo.testing import BackupServer, World

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
USER, PASSWORD = "TECH\\monitor", "shared-watches"
LEASE = 0.9
PATIENCE = 300.0
"""Seconds, at most: a busy machine is slow, and loses leases."""
SINK = """
CREATE TABLE sink (number serial, member text, change text, server text, kind text, id uuid, details text)
"""
INSERT = "INSERT INTO sink (member, change, server, kind, id, details) VALUES (%s, %s, %s, %s, %s, %s)"


# ------------------------------------------------------------------------------------- a member


async def watch(conninfo: str, name: str, urls: Iterable[str], stores: list[PostgresCheckpoint]) -> None:
    """Watch until cancelled; start again after whatever a restarted process would recover from."""
    rng = Random(name)  # noqa: S311  # chance that is repeatable
    while True:
        with suppress(CheckpointError, psycopg.Error):
            await watch_once(conninfo, name, urls, stores, rng)
        await asyncio.sleep(0.1)


async def watch_once(
    conninfo: str, name: str, urls: Iterable[str], stores: list[PostgresCheckpoint], rng: Random
) -> None:
    """One life of a watch."""
    servers = [
        Server(url, Password(USER, PASSWORD), allow_http=True, name=f"vbo{number}")
        for number, url in enumerate(urls)
    ]
    store = PostgresCheckpoint(
        conninfo, group="run", lease=timedelta(seconds=LEASE), retry_for=timedelta(minutes=1)
    )
    stores[:] = [store]
    options: dict[str, Any] = {
        "every": timedelta(milliseconds=150),
        "full_look_every": timedelta(seconds=1),
        "since": timedelta(days=4000),
        "ack": "manual",
        "checkpoint": store,
    }
    async with (
        AsyncConnectionPool(conninfo, min_size=1, max_size=1, open=False) as pool,
        Fleet(servers, retries=0, login_cooldown=0) as fleet,
        fleet.watch(**options) as changes,
    ):
        async for batch in changes.batches(rng.choice((1, 5, 50)), within=timedelta(milliseconds=40)):
            try:
                async with pool.connection() as connection:
                    for change in batch:
                        match change:
                            case Added(session=one) | Changed(session=one) | Finished(session=one):
                                key, details = one.id, one.details
                            case Removed(session_id=key):
                                details = None
                            case _:
                                continue
                        kind = type(change).__name__
                        await connection.execute(INSERT, (name, change.id, change.server, kind, key, details))
                    await asyncio.sleep(rng.choice((0, 0, 0.05)))
                    await batch.ack(connection)
                    await hold(rng)
            except LeaseLostError:
                continue


async def hold(rng: Random) -> None:
    """Keep the transaction open: mostly not for long, now and then for longer than a lease."""
    chance = rng.random()
    if chance < 0.04:
        # The whole process is stopped: meanwhile others may claim what it does not hold.
        time.sleep(rng.choice((1.3, 2.2)) * LEASE)  # noqa: ASYNC251  # it is to block
    elif chance < 0.08:
        await asyncio.sleep(1.6 * LEASE)
    else:
        await asyncio.sleep(rng.choice((0, 0, 0.05)))


class Member(Protocol):
    """A process that shares the watch."""

    def kill(self) -> None:
        """End it without any notice."""

    def pause(self, seconds: float) -> None:
        """Let it do nothing for a while."""

    def leave(self) -> None:
        """End it cleanly."""

    def explain(self) -> None:
        """Print what it waits for."""


class Thread:
    """A member in this process, with an event loop of its own."""

    def __init__(self, conninfo: str, name: str, urls: list[str]) -> None:
        self._stores: list[PostgresCheckpoint] = []
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, args=(conninfo, name, urls), daemon=True)
        self._thread.start()

    def _run(self, *arguments: Any) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner, suppress(asyncio.CancelledError):
            runner.run(self._main(*arguments))

    async def _main(self, conninfo: str, name: str, urls: list[str]) -> None:
        self._task = asyncio.ensure_future(watch(conninfo, name, urls, self._stores))
        await self._task

    def explain(self) -> None:
        """Print what its tasks wait for."""
        print_stacks(self._loop)

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *arguments)

    def kill(self) -> None:
        """Its row stays, its transaction is rolled back."""
        self._call(self._die)
        self._thread.join(PATIENCE)

    def _die(self) -> None:
        for store in self._stores:
            store._id = None
        self._end()

    def _end(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def pause(self, seconds: float) -> None:
        """Block its event loop."""
        self._call(time.sleep, seconds)

    def leave(self) -> None:
        """Cancel its task."""
        ends = time.monotonic() + PATIENCE
        while self._thread.is_alive() and time.monotonic() < ends:
            # Again and again: a pool of psycopg may lose a cancellation.
            self._call(self._end)
            self._thread.join(1)
        if self._thread.is_alive():
            self.explain()
            raise AssertionError("a member that was cancelled did not end")


class Process:
    """A member in a process of its own."""

    def __init__(self, conninfo: str, name: str, urls: list[str]) -> None:
        command = [sys.executable, str(Path(__file__)), "member", conninfo, name, *urls]
        self._process = subprocess.Popen(command)

    def kill(self) -> None:
        """By SIGKILL."""
        self._process.kill()
        self._process.wait()

    def explain(self) -> None:
        """Let it print what its tasks wait for."""
        self._process.send_signal(signal.SIGUSR1)
        time.sleep(2)

    def pause(self, seconds: float) -> None:
        """By SIGSTOP."""
        self._process.send_signal(signal.SIGSTOP)
        threading.Timer(seconds, self._process.send_signal, [signal.SIGCONT]).start()

    def leave(self) -> None:
        """By SIGTERM; again and again, as for a thread."""
        ends = time.monotonic() + PATIENCE
        while time.monotonic() < ends:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(1)
                return
        self.explain()
        self._process.kill()
        raise AssertionError("a member that was asked to end did not end")


def print_stacks(loop: asyncio.AbstractEventLoop) -> None:
    """Print what the tasks of an event loop wait for."""
    for task in asyncio.all_tasks(loop):
        task.print_stack(file=sys.stdout)
    sys.stdout.flush()


# --------------------------------------------------------------------------------------- a seed


class Run:
    """One seed: servers, their history, the members, and what must be in the table in the end."""

    def __init__(self, seed: int, kind: type[Thread] | type[Process], conninfo: str) -> None:
        self.rng = Random(seed)  # noqa: S311  # the same
        self._kind, self._conninfo = kind, conninfo
        self.backups: list[BackupServer] = []
        self.members: list[Thread | Process] = []
        self.did: Counter[str] = Counter()
        self._names = 0
        self._expected: dict[tuple[str, Any], str] = {}

    async def join(self) -> None:
        """One member more."""
        self._names += 1
        urls = [backup.url for backup in self.backups]
        self.members.append(self._kind(self._conninfo, f"member{self._names}", urls))

    def change_the_world(self) -> None:
        """Something happens on one of the servers."""
        number = self.rng.randrange(len(self.backups))
        world, name = self.backups[number].world, f"vbo{number}"
        is_open = [one.id for one in world.sessions if one.end_ticks is None]
        text = f"{self.rng.random()}"
        match self.rng.choice(("add", "add", "change", "end", "end", "short")):
            case "add":
                one = world.add(creation_time=NOW, end_time=None, details=text)
                self._expected[name, one.id] = text
            case "short":
                one = world.add(creation_time=NOW, end_time=NOW, details=text)
                self._expected[name, one.id] = text
            case "change" if is_open:
                key = self.rng.choice(is_open)
                world.change(key, details=text)
                self._expected[name, key] = text
            case "end" if is_open:
                key = self.rng.choice(is_open)
                world.change(key, end_time=NOW, state="Stopped", result="Success", details=text)
                self._expected[name, key] = text
            case _:
                pass

    async def disturb(self) -> None:
        """Something happens to one of the members."""
        what = self.rng.choice(("kill", "pause", "pause", "join", "leave", "cut"))
        member = self.rng.choice(self.members)
        if what == "join" or (what in {"kill", "leave"} and len(self.members) == 1):
            if len(self.members) < 4:
                await self.join()
                self.did["join"] += 1
            return
        self.did[what] += 1
        if what == "cut":
            await asyncio.to_thread(cut_connections, self._conninfo)
        elif what == "pause":
            member.pause(self.rng.choice((0.3, 1.2, 2.0)) * LEASE)
        else:
            self.members.remove(member)
            await asyncio.to_thread(getattr(member, what))

    def explain(self) -> None:
        """Print what the members and the database do, where something is missing."""
        for member in self.members:
            member.explain()
        for what in (
            "SELECT *, clock_timestamp() FROM aiovbo_processes",
            "SELECT server, owner, epoch FROM aiovbo_leases",
            "SELECT pid, state, wait_event, query FROM pg_stat_activity WHERE application_name <> ''",
        ):
            print(*execute(self._conninfo, what), sep="\n", flush=True)

    def wrong(self) -> list[str]:
        """What is missing in the table, or there twice."""
        rows = execute(self._conninfo, "SELECT change, server, kind, id, details FROM sink ORDER BY number")
        changes = Counter(row[0] for row in rows)
        problems = [f"twice: {change}" for change, count in changes.items() if count > 1]
        kinds = Counter((server, key, kind) for _, server, kind, key, _ in rows)
        last = {(server, key): details for _, server, _, key, details in rows}
        ended = {
            (f"vbo{number}", one.id)
            for number, backup in enumerate(self.backups)
            for one in backup.world.sessions
            if one.end_ticks is not None
        }
        for (name, key), details in self._expected.items():
            wanted = {"Added": 1, "Finished": int((name, key) in ended)}
            for kind, count in wanted.items():
                if kinds[name, key, kind] != count:
                    problems.append(f"{name} {key}: {kind} {kinds[name, key, kind]} times, not {count}")
            if last.get((name, key)) != details:
                problems.append(f"{name} {key}: the last state is missing")
        return problems


async def run(seed: int, kind: type[Thread] | type[Process], conninfo: str) -> Counter[str]:
    """One seed; what was done to its members.

    Raises: AssertionError with what is missing, or there twice.
    """
    execute(conninfo, SINK)
    one = Run(seed, kind, conninfo)
    is_slow = kind is Process
    async with AsyncExitStack() as stack:
        for number in range(one.rng.randint(2, 4)):
            backup = BackupServer(
                World(now=NOW, speed=0, sessions=0),
                version=one.rng.choice(("v4", "v6", "v8")),
                username=USER,
                password=PASSWORD,
                tls=False,
                name=f"vbo{number}",
            )
            one.backups.append(await stack.enter_async_context(backup))
        try:
            for _ in range(one.rng.randint(2, 4)):
                await one.join()
            await asyncio.sleep(3 if is_slow else 0.3)
            for _ in range(one.rng.randint(10, 20)):
                for _ in range(one.rng.randint(0, 3)):
                    one.change_the_world()
                if one.rng.random() < 0.4:
                    await one.disturb()
                await asyncio.sleep(one.rng.choice((0.05, 0.2, 0.8)) * (2 if is_slow else 1))
            ends = time.monotonic() + PATIENCE
            while (wrong := await asyncio.to_thread(one.wrong)) and time.monotonic() < ends:
                await asyncio.sleep(0.1)
            if wrong:
                one.explain()
            # Whatever would come twice has come by now.
            await asyncio.sleep(LEASE)
            wrong = wrong or one.wrong()
        finally:
            for member in one.members:
                await asyncio.to_thread(member.leave)
    assert not wrong, wrong
    one.did["sessions"] = len(one._expected)
    return one.did


def run_seeds(
    conninfo: str,
    seeds: Iterable[int],
    kind: type[Thread] | type[Process],
    until: float,
    *,
    until_failure: bool = False,
) -> bool:
    """All of the seeds, or as many as there is time for; whether nothing was lost and nothing came twice."""
    did: Counter[str] = Counter()
    count, failed = 0, 0
    for seed in seeds:
        if time.monotonic() > until:
            break
        with schema(conninfo) as own:
            try:
                did += asyncio.run(run(seed, kind, own))
            except AssertionError as error:
                failed += 1
                print(f"seed {seed} ({kind.__name__}): {error}", flush=True)
        count += 1
        if failed and until_failure:
            break
        if count % 10 == 0:
            print(f"{count} seeds ({kind.__name__}), {failed} failed, {dict(did)}", flush=True)
    print(f"{count} seeds ({kind.__name__}), {failed} failed, {dict(did)}", flush=True)
    return failed == 0


def main() -> int:
    """As the command line says; 1 if anything was lost or came twice."""
    if sys.argv[1:2] == ["member"]:
        _, _, conninfo, name, *urls = sys.argv
        loop = asyncio.new_event_loop()
        task = loop.create_task(watch(conninfo, name, urls, []))
        loop.add_signal_handler(signal.SIGTERM, task.cancel)
        loop.add_signal_handler(signal.SIGUSR1, print_stacks, loop)
        with suppress(asyncio.CancelledError):
            loop.run_until_complete(task)
        return 0
    parser = argparse.ArgumentParser(description="Processes that share a watch by PostgreSQL.")
    parser.add_argument("--seeds", type=int, default=1000, help="with members that are threads")
    parser.add_argument("--processes", type=int, default=50, help="seeds with members that are processes")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--minutes", type=float, default=600.0, help="no new seed is started after that")
    parser.add_argument("--until-failure", action="store_true", help="end with the first seed that fails")
    options = parser.parse_args()
    conninfo = os.environ.get("AIOVBO_TEST_POSTGRES") or server()
    until = time.monotonic() + 60 * options.minutes
    first = options.first
    ends = options.until_failure
    seeds = range(first, first + options.processes)
    passed = run_seeds(conninfo, seeds, Process, until, until_failure=ends)
    seeds = range(first, first + options.seeds)
    passed &= run_seeds(conninfo, seeds, Thread, until, until_failure=ends)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
