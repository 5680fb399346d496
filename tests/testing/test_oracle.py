"""WatchOracle: what a consumer was given beside what happened on simulated servers."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import attrs
import pytest

from aiovbo import Fleet, MemoryCheckpoint, Password
from aiovbo.testing import (
    BackupServer,
    MemoryTransport,
    Quirks,
    SimClock,
    WatchOracle,
    World,
    WorldSession,
)

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
NUMBERS: Iterator[int] = iter(range(10**6))


@attrs.frozen
class Shown:
    """A session as any client may show it."""

    id: UUID
    type: str
    state: str
    result: str | None
    creation_time: datetime
    end_time: datetime | None
    name: str | None
    organization: str | None
    initiated_by: str | None
    details: str | None
    scope_name: str | None
    client_host: str | None
    reason: str | None

    @property
    def has_ended(self) -> bool:
        """As the SDK's sessions have it."""
        return self.end_time is not None


def shown(session: WorldSession, **changes: Any) -> Shown:
    members = {one.name: getattr(session, one.name) for one in attrs.fields(Shown)}
    return Shown(**{**members, **changes})


def change(kind: str, *, server: str = "vbo", **members: Any) -> Any:
    """A change of this kind; the oracle knows it by the name of its class."""
    made = type(kind, (), {})()
    made.server, made.id = server, f"{kind}/{next(NUMBERS)}"
    for name, value in members.items():
        setattr(made, name, value)
    return made


def change_of(kind: str, session: WorldSession, **changes: Any) -> Any:
    return change(kind, session=shown(session, **changes))


@pytest.fixture
def world() -> World:
    return World(now=NOW, speed=0, sessions=0)


@pytest.fixture
def oracle(world: World) -> WatchOracle:
    return WatchOracle({"vbo": BackupServer(world)})


def end(world: World, session: WorldSession) -> WorldSession:
    return world.change(session.id, state="Stopped", result="Failed", end_time=world.now)


def test_what_happened_and_was_delivered_in_order_is_right(world: World, oracle: WatchOracle) -> None:
    """A session that comes, changes, ends and goes."""
    one = world.add(end_time=None)
    oracle.deliver(change_of("Added", one))
    one = world.change(one.id, details="half of it")
    oracle.deliver(change_of("Changed", one))
    one = end(world, one)
    oracle.deliver(change_of("Finished", one))
    oracle.check()
    world.remove(one.id)
    oracle.deliver(change("Removed", session_id=one.id))
    oracle.check()


def test_each_thing_that_happened_and_was_not_delivered_is_lost(world: World, oracle: WatchOracle) -> None:
    """A new session, a change, an end, a removal."""
    one = world.add(end_time=None)
    assert "exists" in oracle.report().lost[0]
    oracle.deliver(change_of("Added", one))
    assert not oracle.report().lost
    one = world.change(one.id, reason="another")
    assert "has {'reason': 'another'}" in oracle.report().lost[0]
    one = end(world, one)
    oracle.deliver(change_of("Changed", one))
    assert "there was no Finished" in oracle.report().lost[0]
    oracle.deliver(change_of("Finished", one))
    assert not oracle.report().lost
    world.remove(one.id)
    assert "was removed" in oracle.report().lost[0]


def test_what_ended_before_the_watch_began_is_not_lost_unless_it_changes(world: World) -> None:
    """With `since`, it is."""
    one = world.add(end_time=NOW, state="Stopped")
    without = WatchOracle({"vbo": BackupServer(world)})
    since = WatchOracle({"vbo": BackupServer(world)}, since=NOW - timedelta(days=1))
    without.check()
    assert since.report().lost
    world.change(one.id, details="corrected")
    assert without.report().lost
    without.deliver(change_of("Changed", world.session(one.id)))
    without.check()


def test_what_is_old_and_known_to_have_ended_is_not_compared(world: World) -> None:
    """It may be forgotten; an open session never is."""
    oracle = WatchOracle({"vbo": BackupServer(world)}, remember=timedelta(days=2))
    old = world.add(creation_time=NOW - timedelta(days=3), end_time=None)
    world.add(creation_time=NOW - timedelta(days=3), state="Stopped")
    newest = world.add(end_time=None)
    oracle.deliver(change_of("Added", newest))
    assert [str(old.id) in one for one in oracle.report().lost] == [True]
    oracle.deliver(change_of("Added", old))
    oracle.check()
    end(world, old)
    assert oracle.report().lost


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("Finished", "has not ended"),
        ("Added", "was added before"),
        ("Changed", "nothing has changed"),
    ],
)
def test_a_change_that_does_not_follow_is_wrong(
    world: World, oracle: WatchOracle, kind: str, problem: str
) -> None:
    """The end of what works, a session twice, a change of nothing."""
    one = world.add(end_time=None)
    oracle.deliver(change_of("Added", one))
    oracle.deliver(change_of(kind, one))
    assert problem in oracle.report().wrong[0]
    with pytest.raises(AssertionError, match=problem):
        oracle.check()


def test_what_never_was_on_the_server_is_wrong(world: World, oracle: WatchOracle) -> None:
    """Another content, an unknown session, an unknown server, a removal of what is there."""
    one = world.add(end_time=None)
    oracle.deliver(change_of("Added", one, reason="never given"))
    oracle.deliver(change_of("Added", attrs.evolve(one, id=uuid4())))
    oracle.deliver(change("Unreachable", server="another"))
    oracle.deliver(change("Removed", session_id=one.id))
    assert len(oracle.report().wrong) == 4


def test_a_change_of_nothing_is_wrong_after_a_restart_unless_it_is_delivered_again(
    world: World, oracle: WatchOracle
) -> None:
    """As by an upgrade of the server, which adds members."""
    one = world.add(end_time=None)
    oracle.deliver(change_of("Added", one))
    one = world.change(one.id, reason="another")
    changed = change_of("Changed", one)
    oracle.deliver(changed)
    oracle.restart(crashed=True)
    oracle.deliver(changed)
    oracle.check()
    oracle.restart()
    oracle.deliver(change_of("Changed", one))
    assert "nothing has changed" in oracle.report().wrong[0]


def test_a_change_of_a_member_that_was_not_sent_before_is_right(world: World) -> None:
    """As by an upgrade of the server, after which one of the members that it adds is changed."""
    backup = BackupServer(world, version="v6")
    oracle = WatchOracle({"vbo": backup})
    one = world.add(end_time=None)
    oracle.deliver(change_of("Added", one, reason=None))
    oracle.restart(crashed=True)
    one = world.change(one.id, reason="another")
    oracle.deliver(change_of("Changed", one))
    oracle.check()
    oracle.deliver(change_of("Changed", one))
    assert "nothing has changed" in oracle.report().wrong[0]


def test_after_a_reset_what_was_forgotten_may_be_delivered_again(world: World, oracle: WatchOracle) -> None:
    """Not after the removal of one session."""
    one, other, third = (world.add(end_time=None) for _ in range(3))
    for each in (one, other, third):
        oracle.deliver(change_of("Added", each))
    again = change_of("Added", one)
    world.remove(other.id)
    oracle.deliver(change("Removed", session_id=other.id, reset=False))
    oracle.deliver(again)
    assert "added before" in oracle.report().wrong[0]
    world.remove(third.id)
    oracle.deliver(change("Removed", session_id=third.id, reset=True))
    oracle.deliver(again)
    report = oracle.report()
    assert len(report.wrong) == 1
    assert not report.duplicated


def test_what_is_older_than_what_was_delivered_is_wrong_until_a_restart(
    world: World, oracle: WatchOracle
) -> None:
    """After a restart, changes may be delivered again."""
    one = world.add(end_time=None)
    other = world.change(one.id, reason="another")
    oracle.deliver(change_of("Added", other))
    oracle.deliver(change_of("Changed", one))
    assert "older" in oracle.report().wrong[0]
    oracle.restart()
    oracle.deliver(change_of("Added", one))
    oracle.deliver(change_of("Changed", other))
    assert len(oracle.report().wrong) == 1


def test_a_change_that_comes_twice_is_a_duplicate_unless_a_restart_explains_it(
    world: World, oracle: WatchOracle
) -> None:
    """An acknowledged one does not come again, unless the process crashed."""
    kept, again = (change_of("Added", world.add(end_time=None)) for _ in range(2))
    oracle.deliver(kept)
    oracle.deliver(again)
    oracle.acknowledge(kept)
    oracle.restart(crashed=True)
    oracle.deliver(kept)
    assert not oracle.report().duplicated
    oracle.restart()
    oracle.deliver(again)
    assert not oracle.report().duplicated
    oracle.deliver(kept)
    oracle.deliver(again)
    assert oracle.report().duplicated == (kept.id, again.id)


def test_the_failure_of_a_server_and_its_end_take_turns(oracle: WatchOracle) -> None:
    """The report has the servers that the consumer takes for unreachable."""
    oracle.deliver(change("Unreachable"))
    assert oracle.report().unreachable == ("vbo",)
    oracle.deliver(change("Unreachable"))
    assert len(oracle.report().duplicated) == 1
    oracle.deliver(change("Recovered"))
    assert oracle.report().unreachable == ()
    oracle.deliver(change("Recovered"))
    assert len(oracle.report().duplicated) == 2


def test_quirks_of_the_server_are_taken_into_account(world: World) -> None:
    """Null fields, another case, a clock that is ahead, a cap."""
    quirks = Quirks(fields={"result": "null", "state": "case"}, clock_skew=timedelta(hours=1), list_cap=1)
    oracle = WatchOracle({"vbo": BackupServer(world, quirks=quirks)})
    world.add(creation_time=NOW - timedelta(hours=1), end_time=None)
    one = world.add(end_time=None)
    ahead = one.creation_time + timedelta(hours=1)
    oracle.deliver(change_of("Added", one, result=None, state="working", creation_time=ahead))
    oracle.check()


def test_after_a_downgrade_what_an_older_version_does_not_send_is_not_compared(world: World) -> None:
    """The consumer has the reason as it was before."""
    for quirks, count in ((Quirks(), 1), (Quirks(downgraded_after=1), 0)):
        oracle = WatchOracle({"vbo": BackupServer(world, quirks=quirks, version="v6")})
        one = world.add(end_time=None)
        oracle.deliver(change_of("Added", one))
        world.change(one.id, reason="another")
        assert len(oracle.report().lost) == count
        world.remove(one.id)


def test_a_server_that_goes_back_to_an_older_state_removes_what_came_later(
    world: World, oracle: WatchOracle
) -> None:
    """Its sessions are as they were."""
    kept = world.add(end_time=None)
    oracle.deliver(change_of("Added", kept))
    before = world.snapshot()
    late = world.add(end_time=None)
    oracle.deliver(change_of("Added", late))
    oracle.deliver(change_of("Finished", end(world, kept)))
    world.restore(before)
    assert len(oracle.report().lost) == 2
    oracle.deliver(change("Removed", session_id=late.id))
    oracle.deliver(change_of("Changed", kept))
    oracle.check()


@pytest.mark.parametrize("version", ["v4", "v6", "v8"])
async def test_a_watch_of_a_busy_server_delivers_what_the_oracle_expects(version: Any) -> None:
    """And a consumer that leaves one change out does not have it."""
    clock = SimClock()
    backup = BackupServer(World(sessions=3, span=timedelta(minutes=10), clock=clock), version=version)
    since = clock.now() - timedelta(days=30)
    whole, careless = (WatchOracle({"vbo": backup}, since=since) for _ in range(2))
    fleet = Fleet(
        ["vbo"],
        Password(backup.username, backup.password),
        transport=MemoryTransport({"vbo": backup}),
        clock=clock,
    )
    count = 0
    watch = fleet.watch(every=timedelta(minutes=1), since=since, checkpoint=MemoryCheckpoint())
    async with fleet, watch as changes:
        while clock.monotonic() < 900 or whole.report().lost:
            change = await anext(changes)
            whole.deliver(change)
            count += 1
            if count != 4:
                careless.deliver(change)
            await asyncio.sleep(0)
    whole.check()
    assert count >= 4
    assert careless.report().lost + careless.report().wrong
