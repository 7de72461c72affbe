"""A run as a table of two columns for a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from rich import box
from rich.markup import escape
from rich.table import Table

from load_tests.report.record import Run
from load_tests.report.summary import Percentiles, Summary


def table(run: Run, summary: Summary) -> Table:
    """A run in a table of two columns."""
    rows = Table(box=box.SIMPLE_HEAD, show_header=False, title=escape(f"{run.scenario}, {run.url}"), pad_edge=False)
    rows.add_column(style="dim", no_wrap=True)
    rows.add_column()
    for name, value in _rows(run, summary):
        rows.add_row(name, escape(value))
    return rows


def _rows(run: Run, summary: Summary) -> Iterator[tuple[str, str]]:
    yield "arrivals", f"{summary.arrivals:,} in {run.seconds:g} s from {run.devices:,} devices, seed {run.seed}"
    yield "answered", f"{summary.ok:,}, {summary.throughput:.2f} a second"
    kept = f"{summary.within:,} within {run.objective_ms:g} ms"
    yield "goodput", f"{summary.goodput:.2f} a second of {summary.offered:.2f} offered; {kept}"
    yield "from scheduled", _percentiles(summary.latency)
    yield "from sent", _percentiles(summary.service)
    yield "refused", _counts(summary.refusals)
    yield "failed", _counts(summary.failures)
    yield "dropped", f"{summary.drops:,}"
    yield "late starts", f"{summary.late_starts:,}"
    yield "degraded", _counts(summary.degraded)
    if summary.misbehaved:
        bad = {f"{behaviour}: {outcome}": count for (behaviour, outcome), count in summary.misbehaved.items()}
        yield "bad clients", _counts(bad)
    for (hardware, radio), cost in summary.costs.items():
        speech = f"{cost.bytes_up / max(cost.requests, 1):,.0f} B up, {cost.joules / max(cost.requests, 1):.3f} J each"
        yield f"{hardware}, {radio}", f"{cost.requests:,} requests, {speech}"
    yield "generator", f"{summary.generator_mean:.2f} cores, at most {summary.generator_max:.2f}"


def _percentiles(of: Percentiles) -> str:
    parts = (("p50", of.p50), ("p95", of.p95), ("p99", of.p99), ("p99.9", of.p999))
    return " · ".join(f"{name} {value:,.0f} ms" for name, value in parts) if not math.isnan(of.p50) else "no answer"


def _counts(of: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in of.items()) or "none"
