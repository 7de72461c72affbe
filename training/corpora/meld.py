"""MELD: scenes of the television series Friends, seven emotions (Poria et al., ACL 2019).

    MELD.Raw/
        train_sent_emo.csv  dev_sent_emo.csv  test_sent_emo.csv       also found in train/, dev/ and test/
        train_splits/  dev_splits_complete/  output_repeated_splits_test/
            dia0_utt3.mp4                                              dialogue and utterance within the split

13,706 utterances where all is there: of 13,708 rows one has no clip and one a broken clip. The authors' split is kept
as folds: 1 train, 2 dev, 3 test. It is not speaker-independent: the leading characters are in all three, so
`training.data.folds` refuses to cross-validate on it. The clips are videos, and features are made of sound files: a WAV
or FLAC file beside each clip is what counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from training.corpora.adapter import (
    SOUND_ENDINGS,
    UNUSABLE,
    Adapter,
    read_table,
    sounds,
    top_of,
)
from training.corpora.manifest import ManifestError, Record

SPLITS = {"train": "train_splits", "dev": "dev_splits_complete", "test": "output_repeated_splits_test"}
COLUMNS = ("Utterance", "Speaker", "Emotion", "Dialogue_ID", "Utterance_ID")
WITHOUT_CLIP = {"train_dia125_utt3", "dev_dia110_utt7"}  # broken, missing
# The tables hold some punctuation of Windows' code page as control characters: U+0092 for an apostrophe.
PUNCTUATION = {code: bytes([code]).decode("cp1252") for code in (0x85, 0x91, 0x92, 0x93, 0x94, 0x96, 0x97)}
TO_WAV = 'for clip in *.mp4; do ffmpeg -i "$clip" -vn -ac 1 -ar 16000 "${clip%.mp4}.wav"; done'


def read(root: Path) -> Iterator[Record]:
    """The utterances of the three splits, named `train_dia0_utt3`."""
    for fold, (split, folder) in enumerate(SPLITS.items(), start=1):
        table = top_of(root, f"{split}_sent_emo.csv") / f"{split}_sent_emo.csv"
        clips = top_of(root, folder) / folder
        files = sounds_beside_clips(clips)
        for row in read_table(table, COLUMNS):
            clip = f"dia{row['Dialogue_ID']}_utt{row['Utterance_ID']}"
            utterance = f"{split}_{clip}"
            usable = utterance not in WITHOUT_CLIP
            if usable and clip not in files:
                raise ManifestError(_what_is_missing(clips, clip))
            yield Record(
                utterance=utterance,
                audio=files.get(clip, clips / f"{clip}.mp4"),
                emotion=row["Emotion"] if usable else UNUSABLE,
                speaker=row["Speaker"],
                fold=fold,
                text=row["Utterance"].translate(PUNCTUATION),
                language="en",
                dialogue=f"{split}_dia{row['Dialogue_ID']}",
            )


def sounds_beside_clips(clips: Path) -> dict[str, Path]:
    """Sound files by the name of their clip; none where only videos are there, of which the caller then complains."""
    if any(file.suffix.lower() in SOUND_ENDINGS for file in clips.glob("dia*")):
        return sounds(clips, "dia*")
    return {}


def _what_is_missing(clips: Path, clip: str) -> str:
    if (clips / f"{clip}.mp4").is_file():
        return f"{clip}.mp4 in {clips} has no sound file beside it; to make them all, run in that folder: {TO_WAV}"
    return f"there is no {clip}.mp4, .wav or .flac in {clips}"


ADAPTER = Adapter(
    name="meld",
    title="MELD, multimodal EmotionLines dataset",
    licence="annotations GPL-3.0; the clips come from a television series and stay its owners'",
    source="https://affective-meld.github.io/ (MELD.Raw.tar.gz, with train, dev and test archives inside)",
    citation="Poria et al., MELD: A Multimodal Multi-Party Dataset, ACL 2019",
    languages=("en",),
    classes_of={
        "anger": "angry", "disgust": "disgust", "fear": "fear", "joy": "happy", "neutral": "neutral", "sadness": "sad",
        "surprise": "surprise",
    },
    read=read,
    note="folds 1, 2, 3 = its train, dev, test, which share speakers; needs sound files beside its videos",
)  # fmt: skip
