"""The command `events`: what was done in the restore sessions of all servers, item by item.

Knows forms of output. What is requested of a server is in `_audit`.
"""

import json
import sys
from collections.abc import Iterator, Sequence

from rich.text import Text

from aiovbo import Answer, Client, ConfigError, Fleet, RestoreSessionEventStatus
from aiovbo._cli._audit import EVENT_LAYOUTS, EVENTS, Line, ServerAudit, audit_of, is_meant
from aiovbo._cli._filters import doubts_of, reject_typos
from aiovbo._cli._options import Bounds, Filter, Selection, TableOptions
from aiovbo._cli._selection import fleet_of
from aiovbo._cli._sessions import Form
from aiovbo._cli._statuses import INTERRUPTED, status_of
from aiovbo._cli._terminal import collect, complain, console, counted, run, show_failures
from aiovbo._cli._times import Times


def events(  # as the command takes them
    which: Selection, filters: Filter, options: TableOptions, times: Times, item: str, output: Form
) -> int:
    """The events of all servers. Failed servers are listed on standard error."""
    reject_typos(filters, RestoreSessionEventStatus)
    EVENTS.check(options)
    if options.columns and output in ("json", "jsonl"):
        raise ConfigError("--columns is for tables and CSV: JSON has the server's own fields")
    bounds = filters.bounds(times)
    fleet = fleet_of(which)
    return run(_events(fleet, filters, bounds, options, times, item, output))


async def _events(  # as the command takes them
    fleet: Fleet,
    filters: Filter,
    bounds: Bounds,
    options: TableOptions,
    times: Times,
    item: str,
    output: Form,
) -> int:
    async def audit(client: Client) -> ServerAudit:
        return await audit_of(client, filters, bounds, by_result=False)

    def lines_of(answer: Answer[ServerAudit]) -> list[Line]:
        return [line for one in answer.items for line in _lines(one, filters, item)]

    def print_each(answer: Answer[ServerAudit]) -> None:
        _print_lines(lines_of(answer))

    # Without an order, a line is written as soon as its server answers.
    at_once = output == "jsonl" and not options.sort and options.limit is None
    async with fleet:
        asked = fleet.map(audit).answers()
        answers, interrupted = await collect(asked, list(fleet), print_each if at_once else None)
    found = [line for answer in answers for line in lines_of(answer)]
    lines = EVENTS.arranged(found, options)
    failed = [answer.error for answer in answers] + [one.error for a in answers for one in a.items]
    errors = [error for error in failed if error is not None]
    if output == "table":
        layouts = [options.columns] if options.columns else EVENT_LAYOUTS
        console().print(EVENTS.table(lines, layouts, times))
        figures = _figures(lines, len(found), len(answers) - len(errors), times)
        console(stderr=True).print(Text(f"\n{figures}", style="dim"))
    elif not at_once:
        _print(lines, options, times, output)
    if not found:
        for doubt in doubts_of(filters, RestoreSessionEventStatus):
            complain(doubt)
    show_failures(errors, len(fleet), console(stderr=True))
    return INTERRUPTED if interrupted else status_of(len(errors), len(fleet))


def _lines(audit: ServerAudit, filters: Filter, item: str) -> Iterator[Line]:
    for row in audit.rows:
        for event in audit.events.get(row.session.id, ()):
            if is_meant(event, item, filters.result):
                yield Line(server=audit.server, row=row, event=event)


def _print(lines: Sequence[Line], options: TableOptions, times: Times, output: Form) -> None:
    match output:
        case "json":
            sys.stdout.write(json.dumps([line.to_dict() for line in lines], indent=2) + "\n")
        case "csv":
            EVENTS.write_csv(lines, options.columns, times)
        case _:
            _print_lines(lines)


def _print_lines(lines: Sequence[Line]) -> None:
    sys.stdout.writelines(json.dumps(line.to_dict()) + "\n" for line in lines)
    sys.stdout.flush()


def _figures(lines: Sequence[Line], found: int, servers: int, times: Times) -> str:
    shown = f"{len(lines)} of {counted(found, 'event')}" if len(lines) < found else counted(found, "event")
    seen = [line.event.start_time for line in lines if line.event and line.event.start_time]
    return f"{shown} of {counted(servers, 'server')}, times in {times.description(seen)}"
