"""The page of a report: HTML that needs nothing but itself, to read on any screen and to print.

Knows how values are shown and escaped. Must not know where they come from.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from string import Template

from attrs import frozen

from aiovbo import RestoreSessionEvent, __version__
from aiovbo._cli._rows import Row
from aiovbo._cli._times import Times, duration

Gaps = Mapping[str, Sequence[tuple[str, str]]]
"""What is missing: server and sentence, by the title of the section."""

_PRODUCTS = {"Vex": "Exchange", "Veod": "OneDrive", "Vesp": "SharePoint", "Vet": "Teams"}
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_THOUSAND = 1000
NOT_QUERIED = "not queried"
"""The answer of a server that could not be queried."""


@frozen
class ReportedSession:
    """A restore session, and what was done in it."""

    row: Row
    items: Sequence[RestoreSessionEvent] | None
    """Its items; None where they could not be fetched."""


@frozen
class ReportedServer:
    """What a server contributes."""

    name: str
    answer: str
    """`complete`, `incomplete` or `not queried`."""
    sessions: int
    items: int
    failed: int
    """Items that failed."""


def page_of(  # each a part of the page
    summary: str,
    window: tuple[datetime, datetime],
    selected: str,
    servers: Sequence[ReportedServer],
    sessions: Sequence[ReportedSession],
    gaps: Gaps,
    times: Times,
) -> str:
    """The whole page."""
    begin, end = (f"{times.at(moment):%Y-%m-%d %H:%M}" for moment in window)
    template = Template(Path(__file__).with_name("report.html").read_text(encoding="utf-8"))
    complete = '<p class="all">All servers answered completely.</p>'
    return template.substitute(
        title=_text(f"Restores from {begin} to {end}"),
        # A phone breaks the line between two times, not inside of one.
        heading=f'Restores from <span class="time">{begin}</span> to <span class="time">{end}</span>',
        zone=_text(f"Times in {times.description(window)}"),
        summary=_text(summary),
        selected=_text(f"Selected: {selected}." if selected else "Selected: all restore sessions."),
        made=_text(f"Written at {times.full(datetime.now(UTC))} by aiovbo {__version__}"),
        gaps="\n".join(_gap(title, sentences) for title, sentences in gaps.items()) or complete,
        servers="\n".join(map(_server, servers)),
        sessions="\n".join(_session(one, times) for one in sessions)
        or '<p class="none">No restore session was selected.</p>',
    )


def _text(value: object) -> str:
    """Text for the page: escaped, and without characters that control how other text is shown."""
    text = "" if value is None else str(value)
    return escape("".join(char if char.isprintable() else " " for char in text))


def _gap(title: str, sentences: Sequence[tuple[str, str]]) -> str:
    listed = "".join(f"<li>{_text(text)}</li>" for _, text in sentences)
    kind = "gap known" if title.startswith("What ") else "gap"
    return f'<section class="{kind}"><h2>{_text(title)}</h2><ul>{listed}</ul></section>'


def _cells(cells: Mapping[str, str]) -> str:
    # With explicit roles: a phone shows the cells as lines, and would lose what they are.
    return "".join(f'<td role="cell" data-label="{label}">{cell}</td>' for label, cell in cells.items())


def _server(server: ReportedServer) -> str:
    unknown = server.answer == NOT_QUERIED
    figures = {"Sessions": server.sessions, "Items": server.items, "Failed": server.failed}
    shown = {title: "\N{EN DASH}" if unknown else str(number) for title, number in figures.items()}
    if server.failed:
        shown["Failed"] = f'<span class="some">{server.failed}</span>'
    cells = {"Answer": _text(server.answer), **shown}
    kind = server.answer.replace(" ", "-")
    name = f'<th role="rowheader" scope="row">{_text(server.name)}</th>'
    return f'<tr role="row" class="{kind}">{name}{_cells(cells)}</tr>'


def _session(one: ReportedSession, times: Times) -> str:
    session = one.row.session
    product = _PRODUCTS.get(session.type or "", session.type or "unknown product")
    of = f" of {one.row.organization}" if one.row.organization else ""
    outcome = str(session.outcome or "No result") if session.has_ended else "Not ended"
    lasted = f" ({duration(session.end_time - session.creation_time)})" if session.end_time else ""
    facts = {
        "Began": times.full(session.creation_time),
        "Ended": f"{times.full(session.end_time)}{lasted}" if session.end_time else "",
        "From host": session.client_host,
        "Why": session.reason,
        "Scope": session.scope_name,
        "Details": session.details,
        "Server": session.server,
        "Session": session.id,
    }
    listed = "".join(
        f"<div><dt>{name}</dt><dd>{_text(value)}</dd></div>" for name, value in facts.items() if value
    )
    who = session.initiated_by or "Unknown user"
    return (
        f'<article data-result="{_text(outcome)}">'
        f'<h3>{_text(who)}: {_text(product)}{_text(of)}</h3><p class="result">{_text(outcome)}</p>'
        f"<dl>{listed}</dl>{_items(one, times)}</article>"
    )


def _items(one: ReportedSession, times: Times) -> str:
    if one.items is None:
        return '<p class="none">The items could not be fetched.</p>'
    if not one.items:
        return '<p class="none">No items.</p>'
    titles = ("Item", "Action", "From", "To", "Began", "Result")
    head = "".join(f'<th role="columnheader" scope="col">{title}</th>' for title in titles)
    rows = "\n".join(_item(event, times) for event in one.items)
    about = f'aria-label="Items of session {one.row.session.id}"'
    return (
        f'<table role="table" {about}><thead role="rowgroup"><tr role="row">{head}</tr></thead>'
        f'<tbody role="rowgroup">{rows}</tbody></table>'
    )


def _item(event: RestoreSessionEvent, times: Times) -> str:
    size = "" if event.item_size_bytes is None else _size(event.item_size_bytes)
    kind = ", ".join(part for part in (event.item_type, size) if part)
    said = event.message if event.status not in (None, "Success") else ""
    began = event.start_time
    cells = {
        "Item": f"{_text(event.item_name or event.title or 'unnamed')}<small>{_text(kind)}</small>",
        "Action": _text(event.type),
        "From": _path(event.source),
        "To": _path(event.target),
        "Began": _text(f"{times.at(began):%Y-%m-%d %H:%M:%S}" if began else ""),
        "Result": f"{_text(event.status or 'unknown')}<small>{_text(said)}</small>",
    }
    return f'<tr role="row" data-result="{_text(event.status)}">{_cells(cells)}</tr>'


def _path(text: str | None) -> str:
    """A path, which a line may end in after a slash."""
    return _text(text).replace("/", "/<wbr>")


def _size(count: int) -> str:
    """A number of bytes, in a unit that keeps it short."""
    value, unit = float(count), 0
    while abs(value) >= _THOUSAND and unit < len(_UNITS) - 1:
        value, unit = value / _THOUSAND, unit + 1
    return f"{value:.0f} {_UNITS[unit]}" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"
