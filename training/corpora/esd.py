"""ESD: ten Mandarin and ten English speakers, 350 sentences each, five emotions (Zhou et al., ICASSP 2021).

    0001 … 0010 Mandarin, 0011 … 0020 English
        0001.txt                              0001_000351<tab>sentence<tab>emotion; in various encodings
        Angry/0001_000351.wav                 or one folder deeper, in evaluation/, test/ or train/

35,000 utterances where all is there. The label is the folder: the third column of the tables is Chinese for some
speakers, and some lines are broken (their text stays empty). All speakers of a language say the same sentences, so
folds share texts; evaluation, test and train share speakers too, and are not used. Speakers are assigned to five folds,
each with a man and a woman of each language.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from training.corpora.adapter import Adapter, read_text, sounds, top_of, visible
from training.corpora.manifest import ManifestError, Record

SPEAKER_FOLDER = "00[012][0-9]"
FIRST_ENGLISH = "0011"
MEN = {"0004", "0005", "0006", "0008", "0010", "0011", "0012", "0013", "0014", "0020"}
CLASS_OF = {"Angry": "angry", "Happy": "happy", "Neutral": "neutral", "Sad": "sad", "Surprise": "surprise"}


def read(root: Path) -> Iterator[Record]:
    """All utterances of all speakers that are there, under the names of their folders."""
    for speaker in sorted(visible(top_of(root, SPEAKER_FOLDER), SPEAKER_FOLDER)):
        texts = _texts(speaker / f"{speaker.name}.txt", "cp1252" if _language(speaker.name) == "en" else "gb18030")
        for label in CLASS_OF:
            for utterance, file in sounds(speaker, f"{label}/**/*").items():
                yield Record(
                    utterance=utterance,
                    audio=file,
                    emotion=label,
                    speaker=speaker.name,
                    fold=None,
                    text=texts.get(utterance, ""),
                    language=_language(speaker.name),
                )


def _texts(table: Path, legacy_encoding: str) -> dict[str, str]:
    fields = (line.split("\t") for line in read_text(table, legacy_encoding).split("\n"))
    texts = {row[0].strip(): row[1].strip() for row in fields if len(row) >= 3}
    if not texts:
        raise ManifestError(f"{table} has no line of an utterance, its text and its emotion")
    return texts


def _language(speaker: str) -> str:
    return "en" if speaker >= FIRST_ENGLISH else "zh"


def _language_and_gender(speaker: str) -> str:
    return f"{_language(speaker)} {'man' if speaker in MEN else 'woman'}"


ADAPTER = Adapter(
    name="esd",
    title="ESD, emotional speech dataset",
    licence="research only, after a licence form",
    source="National University of Singapore, https://github.com/HLTSingapore/Emotional-Speech-Data",
    citation="Zhou et al., Seen and Unseen Emotional Style Transfer for Voice Conversion, ICASSP 2021",
    languages=("zh", "en"),
    classes_of=CLASS_OF,
    read=read,
    folds=5,
    balanced_by=_language_and_gender,
    note="the same sentences in every fold",
)
