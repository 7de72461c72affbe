"""The last stage: probabilities of the classes, and no answers from features that the network never learnt."""

from __future__ import annotations

from math import ceil
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from recordings import mel_of, noise, speakers, waveform_of

from amser.features import trim_pauses
from deployments.settings import Settings
from deployments.stages.assembly import stage_arguments
from models.emotion import checkpoint
from models.emotion import classifier as classifier_module
from models.emotion.checkpoint import (
    DEFAULT_CHECKPOINT,
    CheckpointError,
    CheckpointInfo,
    EncoderMismatch,
)
from models.emotion.classifier import EmotionClassifier, narrow
from models.emotion.config import FusionConfig
from models.emotion.registry import build
from models.messages import Mel, TextFeatures, TokenFeatures
from models.text.context_encoder import ContextEncoder
from models.text.word_vectors import WordVectors
from models.weights import model_path
from models.whisper.voice import VoiceEncoder
from training.corpora.manifest import CLASSES


@pytest.fixture(scope="module")
def classifier() -> EmotionClassifier:
    return EmotionClassifier(DEFAULT_CHECKPOINT, None)


@pytest.fixture(scope="module")
def context_width(classifier: EmotionClassifier) -> int:
    return classifier.info.config.context_width


def text_features(tokens: int, width: int) -> TokenFeatures:
    values = np.random.default_rng(tokens).standard_normal((tokens, width)).astype(np.float32)
    return TokenFeatures(tuple("word" for _ in range(tokens)), values)


def states_of(mel: Mel) -> NDArray[np.float16]:
    states = np.random.default_rng(mel.frames).standard_normal((ceil(trim_pauses(mel.values).shape[1] / 4), 512))
    return states.astype(np.float16)


def reading(tokens: int, context_width: int = 768, language: str = "en") -> TextFeatures:
    return TextFeatures(language, text_features(tokens, 300), text_features(tokens + 2, context_width))


@pytest.mark.parametrize("tokens", [0, 1, 12])
def test_the_probabilities_of_the_seven_classes_sum_to_one(
    classifier: EmotionClassifier, context_width: int, tokens: int
) -> None:
    mel = mel_of(waveform_of(speakers(1)[0]["path"]))
    emotion = classifier.classify(mel, states_of(mel), reading(tokens, context_width))
    assert tuple(emotion.probabilities) == CLASSES
    assert sum(emotion.probabilities.values()) == pytest.approx(1, abs=1e-9)
    assert all(0 <= value <= 1 for value in emotion.probabilities.values())
    assert emotion.label == max(emotion.probabilities, key=lambda name: emotion.probabilities[name])


def test_words_without_a_voice_have_an_answer(classifier: EmotionClassifier, context_width: int) -> None:
    mel = mel_of(noise(1))
    emotion = classifier.classify(mel, np.zeros((0, 512), np.float16), reading(5, context_width))
    assert sum(emotion.probabilities.values()) == pytest.approx(1, abs=1e-9)


def test_the_temperature_of_the_checkpoint_softens_the_probabilities(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = FusionConfig(classes=CLASSES, model="text", hidden=16, heads=2, feed_forward=32, layers=1)
    network = build(config)
    asked = (mel_of(noise(1)), states_of(mel_of(noise(1))), reading(1))
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
    asked = (mel, states_of(mel), reading(0, context_width))
    assert classifier.classify(*asked) == classifier.classify(*asked)


def test_computing_in_bfloat16_moves_a_probability_by_less_than_0_02(monkeypatch: pytest.MonkeyPatch) -> None:
    """On real speech, whatever this processor has: encoders and network together."""
    mels = [mel_of(waveform_of(row["path"])) for row in speakers(3)]
    vectors = WordVectors(model_path("spacy-en-core-web-md"))
    probabilities = []
    for narrowed in (False, True):
        monkeypatch.setattr(classifier_module, "has_bfloat16", lambda narrowed=narrowed: narrowed)
        voice = VoiceEncoder(model_path("whisper-base"), narrow=narrowed)
        context = ContextEncoder(model_path("all-mpnet-base-v2"), narrow=narrowed)
        classifier = EmotionClassifier(DEFAULT_CHECKPOINT, None)
        for text, mel in zip(("I am so glad that you came.", "", "It is over."), mels, strict=True):
            read = TextFeatures("en", vectors.embed(text), context.encode([text])[0])
            answer = classifier.classify(mel, voice.encode(mel), read)
            probabilities.append(list(answer.probabilities.values()))
    wide, narrow_answers = np.array(probabilities).reshape(2, 3, 7)
    assert 0 < np.abs(wide - narrow_answers).max() < 0.03


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
    _, (path, fingerprints, *_) = stage_arguments(Settings(), gpu=False)["fusion"]
    assert EmotionClassifier(path, fingerprints).info == classifier.info


def test_a_file_that_is_no_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="fusion"):
        EmotionClassifier(tmp_path / "missing.safetensors", None)
    (tmp_path / "text.safetensors").write_text("not a network")
    with pytest.raises(CheckpointError):
        EmotionClassifier(tmp_path / "text.safetensors", None)


def test_words_of_a_language_it_has_not_learnt_are_left_out(classifier: EmotionClassifier, context_width: int) -> None:
    mel = mel_of(waveform_of(speakers(1)[0]["path"]))
    answers = [
        classifier.classify(mel, states_of(mel), reading(tokens, context_width, language))
        for language, tokens in (("en", 2), ("pl", 2), ("pl", 5), ("pl", 0))
    ]
    assert [answer.left_out for answer in answers] == [(), ("text",), ("text",), ()]
    assert answers[1].probabilities == answers[2].probabilities
    assert answers[0].probabilities != answers[1].probabilities


def test_without_text_features_the_voice_alone_decides(classifier: EmotionClassifier, context_width: int) -> None:
    mel = mel_of(waveform_of(speakers(1)[0]["path"]))
    alone = classifier.classify(mel, states_of(mel), None)
    foreign = classifier.classify(mel, states_of(mel), reading(3, context_width, "pl"))
    assert alone.left_out == ()  # whoever left the text out says so
    assert alone.probabilities == foreign.probabilities
