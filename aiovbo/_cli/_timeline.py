"""Restore sessions over time: who restored what and when, as bars in a terminal.

`_picture` draws the same lanes and ticks. Must not know where sessions come from, nor what time it is. What a
server sent goes through `printable`, and is never markup.
"""

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta

from attrs import frozen
from rich.cells import cell_len, chop_cells
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.text import Text

from aiovbo._cli._columns import NAME_LIMIT
from aiovbo._cli._times import Times
from aiovbo._resources.enums import RestoreSessionResult, RestoreSessionType
from aiovbo.errors import ConfigError, printable
from aiovbo.models import RestoreSession

_KINDS = {
    RestoreSessionType.VEX: "Exchange",
    RestoreSessionType.VEOD: "OneDrive",
    RestoreSessionType.VESP: "SharePoint",
    RestoreSessionType.VET: "Teams",
}


@frozen
class _Look:
    """The appearance of an outcome in a terminal."""

    fill: str
    style: str
    tip: str = ""
    """The last character, where it differs from the others."""


_LOOKS = {
    "success": _Look("▇", "green"),
    "warning": _Look("▒", "bright_yellow"),
    "failed": _Look("\N{BOX DRAWINGS LIGHT DIAGONAL CROSS}", "bold bright_white on red"),
    "running": _Look("░", "bright_cyan", tip="▶"),
    "other": _Look("▚", "magenta"),
}
"""By outcome, in the order of the legend; without colour, the characters distinguish them."""
OUTCOMES = tuple(_LOOKS)
_OUTCOME_OF = {
    RestoreSessionResult.SUCCESS: "success",
    RestoreSessionResult.WARNING: "warning",
    RestoreSessionResult.FAILED: "failed",
}
# What a server sends must not look like a bar.
_NO_BARS = dict.fromkeys((ord(char) for look in _LOOKS.values() for char in look.fill + look.tip), "?")
NO_ANSWER = "no answer"
_GRID, _AXIS, _TICK = "┊", "─", "┴"
_ASCII = str.maketrans("▇▒\N{BOX DRAWINGS LIGHT DIAGONAL CROSS}░▶▚┊─┴…", "#%x=>?:-+~")

_MICROSECOND = timedelta(microseconds=1)
_MINUTE, _DAY = timedelta(minutes=1), timedelta(days=1)
_STEPS = (
    *(timedelta(seconds=count) for count in (1, 5, 15, 30)),
    *(timedelta(minutes=count) for count in (1, 2, 5, 10, 15, 30)),
    *(timedelta(hours=count) for count in (1, 2, 3, 4, 6, 12)),
    *(timedelta(days=count) for count in (1, 2, 7, 14, 28, 91, 182, 364)),
)
_MONDAY = datetime(1, 1, 1)  # noqa: DTZ001  # what a clock shows
UTC_TIMES = Times(UTC)
_LONG_AGO = timedelta(days=200)
"""The length of a window from which on its days need a year."""


# ------------------------------------------------------------------------------------ what is drawn


@frozen
class Bar:
    """One session within the window; times as shares of it, from 0 to 1."""

    session: RestoreSession
    outcome: str
    begin: float
    end: float

    @property
    def labels(self) -> tuple[str, str, str]:
        """Possible labels, from the longest to none."""
        who = _shown(_person(self.session.initiated_by or ""))
        kind = _shown(kind_of(self.session))
        return " ".join(part for part in (who, kind) if part), who or kind, ""


@frozen
class ServerBars:
    """One server, and what was restored on it."""

    server: str
    bars: Sequence[Bar]
    is_silent: bool
    """Whether it gave no answer, so that its restores are unknown."""


def bars_by_server(
    sessions: Iterable[RestoreSession],
    servers: Iterable[str],
    begins: datetime,
    ends: datetime,
    silent: Collection[str],
) -> list[ServerBars]:
    if begins >= ends:
        raise ConfigError("a timeline begins before it ends")
    found: dict[str, list[Bar]] = {server: [] for server in servers}
    for session in sessions:
        start = session.creation_time
        # Where the server's clock was set back in between, the end is before the start.
        end = max(start, ends if session.end_time is None else session.end_time)
        if start <= ends and end >= begins:
            shares = [(min(max(at, begins), ends) - begins) / (ends - begins) for at in (start, end)]
            found.setdefault(session.server, []).append(Bar(session, _outcome(session), *shares))
    return [ServerBars(server, bars, server in silent) for server, bars in found.items()]


def _outcome(session: RestoreSession) -> str:
    if not session.has_ended:
        return "running"
    return "other" if session.result is None else _OUTCOME_OF.get(session.result, "other")


def _person(account: str) -> str:
    """The user name without the domain."""
    return account.rpartition("\\")[2].partition("@")[0] or account


def kind_of(session: RestoreSession) -> str:
    return "" if session.type is None else _KINDS.get(session.type, session.type.value)


def _shown(text: str, limit: int = 24) -> str:
    return printable(text, limit).translate(_NO_BARS)


def counts_of(rows: Iterable[ServerBars]) -> dict[str, int]:
    """The number of sessions by outcome, in the order of the legend."""
    counted = Counter(bar.outcome for row in rows for bar in row.bars)
    return {outcome: counted[outcome] for outcome in OUTCOMES if counted[outcome]}


# ---------------------------------------------------------------------------------- where it stands


@frozen
class Plot:
    """The room for bars, in the unit of the drawing."""

    width: float
    least: float
    """Minimum width of a bar."""
    gap: float
    """Between a bar and its label."""
    apart: float
    """Between a bar with its label and the next."""
    lanes: int
    """Maximum number of additional lanes of a server to make room for labels."""
    measure: Callable[[str], float]
    snap: Callable[[float], float]
    inside: float
    """Distance between a label inside a bar and the bar's ends."""
    inside_of: Collection[str]
    """Outcomes whose bars can contain their label."""


@frozen
class Placed:
    """A bar with its position in a lane, and its label."""

    bar: Bar
    start: float
    end: float
    left: float
    """Where the bar or its label begins."""
    right: float
    """Where the bar or its label ends."""
    label: str = ""
    label_at: float = 0


def _place(bar: Bar, label: str, plot: Plot) -> Placed:
    """The bar with its label inside, after or before it, or without a label where there is no room."""
    start = min(plot.snap(bar.begin * plot.width), plot.width - plot.least)
    end = max(plot.snap(bar.end * plot.width), start + plot.least)
    length = plot.measure(label)
    if not label:
        return Placed(bar, start, end, start, end)
    if bar.outcome in plot.inside_of and length + 2 * plot.inside <= end - start:
        return Placed(bar, start, end, start, end, label, start + plot.inside)
    if (at := end + plot.gap) + length <= plot.width:
        return Placed(bar, start, end, start, at + length, label, at)
    if (at := start - plot.gap - length) >= 0:
        return Placed(bar, start, end, at, end, label, at)
    return Placed(bar, start, end, start, end)


def lanes_of(bars: Sequence[Bar], plot: Plot) -> list[list[Placed]]:
    """Bars in as few lanes as possible, or a few more where that makes room for labels; at least one lane."""
    lanes = bare = _pack([_place(bar, "", plot) for bar in bars], plot.apart)
    # Prefer full labels for all; otherwise at least label the sessions that may need attention.
    for wish in (_all_of_it, _in_short, _if_notable):
        labelled = _pack([_place(bar, wish(bar), plot) for bar in bars], plot.apart)
        if len(labelled) <= len(bare) + plot.lanes:
            lanes = labelled
            break
    return [_label_where_room_is(lane, plot) for lane in lanes]


def _all_of_it(bar: Bar) -> str:
    return bar.labels[0]


def _in_short(bar: Bar) -> str:
    return bar.labels[1]


def _if_notable(bar: Bar) -> str:
    return "" if bar.outcome == "success" else bar.labels[1]


def _label_where_room_is(lane: Sequence[Placed], plot: Plot) -> list[Placed]:
    """The lane with labels where there is space."""
    found: list[Placed] = []
    for number, one in enumerate(lane):
        low = found[-1].right + plot.apart if found else 0.0
        high = lane[number + 1].left - plot.apart if number + 1 < len(lane) else plot.width
        tries = (_place(one.bar, label, plot) for label in one.bar.labels[:2])
        found.append(next((new for new in tries if new.label and new.left >= low and new.right <= high), one))
    return found


def _pack(placed: Iterable[Placed], apart: float) -> list[list[Placed]]:
    lanes: list[list[Placed]] = []
    for one in sorted(placed, key=lambda one: (one.left, one.right)):
        for lane in lanes:
            if lane[-1].right + apart <= one.left:
                lane.append(one)
                break
        else:
            lanes.append([one])
    return lanes or [[]]


@frozen
class Tick:
    at: float
    """Its position as a share of the window."""
    label: str


def ticks_of(begins: datetime, ends: datetime, most: int, times: Times = UTC_TIMES) -> list[Tick]:
    """Round times within the window, on the clock of `times`, at most `most` of them."""
    window = ends - begins
    step = next((step for step in _STEPS if window <= step * most), None)
    if step is None:
        step = _STEPS[-1] * math.ceil(window / (_STEPS[-1] * max(most, 1)))
    # In whole numbers, because the window may end where Python's calendar does.
    shown = (times.at(at).replace(tzinfo=None) for at in (begins, ends))
    first, last = ((wall - _MONDAY) // _MICROSECOND for wall in shown)
    every = step // _MICROSECOND
    found: list[Tick] = []
    for at in range(-(-first // every) * every, last + 1, every):
        wall = _MONDAY + timedelta(microseconds=at)
        moment = times.instant(wall)
        # In spring, the clock skips an hour.
        if begins <= moment <= ends and times.at(moment).replace(tzinfo=None) == wall:
            found.append(Tick((moment - begins) / window, _tick_label(wall, step, window)))
    return found


def _tick_label(wall: datetime, step: timedelta, window: timedelta) -> str:
    if step < _DAY and (wall.hour, wall.minute, wall.second) != (0, 0, 0):
        return f"{wall:%H:%M}" if step >= _MINUTE else f"{wall:%H:%M:%S}"
    return f"{wall:%b %Y}" if window > _LONG_AGO else f"{wall:%d %b}"


def period_of(begins: datetime, ends: datetime, times: Times = UTC_TIMES, *, year: bool = False) -> str:
    """The window in words, with its time zone."""
    zone = times.label([begins, ends])
    begins, ends = times.at(begins), times.at(ends)
    day = "%a %d %b" + (" %Y" if year or ends - begins > _LONG_AGO else "")
    until = "" if begins.date() == ends.date() else f"{ends:{day}} "
    return f"{begins:{day} %H:%M} to {until}{ends:%H:%M} {zone}"


# ------------------------------------------------------------------------------------- in a terminal

_ROOMY = 50
"""Minimum columns for names of servers beside their bars."""
_TICK_COLUMNS = 9


def bars(  # what is drawn, and the frame
    sessions: Sequence[RestoreSession],
    servers: Sequence[str],
    begins: datetime,
    ends: datetime,
    width: int,
    *,
    silent: Collection[str] = (),
    times: Times = UTC_TIMES,
) -> RenderableType:
    """Who restored what when, in lines of at most `width` columns.

    Servers are in the order given, then those that only sessions name; `silent` ones gave no answer.
    A session without an end goes on to `ends`.

    Raises: ConfigError where the window is empty.
    """
    rows = bars_by_server(sessions, servers, begins, ends, silent)
    width = max(width, 1)
    zone = times.label([begins, ends])
    gutter = _gutter([printable(row.server, NAME_LIMIT) for row in rows], zone, width)
    plot = Plot(
        width - gutter,
        1,
        gap=1,
        apart=2,
        lanes=1,
        measure=cell_len,
        snap=round,
        inside=3,
        inside_of=["running"],
    )
    ticks = ticks_of(begins, ends, max(1, int(plot.width) // _TICK_COLUMNS), times)
    lines = [Text(period_of(begins, ends, times), style="dim")]
    for row in rows:
        lines += _row_lines(row, plot, ticks, gutter)
    lines += _axis_lines(ticks, zone, int(plot.width), gutter)
    lines += _legend_lines(counts_of(rows), width)
    for line in lines:
        line.no_wrap, line.overflow = True, "crop"
        line.truncate(width, overflow="ellipsis")
    return _Picture(lines, width)


def _gutter(names: Collection[str], zone: str, width: int) -> int:
    """Columns for names beside their bars; 0 where the names are above the bars."""
    longest = max(map(cell_len, names), default=0)
    room = min(max(longest, len(zone)), width // 4)
    if width < _ROOMY:
        return 0
    shown = {name if cell_len(name) <= room else chop_cells(name, room - 1)[0] for name in names}
    return room + 1 if len(shown) == len(set(names)) else 0


@frozen
class _Picture:
    """Lines that are drawn with ASCII where the terminal's encoding has no other characters."""

    lines: Sequence[Text]
    width: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in self.lines:
            yield self._in_ascii(line) if options.ascii_only else line

    def _in_ascii(self, line: Text) -> Text:
        twin = line.copy()
        twin.plain = line.plain.translate(_ASCII).encode("ascii", "replace").decode()
        twin.truncate(self.width)
        return twin


def _row_lines(row: ServerBars, plot: Plot, ticks: Sequence[Tick], gutter: int) -> list[Text]:
    name = printable(row.server, NAME_LIMIT)
    style = "red" if row.is_silent else "bold" if row.bars else "dim"
    columns = _columns(ticks, int(plot.width))
    lines: list[Text] = []
    if not gutter:
        lines += [Text(part, style=style) for part in chop_cells(name, int(plot.width))]
    for number, lane in enumerate(lanes_of(row.bars, plot)):
        line = Text()
        if gutter:
            head = Text(name if number == 0 else "", style=style)
            head.truncate(gutter - 1, overflow="ellipsis", pad=True)
            line.append_text(head).append(" ")
        if row.is_silent and not lane:
            line.append(NO_ANSWER, style="red")
            line.append(_blank(len(NO_ANSWER), int(plot.width), columns), style="dim")
            line.rstrip()
        else:
            line.append_text(_lane_text(lane, int(plot.width), columns))
        lines.append(line)
    return lines


def _lane_text(lane: Sequence[Placed], width: int, columns: frozenset[int]) -> Text:
    text = Text()
    at = 0
    for one in lane:
        text.append(_blank(at, int(one.left), columns), style="dim")
        look = _LOOKS[one.bar.outcome]
        fill = look.fill * (int(one.end - one.start) - len(look.tip)) + look.tip
        if not one.label:
            text.append(fill, style=look.style)
        elif one.label_at < one.start:
            text.append(one.label + " ").append(fill, style=look.style)
        elif one.label_at < one.end:
            # Only in a running session's bar, so that it does not look like two bars.
            before = int(one.label_at - one.start) - 1
            text.append(fill[:before], style=look.style).append(f" {one.label} ")
            text.append(fill[before + 2 + cell_len(one.label) :], style=look.style)
        else:
            text.append(fill, style=look.style).append(" " + one.label)
        at = int(one.right)
    text.append(_blank(at, width, columns), style="dim")
    text.rstrip()
    return text


def _blank(start: int, end: int, columns: frozenset[int]) -> str:
    return "".join(_GRID if column in columns else " " for column in range(start, end))


def _columns(ticks: Iterable[Tick], width: int) -> frozenset[int]:
    return frozenset(min(round(tick.at * width), width - 1) for tick in ticks)


def _axis_lines(ticks: Sequence[Tick], zone: str, width: int, gutter: int) -> list[Text]:
    columns = _columns(ticks, width)
    line = "".join(_TICK if column in columns else _AXIS for column in range(width))
    labels = ""
    for tick in ticks:
        at = min(max(round(tick.at * width) - len(tick.label) // 2, 0), width - len(tick.label))
        if at > len(labels) or at == len(labels) == 0:
            labels = labels.ljust(at) + tick.label
    unit = zone[: gutter - 1].rjust(gutter - 1) + " " if gutter else ""
    return [Text(" " * gutter + line, style="dim"), Text(unit + labels, style="dim")]


def _legend_lines(counts: dict[str, int], width: int) -> list[Text]:
    if not counts:
        return [Text("no restore sessions", style="dim")]
    lines = [Text()]
    for outcome, count in counts.items():
        look = _LOOKS[outcome]
        item = Text(look.fill + (look.tip or look.fill), style=look.style)
        item = Text.assemble(item, f" {count} {outcome}")
        if lines[-1] and lines[-1].cell_len + 3 + item.cell_len > width:
            lines.append(Text())
        lines[-1].append("   " if lines[-1] else "").append_text(item)
    return lines
