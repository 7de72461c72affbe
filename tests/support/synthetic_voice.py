"""English sentences, spoken by a synthetic voice that is always calm: for tests that need particular words."""

from __future__ import annotations

import functools

import hibari
import numpy as np
from recordings import Waveform

from amser.features import resample


@functools.cache
def say(sentence: str) -> Waveform:
    """The sentence at 16 kHz; the same samples every time."""
    return resample(np.asarray(_voice()(sentence, seed=0), np.float32), hibari.SAMPLE_RATE)


@functools.cache
def _voice() -> hibari.Hibari:
    return hibari.Hibari()
