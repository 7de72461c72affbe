"""The command that fits a network to another encoder: dependent parts are trained anew, the rest stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import yaml
from numpy.typing import NDArray
from small_text_models import write_roberta, write_word_vectors
from small_whisper import HEAD_WIDTH, write_whisper

from deployments.settings import Settings
from models.emotion.amser_states import AmserStates
from models.emotion.checkpoint import load, save
from models.emotion.checkpoint_info import DEFAULT_CHECKPOINT, CheckpointInfo, EncoderMismatch
from models.emotion.classifier import EmotionClassifier
from models.emotion.config import FusionConfig
from models.emotion.registry import build
from models.messages import Mel, TextFeatures, TokenFeatures, Transcript
from models.weights import fingerprint
from models.whisper.engine import LOWER_LAYERS
from training import adapt
from training.data.extraction import SpeechModels
from training.data.texts import TextFeatureExtractor
from training.fitting.refitting import OWN_WORDS, PAIRS, TEXT_ALONE, WORDS_ALONE, losses

EMOTIONS = ("angry", "happy", "neutral")
SAID = {"angry": "this is so annoying", "happy": "what a lovely day", "neutral": "the train leaves at noon"}
OLD_WIDTH, NEW_WIDTH, TINY_WIDTH = 32, 48, 128
CONFIG = FusionConfig(
    classes=EMOTIONS, model="amser-states", context_width=OLD_WIDTH, state_width=24, state_heads=2, state_layers=1,
    hidden=16, heads=2, feed_forward=32, layers=1, common_length=8, projection_width=8,
)  # fmt: skip
RECIPE: dict[str, Any] = {
    "name": "small", "classes": list(EMOTIONS), "views": ["none", "svd-f16:0.125"], "judged": ["none"],
    "network": {"model": "amser-states"}, "objective": {"alpha": 0}, "pair_sentences": 20,
    "training": {"epochs": 1, "batch_size": 8},
    "text_training": {"epochs": 6, "batch_size": 8, "learning_rate": 0.01, "averaging": 0.5},
}  # fmt: skip


class SyntheticSpeechModel:
    """The same words for every utterance, and encoder states of noise with a width of its own."""

    def __init__(self, width: int) -> None:
        self.width = width

    def transcribe(self, mels: Sequence[Mel]) -> list[Transcript]:
        return [Transcript("the train leaves", "en", -0.1) for _ in mels]

    def encode(self, mel: Mel) -> NDArray[np.float16]:
        return np.random.default_rng(mel.frames).standard_normal((6, self.width)).astype(np.float16)


class Workspace(SimpleNamespace):
    """Files, encoders, and the command with the options that every run shares."""

    folder: Path
    small_roberta: Path
    old_roberta: Path
    checkpoint: Path
    encoders: Mapping[str, str]

    def run(self, *more: object) -> int:
        """The command; the last of two equal options counts."""
        named = {
            "--corpus": self.folder / "small.tsv", "--sentences": self.folder, "--config": self.folder / "small.yaml",
            "--checkpoint": self.checkpoint, "--old-text-encoder": self.old_roberta,
        }  # fmt: skip
        return adapt.main([str(part) for pair in named.items() for part in pair] + [str(part) for part in more])


def write_corpus(folder: Path) -> None:
    random = np.random.default_rng(0)
    rows = ["path\temotion\tspeaker\tfold"]
    for number in range(36):
        soundfile.write(folder / f"{number}.wav", 0.1 * random.standard_normal(8000 + 50 * number), 16000)
        rows.append(f"{number}.wav\t{EMOTIONS[number % 3]}\ts{number // 6}\t{number // 12 + 1}")
    (folder / "small.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def write_sentences(folder: Path) -> None:
    (folder / "labels.txt").write_text("\n".join(EMOTIONS), encoding="utf-8")
    for part, count in (("train", 90), ("dev", 15), ("test", 15)):
        rows = [f"{SAID[EMOTIONS[number % 3]]} {part} {number}\t{number % 3}\tid" for number in range(count)]
        (folder / f"{part}.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def write_checkpoint(file: Path, config: FusionConfig, encoders: dict[str, str], **metrics: float) -> Path:
    torch.manual_seed(0)
    network = build(config)
    info = CheckpointInfo("small", config, encoders, ("none",), ("small",), metrics, licence="CC0", temperature=1.5)
    save(file, network, info)
    return file


@pytest.fixture(scope="module")
def patched() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, patched: pytest.MonkeyPatch) -> Workspace:
    folder = tmp_path_factory.mktemp("adapt")
    write_corpus(folder)
    write_sentences(folder)
    (folder / "small.yaml").write_text(yaml.safe_dump(RECIPE), encoding="utf-8")
    old, new = (
        write_roberta(folder / name, width, list(SAID.values()))
        for name, width in (("old", OLD_WIDTH), ("small-roberta", NEW_WIDTH))
    )

    def load_models(*, recogniser: str, asr: bool = True) -> SpeechModels:
        model: Any = SyntheticSpeechModel(24 if recogniser == "whisper-base" else LOWER_LAYERS * TINY_WIDTH)
        return SpeechModels(model if asr else None, model)

    patched.setenv("AMSER_CACHE", str(folder / "cache"))
    patched.setattr("training.data.texts.WORD_VECTORS", str(write_word_vectors(folder / "words", SAID.values())))
    patched.setattr(SpeechModels, "load", staticmethod(load_models))
    encoders = {"asr": fingerprint("whisper-base")} | TextFeatureExtractor(str(old)).fingerprints
    checkpoint = write_checkpoint(folder / "old.safetensors", CONFIG, encoders)
    return Workspace(folder=folder, old_roberta=old, small_roberta=new, checkpoint=checkpoint, encoders=encoders)


@pytest.fixture
def any_loss_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The networks of these tests are untrained: there is no accuracy to lose."""
    monkeypatch.setattr("training.fitting.refitting.GREATEST_LOSS", 1.0)


@pytest.fixture
def no_network_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.fitting.refitting.GREATEST_LOSS", -2.0)


@pytest.fixture(scope="module")
def adapted(workspace: Workspace) -> Path:
    """The checkpoint for the small RoBERTa, where the command writes it by default."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workspace.folder)
        patch.setattr("training.fitting.refitting.GREATEST_LOSS", 1.0)
        assert workspace.run("--text-encoder", workspace.small_roberta) == 0
    return workspace.folder / "runs" / "small+small-roberta.safetensors"


@pytest.fixture
def new_encoders(workspace: Workspace) -> dict[str, str]:
    return {"asr": fingerprint("whisper-base")} | TextFeatureExtractor(str(workspace.small_roberta)).fingerprints


def test_the_adapted_network_starts_beside_the_new_encoders_alone(
    workspace: Workspace, adapted: Path, new_encoders: dict[str, str]
) -> None:
    network, info = load(adapted, new_encoders)
    assert info.encoders == new_encoders
    assert network.config == replace(CONFIG, context_width=NEW_WIDTH)
    with pytest.raises(EncoderMismatch, match="context: trained with"):
        load(adapted, workspace.encoders)


def test_the_voice_stays_as_it_was_bit_for_bit(workspace: Workspace, adapted: Path) -> None:
    old, new = network_of(workspace.checkpoint), network_of(adapted)
    kept, present = old.voice.state_dict(), new.voice.state_dict()
    assert kept.keys() == present.keys()
    assert all(torch.equal(kept[name], present[name]) for name in kept)
    assert not torch.equal(old.text.joint.feed_forward[0].weight, new.text.joint.feed_forward[0].weight)


def test_the_new_text_network_tells_its_sentences_apart(adapted: Path) -> None:
    _, info = load(adapted)
    figures = {name: value for name, value in info.metrics.items() if not name.startswith("epochs")}
    assert figures[f"{TEXT_ALONE}, {adapt.KNOWN_SPEAKERS}"] > 0.9
    assert len(figures) == 5
    assert {"epochs, text_training"} == info.metrics.keys() - figures.keys()


def test_an_adapted_network_names_its_origin_and_its_terms(adapted: Path) -> None:
    _, info = load(adapted)
    assert (info.name, info.licence, info.corpora) == (
        "small+small-roberta",
        "CC0; Apache-2.0 (goemotions)",
        ("small",),
    )
    assert info.temperature > 0


def test_the_classifier_answers_with_it(adapted: Path, new_encoders: dict[str, str]) -> None:
    classifier = EmotionClassifier(adapted, new_encoders)
    mel = Mel(np.zeros((80, 60), np.float16), -1.0, 0.6, "en", "none", None)
    words, context = (TokenFeatures(("a", "b"), np.ones((2, width), np.float32)) for width in (300, NEW_WIDTH))
    emotion = classifier.classify(mel, np.ones((15, 24), np.float16), TextFeatures("en", words, context))
    assert set(emotion.probabilities) == set(EMOTIONS)
    assert sum(emotion.probabilities.values()) == pytest.approx(1)


@pytest.mark.usefixtures("any_loss_is_accepted")
def test_the_printed_lines_are_settings_of_the_cluster(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new.safetensors"
    assert workspace.run("--text-encoder", workspace.small_roberta, "--output", output) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in (TEXT_ALONE, OWN_WORDS, PAIRS, WORDS_ALONE, "small-roberta", "old"))
    settings = Settings.model_validate(yaml.safe_load(printed[printed.index("recognizer:") :]))
    assert settings.text_encoder.model == str(workspace.small_roberta)
    assert settings.fusion_checkpoint == output


@pytest.mark.usefixtures("no_network_is_accepted")
def test_a_network_that_loses_too_much_is_not_written(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new.safetensors"
    assert workspace.run("--text-encoder", workspace.small_roberta, "--output", output) == 1
    assert "--force" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert workspace.run("--text-encoder", workspace.small_roberta, "--output", output, "--force") == 0
    assert output.is_file()


def test_five_points_may_be_lost_but_no_more() -> None:
    old = {OWN_WORDS: 0.80, PAIRS: 0.90, WORDS_ALONE: 0.60}
    assert losses(old, {OWN_WORDS: 0.76, PAIRS: 0.86, WORDS_ALONE: 0.10}) == []
    assert losses(old, {OWN_WORDS: 0.74, PAIRS: 0.91, WORDS_ALONE: 0.60}) == [
        f"{OWN_WORDS} falls by 6.0 points; 5 are the most"
    ]
    assert len(losses(old, {OWN_WORDS: 0.1, PAIRS: 0.1, WORDS_ALONE: 0.1})) == 2
    assert len(losses({}, old)) == 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (lambda _: ("--text-encoder", "all-minilm"), "all-minilm"),
        (lambda _: ("--text-encoder", "nobody/no-such-encoder"), "nobody/no-such-encoder"),
        (lambda at: ("--text-encoder", at.old_roberta), "trained with old already"),
        (lambda at: ("--text-encoder", at.small_roberta, "--old-text-encoder", at.small_roberta), "--old-text-encoder"),
        (lambda at: ("--text-encoder", at.small_roberta, "--checkpoint", at.folder / "none"), "no fusion checkpoint"),
        (lambda at: ("--text-encoder", at.small_roberta, "--sentences", at.folder / "none"), "there is no file"),
        (lambda _: ("--whisper", "whisper-enormous"), "whisper-enormous"),
    ],
)
def test_an_impossible_adaptation_exits_with_2_and_a_reason(
    workspace: Workspace,
    more: Callable[[Workspace], Sequence[object]],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert workspace.run(*more(workspace)) == 2
    assert message in capsys.readouterr().err


def test_a_network_without_a_voice_and_a_text_is_refused(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published = replace(CONFIG, model="amser-plus", conv_channels=(4, 4, 4))
    file = write_checkpoint(tmp_path / "plus.safetensors", published, dict(workspace.encoders))
    assert workspace.run("--text-encoder", workspace.small_roberta, "--checkpoint", file) == 2
    assert "holds amser-plus; what can be adapted is amser-states alone" in capsys.readouterr().err


def test_another_corpus_than_that_of_the_training_is_refused(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    other = workspace.folder / "other.tsv"
    other.write_bytes((workspace.folder / "small.tsv").read_bytes())
    assert workspace.run("--text-encoder", workspace.small_roberta, "--corpus", other) == 2
    assert "learnt from small, but the corpus is other" in capsys.readouterr().err


@pytest.mark.usefixtures("any_loss_is_accepted")
def test_a_file_that_exists_is_replaced_by_force_alone(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new.safetensors"
    output.write_text("mine")
    assert workspace.run("--text-encoder", workspace.small_roberta, "--output", output) == 2
    assert f"training.adapt: {output} exists; --force replaces it" in capsys.readouterr().err
    assert output.read_text() == "mine"
    assert workspace.run("--text-encoder", workspace.small_roberta, "--output", output, "--force") == 0
    assert load(output)[1].name == "small+small-roberta"


def test_the_default_output_is_not_in_the_package(workspace: Workspace, adapted: Path) -> None:
    assert adapted.parent == workspace.folder / "runs"
    assert not list(DEFAULT_CHECKPOINT.parent.glob("*+*"))


@pytest.mark.usefixtures("any_loss_is_accepted")
def test_another_whisper_gets_another_voice_and_the_text_stays(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whisper = write_whisper(tmp_path / "whisper", TINY_WIDTH, layers=LOWER_LAYERS + CONFIG.state_layers)
    monkeypatch.setattr("training.fitting.curriculum.model_path", lambda _: whisper)
    validated = {"ua, none": 0.4, "ua, svd-f16:0.125": 0.3}
    old = write_checkpoint(tmp_path / "old.safetensors", CONFIG, dict(workspace.encoders), **validated)
    output = tmp_path / "new.safetensors"
    assert workspace.run("--whisper", "whisper-tiny.en", "--checkpoint", old, "--output", output) == 0
    printed = capsys.readouterr().out
    assert "0.350" in printed
    assert "weights: whisper-tiny.en" in printed

    network, info = load(output, {**workspace.encoders, "asr": fingerprint("whisper-tiny.en")})
    assert (network.config.state_width, network.config.state_heads) == (
        LOWER_LAYERS * TINY_WIDTH,
        TINY_WIDTH // HEAD_WIDTH,
    )
    kept, present = network_of(old).text.state_dict(), network_of(output).text.state_dict()
    assert all(torch.equal(kept[name], present[name]) for name in kept)
    assert f"{OWN_WORDS}, {adapt.NEW_SPEAKERS}" in info.metrics


def network_of(file: Path) -> AmserStates:
    network, _ = load(file)
    assert isinstance(network, AmserStates)
    return network
