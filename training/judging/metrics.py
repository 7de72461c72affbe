"""Figures of an emotion classifier: weighted and unweighted accuracy, F1, each with its interval by speaker.

Weighted accuracy (WA) is the share of utterances that are right; unweighted accuracy (UA) is the mean recall of the
classes that occur. Intervals are percentiles of a cluster bootstrap: speakers are drawn with replacement, and all
utterances of a drawn speaker come along. Utterances of one speaker resemble each other, so drawing utterances would
give intervals that are too narrow for new speakers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 2000
CONFIDENCE = 0.95

Counts = NDArray[np.int64]
Figures = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its bootstrap 95 % interval, whose bounds are nan where there are fewer than two speakers."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, slots=True)
class Scores:
    """All figures of one set of answers, over the classes that occur among the true labels.

    `n` utterances of `n_speakers`.
    """

    wa: Estimate
    ua: Estimate
    macro_f1: Estimate
    weighted_f1: Estimate
    n: int
    n_speakers: int


def score(
    truth: ArrayLike, answers: ArrayLike, speakers: Sequence[str], *, resamples: int = RESAMPLES, seed: int = 0
) -> Scores:
    """Figures of `answers` against `truth`, two vectors of class numbers; `speakers` has the name for each utterance.

    An answer outside the classes that occur counts as wrong. A resample that misses a class is scored on those it has.

    Raises:
        ValueError: the vectors are empty or of different lengths.
    """
    matrices = _confusion_by_speaker(truth, answers, speakers)
    wa, ua, macro_f1, weighted_f1 = _bootstrap(
        lambda draws: _figures(_pooled(draws, matrices)), len(matrices), resamples, seed
    )
    return Scores(wa, ua, macro_f1, weighted_f1, int(matrices.sum()), len(matrices))


def ua_difference(
    truth: ArrayLike,
    answers: ArrayLike,
    others: ArrayLike,
    speakers: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """By how much the unweighted accuracy of `answers` is above that of `others`, on the same utterances.

    Both systems are scored on the same drawn speakers, so the interval is that of the paired difference.

    Raises:
        ValueError: the vectors are empty or of different lengths.
    """
    mine, theirs = (_confusion_by_speaker(truth, each, speakers) for each in (answers, others))

    def of_draws(draws: Counts) -> Figures:
        difference: Figures = _figures(_pooled(draws, mine))[1] - _figures(_pooled(draws, theirs))[1]
        return difference

    return bootstrap(of_draws, len(mine), resamples=resamples, seed=seed)


def bootstrap(
    statistic: Callable[[Counts], Figures], speakers: int, *, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """A statistic with its percentile interval over draws of speakers.

    Args:
        statistic: takes how often each speaker is drawn (draws, speakers), returns the figure of each draw (draws,).
        speakers: how many there are.
        resamples: number of draws.
        seed: of the draws: two statistics with the same seed see the same ones.
    """
    (estimate,) = _bootstrap(lambda draws: statistic(draws)[None], speakers, resamples, seed)
    return estimate


def _bootstrap(statistics: Callable[[Counts], Figures], speakers: int, resamples: int, seed: int) -> list[Estimate]:
    """Estimates of several statistics (statistics, draws) at once."""
    values = statistics(np.ones((1, speakers), np.int64))[:, 0]
    if speakers < 2:  # nothing is known about how speakers differ
        return [Estimate(float(value), math.nan, math.nan) for value in values]
    draws = np.random.default_rng(seed).multinomial(speakers, np.full(speakers, 1 / speakers), size=resamples)
    tail = (1 - CONFIDENCE) / 2
    bounds = np.quantile(statistics(draws), [tail, 1 - tail], axis=1)
    return [Estimate(float(value), float(low), float(high)) for value, low, high in zip(values, *bounds, strict=True)]


def _confusion_by_speaker(truth: ArrayLike, answers: ArrayLike, speakers: Sequence[str]) -> Counts:
    """Confusion matrices (speakers, classes, classes) that sum to that of all utterances."""
    size = len(confusion(truth, answers))
    truth, answers = np.asarray(truth, np.int64), np.asarray(answers, np.int64)
    names, speaker = np.unique(np.asarray(speakers, str), return_inverse=True)
    if speaker.shape != truth.shape:
        raise ValueError(f"{len(truth)} labels and {len(speaker)} speakers: one speaker for each utterance is needed")
    cells = (speaker * size + truth) * size + answers
    return np.bincount(cells, minlength=len(names) * size * size).reshape(len(names), size, size)


def _pooled(draws: Counts, matrices: Counts) -> Figures:
    """Confusion matrices (draws, classes, classes) of the speakers that each draw (draws, speakers) has."""
    speakers, classes, _ = matrices.shape
    pooled: Figures = draws.astype(np.float64) @ matrices.reshape(speakers, -1).astype(np.float64)
    return pooled.reshape(-1, classes, classes)


def unweighted_accuracy(truth: ArrayLike, answers: ArrayLike) -> float:
    """Mean recall of the classes that occur in `truth`."""
    return float(_figures(confusion(truth, answers))[1])


def macro_f1(truth: ArrayLike, answers: ArrayLike) -> float:
    """Mean F1 of the classes that occur in `truth`."""
    return float(_figures(confusion(truth, answers))[2])


def confusion(truth: ArrayLike, answers: ArrayLike, classes: int = 0) -> Counts:
    """Counts (classes, classes): row the true class, column the answer; at least as many classes as occur."""
    truth, answers = np.asarray(truth, np.int64), np.asarray(answers, np.int64)
    if truth.shape != answers.shape or truth.ndim != 1 or not len(truth):
        raise ValueError(f"{truth.shape} labels and {answers.shape} answers: two vectors of one length are needed")
    size = max(classes, int(truth.max()) + 1, int(answers.max()) + 1)
    return np.bincount(truth * size + answers, minlength=size * size).reshape(size, size)


def _figures(matrix: Counts | Figures) -> Figures:
    """Confusion matrices (…, C, C) → WA, UA, macro F1 and weighted F1, (4, …)."""
    hits = np.diagonal(matrix, axis1=-2, axis2=-1).astype(np.float64)
    support, answered = matrix.sum(-1), matrix.sum(-2)
    present = support > 0
    recall = np.divide(hits, support, out=np.zeros_like(hits), where=present)
    f1 = np.divide(2 * hits, support + answered, out=np.zeros_like(hits), where=present)
    classes, utterances = present.sum(-1), support.sum(-1)
    return np.stack(
        (
            hits.sum(-1) / utterances,
            recall.sum(-1) / classes,
            f1.sum(-1) / classes,
            (f1 * support).sum(-1) / utterances,
        )
    )
