"""Sentences to learn from and to pair with voices."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from training.corpora.goemotions import (
    Sentence,
    balanced,
    read_sentences,
    spoken_sentences,
)
from training.corpora.manifest import CLASSES, ManifestError

ANGRY, HAPPY, NEUTRAL = (CLASSES.index(name) for name in ("angry", "happy", "neutral"))


def write_table(folder: Path, *rows: str, labels: str = "anger\njoy\nneutral") -> Path:
    (folder / "labels.txt").write_text(labels)
    (folder / "train.tsv").write_text("".join(f"{row}\n" for row in rows))
    return folder / "train.tsv"


def test_labels_become_the_numbers_of_the_seven_classes(tmp_path: Path) -> None:
    table = write_table(tmp_path, "stop that now\t0\ta", 'a "quoted word\t2\tb', "how dare you, how nice\t1,0\tc")
    assert read_sentences(table) == [
        Sentence("stop that now", (ANGRY,)),
        Sentence('a "quoted word', (NEUTRAL,)),
        Sentence("how dare you, how nice", (ANGRY, HAPPY)),
    ]


def test_a_table_or_its_labels_that_are_missing_are_named(tmp_path: Path) -> None:
    table = write_table(tmp_path, "stop\t0\ta")
    with pytest.raises(ManifestError, match=r"no file .*dev\.tsv"):
        read_sentences(tmp_path / "dev.tsv")
    (tmp_path / "labels.txt").unlink()
    with pytest.raises(ManifestError, match=r"no file .*labels\.txt"):
        read_sentences(table)


def test_a_label_that_is_none_of_the_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="remorse is none of angry"):
        read_sentences(write_table(tmp_path, "sorry\t1\ta", labels="anger\nremorse"))


def test_sentences_to_pair_are_of_one_class_different_and_as_long_as_speech() -> None:
    sentences = [
        Sentence("stop that now", (ANGRY,)),
        Sentence("stop that now", (ANGRY,)),
        Sentence("oh, how nice", (ANGRY, HAPPY)),
        Sentence("No", (ANGRY,)),
        Sentence("word " * 21, (HAPPY,)),
        Sentence("word " * 20, (HAPPY,)),
    ]
    chosen = spoken_sentences(sentences, 10)
    assert len(chosen) == len(CLASSES)
    assert chosen[ANGRY] == ["stop that now"]
    assert chosen[HAPPY] == ["word " * 20]
    assert chosen[NEUTRAL] == []


def test_no_more_sentences_are_chosen_than_asked_and_a_seed_chooses_the_same() -> None:
    sentences = [Sentence(f"number {number}", (ANGRY,)) for number in range(100)]
    chosen = spoken_sentences(sentences, 30)[ANGRY]
    assert len(set(chosen)) == 30
    assert spoken_sentences(sentences[::-1], 30)[ANGRY] == chosen
    assert spoken_sentences(sentences, 30, seed=1)[ANGRY] != chosen


def test_only_frequent_classes_are_thinned_and_the_order_stays() -> None:
    sentences = [Sentence(str(number), ((NEUTRAL,), (NEUTRAL,), (ANGRY,))[number % 3]) for number in range(60)]
    sentences.append(Sentence("both", (ANGRY, NEUTRAL)))
    kept = balanced(sentences, 25)
    assert Counter(sentence.labels for sentence in kept) == {(NEUTRAL,): 25, (ANGRY,): 20, (ANGRY, NEUTRAL): 1}
    assert [sentence for sentence in sentences if sentence in kept] == kept
    assert balanced(sentences, 25) == kept
    assert balanced(sentences, 100) == sentences
