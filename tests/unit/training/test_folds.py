"""Which utterances train, validate and test: no speaker in two parts, and no two who talk with each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
from corpus_trees import RATE, TREES

from training.corpora.__main__ import write_manifest
from training.corpora.catalogue import ADAPTERS
from training.corpora.manifest import Corpus, load_manifest
from training.data.folds import split


@dataclass(frozen=True)
class Spoken:
    speaker: str
    fold: int | None
    dialogue: str | None = None


def speakers_of(utterances: list[Spoken], group: tuple[int, ...]) -> set[str]:
    return {utterances[index].speaker for index in group}


def test_folds_share_no_speaker_and_every_utterance_is_tested_once() -> None:
    utterances = [Spoken(f"actor {number % 20:02}", number % 20 // 4 + 1) for number in range(200)]
    splits = split(utterances)
    assert [each.fold for each in splits] == [1, 2, 3, 4, 5]
    for each in splits:
        groups = [speakers_of(utterances, group) for group in (each.training, each.validation, each.test)]
        assert [len(group) for group in groups] == [14, 2, 4]
        assert len(set.union(*groups)) == 20
        assert sorted(each.training + each.validation + each.test) == list(range(200))
    assert sorted(index for each in splits for index in each.test) == list(range(200))


def test_the_first_half_of_the_next_folds_speakers_validates() -> None:
    utterances = [Spoken(name, fold) for fold, names in enumerate(("ab", "cde", "fghi"), 1) for name in names]
    first, second, third = split(utterances)
    assert speakers_of(utterances, first.validation) == {"c", "d"}
    assert speakers_of(utterances, first.training) == set("efghi")
    assert speakers_of(utterances, second.validation) == {"f", "g"}
    assert speakers_of(utterances, third.validation) == {"a"}


def test_a_fold_of_one_speaker_is_not_divided() -> None:
    utterances = [Spoken(name, fold) for fold, name in enumerate("abcd") for _ in range(3)]
    for each, names in zip(split(utterances), ("abcd", "bcda", "cdab", "dabc"), strict=True):
        test, validation, *training = names
        assert speakers_of(utterances, each.test) == {test}
        assert speakers_of(utterances, each.validation) == {validation}
        assert speakers_of(utterances, each.training) == set(training)


@pytest.mark.parametrize(
    ("utterances", "message"),
    [
        ([Spoken("a", None)], "no fold"),
        ([Spoken("a", 1), Spoken("a", 2)], "speaker a is in folds 1, 2"),
        ([Spoken("a", 1), Spoken("b", 2)], "need three"),
    ],
)
def test_folds_that_cannot_be_speaker_independent_are_refused(utterances: list[Spoken], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split(utterances)


def test_a_fold_of_one_dialogue_validates_as_a_whole() -> None:
    """As with IEMOCAP: half of a pair would validate a network that is trained on the other half of every dialogue."""
    utterances = [Spoken(f"{fold}{name}", fold, f"dialogue {fold}") for fold in range(1, 6) for name in "FM"]
    for each in split(utterances):
        validation, training = (speakers_of(utterances, part) for part in (each.validation, each.training))
        following = each.fold % 5 + 1
        assert validation == {f"{following}F", f"{following}M"}
        assert len(training) == 6


def test_half_of_the_dialogues_of_a_fold_validate() -> None:
    """Whoever talks with someone through a third is in the same unit: a and b, b and c; d and e; f alone."""
    pairs = [("ab", "ab"), ("bc", "bc"), ("de", "de"), ("f", None)]
    second = [Spoken(name, 2, dialogue) for names, dialogue in pairs for name in names]
    utterances = [Spoken("x", 1), *second, Spoken("y", 3), Spoken("z", 3)]
    first = split(utterances)[0]
    assert speakers_of(utterances, first.validation) == set("abcde")
    assert speakers_of(utterances, first.training) == {"f", "y", "z"}


def test_people_who_talk_with_each_other_must_be_in_one_fold() -> None:
    utterances = [Spoken("a", 1, "first"), Spoken("b", 2, "first"), Spoken("c", 3)]
    with pytest.raises(
        ValueError, match=r"speakers a and b talk with each other \(dialogue first\), but are in folds 1, 2"
    ):
        split(utterances)


def iemocap(root: Path) -> Corpus:
    """Session 1 of the small tree, five times."""
    tree = TREES["iemocap"]

    def of_session(text: str, number: int) -> str:
        return text.replace("Session1", f"Session{number}").replace("Ses01", f"Ses0{number}")

    for number in range(1, 6):
        for path in tree.sounds:
            if path.startswith("Session1"):
                file = root / of_session(path, number)
                file.parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(file, np.zeros(RATE // 10, np.float32), RATE)
        for path, content in tree.texts.items():
            if path.startswith("Session1") and isinstance(content, str):
                file = root / of_session(path, number)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(of_session(content, number))
    return ADAPTERS["iemocap"].load(root)


def test_leaving_one_session_of_iemocap_out_validates_on_both_actors_of_the_next(tmp_path: Path) -> None:
    corpus = iemocap(tmp_path / "iemocap")
    write_manifest(corpus, tmp_path / "iemocap.tsv")
    for records in (corpus.records, load_manifest(tmp_path / "iemocap.tsv").records):
        splits = split(records)
        assert [each.fold for each in splits] == [1, 2, 3, 4, 5]
        for each in splits:
            following = each.fold % 5 + 1
            actors = [{records[index].speaker for index in part} for part in (each.test, each.validation)]
            assert actors == [{f"Ses0{each.fold}F", f"Ses0{each.fold}M"}, {f"Ses0{following}F", f"Ses0{following}M"}]
            partners = {records[index].dialogue for index in each.training}
            assert not partners & {records[index].dialogue for index in (*each.validation, *each.test)}
            assert len(each.training) + len(each.validation) + len(each.test) == len(records)
