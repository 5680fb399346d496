r"""An audit: who restored what, from which host, and why; as HTML to read and print, as CSV for tables.

    python examples/audit_report.py --days 30 --html audit.html --csv audit.csv vbo1.tech.local

What an audit does not know it must say: both files name the servers that could not be asked, the answers
that are incomplete, and what a server of an old version does not report.
"""

import asyncio
import csv
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from html import escape
from pathlib import Path
from string import Template
from textwrap import shorten

from _servers import arguments, servers_of

from aiovbo import Fleet, FleetResult, RestoreSession
from aiovbo.errors import printable

CELLS = (
    ("Began (UTC)", "Ended (UTC)"),
    ("Who", "From host"),
    ("What", "Of whom"),
    ("Why", ""),
    ("Outcome", "Details"),
    ("Server", "Session"),
)
"""The page's columns, each with what it has in small print."""
TITLES = [*(title for cell in CELLS for title in cell if title), "Gap"]
KINDS = {"Vex": "Exchange", "Veod": "OneDrive", "Vesp": "SharePoint", "Vet": "Teams"}
REPORTED = {
    "initiated_by": "who",
    "organization": "of whom",
    "client_host": "from which host",
    "reason": "why",
}
NOT_REPORTED = "What servers of old versions do not report"
FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")
"""What a spreadsheet computes begins with one of these, full-width ones included."""
Gaps = Mapping[str, Sequence[str]]


def gaps_in(result: FleetResult[RestoreSession]) -> Gaps:
    """What the answers lack, in sentences, by the section that they belong to."""
    not_asked = [
        f"{answer.error}" + (f" Listed are {len(answer.items)} that came before." if answer.items else "")
        for answer in result.failed
    ]
    not_whole: list[str] = []
    not_reported: list[str] = []
    for name, answer in result.answers.items():
        if answer.error is None and not answer.complete and not answer.rejected:
            not_whole.append(f"{name}: sessions may be missing.")
        for bad in answer.rejected:
            raw = shorten(bad.raw, 300, placeholder=" ...")
            not_whole += [f"{name}: not listed, as {bad.path} is invalid ({bad.reason}): {raw}"]
        missing = [
            said for field, said in REPORTED.items() if all(getattr(s, field) is None for s in answer.items)
        ]
        if answer.items and missing:
            not_reported.append(f"{name}: {', '.join(missing)}, in {len(answer.items)} sessions.")
    sections = {
        "Servers that could not be asked": not_asked,
        "Answers that are not whole": not_whole,
        NOT_REPORTED: not_reported,
    }
    return {title: sentences for title, sentences in sections.items() if sentences}


def row_of(session: RestoreSession) -> dict[str, str]:
    """What there is to say of a session."""
    ended = session.end_time
    return {
        "Began (UTC)": f"{session.creation_time:%Y-%m-%d %H:%M:%S}",
        "Ended (UTC)": f"{ended:%Y-%m-%d %H:%M:%S}" if ended else "",
        "Who": session.initiated_by or "",
        "From host": session.client_host or "",
        "What": KINDS.get(session.type or "", session.type or ""),
        "Of whom": session.organization or "",
        "Why": session.reason or "",
        "Outcome": (session.outcome or "") if session.has_ended else "Working",
        "Details": session.details or "",
        "Server": session.server,
        "Session": str(session.id),
    }


def write_csv(path: Path, sessions: Sequence[RestoreSession], gaps: Gaps) -> None:
    """A row for each session, and one for each gap."""
    rows = [row_of(session) for session in sessions]
    rows += [{"Gap": f"{title}: {text}"} for title, sentences in gaps.items() for text in sentences]
    # With the mark of its encoding, which Excel goes by.
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, TITLES, quoting=csv.QUOTE_ALL)
        writer.writeheader()
        for row in rows:
            writer.writerow({title: harmless(cell) for title, cell in row.items()})


def harmless(text: str) -> str:
    """Text for a cell. The user who restores writes the reason, which may look like a formula."""
    text = printable(text, 10_000)
    return f"'{text}" if text.startswith(FORMULA) else text


def html(text: str) -> str:
    """Text for the page: escaped, and without characters that steer how the rest is shown."""
    return escape("".join(char if char.isprintable() else " " for char in text))


def write_html(path: Path, sessions: Sequence[RestoreSession], gaps: Gaps, **texts: str) -> None:
    """A page that needs nothing but itself."""
    sections: list[str] = []
    for title, sentences in gaps.items():
        listed = "".join(f"<li>{html(text)}</li>" for text in sentences)
        kind = "gap known" if title == NOT_REPORTED else "gap"
        sections.append(f'<section class="{kind}"><h2>{title}</h2><ul>{listed}</ul></section>')
    rows: list[str] = []
    for session in sessions:
        row = {title: html(cell) for title, cell in row_of(session).items()}
        cells = (f"<td>{row[large]}<small>{row.get(small, '')}</small></td>" for large, small in CELLS)
        rows.append(f'<tr data-outcome="{row["Outcome"]}">{"".join(cells)}</tr>')
    head = "".join(f"<th>{large}<small>{small}</small></th>" for large, small in CELLS)
    page = Template(Path(__file__).with_suffix(".html").read_text(encoding="utf-8"))
    whole = '<p class="whole">Every server was asked, and answered in full.</p>'
    filled = page.substitute(
        {title: html(text) for title, text in texts.items()},
        head=head,
        rows="\n".join(rows),
        gaps="\n".join(sections) or whole,
    )
    path.write_text(filled, encoding="utf-8")


async def ask(options: Namespace, since: datetime) -> FleetResult[RestoreSession]:
    """What all servers answer."""
    async with servers_of(options) as servers, Fleet(servers) as fleet:
        return await fleet.restore_sessions(started_after=since)


def main(options: Namespace) -> int:
    """Ask, and write it down; 1 where any server failed."""
    until = datetime.now(UTC)
    since = until - timedelta(days=options.days)
    result = asyncio.run(ask(options, since))
    sessions = sorted(result.items, key=lambda session: session.creation_time, reverse=True)
    gaps = gaps_in(result)
    servers = f"{len(result.answers) - len(result.failed)} of {len(result.answers)} servers"
    summary = f"{len(sessions)} restore sessions from {servers}"
    if options.csv:
        write_csv(options.csv, sessions, gaps)
    if options.html:
        title = f"Restores of the last {options.days:g} days"
        period = f"{since:%Y-%m-%d %H:%M} to {until:%Y-%m-%d %H:%M} UTC"
        write_html(options.html, sessions, gaps, title=title, period=period, summary=summary)
    print(summary)
    for section in gaps:
        print(f"{section}: {len(gaps[section])}")
    for failed in result.failed:
        print(failed.error, file=sys.stderr)
    return 1 if result.failed else 0


if __name__ == "__main__":
    parser = arguments("Who restored what, from which host, and why.")
    parser.add_argument("--days", type=float, default=7, help="how far back (default 7)")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write a table")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page")
    sys.exit(main(parser.parse_args()))
