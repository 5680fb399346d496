"""Which server it is, and whether it has a session: an unclear answer to that changes nothing."""

from datetime import timedelta
from typing import Any

import pytest

from aiovbo import (
    Added,
    AnyChange,
    Change,
    Finished,
    Fleet,
    MemoryCheckpoint,
    Password,
    Recovered,
    Removed,
    Server,
    Unreachable,
    Watch,
)
from aiovbo.testing import BackupServer, Fault, MemoryTransport, SimClock, World

MINUTE = timedelta(minutes=1)
YEARS = timedelta(days=4000)


class Scene:
    """Two servers in memory, and watches of them that go on from one checkpoint."""

    def __init__(self, version: Any = "v6") -> None:
        self.clock = SimClock()
        self.backups = {
            host: BackupServer(
                World(seed=host, clock=self.clock, sessions=0, speed=0), version=version, name=host
            )
            for host in ("one.test", "two.test")
        }
        self.store = MemoryCheckpoint()

    def fleet(self, hosts: dict[str, str]) -> Fleet:
        """The servers of these hosts, under these names."""
        servers = [
            Server(
                f"https://{host}",
                Password(self.backups[host].username, self.backups[host].password),
                name=name,
            )
            for name, host in hosts.items()
        ]
        transport = MemoryTransport(self.backups)
        return Fleet(servers, clock=self.clock, transport=transport, retries=0, login_cooldown=1)

    def watch(self, fleet: Fleet) -> Watch:
        """A watch whose consumer acknowledges by itself."""
        return fleet.watch(
            every=MINUTE, full_look_every=5 * MINUTE, since=YEARS, checkpoint=self.store, ack="manual",
            heartbeat=20 * MINUTE,
        )  # fmt: skip


async def until_silent(changes: Watch) -> list[AnyChange]:
    """What is delivered until nothing is for a while."""
    found: list[AnyChange] = []
    while type(change := await anext(changes)).__name__ != "Heartbeat":
        found.append(change)
    return found


async def test_after_a_swap_of_names_nothing_overtakes_a_change_that_is_not_acknowledged() -> None:
    """The end of a session comes after its beginning, which was found under the other name."""
    scene = Scene()
    world = scene.backups["one.test"].world
    session = world.add(creation_time=world.now, end_time=None)
    async with scene.fleet({"A": "one.test", "B": "two.test"}) as fleet, scene.watch(fleet) as changes:
        assert [type(one) for one in await until_silent(changes)] == [Added]
    world.change(session.id, state="Stopped", end_time=world.now)
    async with scene.fleet({"A": "two.test", "B": "one.test"}) as fleet, scene.watch(fleet) as changes:
        (again,) = await until_silent(changes)
        assert isinstance(again, Added)
        assert again.server == "A"
        changes.ack(again)
        (end,) = await until_silent(changes)
        assert isinstance(end, Finished)
        assert end.server == "B"


@pytest.mark.parametrize(
    ("fault", "on"),
    [
        (Fault.status(503), "ServiceInstance"),
        (Fault.body(b"[]"), "ServiceInstance"),
        (Fault.body(b"[{"), "token"),
    ],
)
async def test_a_server_that_does_not_say_who_it_is_is_not_taken_for_another(fault: Fault, on: str) -> None:
    """Its name was another's: the poll fails, and no session of the other counts as removed."""
    scene = Scene()
    for backup in scene.backups.values():
        for _ in range(4):
            backup.world.add(creation_time=backup.world.now, end_time=backup.world.now)
    async with scene.fleet({"A": "one.test", "B": "two.test"}) as fleet, scene.watch(fleet) as changes:
        for change in await until_silent(changes):
            changes.ack(change)
    for backup in scene.backups.values():
        # The first three find out the version.
        backup.fail(fault, on=on, after=3 if on == "ServiceInstance" else 0)
    async with scene.fleet({"A": "two.test", "B": "one.test"}) as fleet, scene.watch(fleet) as changes:
        found = await until_silent(changes)
    assert {type(one) for one in found} <= {Unreachable, Recovered}


@pytest.mark.parametrize("fault", [Fault.status(503), Fault.status(404), Fault.body(b"[]")])
async def test_an_invalid_answer_while_a_swapped_server_waits_is_not_taken_for_another(fault: Fault) -> None:
    """However often: it has reported which installation it is, and still waits for an acknowledgement."""
    scene = Scene()
    for backup in scene.backups.values():
        for _ in range(4):
            backup.world.add(creation_time=backup.world.now, end_time=backup.world.now)
    async with scene.fleet({"A": "one.test", "B": "two.test"}) as fleet, scene.watch(fleet) as changes:
        assert len(await until_silent(changes)) == 16
    async with scene.fleet({"A": "two.test", "B": "one.test"}) as fleet, scene.watch(fleet) as changes:
        again = [one for one in await until_silent(changes) if isinstance(one, Change)]
        assert len(again) == 16
        for backup in scene.backups.values():
            backup.fail(fault, on="ServiceInstance", times=None)
        assert {type(one) for one in await until_silent(changes)} <= {Unreachable}
        for backup in scene.backups.values():
            backup.heal()
        for change in again:
            changes.ack(change)
        assert {type(one) for one in await until_silent(changes)} <= {Recovered}


async def test_a_server_that_no_longer_has_an_api_version_has_not_removed_its_sessions() -> None:
    """An open session, older than the list that a poll reads, is requested by its ID: 404, without a body."""
    scene = Scene("v5")
    backup = scene.backups["one.test"]
    old = backup.world.add(creation_time=backup.world.now - timedelta(hours=30), end_time=None)
    backup.world.add(creation_time=backup.world.now, end_time=backup.world.now)
    async with scene.fleet({"A": "one.test"}) as fleet, scene.watch(fleet) as changes:
        assert len(await until_silent(changes)) == 3
        backup.fail(Fault.status(404), on="RestoreSessions/*")
        backup.fail(Fault.status(404), on="RestoreSessions", times=2, after=1)
        found = await until_silent(changes)
        assert not [one for one in found if isinstance(one, Removed)]
        backup.heal()
        backup.world.remove(old.id)
        removed = [one for one in await until_silent(changes) if isinstance(one, Removed)]
    assert [one.session_id for one in removed] == [old.id]
