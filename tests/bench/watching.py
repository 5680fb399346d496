"""A thousand watched servers: `python tests/bench/watching.py [--servers 1000] [--seconds 60] [--every 10]`.

What a watch costs while little happens, how its requests lie in the interval, and how long a change takes
from the server to the consumer. Servers and watch are processes of their own; nothing here judges.
"""

import argparse
import asyncio
import contextlib
import gc
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Generator
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

from limits import machine, raise_file_limit, resident
from rounds import Table, median, percentile, short

from aiovbo import TLS, Added, Checkpoint, Finished, Fleet, Password, Server, Watch
from aiovbo.testing import BackupFleet

_SESSIONS = 30
_BAR = 40

Facts = dict[str, Any]


# ---------------------------------------------------------------------------------- the servers


async def _serve(options: argparse.Namespace) -> None:
    """Servers whose worlds stand still but for what is done to them, at random, and noted."""
    backups = BackupFleet(options.servers, sessions=_SESSIONS, versions=(options.version,), speed=0)
    async with backups:
        trust = await asyncio.to_thread(Path(backups.ca_file).read_text)
        _say({"urls": backups.urls, "trust": trust, "login": [backups.username, backups.password]})
        await _read_line()
        for backup in backups:
            backup.requests.clear()
        _say({"changes": await _happen(backups, options)})
        await _read_line()
        _say(
            {
                "requests": [
                    (number, one.resource, one.at)
                    for number, backup in enumerate(backups)
                    for one in backup.requests
                ]
            }
        )
        await _read_line()


async def _happen(backups: BackupFleet, options: argparse.Namespace) -> list[tuple[int, str, str, float]]:
    """Sessions that begin and end, `options.rate` times a second; which server, session, what, when."""
    random = Random(options.seed)  # noqa: S311  # it is to be repeatable
    running: list[tuple[int, Any]] = []
    happened: list[tuple[int, str, str, float]] = []
    ends = time.monotonic() + options.seconds
    while time.monotonic() < ends:
        await asyncio.sleep(random.expovariate(options.rate))
        if running and random.random() < 0.5:
            number, key = running.pop(random.randrange(len(running)))
            world, kind = backups[number].world, "Finished"
            world.change(key, state="Stopped", result="Success", end_time=world.now)
        else:
            number = random.randrange(len(backups))
            key, kind = backups[number].world.add(end_time=None).id, "Added"
            running.append((number, key))
        happened.append((number, str(key), kind, time.monotonic()))
    return happened


# ------------------------------------------------------------------------------------ the watch


async def _watch(options: argparse.Namespace) -> None:
    """Watches; reports the cost once every server was polled, and after the time."""
    given = json.loads(await _read_line())
    before = resident()
    with tempfile.TemporaryDirectory() as name:
        trust = Path(name) / "ca.pem"
        trust.write_text(given["trust"])
        login, tls = Password(*given["login"]), TLS(ca_file=str(trust))
        servers = [Server(url, login, name=url, tls=tls) for url in given["urls"]]
        every = timedelta(seconds=options.every)
        place = Checkpoint(Path(name) / "place.db")
        async with Fleet(servers) as fleet, fleet.watch(every=every, checkpoint=place) as changes:
            delivered: list[tuple[str, str, float]] = []
            consumer = asyncio.create_task(_consume(changes, delivered))
            began = time.monotonic()
            while not all(one.up for one in changes.status().values()):
                await asyncio.sleep(0.1)
            ready = time.monotonic() - began
            # One interval of rest, so that what is measured is the watch and not its beginning.
            await asyncio.sleep(options.every)
            gc.collect()
            _say({"ready": ready, "memory": resident() - before})
            cpu, began = time.process_time(), time.monotonic()
            await _read_line()
            spent = (time.process_time() - cpu) / (time.monotonic() - began)
            overruns = sum(one.overruns for one in changes.status().values())
            errors = sum(one.errors for one in changes.status().values())
            # The last changes are found by the next poll.
            await asyncio.sleep(options.every * 1.5)
            memory = resident() - before
            _say(
                {
                    "cpu": spent,
                    "memory": memory,
                    "delivered": delivered,
                    "overruns": overruns,
                    "errors": errors,
                }
            )
            consumer.cancel()
            await asyncio.wait([consumer])


async def _consume(changes: Watch, delivered: list[tuple[str, str, float]]) -> None:
    async for change in changes:
        if isinstance(change, Added | Finished):
            said = str(change.session.id), type(change).__name__, time.monotonic()
            delivered.append(said)


def _say(facts: Facts) -> None:
    print(json.dumps(facts), flush=True)


async def _read_line() -> str:
    return await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


# ------------------------------------------------------------------------------------ the figures


class _Process:
    """One of the two above, which reads and writes lines."""

    def __init__(self, role: str, options: argparse.Namespace) -> None:
        numbers = ("servers", "seconds", "every", "rate", "seed")
        command = [sys.executable, __file__, "--role", role, "--version", options.version]
        command += [f"--{name}={getattr(options, name)}" for name in numbers]
        command += ["--uvloop"] if options.uvloop and role == "watch" else []
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def write(self, line: str = "") -> None:
        """Write a line; an empty one lets it go on."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def read(self) -> Facts:
        """The next line that it writes.

        Raises: RuntimeError where it has died.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("a process of the benchmark has died")
        found: Facts = json.loads(line)
        return found

    def end(self) -> None:
        """Let it end, or make it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


@contextlib.contextmanager
def _process(role: str, options: argparse.Namespace) -> Generator[_Process]:
    process = _Process(role, options)
    try:
        yield process
    finally:
        process.end()


def measure(options: argparse.Namespace) -> Facts:
    """What the servers and the watch report of the same time."""
    with _process("serve", options) as servers, _process("watch", options) as watch:
        watch.write(json.dumps(servers.read()))
        found = watch.read()
        servers.write()
        found |= servers.read()
        watch.write()
        found["idle"] = found["memory"]
        found |= watch.read()
        servers.write()
        return found | servers.read()


def figures(options: argparse.Namespace, found: Facts) -> Table:
    """What it cost, and how long changes took."""
    delivered: dict[tuple[str, str], float] = {}
    for key, kind, at in found["delivered"]:
        delivered.setdefault((key, kind), at)
    polls: dict[int, list[float]] = {}
    for number, _, at in found["requests"]:
        polls.setdefault(number, []).append(at)
    delays: list[float] = []
    after_poll: list[float] = []
    for number, key, kind, at in found["changes"]:
        if (received := delivered.get((key, kind))) is not None:
            delays.append(received - at)
            seen = max((poll for poll in polls[number] if at <= poll <= received), default=at)
            after_poll.append(received - seen)
    happened, twice = len(found["changes"]), len(found["delivered"]) - len(delivered)
    rows = [
        ("until every server was polled, s", short(found["ready"])),
        ("CPU, % of a core", short(found["cpu"] * 100)),
        ("resident memory a server, idle, KiB", short(found["idle"] / options.servers / 1024)),
        ("... at the end, KiB", short(found["memory"] / options.servers / 1024)),
        ("requests a second", short(len(_within(options, found)) / options.seconds)),
        ("polls left out; servers in error", f"{found['overruns']}; {found['errors']}"),
        ("changes; not delivered; delivered twice", f"{happened}; {happened - len(delays)}; {twice}"),
        *(
            (f"{what}, {word}, s", short(value))
            for what, values in (("from change to delivery", delays), ("from its last request", after_poll))
            for word, value in (
                ("median", median(values)),
                ("p99", percentile(values, 0.99)),
                ("longest", max(values)),
            )
        ),
    ]  # fmt: skip
    loop = "uvloop" if options.uvloop else "asyncio"
    title = f"{options.servers:,} watched {options.version} servers, every {options.every:g} s, {loop}"
    return Table(title, ("", "figure"), rows)


def _within(options: argparse.Namespace, found: Facts) -> list[float]:
    began = min(at for *_, at in found["requests"])
    return [at for *_, at in found["requests"] if at < began + options.seconds]


def histogram(options: argparse.Namespace, found: Facts) -> str:
    """Requests by their place in the interval, summed over the time."""
    places = Counter(int(at % options.every * 10 / options.every) for at in _within(options, found))
    most = max(places.values())
    lines = ["Requests by tenth of the interval"]
    for place in range(10):
        count = places[place]
        lines.append(f"{place / 10:.1f}  {count:6,}  {'#' * round(count / most * _BAR)}")
    each = Counter(int(at) for at in _within(options, found))
    ordered = sorted(each[second] for second in range(min(each) + 1, max(each)))
    lines.append(
        f"in a second: {ordered[0]} at least, {median(ordered):g} in the median, {ordered[-1]} at most"
    )
    return "\n".join([*lines, ""])


def main() -> None:
    """Measure and print, or be one of the two that are measured."""
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--servers", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--every", type=float, default=10.0, help="seconds from poll to poll")
    parser.add_argument("--rate", type=float, default=20.0, help="changes a second, in all")
    parser.add_argument("--version", action="append", help="API version; default: v4 (lists), v8 (feed)")
    parser.add_argument("--uvloop", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--role", choices=("serve", "watch"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    raise_file_limit()
    versions: list[str] = options.version or ["v4", "v8"]
    if options.role:
        options.version = versions[0]
        factory = None
        if options.uvloop:
            import uvloop  # where it was asked for

            factory = uvloop.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(_serve(options) if options.role == "serve" else _watch(options))
        return
    print(f"{machine()}, Python {sys.version.split()[0]}\n")
    for version in versions:
        options.version = version
        found = measure(options)
        print(figures(options, found).text(), flush=True)
        print(histogram(options, found), flush=True)


if __name__ == "__main__":
    main()
