"""RAVDESS: 24 actors, eight emotions, two sentences; its audio-only speech (Livingstone and Russo, PLOS ONE 13, 2018).

    Actor_01 … Actor_24/03-01-06-01-02-01-12.wav
        modality - vocal channel - emotion - intensity - statement - repetition - actor

1,440 utterances where all is there. `calm` merges into neutral. A fold is four actors with consecutive numbers, two men
and two women: six folds, as many as EmoBox has (Ma et al., Interspeech 2024). They do not depend on which actors are
there, so that twenty actors have the same five folds with and without the other four.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from training.corpora.adapter import Adapter, sounds, top_of
from training.corpora.manifest import Record

AUDIO_ONLY_SPEECH = "03-01"
ACTORS_A_FOLD = 4
STATEMENTS = {"01": "Kids are talking by the door", "02": "Dogs are sitting by the door"}


def read(root: Path) -> Iterator[Record]:
    """The audio-only speech under labels `01` to `08`; video and song are passed over."""
    pattern = f"Actor_*/{AUDIO_ONLY_SPEECH}-??-??-??-??-??.*"
    for utterance, file in sounds(top_of(root, pattern), pattern).items():
        _, _, emotion, _, statement, _, actor = utterance.split("-")
        yield Record(
            utterance=utterance,
            audio=file,
            emotion=emotion,
            speaker=actor,
            fold=(int(actor) - 1) // ACTORS_A_FOLD + 1,
            text=STATEMENTS.get(statement, ""),
            language="en",
        )


ADAPTER = Adapter(
    name="ravdess",
    title="RAVDESS, Ryerson audio-visual database of emotional speech and song",
    licence="CC BY-NC-SA 4.0",
    source="Zenodo, https://doi.org/10.5281/zenodo.1188976 (Audio_Speech_Actors_01-24.zip)",
    citation="Livingstone and Russo, The Ryerson Audio-Visual Database, PLOS ONE 13(5), 2018",
    languages=("en",),
    classes_of={
        "01": "neutral",
        "02": "neutral",  # calm
        "03": "happy",
        "04": "sad",
        "05": "angry",
        "06": "fear",
        "07": "disgust",
        "08": "surprise",
    },
    read=read,
    note="audio-only speech, calm merges into neutral; folds of four actors; two fixed sentences",
)
