"""Rooms: a waveform is convolved with a synthetic impulse response, a direct sound and noise that decays behind it.

A change of `training.data.waveform_augmentation`, in the form of a transform of audiomentations.
"""

from __future__ import annotations

import random

import numpy as np
from audiomentations.core.transforms_interface import BaseWaveformTransform
from numpy.typing import NDArray
from scipy.signal import fftconvolve

DECAY = np.log(1000.0)  # of the amplitude over the reverberation time: 60 dB
FIRST_REFLECTION = (0.002, 0.02)  # seconds behind the direct sound


class Reverberation(BaseWaveformTransform):  # type: ignore[misc]
    """Another room for every waveform, which keeps its length and its level.

    Args:
        seconds: shortest and longest reverberation time, in which the sound decays by 60 dB.
        direct_decibels: lowest and highest ratio of the direct sound to what the room adds; low is far from the
            microphone.
        p: probability of a change.
    """

    supports_multichannel = False

    def __init__(self, seconds: tuple[float, float], direct_decibels: tuple[float, float], p: float) -> None:
        super().__init__(p)
        self._seconds = seconds
        self._direct_decibels = direct_decibels

    def apply(self, samples: NDArray[np.float32], sample_rate: int) -> NDArray[np.float32]:
        """Draws from the global generators, as the library's own transforms do."""
        response = impulse_response(
            random.uniform(*self._seconds),
            random.uniform(*self._direct_decibels),
            sample_rate,
            np.random.default_rng(random.getrandbits(32)),
        )
        heard = fftconvolve(samples, response)[: len(samples)]
        level, before = (float(np.sqrt(np.square(each).mean())) for each in (heard, samples))
        return np.asarray(heard * (before / level if level else 1.0), np.float32)


def impulse_response(
    seconds: float, direct_decibels: float, sample_rate: int, generator: np.random.Generator
) -> NDArray[np.float32]:
    """The impulse response of a room: (n,) samples, 1 at first, then noise from its first reflection on.

    Args:
        seconds: reverberation time.
        direct_decibels: energy of the direct sound over that of the rest.
        sample_rate: in hertz.
        generator: of the first reflection's delay and of the noise.
    """
    time = np.arange(1, max(2, int(seconds * sample_rate))) / sample_rate
    tail = generator.standard_normal(len(time)) * np.exp(-DECAY * time / seconds)
    tail[time < generator.uniform(*FIRST_REFLECTION)] = 0
    energy = float(np.square(tail).sum())
    scale = 10 ** (-direct_decibels / 20) / np.sqrt(energy) if energy else 0.0
    return np.concatenate([[1.0], tail * scale]).astype(np.float32)
