"""The options that several commands share: servers, limits, filters, times, columns.

Imported for help and completion too: must not need an HTTP library, nor know what a command does.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

from attrs import field, frozen
from cyclopts import Group, Parameter
from cyclopts.validators import Number

from aiovbo._cli._times import Times, When, parse_span, parse_when
from aiovbo.errors import ConfigError

_GROUP = Group("Servers", sort_key=1)
_OUTPUT = Group("Output", sort_key=3)
_DAY, _NOW = When(ago=timedelta(days=1)), When(ago=timedelta())
_TICK = timedelta(microseconds=1)


class Bounds(TypedDict):
    """The bounds of a query, as `restore_sessions` takes them."""

    started_after: datetime | timedelta
    started_before: datetime | timedelta | None


def when(_: type, tokens: Iterable[Any]) -> When:
    """A point in time as it is written on a command line.

    Raises: ValueError for an invalid one.
    """
    (token,) = tokens
    return parse_when(token.value)


def span(_: type, tokens: Iterable[Any]) -> timedelta:
    """A duration above 0 as it is written on a command line: `30s`, `24h`.

    Raises: ValueError for an invalid one.
    """
    (token,) = tokens
    return parse_span(token.value)


def _server(text: str) -> Parameter:
    return Parameter(help=text, group=_GROUP, negative="", show_default=False)


def _several(text: str) -> Parameter:
    return Parameter(help=f"{text}; repeatable, case does not matter.", negative="", show_default=False)


@Parameter(name="*")
@frozen(kw_only=True)
class Selection:
    """The servers that are queried, and the limits of their queries."""

    fleet: Annotated[Path | None, _server("Inventory; AIOVBO_FLEET or ./fleet.toml if not given.")] = None
    """A file."""
    url: Annotated[list[str], _server("Address of a server, instead of an inventory; repeatable.")] = field(
        factory=list[str]
    )
    """Addresses."""
    user: Annotated[str | None, _server(r"User name at --url, such as 'TECH\monitor'.")] = None
    """An account; its password is in VBO_PASSWORD, or is typed."""
    pin: Annotated[list[str], _server("Fingerprint to trust at --url; `aiovbo pin` shows it.")] = field(
        factory=list[str]
    )
    """SHA-256 fingerprints."""
    ca_file: Annotated[Path | None, _server("PEM file of the authorities to trust at --url.")] = None
    """A file."""
    insecure: Annotated[
        bool, _server("Do not verify certificates: any server at --url receives the password.")
    ] = False
    """Whether to verify nothing."""
    allow_http: Annotated[
        bool, _server("Allow http:// in --url: anyone on the network path can read the password.")
    ] = False
    """Whether to do without TLS."""
    proxy: Annotated[
        str | None, _server("Forward proxy, http://host:port, or 'environment' for HTTPS_PROXY and NO_PROXY.")
    ] = None
    """A proxy, for the servers that have none in an inventory."""
    server: Annotated[list[str], _server("Only the server of this name; repeatable.")] = field(
        factory=list[str]
    )
    """Names."""
    label: Annotated[list[str], _server("Only servers with this label, KEY=VALUE; repeatable.")] = field(
        factory=list[str]
    )
    """Labels; a server must have all of them."""
    verbose: Annotated[
        int,
        Parameter(
            name=["--verbose", "-v"],
            help="Log servers that become unreachable and reachable; -vv every request.",
            count=True,
            show_default=False,
            group=_GROUP,
        ),
    ] = 0
    """How much is logged."""
    no_token_store: Annotated[
        bool, _server("Share no token with other runs, and log in again; if not given, runs share tokens.")
    ] = False
    """Whether to neither read nor write stored tokens."""
    deadline: Annotated[float | None, _server("Maximum seconds for all requests to one server.")] = None
    """A limit."""
    retries: Annotated[
        int | None, _server("Maximum number of retries for requests that are safe to repeat.")
    ] = None
    """A limit."""


@Parameter(name="*")
@frozen(kw_only=True)
class Filter:
    """Which sessions are selected."""

    since: Annotated[
        When,
        Parameter(
            help="Created at or after this time: 30m, 24h (if not given), 7d, today, yesterday, a date, or a "
            "time such as 2026-11-23T08:00 or 2026-11-23T08:00+01:00. Local time, unless it has a time zone "
            "or --utc is given. A date begins at 00:00.",
            converter=when,
            accepts_keys=False,
            n_tokens=1,
            metavar="WHEN",
            show_default=False,
        ),
    ] = _DAY
    """The beginning."""
    until: Annotated[
        When | None,
        Parameter(
            help="Created before this time, in the same forms; now, if not given. For all of yesterday: "
            "--since yesterday --until today.",
            converter=when,
            accepts_keys=False,
            n_tokens=1,
            metavar="WHEN",
            show_default=False,
        ),
    ] = None
    """The end; None: now."""
    state: Annotated[list[str], _several("Starting, Working, Stopping or Stopped")] = field(factory=list[str])
    """States."""
    result: Annotated[list[str], _several("Success, Warning or Failed")] = field(factory=list[str])
    """Results."""
    type: Annotated[list[str], _several("Exchange, OneDrive, SharePoint or Teams (Vex, Veod, Vesp, Vet)")] = (
        field(factory=list[str])
    )
    """Types."""
    organization: Annotated[str, Parameter(help="Part of the organization's name.", show_default=False)] = ""
    """A text."""
    by: Annotated[str, Parameter(help="Part of the name of the user who restores.", show_default=False)] = ""
    """A text."""

    def window(self, times: Times) -> tuple[datetime, datetime]:
        """The first and the last point in time that are selected.

        Raises: ConfigError where the first is not before the last.
        """
        begin, end = (
            times.now - bound if isinstance(bound, timedelta) else bound
            for bound in (self.since.bound(times.zone), (self.until or _NOW).bound(times.zone))
        )
        if begin < end:
            return begin, end
        if self.until is None:
            message = f"--since {times.full(begin)} lies in the future"
        else:
            message = (
                f"--since {times.full(begin)} is not before --until {times.full(end)}: a date begins at 00:00"
            )
        raise ConfigError(message)

    def bounds(self, times: Times) -> Bounds:
        """The bounds of a query: "that long ago" stays so, because each server counts by its own clock.

        Raises: ConfigError where the first is not before the last.
        """
        begin, _ = self.window(times)
        since = self.since.bound(times.zone)
        if isinstance(since, datetime) and begin.year > 1:
            # A query's bounds are exclusive.
            since -= _TICK
        return {
            "started_after": since,
            "started_before": None if self.until is None else self.until.bound(times.zone),
        }


@Parameter(name="*")
@frozen(kw_only=True)
class TimeOptions:
    """The time zone in which times are read and shown."""

    utc: Annotated[
        bool,
        Parameter(
            help="Read and show times in UTC; if not given, in local time (variable TZ).",
            negative="",
            show_default=False,
            group=_OUTPUT,
        ),
    ] = False
    """UTC instead of local time."""

    def times(self) -> Times:
        """How times are shown, from now on."""
        return Times(UTC if self.utc else None)


def _names(_: type, tokens: Iterable[Any]) -> list[str]:
    return [name.strip() for token in tokens for name in token.value.split(",") if name.strip()]


@Parameter(name="*")
@frozen(kw_only=True)
class TableOptions:
    """Which columns and rows are printed, and in which order."""

    columns: Annotated[
        list[str],
        Parameter(
            help="Columns of the table or of CSV, separated by commas; an unknown name lists them.",
            converter=_names,
            metavar="NAMES",
            negative="",
            show_default=False,
            group=_OUTPUT,
        ),
    ] = field(factory=list[str])
    """Names; none: the default ones."""
    sort: Annotated[
        list[str],
        Parameter(
            help="Columns to sort by, separated by commas; -NAME sorts in reverse. If not given, the newest "
            "rows are first.",
            converter=_names,
            metavar="NAMES",
            negative="",
            allow_leading_hyphen=True,
            show_default=False,
            group=_OUTPUT,
        ),
    ] = field(factory=list[str])
    """Names; none: the default order."""
    limit: Annotated[
        int | None,
        Parameter(
            help="Maximum number of rows, after sorting.",
            metavar="N",
            validator=Number(gte=1),
            show_default=False,
            group=_OUTPUT,
        ),
    ] = None
    """A number; None: all of them."""


Kind = Literal["added", "changed", "finished", "removed", "rejected", "unreachable", "recovered"]
"""A kind of change, as `--only` names it."""


@Parameter(name="*")
@frozen(kw_only=True)
class ChangeFilter:
    """Which changes are reported."""

    only: Annotated[
        list[Kind], Parameter(help="Only changes of this kind; repeatable.", negative="", show_default=False)
    ] = field(factory=list[Kind])
    """Kinds; none: all of them."""
    result: Annotated[
        list[str], _several("Only sessions that ended with this result: Success, Warning or Failed")
    ] = field(factory=list[str])
    """Results; none: all of them. With results, other changes are reported only if `only` has their kind."""


_COMMAND = Group("Command", sort_key=2)


def _of_command(text: str, **more: Any) -> Parameter:  # as Parameter takes them
    return Parameter(help=text, group=_COMMAND, show_default=False, **more)


@Parameter(name="*")
@frozen(kw_only=True)
class CommandOptions:
    """The command that is run for each change."""

    exec: Annotated[
        str | None,
        _of_command(
            "Run this shell command for each change, with the change as JSON on its standard input. "
            "A change is acknowledged when the command ends with 0; otherwise it is retried.",
            metavar="CMD",
        ),
    ] = None
    """A shell command."""
    timeout: Annotated[
        timedelta | None,
        _of_command("Kill the command after this time; 1m if not given.", converter=span, metavar="SPAN"),
    ] = None
    """A duration."""
    give_up: Annotated[
        int | None,
        _of_command(
            "Acknowledge a change whose command failed so often; if not given, retry until it succeeds.",
            metavar="N",
            validator=Number(gte=1),
        ),
    ] = None
    """Attempts; None: no limit."""


@Parameter(name="*")
@frozen(kw_only=True)
class Position:
    """Where the position of a watch is kept over restarts."""

    checkpoint: Annotated[
        Path | None, Parameter(help="File that keeps the position over restarts.", show_default=False)
    ] = None
    """A path."""
    postgres: Annotated[
        str | None,
        Parameter(
            help="Keep it in PostgreSQL instead, and share the servers with the other processes of --group: "
            "a URL or keywords for libpq. Keep the password in ~/.pgpass.",
            metavar="CONNINFO",
            show_default=False,
        ),
    ] = None
    """How to connect, as libpq takes it."""
    group: Annotated[
        str | None,
        Parameter(help="Name of the processes that share the servers.", metavar="NAME", show_default=False),
    ] = None
    """A name."""
