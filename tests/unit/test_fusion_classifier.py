"""The last stage: probabilities of the classes, and no answers from features that the network never learnt."""

from __future__ import annotations

from dataclasses import replace
from math import ceil
from pathlib import Path

import numpy as np
import pytest
import torch
from recordings import mel_of, noise, readers, waveform_of, weights

from amser.features import trim_pauses
from deployments import fusion_classifier
from deployments.fusion_classifier import EmotionClassifier, narrow
from deployments.messages import Mel, TextFeatures, Transcript
from deployments.settings import Settings
from deployments.stages import stage_arguments
from deployments.weights import WeightsMissing
from deployments.whisper.voice import VoiceEncoder
from fusion import checkpoint
from fusion.checkpoint import DEFAULT_CHECKPOINT, CheckpointError, CheckpointInfo, EncoderMismatch
from fusion.corpora.manifest import CLASSES
from fusion.models import build
from fusion.network import FusionConfig


@pytest.fixture(scope="module")
def classifier() -> EmotionClassifier:
    return EmotionClassifier(DEFAULT_CHECKPOINT, None)


@pytest.fixture(scope="module")
def context_width(classifier: EmotionClassifier) -> int:
    return classifier.info.config.context_width


def text_features(tokens: int, width: int) -> TextFeatures:
    values = np.random.default_rng(tokens).standard_normal((tokens, width)).astype(np.float32)
    return TextFeatures(tuple("word" for _ in range(tokens)), values)


def transcript_of(mel: Mel, text: str) -> Transcript:
    states = np.random.default_rng(mel.frames).standard_normal((ceil(trim_pauses(mel.values).shape[1] / 4), 512))
    return Transcript(text, "en", -0.2 if text else 0.0, states.astype(np.float16))


@pytest.mark.parametrize("tokens", [0, 1, 12])
def test_the_probabilities_of_the_seven_classes_sum_to_one(
    classifier: EmotionClassifier, context_width: int, tokens: int
) -> None:
    mel = mel_of(waveform_of(readers(1)[0]["path"]))
    emotion = classifier.classify(
        mel, transcript_of(mel, "word " * tokens), text_features(tokens, 300), text_features(tokens + 2, context_width)
    )
    assert tuple(emotion.probabilities) == CLASSES
    assert sum(emotion.probabilities.values()) == pytest.approx(1, abs=1e-9)
    assert all(0 <= value <= 1 for value in emotion.probabilities.values())
    assert emotion.label == max(emotion.probabilities, key=lambda name: emotion.probabilities[name])


def test_words_without_a_voice_have_an_answer(classifier: EmotionClassifier, context_width: int) -> None:
    mel = mel_of(noise(1))
    voiceless = replace(transcript_of(mel, "word " * 5), encoder_states=np.zeros((0, 512), np.float16))
    emotion = classifier.classify(mel, voiceless, text_features(5, 300), text_features(7, context_width))
    assert sum(emotion.probabilities.values()) == pytest.approx(1, abs=1e-9)


def test_the_temperature_of_the_checkpoint_softens_the_probabilities(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = FusionConfig(classes=CLASSES, model="text", hidden=16, heads=2, feed_forward=32, layers=1)
    network = build(config)
    asked = (mel_of(noise(1)), transcript_of(mel_of(noise(1)), "word"), text_features(1, 300), text_features(3, 768))
    probabilities = []
    for temperature in (1.0, 3.0):
        path = tmp_path / f"{temperature}.safetensors"
        checkpoint.save(path, network, CheckpointInfo("test", config, {}, (), (), temperature=temperature))
        answer = EmotionClassifier(path, None).classify(*asked)
        probabilities.append(np.array(list(answer.probabilities.values())))
    sharp, soft = probabilities
    np.testing.assert_allclose(soft, sharp ** (1 / 3) / np.sum(sharp ** (1 / 3)), atol=1e-6)


def test_the_same_question_has_the_same_answer(classifier: EmotionClassifier, context_width: int) -> None:
    mel = mel_of(noise(1))
    asked = (mel, transcript_of(mel, ""), text_features(0, 300), text_features(2, context_width))
    assert classifier.classify(*asked) == classifier.classify(*asked)


def test_layers_in_bfloat16_move_a_probability_by_less_than_0_02(
    context_width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On real speech, whatever this processor has."""
    voice = VoiceEncoder(weights("whisper-base"))
    probabilities = []
    for has in (False, True):
        monkeypatch.setattr(fusion_classifier, "has_bfloat16", lambda has=has: has)
        classifier = EmotionClassifier(DEFAULT_CHECKPOINT, None)
        for row in readers(3):
            mel = mel_of(waveform_of(row["path"]))
            transcript = replace(transcript_of(mel, ""), encoder_states=voice.encode(mel))
            answer = classifier.classify(mel, transcript, text_features(0, 300), text_features(2, context_width))
            probabilities.append(list(answer.probabilities.values()))
    wide, narrowed = np.array(probabilities).reshape(2, 3, 7)
    assert 0 < np.abs(wide - narrowed).max() < 0.02


def test_only_the_layers_on_the_encoder_states_are_narrowed() -> None:
    network = build(FusionConfig(classes=CLASSES, model="amser-states", hidden=16, heads=2, feed_forward=32, layers=1))
    narrow(network)
    for name, value in network.named_parameters():
        assert (value.dtype == torch.bfloat16) == ("states.layers." in name), name


def test_a_network_does_not_start_beside_other_encoders(classifier: EmotionClassifier) -> None:
    trained = classifier.info.encoders
    assert set(trained) == {"asr", "words", "context"}
    for role in trained:
        with pytest.raises(EncoderMismatch, match=f"{role}: trained with {trained[role]}"):
            EmotionClassifier(DEFAULT_CHECKPOINT, {**trained, role: "0" * 64})
    with pytest.raises(EncoderMismatch):
        EmotionClassifier(DEFAULT_CHECKPOINT, {})


def test_a_network_starts_beside_the_encoders_that_are_served(classifier: EmotionClassifier) -> None:
    try:
        _, (path, fingerprints, _) = stage_arguments(Settings(), gpu=False)["fusion_classifier"]
    except WeightsMissing as error:
        pytest.skip(str(error))
    assert EmotionClassifier(path, fingerprints).info == classifier.info


def test_a_file_that_is_no_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="fusion"):
        EmotionClassifier(tmp_path / "missing.safetensors", None)
    (tmp_path / "text.safetensors").write_text("not a network")
    with pytest.raises(CheckpointError):
        EmotionClassifier(tmp_path / "text.safetensors", None)


def test_words_of_a_language_it_has_not_learnt_are_left_out(classifier: EmotionClassifier, context_width: int) -> None:
    mel = mel_of(waveform_of(readers(1)[0]["path"]))
    english = transcript_of(mel, "word word")
    polish = replace(english, language="pl")
    answers = [
        classifier.classify(mel, transcript, text_features(tokens, 300), text_features(tokens + 2, context_width))
        for transcript, tokens in ((english, 2), (polish, 2), (polish, 5), (replace(english, text=""), 0))
    ]
    assert [answer.left_out for answer in answers] == [(), ("text",), ("text",), ()]
    assert answers[1].probabilities == answers[2].probabilities
    assert answers[0].probabilities != answers[1].probabilities
