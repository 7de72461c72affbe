"""Sentences of the GoEmotions corpus (Demszky et al., ACL 2020) in its reduction to Ekman's classes.

The text network learns from them, and voices are paired with them.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path

import numpy as np

from training.corpora.manifest import ALIASES, CLASSES, ManifestError

NAME = "goemotions"
LICENCE = "Apache-2.0"
SPOKEN_WORDS = (2, 20)  # about what is spoken in one utterance


@dataclass(frozen=True, slots=True)
class Sentence:
    """A comment and the numbers of its classes, in `CLASSES`."""

    text: str
    labels: tuple[int, ...]


def read_sentences(table: Path) -> list[Sentence]:
    """All sentences of one part of the corpus.

    Args:
        table: `train.tsv`, `dev.tsv` or `test.tsv` with the columns text, label numbers (comma-separated), id, and no
            header; the names of the labels are in `labels.txt` beside it.

    Raises:
        ManifestError: the table or its labels are missing, or a label is none of the seven classes.
    """
    labels = table.with_name("labels.txt")
    for file in (table, labels):
        if not file.is_file():
            raise ManifestError(f"there is no file {file}; --sentences names the folder of GoEmotions' tables")
    names = labels.read_text(encoding="utf-8").split()
    unknown = [name for name in names if name not in ALIASES]
    if unknown:
        raise ManifestError(f"{labels}: {', '.join(unknown)} is none of {', '.join(CLASSES)}")
    numbers = [CLASSES.index(ALIASES[name]) for name in names]
    with table.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [Sentence(row[0], tuple(sorted(numbers[int(label)] for label in row[1].split(",")))) for row in rows]


def spoken_sentences(sentences: Sequence[Sentence], most: int, seed: int = 0) -> list[list[str]]:
    """Different sentences of one class and of a length that is spoken: for each class at most `most`, at random."""
    shortest, longest = SPOKEN_WORDS
    random = np.random.default_rng(seed)
    chosen = []
    for number in range(len(CLASSES)):
        texts = sorted(
            {
                sentence.text
                for sentence in sentences
                if sentence.labels == (number,) and shortest <= len(sentence.text.split()) <= longest
            }
        )
        chosen.append([texts[index] for index in random.permutation(len(texts))[:most]])
    return chosen


def evenly(sentences: Sequence[Sentence], most: int) -> list[Sentence]:
    """Such sentences, `most` in all, as evenly of all classes as there are enough; more begin with the same."""
    turns = zip_longest(*spoken_sentences(sentences, most))
    taken = (Sentence(text, (label,)) for turn in turns for label, text in enumerate(turn) if text is not None)
    return list(islice(taken, most))


def balanced(sentences: Sequence[Sentence], most: int, seed: int = 0) -> list[Sentence]:
    """All sentences but for the most frequent single classes, of which `most` are drawn; in the order given."""
    random = np.random.default_rng(seed)
    kept: list[int] = []
    seen: dict[tuple[int, ...], int] = {}
    for index in random.permutation(len(sentences)):
        labels = sentences[index].labels
        seen[labels] = seen.get(labels, 0) + 1
        if seen[labels] <= most:
            kept.append(int(index))
    return [sentences[index] for index in sorted(kept)]
