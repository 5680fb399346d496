"""The command `check --format nagios`: one line and an exit status, for monitoring systems.

Follows the convention of monitoring plugins, which Nagios, Icinga, Checkmk and others share.
"""

import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from attrs import define, frozen

from aiovbo import (
    Answer,
    AuthenticationError,
    Client,
    Fleet,
    RestoreSession,
    RestoreSessionResult,
    ServerError,
    fetch_certificate,
)
from aiovbo._cli._options import Selection
from aiovbo._cli._plugin_options import Limit, PluginLimits
from aiovbo._cli._selection import fleet_of
from aiovbo._cli._statuses import INTERRUPTED, OK
from aiovbo._cli._terminal import collect, counted, run
from aiovbo._cli._times import duration
from aiovbo._cli._words import to_cli_terms
from aiovbo.errors import VboError, printable

WARNING, CRITICAL, UNKNOWN = 1, 2, 3
_WORDS = {OK: "OK", WARNING: "WARNING", CRITICAL: "CRITICAL", UNKNOWN: "UNKNOWN"}
_LONGEST_RESTORE = timedelta(days=7)
"""A restore that was started up to this long before the window is counted; the whole history is not read."""
_MOST_NAMES = 3
_LONGEST_CAUSE = 300
"""Long enough for the path of an inventory, a key in it and the name of a variable."""
_LONGEST_TEXT = 1000
_DAY = timedelta(days=1)


@define
class _Found:
    """What one server showed."""

    failed: int
    longest: timedelta
    """How long the restore has been running that was started first; 0 where none is running."""
    skew: float | None
    """Seconds that its clock is ahead."""
    expiry: timedelta | None
    """Time until its certificate expires; None without TLS."""


@frozen
class _Value:
    """One figure of the fleet, with its limits and the sentence that reports it."""

    label: str
    value: float | None
    limit: Limit
    text: str
    unit: str = ""
    most: str = ""

    @property
    def status(self) -> int:
        """OK, WARNING or CRITICAL."""
        if self.value is None:
            return OK
        if self.limit.is_exceeded_by(self.value, self.limit.critical):
            return CRITICAL
        return WARNING if self.limit.is_exceeded_by(self.value, self.limit.warning) else OK

    def __str__(self) -> str:
        """Performance data: `label=value;warning;critical;minimum;maximum`."""
        value = "U" if self.value is None else f"{self.value:.10g}{self.unit}"
        minimum = "" if self.limit.is_minimum else "0"
        found = f"{self.label}={value};{self.limit.range(self.limit.warning)};"
        return f"{found}{self.limit.range(self.limit.critical)};{minimum};{self.most}".rstrip(";")


def check(which: Selection, limits: PluginLimits) -> int:
    """Print one line with performance data; the status of a monitoring plugin."""
    try:
        line, status = _result(which, limits)
    except (VboError, OSError, ImportError) as error:
        line, status = unknown(str(error)), UNKNOWN
    except Exception as error:  # a status of another command would be read as WARNING or CRITICAL
        traceback.print_exc()
        line, status = unknown(f"this is a bug in aiovbo: {error!r}"), UNKNOWN
    sys.stdout.write(line)
    return status


def unknown(text: str) -> str:
    """The line that states why the check has no result."""
    return f"AIOVBO UNKNOWN - {_on_one_line(text)}\n"


def _on_one_line(text: str) -> str:
    # What follows a bar is performance data.
    said = "; ".join(line for line in to_cli_terms(text).splitlines() if line.strip())
    return printable(said, _LONGEST_TEXT).replace("|", "/")


def _result(which: Selection, limits: PluginLimits) -> tuple[str, int]:
    fleet = fleet_of(which)
    answers: list[Answer[_Found]] = []
    status = run(_collect(fleet, limits, answers))
    if status != OK:
        return unknown("interrupted before all servers answered"), UNKNOWN
    if answers and all(_lacks_its_secret(answer.error) for answer in answers):
        # The backup servers may be well: nothing was sent to them.
        causes = dict.fromkeys(answer.error.what for answer in answers if answer.error)
        return unknown("\n".join(causes)), UNKNOWN
    values = _values(answers, limits)
    status = max(value.status for value in values)
    # The worst first; without a problem, everything that was checked.
    said = [value.text for value in sorted(values, key=lambda one: -one.status) if value.status == status]
    said += [value.text for value in values if OK < value.status < status]
    text = _on_one_line(", ".join([counted(len(answers), "server"), *said]))
    return f"AIOVBO {_WORDS[status]} - {text} | {' '.join(map(str, values))}\n", status


def _lacks_its_secret(error: ServerError | None) -> bool:
    """Whether the credentials could not be read here; every other rejection comes from the server."""
    return isinstance(error, AuthenticationError) and error.phase == "queue"


async def _collect(fleet: Fleet, limits: PluginLimits, answers: list[Answer[_Found]]) -> int:
    async def one(client: Client) -> _Found:
        return await _find(client, limits)

    async with fleet:
        found, interrupted = await collect(fleet.map(one).answers(), list(fleet))
    answers += found
    return INTERRUPTED if interrupted else OK


async def _find(client: Client, limits: PluginLimits) -> _Found:
    sessions = await client.restore_sessions(started_after=limits.window + _LONGEST_RESTORE)
    expiry = None
    if client.server.url.scheme == "https":
        with suppress(ServerError):  # the server has just answered a request over TLS
            shown = await fetch_certificate(client.server, timeout=client.longest_silence)
            expiry = shown.not_after - datetime.now(UTC)
    now = datetime.now(UTC) + timedelta(seconds=client.clock_skew or 0)
    running = [now - one.creation_time for one in sessions if not one.has_ended]
    return _Found(
        failed=sum(_has_failed_since(one, now - limits.window) for one in sessions),
        longest=max(running, default=timedelta(0)),
        skew=client.clock_skew,
        expiry=expiry,
    )


def _has_failed_since(session: RestoreSession, start: datetime) -> bool:
    if session.outcome != RestoreSessionResult.FAILED:
        return False
    return (session.end_time or session.creation_time) > start


def _values(answers: Sequence[Answer[_Found]], limits: PluginLimits) -> tuple[_Value, ...]:
    found = {answer.server: answer.items[0] for answer in answers if answer.items}
    down = {one.server: one.error for one in answers if one.error is not None}
    failed = {name: one.failed for name, one in found.items() if one.failed}
    skews = {name: abs(one.skew) for name, one in found.items() if one.skew is not None}
    expiries = {name: one.expiry for name, one in found.items() if one.expiry is not None}
    longest = {name: one.longest.total_seconds() for name, one in found.items()}
    window = f"{limits.window / timedelta(hours=1):g} h"
    slowest = max(longest, key=lambda name: longest[name], default="")
    soonest = min(expiries, key=lambda name: expiries[name], default="")
    fastest = max(skews, key=lambda name: skews[name], default="")
    return (
        _Value(
            "unreachable",
            len(down),
            limits.unreachable,
            f"{len(down)} cannot be queried{_listed(_causes(down))}" if down else "all can be queried",
            most=str(len(answers)),
        ),
        _Value(
            "failed_restores",
            sum(failed.values()) if found else None,
            limits.failed,
            f"{counted(sum(failed.values()), 'failed restore')} in the last {window}"
            + _listed(f"{name}: {count}" for name, count in failed.items())
            if found
            else "no restore sessions were read",
        ),
        _Value(
            "longest_restore",
            round(longest[slowest]) if found else None,
            limits.long_running,
            f"a restore has been running for {duration(found[slowest].longest)} ({slowest})"
            if slowest and longest[slowest]
            else "no restore is running"
            if found
            else "no running restore was read",
            unit="s",
        ),
        _Value(
            "certificate_days",
            expiries[soonest] // _DAY if soonest else None,
            limits.certificate,
            _of_certificate(soonest, expiries[soonest]) if soonest else "no certificate was checked",
        ),
        _Value(
            "clock_skew",
            skews[fastest] if fastest else None,
            limits.clock_skew,
            f"clocks differ by up to {skews[fastest]:.0f} s ({fastest})" if fastest else "no clock was read",
            unit="s",
        ),
    )


def _of_certificate(server: str, left: timedelta) -> str:
    if left < timedelta(0):
        return f"the certificate of {server} has expired"
    return f"the certificate of {server} expires in {counted(left // _DAY, 'day')}"


def _causes(down: Mapping[str, ServerError]) -> Iterator[str]:
    """What keeps servers from answering, each cause once, after the names of its servers."""
    alike: dict[str, list[str]] = {}
    for name, error in down.items():
        # Translated one by one: joined, they would not be recognised.
        alike.setdefault(to_cli_terms(error.what), []).append(name)
    for what, names in alike.items():
        more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        yield f"{', '.join(names[:_MOST_NAMES])}{more}: {what}"


def _listed(texts: Iterable[str]) -> str:
    """The first few, in parentheses; empty where there are none."""
    said = [printable(text, _LONGEST_CAUSE) for text in texts]
    if not said:
        return ""
    more = f", and {len(said) - _MOST_NAMES} more" if len(said) > _MOST_NAMES else ""
    return f" ({', '.join(said[:_MOST_NAMES])}{more})"
