"""What the stages hand each other: the only types that cross a process boundary inside the cluster.

Every edge of the pipeline carries one of these; a test holds how many bytes each may cost.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Doubt = Literal["low_confidence", "short", "no_speech", "doubtful_speech", "no_words", "language"]
"""Why a label should not be acted upon; `models.emotion.doubt` says when each is raised."""

Speech = Literal["none", "doubtful", "yes"]
"""Whether somebody speaks: `none` has no text, `doubtful` has one that may be wrong or invented."""

TranscriptWarning = Literal["language_mismatch"]
"""What the recogniser did otherwise than asked: `language_mismatch` took the language that it heard."""


@dataclass(frozen=True, slots=True)
class Mel:
    """A reconstructed log-Mel spectrogram, unpadded.

    Attributes:
        values: float16, shape (bands, frames), 10 ms a frame. Half precision keeps what the codecs kept (their factors
            are float16) and halves the bytes of the two edges that carry a Mel.
        silence: what Whisper's own log-Mel would hold where the audio is padded with digital silence: the floor eight
            decades below the utterance's maximum.
        seconds: duration of the speech.
        language: ISO 639-1 code that the device named, or None to have it detected.
        codec: name of the codec that carried it.
        rank: rank of the codec's factors; None where the codec has none.
        word_times: whether the answer is to say when each word was spoken.
        draft: tokens of what was heard in the first part of it, while it was spoken.
    """

    values: NDArray[np.float16]
    silence: float
    seconds: float
    language: str | None
    codec: str
    rank: int | None
    word_times: bool = False
    draft: tuple[int, ...] = ()

    @property
    def frames(self) -> int:
        return int(self.values.shape[1])


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a transcript and when it was spoken.

    Attributes:
        text: as the transcript has it, with its punctuation; the texts of all words joined are the transcript's text.
        start: seconds from the begin of the utterance.
        end: seconds from the begin of the utterance, at least `start`.
        confidence: probability of the word, 0 to 1: mean of the probabilities of its tokens.
    """

    text: str
    start: float
    end: float
    confidence: float


@dataclass(frozen=True, slots=True)
class Transcript:
    """The words of an utterance.

    Attributes:
        text: empty where nothing was said.
        language: ISO 639-1 code, given or detected.
        average_log_probability: mean log-probability of the decoded tokens, at most 0; 0.0 for an empty text.
        speech: whether somebody speaks.
        speech_probability: that somebody speaks, 0 to 1, calibrated.
        warnings: what was done otherwise than asked.
        words: the words in order; empty unless `Mel.word_times` asked for them.
        tokens: of the text, as the recogniser's vocabulary numbers them: a draft for more of the same speech.
        voice: lower states of the recogniser's encoder for the emotion network, as `VoiceEncoder.encode` makes them;
            None where the recogniser does not give them.
    """

    text: str
    language: str
    average_log_probability: float
    speech: Speech = "yes"
    speech_probability: float = 1.0
    warnings: tuple[TranscriptWarning, ...] = ()
    words: tuple[Word, ...] = ()
    tokens: tuple[int, ...] = ()
    voice: NDArray[np.float16] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class TokenFeatures:
    """One row for each token of a text.

    Attributes:
        tokens: the n tokens, in order.
        values: float32, shape (n, width).
    """

    tokens: tuple[str, ...]
    values: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TextFeatures:
    """A text as the fusion network reads it.

    Attributes:
        language: ISO 639-1 code of the text.
        words: vectors of its words.
        context: states of its tokens.
    """

    language: str
    words: TokenFeatures
    context: TokenFeatures


@dataclass(frozen=True, slots=True)
class Emotion:
    """The answer of the fusion network.

    Attributes:
        label: the most probable class.
        probabilities: one entry a class, in the network's order, summing to one; of the classes that the request
            restricted the answer to, where it did.
        confidence: calibrated probability that the label is right, under the prior of the deployment.
        doubts: reasons not to act on the label; empty where it may be acted upon.
        left_out: what was not used: `text` where its language is not one that the network has learnt.
    """

    label: str
    probabilities: dict[str, float]
    confidence: float
    doubts: tuple[Doubt, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def uncertain(self) -> bool:
        """Whether the label should not be acted upon."""
        return bool(self.doubts)
