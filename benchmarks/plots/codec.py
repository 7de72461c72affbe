"""Plots of `benchmarks.codec`, as PNG beside its JSON: word errors, and emotions, against kbit/s."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib import pyplot
from matplotlib.axes import Axes

from benchmarks.measuring.codec_summary import (
    PCM_KBPS,
    UNCOMPRESSED,
    Row,
    line_of,
    lines,
    measured,
)
from benchmarks.measuring.noise import CLEAN

mpl.use("Agg")
Style = dict[str, dict[str, Any]]  # of each line
SHOWN_ABOVE: Final = 12.0  # points above uncompressed; what is worse is of no use and would flatten the rest
TICKS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)  # kbit/s


def plot(rows: Sequence[Row], beside: Path) -> None:
    """Write `<name>.png`, and `<name>_ua.png` where emotions were judged on clean speech."""
    style = _styles(rows)
    judged = measured(rows, "wer")
    if judged:
        _word_errors(judged, style, beside.with_suffix(".png"))
    emotions = [row for row in measured(rows, "ua") if row["condition"] == CLEAN]
    if emotions:
        _emotions(emotions, style, beside.with_name(f"{beside.stem}_ua.png"))


def _word_errors(rows: Sequence[Row], style: Style, file: Path) -> None:
    conditions = list(dict.fromkeys(row["condition"] for row in rows))
    figure, panels = pyplot.subplots(
        1, len(conditions), figsize=(1.5 + 5 * len(conditions), 5), squeeze=False, layout="constrained"
    )
    for axes, condition in zip(panels[0], conditions, strict=True):
        here = [row for row in rows if row["condition"] == condition]
        for name, points in lines(here).items():
            axes.errorbar(
                [row["kbps"] for row in points],
                [row["wer"] for row in points],
                [row["wer_delta_se"] for row in points],
                label=name,
                capsize=2,
                markersize=4,
                **style[name],
            )
        reference = next((row["wer"] for row in here if row["transport"] == UNCOMPRESSED), None)
        if reference is not None:
            axes.axhline(reference, color="black", linestyle="--", linewidth=1, label="uncompressed")
            worst = max(row["wer"] for row in here)
            axes.set_ylim(top=min(worst + 1, reference + SHOWN_ABOVE))
        _rate_axis(axes)
        axes.set(title=condition, ylabel="WER, %")
    panels[0, -1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    figure.suptitle("bars: standard error of the paired difference to uncompressed", fontsize="small")
    _save(figure, file)


def _emotions(rows: Sequence[Row], style: Style, file: Path) -> None:
    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for name, points in lines(rows, "ua_kbps").items():
        values = [row["ua"] for row in points]
        low = [row["ua"] - row["ua_low"] for row in points]
        high = [row["ua_high"] - row["ua"] for row in points]
        rates = [row["ua_kbps"] for row in points]
        axes.errorbar(rates, values, (low, high), label=name, capsize=2, markersize=4, **style[name])
    reference = next((row["ua"] for row in rows if row["transport"] == UNCOMPRESSED), None)
    if reference is not None:
        axes.axhline(reference, color="black", linestyle="--", linewidth=1, label="uncompressed")
    _rate_axis(axes)
    by = ", ".join(dict.fromkeys(row["ua_by"] for row in rows))
    axes.set(ylabel="unweighted accuracy", title=f"emotions, {rows[0]['ua_corpus']}, clean, by {by}; bars: 95 %")
    axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    _save(figure, file)


def _rate_axis(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.set_xlabel("kbit/s, without container")
    axes.xaxis.set_minor_locator(mpl.ticker.NullLocator())
    low, high = axes.get_xlim()
    shown = [tick for tick in TICKS if low <= tick <= high]
    axes.set_xticks(shown, [str(tick) for tick in shown])
    axes.grid(alpha=0.3)
    above = axes.secondary_xaxis("top", functions=(_share, _kbps))
    above.set_xlabel("% of 16-bit PCM", fontsize="small")
    above.xaxis.set_minor_locator(mpl.ticker.NullLocator())
    above.set_xticks([_share(tick) for tick in shown], [f"{_share(tick):.2g}" for tick in shown])


def _share(kbps: Any) -> Any:
    """Per cent of 16-bit PCM."""
    return 100 * kbps / PCM_KBPS


def _kbps(share: Any) -> Any:
    return share * PCM_KBPS / 100


def _styles(rows: Sequence[Row]) -> Style:
    """The same colour for a transport in every panel and plot."""
    names = list(dict.fromkeys(line_of(row) for row in rows if row["transport"] != UNCOMPRESSED))
    return {name: {"color": f"C{number % 10}", "marker": "os^vD*"[number % 6]} for number, name in enumerate(names)}


def _save(figure: Any, file: Path) -> None:
    figure.savefig(file, dpi=120)
    pyplot.close(figure)
