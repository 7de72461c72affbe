"""Sentences as the recogniser writes them: spoken by a synthetic voice, compressed as by a device, and transcribed.

In service the text network reads what Whisper writes of a compressed log-Mel: its punctuation and spelling, no
emoticons, and wrong words where the sound was bad. Typed sentences have none of that, so recognised ones can teach
beside them (`Recipe.recognised`). A share of them is changed like the augmented copies of recordings: by rooms, noise
and lines. What was recognised is kept in a file, line by line, so that an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from amser.codecs.klt_tables import digest
from amser.features import MINIMUM_SECONDS, SAMPLE_RATE, resample
from models.weights import cache_folder, fingerprint, model_path
from models.whisper.ctranslate2_engine import CTranslate2Engine
from models.whisper.recognizer import WhisperRecognizer
from training.corpora.manifest import ManifestError
from training.data.extraction import RECOGNISER, THREADS, CodecSetting, compressed_mel
from training.data.waveform_augmentation import MAXIMUM_SAMPLES, WaveformAugmentation
from training.source_digest import source_digest

CODEC = CodecSetting.parse("klt:standard")
LANGUAGE = "en"  # of the synthetic voice
CHANGED = 0.5  # share of the sentences that pass through rooms, noise and lines
SPEEDS = (0.9, 1.25)  # slowest and fastest speech, of the voice's own pace
SENTENCES_AT_ONCE = 32  # spoken and recognised before they are written to the file
PACKAGE = "hibari-tts"
CODE = (
    "amser.features",
    "amser.codecs",
    "models.whisper.ctranslate2_engine",
    "models.whisper.engine",
    "models.whisper.recognizer",
    "training.data.recognised",
    "training.data.reverberation",
    "training.data.waveform_augmentation",
)
# GoEmotions has masks where a name or a religion stood; nobody says "name" there.
MASKED = re.compile(r"\[(NAME|RELIGION)\]")
NAMES = ("Alex", "Anna", "Chris", "Daniel", "David", "Emma", "Julia", "Jordan", "Kate", "Maria", "Max", "Peter", "Tom")
RELIGION = "Christian"


def seed_of(sentence: str) -> int:
    """The seed of everything that is drawn for a sentence: the same whichever sentences are recognised with it."""
    return int.from_bytes(hashlib.sha256(sentence.encode()).digest()[:4], "big")


def spoken_form(sentence: str) -> str:
    """What is said of a typed sentence: a name in place of each mask of GoEmotions."""
    seed, names = seed_of(sentence), 0

    def said(mask: re.Match[str]) -> str:
        nonlocal names
        if mask[1] == "RELIGION":
            return RELIGION
        names += 1
        return NAMES[(seed + names) % len(NAMES)]

    return MASKED.sub(said, sentence)


def is_changed(sentence: str) -> bool:
    """Whether a sentence passes through rooms, noise and lines."""
    return bool(np.random.default_rng(seed_of(sentence)).random() < CHANGED)


def kept_texts(
    file: Path, sentences: Sequence[str], recognise: Callable[[Sequence[str]], Sequence[str]]
) -> dict[str, str]:
    """What was recognised of each sentence, from the file where it is there.

    Args:
        file: a JSON object a line, `written` and `recognised`; grows by what is missing, some sentences at a time.
        sentences: as typed.
        recognise: what is recognised of several sentences, in order; called for missing ones alone.
    """
    known = _read(file)
    missing = [sentence for sentence in dict.fromkeys(sentences) if sentence not in known]
    if missing:
        file.parent.mkdir(parents=True, exist_ok=True)
    starts = range(0, len(missing), SENTENCES_AT_ONCE)
    for start in track(starts, "recognised sentences", disable=len(missing) < SENTENCES_AT_ONCE):
        group = missing[start : start + SENTENCES_AT_ONCE]
        texts = dict(zip(group, recognise(group), strict=True))
        rows = (json.dumps({"written": written, "recognised": text}) for written, text in texts.items())
        with file.open("a", encoding="utf-8") as stream:
            stream.write("".join(f"\n{row}" for row in rows))  # a new line first: the last one may be torn
        known |= texts
    return {sentence: known[sentence] for sentence in sentences}


def _read(file: Path) -> dict[str, str]:
    known = {}
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:  # empty, or the end of an interrupted run
            continue
        known[row["written"]] = row["recognised"]
    return known


@dataclass(frozen=True, slots=True)
class SentenceRecogniser:
    """Speaks sentences and writes down what is recognised.

    Attributes:
        augmentation: how the waveforms of a share of the sentences, `CHANGED`, are changed.
        recogniser: a Whisper of the weight catalogue.
        cache_root: where results are kept; `recognised/` in Amser's cache folder by default.
    """

    augmentation: WaveformAugmentation
    recogniser: str = RECOGNISER
    cache_root: Path | None = None

    def recognised(self, sentences: Sequence[str]) -> dict[str, str]:
        """What the recogniser writes of each typed sentence; empty where it hears no speech.

        Raises:
            ManifestError: something must be spoken, but the synthetic voice is not installed.
        """
        file = (self.cache_root or cache_folder() / "recognised") / f"{self.key()}.jsonl"
        return kept_texts(file, sentences, _Speech(self.augmentation, self.recogniser))

    def key(self) -> str:
        """A name for the results that changes with whatever they depend on besides the sentence."""
        content = {
            "code": source_digest(*CODE),
            "voice": _voice_version(),
            "augmentation": self.augmentation.key(),
            "tables": digest(),
            "recogniser": fingerprint(self.recogniser),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


class _Speech:
    """The voice and the recogniser, loaded when a sentence is first spoken."""

    def __init__(self, augmentation: WaveformAugmentation, recogniser: str) -> None:
        self._augmentation, self._recogniser = augmentation, recogniser
        self._models: tuple[Any, WhisperRecognizer] | None = None

    def __call__(self, sentences: Sequence[str]) -> list[str]:
        if self._models is None:
            engine = CTranslate2Engine(model_path(self._recogniser), threads=THREADS)
            self._models = _load_voice(), WhisperRecognizer(engine)
        voice, recognizer = self._models
        waveforms = (self._spoken(voice, sentence) for sentence in sentences)
        transcripts = recognizer.transcribe([compressed_mel(waveform, CODEC, LANGUAGE) for waveform in waveforms])
        return [transcript.text for transcript in transcripts]

    def _spoken(self, voice: Any, sentence: str) -> NDArray[np.float32]:
        seed = seed_of(sentence)
        speed = np.random.default_rng((seed, 1)).uniform(*SPEEDS)
        samples = np.asarray(voice(spoken_form(sentence), speed=speed, seed=seed), np.float32)
        waveform = resample(samples, voice.sample_rate)[:MAXIMUM_SAMPLES] if len(samples) else samples
        waveform = np.pad(waveform, (0, max(0, round(MINIMUM_SECONDS * SAMPLE_RATE) - len(waveform))))
        return self._augmentation(waveform, seed) if is_changed(sentence) else waveform


def _load_voice() -> Any:
    _voice_version()
    import hibari  # only here: who learns from typed sentences alone does not need it

    return hibari.Hibari()


def _voice_version() -> str:
    try:
        return importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise ManifestError(
            f"recognised sentences are spoken by {PACKAGE}, which is not installed: pip install 'amser[train]'"
        ) from None
