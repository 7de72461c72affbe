"""Our network trained again without one kind of text features, for the table by modality of `benchmarks.emotion`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np
from rich.console import Console

from models.emotion.amser_states import AmserStates, TextNetwork, VoiceNetwork
from training.data.dataset import LabelledSentence
from training.data.texts import TextFeaturePair
from training.fitting.cross_validation import TrainedNetwork, TrainingData
from training.fitting.curriculum import join, text_temperature, train_text
from training.fitting.loading import SentenceBank
from training.fitting.progress import TrainingProgress
from training.fitting.recipe import Recipe


def retrain_without(
    console: Console, recipe: Recipe, training_data: TrainingData, folds: Sequence[TrainedNetwork], left_out: str
) -> tuple[list[TrainedNetwork], SentenceBank, TextNetwork]:
    """The text trained again with `words` or `context` as zeros, joined with the voices of the folds."""
    assert training_data.bank is not None
    bank = _without(training_data.bank, left_out)
    config = replace(folds[0].network.config, model="text")
    with TrainingProgress(recipe.stage("text_training").epochs, console) as progress:
        text = cast(TextNetwork, train_text(recipe, config, bank, progress.report).network)
    temperature = text_temperature(text, bank.development)
    joined = []
    for fold in folds:
        network = fold.network
        voice = network.voice if isinstance(network, AmserStates) else cast(VoiceNetwork, network)
        weight = float(network.voice_weight) if isinstance(network, AmserStates) else 1 / fold.temperature
        joined.append(replace(fold, network=join(voice, text, 1 / weight, temperature), temperature=1.0))
    return joined, bank, text


def _without(bank: SentenceBank, left_out: str) -> SentenceBank:
    def blank(features: TextFeaturePair) -> TextFeaturePair:
        return replace(features, **{left_out: np.zeros_like(getattr(features, left_out))})

    def sentences(labelled: Sequence[LabelledSentence]) -> list[LabelledSentence]:
        return [replace(each, features=blank(each.features)) for each in labelled]

    pairs = {part: [[blank(each) for each in group] for group in groups] for part, groups in bank.pairs.items()}
    return SentenceBank(sentences(bank.training), sentences(bank.development), sentences(bank.test), pairs)
