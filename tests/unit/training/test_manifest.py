"""Corpora as manifests, folds of speakers, and figures."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, recall_score

from training.corpora.manifest import CLASSES, ManifestError, load_manifest
from training.data.folds import split
from training.judging.metrics import confusion, score, unweighted_accuracy

WriteManifest = Callable[..., Path]


@pytest.fixture
def write_manifest(tmp_path: Path) -> WriteManifest:
    def write(*labels: str, header: str = "path\temotion\tspeaker", files: bool = True) -> Path:
        lines = [header]
        for number, label in enumerate(labels):
            path = tmp_path / "corpus" / f"{number}.wav"
            path.parent.mkdir(exist_ok=True)
            if files:
                path.touch()
            lines.append(f"corpus/{number}.wav\t{label}\ts{number % 3}")
        table = tmp_path / "tables" / "small.tsv"
        table.parent.mkdir(exist_ok=True)
        table.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return table

    return write


def test_other_names_of_an_emotion_become_the_seven_classes(write_manifest: WriteManifest) -> None:
    given = ["calm", "fearful", "surprised", "Anger", "happiness", "joy", "sadness", "disgusted", "neutral"]
    corpus = load_manifest(write_manifest(*given))
    expected = ["neutral", "fear", "surprise", "angry", "happy", "happy", "sad", "disgust", "neutral"]
    assert [record.emotion for record in corpus.records] == expected
    assert corpus.classes_present == CLASSES


def test_unknown_labels_are_counted_and_left_out(write_manifest: WriteManifest) -> None:
    corpus = load_manifest(write_manifest("angry", "bored", "sad", "bored"))
    assert corpus.unknown_labels == {"bored": 2}
    assert [record.utterance for record in corpus.records] == ["corpus/0", "corpus/2"]


def test_the_root_is_the_nearest_folder_that_has_the_first_file(write_manifest: WriteManifest, tmp_path: Path) -> None:
    table = write_manifest("angry")
    assert load_manifest(table).records[0].audio == tmp_path / "corpus" / "0.wav"
    assert load_manifest(table, tmp_path).records[0].audio == tmp_path / "corpus" / "0.wav"


def test_a_missing_column_is_named(write_manifest: WriteManifest) -> None:
    with pytest.raises(ManifestError, match="no column emotion"):
        load_manifest(write_manifest("angry", header="path\tlabel\tspeaker"))


def test_a_missing_sound_file_is_named(write_manifest: WriteManifest, tmp_path: Path) -> None:
    table = write_manifest("angry", "sad", files=False)
    with pytest.raises(ManifestError, match=r"corpus/0\.wav"):
        load_manifest(table)
    (tmp_path / "corpus" / "0.wav").touch()
    with pytest.raises(ManifestError, match=r"line 3: there is no file .*1\.wav"):
        load_manifest(table)


def test_a_missing_manifest_and_one_without_usable_rows_are_refused(
    write_manifest: WriteManifest, tmp_path: Path
) -> None:
    with pytest.raises(ManifestError, match="there is no manifest"):
        load_manifest(tmp_path / "absent.tsv")
    with pytest.raises(ManifestError, match="no rows"):
        load_manifest(write_manifest())
    with pytest.raises(ManifestError, match="bored"):
        load_manifest(write_manifest("bored"))


@dataclasses.dataclass(frozen=True)
class Spoken:
    speaker: str
    fold: int | None


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


def test_the_first_half_of_the_next_folds_speakers_ends_the_training() -> None:
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


@pytest.mark.parametrize("absent", [None, 2])
def test_figures_equal_scikit_learn(absent: int | None) -> None:
    random = np.random.default_rng(0)
    truth = random.choice([number for number in range(5) if number != absent], 300)
    answers = np.where(random.random(300) < 0.6, truth, random.integers(0, 5, 300))
    scores = score(truth, answers)
    present = np.unique(truth)
    assert scores.n == 300
    assert scores.wa.value == pytest.approx(accuracy_score(truth, answers))
    assert scores.ua.value == pytest.approx(unweighted_accuracy(truth, answers))
    recalls = recall_score(truth, answers, labels=present, average=None, zero_division=0)
    assert scores.ua.value == pytest.approx(np.mean(recalls))
    assert scores.macro_f1.value == pytest.approx(f1_score(truth, answers, labels=present, average="macro"))
    assert scores.weighted_f1.value == pytest.approx(f1_score(truth, answers, labels=present, average="weighted"))
    assert (confusion(truth, answers, 5) == confusion_matrix(truth, answers, labels=range(5))).all()


def test_intervals_hold_the_figure_and_narrow_with_more_utterances() -> None:
    truth = np.tile(np.arange(4), 25)
    answers = np.where(np.arange(100) % 3, truth, (truth + 1) % 4)
    few, many = score(truth, answers), score(np.tile(truth, 16), np.tile(answers, 16))
    assert few.ua.low < few.ua.value < few.ua.high
    assert (many.ua.high - many.ua.low) == pytest.approx((few.ua.high - few.ua.low) / 4, rel=0.25)


def test_figures_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="one length"):
        score([], [])
