"""Every error that the documentation shows, provoked: what its text really is.

Run as a program, it prints them. Knows how each comes about; judges nothing.
"""

import asyncio
import re
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

from aiovbo import (
    TLS,
    AuthenticationError,
    Checkpoint,
    CheckpointError,
    Client,
    ClosedError,
    ConfigError,
    ConflictError,
    Fleet,
    FleetError,
    ForbiddenError,
    LeaseLostError,
    LinkError,
    NotFoundError,
    Password,
    PayloadError,
    RateLimitedError,
    RestoreSession,
    Server,
    ServerFaultError,
    ServerTimeoutError,
    SkippedError,
    TlsError,
    UnreachableError,
)
from aiovbo._watch.transactions import lease_lost
from aiovbo.testing import BackupFleet, BackupServer, Fault

_GONE = UUID("0800471b-d0e2-422b-9d7c-35d15661c3fb")


@asynccontextmanager
async def _client(*faults: Fault, password: str = "") -> AsyncGenerator[Client]:
    async with BackupServer(version="v8") as backup:
        for fault in faults:
            backup.fail(fault, on="RestoreSessions", times=None)
        login = Password(backup.username, password or backup.password)
        server = Server(backup.url, login, name="vbo1", tls=TLS(ca_file=backup.ca_file), api_version="v8")
        async with Client(server, retries=0) as client:
            yield client


def _asking(*faults: Fault, password: str = "") -> Callable[[], Awaitable[object]]:
    async def ask() -> None:
        async with _client(*faults, password=password) as client:
            await client.restore_sessions()

    return ask


async def _unreachable_server() -> None:
    async with Client(Server("127.0.0.1:9", Password("u", "p"), name="vbo1"), retries=0) as client:
        await client.restore_sessions()


async def _untrusted() -> None:
    async with BackupServer() as backup:
        server = Server(backup.url, Password("u", "p"), name="vbo1", tls=TLS(pin=32 * "ab"))
        async with Client(server, retries=0) as client:
            await client.restore_sessions()


async def _silent() -> None:
    async with _client(Fault.stall()) as client:
        # Logged in before, for which a busy machine may take longer.
        await client.fetch_service_instance()
        await client.with_options(read_timeout=0.2).restore_sessions()


async def _not_found() -> None:
    async with _client() as client:
        await client.fetch_restore_session(_GONE)


async def _conflict() -> None:
    async with _client() as client:
        sessions = await client.restore_sessions()
        await client.stop_restore_session(next(one.id for one in sessions if one.end_time))


async def _skipped() -> None:
    async with BackupFleet([BackupServer(version="v8") for _ in range(5)]) as backups:
        login, tls = Password(backups.username, "wrong"), TLS(ca_file=backups.ca_file)
        servers = [Server(url, login, name=f"vbo{n}", tls=tls) for n, url in enumerate(backups.urls, 1)]
        async with Fleet(servers, retries=0) as fleet:
            await fleet.restore_sessions()
            async for answer in fleet.restore_sessions().answers():
                if isinstance(answer.error, SkippedError):
                    answer.error.server = "vbo1"  # whichever it was
                    raise answer.error


async def _fleet() -> None:
    async with Fleet([Server("127.0.0.1:9", Password("u", "p"), name="vbo1")], retries=0) as fleet:
        async for _ in fleet.restore_sessions():
            pass


async def _no_link() -> None:
    RestoreSession(id=_GONE, creation_time=None).links["organization"]  # type: ignore[arg-type]  # none needed


async def _closed() -> None:
    async with _client() as client:
        await client.aclose()
        await client.restore_sessions()


async def _config() -> None:
    Server("http://vbo1.tech.local", Password("u", "p"))


async def _checkpoint() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "restores.db"
        await asyncio.to_thread(path.write_text, "no database at all, but a text of some length\n" * 100)
        await Checkpoint(path).open()


async def _lease_lost() -> None:
    raise lease_lost(["vbo1.tech.local"])


PROVOKED: dict[type[Exception], Callable[[], Awaitable[object]]] = {
    ConfigError: _config,
    UnreachableError: _unreachable_server,
    TlsError: _untrusted,
    ServerTimeoutError: _silent,
    ForbiddenError: _asking(Fault.status(403)),
    NotFoundError: _not_found,
    ConflictError: _conflict,
    RateLimitedError: _asking(Fault.status(429)),
    ServerFaultError: _asking(Fault.status(503)),
    AuthenticationError: _asking(password="wrong"),
    PayloadError: _asking(Fault.body(b"<html>", "text/html")),
    SkippedError: _skipped,
    FleetError: _fleet,
    LinkError: _no_link,
    ClosedError: _closed,
    CheckpointError: _checkpoint,
    LeaseLostError: _lease_lost,
}


async def text_of(kind: type[Exception]) -> str:
    """What such an error says, where times are zero and files have no folder."""
    try:
        await PROVOKED[kind]()
    except kind as error:
        text = re.sub(r"sha256:[0-9a-f]{64}", "sha256:…", re.sub(r"\d+\.\d s\)", "0.0 s)", str(error)))
        text = re.sub(r"[0-9a-f-]{36}", str(_GONE), text)
        return re.sub(r"/\S*/restores\.db", "restores.db", text)
    raise AssertionError(kind)


if __name__ == "__main__":
    for _kind in PROVOKED:
        print(f"{_kind.__name__}\n    {asyncio.run(text_of(_kind))}")
