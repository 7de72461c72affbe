"""The command that trains: folds in processes of their own, figures of all of them, and a network from everything."""

from __future__ import annotations

import datetime
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import synthetic_corpus
import torch
import yaml
from rich.console import Console

from models.emotion.checkpoint import load
from models.emotion.checkpoint_info import DEFAULT_CHECKPOINT
from models.emotion.registry import build
from training import reports, train
from training.corpora.goemotions import read_sentences
from training.corpora.manifest import CLASSES, Corpus, Record, load_manifest
from training.data.extraction import SpeechModels
from training.data.folds import Split
from training.data.texts import TextFeatureExtractor
from training.fitting.cross_validation import TrainedNetwork
from training.fitting.loading import (
    load_sentences,
    load_substitution,
    load_utterances,
    training_views,
    view_shares,
)
from training.fitting.loop import predict
from training.fitting.recipe import Recipe
from training.judging.metrics import unweighted_accuracy
from training.source_digest import NETWORKS, SPEECH_FEATURES, TEXT_FEATURES

RECIPE: dict[str, Any] = {
    "name": "small",
    "licences": {"small": "for tests"},
    "classes": ["angry", "sad"],
    "views": ["none", "svd-f16:0.125"],
    "judged": ["none"],
    "copies": 1,
    "copied_at": ["svd-f16:0.25"],
    "waveform": {"pitch": 0, "stretch": 0, "noise": 0},
    "network": {"model": "amser-plus", "conv_channels": [4, 6, 8], "hidden": 16, "heads": 2, "feed_forward": 32},
    "objective": {"alpha": 0},
    "training": {"epochs": 2, "batch_size": 8},
}
LABELS = ["angry", "sad", "angry", "happy"] * 6  # `happy` is none of the recipe's classes
ROW = {
    "model", "corpus", "protocol", "classes", "codec", "rate", "modalities", "wa", "ua", "macro_f1", "weighted_f1",
    "ua_low", "ua_high", "ece", "nll", "surest_half", "aurc", "n", "n_speakers", "confusion",
    "hardware", "versions", "text", "folds", "step", "left_out",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _synthetic_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AMSER_CACHE", str(tmp_path / "cache"))
    synthetic_corpus.replace_text_models(monkeypatch)
    monkeypatch.setattr(SpeechModels, "load", lambda *, asr=True, **_: synthetic_corpus.speech_models(asr=asr))


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return load_manifest(synthetic_corpus.write_corpus(tmp_path, LABELS))


@pytest.fixture
def extractor() -> TextFeatureExtractor:
    return TextFeatureExtractor()


def recipe_of(**changes: Any) -> Recipe:
    return Recipe(**RECIPE | changes)


def networks(folder: Path) -> dict[str, int]:
    """The networks of folds in a cache folder and when they were written."""
    return {file.name: file.stat().st_mtime_ns for file in folder.rglob("fold-*.safetensors")}


def spoil(folder: Path) -> None:
    """Two recordings of the corpus in the folder become unusable: one of 31 s and one that is no sound."""
    time = np.arange(31 * synthetic_corpus.RATE) / synthetic_corpus.RATE
    soundfile.write(folder / "4.wav", 0.2 * np.sin(2 * np.pi * 300 * time), synthetic_corpus.RATE)
    (folder / "5.wav").write_text("no sound")


def test_a_corpus_gives_folds_figures_and_a_checkpoint_and_is_trained_on_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = synthetic_corpus.write_corpus(tmp_path, LABELS)
    spoil(tmp_path)
    recipe, rows, checkpoint = (tmp_path / name for name in ("recipe.yaml", "rows.json", "final.safetensors"))
    recipe.write_text(yaml.safe_dump(RECIPE))
    command = ["--corpus", str(manifest), "--config", str(recipe), "--json", str(rows), "--workers", "1"]
    assert train.main(command) == 0

    (row,) = json.loads(rows.read_text())
    assert row.keys() == ROW
    assert (row["model"], row["corpus"], row["n"], row["codec"]) == ("small", "small", 16, "none")
    assert row["protocol"] == "speaker-independent, 3 folds"
    assert row["classes"] == ["angry", "sad"]
    assert sum(fold["n"] for fold in row["folds"]) == 16
    assert row["left_out"] == {"longer than 30 s": 1, "unreadable": 1}
    assert 0 <= row["ua_low"] <= row["ua"] <= row["ua_high"] <= 1
    first = networks(tmp_path / "cache")
    assert first.keys() == {"fold-1.safetensors", "fold-2.safetensors", "fold-3.safetensors"}
    assert list((tmp_path / "cache").rglob("*.state")) == []
    printed = capsys.readouterr().out
    assert "fold 2, amser-plus" in printed
    assert "networks kept" not in printed
    summary = "2 of 24 recordings left out: 1 longer than 30 s (4), 1 unreadable (5)"
    assert " ".join(printed.split()).count(summary) == 2  # before the training, and with its figures

    monkeypatch.setattr(
        "training.fitting.cross_validation.ProcessPoolExecutor.submit", lambda *_: pytest.fail("trained again")
    )
    monkeypatch.setattr(SpeechModels, "load", lambda **_: pytest.fail("computed again"))
    assert train.main([*command, "--final", "--checkpoint", str(checkpoint)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    assert f"fold 1, fold 2, fold 3: networks kept since {today}" in printed
    assert json.loads(rows.read_text()) == [row]
    assert networks(tmp_path / "cache") == first

    network, info = load(checkpoint)
    assert (info.name, info.licence, info.corpora) == ("small", "for tests (small)", ("small",))
    assert info.codecs == ("none", "svd-f16:0.125", "svd-f16:0.25")
    assert info.config == Recipe.read(recipe).network_config(synthetic_corpus.CONTEXT_WIDTH) == network.config
    assert info.encoders.keys() == {"asr", "words", "context"}
    assert info.metrics["ua, none"] == row["ua"]
    assert info.metrics["epochs, training"] in (1, 2)
    assert info.temperature > 0


def test_other_settings_and_other_folds_are_trained_for_themselves(
    corpus: Corpus, extractor: TextFeatureExtractor
) -> None:
    def folder(recipe: Recipe, records: tuple[Record, ...] = corpus.records) -> Path:
        return train.networks_folder(recipe, Corpus(corpus.name, records, {}), extractor)

    record = corpus.records[0]
    others = [
        replace(record, fold=9),
        replace(record, speaker="another"),
        replace(record, emotion="fear"),
        replace(record, dialogue="first"),
    ]
    folders = [
        folder(recipe_of()),
        folder(recipe_of(training={"epochs": 3})),
        folder(recipe_of(), corpus.records[1:]),
        *(folder(recipe_of(), (other, *corpus.records[1:])) for other in others),
    ]
    assert folder(recipe_of()) == folders[0]
    assert len(set(folders)) == len(folders)


def test_changed_code_trains_for_itself(
    corpus: Corpus, extractor: TextFeatureExtractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of()
    config = recipe.network_config(synthetic_corpus.CONTEXT_WIDTH)
    before = train.networks_folder(recipe, corpus, extractor), train._text_file(recipe, config, extractor)
    digests: list[tuple[str, ...]] = []

    def changed(*modules: str) -> str:
        digests.append(modules)
        return "changed"

    monkeypatch.setattr(train, "source_digest", changed)
    after = train.networks_folder(recipe, corpus, extractor), train._text_file(recipe, config, extractor)
    assert all(one != other for one, other in zip(before, after, strict=True))
    assert all({*NETWORKS, *TEXT_FEATURES} <= set(modules) for modules in digests)
    assert set(SPEECH_FEATURES) <= set(digests[0])


def small_command(folder: Path, labels: list[str] = LABELS, **changes: Any) -> list[str]:
    """The command on a small corpus and recipe in a folder."""
    manifest = synthetic_corpus.write_corpus(folder, labels)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE | changes))
    return ["--corpus", str(manifest), "--config", str(folder / "recipe.yaml"), "--workers", "1"]


@pytest.mark.slow
def test_the_final_network_goes_to_runs_and_never_over_a_file_that_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = hashlib.sha256(DEFAULT_CHECKPOINT.read_bytes()).hexdigest()
    command = [*small_command(tmp_path, copies=0, training={"epochs": 1, "batch_size": 8}), "--final"]
    assert train.main(command) == 0
    written = tmp_path / "runs" / "small.safetensors"
    assert load(written)[1].name == "small"
    written.write_text("mine")

    assert train.main(command) == 2
    assert "training.train: runs/small.safetensors exists; --force replaces it" in capsys.readouterr().err
    assert train.main([*command, "--checkpoint", str(DEFAULT_CHECKPOINT)]) == 2
    assert written.read_text() == "mine"
    assert hashlib.sha256(DEFAULT_CHECKPOINT.read_bytes()).hexdigest() == shipped
    assert train.main([*command, "--force"]) == 0
    assert load(written)[1].name == "small"


def test_a_licence_is_that_of_the_data_and_not_of_the_recipe(tmp_path: Path, extractor: TextFeatureExtractor) -> None:
    corpus = load_manifest(synthetic_corpus.write_corpus(tmp_path, LABELS))
    recipe = recipe_of(copies=0)
    console, config = Console(quiet=True), recipe.network_config(synthetic_corpus.CONTEXT_WIDTH)

    def licence(**changes: Any) -> str:
        return train.load_training_data(console, replace(recipe, **changes), config, corpus, extractor).licence

    assert licence() == "for tests (small)"
    assert licence(licences={}) == "unknown: small"
    assert licence(licences={"other": "CC0"}) == "unknown: small"


def test_a_text_network_is_kept_with_its_licence_and_the_screen_says_since_when(
    tmp_path: Path, sentences: Path, extractor: TextFeatureExtractor, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = load_manifest(synthetic_corpus.write_corpus(tmp_path, ["angry", "calm", "sad"] * 4))
    sizes = {"hidden": 16, "heads": 2, "feed_forward": 32, "layers": 1, "state_layers": 0}
    recipe = recipe_of(
        classes=("angry", "neutral", "sad"), network={"model": "amser-states"} | sizes, sentences=sentences, copies=0
    )
    config, console = recipe.network_config(synthetic_corpus.CONTEXT_WIDTH), Console()
    first = train.load_training_data(console, recipe, config, corpus, extractor)
    assert first.licence == "for tests (small); Apache-2.0 (goemotions)"
    assert "text: network kept" not in capsys.readouterr().out

    (file,) = (tmp_path / "cache").rglob("text-*.safetensors")
    info = load(file)[1]
    assert (info.name, info.licence) == ("small, text", "Apache-2.0 (goemotions)")
    second = train.load_training_data(console, recipe, config, corpus, extractor)
    printed = "".join(capsys.readouterr().out.split())
    assert f"text:networkkeptsince{info.created}in{file}" in printed
    assert first.text is not None
    assert second.text is not None
    assert all(torch.equal(*pair) for pair in zip(first.text.parameters(), second.text.parameters(), strict=True))


def test_default_data_is_looked_for_in_the_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AMSER_DATA", str(tmp_path / "corpora"))
    assert train.main([]) == 2
    expected = f"training.train: there is no manifest {tmp_path / 'corpora' / 'emotion' / 'ravdess.tsv'}; --corpus"
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(expected)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (RECIPE | {"codecs": ["none"]}, "codecs"),
        (RECIPE | {"classes": ["fear"]}, "small has none of fear"),
        (RECIPE | {"classes": ["angry", "neutral"], "network": {"model": "amser-states"}}, "--sentences"),
        (RECIPE | {"classes": ["angry", "sad"], "network": {"model": "amser-states"}}, "neutral"),
        (RECIPE | {"views": ["opus"]}, "opus"),
    ],
)
def test_what_cannot_be_trained_is_explained(
    tmp_path: Path, content: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = synthetic_corpus.write_corpus(tmp_path, LABELS[:6])
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(content))
    assert train.main(["--corpus", str(manifest), "--config", str(recipe)]) == 2
    assert message in capsys.readouterr().err


def test_utterances_of_the_recipes_classes_come_in_every_view(corpus: Corpus, extractor: TextFeatureExtractor) -> None:
    recipe = recipe_of(copies=2)
    utterances = load_utterances(corpus, recipe, extractor, settings=["mel-f16"])
    assert training_views(recipe) == ("none", "svd-f16:0.125", "copy 0", "copy 1")
    assert view_shares(recipe) is None
    assert view_shares(replace(recipe, copy_share=0.2)) == pytest.approx([0.4, 0.4, 0.1, 0.1])
    assert [utterance.label for utterance in utterances] == [0, 1, 0] * 6
    assert {utterance.speaker for utterance in utterances} == {"s1", "s2", "s3"}
    for utterance in utterances:
        assert utterance.features.keys() == {*training_views(recipe), "mel-f16"}
        assert len(utterance.features["svd-f16:0.125"].words) == len(["rank", "10"])
        np.testing.assert_array_equal(utterance.features["copy 1"].words, utterance.features["none"].words)


def test_reference_text_is_that_of_the_corpus(corpus: Corpus, extractor: TextFeatureExtractor) -> None:
    load_utterances(corpus, recipe_of(text="reference"), extractor)
    _, context = extractor._load()
    assert set(context.texts) == {record.text for record in corpus.records}  # type: ignore[attr-defined]


def test_no_text_is_trained_on_as_the_stages_serve_it(extractor: TextFeatureExtractor) -> None:
    substitution = load_substitution(None, recipe_of(), extractor)
    assert substitution.sentences == []
    assert substitution.no_text.words.shape == (0, 300)
    assert substitution.no_text.context.shape == (2, synthetic_corpus.CONTEXT_WIDTH)


@pytest.fixture
def sentences(tmp_path: Path) -> Path:
    folder = tmp_path / "sentences"
    folder.mkdir()
    (folder / "labels.txt").write_text("anger\nneutral\nsadness\njoy")
    for part, count in (("train", 30), ("dev", 10), ("test", 10)):
        rows = [f"{part} number {number}\t{number % 4}\tid" for number in range(count)]
        (folder / f"{part}.tsv").write_text("\n".join([*rows, f"{part} of two\t0,2\tid", f"{part}\t0\tid"]) + "\n")
    return folder


def test_sentences_have_the_numbers_of_the_recipes_classes(sentences: Path, extractor: TextFeatureExtractor) -> None:
    bank = load_sentences(sentences, recipe_of(classes=("sad", "angry"), text_most=5, pair_sentences=2), extractor)
    labels = [each.labels for each in bank.training]
    assert (labels.count((0,)), labels.count((1,)), labels.count((1, 0))) == (5, 5, 1)
    assert len(bank.development) == 5 + 2
    assert {part: [len(texts) for texts in classes] for part, classes in bank.pairs.items()} == {
        "train": [2, 2],
        "dev": [2, 2],
        "test": [2, 2],
    }


def test_neutral_sentences_stand_ready_to_replace_a_text(sentences: Path, extractor: TextFeatureExtractor) -> None:
    substitution = load_substitution(sentences, recipe_of(substitute_sentences=3), extractor)
    neutral = [
        each.text for each in read_sentences(sentences / "train.tsv") if each.labels == (CLASSES.index("neutral"),)
    ]
    _, context = extractor._load()
    assert len(substitution.sentences) == 3
    assert set(context.texts) - {""} <= set(neutral)  # type: ignore[attr-defined]


def test_figures_of_all_folds_are_those_of_every_utterance_once() -> None:
    utterances = [
        each
        for fold in (1, 2, 3)
        for each in synthetic_corpus.separable(8, f"s{fold}", np.random.default_rng(fold), fold)
    ]
    recipe = recipe_of(copies=0, views=("none",))
    config = recipe.network_config(synthetic_corpus.CONTEXT_WIDTH)
    folds = [
        TrainedNetwork(
            Split(fold, (), (), tuple(range(8 * fold - 8, 8 * fold))), build(config).eval(), 1.5, 0.5, {"training": 1}
        )
        for fold in (1, 2, 3)
    ]
    together = reports.pooled(folds, utterances, "none")
    np.testing.assert_allclose(together.sum(1), 1, rtol=1e-5)
    second = predict(folds[1].network, [each.features["none"] for each in utterances[8:16]], 1.5)
    np.testing.assert_allclose(together[8:16], second, atol=1e-6)

    (row,) = reports.report_folds(Console(quiet=True), recipe, Corpus("small", (), {}), utterances, folds)
    truth = [each.label for each in utterances]
    assert row["ua"] == pytest.approx(unweighted_accuracy(truth, together.argmax(1)))
    assert [fold["n"] for fold in row["folds"]] == [8, 8, 8]
    assert sum(fold["n_speakers"] for fold in row["folds"]) == row["n_speakers"]
    assert (row["n"], row["classes"], row["modalities"]) == (24, ["angry", "sad"], "mel+words+context")
