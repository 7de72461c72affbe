"""Emotions of corpora that a network did not hear, for `benchmarks.emotion --only cross`.

Each corpus is left out in turn: our networks, and a linear probe on the pooled states of the same teachers as the
ground. Readings, which mean no emotion, are judged by networks that heard the other half of the readers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from benchmarks.measuring.emotion.corpus_probe import corpus_rows
from benchmarks.measuring.emotion.pairs import pair_rows
from models.emotion.config import FusionConfig
from training.data.dataset import NO_CLASS, LabelledUtterance
from training.data.extraction import CodecSetting
from training.data.folds import Split, leave_one_corpus_out, two_halves_of_speakers
from training.evaluate import compare, row
from training.fitting.cross_validation import TrainedNetwork, TrainingData, cross_validate
from training.fitting.left_out import Calibration, leave_corpora_out
from training.fitting.loading import copy_name
from training.fitting.probe import LinearProbe
from training.fitting.recipe import Recipe
from training.fitting.sampling import Draws
from training.judging.confidence import SURE, confident_share
from training.reports import left_out_rows, report_left_out

PROBE = "linear-probe"
READINGS = "readings by readers left out"
COPIES = "augmented copies"
NEUTRAL = "neutral"
Row = dict[str, Any]


def cross_rows(
    console: Console, recipe: Recipe, config: FusionConfig, training_data: TrainingData, folder: Path, workers: int
) -> list[Row]:
    """Rows of left-out corpora, by our networks and by the probe, of what tells a corpus, of pairs, and of readings.

    Args:
        console: where progress is shown.
        recipe: of our network, on several corpora.
        config: of the network.
        training_data: all of the corpora.
        folder: where networks are kept.
        workers: networks trained at a time.
    """
    left_out = leave_corpora_out(recipe, config, training_data, folder, workers=workers, console=console)
    rows = report_left_out(Console(quiet=True), recipe, training_data.utterances, left_out)
    rows += probe_rows(console, recipe, training_data.utterances)
    rows += corpus_rows(recipe, training_data.utterances, left_out.networks)
    if training_data.bank is not None and training_data.text is not None:
        rows += pair_rows(recipe, training_data.utterances, left_out.networks, training_data.bank, training_data.text)
    corpora = {each.name for each in recipe.teachers if each.always and each.label == NEUTRAL}
    if not corpora:
        return rows
    halves = two_halves_of_speakers(training_data.utterances, corpora, "readers")
    networks = cross_validate(recipe, config, training_data, halves, folder, workers=workers, console=console)
    return rows + reading_rows(recipe, training_data.utterances, networks, left_out.final)


def probe_rows(console: Console, recipe: Recipe, utterances: Sequence[LabelledUtterance]) -> list[Row]:
    """Rows of the probe, trained on all corpora but the left-out one without any codec."""
    splits = leave_one_corpus_out(utterances, recipe.teachers)
    parts = {each.name: [utterances[index] for index in each.test] for each in splits}
    fitted = {
        each.name: fit_probe(recipe, [utterances[index] for index in each.training], recipe.views[0])
        for each in track(splits, "linear probes", console=console, transient=True)
    }
    rows = []
    for view in recipe.judged:
        answers = {name: fitted[name].predict([each.features[view] for each in parts[name]]) for name in parts}
        rows += left_out_rows(recipe, PROBE, view, parts, answers, ("states",))[1]
    return rows


def probe_rows_of_folds(
    recipe: Recipe, corpus: str, utterances: Sequence[LabelledUtterance], splits: Sequence[Split]
) -> list[Row]:
    """Rows of the probe on the folds of a corpus, at each codec setting by probes that were trained at it."""
    members = sorted(index for each in splits for index in each.test)
    truth = np.array([utterances[index].label for index in members])
    speakers = [utterances[index].speaker for index in members]
    protocol = f"speaker-independent, {len(splits)} folds, trained at this codec"
    rows = []
    for view in recipe.judged:
        answers = np.zeros((len(utterances), len(recipe.classes)), np.float32)
        for each in splits:
            probe = fit_probe(recipe, [utterances[index] for index in (*each.training, *each.validation)], view)
            answers[list(each.test)] = probe.predict([utterances[index].features[view] for index in each.test])
        judged = compare(CodecSetting.parse(view), answers[members], truth, speakers)
        rows.append(row(judged, PROBE, corpus, protocol, recipe.classes, ("states",)))
    return rows


def fit_probe(recipe: Recipe, utterances: Sequence[LabelledUtterance], view: str) -> LinearProbe:
    """A probe of utterances with a class; corpora and classes are balanced as in the training of a network."""
    known = [each for each in utterances if each.label != NO_CLASS]
    features, labels = [each.features[view] for each in known], [each.label for each in known]
    if len(recipe.teachers) < 2:
        return LinearProbe.fit(features, labels, len(recipe.classes))
    corpora = {each.name: each.weight for each in recipe.teachers}
    draws = Draws.balanced(known, len(recipe.classes), corpora)
    return LinearProbe.fit(features, labels, len(recipe.classes), draws.probabilities * len(known))


def reading_rows(
    recipe: Recipe,
    utterances: Sequence[LabelledUtterance],
    networks: Sequence[TrainedNetwork],
    calibration: Calibration,
) -> list[Row]:
    """A row for each corpus of readings at each codec setting, and in the augmented copies.

    Args:
        recipe: has the classes and the views.
        utterances: of all corpora.
        networks: each with readings of readers that it did not hear as its test part.
        calibration: of a network that leaves no corpus out.
    """
    calibrated = [replace(each, temperature=calibration.temperature) for each in networks]
    copies = tuple(copy_name(copy) for copy in range(recipe.copies))
    conditions = {view: (view,) for view in recipe.judged} | ({COPIES: copies} if copies else {})
    names = sorted({utterances[index].corpus for each in networks for index in each.split.test})
    return [
        _reading_row(recipe, utterances, calibrated, calibration, name, condition, views)
        for name in names
        for condition, views in conditions.items()
    ]


def _reading_row(
    recipe: Recipe,
    utterances: Sequence[LabelledUtterance],
    networks: Sequence[TrainedNetwork],
    calibration: Calibration,
    corpus: str,
    condition: str,
    views: Sequence[str],
) -> Row:
    groups = [
        (each, readings, view)
        for each in networks
        if (readings := [utterances[index] for index in each.split.test if utterances[index].corpus == corpus])
        for view in views
    ]
    probabilities = np.concatenate(
        [each.probabilities([one.features[view] for one in readings]) for each, readings, view in groups]
    )
    speakers = [one.speaker for _, readings, _ in groups for one in readings]
    neutral = recipe.classes.index(NEUTRAL)
    truth = np.full(len(probabilities), neutral)
    setting = CodecSetting.parse("none" if condition == COPIES else condition)
    compared = compare(setting, probabilities, truth, speakers)
    is_neutral, is_unsure = probabilities.argmax(1) == neutral, probabilities.max(1) < calibration.sure_from
    made = row(compared, recipe.name, corpus, READINGS, recipe.classes, networks[0].network.modalities)
    return made | {
        "condition": condition,
        "neutral": float(is_neutral.mean()),
        "neutral_or_uncertain": float((is_neutral | is_unsure).mean()),
        "emotional_and_sure": float((~is_neutral & ~is_unsure).mean()),
        "emotional_above_0.7": confident_share(probabilities, neutral, SURE),
        "temperature": calibration.temperature,
        "sure_from": calibration.sure_from,
    }
