"""Records as rows: which fields of them are shown, in which order, as a table or as CSV.

A command describes its records by `Fields`. Must not know where records come from.
"""

import csv
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from difflib import get_close_matches
from typing import Generic, TextIO, TypeVar, cast

from attrs import frozen
from rich.text import Text

from aiovbo._cli._columns import RowTable, cell, name_cell
from aiovbo._cli._options import TableOptions
from aiovbo._cli._times import Times, duration
from aiovbo.errors import ConfigError, printable

T = TypeVar("T")

# Full-width ones too, which spreadsheets in East Asia take for the others.
_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")
_LONGEST_CELL = 10_000


@frozen(kw_only=True)
class Field(Generic[T]):
    """One field of a record."""

    name: str
    """Its name for `--columns`, `--sort` and CSV, where possible the API's."""
    value: Callable[[T], object]
    """A text, time, duration, number, list or None."""
    title: str = ""
    """Its title in a table, where it differs from the name."""
    style: Callable[[T], str] = lambda _: ""
    """The style of its cells."""
    is_server: bool = False
    """Whether rows are known by it: folded, and never cut."""
    is_id: bool = False
    """Whether rows are known by it, and it is copied: neither folded nor cut."""
    may_be_cut: bool = False
    """Whether its cells are still useful when cut."""
    is_time: bool = False

    @property
    def heading(self) -> str:
        """Its title in a table."""
        return self.title or self.name


@frozen(kw_only=True)
class Fields(Generic[T]):
    """All fields of a kind of record."""

    fields: Sequence[Field[T]]
    csv: Sequence[str]
    """The columns of CSV, unless others are chosen."""
    sort: Sequence[str]
    """The default order, as `--sort` takes it."""

    def chosen(self, names: Sequence[str]) -> list[Field[T]]:
        """The fields of these names.

        Raises: ConfigError for unknown names.
        """
        return [self._named(name, "--columns") for name in names]

    def check(self, options: TableOptions) -> None:
        """Reject options that do not fit, before anything is requested.

        Raises: ConfigError for unknown names.
        """
        self.chosen(options.columns)
        list(self._order(options))

    def arranged(self, records: Sequence[T], options: TableOptions) -> list[T]:
        """The records in the chosen order, up to the limit. What has no value comes last.

        Raises: ConfigError for unknown names.
        """
        found = list(records)
        for field, is_reversed in reversed(list(self._order(options))):
            keys = [(one, _sort_key(field.value(one))) for one in found]
            known = [pair for pair in keys if pair[1] is not None]
            known.sort(key=lambda pair: cast("str", pair[1]), reverse=is_reversed)
            found = [one for one, _ in known] + [one for one, key in keys if key is None]
        return found[: options.limit]

    def table(self, records: Sequence[T], layouts: Sequence[Sequence[str]], times: Times) -> RowTable:
        """The records as a table with the first of the layouts that fits the terminal."""
        columns = {name: self._named(name, "--columns") for layout in layouts for name in layout}
        titles = {name: self._title(field, records, times) for name, field in columns.items()}
        fields = {titles[name]: field for name, field in columns.items()}
        return RowTable(
            rows=[{title: _cell(f, one, times) for title, f in fields.items()} for one in records],
            layouts=[[titles[name] for name in layout] for layout in layouts],
            names={title for title, f in fields.items() if f.is_server or f.is_id},
            may_be_cut={title for title, f in fields.items() if f.may_be_cut},
            right={
                title
                for title, f in fields.items()
                if any(isinstance(f.value(one), timedelta | int | float) for one in records)
            },
        )

    def write_csv(
        self, records: Sequence[T], names: Sequence[str], times: Times, file: TextIO | None = None
    ) -> None:
        """The records as CSV, on standard output unless there is a file."""
        fields = self.chosen(names or self.csv)
        writer = csv.writer(file or sys.stdout, lineterminator="\n")
        writer.writerow([field.name for field in fields])
        for one in records:
            writer.writerow([_harmless(field.value(one), times) for field in fields])

    def _named(self, text: str, option: str) -> Field[T]:
        known = {_plain(word): field for field in self.fields for word in (field.heading, field.name)}
        if (found := known.get(_plain(text))) is not None:
            return found
        near = get_close_matches(_plain(text), known, 1)
        hint = f"did you mean {known[near[0]].name}?" if near else "expected one of "
        names = "" if near else ", ".join(field.name for field in self.fields)
        message = f"{option}: there is no column {text!r}; {hint}{names}"
        raise ConfigError(message)

    def _order(self, options: TableOptions) -> Iterator[tuple[Field[T], bool]]:
        for text in options.sort or self.sort:
            yield self._named(text.removeprefix("-"), "--sort"), text.startswith("-")

    def _title(self, field: Field[T], records: Sequence[T], times: Times) -> str:
        if not field.is_time:
            return field.heading
        moments = [value for one in records if isinstance(value := field.value(one), datetime)]
        return f"{field.heading} {times.label(moments)}"


def natural_key(text: str) -> list[tuple[int, str]]:
    """A sort key in which numbers count by their value: `vbo2` comes before `vbo10`."""
    parts = re.split("([0-9]+)", text.casefold())
    # Not int(): a text may have more digits than Python converts.
    return [(len(part.lstrip("0")), part.lstrip("0")) if n % 2 else (0, part) for n, part in enumerate(parts)]


def _sort_key(value: object) -> object:
    if value is None or value == "":
        return None
    return value if isinstance(value, datetime | timedelta | int | float) else natural_key(str(value))


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).casefold()


def _cell(field: Field[T], record: T, times: Times) -> Text:
    value, style = field.value(record), field.style(record)
    if field.is_server:
        return name_cell(value, style)
    if isinstance(value, datetime):
        value = times.short(value)
    elif isinstance(value, timedelta):
        value = duration(value)
    elif isinstance(value, list):
        value = "; ".join(map(str, cast("list[object]", value)))
    return cell(value, style)


def _harmless(value: object, times: Times) -> str:
    """A cell that no spreadsheet takes for a formula, and no terminal for a command."""
    if isinstance(value, datetime):
        value = times.iso(value)
    elif isinstance(value, timedelta):
        value = round(value.total_seconds())
    elif isinstance(value, list):
        value = "; ".join(map(str, cast("list[object]", value)))
    if isinstance(value, int | float):
        return str(value)
    # The first character is checked at the end, after control characters have been removed.
    text = printable("" if value is None else str(value), _LONGEST_CELL)
    return f"'{text}" if text.startswith(_FORMULA) else text
