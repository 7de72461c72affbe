"""Log-Mels and their sensitivity → the tables of `klt`: basis, scales and the frequencies of its symbols."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from amser.codecs.base import Float32
from amser.codecs.klt_tables import (
    BANDS,
    BLOCKS,
    FINEST_STEP,
    FREQUENCY_BITS,
    SCALES_PER_CLASS,
    STEPS_PER_OCTAVE,
    level_index,
    level_of,
    step_of,
)
from training.klt.sensitivity import Sensitivity

Float64 = NDArray[np.float64]
Arrays = dict[str, NDArray[Any]]

BAND_POWER = 0.5  # of the sensitivity across bands: 0 is plain error, 1 what is right for small errors
TIME_POWER = 0.3  # the same along time
LEAST_SENSITIVITY = 1e-4  # of the largest

STEPS = range(4, 55, 3)  # step indices that the tables are learnt at
FIRST_SCALE = -5 * STEPS_PER_OCTAVE  # mean magnitude of a coefficient, in steps, under which it is not written: 1/32
CLASSES = 48  # of SCALES_PER_CLASS scales each
LARGEST_MAGNITUDE = 500  # what passes it is written apart
ROUNDS = 3  # of tables for scales and scales for tables
RATE_WEIGHT = 0.1  # squared error, in steps, that a bit is worth
CUT_COST = 12.0  # bits, about, for writing apart what passes the largest magnitude
PRIOR = 30.0  # symbols of a Laplace distribution that are counted into every class


def fit(log_mels: Sequence[Float32], sensitivity: Sensitivity) -> Arrays:
    """All arrays of `klt.npz` but what it says about itself."""
    levelled = [each - level_of(level_index(float(each.max()))) for each in log_mels]
    frames = np.concatenate(levelled, axis=1).astype(np.float64)
    mean = frames.mean(1)
    metric = _root(sensitivity.bands, BAND_POWER / 2)
    variances, vectors = np.linalg.eigh(metric @ np.cov(frames) @ metric)
    vectors = vectors[:, np.argsort(-variances)]
    analysis, synthesis = vectors.T @ metric, np.linalg.inv(metric) @ vectors
    arrays: Arrays = {
        "mean": mean.astype(np.float32),
        "analysis": analysis.astype(np.float32),
        "synthesis": synthesis.astype(np.float32),
    }
    coefficients = {}
    for length in BLOCKS:
        weights = _weights(sensitivity.modulation, length)
        arrays[f"weights_{length}"] = weights.astype(np.float32)
        coefficients[length] = np.concatenate([_blocks(analysis, mean, each, weights) for each in levelled])
    scales, tables = _scales_and_tables(coefficients)
    arrays |= {f"scales_{length}": scales[length].astype(np.int16) for length in BLOCKS}
    return arrays | tables


def _root(matrix: Float64, power: float) -> Float64:
    """A power of a symmetric matrix, scaled to a determinant of 1 so that steps keep their meaning."""
    values, vectors = np.linalg.eigh(matrix)
    powers = np.maximum(values, LEAST_SENSITIVITY * values.max()) ** power
    root: Float64 = (vectors * (powers / np.exp(np.log(powers).mean()))) @ vectors.T
    return root


def _weights(modulation: Float64, length: int) -> Float64:
    """By which the cosines of a block are divided, from the sensitivity to those of another length; mean log 0."""
    places = (np.arange(length) + 0.5) / length
    known = (np.arange(len(modulation)) + 0.5) / len(modulation)
    weights = np.interp(places, known, modulation) ** (-TIME_POWER / 2)
    scaled: Float64 = weights / np.exp(np.log(weights).mean())
    return scaled


def _blocks(analysis: Float64, mean: Float64, log_mel: Float32, weights: Float64) -> Float64:
    """(blocks, 80, n): weighted coefficients; the end that fills no block is left out."""
    length = len(weights)
    count = log_mel.shape[1] // length
    rows = (analysis @ (log_mel[:, : count * length] - mean[:, None])).reshape(BANDS, count, length)
    cosines: Float64 = fft.dct(rows, axis=2, norm="ortho").transpose(1, 0, 2) / weights
    return cosines


def _scales_and_tables(coefficients: dict[int, Float64]) -> tuple[dict[int, NDArray[np.int64]], Arrays]:
    """Scales (80, n) by length of block, and the arrays of the symbol classes."""
    scales = {
        length: np.round(STEPS_PER_OCTAVE * np.log2(np.abs(values).mean(0) / FINEST_STEP)).astype(np.int64)
        for length, values in coefficients.items()
    }
    thresholds, roundings = np.full(CLASSES, 0.6), np.full(CLASSES, 0.4)
    for _ in range(ROUNDS):
        counts, sums = _count(coefficients, scales, thresholds, roundings)
        frequencies = [_frequencies(number, count) for number, count in enumerate(counts)]
        thresholds, roundings = _decisions(frequencies)
        scales = {
            length: _likeliest(values, scales[length], frequencies, thresholds, roundings)
            for length, values in coefficients.items()
        }
    counts, sums = _count(coefficients, scales, thresholds, roundings)
    frequencies = [_frequencies(number, count) for number, count in enumerate(counts)]
    largest = [len(each) // 2 for each in frequencies]
    firsts = [FIRST_SCALE + SCALES_PER_CLASS * number for number in range(CLASSES)]
    return scales, {
        "classes": np.array([firsts, largest], np.int32).T,
        "frequencies": np.concatenate(frequencies).astype(np.int32),
        "thresholds": thresholds.astype(np.float32),
        "roundings": roundings.astype(np.float32),
        "values": np.concatenate([_values(*each) for each in zip(counts, sums, strict=True)]).astype(np.float32),
    }


def _largest(number: int) -> int:
    """Magnitude that a class has symbols for: eight times its mean."""
    mean = 2 ** ((FIRST_SCALE + SCALES_PER_CLASS * (number + 1)) / STEPS_PER_OCTAVE)
    return min(LARGEST_MAGNITUDE, int(np.ceil(8 * mean)) + 2)


def _classes_of(scales: NDArray[np.int64], step_index: int) -> NDArray[np.int64]:
    """Class of each coefficient; negative where it is not written."""
    return np.minimum((scales - step_index - FIRST_SCALE) // SCALES_PER_CLASS, CLASSES - 1)


def _quantize(steps: Float64, threshold: Float64, rounding: Float64) -> NDArray[np.int64]:
    magnitudes: NDArray[np.int64] = np.where(steps < threshold, 0, np.maximum(1, np.floor(steps + rounding))).astype(
        np.int64
    )
    return magnitudes


def _count(
    coefficients: dict[int, Float64],
    scales: dict[int, NDArray[np.int64]],
    thresholds: Float64,
    roundings: Float64,
) -> tuple[list[Float64], list[Float64]]:
    """Of each class: how often a magnitude occurred, over all steps, and the sum of what it stood for."""
    counts = [np.zeros(_largest(number) + 1) for number in range(CLASSES)]
    sums = [np.zeros(_largest(number) + 1) for number in range(CLASSES)]
    for length, values in coefficients.items():
        magnitudes = np.abs(values)
        for step_index in STEPS:
            classes = _classes_of(scales[length], step_index)
            for number in np.unique(classes[classes >= 0]):
                steps = magnitudes[:, classes == number].ravel() / step_of(step_index)
                symbols = _quantize(steps, thresholds[number], roundings[number]).clip(max=_largest(number))
                counts[number] += np.bincount(symbols, minlength=len(counts[number]))
                sums[number] += np.bincount(symbols, steps, minlength=len(sums[number]))
    return counts, sums


def _frequencies(number: int, counts: Float64) -> NDArray[np.int64]:
    """Of the symbols −largest to largest, each at least 1, together 2 to `FREQUENCY_BITS`."""
    mean = 2 ** ((FIRST_SCALE + SCALES_PER_CLASS * (number + 0.5)) / STEPS_PER_OCTAVE)
    laplace = np.exp(-np.arange(len(counts)) / mean)
    laplace[1:] *= 2
    shares = counts + PRIOR * laplace / laplace.sum()
    shares /= shares.sum()
    to_share = 2**FREQUENCY_BITS - 2 * len(counts) + 1  # after one for each symbol
    one_sided = 1 + np.floor(shares[1:] / 2 * to_share).astype(np.int64)
    zero = 2**FREQUENCY_BITS - 2 * one_sided.sum()
    return np.concatenate((one_sided[::-1], [zero], one_sided))


def _bits(frequencies: NDArray[np.int64]) -> Float64:
    """Of magnitudes 0, 1, …; the sign is among them."""
    bits: Float64 = FREQUENCY_BITS - np.log2(frequencies[len(frequencies) // 2 :])
    return bits


def _decisions(frequencies: Sequence[NDArray[np.int64]]) -> tuple[Float64, Float64]:
    """Threshold and rounding of each class that cost least in squared error and `RATE_WEIGHT` times bits."""
    thresholds, roundings = [], []
    for each in frequencies:
        bits = _bits(each)
        slope = np.average(np.diff(bits)[1:], weights=each[len(each) // 2 + 2 :]) if len(bits) > 2 else 0.0
        thresholds.append(0.5 + RATE_WEIGHT / 2 * max(0.0, bits[1] - bits[0]))
        roundings.append(0.5 - RATE_WEIGHT / 2 * max(0.0, slope))
    return np.array(thresholds), np.array(roundings)


def _likeliest(
    values: Float64,
    scales: NDArray[np.int64],
    frequencies: Sequence[NDArray[np.int64]],
    thresholds: Float64,
    roundings: Float64,
) -> NDArray[np.int64]:
    """For each coefficient, of the scales around the old one, the one with the fewest bits over all steps."""
    shifts = np.arange(-STEPS_PER_OCTAVE, STEPS_PER_OCTAVE + 1, SCALES_PER_CLASS)
    costs = np.zeros((len(shifts), *scales.shape))
    magnitudes = np.abs(values)
    for step_index in STEPS:
        written = _classes_of(scales, step_index) >= 0
        for position, shift in enumerate(shifts):
            classes = np.maximum(0, _classes_of(scales + shift, step_index))
            for number in np.unique(classes[written]):
                those = written & (classes == number)
                steps = magnitudes[:, those] / step_of(step_index)
                symbols = _quantize(steps, thresholds[number], roundings[number])
                cut = symbols > _largest(number)
                costs[position, those] += _bits(frequencies[number])[np.where(cut, -1, symbols)].sum(0)
                costs[position, those] += CUT_COST * cut.sum(0)
    return scales + np.where(costs.any(0), shifts[costs.argmin(0)], 0)


def _values(counts: Float64, sums: Float64) -> Float64:
    """What a symbol stands for, in steps: the mean of what was rounded to it, drawn to itself where that was rare."""
    magnitudes = np.arange(len(counts))
    means = (sums + PRIOR * magnitudes) / (counts + PRIOR)
    means[0], means[-1] = 0, magnitudes[-1]  # the last one is what is counted on from, not a mean
    return np.concatenate((-means[:0:-1], means))
