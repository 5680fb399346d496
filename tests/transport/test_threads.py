"""Blocking calls in a bounded number of threads: name look-ups that hang, and systems without threads.

The operating system's own look-up is replaced: there is no other way to have a name server that hangs.
"""

import asyncio
import os
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from harness.backups import beside_a_healthy_server, server_of
from harness.raw import RawServer, vbo_routes

from aiovbo import (
    Bearer,
    Checkpoint,
    CheckpointError,
    Client,
    Fleet,
    Password,
    Server,
    ServerError,
    ServerTimeoutError,
    UnreachableError,
    fetch_certificate,
)
from aiovbo._core.threads import LIMIT, NoThreadError, Threads, look_up
from aiovbo.testing import BackupServer

LOGIN = Password("u", "p")
NAME = "aiovbo blocking call"


def count() -> int:
    """How many threads of the SDK there are."""
    return sum(thread.name == NAME for thread in threading.enumerate())


class NameServer:
    """Stands for the operating system's look-ups of names under `.test`: those with "hang" in them hang."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.most_threads = 0
        self.answers = threading.Event()
        self.fails_with: BaseException | None = None
        self._real = socket.getaddrinfo

    def look_up(self, host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
        """As getaddrinfo does."""
        if not str(host).endswith(".test"):
            return self._real(host, port, *arguments, **options)
        self.asked[host] += 1
        self.most_threads = max(self.most_threads, count())
        if "hang" in host:
            self.answers.wait(30)
        if self.fails_with is not None:
            raise self.fails_with
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServer]:
    """Answers at the end of the test, so that no thread stays behind."""
    server = NameServer()
    monkeypatch.setattr(socket, "getaddrinfo", server.look_up)
    yield server
    server.answers.set()


@pytest.fixture
def no_thread(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Lets the operating system refuse every thread of the SDK after so many."""
    real = threading.Thread.start

    def refuse_after(most: int) -> None:
        def start(self: threading.Thread) -> None:
            if self.name == NAME and count() >= most:
                message = "can't start new thread"
                raise RuntimeError(message)
            real(self)

        monkeypatch.setattr(threading.Thread, "start", start)

    return refuse_after


def named(name: str, port: int = 1, **more: Any) -> Server:
    """A v4 server under a name."""
    return Server(f"http://{name}:{port}", LOGIN, allow_http=True, api_version="v4", name=name, **more)


async def settled(waiting: list[asyncio.Task[Any]]) -> None:
    """Every one of them is cancelled and has ended."""
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)


async def begun(condition: Callable[[], bool]) -> None:
    """Return once it holds; the test's own time limit ends it."""
    while not condition():
        await asyncio.sleep(0.001)


# ------------------------------------------------------------------------------- look-ups that hang


@pytest.mark.parametrize("zone", ["dead.test", "{n}.test"], ids=["one domain", "many domains"])
async def test_hung_look_ups_leave_threads_to_other_names(names: NameServer, zone: str) -> None:
    """Whatever hangs: names of one domain, or of as many domains, which have hung before."""
    threads = Threads(limit=16, reserved=2)
    hung = [f"hang{n}.{zone.format(n=n)}" for n in range(100)]
    if "{" in zone:
        threads._last.update(dict.fromkeys(hung, "hung"))  # as after a look-up that hung
    waiting = [asyncio.ensure_future(threads.look_up(name, 1)) for name in hung]
    await begun(lambda: sum(names.asked.values()) >= 6)
    for name in ("vbo1.tech.test", "vbo2.other.test"):
        ((*_, address),) = await threads.look_up(name, 4443)
        assert address == ("127.0.0.1", 4443)
    assert sum(names.asked.values()) - 2 <= 8
    await settled(waiting)


async def test_a_name_that_was_quick_is_not_held_up_by_its_neighbours(names: NameServer) -> None:
    """Also those of its own domain, where nothing else is known of them."""
    threads = Threads(limit=16, reserved=2)
    await threads.look_up("vbo1.dead.test", 1)
    waiting = [asyncio.ensure_future(threads.look_up(f"hang{n}.dead.test", 1)) for n in range(100)]
    await begun(lambda: sum(names.asked.values()) >= 7)
    assert await threads.look_up("vbo1.dead.test", 1)
    await settled(waiting)


async def test_a_fleet_with_hung_names_has_few_threads_and_hurts_no_named_server(names: NameServer) -> None:
    """300 servers that are never resolved, before one that is."""
    async with RawServer(vbo_routes()) as raw:
        hung = [named(f"hang{n}.dead.test") for n in range(300)]
        fleet = Fleet([*hung, named("vbo.tech.test", raw.port)], connect_timeout=1.5, retries=0)
        async with fleet:
            result = await fleet.restore_sessions()
    assert result.answers["vbo.tech.test"].error is None
    assert len(result.failed) == 300
    assert {(type(one.error), one.error and one.error.phase) for one in result.failed} == {
        (ServerTimeoutError, "dns")
    }
    assert names.most_threads <= LIMIT / 2 + 1


async def test_callers_share_one_look_up_of_a_name(names: NameServer) -> None:
    """Whichever of them leaves; so a server that hangs and is polled holds one thread."""
    threads = Threads()
    waiting = [asyncio.ensure_future(threads.look_up("hang.test", 1)) for _ in range(20)]
    await begun(lambda: names.asked["hang.test"] == 1)
    for task in waiting[:10]:
        task.cancel()
    late = asyncio.ensure_future(threads.look_up("hang.test", 1))
    await asyncio.sleep(0)
    names.answers.set()
    found = await asyncio.gather(*waiting[10:], late)
    assert len(found) == 11
    assert names.asked["hang.test"] == 1


async def test_a_queued_look_up_is_not_begun_once_every_caller_has_left(names: NameServer) -> None:
    """It would hold a thread that others need; a later caller has a look-up of its own."""
    threads = Threads(limit=1, reserved=0)
    first = asyncio.ensure_future(threads.look_up("hang.test", 1))
    await begun(lambda: names.asked["hang.test"] == 1)
    queued = asyncio.ensure_future(threads.look_up("vbo1.test", 1))
    await asyncio.sleep(0)
    await settled([queued])
    again = asyncio.ensure_future(threads.look_up("vbo2.test", 1))
    names.answers.set()
    await asyncio.gather(first, again)
    assert "vbo1.test" not in names.asked
    assert await threads.look_up("vbo1.test", 1)


async def test_many_look_ups_reuse_few_threads(names: NameServer) -> None:
    """500 names at once; each is looked up."""
    threads = Threads()
    await asyncio.gather(*(threads.look_up(f"vbo{n}.test", 1) for n in range(500)))
    assert len(names.asked) == 500
    assert names.most_threads <= LIMIT / 2


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "fe80::1%1"])
async def test_an_ip_address_needs_no_thread(host: str, no_thread: Callable[[int], None]) -> None:
    """Where none could be started."""
    no_thread(0)
    (found,) = await look_up(host, 4443)
    assert (found.host, found.port) == (host, 4443)


# ------------------------------------------------------------------------------------- no thread left


async def test_without_threads_only_servers_with_names_fail(no_thread: Callable[[int], None]) -> None:
    """Nor does the opening of the fleet need one."""
    no_thread(0)
    async with (
        BackupServer() as backup,
        Fleet(
            [server_of(backup, name="here"), *(named(f"vbo{n}.test") for n in range(20))], retries=0
        ) as fleet,
    ):
        result = await fleet.restore_sessions()
        assert len(result.answers["here"].items) == 40
        assert len(result.failed) == 20
        for answer in result.failed:
            assert type(answer.error) is UnreachableError
            assert answer.error.phase == "dns"
            assert answer.error.retryable
            assert "no thread is left" in str(answer.error)
        streamed = {answer.server: answer async for answer in fleet.restore_sessions().answers()}
        assert streamed["here"].error is None
        assert len(streamed) == 21


async def test_look_ups_wait_for_the_threads_that_there_are(
    no_thread: Callable[[int], None], names: NameServer
) -> None:
    """Where three threads are all that can be had, 100 names are looked up by them."""
    no_thread(3)
    threads = Threads()
    found = await asyncio.gather(*(threads.look_up(f"vbo{n}.test", 1) for n in range(100)))
    assert len(found) == len(names.asked) == 100
    assert names.most_threads <= 3


async def test_without_threads_a_secret_file_is_its_servers_failure_and_a_checkpoint_an_error(
    no_thread: Callable[[int], None], tmp_path: Path
) -> None:
    """Neither is accessed in the event loop, where it may take long."""
    secret = tmp_path / "secret"
    secret.write_text("p")
    kept = {"username": "u", "password": {"file": str(secret)}}
    server = {"url": "http://127.0.0.1:1", "allow_http": True, "api_version": "v8", "credentials": kept}
    fleet = Fleet.from_mapping({"servers": {"a": server}})
    no_thread(0)
    async with fleet:
        answer = await fleet["a"].restore_sessions().answer()
    assert isinstance(answer.error, ServerError)
    assert "cannot start another thread" in str(answer.error)
    with pytest.raises(CheckpointError, match="cannot start another thread"):
        await Checkpoint(tmp_path / "checkpoint.db").open()


async def test_a_certificate_is_shown_or_not_without_the_event_loops_threads(
    no_thread: Callable[[int], None],
) -> None:
    """An address needs none, and a name fails as it does in a query."""
    no_thread(0)
    async with BackupServer() as backup:
        assert (await fetch_certificate(backup.url)).pin
    with pytest.raises(UnreachableError, match="no thread is left") as caught:
        await fetch_certificate("https://vbo1.test")
    assert caught.value.phase == "dns"


async def test_a_refused_call_is_not_queued(no_thread: Callable[[int], None]) -> None:
    """It raises at once, and later ones begin as soon as there are threads again."""
    threads = Threads()
    no_thread(0)
    with pytest.raises(NoThreadError):
        await threads.run(lambda: 1)
    no_thread(1)
    assert await threads.run(lambda: 2) == 2


# -------------------------------------------------------------- whatever the operating system raises


@pytest.mark.parametrize(
    "error",
    [
        socket.gaierror(socket.EAI_AGAIN, "try again"), OSError(12, "Cannot allocate memory"), MemoryError(),
        RuntimeError("can't start new thread"), UnicodeError("label too long"), ValueError("null"),
        OverflowError("port"), SystemError("odd"),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
async def test_whatever_a_look_up_raises_is_that_servers_failure(error: Exception, names: NameServer) -> None:
    """Of the phase in which it happened."""
    names.fails_with = error
    async with beside_a_healthy_server(named("odd.test")) as fleet:
        result = await fleet.restore_sessions()
    (answer,) = result.failed
    assert type(answer.error) is UnreachableError
    assert answer.error.phase == "dns"
    assert len(result.answers["healthy"].items) == 40


class Odd(aiohttp.TCPConnector):
    """A connector that raises instead of connecting to one host."""

    error: BaseException = RuntimeError()

    async def connect(self, req: Any, *arguments: Any, **options: Any) -> Any:
        """As aiohttp's does."""
        if req.url.host == "odd.test":
            raise self.error
        return await super().connect(req, *arguments, **options)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("can't start new thread"), RuntimeError("odd"), MemoryError(), OSError(28, "No space"),
        ValueError("Bearer tok-7654321"), KeyError("Bearer tok-7654321"), OverflowError(), AssertionError(),
        UnicodeDecodeError("ascii", b"\xff", 0, 1, "odd"), TimeoutError(),
    ],
    ids=lambda error: f"{type(error).__name__} {error}",
)  # fmt: skip
async def test_whatever_the_http_library_raises_is_that_servers_failure(error: Exception) -> None:
    """Without its text, which may quote the request; the other servers are not affected."""
    odd = Server("http://odd.test", Bearer("tok-7654321"), allow_http=True, api_version="v4", name="odd")
    async with BackupServer() as backup, aiohttp.ClientSession(connector=Odd()) as session:
        assert isinstance(session.connector, Odd)
        session.connector.error = error
        async with Fleet([odd, server_of(backup, name="here")], retries=0, http=session) as fleet:
            result = await fleet.restore_sessions()
    (answer,) = result.failed
    assert isinstance(answer.error, UnreachableError)
    assert answer.error.server == "odd"
    assert "tok-7654321" not in f"{answer.error!r} {answer.error}"
    assert len(result.answers["here"].items) == 40


async def test_a_response_for_which_there_is_no_memory_is_that_servers_failure() -> None:
    """The other servers' sessions are delivered; a bug is raised as ever."""

    async def ask(client: Client) -> int:
        if client.name == "large":
            raise MemoryError
        return len(await client.restore_sessions())

    async with BackupServer() as backup:
        servers = [server_of(backup, name="here"), named("large")]
        async with Fleet(servers, retries=0) as fleet:
            result = await fleet.map(ask)
    assert result.answers["here"].items == (40,)
    (answer,) = result.failed
    assert isinstance(answer.error, UnreachableError)
    assert (answer.error.server, answer.error.phase) == ("large", "decoding")


async def test_a_bug_of_the_sdk_is_raised_and_shows_no_token() -> None:
    """It was raised in a frame of the SDK; the frames of the HTTP library above it are dropped."""
    namespace: dict[str, Any] = {"__name__": "aiovbo._odd"}
    exec("def fail():\n    raise KeyError('a bug')", namespace)  # noqa: S102  # a frame of the SDK

    class Buggy(aiohttp.TCPConnector):
        async def connect(self, *_: Any, **__: Any) -> Any:
            namespace["fail"]()

    odd = Server("http://odd.test", Bearer("tok-7654321"), allow_http=True, api_version="v4", name="odd")
    async with (
        aiohttp.ClientSession(connector=Buggy()) as session,
        Client(odd, http=session) as client,
    ):
        with pytest.raises(KeyError, match="a bug") as caught:
            await client.restore_sessions()
    trace, frames = caught.value.__traceback__, []
    while trace is not None:
        frames.append(trace.tb_frame)
        trace = trace.tb_next
    assert frames[-1].f_code.co_name == "fail"
    assert all("tok-7654321" not in repr(frame.f_locals) for frame in frames[1:])
    assert not [frame for frame in frames if "aiohttp" in frame.f_code.co_filename]


# ----------------------------------------------------------------------------- processes and their end

HANGS = """
import asyncio, os, socket, sys, time
def hang(host, *rest, **options):
    time.sleep(60 if host == "hang.test" else 0)
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 1))]
socket.getaddrinfo = hang
"""


def ran(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", HANGS + program], capture_output=True, text=True, check=False, timeout=150
    )


@pytest.mark.parametrize(
    "ask",
    [
        """
from aiovbo import Client, Bearer, Server
async def main():
    server = Server('https://hang.test', Bearer('t'), api_version='v8')
    async with Client(server, connect_timeout=0.1, retries=0) as client:
        print((await client.restore_sessions().answer()).error.phase)
""",
        """
from aiovbo import fetch_certificate, ServerError
async def main():
    try: await fetch_certificate('https://hang.test', timeout=0.1)
    except ServerError as error: print(error.phase)
""",
    ],
    ids=["query", "certificate"],
)
def test_a_hung_look_up_delays_no_exit(ask: str) -> None:
    """Neither that of the event loop nor that of the interpreter."""
    done = ran(f"{ask}asyncio.run(main())")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() in ("dns", "connect")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_process_has_threads_of_its_own() -> None:
    """Those of its parent are not in it."""
    done = ran(
        "import warnings; warnings.simplefilter('ignore')\n"
        "from aiovbo._core.threads import look_up\n"
        "async def main():\n"
        "    asyncio.ensure_future(look_up('hang.test', 1))\n"
        "    await asyncio.sleep(0.05)\n"
        "asyncio.run(main())\n"
        "if os.fork() == 0:\n"
        "    print(asyncio.run(look_up('vbo1.test', 1))[0].host, flush=True)\n"
        "    os._exit(0)\n"
        "os.wait()\n"
    )
    assert (done.returncode, done.stdout.strip()) == (0, "127.0.0.1"), done.stderr
