"""TESS: two actresses, 200 words in one carrier phrase, seven emotions (Pichora-Fuller and Dupuis, Borealis 2020).

    TESS Toronto emotional speech set data/OAF_angry/OAF_back_angry.wav
    OAF_back_angry.wav                                             (all in one folder, as the archive serves them)

2,800 utterances where all is there. The names are not all alike: `OA_bite_neutral` is spoken by OAF, and surprise is
`ps` or `pleasant_surprise`. Two speakers are two folds, too few for cross-validation: TESS is for judging a network
that was trained on other voices, or for training one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from training.corpora.adapter import Adapter, sounds, top_of
from training.corpora.manifest import ManifestError, Record

FLAT = "[OY]A*_*_*.*"  # old or young adult female, word, emotion
IN_FOLDERS = f"[OY]AF_*/{FLAT}"


def read(root: Path) -> Iterator[Record]:
    """All utterances, under the label that their file name ends with."""
    for utterance, file in _files(root).items():
        speaker, word, emotion = utterance.split("_", maxsplit=2)
        yield Record(
            utterance=utterance,
            audio=file,
            emotion=emotion.lower(),
            speaker=f"{speaker[0]}AF",
            fold=None,
            text=f"Say the word {word}",
            language="en",
        )


def _files(root: Path) -> dict[str, Path]:
    try:
        return sounds(top_of(root, IN_FOLDERS), IN_FOLDERS)
    except ManifestError:
        return sounds(top_of(root, FLAT), FLAT)


ADAPTER = Adapter(
    name="tess",
    title="TESS, Toronto emotional speech set",
    licence="CC BY-NC-ND 4.0",
    source="University of Toronto on Borealis, https://doi.org/10.5683/SP2/E8H2MF",
    citation="Pichora-Fuller and Dupuis, Toronto emotional speech set, Borealis, 2020",
    languages=("en",),
    classes_of={
        "angry": "angry", "disgust": "disgust", "fear": "fear", "happy": "happy", "neutral": "neutral", "sad": "sad",
        "ps": "surprise", "pleasant_surprise": "surprise", "pleasant_surprised": "surprise",
    },
    read=read,
    folds=2,
    note="two speakers, too few for cross-validation; one carrier phrase",
)  # fmt: skip
