"""Restore sessions over time: who restored what when, as bars in a terminal and as a picture.

Knows lanes, ticks, characters and colours. Must not know where sessions come from, nor what time it is; what
a server sent goes through `printable`, and is markup of no kind.
"""

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from html import escape

from attrs import frozen
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.text import Text

from aiovbo.errors import printable
from aiovbo.models import RestoreSession, RestoreSessionResult, RestoreSessionState, RestoreSessionType

_TEXT_LIMIT = 60
_KINDS = {
    RestoreSessionType.VEX: "Exchange",
    RestoreSessionType.VEOD: "OneDrive",
    RestoreSessionType.VESP: "SharePoint",
    RestoreSessionType.VET: "Teams",
}


@frozen
class _Look:
    """How an outcome is drawn in a terminal."""

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
"""By outcome, in the order of the legend; told apart by their characters alone, where there is no colour."""
_OUTCOMES = {
    RestoreSessionResult.SUCCESS: "success",
    RestoreSessionResult.WARNING: "warning",
    RestoreSessionResult.FAILED: "failed",
}
# What a server sends must not look like a bar.
_NO_BARS = dict.fromkeys((ord(char) for look in _LOOKS.values() for char in look.fill + look.tip), "?")
_NO_ANSWER = "no answer"
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
_MONDAY = datetime(1, 1, 1, tzinfo=UTC)
_LONG_AGO = timedelta(days=200)
"""The length of a window from which on its days need a year."""


# ------------------------------------------------------------------------------------ what is drawn


@frozen
class _Bar:
    """One session within the window; times as shares of it, from 0 to 1."""

    session: RestoreSession
    outcome: str
    begin: float
    end: float

    @property
    def labels(self) -> tuple[str, str, str]:
        """What may stand beside it, from the longest to nothing."""
        who = _shown(_person(self.session.initiated_by or ""))
        kind = _shown(_kind(self.session))
        return " ".join(part for part in (who, kind) if part), who or kind, ""


@frozen
class _Row:
    """One server, and what was restored on it."""

    server: str
    bars: Sequence[_Bar]
    is_silent: bool
    """Whether it gave no answer, so that nobody knows what was restored on it."""


def _rows(
    sessions: Iterable[RestoreSession],
    servers: Iterable[str],
    begins: datetime,
    ends: datetime,
    silent: Collection[str],
) -> list[_Row]:
    if begins >= ends:
        raise ValueError("a timeline begins before it ends")
    found: dict[str, list[_Bar]] = {server: [] for server in servers}
    for session in sessions:
        start = session.creation_time
        # The clock of a server that was set back in between must not turn a bar round.
        end = max(start, ends if session.end_time is None else session.end_time)
        if start <= ends and end >= begins:
            shares = [(min(max(at, begins), ends) - begins) / (ends - begins) for at in (start, end)]
            found.setdefault(session.server, []).append(_Bar(session, _outcome(session), *shares))
    return [_Row(server, bars, server in silent) for server, bars in found.items()]


def _outcome(session: RestoreSession) -> str:
    # What a session shows as its result while it works is no outcome yet.
    if session.state is None:
        is_over = session.end_time is not None
    else:
        is_over = session.state is RestoreSessionState.STOPPED
    if not is_over:
        return "running"
    return "other" if session.result is None else _OUTCOMES.get(session.result, "other")


def _person(account: str) -> str:
    """Who, without the domain."""
    return account.rpartition("\\")[2].partition("@")[0] or account


def _kind(session: RestoreSession) -> str:
    return "" if session.type is None else _KINDS.get(session.type, session.type.value)


def _shown(text: str, limit: int = 24) -> str:
    return printable(text, limit).translate(_NO_BARS)


def _counts(rows: Iterable[_Row]) -> dict[str, int]:
    """How many sessions came out how, in the order of the legend."""
    counted = Counter(bar.outcome for row in rows for bar in row.bars)
    return {outcome: counted[outcome] for outcome in _LOOKS if counted[outcome]}


# ---------------------------------------------------------------------------------- where it stands


@frozen
class _Plot:
    """The room for bars, in whatever unit one draws."""

    width: float
    least: float
    """How narrow a bar can be."""
    gap: float
    """Between a bar and its label."""
    apart: float
    """Between a bar with its label and the next."""
    lanes: int
    """How many more lanes than needed a server may have, for the sake of labels."""
    measure: Callable[[str], float]
    snap: Callable[[float], float]
    inside: float
    """How far from the bar's ends a label inside of it stays."""
    inside_of: Collection[str]
    """Outcomes whose bars can have a label inside."""


@frozen
class _Placed:
    """A bar that has its place in a lane, and its label."""

    bar: _Bar
    start: float
    end: float
    left: float
    """Where the bar or its label begins."""
    right: float
    """Where the bar or its label ends."""
    label: str = ""
    label_at: float = 0


def _place(bar: _Bar, label: str, plot: _Plot) -> _Placed:
    """The bar with its label inside, behind or before it, or without where there is no room."""
    start = min(plot.snap(bar.begin * plot.width), plot.width - plot.least)
    end = max(plot.snap(bar.end * plot.width), start + plot.least)
    length = plot.measure(label)
    if not label:
        return _Placed(bar, start, end, start, end)
    if bar.outcome in plot.inside_of and length + 2 * plot.inside <= end - start:
        return _Placed(bar, start, end, start, end, label, start + plot.inside)
    if (at := end + plot.gap) + length <= plot.width:
        return _Placed(bar, start, end, start, at + length, label, at)
    if (at := start - plot.gap - length) >= 0:
        return _Placed(bar, start, end, at, end, label, at)
    return _Placed(bar, start, end, start, end)


def _lanes(bars: Sequence[_Bar], plot: _Plot) -> list[list[_Placed]]:
    """Bars in as few lanes as they need, or a few more where they get labels for it; never none."""
    lanes = bare = _pack([_place(bar, "", plot) for bar in bars], plot.apart)
    # Rather all of them at length; else at least those that somebody may have to do something about.
    for wish in (_all_of_it, _in_short, _if_notable):
        labelled = _pack([_place(bar, wish(bar), plot) for bar in bars], plot.apart)
        if len(labelled) <= len(bare) + plot.lanes:
            lanes = labelled
            break
    return [_label_where_room_is(lane, plot) for lane in lanes]


def _all_of_it(bar: _Bar) -> str:
    return bar.labels[0]


def _in_short(bar: _Bar) -> str:
    return bar.labels[1]


def _if_notable(bar: _Bar) -> str:
    return "" if bar.outcome == "success" else bar.labels[1]


def _label_where_room_is(lane: Sequence[_Placed], plot: _Plot) -> list[_Placed]:
    """The lane with labels in the room that nobody else needs."""
    found: list[_Placed] = []
    for number, one in enumerate(lane):
        low = found[-1].right + plot.apart if found else 0.0
        high = lane[number + 1].left - plot.apart if number + 1 < len(lane) else plot.width
        tries = (_place(one.bar, label, plot) for label in one.bar.labels[:2])
        found.append(next((new for new in tries if new.label and new.left >= low and new.right <= high), one))
    return found


def _pack(placed: Iterable[_Placed], apart: float) -> list[list[_Placed]]:
    lanes: list[list[_Placed]] = []
    for one in sorted(placed, key=lambda one: (one.left, one.right)):
        for lane in lanes:
            if lane[-1].right + apart <= one.left:
                lane.append(one)
                break
        else:
            lanes.append([one])
    return lanes or [[]]


@frozen
class _Tick:
    at: float
    """Its share of the window."""
    label: str


def _ticks(begins: datetime, ends: datetime, most: int) -> list[_Tick]:
    """Round times within the window, at most so many."""
    window = ends - begins
    step = next((step for step in _STEPS if window <= step * most), None)
    if step is None:
        step = _STEPS[-1] * math.ceil(window / (_STEPS[-1] * max(most, 1)))
    # In whole numbers, because the window may end where Python's calendar does.
    first, last = ((at - _MONDAY) // _MICROSECOND for at in (begins, ends))
    every = step // _MICROSECOND
    found: list[_Tick] = []
    for at in range(-(-first // every) * every, last + 1, every):
        moment = _MONDAY + timedelta(microseconds=at)
        found.append(_Tick((moment - begins) / window, _tick_label(moment, step, window)))
    return found


def _tick_label(moment: datetime, step: timedelta, window: timedelta) -> str:
    if step < _DAY and (moment.hour, moment.minute, moment.second) != (0, 0, 0):
        return f"{moment:%H:%M}" if step >= _MINUTE else f"{moment:%H:%M:%S}"
    return f"{moment:%b %Y}" if window > _LONG_AGO else f"{moment:%d %b}"


def _period(begins: datetime, ends: datetime, *, year: bool = False) -> str:
    """The window in words."""
    begins, ends = begins.astimezone(UTC), ends.astimezone(UTC)
    day = "%a %d %b" + (" %Y" if year or ends - begins > _LONG_AGO else "")
    until = "" if begins.date() == ends.date() else f"{ends:{day}} "
    return f"{begins:{day} %H:%M} to {until}{ends:%H:%M} UTC"


# ------------------------------------------------------------------------------------- in a terminal

_ROOMY = 50
"""Columns from which on the names of servers stand beside their bars."""
_TICK_COLUMNS = 9


def bars(  # noqa: PLR0913  # what is drawn, and the frame
    sessions: Sequence[RestoreSession],
    servers: Sequence[str],
    begins: datetime,
    ends: datetime,
    width: int,
    *,
    silent: Collection[str] = (),
) -> RenderableType:
    """Who restored what when, in lines of at most `width` columns.

    Servers stand in the order given, then those that only sessions name; `silent` ones gave no answer.
    A session without an end goes on to `ends`.

    Raises: ValueError where the window is empty.
    """
    rows = _rows(sessions, servers, begins, ends, silent)
    width = max(width, 1)
    gutter = 0
    if width >= _ROOMY:
        longest = max((cell_len(printable(row.server, _TEXT_LIMIT)) for row in rows), default=0)
        gutter = min(max(longest, len("UTC")), width // 4) + 1
    plot = _Plot(
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
    ticks = _ticks(begins, ends, max(1, int(plot.width) // _TICK_COLUMNS))
    lines = [Text(_period(begins, ends), style="dim")]
    for row in rows:
        lines += _row_lines(row, plot, ticks, gutter)
    lines += _axis_lines(ticks, int(plot.width), gutter)
    lines += _legend_lines(_counts(rows), width)
    for line in lines:
        line.no_wrap, line.overflow = True, "crop"
        line.truncate(width, overflow="ellipsis")
    return _Picture(lines, width)


@frozen
class _Picture:
    """Lines that do without their characters where the terminal's encoding has none."""

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


def _row_lines(row: _Row, plot: _Plot, ticks: Sequence[_Tick], gutter: int) -> list[Text]:
    name = printable(row.server, _TEXT_LIMIT)
    style = "red" if row.is_silent else "bold" if row.bars else "dim"
    columns = _columns(ticks, int(plot.width))
    lines: list[Text] = []
    if not gutter:
        lines.append(Text(name, style=style))
    for number, lane in enumerate(_lanes(row.bars, plot)):
        line = Text()
        if gutter:
            head = Text(name if number == 0 else "", style=style)
            head.truncate(gutter - 1, overflow="ellipsis", pad=True)
            line.append_text(head).append(" ")
        if row.is_silent and not lane:
            line.append(_NO_ANSWER, style="red")
            line.append(_blank(len(_NO_ANSWER), int(plot.width), columns), style="dim")
        else:
            line.append_text(_lane_text(lane, int(plot.width), columns))
        lines.append(line)
    return lines


def _lane_text(lane: Sequence[_Placed], width: int, columns: frozenset[int]) -> Text:
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
            # Only what runs on, so that it cannot be taken for two bars.
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


def _columns(ticks: Iterable[_Tick], width: int) -> frozenset[int]:
    return frozenset(min(round(tick.at * width), width - 1) for tick in ticks)


def _axis_lines(ticks: Sequence[_Tick], width: int, gutter: int) -> list[Text]:
    columns = _columns(ticks, width)
    line = "".join(_TICK if column in columns else _AXIS for column in range(width))
    labels = ""
    for tick in ticks:
        at = min(max(round(tick.at * width) - len(tick.label) // 2, 0), width - len(tick.label))
        if at > len(labels) or at == len(labels) == 0:
            labels = labels.ljust(at) + tick.label
    unit = "UTC".rjust(gutter - 1) + " " if gutter else ""
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


# ------------------------------------------------------------------------------------- as a picture

_WIDTH = 1200
_MARGIN = 20
_NAME_LIMIT = 28
_LETTER = 6.6
"""How wide a letter of a label is, at most and more or less."""
_LANE, _THICK, _PADDING = 18, 14, 9
"""Two paddings are a lane, so that patterns begin with each."""
_HEAD = 92
_FIRST_BAR = _HEAD + _PADDING + (_LANE - _THICK) // 2
_LEGEND = _FIRST_BAR - 4 * _LANE
_TICK_ROOM = 80

_STYLE = """
.page{fill:#fff}.stripe{fill:#f6f7fa}.grid{stroke:#dfe3ea}
text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif;fill:#1b2330}
.heading{font-size:18px;font-weight:600}.quiet{font-size:12px;fill:#5d6878}.legend{font-size:12px}
.server{font-size:13px;font-weight:600}.idle{fill:#8a94a5;font-weight:400}.silent{fill:#b4202f}
.label{font-size:11px}.before{text-anchor:end}
.success{fill:#23865a}.warning{fill:#eeb02b}.failed{fill:#cc2f45}.running{fill:#2a74d8}.other{fill:#7d63b8}
.success .label.in,.failed .label.in,.running .label.in,.other .label.in{fill:#fff}.label.in{fill:#33270a}
.mark{stroke:#fff;stroke-opacity:.4;stroke-width:2;fill:none}.warning.mark{stroke:#7a5200;fill:none}
.bar:hover .session{opacity:.8}
@media(prefers-color-scheme:dark){
.page{fill:#10141b}.stripe{fill:#161c26}.grid{stroke:#262e3b}
text{fill:#e4e9f2}.quiet{fill:#93a0b4}.idle{fill:#6b778a}.silent{fill:#ff7d8c}
.success{fill:#3aa974}.warning{fill:#f0bb48}.failed{fill:#e4566a}.running{fill:#4c93f0}.other{fill:#9d86d6}
.success .label.in,.failed .label.in,.running .label.in,.other .label.in,.label.in{fill:#0a0e14}
.mark{stroke:#10141b;stroke-opacity:.35}:root{background:#10141b}
}
"""
# Not by colour alone: what failed is crossed out, a warning is dotted, what runs points onwards.
_MARKS = {
    "warning": (10, "M2.5 7h.1M7.5 3.5h.1M7.5 10.5h.1"),
    "failed": (9, "M-9 14 5 0M0 14 14 0M-4.5 14 9.5 0"),
    "running": (12, "M3 3.5 7 7 3 10.5"),
    "other": (6, "M3 0V14"),
}


def svg(
    sessions: Sequence[RestoreSession],
    servers: Sequence[str],
    begins: datetime,
    ends: datetime,
    *,
    silent: Collection[str] = (),
) -> str:
    """The same as a picture that needs nothing else: an SVG document, for light and dark, with tooltips.

    Raises: ValueError where the window is empty.
    """
    rows = _rows(sessions, servers, begins, ends, silent)
    longest = max((cell_len(printable(row.server, _NAME_LIMIT)) for row in rows), default=0)
    gutter = _MARGIN + max(60.0, longest * 7.6) + 12
    plot = _Plot(
        _WIDTH - gutter - _MARGIN, 3, gap=5, apart=4, lanes=1, inside=6, inside_of=_LOOKS, snap=float,
        measure=lambda label: cell_len(label) * _LETTER,
    )  # fmt: skip
    stripes: list[str] = []
    drawn: list[str] = []
    top = _HEAD
    for number, row in enumerate(rows):
        lanes = _lanes(row.bars, plot)
        height = len(lanes) * _LANE + 2 * _PADDING
        if number % 2 == 0:
            stripes.append(f'<path class="stripe" d="M0 {top}h{_WIDTH}v{height}h-{_WIDTH}z"/>')
        drawn += _svg_row(row, lanes, gutter, top + _PADDING)
        top += height
    ticks = _ticks(begins, ends, int(plot.width / _TICK_ROOM))
    grid = [line for tick in ticks for line in _svg_tick(tick, gutter, plot.width, top)]
    size = f'viewBox="0 0 {_WIDTH} {top + _MARGIN}" width="{_WIDTH}" height="{top + _MARGIN}"'
    about = 'role="img" aria-labelledby="vbo-title vbo-about"'
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {about}>',
        *_svg_head(_counts(rows), begins, ends),
    ]
    # The grid goes between the stripes and the bars.
    return "\n".join([*head, *stripes, *grid, *drawn, "</svg>", ""])


def _svg_head(counts: dict[str, int], begins: datetime, ends: datetime) -> list[str]:
    total = sum(counts.values())
    said = ", ".join(f"{count} {outcome}" for outcome, count in counts.items()) or "none"
    parts = [
        '<title id="vbo-title">Restore sessions over time</title>',
        f'<desc id="vbo-about">{_period(begins, ends, year=True)}; {total} sessions: {said}.</desc>',
        f"<style>{_STYLE}</style>",
        "<defs>",
        *(
            f'<pattern id="vbo-{outcome}" width="{width}" height="{_LANE}" y="{_FIRST_BAR % _LANE}"'
            ' patternUnits="userSpaceOnUse">'
            f'<path class="{outcome}" d="M0 0H{width}V{_THICK}H0z"/>'
            f'<path class="{outcome} mark" stroke-linecap="round" d="{drawn}"/></pattern>'
            for outcome, (width, drawn) in _MARKS.items()
        ),
        "</defs>",
        '<path class="page" d="M0 0H10000V1000000H0z"/>',
        f'<text class="heading" x="{_MARGIN}" y="32">Restore sessions</text>',
        f'<text class="quiet" x="{_MARGIN}" y="52">{_period(begins, ends, year=True)}</text>',
    ]
    at = float(_WIDTH - _MARGIN)
    for outcome, count in reversed(counts.items()):
        text = f"{count} {outcome}"
        at -= len(text) * 7
        swatch = f'<path class="{outcome}"{_fill(outcome)} d="M{at - 22:.0f} {_LEGEND}h16v{_THICK}h-16z"/>'
        parts.append(f'{swatch}<text class="legend" x="{at:.1f}" y="{_LEGEND + 11}">{text}</text>')
        at -= 42
    return parts


def _svg_tick(tick: _Tick, gutter: float, width: float, bottom: int) -> list[str]:
    x = gutter + tick.at * width
    return [
        f'<path class="grid" d="M{x:.1f} {_HEAD - 6}V{bottom}"/>',
        f'<text class="quiet" text-anchor="middle" x="{x:.1f}" y="{_HEAD - 12}">{tick.label}</text>',
    ]


def _svg_row(row: _Row, lanes: Sequence[Sequence[_Placed]], gutter: float, top: int) -> list[str]:
    style = "server silent" if row.is_silent else "server" if row.bars else "server idle"
    name = escape(printable(row.server, _NAME_LIMIT))
    parts = [f'<text class="{style}" x="{_MARGIN}" y="{top + 13}">{name}</text>']
    if row.is_silent:
        parts.append(f'<text class="label silent" x="{gutter:.1f}" y="{top + 13}">{_NO_ANSWER}</text>')
    for lane in lanes:
        parts += [_svg_bar(one, gutter, top + (_LANE - _THICK) // 2) for one in lane]
        top += _LANE
    return parts


def _svg_bar(one: _Placed, gutter: float, top: int) -> str:
    outcome = one.bar.outcome
    label = ""
    if one.label:
        at = gutter + one.label_at
        is_inside = one.start < one.label_at < one.end
        if is_inside and outcome in _MARKS:
            # Letters stand on plain colour, not on dots and stripes.
            length = cell_len(one.label) * _LETTER + 2
            label = f'<path class="{outcome}" d="M{at - 3:.1f} {top}h{length:.1f}v{_THICK}h-{length:.1f}z"/>'
        style = "label in" if is_inside else "label"
        if one.label_at < one.start:
            # How long it is was estimated, and it is to stand close to its bar.
            style, at = "label before", at + cell_len(one.label) * _LETTER
        label += f'<text class="{style}" x="{at:.1f}" y="{top + 11}">{escape(one.label)}</text>'
    return (
        f'<g class="bar {outcome}"><title>{escape(_tooltip(one.bar))}</title>'
        f'<rect class="session"{_fill(outcome)} x="{gutter + one.start:.1f}" y="{top}"'
        f' width="{one.end - one.start:.1f}" height="{_THICK}" rx="3"/>{label}</g>'
    )


def _fill(outcome: str) -> str:
    return f' style="fill:url(#vbo-{outcome})"' if outcome in _MARKS else ""


def _tooltip(bar: _Bar) -> str:
    session = bar.session
    until = "still running" if session.end_time is None else f"{session.end_time:%d %b %H:%M:%S}"
    said = [
        f"{_kind(session) or 'Restore'}, {bar.outcome}: {session.name or ''}",
        f"{session.creation_time:%d %b %H:%M:%S} to {until} UTC",
        session.initiated_by and f"by {session.initiated_by}",
        session.organization and f"of {session.organization}",
        session.reason,
        session.details,
    ]
    return "\n".join(printable(line, 120) for line in said if line)
