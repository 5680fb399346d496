"""What real proxies do to the SDK's requests: nginx and haproxy before servers, tinyproxy and squid.

A program, not a test: `nox -s proxies`. It prints a table of what users read, and ends with status 1 where
an error has another type or text than expected. A proxy that is not installed is skipped, with a line that
says so. While each case runs, a server without a proxy is queried, and must not be affected.
"""

import asyncio
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from string import Template

import attrs
from harness import tls
from harness.backups import server_of
from harness.bystander import Bystander

from aiovbo import (
    TLS,
    Added,
    Client,
    Fleet,
    Password,
    PayloadError,
    ResponseError,
    Server,
    ServerError,
    ServerFaultError,
    Unreachable,
    UnreachableError,
)
from aiovbo.testing import BackupServer, Fault, World

HERE = Path(__file__).parent
LARGE = {"reason": "x" * 5000}


@attrs.frozen
class Proxy:
    """A proxy that is running."""

    address: str
    """Where it listens, as host:port."""
    backup: BackupServer
    """The server behind it, over plain HTTP."""

    def server(self, **changes: object) -> Server:
        """How the SDK reaches the server behind a reverse proxy."""
        settings: dict[str, object] = {"name": "proxied", "tls": TLS(pin=tls.good().pin), **changes}
        login = Password(self.backup.username, self.backup.password)
        return Server(f"https://{self.address}", login, **settings)  # type: ignore[arg-type]  # by name


@attrs.frozen
class Case:
    """What a proxy is made to do, and what the user must get."""

    proxy: str
    """nginx, haproxy, tinyproxy or squid."""
    name: str
    work: Callable[[Proxy], Awaitable[str]]
    """Runs it; the text to print. Raises AssertionError where it went wrong."""
    settings: str = ""
    """Directives for the configuration."""


def free_port() -> int:
    """A port on which nothing listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


COMMANDS = {
    "nginx": ["nginx", "-p", "$folder", "-c", "$folder/configuration"],
    "haproxy": ["haproxy", "-db", "-f", "$folder/configuration"],
    "tinyproxy": ["tinyproxy", "-d", "-c", "$folder/configuration"],
    "squid": ["squid", "-N", "-f", "$folder/configuration"],
}


@asynccontextmanager
async def running(case: Case, backup: BackupServer) -> AsyncIterator[Proxy]:
    """The proxy of a case, until the block ends."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="aiovbo-proxies-") as name:
        folder = Path(name)
        # squid gives up root for another user.
        folder.chmod(0o777)
        identity = tls.good()
        pem = folder / "both.pem"
        pem.write_bytes(Path(identity.cert_file).read_bytes() + Path(identity.key_file).read_bytes())
        values = {
            "port": port,
            "backend": backup.url.removeprefix("http://"),
            "folder": folder,
            "certificate": identity.cert_file,
            "key": identity.key_file,
            "pem": pem,
            "settings": Template(case.settings).safe_substitute(authority=tls.ca_file()),
        }
        text = (HERE / f"{case.proxy}.conf").read_text()
        (folder / "configuration").write_text(Template(text).safe_substitute(values))
        command = [Template(part).substitute(folder=folder) for part in COMMANDS[case.proxy]]
        with (folder / "log").open("w") as log:
            process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log)
        try:
            await accepting(port, process, folder / "log")
            yield Proxy(f"localhost:{port}", backup)
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


async def accepting(port: int, process: asyncio.subprocess.Process, log: Path) -> None:
    """Return once something listens on the port."""
    for _ in range(400):
        if process.returncode is not None:
            message = f"the proxy ended: {log.read_text()[-500:]}"
            raise RuntimeError(message)
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return
    raise RuntimeError("the proxy does not listen")


# ------------------------------------------------------------------------------------- what is asked


def failing(expected: type[ServerError], *texts: str, **limits: object) -> Callable[[Proxy], Awaitable[str]]:
    """A listing that must fail with this error, whose message contains the texts."""

    async def work(proxy: Proxy) -> str:
        settings: dict[str, object] = {"retries": 0, "deadline": 20.0, **limits}
        async with Client(proxy.server(), **settings) as client:  # type: ignore[arg-type]  # by name
            return await error_of(client.restore_sessions(), expected, *texts)

    return work


async def error_of(query: Awaitable[object], expected: type[ServerError], *texts: str) -> str:
    """The message of the error that the query must raise."""
    raised: ServerError | None = None
    try:
        await query
    except ServerError as error:
        raised = error
    text = f"{type(raised).__name__}: {raised}"
    assert type(raised) is expected, f"{text}, instead of {expected.__name__}"
    missing = [part for part in texts if part not in text]
    assert not missing, f"{missing} is not in: {text}"
    return text


async def too_large(proxy: Proxy) -> str:
    """A request that the proxy finds too large."""
    async with Client(proxy.server(), retries=0) as client:
        query = client.request("POST", "/v8/RestoreSessions/x/action", json=LARGE)
        return await error_of(query, ResponseError, "413", "proxy")


async def healthy(proxy: Proxy) -> str:
    """Two queries, so far apart that the proxy closes its idle connection in between."""
    async with Client(proxy.server(), retries=0) as client:
        first = len(await client.restore_sessions())
        await asyncio.sleep(1.5)
        second = len(await client.restore_sessions())
        requests, retries = client.status().requests, client.status().retries
    assert first == second == len(proxy.backup.world.sessions)
    assert retries == 0
    return f"{first} sessions twice, {requests} requests, no retry"


async def limited(proxy: Proxy) -> str:
    """More requests than the proxy admits: all succeed within the deadline."""
    async with Client(proxy.server(), retries=2, deadline=30.0) as client:
        sizes = await asyncio.gather(*(client.restore_sessions() for _ in range(4)))
        retries = client.status().retries
    assert [len(found) for found in sizes] == [len(proxy.backup.world.sessions)] * 4
    assert retries, "the proxy limited nothing"
    return f"4 listings succeeded, {retries} retries"


async def watched(proxy: Proxy) -> str:
    """A watch whose long polls the proxy cuts: a new session is reported, and no failure."""
    async with Fleet([proxy.server()]) as fleet, fleet.watch(every=timedelta(seconds=1)) as changes:

        async def add_later() -> None:
            await asyncio.sleep(4)
            proxy.backup.world.add()

        adding = asyncio.create_task(add_later())
        async for change in changes:
            assert not isinstance(change, Unreachable), "a cut poll was reported as a server's failure"
            if isinstance(change, Added):
                await adding
                return "a new session was reported, and no failure"
    raise AssertionError("the watch ended")


def forwarded(
    expected: type[ServerError] | None, *texts: str, url: str = ""
) -> Callable[[Proxy], Awaitable[str]]:
    """A listing through a forward proxy."""

    async def work(proxy: Proxy) -> str:
        async with BackupServer(World(sessions=3)) as backup:
            server = server_of(backup, name="proxied", proxy=f"http://{proxy.address}")
            if url:
                server = attrs.evolve(server, url=url)
            async with Client(server, retries=0) as client:
                if expected is not None:
                    return await error_of(client.restore_sessions(), expected, *texts)
                assert len(await client.restore_sessions()) == 3
                return "3 sessions through the proxy"

    return work


async def down(proxy: Proxy) -> str:
    """The server behind the proxy is stopped."""
    await proxy.backup.stop()
    return await failing(ServerFaultError, "50")(proxy)


async def silent(proxy: Proxy) -> str:
    """The server behind the proxy does not respond in time."""
    proxy.backup.fail(Fault.stall(), times=None)
    return await failing(ServerFaultError, "504")(proxy)


CASES = [
    Case("nginx", "idle timeout below the poll interval", healthy, "keepalive_timeout 1s;"),
    Case("nginx", "gzip", healthy, "gzip on; gzip_types application/json; gzip_min_length 1;"),
    Case(
        "nginx", "client certificate missing",
        failing(ResponseError, "No required SSL certificate was sent", "client certificate"),
        "ssl_client_certificate $authority; ssl_verify_client on;",
    ),
    Case("nginx", "413", too_large, "client_max_body_size 1k;"),
    Case("nginx", "502", down),
    Case("nginx", "503", failing(ServerFaultError, "503"), "location /v8/ { return 503; }"),
    Case("nginx", "504", silent, "proxy_read_timeout 1s;"),
    Case(
        "nginx", "429 with Retry-After", limited,
        "limit_req zone=few burst=1 nodelay; limit_req_status 429; add_header Retry-After 1 always;",
    ),
    Case(
        "nginx", "429 without Retry-After", limited,
        "limit_req zone=few burst=1 nodelay; limit_req_status 429;",
    ),
    Case("nginx", "long poll cut", watched, "proxy_read_timeout 1s;"),
    Case("nginx", "page instead of JSON", failing(PayloadError, "Sign in"),
         'location /v8/RestoreSessions { default_type text/html; return 200 "<title>Sign in</title>"; }'),
    Case("haproxy", "idle timeout below the poll interval", healthy, "timeout http-keep-alive 1s"),
    Case("haproxy", "503, no server", down),
    Case("haproxy", "504", silent, "timeout server 1s"),
    Case("haproxy", "429", limited, "http-request deny deny_status 429 if { src_http_req_rate(rates) gt 3 }"),
    Case("haproxy", "long poll cut", watched, "timeout server 1s"),
    Case("tinyproxy", "healthy", forwarded(None)),
    Case("tinyproxy", "CONNECT to this port is forbidden",
         forwarded(UnreachableError, "proxy", "403"), "ConnectPort 443"),
    Case("tinyproxy", "user name and password missing",
         forwarded(UnreachableError, "proxy", "407"), "BasicAuth user secret"),
    Case("tinyproxy", "unresolvable name",
         forwarded(UnreachableError, "proxy", url="https://vbo.invalid:4443")),
    Case("squid", "healthy", forwarded(None), "http_access allow all"),
    Case("squid", "CONNECT to this port is forbidden",
         forwarded(UnreachableError, "proxy", "403"), "acl safe port 443\nhttp_access deny !safe"),
    Case("squid", "unresolvable name",
         forwarded(UnreachableError, "proxy", url="https://vbo.invalid:4443"), "http_access allow all"),
]  # fmt: skip


async def run(case: Case) -> tuple[bool, str]:
    """Whether a case went as expected, and what the user read."""
    async with (
        BackupServer(World(sessions=5), tls=False) as backup,
        BackupServer(World(sessions=2)) as direct,
        Client(server_of(direct)) as other,
    ):

        async def ask() -> int:
            return len(await other.restore_sessions())

        try:
            async with asyncio.timeout(60), Bystander(ask), running(case, backup) as proxy:
                return True, await case.work(proxy)
        except (AssertionError, RuntimeError, TimeoutError) as error:
            return False, f"FAILED: {type(error).__name__}: {error}"


async def main() -> int:
    """Run all cases; the exit status."""
    failed, skipped = 0, set[str]()
    for case in CASES:
        if shutil.which(case.proxy, path=f"{os.environ['PATH']}:/usr/sbin") is None:
            if case.proxy not in skipped:
                skipped.add(case.proxy)
                print(f"{case.proxy:10} skipped: it is not installed")
            continue
        is_right, text = await run(case)
        failed += not is_right
        print(f"{case.proxy:10} {case.name:38} {text}", flush=True)
    print(
        f"{failed} of {len(CASES)} cases failed"
        + (f"; skipped: {', '.join(sorted(skipped))}" if skipped else "")
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
