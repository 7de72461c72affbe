"""Figures of cross-validation: by folds of speakers, and by corpora left out, as tables and as JSON rows."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from training.corpora.manifest import Corpus
from training.data.dataset import NO_CLASS, LabelledUtterance
from training.data.extraction import CodecSetting
from training.data.screening import summary_of
from training.evaluate import Judged, compare, confusion_table, figures, row, scores_table
from training.fitting.cross_validation import TrainedNetwork
from training.fitting.left_out import CorporaLeftOut
from training.fitting.recipe import Recipe
from training.judging.confidence import risk_coverage

AMONG_ITS_CLASSES, AMONG_ALL = "among its classes", "among all classes"
LEFT_OUT, ALL_LEFT_OUT = "leave one corpus out", "all left out"
COVERAGES = tuple(round(0.05 * step, 2) for step in range(1, 21))  # of the risk-coverage curve in a row
Row = dict[str, Any]
Probabilities = NDArray[np.float32]


def pooled(trained: Sequence[TrainedNetwork], utterances: Sequence[LabelledUtterance], view: str) -> Probabilities:
    """Probabilities (n, classes) of all test parts, in the order of the utterances; zeros for one in none of them."""
    together = np.zeros((len(utterances), len(trained[0].network.config.classes)), np.float32)
    for each in trained:
        members = list(each.split.test)
        together[members] = each.probabilities([utterances[index].features[view] for index in members])
    return together


def report_folds(
    console: Console,
    recipe: Recipe,
    corpus: Corpus,
    utterances: Sequence[LabelledUtterance],
    folds: Sequence[TrainedNetwork],
) -> list[Row]:
    """Print the figures of each fold and of all together; returns a JSON row for each judged codec setting."""
    rows = []
    truth = np.array([utterance.label for utterance in utterances])
    speakers = np.array([utterance.speaker for utterance in utterances])
    tested = sorted(index for fold in folds for index in fold.split.test)
    for view in recipe.judged:
        setting, probabilities = CodecSetting.parse(view), pooled(folds, utterances, view)
        named = [
            (
                f"{fold.split.name}, {_epochs(fold)}",
                compare(setting, probabilities[members], truth[members], speakers[members].tolist()),
            )
            for fold, members in ((fold, list(fold.split.test)) for fold in folds)
        ]
        judged = compare(setting, probabilities[tested], truth[tested], speakers[tested].tolist())
        console.print(scores_table(f"{corpus.name} at {view}", [*named, ("all folds", judged)]))
        console.print(confusion_table(judged.matrix, recipe.classes))
        protocol = f"speaker-independent, {len(folds)} folds"
        content = row(judged, recipe.name, corpus.name, protocol, recipe.classes, folds[0].network.modalities)
        left_out = {fault: len(names) for fault, names in corpus.unusable.items()}
        folds_of_row = [figures(each) for _, each in named]
        rows.append(content | {"text": recipe.text, "folds": folds_of_row, "left_out": left_out})
    if corpus.unusable:
        console.print(summary_of(corpus), style="yellow")
    return rows


def report_left_out(
    console: Console, recipe: Recipe, utterances: Sequence[LabelledUtterance], left_out: CorporaLeftOut
) -> list[Row]:
    """Print the figures of each corpus by the network that did not hear it; returns their rows, as `left_out_rows`."""
    rows = []
    for view in recipe.judged:
        answers = {
            each.split.name: each.probabilities([utterances[index].features[view] for index in each.split.test])
            for each in left_out.networks
        }
        parts = {each.split.name: [utterances[index] for index in each.split.test] for each in left_out.networks}
        modalities = left_out.networks[0].network.modalities
        judged, made = left_out_rows(recipe, recipe.name, view, parts, answers, modalities)
        console.print(scores_table(f"each corpus left out in turn, at {view}", judged))
        mean = next(each for each in made if each["corpus"] == ALL_LEFT_OUT and AMONG_ITS_CLASSES in each["protocol"])
        console.print(f"mean UA {AMONG_ITS_CLASSES}: {mean['ua']:.3f}; surest half of all: {mean['surest_half']:.3f}")
        for each in made:
            if each["corpus"] in left_out.calibrations:
                kept = left_out.calibrations[each["corpus"]]
                each |= {"temperature": kept.temperature, "sure_from": kept.sure_from}
        rows += made
    return rows


def left_out_rows(
    recipe: Recipe,
    model: str,
    view: str,
    parts: dict[str, list[LabelledUtterance]],
    answers: dict[str, Probabilities],
    modalities: Sequence[str],
) -> tuple[list[tuple[str, Judged]], list[Row]]:
    """Figures of left-out corpora: named ones for a table, and rows.

    Args:
        recipe: has the classes.
        model: what the rows call it.
        view: codec setting.
        parts: the utterances of each left-out corpus, by its name.
        answers: probabilities (n, classes) for them, of the network that did not hear that corpus.
        modalities: what it reads.

    Returns:
        For each corpus, and for all together, figures among the classes that the corpus has and among all of them. Of
        all together the UA is the mean of the corpora's, each counting alike, and the other figures are those of all
        utterances.
    """
    named: list[tuple[str, Judged]] = []
    rows: list[Row] = []
    for among in (AMONG_ITS_CLASSES, AMONG_ALL):
        protocol = f"{LEFT_OUT}, {among}"
        collected = []
        for name, utterances in parts.items():
            known = [index for index, each in enumerate(utterances) if each.label != NO_CLASS]
            truth = np.array([utterances[index].label for index in known])
            speakers = [f"{name} {utterances[index].speaker}" for index in known]
            probabilities = answers[name][known]
            if among == AMONG_ITS_CLASSES:
                probabilities = restricted(probabilities, sorted(set(truth.tolist())))
            judged = compare(CodecSetting.parse(view), probabilities, truth, speakers)
            named.append((f"{name}, {among}", judged))
            curve = {"risk_coverage": _curve(probabilities, truth)}
            rows.append(row(judged, model, name, protocol, recipe.classes, modalities) | curve)
            collected.append((probabilities, truth, speakers))
        rows.append(_of_all(recipe, model, view, protocol, rows[-len(parts) :], collected, modalities))
    return named, rows


def restricted(probabilities: Probabilities, classes: Sequence[int]) -> Probabilities:
    """Probabilities (n, all classes) if only those of these numbers were possible: others are 0, rows sum to 1."""
    kept = np.zeros_like(probabilities)
    kept[:, classes] = probabilities[:, classes]
    shares: Probabilities = kept / np.maximum(kept.sum(1, keepdims=True), np.finfo(np.float32).tiny)
    return shares


def _of_all(
    recipe: Recipe,
    model: str,
    view: str,
    protocol: str,
    of_corpora: Sequence[Row],
    collected: Sequence[tuple[Probabilities, NDArray[np.int64], list[str]]],
    modalities: Sequence[str],
) -> Row:
    """The row of all left-out corpora together, with the mean of their UA in place of that of all utterances."""
    probabilities = np.concatenate([each for each, _, _ in collected])
    truth = np.concatenate([each for _, each, _ in collected])
    speakers = [name for _, _, names in collected for name in names]
    judged = compare(CodecSetting.parse(view), probabilities, truth, speakers)
    made = row(judged, model, ALL_LEFT_OUT, protocol, recipe.classes, modalities)
    return made | _mean_ua(of_corpora) | {"risk_coverage": _curve(probabilities, truth)}


def _mean_ua(rows: Sequence[Row]) -> dict[str, float | None]:
    """The mean of independent figures; distances to their bounds add as the root of squares. None without bounds."""
    mean = float(np.mean([each["ua"] for each in rows]))
    if any(each["ua_low"] is None for each in rows):
        return {"ua": mean, "ua_low": None, "ua_high": None}
    below, above = (sqrt(sum((each["ua"] - each[bound]) ** 2 for each in rows)) for bound in ("ua_low", "ua_high"))
    return {"ua": mean, "ua_low": mean - below / len(rows), "ua_high": mean + above / len(rows)}


def _curve(probabilities: Probabilities, truth: NDArray[np.int64]) -> list[tuple[float, float]]:
    curve = risk_coverage(probabilities, truth)
    return [(coverage, 1 - curve.accuracy_at(coverage)) for coverage in COVERAGES]


def _epochs(network: TrainedNetwork) -> str:
    return ", ".join(f"{stage.replace('_', ' ')} {number}" for stage, number in network.epochs.items()) + " epochs"
