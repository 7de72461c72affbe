"""From texts to features: the two text stages of the cluster, run on many texts and kept where they are very many."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from models.resolve import Resolved, resolve
from models.text.context_encoder import ContextEncoder
from models.text.word_vectors import WordVectors
from models.weights import cache_folder
from training.source_digest import TEXT_FEATURES, source_digest

WORD_VECTORS = "spacy-en-core-web-md"  # English; recipes and commands may name others
TEXT_ENCODER = "all-minilm-l6-v2"
TEXTS_AT_ONCE = 32  # alike in length
KEPT_FROM = 1000  # different texts; fewer are encoded anew each time


@dataclass(frozen=True, slots=True)
class TextFeaturePair:
    """The features of one text: words float16 (n, 300) and context float16 (m, width), as in `UtteranceFeatures`."""

    words: NDArray[np.float16]
    context: NDArray[np.float16]


class TextFeatureExtractor:
    """The models of the two text stages, loaded when a text is first encoded.

    Args:
        text_encoder: a model of the catalogue, a folder, or the id of a Hugging Face model on this machine; None for
            `TEXT_ENCODER`.
        word_vectors: a model of the catalogue or a folder that spaCy loads, 300 wide; None for `WORD_VECTORS`.
        cache_root: where features of many texts are kept; `features/` in Amser's cache folder by default.
    """

    def __init__(
        self, text_encoder: str | None = None, word_vectors: str | None = None, cache_root: Path | None = None
    ) -> None:
        self._context = resolve(text_encoder or TEXT_ENCODER)
        self._words = resolve(word_vectors or WORD_VECTORS)
        self._cache_root = cache_root or cache_folder() / "features"
        self._models: tuple[WordVectors, ContextEncoder] | None = None

    @property
    def text_encoder(self) -> Resolved:
        """The contextual encoder: its name, where it is, and which weights exactly."""
        return self._context

    @property
    def fingerprints(self) -> dict[str, str]:
        """Fingerprints of the weights, by the roles `words` and `context`."""
        return {"words": self._words.fingerprint, "context": self._context.fingerprint}

    @property
    def context_width(self) -> int:
        """Width of a token state."""
        return self._load()[1].width

    def extract(self, texts: Sequence[str]) -> dict[str, TextFeaturePair]:
        """The features of every different text."""
        different = sorted(set(texts), key=lambda text: (len(text), text))
        if len(different) < KEPT_FROM:
            return dict(zip(different, self._encode(different), strict=True))
        content = [*different, *self.fingerprints.values(), source_digest(*TEXT_FEATURES)]
        digest = hashlib.sha256("\n".join(content).encode()).hexdigest()
        file = self._cache_root / f"texts-{digest[:16]}.npz"
        if not file.is_file():
            self._cache_root.mkdir(parents=True, exist_ok=True)
            _write(file, self._encode(different))
        return dict(zip(different, _read(file), strict=True))

    def _encode(self, texts: Sequence[str]) -> list[TextFeaturePair]:
        words, encoder = self._load()
        pairs: list[TextFeaturePair] = []
        starts = range(0, len(texts), TEXTS_AT_ONCE)
        for start in track(starts, "features of texts", disable=len(texts) < KEPT_FROM):
            group = texts[start : start + TEXTS_AT_ONCE]
            for text, context in zip(group, encoder.encode(group), strict=True):
                vectors = words.embed(text).values
                pairs.append(TextFeaturePair(vectors.astype(np.float16), context.values.astype(np.float16)))
        return pairs

    def _load(self) -> tuple[WordVectors, ContextEncoder]:
        if self._models is None:
            self._models = WordVectors(Path(self._words.location)), ContextEncoder(self._context.location)
        return self._models


def _write(file: Path, pairs: Sequence[TextFeaturePair]) -> None:
    partial = file.with_suffix(".partial")
    with partial.open("wb") as stream:
        np.savez(
            stream,
            words=np.concatenate([pair.words for pair in pairs]),
            word_counts=[len(pair.words) for pair in pairs],
            context=np.concatenate([pair.context for pair in pairs]),
            context_counts=[len(pair.context) for pair in pairs],
        )
    partial.replace(file)


def _read(file: Path) -> list[TextFeaturePair]:
    with np.load(file, allow_pickle=False) as arrays:
        words = np.split(arrays["words"], np.cumsum(arrays["word_counts"])[:-1])
        context = np.split(arrays["context"], np.cumsum(arrays["context_counts"])[:-1])
    return [TextFeaturePair(*pair) for pair in zip(words, context, strict=True)]
