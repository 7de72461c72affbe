"""Log-Mel → words: what is encoded, in which language it is decoded and which text is believed.

Whisper's context is 30 s, so an utterance of three seconds costs as much as one of thirty. Here only the speech and
two seconds of silence are encoded; the encoder states of digital silence, which never change, fill the rest of the
context. The decoder so finds the end that it was trained to find: without the fill it repeats itself (docs/decisions
has both measured). A text that still looks wrong is decoded once more from the whole 30 s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Final, Literal

import numpy as np

from models.messages import Mel, Transcript
from models.whisper.engine import (
    CONTEXT_FRAMES,
    CONTEXT_STATES,
    MAXIMUM_TOKENS,
    Decoded,
    Engine,
    States,
)

Context = Literal["short", "padded"]

BATCH_SIZE: Final = 4  # texts decoded together on a CPU
DIGITAL_SILENCE: Final = -1.5  # of a log-Mel: (log10(1e-10) + 4) / 4
SILENCE_AFTER_SPEECH: Final = 200  # frames that are encoded behind the speech
# Silence behind long speech is thinned: the decoder reads every state for every token. Behind short speech it may not
# be, or the decoder loses the end.
THINNED_FROM: Final = 400  # encoder states of speech
THINNED_BY: Final = 8  # of so many states of silence one is left

# When a text is not believed and decoded again from 30 s
LEAST_AVERAGE_LOG_PROBABILITY: Final = -1.0
FEWEST_CHARACTERS_PER_SECOND: Final = 1.0  # under it, in more than SPARSE_SECONDS, something was skipped
SPARSE_SECONDS: Final = 6.0
MOST_TOKENS_PER_SECOND: Final = 25.0
LONGEST_LOOP: Final = 24  # tokens that are said again
FEWEST_REPEATS: Final = 3
SHORTEST_LOOPING: Final = 8  # tokens in all the repeats: "no, no, no" may be meant

# Silence and noise: the no-speech token gets likely and the text unlikely. Neither alone tells them from short clips.
NO_SPEECH_WEIGHT: Final = 0.7  # of the negative log-probability, against the no-speech probability
NO_SPEECH_LIMIT: Final = 1.0
NO_SPEECH_LENIENCY: Final = 0.25  # on that limit, for each second that the utterance is shorter than SHORT_SECONDS
SHORT_SECONDS: Final = 3.0
NO_SPEECH_ALONE: Final = 0.77  # no-speech probability above which the text does not matter
NO_SPEECH_ENDLESS: Final = 0.45  # no-speech probability from which a text without an end is noise


@dataclass(frozen=True, slots=True)
class _Utterance:
    """What is known of an utterance between encoding and answer."""

    mel: Mel
    states: States
    language: str
    decoded: Decoded


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
        self._context = context
        self._batch_size = batch_size
        self._silence = engine.encode(np.full((engine.bands, CONTEXT_FRAMES), DIGITAL_SILENCE, np.float32))

    def transcribe(self, mels: Sequence[Mel]) -> list[Transcript]:
        """The words of each utterance, in order.

        Utterances of similar length are decoded together, since a batch takes as long as its longest text.

        Raises:
            ValueError: a Mel has other bands than the model, or more than 30 s.
        """
        transcripts: dict[int, Transcript] = {}
        by_length = sorted(range(len(mels)), key=lambda position: mels[position].frames)
        for start in range(0, len(by_length), self._batch_size):
            positions = by_length[start : start + self._batch_size]
            answers = self._transcribe_together([mels[position] for position in positions])
            transcripts |= dict(zip(positions, answers, strict=True))
        return [transcripts[position] for position in range(len(mels))]

    def _transcribe_together(self, mels: Sequence[Mel]) -> list[Transcript]:
        utterances = self._decode(mels, [self._encode(mel, self._context) for mel in mels])
        if self._context == "short":
            doubtful = [position for position, utterance in enumerate(utterances) if _is_doubtful(utterance)]
            for position in doubtful:
                mel = mels[position]
                (again,) = self._decode([mel], [self._encode(mel, "padded")])
                utterances[position] = _better(utterances[position], again)
        return [self._transcript(utterance) for utterance in utterances]

    def _encode(self, mel: Mel, context: Context) -> States:
        """(n, width): the states of the speech and of the silence that was encoded with it."""
        bands, frames = mel.values.shape
        if bands != self._engine.bands or frames > CONTEXT_FRAMES:
            raise ValueError(
                f"the Mel has {bands} bands and {frames} frames; "
                f"the recogniser takes {self._engine.bands} bands and up to {CONTEXT_FRAMES} frames"
            )
        length = CONTEXT_FRAMES
        if context == "short":
            length = min(CONTEXT_FRAMES, 2 * ceil((frames + SILENCE_AFTER_SPEECH) / 2))
        padded = np.full((bands, length), mel.silence, np.float32)
        padded[:, :frames] = mel.values
        return self._engine.encode(padded)

    def _fill(self, states: Sequence[States]) -> States:
        """(B, n, width): each utterance's states and then silence, up to the end of Whisper's context."""
        length = max(_context_length(speech) for speech in states)
        filled = []
        for speech in states:
            chosen = np.linspace(len(speech), CONTEXT_STATES - 1, length - len(speech)).round().astype(int)
            filled.append(np.concatenate([speech, self._silence[chosen]]))
        return np.stack(filled)

    def _decode(self, mels: Sequence[Mel], states: Sequence[States]) -> list[_Utterance]:
        """Long speech apart from short, beside which it would be filled up to the whole context: twice the work."""
        decoded: dict[int, _Utterance] = {}
        for thinned in (False, True):
            positions = [position for position, speech in enumerate(states) if _is_thinned(speech) is thinned]
            if positions:
                together = self._decode_alike([mels[each] for each in positions], [states[each] for each in positions])
                decoded |= dict(zip(positions, together, strict=True))
        return [decoded[position] for position in range(len(mels))]

    def _decode_alike(self, mels: Sequence[Mel], states: Sequence[States]) -> list[_Utterance]:
        stacked = self._fill(states)
        languages = self._languages(mels, stacked)
        limit = max(_most_tokens(mel.seconds) for mel in mels)
        decoded = self._engine.decode(stacked, languages, limit)
        return [_Utterance(*parts) for parts in zip(mels, states, languages, decoded, strict=True)]

    def _languages(self, mels: Sequence[Mel], states: States) -> list[str]:
        if not self._engine.multilingual:
            return ["en"] * len(mels)
        unknown = [position for position, mel in enumerate(mels) if mel.language is None]
        languages = {position: mel.language for position, mel in enumerate(mels) if mel.language is not None}
        if unknown:
            detected = self._engine.detect_languages(states[unknown])
            languages |= {position: language for position, (language, _) in zip(unknown, detected, strict=True)}
        return [languages[position] for position in range(len(mels))]

    def _transcript(self, utterance: _Utterance) -> Transcript:
        decoded = utterance.decoded
        silent = _is_silence(utterance) or not decoded.text
        return Transcript(
            text="" if silent else decoded.text,
            language=utterance.language,
            average_log_probability=0.0 if silent else decoded.average_log_probability,
        )


def _is_thinned(speech: States) -> bool:
    return len(speech) >= THINNED_FROM


def _context_length(speech: States) -> int:
    silence = CONTEXT_STATES - len(speech)
    return len(speech) + ceil(silence / THINNED_BY) if _is_thinned(speech) else CONTEXT_STATES


def loops(tokens: Sequence[int]) -> bool:
    """Whether a text ends by saying the same thing over and over, as a decoder does that has lost the speech."""
    for length in range(1, LONGEST_LOOP + 1):
        repeats = max(FEWEST_REPEATS, ceil(SHORTEST_LOOPING / length))
        tail = tuple(tokens[-length * repeats :])
        if len(tail) == length * repeats and tail == tail[:length] * repeats:
            return True
    return False


def _most_tokens(seconds: float) -> int:
    return min(MAXIMUM_TOKENS, ceil(10 + MOST_TOKENS_PER_SECOND * seconds))


def _is_endless(utterance: _Utterance) -> bool:
    return len(utterance.decoded.tokens) >= _most_tokens(utterance.mel.seconds)


def _is_doubtful(utterance: _Utterance) -> bool:
    decoded, seconds = utterance.decoded, utterance.mel.seconds
    if _is_silence(utterance):
        return False
    sparse = seconds > SPARSE_SECONDS and len(decoded.text) < FEWEST_CHARACTERS_PER_SECOND * seconds
    unlikely = decoded.average_log_probability < LEAST_AVERAGE_LOG_PROBABILITY
    return sparse or unlikely or _is_endless(utterance) or loops(decoded.tokens)


def _better(short: _Utterance, padded: _Utterance) -> _Utterance:
    """The text to believe; the states stay those of the short context, so that they do not depend on a retry."""
    lost = loops(short.decoded.tokens) or _is_endless(short)
    likelier = padded.decoded.average_log_probability >= short.decoded.average_log_probability
    return replace(padded, states=short.states) if lost or likelier else short


def _is_silence(utterance: _Utterance) -> bool:
    decoded = utterance.decoded
    if _is_endless(utterance) and decoded.no_speech_probability > NO_SPEECH_ENDLESS:
        return True
    if decoded.no_speech_probability > NO_SPEECH_ALONE:
        return True
    # A word or two cut out of a sentence are less likely, and less clearly speech, than a whole sentence
    limit = NO_SPEECH_LIMIT + NO_SPEECH_LENIENCY * max(0.0, SHORT_SECONDS - utterance.mel.seconds)
    score = decoded.no_speech_probability - NO_SPEECH_WEIGHT * decoded.average_log_probability
    return score > limit
