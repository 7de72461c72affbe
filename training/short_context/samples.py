"""What the student hears and is to write: clips, changed copies, joined and repeated clips, and sounds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from whisper.tokenizer import Tokenizer

from amser.features import SAMPLE_RATE, Float32
from training.data.extraction import CodecSetting, compressed_mel
from training.data.waveform_augmentation import WaveformAugmentation
from training.short_context.clips import LONGEST_SECONDS, Clip, waveform_of
from training.short_context.sounds import sound
from training.short_context.teacher import LIKELIEST, Lesson, believed, prompt_of

# Shares of what is drawn: one clip, several clips behind each other, a sound without speech
JOINED: Final = 0.25
SOUNDS: Final = 0.15
REPEATED: Final = 0.5  # of the joined ones, one clip again and again
MOST_JOINED: Final = 8
PAUSES: Final = (0.1, 2.0)  # seconds between joined clips
CHANGED: Final = 0.3  # share that passes through a room, noise and a line
SNR: Final = (0.0, 25.0)  # decibels of speech over a sound behind it
CODECS: Final = {"none": 0.35, "klt:standard": 0.45, "klt:low": 0.1, "svd-f16:0.125": 0.1}
USUAL_TAIL: Final = (40, 70)  # frames of silence behind the speech
LONG_TAIL: Final = (30, 300)  # as in a batch with longer speech
LONG_TAILS: Final = 0.35
LANGUAGE_WEIGHT: Final = 0.5  # of the language that is known, against those that the teacher hears
CACHED_WAVEFORMS: Final = 5000
MANY_TOKENS: Final = 20  # of a long text
OFTEN: Final = {"long": 4, "believed": 2, "not believed": 1}  # how often a clip is drawn before all were

Targets = tuple[NDArray[np.int64], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Sample:
    """One thing to hear, and what is to be written.

    Attributes:
        mel: (80, T) float32, without silence behind it.
        silence: value of the silence behind it.
        tail: frames of silence that are wanted behind it.
        tokens: prompt and text; the start alone where no text is learnt.
        likeliest: (n, 32) int64: the tokens that may follow at each of the places that count.
        probabilities: (n, 32) float32: how likely they are.
    """

    mel: Float32
    silence: float
    tail: int
    tokens: tuple[int, ...]
    likeliest: NDArray[np.int64]
    probabilities: NDArray[np.float32]

    @property
    def frames(self) -> int:
        return int(self.mel.shape[1]) + self.tail


class Samples:
    """Draws samples from clips and their lessons.

    Args:
        clips: that teach.
        lessons: of the teacher, one a clip.
        recordings: sounds without speech.
        augmentation: how copies are changed.
        tokenizer: of the model.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        lessons: Sequence[Lesson],
        recordings: Sequence[Path],
        augmentation: WaveformAugmentation,
        tokenizer: Tokenizer,
    ) -> None:
        self._pairs = list(zip(clips, lessons, strict=True))
        self._by_language: dict[str, list[int]] = defaultdict(list)
        for place, (clip, lesson) in enumerate(self._pairs):
            if believed(lesson):
                self._by_language[clip.language].append(place)
        self._recordings = list(recordings)
        self._augmentation = augmentation
        self._tokenizer = tokenizer
        self._languages = list(tokenizer.all_language_codes)
        self._waveforms: dict[Path, Float32] = {}

    def drawn(self, draw: np.random.Generator) -> Iterator[Sample]:
        """Samples without end: clips that have more to teach come more often."""
        places = np.repeat(np.arange(len(self._pairs)), [OFTEN[_worth(lesson)] for _, lesson in self._pairs])
        while True:
            for place in draw.permutation(places):
                kind = draw.random()
                if kind < SOUNDS:
                    yield self._nothing(draw)
                elif kind < SOUNDS + JOINED and believed(self._pairs[place][1]):
                    yield self._joined(draw, int(place))
                else:
                    yield self._single(draw, *self._pairs[place])

    def _single(self, draw: np.random.Generator, clip: Clip, lesson: Lesson) -> Sample:
        likeliest, probabilities = self._soft(clip, lesson)
        waveform, tokens = self._waveform(clip), lesson.tokens.tolist()
        if believed(lesson):
            return self._heard(draw, waveform, clip.language, tokens, (likeliest, probabilities))
        sample = self._heard(draw, waveform, clip.language, (), (likeliest[:1], probabilities[:1]))
        return replace(sample, tokens=sample.tokens[:1])  # only that somebody speaks, and in which language

    def _nothing(self, draw: np.random.Generator) -> Sample:
        language = self._languages[draw.integers(len(self._languages))] if draw.random() < 0.5 else "en"
        targets = _certain([self._tokenizer.no_speech, self._tokenizer.eot])
        return self._heard(draw, sound(draw, self._recordings), language, (), targets, changed=0.0)

    def _joined(self, draw: np.random.Generator, place: int) -> Sample:
        clip, _ = self._pairs[place]
        repeated = draw.random() < REPEATED
        few = 2 + min(MOST_JOINED - 2, int(draw.geometric(0.5)) - 1)
        many = int(draw.integers(2, MOST_JOINED + 1)) if repeated else few
        others = self._by_language[clip.language]
        pieces: list[Float32] = []
        tokens: list[int] = []
        samples = 0
        for number in range(many):
            next_place = place if repeated or number == 0 else others[draw.integers(len(others))]
            other, lesson = self._pairs[next_place]
            pause = np.zeros(round(SAMPLE_RATE * draw.uniform(*PAUSES)), np.float32) if number else _NOTHING
            waveform = self._waveform(other)
            if number and samples + len(pause) + len(waveform) > LONGEST_SECONDS * SAMPLE_RATE:
                break
            level = 1.0 if repeated else 0.1 / max(1e-4, float(np.sqrt(np.mean(waveform**2))))
            pieces += [pause, waveform * level]
            samples += len(pause) + len(waveform)
            tokens += lesson.tokens.tolist()
        heard = np.concatenate(pieces)
        start = self._tokenizer.to_language_token(clip.language)
        heard = heard / max(1.0, float(np.abs(heard).max()))
        return self._heard(draw, heard, clip.language, tokens, _certain([start, *tokens, self._tokenizer.eot]))

    def _soft(self, clip: Clip, lesson: Lesson) -> Targets:
        likeliest, probabilities = lesson.likeliest.astype(np.int64), lesson.probabilities.astype(np.float32)
        probabilities[0, likeliest[0] == self._tokenizer.no_speech] = 0.0  # somebody speaks, whatever the teacher says
        probabilities = probabilities / probabilities.sum(1, keepdims=True)
        known = self._tokenizer.to_language_token(clip.language)
        probabilities[0] *= 1 - LANGUAGE_WEIGHT
        likeliest[0, -1], probabilities[0, -1] = known, LANGUAGE_WEIGHT  # in place of the least likely
        return likeliest, probabilities

    def _heard(
        self,
        draw: np.random.Generator,
        waveform: Float32,
        language: str,
        tokens: Sequence[int],
        targets: Targets,
        changed: float = CHANGED,
    ) -> Sample:
        if draw.random() < changed:
            waveform = mixed(draw, self._augmentation(waveform, int(draw.integers(2**31))), self._recordings)
        codec = CodecSetting.parse(str(draw.choice(list(CODECS), p=list(CODECS.values()))))
        mel = compressed_mel(waveform, codec)
        low, high = LONG_TAIL if draw.random() < LONG_TAILS else USUAL_TAIL
        tail = int(draw.integers(low, high))
        prompt = prompt_of(self._tokenizer, language)
        return Sample(mel.values.astype(np.float32), mel.silence, tail, (*prompt, *map(int, tokens)), *targets)

    def _waveform(self, clip: Clip) -> Float32:
        kept = self._waveforms.get(clip.path)
        if kept is None:
            kept = waveform_of(clip)
            if len(self._waveforms) < CACHED_WAVEFORMS:
                self._waveforms[clip.path] = kept
        return kept


def mixed(draw: np.random.Generator, waveform: Float32, recordings: Sequence[Path], often: float = 0.5) -> Float32:
    """A waveform (n,), so often with a sound behind it that is 0 to 25 dB weaker."""
    if draw.random() >= often:
        return waveform
    noise = np.resize(sound(draw, recordings), len(waveform))
    ratio = 10 ** (-draw.uniform(*SNR) / 20)
    noise = noise * (ratio * np.sqrt(np.mean(waveform**2)) / max(1e-6, float(np.sqrt(np.mean(noise**2)))))
    louder = waveform + noise
    return np.asarray(louder / max(1.0, float(np.abs(louder).max())), np.float32)


_NOTHING: Final = np.zeros(0, np.float32)


def _worth(lesson: Lesson) -> str:
    if not believed(lesson):
        return "not believed"
    return "long" if len(lesson.tokens) >= MANY_TOKENS else "believed"


def _certain(tokens: Sequence[int]) -> Targets:
    """One token at each place, for sure."""
    likeliest = np.zeros((len(tokens), LIKELIEST), np.int64)
    probabilities = np.zeros((len(tokens), LIKELIEST), np.float32)
    likeliest[:, 0], probabilities[:, 0] = tokens, 1.0
    return likeliest, probabilities
