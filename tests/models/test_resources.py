"""Files, memory, threads, processes, a blocked event loop: resources that run short."""

import asyncio
import gc
import os
import subprocess
import sys
import time
import tracemalloc
import weakref
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest
from harness.backups import server_of
from harness.raw import RawServer, http, json_answer, vbo_routes

from aiovbo import TLS, Client, ClosedError, Fleet, Password, RestoreSession, Server, UnreachableError
from aiovbo.testing import BackupFleet, BackupServer, Fault, World

LOGIN = Password("u", "p")


def plain(raw: RawServer, name: str | None = None) -> Server:
    """A v4 server at a plain address."""
    # Credentials of its own: one server is in a fleet once.
    login = Password(name or LOGIN.username, "p")
    return Server(raw.url, login, allow_http=True, api_version="v4", name=name)


async def test_without_a_file_descriptor_left_the_error_says_what_to_raise() -> None:
    """Others took them all after the client was opened; when they are given back, all is well."""
    resource = pytest.importorskip("resource")
    async with RawServer(vbo_routes()) as raw, Client(plain(raw), retries=0) as client:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        used = len(os.listdir("/dev/fd"))  # names suffice
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 8, hard))
        taken: list[int] = []
        try:
            with pytest.raises(OSError, match="Too many open files"):
                while True:
                    taken.append(os.open(os.devnull, os.O_RDONLY))
            with pytest.raises(UnreachableError, match="ulimit -n") as caught:
                await client.restore_sessions()
            assert caught.value.retryable
        finally:
            for descriptor in taken:
                os.close(descriptor)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert await client.restore_sessions() == []


async def test_a_loop_that_was_blocked_is_no_timeout() -> None:
    """The answer had come long before the loop was free to read it."""
    with BackupServer().run_in_thread() as backup:
        async with Client(server_of(backup), read_timeout=0.3, retries=0) as client:
            await client.restore_sessions()
            backup.fail(Fault.delay(0.05))
            asking = asyncio.create_task(client.restore_sessions().answer())
            await asyncio.sleep(0.02)
            assert not asking.done()
            held_until = time.monotonic() + 0.6
            while time.monotonic() < held_until:
                pass
            assert (await asking).error is None


Refs = list[weakref.ref[RestoreSession]]


def refs(sessions: Iterable[RestoreSession]) -> Refs:
    """The sessions, without keeping them."""
    return [weakref.ref(session) for session in sessions]


async def streamed(fleet: Fleet, _: BackupFleet) -> Refs:
    """Item by item."""
    return [weakref.ref(session) async for session in fleet.restore_sessions()]


async def awaited(fleet: Fleet, _: BackupFleet) -> Refs:
    """All at once."""
    return refs((await fleet.restore_sessions()).items)


async def by_one_client(fleet: Fleet, _: BackupFleet) -> Refs:
    """Of one server."""
    return refs(await fleet[next(iter(fleet))].restore_sessions())


async def left_early(fleet: Fleet, _: BackupFleet) -> Refs:
    """With pages read ahead."""
    async with fleet.restore_sessions(page_size=2) as query:
        async for session in query:
            return [weakref.ref(session)]
    raise AssertionError


async def with_a_failure(fleet: Fleet, backups: BackupFleet) -> Refs:
    """Of a server that answers nonsense."""
    backups[0].fail(Fault.body(b"nope"), on="RestoreSessions")
    result = await fleet.restore_sessions()
    assert result.failed
    return refs(result.items)


async def cancelled(fleet: Fleet, backups: BackupFleet) -> Refs:
    """By the caller's own limit."""
    backups[0].fail(Fault.stall(), on="RestoreSessions")
    with suppress(TimeoutError):
        async with asyncio.timeout(0.05):
            await fleet.restore_sessions()
    return await by_one_client(fleet, backups)


async def with_a_bug(fleet: Fleet, backups: BackupFleet) -> Refs:
    """The caller's own."""

    async def ask(_: Client) -> None:
        raise KeyError

    with suppress(KeyError):
        await fleet.map(ask)
    return await by_one_client(fleet, backups)


@pytest.mark.parametrize(
    "ask", [streamed, awaited, by_one_client, left_early, with_a_failure, cancelled, with_a_bug]
)
async def test_what_a_query_brought_is_freed_with_its_server(
    ask: Callable[[Fleet, BackupFleet], Awaitable[Refs]],
) -> None:
    """By reference counts: polling must neither depend on the garbage collector nor keep it busy."""
    async with BackupFleet(2, versions=("v8", "v4")) as backups:
        login = Password(backups.username, backups.password)
        async with Fleet(backups.urls, login, tls=TLS(ca_file=backups.ca_file), retries=0) as fleet:
            await fleet.restore_sessions()
            gc.collect()
            gc.disable()
            try:
                found = await ask(fleet, backups)
                await asyncio.sleep(0.01)
                assert found
                gc.set_debug(gc.DEBUG_SAVEALL)
                gc.collect()
                left = [type(thing) for thing in gc.garbage if type(thing).__module__.startswith("aiovbo.")]
                assert left == []
                gc.set_debug(0)
                # Until then the next poll may recognize them.
                for name in list(fleet):
                    fleet.remove(name)
                await asyncio.sleep(0.01)
                assert [ref() for ref in found if ref() is not None] == []
            finally:
                gc.set_debug(0)
                gc.garbage.clear()
                gc.enable()


async def test_the_applications_own_threads_are_not_needed() -> None:
    """Neither names, files nor certificates wait for a default executor that is full."""
    loop = asyncio.get_running_loop()
    executor = ThreadPoolExecutor(1)
    loop.set_default_executor(executor)
    async with RawServer(vbo_routes()) as raw:
        busy = loop.run_in_executor(None, time.sleep, 1.0)
        server = Server(f"http://localhost:{raw.port}", LOGIN, allow_http=True, api_version="v4")
        async with asyncio.timeout(0.9), Client(server) as client:
            assert await client.restore_sessions() == []
        await busy
    executor.shutdown()


def test_a_client_does_not_work_in_a_forked_process() -> None:
    """It would share its connections with the parent, answer for answer."""
    code = """
import asyncio, os
from aiovbo import Client, ClosedError, Password, Server
async def ask(client):
    await client.restore_sessions()
async def main():
    client = Client(Server("http://127.0.0.1:1", Password("u", "p"), allow_http=True))
    await client._pool.open()
    child = os.fork()
    if child == 0:
        try:
            asyncio.run(ask(client))
        except ClosedError as error:
            os._exit(7 if "one per process" in str(error) else 1)
        os._exit(2)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    await client.aclose()
    raise SystemExit(status)
asyncio.run(main())
"""
    if not hasattr(os, "fork"):
        pytest.skip("this system does not fork")
    assert run(code).returncode == 7


def test_closing_in_a_forked_process_leaves_the_parent_its_connections() -> None:
    """As a library does that closes all it finds; the parent goes on over the connection it had."""
    code = """
import asyncio, os
from aiovbo import Client, Password, Server, TLS
from aiovbo.testing import BackupServer
async def main(backup):
    login, trust = Password(backup.username, backup.password), TLS(ca_file=backup.ca_file)
    async with Client(Server(backup.url, login, tls=trust), retries=0, deadline=5) as client:
        before = len(await client.restore_sessions())
        if not (child := os.fork()):
            asyncio.events._set_running_loop(None)
            asyncio.run(client.aclose())
            os._exit(7)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(status, len(await client.restore_sessions()) == before)
with BackupServer().run_in_thread() as backup:
    asyncio.run(main(backup))
"""
    if not hasattr(os, "fork"):
        pytest.skip("this system does not fork")
    ended = run(code)
    assert ended.stdout.strip() == "7 True", ended.stderr


def test_a_program_that_forgets_to_close_ends_with_a_warning_and_no_traceback() -> None:
    """Python's own warning of what was left open, where it is asked for; nothing else."""
    code = """
import asyncio
from aiovbo import Client, Password, Server
async def main():
    global client
    client = Client(Server("http://127.0.0.1:1", Password("u", "p"), allow_http=True), retries=0)
    print((await client.restore_sessions().answer()).error.phase)
asyncio.run(main())
"""
    ended = run(code)
    assert ended.returncode == 0
    assert ended.stdout.strip() == "connect"
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("how", ["-O", "-X dev", "eager", "uvloop"])
def test_the_result_is_the_same_however_python_runs(how: str) -> None:
    """Without asserts, with asyncio's debug checks, with eager tasks, on uvloop."""
    eager = how == "eager"
    if eager and sys.version_info < (3, 12):
        pytest.skip("needs Python 3.12")
    loop = "None"
    if how == "uvloop":
        pytest.importorskip("uvloop")
        loop = "__import__('uvloop').new_event_loop"
    code = f"""
import asyncio
from aiovbo import Fleet, Server, Password, TLS
from aiovbo.testing import BackupFleet
async def main():
    if {eager}:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
    async with BackupFleet(3, sessions=5) as backups:
        login = Password(backups[0].username, backups[0].password)
        trust = TLS(ca_file=backups[0].ca_file)
        async with Fleet([b.url for b in backups], login, tls=trust) as fleet:
            result = await fleet.restore_sessions()
            names = {{(await s.fetch_organization()).name == s.organization for s in result.items}}
            print(len(result.items), len(result.failed), names)
with asyncio.Runner(loop_factory={loop}) as runner:
    runner.run(main())
"""
    ended = run(code, *(how.split() if how.startswith("-") else []))
    assert ended.stdout.strip() == "15 0 {True}", ended.stderr
    assert "Traceback" not in ended.stderr


async def test_two_fleets_may_share_the_applications_session() -> None:
    """Neither closes it, and each logs in for itself."""
    async with RawServer(vbo_routes()) as raw, aiohttp.ClientSession() as http_session:
        async with (
            Fleet([plain(raw)], http=http_session) as one,
            Fleet([plain(raw)], http=http_session) as two,
        ):
            results = await asyncio.gather(one.restore_sessions(), two.restore_sessions())
        assert not any(result.failed for result in results)
        assert not http_session.closed
        assert len(raw.asked("POST", "/v4/token")) == 2


async def test_links_that_are_followed_inside_a_stream_never_wait_for_themselves() -> None:
    """One server at a time, one connection each: nothing holds what the other needs."""
    async with BackupFleet(3, sessions=4) as backups:
        servers = [server_of(backup, name=backup.name) for backup in backups]
        async with asyncio.timeout(30), Fleet(servers, concurrency=1, connections=1) as fleet:
            seen = 0
            async for session in fleet.restore_sessions(page_size=2):
                assert (await session.fetch_organization()).name == session.organization
                seen += 1
        assert seen == 12


async def test_many_large_pages_at_once_cost_memory_for_themselves_only() -> None:
    """20 servers of a megabyte each: the peak stays below a few times what was sent."""
    filler = "x" * 1_000_000
    session = {"id": "0800471b-d0e2-422b-9d7c-35d15661c3fb", "creationTime": "2026-01-01T00:00:00Z"}
    routes = vbo_routes(sessions=json_answer([{**session, "details": filler}]))
    async with RawServer(routes) as raw:
        servers = [plain(raw, f"vbo{number}") for number in range(20)]
        async with Fleet(servers) as fleet:
            await fleet.restore_sessions()
            gc.collect()
            tracemalloc.start()
            try:
                async for answer in fleet.restore_sessions().answers():
                    assert answer.error is None
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
        assert peak < 20 * 1_000_000 * 4


async def test_an_answer_is_never_taken_for_that_of_another_request() -> None:
    """Requests cancelled at random leave no half-read connection to the next one."""
    world = World(sessions=30, speed=0)
    async with BackupServer(world) as backup, Client(server_of(backup), connections=2) as client:
        sessions = await client.restore_sessions()
        backup.fail(Fault.delay(0.003), times=None)
        for number in range(120):
            one, other = sessions[number % 30], sessions[(number + 7) % 30]
            cancelled = asyncio.create_task(one.refresh())
            wanted = asyncio.create_task(other.refresh())
            await asyncio.sleep(0.0005 * (number % 12))
            cancelled.cancel()
            assert (await wanted).id == other.id
            await asyncio.wait([cancelled])


async def test_the_servers_clock_is_measured_and_not_trusted() -> None:
    """It is four hours ahead: the listing is as ever, and the client says by how much."""
    ahead = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 4 * 3600))
    for date, skew in ((ahead, pytest.approx(4 * 3600, abs=2)), ("yesterday", None)):
        script = http(body=b"[]", headers=[("Date", date)])
        async with RawServer(vbo_routes(sessions=script)) as raw, Client(plain(raw)) as client:
            assert client.clock_skew is None
            assert await client.restore_sessions() == []
            assert client.clock_skew == skew


async def test_a_link_of_a_closed_client_states_that_it_is_closed() -> None:
    """Also those who took a value from it long ago."""
    async with BackupServer() as backup:
        async with Client(server_of(backup)) as client:
            session = (await client.restore_sessions())[0]
        with pytest.raises(ClosedError):
            await session.fetch_organization()


def run(code: str, *options: str) -> subprocess.CompletedProcess[str]:
    """A program in a process of its own, with what it printed."""
    return subprocess.run(
        [sys.executable, *options, "-c", code],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
        cwd=Path(__file__).parents[2],
    )
