"""IEMOCAP: ten actors in five dyadic sessions, scripted and improvised (Busso et al., LREV 42, 2008).

    IEMOCAP_full_release/Session1 … Session5/
        dialog/EmoEvaluation/<dialogue>.txt       [6.2901 - 8.2357]<tab>Ses01F_impro01_F000<tab>neu<tab>[2.5, 2.5, 2.5]
        dialog/transcriptions/<dialogue>.txt      Ses01F_impro01_F000 [006.2901-008.2357]: Excuse me.
        sentences/wav/<dialogue>/<utterance>.wav

The protocol is the four-class one of the papers: angry 1,103, happy 1,636 (595 happy and 1,041 excited), neutral 1,708
and sad 1,084; 5,531 utterances where the tree is complete, 2,943 of them improvised. A fold is a session (leave one
session out). Its two actors talk with each other, so that both are held out together: all of a session is one
`dialogue`, which a split never parts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from training.corpora.adapter import (
    Adapter,
    read_text,
    sound_of,
    sounds,
    top_of,
    visible,
)
from training.corpora.manifest import ManifestError, Record

SESSION = "Session[1-5]"
IMPROVISATION = "_impro"  # in the name of a dialogue, as Ses01F_impro01; the others are Ses01F_script01_1 and so on
LABELLED = re.compile(r"^\[[\d.]+ - [\d.]+\]\s+(Ses\d\d\w+)\s+(\w+)\s", re.MULTILINE)
TRANSCRIBED = re.compile(r"^(Ses\d\d\w+) \[[\d.-]+\]:[ \t]*(.*)$", re.MULTILINE)


def read(root: Path) -> Iterator[Record]:
    """The utterances of all sessions that are there, under labels such as `neu` and `xxx` (no majority)."""
    for session in sorted(visible(top_of(root, SESSION), SESSION)):
        evaluations = sorted(visible(session, "dialog/EmoEvaluation/*.txt"))
        if not evaluations:
            raise ManifestError(f"there is no dialog/EmoEvaluation/*.txt in {session}")
        files = sounds(session, "sentences/wav/*/*")
        for evaluation in evaluations:
            transcription = read_text(session / "dialog" / "transcriptions" / evaluation.name)
            texts: dict[str, str] = dict(TRANSCRIBED.findall(transcription))
            for utterance, label in LABELLED.findall(read_text(evaluation)):
                yield Record(
                    utterance=utterance,
                    audio=sound_of(utterance, files, evaluation),
                    emotion=label,
                    speaker=speaker_of(utterance),
                    fold=int(utterance[3:5]),
                    text=texts.get(utterance, "").strip(),
                    language="en",
                    dialogue=utterance[:5],
                )


def read_improvised(root: Path) -> Iterator[Record]:
    """The same without the dialogues that were played from a script."""
    return (record for record in read(root) if IMPROVISATION in record.utterance)


def speaker_of(utterance: str) -> str:
    """Session and gender: `Ses01M` of `Ses01F_impro01_M003`.

    The letter before the number counts; that of the dialogue is only whose motion was captured.
    """
    return utterance[:5] + utterance.rpartition("_")[2][0]


ADAPTER = Adapter(
    name="iemocap",
    title="IEMOCAP, interactive emotional dyadic motion capture database",
    licence="research only, after a signed release form",
    source="University of Southern California, SAIL: https://sail.usc.edu/iemocap/",
    citation="Busso et al., IEMOCAP, Language Resources and Evaluation 42, 2008",
    languages=("en",),
    classes_of={"ang": "angry", "hap": "happy", "exc": "happy", "neu": "neutral", "sad": "sad"},
    read=read,
    note="four-class protocol, excited merges into happy: 5,531 utterances; fold = session",
)

IMPROVISED = replace(
    ADAPTER,
    name="iemocap-improvised",
    title="IEMOCAP without the dialogues that were played from a script",
    read=read_improvised,
    note="the same folders and protocol: 2,943 utterances",
)
