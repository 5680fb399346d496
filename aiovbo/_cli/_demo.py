"""The command `demo`: fifteen backup servers on loopback, three of them faulty, queried at once.

The table of sessions is in `_rows`.
"""

import socket
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta

from rich.text import Text

from aiovbo import TLS, Answer, Client, Fleet, Password, Server
from aiovbo._cli._options import TableOptions
from aiovbo._cli._rows import SESSIONS, Row, rows_of, table_of
from aiovbo._cli._statuses import INTERRUPTED, OK
from aiovbo._cli._terminal import collect, console, counted, run, show_failures
from aiovbo._cli._times import Times
from aiovbo._extras import install_command
from aiovbo.testing import ApiVersion, BackupFleet, BackupServer, Fault, World

HEALTHY = 12
VERSIONS: tuple[ApiVersion, ...] = ("v8", "v7", "v6", "v5", "v4")
DAY = timedelta(days=1)
_LATELY = timedelta(minutes=12)


def demo(seed: int) -> int:
    """Query fifteen embedded backup servers, three of them faulty, for the restore sessions of the last day.

    One refuses connections, one never answers, and one rejects the password.
    """
    try:
        return run(_demonstrate(seed))
    except ImportError as error:
        # aiovbo.testing does not know where aiovbo came from.
        message = f"{error}: {install_command('testing')}"
        raise ImportError(message, name=error.name) from error


async def _demonstrate(seed: int) -> int:
    async def last_day(client: Client) -> list[Row]:
        return await rows_of(client, started_after=DAY)

    async with (
        _servers(seed) as servers,
        Fleet(servers, connect_timeout=2, read_timeout=3, deadline=5) as fleet,
    ):
        started = time.monotonic()
        answers, interrupted = await collect(fleet.map(last_day).answers(), list(fleet))
        elapsed = time.monotonic() - started
    out = console()
    times = Times(now=max((one.fetched_at for one in answers), default=datetime.now(UTC)))
    found = [row for answer in answers for rows in answer.items for row in rows]
    rows = SESSIONS.arranged(found, TableOptions())
    zone = times.description(row.session.creation_time for row in rows)
    out.print(Text(f"\nRestore sessions of the last 24 hours, newest first, times in {zone}\n", style="bold"))
    out.print(table_of(rows, times))
    errors = [answer.error for answer in answers if answer.error is not None]
    show_failures(errors, len(servers), out)
    out.print(Text("\n" + _figures(answers, len(rows), elapsed)))
    # The three failures are intended.
    return INTERRUPTED if interrupted else OK


def _figures(answers: list[Answer[list[Row]]], sessions: int, elapsed: float) -> str:
    good = [answer.elapsed for answer in answers if answer.error is None]
    bad = [answer.elapsed for answer in answers if answer.error is not None]
    text = f"{counted(sessions, 'session')} from {counted(len(good), 'server')}"
    if good:
        text += f", the slowest after {max(good):.2f} s"
    if bad:
        text += f"; {counted(len(bad), 'server')} failed, the last after {max(bad):.2f} s"
    return f"{text}. All in {elapsed:.2f} s."


@asynccontextmanager
async def _servers(seed: int) -> AsyncGenerator[list[Server]]:
    """Twelve healthy servers; one refuses connections, one never answers, one has another password."""
    good = [_server(seed, number) for number in range(1, HEALTHY + 1)]
    good[2].world.add(end_time=None, creation_time=good[2].world.now - _LATELY)
    silent, locked = _server(seed, HEALTHY + 2), _server(seed, HEALTHY + 3)
    silent.fail(Fault.stall(), times=None)
    async with BackupFleet([*good, silent, locked]) as running:
        # Bound without listening, so that no other process gets the port.
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
