"""Virtual time: it drives SDK and servers together, in the same order each time, and waits for nothing."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

import pytest

from aiovbo import Fleet, Password, Server, ServerTimeoutError
from aiovbo._core.threads import in_thread
from aiovbo.testing import BackupServer, Fault, SimClock, World

uvloop = pytest.importorskip("uvloop")
# The first of its event loops makes a pipe for signals, which the process keeps.
uvloop.new_event_loop().close()

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture
def run() -> Run:
    """Runs a coroutine in asyncio's own event loop, whichever loop the other tests use."""

    def run_in_loop(work: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            return runner.run(work)

    return run_in_loop


def server_of(backup: BackupServer) -> Server:
    return Server(backup.url, Password(backup.username, backup.password), allow_http=True, name="vbo")


def test_sleeps_end_in_the_order_of_their_times_without_waiting(run: Run) -> None:
    """A sleep of a day returns at once, and a shorter one returns before it."""

    async def work() -> tuple[list[str], float]:
        clock, woken = SimClock(), list[str]()

        async def sleep(name: str, seconds: float) -> None:
            await clock.sleep(seconds)
            woken.append(f"{name} at {clock.monotonic():g}")

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(sleep("day", 86_400))
            tasks.create_task(sleep("hour", 3_600))
            tasks.create_task(sleep("minute", 60))
        return woken, clock.monotonic()

    assert run(work()) == (["minute at 60", "hour at 3600", "day at 86400"], 86_400)


def test_time_passes_only_in_advance_where_that_is_chosen(run: Run) -> None:
    """With `auto=False` a sleeper sleeps until the test has moved the clock far enough."""

    async def work() -> list[bool]:
        clock = SimClock(auto=False)
        sleeper = asyncio.create_task(clock.sleep(10))
        found = list[bool]()
        for seconds in (0, 9, 1):
            await clock.advance(seconds)
            found.append(sleeper.done())
        return found

    assert run(work()) == [False, False, True]


def test_no_time_passes_while_something_can_run(run: Run) -> None:
    """A task that goes on and on, turn by turn, is not overtaken by a timer."""

    async def work() -> tuple[float, float]:
        clock = SimClock()
        sleeper = asyncio.create_task(clock.sleep(1))
        for _ in range(100):
            await asyncio.sleep(0)
        before = clock.monotonic()
        await sleeper
        return before, clock.monotonic()

    assert run(work()) == (0.0, 1.0)


def test_no_time_passes_while_the_sdk_waits_for_a_thread(run: Run) -> None:
    """A file or a name that takes long in real time takes none in virtual time."""

    async def work() -> float:
        clock = SimClock()
        sleeper = asyncio.create_task(clock.sleep(3600))
        await in_thread(lambda: time.sleep(0.05))
        found = clock.monotonic()
        await sleeper
        return found

    assert run(work()) == 0.0


def test_a_silent_server_costs_the_virtual_deadline_and_no_real_one(run: Run) -> None:
    """A query of a server that never answers ends at its deadline, by the clock that both have."""

    async def work() -> tuple[str | None, float]:
        clock = SimClock()
        async with BackupServer(World(clock=clock), clock=clock, tls=False) as backup:
            backup.fail(Fault.stall(), on="RestoreSessions", times=None)
            async with Fleet([server_of(backup)], clock=clock, deadline=900, read_timeout=800) as fleet:
                result = await fleet.restore_sessions()
        (answer,) = result.answers.values()
        assert isinstance(answer.error, ServerTimeoutError)
        return answer.error.phase, answer.elapsed

    began = time.monotonic()
    phase, elapsed = run(work())
    assert phase == "read"
    assert 800 <= elapsed <= 901
    assert time.monotonic() - began < 60


def test_a_week_of_watching_passes_at_once(run: Run) -> None:
    """Sessions that the servers' worlds draw in a week are delivered, with the token renewed every hour."""

    async def work() -> tuple[set[object], set[object], int]:
        clock = SimClock()
        world = World(sessions=20, clock=clock)
        async with BackupServer(world, version="v6", tls=False) as backup:
            options: dict[str, Any] = {"every": timedelta(minutes=30), "since": timedelta(days=30)}
            found = set[object]()
            async with Fleet([server_of(backup)], clock=clock) as fleet, fleet.watch(**options) as changes:
                while clock.monotonic() < 7 * 86_400:
                    found.add((await anext(changes)).session.id)  # type: ignore[attr-defined]  # each has one
            return found, {one.id for one in world.sessions[1:]}, backup.refreshes + backup.logins

    found, expected, logins = run(work())
    assert found >= expected
    assert logins > 100


def test_the_same_seed_gives_the_same_run(run: Run) -> None:
    """Two runs of one program send the same requests at the same times."""

    async def work() -> list[tuple[float, str]]:
        clock = SimClock(seed=7)
        async with BackupServer(World(clock=clock, sessions=5), version="v8", tls=False) as backup:
            backup.fail(Fault.status(503), on="RestoreSessions", times=2)
            async with Fleet([server_of(backup)], clock=clock) as fleet:
                async with fleet.watch(every=timedelta(minutes=1)):
                    await clock.sleep(3_600)
                return [(one.at, one.resource) for one in backup.requests]

    first, second = run(work()), run(work())
    assert len(first) > 50
    assert first == second


def test_a_server_and_its_world_have_one_clock() -> None:
    """A world that would go on by the real clock is refused beside a server with another one."""
    with pytest.raises(ValueError, match=r"World\(clock="):
        BackupServer(World(), clock=SimClock())


def test_an_event_loop_that_does_not_show_its_callbacks_is_rejected() -> None:
    """Time could pass there while a response is on its way."""

    async def work() -> None:
        with pytest.raises(RuntimeError, match="asyncio's own event loops, not with uvloop"):
            await SimClock().sleep(1)

    loop = uvloop.new_event_loop()
    try:
        loop.run_until_complete(work())
    finally:
        loop.close()
