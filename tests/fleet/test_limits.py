"""How many servers and descriptors a fleet uses at the same time."""

import asyncio
import os
from datetime import timedelta

import pytest
from harness.backups import server_of
from harness.raw import ANY, Connection, RawServer, json_answer

from aiovbo import (
    Bearer,
    Client,
    Fleet,
    Password,
    Server,
)
from aiovbo._fleet.run import SLOT_RELEASED_AFTER
from aiovbo._transport.descriptors import SPARED_DESCRIPTORS
from aiovbo.testing import BackupFleet

ALL = timedelta(days=400)
LOGIN = Password("portal", "secret")


def servers_of(backups: BackupFleet) -> list[Server]:
    """How the SDK reaches all of them."""
    return [server_of(backup) for backup in backups]


async def test_no_more_servers_are_asked_at_once_than_allowed_unless_they_take_long() -> None:
    """While all are quick, the others wait for their turn; all get one, and no query leaves more of them."""
    async with Fleet([f"https://vbo{n}.example" for n in range(20)], LOGIN, concurrency=3) as fleet:
        at_once: list[int] = []
        asked = 0

        async def ask(client: Client) -> str:
            nonlocal asked
            asked += 1
            at_once.append(asked)
            await asyncio.sleep(0)
            asked -= 1
            return client.name

        quick = False
        while not quick:
            # Where the machine stops for a while, they do take long.
            at_once.clear()
            began = asyncio.get_running_loop().time()
            for _ in range(2):
                assert (await fleet.map(ask)).items == tuple(fleet)
            quick = asyncio.get_running_loop().time() - began < SLOT_RELEASED_AFTER
        assert max(at_once) == 3


async def test_a_fleet_larger_than_its_file_descriptors_still_works(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """30 servers where there is room for a few connections: all answer, and a warning says what to raise."""
    resource = pytest.importorskip("resource")
    async with BackupFleet(30, sessions=1) as backups:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        used = len(os.listdir("/dev/fd"))  # names suffice
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + SPARED_DESCRIPTORS + 8, hard))
        try:
            async with Fleet(servers_of(backups)) as fleet:
                result = await fleet.restore_sessions(started_after=ALL)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert [answer.error for answer in result.failed] == []
        assert len(result.answers) == 30
        assert "ulimit -n" in caplog.text


async def test_few_file_descriptors_are_shared_by_the_servers_of_a_fleet() -> None:
    """With room for two connections to each server, no more than two requests to one are under way."""
    resource = pytest.importorskip("resource")
    together, most = 0, 0
    both = asyncio.Event()

    async def count(connection: Connection) -> None:
        nonlocal together, most
        together += 1
        most = max(most, together)
        if together == 2:
            both.set()
        await both.wait()
        # Time for a third request, if one is sent.
        await asyncio.sleep(0.1)
        together -= 1
        await connection.send(json_answer({"results": [], "_links": {}}))

    async with RawServer({("GET", ANY): count}) as raw:
        one = Server(raw.url, Bearer("t"), api_version="v8", allow_http=True, name="asked")
        others = [Server(f"vbo{number}", Bearer("t")) for number in range(9)]
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        used = len(os.listdir("/dev/fd"))  # names suffice
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + SPARED_DESCRIPTORS + 25, hard))
        try:
            async with Fleet([one, *others], retries=0) as fleet:
                asking = [fleet["asked"].restore_sessions() for _ in range(6)]
                assert await asyncio.gather(*asking) == [[]] * 6
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert most == 2
