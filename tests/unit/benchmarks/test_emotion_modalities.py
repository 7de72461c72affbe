"""The table by subsets of modalities: what is outside a subset neither teaches nor judges, and all answer one set."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic_corpus
from rich.console import Console
from small_networks import spoken
from synthetic_corpus import CONTEXT_WIDTH, sentence

from benchmarks.measuring.emotion.modalities import (
    IEMOCAP,
    SETTING,
    SUBSETS,
    Judged,
    TextOfOne,
    data_of_pairs,
    ours_by_subset,
    published_by_subset,
    recipe_of_pairs,
)
from benchmarks.measuring.emotion.tables import tables
from benchmarks.plots.emotion import plot
from models.emotion.batch import collate
from models.emotion.registry import build
from training.data.dataset import LabelledSentence, LabelledUtterance
from training.data.folds import Split, split
from training.data.texts import TextFeaturePair
from training.fitting.cross_validation import TrainedNetwork
from training.fitting.loading import SentenceBank
from training.fitting.recipe import Recipe

SIZES = {"hidden": 16, "heads": 2, "feed_forward": 32, "layers": 1, "conv_channels": (4, 6, 8), "common_length": 12}
RECIPE = Recipe(
    name="small",
    network={**SIZES, "model": "amser-plus"},
    classes=("angry", "neutral"),
    views=("none", SETTING),
    judged=(SETTING,),
    objective={"alpha": 0},
    training={"epochs": 3, "batch_size": 8, "learning_rate": 0.01},
    text_training={"epochs": 3, "batch_size": 8, "learning_rate": 0.01},
)
FIGURES = ("wa", "ua", "macro_f1", "weighted_f1")


def utterances(count: int = 8, speakers: int = 3) -> list[LabelledUtterance]:
    """Voices of two classes that say nothing of them, in a fold a speaker."""
    random = np.random.default_rng(0)
    made = []
    for speaker in range(1, speakers + 1):
        for each in synthetic_corpus.separable(count, str(speaker), random, fold=speaker):
            voice = each.features["none"]
            noise = random.normal(0, 0.2, voice.log_mel.shape).astype(np.float32)
            silent = replace(voice, log_mel=noise, words=voice.words[:0], context=voice.context[:0])
            made.append(replace(each, corpus="small", features=dict.fromkeys(("none", SETTING), silent)))
    return made


def bank(told_by: str) -> SentenceBank:
    """Sentences of two classes: words or context tell which, the other is always the same."""

    def made(label: int, part: int) -> TextFeaturePair:
        same, telling = sentence(0.5, words=4 + part), sentence(2 * label - 1, words=4 + part)
        return replace(same, **{told_by: getattr(telling, told_by)})

    pairs = {name: [[made(label, part)] for label in (0, 1)] for part, name in enumerate(("train", "dev", "test"))}
    learnt, developed, tested = (
        [LabelledSentence(group[0], (label,)) for label, group in enumerate(pairs[name])] for name in pairs
    )
    return SentenceBank(learnt * 40, developed * 4, tested, pairs)


def judged(recipe: Recipe, sentences: SentenceBank) -> tuple[Judged, list[Split]]:
    voices = utterances()
    splits = list(split(voices))
    return Judged.of(recipe, "small", "3 folds", voices, splits, sentences), splits


def test_the_voice_of_a_pair_teaches_with_other_sentences_than_it_validates_and_is_judged_with() -> None:
    voices, sentences = utterances(), bank("words")
    splits = list(split(voices))
    data, shifted = data_of_pairs(RECIPE.views, voices, splits, sentences, ("mel", "words", "context"))
    random = np.random.default_rng(0)
    assert data.substitution is not None
    for before, after in zip(splits, shifted, strict=True):
        assert (after.training, after.test, after.name) == (before.training, before.test, before.name)
        for number, moved in zip(before.validation, after.validation, strict=True):
            validating = data.utterances[moved]
            assert (validating.speaker, validating.label) == (voices[number].speaker, voices[number].label)
            assert [len(validating.features[view].words) for view in RECIPE.views] == [5, 5]  # the development part
        teaching = data.utterances[after.training[0]]
        drawn = data.substitution(teaching.features["none"], teaching.label, random)
        assert len(drawn.words) == 4
        assert (drawn.words == 2 * teaching.label - 1).all()
    pairs, _ = judged(RECIPE, sentences)
    assert {len(each.words) for each in pairs.features.values()} == {6}


@pytest.mark.parametrize("read", [("mel",), ("words",), ("context",), ("words", "mel"), ("words", "context")])
def test_what_is_outside_a_subset_is_in_no_utterance(read: tuple[str, ...]) -> None:
    voices = utterances()
    data, _ = data_of_pairs(RECIPE.views, voices, list(split(voices)), bank("words"), read)
    for validating in data.utterances[len(voices) :]:
        for features in validating.features.values():
            assert (features.log_mel.shape[1] > 1) == ("mel" in read)
            assert (len(features.words) > 0) == ("words" in read)
            assert (len(features.context) > 0) == ("context" in read)
            assert len(features.encoder_states) == 0
    if read == ("mel",):
        assert data.substitution is None
        return
    assert data.substitution is not None
    drawn = data.substitution(data.utterances[0].features["none"], 0, np.random.default_rng(0))
    assert [len(drawn.words), len(drawn.context)] == [4 * ("words" in read), 6 * ("context" in read)]


@pytest.mark.slow
def test_the_published_network_learns_from_the_modality_that_tells_the_class(tmp_path: Path) -> None:
    recipe, sentences = recipe_of_pairs(replace(RECIPE, training=RECIPE.training | {"epochs": 10})), bank("words")
    pairs, splits = judged(recipe, sentences)
    pairs = replace(pairs, tested=splits[0].test)
    folders: list[Path] = []

    def folder_of(each: Recipe) -> Path:
        folders.append(tmp_path / each.name)
        return folders[-1]

    rows = published_by_subset(
        Console(quiet=True), pairs, splits[:1], sentences, CONTEXT_WIDTH, folder_of, workers=1, subsets=("E",)
    )
    assert [(row["subset"], row["modalities"], row["model"]) for row in rows] == [("E", "words", "small")]
    assert [(row["wa"], row["n"]) for row in rows] == [(1.0, 8)]
    (folder,) = folders
    assert [file.name for file in folder.glob("*.safetensors")] == ["fold-1.safetensors"]


@pytest.mark.parametrize(("told_by", "telling"), [("words", "E"), ("context", "R")])
def test_our_text_learns_from_the_modality_that_tells_the_class_and_the_sum_keeps_it(
    told_by: str, telling: str
) -> None:
    sentences = bank(told_by)
    sizes = {**SIZES, "model": "amser-states", "state_layers": 0}
    recipe = replace(RECIPE, name="ours", own_words=False, network=sizes)
    config = recipe.network_config(CONTEXT_WIDTH)
    voice, both = (build(replace(config, model=name)).eval() for name in ("voice", "text"))
    pairs, splits = judged(recipe, sentences)
    voices = [TrainedNetwork(each, voice, 10.0, 0.0, {"training": 1}) for each in splits]
    rows = {row["subset"]: row for row in ours_by_subset(Console(quiet=True), pairs, sentences, both, voices)}
    assert tuple(rows) == SUBSETS
    assert rows[telling]["wa"] == rows[f"{telling}+M"]["wa"] == 1.0
    assert rows["ER".replace(telling, "")]["wa"] == 0.5
    assert rows["E+R+M"]["modalities"] == "words+context+states"
    for row in rows.values():
        assert row["n"] == 24
        for figure in FIGURES:
            assert row[f"{figure}_low"] <= row[figure] <= row[f"{figure}_high"]


@pytest.mark.parametrize("modality", ["words", "context"])
def test_our_text_of_one_modality_has_no_layer_for_the_other(modality: str) -> None:
    config = RECIPE.network_config(CONTEXT_WIDTH)
    network = TextOfOne(config, modality).eval()
    other = "context" if modality == "words" else "words"
    width = 300 if modality == "words" else CONTEXT_WIDTH
    assert [value.shape[1] for name, value in network.branch.named_parameters() if "weight" in name][0] == width
    base, changed = spoken(40), spoken(40, seed=3)
    asked = [base, replace(base, **{other: getattr(changed, other)}), changed]
    logits = [network(collate([each])).logits.detach().numpy() for each in asked]
    np.testing.assert_array_equal(logits[0], logits[1])
    assert np.abs(logits[0] - logits[2]).max() > 1e-5


def made_rows(models: Sequence[str]) -> list[dict[str, Any]]:
    rows = []
    for model in models:
        pairs, _ = judged(replace(RECIPE, name=model), bank("words"))
        truth = [pairs.utterances[number].label for number in pairs.tested]
        logs = np.eye(2)[truth] * 3.0
        rows += [pairs.row(subset, ("words",), logs) | {"table": "modalities"} for subset in SUBSETS]
    return rows


def test_each_network_has_a_table_of_80_columns_with_the_papers_figures() -> None:
    rows = made_rows(("amser-states", "amser-plus"))
    console = Console(width=80, record=True, file=io.StringIO())
    made = list(tables("modalities", rows))
    assert len(made) == 2
    for each in made:
        console.print(each)
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 80
    assert not [line for line in lines if "…" in line]
    for subset, papers in zip(SUBSETS, IEMOCAP, strict=True):
        found = [line for line in lines if line.split()[:1] == [subset]]
        assert [line.split()[1] for line in found] == [f"{papers / 100:.3f}"] * 2
        assert all("1.000 [1.00, 1.00]" in line for line in found)


def test_the_subsets_are_plotted(tmp_path: Path) -> None:
    plot(made_rows(("amser-states", "amser-plus")), tmp_path / "emotion.json")
    assert (tmp_path / "emotion_modalities.png").stat().st_size > 5000
