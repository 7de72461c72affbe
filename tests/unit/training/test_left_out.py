"""Corpora left out: who teaches and who judges, balanced draws, and a calibration that never met what it is for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import synthetic_corpus
import torch
import yaml
from scipy.special import softmax

from models.emotion.amser_states import AmserStates
from models.emotion.checkpoint import load
from models.emotion.registry import build
from training import train
from training.corpora.teacher import Teacher
from training.data.dataset import NO_CLASS, LabelledUtterance
from training.data.extraction import SpeechModels
from training.data.folds import Split, folds_within, leave_one_corpus_out, two_halves_of_speakers
from training.fitting.cross_validation import TrainedNetwork
from training.fitting.left_out import Answers, answers_of, calibrate
from training.fitting.loop import logits_of
from training.fitting.recipe import Recipe
from training.fitting.sampling import Draws, possible_classes
from training.judging.calibration import fit_temperature, sure_threshold
from training.reports import ALL_LEFT_OUT, AMONG_ALL, AMONG_ITS_CLASSES, left_out_rows, restricted

TEACHERS = (Teacher("a.tsv"), Teacher("b.tsv"), Teacher("c.tsv"), Teacher("readings.tsv", 0.1, "neutral", True))
NAMES = [each.name for each in TEACHERS]


def utterance(corpus: str, label: int = 0, speaker: str = "s", fold: int | None = None) -> LabelledUtterance:
    return LabelledUtterance(label, f"{corpus}-{speaker}", fold, {}, corpus=corpus)


def corpora_of(utterances: list[LabelledUtterance], group: tuple[int, ...]) -> set[str]:
    return {utterances[index].corpus for index in group}


FOUR_CORPORA = [utterance(name, speaker=str(number)) for name in NAMES for number in range(4)]


def test_each_corpus_is_left_out_once_and_what_is_always_there_never() -> None:
    splits = leave_one_corpus_out(FOUR_CORPORA, TEACHERS)
    assert [each.name for each in splits] == ["a", "b", "c"]
    for each in splits:
        assert corpora_of(FOUR_CORPORA, each.test) == {each.name}
        assert corpora_of(FOUR_CORPORA, each.training) == set(NAMES) - {each.name}
        assert each.validation == ()
        assert sorted(each.training + each.test) == list(range(16))


def test_two_corpora_are_too_few_to_calibrate_by_others() -> None:
    with pytest.raises(ValueError, match="left out: a, b; 3 are needed"):
        leave_one_corpus_out(FOUR_CORPORA, TEACHERS[:2])


def test_the_folds_of_one_corpus_have_the_others_in_training() -> None:
    utterances = [*FOUR_CORPORA[4:], *(utterance("a", speaker=str(fold), fold=fold) for fold in (1, 2, 3))]
    splits = folds_within(utterances, "a")
    assert [each.name for each in splits] == ["a fold 1", "a fold 2", "a fold 3"]
    for each in splits:
        assert len(each.test) == len(each.validation) == 1
        assert corpora_of(utterances, each.test + each.validation) == {"a"}
        assert set(range(12)) <= set(each.training)


def test_readers_judge_each_other_by_halves() -> None:
    first, second = two_halves_of_speakers(FOUR_CORPORA, {"readings"}, "readers")
    assert (first.name, second.name) == ("readers 1", "readers 2")
    assert first.test == (12, 14)
    assert second.test == (13, 15)
    assert set(first.training) == set(range(16)) - {12, 14}


def test_draws_balance_classes_within_a_corpus_and_corpora_by_weight_and_the_root_of_their_size() -> None:
    utterances = [utterance("a", 0)] * 12 + [utterance("a", 1)] * 4 + [utterance("b", 2)] * 4
    draws = Draws.balanced(utterances, 3, {"a": 1.0, "b": 0.5})
    shares = draws.probabilities
    assert shares.sum() == pytest.approx(1)
    assert shares[:12].sum() == pytest.approx(shares[12:16].sum())
    assert shares[:16].sum() / shares[16:].sum() == pytest.approx(4 / (0.5 * 2))


def test_an_epoch_of_draws_has_as_many_batches_as_are_asked_for_and_the_shares_of_the_draws() -> None:
    utterances = [utterance("a", 0)] * 90 + [utterance("a", 1)] * 10
    draws = Draws.balanced(utterances, 2, {})
    batches = list(draws.batches([1] * 100, 16, 40, np.random.default_rng(0)))
    assert [len(each) for each in batches] == [16] * 40
    drawn = np.concatenate(batches)
    assert (drawn >= 90).mean() == pytest.approx(0.5, abs=0.05)


def test_the_classes_that_a_corpus_labels_are_possible_and_all_where_it_does_not_say() -> None:
    two, all_of_them = replace(utterance("a"), possible=(0, 2)), utterance("b")
    np.testing.assert_array_equal(possible_classes([two, all_of_them], 3), [[1, 0, 1], [1, 1, 1]])


def test_corpora_weigh_alike_in_the_temperature_whatever_their_size() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(0, 3, (400, 3)).astype(np.float32)
    labels = np.where(random.random(400) < 0.6, logits.argmax(1), random.integers(0, 3, 400))
    weights = np.repeat([1.0, 0.0], 200)
    assert fit_temperature(logits, labels, weights) == pytest.approx(fit_temperature(logits[:200], labels[:200]))


def test_the_threshold_is_the_lowest_confidence_from_which_enough_answers_are_right() -> None:
    confidence = np.array([0.9, 0.8, 0.7, 0.7, 0.6])
    probabilities = np.stack((confidence, 1 - confidence), 1)
    assert sure_threshold(probabilities, [0, 0, 1, 0, 1], 0.7) == 0.7
    assert sure_threshold(probabilities, [0, 1, 1, 1, 1], 0.7) == 0.9
    assert sure_threshold(probabilities, [1, 1, 1, 1, 1], 0.7) == 1
    assert sure_threshold(probabilities, [0, 1, 1, 1, 0], 0.7, [1, 0, 0, 0, 9]) == 0.6


def test_an_answer_is_taken_in_each_view_about_utterances_with_a_class() -> None:
    torch.manual_seed(0)
    recipe = recipe_of()
    network = build(recipe.network_config(synthetic_corpus.CONTEXT_WIDTH)).eval()
    heard = synthetic_corpus.separable(12, "b", np.random.default_rng(0))
    nothing = replace(heard[0], label=NO_CLASS)  # says nothing about confidence
    found = answers_of(
        recipe, TrainedNetwork(Split(1, (), (), ()), network, 1.0, 0.0, {"training": 1}), [*heard, nothing]
    )
    np.testing.assert_array_equal(found.labels, [each.label for each in heard])
    np.testing.assert_allclose(found.logits, logits_of(network, [each.features["none"] for each in heard]))


def test_each_corpus_counts_alike_in_a_calibration() -> None:
    random = np.random.default_rng(0)
    small, large = (
        Answers(random.normal(0, 2, (count, 3)).astype(np.float32), random.integers(0, 3, count)) for count in (30, 300)
    )
    found = calibrate([small, large])
    logits, labels = np.concatenate((small.logits, large.logits)), np.concatenate((small.labels, large.labels)).tolist()
    weights = [1 / 30] * 30 + [1 / 300] * 300
    assert found.temperature == pytest.approx(fit_temperature(logits, labels, weights))
    assert found.sure_from == sure_threshold(softmax(logits / found.temperature, axis=1), labels, 0.7, weights)


def test_probabilities_among_some_classes_sum_to_one_over_them() -> None:
    made = restricted(np.array([[0.5, 0.3, 0.2], [0.0, 1.0, 0.0]], np.float32), [0, 2])
    np.testing.assert_allclose(made, [[5 / 7, 0, 2 / 7], [0, 0, 0]], rtol=1e-6)


def test_the_row_of_all_left_out_corpora_has_the_mean_accuracy_and_the_surest_half_of_all() -> None:
    recipe = recipe_of(classes=("angry", "neutral", "sad"))
    parts = {
        "a": [utterance("a", label, str(number)) for number, label in enumerate((0, 1, 0, 1))],
        "b": [utterance("b", label, str(number)) for number, label in enumerate((0, 2))],
    }
    sure = np.array([[0.9, 0.1, 0.0], [0.1, 0.9, 0.0]] * 2, np.float32)
    unsure = np.array([[0.1, 0.6, 0.3], [0.1, 0.6, 0.3]], np.float32)
    _, rows = left_out_rows(recipe, "made", "none", parts, {"a": sure, "b": unsure}, ("states",))
    found = {(row["corpus"], row["protocol"].partition(", ")[2]): row for row in rows}
    assert len(found) == 6
    assert found["a", AMONG_ALL]["ua"] == 1
    assert found["b", AMONG_ALL]["ua"] == 0  # answers neutral, which the corpus lacks
    assert found["b", AMONG_ITS_CLASSES]["ua"] == 1 / 2  # sad both times
    together = found[ALL_LEFT_OUT, AMONG_ALL]
    assert (together["ua"], together["n"], together["n_speakers"]) == (0.5, 6, 6)
    assert together["surest_half"] == 1
    assert together["risk_coverage"][-1] == (1.0, pytest.approx(1 / 3))


RECIPE = {
    "name": "several",
    "classes": ("angry", "neutral", "sad"),
    "views": ("none",),
    "judged": ("none",),
    "network": {"model": "amser-plus", "conv_channels": (4, 6, 8), "hidden": 16, "heads": 2, "feed_forward": 32},
    "objective": {"alpha": 0},
    "training": {"epochs": 1, "batch_size": 8, "early_stopping": False, "steps_per_epoch": 3},
}


def recipe_of(**changes: object) -> Recipe:
    return Recipe(**RECIPE | changes)  # type: ignore[arg-type]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command on three corpora with two or three classes, and readings."""
    monkeypatch.setenv("AMSER_CACHE", str(tmp_path / "cache"))
    synthetic_corpus.replace_text_models(monkeypatch)
    monkeypatch.setattr(SpeechModels, "load", lambda *, asr=True, **_: synthetic_corpus.speech_models(asr=asr))
    for name, labels in (("a", ["angry", "sad"]), ("b", ["angry", "calm", "sad"]), ("c", ["angry", "calm"])):
        folder = tmp_path / name
        folder.mkdir()
        synthetic_corpus.write_corpus(folder, labels * 4).rename(folder / f"{name}.tsv")
    (tmp_path / "readings").mkdir()
    manifest = synthetic_corpus.write_corpus(tmp_path / "readings", ["sad"] * 4, speakers=2)
    rows = [line.split("\t") for line in manifest.read_text().splitlines()]
    (tmp_path / "readings" / "readings.tsv").write_text("".join(f"{row[0]}\t{row[2]}\n" for row in rows))
    corpora = [{"source": str(tmp_path / name / f"{name}.tsv")} for name in "abc"]
    readings = {"source": str(tmp_path / "readings" / "readings.tsv"), "label": "neutral", "always": True}
    recipe = json.loads(json.dumps(RECIPE)) | {"corpora": [*corpora, readings]}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return ["--config", str(tmp_path / "recipe.yaml"), "--json", str(tmp_path / "rows.json"), "--workers", "1"]


def test_several_corpora_are_left_out_in_turn_and_the_checkpoint_has_the_calibration(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train.main(command) == 0
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert {(row["corpus"], row["n"]) for row in rows} == {("a", 8), ("b", 12), ("c", 8), (ALL_LEFT_OUT, 28)}
    assert len(rows) == 8
    kept = {file.stem for file in (tmp_path / "cache").rglob("*.safetensors")}
    assert kept == {"a", "b", "c"}
    assert "a, amser-plus" in capsys.readouterr().out

    monkeypatch.setattr(
        "training.fitting.cross_validation.ProcessPoolExecutor.submit", lambda *_: pytest.fail("trained again")
    )
    monkeypatch.setattr("training.fitting.left_out.calibrate", lambda *_: pytest.fail("calibrated again"))
    checkpoint = tmp_path / "final.safetensors"
    assert train.main([*command, "--final", "--checkpoint", str(checkpoint)]) == 0
    assert json.loads((tmp_path / "rows.json").read_text()) == rows
    info = load(checkpoint)[1]
    (file,) = (tmp_path / "cache").rglob("calibrations.json")
    final = json.loads(file.read_text())[""]
    assert info.corpora == ("a", "b", "c", "readings")
    assert info.temperatures == {"voice": final["temperature"]}
    assert info.sure_from == {"voice": final["sure_from"]}
    assert info.temperature == final["temperature"]
    mean = next(row for row in rows if row["corpus"] == ALL_LEFT_OUT and AMONG_ITS_CLASSES in row["protocol"])
    assert info.metrics["ua, none"] == mean["ua"]
    assert {"ua, a, none", "ua, b, none", "ua, c, none"} <= info.metrics.keys()


@pytest.mark.slow
def test_the_folds_of_one_of_several_corpora_are_the_second_protocol(command: list[str], tmp_path: Path) -> None:
    assert train.main([*command, "--protocol", "folds", "--folds-of", "b"]) == 0
    (row,) = json.loads((tmp_path / "rows.json").read_text())
    assert (row["corpus"], row["n"], row["protocol"]) == ("b", 12, "speaker-independent, 3 folds")
    kept = {file.stem for file in (tmp_path / "cache").rglob("*.safetensors")}
    assert kept == {"b-fold-1", "b-fold-2", "b-fold-3"}


def test_folds_of_an_unknown_corpus_are_refused(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main([*command, "--folds-of", "d"]) == 2
    assert "--folds-of d: the corpora are a, b, c, readings" in capsys.readouterr().err


@pytest.mark.slow
def test_where_no_words_of_the_corpora_are_read_voices_are_left_out_and_the_text_joins_the_final_one(
    command: list[str], tmp_path: Path
) -> None:
    (tmp_path / "labels.txt").write_text("anger\nneutral\nsadness")
    for part in ("train", "dev", "test"):
        (tmp_path / f"{part}.tsv").write_text("".join(f"{part} {number}\t{number % 3}\tid\n" for number in range(12)))
    sizes = {"hidden": 16, "heads": 2, "feed_forward": 32, "layers": 1, "state_layers": 0}
    content = yaml.safe_load((tmp_path / "recipe.yaml").read_text())
    content |= {"own_words": False, "network": {"model": "amser-states"} | sizes, "text_training": {"epochs": 1}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
    checkpoint = tmp_path / "final.safetensors"
    command += ["--sentences", str(tmp_path), "--final", "--checkpoint", str(checkpoint)]
    assert train.main(command) == 0
    voices = {load(file)[0].config.model for file in (tmp_path / "cache").rglob("networks/several-*/*.safetensors")}
    assert voices == {"voice"}
    network, info = load(checkpoint)
    assert network.config.model == "amser-states"
    assert info.temperatures.keys() == info.sure_from.keys() == {"voice", "text", "voice+text"}
    assert (info.temperature, info.temperatures["voice"], info.temperatures["text"]) == (1, 1, 1)
    (file,) = (tmp_path / "cache").rglob("calibrations.json")
    final = json.loads(file.read_text())[""]
    assert float(cast(AmserStates, network).voice_weight) == pytest.approx(1 / final["temperature"])
    assert info.sure_from["voice"] == final["sure_from"]
    assert {row["modalities"] for row in json.loads((tmp_path / "rows.json").read_text())} == {"states"}
