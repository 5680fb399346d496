"""The command `report`: who restored what, item by item, as a page and as a table, and what is missing.

Collects what the files say. How the page looks is in `_report_page`.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from textwrap import shorten

from rich.text import Text

from aiovbo import Answer, Client, ConfigError, Fleet, RestoreSessionEventStatus, ServerError
from aiovbo._cli._audit import EVENTS, Line, ServerAudit, audit_of, is_item, is_meant
from aiovbo._cli._filters import is_one_of, reject_typos
from aiovbo._cli._options import Bounds, Filter, Selection, TableOptions
from aiovbo._cli._report_page import NOT_QUERIED, Gaps, ReportedServer, ReportedSession, page_of
from aiovbo._cli._rows import Row
from aiovbo._cli._selection import fleet_of
from aiovbo._cli._statuses import INTERRUPTED, status_of
from aiovbo._cli._terminal import collect, console, counted, run, show_failures
from aiovbo._cli._times import Times
from aiovbo._cli._words import to_cli_terms

_NOT_QUERIED = "Servers that could not be queried"
_INCOMPLETE = "Incomplete answers"
_NOT_REPORTED = "What servers of old versions do not report"
_OLD_FIELDS = {
    "initiated_by": "who",
    "client_host": "from which host",
    "reason": "why",
}


def report(  # as the command takes them
    which: Selection, filters: Filter, times: Times, item: str, html: Path | None, csv: Path | None
) -> int:
    """The report of all servers, in one file or two. Failed servers are listed on standard error, too."""
    reject_typos(filters, RestoreSessionEventStatus)
    if html is None and csv is None:
        raise ConfigError("a report needs a file: give --html FILE, --csv FILE, or both")
    for path in (html, csv):
        # Before anything is requested: a report of many servers takes a while.
        if path is not None and not path.absolute().parent.is_dir():
            message = f"{path}: there is no folder {path.absolute().parent}"
            raise ConfigError(message)
    window, bounds = filters.window(times), filters.bounds(times)
    fleet = fleet_of(which)
    return run(_report(fleet, filters, window, bounds, times, item, html, csv))


async def _report(  # as the command takes them
    fleet: Fleet,
    filters: Filter,
    window: tuple[datetime, datetime],
    bounds: Bounds,
    times: Times,
    item: str,
    html: Path | None,
    csv: Path | None,
) -> int:
    async def audit(client: Client) -> ServerAudit:
        return await audit_of(client, filters, bounds, by_result=False)

    async with fleet:
        answers, interrupted = await collect(fleet.map(audit).answers(), list(fleet))
    audits = {answer.server: _audit(answer) for answer in answers}
    gaps = _gaps_of(list(fleet), audits)
    sessions = [one for a in audits.values() for row in a.rows if (one := _reported(a, row, filters, item))]
    sessions.sort(key=lambda one: one.row.session.creation_time, reverse=True)
    errors = [one.error for one in audits.values() if one.error is not None]
    items = sum(len(one.items or ()) for one in sessions)
    answered = len(fleet) - len(errors) - (len(fleet) - len(audits))
    summary = (
        f"{counted(len(sessions), 'restore session')} with {counted(items, 'item')}, "
        f"from {answered} of {counted(len(fleet), 'server')}"
    )
    if csv is not None:
        # With a byte order mark, by which Excel recognises UTF-8.
        with csv.open("w", encoding="utf-8-sig", newline="") as file:
            EVENTS.write_csv(_lines(sessions, gaps), [*EVENTS.csv, "gap"], times, file)
    if html is not None:
        servers = [_server_row(name, audits.get(name), sessions) for name in fleet]
        selected = _description(filters, item)
        page = page_of(summary, window, selected, servers, sessions, gaps, times)
        html.write_text(page, encoding="utf-8")
    console().print(Text(summary))
    for title, sentences in gaps.items():
        console().print(Text(f"{title}: {len(sentences)}"))
    show_failures(errors, len(fleet), console(stderr=True))
    return INTERRUPTED if interrupted else status_of(len(errors), len(fleet))


def _audit(answer: Answer[ServerAudit]) -> ServerAudit:
    if answer.items:
        return answer.items[0]
    return ServerAudit(
        server=answer.server, rows=(), events={}, error=answer.error, rejected=(), complete=False
    )


def _reported(audit: ServerAudit, row: Row, filters: Filter, item: str) -> ReportedSession | None:
    """A session with the items that are meant; None where it is not meant."""
    events = audit.events.get(row.session.id)
    found = None if events is None else [one for one in events if is_item(one) and is_meant(one, item, [])]
    statuses = [row.session.outcome, *(one.status for one in found or ())]
    if (item and not found) or not any(is_one_of(status, filters.result) for status in statuses):
        return None
    return ReportedSession(row, found)


def _lines(sessions: Sequence[ReportedSession], gaps: Gaps) -> list[Line]:
    """A row for each item, for each session without one, and for each gap."""
    lines: list[Line] = []
    for one in sessions:
        server = one.row.session.server
        lines += [Line(server=server, row=one.row, event=event) for event in one.items or ()]
        if not one.items:
            lines.append(Line(server=server, row=one.row))
    lines = EVENTS.arranged(lines, TableOptions())
    for title, sentences in gaps.items():
        lines += [Line(server=server, gap=f"{title}: {text}") for server, text in sentences]
    return lines


def _server_row(name: str, audit: ServerAudit | None, sessions: Sequence[ReportedSession]) -> ReportedServer:
    own = [one for one in sessions if one.row.session.server == name]
    items = [event for one in own for event in one.items or ()]
    failed = sum(event.status is RestoreSessionEventStatus.FAILED for event in items)
    if audit is None or (audit.error is not None and not audit.rows):
        answer = NOT_QUERIED
    else:
        answer = "complete" if audit.complete and audit.error is None else "incomplete"
    return ReportedServer(name, answer, len(own), len(items), failed)


def _gaps_of(names: Sequence[str], audits: Mapping[str, ServerAudit]) -> Gaps:
    """What is missing: server and sentence, by the section that it belongs to."""
    gaps: dict[str, list[tuple[str, str]]] = {_NOT_QUERIED: [], _INCOMPLETE: [], _NOT_REPORTED: []}
    for name in names:
        audit = audits.get(name)
        if audit is None:
            gaps[_NOT_QUERIED].append((name, f"{name}: the report was interrupted before it answered."))
            continue
        if audit.error is not None:
            section = _INCOMPLETE if audit.rows else _NOT_QUERIED
            gaps[section].append((name, _sentence(audit.error)))
        elif not audit.complete and not audit.rejected:
            gaps[_INCOMPLETE].append((name, f"{name}: sessions or items may be missing."))
        for bad in audit.rejected:
            raw = shorten(bad.raw, 300, placeholder=" ...")
            text = f"{name}: not listed, because {bad.path} is invalid ({bad.reason}): {raw}"
            gaps[_INCOMPLETE].append((name, text))
        missing = [
            word
            for field, word in _OLD_FIELDS.items()
            if all(getattr(row.session, field) is None for row in audit.rows)
        ]
        missing += ["of which organization"] if not any(row.organization for row in audit.rows) else []
        if audit.rows and missing:
            number = counted(len(audit.rows), "session")
            gaps[_NOT_REPORTED].append((name, f"{name}: {', '.join(missing)}, in {number}."))
    return {title: sentences for title, sentences in gaps.items() if sentences}


def _sentence(error: ServerError) -> str:
    return to_cli_terms(str(error))


def _description(filters: Filter, item: str) -> str:
    """What was selected, in words; empty for everything."""
    several = {"state": filters.state, "result": filters.result, "type": filters.type}
    words = {name: " or ".join(texts) for name, texts in several.items()}
    words |= {"by": filters.by, "organization": filters.organization, "item": item}
    return ", ".join(f"{name} {text}" for name, text in words.items() if text)
