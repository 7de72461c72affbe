"""Sentences of a synthetic voice, with pauses and repeats: the same samples in every run.

The voice is `hibari-tts`. It has one voice in its package; played at another rate it is a taller or a smaller person,
since pitch and formants move together.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import numpy as np

from amser.features import SAMPLE_RATE, Float32, resample
from benchmarks.measuring.command import CannotBegin
from benchmarks.measuring.words.sentences import (
    CODE_WORDS,
    NUMBERS,
    PAUSED,
    REPEATED,
    REPEATED_OFTEN,
    SINGLE_WORDS,
    SPELLED,
)
from benchmarks.measuring.words.utterance import Utterance, joined

SPEEDS: Final = (0.9, 1.25)  # slowest and fastest speech, of the voice's own pace
PLAYED_AT: Final = (0.92, 1.0, 1.1)  # of the voice's own rate
PAUSES: Final = (1.0, 4.0)  # seconds within a sentence
GAPS: Final = (0.5, 1.0)  # seconds between two takes
OFTEN: Final = (3, 5, 8)  # takes
OFTEN_GAPS: Final = (0.3, 0.8)  # seconds between them
LONGEST_REPEATED: Final = 18.0  # seconds of several takes
TOP_LEVEL: Final = 0.5  # peak of a spoken piece


@dataclass(frozen=True, slots=True)
class Voice:
    """Speaks English sentences.

    Attributes:
        seed: another one, other paces and pauses.

    Raises:
        CannotBegin: the voice is not installed.
    """

    seed: int = 0
    _voice: Any = field(default_factory=lambda: _load())
    _spoken: dict[tuple[str, int, float], Float32] = field(default_factory=dict)

    def __call__(self, text: str, take: int = 0, played_at: float = 1.0) -> Float32:
        """float32 (n,), 16 kHz; at another pace in each take. `played_at` is the factor on the voice's own rate."""
        key = (text, take, played_at)
        if key not in self._spoken:
            draw = self.random(text, take)
            samples = self._voice(text, speed=draw.uniform(*SPEEDS), seed=int(draw.integers(2**31)))
            waveform = resample(np.asarray(samples, np.float32), round(self._voice.sample_rate * played_at))
            self._spoken[key] = waveform * np.float32(TOP_LEVEL / max(float(np.abs(waveform).max()), 1e-6))
        return self._spoken[key]

    def random(self, text: str, take: int = 0) -> np.random.Generator:
        """What is drawn for a text depends on it alone, not on what else is spoken."""
        return np.random.default_rng((self.seed, zlib.crc32(text.encode()), take))


def rate_of(text: str) -> float:
    """At which of the rates an utterance is played, in all its takes and pieces."""
    return PLAYED_AT[zlib.crc32(text.encode()) % len(PLAYED_AT)]


def speaker_of(text: str) -> str:
    return f"hibari at {rate_of(text):g}"


def _load() -> Any:
    try:
        import hibari  # only here: the other parts do not need it
    except ModuleNotFoundError:
        why = "sentences are spoken by hibari-tts, which is not installed: pip install 'amser[train]'"
        raise CannotBegin(why) from None
    return hibari.Hibari()


def sentences(voice: Voice) -> list[Utterance]:
    """Single words, numbers, spelled words, code words, and sentences with pauses in them."""
    made = [_said(voice, "word", f"{word[0].upper()}{word[1:]}.", word) for word in SINGLE_WORDS]
    made += [_said(voice, "number", text, text) for text in NUMBERS]
    made += [_said(voice, "spelled", f"{', '.join(word)}.", " ".join(word)) for word in SPELLED]
    made += [_said(voice, "code words", text, text) for text in CODE_WORDS]
    for pieces in PAUSED:
        text = " ".join(pieces)
        pauses = [float(pause) for pause in voice.random(text).uniform(*PAUSES, len(pieces) - 1)]
        made.append(Utterance("pauses", partial(_paused, voice, pieces, pauses), text, speaker_of(text)))
    return made


def repeats(voice: Voice) -> list[Utterance]:
    """One sentence twice, in two takes and in the same one, and sentences and words many times."""
    made = []
    for sentence in REPEATED:
        for gap in GAPS:
            for second in (1, 0):
                made.append(_repeated(voice, f"twice, {gap:g} s apart", sentence, [0, second], gap))
    for sentence in REPEATED_OFTEN:
        for count in OFTEN:
            gap = float(voice.random(sentence, count).uniform(*OFTEN_GAPS))
            takes = list(range(count))
            while _seconds(voice, sentence, takes, gap) > LONGEST_REPEATED:
                takes.pop()
            made.append(_repeated(voice, "3 to 8 times", sentence, takes, gap))
    return made


def _said(voice: Voice, kind: str, spoken: str, text: str) -> Utterance:
    return Utterance(kind, partial(voice, spoken, 0, rate_of(spoken)), text, speaker_of(spoken))


def _paused(voice: Voice, pieces: Sequence[str], pauses: Sequence[float]) -> Float32:
    rate = rate_of(" ".join(pieces))
    return joined([voice(piece, 0, rate) for piece in pieces], pauses)


def _repeated(voice: Voice, kind: str, sentence: str, takes: Sequence[int], gap: float) -> Utterance:
    def load() -> Float32:
        return joined([voice(sentence, take, rate_of(sentence)) for take in takes], [gap] * (len(takes) - 1))

    text = " ".join([sentence] * len(takes))
    return Utterance(kind, load, text, speaker_of(sentence), sentence=sentence, takes=len(takes))


def _seconds(voice: Voice, sentence: str, takes: Sequence[int], gap: float) -> float:
    samples = sum(len(voice(sentence, take, rate_of(sentence))) for take in takes)
    return samples / SAMPLE_RATE + gap * (len(takes) - 1)
