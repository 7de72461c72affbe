"""nEMO: nine Polish actors, ninety sentences, six emotions (Christop, LREC-COLING 2024).

    data.tsv                          columns file_id, emotion, raw_text, normalized_text, speaker_id, gender, age
    samples/WR0_surprised_64.wav      the files that file_id names

4,481 utterances where all is there. A fold is a speaker.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from training.corpora.adapter import Adapter, read_table, sound_of, sounds, top_of
from training.corpora.manifest import Record

SPEAKERS = 9


def read(root: Path) -> Iterator[Record]:
    """All rows of `data.tsv`, under labels such as `surprised`."""
    top = top_of(root, "data.tsv")
    files = sounds(top, "samples/*")
    table = top / "data.tsv"
    for row in read_table(table, ("file_id", "emotion", "raw_text", "speaker_id"), delimiter="\t"):
        utterance = row["file_id"].removesuffix(".wav")
        yield Record(
            utterance=utterance,
            audio=sound_of(utterance, files, table),
            emotion=row["emotion"],
            speaker=row["speaker_id"],
            fold=None,
            text=row["raw_text"],
            language="pl",
        )


ADAPTER = Adapter(
    name="nemo",
    title="nEMO, emotional speech in Polish",
    licence="CC BY-NC-SA 4.0",
    source="Adam Mickiewicz University, https://github.com/amu-cai/nEMO",
    citation="Christop, nEMO: Dataset of Emotional Speech in Polish, LREC-COLING 2024",
    languages=("pl",),
    classes_of={
        "anger": "angry", "fear": "fear", "happiness": "happy", "neutral": "neutral", "sadness": "sad",
        "surprised": "surprise",
    },
    read=read,
    folds=SPEAKERS,
    note="fold = speaker; the sentences are neutral",
)  # fmt: skip
