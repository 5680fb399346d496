"""Instants as the API writes them: UTC with seven digits after the second.

Knows ticks (.NET's 100 ns since year 1) and their text, because `datetime` stops at the
microsecond. Must not know sessions, versions or HTTP.
"""

import re
from datetime import UTC, datetime, timedelta

TICKS_PER_SECOND = 10_000_000
_TICKS_PER_MICROSECOND = 10
_SECONDS_PER_DAY = 86_400
_SECONDS_PER_HOUR = 3_600
_YEAR_ONE = datetime(1, 1, 1, tzinfo=UTC)

_TEXT = re.compile(
    r"(?P<seconds>\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d:\d\d)?)"
    r"(?:\.(?P<fraction>\d{1,7}))?"
    r"(?P<zone>Z|[+-]\d\d:\d\d)?",
    re.ASCII,
)


def span_ticks(span: timedelta) -> int:
    """A length of time in ticks."""
    seconds = span.days * _SECONDS_PER_DAY + span.seconds
    return seconds * TICKS_PER_SECOND + span.microseconds * _TICKS_PER_MICROSECOND


def to_ticks(time: datetime | str) -> int:
    """An instant in ticks, from an aware `datetime` or from the API's text.

    Shape:  text is `2020-05-12T15:55:20.8557416Z`; fraction, time of day and zone may be
            missing, and without a zone it is UTC.
    Raises: ValueError for a naive `datetime`, and for text of another form.
    """
    if isinstance(time, datetime):
        if time.tzinfo is None:
            msg = f"{time!r} is naive: give it a time zone"
            raise ValueError(msg)
        return span_ticks(time - _YEAR_ONE)
    found = _TEXT.fullmatch(time)
    if found is None:
        msg = f"{time!r} is not a date and time"
        raise ValueError(msg)
    whole = datetime.fromisoformat(found["seconds"] + (found["zone"] or ""))
    if whole.tzinfo is None:
        whole = whole.replace(tzinfo=UTC)
    return span_ticks(whole - _YEAR_ONE) + int((found["fraction"] or "0").ljust(7, "0"))


def to_datetime(ticks: int) -> datetime:
    """The aware UTC `datetime` of an instant; its seventh digit is cut."""
    return _YEAR_ONE + timedelta(microseconds=ticks // _TICKS_PER_MICROSECOND)


def to_text(ticks: int) -> str:
    """The API's text of an instant, always with seven digits."""
    return f"{_local_text(ticks)}Z"


def to_offset_text(ticks: int, hours: int) -> str:
    """The same instant as a clock shows it that is `hours` ahead of UTC, with that offset."""
    local = ticks + hours * _SECONDS_PER_HOUR * TICKS_PER_SECOND
    return f"{_local_text(local)}{hours:+03d}:00"


def _local_text(ticks: int) -> str:
    whole = to_datetime(ticks).replace(tzinfo=None).isoformat(timespec="seconds")
    return f"{whole}.{ticks % TICKS_PER_SECOND:07d}"
