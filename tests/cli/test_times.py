"""Times on the command line: what `--since` and `--until` mean, and how times are shown."""

import csv
import io
import json
import os
import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from aiovbo._cli._app import main
from aiovbo._cli._options import Filter
from aiovbo._cli._times import Times, When, parse_when
from aiovbo.errors import ConfigError
from aiovbo.testing import BackupServer

ATHENS = ZoneInfo("Europe/Athens")


@pytest.fixture
def athens(monkeypatch: pytest.MonkeyPatch) -> None:
    """The local time zone is two or three hours before UTC."""
    monkeypatch.setenv("TZ", "Europe/Athens")
    time.tzset()


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("30m", timedelta(minutes=30)), ("1.5h", timedelta(minutes=90)), ("7d", timedelta(days=7)),
        ("now", timedelta()), ("2026-11-23", "2026-11-22T22:00Z"), ("2026-07-01", "2026-06-30T21:00Z"),
        ("2026-11-23T08:00", "2026-11-23T06:00Z"), ("2026-11-23 08:00:30", "2026-11-23T06:00:30Z"),
        ("20261123T0800", "2026-11-23T06:00Z"), ("2026-11-23T08:00Z", "2026-11-23T08:00Z"),
        ("2026-11-23T08:00-05:00", "2026-11-23T13:00Z"), ("2026-11-23 08:00 +0100", "2026-11-23T07:00Z"),
        ("2026-11-23 08:00 UTC", "2026-11-23T08:00Z"), ("2026-11-23 utc", "2026-11-23T00:00Z"),
        ("2026-11-23 08:00 Asia/Tokyo", "2026-11-22T23:00Z"),
        # In autumn this hour comes twice.
        ("2026-10-25T03:30", "2026-10-25T00:30Z"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("athens")
def test_a_time_without_a_time_zone_is_local(text: str, meant: str | timedelta) -> None:
    """A date begins at 00:00; --utc means UTC; a time zone that is written takes precedence."""
    expected = datetime.fromisoformat(meant) if isinstance(meant, str) else meant
    assert parse_when(text).bound(None) == parse_when(text).bound(ATHENS) == expected


@pytest.mark.parametrize(
    ("text", "days", "clock"),
    [("today", 0, "00:00"), ("Yesterday", 1, "00:00"), ("yesterday 22:15", 1, "22:15")],
)
@pytest.mark.parametrize("zone", [UTC, ATHENS, ZoneInfo("Pacific/Kiritimati")], ids=str)
def test_a_day_by_its_word_is_a_day_of_the_time_zone(
    text: str, days: int, clock: str, zone: ZoneInfo
) -> None:
    """Around midnight, today differs between time zones."""
    before = datetime.now(zone).date()
    bound = parse_when(text).bound(zone)
    assert isinstance(bound, datetime)
    local = bound.astimezone(zone)
    assert local.date() in {before - timedelta(days=days), datetime.now(zone).date() - timedelta(days=days)}
    assert f"{local:%H:%M}" == clock


@pytest.mark.parametrize(
    "text",
    ["", "tomorrow", "7", "7x", "-7d", "2026-02-30", "24:00", "utc", "2026-11-23T08:00Z UTC",
     "2026-11-23 08:00 Nowhere/City", "2026-11-23 08:00 ../../etc/passwd", "99999999d",
     "0001-01-01T00:00+14:00"],
)  # fmt: skip
def test_a_time_that_is_invalid_is_rejected(text: str) -> None:
    """With the text, and what is accepted."""
    with pytest.raises(
        ValueError, match=re.escape(repr(text)) + " (is not a valid time: give 30m|lies outs)"
    ):
        parse_when(text)


def test_since_is_inclusive_and_until_is_not() -> None:
    """Two days in sequence have every session once."""
    times = Times(UTC)
    day = Filter(since=parse_when("2026-11-23"), until=parse_when("2026-11-24"))
    assert day.window(times) == (datetime(2026, 11, 23, tzinfo=UTC), datetime(2026, 11, 24, tzinfo=UTC))
    # The bounds of a query are exclusive.
    tick = timedelta(microseconds=1)
    assert day.bounds(times) == {
        "started_after": datetime(2026, 11, 23, tzinfo=UTC) - tick,
        "started_before": datetime(2026, 11, 24, tzinfo=UTC),
    }
    ago = Filter(since=When(ago=timedelta(days=7)))
    assert ago.bounds(times) == {"started_after": timedelta(days=7), "started_before": None}
    with pytest.raises(ConfigError, match="is not before --until"):
        Filter(since=parse_when("1h"), until=parse_when("2h")).bounds(times)


def test_times_are_shown_with_their_time_zone() -> None:
    """By its abbreviation where it has one, and both where the clock changes in between."""
    winter, summer = datetime(2026, 11, 27, 8, tzinfo=UTC), datetime(2026, 7, 1, 8, tzinfo=UTC)
    athens, dubai = Times(ATHENS, winter), Times(ZoneInfo("Asia/Dubai"), winter)
    assert (athens.short(winter), athens.short(summer)) == ("Fri 10:00", "01 Jul 11:00")
    assert athens.full(winter) == "2026-11-27 10:00:00+02:00"
    assert athens.iso(summer) == "2026-07-01T11:00:00+03:00"
    assert athens.label([winter, summer]) == "EEST/EET"
    assert athens.description([winter, summer]) == "EEST (UTC+03:00) and EET (UTC+02:00)"
    assert (dubai.label(), dubai.description()) == ("UTC+04:00", "UTC+04:00")
    utc = Times(UTC, winter)
    assert (utc.full(winter), utc.iso(winter)) == ("2026-11-27 08:00:00 UTC", "2026-11-27T08:00:00Z")
    assert (utc.label(), utc.description()) == ("UTC", "UTC")
    for moment in (datetime.min, datetime.max):  # noqa: DTZ901  # made aware below
        assert Times(ZoneInfo("Pacific/Kiritimati")).full(moment.replace(tzinfo=UTC))
        assert Times(ZoneInfo("Pacific/Honolulu")).full(moment.replace(tzinfo=UTC))


@pytest.mark.usefixtures("athens")
def test_commands_read_and_show_local_time_unless_utc_is_chosen(
    servers: list[BackupServer], inventory: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """In tables, CSV, `show` and `timeline`; JSON has the server's own text."""
    began = datetime(2026, 3, 1, 23, 30, tzinfo=UTC)
    found = servers[2].world.add(creation_time=began, end_time=began + timedelta(minutes=5))
    span = ["--fleet", str(inventory), "--since", "2026-03-02", "--until", "2026-03-03"]
    assert main(["sessions", *span]) == 0
    out, err = capsys.readouterr()
    assert "start EET" in out
    assert "02 Mar 01:30" in out
    assert "1 session of 3 servers, times in EET (UTC+02:00)" in err
    # In UTC it began the day before.
    assert main(["sessions", *span, "--utc", "--output", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert main(["sessions", *span, "--output", "json"]) == 0
    (document,) = json.loads(capsys.readouterr().out)
    assert (document["id"], document["creationTime"][:16]) == (str(found.id), "2026-03-01T23:30")
    for options, start in (([], "2026-03-02T01:30:00+02:00"), (["--utc"], "2026-03-01T23:30:00Z")):
        since = ["--since", "2026-03-01", "--until", "2026-03-03"]
        assert main(["sessions", *span[:2], *since, "--output", "csv", *options]) == 0
        (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
        assert row["creationTime"] == start
        assert main(["show", str(found.id), *options]) == 0
        shown = start.replace("T", " ").replace("Z", " UTC")
        assert re.search(rf"^creationTime +{re.escape(shown)}$", capsys.readouterr().out, re.MULTILINE)
    assert main(["timeline", *span]) == 0
    assert "Mon 02 Mar 00:00 to Tue 03 Mar 00:00 EET" in capsys.readouterr().out
    picture = tmp_path / "timeline.svg"
    assert main(["timeline", *span, "--utc", "--svg", str(picture)]) == 0
    assert "Mon 02 Mar 2026 00:00 to Tue 03 Mar 2026 00:00 UTC" in picture.read_text(encoding="utf-8")


@pytest.mark.parametrize("command", ["sessions", "timeline", "show", "watch"])
def test_help_states_the_time_zone(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Local time by default, and the option for UTC."""
    assert main([command, "--help"]) == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--utc" in text
    assert "in local time" in text
    assert "--since WHEN" in text or command == "show"
    assert "--since." not in text


def test_local_time_is_that_of_the_variable_tz() -> None:
    """The tests' own fixture has set it."""
    assert os.environ["TZ"] == "UTC"
    assert Times().label() == "UTC"
