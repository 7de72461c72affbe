"""Plots of `benchmarks.emotion`, as PNG beside its JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot

from training.reports import ALL_LEFT_OUT, AMONG_ALL

mpl.use("Agg")
Row = dict[str, Any]


def plot(rows: Sequence[Row], beside: Path) -> None:
    """Write the plots that the rows allow beside a file, as its name with `_rates`, `_modalities` and so on."""
    of_rates = [row for row in rows if row["table"] in ("rates", "baselines")]
    if of_rates:
        _rates(of_rates, beside.with_name(f"{beside.stem}_rates.png"))
        _confusion(of_rates[0], beside.with_name(f"{beside.stem}_confusion.png"))
    of_pairs = [row for row in rows if row["table"] == "pairs" and row["corpus"] != "goemotions"]
    of_modalities = [row for row in rows if row["table"] == "modalities"]
    if of_modalities or of_pairs:
        draw = _subsets if of_modalities else _modalities
        draw(of_modalities or of_pairs, beside.with_name(f"{beside.stem}_modalities.png"))
    of_corpora = [row for row in rows if row["table"] == "cross" and "risk_coverage" in row]
    if of_corpora:
        _risk(of_corpora, beside.with_name(f"{beside.stem}_risk.png"))


def _risk(rows: Sequence[Row], file: Path) -> None:
    """Risk by coverage of each left-out corpus and of all, among all classes, uncompressed; the probe only of all."""
    chosen = [row for row in rows if row["codec"] == "none" and row["protocol"].endswith(AMONG_ALL)]
    models = list(dict.fromkeys(row["model"] for row in chosen))
    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for row in chosen:
        is_of_all = row["corpus"] == ALL_LEFT_OUT
        if row["model"] != models[0] and not is_of_all:
            continue
        coverage, risk = (100 * np.array(values) for values in zip(*row["risk_coverage"], strict=True))
        name = f"{row['corpus']}, {row['model']}" if is_of_all else row["corpus"]
        style = "-" if row["model"] == models[0] else "--"
        axes.plot(coverage, risk, linestyle=style, linewidth=2.5 if is_of_all else 1, label=name)
    axes.set(xlabel="answers kept, the surest first, %", ylabel="wrong ones among them, %", ylim=(0, None))
    axes.set_title("each corpus judged by networks that did not hear it")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    _save(figure, file)


def _rates(rows: Sequence[Row], file: Path) -> None:
    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for model in dict.fromkeys(row["model"] for row in rows):
        points = sorted((100 * row["rate"], row) for row in rows if row["model"] == model and row["rate"] is not None)
        if not points:
            continue
        rates = [rate for rate, _ in points]
        line = axes.plot(rates, [100 * row["ua"] for _, row in points], marker="o", label=model)[0]
        low, high = (100 * np.array([row[bound] for _, row in points], float) for bound in ("ua_low", "ua_high"))
        axes.fill_between(rates, low, high, color=line.get_color(), alpha=0.12)
        axes.set_xscale("log", base=2)
        axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
    axes.axhline(100 / len(rows[0]["classes"]), color="grey", linestyle=":", label="chance")
    axes.set(xlabel="rate of svd-f16, % of the singular values", ylabel="unweighted accuracy, %")
    axes.set_title(f"{rows[0]['corpus']}, {rows[0]['protocol']}; bands are bootstrap 95 %")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    _save(figure, file)


def _modalities(rows: Sequence[Row], file: Path) -> None:
    chosen = sorted((row for row in rows if row["codec"] == "none"), key=lambda row: float(row["ua"]))
    figure, axes = pyplot.subplots(figsize=(8, 0.6 + 0.45 * len(chosen)), layout="constrained")
    values, low, high = (100 * np.array([row[name] for row in chosen], float) for name in ("ua", "ua_low", "ua_high"))
    errors = np.stack((values - low, high - values))
    axes.barh([row["modalities"] for row in chosen], values, xerr=errors, color="tab:blue", alpha=0.8)
    axes.set(xlabel="unweighted accuracy, %; bootstrap 95 %", title=f"{chosen[0]['corpus']} paired with GoEmotions")
    _save(figure, file)


def _subsets(rows: Sequence[Row], file: Path) -> None:
    """Accuracy with each subset of modalities: a bar for each model, and the papers' figure on another corpus."""
    subsets, models = (list(dict.fromkeys(row[name] for row in rows)) for name in ("subset", "model"))
    places, width = np.arange(len(subsets)), 0.8 / len(models)
    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for number, model in enumerate(models):
        chosen = [row for row in rows if row["model"] == model]
        values = 100 * np.array([row["wa"] for row in chosen])
        bounds = (100 * np.array([row.get(name, np.nan) for row in chosen], float) for name in ("wa_low", "wa_high"))
        low, high = bounds
        at = [subsets.index(row["subset"]) + (number + 0.5) * width - 0.4 for row in chosen]
        axes.bar(at, values, width, yerr=np.stack((values - low, high - values)), label=model, alpha=0.8)
    papers = {row["subset"]: 100 * row["papers_iemocap_wa"] for row in rows}
    axes.plot(places, [papers[subset] for subset in subsets], "k_", markersize=30, label="the papers, IEMOCAP")
    axes.set_xticks(places, subsets)
    axes.set(ylabel="accuracy, %; bootstrap 95 %", xlabel="E words, R context, M voice")
    axes.set_title(f"{rows[0]['corpus']} paired with GoEmotions, {rows[0]['protocol']}")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    _save(figure, file)


def _confusion(row: Row, file: Path) -> None:
    counts = np.array(row["confusion"], float)
    shares = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    figure, axes = pyplot.subplots(figsize=(6, 5), layout="constrained")
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    for (true, answer), share in np.ndenumerate(shares):
        axes.text(answer, true, f"{share:.0f}", ha="center", va="center", color="white" if share > 55 else "black")
    axes.set_xticks(range(len(row["classes"])), row["classes"], rotation=45, ha="right")
    axes.set_yticks(range(len(row["classes"])), row["classes"])
    axes.set(xlabel="answer", ylabel="true class", title=f"{row['model']}, {row['codec']}: % of the true class")
    _save(figure, file)


def _save(figure: Any, file: Path) -> None:
    figure.savefig(file, dpi=120)
    pyplot.close(figure)
