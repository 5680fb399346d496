"""The commands `sessions` and `timeline`: what was restored on all servers, as lines or over time.

Knows filters and forms of output; how a table looks is in `_rows`, how bars are drawn in `_timeline`.
"""

import csv
import json
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal

from attrs import field, frozen
from cyclopts import Parameter
from rich.text import Text

from aiovbo import Answer, Client, Fleet
from aiovbo._cli._rows import Row, newest_first, rows_of, table_of
from aiovbo._cli._selection import Selection, ago
from aiovbo._cli._terminal import INTERRUPTED, collect, console, run, show_failures, status_of
from aiovbo._cli._timeline import bars, svg
from aiovbo.errors import printable

Form = Literal["table", "json", "jsonl", "csv"]

_DAY = timedelta(days=1)
_COLUMNS = (
    "server", "id", "organization", "type", "state", "result", "creationTime", "endTime", "initiatedBy",
    "clientHost", "scopeName", "name", "reason", "details",
)  # fmt: skip
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_NOBODY = Selection()


def _several(text: str) -> Parameter:
    return Parameter(help=f"{text}; repeatable, case does not matter.", negative="")


@Parameter(name="*")
@frozen(kw_only=True)
class Filter:
    """Which sessions are meant."""

    since: Annotated[
        datetime | timedelta, Parameter(help="Created since: 30m, 24h, 7d, or a date.", converter=ago)
    ] = _DAY
    """A point in time, or how long ago."""
    state: Annotated[list[str], _several("Starting, Working, Stopping or Stopped")] = field(factory=list[str])
    """States."""
    result: Annotated[list[str], _several("Success, Warning or Failed")] = field(factory=list[str])
    """Results."""
    type: Annotated[list[str], _several("Vex, Veod, Vesp or Vet")] = field(factory=list[str])
    """Types."""
    organization: Annotated[str, Parameter(help="Part of the organization's name.")] = ""
    """A text."""

    def fits(self, row: Row) -> bool:
        """Whether a session is meant."""
        session = row.session
        wanted = ((self.state, session.state), (self.result, session.result), (self.type, session.type))
        return self.organization.casefold() in row.organization.casefold() and all(
            not texts or str(value or "").casefold() in {text.casefold() for text in texts}
            for texts, value in wanted
        )


_EVERYTHING = Filter()


def sessions(
    which: Selection = _NOBODY,
    filters: Filter = _EVERYTHING,
    *,
    output: Annotated[Form, Parameter(help="How to print them.")] = "table",
    ids: Annotated[bool, Parameter(help="Ids in the table too, for `show` and `stop`.", negative="")] = False,
) -> int:
    """The restore sessions of all servers.

    What a server does not say is empty. Servers that failed are told on standard error.
    """
    fleet = which.open()
    return run(_sessions(fleet, filters, output, ids=ids))


async def _sessions(fleet: Fleet, filters: Filter, output: Form, *, ids: bool) -> int:
    answers, status = await _ask(fleet, filters, _print_lines if output == "jsonl" else _wait)
    rows = newest_first(row for answer in answers for rows in answer.items for row in rows)
    match output:
        case "table":
            console().print(table_of(rows, datetime.now(UTC), ids=ids))
            console(stderr=True).print(Text(f"\n{len(rows)} sessions of {len(fleet)} servers", style="dim"))
        case "json":
            sys.stdout.write(json.dumps([row.to_dict() for row in rows], indent=2) + "\n")
        case "csv":
            _print_csv(rows)
        case "jsonl":
            """They were printed as they came."""
    errors = [answer.error for answer in answers if answer.error is not None]
    show_failures(errors, len(fleet), console(stderr=True))
    return status


async def _ask(
    fleet: Fleet, filters: Filter, each: Callable[[Answer[list[Row]]], None]
) -> tuple[list[Answer[list[Row]]], int]:
    """The answers, all of them or what had come when somebody interrupted it, and the exit status."""

    async def fitting(client: Client) -> list[Row]:
        return [row for row in await rows_of(client, started_after=filters.since) if filters.fits(row)]

    async with fleet:
        answers, interrupted = await collect(fleet.map(fitting).answers(), list(fleet), each)
    failed = sum(answer.error is not None for answer in answers)
    return answers, INTERRUPTED if interrupted else status_of(failed, len(fleet))


# --------------------------------------------------------------------------------- forms of output


def _wait(_: Answer[list[Row]]) -> None:
    """Keep a server's answer until all are in."""


def _print_lines(answer: Answer[list[Row]]) -> None:
    for rows in answer.items:
        for row in rows:
            sys.stdout.write(json.dumps(row.to_dict()) + "\n")
    sys.stdout.flush()


def _print_csv(rows: Sequence[Row]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for row in rows:
        found = row.to_dict()
        writer.writerow([_harmless(found.get(column)) for column in _COLUMNS])


def _harmless(value: object) -> str:
    """A cell that no spreadsheet takes for a formula, and no terminal for a command."""
    text = "" if value is None else str(value)
    guard = "'" if text.startswith(_FORMULA) else ""
    return guard + printable(text, 10_000)


# ---------------------------------------------------------------------------------------- timeline


def timeline(
    which: Selection = _NOBODY,
    filters: Filter = _EVERYTHING,
    *,
    svg: Annotated[Path | None, Parameter(help="Draw it into this file, in place of the terminal.")] = None,
) -> int:
    """Who restored what when, as bars over time, server by server."""
    fleet = which.open()
    return run(_timeline(fleet, filters, svg))


async def _timeline(fleet: Fleet, filters: Filter, file: Path | None) -> int:
    names = list(fleet)
    answers, status = await _ask(fleet, filters, _wait)
    now = datetime.now(UTC)
    begins = now - filters.since if isinstance(filters.since, timedelta) else filters.since
    found = [row.session for answer in answers for rows in answer.items for row in rows]
    if file is not None:
        file.write_text(svg(found, names, begins, now), encoding="utf-8")  # noqa: ASYNC240  # nothing else runs
    else:
        out = console()
        out.print(bars(found, names, begins, now, out.width))
    errors = [answer.error for answer in answers if answer.error is not None]
    show_failures(errors, len(names), console(stderr=True))
    return status
