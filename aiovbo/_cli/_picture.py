"""Restore sessions over time as an SVG document.

The positions of bars and labels are in `_timeline`. Must not know where sessions come from. What a server
sent goes through `printable` and `escape`, and is never markup.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from html import escape

from rich.cells import cell_len

from aiovbo._cli._timeline import (
    NO_ANSWER,
    OUTCOMES,
    UTC_TIMES,
    Bar,
    Placed,
    Plot,
    ServerBars,
    Tick,
    bars_by_server,
    counts_of,
    kind_of,
    lanes_of,
    period_of,
    ticks_of,
)
from aiovbo._cli._times import Times
from aiovbo.errors import printable
from aiovbo.models import RestoreSession

_WIDTH = 1200
_MARGIN = 20
_NAME_LIMIT = 28
_LETTER = 6.6
"""Approximate maximum width of a character of a label."""
_LANE, _THICK, _PADDING = 18, 14, 9
"""Two paddings are as high as a lane, so that a pattern starts at the top of each lane."""
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
# Not by colour alone: failed sessions are crossed out, warnings are dotted, running sessions have arrows.
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
    times: Times = UTC_TIMES,
) -> str:
    """Who restored what and when, as a self-contained picture for light and dark mode, with tooltips.

    Raises: ConfigError where the window is empty.
    """
    rows = bars_by_server(sessions, servers, begins, ends, silent)
    longest = max((cell_len(printable(row.server, _NAME_LIMIT)) for row in rows), default=0)
    gutter = _MARGIN + max(60.0, longest * 7.6) + 12
    plot = Plot(
        _WIDTH - gutter - _MARGIN, 3, gap=5, apart=4, lanes=1, inside=6, inside_of=OUTCOMES, snap=float,
        measure=lambda label: cell_len(label) * _LETTER,
    )  # fmt: skip
    stripes: list[str] = []
    drawn: list[str] = []
    top = _HEAD
    for number, row in enumerate(rows):
        lanes = lanes_of(row.bars, plot)
        height = len(lanes) * _LANE + 2 * _PADDING
        if number % 2 == 0:
            stripes.append(f'<path class="stripe" d="M0 {top}h{_WIDTH}v{height}h-{_WIDTH}z"/>')
        drawn += _svg_row(row, lanes, gutter, top + _PADDING, times)
        top += height
    ticks = ticks_of(begins, ends, int(plot.width / _TICK_ROOM), times)
    grid = [line for tick in ticks for line in _svg_tick(tick, gutter, plot.width, top)]
    size = f'viewBox="0 0 {_WIDTH} {top + _MARGIN}" width="{_WIDTH}" height="{top + _MARGIN}"'
    about = 'role="img" aria-labelledby="vbo-title vbo-about"'
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {about}>',
        *_svg_head(counts_of(rows), period_of(begins, ends, times, year=True)),
    ]
    # The grid goes between the stripes and the bars.
    return "\n".join([*head, *stripes, *grid, *drawn, "</svg>", ""])


def _svg_head(counts: dict[str, int], period: str) -> list[str]:
    total = sum(counts.values())
    said = ", ".join(f"{count} {outcome}" for outcome, count in counts.items()) or "none"
    parts = [
        '<title id="vbo-title">Restore sessions over time</title>',
        f'<desc id="vbo-about">{period}; {total} sessions: {said}.</desc>',
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
        f'<text class="quiet" x="{_MARGIN}" y="52">{period}</text>',
    ]
    at = float(_WIDTH - _MARGIN)
    for outcome, count in reversed(counts.items()):
        text = f"{count} {outcome}"
        at -= len(text) * 7
        swatch = f'<path class="{outcome}"{_fill(outcome)} d="M{at - 22:.0f} {_LEGEND}h16v{_THICK}h-16z"/>'
        parts.append(f'{swatch}<text class="legend" x="{at:.1f}" y="{_LEGEND + 11}">{text}</text>')
        at -= 42
    return parts


def _svg_tick(tick: Tick, gutter: float, width: float, bottom: int) -> list[str]:
    x = gutter + tick.at * width
    return [
        f'<path class="grid" d="M{x:.1f} {_HEAD - 6}V{bottom}"/>',
        f'<text class="quiet" text-anchor="middle" x="{x:.1f}" y="{_HEAD - 12}">{tick.label}</text>',
    ]


def _svg_row(
    row: ServerBars, lanes: Sequence[Sequence[Placed]], gutter: float, top: int, times: Times
) -> list[str]:
    style = "server silent" if row.is_silent else "server" if row.bars else "server idle"
    name = escape(printable(row.server, _NAME_LIMIT))
    parts = [f'<text class="{style}" x="{_MARGIN}" y="{top + 13}">{name}</text>']
    if row.is_silent:
        parts.append(f'<text class="label silent" x="{gutter:.1f}" y="{top + 13}">{NO_ANSWER}</text>')
    for lane in lanes:
        parts += [_svg_bar(one, gutter, top + (_LANE - _THICK) // 2, times) for one in lane]
        top += _LANE
    return parts


def _svg_bar(one: Placed, gutter: float, top: int, times: Times) -> str:
    outcome = one.bar.outcome
    label = ""
    if one.label:
        at = gutter + one.label_at
        is_inside = one.start < one.label_at < one.end
        if is_inside and outcome in _MARKS:
            # Plain colour behind a label, without dots and stripes.
            length = cell_len(one.label) * _LETTER + 2
            label = f'<path class="{outcome}" d="M{at - 3:.1f} {top}h{length:.1f}v{_THICK}h-{length:.1f}z"/>'
        style = "label in" if is_inside else "label"
        if one.label_at < one.start:
            # The width is an estimate: align the end of the label to its bar.
            style, at = "label before", at + cell_len(one.label) * _LETTER
        label += f'<text class="{style}" x="{at:.1f}" y="{top + 11}">{escape(one.label)}</text>'
    return (
        f'<g class="bar {outcome}"><title>{escape(_tooltip(one.bar, times))}</title>'
        f'<rect class="session"{_fill(outcome)} x="{gutter + one.start:.1f}" y="{top}"'
        f' width="{one.end - one.start:.1f}" height="{_THICK}" rx="3"/>{label}</g>'
    )


def _fill(outcome: str) -> str:
    return f' style="fill:url(#vbo-{outcome})"' if outcome in _MARKS else ""


def _tooltip(bar: Bar, times: Times) -> str:
    session = bar.session
    until = "still running" if session.end_time is None else f"{times.at(session.end_time):%d %b %H:%M:%S}"
    zone = times.label([session.creation_time, session.end_time or session.creation_time])
    said = [
        f"{kind_of(session) or 'Restore'}, {bar.outcome}: {session.name or ''}",
        f"{times.at(session.creation_time):%d %b %H:%M:%S} to {until} {zone}",
        session.initiated_by and f"by {session.initiated_by}",
        session.organization and f"of {session.organization}",
        session.reason,
        session.details,
    ]
    return "\n".join(printable(line, 120) for line in said if line)
