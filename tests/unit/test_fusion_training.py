"""Training: what it sees is changed as promised, and a network that is trained learns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from deployments.messages import TextFeatures
from fusion import train
from fusion.augmentation import MelAugmentation
from fusion.batch import UtteranceFeatures
from fusion.corpora.manifest import Corpus, Record
from fusion.dataset import (
    LabelledUtterance,
    TextFeaturePair,
    TextSubstitution,
    TrainingSampler,
    shuffled_batches,
)
from fusion.extraction import Encoders
from fusion.fitting import Epoch, TrainingConfig, class_weights, fit, predict, warmup_cosine
from fusion.metrics import unweighted_accuracy
from fusion.network import FusionConfig

SMALL = FusionConfig(
    classes=("low", "high"), context_width=24, conv_channels=(4, 6, 8), hidden=16, heads=2, feed_forward=32, layers=1,
    common_length=12, projection_width=8, head_dropout=0.1,
)  # fmt: skip
NO_CHANGE = MelAugmentation(gain=0, crop=0, tempo=0, band_shift=0, time_masks=0, band_masks=0, noise=0)


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def features(mel: np.ndarray, words: int = 4) -> UtteranceFeatures:
    return UtteranceFeatures(
        mel, np.ones((words, 300), np.float32), np.ones((words + 2, 24), np.float32), np.zeros((1, 512), np.float16)
    )


def separable(count: int, speaker: str, random: np.random.Generator) -> list[LabelledUtterance]:
    """Class 0 has its energy in low bands, class 1 in high ones."""
    made = []
    for number in range(count):
        label = number % 2
        mel = random.normal(0, 0.2, (80, int(random.integers(60, 120)))).astype(np.float32)
        mel[label * 40 : label * 40 + 40] += 0.3
        made.append(LabelledUtterance(label, speaker, None, {"none": features(mel)}))
    return made


def test_a_short_training_learns_what_can_be_learnt(random: np.random.Generator) -> None:
    training, validation, test = (separable(count, name, random) for count, name in ((64, "a"), (16, "b"), (40, "c")))
    epochs: list[Epoch] = []
    config = TrainingConfig(epochs=6, patience=6, batch_size=16, learning_rate=3e-3)
    sampler = TrainingSampler(("none",), None, None)
    fitted = fit(SMALL, config, training, sampler, validation, report=epochs.append)
    probabilities = predict(fitted.network, [utterance.features["none"] for utterance in test])
    accuracy = np.mean(probabilities.argmax(1) == [utterance.label for utterance in test])
    assert epochs[-1].loss < 0.8 * epochs[0].loss
    assert accuracy > 0.8
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    assert tuple(epochs) == fitted.history
    assert fitted.best_epoch == max(epochs, key=lambda epoch: epoch.validation_ua or 0).number


def test_the_same_seed_trains_the_same_network(random: np.random.Generator) -> None:
    training = separable(32, "a", random)
    sampler = TrainingSampler(("none",), MelAugmentation(), None)
    config = TrainingConfig(epochs=1, batch_size=16, seed=3)
    first, second = (fit(SMALL, config, training, sampler).network.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_training_stops_when_validation_no_longer_improves(random: np.random.Generator) -> None:
    training, validation = separable(32, "a", random), separable(8, "b", random)
    # Swapped labels: whatever is learnt, the validation score cannot keep rising.
    swapped = [LabelledUtterance(1 - each.label, each.speaker, None, each.features) for each in validation]
    config = TrainingConfig(epochs=30, patience=2, batch_size=16, learning_rate=3e-3)
    fitted = fit(SMALL, config, training, TrainingSampler(("none",), None, None), swapped)
    assert len(fitted.history) < 30
    assert len(fitted.history) == fitted.best_epoch + 2


def test_without_a_validation_group_training_ends_where_it_is_told(random: np.random.Generator) -> None:
    config = TrainingConfig(epochs=5, batch_size=16)
    fitted = fit(SMALL, config, separable(16, "a", random), TrainingSampler(("none",), None, None), stop_after=2)
    assert [epoch.validation_ua for epoch in fitted.history] == [None, None]
    assert fitted.best_epoch == 2


def test_augmentation_that_is_turned_off_changes_nothing(random: np.random.Generator) -> None:
    mel = random.normal(0, 0.2, (80, 100)).astype(np.float32)
    np.testing.assert_allclose(NO_CHANGE(mel, random), mel, atol=1e-6)


@pytest.mark.parametrize("frames", [1, 2, 30, 200, 3000])
def test_augmentation_keeps_a_log_mel_usable(frames: int, random: np.random.Generator) -> None:
    augment = MelAugmentation(noise=1.0)
    for _ in range(20):
        mel = augment(random.normal(0, 0.3, (80, frames)).astype(np.float16), random)
        assert mel.dtype == np.float32
        assert mel.shape[0] == 80
        assert max(1, int(frames * 0.7)) <= mel.shape[1] <= frames * 1.13 + 1
        assert np.isfinite(mel).all()


def test_augmentation_leaves_the_features_it_was_given(random: np.random.Generator) -> None:
    mel = random.normal(0, 0.2, (80, 100)).astype(np.float32)
    before = mel.copy()
    MelAugmentation(noise=1.0)(mel, random)
    np.testing.assert_array_equal(mel, before)


def test_gain_is_in_decibels(random: np.random.Generator) -> None:
    mel = np.zeros((80, 100), np.float32)
    gains = [
        float(
            MelAugmentation(gain=4, crop=0, tempo=0, band_shift=0, time_masks=0, band_masks=0, noise=0)(mel, random)[
                0, 0
            ]
        )
        for _ in range(200)
    ]
    assert 0.09 < max(gains) <= 0.1  # 4 dB on the scale (log10 power + 4) / 4
    assert -0.1 <= min(gains) < -0.09


def test_texts_are_replaced_and_omitted_as_often_as_asked(random: np.random.Generator) -> None:
    own = features(np.zeros((80, 60), np.float32))
    other = TextFeaturePair(np.zeros((9, 300), np.float32), np.zeros((11, 24), np.float32))
    nothing = TextFeaturePair(np.zeros((0, 300), np.float32), np.zeros((2, 24), np.float32))
    substitute = TextSubstitution(nothing, [other], replace=0.5, omit=0.1)
    drawn = [len(substitute(own, random).words) for _ in range(4000)]
    assert np.mean([words == 9 for words in drawn]) == pytest.approx(0.5, abs=0.03)
    assert np.mean([words == 0 for words in drawn]) == pytest.approx(0.1, abs=0.02)
    assert np.mean([words == 4 for words in drawn]) == pytest.approx(0.4, abs=0.03)


class Words:
    def embed(self, text: str) -> TextFeatures:
        return TextFeatures(tuple(text.split()), np.ones((len(text.split()), 300), np.float32))


class Context:
    def encode(self, texts: Sequence[str]) -> list[TextFeatures]:
        return [
            TextFeatures(("<s>", *text.split(), "</s>"), np.full((len(text.split()) + 2, 24), 0.5, np.float32))
            for text in texts
        ]


def test_no_text_is_trained_on_as_the_stages_serve_it(
    monkeypatch: pytest.MonkeyPatch, random: np.random.Generator
) -> None:
    models: Any = (None, Words(), Context())
    monkeypatch.setattr(Encoders, "load", lambda **_: Encoders(*models))
    recipe = train.Recipe(name="", licence="", codecs=("none",), judged=(), replace_text=0.0, omit_text=1.0)
    substitution = train.load_substitution(None, recipe)
    silent = substitution(features(np.zeros((80, 60), np.float32)), random)
    words, (context,) = Words().embed(""), Context().encode([""])
    np.testing.assert_array_equal(silent.words, words.values)
    np.testing.assert_array_equal(silent.context, context.values)
    assert (silent.words.shape, silent.context.shape) == ((0, 300), (2, 24))


def test_every_codec_rate_of_the_recipe_is_drawn(random: np.random.Generator) -> None:
    by_codec = {
        name: features(np.full((80, 60), value, np.float32)) for value, name in enumerate(("none", "svd-f16:0.125"))
    }
    sampler = TrainingSampler(tuple(by_codec), None, None)
    drawn = [sampler.draw(LabelledUtterance(0, "a", 1, by_codec), random).log_mel[0, 0] for _ in range(400)]
    assert np.mean(drawn) == pytest.approx(0.5, abs=0.1)


def test_batches_hold_every_utterance_once_and_are_alike_in_length(random: np.random.Generator) -> None:
    frames = random.integers(100, 3000, 321)
    batches = list(shuffled_batches(frames, 16, random))
    assert sorted(np.concatenate(batches)) == list(range(321))
    assert min(map(len, batches)) > 1
    padded = sum(len(batch) * frames[batch].max() for batch in batches)
    assert padded < 1.25 * frames.sum()


def test_class_weights_even_out_frequencies() -> None:
    weights = class_weights(np.array([0, 0, 0, 1]), 3)
    torch.testing.assert_close(weights, torch.tensor([2 / 3, 2.0, 1.0]))


def test_the_schedule_warms_up_and_ends_at_nothing() -> None:
    assert [round(warmup_cosine(progress, 0.1), 3) for progress in (0, 0.05, 0.1, 0.55, 1)] == [0, 0.5, 1, 0.5, 0]


def test_cross_validation_answers_for_every_utterance_once(random: np.random.Generator) -> None:
    speakers = [separable(8, f"s{fold}", random) for fold in range(1, 4)]
    utterances = [
        LabelledUtterance(each.label, each.speaker, fold, each.features)
        for fold, group in enumerate(speakers, start=1)
        for each in group
    ]
    recipe = train.Recipe(
        name="small", licence="", codecs=("none",), judged=("none",),
        network={"context_width": 24, "conv_channels": [4, 6, 8], "hidden": 16, "heads": 2, "feed_forward": 32},
        training={"epochs": 1, "batch_size": 8},
    )  # fmt: skip
    results = train.cross_validate(recipe, utterances, None, workers=1, console=Console(quiet=True))
    together = train.pooled(results, "none", len(utterances))
    np.testing.assert_allclose(together.sum(1), 1, rtol=1e-5)

    labels = ["angry", "disgust"]
    records = tuple(
        Record(str(number), Path(), labels[each.label], each.speaker, each.fold, "", None)
        for number, each in enumerate(utterances)
    )
    corpus = Corpus("small", records, {})
    (content,) = train.report_folds(Console(quiet=True), recipe, corpus, results)
    assert content["protocol"] == "speaker-independent 3 folds"
    assert [(fold["fold"], fold["n"], fold["epochs"]) for fold in content["folds"]] == [(1, 8, 1), (2, 8, 1), (3, 8, 1)]
    assert content["ua"] == pytest.approx(unweighted_accuracy([each.label for each in utterances], together.argmax(1)))
    assert {
        "model", "corpus", "protocol", "classes", "codec", "rate", "modalities", "wa", "ua", "macro_f1", "weighted_f1",
        "ua_low", "ua_high", "n", "hardware", "versions",
    } <= content.keys()  # fmt: skip
    assert content["classes"] == labels
    assert content["n"] == 24
