"""The benchmarks of emotion: missing data is one line, and the tables of the rows that ship are still made."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import synthetic_corpus
import torch
from rich.console import Console

from benchmarks.emotion import BASELINES, MEASURED, TABLES, Bench, _Folds, _paired_rows, _with_text, across
from benchmarks.measuring.emotion.corpus_probe import AFTER, BEFORE, WHICH_CORPUS
from benchmarks.measuring.emotion.cross import (
    COPIES,
    PROBE,
    READINGS,
    cross_rows,
    fit_probe,
    reading_rows,
)
from benchmarks.measuring.emotion.tables import tables
from benchmarks.plots.emotion import plot
from models.emotion.amser_states import TextNetwork
from models.emotion.batch import UtteranceFeatures
from models.emotion.network import FusionNetwork, FusionOutput
from models.emotion.published.umons import Umons
from models.emotion.registry import build
from training.corpora.manifest import Corpus
from training.corpora.teacher import Teacher
from training.data.dataset import NO_CLASS, LabelledSentence, LabelledUtterance
from training.data.folds import Split
from training.fitting.cross_validation import TrainedNetwork, TrainingData
from training.fitting.left_out import Calibration
from training.fitting.loading import SentenceBank
from training.fitting.recipe import Recipe
from training.reports import ALL_LEFT_OUT

PAIRED = ("paired", "paired, voice alone", "paired, words alone")
RESULTS = Path(__file__).resolve().parents[3] / "benchmarks" / "results" / "emotion.json"


@pytest.mark.parametrize("name", ["emotion", "fusion_cost"])
def test_a_missing_corpus_is_said_in_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AMSER_DATA", str(tmp_path))
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"benchmarks.{name}").main(["--json", str(tmp_path / "rows.json")])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    missing = tmp_path / "emotion" / "ravdess.tsv"
    assert line.startswith(f"benchmarks.{name}: there is no manifest {missing}; --corpus names one, AMSER_DATA")


def test_every_table_has_its_measurement_and_the_shipped_rows_are_of_these_tables() -> None:
    assert tuple(MEASURED) == TABLES
    tables = {row["table"] for row in json.loads(RESULTS.read_text())}
    assert {"rates", "baselines", "pairs", "four"} <= tables <= set(TABLES)


def test_the_shipped_rows_are_plotted(tmp_path: Path) -> None:
    plot(json.loads(RESULTS.read_text()), tmp_path / "emotion.json")
    written = {file.name for file in tmp_path.iterdir()}
    assert written == {"emotion_rates.png", "emotion_modalities.png", "emotion_confusion.png"}


def test_the_baselines_differ_from_the_published_recipe_in_the_network_and_umons_has_its_glimpses() -> None:
    unread: Any = None  # a recipe depends on neither corpus nor encoders
    bench = Bench(Console(quiet=True), None, None, None, unread, 1)
    for name in BASELINES:
        recipe = bench.baseline(name)
        network = build(recipe.network_config(synthetic_corpus.CONTEXT_WIDTH))
        assert (recipe.name, network.config.model, recipe.contrast().alpha) == (name, name, 0)
        assert network.config.layers == (2 if name == "umons" else 1)
    umons = build(bench.baseline("umons").network_config(synthetic_corpus.CONTEXT_WIDTH))
    assert len(cast(Umons, umons).glimpses) == 1


TEACHERS = (Teacher("a.tsv"), Teacher("b.tsv"), Teacher("c.tsv"), Teacher("readings.tsv", 0.5, "neutral", True))
RECIPE = Recipe(
    name="small",
    classes=("angry", "neutral"),
    views=("none",),
    judged=("none",),
    network={"model": "voice", "modalities": ("states",), "hidden": 16, "heads": 2, "state_layers": 0},
    objective={"alpha": 0},
    training={"epochs": 2, "batch_size": 8, "early_stopping": False, "steps_per_epoch": 12, "learning_rate": 0.01},
    corpora=TEACHERS,
)


def four_corpora() -> list[LabelledUtterance]:
    """Three corpora whose class the states tell, and neutral readings."""
    random = np.random.default_rng(0)
    made: list[LabelledUtterance] = []
    for name in "abc":
        for speaker in "12":
            made += [replace(each, corpus=name) for each in synthetic_corpus.separable(12, f"{name}{speaker}", random)]
    for reader in "12345":
        neutral = (each for each in synthetic_corpus.separable(4, f"reader {reader}", random) if each.label == 1)
        made += [replace(each, corpus="readings") for each in neutral]
    return made


@pytest.mark.slow
def test_left_out_corpora_have_rows_of_the_network_and_the_probe_and_readings_of_other_readers(tmp_path: Path) -> None:
    data, config = TrainingData(four_corpora()), RECIPE.network_config(synthetic_corpus.CONTEXT_WIDTH)
    rows = cross_rows(Console(quiet=True), RECIPE, config, data, tmp_path / "networks", 1)
    left_out = [row for row in rows if row["protocol"] not in (READINGS, WHICH_CORPUS)]
    found = {(row["model"], row["corpus"]) for row in left_out}
    assert found == {(model, name) for model in ("small", PROBE) for name in ("a", "b", "c", ALL_LEFT_OUT)}
    for row in left_out:
        assert row["ua"] > 0.9
        assert 0 <= row["ua_low"] <= row["ua"] <= row["ua_high"]
        assert row["risk_coverage"][-1][1] == pytest.approx(1 - row["wa"])
    told = [(row["model"], row["corpus"]) for row in rows if row["protocol"] == WHICH_CORPUS]
    assert told == [(BEFORE, "none left out"), (AFTER, "a"), (AFTER, "b"), (AFTER, "c")]
    (readings,) = (row for row in rows if row["protocol"] == READINGS)
    assert (readings["corpus"], readings["condition"]) == ("readings", "none")
    assert (readings["n"], readings["n_speakers"]) == (10, 5)
    assert readings["neutral"] > 0.9
    networks = {file.stem for file in (tmp_path / "networks").glob("*.safetensors")}
    assert networks == {"a", "b", "c", "readers-1", "readers-2"}

    titles = [str(made.title) for made in tables("cross", rows)]
    assert len(titles) == 6  # two models, among two sets of classes, which corpus it is, and readings
    plot([row | {"table": "cross"} for row in rows], tmp_path / "emotion.json")
    assert (tmp_path / "emotion_risk.png").stat().st_size > 5000


class Fixed(FusionNetwork):
    """Says angry with the probability that the states hold."""

    modalities = ("states",)

    def forward(self, batch: Any) -> Any:
        angry = batch.states[:, 0, 0]
        return FusionOutput(torch.stack((angry.log(), (1 - angry).log()), 1), angry[:, None])


def reading(angry: float, reader: str) -> LabelledUtterance:
    states = np.full((1, 1536), angry, np.float16)
    mel: Any = np.zeros((80, 10), np.float16)
    features: UtteranceFeatures = synthetic_corpus.features(mel, states=states)
    return LabelledUtterance(1, reader, None, {"none": features, "copy 0": features}, corpus="readings")


def test_a_reading_counts_as_neutral_as_uncertain_or_as_an_emotion_that_an_app_would_show() -> None:
    recipe = replace(RECIPE, copies=1)
    network = Fixed(recipe.network_config(synthetic_corpus.CONTEXT_WIDTH)).eval()
    network.register_parameter("unused", torch.nn.Parameter(torch.zeros(1)))
    utterances = [reading(angry, reader) for angry, reader in ((0.1, "a"), (0.4, "a"), (0.65, "b"), (0.9, "b"))]
    halves = [
        TrainedNetwork(Split(1, (), (), (0, 1), "readers 1"), network, 1.0, 0.0, {"training": 1}),
        TrainedNetwork(Split(2, (), (), (2, 3), "readers 2"), network, 1.0, 0.0, {"training": 1}),
    ]
    rows = reading_rows(recipe, utterances, halves, Calibration(temperature=1.0, sure_from=0.7))
    assert [(row["condition"], row["n"]) for row in rows] == [("none", 4), (COPIES, 4)]
    for row in rows:
        assert row["neutral"] == row["ua"] == 0.5
        assert row["neutral_or_uncertain"] == 0.75
        assert row["emotional_and_sure"] == row["emotional_above_0.7"] == 0.25


def test_the_cross_table_of_one_corpus_is_empty_and_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    unread: Any = None
    assert across(Bench(Console(), "made.tsv", None, None, unread, 1)) == []
    assert "fewer than three corpora" in capsys.readouterr().out


def test_a_probe_leaves_sounds_without_an_emotion_out_and_balances_corpora() -> None:
    utterances = four_corpora()
    silent = replace(utterances[0], label=NO_CLASS)
    with_sound, without = (fit_probe(RECIPE, each, "none") for each in ([silent, *utterances], utterances))
    asked = [each.features["none"] for each in utterances]
    np.testing.assert_array_equal(with_sound.predict(asked), without.predict(asked))
    many_readings = utterances + [each for each in utterances if each.corpus == "readings"] * 9
    more, fewer = (fit_probe(RECIPE, each, "none").predict(asked)[:, 1].mean() for each in (many_readings, utterances))
    assert more == pytest.approx(fewer, abs=0.1)


def test_pairs_are_judged_by_the_voices_of_the_folds_joined_with_the_text() -> None:
    sizes = {**RECIPE.network, "model": "amser-states", "modalities": ("states", "words", "context"), "layers": 1}
    recipe = replace(RECIPE, own_words=False, network=sizes)
    config = recipe.network_config(synthetic_corpus.CONTEXT_WIDTH)
    voice, text = (build(replace(config, model=name)).eval() for name in ("voice", "text"))
    utterances = four_corpora()[:24]
    groups = [[synthetic_corpus.sentence(value)] for value in (-1.0, 1.0)]
    development = [LabelledSentence(group[0], (label,)) for label, group in enumerate(groups)]
    bank = SentenceBank((), development, (), dict.fromkeys(("train", "dev", "test"), groups))
    networks = [
        TrainedNetwork(Split(fold, (), (), tuple(range(first, first + 8))), voice, 1.0, 0.0, {"training": 1})
        for fold, first in ((1, 0), (2, 8))
    ]
    data = TrainingData(utterances, None, bank, cast(TextNetwork, text))
    folds = _with_text(_Folds(recipe, Corpus("a", (), {}), data, networks))
    rows = _paired_rows(folds, bank, "none")
    assert [row["protocol"].partition(", speaker")[0] for row in rows] == list(PAIRED)
    assert [row["n"] for row in rows] == [16, 16, 16]  # those that a fold tested
    assert [row["modalities"] for row in rows] == ["states+words+context", "states", "words+context"]
    assert all(each.network.config.model == "amser-states" for each in folds.networks)
