"""VCEMO: Chinese everyday conversation, over 100 speakers, six emotions (Tang et al., arXiv:2408.13019, 2024).

The corpus was announced and, as far as we know, never published, so its layout is not known. WHAT IS READ HERE IS OUR
OWN ASSUMPTION, for whoever gets the recordings from the authors and can write a table:

    labels.csv            columns file, emotion, speaker, text; UTF-8, UTF-16 or GB 18030
    wav/<file>            file with or without its ending

Labels may be any names that a manifest may have. The papers give its size as 7,477 and, in the abstract of the corpus's
own paper, as 7,747 utterances; nothing here depends on it. Speakers are assigned to five folds.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from training.corpora.adapter import (
    SOUND_ENDINGS,
    Adapter,
    read_table,
    sound_of,
    sounds,
    top_of,
)
from training.corpora.manifest import ALIASES, Record


def read(root: Path) -> Iterator[Record]:
    """The utterances of `labels.csv`."""
    top = top_of(root, "labels.csv")
    files = sounds(top, "wav/*")
    table = top / "labels.csv"
    for row in read_table(table, ("file", "emotion", "speaker", "text"), legacy_encoding="gb18030"):
        name = Path(row["file"])
        utterance = name.stem if name.suffix.lower() in SOUND_ENDINGS else name.name
        yield Record(
            utterance=utterance,
            audio=sound_of(utterance, files, table),
            emotion=row["emotion"].lower(),
            speaker=row["speaker"],
            fold=None,
            text=row["text"],
            language="zh",
        )


ADAPTER = Adapter(
    name="vcemo",
    title="VCEMO, multi-modal emotion recognition for Chinese voiceprints",
    licence="not published: ask its authors for it and for its terms",
    source="its authors, by way of their paper: https://arxiv.org/abs/2408.13019",
    citation="Tang et al., VCEMO, arXiv:2408.13019, 2024",
    languages=("zh",),
    classes_of=ALIASES,
    read=read,
    folds=5,
    note="the paper has six classes; its layout is not public: a table labels.csv beside wav/ is our assumption",
)
