"""Random histories of a watched server, in virtual time: `python tests/seeds.py --seeds 2000 --first 1`.

Each seed picks an API version, quirks, what happens on the server and on the way to it, and where the
watching process crashes or restarts. The consumer stores each change when it is delivered, in a database
that survives, and acknowledges in any order. At the end, what it has must be what the server has: a
WatchOracle compares them.

It prints how often each quirk took effect, and each seed that failed; its status is 1 if any did.
"""

import argparse
import asyncio
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from attrs import evolve, frozen

from aiovbo import Change, Fleet, MemoryCheckpoint, Password, Server, Watch
from aiovbo.testing import (
    QUIRK_NAMES,
    BackupServer,
    Fault,
    MemoryTransport,
    Quirks,
    SimClock,
    WatchOracle,
    World,
    WorldSession,
)

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
EVERY = timedelta(minutes=1)
FULL = timedelta(minutes=4)
ALWAYS = timedelta(days=4000)
VERSIONS = ("v4", "v5", "v6", "v7", "v8", "v8")
FAULTS = (
    Fault.status(503),
    Fault.status(500),
    Fault.status(429, headers={"Retry-After": "1"}),
    Fault.drop(),
    Fault.drop(reset=True),
    Fault.empty(),
    Fault.body(b"[{"),
    Fault.cut(300),
    Fault.delay(20),
)
PLACES = (None, "RestoreSessions", "RestoreSessions/*", "Events", "token")
MEMBERS = ("reason", "details", "name", "organization", "initiated_by", "result")
WIDTH, MOST_LINES = 300, 5
"""Of what is printed of a seed that failed."""
LONGEST = 4 * 3600.0
"""Virtual seconds after which a watch must have seen everything, once nothing goes wrong any more."""


class Disk(MemoryCheckpoint):
    """A checkpoint of which a crash leaves what was saved until then."""

    def after_crash(self) -> "Disk":
        """What the next process finds."""
        left = Disk()
        left._places = dict(self._places)
        return left


@frozen
class Outcome:
    """What became of one seed."""

    story: tuple[str, ...]
    """What was picked, and what happened."""
    problems: tuple[str, ...]
    """What was lost, wrong or duplicated."""
    effects: Counter[str]
    """How often each quirk took effect."""
    requests: int
    changes: int


class History:
    """One seed: a server, a watch of it, and a consumer."""

    def __init__(self, seed: int) -> None:
        self.forgotten = set[str]()
        """Sessions that may be forgotten, after both clocks were wrong."""
        self.story: list[str] = []
        self.held: list[Change] = []
        """Delivered by the watch that runs, and not acknowledged."""
        self.delivered = 0
        self.random = random = Random(seed)  # noqa: S311  # it is to be repeatable
        self.clock = clock = SimClock(NOW, seed=seed)
        version: Any = random.choice(VERSIONS)
        # Only one API version is no upgrade.
        fitting = [one for one in QUIRK_NAMES if version != "v4" or one not in ("upgraded", "downgraded")]
        names = random.sample(fitting, random.choice((0, 1, 1, 2, 3)))
        self.quirks = _quirks(names, random)
        world = World(
            seed,
            sessions=random.randrange(6),
            span=timedelta(hours=random.choice((1, 6, 100))),
            clock=clock,
        )
        self.backup = BackupServer(
            world,
            version=version,
            quirks=self.quirks,
            page_limit_max=random.choice((5, 10_000)),
            list_shape=random.choice(("page", "page", "array")),
        )
        self.servers = {"vbo": self.backup}
        self.remember = random.choice((timedelta(days=30), timedelta(days=30), timedelta(hours=12)))
        # Less: by the clocks that are wrong, more may be old.
        remember = self.remember - timedelta(hours=3)
        self.oracle = WatchOracle(self.servers, since=NOW - ALWAYS, remember=remember)
        self.disk = Disk()
        self.is_by_hand = random.random() < 0.7
        self.is_late = self.is_by_hand and random.random() < 0.4
        """Whether a change is stored when it is acknowledged, not when it is delivered."""
        self.snapshot = world.snapshot()
        acknowledges = "late" if self.is_late else "by hand" if self.is_by_hand else "by itself"
        self.story.append(f"{version}, {', '.join(names) or 'no quirk'}, acknowledges {acknowledges}")

    # -------------------------------------------------------------------------------- the process

    async def start(self) -> None:
        """A new process goes on where the last one was."""
        password = Password(self.backup.username, self.backup.password)
        server = Server("vbo", password)
        transport = MemoryTransport(self.servers)
        self.fleet = Fleet(
            [server], transport=transport, clock=self.clock, retries=self.random.choice((0, 2))
        )
        self.watch: Watch = self.fleet.watch(
            every=EVERY,
            full_look_every=FULL,
            since=ALWAYS,
            remember=self.remember,
            checkpoint=self.disk,
            ack="manual" if self.is_by_hand else "auto",
        )
        await self.watch.__aenter__()
        self.consumer = asyncio.create_task(self.consume())

    async def consume(self) -> None:
        """Store each change as it is delivered; slow now and then."""
        random = Random(self.random.random())  # noqa: S311  # the same
        async for change in self.watch:
            if not self.is_late:
                self.oracle.deliver(change)
            self.held.append(change)
            self.delivered += 1
            if random.random() < 0.2:
                await self.clock.sleep(random.choice((0.5, 20, 200)))

    def acknowledge(self, changes: Iterable[Change]) -> None:
        """The consumer acknowledges these; one that stores late, those of each session in their order."""
        order: dict[object, list[Change]] = {}
        for change in self.held if self.is_late else ():
            order.setdefault(_subject(change), []).append(change)
        for one in list(changes):
            change = order[_subject(one)].pop(0) if self.is_late else one
            if self.is_late:
                self.oracle.deliver(change)
            self.watch.ack(change)
            self.held.remove(change)

    async def restarts(self) -> None:
        """The process ends in good order."""
        await _cancel(self.consumer)
        await self.fleet.aclose()
        self.held.clear()
        self.oracle.restart()
        await self.start()

    async def crashes(self) -> None:
        """The process dies in the midst of what it does."""
        look = self.watch.status()["vbo"].next_look
        if look is not None and self.random.random() < 0.7:
            await self.clock.sleep((look - self.clock.now()).total_seconds())
        for _ in range(self.random.choice((0, 1, 5, 20, 50))):
            await asyncio.sleep(0)
        left = self.disk.after_crash()
        await _cancel(self.consumer)
        await self.fleet.aclose()
        self.disk = left
        self.held.clear()
        self.oracle.restart(crashed=True)
        if self.random.random() < 0.5:
            self.happens()
        await self.start()

    # ------------------------------------------------------------------------------ what happens

    def one(self, wanted: Callable[[WorldSession], object] = lambda _: True) -> WorldSession | None:
        """One of the server's sessions."""
        found = [one for one in self.backup.world.sessions if wanted(one)]
        return self.random.choice(found) if found else None

    def happens(self) -> None:
        """A session comes, changes, ends or goes."""
        world, random = self.backup.world, self.random
        kind = random.choice(
            ("comes", "comes", "comes", "many", "late", "changes", "etag", "ends", "ends", "goes")
        )
        self.story.append(kind)
        if kind in ("comes", "many"):
            for _ in range(1 if kind == "comes" else random.choice((3, 12))):
                is_open = random.random() < 0.5
                if is_open:
                    world.add(end_time=None)
                else:
                    world.add(
                        creation_time=world.now - timedelta(minutes=5), state="Stopped", end_time=world.now
                    )
        elif kind == "late":
            world.add(
                creation_time=world.now - timedelta(minutes=random.choice((2, 40, 3000))), end_time=None
            )
        elif kind == "changes" and (one := self.one()):
            world.change(one.id, **{random.choice(MEMBERS): f"R{random.random()}"})  # type: ignore[misc]  # texts
        elif kind == "etag" and (one := self.one()):
            world.change(one.id)
        elif kind == "ends" and (one := self.one(lambda it: it.end_ticks is None)):
            world.change(one.id, state="Stopped", result="Failed", end_time=world.now)
        elif kind == "goes" and (one := self.one()):
            world.remove(one.id)

    async def act(self) -> None:
        """One step of the history."""
        (step,) = self.random.choices(list(STEPS), list(STEPS.values()))
        self.story.append(step)
        work = getattr(self, step)()
        if work is not None:
            await work

    def goes_wrong(self) -> None:
        """Something goes wrong with one of the next requests."""
        random = self.random
        fault, place = random.choice(FAULTS), random.choice(PLACES)
        self.backup.fail(fault, on=place, times=random.randint(1, 3), after=random.randrange(3))

    def leaves(self) -> None:
        """The server is unreachable until time has passed."""
        self.servers.pop("vbo", None)

    def acknowledges(self) -> None:
        """The consumer acknowledges some of what it holds, in any order."""
        if self.is_by_hand:
            self.acknowledge(self.random.sample(self.held, self.random.randint(0, len(self.held))))

    def revokes_tokens(self) -> None:
        """Every login is void."""
        self.backup.revoke_tokens()

    def forgets_events(self) -> None:
        """Every change token is outdated."""
        self.backup.forget_events()

    def is_restored(self) -> None:
        """The server goes back to the state that it began with."""
        self.backup.world.restore(self.snapshot)

    async def is_dated_wrongly(self) -> None:
        """Both clocks are wrong for a while: what has ended by then may be forgotten or repeated."""
        world, days = self.backup.world, timedelta(days=self.random.choice((60, -40)))
        self.clock.set_wall(days)
        world.add(creation_time=world.now + days, state="Stopped", end_time=world.now + days)
        self.oracle.restart(crashed=True)
        await self.pass_time(self.random.choice((70, 1500)))
        self.forgotten |= {str(one.id) for one in world.sessions if one.end_ticks is not None}
        self.set_clock_right()
        self.oracle.restart(crashed=True)

    def set_clock_right(self) -> None:
        """The wall clock shows the time that has passed since the start."""
        self.clock.set_wall(NOW + timedelta(seconds=self.clock.monotonic()) - self.clock.now())

    async def pass_time(self, seconds: float) -> None:
        """Time passes; the server is reachable again."""
        await self.clock.sleep(seconds)
        self.servers.setdefault("vbo", self.backup)
        if self.consumer.done():
            self.consumer.result()

    async def settle(self) -> None:
        """Nothing goes wrong any more: the watch has to see everything."""
        self.backup.heal()
        # Else each poll adds sessions, and there is no end; and nothing is restored in the last moment.
        self.backup._api.oddities.quirks = evolve(self.quirks, moving_rows=False, restored_after=None)
        began = self.clock.monotonic()
        quiet = 0
        while quiet < 2 and self.clock.monotonic() < began + LONGEST:
            before = self.delivered
            if self.is_by_hand:
                self.acknowledge(self.random.sample(self.held, len(self.held)))
            await self.pass_time(FULL.total_seconds() * 1.1)
            report = self.oracle.report()
            is_right = not self.without_forgotten(report.lost) and not report.unreachable
            quiet = quiet + 1 if is_right and self.delivered == before else 0

    async def run(self) -> Outcome:
        """The whole history."""
        await self.start()
        try:
            for _ in range(self.random.randint(3, 12)):
                await self.act()
                await self.pass_time(self.random.choice((0.0, 1.0, 30.0, 70.0, 400.0)))
            await self.settle()
        finally:
            await _cancel(self.consumer)
            await self.fleet.aclose()
        report = self.oracle.report()
        problems = [
            *(f"lost: {one}" for one in self.without_forgotten(report.lost)),
            *(f"lost: {one} is reported as unreachable" for one in report.unreachable),
            *(f"wrong: {one}" for one in self.without_forgotten(report.wrong)),
            *(f"duplicated: {one}" for one in report.duplicated),
        ]
        effects = Counter(dict(self.backup.quirk_effects))
        requests = len(self.backup.requests)
        return Outcome(tuple(self.story), tuple(problems), effects, requests, self.delivered)

    def without_forgotten(self, lost: Iterable[str]) -> list[str]:
        """Findings, without those of sessions that may be forgotten, or repeated."""
        return [one for one in lost if not any(key in one for key in self.forgotten)]


STEPS = {
    "happens": 10.0,
    "goes_wrong": 3.0,
    "leaves": 1.0,
    "restarts": 2.0,
    "crashes": 3.0,
    "acknowledges": 4.0,
    "revokes_tokens": 1.0,
    "forgets_events": 1.0,
    "is_dated_wrongly": 0.3,
    "is_restored": 0.3,
}
"""Methods of a `History`, each with how likely it is."""


def _subject(change: Change) -> object:
    """The session that a change is about; its server where it is about none."""
    return getattr(change, "session_id", None) or getattr(
        getattr(change, "session", None), "id", change.server
    )


def _quirks(names: Iterable[str], random: Random) -> Quirks:
    """Those of these names; what happens after so many requests happens after another number."""
    found = Quirks.named(*names)
    after = {
        name: random.randint(2, 40)
        for name in ("upgraded_after", "downgraded_after", "restored_after")
        if getattr(found, name) is not None
    }
    return evolve(found, **after)


async def _cancel(task: "asyncio.Task[Any]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def run(seed: int) -> Outcome:
    """One history."""
    return asyncio.run(History(seed).run())


def main() -> None:
    """Run them, and say what was lost or wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=2000)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--until-failure", action="store_true", help="end with the first seed that fails")
    options = parser.parse_args()
    logging.disable()
    effects, failed, began = Counter[str](), 0, time.process_time()
    seeds = 0
    for seed in range(options.first, options.first + options.seeds):
        outcome = run(seed)
        seeds += 1
        effects += outcome.effects
        if outcome.problems:
            failed += 1
            lines = [f"  {line[:WIDTH]}" for line in outcome.problems[:MOST_LINES]]
            print(f"seed {seed}: {'; '.join(outcome.story)}", *lines, sep="\n", flush=True)
            if options.until_failure:
                break
    seconds = time.process_time() - began
    for name, count in sorted(effects.items()):
        print(f"{name:22}{count:8,}")
    print(f"{seeds} seeds, {failed} failed, {seeds * 60 / seconds:.0f} a minute of CPU")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
