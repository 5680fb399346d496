"""Prometheus metrics of a fleet: hand a `FleetMetrics` to `Fleet(..., observer=...)`.

Knows the names and labels of the metrics; needs the extra `prometheus`. Knows nothing of requests: it counts
the events it receives, by server, operation and outcome only, so that their number is bounded.
"""

import time
from collections import Counter as Count
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from weakref import WeakSet

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from aiovbo._core.status import OK
from aiovbo._fleet.query import FleetResult
from aiovbo._resources.enums import OpenEnum
from aiovbo._settings.events import (
    ClientEvent,
    LoginFinished,
    RequestFinished,
    RetryScheduled,
    ServerStateChanged,
)
from aiovbo._watch.status import WatchStatus
from aiovbo._watch.watch import Watch
from aiovbo.models import RestoreSession

_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_NO_VALUE = "none"


class FleetMetrics:
    """What a fleet does, as Prometheus metrics; an observer.

    `aiovbo_server_up`, `aiovbo_last_success_timestamp_seconds`, `aiovbo_requests_total`,
    `aiovbo_request_seconds`, `aiovbo_retries_total`, `aiovbo_logins_total`, and `aiovbo_restore_sessions`
    and `aiovbo_oldest_open_restore_timestamp_seconds`, which `sessions` sets.
    """

    def __init__(
        self, registry: CollectorRegistry = REGISTRY, *, buckets: Sequence[float] = _BUCKETS
    ) -> None:
        """Metrics in `registry`.

        Units: buckets in seconds.
        """
        self._up = Gauge(
            "aiovbo_server_up",
            "Whether the backup server answered the last request.",
            ["server"],
            registry=registry,
        )
        self._last_success = Gauge(
            "aiovbo_last_success_timestamp_seconds",
            "When a request to the backup server last went well, in seconds since 1970.",
            ["server"],
            registry=registry,
        )
        self._requests = Counter(
            "aiovbo_requests_total",
            "Requests to the backup server, by operation and outcome.",
            ["server", "operation", "outcome"],
            registry=registry,
        )
        self._seconds = Histogram(
            "aiovbo_request_seconds",
            "How long requests to the backup server took, answered or not.",
            ["server", "operation"],
            buckets=buckets,
            registry=registry,
        )
        self._retries = Counter(
            "aiovbo_retries_total",
            "Requests to the backup server that were sent again.",
            ["server", "operation"],
            registry=registry,
        )
        self._logins = Counter(
            "aiovbo_logins_total",
            "Logins to the backup server, by outcome.",
            ["server", "outcome"],
            registry=registry,
        )
        self._sessions = Gauge(
            "aiovbo_restore_sessions",
            "Restore sessions of the backup server, as last queried, by state and result.",
            ["server", "state", "result"],
            registry=registry,
        )

        self._oldest_open = Gauge(
            "aiovbo_oldest_open_restore_timestamp_seconds",
            "When the oldest open restore session was created, in seconds since 1970; absent if none is.",
            ["server"],
            registry=registry,
        )

        self._watches = _Watches()
        registry.register(self._watches)

    def __call__(self, signal: ClientEvent) -> None:
        """Count what has happened."""
        match signal:
            case RequestFinished(server=server, operation=operation, outcome=outcome, seconds=seconds):
                self._requests.labels(server, operation, outcome).inc()
                self._seconds.labels(server, operation).observe(seconds)
                if outcome == OK:
                    self._last_success.labels(server).set(time.time())
            case RetryScheduled(server=server, operation=operation):
                self._retries.labels(server, operation).inc()
            case LoginFinished(server=server, outcome=outcome):
                self._logins.labels(server, outcome).inc()
            case ServerStateChanged(server=server, up=up):
                self._up.labels(server).set(up)

    def watch(self, watch: Watch) -> None:
        """Show how a watch goes, whenever the metrics are read, for as long as the watch is in use.

        `aiovbo_watch_lag_seconds`, `aiovbo_watch_last_success_timestamp_seconds`, `aiovbo_watch_backlog`,
        `aiovbo_watch_overruns_total`, `aiovbo_watch_rejected_rows` and
        `aiovbo_watch_oldest_unacknowledged_timestamp_seconds`.
        """
        self._watches.add(watch)

    def sessions(self, result: FleetResult[RestoreSession]) -> None:
        """Set how many sessions each server has, by state and result, and since when one is open.

        Neither where a server gave no answer.
        """
        for name, answer in result.answers.items():
            self._sessions.remove_by_labels({"server": name})
            self._oldest_open.remove_by_labels({"server": name})
            if answer.error is None:
                counts = Count((_label(s.state), _label(s.result)) for s in answer.items)
                for (state, outcome), count in counts.items():
                    self._sessions.labels(name, state, outcome).set(count)
                opened = [session.creation_time for session in answer.items if not session.has_ended]
                if opened:
                    self._oldest_open.labels(name).set(min(opened).timestamp())

    def forget(self, server: str) -> None:
        """Discard what is known of a server that has left the fleet."""
        for metric in (
            self._up,
            self._last_success,
            self._requests,
            self._seconds,
            self._retries,
            self._logins,
            self._sessions,
            self._oldest_open,
        ):
            metric.remove_by_labels({"server": server})


class _Watches(Collector):
    """The metrics of watches, read from their status."""

    def __init__(self) -> None:
        self._watches: WeakSet[Watch] = WeakSet()

    def add(self, watch: Watch) -> None:
        """Read this one too."""
        self._watches.add(watch)

    def collect(self) -> Iterator[Metric]:
        """Called by the registry, in whatever thread."""
        found = {name: status for watch in list(self._watches) for name, status in watch.status().items()}
        for name, text, read in _OF_WATCHES:
            family = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            metric = family(name, text, labels=["server"])
            for server, status in found.items():
                if (value := read(status)) is not None:
                    metric.add_metric([server], value)
            yield metric


def _timestamp(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()


_OF_WATCHES: tuple[tuple[str, str, Callable[[WatchStatus], float | None]], ...] = (
    (
        "aiovbo_watch_lag_seconds",
        "How long ago the last successful poll of the backup server was; absent before the first.",
        lambda status: None if status.lag is None else status.lag.total_seconds(),
    ),
    (
        "aiovbo_watch_last_success_timestamp_seconds",
        "When the backup server was last polled successfully, in seconds since 1970.",
        lambda status: _timestamp(status.last_success),
    ),
    (
        "aiovbo_watch_backlog",
        "Changes of the backup server that were found and not yet delivered.",
        lambda status: status.backlog,
    ),
    (
        "aiovbo_watch_overruns_total",
        "Polls that were left out because the one before took too long.",
        lambda status: status.overruns,
    ),
    (
        "aiovbo_watch_rejected_rows",
        "Rows of the backup server's lists that were reported as rejected.",
        lambda status: status.rejected,
    ),
    (
        "aiovbo_watch_oldest_unacknowledged_timestamp_seconds",
        "When the oldest unacknowledged change was found, in seconds since 1970; absent if there is none.",
        lambda status: _timestamp(status.oldest_unacknowledged),
    ),
)


def _label(value: OpenEnum | None) -> str:
    """A value of which there are a few: what a server makes up would make a series each."""
    if value is None:
        return _NO_VALUE
    return str(value) if value.is_known else "other"
