"""Imports and their sources for Prometheus: what the chore of the worker counted last."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from appliance.base.clock import now
from appliance.intake.figures import RunFigure, SourceFigure, TenantFigures

_TIMED = {
    "planned": ("nexus_import_plan_seconds", "From a file to its plan"),
    "applied": ("nexus_import_apply_seconds", "From an approval to the last row written"),
}


class ImportFigures(Collector):
    """`tenants` is empty while nobody has counted lately: then there are no figures."""

    def __init__(self) -> None:
        self.tenants: tuple[TenantFigures, ...] = ()

    def collect(self) -> Iterator[Metric]:
        """All metrics of imports."""
        yield from _runs(self.tenants)
        yield from _sources(self.tenants, now())

    def describe(self) -> list[Metric]:
        """Nothing is known of names before the first count."""
        return []


def _runs(tenants: Iterable[TenantFigures]) -> Iterator[Metric]:
    by = ("tenant", "connector", "end")
    runs = CounterMetricFamily("nexus_import_runs", "Runs that came to this end", labels=by)
    rows = CounterMetricFamily("nexus_import_rows", "Rows of them", labels=by)
    timed = {
        end: SummaryMetricFamily(name, text, labels=("tenant", "connector"))
        for end, (name, text) in _TIMED.items()
    }
    dead = GaugeMetricFamily(
        "nexus_import_dead_letters", "Files that failed for good", labels=("tenant",)
    )
    for tenant in tenants:
        dead.add_metric((tenant.tenant,), tenant.dead)
        for one in tenant.runs:
            _add_run(tenant.tenant, one, runs=runs, rows=rows)
            if one.end in timed:
                labels = (tenant.tenant, one.connector)
                timed[one.end].add_metric(labels, count_value=one.runs, sum_value=one.ms / 1_000)
    yield from (runs, rows, dead, *timed.values())


def _add_run(
    tenant: str, one: RunFigure, *, runs: CounterMetricFamily, rows: CounterMetricFamily
) -> None:
    labels = (tenant, one.connector, one.end)
    runs.add_metric(labels, one.runs)
    if one.end in _TIMED:
        rows.add_metric(labels, one.rows)


def _sources(tenants: Iterable[TenantFigures], at: datetime) -> Iterator[Metric]:
    by = ("tenant", "source")
    gauges = {
        name: GaugeMetricFamily(f"nexus_source_{name}", text, labels=by)
        for name, text in (
            ("age_seconds", "Since a look last succeeded, or since the source is known"),
            ("overdue", "1 when a file is awaited in vain"),
            ("failures_in_a_row", "Looks that failed in a row"),
        )
    }
    counters = {
        name: CounterMetricFamily(f"nexus_source_{name}", text, labels=by)
        for name, text in (
            ("looks", "Looks"), ("files", "Files given to the node"), ("bytes", "Bytes of them"),
        )
    }  # fmt: skip
    state = GaugeMetricFamily("nexus_source_state", "1 for its state", labels=(*by, "state"))
    faults = CounterMetricFamily("nexus_source_faults", "Failures by code", labels=(*by, "code"))
    for tenant in tenants:
        for one in tenant.sources:
            labels = (tenant.tenant, one.key)
            state.add_metric((*labels, one.state), 1.0)
            gauges["age_seconds"].add_metric(labels, _age(one, at))
            gauges["overdue"].add_metric(labels, float(one.is_overdue))
            gauges["failures_in_a_row"].add_metric(labels, one.failures)
            for name, value in (("looks", one.looks), ("files", one.files), ("bytes", one.bytes)):
                counters[name].add_metric(labels, value)
            for code, count in sorted(one.faults.items()):
                faults.add_metric((*labels, code), count)
    yield from (state, faults, *gauges.values(), *counters.values())


def _age(one: SourceFigure, at: datetime) -> float:
    return max(0.0, (at - (one.last_good_at or one.known_at)).total_seconds())
