"""Events of observers, the status, and what Prometheus and OpenTelemetry export."""

import asyncio
import logging
import shutil
import subprocess
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from harness import VirtualClock
from harness.backups import server_of
from harness.raw import RawServer, http, in_turn, json_answer, vbo_routes

from aiovbo import (
    Client,
    ClientEvent,
    Clock,
    Fleet,
    LoginFinished,
    NotFoundError,
    Password,
    RequestFinished,
    RetryScheduled,
    Server,
    ServerStateChanged,
    ServerTimeoutError,
    VboError,
)
from aiovbo.testing import BackupServer, Fault, World

LISTING = "GET RestoreSessions"


def named(backup: BackupServer, name: str = "one") -> Server:
    """How that server is reached, and by which name."""
    return server_of(backup, name=name)


def kinds(signals: list[ClientEvent]) -> list[Any]:
    """The signals without their times."""
    return [
        (type(signal).__name__, *(getattr(signal, name, None) for name in ("operation", "outcome")))
        for signal in signals
    ]


async def test_an_observer_is_notified_of_requests_logins_and_servers_that_come_up() -> None:
    """In the order in which they end, with the server's name and without ids."""
    signals: list[ClientEvent] = []
    async with BackupServer(version="v8") as backup, Client(named(backup), observer=signals.append) as client:
        (session, *_) = await client.restore_sessions()
        await session.refresh()
    assert kinds(signals) == [
        ("RequestFinished", "GET ServiceInstance", "ok"),
        ("ServerStateChanged", None, "ok"),
        ("RequestFinished", "POST Token", "ok"),
        ("LoginFinished", None, "ok"),
        ("RequestFinished", LISTING, "ok"),
        ("RequestFinished", "GET RestoreSessions/{id}", "ok"),
    ]
    assert {signal.server for signal in signals} == {"one"}
    requests = [signal for signal in signals if isinstance(signal, RequestFinished)]
    assert all(0 < signal.seconds < 10 for signal in requests)


async def test_every_request_is_a_line_of_the_log_and_every_retry_says_which_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Logins too; with the server's name once, and how often it was tried."""
    caplog.set_level(logging.DEBUG, logger="aiovbo.requests")
    async with BackupServer(version="v8") as backup:
        backup.fail(Fault.status(503), on="RestoreSessions", times=2)
        async with Fleet([named(backup)]) as fleet:
            assert not (await fleet.restore_sessions()).failed
    lines = [record for record in caplog.records if record.name == "aiovbo.requests"]
    sent = [one.message for one in lines if one.levelno == logging.DEBUG and " s)" in one.message]
    *requests, logout = backup.requests
    assert logout.resource.lower() == "token/logout"
    for request, line in zip(requests, sent, strict=True):
        assert line.lower().startswith(f"one: {request.method} {request.path}: ".lower())
    retries = [one.message for one in lines if "; try " in one.message]
    assert [line.split(" in ")[0] for line in retries] == [
        f"one: GET /v8/RestoreSessions: HTTP 503, The request failed (503); try {number}" for number in (2, 3)
    ]


async def test_every_request_is_reported_exactly_once() -> None:
    """As many as the server has counted, whatever became of them."""
    signals: list[ClientEvent] = []
    async with BackupServer(version="v6") as backup:
        backup.fail(Fault.status(503), times=2)
        async with Fleet([named(backup)], observer=signals.append) as fleet:
            await fleet.map(lambda client: client.organizations())
            status = fleet.status()["one"]
        received = Counter(f"{request.method}" for request in backup.requests)
    finished = [signal for signal in signals if isinstance(signal, RequestFinished)]
    assert Counter(signal.operation.split()[0] for signal in finished) == received
    assert status.requests == len(finished) == len(backup.requests)
    assert status.retries == sum(isinstance(signal, RetryScheduled) for signal in signals) == 2
    assert status.logins == sum(isinstance(signal, LoginFinished) for signal in signals) == 1


async def test_a_server_that_goes_down_and_comes_up_is_reported_once_each() -> None:
    """However often it is asked meanwhile; a session that does not exist is no sign of a server down."""
    signals: list[ClientEvent] = []
    virtual = VirtualClock()
    clock = Clock(virtual.monotonic, virtual.now, virtual.sleep, virtual.random)
    answers = [json_answer([]), http(503), http(503), json_answer([]), http(404), json_answer([])]
    async with RawServer(vbo_routes(sessions=in_turn(*answers))) as raw:
        server = Server(raw.url, Password("u", "p"), allow_http=True, api_version="v4", name="one")
        async with Client(server, retries=0, observer=signals.append, clock=clock) as client:
            assert client.status().up is None
            await client.restore_sessions()
            assert client.status().up is True
            for _ in range(2):
                await virtual.sleep(60)
                with pytest.raises(VboError):
                    await client.restore_sessions()
            down = client.status()
            await client.restore_sessions()
            with pytest.raises(NotFoundError):
                await client.restore_sessions()
            up = client.status()
    states = [(signal.up, signal.outcome) for signal in signals if isinstance(signal, ServerStateChanged)]
    assert states == [(True, "ok"), (False, "ServerFaultError"), (True, "ok")]
    assert (down.up, up.up, up.server, up.api_version) == (False, True, "one", "v4")
    assert down.last_success == datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert up.last_success == up.last_error_at == down.last_success + timedelta(minutes=2)
    assert up.last_error is not None
    assert "HTTP 503" in str(up.last_error)
    # What is kept holds no frames.
    assert up.last_error.__traceback__ is None


async def test_a_timeout_and_a_refused_login_have_outcomes_of_their_own() -> None:
    """By the class of the error, and by the status."""
    signals: list[ClientEvent] = []
    async with BackupServer(password="right") as backup:
        backup.fail(Fault.stall(), times=None)
        silent = server_of(backup)
        async with Client(silent, retries=0, read_timeout=0.1, observer=signals.append) as client:
            with pytest.raises(ServerTimeoutError):
                await client.fetch_api_version()
    async with BackupServer(version="v4", password="right") as backup:
        wrong = Server(backup.url, Password("u", "wrong"), tls=server_of(backup).tls, api_version="v4")
        async with Client(wrong, observer=signals.append) as client:
            with pytest.raises(VboError):
                await client.restore_sessions()
    found = kinds(signals)
    assert ("RequestFinished", "GET ServiceInstance", "ServerTimeoutError") in found
    assert ("RequestFinished", "POST Token", "400") in found
    assert ("LoginFinished", None, "400") in found
    assert found[-1] == ("ServerStateChanged", None, "AuthenticationError")


async def test_an_observer_that_fails_is_left_alone_and_harms_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is logged once per server, and every session arrives."""

    def fail(_: ClientEvent) -> None:
        raise RuntimeError("the observer's own mistake")

    async with BackupServer() as backup:
        with caplog.at_level(logging.ERROR, logger="aiovbo"):
            async with Fleet([server_of(backup)], observer=fail) as fleet:
                result = await fleet.restore_sessions()
    assert len(result.items) == len(backup.world.sessions)
    assert [record.name for record in caplog.records] == ["aiovbo.status"]


@pytest.mark.parametrize(
    ("path", "operation"),
    [
        ("restoresessions", LISTING),
        ("RestoreSessions/0800471b-d0e2-422b-9d7c-35d15661c3fb/Events", "GET RestoreSessions/{id}/Events"),
        ("Jobs", "GET Jobs"),
        ("Organizations/" + 40 * "x", "GET Organizations/{id}"),
        ("Things/v2/Events", "GET Things/{id}/Events"),
    ],
)
async def test_an_operation_has_no_ids_and_one_spelling(path: str, operation: str) -> None:
    """So that there are few of them, as labels must be."""
    signals: list[ClientEvent] = []
    async with (
        BackupServer(version="v8") as backup,
        Client(server_of(backup), observer=signals.append) as client,
    ):
        await asyncio.gather(client.fetch(path), return_exceptions=True)
    (*_, last) = (signal for signal in signals if isinstance(signal, RequestFinished))
    assert last.operation == operation


async def test_prometheus_has_what_happened_and_passes_its_own_linter() -> None:
    """Up and down, requests, retries, logins, and sessions by state and result."""
    client = pytest.importorskip("prometheus_client")
    from aiovbo.prometheus import FleetMetrics  # it needs what may not be installed

    registry = client.CollectorRegistry()
    metrics = FleetMetrics(registry)
    async with BackupServer() as good, BackupServer() as bad:
        bad.fail(Fault.status(503), times=None)
        async with Fleet([named(good, "good"), named(bad, "bad")], observer=metrics, retries=1) as fleet:
            result = await fleet.restore_sessions()
            metrics.sessions(result)
            metrics.sessions(result)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"aiovbo_{name}", labels)

    assert (value("server_up", server="good"), value("server_up", server="bad")) == (1, 0)
    last_success = value("last_success_timestamp_seconds", server="good")
    assert last_success is not None
    assert abs(last_success - time.time()) < 60
    assert value("requests_total", server="good", operation=LISTING, outcome="ok") == 1
    assert value("request_seconds_count", server="good", operation=LISTING) == 1
    assert value("retries_total", server="bad", operation="GET ServiceInstance") == 1
    assert value("logins_total", server="good", outcome="ok") == 1
    counted = Counter((session.state, session.result) for session in result.items)
    for (state, outcome), count in counted.items():
        assert value("restore_sessions", server="good", state=str(state), result=str(outcome)) == count
    opened = [session.creation_time for session in result.items if not session.has_ended]
    oldest = min(opened).timestamp() if opened else None
    assert value("oldest_open_restore_timestamp_seconds", server="good") == oldest
    text = client.generate_latest(registry).decode()
    if promtool := shutil.which("promtool"):
        command = [promtool, "check", "metrics"]
        lint = await asyncio.to_thread(
            subprocess.run, command, input=text, capture_output=True, text=True, check=False
        )
        assert (lint.returncode, lint.stdout + lint.stderr) == (0, "")
    assert not [secret for secret in secrets_of(good, bad) if secret in text]
    metrics.forget("good")
    assert 'server="good"' not in client.generate_latest(registry).decode()


async def test_what_servers_make_up_makes_no_series_of_its_own() -> None:
    """Unknown states and results are counted together, so that there are always few."""
    client = pytest.importorskip("prometheus_client")
    from aiovbo.prometheus import FleetMetrics  # as above

    registry = client.CollectorRegistry()
    async with BackupServer(World(sessions=0)) as backup, Fleet([named(backup, "vbo1")]) as fleet:
        for number in range(5):
            backup.world.add(state="Stopped", result=f"Odd{number}")  # type: ignore[typeddict-item]  # the point
        FleetMetrics(registry).sessions(await fleet.restore_sessions())
    labels = {"server": "vbo1", "state": "Stopped", "result": "other"}
    assert registry.get_sample_value("aiovbo_restore_sessions", labels) == 5
    assert "Odd" not in client.generate_latest(registry).decode()


async def test_opentelemetry_has_a_span_per_request_under_the_callers() -> None:
    """With server, operation and outcome, and metrics of the same."""
    sdk = pytest.importorskip("opentelemetry.sdk")
    assert sdk is not None
    from opentelemetry.sdk.metrics import MeterProvider  # as above
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from aiovbo.otel import Telemetry

    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers, meters = TracerProvider(), MeterProvider([reader])
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry = Telemetry(tracer_provider=tracers, meter_provider=meters)
    async with BackupServer(version="v8") as backup:
        backup.fail(Fault.status(503), times=1)
        async with Fleet([named(backup)], observer=telemetry) as fleet:
            with tracers.get_tracer("caller").start_as_current_span("audit") as span:
                await fleet.restore_sessions()
    spans = exporter.get_finished_spans()
    ours = [found for found in spans if found.instrumentation_scope.name == "aiovbo"]
    assert [found.name for found in ours] == [
        "GET ServiceInstance", "GET ServiceInstance", "POST Token", LISTING,
    ]  # fmt: skip
    assert [found.attributes.get("error.type") for found in ours] == ["503", None, None, None]
    assert {found.attributes["aiovbo.server"] for found in ours} == {"one"}
    assert {found.context.trace_id for found in ours} == {span.get_span_context().trace_id}
    assert all(found.end_time > found.start_time for found in ours)
    measured = reader.get_metrics_data()
    reader_text = measured.to_json()
    (resource,) = measured.resource_metrics
    names = {metric.name for scope in resource.scope_metrics for metric in scope.metrics}
    assert names == {
        "aiovbo.client.request.duration", "aiovbo.client.retries", "aiovbo.client.logins", "aiovbo.server.up",
    }  # fmt: skip
    shown = "".join(span.to_json() for span in spans) + reader_text
    assert not [secret for secret in secrets_of(backup) if secret in shown]
    assert "aiovbo.server.up" in reader_text
    telemetry.forget("one")
    remaining = reader.get_metrics_data()
    assert remaining is None or "aiovbo.server.up" not in remaining.to_json()
    meters.shutdown()
    tracers.shutdown()


def secrets_of(*backups: BackupServer) -> set[str]:
    """The passwords and tokens that servers know, or were sent."""
    sent = {request.token for backup in backups for request in backup.requests if request.token}
    assert sent
    return sent | {backup.password for backup in backups}


async def test_the_stock_instrumentation_of_aiohttp_works_on_our_session() -> None:
    """It wraps every client session that is made after it was switched on; and shows no secret."""
    stock = pytest.importorskip("opentelemetry.instrumentation.aiohttp_client")
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry.sdk.trace import TracerProvider  # as above
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, tracers = InMemorySpanExporter(), TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    instrumentor = stock.AioHttpClientInstrumentor()
    instrumentor.instrument(tracer_provider=tracers)
    sessions = json_answer([])
    try:
        async with RawServer(vbo_routes(sessions=sessions, access_token="a-token-to-hide")) as raw:
            server = Server(raw.url, Password("u", "p"), allow_http=True, api_version="v4")
            async with Fleet([server]) as fleet:
                await fleet.restore_sessions()
            heads = [request.headers for request in raw.asked("*", "*")]
    finally:
        instrumentor.uninstrument()
    spans = exporter.get_finished_spans()
    assert len(spans) == len(heads) == 2
    assert all("traceparent" in head for head in heads)
    assert not any("a-token-to-hide" in str(span.to_json()) for span in spans)
    tracers.shutdown()
