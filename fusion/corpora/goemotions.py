"""Sentences of the GoEmotions corpus (Demszky et al., ACL 2020) in its reduction to Ekman's classes.

Gives training neutral texts to put in place of a corpus's own few sentences.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from fusion.corpora.manifest import ManifestError

LONGEST_WORDS = 20  # about what is spoken in one utterance


def neutral_sentences(table: Path, count: int, seed: int = 0) -> list[str]:
    """`count` distinct sentences labelled neutral and nothing else, drawn at random.

    Args:
        table: `train.tsv` with the columns text, label numbers (comma-separated), id, and no header; the names of the
            labels are in `labels.txt` beside it.
        count: how many; all there are, if fewer.
        seed: of the draw.

    Raises:
        ManifestError: the table or its labels are missing, or no label is called neutral.
    """
    labels = table.with_name("labels.txt")
    for file in (table, labels):
        if not file.is_file():
            raise ManifestError(f"there is no file {file}")
    names = labels.read_text(encoding="utf-8").split()
    if "neutral" not in names:
        raise ManifestError(f"{labels}: no label is called neutral")
    neutral = str(names.index("neutral"))
    with table.open(encoding="utf-8", newline="") as stream:
        rows = csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
        sentences = {row[0] for row in rows if row[1] == neutral and 1 < len(row[0].split()) <= LONGEST_WORDS}
    chosen = np.random.default_rng(seed).permutation(sorted(sentences))[:count]
    return [str(sentence) for sentence in chosen]
