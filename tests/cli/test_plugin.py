"""`aiovbo check --format nagios`: one line, performance data, and the exit status of a monitoring plugin."""

import os
import re
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from aiovbo._cli._app import main
from aiovbo.testing import BackupFleet, BackupServer, Fault, Quirks, World

HOUR = timedelta(hours=1)
NAGIOS = ["check", "--format", "nagios", "--retries", "0"]
# The certificates of the embedded servers are good for many years.
LINE = re.compile(r"AIOVBO (OK|WARNING|CRITICAL|UNKNOWN) - ([^|\n]+)(?: \| ([^|\n]+))?\n")
VALUE = re.compile(r"(\w+)=(-?[0-9.]+|U)(s?)((?:;[0-9.:]*){0,4})")


def said(capsys: pytest.CaptureFixture[str]) -> tuple[str, str, dict[str, str]]:
    """The status as a word, the text, and the performance data by label."""
    found = LINE.fullmatch(capsys.readouterr().out)
    assert found is not None
    values = [VALUE.fullmatch(one) for one in (found[3] or "").split()]
    assert None not in values
    return found[1], found[2], {one[1]: one[0].partition("=")[2] for one in values if one}


@pytest.fixture
def healthy(servers: list[BackupServer], inventory: Path) -> list[BackupServer]:
    """The servers of the inventory, on which no restore failed."""
    assert inventory.exists()
    for server in servers:
        for one in server.world.sessions:
            server.world.change(one.id, result="Success")
    return servers


@pytest.mark.usefixtures("healthy")
def test_a_healthy_fleet_is_ok_with_performance_data(capsys: pytest.CaptureFixture[str]) -> None:
    """Each figure with its limits, its minimum, and its maximum where it has one."""
    assert main(NAGIOS) == 0
    word, text, values = said(capsys)
    assert word == "OK"
    assert text.startswith("3 servers, all can be queried, 0 failed restores in the last 24 h, no restore is")
    assert values.pop("certificate_days").endswith(";30:;7:")
    assert float(values.pop("clock_skew").partition("s")[0]) < 60
    assert values == {
        "unreachable": "0;0;0;0;3",
        "failed_restores": "0;0;4;0",
        "longest_restore": "0s;14400;86400;0",
    }


@pytest.mark.parametrize(
    ("ended", "options", "status"),
    [
        (1, [], 1),
        (1, ["--failed", "0"], 2),
        (1, ["--failed", ",0"], 2),
        (1, ["--failed", "1"], 0),
        (1, ["--failed", "0,"], 1),
        (30, [], 0),
        (30, ["--window", "2d"], 1),
        (1, ["--server", "vbo0"], 0),
    ],
)
def test_failed_restores_count_by_when_they_ended(
    healthy: list[BackupServer],
    ended: int,
    options: list[str],
    status: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Within the window, also where they began before it; the limits decide what they mean."""
    now = healthy[1].world.now
    healthy[1].world.add(
        creation_time=now - (ended + 40) * HOUR, end_time=now - ended * HOUR, result="Failed"
    )
    assert main([*NAGIOS, *options]) == status
    _, text, values = said(capsys)
    if status:
        assert "1 failed restore in the last" in text
        assert "vbo1: 1" in text
        assert values["failed_restores"].startswith("1;")


@pytest.mark.parametrize(
    ("hours", "options", "status"), [(5, [], 1), (30, [], 2), (5, ["--long-running", "6h,8h"], 0)]
)
def test_a_restore_that_runs_for_long_is_reported(
    healthy: list[BackupServer],
    hours: int,
    options: list[str],
    status: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With its server; one that shows a result while it runs has not failed."""
    world = healthy[2].world
    world.add(creation_time=world.now - hours * HOUR, end_time=None, result="Failed")
    assert main([*NAGIOS, *options]) == status
    _, text, values = said(capsys)
    assert f"a restore has been running for {hours}h 00m (vbo2)" in text
    assert values["failed_restores"].startswith("0;")
    assert abs(float(values["longest_restore"].partition("s")[0]) - hours * 3600) < 60


@pytest.mark.parametrize(
    ("options", "status"), [([], 2), (["--unreachable", "0,1"], 1), (["--unreachable", "1"], 0)]
)
def test_a_server_that_cannot_be_queried_is_critical(
    healthy: list[BackupServer], options: list[str], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """With its name and the reason; the figures of the others remain."""
    healthy[1].fail(Fault.status(503), on="RestoreSessions", times=None)
    assert main([*NAGIOS, *options]) == status
    word, text, values = said(capsys)
    assert word == ("OK", "WARNING", "CRITICAL")[status]
    assert "1 cannot be queried (vbo1: HTTP 503" in text
    assert values["unreachable"].startswith("1;")
    assert values["failed_restores"].startswith("0;")


def test_figures_that_are_not_known_are_u(
    healthy: list[BackupServer], capsys: pytest.CaptureFixture[str]
) -> None:
    """Where no server can be queried, nothing else is reported as good."""
    for server in healthy:
        server.fail(Fault.status(503), on="RestoreSessions", times=None)
    assert main(NAGIOS) == 2
    _, text, values = said(capsys)
    assert "3 cannot be queried (vbo0, vbo1, vbo2: HTTP 503" in text
    assert {label for label, value in values.items() if value.startswith("U")} == {
        "failed_restores",
        "longest_restore",
        "certificate_days",
        "clock_skew",
    }


@pytest.mark.usefixtures("healthy")
def test_a_secret_that_no_server_has_is_unknown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The cause is stated once, with the whole name of the variable: the servers themselves may be well."""
    monkeypatch.delenv("VBO_TEST_PASSWORD")
    assert main(NAGIOS) == 3
    word, text, values = said(capsys)
    assert (word, values) == ("UNKNOWN", {})
    assert text.count("password is not available") == 1
    assert text.endswith("the environment variable VBO_TEST_PASSWORD is missing or empty)")


def test_servers_without_their_secret_are_listed_with_others(
    healthy: list[BackupServer],
    inventory: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each cause once, in the words of an inventory, after the names of its servers."""
    healthy[1].fail(Fault.status(503), on="RestoreSessions", times=None)
    written = inventory.read_text(encoding="utf-8")
    login = "credentials = { username = 'u', password.env = 'VBO_OTHER_PASSWORD' }"
    inventory.write_text(written.replace("labels = { site = 'a' }", login), encoding="utf-8")
    assert main(NAGIOS) == 2
    _, text, _ = said(capsys)
    assert "3 cannot be queried" in text
    assert re.search(
        r"vbo0: its password is not available \(.* VBO_OTHER_PASSWORD is missing or empty\)", text
    )
    assert "the provider of" not in text


@pytest.mark.usefixtures("healthy")
@pytest.mark.parametrize(("limits", "status"), [("1000000,7", 1), ("1000000", 2)])
def test_a_certificate_that_expires_soon_is_reported(
    limits: str, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """In days, with the server whose certificate expires first."""
    assert main([*NAGIOS, "--certificate", limits]) == status
    _, text, values = said(capsys)
    days = values["certificate_days"].partition(";")[0]
    assert re.search(rf"the certificate of vbo\d expires in {days} days", text)


def test_a_clock_that_is_off_is_reported(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour is critical; what failed in the window is counted by the server's own clock."""
    server = BackupServer(World("ahead", sessions=0), version="v8", quirks=Quirks.named("clock-ahead"))
    for hours in (23.5, 24.5):
        ended = server.world.now - hours * HOUR
        server.world.add(creation_time=ended - HOUR, end_time=ended, result="Failed")
    with BackupFleet([server]).run_in_thread():
        monkeypatch.setenv("VBO_PASSWORD", server.password)
        words = ["--url", server.url, "--user", server.username, "--ca-file", server.ca_file]
        assert main([*NAGIOS, *words]) == 2
        _, text, values = said(capsys)
    assert re.search(r"clocks differ by up to 3[56]\d\d s", text)
    assert values["failed_restores"].startswith("1;")


@pytest.mark.usefixtures("healthy")
@pytest.mark.parametrize(
    "options",
    [
        ["--failed", "x"],
        ["--failed", ","],
        ["--failed", "4,0"],
        ["--certificate", "7,30"],
        ["--window", "soon"],
        ["--unknown"],
        ["--server", "none.such"],
        ["--fleet", "no such\nfile | x"],
    ],
)
def test_what_is_wrong_with_the_command_is_unknown(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """On standard output, in one line, as monitoring systems show it; 2 would be CRITICAL."""
    assert main([*NAGIOS, *options]) == 3
    word, text, values = said(capsys)
    assert (word, values) == ("UNKNOWN", {})
    assert len(text) > 10


@pytest.mark.usefixtures("healthy")
def test_limits_need_the_format(capsys: pytest.CaptureFixture[str]) -> None:
    """The table has none."""
    assert main(["check", "--failed", "3"]) == 2
    assert "--window and the limits need --format nagios" in capsys.readouterr().err


def test_a_check_that_is_terminated_is_unknown(healthy: list[BackupServer], inventory: Path) -> None:
    """As by a monitoring system whose patience ends."""
    asked = len(healthy[0].requests)
    healthy[0].fail(Fault.stall(), times=None)
    command = [sys.executable, "-m", "aiovbo", *NAGIOS, "--fleet", str(inventory), "--server", "vbo0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        while len(healthy[0].requests) == asked:
            signal.sigtimedwait([], 0.01)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=150)
    assert (process.returncode, out) == (3, "AIOVBO UNKNOWN - interrupted before all servers answered\n")
