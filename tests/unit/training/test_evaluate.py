"""The command that judges a checkpoint on a corpus."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import made_up
import numpy as np
import pytest
import torch

from models.emotion.batch import UtteranceFeatures
from models.emotion.checkpoint import CheckpointInfo, save
from models.emotion.config import FusionConfig
from models.emotion.published.amser_plus import AmserPlus
from models.weights import fingerprint
from training import evaluate, train
from training.corpora.manifest import CLASSES, Corpus, ManifestError, Record
from training.data.extraction import RECOGNISER, UNCOMPRESSED, CodecSetting, extract
from training.data.texts import TextFeatureExtractor
from training.evaluate import judge

SMALL = FusionConfig(
    classes=CLASSES, context_width=made_up.CONTEXT_WIDTH, conv_channels=(4, 6, 8), hidden=16, heads=2, feed_forward=32,
    layers=1,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _made_up_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def made_up_features(
        corpus: Corpus, setting: CodecSetting, extractor: TextFeatureExtractor, recogniser: str
    ) -> list[UtteranceFeatures]:
        assert recogniser == RECOGNISER
        return extract(corpus, setting, extractor, cache_root=tmp_path / "cache", listener=made_up.listener)

    made_up.replace_text_models(monkeypatch)
    monkeypatch.setattr(evaluate, "extract", made_up_features)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "small.safetensors"
    encoders = {"asr": fingerprint(RECOGNISER)} | TextFeatureExtractor().fingerprints
    save(path, AmserPlus(SMALL), CheckpointInfo("tiny", SMALL, encoders, ("none",), ("trained-on",), temperature=2.0))
    return path


def test_evaluate_writes_a_row_for_each_codec(
    tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = made_up.write_corpus(tmp_path, ["anger", "sadness", "bored"] * 4)
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
        assert "cross-corpus" in row["protocol"]
    printed = capsys.readouterr().out
    assert "'bored' (4)" in printed
    assert "cross-corpus" in printed
    assert "expected calibration error" in printed


def test_evaluate_says_when_a_corpus_was_trained_on(
    tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = made_up.write_corpus(tmp_path, ["anger", "sadness"]).rename(tmp_path / "trained-on.tsv")
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
    manifest = made_up.write_corpus(tmp_path, ["anger", "sadness"])
    assert evaluate.main(["--manifest", str(manifest), "--checkpoint", str(checkpoint)]) == 0
    assert temperatures == [2.0]


def test_evaluate_explains_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = evaluate.main(["--manifest", str(tmp_path / "absent.tsv"), "--checkpoint", str(tmp_path / "absent.st")])
    assert status == 2
    assert "no fusion checkpoint" in capsys.readouterr().err


def test_a_corpus_with_a_class_that_the_network_does_not_know_is_refused() -> None:
    records = tuple(Record("a", Path(), emotion, "s", 1, "", None) for emotion in ("angry", "fear"))
    with pytest.raises(ManifestError, match="fear, which the network does not know"):
        judge(Corpus("small", records, {}), UNCOMPRESSED, np.ones((2, 2), np.float32), ("angry", "sad"))


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
