"""Several servers at once: one authority, one login, worlds of their own."""

import asyncio
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from aiovbo.testing import Authority, BackupFleet, BackupServer, World


async def test_fleet_shares_authority_and_login(client_of):
    """Every server verifies with the one CA file and takes the one login."""
    async with BackupFleet(5) as fleet:
        assert len(fleet) == len(set(fleet.urls)) == 5
        assert [server.version for server in fleet] == ["v8", "v7", "v6", "v5", "v4"]
        assert fleet[0] is fleet.servers[0] is next(iter(fleet))
        for server in fleet:
            assert server.ca_file == fleet.ca_file
            client = await client_of(server)
            await client.log_in()
            answer = await client.get(f"/{server.version}/RestoreSessions")
            assert answer.status == 200
        assert {(server.username, server.password) for server in fleet} == {(fleet.username, fleet.password)}
    assert not Path(fleet.ca_file).exists()


async def test_fleet_is_determined_by_its_seed():
    """Each server has another world, and the same one for the same seed."""
    now = World().now
    one, same, other = [BackupFleet(3, seed=seed, now=now, speed=0) for seed in (1, 1, 2)]
    assert [server.world.sessions for server in one] == [server.world.sessions for server in same]
    ids = {session.id for fleet in (one, other) for server in fleet for session in server.world.sessions}
    assert len(ids) == 2 * 3 * 40


async def test_two_hundred_servers_share_one_key():
    """It is made once, so that they start at once."""
    async with BackupFleet(200) as fleet:
        assert len(set(fleet.urls)) == 200
        assert {server.ca_file for server in fleet} == {fleet.ca_file}
        ports = [server.port for server in (fleet[0], fleet[199])]
        shown = [await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port)) for port in ports]
    assert shown[0] == shown[1]


def test_two_hundred_servers_take_twenty_mebibytes():
    """In a process of its own, from before the first is made until all listen."""
    program = """
import asyncio, gc, tracemalloc
from aiovbo.testing import BackupFleet

async def main():
    gc.collect()
    tracemalloc.start()
    async with BackupFleet(200):
        print(tracemalloc.get_traced_memory()[0])

asyncio.run(main())
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 1 << 20 < int(ran.stdout) < 20 << 20


async def test_fleet_takes_servers_that_were_made_already(client_of):
    """Those without an authority get the fleet's, the others keep their own."""
    with Authority() as authority:
        given = [BackupServer(), BackupServer(authority=authority), BackupServer(tls=False)]
        async with BackupFleet(given) as fleet:
            assert fleet.servers == tuple(given)
            assert given[0].ca_file == fleet.ca_file != given[1].ca_file
            for server in fleet:
                assert (await (await client_of(server)).get("/v8/RestoreSessions")).status == 401


async def test_fleet_restarts_on_its_ports():
    """As a single server does."""
    fleet = BackupFleet(2)
    async with fleet:
        urls = fleet.urls
    async with fleet:
        assert fleet.urls == urls
        assert Path(fleet.ca_file).exists()


async def test_fleet_that_cannot_start_leaves_nothing():
    """A taken port stops what had started."""
    async with BackupServer(tls=False) as taken:
        free = BackupServer()
        fleet = BackupFleet([free, BackupServer(port=taken.port)])
        with pytest.raises(OSError, match="in use"):
            await fleet.start()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", free.port)
        assert not Path(fleet.ca_file).exists()


async def test_fleet_runs_in_a_thread(client_of):
    """For code that is not async."""
    with BackupFleet(2).run_in_thread() as fleet:
        for server in fleet:
            assert (await (await client_of(server)).get("/v8/RestoreSessions")).status in {401, 404}


def test_fleet_needs_a_server_and_names_its_ca_file_after_the_start():
    """An empty fleet is refused; before the start there is no CA file."""
    with pytest.raises(ValueError, match="needs a server"):
        BackupFleet(0)
    with pytest.raises(RuntimeError, match="start it first"):
        print(BackupFleet(1).ca_file)
