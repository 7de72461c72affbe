"""Log-Mel → words: what is encoded, in which language it is decoded and which text is believed.

Whisper's context is 30 s, so an utterance of three seconds costs as much as one of thirty. Weights that have learnt to
hear short (`training.short_context`) are given the speech and half a second of silence. For others the encoder's states
of digital silence fill the rest of the context (`models.whisper.fill`). A text that is not believed is decoded once
more with long silence behind the speech and judged by the same judge (`models.whisper.judge`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from models.messages import Mel, Transcript, TranscriptWarning, Word
from models.whisper.engine import BATCH_SIZE, CONTEXT_FRAMES, Decoded, Encoded, Engine, States
from models.whisper.fill import Silence, is_thinned
from models.whisper.judge import Evidence, Judge, most_tokens
from models.whisper.voice import voice_of
from models.whisper.word_times import words_of

Context = Literal["short", "padded"]
_Pass = Context | Literal["second"]

SILENCE_AFTER_SPEECH: Final = 50  # frames that are encoded behind the speech
SILENCE_BEFORE_FILL: Final = 200  # the same for weights whose context is filled
# Frames between the shortest and the longest of a batch, a quarter of the shortest but no fewer and no more than these:
# long silence behind short speech hides it
FEWEST_TOGETHER, MOST_TOGETHER = 30, 100
FEWEST_OF_SECOND_PASS: Final = 1200  # frames that a second pass encodes, for weights that hear short
SURE_OF_SILENCE: Final = 0.95  # no-speech probability from which an empty text is not decoded again

# A hint that the speech contradicts: the language that is heard is taken
MOST_OF_HINT: Final = 0.005  # probability of the language of the hint
LEAST_OF_HEARD: Final = 0.9  # probability of the likeliest language
LEAST_SECONDS: Final = 1.0  # a word alone may sound like another language


@dataclass(frozen=True, slots=True)
class Heard:
    """One decoding of an utterance.

    Attributes:
        decoded: the text.
        language: in which it was decoded.
        warnings: what was done otherwise than asked.
        evidence: the signs of speech.
        probability: that somebody speaks.
        words: with their times, where they are asked for.
        voice: see `Transcript.voice`.
    """

    decoded: Decoded
    language: str
    warnings: tuple[TranscriptWarning, ...]
    evidence: Evidence
    probability: float
    words: tuple[Word, ...] = ()
    voice: NDArray[np.float16] | None = field(default=None, compare=False, repr=False)

    @property
    def lost(self) -> bool:
        """Whether the text has no end, or loops."""
        return bool(self.evidence.lost)


class WhisperRecognizer:
    """Writes down what is said in log-Mels. No Ray in here: tests and benchmarks build it directly.

    Args:
        engine: runs the networks.
        context: `short` encodes the speech alone, `padded` always 30 s, as the model's authors do.
        batch_size: texts that are decoded together.
    """

    def __init__(
        self,
        engine: Engine,
        context: Context = "short",
        batch_size: int = BATCH_SIZE,
    ) -> None:
        self._engine = engine
        self._judge = Judge.read(engine.model)
        self._context = context
        self._batch_size = batch_size
        self._silence = None if engine.hears_short or context == "padded" else Silence(engine)

    def transcribe(self, mels: Sequence[Mel]) -> list[Transcript]:
        """The words of each utterance, in order: of those that are doubtful, after a second pass.

        Raises:
            ValueError: see `first_pass`.
        """
        heard = zip(mels, self.first_pass(mels), strict=True)
        return [
            self.transcript(self.second_pass(mel, first) if self.is_doubtful(first) else first) for mel, first in heard
        ]

    def first_pass(self, mels: Sequence[Mel]) -> list[Heard]:
        """What is heard in each utterance, in order.

        Utterances of similar length are decoded together, since a batch takes as long as its longest text.

        Raises:
            ValueError: a Mel has other bands than the model, or more than 30 s.
        """
        for mel in mels:
            bands, frames = mel.values.shape
            if bands != self._engine.bands or frames > CONTEXT_FRAMES:
                raise ValueError(
                    f"the Mel has {bands} bands and {frames} frames; "
                    f"the recogniser takes {self._engine.bands} bands and up to {CONTEXT_FRAMES} frames"
                )
        heard: dict[int, Heard] = {}
        for positions in self._batches(mels):
            answers = self.hear([mels[position] for position in positions], self._context)
            heard |= dict(zip(positions, answers, strict=True))
        return [heard[position] for position in range(len(mels))]

    def is_doubtful(self, first: Heard) -> bool:
        """Whether it wants a second pass.

        A text that is not believed is decoded again before it is thrown away; so is none that is not sure.
        """
        if self._context == "padded":
            return False
        if not first.decoded.text:
            return first.decoded.no_speech_probability < SURE_OF_SILENCE
        return first.lost or self._judge.speech(first.probability) != "yes"

    def second_pass(self, mel: Mel, first: Heard) -> Heard:
        """The better of the first pass and of one that encodes `second_frames`."""
        (again,) = self.hear([mel], "second")
        better = max(first, again, key=lambda heard: (not heard.lost, heard.probability))
        return replace(better, voice=first.voice)  # so much silence is nothing that the emotion network knows

    def second_frames(self, mel: Mel) -> int:
        """How much a second pass encodes: as much silence as speech, or more, and no more than that.

        Weights that have not learnt to hear short need their whole context.
        """
        if not self._engine.hears_short:
            return CONTEXT_FRAMES
        return min(CONTEXT_FRAMES, max(FEWEST_OF_SECOND_PASS, 2 * mel.frames))

    def _batches(self, mels: Sequence[Mel]) -> Iterator[list[int]]:
        batch: list[int] = []
        for position in sorted(range(len(mels)), key=lambda position: mels[position].frames):
            if batch and (len(batch) == self._batch_size or not self._fit(mels[batch[0]], mels[position])):
                yield batch
                batch = []
            batch.append(position)
        if batch:
            yield batch

    def _fit(self, shorter: Mel, longer: Mel) -> bool:
        """Whether two utterances cost no more together than apart."""
        if self._context == "padded":
            return True
        if self._silence is not None:
            return is_thinned(shorter.frames + SILENCE_BEFORE_FILL) == is_thinned(longer.frames + SILENCE_BEFORE_FILL)
        together = max(FEWEST_TOGETHER, min(MOST_TOGETHER, shorter.frames // 4))
        return longer.frames - shorter.frames <= together

    def hear(self, mels: Sequence[Mel], context: _Pass) -> list[Heard]:
        """One decoding of utterances together, whatever it is worth."""
        encoded, states = self._encode(mels, context)
        languages = self._languages(mels, states)
        seconds = [mel.seconds for mel in mels]
        draft = mels[0].draft if len(mels) == 1 else ()
        codes = [spoken.code for spoken in languages]
        decoded = self._engine.decode(states, codes, most_tokens(max(seconds)), draft)
        words = [self._words(*parts) for parts in zip(mels, states, decoded, languages, strict=True)]
        voices = [
            voice_of(each.lower, mel) if context == "short" and each.lower is not None else None
            for mel, each in zip(mels, encoded, strict=True)
        ]
        return [self._judged(*parts) for parts in zip(decoded, languages, seconds, words, voices, strict=True)]

    def _judged(
        self,
        decoded: Decoded,
        spoken: _Spoken,
        seconds: float,
        words: tuple[Word, ...],
        voice: NDArray[np.float16] | None,
    ) -> Heard:
        evidence = Evidence.of(decoded, seconds, spoken.likeliest)
        probability = self._judge.probability(evidence)
        return Heard(decoded, spoken.code, spoken.warnings, evidence, probability, words, voice)

    def _words(self, mel: Mel, states: States, decoded: Decoded, spoken: _Spoken) -> tuple[Word, ...]:
        if not mel.word_times or not decoded.text:
            return ()
        times = self._engine.align(states, spoken.code, decoded.tokens, mel.frames)
        return words_of(decoded.tokens, times, spoken.code, self._engine.text_of, mel.values)

    def _encode(self, mels: Sequence[Mel], context: _Pass) -> tuple[list[Encoded], States]:
        """Each utterance encoded, and (B, n, width): the states of the speech and of the silence behind it."""
        lengths = [max(mel.frames for mel in mels) + SILENCE_AFTER_SPEECH] * len(mels)
        if context == "padded":
            lengths = [CONTEXT_FRAMES] * len(mels)
        elif context == "second":
            lengths = [max(self.second_frames(mel) for mel in mels)] * len(mels)
        elif self._silence is not None:
            lengths = [mel.frames + SILENCE_BEFORE_FILL for mel in mels]
        encoded = [self._engine.encode(_padded(*pair)) for pair in zip(mels, lengths, strict=True)]
        states = [each.states for each in encoded]
        if context != "short" or self._silence is None:
            return encoded, np.stack(states)
        return encoded, self._silence.behind(states)

    def _languages(self, mels: Sequence[Mel], states: States) -> list[_Spoken]:
        if not self._engine.multilingual:
            return [_Spoken("en", 1.0, ())] * len(mels)
        return [
            _spoken(mel, probabilities)
            for mel, probabilities in zip(mels, self._engine.language_probabilities(states), strict=True)
        ]

    def transcript(self, heard: Heard) -> Transcript:
        """What is believed of it."""
        speech = "doubtful" if heard.lost else self._judge.speech(heard.probability)
        text = "" if speech == "none" or heard.lost else heard.decoded.text
        return Transcript(
            text=text,
            language=heard.language,
            average_log_probability=heard.decoded.average_log_probability if text else 0.0,
            speech=speech,
            speech_probability=heard.probability,
            warnings=heard.warnings,
            words=heard.words if text else (),
            tokens=heard.decoded.tokens if text else (),
            voice=heard.voice,
        )


@dataclass(frozen=True, slots=True)
class _Spoken:
    """The language to decode in, how likely the likeliest one is, and what is said about the hint."""

    code: str
    likeliest: float
    warnings: tuple[TranscriptWarning, ...]


def _spoken(mel: Mel, probabilities: dict[str, float]) -> _Spoken:
    hint = mel.language
    heard = max(probabilities, key=probabilities.__getitem__)
    likeliest = probabilities[heard]
    if hint is None:
        return _Spoken(heard, likeliest, ())
    contradicted = likeliest >= LEAST_OF_HEARD and probabilities[hint] <= MOST_OF_HINT
    if contradicted and mel.seconds >= LEAST_SECONDS:
        return _Spoken(heard, likeliest, ("language_mismatch",))
    return _Spoken(hint, likeliest, ())


def _padded(mel: Mel, frames: int) -> np.ndarray:
    """(bands, frames) float32, an even number of them, with silence behind the speech; at most 30 s."""
    length = min(CONTEXT_FRAMES, 2 * ceil(frames / 2))
    padded = np.full((mel.values.shape[0], length), mel.silence, np.float32)
    padded[:, : mel.frames] = mel.values
    return padded
