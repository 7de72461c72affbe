"""The silence that fills Whisper's context behind the speech, for weights that have not learnt to hear short.

The decoder of such weights finds the end of a text by the silence that follows, and repeats itself without it
(docs/decisions/0001 has both measured). The encoder states of digital silence never change: they are computed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Final

import numpy as np

from models.whisper.engine import CONTEXT_FRAMES, CONTEXT_STATES, Engine, States

DIGITAL_SILENCE: Final = -1.5  # of a log-Mel: (log10(1e-10) + 4) / 4
# Silence behind long speech is thinned: the decoder reads every state for every token. Behind short speech it may not
# be, or the decoder loses the end.
THINNED_FROM: Final = 400  # encoder states of speech
THINNED_BY: Final = 8  # of so many states of silence one is left


class Silence:
    """Encoder states of 30 s of digital silence, and how they follow the speech."""

    def __init__(self, engine: Engine) -> None:
        self._states = engine.encode(np.full((engine.bands, CONTEXT_FRAMES), DIGITAL_SILENCE, np.float32)).states

    def behind(self, states: Sequence[States]) -> States:
        """(B, n, width): each utterance's states and then silence, up to the end of Whisper's context."""
        length = max(_context_length(speech) for speech in states)
        filled = []
        for speech in states:
            chosen = np.linspace(len(speech), CONTEXT_STATES - 1, length - len(speech)).round().astype(int)
            filled.append(np.concatenate([speech, self._states[chosen]]))
        return np.stack(filled)


def is_thinned(speech_frames: int) -> bool:
    """Whether the silence behind so many frames is thinned: such speech is decoded apart from shorter speech."""
    return ceil(speech_frames / 2) >= THINNED_FROM


def _context_length(speech: States) -> int:
    silence = CONTEXT_STATES - len(speech)
    return len(speech) + ceil(silence / THINNED_BY) if len(speech) >= THINNED_FROM else CONTEXT_STATES
