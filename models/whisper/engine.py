"""What an engine that runs Whisper's networks must do: the seam between `recognizer` and two libraries.

An engine knows arrays and tokens. How much context is encoded, when a text is not believed and what counts as silence
is the recogniser's business, the same for both engines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

CONTEXT_FRAMES: Final = 3000  # log-Mel frames of the 30 s that Whisper was trained on
STATES_PER_SECOND: Final = 50
CONTEXT_STATES: Final = 1500  # encoder states for them: the second convolution has stride 2
BATCH_SIZE: Final = 4  # texts decoded together on a CPU
LOWER_LAYERS: Final = 3  # of the encoder, whose states the emotion network reads
MAXIMUM_TOKENS: Final = 224  # half of the decoder's positions, as in Whisper's own decoding

States = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Encoded:
    """One encoded utterance.

    Attributes:
        states: (n, width), 20 ms each: what the decoder reads.
        lower: (n, LOWER_LAYERS × width): the sums behind the first layers, not normalised, side by side; None from an
            engine that does not give them.
    """

    states: States
    lower: States | None = None


@dataclass(frozen=True, slots=True)
class Decoded:
    """One decoded text.

    Attributes:
        text: without leading or trailing space.
        tokens: the text's tokens, without the prompt and the end.
        average_log_probability: mean over the tokens, end included; 0 for an empty text.
        no_speech_probability: that of Whisper's no-speech token at the first position, 0 to 1.
    """

    text: str
    tokens: tuple[int, ...]
    average_log_probability: float
    no_speech_probability: float


@dataclass(frozen=True, slots=True)
class TokenTime:
    """When a token was said.

    Attributes:
        start, end: seconds from the begin of the states; the end is the start of the next one.
        probability: of the token behind those before it, 0 to 1.
    """

    start: float
    end: float
    probability: float


class Engine(Protocol):
    """Whisper's encoder and decoder.

    Attributes:
        bands: Mel bands of the model's input, 80 or 128.
        width: of an encoder state.
        multilingual: False for the English-only models.
        hears_short: whether the weights have learnt to decode from the speech alone, without 30 s of context; they may
            then write nothing at all, where others are not allowed to.
        model: their folder.
    """

    bands: int
    width: int
    multilingual: bool
    hears_short: bool
    model: Path

    def encode(self, log_mel: NDArray[np.float32]) -> Encoded:
        """(bands, T) with T even and at most 3000 → T / 2 states, with the positions of the first T frames."""
        ...

    def language_probabilities(self, states: States) -> list[dict[str, float]]:
        """(B, n, width) → the probability of each language, by Whisper's code, for each utterance."""
        ...

    def decode(
        self, states: States, languages: Sequence[str], maximum_tokens: int, draft: Sequence[int] = ()
    ) -> list[Decoded]:
        """(B, n, width) → the greedily decoded text of each, in its language; it may be empty.

        A draft, tokens of what a text probably begins with, saves time with an engine that verifies it at once. It
        changes no text, and is for a single one.
        """
        ...

    def align(self, states: States, language: str, tokens: Sequence[int], frames: int) -> list[TokenTime]:
        """(n, width) → when each token of the text was said, within the first `frames` of the log-Mel."""
        ...

    def text_of(self, tokens: Sequence[int]) -> str:
        """The text of tokens, with the space before it."""
        ...
