"""Changes to features that leave their emotion as it was: what training adds to the corpus (R20 and SpecAugment).

Those of the log-Mel work on whisper80 values, (log10 power + 4) / 4, so 1 dB is 0.025. They cost microseconds: bands
move for pitch, frames are resampled for tempo. `training.data.waveform_augmentation` changes the sound itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from amser.features import trim_pauses
from models.emotion.batch import DECIBEL

Float32 = NDArray[np.float32]

LOG2_POWER = np.float32(4 * np.log2(10))  # binary logarithm of the power, per unit of whisper80
MINIMUM_FRAMES = 50  # half a second: crops never go below it


@dataclass(frozen=True, slots=True)
class MelAugmentation:
    """How far each change may go; zero turns it off.

    Attributes:
        gain: decibels up or down.
        crop: largest share of the frames cut from the two ends together, speech or not.
        tempo: largest relative change of the number of frames.
        band_shift: largest move of the spectrum in Mel bands, up or down.
        time_masks: number of masks over time.
        time_mask: longest mask in frames.
        band_masks: number of masks over bands.
        band_mask: widest mask in bands.
        noise: probability of a stationary noise floor, 15 to 40 dB below the loudest frame.
    """

    gain: float = 6.0
    crop: float = 0.15
    tempo: float = 0.12
    band_shift: int = 3
    time_masks: int = 2
    time_mask: int = 25
    band_masks: int = 2
    band_mask: int = 10
    noise: float = 0.2

    def __call__(self, log_mel: NDArray[np.floating], random: np.random.Generator) -> Float32:
        """A changed copy of a (bands, frames) log-Mel; the number of frames may differ."""
        mel = trim_pauses(log_mel).astype(np.float32)
        mel = self._crop(mel, random)
        mel = self._stretch(mel, random)
        mel = self._shift_bands(mel, random)
        if random.random() < self.noise:
            mel = _add_noise_floor(mel, random)
        mel = mel + np.float32(random.uniform(-self.gain, self.gain) * DECIBEL)
        return self._mask(mel, random)

    def _crop(self, mel: Float32, random: np.random.Generator) -> Float32:
        frames = mel.shape[1]
        spare = min(int(frames * self.crop * random.random()), frames - MINIMUM_FRAMES)
        if spare <= 0:
            return mel
        begin = int(random.integers(spare + 1))
        return mel[:, begin : begin + frames - spare]

    def _stretch(self, mel: Float32, random: np.random.Generator) -> Float32:
        frames = mel.shape[1]
        target = max(1, round(frames * (1 + random.uniform(-self.tempo, self.tempo))))
        position = np.linspace(0, frames - 1, target)
        left = np.minimum(position.astype(int), max(frames - 2, 0))
        right = np.minimum(left + 1, frames - 1)
        share = (position - left).astype(np.float32)
        stretched: Float32 = mel[:, left] * (1 - share) + mel[:, right] * share
        return stretched

    def _shift_bands(self, mel: Float32, random: np.random.Generator) -> Float32:
        shift = int(random.integers(-self.band_shift, self.band_shift + 1))
        bands = np.clip(np.arange(len(mel)) - shift, 0, len(mel) - 1)
        return mel[bands]

    def _mask(self, mel: Float32, random: np.random.Generator) -> Float32:
        fill = mel.mean()
        bands, frames = mel.shape
        for _ in range(self.time_masks):
            width = int(random.integers(min(self.time_mask, frames // 4) + 1))
            begin = int(random.integers(frames - width + 1))
            mel[:, begin : begin + width] = fill
        for _ in range(self.band_masks):
            width = int(random.integers(self.band_mask + 1))
            begin = int(random.integers(bands - width + 1))
            mel[begin : begin + width] = fill
        return mel


def _add_noise_floor(mel: Float32, random: np.random.Generator) -> Float32:
    level = mel.max() - np.float32(random.uniform(15, 40) * DECIBEL)
    noise = level + np.float32(2 * DECIBEL) * random.standard_normal(mel.shape).astype(np.float32)
    # Powers add; a power is 2^(value * LOG2_POWER), up to a factor that both share.
    mixed: Float32 = np.logaddexp2(mel * LOG2_POWER, noise * LOG2_POWER) / LOG2_POWER
    return mixed


@dataclass(frozen=True, slots=True)
class StateAugmentation:
    """Changes to the encoder states of an utterance.

    Attributes:
        crop: largest share of the rows cut from the two ends together.
        mask: longest run of rows that is set to zero, as a share of those left.
    """

    crop: float = 0.3
    mask: float = 0.17

    def __call__(self, states: NDArray[np.floating], random: np.random.Generator) -> NDArray[np.floating]:
        """A changed copy of (s, width) states; at least one row stays."""
        if not len(states):
            return states
        kept = max(1, int(len(states) * (1 - self.crop * random.random())))
        begin = int(random.integers(len(states) - kept + 1))
        changed = states[begin : begin + kept].copy()
        masked = int(random.integers(int(kept * self.mask) + 1))
        begin = int(random.integers(kept - masked + 1))
        changed[begin : begin + masked] = 0
        return changed
