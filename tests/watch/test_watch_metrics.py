"""Metrics of a watch: lag, backlog, overruns, rejected rows, the oldest unacknowledged change."""

from datetime import timedelta
from typing import Any

import pytest
from harness.scene import Scene
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry

from aiovbo import ConfigError, Fleet
from aiovbo.otel import Telemetry
from aiovbo.prometheus import FleetMetrics
from aiovbo.testing import Fault


def with_an_invalid_row(document: Any) -> Any:
    return {**document, "results": [{"id": "x"}, *document["results"]]}


async def test_the_metrics_of_a_watch_are_read_from_its_status() -> None:
    """By Prometheus and by OpenTelemetry, with the same values."""
    scene, registry, reader = Scene(), CollectorRegistry(), InMemoryMetricReader()
    metrics = FleetMetrics(registry)
    telemetry = Telemetry(meter_provider=MeterProvider([reader]))
    began = scene.clock.now()
    scene.world.add(creation_time=began, end_time=began)
    scene.backup.fail(Fault.edit(with_an_invalid_row), on="RestoreSessions", times=None)

    def read() -> dict[str, float | None]:
        names = ("lag_seconds", "last_success_timestamp_seconds", "backlog", "overruns_total",
                 "rejected_rows", "oldest_unacknowledged_timestamp_seconds")  # fmt: skip
        return {name: registry.get_sample_value(f"aiovbo_watch_{name}", {"server": "vbo"}) for name in names}

    async with scene.watching() as changes:
        metrics.watch(changes)
        telemetry.watch(changes)
        assert read()["lag_seconds"] is None
        found = await scene.take(changes)
        del scene.servers["vbo.test"]
        await scene.clock.advance(3600)
        values = read()
        status = changes.status()["vbo"]
        assert status.lag is not None
        assert values["lag_seconds"] == pytest.approx(status.lag.total_seconds(), abs=5)
        assert status.lag > timedelta(minutes=50)
        assert values["backlog"] == 1
        assert values["rejected_rows"] == 1
        assert values["overruns_total"] == 0
        oldest = values["oldest_unacknowledged_timestamp_seconds"]
        assert oldest == pytest.approx(began.timestamp(), abs=120)
        data = reader.get_metrics_data()
        assert data is not None
        seen = {
            metric.name: [point.value for point in metric.data.data_points]  # type: ignore[union-attr]  # no histogram
            for metric in data.resource_metrics[0].scope_metrics[0].metrics
        }
        assert seen["aiovbo.watch.backlog"] == [1]
        assert seen["aiovbo.watch.rejected"] == [1]
        assert seen["aiovbo.watch.oldest_unacknowledged"] == [oldest]
        for change in [*found, await anext(changes)]:
            changes.ack(change)
        assert read()["oldest_unacknowledged_timestamp_seconds"] is None


async def test_the_pauses_of_a_server_that_is_down_have_a_limit() -> None:
    """After an hour of failures it is polled again within `max_backoff`."""
    scene = Scene()
    del scene.servers["vbo.test"]
    async with scene.watching(max_backoff=timedelta(seconds=40)) as changes:
        await scene.clock.advance(3600)
        status = changes.status()["vbo"]
        assert status.errors > 3600 / 41
        assert status.next_look is not None
        assert status.next_look - scene.clock.now() <= timedelta(seconds=40)
        # The wall clock makes no difference.
        scene.clock.set_wall(timedelta(days=-30))
        again = changes.status()["vbo"]
        assert again.next_look is not None
        assert again.next_look - scene.clock.now() <= timedelta(seconds=40)
    async with Fleet([]) as fleet:
        with pytest.raises(ConfigError, match="max_backoff"):
            fleet.watch(max_backoff=timedelta(0))
