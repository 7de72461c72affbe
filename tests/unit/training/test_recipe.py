"""Recipes: what a YAML file may say, and that those of the repository can be followed."""

from __future__ import annotations

from pathlib import Path

import pytest

import training
from models.emotion.registry import build
from training.corpora.manifest import CLASSES
from training.data.extraction import CodecSetting
from training.fitting.recipe import Recipe

CONFIGS = sorted((Path(training.__file__).parent / "configs").glob("*.yaml"))
LEAST = "name: small\nnetwork: {model: amser, hidden: 16}\n"


def write(folder: Path, content: str) -> Path:
    file = folder / "recipe.yaml"
    file.write_text(content, encoding="utf-8")
    return file


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.name)
def test_every_recipe_of_the_repository_can_be_followed(file: Path) -> None:
    read = Recipe.read(file)
    assert read.name
    config = read.network_config(768)
    assert set(config.classes) <= set(CLASSES)
    assert build(config).modalities
    for text in (*read.views, *read.judged, *read.copied_at):
        CodecSetting.parse(text)
    for stage in ("training", "text_training"):
        assert read.stage(stage).epochs > 0
    assert read.contrast().alpha >= 0
    assert read.waveform_augmenter(None).key()
    assert (read.mel_augmenter() is None) == (read.mel_augmentation is None)
    assert (read.state_augmenter() is None) == (read.state_augmentation is None)


def test_the_recipes_of_the_papers_network_and_of_ours_are_there() -> None:
    read = {file.stem: Recipe.read(file) for file in CONFIGS}
    assert read.keys() >= {"amser-plus", "amser-states"}
    assert read["amser-states"].in_stages
    assert read["amser-plus"].network["model"] == "amser-plus"
    assert not read["amser-plus"].in_stages
    assert all(recipe.name == file for file, recipe in read.items())


@pytest.mark.parametrize("model", ["amser-plus", "amser", "umons", "xu", "yoon"])
def test_the_papers_networks_have_their_published_size_on_iemocap(model: str) -> None:
    read = Recipe.read(Path(training.__file__).parent / "configs" / f"iemocap-{model}.yaml")
    config = read.network_config(768)
    sizes = (config.hidden, config.heads, config.feed_forward, config.layers, config.dropout, config.head_dropout)
    assert (config.model, *sizes) == (model, 512, 4, 1024, 2, 0.1, 0.5)
    assert config.classes == ("angry", "happy", "neutral", "sad")
    stage = read.stage("training")
    assert (stage.epochs, stage.batch_size, stage.learning_rate, stage.weight_decay) == (100, 256, 1e-4, 0)
    assert (read.contrast().alpha > 0) == (model == "amser-plus")
    rates = [CodecSetting.parse(text).setting.rate for text in read.judged]
    assert rates == [None, 0.125, 0.1875, 0.25, 0.5, 1]  # of Tables I and II


def test_vcemo_is_read_with_chinese_words_by_the_papers_network_and_without_words_by_ours() -> None:
    published, ours = (
        Recipe.read(Path(training.__file__).parent / "configs" / f"{name}.yaml")
        for name in ("vcemo-amser-plus", "vcemo")
    )
    assert published.text_languages == ("zh",)
    assert published.word_vectors is not None
    assert published.text_encoder is not None
    assert (published.network["hidden"], published.contrast().alpha) == (512, 0.5)
    assert build(ours.network_config(768)).modalities == ("states",)


def test_lists_become_tuples_wherever_they_are(tmp_path: Path) -> None:
    content = LEAST.replace("hidden: 16", "hidden: 16, conv_channels: [4, 6, 8]") + (
        "views: [none]\nclasses: [sad, happy]\nwaveform: {rates: [0.9, 1.1]}\n"
    )
    read = Recipe.read(write(tmp_path, content))
    assert read.views == ("none",)
    config = read.network_config(24)
    assert (config.classes, config.conv_channels, config.context_width) == (("sad", "happy"), (4, 6, 8), 24)
    assert read.waveform_augmenter(None).rates == (0.9, 1.1)


@pytest.mark.parametrize("line", ["codecs: [none]", "augmentation: {gain: 4}", "epochs: 3"])
def test_a_key_that_does_not_exist_is_refused_by_name(tmp_path: Path, line: str) -> None:
    with pytest.raises(TypeError, match=line.partition(":")[0]):
        Recipe.read(write(tmp_path, LEAST + line))


def test_a_key_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="network"):
        Recipe.read(write(tmp_path, "name: small\n"))


@pytest.mark.parametrize(
    ("line", "stage"),
    [("training: {label_smoothing: 0.1}", "training"), ("text_training: {alpha: 1}", "text_training")],
)
def test_a_setting_that_no_stage_has_is_refused(tmp_path: Path, line: str, stage: str) -> None:
    read = Recipe.read(write(tmp_path, LEAST + line))
    with pytest.raises(TypeError, match="label_smoothing|alpha"):
        read.stage(stage)


@pytest.mark.parametrize(
    ("corpus", "under_data", "without"),
    [
        ("emotion/mine.tsv", "/data/emotion/mine.tsv", "emotion/mine.tsv"),
        ("ravdess=emotion/ravdess", "ravdess=/data/emotion/ravdess", "ravdess=emotion/ravdess"),
        ("ravdess", "ravdess", "ravdess"),
        ("/mine.tsv", "/mine.tsv", "/mine.tsv"),
    ],
)
def test_relative_paths_are_under_the_data_folder_where_that_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, corpus: str, under_data: str, without: str
) -> None:
    file = write(tmp_path, f"{LEAST}corpus: {corpus}\nsentences: text\nnoise: /noise\n")
    monkeypatch.setenv("AMSER_DATA", "/data")
    read = Recipe.read(file)
    assert (read.corpus, read.sentences, read.noise) == (under_data, Path("/data/text"), Path("/noise"))
    monkeypatch.delenv("AMSER_DATA")
    read = Recipe.read(file)
    assert (read.corpus, read.sentences, read.noise) == (without, Path("text"), Path("/noise"))


def test_what_the_file_does_not_say_has_its_default(tmp_path: Path) -> None:
    read = Recipe.read(write(tmp_path, LEAST))
    assert (read.classes, read.copies, read.text) == (CLASSES, 0, "asr")
    assert read.mel_augmenter() is None
    assert read.state_augmenter() is None
    assert not read.in_stages


def test_a_recipe_takes_what_it_does_not_say_from_its_base(tmp_path: Path) -> None:
    content = f"{LEAST}views: [none]\ntraining: {{epochs: 3, batch_size: 8}}\n"
    (tmp_path / "base.yaml").write_text(content, encoding="utf-8")
    read = Recipe.read(write(tmp_path, "base: base.yaml\nname: other\nnetwork: {model: xu}\ntraining: {epochs: 1}\n"))
    assert (read.name, read.views) == ("other", ("none",))
    assert read.network == {"model": "xu", "hidden": 16}
    assert (read.stage("training").epochs, read.stage("training").batch_size) == (1, 8)


def test_words_of_another_language_need_vectors_and_an_encoder_of_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="text_languages has zh, but no word_vectors and no text_encoder is named"):
        Recipe.read(write(tmp_path, f"{LEAST}text_languages: [en, zh]\n"))
    with pytest.raises(ValueError, match="but no text_encoder is named"):
        Recipe.read(write(tmp_path, f"{LEAST}text_languages: [zh]\nword_vectors: zh-vectors\n"))


def test_text_models_are_folders_of_the_data_folder_or_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMSER_DATA", str(tmp_path))
    (tmp_path / "text" / "zh").mkdir(parents=True)
    file = write(tmp_path, f"{LEAST}text_languages: [zh]\nword_vectors: text/zh\ntext_encoder: some/encoder\n")
    read = Recipe.read(file)
    assert (read.word_vectors, read.text_encoder) == (str(tmp_path / "text" / "zh"), "some/encoder")
    assert not {"word_vectors", "text_encoder"} & read.settings().keys()  # their fingerprints count
