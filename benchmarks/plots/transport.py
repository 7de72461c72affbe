"""The plot of `benchmarks.transport`, as PNG beside its JSON: joules of an utterance, radio and computing apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot

mpl.use("Agg")
Row = dict[str, Any]
MODE = "alone"


def plot(rows: Sequence[Row], file: Path) -> None:
    """A panel for each device and radio, an utterance at a time over a connection that is kept."""
    chosen = [row for row in rows if row["mode"] == MODE and row["connection"] in ("keep-alive", "gateway")]
    panels = list(dict.fromkeys((row["device"], row["radio"]) for row in chosen))
    figure, all_axes = pyplot.subplots(
        len(panels), 1, figsize=(8, 0.8 + 0.28 * len(chosen)), squeeze=False, layout="constrained"
    )
    for axes, panel in zip(all_axes[:, 0], panels, strict=True):
        here = [row for row in reversed(chosen) if (row["device"], row["radio"]) == panel]
        labels = [f"{row['transport']} {row['setting']}, {row['payload_bytes'] / 1000:.1f} kB" for row in here]
        radio, compute = ([1000 * row[key] for row in here] for key in ("radio_joules", "compute_joules"))
        axes.barh(labels, radio, color="tab:blue", label="radio")
        axes.barh(labels, compute, left=radio, color="tab:orange", label="computing")
        axes.set(title=f"{panel[0]}, {panel[1]}", xlabel="mJ an utterance")
    all_axes[0, 0].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(file, dpi=120)
    pyplot.close(figure)
