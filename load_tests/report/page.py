"""The report of a run: one HTML page that needs nothing else, and its numbers as CSV.

After a run, from its record; `python -m load_tests report DIR` writes it again.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from rich.filesize import decimal

from load_tests.report import plots
from load_tests.report.plots import Columns
from load_tests.report.record import Run, Sample
from load_tests.report.summary import (
    OBJECTIVE_PERCENTILE,
    Summary,
    keeps_objective,
    percentile,
    summarise,
)

REPORT_FILE: Final = "report.html"
REQUESTS_FILE: Final = "requests.csv"
LATENCY_FILE: Final = "latency.csv"
TABLED: Final = (50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95, 99.99, 100.0)  # percentiles
COLUMNS: Final = (  # of requests.csv, before the timings
    "scheduled_s",
    "sent_s",
    "done_s",
    "latency_ms",
    "service_ms",
    "within_objective",
    "status",
    "outcome",
    "behaviour",
    "degraded",
    "device",
    "hardware",
    "radio",
    "speech_s",
    "bytes_up",
    "bytes_down",
    "joules",
    "retry_after_s",
)


class Verdict(StrEnum):
    """Whether the objective was kept."""

    KEPT = "Objective kept"
    KEPT_BY_SOME = "Objective kept by what was answered, not by all that arrived"
    MISSED = "Objective missed"
    NOTHING = "Nothing was answered"


@dataclass(frozen=True, slots=True)
class Figure:
    """A section with a picture.

    Attributes:
        title: of the section.
        svg: None where there is no data.
        caption: how to read it.
        missing: what is said where there is no data.
        half: two of these stand side by side.
    """

    title: str
    svg: Markup | None
    caption: str
    missing: str
    half: bool = False


def write_report(run: Run, folder: Path) -> Path:
    """Writes `report.html`, `requests.csv` and `latency.csv` into a folder; returns the page.

    Args:
        run: its names and outcomes may hold anything: what is no number is escaped.
        folder: made where it is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data = plots.columns(run)
    _write_requests(run, folder / REQUESTS_FILE)
    table = _latency_table(data)
    with (folder / LATENCY_FILE).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("percentile", "from_scheduled_ms", "from_sent_ms"), *table])
    page = folder / REPORT_FILE
    page.write_text(_page(run, data, table), encoding="utf-8")
    return page


def verdict(run: Run, summary: Summary) -> Verdict:
    """The 99th percentile of the answers against the objective; what was no answer kept nothing."""
    if not summary.ok:
        return Verdict.NOTHING
    if summary.latency.p99 > run.objective_ms:
        return Verdict.MISSED
    kept_by_all = 100 * summary.within >= OBJECTIVE_PERCENTILE * summary.arrivals
    return Verdict.KEPT if kept_by_all else Verdict.KEPT_BY_SOME


def _page(run: Run, data: Columns, table: list[tuple[float, float, float]]) -> str:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"milliseconds": _milliseconds, "bytes": decimal, "rate": _rate, "share": _share}
    summary = summarise(run)
    template = files("load_tests.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        run=run,
        summary=summary,
        verdict=verdict(run, summary),
        Verdict=Verdict,
        latency=table,
        figures=_figures(run, data, summary),
        about=list(_flat(run.about)),
    )


def _figures(run: Run, data: Columns, summary: Summary) -> dict[str, Figure]:
    """The sections with pictures, by name."""
    answered, arrived = summary.ok > 0, summary.arrivals > 0
    no_answer = "There is nothing to draw: no request was answered."
    has_replicas = any(snapshot.replicas for snapshot in run.snapshots)
    waited = any(stage.queue_ms for stage in summary.stages.values())

    def drawn(wanted: bool, plot: Any, *arguments: Any) -> Markup | None:
        return Markup(plot(*arguments)) if wanted else None  # every word in it is escaped by matplotlib

    return {
        "over_time": Figure(
            "Latency over time",
            drawn(arrived, plots.latency_over_time, run, data),
            f"A dot for each answer at its scheduled time; curves over windows of {data.window_s:g} s. "
            "Along the bottom: what was refused, what failed, what was never sent.",
            "There is nothing to draw: nothing arrived.",
        ),
        "percentiles": Figure(
            "Latency by percentile",
            drawn(answered, plots.percentile_curve, run, data),
            "Where the two curves part, requests left later than the schedule has them.",
            no_answer,
            half=True,
        ),
        "against_rate": Figure(
            "Latency against offered rate",
            drawn(answered, plots.latency_against_rate, run, data),
            "A pair for each window: a cluster with reserves keeps its latency where more arrives.",
            no_answer,
            half=True,
        ),
        "throughput": Figure(
            "Throughput",
            drawn(arrived, plots.throughput, data),
            f"Arrivals when they were scheduled, the rest when it was done; windows of {data.window_s:g} s.",
            "There is nothing to draw: nothing arrived.",
        ),
        "replicas": Figure(
            "Replicas",
            drawn(has_replicas, plots.replicas, run, data),
            "Running replicas of each deployment.",
            "Nothing is known of the replicas: the dashboard was not asked, or did not answer.",
        ),
        "memory": Figure(
            "Memory",
            drawn(any(snapshot.memory_mb for snapshot in run.snapshots), plots.memory, run, data),
            "Resident memory of each deployment's replicas together, as Ray's dashboard knows it. "
            "What rises while the replicas stay the same is a leak.",
            "Nothing is known of the memory: the dashboard was not asked, or did not answer.",
        ),
        "stages": Figure(
            "Where the time goes in the cluster",
            drawn(bool(summary.stages), plots.stage_times, summary.stages),
            "From the timings in the answers." + ("" if waited else " They tell nothing of waiting before a stage."),
            "Nothing is known of the stages: no answer carried timings.",
        ),
        "generator": Figure(
            "Generator",
            drawn(bool(run.snapshots), plots.generator, run, data),
            "Above the dashed line the generator is busy with itself, and latencies are its own.",
            "Nothing is known of the generator: it was not measured.",
        ),
    }


def _latency_table(data: Columns) -> list[tuple[float, float, float]]:
    """Percentile, and milliseconds by either clock: as far as there are answers enough for it."""
    scheduled, sent = (each[np.isfinite(each)] for each in (data.latency_ms, data.service_ms))
    known = [q for q in TABLED if scheduled.size * (100 - q) >= 100 or (q == 100 and scheduled.size)]
    columns = zip(known, percentile(scheduled, known).tolist(), percentile(sent, known).tolist(), strict=True)
    return [(q, round(by_schedule, 3), round(by_sending, 3)) for q, by_schedule, by_sending in columns]


def _write_requests(run: Run, file: Path) -> None:
    timings = list(dict.fromkeys(name for each in run.samples for name in each.timings_ms))
    with file.open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow([*COLUMNS, *(f"{name}_ms" for name in timings)])
        for each in run.samples:
            rows.writerow([*_cells(each, run.objective_ms), *(each.timings_ms.get(name, "") for name in timings)])


def _cells(sample: Sample, objective_ms: float) -> tuple[object, ...]:
    def rounded(value: float | None, scale: int = 1) -> float | str:
        return "" if value is None else round(scale * value, 6 if scale == 1 else 3)

    return (
        rounded(sample.scheduled_s),
        rounded(sample.sent_s),
        rounded(sample.done_s),
        rounded(sample.latency_s, 1000),
        rounded(sample.service_s, 1000),
        int(keeps_objective(sample, objective_ms)),
        sample.status,
        sample.outcome,
        sample.behaviour,
        " ".join(sample.degraded),
        sample.device,
        sample.hardware,
        sample.radio,
        rounded(sample.speech_s),
        sample.bytes_up,
        sample.bytes_down,
        rounded(sample.joules),
        rounded(sample.retry_after_s),
    )


def _flat(about: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Nested mappings as rows: `versions.ray`, `2.60.0`."""
    for name, value in about.items():
        if value is None or name == "description":  # it stands above
            continue
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _milliseconds(value: float) -> str:
    if math.isnan(value):
        return "–"
    if value >= 10_000:
        return f"{value / 1000:,.1f} s"
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.3g} ms"


def _share(count: int, whole: int) -> str:
    """Per cent; 0 and 100 where it is none and all, and there alone."""
    if count in (0, whole):
        return "100 %" if count else "0 %"
    per_cent = 100 * count / whole
    return f"{min(per_cent, 99.99):.2f} %" if per_cent > 99 else f"{max(per_cent, 0.001):.2g} %"


def _rate(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
