"""Whether somebody still speaks: how long the end of an utterance has been quiet.

A frame is quiet where it is 35 dB under the loudest (`amser.features.trim_pauses`), or, in noise, in the lower third
between the quietest and the loudest of the utterance.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from amser.features import FRAMES_PER_SECOND, LOG_SCALE, SPEECH_BELOW_PEAK, Float32

QUIETEST: Final = 10  # per cent of frames
ABOVE_NOISE: Final = 0.35  # of the way from the quietest to the loudest
LEAST_RANGE: Final = 12 / 10 / LOG_SCALE  # 12 dB: less is noise alone


class Pauses:
    """Of one utterance."""

    def __init__(self) -> None:
        self._loudness = np.zeros(0, np.float32)

    def push(self, loudness: Float32) -> None:
        """More frames, each with its loudness in the unit of a log-Mel."""
        self._loudness = np.concatenate((self._loudness, loudness))

    @property
    def has_speech(self) -> bool:
        """Whether anything stands out."""
        if not self._loudness.size:
            return False
        return bool(self._loudness.max() - self._floor() >= LEAST_RANGE)

    @property
    def quiet_s(self) -> float:
        """Seconds at the end that are quiet; 0 where nothing has been said."""
        if not self.has_speech:
            return 0.0
        loudest, floor = float(self._loudness.max()), self._floor()
        threshold = max(loudest - SPEECH_BELOW_PEAK, floor + ABOVE_NOISE * (loudest - floor))
        loud = np.flatnonzero(self._loudness >= threshold)
        return float(self._loudness.size - 1 - loud[-1]) / FRAMES_PER_SECOND

    def _floor(self) -> float:
        return float(np.percentile(self._loudness, QUIETEST))
