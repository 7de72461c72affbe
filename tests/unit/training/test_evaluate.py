"""The command that judges a checkpoint on a corpus."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic_corpus
import torch
from rich.console import Console

from models.emotion.batch import UtteranceFeatures
from models.emotion.checkpoint import save
from models.emotion.checkpoint_info import CheckpointInfo
from models.emotion.config import FusionConfig
from models.emotion.published.amser_plus import AmserPlus
from models.weights import fingerprint
from training import evaluate, train
from training.corpora.manifest import CLASSES, Corpus, ManifestError, Record, load_manifest
from training.data.extraction import RECOGNISER, UNCOMPRESSED, CodecSetting, extract
from training.data.texts import TextFeatureExtractor
from training.evaluate import among, choose_classes, compare, figures, judge, scores_table

SMALL = FusionConfig(
    classes=CLASSES, context_width=synthetic_corpus.CONTEXT_WIDTH, conv_channels=(4, 6, 8), hidden=16, heads=2,
    feed_forward=32, layers=1,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _synthetic_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def synthetic_features(
        corpus: Corpus, setting: CodecSetting, extractor: TextFeatureExtractor, recogniser: str
    ) -> list[UtteranceFeatures]:
        assert recogniser == RECOGNISER
        return extract(
            corpus, setting, extractor, cache_root=tmp_path / "cache", load_models=synthetic_corpus.speech_models
        )

    synthetic_corpus.replace_text_models(monkeypatch)
    monkeypatch.setattr(evaluate, "extract", synthetic_features)


def write_checkpoint(folder: Path, config: FusionConfig = SMALL) -> Path:
    torch.manual_seed(0)
    path = folder / "small.safetensors"
    encoders = {"asr": fingerprint(RECOGNISER)} | TextFeatureExtractor().fingerprints
    save(path, AmserPlus(config), CheckpointInfo("tiny", config, encoders, ("none",), ("trained-on",), temperature=2.0))
    return path


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path)


def corpus_of(*emotions: str) -> Corpus:
    return Corpus("small", tuple(Record("a", Path(), emotion, "s", 1, "", None) for emotion in emotions), {})


def test_evaluate_writes_a_row_for_each_codec(
    tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = synthetic_corpus.write_corpus(tmp_path, ["anger", "sadness", "bored"] * 4)
    out = tmp_path / "rows.json"
    command = ["--manifest", str(manifest), "--root", str(tmp_path), "--codec", "none", "svd-f16:0.125"]
    assert evaluate.main([*command, "--checkpoint", str(checkpoint), "--json", str(out)]) == 0
    rows = json.loads(out.read_text())
    assert [(row["codec"], row["rate"]) for row in rows] == [("none", None), ("svd-f16", 0.125)]
    for row in rows:
        assert (row["model"], row["corpus"], row["n"]) == ("tiny", "small", 8)
        assert row["classes"] == ["angry", "sad"]
        assert row["modalities"] == "mel+words+context"
        assert row["ua_low"] <= row["ua"] <= row["ua_high"]
        assert 0 <= row["ece"] <= 1
        assert 0 <= row["surest_half"] <= 1
        assert 0 <= row["aurc"] <= 1
        assert row["nll"] > 0
        assert row["n_speakers"] == len({each.speaker for each in load_manifest(manifest).records})
        assert "cross-corpus" in row["protocol"]
    printed = capsys.readouterr().out
    assert "'bored' (4)" in printed
    assert "cross-corpus" in printed
    assert "by speaker" in printed
    assert max(map(len, printed.splitlines())) <= 80


def test_evaluate_says_when_a_corpus_was_trained_on(
    tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = synthetic_corpus.write_corpus(tmp_path, ["anger", "sadness"]).rename(tmp_path / "trained-on.tsv")
    assert evaluate.main(["--manifest", str(manifest), "--checkpoint", str(checkpoint)]) == 0
    assert "training data: not an estimate of accuracy" in capsys.readouterr().out


def test_probabilities_are_divided_by_the_temperature_of_the_checkpoint(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temperatures: list[float] = []

    def predict(_: object, utterances: Sequence[Any], temperature: float) -> np.ndarray:
        temperatures.append(temperature)
        return np.full((len(utterances), 7), 1 / 7, np.float32)

    monkeypatch.setattr(evaluate, "predict", predict)
    manifest = synthetic_corpus.write_corpus(tmp_path, ["anger", "sadness"])
    assert evaluate.main(["--manifest", str(manifest), "--checkpoint", str(checkpoint)]) == 0
    assert temperatures == [2.0]


def test_evaluate_explains_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = evaluate.main(["--manifest", str(tmp_path / "absent.tsv"), "--checkpoint", str(tmp_path / "absent.st")])
    assert status == 2
    assert "no fusion checkpoint" in capsys.readouterr().err


def test_a_corpus_with_a_class_that_the_network_does_not_know_is_refused() -> None:
    with pytest.raises(
        ManifestError, match=r"small has fear, which the network does not know; --classes common .*: angry$"
    ):
        choose_classes(corpus_of("angry", "fear"), ("angry", "sad"))


def test_common_classes_are_those_that_network_and_corpus_share_in_the_order_of_the_network() -> None:
    corpus = corpus_of("angry", "fear", "sad", "surprise")
    assert choose_classes(corpus, ("sad", "happy", "angry"), common=True) == ("sad", "angry")
    assert choose_classes(corpus_of("angry", "sad"), ("sad", "happy", "angry")) == ("sad", "happy", "angry")
    with pytest.raises(ManifestError, match="two classes at least must be common"):
        choose_classes(corpus_of("angry", "fear"), ("sad", "angry"), common=True)


def test_probabilities_are_renormalised_over_the_common_classes_and_other_utterances_are_left_out() -> None:
    known = ("angry", "happy", "sad")
    probabilities = np.array([[0.2, 0.5, 0.3], [0.1, 0.8, 0.1], [0.3, 0.6, 0.1]], np.float32)
    shares = among(probabilities, known, ("angry", "sad"))
    np.testing.assert_allclose(shares, [[0.4, 0.6], [0.5, 0.5], [0.75, 0.25]], rtol=1e-6)
    judged = judge(corpus_of("sad", "fear", "angry"), UNCOMPRESSED, probabilities, known, ("angry", "sad"))
    assert (judged.scores.n, judged.scores.ua.value) == (2, 1.0)  # "happy" is no answer here
    assert judged.matrix.tolist() == [[1, 0], [0, 1]]
    assert judged.calibration_error == pytest.approx(1 - (0.6 + 0.75) / 2)
    assert judged.negative_log_likelihood == pytest.approx(-(np.log(0.6) + np.log(0.75)) / 2)
    assert (judged.surest_half, judged.risk_coverage_area) == (1, 0)


def test_a_row_of_one_speaker_has_no_interval_and_one_of_two_has() -> None:
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]], np.float32)
    truth = np.array([0, 1, 1, 0])
    alone = figures(compare(UNCOMPRESSED, probabilities, truth, ["a"] * 4))
    assert (alone["ua"], alone["ua_low"], alone["ua_high"], alone["n_speakers"]) == (0.5, None, None, 1)
    both = figures(compare(UNCOMPRESSED, probabilities, truth, ["a", "a", "b", "b"]))
    assert (both["ua"], both["ua_low"], both["ua_high"], both["n_speakers"]) == (0.5, 0, 1, 2)
    assert both["surest_half"] == 1
    assert both["aurc"] == pytest.approx((0 + 0 + 1 / 3 + 1 / 2) / 4)


def test_the_table_of_figures_is_legible_at_80_columns() -> None:
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8]] * 5000, np.float32)
    judged = compare(UNCOMPRESSED, probabilities, np.array([0, 1] * 5000), [str(n % 300) for n in range(10_000)])
    console = Console(width=80, file=io.StringIO())
    console.print(scores_table("wide", [("fold 10, training 12, fusion training 8 epochs", judged)]))
    assert isinstance(console.file, io.StringIO)
    printed = console.file.getvalue()
    assert "…" not in printed
    for figure in ("10000", "300", "1.000 [1.000, 1.000]", "0.150", "0.164"):  # n, speakers, UA, ECE, NLL
        assert figure in printed


def test_a_four_class_network_is_judged_on_a_corpus_of_more_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(SMALL, classes=("angry", "happy", "neutral", "sad"))  # as trained on IEMOCAP
    checkpoint = write_checkpoint(tmp_path, config)
    manifest = synthetic_corpus.write_corpus(tmp_path, ["anger", "sadness", "fear", "surprise", "calm"] * 2)
    command = ["--manifest", str(manifest), "--checkpoint", str(checkpoint), "--json", str(tmp_path / "rows.json")]
    assert evaluate.main(command) == 2
    assert "--classes common judges on what both have: angry, neutral, sad" in capsys.readouterr().err
    assert evaluate.main([*command, "--classes", "common"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "classes in common: angry, neutral, sad" in printed
    assert "'fear' (2), 'surprise' (2)" in printed
    (row,) = json.loads((tmp_path / "rows.json").read_text())
    assert (row["n"], row["classes"]) == (6, ["angry", "neutral", "sad"])
    assert np.array(row["confusion"]).shape == (3, 3)
    assert row["protocol"].endswith("classes in common: angry, neutral, sad")


def test_recordings_that_cannot_be_used_are_left_out_and_counted(
    tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = synthetic_corpus.write_corpus(tmp_path, ["anger", "sadness"] * 3)
    (tmp_path / "2.wav").write_text("no sound")
    command = ["--manifest", str(manifest), "--checkpoint", str(checkpoint), "--json", str(tmp_path / "rows.json")]
    assert evaluate.main(command) == 0
    assert "1 of 6 recordings left out: 1 unreadable (2)" in " ".join(capsys.readouterr().out.split())
    (row,) = json.loads((tmp_path / "rows.json").read_text())
    assert (row["n"], row["left_out"]) == (5, {"unreadable": 1})


@pytest.mark.parametrize("command", [evaluate.main, train.main])
def test_help_names_the_columns_and_no_folder_of_this_machine(
    command: Callable[[Sequence[str]], int], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        command(["--help"])
    printed = " ".join(capsys.readouterr().out.split())
    assert caught.value.code == 0
    assert "path, emotion" in printed
    assert "examples:" in printed
    assert str(Path(evaluate.__file__).parent) not in printed
