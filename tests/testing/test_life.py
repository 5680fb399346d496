"""Starting, stopping, restarting: what a server leaves behind is nothing."""

import asyncio
import gc
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import aiohttp
import pytest
from blockbuster import blockbuster_ctx

from aiovbo.testing import Authority, BackupServer, Fault, World

PATH = "/v8/RestoreSessions"


def open_files():
    return sorted(os.listdir("/proc/self/fd"))  # the names are all it has


async def test_close_leaves_no_task_no_socket_and_no_file(client_of):
    """Whatever clients are doing: idle, stalled, in the middle of a handshake, silent."""
    await asyncio.to_thread(int)  # the loop's own thread pool is not ours
    gc.collect()
    files, tasks = open_files(), asyncio.all_tasks()
    server = BackupServer()
    await server.start()
    ca_file = server.ca_file
    assert Path(ca_file).exists()
    client = await client_of(server)
    await client.log_in()
    server.fail(Fault.stall(10))
    stalled = asyncio.create_task(client.get(PATH))
    silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(3)]
    silent[0].sendall(b"\x16\x03\x01")
    while len(server.requests) < 2:
        await asyncio.sleep(0)
    await server.close()
    left = asyncio.all_tasks() - tasks - {stalled}
    await asyncio.gather(stalled, return_exceptions=True)
    await client.http.close()
    for connection in silent:
        connection.close()
    del client, stalled
    gc.collect()
    assert not left
    assert not Path(ca_file).exists()
    assert open_files() == files


async def test_plain_http_leaves_nothing_either():
    """Without TLS silent connections are closed too."""
    server = BackupServer(tls=False)
    await server.start()
    assert server.url.startswith("http://")
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    await server.stop()
    assert await reader.read() == b""
    writer.close()
    with pytest.raises(RuntimeError, match="CA file"):
        print(server.ca_file)


async def test_restart_keeps_port_certificate_tokens_and_requests(connect):
    """A client goes on with what it has."""
    client = await connect()
    url, ca_file = client.server.url, client.server.ca_file
    await client.server.stop()
    with pytest.raises(aiohttp.ClientConnectorError):
        await client.get(PATH)
    await client.server.start()
    assert (client.server.url, client.server.ca_file) == (url, ca_file)
    assert (await client.get(PATH)).status == 200
    assert ssl.create_default_context(cafile=ca_file)
    assert client.server.logins == 1
    assert [one.status for one in client.server.requests] == [200, 200]


async def test_start_and_stop_may_be_repeated():
    """Twice is as good as once, and stopping what never ran is no error."""
    server = BackupServer(tls=False)
    await server.stop()
    assert await server.start() is await server.start()
    port = server.port
    await server.stop()
    await server.stop()
    await server.start()
    assert server.port == port
    await server.stop()


async def test_url_needs_a_start():
    """Before the first start there is no port to name."""
    server = BackupServer()
    assert "not started" in repr(server)
    with pytest.raises(RuntimeError, match="start it first"):
        print(server.url)


async def test_taken_port_is_an_oserror_and_leaves_nothing():
    """No half-started server, no CA file."""
    async with BackupServer(tls=False) as one:
        other = BackupServer(port=one.port)
        with pytest.raises(OSError, match="in use"):
            await other.start()
        assert not Path(other.ca_file).exists()
        await other.stop()


def test_server_in_a_thread_serves_and_ends():
    """Usable from code that is not async, more than once, and its thread ends with the block."""
    server = BackupServer()
    for _ in range(2):
        server.fail(Fault.stall())
        with server.run_in_thread() as running:
            assert running is server
            context = ssl.create_default_context(cafile=server.ca_file)
            raw = socket.create_connection(("127.0.0.1", server.port))
            with context.wrap_socket(raw, server_hostname="localhost") as tls:
                already = len(server.requests)
                tls.sendall(b"GET /v8/ServiceInstance HTTP/1.1\r\nHost: x\r\n\r\n")
                while len(server.requests) == already:
                    time.sleep(0.001)
        assert not [one for one in threading.enumerate() if "aiovbo" in one.name]
        assert not Path(server.ca_file).exists()


def test_failing_start_in_a_thread_is_raised_where_it_was_asked_for():
    """The error of the thread is the error of the block."""
    with (
        BackupServer(tls=False).run_in_thread() as one,
        pytest.raises(OSError, match="in use"),
        BackupServer(tls=False, port=one.port).run_in_thread(),
    ):
        pytest.fail("two servers on one port")


def test_error_in_the_block_ends_the_thread():
    """The server stops, and the error goes on."""
    server = BackupServer(tls=False)
    with pytest.raises(KeyError), server.run_in_thread():
        raise KeyError
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port))


async def test_server_never_blocks_the_loop():
    """Starting, answering and stopping do no blocking call in the event loop."""
    with blockbuster_ctx():
        async with BackupServer(World(sessions=5)) as server:
            context = server.authority.client_context()
            async with (
                aiohttp.ClientSession() as http,
                http.get(server.url + PATH, ssl=context) as response,
            ):
                assert response.status == 401


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "0.0.0.0"])  # noqa: S104  # is tried
async def test_certificate_is_good_for_every_loopback_name(host, client_of):
    """Address, name and any address verify."""
    async with BackupServer(host=host) as server:
        client = await client_of(server)
        assert (await client.get(PATH)).status == 401


async def test_servers_may_share_an_authority(client_of):
    """One CA file is good for all; a stopping server leaves it alone."""
    with Authority("vbo.example") as authority:
        async with BackupServer(authority=authority) as one:
            async with BackupServer(authority=authority) as two:
                assert one.ca_file == two.ca_file == authority.ca_file
            client = await client_of(one)
            assert (await client.get(PATH)).status == 401
        assert Path(authority.ca_file).exists()
    assert not Path(authority.ca_file).exists()


async def test_authority_is_trusted_by_no_other_client():
    """Without its CA file, or with another's, the handshake fails, and the server lives on."""
    with Authority() as other:
        async with BackupServer() as server, aiohttp.ClientSession() as http:
            for context in (ssl.create_default_context(), other.client_context()):
                with pytest.raises(aiohttp.ClientConnectorCertificateError):
                    await http.get(server.url + PATH, ssl=context)
            context = server.authority.client_context()
            async with http.get(server.url + PATH, ssl=context) as response:
                assert response.status == 401


def test_forgotten_authority_removes_its_file():
    """Without `close` the file goes with the object."""
    authority = Authority()
    path = Path(authority.ca_file)
    assert path.exists()
    del authority
    gc.collect()
    assert not path.exists()


def test_missing_trustme_says_what_to_install():
    """TLS needs the extra, and the message names it; the package itself imports without."""
    code = (
        "import sys; sys.modules['trustme'] = None\n"
        "from aiovbo.testing import Authority, BackupServer\n"
        "import asyncio\n"
        "asyncio.run(BackupServer(tls=False).start().__class__ and asyncio.sleep(0))\n"
        "try: Authority()\n"
        "except ImportError as error: print(error)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=150
    )
    assert "the extra 'testing' of aiovbo installs" in run.stdout, run.stderr


def test_versions_are_checked():
    """An API version that does not exist is refused at once."""
    for options in ({"version": "v9"}, {"versions": ["v3"]}):
        with pytest.raises(ValueError, match="v4, v5, v6, v7, v8"):
            BackupServer(**options)


async def test_large_listings_are_answered(connect):
    """10,000 sessions in a bare array come whole, and in time."""
    world = World(sessions=10_000, speed=0)
    client = await connect(world, version="v4", list_shape="array")
    assert len((await client.get("/v4/RestoreSessions")).body) == 10_000
