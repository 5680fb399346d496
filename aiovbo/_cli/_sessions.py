"""The commands `sessions` and `timeline`: what was restored on all servers, as lines or over time.

Knows filters and forms of output; how a table looks is in `_rows`, how bars are drawn in `_timeline` and in
`_picture`.
"""

import csv
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from rich.text import Text

from aiovbo import (
    Answer,
    Client,
    ConfigError,
    Fleet,
    RestoreSession,
    RestoreSessionResult,
    RestoreSessionState,
    RestoreSessionType,
)
from aiovbo._cli._options import Filter, Selection
from aiovbo._cli._picture import svg
from aiovbo._cli._rows import Row, newest_first, rows_of, table_of
from aiovbo._cli._selection import fleet_of
from aiovbo._cli._statuses import INTERRUPTED, status_of
from aiovbo._cli._terminal import collect, complain, console, counted, run, show_failures
from aiovbo._cli._timeline import bars
from aiovbo.errors import printable

Form = Literal["table", "json", "jsonl", "csv"]

_COLUMNS = (
    "server", "id", "organization", "type", "state", "result", "creationTime", "endTime", "initiatedBy",
    "clientHost", "scopeName", "name", "reason", "details",
)  # fmt: skip
_KNOWN: dict[str, Iterable[RestoreSessionState | RestoreSessionResult | RestoreSessionType]] = {
    "state": RestoreSessionState,
    "result": RestoreSessionResult,
    "type": RestoreSessionType,
}
_PRODUCTS = {"exchange": "vex", "onedrive": "veod", "sharepoint": "vesp", "teams": "vet"}
_NEAR = 0.7
"""How much of a known word is in one that was to be it, from 0 to 1."""
# Full-width ones too, which spreadsheets in East Asia take for the others.
_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")


def sessions(which: Selection, filters: Filter, output: Form, *, ids: bool) -> int:
    """The restore sessions of all servers.

    What a server does not say is empty. Failed servers go to standard error.
    """
    _refuse_slips(filters)
    fleet = fleet_of(which)
    return run(_sessions(fleet, filters, output, ids=ids))


async def _sessions(fleet: Fleet, filters: Filter, output: Form, *, ids: bool) -> int:
    answers, status = await _ask(fleet, filters, _print_lines if output == "jsonl" else None)
    rows = newest_first(row for answer in answers for rows in answer.items for row in rows)
    match output:
        case "table":
            console().print(table_of(rows, datetime.now(UTC), ids=ids))
            console(stderr=True).print(Text(f"\n{_figures(rows, answers)}", style="dim"))
        case "json":
            sys.stdout.write(json.dumps([row.to_dict() for row in rows], indent=2) + "\n")
        case "csv":
            _print_csv(rows)
        case "jsonl":
            pass  # They were printed as they came.
    if not rows:
        for doubt in _doubts(filters):
            complain(doubt)
    errors = [answer.error for answer in answers if answer.error is not None]
    show_failures(errors, len(fleet), console(stderr=True))
    return status


def _figures(rows: Sequence[Row], answers: Sequence[Answer[list[Row]]]) -> str:
    good = sum(answer.error is None for answer in answers)
    return f"{counted(len(rows), 'session')} of {counted(good, 'server')}, times in UTC"


async def _ask(
    fleet: Fleet, filters: Filter, print_each: Callable[[Answer[list[Row]]], None] | None = None
) -> tuple[list[Answer[list[Row]]], int]:
    """The answers that arrived, all of them unless interrupted, and the exit status."""

    async def fitting(client: Client) -> list[Row]:
        return [row for row in await rows_of(client, started_after=filters.since) if _fits(row, filters)]

    async with fleet:
        answers, interrupted = await collect(fleet.map(fitting).answers(), list(fleet), print_each)
    failed = sum(answer.error is not None for answer in answers)
    return answers, INTERRUPTED if interrupted else status_of(failed, len(fleet))


def _fits(row: Row, filters: Filter) -> bool:
    return filters.organization.casefold() in row.organization.casefold() and all(
        not texts or str(_said(row.session, name) or "").casefold() in map(_meant, texts)
        for name, texts in _wanted(filters).items()
    )


def _said(session: RestoreSession, name: str) -> object:
    return session.outcome if name == "result" else getattr(session, name)


def _doubts(filters: Filter) -> list[str]:
    """What is asked for that no server is known to have, a sentence each; it may be of a newer API."""
    return [
        f"no {name} is known as {text!r}: there are {', '.join(one.value for one in _KNOWN[name])}"
        for name, text in _unknown(filters)
    ]


def _refuse_slips(filters: Filter) -> None:
    """Reject a filter value that is a likely typo, and not a value of a newer API.

    Raises: ConfigError with what was meant.
    """
    for name, text in _unknown(filters):
        if len(several := text.replace(",", " ").split()) > 1:
            meant = " ".join(f"--{name} {one}" for one in several)
            message = f"{text!r} is no {name}; several are given as {meant}"
            raise ConfigError(message)
        words = {one.value.casefold(): one.value for one in _KNOWN[name]}
        if name == "type":
            # Signs have too few letters for one that is new to look different from one that is wrong.
            words = {product: product.capitalize() for product in _PRODUCTS}
        if near := get_close_matches(text.casefold(), words, 1, _NEAR):
            message = f"no {name} is known as {text!r}: did you mean {words[near[0]]}?"
            raise ConfigError(message)


def _unknown(filters: Filter) -> list[tuple[str, str]]:
    """What is asked for that no server is known to have, with what it would be."""
    return [
        (name, text)
        for name, texts in _wanted(filters).items()
        for text in texts
        if _meant(text) not in {one.value.casefold() for one in _KNOWN[name]}
    ]


def _wanted(filters: Filter) -> dict[str, list[str]]:
    return {"state": filters.state, "result": filters.result, "type": filters.type}


def _meant(text: str) -> str:
    """As servers say it, in small letters: a product's name is as good as its sign."""
    return _PRODUCTS.get(text.casefold(), text.casefold())


# --------------------------------------------------------------------------------- forms of output


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
    # The first character is checked at the end, after control characters have been removed.
    text = printable("" if value is None else str(value), 10_000)
    return f"'{text}" if text.startswith(_FORMULA) else text


# ---------------------------------------------------------------------------------------- timeline


def timeline(which: Selection, filters: Filter, file: Path | None) -> int:
    """Who restored what when, as bars over time, server by server."""
    _refuse_slips(filters)
    fleet = fleet_of(which)
    return run(_timeline(fleet, filters, file))


async def _timeline(fleet: Fleet, filters: Filter, file: Path | None) -> int:
    names = list(fleet)
    answers, status = await _ask(fleet, filters, None)
    now = datetime.now(UTC)
    begins = now - filters.since if isinstance(filters.since, timedelta) else filters.since
    found = [row.session for answer in answers for rows in answer.items for row in rows]
    answered = {answer.server for answer in answers if answer.error is None}
    silent = [name for name in names if name not in answered]
    if file is not None:
        file.write_text(svg(found, names, begins, now, silent=silent), encoding="utf-8")  # noqa: ASYNC240  # nothing else runs
    else:
        out = console()
        out.print(bars(found, names, begins, now, out.width, silent=silent))
    errors = [answer.error for answer in answers if answer.error is not None]
    show_failures(errors, len(names), console(stderr=True))
    return status
