"""The commands `sessions` and `timeline`: the restore sessions of all servers, as rows or as bars over time.

Formats. Which sessions are meant is in `_filters`; the table is in `_rows`, the bars in `_timeline` and
`_picture`.
"""

import json
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal

from rich.text import Text

from aiovbo import (
    Answer,
    Client,
    ConfigError,
    Fleet,
)
from aiovbo._cli._filters import doubts_of, fits, reject_typos
from aiovbo._cli._options import Bounds, Filter, Selection, TableOptions
from aiovbo._cli._picture import svg
from aiovbo._cli._rows import SESSIONS, Row, rows_of, table_of
from aiovbo._cli._selection import fleet_of
from aiovbo._cli._statuses import INTERRUPTED, status_of
from aiovbo._cli._terminal import collect, complain, console, counted, run, show_failures
from aiovbo._cli._timeline import bars
from aiovbo._cli._times import Times

Form = Literal["table", "json", "jsonl", "csv"]


def sessions(
    which: Selection, filters: Filter, options: TableOptions, times: Times, output: Form, *, ids: bool
) -> int:
    """The restore sessions of all servers. Failed servers are listed on standard error."""
    reject_typos(filters)
    SESSIONS.check(options)
    if options.columns and output in ("json", "jsonl"):
        raise ConfigError("--columns is for tables and CSV: JSON has the server's own fields")
    if ids and output != "table":
        raise ConfigError("--ids is for tables: CSV and JSON always contain the IDs")
    bounds = filters.bounds(times)
    fleet = fleet_of(which)
    return run(_sessions(fleet, filters, bounds, options, times, output, ids=ids))


async def _sessions(  # as the command takes them
    fleet: Fleet,
    filters: Filter,
    bounds: Bounds,
    options: TableOptions,
    times: Times,
    output: Form,
    *,
    ids: bool,
) -> int:
    # Without an order, a line is written as soon as its server answers.
    at_once = output == "jsonl" and not options.sort and options.limit is None
    answers, status = await _query(fleet, filters, bounds, _print_lines if at_once else None)
    found = [row for answer in answers for rows in answer.items for row in rows]
    rows = SESSIONS.arranged(found, options)
    match output:
        case "table":
            console().print(table_of(rows, times, ids=ids, columns=options.columns))
            console(stderr=True).print(Text(f"\n{_figures(rows, len(found), answers, times)}", style="dim"))
        case "json":
            sys.stdout.write(json.dumps([row.to_dict() for row in rows], indent=2) + "\n")
        case "csv":
            SESSIONS.write_csv(rows, options.columns, times)
        case "jsonl" if not at_once:
            sys.stdout.writelines(json.dumps(row.to_dict()) + "\n" for row in rows)
        case "jsonl":
            pass  # They were printed as they arrived.
    if not found:
        for doubt in doubts_of(filters):
            complain(doubt)
    errors = [answer.error for answer in answers if answer.error is not None]
    show_failures(errors, len(fleet), console(stderr=True))
    return status


def _figures(rows: Sequence[Row], found: int, answers: Sequence[Answer[list[Row]]], times: Times) -> str:
    good = sum(answer.error is None for answer in answers)
    shown = f"{len(rows)} of {counted(found, 'session')}" if len(rows) < found else counted(found, "session")
    zone = times.description(row.session.creation_time for row in rows)
    return f"{shown} of {counted(good, 'server')}, times in {zone}"


async def _query(
    fleet: Fleet,
    filters: Filter,
    bounds: Bounds,
    print_each: Callable[[Answer[list[Row]]], None] | None = None,
) -> tuple[list[Answer[list[Row]]], int]:
    """The answers that arrived, all of them unless interrupted, and the exit status."""

    async def fitting(client: Client) -> list[Row]:
        return [row for row in await rows_of(client, **bounds) if fits(row, filters)]

    async with fleet:
        answers, interrupted = await collect(fleet.map(fitting).answers(), list(fleet), print_each)
    failed = sum(answer.error is not None for answer in answers)
    return answers, INTERRUPTED if interrupted else status_of(failed, len(fleet))


# --------------------------------------------------------------------------------- forms of output


def _print_lines(answer: Answer[list[Row]]) -> None:
    for rows in answer.items:
        for row in rows:
            sys.stdout.write(json.dumps(row.to_dict()) + "\n")
    sys.stdout.flush()


# ---------------------------------------------------------------------------------------- timeline


def timeline(which: Selection, filters: Filter, times: Times, file: Path | None) -> int:
    """The restore sessions as bars over time, server by server."""
    reject_typos(filters)
    window, bounds = filters.window(times), filters.bounds(times)
    fleet = fleet_of(which)
    return run(_timeline(fleet, filters, window, bounds, times, file))


async def _timeline(  # as the command takes them
    fleet: Fleet,
    filters: Filter,
    window: tuple[datetime, datetime],
    bounds: Bounds,
    times: Times,
    file: Path | None,
) -> int:
    names = list(fleet)
    answers, status = await _query(fleet, filters, bounds)
    found = [row.session for answer in answers for rows in answer.items for row in rows]
    answered = {answer.server for answer in answers if answer.error is None}
    silent = [name for name in names if name not in answered]
    if file is not None:
        file.write_text(svg(found, names, *window, times=times, silent=silent), encoding="utf-8")
    else:
        out = console()
        out.print(bars(found, names, *window, out.width, times=times, silent=silent))
    errors = [answer.error for answer in answers if answer.error is not None]
    show_failures(errors, len(names), console(stderr=True))
    return status
