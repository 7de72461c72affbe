"""Rows of `benchmarks.emotion --only words`: networks with and without recognised sentences, on the same sentences."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import synthetic_corpus
from rich.console import Console

from benchmarks.measuring.command import CannotBegin
from benchmarks.measuring.emotion import recognised
from benchmarks.measuring.emotion.recognised import BOTH, TWICE, TYPED, word_rows
from benchmarks.measuring.emotion.tables import tables
from training.data.recognised import is_changed
from training.data.texts import TextFeatureExtractor
from training.fitting.loading import sentence_recogniser
from training.fitting.recipe import Recipe

RECIPE = Recipe(
    name="small",
    classes=("angry", "sad"),
    network={"model": "amser-states", "hidden": 16, "heads": 2, "feed_forward": 32, "layers": 1},
    text_training={"epochs": 1, "batch_size": 8},
)
PARTS = {"train": 24, "dev": 12, "test": 20}


@pytest.fixture
def sentences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tables of sentences, all recognised by an earlier run, which wrote one word of five of the test part wrong."""
    monkeypatch.setenv("AMSER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(recognised, "SEEDS", (0,))
    synthetic_corpus.replace_text_models(monkeypatch)
    folder = tmp_path / "sentences"
    folder.mkdir()
    (folder / "labels.txt").write_text("anger\nsadness")
    lines = []
    for part, count in PARTS.items():
        written = [f"that was the {part} {'abcdefghijklmnopqrstuvwxyz'[number]}" for number in range(count)]
        (folder / f"{part}.tsv").write_text("".join(f"{text}\t{at % 2}\tid\n" for at, text in enumerate(written)))
        wrong = [text.replace("test", "taste") for text in written]
        lines += [json.dumps({"written": a, "recognised": b}) for a, b in zip(written, wrong, strict=True)]
    kept = tmp_path / "cache" / "recognised" / f"{sentence_recogniser(RECIPE).key()}.jsonl"
    kept.parent.mkdir(parents=True)
    kept.write_text("\n".join(lines))
    return folder


def test_three_networks_are_judged_on_typed_and_on_recognised_sentences(sentences: Path) -> None:
    rows = word_rows(Console(quiet=True), replace(RECIPE, sentences=sentences, recognised=10), TextFeatureExtractor())
    assert list(dict.fromkeys(row["model"] for row in rows)) == [f"{kind}, seed 0" for kind in (TYPED, BOTH, TWICE)]
    of_one = [row for row in rows if row["model"] == f"{BOTH}, seed 0"]
    changed = sum(is_changed(f"that was the test {letter}") for letter in "abcdefghijklmnopqrst")
    assert [(row["codec"], row["n"]) for row in of_one] == [
        ("none", 20), ("none", 20), ("klt", 20), ("klt", 20 - changed), ("klt", changed),
    ]  # fmt: skip
    assert [row["word_error_rate"] for row in of_one] == [None, None, *[pytest.approx(0.2)] * 3]
    assert {row["modalities"] for row in rows} == {"words+context"}
    assert sum(made.row_count for made in tables("words", rows)) == len(rows) == 15


def test_without_sentences_nothing_begins() -> None:
    with pytest.raises(CannotBegin, match="--sentences"):
        word_rows(Console(quiet=True), RECIPE, TextFeatureExtractor())
