"""Whatever a program does with a fleet's queries: each server is heard of once, and nothing is left."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Coroutine

import pytest
from attrs import frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from aiovbo import Client, ClosedError, Fleet, FleetQuery, Password

LOGIN = Password("portal", "secret")


@frozen
class Use:
    """One task that asks the fleet something."""

    how: str
    """What it does with the query."""
    question: str
    """What kind of function it maps."""
    pauses: int
    """Turns of the event loop that each server takes longer than the one before it."""
    begins_after: int
    """Turns of the event loop until it begins."""
    cancelled_after: int | None
    """Turns from then on after which it is cancelled; twice, if it takes long to go."""


async def turns(count: int) -> None:
    """Let the event loop turn so often."""
    for _ in range(count):
        await asyncio.sleep(0)


HURRIED: list[str] = []
"""Queries that were cancelled more than once."""


async def tidy_up(name: str) -> None:
    """What a question does at its end, which takes a moment."""
    try:
        await turns(6)
    finally:
        task = asyncio.current_task()
        if task is not None and task.cancelling() > 1:
            HURRIED.append(name)


def question(fleet: Fleet, use: Use) -> Callable[[Client], Coroutine[object, object, object]]:
    """What each server is asked; its clean-up takes a turn too."""

    async def ask(client: Client) -> object:
        try:
            await turns(use.pauses * int(client.name.removeprefix("vbo")))
            if use.question == "fails" and client.name == next(iter(fleet), None):
                raise KeyError(client.name)
            if use.question == "asks the fleet":
                return len((await fleet.map(lambda one: asyncio.sleep(0, one.name))).items)
            return client.name
        finally:
            await tidy_up(client.name)

    return ask


async def several(fleet: Fleet, use: Use, client: Client) -> AsyncIterator[object]:
    """Two items of each server."""
    for _ in range(2):
        yield await question(fleet, use)(client)


async def carry_out(fleet: Fleet, use: Use) -> None:
    """One use from its beginning to its end; its results of servers are right."""
    await turns(use.begins_after)
    names = sorted(fleet)
    query: FleetQuery[object]
    if use.question == "gives several":
        query = fleet.map(lambda client: several(fleet, use, client))
    else:
        query = fleet.map(question(fleet, use))
    match use.how:
        case "await":
            assert sorted((await query).answers) == names
        case "answers":
            assert sorted([answer.server async for answer in query.answers()]) == names
        case "items":
            found = [item async for item in query]
            assert len(found) == len(names) * (2 if use.question == "gives several" else 1)
        case _:
            async with query:
                async for _ in query:
                    await turns(use.pauses)
                    break


async def program(servers: int, concurrency: int, uses: list[Use], closed_after: int | None) -> None:
    """All uses at once, cancelled and closed in between; and what must hold then."""
    HURRIED.clear()
    loop = asyncio.get_running_loop()
    complaints: list[dict[str, object]] = []
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    fleet = Fleet([f"vbo{number}" for number in range(1, servers + 1)], LOGIN, concurrency=concurrency)

    async def under_control(use: Use) -> None:
        task = loop.create_task(carry_out(fleet, use))
        if use.cancelled_after is not None:
            await turns(use.begins_after + use.cancelled_after)
            for _ in range(2):
                task.cancel()
                await turns(3)
        await asyncio.wait([task])
        if not task.cancelled() and not isinstance(task.exception(), ClosedError | KeyError):
            task.result()

    async def close() -> None:
        if closed_after is not None:
            await turns(closed_after)
            await fleet.aclose()

    async with asyncio.timeout(20):
        await asyncio.gather(close(), *map(under_control, uses))
    while len(asyncio.all_tasks()) > 1:
        await asyncio.sleep(0.001)
    # What is to happen at their end has its turn, too.
    await turns(2)
    # What is new: asyncio reports an exception that was never retrieved when its task is collected.
    gc.collect(1)
    assert complaints == []
    slots = fleet._slots
    assert (slots._free, len(slots._waiting), len(slots._held)) == (concurrency, 0, 0)
    assert not fleet._running
    assert not HURRIED
    await fleet.aclose()


USES = st.builds(
    Use,
    how=st.sampled_from(["await", "answers", "items", "leave"]),
    question=st.sampled_from(["plain", "plain", "fails", "gives several", "asks the fleet"]),
    pauses=st.integers(0, 12),
    begins_after=st.integers(0, 10),
    cancelled_after=st.none() | st.integers(0, 25),
)


@pytest.mark.parametrize("eager", [False, True])
@settings(max_examples=150)
@given(
    servers=st.integers(1, 4),
    concurrency=st.sampled_from([1, 2, 100]),
    uses=st.lists(USES, min_size=1, max_size=4),
    closed_after=st.none() | st.integers(0, 40),
)
def test_whatever_a_program_does_nothing_is_lost_doubled_or_left(
    eager: bool,  # noqa: FBT001  # a parameter
    servers: int,
    concurrency: int,
    uses: list[Use],
    closed_after: int | None,
) -> None:
    """Queries that are awaited, iterated, left, cancelled and closed, also within each other."""
    factory = getattr(asyncio, "eager_task_factory", None) if eager else None
    if eager and factory is None:
        pytest.skip("needs Python 3.12")
    with asyncio.Runner() as runner:
        runner.get_loop().set_task_factory(factory)
        runner.run(program(servers, concurrency, uses, closed_after))
