"""The commands `show` and `stop`: one restore session, which is searched for on all selected servers.

Prints the members of a session. Stops a session only after the user has confirmed it.
"""

import sys
from collections.abc import Awaitable, Callable
from typing import Any, cast
from uuid import UUID

from rich.console import Console
from rich.table import Table
from rich.text import Text

from aiovbo import (
    Answer,
    Client,
    ConfigError,
    Fleet,
    NotFoundError,
    RestoreSession,
    RestoreSessionEvent,
    ServerError,
)
from aiovbo._cli._columns import RowTable, Unpadded, plain_table
from aiovbo._cli._fields import Field, Fields
from aiovbo._cli._options import Selection, TableOptions
from aiovbo._cli._rows import Row, organization_name, table_of
from aiovbo._cli._selection import fleet_of
from aiovbo._cli._statuses import INTERRUPTED, OK, USAGE, status_of
from aiovbo._cli._terminal import ask, collect, complain, console, counted, run, show_failures
from aiovbo._cli._times import Times
from aiovbo.errors import printable

_LONG = 2_000


def show(session_id: UUID, which: Selection, times: Times) -> int:
    """One restore session, with its events and, on v8, its statistics."""

    async def shown(session: RestoreSession, out: Console) -> int:
        return await _show(session, times, out)

    fleet = fleet_of(which)
    return run(_with_session(fleet, session_id, shown))


def stop(session_id: UUID, which: Selection, times: Times, *, yes: bool) -> int:
    """Stop a restore session. It is shown, and the user is asked to confirm."""
    if not yes and not sys.stdin.isatty():
        complain("standard input is not a terminal, so you cannot confirm: use --yes to stop it")
        return USAGE

    async def agreed(session: RestoreSession, out: Console) -> int:
        out.print(table_of([Row(session, session.organization or "")], times))
        if session.has_ended:
            complain("the session has already ended")
            return USAGE
        if not yes:
            answer = await ask("Stop it? [y/N] ")
            if answer.strip().casefold() not in ("y", "yes"):
                out.print(Text("Not stopped."))
                return OK
        await session.stop()
        out.print(Text("Stop requested."))
        return OK

    fleet = fleet_of(which)
    return run(_with_session(fleet, session_id, agreed))


async def _with_session(
    fleet: Fleet, session_id: UUID, then: Callable[[RestoreSession, Console], Awaitable[int]]
) -> int:
    """Find the session on one of the servers, and call `then` with it; the exit status."""

    async def found_on(client: Client) -> RestoreSession | None:
        try:
            return await client.fetch_restore_session(session_id)
        except NotFoundError:
            return None

    async with fleet:
        async with fleet.map(found_on) as query:
            # Once it is found, do not wait for the other servers.
            answers, interrupted = await collect(query.answers(), list(fleet), enough=_has_it)
        found = [session for answer in answers for session in answer.items if session is not None]
        if found:
            try:
                return await then(found[0], console())
            except ServerError as error:
                show_failures([error], len(fleet), console(stderr=True))
                return status_of(1, len(fleet))
    errors = [answer.error for answer in answers if answer.error is not None]
    if interrupted:
        return INTERRUPTED
    show_failures(errors, len(fleet), console(stderr=True))
    if len(errors) < len(fleet):
        asked = counted(len(fleet) - len(errors), "server")
        complain(f"there is no session {session_id} on the {asked} that answered")
    return status_of(len(errors), len(fleet)) or USAGE


def _has_it(answer: Answer[RestoreSession | None]) -> bool:
    return any(answer.items)


async def _show(session: RestoreSession, times: Times, out: Console) -> int:
    facts = {**session.to_dict(), "organization": await organization_name(session)}
    if session.outcome is None:
        facts.pop("result", None)
    out.print(Unpadded(_facts({**facts, **_times_of(session, times)}, session.server)))
    try:
        events = await session.events()
        if events:
            out.print(Text(f"\n{counted(len(events), 'event')}\n", style="bold"))
            out.print(_event_table(events, times))
        statistics = await session.fetch_statistics()
    except ConfigError:
        # Older versions have no statistics.
        return OK
    out.print(Text("\nstatistics\n", style="bold"))
    out.print(Unpadded(_facts(statistics.to_dict())))
    return OK


def _times_of(session: RestoreSession, times: Times) -> dict[str, str]:
    """The times of a session, under the API's names."""
    found = {"creationTime": session.creation_time, "endTime": session.end_time}
    return {name: times.full(moment) for name, moment in found.items() if moment is not None}


def _facts(document: dict[str, Any], server: str = "") -> Table:
    """The members of a document, one line each, without its links."""
    table = plain_table("", "")
    table.show_header = False
    # Fold long values: the end of an ID or a name may matter.
    table.columns[1].no_wrap, table.columns[1].overflow = False, "fold"
    if server:
        table.add_row(Text("server", style="dim"), Text(printable(server)))
    for name, value in document.items():
        text = "; ".join(map(str, cast("list[object]", value))) if isinstance(value, list) else str(value)
        if name != "_links" and text:
            table.add_row(Text(printable(name, 60), style="dim"), Text(printable(text, _LONG)))
    return table


_EVENTS: Fields[RestoreSessionEvent] = Fields(
    fields=[
        Field(name="startTime", title="start", value=lambda event: event.start_time, is_time=True),
        Field(name="duration", title="took", value=lambda event: event.duration),
        Field(name="type", value=lambda event: event.type),
        Field(name="status", value=lambda event: event.status),
        Field(name="itemName", title="item", value=lambda event: event.item_name, may_be_cut=True),
        Field(
            name="message", title="what", value=lambda event: event.message or event.title, may_be_cut=True
        ),
    ],
    csv=("startTime", "duration", "type", "status", "itemName", "message"),
    sort=["startTime"],
)


def _event_table(events: list[RestoreSessionEvent], times: Times) -> RowTable:
    return _EVENTS.table(_EVENTS.arranged(events, TableOptions()), [_EVENTS.csv], times)
