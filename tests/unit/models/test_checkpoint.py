"""Checkpoints: what is saved is what answers, and what does not fit is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_networks import SMALL, as_if_trained, spoken

from models.emotion.checkpoint import load, save
from models.emotion.checkpoint_info import DEFAULT_CHECKPOINT, FORMAT, CheckpointError, CheckpointInfo, EncoderMismatch
from models.emotion.config import FusionConfig
from models.emotion.published.amser_plus import AmserPlus
from models.emotion.registry import MODELS, build
from training.corpora.manifest import CLASSES
from training.fitting.loop import predict

ENCODERS = {"asr": "a" * 64, "words": "b" * 64, "context": "c" * 64}
INFO = CheckpointInfo(
    name="test", config=SMALL, encoders=ENCODERS, codecs=("none", "svd-f16:0.125"), corpora=("ravdess",),
    metrics={"ua": 0.5}, created="2026-01-01T00:00:00+00:00", licence="CC BY-NC-SA 4.0", temperature=1.7,
    temperatures={"voice": 1.2, "voice+text": 1.4}, sure_from={"voice": 0.7}, voice_languages=("en", "pl"),
)  # fmt: skip
LARGEST = 20_000_000  # bytes of what a repository carries


@pytest.mark.parametrize("model", MODELS)
def test_a_checkpoint_gives_the_same_probabilities_in_half_precision(tmp_path: Path, model: str) -> None:
    torch.manual_seed(0)
    config = dataclasses.replace(SMALL, model=model)
    network = as_if_trained(build(config))
    path = tmp_path / "small.safetensors"
    save(path, network, dataclasses.replace(INFO, config=config))
    loaded, info = load(path, ENCODERS)
    asked = [spoken(120), spoken(90, words=0, seed=1)]
    np.testing.assert_allclose(
        predict(loaded, asked, info.temperature), predict(network, asked, INFO.temperature), rtol=0, atol=1e-3
    )
    assert not loaded.training
    assert {value.dtype for value in loaded.parameters()} == {torch.float32}


def test_a_checkpoint_keeps_what_is_known_of_the_network(tmp_path: Path) -> None:
    save(tmp_path / "small.safetensors", AmserPlus(SMALL), INFO)
    _, info = load(tmp_path / "small.safetensors", ENCODERS)
    assert info == INFO
    assert info.temperature == 1.7


def test_calibration_is_by_what_was_read_with_a_default(tmp_path: Path) -> None:
    save(tmp_path / "small.safetensors", AmserPlus(SMALL), INFO)
    _, info = load(tmp_path / "small.safetensors", ENCODERS)
    assert [info.temperature_for(evidence) for evidence in ("voice", "text", "voice+text")] == [1.2, 1.7, 1.4]
    assert [info.sure_from_for(evidence) for evidence in ("voice", "text", "voice+text")] == [0.7, 0.6, 0.6]


def test_a_checkpoint_of_the_time_before_calibration_is_read(tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    known = dataclasses.asdict(INFO)
    for name in ("temperatures", "sure_from", "voice_languages"):
        del known[name]
    tensors = {name: tensor.contiguous() for name, tensor in AmserPlus(SMALL).state_dict().items()}
    save_file(tensors, path, metadata={"format": FORMAT, "info": json.dumps(known)})
    _, info = load(path, ENCODERS)
    assert (info.temperatures, info.sure_from, info.voice_languages) == ({}, {}, ())
    assert info.temperature_for("voice+text") == 1.7


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        ({"temperatures": {"voice_text": 1.0}}, "calibrated for voice_text; known: voice, text, voice.text"),
        ({"sure_from": {"face": 0.5}}, "calibrated for face"),
        ({"temperatures": {"voice": 0.0}}, "a temperature is not above 0"),
    ],
)
def test_a_calibration_that_cannot_be_is_refused(tmp_path: Path, calibration: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(INFO, **calibration)
    path = tmp_path / "small.safetensors"
    known = json.dumps({**dataclasses.asdict(INFO), **calibration})
    save_file({"weight": torch.zeros(2)}, path, metadata={"format": FORMAT, "info": known})
    with pytest.raises(CheckpointError, match=rf"small\.safetensors.*{message}"):
        load(path)


def test_matrices_take_two_bytes_a_number(tmp_path: Path) -> None:
    save(tmp_path / "small.safetensors", AmserPlus(SMALL), INFO)
    for name, tensor in load_file(tmp_path / "small.safetensors").items():
        if tensor.ndim > 1:
            assert tensor.dtype == torch.float16, name
        else:
            assert tensor.dtype in (torch.float32, torch.int64), name


def test_a_network_of_another_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    save(path, AmserPlus(SMALL), dataclasses.replace(INFO, config=dataclasses.replace(SMALL, model="mulan")))
    with pytest.raises(CheckpointError, match=r"small\.safetensors.*'mulan'"):
        load(path)


def test_a_checkpoint_of_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    save_file({"weight": torch.zeros(2)}, path, metadata={"format": "amser/1", "info": "{}"})
    with pytest.raises(CheckpointError, match=f"format 'amser/1', expected '{FORMAT}'"):
        load(path)


def test_the_shipped_checkpoint_is_small_and_knows_the_seven_classes() -> None:
    network, info = load()
    assert DEFAULT_CHECKPOINT.stat().st_size <= LARGEST
    assert info.config.model == "amser-states"
    assert info.config.classes == CLASSES
    assert info.encoders.keys() == ENCODERS.keys()
    assert info.temperature > 0
    assert info.licence
    assert info.corpora
    assert network.modalities == ("states", "words", "context")


@pytest.mark.parametrize(("frames", "words", "voice"), [(240, 6, True), (90, 0, True), (240, 6, False), (1, 0, False)])
def test_the_shipped_checkpoint_answers_with_probabilities(frames: int, words: int, voice: bool) -> None:
    network, info = load()
    features = spoken(frames, words)
    random = np.random.default_rng(0)
    features = dataclasses.replace(
        features,
        context=random.standard_normal((words + 2, info.config.context_width)).astype(np.float32),
        encoder_states=features.encoder_states if voice else features.encoder_states[:0],
    )
    probabilities = predict(network, [features], info.temperature)
    assert probabilities.shape == (1, 7)
    assert np.isfinite(probabilities).all()
    assert probabilities.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        (ENCODERS | {"context": "d" * 64}, rf"context: trained with {'c' * 64}, this process has {'d' * 64}"),
        ({"asr": "a" * 64, "words": "b" * 64}, "context: trained with c+, this process has none"),
    ],
)
def test_other_encoders_are_refused_by_name_and_fingerprint(
    tmp_path: Path, expected: dict[str, str], message: str
) -> None:
    path = tmp_path / "small.safetensors"
    save(path, AmserPlus(SMALL), INFO)
    with pytest.raises(EncoderMismatch, match=message) as caught:
        load(path, expected)
    assert "asr" not in str(caught.value)


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"training\.train"):
        load(tmp_path / "absent.safetensors")
    text = tmp_path / "text.safetensors"
    text.write_text("hello, this is not a checkpoint at all")
    with pytest.raises(CheckpointError, match=r"text\.safetensors"):
        load(text)


def test_weights_of_other_sizes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    wider: FusionConfig = dataclasses.replace(SMALL, feed_forward=48)
    save(path, AmserPlus(wider), INFO)
    with pytest.raises(CheckpointError, match="size mismatch"):
        load(path)


def test_a_checkpoint_carries_its_story_as_readable_json(tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    save(path, AmserPlus(SMALL), INFO)
    header = path.read_bytes()
    length = int.from_bytes(header[:8], "little")
    metadata = json.loads(header[8 : 8 + length])["__metadata__"]
    assert json.loads(metadata["info"])["licence"] == "CC BY-NC-SA 4.0"
