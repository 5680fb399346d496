"""The demonstration: fifteen backup servers on loopback, three of them broken, asked at once.

Knows the servers and the question; how the answers look is in `_report`.
"""

import asyncio
import os
import shutil
import socket
import sys
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, closing
from datetime import timedelta

from aiovbo import TLS, Answer, Client, Fleet, Password, RestoreSession, Server
from aiovbo._report import Report, Row
from aiovbo.testing import ApiVersion, BackupFleet, BackupServer, Fault, World

HEALTHY = 12
VERSIONS: tuple[ApiVersion, ...] = ("v8", "v7", "v6", "v5", "v4")
DAY = timedelta(days=1)
PIPE_WIDTH = 120
"""Columns where the output is no terminal."""

_LATELY = timedelta(minutes=12)


def run(seed: int) -> None:
    """Ask, and print what came of it.

    Raises: ImportError without trustme.
    """
    with asyncio.Runner(loop_factory=_fast_loop()) as runner:
        report = runner.run(demonstrate(seed))
    is_terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if is_terminal else PIPE_WIDTH
    text = report.text(width, colour=is_terminal and not os.environ.get("NO_COLOR"))
    encoding = sys.stdout.encoding or "ascii"
    print(text.encode(encoding, "replace").decode(encoding))  # noqa: T201  # what the command is for


def _fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415  # an extra, used where it is there
    except ImportError:
        return None
    return uvloop.new_event_loop


async def demonstrate(seed: int) -> Report:
    """What all servers answered to one question, and what the broken ones cost."""
    async with (
        _servers(seed) as servers,
        Fleet(servers, connect_timeout=2, read_timeout=3, deadline=5) as fleet,
    ):
        started = time.monotonic()
        answers: list[Answer[list[Row]]] = []
        async for answer in fleet.map(_last_day).answers():
            answers.append(answer)
            _show_progress(len(answers), len(fleet))
        return Report(answers, elapsed=time.monotonic() - started)


async def _last_day(client: Client) -> list[Row]:
    sessions = await client.restore_sessions(started_after=DAY)
    organizations = await asyncio.gather(*map(_organization, sessions))
    return [Row(*pair) for pair in zip(sessions, organizations, strict=True)]


async def _organization(session: RestoreSession) -> str:
    if session.organization is not None:
        return session.organization
    # A v4 server does not say the name: the link leads there.
    return (await session.fetch_organization()).name or ""


@asynccontextmanager
async def _servers(seed: int) -> AsyncGenerator[list[Server]]:
    """Twelve good servers, one that refuses, one that is silent, one with another password."""
    good = [_server(seed, number) for number in range(1, HEALTHY + 1)]
    good[2].world.add(end_time=None, creation_time=good[2].world.now - _LATELY)
    silent, locked = _server(seed, HEALTHY + 2), _server(seed, HEALTHY + 3)
    silent.fail(Fault.stall(), times=None)
    async with BackupFleet([*good, silent, locked]) as running:
        # Bound, so that nobody else gets the port, but not listening.
        with closing(socket.socket()) as refusing:
            refusing.bind(("127.0.0.1", 0))
            closed_port = refusing.getsockname()[1]
            tls = TLS(ca_file=running.ca_file)
            login = Password(running.username, running.password)
            wrong = Password(running.username, "last year's password")
            yield [
                *(Server(one.url, login, name=one.name, tls=tls) for one in good),
                Server(f"127.0.0.1:{closed_port}", login, name="vbo-13.demo", tls=tls),
                Server(silent.url, login, name=silent.name, tls=tls),
                Server(locked.url, wrong, name=locked.name, tls=tls),
            ]


def _server(seed: int, number: int) -> BackupServer:
    name = f"vbo-{number:02}.demo"
    return BackupServer(
        World(f"{seed}/{number}", sessions=14),
        version=VERSIONS[number % len(VERSIONS)],
        name=name,
        host_name=name,
    )


def _show_progress(answered: int, asked: int) -> None:
    """On a terminal a line that is overwritten, and gone at the end."""
    if sys.stderr.isatty():
        text = f"{answered} of {asked} servers have answered" if answered < asked else ""
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)  # noqa: T201  # the same
