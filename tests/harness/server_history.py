"""What happens on a server whose watch is tested: sessions that come, change, end and are deleted."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    precondition,
    rule,
)

from aiovbo import (
    Change,
)
from aiovbo.testing import BackupServer, World
from aiovbo.testing._world import WorldSession
from harness.watch_ledger import NOW, StepClock, session_of

MANY = 150
"""Sessions of the server above which no more are added at once: pages from which nothing is learned."""


class ServerHistory(RuleBasedStateMachine):
    """A server with its sessions; what a watch of it has forgotten is in the machine that is made of it."""

    backup: BackupServer
    clock: StepClock
    remember: timedelta

    def __init__(self) -> None:
        super().__init__()
        self.delivered: list[Change] = []
        self.created: dict[UUID, datetime] = {}
        self.too_late: set[UUID] = set()
        self.forgotten_until = datetime.min.replace(tzinfo=UTC)
        self.newest = NOW
        self.number = 0

    @property
    def world(self) -> World:
        return self.backup.world

    @property
    def limit(self) -> datetime:
        """What was created before may be forgotten, once it has ended."""
        # A date in the future is a mistake, and makes nothing old until that time has come.
        return min(self.newest, self.clock.now()) - self.remember

    def create(self, age: timedelta, *, is_open: bool) -> WorldSession:
        self.number += 1
        created = self.world.now - age
        ended = None if is_open else min(self.world.now, created + timedelta(minutes=1))
        one = self.world.add(creation_time=created, end_time=ended, result=f"R{self.number}")
        self.appeared(one)
        return one

    def appeared(self, one: WorldSession) -> None:
        self.created[one.id] = one.creation_time
        if one.state == "Stopped" and self.is_old(one):
            self.too_late.add(one.id)
        self.newest = max(self.newest, one.creation_time)

    def is_old(self, one: WorldSession) -> bool:
        """Whether one that was never delivered is taken for forgotten, once it has ended."""
        return one.creation_time < max(self.limit, self.forgotten_until)

    def finish(self, one: WorldSession) -> None:
        self.number += 1
        self.world.change(one.id, state="Stopped", end_time=self.world.now, result=f"R{self.number}")
        if self.is_old(one) and one.id not in {session_of(change) for change in self.delivered}:
            self.too_late.add(one.id)

    def one_of(self, index: int, *, open_only: bool = False) -> WorldSession | None:
        found = sorted(self.world.sessions, key=lambda one: one.id.int)
        found = [one for one in found if one.state == "Working" or not open_only]
        return found[index % len(found)] if found else None

    @rule(is_open=st.booleans(), count=st.sampled_from([1, 1, 1, 2, 12]))
    def sessions_come(self, is_open: bool, count: int) -> None:
        for _ in range(count):
            self.create(timedelta(), is_open=is_open)

    @precondition(lambda self: len(self.world.sessions) < MANY)
    @rule()
    def very_many_come(self) -> None:
        """More than wait for the consumer at once."""
        for number in range(55):
            self.create(timedelta(seconds=number), is_open=False)

    @rule(is_open=st.booleans(), hours=st.sampled_from([0.5, 5, 40, 60, 400]))
    def a_row_appears_late(self, is_open: bool, hours: float) -> None:
        self.create(timedelta(hours=hours), is_open=is_open)

    @rule(is_open=st.booleans(), days=st.sampled_from([1, 90]))
    def a_row_is_dated_in_the_future(self, is_open: bool, days: int) -> None:
        """As after a clock that was wrong for a moment."""
        self.create(timedelta(days=-days), is_open=is_open)

    @rule(index=st.integers(0, 99), is_open=st.booleans())
    def one_moves_on(self, index: int, is_open: bool) -> None:
        if one := self.one_of(index, open_only=is_open):
            self.number += 1
            self.world.change(one.id, result=f"R{self.number}")

    @rule(index=st.integers(0, 99))
    def one_finishes(self, index: int) -> None:
        if one := self.one_of(index, open_only=True):
            self.finish(one)

    @rule(index=st.integers(0, 99), minutes=st.integers(1, 50))
    def an_end_is_corrected(self, index: int, minutes: int) -> None:
        """Nothing but its time is another."""
        one = self.one_of(index)
        if one is not None and one.end_time is not None:
            self.world.change(one.id, end_time=one.end_time + timedelta(minutes=minutes))

    @rule()
    def the_oldest_finishes(self) -> None:
        ones = [one for one in self.world.sessions if one.state == "Working"]
        if ones:
            self.finish(ones[-1])

    @rule(index=st.integers(0, 99), count=st.sampled_from([1, 1, 1, 3, 12]))
    def some_vanish(self, index: int, count: int) -> None:
        for _ in range(count):
            if one := self.one_of(index):
                self.world.remove(one.id)
