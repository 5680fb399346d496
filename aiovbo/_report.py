"""Answers of many servers as text for a terminal: a table, the failures, one line of figures.

Knows widths and colours. What a server sent goes through `printable` before it reaches a terminal.
"""

import textwrap
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import starmap

from attrs import field, frozen

from aiovbo import (
    Answer,
    RestoreSession,
    RestoreSessionResult,
    RestoreSessionState,
    ServerError,
)
from aiovbo.errors import printable

_BOLD, _DIM, _RED, _GREEN, _YELLOW, _CYAN = "1", "2", "31", "32", "33", "36"
_RESULT_COLOURS = {
    RestoreSessionResult.SUCCESS: _GREEN,
    RestoreSessionResult.WARNING: _YELLOW,
    RestoreSessionResult.FAILED: _RED,
}
_ROOMY = 100
"""Columns from which on two blanks stand between cells."""

_LONGEST_LINE = 120
"""Columns beyond which sentences are hard to read."""

_CELL_LIMIT = 60

Paint = Callable[[str, str], str]
"""Gives a text a colour, or leaves it alone."""


@frozen
class Row:
    """One restore session, and whose backup it explores."""

    session: RestoreSession
    organization: str
    """The organization's name; empty where nobody knows it."""


def _safe(text: str | None) -> str:
    return printable(text or "-", _CELL_LIMIT)


@frozen
class Cell:
    """One text of a table, safe to show."""

    text: str = field(converter=_safe)
    colour: str = ""


@frozen
class Column:
    """One column of a table."""

    title: str
    least: int = _CELL_LIMIT
    """Characters that it may be cut to where the terminal is narrow."""
    right: bool = False
    """Whether its texts end at the same place, as numbers do."""


_COLUMNS = (
    Column("server", least=6),
    Column("organization", least=8),
    Column("type"),
    Column("state"),
    Column("result"),
    Column("initiated by", least=8),
    Column("start"),
    Column("took", right=True),
)


@frozen
class Report:
    """What came of one question to many servers."""

    answers: Sequence[Answer[list[Row]]]
    elapsed: float
    """Seconds that the whole of it took."""

    @property
    def rows(self) -> list[Row]:
        """The sessions of all servers, newest first."""
        found = [row for answer in self.answers for rows in answer.items for row in rows]
        return sorted(found, key=lambda row: row.session.creation_time, reverse=True)

    @property
    def errors(self) -> list[ServerError]:
        """What is wrong with those that failed, by server."""
        found = [answer.error for answer in self.answers if answer.error is not None]
        return sorted(found, key=lambda error: error.server)

    def text(self, width: int, *, colour: bool = False) -> str:
        """All of it, in lines of at most `width` columns."""
        now = max((answer.fetched_at for answer in self.answers), default=datetime.now(UTC))
        paint = _paint if colour else _plain
        title = "Restore sessions of the last 24 hours, newest first, times in UTC"
        lines = ["", paint(title, _BOLD), ""]
        lines += _table([_cells(row, now) for row in self.rows], width, paint)
        if self.errors:
            count = f"{len(self.errors)} of {len(self.answers)} servers gave no answer"
            lines += ["", paint(count, _BOLD), ""]
        for error in self.errors:
            lines += _failure(error, min(width, _LONGEST_LINE), paint)
        lines += ["", *textwrap.wrap(self._figures(), min(width, _LONGEST_LINE))]
        return "\n".join(lines)

    def _figures(self) -> str:
        good = [answer.elapsed for answer in self.answers if answer.error is None]
        bad = [answer.elapsed for answer in self.answers if answer.error is not None]
        text = f"{len(self.rows)} sessions from {len(good)} servers"
        if good:
            text += f", the slowest of them after {max(good):.2f} s"
        if bad:
            text += f"; {len(bad)} servers failed, the last after {max(bad):.2f} s"
        return f"{text}. All in {self.elapsed:.2f} s."


def _cells(row: Row, now: datetime) -> list[Cell]:
    session = row.session
    running = session.state is not RestoreSessionState.STOPPED
    # What a running session shows as its result is no outcome yet.
    result = None if running else session.result
    took = (session.end_time or now) - session.creation_time
    return [
        Cell(session.server),
        Cell(row.organization),
        Cell(session.type),
        Cell(session.state, _CYAN if running else ""),
        Cell(result, _RESULT_COLOURS.get(result, "") if result else ""),
        Cell(session.initiated_by),
        Cell(f"{session.creation_time:%a %H:%M}"),
        Cell(_duration(took)),
    ]


def _duration(took: timedelta) -> str:
    hours, minutes = divmod(round(took.total_seconds() / 60), 60)
    return f"{hours}h {minutes:02}m" if hours else f"{minutes}m"


def _table(rows: Sequence[Sequence[Cell]], width: int, paint: Paint) -> list[str]:
    gap = "  " if width >= _ROOMY else " "
    columns = list(zip(*rows, strict=True)) or [() for _ in _COLUMNS]
    wanted = [
        max(len(text) for text in (column.title, *(cell.text for cell in cells)))
        for column, cells in zip(_COLUMNS, columns, strict=True)
    ]
    widths = _fit(wanted, width - len(gap) * (len(_COLUMNS) - 1))
    titles = [Cell(column.title, _DIM) for column in _COLUMNS]
    lines: list[str] = []
    for row in (titles, *rows):
        padded = starmap(_pad, zip(row, _COLUMNS, widths, strict=True))
        painted = [paint(text, cell.colour) for text, cell in zip(padded, row, strict=True)]
        lines.append(gap.join(painted).rstrip())
    return lines


def _fit(wanted: Sequence[int], width: int) -> list[int]:
    """Widths that together fit, taken from the widest of those that may be cut."""
    widths = list(wanted)
    while sum(widths) > width:
        spare = [
            (have, index)
            for index, (have, column) in enumerate(zip(widths, _COLUMNS, strict=True))
            if have > column.least
        ]
        if not spare:
            break
        widths[max(spare)[1]] -= 1
    return widths


def _pad(cell: Cell, column: Column, width: int) -> str:
    text = printable(cell.text, width)
    return text.rjust(width) if column.right else text.ljust(width)


def _failure(error: ServerError, width: int, paint: Paint) -> list[str]:
    """The server's name, and beside it what happened and what to do."""
    often = "once" if error.attempts == 1 else f"{error.attempts} times"
    said = f"{error.operation}: {error.what} (tried {often}, {error.elapsed:.1f} s)"
    name = printable(error.server, _CELL_LIMIT)
    indent = " " * (len(name) + 2)
    lines = [
        line
        for text in (said, error.hint)
        for line in textwrap.wrap(
            printable(text, 1000), width, initial_indent=indent, subsequent_indent=indent
        )
    ]
    return [paint(name, _RED) + lines[0][len(name) :], *lines[1:]]


def _paint(text: str, colour: str) -> str:
    return f"\x1b[{colour}m{text}\x1b[0m" if colour else text


def _plain(text: str, _: str) -> str:
    return text
