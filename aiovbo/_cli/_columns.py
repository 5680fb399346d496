"""Values as cells, and rows as a table, or as a few lines each where the terminal is too narrow.

Must not know what the rows are.
"""

from collections.abc import Collection, Mapping, Sequence

from attrs import frozen
from rich.console import Console, ConsoleOptions, RenderResult
from rich.padding import Padding
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from aiovbo.errors import printable

CELL_LIMIT = 60
"""Maximum number of characters of a cell; more is cut."""

NAME_LIMIT = 300
"""Maximum number of characters of the name of a server: more than any host name has."""
_LEAST = 8
"""Minimum width of a cell that may be cut."""
_LEAST_OF_A_NAME = 12
"""Minimum width of a folded name; a narrower one gets a line of its own."""
_APART = 2


def cell(text: object, style: str = "") -> Text:
    """A text for a table, safe whatever the server sent."""
    shown = printable(str(text) if text not in (None, "") else "-", CELL_LIMIT)
    return Text(shown, style=style, no_wrap=True, overflow="ellipsis")


def name_cell(name: object, style: str = "") -> Text:
    """The name of a row for a table: folded, never cut."""
    return Text(printable(str(name), NAME_LIMIT), style=style, overflow="fold")


def plain_table(*titles: str) -> Table:
    """A table without lines, with columns as wide as their contents."""
    table = Table(box=None, header_style="", pad_edge=False, padding=(0, _APART, 0, 0))
    for title in titles:
        table.add_column(cell(title, "dim"), no_wrap=True)
    return table


@frozen
class Unpadded:
    """A table without spaces at the ends of its lines."""

    table: Table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in Segment.split_lines(console.render(self.table, options)):
            while line and not line[-1].text.strip():
                line.pop()
            if line:
                line[-1] = Segment(line[-1].text.rstrip(), line[-1].style)
            yield from line
            yield Segment.line()


@frozen(kw_only=True)
class RowTable:
    """Rows as a table; where the terminal is too narrow for one, each row is a few lines.

    Only cells that may be cut are cut, and the name of a row never is.
    """

    rows: Sequence[Mapping[str, Text]]
    """Cells by title."""
    layouts: Sequence[Sequence[str]]
    """Titles of possible tables, the widest first; the first one that fits is drawn."""
    names: Collection[str]
    """Titles of the cells that name a row."""
    may_be_cut: Collection[str] = ()
    """Titles of the cells that are still useful when cut."""
    right: Collection[str] = ()
    """Titles of the cells that are aligned to the right."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for layout in self.layouts:
            widths = self._widths(layout, options.max_width)
            if widths:
                yield Unpadded(self._table(widths))
                return
        for row in self.rows:
            yield from self._lines(row, options.max_width)

    def _widths(self, layout: Sequence[str], room: int) -> dict[str, int]:
        """The width of each column; empty where there is not enough room."""
        natural = {t: max([len(t), *(row[t].cell_len for row in self.rows)]) for t in layout}
        widths = {title: min(natural[title], self._least(title, natural[title])) for title in layout}
        spare = room - sum(widths.values()) - _APART * (len(layout) - 1)
        if spare < 0:
            return {}
        # Widen names first.
        for wanted in (self.names, self.may_be_cut):
            while spare and (hungry := [t for t in layout if t in wanted and widths[t] < natural[t]]):
                for title in hungry[:spare]:
                    widths[title] += 1
                    spare -= 1
        return widths

    def _least(self, title: str, natural: int) -> int:
        if title in self.may_be_cut:
            return _LEAST
        # An ID is copied from the terminal: its cells are not folded.
        is_folded = title in self.names and not any(row[title].no_wrap for row in self.rows)
        return _LEAST_OF_A_NAME if is_folded else natural

    def _table(self, widths: Mapping[str, int]) -> Table:
        table = plain_table(*widths)
        for (title, width), column in zip(widths.items(), table.columns, strict=True):
            column.width = width
            column.no_wrap = title not in self.names
            column.justify = "right" if title in self.right else "left"
        for row in self.rows:
            table.add_row(*(row[title] for title in widths))
        return table

    def _lines(self, row: Mapping[str, Text], room: int) -> RenderResult:
        for title in self.layouts[0]:
            if title in self.names:
                yield Text(row[title].plain, style=row[title].style or "bold", overflow="fold")
        lines = [Text(overflow="fold")]
        for title in self.layouts[0]:
            if title not in self.names:
                item = Text.assemble((f"{title} ", "dim"), row[title], overflow="fold")
                if lines[-1] and lines[-1].cell_len + _APART + item.cell_len > room - _APART:
                    lines.append(Text(overflow="fold"))
                lines[-1].append(" " * _APART if lines[-1] else "").append_text(item)
        for line in lines:
            yield Padding(line, (0, 0, 0, _APART), expand=False)
