"""The training loop: gradients, schedule, early stopping. Knows nothing of corpora or files.

Cross-entropy on the predictor's logits (the first term of equation 8), classes weighted against their frequency.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fusion.batch import UtteranceFeatures, collate
from fusion.dataset import LabelledUtterance, TrainingSampler, shuffled_batches
from fusion.metrics import unweighted_accuracy
from fusion.network import AmserPlus, FusionConfig

DEVIATION_FLOOR = 1e-3  # of the standardisation: a band that never changes stays finite


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """How to train.

    Attributes:
        epochs: length of the learning-rate schedule; early stopping may end sooner.
        patience: epochs without a better validation score before stopping.
        batch_size: utterances in a step.
        learning_rate: peak of the schedule: linear warm-up, then cosine to zero.
        warmup: share of the schedule that warms up.
        weight_decay: of AdamW.
        label_smoothing: of the cross-entropy.
        gradient_norm: gradients are clipped to it.
        averaging: decay of the exponential moving average of the weights, per step, which is what is judged and kept.
        seed: of weights, order and augmentation.
    """

    epochs: int = 40
    patience: int = 12
    batch_size: int = 32
    learning_rate: float = 1e-3
    warmup: float = 0.1
    weight_decay: float = 1e-2
    label_smoothing: float = 0.1
    gradient_norm: float = 1.0
    averaging: float = 0.98
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one epoch came to; `validation_ua` is None where there is no validation group."""

    number: int
    loss: float
    validation_ua: float | None


@dataclass(frozen=True, slots=True)
class Fitted:
    """A trained network, in evaluation mode.

    Attributes:
        network: with the averaged weights of its best epoch, or of its last without a validation group.
        best_epoch: how many epochs those weights took.
        history: every epoch.
    """

    network: AmserPlus
    best_epoch: int
    history: tuple[Epoch, ...]


def fit(
    network_config: FusionConfig,
    config: TrainingConfig,
    training: Sequence[LabelledUtterance],
    sampler: TrainingSampler,
    validation: Sequence[LabelledUtterance] = (),
    *,
    stop_after: int | None = None,
    report: Callable[[Epoch], None] = lambda _: None,
) -> Fitted:
    """Train a network from scratch.

    Args:
        network_config: its sizes.
        config: how to train.
        training: what it learns from.
        sampler: how it sees it.
        validation: other speakers, for early stopping; the score is the mean UA over the sampler's codec settings.
        stop_after: end after so many epochs of the schedule.
        report: is told of every epoch.
    """
    torch.manual_seed(config.seed)
    random = np.random.default_rng(config.seed)
    network = AmserPlus(network_config)
    _standardize(network, training)
    labels = np.array([utterance.label for utterance in training])
    frames = [_frames(utterance) for utterance in training]
    loss_of = nn.CrossEntropyLoss(
        weight=class_weights(labels, len(network_config.classes)), label_smoothing=config.label_smoothing
    )
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    steps = config.epochs * max(1, round(len(training) / config.batch_size))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: warmup_cosine(step / steps, config.warmup))
    averaged = copy.deepcopy(network).eval()
    best, best_epoch, best_ua = averaged, 0, -1.0
    history: list[Epoch] = []

    for number in range(1, min(config.epochs, stop_after or config.epochs) + 1):
        network.train()
        losses: list[float] = []
        for indices in shuffled_batches(frames, config.batch_size, random):
            batch = collate([sampler.draw(training[index], random) for index in indices])
            loss = loss_of(network(batch).logits, torch.from_numpy(labels[indices]))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), config.gradient_norm)
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
            _average_into(averaged, network, _decay(config.averaging, schedule.last_epoch))
        ua = _validate(averaged, validation, sampler.codecs) if validation else None
        history.append(Epoch(number, float(np.mean(losses)), ua))
        report(history[-1])
        if ua is None:
            best, best_epoch = averaged, number
        elif ua > best_ua:
            best, best_epoch, best_ua = copy.deepcopy(averaged), number, ua
        elif number - best_epoch >= config.patience:
            break
    return Fitted(best, best_epoch, tuple(history))


def predict(network: AmserPlus, utterances: Sequence[UtteranceFeatures], batch_size: int = 32) -> NDArray[np.float32]:
    """Probabilities (n, classes), in the order given; batches are formed by length."""
    order = np.argsort([utterance.log_mel.shape[1] for utterance in utterances], kind="stable")
    probabilities = np.zeros((len(utterances), len(network.config.classes)), np.float32)
    network.eval()
    with torch.inference_mode():
        for begin in range(0, len(order), batch_size):
            indices = order[begin : begin + batch_size]
            logits = network(collate([utterances[index] for index in indices])).logits
            probabilities[indices] = logits.softmax(1).numpy()
    return probabilities


def class_weights(labels: NDArray[np.int64], classes: int) -> Tensor:
    """One weight a class, inverse to its frequency, float32; a class that does not occur gets 1."""
    counts = np.bincount(labels, minlength=classes)
    weights = np.divide(counts.sum(), np.count_nonzero(counts) * counts, out=np.ones(classes), where=counts > 0)
    return torch.tensor(weights, dtype=torch.float32)


def warmup_cosine(progress: float, warmup: float) -> float:
    """Share of the peak learning rate at a progress of 0 to 1: linear up, then half a cosine down to zero."""
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + float(np.cos(np.pi * min(1.0, (progress - warmup) / (1 - warmup)))))


def _validate(network: AmserPlus, validation: Sequence[LabelledUtterance], codecs: Sequence[str]) -> float:
    labels = [utterance.label for utterance in validation]
    scores = []
    for codec in codecs:
        probabilities = predict(network, [utterance.features[codec] for utterance in validation])
        scores.append(unweighted_accuracy(labels, probabilities.argmax(1)))
    return float(np.mean(scores))


def _standardize(network: AmserPlus, training: Sequence[LabelledUtterance]) -> None:
    mels = [_any_features(utterance).log_mel.astype(np.float32) for utterance in training]
    means = np.mean([mel.mean(1) for mel in mels], axis=0)
    squares = np.mean([np.square(mel).mean(1) for mel in mels], axis=0)
    deviation = np.sqrt(np.maximum(squares - np.square(means), DEVIATION_FLOOR**2))
    network.audio.standardize_by(torch.from_numpy(means), torch.from_numpy(deviation))


def _average_into(averaged: nn.Module, network: nn.Module, decay: float) -> None:
    with torch.no_grad():
        for kept, fresh in zip(averaged.parameters(), network.parameters(), strict=True):
            kept.lerp_(fresh, 1 - decay)
        for statistic, latest in zip(averaged.buffers(), network.buffers(), strict=True):
            statistic.copy_(latest)


def _decay(decay: float, step: int) -> float:
    # The average of the first steps must not remember the random start.
    return min(decay, (1 + step) / (10 + step))


def _any_features(utterance: LabelledUtterance) -> UtteranceFeatures:
    return next(iter(utterance.features.values()))


def _frames(utterance: LabelledUtterance) -> int:
    return int(_any_features(utterance).log_mel.shape[1])
