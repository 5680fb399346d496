"""The command `watch`: every change of every server, a line each, as it is noticed.

Knows how a change is told in a line. Which changes there are is the watch's to know.
"""

import asyncio
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rich.text import Text

from aiovbo import (
    Added,
    Change,
    Changed,
    Checkpoint,
    Finished,
    Fleet,
    Recovered,
    Removed,
    RestoreSession,
    Unreachable,
    Watch,
)
from aiovbo._cli._options import Selection
from aiovbo._cli._selection import fleet_of
from aiovbo._cli._terminal import INTERRUPTED, OK, console, run
from aiovbo.errors import printable

_STYLES = {"Success": "green", "Warning": "yellow", "Failed": "red"}


def watch(  # noqa: PLR0913, PLR0917  # each an option of its own
    which: Selection,
    every: timedelta,
    since: datetime | timedelta | None,
    checkpoint: Path | None,
    output: str,
    count: int | None,
) -> int:
    """Every change of every server, as it is noticed; Ctrl-C ends it.

    With a checkpoint it goes on where it ended, and misses nothing.
    """
    fleet = fleet_of(which)
    store = None if checkpoint is None else Checkpoint(checkpoint)
    changes = fleet.watch(every=every, since=since, checkpoint=store)
    return run(_watch(fleet, changes, output, count))


async def _watch(fleet: Fleet, watching: Watch, output: str, count: int | None) -> int:
    out = console()
    if out.is_terminal and output == "text":
        console(stderr=True).print(
            Text(f"Watching {len(fleet)} servers; times in UTC; Ctrl-C ends it.", style="dim")
        )
    told = 0
    try:
        async with fleet, watching as changes:
            async for change in changes:
                if output == "jsonl":
                    sys.stdout.write(json.dumps(_document(change)) + "\n")
                    sys.stdout.flush()
                else:
                    out.print(_line(change), soft_wrap=True)
                told += 1
                if count is not None and told >= count:
                    changes.ack(change)
                    return OK
    except asyncio.CancelledError:
        return INTERRUPTED
    return OK


def _line(change: Change) -> Text:
    now = datetime.now(UTC)
    text = Text(f"{now:%H:%M:%S}  ", style="dim")
    text.append(f"{printable(change.server, 40)}  ", style="bold")
    match change:
        case Added(session=session):
            text.append("started  " if session.end_time is None else "found  ", style="cyan")
            text.append(_of(session))
        case Changed(session=session):
            text.append(f"{printable(str(session.state or 'changed'), 40).lower()}  ", style="cyan")
            text.append(_of(session))
        case Finished(session=session):
            outcome = printable(str(session.result or "ended"), 40)
            text.append(f"{outcome.lower()}  ", style=_STYLES.get(outcome, ""))
            text.append(_of(session))
        case Removed(session_id=key, reset=reset):
            text.append(f"gone  {key}" + (", with many others: was the server restored?" if reset else ""))
        case Unreachable(error=error):
            text.append("does not answer  ", style="red")
            text.append(printable(str(error), 1000))
        case Recovered(gap=gap):
            text.append(f"is back  after {gap}", style="green")
        case _:
            text.append(type(change).__name__)
    return text


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
        "told": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }
    match change:
        case Added(session=session) | Changed(session=session) | Finished(session=session):
            found["session"] = session.to_dict()
        case Removed(session_id=key, reset=reset):
            found |= {"sessionId": str(key), "reset": reset}
        case Unreachable(error=error):
            found["error"] = str(error)
        case Recovered(gap=gap):
            found["gap"] = gap.total_seconds()
        case _:
            pass
    return found
