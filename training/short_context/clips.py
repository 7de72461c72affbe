"""The recordings that teach: a row of a manifest or a file of a folder each, with who speaks and in which language."""

from __future__ import annotations

import csv
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

from amser.features import SAMPLE_RATE, resample, to_mono, validate
from training.corpora.manifest import ManifestError

FOLDS = 5
LANGUAGE = "en"  # of a manifest that names none
NO_WORDS = "zxx"  # ISO 639-2: no linguistic content
LONGEST_SECONDS = 29.0
G722 = ".g722"  # telephone speech of 16 kHz, which soundfile does not read
PROMPT_SUFFIXES = (G722, ".wav")
PROMPTS = "prompts-"  # and the voice: a corpus
NOT_SPOKEN = ("silence", "letters")  # folders of prompts


@dataclass(frozen=True, slots=True)
class Clip:
    """A recording.

    Attributes:
        path: of the audio file.
        corpus: stem of the manifest.
        speaker: who is heard.
        language: ISO 639-1 code.
        fold: 1 to 5; a speaker is in one of them.
        text: that is known to be said; None where the manifest has none.
    """

    path: Path
    corpus: str
    speaker: str
    language: str
    fold: int
    text: str | None = None

    @property
    def name(self) -> str:
        """Of this clip alone: prompts of one name stand in several folders."""
        folder = f"{self.path.parent.name}-" if self.corpus.startswith(PROMPTS) else ""
        return f"{self.corpus}-{folder}{self.path.stem}"


def read_clips(manifests: Iterable[Path]) -> list[Clip]:
    """The recordings of manifests with the columns path and speaker; `language` and `fold` are used where they are.

    Without a fold, every fifth speaker of a manifest's sorted names is in the same one.

    Raises:
        ManifestError: a manifest cannot be read, lacks a column, has a fold that is no number, or names files that are
            not there.
    """
    return [clip for manifest in manifests for clip in _read(manifest)]


def _read(manifest: Path) -> list[Clip]:
    try:
        with manifest.open(encoding="utf-8", newline="") as lines:
            rows = list(csv.DictReader(lines, delimiter="\t"))
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{manifest} cannot be read: {error}") from error
    if not rows or not {"path", "speaker"} <= rows[0].keys():
        raise ManifestError(f"{manifest} needs columns path and speaker")
    root = next((folder for folder in manifest.resolve().parents if (folder / rows[0]["path"]).is_file()), None)
    if root is None:
        raise ManifestError(f"{rows[0]['path']} is not beside or above {manifest}")
    fold_of = {name: 1 + place % FOLDS for place, name in enumerate(sorted({row["speaker"] for row in rows}))}
    try:
        clips = [
            Clip(
                root / row["path"],
                manifest.stem,
                row["speaker"],
                row.get("language") or LANGUAGE,
                int(row.get("fold") or fold_of[row["speaker"]]),
                row.get("text"),
            )
            for row in rows
            if row.get("language") != NO_WORDS
        ]
    except ValueError as error:
        raise ManifestError(f"{manifest}: a fold is not a number: {error}") from error
    missing = next((clip.path for clip in clips if not clip.path.is_file()), None)
    if missing:
        raise ManifestError(f"{missing}, of {manifest}, is not there")
    return clips


def read_prompts(folders: Iterable[Path]) -> list[Clip]:
    """The recordings in folders of telephone prompts, one voice each, as Asterisk's packages have them.

    Their names begin with the language, as in `fr_CA_f_June`. Single letters are left out: what is heard alone is often
    another word.

    Raises:
        ManifestError: a folder has no recordings.
    """
    clips = []
    for folder in folders:
        files = sorted(file for suffix in PROMPT_SUFFIXES for file in folder.rglob(f"*{suffix}"))
        files = [file for file in files if file.parent.name not in NOT_SPOKEN]
        if not files:
            raise ManifestError(f"{folder} has no recordings ({', '.join(PROMPT_SUFFIXES)})")
        language = folder.name[:2].lower()
        clips += [Clip(file, f"{PROMPTS}{folder.name}", folder.name, language, 1) for file in files]
    return clips


def some_of_each(clips: Sequence[Clip], most: int, seed: int) -> list[Clip]:
    """At most so many clips of each corpus, drawn; a corpus's own draw does not depend on the others."""
    by_corpus: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        by_corpus[clip.corpus].append(clip)
    return [
        clip for corpus in by_corpus.values() for clip in random.Random(seed).sample(corpus, min(most, len(corpus)))
    ]


def waveform_of(clip: Clip) -> NDArray[np.float32]:
    """float32, (n,), 16 kHz, of at most 29 s."""
    if clip.path.suffix == G722:
        return _g722(clip.path)
    samples, rate = soundfile.read(clip.path, dtype="float32", always_2d=True)
    return validate(resample(to_mono(samples, rate), rate))[: round(LONGEST_SECONDS * SAMPLE_RATE)]


def _g722(file: Path) -> NDArray[np.float32]:
    with av.open(str(file)) as container:
        frames = [frame.to_ndarray() for frame in container.decode(audio=0)]
    samples: NDArray[np.float32] = np.concatenate(frames, axis=1)[0].astype(np.float32) / 32768
    return validate(samples)[: round(LONGEST_SECONDS * SAMPLE_RATE)]
