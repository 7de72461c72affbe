"""Stages: a text from sentences, a voice from utterances, then their fusion, which leaves both as they are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from synthetic_corpus import CONTEXT_WIDTH, sentence, separable

from models.emotion.amser_states import AmserStates, TextNetwork
from training.data.dataset import LabelledSentence, TextSubstitution, sentence_alone
from training.data.folds import Split
from training.fitting.cross_validation import TrainedNetwork, TrainingData, train
from training.fitting.curriculum import text_f1, text_temperature, train_text
from training.fitting.loading import SentenceBank
from training.fitting.loop import Epoch, Fitted, logits_of
from training.fitting.recipe import Recipe
from training.judging.calibration import fit_temperature

CLASSES = ("angry", "neutral")
SIZES: dict[str, Any] = {"hidden": 16, "heads": 2, "feed_forward": 32, "layers": 1, "common_length": 12}
STAGED = Recipe(
    name="staged", classes=CLASSES, views=("none",), judged=("none",),
    network={"model": "amser-states", "state_layers": 0, "modalities": ("states", "words", "context")} | SIZES,
    objective={"alpha": 0},
    training={"epochs": 2, "batch_size": 8},
    text_training={"epochs": 6, "batch_size": 8, "learning_rate": 0.003, "averaging": 0.9},
)  # fmt: skip
AT_ONCE = replace(STAGED, network={"model": "amser", "conv_channels": (4, 6, 8)} | SIZES)
GROUPS = Split(1, tuple(range(16)), tuple(range(16, 24)), tuple(range(24, 32)))
ALL = Split(0, tuple(range(32)), (), ())


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def bank() -> SentenceBank:
    """The class of a sentence is the sign of its features."""
    random = np.random.default_rng(0)
    sentences = [
        LabelledSentence(sentence((2 * label - 1) * random.uniform(0.3, 1), words=int(random.integers(1, 8))), (label,))
        for label in (0, 1) * 20
    ]
    pairs = [[each.features for each in sentences if each.labels == (label,)] for label in (0, 1)]
    several = LabelledSentence(sentence(0.0), (0, 1))
    return SentenceBank(
        [*sentences, several], [*sentences[:20], several], sentences, dict.fromkeys(("train", "dev"), pairs)
    )


@pytest.fixture(scope="module")
def text(bank: SentenceBank) -> Fitted:
    return train_text(STAGED, STAGED.network_config(CONTEXT_WIDTH), bank, lambda *_: None)


@pytest.fixture(scope="module")
def training_data(bank: SentenceBank, text: Fitted) -> TrainingData:
    utterances = separable(32, "a", np.random.default_rng(1))
    return TrainingData(utterances, None, bank, cast(TextNetwork, text.network))


def run(
    training_data: TrainingData, split: Split, recipe: Recipe = STAGED, **options: Any
) -> tuple[TrainedNetwork, list[tuple[str, int]]]:
    reports: list[tuple[str, int]] = []

    def show(name: str, epoch: Epoch) -> None:
        reports.append((name, epoch.number))

    return train(recipe, recipe.network_config(CONTEXT_WIDTH), training_data, split, show, **options), reports


def test_the_text_network_learns_the_classes_of_sentences(text: Fitted, bank: SentenceBank) -> None:
    assert isinstance(text.network, TextNetwork)
    assert text.history[-1].loss < text.history[0].loss
    assert text_f1(text.network, bank.test) > 0.9
    assert text.validation == max(epoch.validation or 0 for epoch in text.history)


def test_sentences_of_several_classes_are_not_judged(text: Fitted, bank: SentenceBank) -> None:
    several = [LabelledSentence(sentence(1.0), (0, 1))] * 30
    assert text_f1(text.network, [*bank.test, *several]) == text_f1(text.network, bank.test)


@pytest.fixture(scope="module")
def staged(training_data: TrainingData) -> tuple[TrainedNetwork, list[tuple[str, int]]]:
    return run(training_data, GROUPS)


def test_the_trained_voice_and_the_text_as_it_was_are_joined(
    staged: tuple[TrainedNetwork, list[tuple[str, int]]], training_data: TrainingData
) -> None:
    trained, reports = staged
    network = trained.network
    assert isinstance(network, AmserStates)
    assert [name for name, _ in reports] == ["fold 1, voice"] * 2
    assert trained.epochs.keys() == {"training"}
    assert training_data.text is not None
    alone, _ = run(training_data, GROUPS, replace(STAGED, network=dict(STAGED.network) | {"model": "voice"}))
    for part, kept in ((training_data.text, network.text), (alone.network, network.voice)):
        values = kept.state_dict()
        assert [name for name, value in part.state_dict().items() if not torch.equal(value, values[name])] == []


def test_voice_and_text_weigh_as_much_as_they_are_calibrated(
    staged: tuple[TrainedNetwork, list[tuple[str, int]]], training_data: TrainingData
) -> None:
    network = cast(AmserStates, staged[0].network)
    validation = [training_data.utterances[index] for index in GROUPS.validation]
    expected = fit_temperature(
        logits_of(network.voice, [each.features["none"] for each in validation]), [each.label for each in validation]
    )
    assert float(network.voice_weight) == pytest.approx(1 / expected)
    assert training_data.bank is not None
    assert float(network.text_weight) == pytest.approx(
        1 / text_temperature(network.text, training_data.bank.development)
    )


def test_a_trained_network_is_calibrated_on_the_validation_group(
    staged: tuple[TrainedNetwork, list[tuple[str, int]]], training_data: TrainingData
) -> None:
    trained, _ = staged
    asked = [training_data.utterances[index].features["none"] for index in GROUPS.test]
    expected = torch.from_numpy(logits_of(trained.network, asked) / trained.temperature).softmax(1)
    assert trained.temperature > 0
    assert trained.temperature != 1
    np.testing.assert_allclose(trained.probabilities(asked), expected, rtol=1e-6)


def test_all_utterances_may_train_for_a_given_number_of_epochs(training_data: TrainingData) -> None:
    trained, reports = run(training_data, ALL, stop_after={"training": 1})
    assert reports == [("voice", 1)]
    assert trained.epochs == {"training": 1}
    assert trained.temperature == 1.0
    asked = [training_data.utterances[0].features["none"], sentence_alone(sentence(0.5))]
    assert np.isfinite(trained.probabilities(asked)).all()


def test_a_network_that_is_trained_at_once_needs_no_sentences() -> None:
    substitution = TextSubstitution(sentence(0, words=0), replace=0, omit=0.3)
    training_data = TrainingData(separable(32, "a", np.random.default_rng(1)), substitution)
    trained, reports = run(training_data, GROUPS, AT_ONCE)
    assert reports == [("fold 1, amser", 1), ("fold 1, amser", 2)]
    assert trained.epochs.keys() == {"training"}
    assert trained.network.config.model == "amser"
