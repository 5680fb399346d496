"""Alert rules and a dashboard for the metrics of a fleet, checked by the programs that use them."""

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from harness.ports import closed_port
from harness.readme import ROOT
from prometheus_client import CollectorRegistry, generate_latest

from aiovbo import TLS, Fleet, Password, Server
from aiovbo.prometheus import FleetMetrics
from aiovbo.testing import BackupFleet, BackupServer, Fault, World

FOLDER = ROOT / "examples" / "monitoring"
RULES = (FOLDER / "aiovbo-rules.yml").read_text(encoding="utf-8")
RULE_TESTS = (FOLDER / "aiovbo-rules-tests.yml").read_text(encoding="utf-8")
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "grafana-dashboard.json").read_text(encoding="utf-8"))
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
PROMTOOL, PROMETHEUS = shutil.which("promtool"), shutil.which("prometheus")


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian: prometheus)")
@pytest.mark.parametrize(
    "command", [["check", "rules", "aiovbo-rules.yml"], ["test", "rules", "aiovbo-rules-tests.yml"]]
)
def test_promtool_accepts_the_rules_and_their_tests(command: list[str]) -> None:
    """As the first lines of the files show it."""
    assert PROMTOOL is not None
    done = subprocess.run(
        [PROMTOOL, *command], cwd=FOLDER, capture_output=True, text=True, check=False, timeout=150
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout


def test_each_alert_is_tested_where_it_fires_and_where_it_does_not() -> None:
    """By name, in the tests of the rules."""
    alerts = re.findall(r"- alert: (\w+)", RULES)
    assert len(alerts) == len(set(alerts)) > 5
    for alert in alerts:
        assert re.search(rf"alertname: {alert}, exp_alerts: \[\]", RULE_TESTS)
        assert re.search(rf"alertname: {alert}\n +exp_alerts:\n +- exp_labels", RULE_TESTS)


def test_rules_and_dashboard_use_metrics_that_exist() -> None:
    """Under the names that `FleetMetrics` gives them."""
    registry = CollectorRegistry()
    FleetMetrics(registry)
    text = generate_latest(registry).decode()
    names = set(re.findall(r"^# TYPE (\w+) ", text, re.MULTILINE))
    parts = {f"{name}{part}" for name in names for part in ("", "_bucket", "_sum", "_count")}
    used = set(
        re.findall(r"\baiovbo_\w+", " ".join([*QUERIES, *re.findall(r"expr:(.*(?:\n {10,}.*)*)", RULES)]))
    )
    assert len(used) >= 10
    assert used <= parts


def test_the_dashboard_can_be_imported() -> None:
    """Each panel has an id, a place of its own, and queries of the data source that is chosen on import."""
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert {one["name"] for one in DASHBOARD["templating"]["list"]} == {"datasource", "server"}
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert all(0 <= x < 24 for x, _ in cells)  # the columns of a dashboard
    for panel in panels:
        assert panel["description"]
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}


@asynccontextmanager
async def exporting() -> AsyncGenerator[int]:
    """The port of an exporter of three servers: one is down, one fails once; all kinds of restores."""
    registry = CollectorRegistry()
    metrics = FleetMetrics(registry)
    worlds = [World(f"monitoring {number}", sessions=0) for number in range(2)]
    for world in worlds:
        now = world.now
        for result in ("Success", "Warning", "Failed"):
            world.add(creation_time=now - timedelta(hours=2), end_time=now, result=result)
        world.add(creation_time=now - timedelta(hours=5), end_time=None)
    embedded = [BackupServer(world, version="v8") for world in worlds]
    embedded[0].fail(Fault.status(503), times=1)

    async def show(_: web.Request) -> web.Response:
        metrics.sessions(await fleet.restore_sessions(started_after=timedelta(days=1)))
        return web.Response(body=generate_latest(registry))

    app = web.Application()
    app.router.add_get("/metrics", show)
    runner = web.AppRunner(app)
    async with BackupFleet(embedded) as servers:
        login, tls = Password(servers.username, servers.password), TLS(ca_file=servers.ca_file)
        with closed_port() as closed:
            urls = {"vbo1": servers[0].url, "vbo2": servers[1].url, "down": f"https://127.0.0.1:{closed}"}
            several = [Server(url, login, name=name, tls=tls) for name, url in urls.items()]
            async with Fleet(several, observer=metrics, retries=1) as fleet:
                await runner.setup()
                try:
                    await web.TCPSite(runner, "127.0.0.1", 0).start()
                    yield int(runner.addresses[0][1])
                finally:
                    await runner.cleanup()


@asynccontextmanager
async def prometheus(folder: Path, exporter: int) -> AsyncGenerator[str]:
    """The address of a Prometheus that scrapes the exporter and has the rules."""
    assert PROMETHEUS is not None
    with closed_port() as port:
        pass
    (folder / "prometheus.yml").write_text(
        "global: {scrape_interval: 300ms, evaluation_interval: 300ms}\n"
        f"rule_files: [{FOLDER}/aiovbo-rules.yml]\n"
        f"scrape_configs: [{{job_name: aiovbo, static_configs: [{{targets: ['127.0.0.1:{exporter}']}}]}}]\n",
        encoding="utf-8",
    )
    command = [
        PROMETHEUS,
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    ]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    try:
        yield f"http://127.0.0.1:{port}/api/v1/"
    finally:
        process.terminate()
        _, errors = await process.communicate()
    assert errors.decode() == ""


async def answered(http: aiohttp.ClientSession, path: str, **parameters: str) -> Any:
    """What Prometheus answers; None while it does not listen yet."""
    try:
        async with http.get(path, params=parameters) as answer:
            if answer.status == 503:  # it reads its storage
                return None
            document = await answer.json()
    except aiohttp.ClientConnectionError:
        return None
    assert document["status"] == "success", document
    return document["data"]


@pytest.mark.skipif(PROMETHEUS is None, reason="prometheus is not installed (Debian: prometheus)")
async def test_each_query_of_the_dashboard_has_a_result_in_prometheus(tmp_path: Path) -> None:
    """With servers that are up and down, failed and open restores, a retry; and no rule has an error."""
    async with (
        exporting() as exporter,
        prometheus(tmp_path, exporter) as url,
        aiohttp.ClientSession(base_url=url) as http,
    ):
        for query in QUERIES:
            text = query.replace("$__rate_interval", "1m").replace("$server", ".*")
            assert "$" not in text
            while not (data := await answered(http, "query", query=text)) or not data["result"]:
                # Rates need two scrapes.
                await asyncio.sleep(0.1)
        servers = await answered(http, "label/server/values", **{"match[]": "aiovbo_server_up"})
        assert servers == ["down", "vbo1", "vbo2"]
        firing = {"RestoreFailed", "RestoreRunsLong"}
        rules: list[dict[str, Any]] = []
        # A rule that was evaluated before the first scrape is healthy and inactive.
        while firing - {rule["name"] for rule in rules if rule.get("state") == "firing"}:
            await asyncio.sleep(0.1)
            rules = [rule for group in (await answered(http, "rules"))["groups"] for rule in group["rules"]]
            assert {rule["health"] for rule in rules} <= {"ok", "unknown"}
        while "unknown" in {rule["health"] for rule in rules}:
            await asyncio.sleep(0.1)
            rules = [rule for group in (await answered(http, "rules"))["groups"] for rule in group["rules"]]
    assert {rule["health"] for rule in rules} == {"ok"}
    states = {rule["name"]: rule["state"] for rule in rules}
    assert states["BackupServerDown"] == "pending"
