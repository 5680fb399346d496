"""A machine that hypothesis drives: one server, one watch of it, and what its consumer must know.

The history is hypothesis' choice: sessions that come, move on, end, vanish and come back; rows that
appear late or are dated wrongly; clocks that jump; faults, restarts of the server, restarts and crashes
of the watch, before and after an ack, in the midst of a poll; acks in any order. Time passes only when a
rule says so.

After a crash, all that was not acknowledged is delivered again, in the same order and with the same IDs.
"""

import asyncio
import shutil
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar
from uuid import UUID

from aiohttp import web
from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    invariant,
    precondition,
    rule,
)

from aiovbo import (
    Change,
    Checkpoint,
    Fleet,
    Heartbeat,
    MemoryCheckpoint,
    Password,
    Recovered,
    Removed,
    Unreachable,
    Watch,
)
from aiovbo.testing import BackupServer, Fault, MemoryTransport, World
from aiovbo.testing._faults import Exchange
from aiovbo.testing._world import WorldSnapshot
from harness.server_history import ServerHistory
from harness.watch_ledger import NOW, OF_SERVER, Consumer, Ledger, Looks, StepClock, looks_of, session_of

ALWAYS = timedelta(days=4000)
FULL_LOOK = timedelta(hours=1)
MOST_WRONG = 3
"""How often the clocks are wrong in one history: each time costs several looks at everything."""
PATIENCE = 60
"""Seconds for which a machine that is busy may take for one step."""
FAULTS = (
    Fault.status(503),
    Fault.status(500),
    Fault.status(429, headers={"Retry-After": "1"}),
    Fault.drop(),
    Fault.drop(reset=True),
    Fault.empty(),
    Fault.body(b"[{"),
    Fault.cut(5),
    Fault.cut(300, reset=True),
)
PLACES = (None, "RestoreSessions", "RestoreSessions/*", "Events", "token")


class WatchMachine(ServerHistory):
    """One server, one watch of it, and the consumer's model of what there is."""

    version: ClassVar[Any]

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.directory = TemporaryDirectory()
        self.lives = 0
        self.acked: set[int] = set()
        self.keys: dict[str, tuple[type[Change], UUID, Looks | None]] = {}
        self.ids: dict[tuple[type[Change], UUID, Looks | None], str] = {}
        self.unannounced: set[UUID] = set()
        self.silent: set[UUID] = set()
        self.came_back: set[UUID] = set()
        self.old_too_early: set[UUID] = set()
        self.may_be_repeated = False
        self.wrong_times = 0
        self.snapshot: WorldSnapshot | None = None
        self.is_away = False
        self.is_up = True

    # ----------------------------------------------------------------------------- how it begins

    @initialize(
        kept_in_file=st.sampled_from([False, False, True]),
        by_hand=st.booleans(),
        remember=st.sampled_from([timedelta(days=2), timedelta(days=30)]),
        overlap=st.sampled_from([timedelta(), timedelta(hours=1)]),
        since=st.sampled_from([None, ALWAYS]),
        page=st.sampled_from([10, 10_000]),
        sessions=st.integers(0, 4),
    )
    def begin(
        self, kept_in_file: bool, by_hand: bool, remember: timedelta, overlap: timedelta,
        since: timedelta | None, page: int, sessions: int,
    ) -> None:  # fmt: skip
        """A server with a few sessions, and the first watch of it."""
        self.by_hand, self.remember = by_hand, remember
        self.options: dict[str, Any] = {
            "every": timedelta(milliseconds=500),
            "full_look_every": FULL_LOOK,
            "remember": remember,
            "overlap": overlap,
            "since": since,
            "heartbeat": timedelta(microseconds=1),
            "ack": "manual" if by_hand else "auto",
        }
        world = World(now=NOW, speed=0, sessions=0)
        self.backup = BackupServer(world, version=self.version, page_limit_max=page)
        self.servers = {"vbo": self.backup}
        self.clock = StepClock()
        self.store: MemoryCheckpoint | Path | None = None
        for number in range(sessions):
            ended = bool(number % 2)
            one = self.create(timedelta(hours=number), is_open=not ended)
            if ended and since is None:
                self.unannounced.add(one.id)
                self.silent.add(one.id)
        self.store = self.place() if kept_in_file else MemoryCheckpoint()
        self.start_watch()
        if since is None:
            # What has ended before the first poll is not delivered; so that it is clear what that is.
            self.look()
            self.look()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    def place(self) -> Path:
        self.lives += 1
        return Path(self.directory.name) / f"place{self.lives}.db"

    def start_watch(self) -> None:
        async def start() -> None:
            login = Password(self.backup.username, self.backup.password)
            transport = MemoryTransport(self.servers)
            self.fleet = Fleet(["vbo"], login, transport=transport, retries=0, clock=self.clock)  # type: ignore[arg-type]  # as good as one
            store = Checkpoint(self.store) if isinstance(self.store, Path) else self.store
            assert store is not None
            self.ledger = Ledger(store, self.delivered)
            self.changes: Watch = self.fleet.watch(checkpoint=self.ledger, **self.options)
            await self.changes.__aenter__()
            await self.until_it_waits()

        self.is_away = False
        self.run(asyncio.wait_for(start(), PATIENCE))

    # ------------------------------------------------------------------------ what the server does

    @precondition(lambda self: not self.is_away)
    @rule(index=st.integers(0, 99))
    def one_vanishes_and_comes_back(self, index: int) -> None:
        """Each is delivered; what comes back as it was before is no repetition."""
        if (one := self.one_of(index)) is None:
            return
        self.world.remove(one.id)
        self.settle()
        self.world.add(
            id=one.id,
            state=one.state,
            creation_time=one.creation_time,
            end_time=one.end_time,
            result=one.result,
        )
        self.came_back.add(one.id)
        self.silent.discard(one.id)
        self.too_late.discard(one.id)
        self.appeared(one)

    @rule(hours=st.sampled_from([1, 30, 70, 1000]))
    def time_goes_by(self, hours: float) -> None:
        """The same everywhere, whatever the clocks show."""
        self.world.advance(timedelta(hours=hours))
        self.clock.elapsed += hours * 3600

    @rule()
    def a_backup_of_the_server_is_made(self) -> None:
        self.snapshot = self.world.snapshot()

    @precondition(lambda self: self.snapshot is not None and not self.is_away)
    @rule(is_set_right=st.booleans())
    def the_server_is_restored_from_a_backup_of_itself(self, is_set_right: bool) -> None:
        """All is delivered before: after a crash, it could not be known what there had been."""
        assert self.snapshot is not None
        self.settle()
        before = self.world.now
        self.world.restore(self.snapshot)
        if is_set_right:
            self.world.advance(before - self.world.now)
        self.may_be_repeated = True
        there = {one.id for one in self.world.sessions}
        self.came_back |= there
        # What had been forgotten stays so, unless many sessions vanish.
        self.too_late |= {key for key in there if self.created[key] < self.limit}

    @precondition(lambda self: not self.is_away and self.wrong_times < MOST_WRONG)
    @rule(days=st.sampled_from([60, -40]), is_open=st.booleans(), looks=st.integers(1, 3))
    def both_clocks_are_wrong_for_a_while(self, days: int, is_open: bool, looks: int) -> None:
        """As on one hypervisor: what is there may be forgotten early or repeated; nothing later is hidden."""
        self.wrong_times += 1
        self.clock.wrong = timedelta(days=days)
        self.may_be_repeated |= days < 0
        self.create(-self.clock.wrong, is_open=is_open)
        for _ in range(looks):
            self.look_at_everything()
            self.take(200)
        # What ended long ago by the wrong clock may be forgotten; some of it is yet to come by the right one.
        created = {one.id: one.creation_time for one in self.world.sessions}
        self.old_too_early |= {key for key, at in created.items() if at < self.limit}
        self.clock.wrong = timedelta()
        now = self.clock.now()
        self.forgotten_until = max([self.forgotten_until, *(at for at in created.values() if at <= now)])
        self.may_be_repeated |= any(created.get(key, now) > now for key in self.old_too_early)

    @rule(
        fault=st.sampled_from(FAULTS),
        on=st.sampled_from(PLACES),
        times=st.integers(1, 3),
        after=st.integers(0, 3),
    )
    def something_will_go_wrong(self, fault: Fault, on: str | None, times: int, after: int) -> None:
        self.backup.fail(fault, on=on, times=times, after=after)

    @rule()
    def tokens_are_revoked(self) -> None:
        self.backup.revoke_tokens()

    @rule()
    def events_are_forgotten(self) -> None:
        self.backup.forget_events()

    @rule(reboots=st.booleans())
    def the_server_goes_down(self, reboots: bool) -> None:
        """One that reboots is back at once, and knows no token any more."""
        self.servers.pop("vbo", None)
        self.is_away = True
        if reboots:
            self.backup.revoke_tokens()
            self.the_server_comes_back()

    @precondition(lambda self: self.is_away)
    @rule()
    def the_server_comes_back(self) -> None:
        self.servers["vbo"] = self.backup
        self.is_away = False

    # ------------------------------------------------------------------------- what the watch does

    @rule()
    def look(self) -> None:
        """One look, from its beginning until the lookout sleeps again, or until too much waits."""
        if self.clock.due is not None:
            self.time_goes_by(max(0, self.clock.due - self.clock.elapsed) / 3600)

        async def until_it_sleeps() -> None:
            if self.clock.due is not None:
                self.clock.wake()
                while self.clock.due is not None:
                    await asyncio.sleep(0)
            await self.until_it_waits()

        self.run(asyncio.wait_for(until_it_sleeps(), PATIENCE))

    async def until_it_waits(self) -> None:
        """Until the lookout sleeps, or waits for the consumer."""
        while not self.clock.idle.is_set() and self.changes.status()["vbo"].backlog < 98:
            with suppress(TimeoutError):
                async with asyncio.timeout(0.02):
                    await self.clock.idle.wait()

    @rule()
    def look_at_everything(self) -> None:
        self.time_goes_by(FULL_LOOK.total_seconds() * 1.2 / 3600)
        self.look()

    @precondition(lambda self: not self.is_away)
    @rule(
        kinds=st.permutations(["comes", "late", "together", "ends", "vanishes"]),
        is_open=st.booleans(),
        forgets=st.booleans(),
    )
    def what_happens_is_reported_by_the_next_look(
        self, kinds: list[str], is_open: bool, forgets: bool
    ) -> None:
        """Where nothing goes wrong and the clock is right: by any look, not only one at everything."""
        self.settle()
        if abs(self.clock.now() - self.world.now) > timedelta(minutes=10):
            return
        for kind in kinds:
            before = len(self.delivered)
            if not self.happens(kind, is_open=is_open):
                continue
            if forgets:
                self.backup.forget_events()
            self.look()
            self.take(200)
            assert len(self.delivered) > before, f"not delivered by the next poll: one {kind}"

    @precondition(lambda self: not self.is_away)
    @rule(kind=st.sampled_from(["comes", "ends"]), is_open=st.booleans())
    def what_happens_during_a_look_at_everything_is_reported_by_the_next(
        self, kind: str, is_open: bool
    ) -> None:
        """Right after the list was read: whatever follows it goes on from before."""
        self.settle()
        happened: list[bool] = []

        async def act(exchange: Exchange) -> web.StreamResponse:
            answer = exchange.answer()
            happened.append(self.happens(kind, is_open=is_open))
            return answer

        self.backup.fail(Fault("something happens", act), on="RestoreSessions", times=1)
        before = len(self.delivered)
        self.look_at_everything()
        self.take(200)
        self.look()
        self.take(200)
        self.backup.heal()
        assert len(self.delivered) > before or happened != [True], (
            f"not delivered by the poll after it: one {kind}"
        )

    def happens(self, kind: str, *, is_open: bool) -> bool:
        """Whether it could: a session comes, at its time or beside or before the newest; or one goes."""
        one = self.one_of(0, open_only=True)
        if kind == "comes":
            self.create(timedelta(), is_open=is_open)
        elif kind in ("late", "together"):
            dates = [there.creation_time for there in self.world.sessions]
            newest = max((date for date in dates if date <= self.world.now), default=None)
            if newest is None or (kind == "late" and not self.options["overlap"]):
                return False
            created = newest - timedelta(minutes=50 if kind == "late" else 0)
            if created < max(self.limit, self.forgotten_until):
                return False
            self.create(self.world.now - created, is_open=is_open)
        elif one is None:
            return False
        elif kind == "ends":
            self.the_oldest_finishes()
        else:
            self.world.remove(one.id)
        return True

    @rule(
        on=st.sampled_from(["RestoreSessions", "RestoreSessions/*", "Events"]),
        after=st.integers(0, 3),
        kind=st.sampled_from(["comes", "late", "ends", "vanishes"]),
        index=st.integers(0, 99),
    )
    def something_will_happen_during_a_look(self, on: str, after: int, kind: str, index: int) -> None:
        """Right after one of its requests was answered."""

        async def act(exchange: Exchange) -> web.StreamResponse:
            answer = exchange.answer()
            if kind == "ends":
                self.one_finishes(index)
            elif kind == "vanishes":
                self.some_vanish(index, 1)
            else:
                self.create(timedelta(hours=30 if kind == "late" else 0), is_open=index % 2 == 0)
            return answer

        self.backup.fail(Fault(kind, act), on=on, after=after)

    @rule(count=st.sampled_from([1, 1, 2, 5, 200]))
    def take(self, count: int) -> None:
        """The consumer asks for the next change."""
        for _ in range(count):
            if not self.by_hand:
                self.acked = set(range(len(self.delivered)))
            change = self.run(anext(self.changes))
            if isinstance(change, Heartbeat):
                break
            if isinstance(change, Unreachable | Recovered):
                assert self.is_up is isinstance(change, Unreachable), f"delivered before: {change}"
                self.is_up = isinstance(change, Recovered)
            # After a wrong clock, it may be found again while its acknowledgement is saved.
            was_saved = any(self.delivered[number].id == change.id for number in self.ledger.saved)
            assert was_saved or change.id in self.ledger.pending.values(), (
                f"not saved before it was delivered: {change}"
            )
            self.delivered.append(change)
            self.hear(change)

    def hear(self, change: Change) -> None:
        """The same change has the same id, in whatever life it is delivered, and no other change has it."""
        key = session_of(change)
        looks = None if isinstance(change, Removed | Unreachable | Recovered) else looks_of(change.session)  # type: ignore[attr-defined]  # has
        what = type(change), key, looks
        assert self.keys.setdefault(change.id, what) == what, f"another change had this id: {change}"
        if key not in self.came_back | {OF_SERVER} and not self.may_be_repeated:
            assert self.ids.setdefault(what, change.id) == change.id, f"this change had another id: {change}"

    @precondition(lambda self: self.by_hand and len(self.acked) < len(self.delivered))
    @rule(indexes=st.lists(st.integers(0, 99), min_size=1, max_size=5))
    def acknowledge(self, indexes: list[int]) -> None:
        """Some of them, in whatever order."""
        left = [number for number in range(len(self.delivered)) if number not in self.acked]
        self.run(self.acknowledge_these([left[index % len(left)] for index in indexes]))

    async def acknowledge_these(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self.changes.ack(self.delivered[number])
            self.acked.add(number)

    def to_be_saved(self) -> set[int]:
        """What was acknowledged, and all that was delivered of the same session before it."""
        held = set[UUID]()
        found = set[int]()
        for number, change in enumerate(self.delivered):
            if number not in self.acked:
                held.add(session_of(change))
            elif session_of(change) not in held:
                found.add(number)
        return found

    @invariant()
    def nothing_is_saved_before_it_was_dealt_with(self) -> None:
        """Whatever is saved was acknowledged."""
        if hasattr(self, "ledger"):
            assert self.ledger.saved <= self.to_be_saved(), "saved, although it was not acknowledged"

    # -------------------------------------------------------------------------------- how it ends

    @rule()
    def the_watch_is_restarted(self) -> None:
        """In good order: all that was acknowledged is saved."""
        self.run(self.fleet.aclose())
        assert self.ledger.saved == self.to_be_saved(), "all is saved when the watch is closed"
        self.start_again()

    @rule(turns=st.sampled_from([0, 0, 1, 3, 10, 30, 60]))
    def the_watch_crashes(self, turns: int) -> None:
        """At whatever point; what is on the disk at that instant is all that is left of it."""
        if turns and self.clock.due is not None:
            self.time_goes_by(max(0, self.clock.due - self.clock.elapsed) / 3600)

        async def go_on() -> None:
            if turns:
                self.clock.wake()
            for _ in range(turns):
                await asyncio.sleep(0)
            while self.ledger.busy:
                await asyncio.sleep(0)

        self.run(go_on())
        assert self.ledger.saved <= self.to_be_saved(), "saved, although it was not acknowledged"
        saved, store = self.ledger.saved, self.store
        if isinstance(store, Path):
            self.store = self.place()
            for end in ("", "-wal"):
                with suppress(FileNotFoundError):
                    shutil.copy(f"{store}{end}", f"{self.store}{end}")
        elif store is not None:
            self.store = MemoryCheckpoint()
            self.store._places = dict(store._places)  # as a disk would be read
        # What it saves from here on is on another disk.
        self.ledger._delivered, self.ledger.saved = [], set()
        with suppress(AssertionError):
            self.run(self.fleet.aclose())
        self.ledger.saved = saved
        self.start_again()

    def start_again(self) -> None:
        was_away = self.is_away
        self.delivered = [
            change for number, change in enumerate(self.delivered) if number in self.ledger.saved
        ]
        self.acked = set(range(len(self.delivered)))
        of_server = [change for change in self.delivered if session_of(change) == OF_SERVER]
        self.is_up = not of_server or isinstance(of_server[-1], Recovered)
        self.start_watch()
        self.is_away = was_away

    # ------------------------------------------------------------------------------ what must hold

    @rule()
    def settle(self) -> None:
        """Once nothing goes wrong any more, what was delivered is what there is."""
        self.backup.heal()
        if self.is_away:
            self.the_server_comes_back()
        quiet = 0
        for _ in range(40):
            before = len(self.delivered)
            self.look_at_everything()
            self.take(1000)
            if self.by_hand:
                self.run(self.acknowledge_these(set(range(len(self.delivered))) - self.acked))
            status = self.changes.status()["vbo"]
            quiet = (
                quiet + 1 if status.up and self.clock.due is not None and len(self.delivered) == before else 0
            )
            if quiet == 2:
                break
        assert quiet == 2, self.changes.status()
        self.check()

    def may_be_forgotten(self, key: UUID) -> bool:
        return self.created[key] < self.limit or key in self.old_too_early

    def check(self) -> None:
        consumer = Consumer(
            self.delivered, self.unannounced, lambda key: self.may_be_repeated and self.may_be_forgotten(key)
        )
        there = {one.id: looks_of(one) for one in self.world.sessions}
        for key, looks in there.items():
            known = consumer.sessions.get(key)
            if known is None:
                assert key in self.too_late | self.silent, f"never delivered: {looks}, {self.created[key]}"
                continue
            if self.may_be_forgotten(key) and known[0] == "Stopped":
                continue
            assert known == looks, f"{key} is not as delivered"
            if key not in self.silent:
                assert (looks[0] == "Stopped") is (key in consumer.finished), f"the end of {key}"
        for key, known in consumer.sessions.items():
            if key not in there:
                assert self.may_be_forgotten(key), (
                    f"{key} no longer exists, and that was not delivered: {known}"
                )
                assert known[0] == "Stopped", f"{key} was removed before its end, and that was not delivered"

    def teardown(self) -> None:
        """Every history ends with this."""
        try:
            if hasattr(self, "changes"):
                self.settle()
        finally:
            if hasattr(self, "fleet"):
                self.run(self.fleet.aclose())
            self.runner.close()
            self.directory.cleanup()
