"""Points in time: what they mean on a command line, and how they are shown.

Local time unless UTC is chosen. Imported for help and completion too: no HTTP library.
"""

import re
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta, tzinfo

from attrs import field, frozen

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DAYS_AGO = {"today": 0, "yesterday": 1}
_MINUTE = 60
_EXPECTED = (
    "give 30m, 24h, 7d, today, yesterday, a date such as 2026-11-23, or a time such as 2026-11-23T08:00, "
    "2026-11-23T08:00+01:00 or 2026-11-23T08:00Z"
)
_SHORT_NAME = 5


@frozen
class When:
    """A point in time, as it is written on a command line."""

    ago: timedelta | None = None
    """That long ago; None: at a date and time."""
    day: date | int = 0
    """A date, or the number of days before today."""
    at: time = time()
    zone: tzinfo | None = None
    """The time zone that is written with it."""

    def bound(self, zone: tzinfo | None) -> datetime | timedelta:
        """The bound of a query; `zone` applies where none is written, None is local time.

        Raises: OverflowError, OSError or ValueError outside the calendar.
        """
        if self.ago is not None:
            return self.ago
        zone = self.zone or zone
        day = self.day
        if isinstance(day, int):
            day = datetime.now(zone).date() - timedelta(days=day)
        # A naive time is local time to astimezone.
        return datetime.combine(day, self.at, zone).astimezone(UTC)


def parse_when(text: str) -> When:
    """What `24h`, `yesterday`, `2026-11-23` or `2026-11-23T08:00+01:00` means.

    Raises: ValueError with the forms that are accepted.
    """
    try:
        found = _parsed(text.strip())
        found.bound(None)
        if found.ago is not None:
            _ = datetime.now(UTC) - found.ago
    except (OverflowError, OSError):
        message = f"{text!r} lies outside the years 1 to 9999"
    except ValueError:
        message = f"{text!r} is not a valid time: {_EXPECTED}"
    else:
        return found
    raise ValueError(message)


def parse_span(text: str) -> timedelta:
    """A duration above 0, such as `30s`, `5m` or `24h`.

    Raises: ValueError with the forms that are accepted.
    """
    with suppress(OverflowError):
        if found := _duration(text):
            _ = datetime.now(UTC) - found
            return found
    message = f"{text!r} is not a valid duration: give 30s, 5m or 24h"
    raise ValueError(message)


def _duration(text: str) -> timedelta | None:
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smhdw])", text)
    return timedelta(**{_UNITS[found[2]]: float(found[1])}) if found else None


def _parsed(text: str) -> When:
    if text.casefold() == "now":
        return When(ago=timedelta())
    if (ago := _duration(text)) is not None:
        return When(ago=ago)
    zone: tzinfo | None = None
    text, _, name = text.rpartition(" ")
    if re.match("[A-Za-z]", name) and (text or name.casefold() not in _DAYS_AGO):
        zone = _zone(name)
    else:
        # An offset may stand apart from its time.
        text += name if re.match("[+-][0-9]", name) else f" {name}"
    text = text.strip()
    word, _, rest = text.partition(" ")
    if (days_ago := _DAYS_AGO.get(word.casefold())) is not None:
        at = time.fromisoformat(rest) if rest else time()
        return When(None, days_ago, at.replace(tzinfo=None), zone or at.tzinfo)
    moment = datetime.fromisoformat(text)
    if moment.tzinfo and zone:
        raise ValueError("two time zones")
    return When(None, moment.date(), moment.time(), zone or moment.tzinfo)


def _zone(name: str) -> tzinfo:
    if name.upper() in ("Z", "UTC", "GMT"):
        return UTC
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError  # needed for names only

    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, OSError) as error:
        raise ValueError("an unknown time zone") from error


@frozen
class Times:
    """How times are shown: in which time zone, and at what time."""

    zone: tzinfo | None = None
    """None: the local time of this computer, which may change its distance from UTC in between."""
    now: datetime = field(factory=lambda: datetime.now(UTC))

    def at(self, moment: datetime) -> datetime:
        """A point in time on the clock of this zone."""
        try:
            return moment.astimezone(self.zone)
        except (OverflowError, OSError, ValueError):  # at the ends of the calendar
            return moment.astimezone(UTC)

    def instant(self, wall: datetime) -> datetime:
        """The point in time at which a clock of this zone shows `wall`, which has no time zone."""
        try:
            return wall.replace(tzinfo=self.zone).astimezone(UTC)
        except (OverflowError, OSError, ValueError):
            return wall.replace(tzinfo=UTC)

    def short(self, moment: datetime) -> str:
        """A point in time, as short as it can be understood, without its time zone."""
        local, now = self.at(moment), self.at(self.now)
        if abs(now - local) < timedelta(days=6):
            return f"{local:%a %H:%M}"
        return f"{local:%d %b %H:%M}" if local.year == now.year else f"{local:%d %b %Y}"

    def full(self, moment: datetime) -> str:
        """A point in time to the second, with its distance from UTC."""
        text = self.at(moment).isoformat(sep=" ", timespec="seconds")
        return text.removesuffix("+00:00") + " UTC" if text.endswith("+00:00") else text

    def iso(self, moment: datetime) -> str:
        """A point in time as ISO 8601, with its distance from UTC."""
        return self.at(moment).isoformat().replace("+00:00", "Z")

    def label(self, moments: Iterable[datetime] = ()) -> str:
        """A short name of the zone at these points in time, such as `CET` or `UTC+04:00`."""
        return "/".join(dict.fromkeys(_name(one) or _offset(one) for one in self._seen(moments)))

    def description(self, moments: Iterable[datetime] = ()) -> str:
        """The zone at these points in time, such as `CET (UTC+01:00)`."""
        found: dict[str, None] = {}
        for one in self._seen(moments):
            name, offset = _name(one), _offset(one)
            found[f"{name} ({offset})" if name and name != offset else offset] = None
        return " and ".join(found)

    def _seen(self, moments: Iterable[datetime]) -> list[datetime]:
        return [self.at(moment) for moment in sorted(moments)] or [self.at(self.now)]


def _name(local: datetime) -> str:
    """An abbreviation; empty where the zone has none that is short."""
    name = local.tzname() or ""
    return name if name.isalpha() and len(name) <= _SHORT_NAME else ""


def _offset(local: datetime) -> str:
    text = f"{local:%z}" if local.utcoffset() else ""
    return f"UTC{text[:3]}:{text[3:5]}" if text else "UTC"


def duration(took: timedelta) -> str:
    """Hours and minutes; seconds where it is less than a minute."""
    seconds = round(took.total_seconds())
    if abs(seconds) < _MINUTE:
        return f"{seconds}s"
    hours, minutes = divmod(round(seconds / _MINUTE), 60)
    return f"{hours}h {minutes:02}m" if hours else f"{minutes}m"
