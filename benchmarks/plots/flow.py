"""Goodput against the load that is offered: what `benchmarks.flow` draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("agg")
from matplotlib import pyplot as plt  # noqa: E402 - after the backend


def plot_goodput(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """A curve for each variant that was measured at several rates; dashed what of it is whole answers."""
    figure, axes = plt.subplots(figsize=(7, 4.2))
    for variant in dict.fromkeys(row["variant"] for row in rows):
        points = sorted((row["rate"], row["goodput"], row["whole"]) for row in rows if row["variant"] == variant)
        if len(points) < 2:
            continue
        rates, goodput, whole = zip(*points, strict=True)
        (line,) = axes.plot(rates, goodput, marker="o", label=variant)
        if whole != goodput:
            axes.plot(rates, whole, "--", color=line.get_color(), label=f"{variant}: whole answers")
    most = max(row["rate"] for row in rows)
    axes.plot([0, most], [0, most], color="0.7", linewidth=1, label="all that was offered")
    axes.set(xlabel="requests a second, offered", ylabel="answers within the objective, a second")
    axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(file, dpi=150)
    plt.close(figure)
