"""OpenTelemetry spans and metrics of a fleet: hand a `Telemetry` to `Fleet(..., observer=...)`.

Knows names and attributes; needs the extra `otel`, which is the API alone: where they are sent is for the
application to set up. Knows nothing of requests, and reports only server, operation and outcome.
"""

import time
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import partial
from weakref import WeakSet

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter
from opentelemetry.trace import SpanKind, Status, StatusCode, TracerProvider, get_tracer
from opentelemetry.util.types import AttributeValue

from aiovbo import __version__
from aiovbo._core.status import OK
from aiovbo._settings.events import (
    ClientEvent,
    LoginFinished,
    RequestFinished,
    RetryScheduled,
    ServerStateChanged,
)
from aiovbo._watch.status import WatchStatus
from aiovbo._watch.watch import Watch

_NAME = "aiovbo"


class Telemetry:
    """What a fleet does, as OpenTelemetry spans and metrics; an observer.

    A span per request, under the span that is current where the fleet was used, and the metrics
    `aiovbo.client.request.duration`, `aiovbo.client.retries`, `aiovbo.client.logins` and `aiovbo.server.up`.
    """

    def __init__(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        """Spans and metrics by these providers, or by the application's own."""
        self._tracer = get_tracer(_NAME, __version__, tracer_provider)
        meter = get_meter(_NAME, __version__, meter_provider)
        self._duration = meter.create_histogram(
            "aiovbo.client.request.duration", "s", "How long requests to a backup server took."
        )
        self._retries = meter.create_counter(
            "aiovbo.client.retries", "{request}", "Requests to a backup server that were sent again."
        )
        self._logins = meter.create_counter("aiovbo.client.logins", "{login}", "Logins to a backup server.")
        self._up: dict[str, bool] = {}
        meter.create_observable_gauge(
            "aiovbo.server.up",
            [self._observe_up],
            "1",
            "Whether a backup server answered the last request.",
        )

        self._watches: WeakSet[Watch] = WeakSet()
        for name, unit, text, read in _OF_WATCHES:
            observe = partial(self._observe_watches, read)
            if name == "aiovbo.watch.overruns":
                meter.create_observable_counter(name, [observe], unit, text)
            else:
                meter.create_observable_gauge(name, [observe], unit, text)

    def __call__(self, signal: ClientEvent) -> None:
        """Record what has happened."""
        match signal:
            case RequestFinished():
                self._finished(signal)
            case RetryScheduled(server=server, operation=operation, outcome=outcome):
                self._retries.add(1, _attributes(server, outcome, operation))
            case LoginFinished(server=server, outcome=outcome):
                self._logins.add(1, _attributes(server, outcome))
            case ServerStateChanged(server=server, up=up):
                self._up[server] = up

    def watch(self, watch: Watch) -> None:
        """Show how a watch goes, whenever the metrics are collected, for as long as the watch is in use.

        `aiovbo.watch.lag`, `aiovbo.watch.last_success`, `aiovbo.watch.backlog`, `aiovbo.watch.overruns`,
        `aiovbo.watch.rejected` and `aiovbo.watch.oldest_unacknowledged`.
        """
        self._watches.add(watch)

    def forget(self, server: str) -> None:
        """Stop reporting whether a server is up that has left the fleet."""
        self._up.pop(server, None)

    def _observe_up(self, _: CallbackOptions) -> Iterable[Observation]:
        # A copy: the exporter runs in a thread of its own.
        return [Observation(int(up), _attributes(server, OK)) for server, up in list(self._up.items())]

    def _observe_watches(
        self, read: Callable[[WatchStatus], float | None], _: CallbackOptions
    ) -> Iterable[Observation]:
        found = {name: status for watch in list(self._watches) for name, status in watch.status().items()}
        for server, status in found.items():
            if (value := read(status)) is not None:
                yield Observation(value, _attributes(server, OK))

    def _finished(self, signal: RequestFinished) -> None:
        attributes = _attributes(signal.server, signal.outcome, signal.operation)
        self._duration.record(signal.seconds, attributes)
        ended = time.time_ns()
        span = self._tracer.start_span(
            signal.operation,
            kind=SpanKind.CLIENT,
            attributes=attributes,
            start_time=ended - int(signal.seconds * 1e9),
        )
        if signal.outcome != OK:
            span.set_status(Status(StatusCode.ERROR))
        span.end(ended)


_OF_WATCHES: tuple[tuple[str, str, str, Callable[[WatchStatus], float | None]], ...] = (
    (
        "aiovbo.watch.lag",
        "s",
        "How long ago the last successful poll of a backup server was.",
        lambda status: None if status.lag is None else status.lag.total_seconds(),
    ),
    (
        "aiovbo.watch.last_success",
        "s",
        "When a backup server was last polled successfully, in seconds since 1970.",
        lambda status: _timestamp(status.last_success),
    ),
    (
        "aiovbo.watch.backlog",
        "{change}",
        "Changes of a backup server that were found and not yet delivered.",
        lambda status: status.backlog,
    ),
    (
        "aiovbo.watch.overruns",
        "{poll}",
        "Polls that were left out because the one before took too long.",
        lambda status: status.overruns,
    ),
    (
        "aiovbo.watch.rejected",
        "{row}",
        "Rows of a backup server's lists that were reported as rejected.",
        lambda status: status.rejected,
    ),
    (
        "aiovbo.watch.oldest_unacknowledged",
        "s",
        "When the oldest change was found that is not acknowledged, in seconds since 1970.",
        lambda status: _timestamp(status.oldest_unacknowledged),
    ),
)


def _timestamp(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()


def _attributes(server: str, outcome: str, operation: str = "") -> dict[str, AttributeValue]:
    found: dict[str, AttributeValue] = {"aiovbo.server": server}
    if operation:
        found["aiovbo.operation"] = operation
    if outcome != OK:
        found["error.type"] = outcome
    return found
