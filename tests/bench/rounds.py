"""Fair turns: everybody once a round, another one first each time; medians over the rounds.

Knows turns and tables; knows nothing of what is measured.
"""

import gc
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from time import monotonic
from typing import Any, TypeVar

from attrs import field, frozen

T = TypeVar("T")

Turn = Callable[[], T]
"""What a contestant does once in a round."""


def interleaved(
    turns: Mapping[str, Turn[T]], *, most: int, budget: float, least: int = 2
) -> dict[str, list[T]]:
    """What each turn gave, round by round: `most` rounds, or fewer as soon as `budget` seconds are over.

    A contestant that fails is left out with its error; noise affects all of them alike.
    """
    found: dict[str, list[T]] = {name: [] for name in turns}
    names = list(turns)
    ends = monotonic() + budget
    for number in range(most):
        if number >= least and monotonic() > ends:
            break
        start = number % len(turns)
        for name in names[start:] + names[:start]:
            if name not in found:
                continue
            gc.collect()
            try:
                found[name].append(turns[name]())
            except RuntimeError as error:
                print(f"failed: {name}: {error}", file=sys.stderr)
                del found[name]
    return found


def median(values: Iterable[float]) -> float:
    """The median."""
    return statistics.median(values)


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which that share of all lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


@frozen
class Table:
    """Lines of figures under a title."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(factory=list)
    note: str = ""

    def text(self) -> str:
        """For a terminal."""
        widths = [max(map(len, column)) for column in zip(self.columns, *self.rows, strict=True)]
        lines = [self.title, "-" * len(self.title)]
        for row in (self.columns, *self.rows):
            cells = [row[0].ljust(widths[0])]
            cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
            lines.append("  ".join(cells).rstrip())
        return "\n".join([*lines, *([self.note] if self.note else []), ""])

    def markdown(self) -> str:
        """For a file."""
        lines = [f"## {self.title}", ""]
        lines.append(f"| {' | '.join(self.columns)} |")
        lines.append("|---" + "|---:" * (len(self.columns) - 1) + "|")
        lines += [f"| {' | '.join(row)} |" for row in self.rows]
        return "\n".join([*lines, "", *([self.note, ""] if self.note else [])])


def short(value: float | None) -> str:
    """Three digits that matter, or a dash where nothing was measured."""
    if value is None:
        return "-"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value < 10 else f"{value:.1f}"


def against(value: float | None, other: float | None) -> str:
    """How many times `other` that is."""
    return "-" if value is None or not other else f"{value / other:.2f}"


def lookup(found: Mapping[str, Mapping[str, Any]], name: str, key: str) -> float | None:
    """A figure, where there is one."""
    return found.get(name, {}).get(key)
