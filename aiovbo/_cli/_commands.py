"""The options and the help of each command.

What a command does is in a module of its own, which is imported when the command runs: help and completion
need neither it nor an HTTP library.
"""

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal
from uuid import UUID

from cyclopts import Parameter
from cyclopts.validators import Number

from aiovbo._cli._options import (
    ChangeFilter,
    CommandOptions,
    Filter,
    Position,
    Selection,
    TableOptions,
    TimeOptions,
    span,
    when,
)
from aiovbo._cli._plugin_options import PluginLimits
from aiovbo._cli._times import When
from aiovbo.errors import ConfigError

_ALL_SERVERS, _EVERYTHING = Selection(), Filter()
_ALL_CHANGES, _NO_COMMAND, _USUAL_LIMITS = ChangeFilter(), CommandOptions(), PluginLimits()
_LOCAL_TIME, _WHOLE_TABLE = TimeOptions(), TableOptions()
_NO_POSITION = Position()
_HALF_A_MINUTE = timedelta(seconds=30)

_Id = Annotated[UUID, Parameter(help="The session's ID; `aiovbo sessions --ids` shows it.")]


def check(
    which: Selection = _ALL_SERVERS,
    limits: PluginLimits = _USUAL_LIMITS,
    *,
    output: Annotated[
        Literal["table", "nagios"],
        Parameter(
            name="--format",
            help="A table; or for monitoring systems one line and an exit status: 0 OK, 1 WARNING, "
            "2 CRITICAL, 3 UNKNOWN.",
        ),
    ] = "table",
) -> int:
    """The state of each server: name, TCP, TLS, version, login, clock, sessions of the last day."""
    if output == "nagios":
        from aiovbo._cli._plugin import check as plugin

        return plugin(which, limits)
    if limits != _USUAL_LIMITS:
        raise ConfigError("--window and the limits need --format nagios")
    from aiovbo._cli._check import check

    return check(which)


def sessions(
    which: Selection = _ALL_SERVERS,
    filters: Filter = _EVERYTHING,
    table: TableOptions = _WHOLE_TABLE,
    time_zone: TimeOptions = _LOCAL_TIME,
    *,
    output: Annotated[
        Literal["table", "json", "jsonl", "csv"], Parameter(help="Format of the output.")
    ] = "table",
    ids: Annotated[
        bool, Parameter(help="Add IDs to the table, for `show` and `stop`.", negative="", show_default=False)
    ] = False,
) -> int:
    """The restore sessions of all servers.

    Values that a server does not send are empty. A session that has not ended has no result, and --result
    does not select it. JSON keeps the server's own fields. Failed servers are listed on standard error.
    """
    from aiovbo._cli._sessions import sessions

    return sessions(which, filters, table, time_zone.times(), output, ids=ids)


_Item = Annotated[str, Parameter(help="Part of the item's name.", show_default=False)]


def events(
    which: Selection = _ALL_SERVERS,
    filters: Filter = _EVERYTHING,
    table: TableOptions = _WHOLE_TABLE,
    time_zone: TimeOptions = _LOCAL_TIME,
    *,
    item: _Item = "",
    output: Annotated[
        Literal["table", "json", "jsonl", "csv"], Parameter(help="Format of the output.")
    ] = "table",
) -> int:
    """What was done in the restore sessions of all servers, item by item.

    --since and --until are about the beginning of the session, --result about the item: Success, Warning,
    Failed, Cancelled or Skipped. JSON has the session and the event with the server's own fields. Failed
    servers are listed on standard error.
    """
    from aiovbo._cli._events import events

    return events(which, filters, table, time_zone.times(), item, output)


def report(
    which: Selection = _ALL_SERVERS,
    filters: Filter = _EVERYTHING,
    time_zone: TimeOptions = _LOCAL_TIME,
    *,
    html: Annotated[Path | None, Parameter(help="Write a page to read and print into this file.")] = None,
    csv: Annotated[Path | None, Parameter(help="Write a table into this file, a row for each item.")] = None,
    item: _Item = "",
) -> int:
    """Who restored what, from where to where, why, and with what result, item by item, as HTML and CSV.

    Both files also list the servers that could not be queried, and what is incomplete. --result selects
    sessions that ended with it, or with an item that did. For all of yesterday: --since yesterday --until
    today.
    """
    from aiovbo._cli._report import report

    return report(which, filters, time_zone.times(), item, html, csv)


def show(session_id: _Id, /, which: Selection = _ALL_SERVERS, time_zone: TimeOptions = _LOCAL_TIME) -> int:
    """One restore session, with its events and, on v8, its statistics."""
    from aiovbo._cli._show import show

    return show(session_id, which, time_zone.times())


def stop(
    session_id: _Id,
    /,
    which: Selection = _ALL_SERVERS,
    time_zone: TimeOptions = _LOCAL_TIME,
    *,
    yes: Annotated[
        bool, Parameter(help="Do not ask for confirmation.", negative="", show_default=False)
    ] = False,
) -> int:
    """Stop a restore session. It is shown, and you are asked to confirm."""
    from aiovbo._cli._show import stop

    return stop(session_id, which, time_zone.times(), yes=yes)


def watch(  # each an option of its own
    which: Selection = _ALL_SERVERS,
    filters: ChangeFilter = _ALL_CHANGES,
    command: CommandOptions = _NO_COMMAND,
    time_zone: TimeOptions = _LOCAL_TIME,
    *,
    every: Annotated[
        timedelta,
        Parameter(
            help="Time between two polls of a server; 30s if not given.",
            converter=span,
            metavar="SPAN",
            show_default=False,
        ),
    ] = _HALF_A_MINUTE,
    since: Annotated[
        When | None,
        Parameter(
            help="At the very first start, also report the sessions since then: 24h, yesterday or a date.",
            converter=when,
            accepts_keys=False,
            n_tokens=1,
            metavar="WHEN",
            show_default=False,
        ),
    ] = None,
    position: Position = _NO_POSITION,
    rewind: Annotated[
        When | None,
        Parameter(
            help="Report sessions since then again, although they were reported before: 24h or a date.",
            converter=when,
            accepts_keys=False,
            n_tokens=1,
            metavar="WHEN",
        ),
    ] = None,
    output: Annotated[Literal["text", "jsonl"], Parameter(help="Format of the changes.")] = "text",
    count: Annotated[
        int | None, Parameter(help="End after this number of changes, at least 1.", validator=Number(gte=1))
    ] = None,
) -> int:
    """Every change of every server, as it is noticed. Ctrl-C ends the watch.

    With --checkpoint or --postgres, the next run continues where this run ended, and no change is lost.
    """
    from aiovbo._cli._watch import watch

    return watch(which, filters, command, time_zone.times(), every, since, position, rewind, output, count)


def timeline(
    which: Selection = _ALL_SERVERS,
    filters: Filter = _EVERYTHING,
    time_zone: TimeOptions = _LOCAL_TIME,
    *,
    svg: Annotated[
        Path | None, Parameter(help="Write the timeline to this file, instead of to the terminal.")
    ] = None,
) -> int:
    """Who restored what and when, as bars over time for each server."""
    from aiovbo._cli._sessions import timeline

    return timeline(which, filters, time_zone.times(), svg)


def pin(
    url: Annotated[str, Parameter(help="The server's address, such as vbo1.tech.local.")],
    /,
    *,
    proxy: Annotated[
        str | None,
        Parameter(
            help="Forward proxy, http://host:port, or 'environment' for HTTPS_PROXY and NO_PROXY.",
            show_default=False,
        ),
    ] = None,
) -> int:
    """A server's certificate, and the line of an inventory that trusts only this certificate.

    The certificate is not verified: compare its fingerprint with the one on the server itself.
    """
    from aiovbo._cli._pin import pin

    return pin(url, proxy)


def schema() -> int:
    """The JSON schema of an inventory, for editors that complete and check fleet.toml."""
    from aiovbo._cli._pin import schema

    return schema()


def demo(*, seed: Annotated[int, Parameter(help="Number that selects the random sessions.")] = 1) -> int:
    """Query fifteen embedded backup servers, three of them faulty, for the restore sessions of the last day.

    One refuses connections, one never answers, and one rejects the password. The other servers are not
    affected. It takes about 5 s. The exit status is 0, because the three failures are intended.
    """
    from aiovbo._cli._demo import demo

    return demo(seed)
