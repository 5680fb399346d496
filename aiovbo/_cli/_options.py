"""What is written on a command line: servers, limits, filters, points in time.

Knows options and how they are read. Imported for help and completion too: no HTTP library, and nothing of
what a command does.
"""

import re
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from attrs import field, frozen
from cyclopts import Group, Parameter
from cyclopts.validators import Number

_GROUP = Group("Servers", sort_key=1)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DAY = timedelta(days=1)


def ago(_: type, tokens: Iterable[Any]) -> timedelta | datetime:
    """A point in time as it is written on a command line: `24h`, `7d`, or a date.

    Raises: ValueError where it is none.
    """
    (token,) = tokens
    text: str = token.value
    try:
        if (duration := _duration(text)) is not None:
            return _within_the_calendar(duration)
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except OverflowError:
        message = f"{text!r} lies outside the years 1 to 9999"
    except ValueError:
        message = f"{text!r} is no time: give 30m, 24h, 7d, or a date such as 2026-11-23 or 2026-11-23T08:00"
    raise ValueError(message)


def span(_: type, tokens: Iterable[Any]) -> timedelta:
    """A duration as it is written on a command line, more than none: `30s`, `24h`.

    Raises: ValueError where it is none.
    """
    (token,) = tokens
    text: str = token.value
    with suppress(OverflowError):
        if found := _duration(text):
            return _within_the_calendar(found)
    message = f"{text!r} is no duration: give 30s, 5m or 24h"
    raise ValueError(message)


def _duration(text: str) -> timedelta | None:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text)
    return timedelta(**{_UNITS[found[2]]: float(found[1])}) if found else None


def _within_the_calendar(duration: timedelta) -> timedelta:
    """The same; OverflowError where it began before all calendars do."""
    _ = datetime.now(UTC) - duration
    return duration


def _server(text: str) -> Parameter:
    return Parameter(help=text, group=_GROUP, negative="", show_default=False)


def _several(text: str) -> Parameter:
    return Parameter(help=f"{text}; repeatable, case does not matter.", negative="", show_default=False)


@Parameter(name="*")
@frozen(kw_only=True)
class Selection:
    """The servers that are meant."""

    fleet: Annotated[Path | None, _server("Inventory; AIOVBO_FLEET or ./fleet.toml if not given.")] = None
    """A file."""
    url: Annotated[list[str], _server("A server's address, in place of an inventory; repeatable.")] = field(
        factory=list[str]
    )
    """Addresses."""
    user: Annotated[str | None, _server(r"Who logs in at --url, such as 'TECH\monitor'.")] = None
    """An account; its password is in VBO_PASSWORD, or is asked for."""
    pin: Annotated[list[str], _server("Fingerprint to trust at --url; `aiovbo pin` shows it.")] = field(
        factory=list[str]
    )
    """SHA-256 fingerprints."""
    ca_file: Annotated[Path | None, _server("Authorities to trust at --url, PEM.")] = None
    """A file."""
    insecure: Annotated[bool, _server("Verify no certificate: any server at --url gets the password.")] = (
        False
    )
    """Whether to check nothing."""
    allow_http: Annotated[bool, _server("Let --url be http://: all on the way read the password.")] = False
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
    """Labels, all of which must fit."""
    verbose: Annotated[
        int,
        Parameter(
            name=["--verbose", "-v"],
            help="Log servers that become unreachable and reachable; -vv every request.",
            count=True,
            group=_GROUP,
        ),
    ] = 0
    """How much is logged."""
    no_token_store: Annotated[
        bool, _server("Log in anew, and share no token with other runs; if not given, runs share tokens.")
    ] = False
    """Whether to neither read nor write stored tokens."""
    deadline: Annotated[float | None, _server("Seconds for all that one server is asked.")] = None
    """A limit."""
    retries: Annotated[int | None, _server("How often a request is repeated that may be.")] = None
    """A limit."""


@Parameter(name="*")
@frozen(kw_only=True)
class Filter:
    """Which sessions are meant."""

    since: Annotated[
        datetime | timedelta,
        Parameter(
            help="Created since: 30m, 24h (if not given), 7d, or a date.",
            converter=ago,
            metavar="WHEN",
            show_default=False,
        ),
    ] = _DAY
    """A point in time, or how long ago."""
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
