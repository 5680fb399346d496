"""The larger programs in `examples/`: what they serve, write and keep, also while servers fail."""

import asyncio
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
from typing import Any

import pytest
from harness import closed_port
from harness.backups import asked, server_of
from harness.readme import ROOT
from test_examples import command

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
            output, errors = process.communicate(timeout=150)
        finally:
            process.kill()
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    assert "Warning" not in errors


def get(url: str, **headers: str) -> tuple[str, str]:
    """What is served there, and as what."""
    request = urllib.request.Request(url, headers=headers)  # noqa: S310  # http, on loopback
    with urllib.request.urlopen(request, timeout=150) as answer:  # noqa: S310  # as above
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
        [promtool, "check", "metrics"], input=text, text=True, capture_output=True, check=False, timeout=150
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

    app = fastapi.application(Namespace(**vars(options), fresh=3600))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as http,
    ):
        answers = await asyncio.gather(*(http.get("/restores") for _ in range(20)))
        assert len({answer.json()["asked_at"] for answer in answers}) == 1
        assert [listings(backup) for backup in vbo_fleet] == [1, 1, 1]
        app.state.restored._fresh = timedelta(0)
        await http.get("/restores")
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
