"""Every metric of the agent, declared once, named as controller-runtime names its own.

All series exist from the start with the value zero, so that a rate over them
is never undefined.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from wsgiref.types import WSGIApplication

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, make_wsgi_app
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from api.conditions import ConditionType, Status
from api.service import Service, SnapshotStatus
from controller.alerts.command import Outcome

RESULTS = ("success", "requeue", "requeue_after", "error")

_FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_SLOW = (0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0)


@dataclass(frozen=True, slots=True)
class QueueMetrics:
    """The metrics of one reconciler's queue."""

    depth: Gauge
    adds: Counter
    retries: Counter
    waited: Histogram


@dataclass(frozen=True, slots=True)
class ReconcilerMetrics:
    """The metrics of one reconciler."""

    results: dict[str, Counter]
    duration: Histogram
    active: Gauge
    actions: Counter
    drift_found: Counter
    drift_corrected: Counter
    drift_seconds: Histogram
    queue: QueueMetrics


class Metrics:
    """All metrics of one agent, in a registry of their own."""

    def __init__(self, reconcilers: Iterable[str]) -> None:
        # Of the whole process, as the library has it. When a series began is nobody's question.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._results = Counter(
            "mcp_reconcile_total",
            "Reconcile runs by result.",
            labelnames=("reconciler", "result"),
            registry=self.registry,
        )
        self._duration = self._histogram("mcp_reconcile_duration_seconds", "Duration of a reconcile run.", _FAST)
        self._active = self._gauge("mcp_reconcile_active_workers", "Reconcile runs under way.")
        self._actions = self._counter("mcp_actions_total", "Actions carried out.")
        self._drift_found = self._counter("mcp_drift_found_total", "Runs that found converged state changed.")
        self._drift_corrected = self._counter("mcp_drift_corrected_total", "Drifts corrected.")
        self._drift_seconds = self._histogram(
            "mcp_drift_correction_seconds", "From noticing a drift to its correction.", _SLOW
        )
        self.flapping = Counter(
            "mcp_flapping",
            "Services that began to be mended so often that it is done more slowly.",
            registry=self.registry,
        )
        alerts = Counter(
            "mcp_alerts_total",
            "Events of which somebody was told, or was to be told: told, failed, timeout, dropped.",
            labelnames=("outcome",),
            registry=self.registry,
        )
        self.alerts = {outcome: alerts.labels(outcome) for outcome in Outcome}
        self._depth = self._gauge("mcp_workqueue_depth", "Services waiting to be looked at.")
        self._adds = self._counter("mcp_workqueue_adds_total", "Additions to the queue.")
        self._retries = self._counter("mcp_workqueue_retries_total", "Retries after failures.")
        self._waited = self._histogram("mcp_workqueue_queue_duration_seconds", "Wait in the queue.", _FAST)
        self.time_to_ready = Histogram(
            "mcp_apply_to_ready_seconds",
            "From the write of a generation to Ready.",
            buckets=_SLOW,
            registry=self.registry,
        )
        self._snapshot = {
            which: Gauge(
                f"mcp_snapshot_last_{which}_timestamp_seconds",
                f"When the last snapshot {what}, in seconds since the epoch; 0: none did.",
                registry=self.registry,
            )
            for which, what in (("success", "was taken"), ("failure", "failed"))
        }
        self._api_certificate = Gauge(
            "mcp_api_certificate_expiry_timestamp_seconds",
            "When the API's own certificate ends, in seconds since the epoch; 0: the API is not served over TLS.",
            registry=self.registry,
        )
        self._reconcilers = {name: self._for(name) for name in reconcilers}

    def reconciler(self, name: str) -> ReconcilerMetrics:
        """The series of one reconciler."""
        return self._reconcilers[name]

    def watch_services(self, fetch: Callable[[], tuple[Service, ...] | None]) -> None:
        """Has each scrape count what `fetch` returns; it is called in the scraper's thread. None: not known now."""
        self.registry.register(_Services(fetch))

    def watch_snapshots(self, look: Callable[[], SnapshotStatus]) -> None:
        """Has each scrape look how it stands with snapshots, in the scraper's thread."""
        self._snapshot["success"].set_function(lambda: _seconds(look().taken_at))
        self._snapshot["failure"].set_function(lambda: _seconds(look().failed_at))

    def watch_certificate(self, not_after: Callable[[], datetime]) -> None:
        """Has each scrape look when the API's certificate ends, in the scraper's thread."""
        self._api_certificate.set_function(lambda: _seconds(not_after()))

    def app(self) -> WSGIApplication:
        """Serves the metrics in Prometheus' formats."""
        return make_wsgi_app(self.registry)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(name, text, labelnames=("reconciler",), registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, labelnames=("reconciler",), registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, labelnames=("reconciler",), buckets=buckets, registry=self.registry)

    def _for(self, name: str) -> ReconcilerMetrics:
        return ReconcilerMetrics(
            results={result: self._results.labels(name, result) for result in RESULTS},
            duration=self._duration.labels(name),
            active=self._active.labels(name),
            actions=self._actions.labels(name),
            drift_found=self._drift_found.labels(name),
            drift_corrected=self._drift_corrected.labels(name),
            drift_seconds=self._drift_seconds.labels(name),
            queue=QueueMetrics(
                depth=self._depth.labels(name),
                adds=self._adds.labels(name),
                retries=self._retries.labels(name),
                waited=self._waited.labels(name),
            ),
        )


def _seconds(at: datetime | None) -> float:
    return at.timestamp() if at else 0.0


class _Services(Collector):
    """Counted when scraped: nothing has to be kept in step between two scrapes."""

    def __init__(self, fetch: Callable[[], tuple[Service, ...] | None]) -> None:
        self._fetch = fetch

    def collect(self) -> Iterable[Metric]:
        services = self._fetch()
        if services is None:
            return
        yield _by_condition(services)
        yield _suspended(services)
        yield _certificate_expiry(services)

    def describe(self) -> Iterable[Metric]:
        # Without it, registering would scrape once.
        yield _by_condition(())
        yield _suspended(())
        yield _certificate_expiry(())


def _by_condition(services: tuple[Service, ...]) -> Metric:
    family = GaugeMetricFamily("mcp_services", "Services by condition and its status.", labels=("condition", "status"))
    counts = {(kind, status): 0 for kind in ConditionType for status in Status}
    for service in services:
        for kind in ConditionType:
            condition = service.condition(kind)
            # That a service flaps is said once it did.
            unsaid = Status.FALSE if kind is ConditionType.FLAPPING else Status.UNKNOWN
            counts[kind, condition.status if condition else unsaid] += 1
    for (kind, status), count in counts.items():
        family.add_metric((kind, status), count)
    return family


def _suspended(services: tuple[Service, ...]) -> Metric:
    count = sum(service.suspended is not None for service in services)
    return GaugeMetricFamily("mcp_services_suspended", "Services that are left alone until resumed.", value=count)


def _certificate_expiry(services: tuple[Service, ...]) -> Metric:
    family = GaugeMetricFamily(
        "mcp_certificate_expiry_timestamp_seconds",
        "When a certificate ends, in seconds since the epoch.",
        labels=("service", "hostname"),
    )
    for service in services:
        for certificate in service.certificates:
            family.add_metric((service.name, certificate.hostname), certificate.not_after.timestamp())
    return family
