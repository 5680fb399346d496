"""The larger programs in `examples/`: what they serve, write and keep, also while servers fail."""

import asyncio
import csv
import importlib
import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import time
import urllib.request
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from harness import closed_port
from harness.backups import asked, server_of
from harness.readme import ROOT
from test_examples import command, run

from aiovbo import Fleet
from aiovbo.testing import BackupFleet, BackupServer, Fault

Load = Callable[[str], Any]  # a module, of which type checkers know nothing


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Load:
    """Imports an example by its name."""
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    return importlib.import_module


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch, vbo_fleet: BackupFleet) -> Namespace:
    """An example's options of the command line, for the fleet of the test."""
    monkeypatch.setenv("VBO_PASSWORD", vbo_fleet.password)
    return Namespace(urls=vbo_fleet.urls, user=vbo_fleet.username, ca_file=vbo_fleet.ca_file, fleet=None)


def arguments_of(fleet: BackupFleet) -> list[str]:
    return [*fleet.urls, "--user", fleet.username, "--ca-file", fleet.ca_file]


@contextmanager
def serving(name: str, *arguments: str, password: str = "", says: str, on: str = "stdout") -> Iterator[str]:
    """The example in a process of its own, and the address that it prints; ended as by Ctrl-C."""
    with subprocess.Popen(
        command(name, *arguments),
        cwd=ROOT,
        env={**os.environ, "VBO_PASSWORD": password},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            said = ""
            output = getattr(process, on)
            while not (found := re.search(says, said)):
                line = output.readline()
                assert line, said
                said += line
            yield found[1]
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    assert "Warning" not in errors


def get(url: str, **headers: str) -> tuple[str, str]:
    """What is served there, and as what."""
    request = urllib.request.Request(url, headers=headers)  # noqa: S310  # http, on loopback
    with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310  # as above
        return answer.read().decode(), answer.headers["Content-Type"]


# --------------------------------------------------------------------------------- the exporter

EXPORTING = r"(http://127\.0\.0\.1:\d+/metrics)"


def exported(url: str, until: str) -> str:
    """The metrics, once a line of them matches."""
    ends = time.monotonic() + 20
    while time.monotonic() < ends:
        text, kind = get(url)
        assert kind.startswith("text/plain; version=")
        if re.search(until, text, re.MULTILINE):
            return text
        time.sleep(0.05)
    raise AssertionError(text)


def test_the_exporter_serves_metrics_that_prometheus_has_nothing_against() -> None:
    """Every family of the SDK's, each server's sessions, and promtool finds nothing to complain about."""
    pytest.importorskip("prometheus_client")
    with serving("exporter", says=EXPORTING) as url:
        for server in ("vbo1", "vbo2", "vbo3"):
            text = exported(url, rf'^aiovbo_restore_sessions\{{.*server="{server}"')
        openmetrics, kind = get(url, Accept="application/openmetrics-text; version=1.0.0")
    families = set(re.findall(r"^# TYPE (\w+) ", text, re.MULTILINE))
    assert families >= {
        "aiovbo_server_up",
        "aiovbo_last_success_timestamp_seconds",
        "aiovbo_requests_total",
        "aiovbo_request_seconds",
        "aiovbo_retries_total",
        "aiovbo_logins_total",
        "aiovbo_restore_sessions",
        "aiovbo_oldest_open_restore_timestamp_seconds",
    }
    for server in ("vbo1", "vbo2", "vbo3"):
        assert f'aiovbo_server_up{{server="{server}"}} 1.0' in text
        assert re.search(
            rf'^aiovbo_restore_sessions\{{.*server="{server}",state="Stopped"', text, re.MULTILINE
        )
    assert kind.startswith("application/openmetrics-text")
    assert openmetrics.endswith("# EOF\n")
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: the metrics were not checked by it")
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=text, text=True, capture_output=True, check=False, timeout=20
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_the_exporter_says_which_server_is_down(vbo_fleet: BackupFleet) -> None:
    """One that refuses connections is 0 and has no sessions; the others are as ever."""
    pytest.importorskip("prometheus_client")
    password = vbo_fleet.password
    with closed_port() as port:
        named = [f"https://127.0.0.1:{port}", *arguments_of(vbo_fleet)]
        with serving("exporter", *named, "--every", "0.2", password=password, says=EXPORTING) as url:
            text = exported(url, rf'^aiovbo_server_up\{{server="127.0.0.1:{port}"\}} 0')
            text = exported(url, rf'^aiovbo_restore_sessions\{{.*"127.0.0.1:{vbo_fleet[2].port}"')
    assert f'aiovbo_restore_sessions{{result="Success",server="127.0.0.1:{port}"' not in text
    for backup in vbo_fleet:
        assert f'aiovbo_server_up{{server="127.0.0.1:{backup.port}"}} 1.0' in text


# -------------------------------------------------------------------------------------- FastAPI


@pytest.fixture
def fastapi(example: Load) -> Any:
    """The FastAPI example, where what it needs is installed."""
    pytest.importorskip("fastapi")
    pytest.importorskip("httpx")
    return example("in_fastapi")


async def test_the_route_gives_the_sessions_and_names_the_server_that_failed(
    fastapi: Any, options: Namespace, vbo_fleet: BackupFleet
) -> None:
    """As JSON, under the API's own names; a 403 of one server costs the others nothing."""
    import httpx  # may not be installed

    vbo_fleet[0].fail(Fault.status(403), on="RestoreSessions", times=None)
    app = fastapi.application(Namespace(**vars(options), fresh=5))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as http,
    ):
        answer = await http.get("/restores")
    assert answer.status_code == 200
    said = answer.json()
    assert said["complete"] is False
    assert [one["server"] for one in said["failed"]] == [f"127.0.0.1:{vbo_fleet[0].port}"]
    assert "403" in said["failed"][0]["what"]
    assert {one["server"] for one in said["sessions"]} == {f"127.0.0.1:{b.port}" for b in vbo_fleet[1:]}
    assert all(one["creationTime"] and one["id"] for one in said["sessions"])


async def test_the_route_is_a_bad_gateway_where_every_server_failed(
    fastapi: Any, options: Namespace, vbo_fleet: BackupFleet
) -> None:
    """All of them are named all the same."""
    import httpx  # as above

    for backup in vbo_fleet:
        backup.fail(Fault.status(403), on="RestoreSessions", times=None)
    app = fastapi.application(Namespace(**vars(options), fresh=5))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as http,
    ):
        answer = await http.get("/restores")
    assert answer.status_code == 502
    assert len(answer.json()["failed"]) == 3


async def test_those_who_ask_the_route_at_once_share_one_question(
    fastapi: Any, options: Namespace, vbo_fleet: BackupFleet
) -> None:
    """20 requests, and each server is asked once; again only when that is no longer fresh."""
    import httpx  # as above

    app = fastapi.application(Namespace(**vars(options), fresh=1))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as http,
    ):
        answers = await asyncio.gather(*(http.get("/restores") for _ in range(20)))
        assert len({answer.json()["asked_at"] for answer in answers}) == 1
        before = [listings(backup) for backup in vbo_fleet]
        await asyncio.sleep(1.1)
        await http.get("/restores")
    assert before == [1, 1, 1]
    assert [listings(backup) for backup in vbo_fleet] == [2, 2, 2]


def listings(backup: BackupServer) -> int:
    """How often it gave its sessions."""
    return sum(r.resource == "RestoreSessions" and r.status == 200 for r in backup.requests)


def test_the_application_runs_under_a_web_server() -> None:
    """By uvicorn, over HTTP; it starts with its servers and ends without complaint."""
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    with serving("in_fastapi", "--port", "0", says=r"(http://127\.0\.0\.1:\d+)", on="stderr") as url:
        text, kind = get(f"{url}/restores")
    assert kind == "application/json"
    said = json.loads(text)
    assert (said["complete"], said["failed"]) == (True, [])
    assert {one["server"] for one in said["sessions"]} <= {"vbo1", "vbo2", "vbo3"}


# ------------------------------------------------------------------------------------- the audit


class Page(HTMLParser):
    """What a browser makes of a page: tags, attributes, text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: dict[str, str | None] = {}
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note it."""
        self.tags.append(tag)
        self.attributes.update(attrs)

    def handle_data(self, data: str) -> None:
        """Keep it."""
        self.text += data


def audited(fleet: BackupFleet, folder: Path) -> tuple[list[dict[str, str]], Page, str]:
    """The rows of the table, the page, and what was said."""
    table, page = folder / "audit.csv", folder / "audit.html"
    files = ["--csv", str(table), "--html", str(page)]
    done = run("audit_report", *arguments_of(fleet), *files, password=fleet.password)
    assert done.returncode in (0, 1), done.stderr
    with table.open(encoding="utf-8-sig", newline="") as lines:
        rows = list(csv.DictReader(lines))
    return rows, Page(page.read_text(encoding="utf-8")), done.stdout


def test_the_audit_has_every_session_in_both_files(vbo_fleet: BackupFleet, tmp_path: Path) -> None:
    """Newest first; where all answered in full it says so."""
    rows, page, said = audited(vbo_fleet, tmp_path)
    ids = {str(one.id): one for backup in vbo_fleet for one in backup.world.sessions}
    assert {row["Session"] for row in rows} == set(ids)
    assert said == f"{len(ids)} restore sessions from 3 of 3 servers\n"
    began = [row["Began (UTC)"] for row in rows]
    assert began == sorted(began, reverse=True)
    for row in rows:
        one = ids[row["Session"]]
        assert (row["Who"], row["From host"], row["Why"]) == (one.initiated_by, one.client_host, one.reason)
        assert row["Session"] in page.text
    assert page.tags.count("tr") == len(rows) + 1
    assert "Every server was asked, and answered in full." in page.text


def test_the_audit_names_the_servers_that_are_not_in_it(vbo_fleet: BackupFleet, tmp_path: Path) -> None:
    """In the page and in the table: a server that failed, and items that were rejected."""

    def spoil(listing: dict[str, Any]) -> dict[str, Any]:
        listing["results"][0]["creationTime"] = "soon"
        return listing

    vbo_fleet[0].fail(Fault.status(403), on="RestoreSessions", times=None)
    vbo_fleet[1].fail(Fault.edit(spoil), on="RestoreSessions", times=1)
    rows, page, said = audited(vbo_fleet, tmp_path)
    gaps = [row["Gap"] for row in rows if row["Gap"]]
    failed, spoilt = f"127.0.0.1:{vbo_fleet[0].port}: ", f"127.0.0.1:{vbo_fleet[1].port}: "
    assert [gap.partition(": ")[0] for gap in gaps] == [
        "Servers that could not be asked",
        "Answers that are not whole",
    ]
    assert failed in gaps[0]
    assert "403" in gaps[0]
    assert spoilt in gaps[1]
    assert "soon" in gaps[1]
    assert all(gap.partition(": ")[2] in page.text for gap in gaps)
    assert "Every server was asked" not in page.text
    assert "from 2 of 3 servers" in said
    assert "from 2 of 3 servers" in page.text


async def test_the_audit_says_what_servers_of_old_versions_do_not_tell(tmp_path: Path) -> None:
    """A v4 server does not say from which host, and why: the audit lists that as a gap."""
    async with BackupFleet(1, versions=["v4"], sessions=7) as fleet:
        rows, page, _ = await asyncio.to_thread(audited, fleet, tmp_path)
    assert len(rows) == 8
    unreported = f"127.0.0.1:{fleet[0].port}: from which host, why, in 7 sessions."
    assert rows[-1]["Gap"] == f"What servers of old versions do not report: {unreported}"
    assert unreported in page.text


def test_the_audit_believes_no_text_of_a_session(vbo_fleet: BackupFleet, tmp_path: Path) -> None:
    """What would be a formula, markup, or turn the text around is plain text in both files."""
    formulas = ["=1+1", "+1", "-1", "@SUM(1)", "\t=2", "\r=3", "\x1b=4", " =5", "\u202e=6", "\uff1d7"]
    for formula in formulas:
        vbo_fleet[0].world.add(
            reason=formula, initiated_by="<script>alert(1)</script>", result="x\" onclick='y'"
        )
    vbo_fleet[0].world.add(reason="paid \u202efdp.exe", client_host="<b>&amp;</b>")
    rows, page, _ = audited(vbo_fleet, tmp_path)
    visible = ["".join(char for char in formula if char.isprintable()).strip() for formula in formulas]
    assert {row["Why"] for row in rows} >= {f"'{formula}" for formula in visible}
    cells = [cell for row in rows for cell in row.values()]
    assert not [cell for cell in cells if cell.startswith(tuple("=+-@\uff1d")) or not cell.isprintable()]
    assert not {"script", "b", "img", "link"} & set(page.tags)
    assert not {"onclick", "src", "href"} & set(page.attributes)
    assert "<script>alert(1)</script>" in page.text
    assert "paid  fdp.exe" in page.text
    assert "<b>&amp;</b>" in page.text
    assert str(page.attributes["content"]).startswith("default-src 'none'")


# --------------------------------------------------------------------------------- the coordinator


async def test_one_poll_reaches_every_listener(example: Load, caplog: pytest.LogCaptureFixture) -> None:
    """However many listen, a server is queried once per poll; a listener that fails blocks no other."""
    called: list[list[str]] = [[], [], []]

    def listener(index: int) -> Callable[[Any], None]:
        def call(answer: Any) -> None:
            called[index].append(answer.server)
            assert index != 1, "a listener's bug"

        return call

    async with (
        BackupServer() as backup,
        Fleet([server_of(backup)]) as fleet,
        fleet.poll(every=timedelta(milliseconds=50)) as poll,
    ):
        task = asyncio.create_task(example("coordinator").coordinate(poll, *map(listener, range(3))))
        async with asyncio.timeout(10):
            while len(called[2]) < 3:
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
    assert called[0] == called[1] == called[2]
    assert abs(asked(backup) - len(called[0])) <= 1
    assert "a listener failed" in caplog.text


# -------------------------------------------------------------------------------- the shared session


async def test_the_application_goes_on_with_the_session_that_it_lent(
    example: Load, options: Namespace, vbo_fleet: BackupFleet
) -> None:
    """It is open when the fleet is closed, and has neither token nor cookie of any server."""
    program = example("shared_session")
    async with program.application_session() as http:
        result = await program.ask(options, http)
        assert not result.failed
        assert not http.closed
        url = f"{vbo_fleet[0].url}/v8/RestoreSessions"
        context = ssl.create_default_context(cafile=vbo_fleet.ca_file)
        async with http.get(url, ssl=context) as answer:
            assert answer.status == 401
        assert vbo_fleet[0].requests[-1].token == ""
        again = await program.ask(options, http)
        assert len(again.items) == len(result.items)


async def test_the_report_goes_to_the_webhook_that_is_named(
    example: Load, options: Namespace, vbo_fleet: BackupFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the servers that failed counted in it."""
    program = example("shared_session")
    vbo_fleet[1].fail(Fault.status(403), on="RestoreSessions", times=None)
    async with program.webhook_of(Namespace(webhook=None)) as url:
        assert await program.main(Namespace(**vars(options), webhook=url)) == 1
    said = capsys.readouterr()
    assert re.fullmatch(r"the webhook got: \d+ sessions in a day, 1 servers failed\n", said.out)
    assert said.err.startswith(f"127.0.0.1:{vbo_fleet[1].port}: ")
