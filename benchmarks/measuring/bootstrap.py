"""How sure a figure is that is a ratio of sums over utterances: bootstrap draws that all rows of a table share.

Utterances are drawn for word errors, speakers for emotions, in which speakers differ more than utterances do. The same
draws for every row make differences between rows paired, which is why their errors are smaller.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Final

import jiwer
import numpy as np
from numpy.typing import NDArray

DRAWS: Final = 1000
SEED: Final = 0
Integers = NDArray[np.int64]


@cache
def draws(units: int) -> Integers:
    """How often each utterance or speaker is in each resample: (DRAWS, units), the same for the same number."""
    equal = np.full(units, 1 / units)
    return np.random.default_rng(SEED).multinomial(units, equal, size=DRAWS)


def word_errors(references: list[str], texts: list[str]) -> tuple[Integers, Integers]:
    """Substitutions, deletions and insertions of each text, and words of each reference; no reference is empty."""
    each = [jiwer.process_words(reference, text) for reference, text in zip(references, texts, strict=True)]
    errors = [result.substitutions + result.deletions + result.insertions for result in each]
    return np.array(errors, np.int64), np.array([len(reference.split()) for reference in references], np.int64)


def per_cent(errors: Integers | NDArray[np.float64], words: Integers) -> tuple[float, float]:
    """100 · Σ errors / Σ words, and its standard error. `errors` (n,) may be differences between two systems."""
    counts = draws(len(words))
    resampled = 100 * (counts @ errors) / (counts @ words)
    return 100 * float(errors.sum() / words.sum()), float(resampled.std(ddof=1))


def interval(errors: Integers, words: Integers, speakers: Sequence[str]) -> tuple[float, float]:
    """Between which 100 · Σ errors / Σ words lies in 95 % of resamples: of speakers, or of one speaker's utterances.

    Args:
        errors, words: (n,) of each utterance.
        speakers: (n,) names. Resamples draw speakers with all their utterances.
    """
    names, speaker = np.unique(np.asarray(speakers, str), return_inverse=True)
    if len(names) > 1:
        of_speaker = (np.arange(len(names))[:, None] == speaker).astype(np.int64)  # (speakers, n)
        errors, words = of_speaker @ errors, of_speaker @ words
    counts = draws(len(words))
    resampled = 100 * (counts @ errors) / np.maximum(counts @ words, 1)
    low, high = np.quantile(resampled, [0.025, 0.975])
    return float(low), float(high)


def recall_difference(
    hits: NDArray[np.bool_], reference: NDArray[np.bool_], truth: Integers, speakers: Sequence[str]
) -> tuple[float, float]:
    """Difference between two recognisers' unweighted accuracies on the same utterances, and its standard error.

    Args:
        hits, reference: (n,), which utterances each of them has right.
        truth: (n,) class numbers. A resample that misses a class is judged on those it has.
        speakers: (n,) names. Resamples draw speakers with all their utterances; the error is nan under two of them.
    """
    better = hits.astype(np.int64) - reference.astype(np.int64)
    members = (truth[:, None] == np.unique(truth)).astype(np.int64)  # (n, classes)
    value = ((better @ members) / members.sum(0)).mean()
    names, speaker = np.unique(np.asarray(speakers, str), return_inverse=True)
    if len(names) < 2:
        return float(value), math.nan
    of_speaker = (np.arange(len(names))[:, None] == speaker).astype(np.int64)  # (speakers, n)
    counts = draws(len(names))
    drawn = counts @ (of_speaker @ members)
    gained = counts @ (of_speaker @ (better[:, None] * members))
    recalls = np.where(drawn > 0, gained / np.maximum(drawn, 1), np.nan)
    return float(value), float(np.nanmean(recalls, axis=1).std(ddof=1))
