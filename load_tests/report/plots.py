"""The figures of a report, as SVG that stands in an HTML page. Lines and words are vectors; dots are a picture.

What is not data has the colour of the page's text, so that a figure is read on a light and on a dark page.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from typing import Any, Final

import numpy as np
from matplotlib import rc_context, style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from numpy.typing import NDArray

from load_tests.report.record import Run
from load_tests.report.summary import (
    BUSIEST_GENERATOR,
    GOOD,
    OBJECTIVE_PERCENTILE,
    Outcome,
    Stage,
    outcome_of,
    percentile,
)

Array = NDArray[np.float64]
INK: Final = "#010203"  # no other colour is exactly this one: it becomes the page's
# Okabe and Ito, Color Universal Design (2008): told apart with every kind of colour blindness.
BLUE, ORANGE, GREEN, RED, SKY, PINK = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7"
STYLE: Final[dict[str, Any]] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.parse_math": False,  # names come from outside: a `$` is a `$`
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": INK,
    "grid.alpha": 0.12,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
}
WIDTH: Final = 9.0  # inches
DOTS_PER_INCH: Final = 160  # of what is a picture
WINDOWS: Final = 60  # about as many as a curve over time has
WINDOW_S: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600)
FEWEST_OF_A_WINDOW: Final = 20  # answers; a percentile of fewer is noise
POINTS: Final = 400  # of the curve by percentile
NINES: Final = (0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999)
MARKED: Final = {Outcome.REFUSED: ORANGE, Outcome.FAILED: RED, Outcome.DROPPED: PINK}


@dataclass(frozen=True, slots=True)
class Columns:
    """The arrivals of good clients as arrays of shape (arrivals,).

    Attributes:
        scheduled_s, done_s: since the start; `done_s` is NaN where it was dropped.
        latency_ms, service_ms: from the scheduled and from the sending time; NaN where it was not answered.
        outcomes: of each.
        window_s: seconds of a window of a curve over time.
        edges: of those windows; the last ends with the schedule or after.
    """

    scheduled_s: Array
    done_s: Array
    latency_ms: Array
    service_ms: Array
    outcomes: NDArray[np.str_]
    window_s: float
    edges: Array

    @property
    def middles(self) -> Array:
        return self.edges[:-1] + self.window_s / 2

    def of(self, kind: Outcome) -> NDArray[np.bool_]:
        return np.equal(self.outcomes, kind.value)

    def rate(self, at_s: Array) -> Array:
        """Events a second in each window."""
        return np.histogram(at_s[np.isfinite(at_s)], self.edges)[0] / self.window_s

    def by_window(self, q: float) -> Array:
        """A percentile of the latency of what was scheduled in each window; NaN where there are too few."""
        window = np.digitize(self.scheduled_s, self.edges) - 1
        answered = np.isfinite(self.latency_ms)
        found = np.full(len(self.edges) - 1, np.nan)
        for number in range(found.size):
            inside = self.latency_ms[answered & (window == number)]
            if inside.size >= FEWEST_OF_A_WINDOW:
                found[number] = percentile(inside, q)
        return found


def columns(run: Run) -> Columns:
    """The arrivals of good clients as arrays."""
    good = [each for each in run.samples if each.behaviour == GOOD]
    nan = float("nan")

    def array(value: Callable[[Any], float | None]) -> Array:
        return np.array([nan if (found := value(each)) is None else found for each in good], np.float64)

    window_s = float(next((each for each in WINDOW_S if each * WINDOWS >= run.seconds), WINDOW_S[-1]))
    return Columns(
        scheduled_s=array(lambda each: each.scheduled_s),
        done_s=array(lambda each: each.done_s),
        latency_ms=1000 * array(lambda each: each.latency_s if each.ok else None),
        service_ms=1000 * array(lambda each: each.service_s if each.ok else None),
        outcomes=np.array([outcome_of(each).value for each in good], np.str_),
        window_s=window_s,
        edges=window_s * np.arange(max(1, int(np.ceil(run.seconds / window_s))) + 1, dtype=np.float64),
    )


def latency_over_time(run: Run, data: Columns) -> str:
    """Every answer a dot, median and 99th percentile of each window, and what was no answer along the bottom."""
    with _style() as save:
        figure = Figure(figsize=(WIDTH, 4.0), layout="constrained")
        axes, strip = figure.subplots(2, 1, sharex=True, height_ratios=(6, 1))
        axes.plot(data.scheduled_s, data.latency_ms, ".", ms=3, mew=0, color=SKY, alpha=_alpha(data), rasterized=True)
        axes.plot(data.middles, data.by_window(50), color=BLUE, label="median")
        axes.plot(data.middles, data.by_window(99), color=GREEN, ls="--", label="99th percentile")
        _objective(axes, run)
        _milliseconds(axes)
        axes.set_ylabel("latency from the scheduled time")
        axes.legend(loc="lower left", ncols=3, bbox_to_anchor=(0, 1))
        for row, (kind, colour) in enumerate(MARKED.items()):
            at_s = data.scheduled_s[data.of(kind)]
            strip.plot(at_s, np.full(at_s.size, row), "|", color=colour, ms=7, alpha=0.7, rasterized=True)
        strip.set_yticks(range(len(MARKED)), [kind.value for kind in MARKED])
        strip.set(ylim=(len(MARKED) - 0.5, -0.5), xlim=(0, data.edges[-1]), xlabel="scheduled at, s")
        strip.grid(False, axis="y")
        return save(figure, "latency of every answer over time")


def latency_against_rate(run: Run, data: Columns) -> str:
    """Median and 99th percentile of each window against what was offered in it."""
    with _style() as save:
        figure = Figure(figsize=(WIDTH / 2, 3.4), layout="constrained")
        axes = figure.subplots()
        offered = data.rate(data.scheduled_s)
        axes.plot(offered, data.by_window(50), "o", ms=5, color=BLUE, alpha=0.75, label="median")
        axes.plot(offered, data.by_window(99), "^", ms=5, color=GREEN, alpha=0.75, label="99th")
        _objective(axes, run)
        _milliseconds(axes)
        axes.set(xlabel=f"arrivals a second, windows of {data.window_s:g} s", ylabel="latency", xlim=(0, None))
        axes.legend(loc="lower left", ncols=3, bbox_to_anchor=(0, 1), columnspacing=1, handlelength=1.6)
        return save(figure, "latency against offered rate")


def percentile_curve(run: Run, data: Columns) -> str:
    """Latency by percentile, as HdrHistogram draws it: each nine as wide as the one before."""
    with _style() as save:
        figure = Figure(figsize=(WIDTH / 2, 3.4), layout="constrained")
        axes = figure.subplots()
        for values, colour, line, label in (
            (data.latency_ms, BLUE, "-", "since scheduled"),
            (data.service_ms, ORANGE, "--", "since sent"),
        ):
            ordered = np.sort(values[np.isfinite(values)])
            rarity = ordered.size / (ordered.size - np.arange(ordered.size, dtype=np.float64))  # 1 / (1 - p)
            kept = np.unique(
                np.searchsorted(rarity, np.geomspace(1, max(1, ordered.size), 400)).clip(0, rarity.size - 1)
            )
            axes.plot(rarity[kept], ordered[kept], color=colour, ls=line, label=label)
        _objective(axes, run)
        axes.axvline(_rarity(OBJECTIVE_PERCENTILE), color=INK, lw=0.8, ls=":")
        last = max(_rarity(OBJECTIVE_PERCENTILE), float(np.isfinite(data.latency_ms).sum()))
        shown = [each for each in NINES if _rarity(each) <= last]
        axes.set(xscale="log", xlim=(1, last), xlabel="percentile", ylabel="latency")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticks([_rarity(each) for each in shown], [f"{each:g}" for each in shown])
        _milliseconds(axes)
        axes.legend(loc="lower left", ncols=3, bbox_to_anchor=(0, 1), columnspacing=1, handlelength=1.6)
        return save(figure, "latency by percentile")


def throughput(data: Columns) -> str:
    """Arrivals and what became of them, a second."""
    with _style() as save:
        figure = Figure(figsize=(WIDTH, 2.7), layout="constrained")
        axes = figure.subplots()
        axes.fill_between(data.middles, data.rate(data.scheduled_s), color=INK, alpha=0.10, lw=0, label="offered")
        for (kind, colour), line in zip(
            {Outcome.ANSWERED: BLUE, **MARKED}.items(), ("-", "--", ":", "-."), strict=True
        ):
            happened = data.of(kind)
            if happened.any():
                at_s = data.scheduled_s if kind is Outcome.DROPPED else data.done_s
                axes.plot(data.middles, data.rate(at_s[happened]), color=colour, ls=line, label=kind.value)
        axes.set(xlim=(0, data.edges[-1]), ylim=(0, None), xlabel="s", ylabel="requests a second")
        axes.legend(loc="lower left", ncols=5, bbox_to_anchor=(0, 1))
        return save(figure, "requests a second over time")


def replicas(run: Run, data: Columns) -> str:
    """Running replicas, a row for each deployment."""
    seen = [snapshot for snapshot in run.snapshots if snapshot.replicas]
    names = list(dict.fromkeys(name for snapshot in seen for name in snapshot.replicas))
    at_s = np.array([snapshot.at_s for snapshot in seen])
    with _style() as save:
        figure = Figure(figsize=(WIDTH, 0.6 + 0.45 * len(names)), layout="constrained")
        rows = figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0]
        for axes, name in zip(rows, names, strict=True):
            running = np.array([snapshot.replicas.get(name, 0) for snapshot in seen])
            axes.fill_between(at_s, running, step="post", color=BLUE, alpha=0.25, lw=0)
            axes.step(at_s, running, where="post", color=BLUE)
            most = max(1, int(running.max()))
            axes.set(ylim=(0, 1.15 * most), yticks=(0, most), xlim=(0, data.edges[-1]))
            axes.set_ylabel(name, rotation=0, ha="right", va="center", labelpad=14)
        rows[-1].set_xlabel("s")
        figure.align_ylabels()
        return save(figure, "running replicas over time")


def memory(run: Run, data: Columns) -> str:
    """Megabytes of each deployment's replicas over time."""
    seen = [snapshot for snapshot in run.snapshots if snapshot.memory_mb]
    names = list(dict.fromkeys(name for snapshot in seen for name in snapshot.memory_mb))
    at_s = [snapshot.at_s for snapshot in seen]
    with _style() as save:
        figure = Figure(figsize=(WIDTH, 2.6), layout="constrained")
        axes = figure.subplots()
        for name in names:
            axes.plot(at_s, [snapshot.memory_mb.get(name, np.nan) for snapshot in seen], label=name)
        axes.set(xlim=(0, data.edges[-1]), ylim=(0, None), xlabel="s", ylabel="MB")
        axes.legend(loc="lower left", ncols=4, bbox_to_anchor=(0, 1))
        return save(figure, "resident memory of the replicas over time")


def stage_times(stages: Mapping[str, Stage]) -> str:
    """A bar for each stage: waiting before it, and computing in it."""
    with _style() as save:
        figure = Figure(figsize=(WIDTH, 0.9 + 0.34 * len(stages)), layout="constrained")
        axes = figure.subplots()
        compute = [each.compute_ms for each in stages.values()]
        queue = [each.queue_ms for each in stages.values()]
        rows = range(len(stages))
        axes.barh(rows, queue, color=ORANGE, hatch="///", edgecolor="#ffffff", lw=0, label="waiting", height=0.65)
        axes.barh(rows, compute, left=queue, color=BLUE, label="computing", height=0.65)
        for row, (waited, computed) in enumerate(zip(queue, compute, strict=True)):
            axes.annotate(
                f"{waited + computed:,.1f}", (waited + computed, row), (4, 0), textcoords="offset points", va="center"
            )
        axes.set_yticks(rows, list(stages))
        axes.invert_yaxis()
        axes.grid(False, axis="y")
        axes.margins(x=0.08)
        axes.set_xlabel("ms, mean of the answers")
        axes.legend(loc="lower left", ncols=2, bbox_to_anchor=(0, 1))
        return save(figure, "waiting and computing by stage")


def generator(run: Run, data: Columns) -> str:
    """Cores of the generator, and requests that wait for their answers."""
    at_s = [snapshot.at_s for snapshot in run.snapshots]
    with _style() as save:
        figure = Figure(figsize=(WIDTH, 2.3), layout="constrained")
        cores, waiting = figure.subplots(1, 2)
        cores.plot(at_s, [snapshot.generator_cpu for snapshot in run.snapshots], color=BLUE)
        cores.axhline(BUSIEST_GENERATOR, color=RED, ls="--", lw=1.2)
        cores.set(ylabel="cores of the generator", ylim=(0, None))
        waiting.plot(at_s, [snapshot.in_flight for snapshot in run.snapshots], color=BLUE)
        waiting.set(ylabel="requests in flight", ylim=(0, None))
        for axes in (cores, waiting):
            axes.set(xlabel="s", xlim=(0, data.edges[-1]))
        return save(figure, "cores of the generator, and requests in flight")


@contextmanager
def _style() -> Iterator[Callable[[Figure, str], str]]:
    with style.context(STYLE):
        yield _svg


def _svg(figure: Figure, title: str) -> str:
    """An `<svg>` element with a title; ids are those of the title, as a page has several of them."""
    text = StringIO()
    with rc_context({"svg.hashsalt": title}):
        figure.savefig(text, format="svg", transparent=True, dpi=DOTS_PER_INCH, metadata={"Date": None, "Title": title})
    element = text.getvalue()
    element = element[element.index("<svg") :].replace(INK, "currentColor")
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    element = re.sub(r'<g id="[\w.]+">', "<g>", element)
    return element.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)


def _alpha(data: Columns) -> float:
    """Of a dot: the more there are, the fainter."""
    return float(np.clip(3000 / max(1, data.latency_ms.size), 0.06, 0.7))


def _rarity(q: float) -> float:
    return 1 / (1 - q / 100)


def _objective(axes: Axes, run: Run) -> None:
    axes.axhline(run.objective_ms, color=RED, lw=1.2, label="objective")


def _milliseconds(axes: Axes) -> None:
    """A logarithmic axis that reads 200 ms and 5 s."""

    def name(value: float, _: float) -> str:
        return f"{value / 1000:g} s" if value >= 1000 else f"{value:g} ms"

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(name))
    axes.yaxis.set_minor_locator(NullLocator())
