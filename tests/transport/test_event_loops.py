"""A fleet or client belongs to one event loop: other threads, and a loop that is closed too early."""

import asyncio
import re
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest
from harness.backups import server_of
from harness.watches import NOW

from aiovbo import TLS, Bearer, ClosedError, ConfigError, Fleet, Server
from aiovbo.testing import BackupServer, World


async def query_a_fleet(fleet: Fleet) -> None:
    """Ask all servers."""
    (await fleet.restore_sessions()).raise_for_failures()


async def query_a_client(fleet: Fleet) -> None:
    """Ask one server."""
    await fleet["vbo"].restore_sessions()


async def fetch(fleet: Fleet) -> None:
    """Fetch one resource."""
    await fleet["vbo"].fetch("Organizations")


async def enter(fleet: Fleet) -> None:
    """Open it."""
    await fleet.__aenter__()


async def watch(fleet: Fleet) -> None:
    """Watch all servers."""
    async with fleet.watch(every=timedelta(hours=1)):
        pass


@pytest.mark.parametrize("version", ["auto", "v8"])
@pytest.mark.parametrize("use", [query_a_fleet, query_a_client, fetch, enter, watch])
async def test_the_first_use_from_several_threads_is_a_closed_error(
    use: Callable[[Fleet], Awaitable[None]], version: str
) -> None:
    """One thread gets its result; no other one hangs."""
    count = 4
    async with BackupServer(World(now=NOW, speed=0, sessions=1), version="v8") as backup:
        fleet = Fleet([server_of(backup, name="vbo", api_version=version)], deadline=20)
        start, have_used = threading.Barrier(count), threading.Barrier(count)

        async def use_and_close() -> BaseException | None:
            error: BaseException | None = None
            start.wait()
            try:
                await use(fleet)
            except ClosedError as closed:
                error = closed
            await asyncio.to_thread(have_used.wait)
            if error is None:
                await fleet.aclose()
            return error

        threads = (asyncio.to_thread(asyncio.run, use_and_close()) for _ in range(count))
        errors = await asyncio.gather(*threads)
    assert [error for error in errors if error is None] == [None]
    assert all("another event loop" in str(error) for error in errors if error is not None)


def test_a_fleet_that_could_not_be_opened_can_be_opened_in_another_loop() -> None:
    """It was never in use."""
    fleet = Fleet([Server("vbo1", Bearer("t"), tls=TLS(ca_file="/nowhere.pem"))])

    async def use() -> None:
        await fleet.restore_sessions()

    for _ in range(2):
        with pytest.raises(ConfigError, match="cannot be used"):
            asyncio.run(use())


CLOSED_LOOP = """
import asyncio, logging, os, socket, sys
from datetime import timedelta
from aiovbo import Bearer, Checkpoint, Fleet, Server

logging.basicConfig(level="WARNING", format="%(message)s", stream=sys.stdout)

async def begin(kind):
    if kind == "query":
        asyncio.ensure_future(owner[kind].restore_sessions().answer())
    elif kind == "stream":
        asyncio.ensure_future(anext(aiter(owner.restore_sessions())))
    elif kind == "watch":
        await owner.watch(every=timedelta(hours=1), checkpoint=store).__aenter__()
    elif kind == "closing":
        asyncio.ensure_future(owner[kind].restore_sessions().answer())
    silent, _ = await asyncio.get_running_loop().sock_accept(listening)
    if kind == "closing":
        asyncio.ensure_future(owner.aclose())
        await asyncio.sleep(0)
    return silent

async def close():
    await owner.aclose()
    await owner.aclose()

async def open_again():
    await Checkpoint(sys.argv[1]).open()

with socket.create_server(("127.0.0.1", 0)) as listening:
    listening.setblocking(False)
    store = Checkpoint(sys.argv[1])
    url = f"https://127.0.0.1:{listening.getsockname()[1]}"
    for kind in ("query", "stream", "closing", "watch"):
        owner = Fleet([Server(url, Bearer("t"), api_version="v8", name=kind)])
        loop = asyncio.new_event_loop()
        silent = loop.run_until_complete(begin(kind))
        loop.close()
        asyncio.run(close())
        silent.setblocking(True)
        silent.settimeout(100)
        while silent.recv(65536):
            pass
    asyncio.run(open_again())
    sys.stdout.flush()
    os._exit(0)
"""


def test_a_fleet_whose_event_loop_was_closed_during_a_use_can_be_closed(tmp_path: Path) -> None:
    """Sockets and files are closed, a warning says what was not done, and to close it again does nothing."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CLOSED_LOOP, str(tmp_path / "place")],
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr
    closed = re.findall(r"event loop was closed before the fleet or client \((\w+)\)", done.stdout)
    assert closed == ["query", "stream", "closing", "watch"]
