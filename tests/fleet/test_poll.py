"""Polling a fleet: when each server is queried, which answers the consumer gets, and how it ends."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import pairwise

import pytest
from harness.backups import asked, server_of
from harness.clock import TimersClock, VirtualClock

from aiovbo import (
    Bearer,
    Client,
    ClosedError,
    ConfigError,
    Fleet,
    NotFoundError,
    Poll,
    Server,
    UnreachableError,
)
from aiovbo.testing import BackupServer, Fault

EVERY = timedelta(seconds=30)
NAMES = [f"vbo{index}" for index in range(8)]


def servers(*names: str) -> list[Server]:
    """Servers that the test answers for: nothing is sent to them."""
    return [Server(f"https://{name}.tech.local", Bearer("token"), name=name) for name in names]


class Answers:
    """A query that the test answers itself, and that notes when each server was polled."""

    def __init__(self, clock: TimersClock) -> None:
        self.clock = clock
        self.times: dict[str, list[float]] = {}
        self.active = Counter[str]()
        self.most_active = Counter[str]()
        self.slow: dict[str, asyncio.Event] = {}
        self.failing: set[str] = set()

    async def __call__(self, client: Client) -> float:
        """The time by the clock, once the server may answer."""
        name = client.name
        self.times.setdefault(name, []).append(self.clock.monotonic())
        self.active[name] += 1
        self.most_active |= self.active
        try:
            if name in self.slow:
                await self.slow[name].wait()
            if name in self.failing:
                raise UnreachableError("connection refused", server=name, phase="connect")
            return self.clock.monotonic()
        finally:
            self.active[name] -= 1


@asynccontextmanager
async def polling(*names: str) -> AsyncIterator[tuple[Fleet, Poll[float], Answers]]:
    """A poll of such servers, by a clock that stands still until the test moves it."""
    clock = TimersClock()
    answers = Answers(clock)
    async with (
        Fleet(servers(*names), clock=clock) as fleet,  # type: ignore[arg-type]  # has what a Clock has
        fleet.poll(fleet.map(answers), every=EVERY) as poll,
    ):
        yield fleet, poll, answers


async def test_each_server_is_polled_at_its_own_offset_in_the_interval() -> None:
    """The offsets differ, and a restarted process has the same."""
    seen: list[dict[str, float]] = []
    for _ in range(2):
        async with polling(*NAMES) as (_, _, answers):
            await answers.clock.go_on(200)
        offsets = {name: {round(time % 30, 3) for time in times[1:]} for name, times in answers.times.items()}
        assert all(len(found) == 1 for found in offsets.values())
        assert all(len(times) >= 6 for times in answers.times.values())
        seen.append({name: found.pop() for name, found in offsets.items()})
    assert seen[0] == seen[1]
    assert len(set(seen[0].values())) == len(NAMES)


async def test_a_slow_consumer_gets_only_the_newest_answer_of_each_server() -> None:
    """Ten intervals pass: two answers wait, each the last one."""
    async with polling("a", "b") as (_, poll, answers):
        await answers.clock.go_on(310)
        taken = [await anext(poll), await anext(poll)]
        assert {answer.server: answer.items for answer in taken} == {
            name: (times[-1],) for name, times in answers.times.items()
        }
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(poll), 0.01)


async def test_a_slow_server_is_not_queried_twice_at_once_and_delays_no_other() -> None:
    """It misses polls, which are counted; the others keep their interval."""
    async with polling("slow", "quick") as (_, poll, answers):
        answers.slow["slow"] = asyncio.Event()
        await answers.clock.go_on(300)
        assert len(answers.times["slow"]) == 1
        assert len(answers.times["quick"]) >= 10
        assert poll.status()["slow"].next_poll is None
        answers.slow.pop("slow").set()
        await answers.clock.go_on(60)
        assert len(answers.times["slow"]) in (2, 3)
        assert answers.most_active == Counter(slow=1, quick=1)
        assert poll.status()["slow"].overruns >= 8


async def test_the_first_polls_of_a_large_fleet_are_spread() -> None:
    """About 100 servers a second; a small fleet is polled within 5 s."""
    async with polling(*(f"vbo{index}" for index in range(600))) as (_, _, answers):
        await answers.clock.go_on(6, step=0.5)
    firsts = Counter(int(times[0]) for times in answers.times.values())
    assert firsts.total() == 600
    assert max(firsts.values()) <= 150
    async with polling(*NAMES) as (_, _, answers):
        await answers.clock.go_on(5.5)
    assert answers.times.keys() == set(NAMES)


async def test_a_large_fleet_is_started_in_slices() -> None:
    """At most 100 servers in one step of the event loop, so that other tasks run in between."""
    async with polling(*(f"vbo{index}" for index in range(1000))) as (_, _, _):
        started = [0]
        while started[-1] < 1000:
            await asyncio.sleep(0)
            names = [task.get_name() for task in asyncio.all_tasks()]
            started.append(sum(name.startswith("aiovbo poll vbo") for name in names))
    assert max(after - before for before, after in pairwise(started)) <= 100


async def test_each_answer_is_delivered_as_it_arrives() -> None:
    """A server that has not answered yet does not hold back the answers of the others."""
    async with polling("a", "b", "c") as (_, poll, answers):
        answers.slow = {"b": asyncio.Event(), "c": asyncio.Event()}
        received: list[str] = []
        await answers.clock.go_on(6)
        async for answer in poll:
            received.append(answer.server)
            if len(received) == 3:
                break
            answers.slow.pop("c" if "c" in answers.slow else "b").set()
        assert received == ["a", "c", "b"]


async def test_an_unreachable_server_is_probed_with_one_request_at_increasing_intervals() -> None:
    """Retries are for the first failure; then each poll is one request, up to five minutes apart."""
    clock = VirtualClock()
    async with BackupServer() as backup:
        server = server_of(backup, name="vbo")
        async with Fleet([server], retries=2, clock=clock) as fleet, fleet.poll(every=EVERY) as poll:  # type: ignore[arg-type]  # has what a Clock has
            assert (await anext(poll)).error is None
            backup.fail(Fault.status(503), on="RestoreSessions", times=None)
            failed = await anext(poll)
            while failed.error is None:
                failed = await anext(poll)
            before, times = asked(backup), [failed.fetched_at]
            for _ in range(5):
                answer = await anext(poll)
                assert answer.attempts == 1
                times.append(answer.fetched_at)
            assert asked(backup) - before <= 6
            gaps = [after - one for one, after in pairwise(times)]
            assert gaps[:4] == sorted(gaps[:4])
            assert gaps[3] > 3 * gaps[0]
            assert poll.status()["vbo"].errors >= 6
            backup.heal()
            while (await anext(poll)).error is not None:
                pass
            assert poll.status()["vbo"].up


async def test_the_last_successful_answer_is_kept_with_its_age_and_the_error_since() -> None:
    """A server that fails still has its data; one that never answered has none."""
    async with polling("a", "b") as (_, poll, answers):
        assert poll.latest == {}
        assert poll.status()["a"].age is None
        answers.failing.add("b")
        await answers.clock.go_on(40)
        good = poll.latest["a"]
        answers.failing.add("a")
        await answers.clock.go_on(100)
        assert poll.latest == {"a": good}
        status = poll.status()["a"]
        assert isinstance(status.error, UnreachableError)
        assert not status.up
        assert status.last_success == good.fetched_at
        assert status.age == timedelta(seconds=answers.clock.monotonic() - good.items[0])
        answers.failing.clear()
        await answers.clock.go_on(600)
        assert poll.latest.keys() == {"a", "b"}
        assert [one.error for one in poll.status().values()] == [None, None]


async def test_servers_that_join_are_polled_and_those_that_leave_are_not() -> None:
    """What a server answered before it left is not delivered any more."""
    async with polling("a", "b") as (fleet, poll, answers):
        await answers.clock.go_on(40)
        fleet.remove("a")
        fleet.add(servers("c")[0])
        before = len(answers.times["a"])
        await answers.clock.go_on(60)
        assert len(answers.times["a"]) == before
        assert {(await anext(poll)).server for _ in range(2)} == {"b", "c"}
        assert poll.latest.keys() == poll.status().keys() == {"b", "c"}


async def test_a_server_that_leaves_and_returns_is_not_queried_twice_at_once() -> None:
    """The poll of the one that left ends first, also where its clean-up takes time."""
    async with BackupServer() as backup:
        active, most = 0, 0

        async def query(_: Client) -> int:
            nonlocal active, most
            active += 1
            most = max(most, active)
            try:
                await asyncio.sleep(60)
            finally:
                await asyncio.sleep(0.02)
                active -= 1
            return 0

        server = server_of(backup, name="vbo")
        async with Fleet([server]) as fleet, fleet.poll(fleet.map(query), every=timedelta(seconds=0.01)):
            for _ in range(6):
                await asyncio.sleep(0.015)
                fleet.remove("vbo")
                fleet.add(server)
                fleet.remove("vbo")
                fleet.add(server)
            await asyncio.sleep(0.05)
    assert most == 1
    assert active == 0


async def test_a_poll_raises_closed_error_when_its_fleet_closes() -> None:
    """A task that waits for an answer, and one that iterates later."""
    async with polling("a") as (fleet, poll, answers):
        waiting = asyncio.create_task(anext(poll))  # type: ignore[arg-type]  # a coroutine
        await asyncio.sleep(0)
        await fleet.aclose()
        with pytest.raises(ClosedError, match="closed"):
            await waiting
        with pytest.raises(ClosedError, match="closed"):
            await anext(poll)
    assert not answers.active.total()


async def test_the_end_of_the_block_stops_a_poll_in_the_middle_of_a_query() -> None:
    """The fleet remains usable; the poll does not."""
    async with polling("a") as (fleet, poll, answers):
        answers.slow["a"] = asyncio.Event()
        await answers.clock.go_on(10)
        assert answers.active["a"] == 1
        await poll.aclose()
        assert answers.active["a"] == 0
        with pytest.raises(ClosedError, match="used once"):
            await poll.__aenter__()
        del answers.slow["a"]
        assert len((await fleet.map(answers)).items) == 1


async def test_the_default_query_is_the_restore_sessions_of_the_last_day() -> None:
    """As `restore_sessions(started_after=timedelta(days=1))` gives them."""
    async with BackupServer() as backup, Fleet([server_of(backup)]) as fleet:
        async with fleet.poll(every=timedelta(milliseconds=50)) as poll:
            answer = await anext(poll)
        expected = await fleet.restore_sessions(started_after=timedelta(days=1))
        assert {one.id for one in answer.items} == {one.id for one in expected.items}
        assert answer.items


async def test_a_bug_in_a_polled_function_is_raised() -> None:
    """To the consumer, or at the end of the block where there is none; it never makes data stale silently."""

    async def broken(_: Client) -> int:
        raise ZeroDivisionError

    async with Fleet(servers("a")) as fleet:
        query = fleet.map(broken)
        with pytest.raises(ZeroDivisionError):
            async with fleet.poll(query, every=timedelta(milliseconds=1)) as poll:
                await anext(poll)
        with pytest.raises(ZeroDivisionError):
            async with fleet.poll(query, every=timedelta(milliseconds=1)):
                await asyncio.sleep(0.02)


async def test_a_poll_rejects_a_query_of_another_fleet_and_an_interval_of_zero() -> None:
    """At the call, before anything is sent."""
    async with Fleet(servers("a")) as fleet, Fleet(servers("a")) as other:
        with pytest.raises(ConfigError, match="this fleet"):
            fleet.poll(other.restore_sessions())
        with pytest.raises(ConfigError, match="every"):
            fleet.poll(every=timedelta(0))
        with pytest.raises(ClosedError, match="async with"):
            await anext(fleet.poll())


async def test_an_error_of_one_request_is_the_servers_answer() -> None:
    """A poll of a function that fetches one session goes on after a 404."""
    async with BackupServer() as backup, Fleet([server_of(backup)]) as fleet:

        async def fetch(client: Client) -> object:
            return await client.fetch("RestoreSessions/00000000-0000-0000-0000-000000000000")

        async with fleet.poll(fleet.map(fetch), every=timedelta(milliseconds=20)) as poll:
            assert isinstance((await anext(poll)).error, NotFoundError)
            assert isinstance((await anext(poll)).error, NotFoundError)
