"""How well the corpus can be told from what a classifier reads: a recording's room, language and line are no emotion.

A logistic regression names the corpus of an utterance, first from the statistics of the encoder states, which the
voice network is given, then from what the linear layers at its end are given. Speakers whom it names did not teach it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from models.emotion.amser_states import VoiceNetwork
from models.emotion.batch import UtteranceFeatures
from training.data.dataset import LabelledUtterance
from training.data.extraction import UNCOMPRESSED
from training.evaluate import compare, row
from training.fitting.cross_validation import TrainedNetwork
from training.fitting.loop import logits_of
from training.fitting.probe import statistics_over_time
from training.fitting.recipe import Recipe

WHICH_CORPUS = "which corpus it is"
BEFORE, AFTER = "from the states", "from our voice network"
MOST_UTTERANCES = 300  # of a corpus
INVERSE_REGULARIZATION = 0.01
Row = dict[str, Any]


def corpus_rows(
    recipe: Recipe, utterances: Sequence[LabelledUtterance], networks: Sequence[TrainedNetwork]
) -> list[Row]:
    """A row before the network, and one after it for each network; classes are the corpora that can be left out.

    Args:
        recipe: names the corpora and the view that is heard.
        utterances: of all corpora.
        networks: voices, each with the corpus that it did not hear as its test part.
    """
    names = tuple(each.name for each in recipe.teachers if not each.always)
    chosen: list[LabelledUtterance] = []
    for name in names:
        of_corpus = [each for each in utterances if each.corpus == name]
        chosen += of_corpus[:: -(-len(of_corpus) // MOST_UTTERANCES)]
    features = [each.features[recipe.views[0]] for each in chosen]
    truth = np.array([names.index(each.corpus) for each in chosen])
    speakers = [each.speaker for each in chosen]

    def made(vectors: NDArray[np.float32], model: str, left_out: str) -> Row:
        judged = compare(UNCOMPRESSED, named_by_others(vectors, truth, speakers), truth, speakers)
        return row(judged, model, left_out, WHICH_CORPUS, names, ("states",))

    rows = [made(statistics_over_time(features), BEFORE, "none left out")]
    for each in networks:
        network = cast(VoiceNetwork, each.network)
        rows.append(made(read_by_predictors(network, features), AFTER, each.split.name))
    return rows


def read_by_predictors(network: VoiceNetwork, features: Sequence[UtteranceFeatures]) -> NDArray[np.float32]:
    """What the last layers of `deep` and `shallow` are given: (n, 2 hidden), or (n, hidden) without an ensemble."""
    readers = [reader for reader in (network.deep, network.shallow) if reader is not None]
    seen: list[list[torch.Tensor]] = [[] for _ in readers]
    hooks = [
        reader.predictor.register_forward_pre_hook(lambda _, given, kept=kept: kept.append(given[0]))
        for reader, kept in zip(readers, seen, strict=True)
    ]
    try:
        for each in features:  # one at a time, so that they stay in order
            logits_of(network, [each])
    finally:
        for hook in hooks:
            hook.remove()
    return torch.cat([torch.cat(kept) for kept in seen], 1).float().numpy()


def named_by_others(
    vectors: NDArray[np.float32], truth: NDArray[np.int64], speakers: Sequence[str]
) -> NDArray[np.float32]:
    """Probabilities (n, corpora) of vectors (n, width); each half of the speakers by a fit to the other half."""
    every_second = set(sorted(set(speakers))[::2])
    first = np.array([speaker in every_second for speaker in speakers])
    probabilities = np.zeros((len(truth), int(truth.max()) + 1), np.float32)
    for taught in (first, ~first):
        regression = LogisticRegression(C=INVERSE_REGULARIZATION, class_weight="balanced", max_iter=500)
        model = make_pipeline(StandardScaler(), regression).fit(vectors[taught], truth[taught])
        probabilities[np.ix_(~taught, model.classes_)] = model.predict_proba(vectors[~taught])
    return probabilities
