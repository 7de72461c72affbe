"""Several channels → one, by one rule for files, training and measurements: the mean of the channels that speak.

The mean of all channels drowns speech in one channel under noise, music or hum in another, and cancels channels of
opposite phase. Speech is told by how the shape of its spectrum moves: within 50 ms from vowel to consonant, and all the
more than from one window to the next. Noise is as different from one window to the next as in 50 ms, and a tone or a
chord stands still. It is not told by its level or its pauses, which a bark and a clock have too.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import fft

Float32 = NDArray[np.float32]
Complex64 = NDArray[np.complex64]

WINDOW_SECONDS: Final = 0.032  # every 16 ms
BAND_EDGES: Final = (250, 400, 550, 750, 1000, 1300, 1700, 2200, 2800, 3500)  # Hz: what a telephone passes too
LATER: Final = 3  # windows, 48 ms: then another sound is said
LOUDEST_FRAMES: Final = 12  # 0.2 s: a click is shorter, and is not what loudness is measured from
HEARD: Final = 25.0  # dB below the loudest 0.2 s: what is softer is a pause
LEAST_MOVEMENT: Final = 1.5  # dB; 260 recordings of speech have more, and 518 of 520 with noise 10 dB below it
FAR_LESS: Final = 0.4  # of the movement in another channel
FEWEST_PAIRS: Final = 6  # of windows that are compared
FEWEST_FRAMES: Final = 30  # 0.5 s: less is not judged
OPPOSITE: Final = -0.1  # correlation below which a channel is inverted; unrelated channels are nearer to 0
LEAST_DIFFERENCE: Final = 0.03  # of the power of the sum; what a lossy codec makes differ is less


def mix_down(channels: Float32, rate: int) -> Float32:
    """One waveform of several channels.

    A channel is left out where its spectrum moves far less than another's, and less than speech does: then the other
    one speaks. Where that cannot be said all stay, so that two people in a channel each are heard both. A channel in
    opposite phase to the loudest is inverted. Channels that hold the same keep their mean to the last bit.

    Args:
        channels: shape (samples, channels), one channel or more.
        rate: samples per second.

    Returns:
        float32, shape (samples,). Channels with values that are not finite count where all have such.
    """
    finite = np.isfinite(channels).all(axis=0)
    if finite.any() and not finite.all():
        channels = channels[:, finite]
    if (channels == channels[:, :1]).all() or not finite.any():
        return _mean(channels)
    peaks = np.maximum(np.abs(channels).max(axis=0), np.finfo(np.float32).tiny).astype(np.float64)
    spectra = [spectrum_of(channel, rate, float(peak)) for channel, peak in zip(channels.T, peaks, strict=True)]
    kept = _speaking([movement(spectrum, rate) for spectrum in spectra])
    powers = np.einsum("ij,ij->j", channels, channels, dtype=np.float64)
    loudest = max(kept, key=powers.__getitem__)
    signs = np.ones(len(kept), np.float32)
    for place, each in enumerate(kept):
        if each != loudest and _opposite(spectra[loudest], spectra[each], peaks[each] / peaks[loudest], rate):
            signs[place] = -1
    if len(kept) == len(spectra) and (signs > 0).all():
        return _mean(channels)
    return _mean(channels[:, kept] * signs)


def movement(spectrum: Complex64, rate: int) -> float:
    """How much more the shape of a spectrum changes in 48 ms than in 16, in dB: 3 to 6 in speech, under 1 in noise.

    Args:
        spectrum: shape (frames, bins), of `spectrum_of`.
        rate: samples per second.

    Returns:
        `LEAST_MOVEMENT` where there is too little to be judged.
    """
    if len(spectrum) < FEWEST_FRAMES:
        return LEAST_MOVEMENT
    power: Float32 = np.square(np.abs(spectrum))
    levels = _decibels(power @ _bands(rate))  # (frames, bands)
    loudness = _decibels(power.sum(axis=1))
    peak = np.partition(loudness, -LOUDEST_FRAMES)[-LOUDEST_FRAMES]
    heard = loudness > peak - HEARD
    np.maximum(levels, peak - 2 * HEARD, out=levels)
    shapes = levels - levels.mean(axis=1, keepdims=True)
    changes = []
    for step in (1, LATER):
        pairs = heard[step:] & heard[:-step]
        if np.count_nonzero(pairs) < FEWEST_PAIRS:
            return LEAST_MOVEMENT
        changes.append(float(np.abs(shapes[step:][pairs] - shapes[:-step][pairs]).mean()))
    at_once, later = changes
    return math.sqrt(max(0.0, later**2 - at_once**2))


def spectrum_of(channel: Float32, rate: int, peak: float = 1.0) -> Complex64:
    """(samples,) → (frames, bins): the part of the spectrum in which speech is, of the channel divided by `peak`."""
    length = _window_length(rate)
    padded = np.pad(channel, (0, max(0, length - channel.size)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, length)[:: length // 2]
    spectrum = fft.rfft(windows * (np.hanning(length) / peak).astype(np.float32), axis=1)
    first, *_, end = _edges(rate)
    return spectrum[:, first:end].astype(np.complex64)


def _speaking(movements: list[float]) -> list[int]:
    """The positions of those that are kept."""
    least = min(LEAST_MOVEMENT, FAR_LESS * max(movements))
    return [position for position, each in enumerate(movements) if each >= least]


def _opposite(loudest: Complex64, other: Complex64, level: float, rate: int) -> bool:
    """Whether a channel, its spectrum times `level`, is to be inverted before it is added to the loudest.

    Two wires of a balanced line carry the voice in opposite phase and a noise in the same: the noise may be louder, and
    the channels alike. Then their difference speaks and their sum does not.
    """
    if _correlation(loudest, other) < OPPOSITE:
        return True
    levelled = (other * np.float32(level)).astype(np.complex64, copy=False)
    total, difference = loudest + levelled, loudest - levelled
    if _power(difference) < LEAST_DIFFERENCE * _power(total):
        return False
    return _speaking([movement(total, rate), movement(difference, rate)]) == [1]


def _correlation(one: Complex64, other: Complex64) -> float:
    """From −1 to 1, of spectra whose amplitudes are replaced by their roots: a hum is loud in a few bins alone."""
    tiny = np.finfo(np.float32).tiny
    first, second = (each / np.sqrt(np.abs(each) + tiny) for each in (one, other))
    power = _power(first) * _power(second)
    return float(np.vdot(first, second).real / math.sqrt(power)) if power else 0.0


def _power(spectrum: NDArray[np.complexfloating]) -> float:
    return float(np.vdot(spectrum, spectrum).real)


def _mean(channels: Float32) -> Float32:
    mean: Float32 = channels.mean(axis=1, dtype=np.float32)
    return mean


def _decibels(power: Float32) -> Float32:
    decibels: Float32 = 10 * np.log10(power + np.float32(1e-12))
    return decibels


def _window_length(rate: int) -> int:
    return 2 * round(WINDOW_SECONDS * rate / 2)


@cache
def _bands(rate: int) -> Float32:
    """(bins, bands): ones where a bin is in a band."""
    bins = np.arange(*_edges(rate)[[0, -1]])
    band = np.searchsorted(_edges(rate), bins, side="right") - 1
    return np.eye(len(BAND_EDGES) - 1, dtype=np.float32)[band]


def _edges(rate: int) -> NDArray[np.int64]:
    """The first bin of each band, and the one behind the last; a slow rate has not all of them."""
    length = _window_length(rate)
    return np.minimum([-(-edge * length // rate) for edge in BAND_EDGES], length // 2 + 1)
