"""Figures of an emotion classifier: weighted and unweighted accuracy, F1, each with its interval.

Weighted accuracy (WA) is the share of utterances that are right; unweighted accuracy (UA) is the mean recall of the
classes that occur. Intervals are percentiles of bootstrap resamples of the utterances.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its bootstrap 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, slots=True)
class Scores:
    """All figures of one set of answers, over the classes that occur among the true labels; n utterances."""

    wa: Estimate
    ua: Estimate
    macro_f1: Estimate
    weighted_f1: Estimate
    n: int


def score(truth: ArrayLike, answers: ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0) -> Scores:
    """Figures of `answers` against `truth`, two vectors of class numbers.

    An answer outside the classes that occur counts as wrong. A resample that misses a class is scored on those it has.

    Raises:
        ValueError: the vectors are empty or of different lengths.
    """
    matrix = confusion(truth, answers)
    utterances = int(matrix.sum())
    # Drawing utterances with replacement is drawing from the cells of the confusion matrix, which is much faster.
    draws = np.random.default_rng(seed).multinomial(utterances, (matrix / utterances).ravel(), size=resamples)
    tail = (1 - CONFIDENCE) / 2
    bounds = np.quantile(_figures(draws.reshape(resamples, *matrix.shape)), [tail, 1 - tail], axis=1)
    wa, ua, macro_f1, weighted_f1 = (
        Estimate(float(value), float(low), float(high))
        for value, low, high in zip(_figures(matrix), *bounds, strict=True)
    )
    return Scores(wa, ua, macro_f1, weighted_f1, utterances)


def unweighted_accuracy(truth: ArrayLike, answers: ArrayLike) -> float:
    """Mean recall of the classes that occur in `truth`."""
    return float(_figures(confusion(truth, answers))[1])


def macro_f1(truth: ArrayLike, answers: ArrayLike) -> float:
    """Mean F1 of the classes that occur in `truth`."""
    return float(_figures(confusion(truth, answers))[2])


def confusion(truth: ArrayLike, answers: ArrayLike, classes: int = 0) -> NDArray[np.int64]:
    """Counts (classes, classes): row the true class, column the answer; at least as many classes as occur."""
    truth, answers = np.asarray(truth, np.int64), np.asarray(answers, np.int64)
    if truth.shape != answers.shape or truth.ndim != 1 or not len(truth):
        raise ValueError(f"{truth.shape} labels and {answers.shape} answers: two vectors of one length are needed")
    size = max(classes, int(truth.max()) + 1, int(answers.max()) + 1)
    return np.bincount(truth * size + answers, minlength=size * size).reshape(size, size)


def _figures(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
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
