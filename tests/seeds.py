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
from uuid import UUID

from attrs import evolve, frozen

from aiovbo import Change, Fleet, MemoryCheckpoint, Password, Server, ServerCheckpoint, Watch
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
OF_FEEDS = (
    "late-rows", "earlier-rows", "feed-early", *(one for one in QUIRK_NAMES if one.startswith("feed-")),
)  # fmt: skip
"""Quirks that matter where there is a change feed."""
MEMBERS = ("reason", "details", "name", "organization", "initiated_by", "result")
WIDTH, MOST_LINES = 300, 5
"""Of what is printed of a seed that failed."""
LONGEST = 4 * 3600.0
"""Virtual seconds after which a watch must have seen everything, once nothing goes wrong any more."""
SOON = 180.0
"""Virtual seconds after which it must have seen what is new."""


class Disk(MemoryCheckpoint):
    """A checkpoint of which a crash leaves what was saved until then; each save takes a moment."""

    def __init__(self, random: Random) -> None:
        super().__init__()
        self._random = random

    def after_crash(self) -> "Disk":
        """What the next process finds."""
        left = Disk(self._random)
        left._places = dict(self._places)
        return left

    async def save(self, server: str, *rest: Any) -> None:
        """Save it after a moment, and return after another; also where it is cancelled, now and then."""
        try:
            await self._moment()
        except asyncio.CancelledError:
            if self._random.random() < 0.5:
                await super().save(server, *rest)
            raise
        await super().save(server, *rest)
        await self._moment()

    async def _moment(self) -> None:
        for _ in range(self._random.choice((0, 0, 1, 4))):
            await asyncio.sleep(0)


@frozen
class Outcome:
    """What became of one seed."""

    story: tuple[str, ...]
    """What was picked, and what happened."""
    problems: tuple[str, ...]
    """What was lost, wrong, late or duplicated."""
    effects: Counter[str]
    """How often each quirk took effect."""
    requests: int
    changes: int


class History:
    """One seed: a server or two, a watch of them, and a consumer."""

    def __init__(self, seed: int) -> None:
        self.clocks_were_wrong = False
        """Whether both clocks ever were."""
        self.forgotten = set[str]()
        """Sessions that may be forgotten: after both clocks were wrong, or as they are too old."""
        self.returned = set[tuple[str, UUID]]()
        """Servers and sessions that were removed, and came back when they were too old to be remembered."""
        self.story: list[str] = []
        self.held: list[Change] = []
        """Delivered by the watch that runs, and not acknowledged."""
        self.delivered = 0
        self.is_settling = False
        self.old = dict[World, UUID]()
        """An open session of each server that appeared late."""
        self.news = asyncio.Event()
        """Set by each delivery."""
        self.random = random = Random(seed)  # noqa: S311  # it is to be repeatable
        self.clock = SimClock(NOW, seed=seed)
        self.full = timedelta(minutes=random.choice((4, 4, 15)))
        self.may_swap = random.random() < 0.15
        self.backups = {"vbo": self._backup(seed, "vbo")}
        if self.may_swap or random.random() < 0.15:
            self.backups["other"] = self._backup(seed + 1_000_000, "other")
        self.hosts = {name: name for name in self.backups}
        """The host that each name of a server stands for."""
        self.servers = dict(self.backups)
        """Those that can be reached, by host."""
        self.remember = random.choice((timedelta(days=30), timedelta(days=30), timedelta(hours=12)))
        # Less: by the clocks that are wrong, more may be old.
        remember = self.remember - timedelta(hours=3)
        self.oracle = WatchOracle(self.backups, since=NOW - ALWAYS, remember=remember)
        self.disk = Disk(random)
        self.is_by_hand = random.random() < 0.7
        self.is_late = self.is_by_hand and random.random() < 0.4
        """Whether a change is stored when it is acknowledged, not when it is delivered."""
        self.snapshots = {name: backup.world.snapshot() for name, backup in self.backups.items()}
        acknowledges = "late" if self.is_late else "by hand" if self.is_by_hand else "by itself"
        self.story.append(f"acknowledges {acknowledges}")

    def _backup(self, seed: int, name: str) -> BackupServer:
        random = self.random
        # A server that does not report its installation cannot be recognized under another name.
        version: Any = random.choice(VERSIONS[2:] if self.may_swap else VERSIONS)
        # Only one API version is no upgrade.
        is_steady = self.may_swap or version == "v4"
        fitting = [one for one in QUIRK_NAMES if not is_steady or one not in ("upgraded", "downgraded")]
        names = random.sample(fitting, random.choice((0, 1, 1, 2, 3)))
        if version == "v8" and random.random() < 0.5:
            names.append(random.choice(OF_FEEDS))
        if version == "v6" and not is_steady and random.random() < 0.5:
            # It has members that the version before does not have.
            names.append(random.choice(("upgraded", "downgraded")))
        self.story.append(f"{version}, {', '.join(names) or 'no quirk'}")
        world = World(
            seed,
            sessions=random.choice((0, 1, 3, 6, 12)),
            span=timedelta(hours=random.choice((1, 6, 100))),
            clock=self.clock,
        )
        return BackupServer(
            world,
            version=version,
            quirks=_quirks(names, random),
            page_limit_max=random.choice((3, 5, 10_000)),
            list_shape=random.choice(("page", "page", "array")),
            name=name,
        )

    @property
    def backup(self) -> BackupServer:
        """One of the servers."""
        return self.random.choice(list(self.backups.values()))

    # -------------------------------------------------------------------------------- the process

    def server(self, name: str) -> Server:
        """The server that has this name now."""
        backup = self.backups[self.hosts[name]]
        return Server(f"https://{self.hosts[name]}", Password(backup.username, backup.password), name=name)

    async def start(self) -> None:
        """A new process goes on where the last one was."""
        transport = MemoryTransport(self.servers)
        self.fleet = Fleet(
            [self.server(name) for name in self.hosts],
            transport=transport,
            clock=self.clock,
            retries=self.random.choice((0, 2)),
        )
        self.watch: Watch = self.fleet.watch(
            every=EVERY,
            full_look_every=self.full,
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
                self.store(change)
            self.held.append(change)
            self.delivered += 1
            self.news.set()
            if random.random() < 0.2 and not self.is_settling:
                await self.clock.sleep(random.choice((0.5, 20, 200)))

    def store(self, change: Change) -> None:
        """Store it under the server that has the session, whatever it is called."""
        key = getattr(change, "session_id", None) or getattr(getattr(change, "session", None), "id", None)
        for name in self.backups if key is not None else ():
            if key in self.oracle._servers[name].sessions:
                self.oracle.deliver(evolve(change, server=name))
                return
        self.oracle.deliver(change)

    def acknowledge(self, changes: Iterable[Change]) -> None:
        """The consumer acknowledges these; one that stores late, those of each session in their order."""
        order: dict[object, list[Change]] = {}
        for change in self.held if self.is_late else ():
            order.setdefault(_subject(change), []).append(change)
        for one in list(changes):
            change = order[_subject(one)].pop(0) if self.is_late else one
            if self.is_late:
                self.store(change)
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
        random = self.random
        looks = [status.next_look for status in self.watch.status().values()]
        if (look := random.choice(looks)) is not None and random.random() < 0.7:
            await self.clock.sleep((look - self.clock.now()).total_seconds())
        for _ in range(random.choice((0, 1, 5, 20, 50))):
            await asyncio.sleep(0)
        await self.dies()
        if random.random() < 0.5:
            self.happens()
        await self.start()

    async def crashes_with_news(self) -> None:
        """The process dies when a change was delivered just now, of a session that is gone a moment later."""
        self.happens("comes")
        self.news.clear()
        await self.clock.wait(self.news, 90)
        session = self.held[-1] if self.held else None
        await self.dies()
        if (key := getattr(getattr(session, "session", None), "id", None)) is not None:
            for backup in self.backups.values():
                with suppress(KeyError):
                    backup.world.remove(key)
        await self.start()

    async def dies(self) -> None:
        """Nothing is left of the process but what its disk has."""
        left = self.disk.after_crash()
        await _cancel(self.consumer)
        await self.fleet.aclose()
        self.disk = left
        self.held.clear()
        self.oracle.restart(crashed=True)

    async def is_replaced(self) -> None:
        """A server is removed from the fleet, and added again at once or later."""
        name = self.random.choice(list(self.hosts))
        self.fleet.remove(name)
        await self.pass_time(self.random.choice((0.0, 0.0, 1.0, 100.0)))
        self.fleet.add(self.server(name))

    async def swaps_names(self) -> None:
        """Two servers get each other's names, while they are watched or in between."""
        if not self.may_swap:
            return
        # An installation that was never identified has no checkpoint that could follow it.
        if any(place.installation is None for place in await self._places()):
            return
        self.story.append("and they do")
        is_running = self.random.random() < 0.5
        if not is_running:
            await self.dies()
        else:
            for name in self.hosts:
                self.fleet.remove(name)
        one, other = self.hosts
        self.hosts = {one: self.hosts[other], other: self.hosts[one]}
        if not is_running:
            await self.start()
        else:
            for name in self.hosts:
                self.fleet.add(self.server(name))

    async def _places(self) -> list[ServerCheckpoint]:
        return [await self.disk.load(name) or ServerCheckpoint() for name in self.hosts]

    # ------------------------------------------------------------------------------ what happens

    def one(self, world: World, wanted: Callable[[WorldSession], object] = lambda _: True) -> UUID | None:
        """One of a server's sessions."""
        found = [one for one in world.sessions if wanted(one)]
        return self.random.choice(found).id if found else None

    def happens(self, kind: str = "") -> None:
        """A session comes, changes, ends or goes."""
        world, random = self.backup.world, self.random
        kind = kind or random.choice(
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
        elif kind == "changes" and (key := self.one(world)):
            world.change(key, **{random.choice(MEMBERS): f"R{random.random()}"})  # type: ignore[misc]  # texts
        elif kind == "etag" and (key := self.one(world)):
            world.change(key)
        elif kind == "ends" and (key := self.one(world, lambda it: it.end_ticks is None)):
            world.change(key, state="Stopped", result="Failed", end_time=world.now)
        elif kind == "goes" and (key := self.one(world)):
            world.remove(key)

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
        """A server is unreachable until time has passed."""
        self.servers.pop(self.random.choice(list(self.backups)), None)

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
        """A server goes back to the state that it began with."""
        name = self.random.choice(list(self.backups))
        # After clocks were wrong, the watch may have forgotten what is later than the time of the snapshot.
        if not self.clocks_were_wrong:
            world = self.backups[name].world
            # What is too old to be remembered may be forgotten: that the server loses it is not noticed then.
            newest = max((one.creation_time for one in world.sessions), default=world.now)
            limit = min(newest, world.now) - self.remember
            ended = [one for one in world.sessions if one.end_ticks is not None]
            self.forgotten |= {str(one.id) for one in ended if one.creation_time < limit}
            world.restore(self.snapshots[name])

    async def is_restored_later(self) -> None:
        """A session that ended long ago is removed, and comes back when the server is restored."""
        world = self.backup.world
        ended = [one for one in world.sessions if one.end_ticks is not None]
        snapshot = world.snapshot()
        if ended:
            world.remove(min(ended, key=lambda one: one.creation_ticks).id)
        await self.pass_time(self.full.total_seconds() * self.random.choice((0.5, 2.5)))
        world.restore(snapshot)

    async def returns_when_old(self) -> None:
        """A session is removed just before it is too old to be remembered, and comes back after that."""
        if self.remember > timedelta(days=1):
            return
        name = self.random.choice(list(self.backups))
        world, full = self.backups[name].world, self.full.total_seconds() * 1.1
        created = world.now - self.remember + timedelta(seconds=2 * full + 60)
        gone = world.add(creation_time=created, state="Stopped", end_time=created)
        await self.pass_time(full)
        with suppress(KeyError):
            world.remove(gone.id)
        await self.pass_time(full + 120)
        self.acknowledge_all()
        for _ in range(2):
            world.add(creation_time=world.now, state="Stopped", end_time=world.now)
            await self.pass_time(full)
            self.acknowledge_all()
        its = self.oracle._servers[name].sessions.get(gone.id)
        with suppress(ValueError):
            world.add(id=gone.id, creation_time=created, state="Stopped", end_time=created)
            if its is not None and its.was_added and its.stored is None:
                self.story.append("and it does")
                self.returned.add((name, gone.id))

    async def are_missing(self) -> list[str]:
        """Sessions that came back, and were not reported; what is that old is read a few rows at a time."""
        ends = self.clock.monotonic() + LONGEST
        while (missing := self._not_returned()) and self.clock.monotonic() < ends:
            await self.pass_time(self.full.total_seconds() * 1.1)
            self.acknowledge_all()
        return missing

    def _not_returned(self) -> list[str]:
        return [
            f"lost: {name}: session {key} came back"
            for name, key in self.returned
            if any(one.id == key for one in self.backups[name].listed)
            and self.oracle._servers[name].sessions[key].stored is None
            and str(key) not in self.forgotten
        ]

    async def is_dated_wrongly(self) -> None:
        """Both clocks are wrong for a while: what has ended by then may be forgotten or repeated.

        Not where a server's clock goes back besides: what ends there afterwards is dated before what was
        forgotten, and looks like it.
        """
        if any(backup.quirks.clock_jump < timedelta() for backup in self.backups.values()):
            return
        worlds, days = (
            [one.world for one in self.backups.values()],
            timedelta(days=self.random.choice((60, -40))),
        )
        self.clock.set_wall(days)
        for world in worlds:
            world.add(creation_time=world.now + days, state="Stopped", end_time=world.now + days)
        self.oracle.restart(crashed=True)
        self.clocks_were_wrong = True
        self._forget_ended(worlds)
        await self.pass_time(self.random.choice((70, 1500)))
        # A server may have been restored meanwhile.
        self._forget_ended(worlds)
        self.set_clock_right()
        self.oracle.restart(crashed=True)

    def _forget_ended(self, worlds: Iterable[World]) -> None:
        """Note that what has ended may be forgotten, or repeated."""
        for world in worlds:
            self.forgotten |= {str(one.id) for one in world.sessions if one.end_ticks is not None}

    def is_dated_ahead(self) -> None:
        """A session of the far future appears, as by a server whose clock is wrong for a moment."""
        world = self.backup.world
        moment = world.now + timedelta(days=60)
        world.add(creation_time=moment, state="Stopped", end_time=moment)

    def set_clock_right(self) -> None:
        """The wall clock shows the time that has passed since the start."""
        self.clock.set_wall(NOW + timedelta(seconds=self.clock.monotonic()) - self.clock.now())

    async def pass_time(self, seconds: float) -> None:
        """Time passes; all servers are reachable again."""
        await self.clock.sleep(seconds)
        self.servers |= self.backups
        if self.consumer.done():
            self.consumer.result()

    async def settle(self) -> list[str]:
        """Nothing goes wrong any more: the watch has to see everything, and what is new soon."""
        self.is_settling = True
        for backup in self.backups.values():
            backup.heal()
            # Else each poll adds sessions, and there is no end; and nothing is restored in the last moment.
            oddities = backup._api.oddities
            oddities.quirks = evolve(oddities.quirks, moving_rows=False, restored_after=None)
            # Perhaps older than all that is remembered.
            world = backup.world
            self.old[world] = world.add(creation_time=world.now - timedelta(hours=50), end_time=None).id
        ends = self.clock.monotonic() + LONGEST
        right, before, lost = 0, set[str](), set[str]()
        while right < 2 and self.clock.monotonic() < ends:
            self.acknowledge_all()
            await self.pass_time(self.full.total_seconds() * 1.1)
            report = self.oracle.report()
            now = set(self.without_forgotten(report.lost))
            now |= {f"{name} is reported as unreachable" for name in report.unreachable}
            # What happened since the last poll is not lost yet.
            right, before, lost = 0 if now & before else right + 1, now, now & before
        return [f"lost: {one}" for one in sorted(lost)] or await self.are_missing() or await self.has_news()

    def acknowledge_all(self) -> None:
        """The consumer acknowledges all that it holds, in any order."""
        if self.is_by_hand:
            self.acknowledge(self.random.sample(self.held, len(self.held)))

    async def has_news(self) -> list[str]:
        """What is new on each server, and was not reported within a few polls."""
        worlds = [one.world for one in self.backups.values() if _is_prompt(one)]
        look = self.random.choice(list(self.watch.status().values())).next_look
        if look is not None:
            # Most of it happens just before a poll: rows may appear only after it.
            before = self.random.choice((1.0, 15.0))
            await self.pass_time((look - self.clock.now()).total_seconds() - before)
        opened, ended = [], list[UUID]()
        for world in worlds:
            opened.append(world.add(end_time=None).id)
            # What the watch forgot while clocks were wrong may have been later than that.
            then = world.now - timedelta(minutes=self.random.choice((0, 20)) * (not self.clocks_were_wrong))
            ended.append(world.add(creation_time=then, state="Stopped", end_time=world.now).id)
        for backup in self.backups.values():
            is_read = _has_feed(backup) and backup.requests[-1].path.endswith("/Events")
            if (
                is_read
                and _is_prompt(backup)
                and self.remember > timedelta(days=1)
                and self.random.random() < 0.5
            ):
                # What an event reports is not found yet.
                backup.fail(Fault.status(404), on="RestoreSessions/*")
        late = await self._late(opened + ended)
        for backup in self.backups.values():
            backup.heal()
        followed = opened + [self.old[world] for world in worlds]
        for world, key in zip(worlds * 2, followed, strict=True):
            world.change(key, state="Stopped", result="Failed", end_time=world.now)
        if self.random.random() < 0.5:
            for backup in self.backups.values():
                backup.forget_events()
        late += await self._late(followed)
        for world, key in zip(worlds, opened, strict=True):
            world.remove(key)
        return late + await self._late(opened)

    async def _late(self, keys: Iterable[UUID]) -> list[str]:
        ends = self.clock.monotonic() + SOON
        while self.clock.monotonic() < ends:
            await self.pass_time(15)
            self.acknowledge_all()
        lost = self.oracle.report().lost
        return [f"late: {one}" for one in lost if any(str(key) in one for key in keys)]

    async def run(self) -> Outcome:
        """The whole history."""
        await self.start()
        try:
            steps = self.random.randint(3, 12)
            for step in range(steps):
                await (self.swaps_names() if self.may_swap and step == steps // 2 else self.act())
                await self.pass_time(self.random.choice((0.0, 1.0, 30.0, 70.0, 400.0)))
            lost = await self.settle()
        finally:
            await _cancel(self.consumer)
            await self.fleet.aclose()
        report = self.oracle.report()
        problems = [
            *lost,
            *(f"wrong: {one}" for one in self.without_forgotten(report.wrong)),
            *(f"duplicated: {one}" for one in self.without_forgotten(report.duplicated)),
        ]
        effects = Counter[str]()
        for backup in self.backups.values():
            effects += Counter(dict(backup.quirk_effects))
        requests = sum(len(backup.requests) for backup in self.backups.values())
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
    "is_dated_ahead": 0.5,
    "is_restored": 0.3,
    "is_restored_later": 1.0,
    "returns_when_old": 1.0,
    "crashes_with_news": 1.5,
    "is_replaced": 1.5,
}
"""Methods of a `History`, each with how likely it is."""


def _subject(change: Change) -> object:
    """The session that a change is about; its server where it is about none."""
    return getattr(change, "session_id", None) or getattr(
        getattr(change, "session", None), "id", change.server
    )


def _is_prompt(backup: BackupServer) -> bool:
    """Whether what is new can be seen in a list of the last hour, or in the feed."""
    quirks = backup.quirks
    return quirks.feed not in ("skips", "delays") and not quirks.clock_jump and not quirks.list_cap


def _has_feed(backup: BackupServer) -> bool:
    """Whether a server has a change feed that works, and a client always knows of it."""
    quirks = backup.quirks
    is_steady = quirks.upgraded_after is None and quirks.downgraded_after is None
    return is_steady and backup.versions[-1] == "v8" and quirks.feed in (None, "repeats", "immediate")


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
