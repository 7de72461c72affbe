"""A small corpus of tones, and models that answer at once: a test of training needs neither weights nor speech.

The recogniser writes the rank of the Mel that it was given; words and context are as long as their text.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from models.emotion.batch import UtteranceFeatures
from models.messages import Mel, TokenFeatures, Transcript
from models.resolve import Resolved
from training.data.dataset import LabelledUtterance
from training.data.extraction import SpeechModels
from training.data.texts import TextFeaturePair

CONTEXT_WIDTH = 24
RATE = 8000  # Hz of the sound files


class Recogniser:
    """Writes the rank of a Mel, so that a test sees which Mel it was given."""

    def __init__(self) -> None:
        self.mels: list[Mel] = []

    def transcribe(self, mels: Sequence[Mel]) -> list[Transcript]:
        self.mels += mels
        return [Transcript(f"rank {mel.rank}", "en", -0.1) for mel in mels]


class Voice:
    """A row of states for each 80 ms: the frames of its Mel."""

    def __init__(self) -> None:
        self.mels: list[Mel] = []

    def encode(self, mel: Mel) -> NDArray[np.float16]:
        self.mels.append(mel)
        return np.full((-(-mel.frames // 8), 1536), mel.frames, np.float16)


class Words:
    def __init__(self, *_: object) -> None:
        self.texts: list[str] = []

    def embed(self, text: str) -> TokenFeatures:
        self.texts.append(text)
        tokens = tuple(text.split())
        return TokenFeatures(tokens, np.full((len(tokens), 300), 1 / 3, np.float32))


class Context:
    width = CONTEXT_WIDTH

    def __init__(self, *_: object) -> None:
        self.texts: list[str] = []

    def encode(self, texts: Sequence[str]) -> list[TokenFeatures]:
        self.texts += texts
        tokens = [("<s>", *text.split(), "</s>") for text in texts]
        return [TokenFeatures(each, np.full((len(each), CONTEXT_WIDTH), len(each), np.float32)) for each in tokens]


def speech_models(*, asr: bool = True) -> SpeechModels:
    models: Any = (Recogniser() if asr else None, Voice())
    return SpeechModels(*models)


def replace_text_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on a `TextFeatureExtractor` encodes with `Words` and `Context`."""
    monkeypatch.setattr(
        "training.data.texts.resolve", lambda name: Resolved(name, Path(name), f"fingerprint of {name}")
    )
    monkeypatch.setattr("training.data.texts.WordVectors", Words)
    monkeypatch.setattr("training.data.texts.ContextEncoder", Context)


def write_corpus(folder: Path, labels: Sequence[str], speakers: int = 3) -> Path:
    """A manifest and its sound files of a second each: noise, and a tone that is the label's; a fold a speaker."""
    random = np.random.default_rng(0)
    tones = {label: 300.0 * 3**number for number, label in enumerate(sorted(set(labels)))}
    rows = ["path\temotion\tspeaker\tfold\ttext"]
    for number, label in enumerate(labels):
        time = np.arange(RATE + 100 * number) / RATE
        tone = 0.2 * np.sin(2 * np.pi * tones[label] * time) + 0.02 * random.standard_normal(len(time))
        soundfile.write(folder / f"{number}.wav", tone, RATE)
        speaker = number % speakers + 1
        rows.append(f"{number}.wav\t{label}\ts{speaker}\t{speaker}\tsaid {number}")
    manifest = folder / "small.tsv"
    manifest.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return manifest


def features(
    mel: NDArray[np.floating], words: int = 4, states: NDArray[np.floating] | None = None
) -> UtteranceFeatures:
    """An utterance of `words` words, all alike, with a log-Mel."""
    return UtteranceFeatures(
        mel,
        np.ones((words, 300), np.float32),
        np.ones((words + 2, CONTEXT_WIDTH), np.float32),
        np.zeros((1, 1536), np.float16) if states is None else states,
    )


def sentence(value: float, words: int = 4) -> TextFeaturePair:
    """A sentence whose features are a number."""
    return TextFeaturePair(
        np.full((words, 300), value, np.float16), np.full((words + 2, CONTEXT_WIDTH), value, np.float16)
    )


def separable(
    count: int, speaker: str, random: np.random.Generator, fold: int | None = None, classes: int = 2
) -> list[LabelledUtterance]:
    """A class is where the energy of the log-Mel is, and the mean of some encoder states."""
    made = []
    for number in range(count):
        label = number % classes
        mel = random.normal(0, 0.2, (80, int(random.integers(60, 120)))).astype(np.float32)
        mel[label * 80 // classes : (label + 1) * 80 // classes] += 0.3
        states = random.normal(0, 1, (mel.shape[1] // 8, 1536)).astype(np.float16)
        states[:, label - 3] += 4
        states[:, label * 100 : label * 100 + 100] += 1
        made.append(LabelledUtterance(label, speaker, fold, {"none": features(mel, states=states)}))
    return made
