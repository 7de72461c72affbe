"""A corpus as a manifest: a tab-separated table with the columns `path`, `emotion` and `speaker`.

A corpus that a recipe gives one label, such as readings, needs no column `emotion`, and sounds without an emotion no
column `speaker`: each is then of its own.
Optional columns: `utterance`, `fold`, `text`, `language`, `dialogue` (one value for all who talk with each
other) and `licence`.

The first link of training and judging: paths and labels of any corpus become `Record`s on the seven classes.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from training.data_folder import VARIABLE

CLASSES = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
NO_EMOTION = "none"  # the label of sounds that are taught to have no emotion; recipes give it, manifests do not
REQUIRED_COLUMNS = ("path", "emotion", "speaker")

# Names that corpora give the seven classes. `calm`, which only RAVDESS has, merges into neutral, the nearest of them.
ALIASES = {name: name for name in CLASSES} | {
    "anger": "angry",
    "disgusted": "disgust",
    "fearful": "fear",
    "afraid": "fear",
    "happiness": "happy",
    "joy": "happy",
    "calm": "neutral",
    "sadness": "sad",
    "surprised": "surprise",
}


class ManifestError(ValueError):
    """A manifest, or a file that it names, is not there or not what it should be."""


@dataclass(frozen=True, slots=True)
class Record:
    """One labelled utterance.

    Attributes:
        utterance: its name; the path without its ending where a manifest has no such column.
        audio: the sound file.
        emotion: one of `CLASSES`, or `NO_EMOTION`.
        speaker: who speaks.
        fold: group of speakers for cross-validation; None where there are no folds.
        text: reference transcript; empty where there is none.
        language: ISO 639-1 code; None where it is not known.
        dialogue: what people who talk with each other have in common: the name of a dialogue or of a series of
            them; None for someone who speaks alone.
    """

    utterance: str
    audio: Path
    emotion: str
    speaker: str
    fold: int | None
    text: str
    language: str | None
    dialogue: str | None = None


@dataclass(frozen=True, slots=True)
class Corpus:
    """The usable utterances of a manifest, or of the folders that an adapter reads.

    Attributes:
        name: the adapter's name, or the manifest's file name without its ending.
        records: in the manifest's order; in that of their names from an adapter.
        unknown_labels: how many utterances were left out for each label that is none of the seven classes.
        licence: its terms, as its adapter or manifest gives them; empty where they are not known.
        unusable: utterances whose recordings were left out, by what is wrong with them (`training.data.screening`).
    """

    name: str
    records: tuple[Record, ...]
    unknown_labels: dict[str, int]
    licence: str = ""
    unusable: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def classes_present(self) -> tuple[str, ...]:
        """Those of the seven classes that occur, in their usual order."""
        present = {record.emotion for record in self.records}
        return tuple(name for name in CLASSES if name in present)


def load_manifest(manifest: Path, root: Path | None = None, label: str | None = None) -> Corpus:
    """Read a manifest.

    Args:
        manifest: the table, UTF-8, with a header row.
        root: the folder that `path` is relative to; by default the nearest folder above the manifest under which the
            first path exists.
        label: the class of every utterance, in place of the column `emotion`, which is not needed then.

    Raises:
        ManifestError: the manifest, one of its required columns, a sound file or every known label is missing.
    """
    spare = {None: (), NO_EMOTION: ("emotion", "speaker")}.get(label, ("emotion",))
    required = [column for column in REQUIRED_COLUMNS if column not in spare]
    rows = _read_rows(manifest, required)
    root = root or _find_root(manifest, rows[0]["path"])
    records: list[Record] = []
    unknown: Counter[str] = Counter()
    for number, row in enumerate(rows, start=2):
        said = "" if label else row["emotion"].strip().lower()
        emotion = label or ALIASES.get(said)
        if emotion is None:
            unknown[said] += 1
            continue
        audio = root / row["path"]
        if not audio.is_file():
            raise ManifestError(f"{manifest}, line {number}: there is no file {audio}")
        records.append(_record(row, audio, emotion))
    if not records:
        raise ManifestError(f"{manifest}: none of its labels is an emotion known here: {dict(unknown)}")
    licences = dict.fromkeys(licence for row in rows if (licence := (row.get("licence") or "").strip()))
    return Corpus(manifest.stem, tuple(records), dict(unknown), "; ".join(licences))


def _read_rows(manifest: Path, required: Sequence[str]) -> list[dict[str, str]]:
    if not manifest.is_file():
        raise ManifestError(
            f"there is no manifest {manifest}; --corpus names one, {VARIABLE} the folder that a recipe's paths are in"
        )
    with manifest.open(encoding="utf-8", newline="") as file:
        # Transcripts hold quotation marks that are only characters.
        reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE, restval="")
        missing = [column for column in required if column not in (reader.fieldnames or ())]
        if missing:
            raise ManifestError(f"{manifest}: no column {', '.join(missing)}; it has {reader.fieldnames}")
        rows = list(reader)
    if not rows:
        raise ManifestError(f"{manifest}: no rows")
    return rows


def _find_root(manifest: Path, path: str) -> Path:
    for folder in manifest.resolve().parents:
        if (folder / path).is_file():
            return folder
    raise ManifestError(f"{manifest}: {path} is under none of the folders above it; name the folder with --root")


def _record(row: dict[str, str], audio: Path, emotion: str) -> Record:
    fold = row.get("fold", "").strip()
    if fold and not fold.isdecimal():
        raise ManifestError(f"{audio}: fold {fold!r} is not a number")
    return Record(
        utterance=row.get("utterance") or str(Path(row["path"]).with_suffix("")),
        audio=audio,
        emotion=emotion,
        speaker=row.get("speaker") or Path(row["path"]).stem,
        fold=int(fold) if fold else None,
        text=row.get("text", ""),
        language=row.get("language") or None,
        dialogue=row.get("dialogue") or None,
    )
