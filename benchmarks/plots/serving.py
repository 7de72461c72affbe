"""The plot of `benchmarks.serving`, as PNG beside its JSON: throughput of each system."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot

mpl.use("Agg")
Row = dict[str, Any]


def plot(rows: Sequence[Row], file: Path) -> None:
    """Requests a second of each system: a row of panels for each speech, a panel for each number of clients."""
    speech = list(dict.fromkeys(each["speech"] for each in rows))
    counts = sorted({each["clients"] for each in rows})
    size = (6 * len(counts), 2.6 * len(speech))
    figure, all_axes = pyplot.subplots(len(speech), len(counts), figsize=size, squeeze=False, sharey=True)
    for (name, clients), axes in zip(product(speech, counts), all_axes.flat, strict=True):
        here = [each for each in reversed(rows) if (each["speech"], each["clients"]) == (name, clients)]
        bars = axes.barh([each["system"] for each in here], [each["requests_per_second"] for each in here])
        axes.bar_label(bars, fmt="%.2f", padding=3)
        axes.margins(x=0.15)  # for the numbers behind the bars
        axes.set(title=f"{name}, clients: {clients}", xlabel="requests a second")
    figure.tight_layout()
    figure.savefig(file, dpi=120, bbox_inches="tight")
    pyplot.close(figure)
