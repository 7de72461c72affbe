"""What an adapter of a published corpus is, and what all of them share: finding files, classes, folds.

An adapter reads the folders as the corpus's authors distribute them. Each one is a file here: a generator of the
utterances under the corpus's own labels, and a description. What follows is the same for all and stands here: labels
become the seven classes, what has no class is counted, speakers are assigned to folds.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from training.corpora.manifest import CLASSES, Corpus, ManifestError, Record

SOUND_ENDINGS = (".wav", ".flac")  # FLAC, because many keep their corpora so
DEEPEST_TOP = 2  # folders between the one that is named and the top of the corpus; archives unpack into one or two
UNUSABLE = "(no usable sound)"  # stands for the label where the authors' own tree has none


@dataclass(frozen=True, slots=True)
class Adapter:
    """A published corpus: how it is read and what must be known before it is used.

    Attributes:
        name: what it is called on command lines and in checkpoints.
        title: its full name.
        licence: the terms of the data, in a few words.
        source: where its authors give it out.
        citation: the paper that describes it.
        languages: ISO 639-1 codes.
        classes_of: from its own labels to the seven classes; a label that is not here leaves the utterance out.
        read: yields the utterances under a folder; `emotion` is still the corpus's own label.
        folds: how many groups its speakers are assigned to; None where `read` gives the folds.
        balanced_by: the property of a speaker that every fold is to have its share of, such as the gender.
        note: what else a user must know, such as the protocol.
    """

    name: str
    title: str
    licence: str
    source: str
    citation: str
    languages: tuple[str, ...]
    classes_of: Mapping[str, str]
    read: Callable[[Path], Iterable[Record]]
    folds: int | None = None
    balanced_by: Callable[[str], str] = lambda _: ""
    note: str = ""

    @property
    def classes(self) -> tuple[str, ...]:
        """Those of the seven classes that it can give, in their usual order."""
        return tuple(name for name in CLASSES if name in self.classes_of.values())

    def load(self, root: Path) -> Corpus:
        """Read the corpus.

        Args:
            root: the folder it was unpacked into, or one up to two levels above.

        Raises:
            ManifestError: the folder, or something in it that must be there, is missing or cannot be read; the message
                says where it was looked for and where the corpus comes from.
        """
        try:
            return self._load(root)
        except ManifestError as error:
            raise ManifestError(f"{self.title}: {error}. To get the corpus: {self.source}") from error

    def _load(self, root: Path) -> Corpus:
        if not root.is_dir():
            raise ManifestError(f"there is no folder {root}")
        utterances = sorted(self.read(root), key=lambda record: record.utterance)
        if self.folds is not None:
            fold_of = assign_folds((record.speaker for record in utterances), self.folds, self.balanced_by)
            utterances = [replace(record, fold=fold_of[record.speaker]) for record in utterances]
        records: list[Record] = []
        left_out: Counter[str] = Counter()
        for record in utterances:
            emotion = self.classes_of.get(record.emotion)
            if emotion is None:
                left_out[record.emotion] += 1
            else:
                records.append(replace(record, emotion=emotion))
        if not records:
            raise ManifestError(f"no utterance with a known emotion in {root}; labels: {dict(left_out)}")
        return Corpus(self.name, tuple(records), dict(left_out), self.licence)


def assign_folds(
    speakers: Iterable[str], count: int, balanced_by: Callable[[str], str] = lambda _: ""
) -> dict[str, int]:
    """Speaker-independent folds: sorted speakers, assigned to folds in turn.

    The speakers of one kind (a gender, say) are assigned one after the other, so that folds differ by no more than one
    in size and in each kind. There are fewer folds where there are fewer speakers. The same speakers give the same
    folds.

    Returns:
        the fold of each speaker, from 1.
    """
    in_turn = sorted(set(speakers), key=lambda speaker: (balanced_by(speaker), speaker))
    return {speaker: turn % count + 1 for turn, speaker in enumerate(in_turn)}


def top_of(root: Path, pattern: str) -> Path:
    """The folder, at `root` or up to two levels under it, in which something matches `pattern`; the first such.

    Raises:
        ManifestError: there is none.
    """
    for depth in range(DEEPEST_TOP + 1):
        first = min(visible(root, "*/" * depth + pattern), default=None)
        if first:
            return first.parents[len(Path(pattern).parts) - 1]
    raise ManifestError(f"there is no {pattern} in {root} or {DEEPEST_TOP} levels under it")


def sounds(folder: Path, pattern: str) -> dict[str, Path]:
    """Sound files under a folder, by name without ending; none is opened.

    Args:
        folder: where to look.
        pattern: of their paths under it, such as `wav/*`.

    Raises:
        ManifestError: there is none.
    """
    files = sorted(file for file in visible(folder, pattern) if file.suffix.lower() in SOUND_ENDINGS)
    if not files:
        raise ManifestError(f"there is no sound file ({' or '.join(SOUND_ENDINGS)}) {pattern} in {folder}")
    # Of two with the same name the WAV file, which sorts last, is the original.
    return {file.stem: file for file in files}


def visible(folder: Path, pattern: str) -> Iterator[Path]:
    """What matches under a folder and is not hidden, as the `._` doubles are that macOS puts into archives."""
    for path in folder.glob(pattern):
        if not any(part.startswith(".") for part in path.relative_to(folder).parts):
            yield path


def sound_of(utterance: str, files: Mapping[str, Path], named_in: Path) -> Path:
    """The sound file of an utterance that a table names.

    Raises:
        ManifestError: there is none.
    """
    if utterance not in files:
        raise ManifestError(f"there is no sound file of {utterance}, which {named_in} names")
    return files[utterance]


def read_text(file: Path, legacy_encoding: str = "cp1252") -> str:
    """A text file in UTF-16 or UTF-8, which can be told from their bytes, or else in `legacy_encoding`.

    Raises:
        ManifestError: the file cannot be read.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ManifestError(f"cannot read {file}: {error.strerror}") from error
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", errors="replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode(legacy_encoding, errors="replace")


def read_table(
    file: Path, columns: tuple[str, ...], delimiter: str = ",", legacy_encoding: str = "cp1252"
) -> list[dict[str, str]]:
    """The rows of a table with a header, without the spaces around values.

    Raises:
        ManifestError: the file cannot be read, has no rows, or has not all of `columns`.
    """
    # Only where commas separate values are quotation marks more than characters.
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if delimiter == "," else csv.QUOTE_NONE
    text = io.StringIO(read_text(file, legacy_encoding), newline="")
    reader = csv.DictReader(text, delimiter=delimiter, quoting=quoting, restval="")
    missing = [column for column in columns if column not in (reader.fieldnames or ())]
    if missing:
        raise ManifestError(f"{file} has no column {', '.join(missing)}; it has {reader.fieldnames}")
    rows = [{column: row[column].strip(" ") for column in columns} for row in reader]
    if not rows:
        raise ManifestError(f"{file} has no rows")
    return rows
