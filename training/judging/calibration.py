"""Calibrated probabilities: one temperature for all logits (Guo et al., ICML 2017), and measures of what is left.

The expected calibration error compares confidence with accuracy; the negative log-likelihood scores every probability.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

BINS = 15  # of confidence, as in the paper
TEMPERATURES = (0.05, 20.0)
SMALLEST = 1e-7  # a probability counts as at least this: float32 rounds a softmax to 0


def fit_temperature(logits: NDArray[np.floating], labels: ArrayLike, weights: ArrayLike | None = None) -> float:
    """The temperature that makes the labels (n,) most likely under logits (n, classes) of held-out utterances.

    `weights` (n,) say how much each utterance counts; None for alike.
    """
    rows, truth = np.asarray(logits, np.float64), np.asarray(labels, np.int64)
    counted = np.ones(len(truth)) if weights is None else np.asarray(weights, np.float64)

    def negative_log_likelihood(log_temperature: float) -> float:
        likely = log_softmax(rows / np.exp(log_temperature), axis=1)
        return -float(np.average(likely[np.arange(len(truth)), truth], weights=counted))

    bounds = (np.log(TEMPERATURES[0]), np.log(TEMPERATURES[1]))
    return float(np.exp(minimize_scalar(negative_log_likelihood, bounds=bounds, method="bounded").x))


def expected_calibration_error(probabilities: NDArray[np.floating], labels: ArrayLike, bins: int = BINS) -> float:
    """Mean distance between the confidence of answers and their accuracy, over bins of equal width.

    Args:
        probabilities: (n, classes).
        labels: int (n,).
        bins: of the highest probability, 0 to 1.

    Returns:
        0 to 1; a bin weighs as many answers as it has.
    """
    confidence = probabilities.max(1)
    correct = probabilities.argmax(1) == np.asarray(labels)
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    counts = np.bincount(bin_of, minlength=bins)
    gaps = np.abs(np.bincount(bin_of, correct, bins) - np.bincount(bin_of, confidence, bins))  # each times its count
    return float(gaps.sum() / counts.sum())


def negative_log_likelihood(probabilities: NDArray[np.floating], labels: ArrayLike) -> float:
    """Mean of -ln(probability of the true class), in nats; ln(classes) for equal probabilities.

    Args:
        probabilities: (n, classes); one under `SMALLEST` counts as that.
        labels: int (n,).
    """
    truth = np.asarray(labels, np.int64)
    likely = np.asarray(probabilities, np.float64)[np.arange(len(truth)), truth]
    return float(-np.log(np.maximum(likely, SMALLEST)).mean())


def sure_threshold(
    probabilities: NDArray[np.floating], labels: ArrayLike, accuracy: float, weights: ArrayLike | None = None
) -> float:
    """The lowest confidence from which answers are right often enough; 1 where none is.

    Args:
        probabilities: (n, classes), calibrated, of held-out utterances.
        labels: int (n,).
        accuracy: share of right ones that is asked of the answers with at least that confidence.
        weights: (n,), how much each utterance counts; None for alike.
    """
    confidence = np.asarray(probabilities).max(1)
    correct = (np.asarray(probabilities).argmax(1) == np.asarray(labels)).astype(np.float64)
    counted = np.ones(len(correct)) if weights is None else np.asarray(weights, np.float64)
    order = np.argsort(-confidence, kind="stable")
    right_above = np.cumsum((correct * counted)[order]) / np.cumsum(counted[order])
    is_last = np.append(np.diff(confidence[order]) < 0, True)  # of those of equal confidence
    enough = np.flatnonzero((right_above >= accuracy) & is_last)
    return float(confidence[order][enough[-1]]) if len(enough) else 1.0
