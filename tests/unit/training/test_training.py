"""The training loop: a network learns, stops early, keeps frozen parts, and resumes where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic_corpus import CONTEXT_WIDTH, features, separable

from models.emotion.config import FusionConfig
from models.emotion.network import FusionNetwork
from models.emotion.registry import build
from training.data.dataset import LabelledUtterance, SpokenSampler
from training.fitting.loop import (
    Epoch,
    Fitted,
    Training,
    TrainingConfig,
    class_weights,
    logits_of,
    predict,
    standardize,
    warmup_cosine,
)
from training.fitting.objective import ObjectiveConfig

SMALL = FusionConfig(
    classes=("low", "high"), model="amser-plus", context_width=CONTEXT_WIDTH, conv_channels=(4, 6, 8), hidden=16,
    heads=2, feed_forward=32, layers=1, common_length=12, projection_width=8, head_dropout=0.1,
)  # fmt: skip
VOICE = replace(SMALL, model="voice", state_layers=1)
CROSS_ENTROPY = ObjectiveConfig(alpha=0)
QUICK = TrainingConfig(epochs=4, batch_size=8, learning_rate=3e-3)


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def sampler(random: np.random.Generator) -> SpokenSampler:
    return SpokenSampler(separable(24, "a", random), ("none",))


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def fresh(config: FusionConfig = SMALL, seed: int = 0) -> FusionNetwork:
    torch.manual_seed(seed)
    return build(config)


def weights_of(network: FusionNetwork) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def assert_equal_weights(one: FusionNetwork, other: FusionNetwork) -> None:
    first, second = weights_of(one), weights_of(other)
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def changed(before: dict[str, torch.Tensor], network: FusionNetwork) -> set[str]:
    return {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}


def scripted(*scores: float) -> Callable[[FusionNetwork], float]:
    following: Iterator[float] = iter(scores)
    return lambda _: next(following)


def test_a_short_training_learns_what_can_be_learnt(random: np.random.Generator) -> None:
    training, test = separable(64, "a", random), separable(40, "b", random)
    network = fresh()
    standardize(network, [utterance.features["none"] for utterance in training])
    epochs: list[Epoch] = []
    config = TrainingConfig(epochs=6, batch_size=16, learning_rate=3e-3, averaging=0.9)
    fitted = Training(network, config, CROSS_ENTROPY, SpokenSampler(training, ("none",))).run(epochs.append)
    probabilities = predict(fitted.network, [utterance.features["none"] for utterance in test])
    accuracy = np.mean(probabilities.argmax(1) == [utterance.label for utterance in test])
    assert epochs[-1].loss < 0.8 * epochs[0].loss
    assert accuracy > 0.8
    assert tuple(epochs) == fitted.history
    assert [epoch.number for epoch in epochs] == list(range(1, 7))
    assert not fitted.network.training


def test_contrast_learns_it_too(random: np.random.Generator) -> None:
    training, test = separable(64, "a", random), separable(40, "b", random)
    config = TrainingConfig(epochs=6, batch_size=16, learning_rate=3e-3, averaging=0.9)
    objective = ObjectiveConfig(alpha=0.5, queue=64)
    fitted = Training(fresh(), config, objective, SpokenSampler(training, ("none",))).run()
    answers = predict(fitted.network, [utterance.features["none"] for utterance in test]).argmax(1)
    assert np.mean(answers == [utterance.label for utterance in test]) > 0.8


@pytest.mark.parametrize("objective", [CROSS_ENTROPY, ObjectiveConfig(alpha=0.5, queue=32)], ids=["alone", "contrast"])
def test_the_same_seed_trains_the_same_network(sampler: SpokenSampler, objective: ObjectiveConfig) -> None:
    config = replace(QUICK, epochs=2, seed=3)
    first, second = (Training(fresh(), config, objective, sampler).run() for _ in range(2))
    assert first.history == second.history
    assert_equal_weights(first.network, second.network)
    other = Training(fresh(), replace(config, seed=4), objective, sampler).run()
    assert changed(weights_of(first.network), other.network)


def test_training_stops_when_validation_no_longer_improves(sampler: SpokenSampler) -> None:
    config = replace(QUICK, epochs=20, patience=2)
    fitted = Training(fresh(), config, CROSS_ENTROPY, sampler, scripted(0.5, 0.7, 0.7, 0.6, 0.9)).run()
    assert [epoch.validation for epoch in fitted.history] == [0.5, 0.7, 0.7, 0.6]
    assert fitted.best_epoch == 2
    assert fitted.validation == 0.7


def test_without_early_stopping_the_last_epoch_is_kept_and_the_scores_are_only_reported(sampler: SpokenSampler) -> None:
    config = replace(QUICK, epochs=5, patience=1, early_stopping=False)
    fitted = Training(fresh(), config, CROSS_ENTROPY, sampler, scripted(0.5, 0.9, 0.7, 0.6, 0.4)).run()
    assert [epoch.validation for epoch in fitted.history] == [0.5, 0.9, 0.7, 0.6, 0.4]
    assert fitted.best_epoch == 5
    unjudged = Training(fresh(), config, CROSS_ENTROPY, sampler).run()
    assert_equal_weights(fitted.network, unjudged.network)


def test_the_network_of_the_best_epoch_is_kept(sampler: SpokenSampler) -> None:
    seen: list[dict[str, torch.Tensor]] = []
    scores = scripted(0.1, 0.8, 0.3, 0.2)

    def validate(network: FusionNetwork) -> float:
        seen.append(weights_of(network))
        return scores(network)

    fitted = Training(fresh(), QUICK, CROSS_ENTROPY, sampler, validate).run()
    assert fitted.best_epoch == 2
    assert changed(seen[1], fitted.network) == set()
    assert changed(seen[3], fitted.network)


def test_without_a_validation_group_the_last_epoch_counts_and_training_ends_where_it_is_told(
    sampler: SpokenSampler,
) -> None:
    fitted = Training(fresh(), QUICK, CROSS_ENTROPY, sampler, stop_after=2).run()
    assert [epoch.validation for epoch in fitted.history] == [None, None]
    assert fitted.best_epoch == 2
    assert fitted.validation == 0


def test_an_early_end_leaves_the_schedule_as_it_was(sampler: SpokenSampler) -> None:
    seen: list[dict[str, torch.Tensor]] = []

    def validate(network: FusionNetwork) -> float:
        seen.append(weights_of(network))
        return 0.0

    Training(fresh(), QUICK, CROSS_ENTROPY, sampler, validate).run()
    stopped = Training(fresh(), QUICK, CROSS_ENTROPY, sampler, stop_after=2).run()
    assert changed(seen[1], stopped.network) == set()


def test_frozen_parts_stay_to_the_bit_and_the_others_learn(sampler: SpokenSampler) -> None:
    network = fresh(replace(SMALL, model="amser-states", state_layers=1))
    before = weights_of(network)
    fitted = Training(network, QUICK, CROSS_ENTROPY, sampler, freeze=("voice",)).run()
    learnt = changed(before, fitted.network)
    assert {name for name in learnt if name.startswith("voice.")} == set()
    parameters = {name for name, value in network.named_parameters() if value.requires_grad}
    unused = {"text.projector.weight", "text.projector.bias"}  # no gradient without contrast
    assert parameters - unused <= learnt


def test_layers_that_began_as_whispers_have_their_own_rate(sampler: SpokenSampler) -> None:
    network = fresh(VOICE)
    before = weights_of(network)
    fitted = Training(network, replace(QUICK, pretrained_learning_rate=0.0), CROSS_ENTROPY, sampler).run()
    learnt = changed(before, fitted.network)
    layers = {name for name in before if name.startswith("deep.states.layers.")}
    assert layers
    assert not layers & learnt
    assert {"deep.states.linear.weight", "deep.predictor.weight"} <= learnt
    slow = Training(fresh(VOICE), replace(QUICK, learning_rate=0.0), CROSS_ENTROPY, sampler).run()
    learnt = {name for name in changed(before, slow.network) if "running" not in name and "num_batches" not in name}
    assert learnt
    assert learnt <= layers


class Interrupted(Exception):  # noqa: N818 - what happened
    """The machine went down."""


def interrupt_after(epochs: int) -> Callable[[Epoch], None]:
    def report(epoch: Epoch) -> None:
        if epoch.number == epochs:
            raise Interrupted

    return report


@pytest.mark.parametrize("objective", [CROSS_ENTROPY, ObjectiveConfig(alpha=0.5, queue=32)], ids=["alone", "contrast"])
def test_an_interrupted_training_goes_on_as_if_nothing_had_happened(
    sampler: SpokenSampler, objective: ObjectiveConfig, tmp_path: Path
) -> None:
    scores = (0.2, 0.6, 0.5, 0.4)
    whole = Training(fresh(), QUICK, objective, sampler, scripted(*scores)).run()
    file = tmp_path / "folder" / "network.state"
    with pytest.raises(Interrupted):
        Training(fresh(), QUICK, objective, sampler, scripted(*scores[:3]), state_file=file).run(interrupt_after(3))
    assert file.is_file()
    torch.manual_seed(99)
    reported: list[Epoch] = []
    resumed = Training(fresh(seed=1), QUICK, objective, sampler, scripted(scores[3]), state_file=file)
    fitted = resumed.run(reported.append)
    assert fitted.history == whole.history
    assert tuple(reported) == whole.history
    assert fitted.best_epoch == whole.best_epoch == 2
    assert_equal_weights(fitted.network, whole.network)
    assert list(tmp_path.rglob("*.*")) == []


def test_an_interrupted_training_of_frozen_parts_goes_on_without_them(sampler: SpokenSampler, tmp_path: Path) -> None:
    config = replace(SMALL, model="amser-states", state_layers=0)

    def train(network: FusionNetwork, report: Callable[[Epoch], None] = lambda _: None) -> Fitted:
        return Training(
            network, QUICK, CROSS_ENTROPY, sampler, freeze=("voice",), state_file=tmp_path / "network.state"
        ).run(report)

    whole = train(fresh(config))
    with pytest.raises(Interrupted):
        train(fresh(config), interrupt_after(1))
    assert_equal_weights(train(fresh(config)).network, whole.network)


def test_answers_come_in_the_order_of_the_questions(random: np.random.Generator) -> None:
    network = fresh().eval()
    asked = [utterance.features["none"] for utterance in separable(9, "a", random)]
    together = logits_of(network, asked, batch_size=4)
    alone = np.concatenate([logits_of(network, [each]) for each in asked])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(predict(network, asked).sum(1), 1, rtol=1e-5)


def test_a_temperature_divides_the_logits(random: np.random.Generator) -> None:
    network = fresh().eval()
    asked = [utterance.features["none"] for utterance in separable(3, "a", random)]
    expected = torch.from_numpy(logits_of(network, asked) / 2.5).softmax(1).numpy()
    np.testing.assert_allclose(predict(network, asked, 2.5), expected, rtol=1e-6)


def test_the_standardisation_is_that_of_all_frames(random: np.random.Generator) -> None:
    mels = [random.normal(2, 3, (80, frames)).astype(np.float32) for frames in (40, 90)]
    network = fresh()
    standardize(network, [features(mel) for mel in mels])
    frames = np.concatenate(mels, axis=1)
    audio = network.get_submodule("audio")
    np.testing.assert_allclose(audio.get_buffer("mean").flatten(), frames.mean(1), rtol=1e-4)
    np.testing.assert_allclose(audio.get_buffer("deviation").flatten(), frames.std(1), rtol=1e-4)


def test_class_weights_even_out_frequencies() -> None:
    weights = class_weights(np.array([0, 0, 0, 1]), 3)
    torch.testing.assert_close(weights, torch.tensor([2 / 3, 2.0, 1.0]))


def test_classes_may_weigh_alike_or_anything_in_between() -> None:
    labels = np.array([0] * 16 + [1] * 4)
    torch.testing.assert_close(class_weights(labels, 3, balance=0), torch.ones(3))
    rare, frequent = (float(class_weights(labels, 2, balance=0.5)[label]) for label in (1, 0))
    assert rare / frequent == pytest.approx(2)  # a fourth as frequent, to the power of one half
    assert 16 * frequent + 4 * rare == pytest.approx(20)


def test_the_schedule_warms_up_and_ends_at_nothing() -> None:
    assert [round(warmup_cosine(progress, 0.1), 3) for progress in (0, 0.05, 0.1, 0.55, 1)] == [0, 0.5, 1, 0.5, 0]


def test_a_class_that_is_never_seen_does_not_stop_the_training(random: np.random.Generator) -> None:
    utterances: list[LabelledUtterance] = separable(16, "a", random)
    network = fresh(replace(SMALL, classes=("low", "high", "never")))
    fitted = Training(network, QUICK, CROSS_ENTROPY, SpokenSampler(utterances, ("none",)), stop_after=1).run()
    assert np.isfinite(fitted.history[0].loss)
