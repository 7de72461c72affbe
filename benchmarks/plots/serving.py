"""The plot of `benchmarks.serving`, as PNG beside its JSON: throughput of each system."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot

mpl.use("Agg")
Row = dict[str, Any]


def plot(rows: Sequence[Row], file: Path) -> None:
    """Requests a second of each system, a panel for each number of clients."""
    counts = sorted({each["clients"] for each in rows})
    figure, all_axes = pyplot.subplots(1, len(counts), figsize=(6 * len(counts), 2.6), squeeze=False, sharey=True)
    for axes, clients in zip(all_axes[0], counts, strict=True):
        here = [each for each in reversed(rows) if each["clients"] == clients]
        bars = axes.barh([each["system"] for each in here], [each["requests_per_second"] for each in here])
        axes.bar_label(bars, fmt="%.2f", padding=3)
        axes.set(title=f"clients: {clients}", xlabel="requests a second")
    figure.savefig(file, dpi=120, bbox_inches="tight")
    pyplot.close(figure)
