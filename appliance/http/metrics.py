"""Counts for an operator's Prometheus: by route template, method and status, never by value."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from appliance.base import logs

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
        lost = Gauge(
            "nexus_log_lines_lost", "Log lines that could not be written", registry=self.registry
        )
        lost.set_function(logs.lost_lines)
        # Children are looked up once: labels() costs more than the increment.
        self._counters: dict[tuple[str, str, int], Counter] = {}
        self._timers: dict[str, Histogram] = {}

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

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)


_METHODS = frozenset({"GET", "POST", "PATCH", "PUT", "DELETE", "HEAD", "OPTIONS"})
_CHILDREN_MAX = 5_000
