"""Servers that got each other's names: each installation's checkpoint goes with it."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import pytest

from aiovbo import (
    AnyChange,
    CheckpointEntry,
    CheckpointError,
    Fleet,
    Heartbeat,
    MemoryCheckpoint,
    Password,
    Server,
)
from aiovbo.testing import BackupServer, MemoryTransport, SimClock, World

YEARS = timedelta(days=4000)


class Scene:
    """Three backup servers, and a consumer of what a watch of some of them reports."""

    def __init__(self) -> None:
        self.clock = SimClock()
        self.backups: dict[str, BackupServer] = {}
        for host in ("one.test", "two.test", "three.test"):
            world = World(seed=host, clock=self.clock, sessions=0)
            for _ in range(5):
                world.add(creation_time=self.clock.now(), end_time=self.clock.now())
            self.backups[host] = BackupServer(world, version="v8", clock=self.clock, name=host)
        self.transport = MemoryTransport(dict(self.backups))
        self.store = MemoryCheckpoint()

    def server(self, name: str, host: str) -> Server:
        """The server of this host under this name."""
        backup = self.backups[host]
        return Server(f"https://{host}", Password(backup.username, backup.password), name=name)

    async def watch(self, hosts: dict[str, str], swapped: dict[str, str] | None = None) -> list[AnyChange]:
        """What is reported until nothing is for a while; with other addresses after a while."""
        found: list[AnyChange] = []
        async with AsyncExitStack() as stack:
            fleet = Fleet(
                [self.server(*item) for item in hosts.items()],
                clock=self.clock, transport=self.transport, retries=0,
            )  # fmt: skip
            await stack.enter_async_context(fleet)
            changes = await stack.enter_async_context(
                fleet.watch(checkpoint=self.store, since=YEARS, heartbeat=timedelta(minutes=20), ack="manual")
            )
            while True:
                change = await anext(changes)
                if not isinstance(change, Heartbeat):
                    changes.ack(change)
                    found.append(change)
                elif swapped is None:
                    return found
                else:
                    found.clear()
                    await self.swap(fleet, swapped)
                    swapped = None

    async def swap(self, fleet: Fleet, hosts: dict[str, str]) -> None:
        """Other addresses for these names."""
        for name in hosts:
            fleet.remove(name)
        for name, host in hosts.items():
            fleet.add(self.server(name, host))
        await self.clock.settle()


SWAPS = [
    ({"A": "two.test", "B": "one.test"}, {"A": "one.test", "B": "two.test"}),
    (
        {"A": "two.test", "B": "three.test", "C": "one.test"},
        {"A": "one.test", "B": "two.test", "C": "three.test"},
    ),
    ({"B": "one.test", "C": "two.test"}, {"A": "one.test", "B": "two.test"}),
    ({"C": "two.test", "B": "one.test"}, {"A": "one.test", "B": "two.test"}),
]  # fmt: skip


@pytest.mark.parametrize(("after", "before"), SWAPS)
@pytest.mark.parametrize("times", [1, 2])
async def test_what_was_reported_under_another_name_is_not_reported_again(
    after: dict[str, str], before: dict[str, str], times: int
) -> None:
    """Neither is anything removed; what happened meanwhile is reported under the new name."""
    scene = Scene()
    assert len(await scene.watch(before)) == 10 * len(before)
    for number in range(times):
        hosts = after if number % 2 == 0 else before
        now, worlds = scene.clock.now(), {name: scene.backups[host].world for name, host in hosts.items()}
        news = {name: world.add(creation_time=now, end_time=now).id for name, world in worlds.items()}
        found = await scene.watch(hosts)
        reported = {(change.server, change.session.id) for change in found if hasattr(change, "session")}
        assert len(found) == 2 * len(hosts)
        assert reported == set(news.items())


async def test_servers_that_are_swapped_while_the_watch_runs_take_their_checkpoints_along() -> None:
    """By removing and adding them under each other's names."""
    scene = Scene()
    before, after = {"A": "one.test", "B": "two.test"}, {"A": "two.test", "B": "one.test"}
    assert await scene.watch(before, swapped=after) == []


@pytest.mark.parametrize("saves", range(6))
async def test_a_crash_in_the_middle_of_a_swap_loses_nothing(saves: int) -> None:
    """After any of the saves that it takes: the next start goes on from there."""

    class Crashing(MemoryCheckpoint):
        left = 1000

        async def save(self, server: str, steps: Sequence[CheckpointEntry], *rest: Any) -> None:
            if self.left <= 0:
                raise CheckpointError("the power fails")
            self.left -= 1
            await super().save(server, steps, *rest)

    scene = Scene()
    scene.store = Crashing()
    before, after = {"A": "one.test", "B": "two.test"}, {"A": "two.test", "B": "one.test"}
    await scene.watch(before)
    scene.store.left = saves
    try:
        found = await scene.watch(after)
    except CheckpointError:
        scene.store.left = 1000
        found = await scene.watch(after)
    assert found == []
