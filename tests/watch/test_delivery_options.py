"""What a consumer chooses: batches, a predicate, how long a server must fail, labels."""

import asyncio
from datetime import timedelta

import pytest
from harness.backups import server_of
from harness.watches import NOW, take, until, watching

from aiovbo import Added, Change, ConfigError, Finished, Fleet, MemoryCheckpoint, Recovered, Unreachable
from aiovbo.testing import BackupServer, Fault, World

SINCE = NOW - timedelta(days=1)
SOON = timedelta(milliseconds=50)


@pytest.mark.parametrize("ack", ["auto", "manual"])
async def test_batches_are_acknowledged_as_a_whole(ack: str) -> None:
    """What was delivered in a batch that was not acknowledged is delivered again after a restart."""
    store = MemoryCheckpoint()
    async with BackupServer(World(now=NOW, speed=0, sessions=0), version="v6") as backup:
        for _ in range(4):
            backup.world.add(creation_time=NOW, end_time=NOW)
        async with watching(backup, checkpoint=store, since=SINCE, ack=ack) as changes, asyncio.timeout(10):
            await until(lambda: changes.status()[backup.name].backlog == 8)
            batches = changes.batches(5, within=SOON)
            first = await anext(batches)
            if ack == "manual":
                first.ack()
            second = await anext(batches)
            await batches.aclose()
        assert (len(first), len(second)) == (5, 3)
        async with watching(backup, checkpoint=store, since=SINCE) as changes:
            again = await take(changes, 3)
    assert {change.id for change in again} == {change.id for change in second}


async def test_a_batch_does_not_wait_for_more_than_its_time() -> None:
    """One change is a batch, although the next one never comes."""
    async with BackupServer(World(now=NOW, speed=0, sessions=0), version="v6") as backup:
        backup.world.add(creation_time=NOW, end_time=None)
        async with watching(backup) as changes, asyncio.timeout(10):
            batches = changes.batches(100, within=SOON)
            assert [type(change) for change in await anext(batches)] == [Added]
            await batches.aclose()
            with pytest.raises(ConfigError, match="size"):
                changes.batches(0, within=SOON)
            with pytest.raises(ConfigError, match="within"):
                changes.batches(1, within=timedelta(0))


async def test_changes_that_the_predicate_rejects_are_not_delivered_and_not_found_again() -> None:
    """They are saved like those that were acknowledged; each change has its server's labels."""
    store = MemoryCheckpoint()

    def only(change: Change) -> bool:
        return isinstance(change, Finished) and change.labels["site"] == "athens"

    async with BackupServer(World(now=NOW, speed=0, sessions=0), version="v6") as backup:
        for _ in range(3):
            backup.world.add(creation_time=NOW, end_time=NOW)
        server = server_of(backup, name="vbo", labels={"site": "athens"})
        options = {"every": timedelta(milliseconds=20), "since": SINCE, "checkpoint": store}
        async with Fleet([server]) as fleet:
            async with fleet.watch(only=only, ack="manual", **options) as changes:  # type: ignore[arg-type]  # as given
                found = await take(changes, 3)
            with pytest.raises(ConfigError, match="only"):
                fleet.watch(only=7)  # type: ignore[arg-type]  # what is wrong
            assert {type(change) for change in found} == {Finished}
            async with fleet.watch(**options) as changes:  # type: ignore[arg-type]  # as given
                again = await take(changes, 3)
        assert {change.id for change in again} == {change.id for change in found}


async def test_a_server_that_fails_for_less_than_min_down_is_not_reported() -> None:
    """Neither its failure nor its recovery; one that fails for longer is."""
    async with BackupServer(World(now=NOW, speed=0, sessions=0), version="v6") as backup:
        backup.fail(Fault.status(503), times=4)
        async with watching(backup, min_down=timedelta(hours=1)) as changes:
            await until(lambda: changes.status()[backup.name].up)
            assert changes.status()[backup.name].backlog == 0
        backup.fail(Fault.status(503), times=None)
        async with watching(backup, min_down=SOON) as changes:
            (down,) = await take(changes, 1)
            errors = changes.status()[backup.name].errors
            backup.heal()
            (up,) = await take(changes, 1)
    assert errors >= 2
    assert isinstance(down, Unreachable)
    assert isinstance(up, Recovered)
