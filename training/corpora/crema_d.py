"""CREMA-D: 91 actors, twelve sentences, six emotions (Cao et al., IEEE Trans. Affective Computing 5, 2014).

    AudioWAV/1001_DFA_ANG_XX.wav      actor _ sentence _ emotion _ intensity

7,442 files where all is there; one of them holds no sound and is left out. The label is the emotion that was acted, not
the one that listeners voted for. Actors are assigned to five folds, men and women evenly.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from training.corpora.adapter import UNUSABLE, Adapter, sounds, top_of
from training.corpora.manifest import Record

SENTENCES = {
    "IEO": "It's eleven o'clock",
    "TIE": "That is exactly what happened",
    "IOM": "I'm on my way to the meeting",
    "IWW": "I wonder what this is about",
    "TAI": "The airplane is almost full",
    "MTI": "Maybe tomorrow it will be cold",
    "IWL": "I would like a new alarm clock",
    "ITH": "I think I have a doctor's appointment",
    "DFA": "Don't forget a jacket",
    "ITS": "I think I've seen this before",
    "TSI": "The surface is slick",
    "WSI": "We'll stop in a couple of minutes",
}
SILENT = "1076_MTI_SAD_XX"
# From VideoDemographics.csv. In here, because folds must not depend on whether that file was downloaded too.
WOMEN = {
    1002, 1003, 1004, 1006, 1007, 1008, 1009, 1010, 1012, 1013, 1018, 1020, 1021, 1024, 1025,
    1028, 1029, 1030, 1037, 1043, 1046, 1047, 1049, 1052, 1053, 1054, 1055, 1056, 1058, 1060,
    1061, 1063, 1072, 1073, 1074, 1075, 1076, 1078, 1079, 1082, 1084, 1089, 1091,
}  # fmt: skip


def read(root: Path) -> Iterator[Record]:
    """All utterances under labels such as `ANG`."""
    pattern = "AudioWAV/[0-9][0-9][0-9][0-9]_???_???_*"
    for utterance, file in sounds(top_of(root, pattern), pattern).items():
        actor, sentence, emotion, _ = utterance.split("_", maxsplit=3)
        yield Record(
            utterance=utterance,
            audio=file,
            emotion=UNUSABLE if utterance == SILENT else emotion,
            speaker=actor,
            fold=None,
            text=SENTENCES.get(sentence, ""),
            language="en",
        )


ADAPTER = Adapter(
    name="crema-d",
    title="CREMA-D, crowd-sourced emotional multimodal actors dataset",
    licence="ODbL 1.0, its contents DbCL 1.0",
    source="https://github.com/CheyneyComputerScience/CREMA-D (with Git LFS)",
    citation="Cao et al., CREMA-D, IEEE Transactions on Affective Computing 5(4), 2014",
    languages=("en",),
    classes_of={
        "ANG": "angry", "DIS": "disgust", "FEA": "fear", "HAP": "happy", "NEU": "neutral", "SAD": "sad",
    },
    read=read,
    folds=5,
    balanced_by=lambda actor: "woman" if int(actor) in WOMEN else "man",
    note="the acted emotion; twelve fixed sentences",
)  # fmt: skip
