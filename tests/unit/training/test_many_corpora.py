"""Many corpora in one training: what a recipe says of them, and what utterances they give together."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic_corpus
from recordings import DATA

from amser.features import SAMPLE_RATE
from models.emotion.batch import collate
from training.corpora.licences import joined, licences_of
from training.corpora.manifest import CLASSES, ManifestError, load_manifest
from training.corpora.teacher import Teacher
from training.data.dataset import NO_CLASS, SpokenSampler
from training.data.extraction import CodecSetting, Reading, SpeechModels, cache_key, extract_speech
from training.data.texts import TextFeatureExtractor
from training.fitting.loading import load_utterances, open_teachers
from training.fitting.recipe import Recipe

READINGS, BURSTS = str(DATA / "speech" / "librispeech.tsv"), str(DATA / "emotion" / "emogator.tsv")
STATES: dict[str, Any] = {"model": "voice", "modalities": ["states"]}
LEAST = "name: many\nnetwork: {model: voice, modalities: [states]}\n"


@pytest.fixture(autouse=True)
def _synthetic_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AMSER_CACHE", str(tmp_path / "cache"))
    synthetic_corpus.replace_text_models(monkeypatch)
    monkeypatch.setattr(SpeechModels, "load", lambda *, asr=True, **_: synthetic_corpus.speech_models(asr=asr))


@pytest.fixture
def noise(tmp_path: Path) -> str:
    """A manifest of the noise recordings, which have neither an emotion nor a speaker of their own."""
    with (DATA / "noise" / "esc10.tsv").open(encoding="utf-8", newline="") as file:
        paths = [row["path"] for row in csv.DictReader(file, delimiter="\t")]
    manifest = tmp_path / "noise.tsv"
    rows = "".join(f"{DATA / path}\t{number}\tCC BY 3.0\n" for number, path in enumerate(paths[:6]))
    manifest.write_text(f"path\tspeaker\tlicence\n{rows}", encoding="utf-8")
    return str(manifest)


@pytest.fixture
def acted(tmp_path: Path) -> str:
    """A corpus of three of the classes, with folds."""
    return str(synthetic_corpus.write_corpus(tmp_path, ["angry", "sad", "neutral"] * 4))


def recipe_of(*teachers: Teacher, **changes: Any) -> Recipe:
    settings: dict[str, Any] = {
        "views": ("none",), "judged": ("svd-f16:0.125",), "copies": 1, "copied_at": ("none",), "own_words": False,
        "waveform": {"pitch": 0, "stretch": 0, "noise": 0, "telephone": 1},
    }  # fmt: skip
    return Recipe("many", STATES, corpora=teachers, **settings | changes)


def write(folder: Path, content: str) -> Path:
    file = folder / "recipe.yaml"
    file.write_text(content, encoding="utf-8")
    return file


def test_a_recipe_lists_corpora_with_what_it_says_of_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMSER_DATA", "/data")
    content = f"{LEAST}corpora:\n- source: emotion/a.tsv\n- source: ravdess=emotion/ravdess\n  weight: 2\n"
    content += "- {source: speech/more.tsv, label: neutral, weight: 0.1, always: true}\n"
    recipe = Recipe.read(write(tmp_path, content))
    assert recipe.teachers == (
        Teacher("/data/emotion/a.tsv"),
        Teacher("ravdess=/data/emotion/ravdess", 2),
        Teacher("/data/speech/more.tsv", 0.1, "neutral", always=True),
    )
    assert [teacher.name for teacher in recipe.teachers] == ["a", "ravdess", "more"]


def test_one_corpus_is_the_short_form_of_a_list_of_one(tmp_path: Path) -> None:
    recipe = Recipe.read(write(tmp_path, f"{LEAST}corpus: a.tsv\n"))
    assert recipe.teachers == (Teacher("a.tsv"),)
    assert Recipe.read(write(tmp_path, LEAST)).teachers == ()


def test_a_corpus_takes_the_place_of_a_list_and_a_list_that_of_a_corpus(tmp_path: Path) -> None:
    many = "corpora: [{source: a.tsv}, {source: b.tsv}]\n"
    (tmp_path / "base.yaml").write_text(LEAST + many, encoding="utf-8")
    recipe = Recipe.read(write(tmp_path, "base: base.yaml\nname: one\ncorpus: c.tsv\n"))
    assert [teacher.name for teacher in recipe.teachers] == ["c"]
    (tmp_path / "base.yaml").write_text(f"{LEAST}corpus: c.tsv\n", encoding="utf-8")
    recipe = Recipe.read(write(tmp_path, f"base: base.yaml\n{many}"))
    assert [teacher.name for teacher in recipe.teachers] == ["a", "b"]
    assert [each.name for each in recipe.with_data("mine.tsv", None, None).teachers] == ["mine"]
    assert [each.name for each in recipe.with_data(None, None, None).teachers] == ["a", "b"]
    with pytest.raises(ValueError, match="either corpus or corpora"):
        Recipe.read(write(tmp_path, f"{LEAST}corpus: c.tsv\n{many}"))


@pytest.mark.parametrize("wrong", [{"weight": 0}, {"weight": float("nan")}, {"label": "bored"}])
def test_what_a_recipe_cannot_say_of_a_corpus_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"a\.tsv: (a weight|the label)"):
        Teacher("a.tsv", **wrong)


def test_settings_depend_on_weights_and_labels_and_not_on_folders() -> None:
    here, there, other = (
        Recipe("many", STATES, corpora=(teacher,)).settings()
        for teacher in (Teacher("/here/a.tsv", 2), Teacher("/there/a.tsv", 2), Teacher("/here/a.tsv", 1))
    )
    assert here == there != other


def test_utterances_know_their_corpus_and_what_it_labels(acted: str, noise: str) -> None:
    recipe = recipe_of(
        Teacher(acted), Teacher(BURSTS), Teacher(READINGS, label="neutral"), Teacher(noise, label="none")
    )
    utterances = load_utterances(open_teachers(recipe), recipe, TextFeatureExtractor())
    assert Counter(each.corpus for each in utterances) == {"small": 12, "emogator": 70, "librispeech": 24, "noise": 6}
    everything = tuple(range(len(CLASSES)))
    possible = {each.corpus: each.possible for each in utterances}
    neutral = CLASSES.index("neutral")
    assert possible["librispeech"] == possible["noise"] == everything
    assert possible["small"] == (CLASSES.index("angry"), neutral, CLASSES.index("sad"))
    labels = {name: {each.label for each in utterances if each.corpus == name} for name in possible}
    assert labels["librispeech"] == {neutral}
    assert labels["noise"] == {NO_CLASS}
    assert labels["emogator"] == {CLASSES.index(name) for name in load_manifest(Path(BURSTS)).classes_present}
    assert {each.fold for each in utterances if each.corpus == "small"} == {1, 2, 3}


def test_a_class_that_no_corpus_labels_is_a_negative_everywhere(acted: str) -> None:
    recipe = recipe_of(Teacher(acted), classes=("angry", "fear", "neutral"))
    utterances = load_utterances(open_teachers(recipe), recipe, TextFeatureExtractor())
    assert {each.possible for each in utterances} == {(0, 1, 2)}
    assert {each.label for each in utterances} == {0, 2}


def test_without_words_no_recogniser_runs_and_every_utterance_is_a_voice_alone(
    acted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[bool] = []
    monkeypatch.setattr(
        SpeechModels, "load", lambda *, asr=True, **_: loaded.append(asr) or synthetic_corpus.speech_models(asr=asr)
    )
    recipe = recipe_of(Teacher(acted), Teacher(READINGS, label="neutral"), copies=2)
    utterances = load_utterances(open_teachers(recipe), recipe, TextFeatureExtractor())
    assert set(loaded) == {False}
    for utterance in utterances:
        assert utterance.features.keys() == {"none", "svd-f16:0.125", "copy 0", "copy 1"}
        for features in utterance.features.values():
            assert features.words.shape == (0, 300)
            assert features.context.shape == (0, synthetic_corpus.CONTEXT_WIDTH)
            assert features.log_mel.shape == (80, 1)  # no network of this recipe reads it
            assert features.encoder_states.shape[1] == 1536
    batch = collate([utterance.features["copy 1"] for utterance in utterances[:5]])
    assert batch.has_voice.all()
    assert not batch.has_text.any()
    assert batch.state_lengths.tolist() == SpokenSampler(utterances[:5], ["copy 1"]).lengths


def test_only_the_languages_of_the_text_are_transcribed(tmp_path: Path) -> None:
    lines = Path(synthetic_corpus.write_corpus(tmp_path, ["angry", "sad"] * 3)).read_text(encoding="utf-8").splitlines()
    languages = ["en", "pl", "", "pl", "en", "pl"]
    table = "\n".join([f"{lines[0]}\tlanguage", *map("\t".join, zip(lines[1:], languages, strict=True))])
    (tmp_path / "small.tsv").write_text(f"{table}\n", encoding="utf-8")
    models: Any = synthetic_corpus.speech_models()
    speech = extract_speech(
        load_manifest(tmp_path / "small.tsv"), CodecSetting.parse("none"),
        reading=Reading(("en",)), cache_root=tmp_path / "cache", load_models=lambda: models,
    )  # fmt: skip
    assert [each.text for each in speech] == ["rank None", "", "rank None", "", "rank None", ""]
    assert len(models.asr.mels) == 3
    assert len(models.voice.mels) == 6


def test_what_is_long_is_cropped_in_the_middle_and_in_copies_anywhere() -> None:
    reading = Reading(longest_seconds=2.0)
    ramp = np.linspace(0, 10, 10 * SAMPLE_RATE, dtype=np.float32)  # its value is the time in seconds
    assert len(reading.cropped(ramp)) == 2 * SAMPLE_RATE
    assert (reading.cropped(ramp)[0], reading.cropped(ramp)[-1]) == pytest.approx((4, 6), abs=0.01)
    assert reading.cropped(ramp, 0.0)[0] == 0
    assert reading.cropped(ramp, 0.999)[-1] == pytest.approx(10, abs=0.02)
    np.testing.assert_array_equal(reading.cropped(ramp[:SAMPLE_RATE]), ramp[:SAMPLE_RATE])

    recipe = recipe_of(Teacher(READINGS, label="neutral"), longest_seconds=2.0, waveform={"stretch": 0})
    utterances = load_utterances(open_teachers(recipe), recipe, TextFeatureExtractor())
    rows = {len(features.encoder_states) for each in utterances for features in each.features.values()}
    assert max(rows) <= 26  # 12.5 a second
    corpus = load_manifest(Path(READINGS), label="neutral")
    keys = {cache_key(corpus, CodecSetting.parse("none"), False, reading=each) for each in (reading, Reading())}
    assert len(keys) == 2


def test_corpora_that_cannot_be_told_apart_and_recipes_without_any_are_refused(acted: str, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="two are called small"):
        open_teachers(recipe_of(Teacher(acted), Teacher(acted, label="neutral")))
    with pytest.raises(ManifestError, match="names no corpus"):
        open_teachers(recipe_of())
    with pytest.raises(ManifestError, match=r"there is no manifest .*absent\.tsv"):
        open_teachers(recipe_of(Teacher(acted), Teacher(str(tmp_path / "absent.tsv"))))
    with pytest.raises(ManifestError, match="a root is for one corpus"):
        open_teachers(recipe_of(Teacher(acted), Teacher(READINGS, label="neutral")), tmp_path)
    with pytest.raises(ManifestError, match=r"librispeech\.tsv: no column emotion"):
        open_teachers(recipe_of(Teacher(READINGS)))
    recipe = recipe_of(Teacher(acted), classes=("fear",))
    with pytest.raises(ManifestError, match="small has none of fear"):
        load_utterances(open_teachers(recipe), recipe, TextFeatureExtractor())


def test_the_terms_of_all_corpora_are_united(acted: str, noise: str) -> None:
    recipe = recipe_of(Teacher(acted), Teacher(noise, label="none"), licences={"small": "for tests"})
    corpora = [corpus for _, corpus in open_teachers(recipe)]
    terms = licences_of(corpora, Path("goemotions"), None, recipe.licences)
    assert joined(terms) == "for tests (small); CC BY 3.0 (noise); Apache-2.0 (goemotions)"


def test_sounds_without_an_emotion_need_no_speaker(tmp_path: Path) -> None:
    (tmp_path / "bare.tsv").write_text("path\nesc10.tsv\n", encoding="utf-8")
    (tmp_path / "esc10.tsv").touch()
    (record,) = load_manifest(tmp_path / "bare.tsv", label="none").records
    assert (record.speaker, record.emotion) == ("esc10", "none")
    with pytest.raises(ManifestError, match="no column speaker"):
        load_manifest(tmp_path / "bare.tsv", label="neutral")
