"""The reference: what Whisper writes of the whole 30 s, greedily, with nobody to judge it.

Its texts are slow and do not change with the recogniser, so they are kept on disk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np

from amser.features import Float32
from benchmarks.measuring.transmission import Kept, key_of
from models.messages import Mel, Transcript
from models.weights import cache_folder, fingerprint, model_path
from models.whisper.engine import CONTEXT_FRAMES, MAXIMUM_TOKENS, Engine
from training.source_digest import source_digest

CODE: Final = ("models.whisper.ctranslate2_engine", "models.whisper.engine", "benchmarks.measuring.words.padded")


class PaddedReference:
    """The texts of a model, from disk where they are there.

    Args:
        weights: in the catalogue, or a folder in CTranslate2's format.
        bring: its engine, when the first text is missing.
        kept: where the texts are; by default a file in Amser's cache folder.
    """

    def __init__(self, weights: str, bring: Callable[[], Engine], kept: Kept | None = None) -> None:
        self._weights = fingerprint_of(weights)
        self._bring = bring
        self._kept = kept or Kept(cache_folder() / "words-benchmark.sqlite")

    def transcribe(self, mels: Sequence[Mel]) -> list[Transcript]:
        """The text of each utterance, in order."""
        keys = [self._key(mel) for mel in mels]
        values = self._kept.read(keys)
        for key, mel in zip(keys, mels, strict=True):
            if key not in values:
                text, language, likelihood = padded_text(self._bring(), mel)
                values[key] = {"text": text, "language": language, "average_log_probability": likelihood}
                self._kept.write({key: values[key]})
        return [Transcript(**values[key]) for key in keys]

    def _key(self, mel: Mel) -> str:
        sound = hashlib.sha256(np.ascontiguousarray(mel.values).tobytes()).hexdigest()
        return key_of("padded", source_digest(*CODE), self._weights, sound, mel.silence, mel.language)


def padded_text(engine: Engine, mel: Mel) -> tuple[str, str, float]:
    """What is decoded greedily from the whole 30 s, in which language, and its average log-probability."""
    padded: Float32 = np.full((engine.bands, CONTEXT_FRAMES), mel.silence, np.float32)
    padded[:, : mel.frames] = mel.values[:, :CONTEXT_FRAMES]
    states = engine.encode(padded).states[None]
    language = mel.language or (_likeliest(engine.language_probabilities(states)[0]) if engine.multilingual else "en")
    (decoded,) = engine.decode(states, [language], MAXIMUM_TOKENS)
    return decoded.text, language, decoded.average_log_probability


def _likeliest(probabilities: dict[str, float]) -> str:
    return max(probabilities, key=probabilities.__getitem__)


def folder_of(weights: str) -> Path:
    """Of weights in the catalogue, or the folder itself. Raises WeightsMissing, UnknownModel."""
    folder = Path(weights)
    return folder if (folder / "model.bin").is_file() else model_path(weights)


@cache
def fingerprint_of(weights: str) -> str:
    """A digest of weights in the catalogue, or in a folder."""
    file = Path(weights) / "model.bin"
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else fingerprint(weights)
