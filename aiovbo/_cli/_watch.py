"""The command `watch`: every change of every server, one line each, as it is noticed.

Describes a change in a line or as JSON. The watch decides which changes there are.
"""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Protocol

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from aiovbo import (
    Added,
    Change,
    Changed,
    Checkpoint,
    CheckpointStore,
    ConfigError,
    Finished,
    Fleet,
    Recovered,
    Removed,
    RestoreSession,
    RestoreSessionResult,
    RowRejected,
    TimeBound,
    Unreachable,
    Watch,
)
from aiovbo._cli._columns import NAME_LIMIT, Unpadded
from aiovbo._cli._command_runner import CommandRunner
from aiovbo._cli._options import ChangeFilter, CommandOptions, Kind, Position, Selection
from aiovbo._cli._selection import fleet_of
from aiovbo._cli._statuses import INTERRUPTED, OK
from aiovbo._cli._terminal import console, counted, run
from aiovbo._cli._times import Times, When, duration
from aiovbo._cli._words import to_cli_terms
from aiovbo._extras import install_command
from aiovbo.errors import printable

_NAME_WIDTH = 40
"""Maximum columns for names of servers; a longer name is not cut, but moves the rest of its line."""
_VERB_WIDTH = len("started")
_ROOM_FOR_A_TEXT = 24
"""Minimum columns for the description beside the other columns; otherwise it is below them."""
_KINDS: Mapping[type[Change], Kind] = {
    Added: "added",
    Changed: "changed",
    Finished: "finished",
    Removed: "removed",
    RowRejected: "rejected",
    Unreachable: "unreachable",
    Recovered: "recovered",
}
_STYLES = {"Success": "green", "Warning": "yellow", "Failed": "red"}


class _Store(CheckpointStore, Protocol):
    """A checkpoint that can be rewound, in a file or in PostgreSQL."""

    async def rewind(self, server: str, since: TimeBound) -> None:
        """Let the next watch report a server's sessions once more."""
        ...


def watch(  # each an option of its own
    which: Selection,
    filters: ChangeFilter,
    command: CommandOptions,
    times: Times,
    every: timedelta,
    since: When | None,
    position: Position,
    rewind: When | None,
    output: str,
    count: int | None,
) -> int:
    """Every change of every server, as it is noticed. Ctrl-C ends the watch.

    With a checkpoint, the next run continues where this run ended, and no change is lost.
    """
    if command.exec is None and (command.give_up is not None or command.timeout is not None):
        raise ConfigError("--timeout and --give-up need --exec")
    if command.exec is not None and not command.exec.strip():
        # As from an unset variable: the shell would succeed, and no alert would be sent.
        raise ConfigError("the command of --exec is empty")
    store = _store(position)
    if rewind is not None and store is None:
        raise ConfigError("--rewind needs --checkpoint or --postgres")
    wanted = _is_wanted(filters)
    fleet = fleet_of(which)
    changes = fleet.watch(
        every=every,
        since=None if since is None else since.bound(times.zone),
        checkpoint=store,
        ack="manual",
        only=wanted,
    )
    prepare = None
    if store is not None and rewind is not None:
        prepare = partial(_rewind, store, rewind.bound(times.zone), fleet)
    # Stopping a service is not a failure; the checkpoint is saved.
    return run(_watch(fleet, changes, command, times, output, count, prepare), when_terminated=OK)


def _store(position: Position) -> _Store | None:
    path, conninfo, group = position.checkpoint, position.postgres, position.group
    if path is not None and conninfo is not None:
        raise ConfigError("--checkpoint and --postgres exclude each other")
    if (conninfo is None) != (group is None):
        raise ConfigError("--postgres needs --group, and --group needs --postgres")
    if conninfo is None or group is None:
        return None if path is None else Checkpoint(path)
    try:
        from aiovbo.postgres import PostgresCheckpoint  # only where it is used
    except ImportError as error:
        message = f"{error}: {install_command('postgres')}"
        raise ImportError(message, name=error.name) from error
    return PostgresCheckpoint(conninfo, group=group)


async def _rewind(store: _Store, since: TimeBound, fleet: Fleet) -> None:
    """Rewind the servers of the fleet that the checkpoint has; the others begin at --since."""
    await store.open()
    try:
        known = await store.servers()
    finally:
        await store.close()
    for name in fleet:
        if name in known:
            await store.rewind(name, since)


def _is_wanted(filters: ChangeFilter) -> Callable[[Change], bool]:
    results = {RestoreSessionResult(text) for text in filters.result}
    for result in results:
        if not result.is_known:
            message = f"--result is Success, Warning or Failed, not {str(result)!r}"
            raise ConfigError(message)

    def is_wanted(change: Change) -> bool:
        if filters.only and _KINDS.get(type(change)) not in filters.only:
            return False
        if isinstance(change, Added | Changed | Finished):
            return not results or change.session.outcome in results
        return not results or bool(filters.only)

    return is_wanted


async def _watch(
    fleet: Fleet,
    watching: Watch,
    command: CommandOptions,
    times: Times,
    output: str,
    count: int | None,
    prepare: Callable[[], Awaitable[None]] | None,
) -> int:
    out = console()
    if prepare is not None:
        await prepare()
    if out.is_terminal and output == "text":
        console(stderr=True).print(
            Text(
                f"Watching {counted(len(fleet), 'server')}; times in {times.description()}; Ctrl-C ends it.",
                style="dim",
            )
        )
    width = min(max(map(len, fleet), default=0), _NAME_WIDTH)
    taken = 0
    try:
        async with fleet, watching as changes:
            runner = CommandRunner(command.exec, command, changes.ack) if command.exec else None
            try:
                async for change in changes:
                    document = json.dumps(_document(change)) + "\n"
                    if output == "jsonl":
                        sys.stdout.write(document)
                        sys.stdout.flush()
                    else:
                        out.print(_line(change, width, times, out), soft_wrap=not out.is_terminal)
                    if runner is None:
                        changes.ack(change)
                    else:
                        await runner.add(change, _subject(change), document)
                    taken += 1
                    if count is not None and taken >= count:
                        break
                if runner is not None:
                    await runner.finish()
            finally:
                if runner is not None:
                    await runner.aclose()
    except asyncio.CancelledError:
        return INTERRUPTED
    return OK


def _subject(change: Change) -> str:
    """The session that a change is of, or its server: changes of one subject stay in order."""
    match change:
        case Added(session=session) | Changed(session=session) | Finished(session=session):
            return f"{change.server} {session.id}"
        case Removed(session_id=key):
            return f"{change.server} {key}"
        case _:
            return change.server


def _line(change: Change, width: int, times: Times, out: Console) -> RenderableType:
    """Time, server, kind of change and description in columns, with names of servers as wide as `width`.

    In a pipe it is one line. A terminal folds the description, or shows it below the other columns where it
    is narrow.
    """
    verb, style, about = _described(change)
    text = Text(f"{times.at(datetime.now(UTC)):%H:%M:%S}  ", style="dim")
    text.append(f"{printable(change.server, NAME_LIMIT):<{width}}  ", style="bold")
    text.append(f"{verb:<{_VERB_WIDTH}}  ", style=style)
    if not out.is_terminal:
        return text.append(about)
    if out.width - text.cell_len < _ROOM_FOR_A_TEXT:
        text.rstrip()
        text.overflow = "fold"
        return Group(text, Padding(Text(about, overflow="fold"), (0, 0, 0, 2), expand=False))
    columns = Table.grid()
    columns.add_column(no_wrap=True)
    columns.add_row(text, Text(about))
    return Unpadded(columns)


def _described(change: Change) -> tuple[str, str, str]:  # one of each
    match change:
        case Added(session=session):
            return "started" if session.end_time is None else "found", "cyan", _of(session)
        case Changed(session=session):
            return printable(str(session.state or "changed"), 40).lower(), "cyan", _of(session)
        case Finished(session=session):
            outcome = printable(str(session.result or "ended"), 40)
            return outcome.lower(), _STYLES.get(outcome, ""), _of(session)
        case Removed(session_id=key, reset=reset):
            return "removed", "", f"{key}" + (", with many others: was the server restored?" if reset else "")
        case RowRejected(row=row):
            return (
                "rejected",
                "yellow",
                printable(f"an invalid row of the list: {row.reason} @ {row.path}", 1000),
            )
        case Unreachable(error=error):
            said = to_cli_terms(f"cannot be queried: {error.what}. {error.hint}")
            return "down", "red", printable(said, 1000)
        case Recovered(gap=gap):
            return "up", "green", f"can be queried again, after {duration(gap)}"
        case _:
            return type(change).__name__, "", ""


def _of(session: RestoreSession) -> str:
    parts = (
        session.type,
        session.organization,
        session.initiated_by and f"by {session.initiated_by}",
        session.client_host and f"from {session.client_host}",
        session.reason and f"because {session.reason}",
        str(session.id),
    )
    return ", ".join(printable(part) for part in parts if part)


def _document(change: Change) -> dict[str, Any]:
    found: dict[str, Any] = {
        "change": type(change).__name__,
        "id": change.id,
        "server": change.server,
        "noticedAt": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }
    match change:
        case Added(session=session) | Changed(session=session) | Finished(session=session):
            found["session"] = session.to_dict()
        case Removed(session_id=key, reset=reset):
            found |= {"sessionId": str(key), "reset": reset}
        case RowRejected(row=row):
            found |= {"path": row.path, "reason": row.reason, "raw": row.raw}
        case Unreachable(error=error):
            found["error"] = to_cli_terms(str(error))
        case Recovered(gap=gap):
            found["gap"] = gap.total_seconds()
        case _:
            pass
    return found
