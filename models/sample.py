"""A small request that needs no recording: what a stage computes before it says that it is there."""

from __future__ import annotations

from typing import Final

import numpy as np

from amser.features import FRAMES_PER_SECOND, silence_value
from models.messages import Mel, TextFeatures, TokenFeatures

BANDS: Final = 80  # of the profile that the pipeline reads
SECOND: Final = FRAMES_PER_SECOND  # frames
TEXT: Final = "I am glad that you came."


def sample_mel(bands: int = BANDS, frames: int = SECOND, seed: int = 0) -> Mel:
    """Seeded sound: syllables of a quarter of a second, with formants that move."""
    random = np.random.default_rng(seed)
    pitch, pace = random.uniform(0.2, 0.4), random.uniform(20, 30)
    time, band = np.arange(frames)[None], np.arange(bands)[:, None]
    formants = np.exp(-(((band - bands * (pitch + 0.1 * np.sin(time / 9))) / 6) ** 2))
    loudness = 0.5 + 0.5 * np.sin(2 * np.pi * time / pace)
    grain = random.normal(0, 0.05, (bands, frames))
    values = (-0.5 + 1.3 * formants * loudness + grain).astype(np.float16)
    return Mel(values, silence_value(values), frames / FRAMES_PER_SECOND, "en", "none", None)


def sample_text_features(word_width: int, context_width: int) -> TextFeatures:
    """Three words, of the widths that a network reads."""
    tokens = tuple(TEXT.split()[:3])
    words, context = (np.full((len(tokens), width), 0.1, np.float32) for width in (word_width, context_width))
    return TextFeatures("en", TokenFeatures(tokens, words), TokenFeatures(tokens, context))
