"""Counts for an operator's Prometheus: by route template, method and status, never by value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from appliance.base import logs
from appliance.http.importfigures import ImportFigures
from appliance.sync.status import PeerState
from appliance.webhooks.views import WEBHOOK_STATES, Figures
from quarantine.contract import Status

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)


class Metrics:
    """The registry of this process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "nexus_http_requests", "Requests served", ("route", "method", "status"),
            registry=self.registry,
        )  # fmt: skip
        self._seconds = Histogram(
            "nexus_http_request_seconds", "Time to serve", ("route",), buckets=_BUCKETS,
            registry=self.registry,
        )  # fmt: skip
        self.live = Gauge("nexus_http_live_streams", "Open live streams", registry=self.registry)
        self.outbox = Gauge(
            "nexus_outbox_rows", "Rows of the outbox, as a worker last counted them",
            ("placement", "state"), registry=self.registry,
        )  # fmt: skip
        self.outbox_age = Gauge(
            "nexus_outbox_oldest_seconds", "Age of the oldest waiting row", ("placement",),
            registry=self.registry,
        )  # fmt: skip
        self.workers = Gauge("nexus_workers", "Workers with a pulse", registry=self.registry)
        self.pool = Gauge(
            "nexus_database_connections", "Connections of the pools", ("database", "state"),
            registry=self.registry,
        )  # fmt: skip
        self._add_sync()
        self.conflicts = Gauge(
            "nexus_conflicts_open", "Conflicts that wait for a decision, as a worker counted them",
            ("sort",), registry=self.registry,
        )  # fmt: skip
        self.parked = Gauge(
            "nexus_parked_waiting", "Transactions of peers that were not applied",
            registry=self.registry,
        )  # fmt: skip
        self.webhooks = WebhookGauges(self.registry)
        lost = Gauge(
            "nexus_log_lines_lost", "Log lines that could not be written", registry=self.registry
        )
        lost.set_function(logs.lost_lines)
        self.files = FileFigures()
        self.registry.register(self.files)
        self.imports = ImportFigures()
        self.registry.register(self.imports)
        # Children are looked up once: labels() costs more than the increment.
        self._counters: dict[tuple[str, str, int], Counter] = {}
        self._timers: dict[str, Histogram] = {}

    def _add_sync(self) -> None:
        peers = ("tenant", "node")
        self.sync_lag = Gauge(
            "nexus_sync_lag_entries", "Entries that a peer, or this node, has not taken", peers,
            registry=self.registry,
        )  # fmt: skip
        self.sync_backlog = Gauge(
            "nexus_sync_backlog_entries", "Entries of this site that its hub has not", peers,
            registry=self.registry,
        )  # fmt: skip
        self.sync_parked = Gauge(
            "nexus_sync_parked", "Transactions of a peer that wait for a person", peers,
            registry=self.registry,
        )  # fmt: skip
        self.sync_seen = Gauge(
            "nexus_sync_last_seen_seconds", "How long ago a peer was last heard", peers,
            registry=self.registry,
        )  # fmt: skip

    def observe(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one served request."""
        key = (route, method, status)
        counter = self._counters.get(key)
        if counter is None:
            # Methods are whatever a stranger sends; only those we know become a label.
            known = method if method in _METHODS else "other"
            counter = self._counters[key] = self._requests.labels(route, known, str(status))
            if len(self._counters) > _CHILDREN_MAX:
                self._counters.clear()
        counter.inc()
        timer = self._timers.get(route)
        if timer is None:
            timer = self._timers[route] = self._seconds.labels(route)
        timer.observe(seconds)

    def show_sync(self, tenant: str, peers: Iterable[PeerState], at: datetime) -> None:
        """Bring the figures of a tenant's peers up to date."""
        for peer in peers:
            labels = (tenant, peer.name)
            self.sync_lag.labels(*labels).set(peer.lag)
            self.sync_backlog.labels(*labels).set(peer.backlog)
            self.sync_parked.labels(*labels).set(peer.parked)
            if peer.seen_at is not None:
                self.sync_seen.labels(*labels).set((at - peer.seen_at).total_seconds())

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)


class WebhookGauges:
    """How the webhooks of each placement do, over all tenants."""

    def __init__(self, registry: CollectorRegistry) -> None:
        by_state = ("placement", "state")
        self._count = Gauge("nexus_webhooks", "Webhooks by state", by_state, registry=registry)
        self._events = Gauge(
            "nexus_webhook_events", "Events that wait, and that a receiver never took", by_state,
            registry=registry,
        )  # fmt: skip
        self._tries = Gauge(
            "nexus_webhook_tries", "Tries to deliver since each webhook was made, by outcome",
            ("placement", "outcome"), registry=registry,
        )  # fmt: skip
        self._lag = Gauge(
            "nexus_webhook_lag_seconds", "Age of the oldest event that waits, by the webhook's state",
            by_state, registry=registry,
        )  # fmt: skip

    def show(self, placement: str, figures: Iterable[Figures]) -> None:
        """Bring the figures of a placement up to date."""
        found = {f.state: f for f in figures}
        for state in WEBHOOK_STATES:
            one = found.get(state, Figures(state))
            self._count.labels(placement, state).set(one.webhooks)
            self._lag.labels(placement, state).set(one.lag_s)
        total = found.values()
        self._events.labels(placement, "waiting").set(sum(f.waiting for f in total))
        self._events.labels(placement, "dead").set(sum(f.dead for f in total))
        self._tries.labels(placement, "delivered").set(sum(f.delivered for f in total))
        self._tries.labels(placement, "failed").set(sum(f.failed for f in total))


class FileFigures(Collector):
    """What the content plane says of itself, as it said it last: it counts, this hands on.

    `status` is None while there is no plane or while it does not answer: then there are no figures,
    because old ones would look like news.
    """

    def __init__(self) -> None:
        self.has_plane = False
        self.status: Status | None = None

    def collect(self) -> Iterator[Metric]:
        """All metrics of files; none on a node without a content plane."""
        if not self.has_plane:
            return
        status = self.status
        scanner = GaugeMetricFamily(
            "nexus_files_scanner", "1 for the state of the virus scanner", labels=("state",)
        )
        said = status.scanner if status else "unknown"
        for state in _SCANNER:
            scanner.add_metric((state,), 1.0 if state == said else 0.0)
        yield scanner
        yield _gauge("nexus_files_plane_up", "Whether the content plane answers", bool(status))
        if status is not None:
            yield from _figures(status)

    def describe(self) -> list[Metric]:
        """Nothing is known of names before the first question."""
        return []


def _figures(status: Status) -> Iterator[Metric]:
    held = "Files that wait for a verdict"
    yield _gauge("nexus_files_held", held, status.held)
    age = "How long the oldest of them waits"
    yield _gauge("nexus_files_oldest_held_seconds", age, status.oldest_held_s)
    yield _gauge("nexus_files_stored", "Contents on disk, each once for a tenant", status.stored)
    yield _gauge("nexus_files_stored_bytes", "Bytes of them", status.stored_bytes)
    notices = "What the plane has to tell and no worker has taken"
    yield _gauge("nexus_files_notices", notices, status.notices)
    dated = status.signatures_dated
    if dated is not None:
        when = "When ClamAV made the signatures that are loaded"
        yield _gauge("nexus_files_signatures_timestamp_seconds", when, dated.timestamp())
    for sort, (name, text, label) in _TALLIES.items():
        family = CounterMetricFamily(name, text, labels=(label,))
        for key, value in sorted(status.tallies.items()):
            if key.partition(".")[0] == sort:
                family.add_metric((key.partition(".")[2],), value)
        yield family


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


_SCANNER = ("ready", "baseline", "down", "unknown")
# As the ledger of the plane names them (`quarantine.ledger.judge`).
_TALLIES = {
    "verdicts": ("nexus_files_verdicts", "Verdicts given", "verdict"),
    "findings": ("nexus_files_findings", "Findings made", "engine"),
    "seconds": ("nexus_files_scan_seconds", "Seconds that engines worked", "engine"),
    "runs": ("nexus_files_scan_runs", "Files that engines looked at to their end", "engine"),
}
_METHODS = frozenset({"GET", "POST", "PATCH", "PUT", "DELETE", "HEAD", "OPTIONS"})
_CHILDREN_MAX = 5_000
