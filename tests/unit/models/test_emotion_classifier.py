"""The last stage: probabilities of the classes, and no answers from features that the network never learnt."""

from __future__ import annotations

from math import ceil
from pathlib import Path
from typing import Any

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
from models.emotion.checkpoint_info import DEFAULT_CHECKPOINT, CheckpointError, CheckpointInfo, EncoderMismatch
from models.emotion.classifier import EmotionClassifier, narrow
from models.emotion.config import FusionConfig
from models.emotion.prior import PriorError
from models.emotion.registry import build
from models.messages import Mel, TextFeatures, TokenFeatures, Transcript
from models.resolve import locate
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
    states = np.random.default_rng(mel.frames).standard_normal((ceil(trim_pauses(mel.values).shape[1] / 8), 1536))
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
    emotion = classifier.classify(mel, np.zeros((0, 1536), np.float16), reading(5, context_width))
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
        context = ContextEncoder(model_path("all-minilm-l6-v2"))
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
    _, (network, fingerprints, *_) = stage_arguments(Settings(), gpu=False)["fusion"]
    assert EmotionClassifier(Path(locate(network)), fingerprints).info == classifier.info


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


# --- Prior and restriction --------------------------------------------------------------------------------------------

SHARES = {"angry": 0.05, "disgust": 0.05, "fear": 0.1, "happy": 0.2, "neutral": 0.4, "sad": 0.15, "surprise": 0.05}


def probabilities_of(classifier: EmotionClassifier, emotions: tuple[str, ...] = ()) -> dict[str, float]:
    mel = mel_of(waveform_of(speakers(1)[0]["path"]))
    return classifier.classify(mel, states_of(mel), None, None, emotions).probabilities


def test_a_prior_multiplies_the_probabilities_by_its_shares(classifier: EmotionClassifier) -> None:
    balanced = probabilities_of(classifier)
    found = probabilities_of(EmotionClassifier(DEFAULT_CHECKPOINT, None, expected=SHARES))
    total = sum(balanced[name] * SHARES[name] for name in CLASSES)
    assert found == {name: pytest.approx(balanced[name] * SHARES[name] / total) for name in CLASSES}


def test_equal_shares_change_nothing(classifier: EmotionClassifier) -> None:
    acted = EmotionClassifier(DEFAULT_CHECKPOINT, None, expected="acted")
    assert probabilities_of(acted) == pytest.approx(probabilities_of(classifier))


def test_a_prior_for_other_classes_is_refused() -> None:
    with pytest.raises(PriorError, match="no share for"):
        EmotionClassifier(DEFAULT_CHECKPOINT, None, expected={"happy": 0.5, "sad": 0.5})


@pytest.mark.parametrize("asked", [("sad", "angry"), ("neutral", "sad", "happy", "angry")])
def test_a_restricted_answer_covers_those_classes_alone_in_the_same_proportions(
    classifier: EmotionClassifier, asked: tuple[str, ...]
) -> None:
    whole = probabilities_of(classifier)
    found = probabilities_of(classifier, asked)
    assert tuple(found) == tuple(name for name in CLASSES if name in asked)
    assert sum(found.values()) == pytest.approx(1)
    assert found["angry"] / found["sad"] == pytest.approx(whole["angry"] / whole["sad"])


def test_the_confidence_is_the_probability_of_the_label_after_prior_and_restriction() -> None:
    mel = mel_of(waveform_of(speakers(1)[0]["path"]))
    answer = EmotionClassifier(DEFAULT_CHECKPOINT, None, expected=SHARES).classify(
        mel, states_of(mel), None, None, ("happy", "neutral")
    )
    assert answer.confidence == answer.probabilities[answer.label] == max(answer.probabilities.values())
    assert answer.confidence >= 0.5


def test_a_class_that_the_network_does_not_know_is_refused(classifier: EmotionClassifier) -> None:
    with pytest.raises(ValueError, match="does not know bored, but angry, disgust"):
        probabilities_of(classifier, ("bored", "sad"))


# --- Doubt ------------------------------------------------------------------------------------------------------------


def calibrated(path: Path, **calibration: Any) -> EmotionClassifier:
    """A small untrained network that reads voice and text, behind a checkpoint with this calibration."""
    torch.manual_seed(0)
    config = FusionConfig(classes=CLASSES, model="amser-states", hidden=16, heads=2, feed_forward=32, layers=1)
    checkpoint.save(path, build(config), CheckpointInfo("test", config, {}, (), (), **calibration))
    return EmotionClassifier(path, None)


@pytest.mark.parametrize("evidence", ["voice", "text", "voice+text"])
def test_temperature_and_threshold_are_those_of_what_was_read(tmp_path: Path, evidence: str) -> None:
    mel = mel_of(waveform_of(speakers(1)[0]["path"]))
    voice = states_of(mel) if "voice" in evidence else np.zeros((0, 1536), np.float16)
    text = reading(3) if "text" in evidence else None
    others = {name: 0.0 for name in ("voice", "text", "voice+text") if name != evidence}
    plain = calibrated(tmp_path / "plain", sure_from={evidence: 0.0}).classify(mel, voice, text)
    soft = calibrated(tmp_path / "soft", temperatures={evidence: 5.0}, sure_from=others).classify(mel, voice, text)
    other = calibrated(tmp_path / "other", temperatures=dict.fromkeys(others, 5.0)).classify(mel, voice, text)
    assert plain.doubts == ()
    assert soft.doubts == ("low_confidence",)  # 0.6 holds where the checkpoint does not say
    assert other.probabilities == plain.probabilities
    sharp, softened = (np.array(list(answer.probabilities.values())) for answer in (plain, soft))
    np.testing.assert_allclose(softened, sharp**0.2 / np.sum(sharp**0.2), atol=1e-6)


def test_words_that_were_left_out_count_as_the_voice_alone(tmp_path: Path) -> None:
    classifier = calibrated(tmp_path / "small", sure_from={"voice": 0.0, "voice+text": 1.0})
    mel = mel_of(waveform_of(speakers(1)[0]["path"]))
    for language, doubts in (("pl", ()), ("en", ("low_confidence",))):
        assert classifier.classify(mel, states_of(mel), reading(3, language=language)).doubts == doubts


def test_the_shipped_network_is_never_sure_of_a_scrap_without_words(classifier: EmotionClassifier) -> None:
    scrap = mel_of(waveform_of(speakers(1)[0]["path"])[:6400])
    answer = classifier.classify(scrap, states_of(scrap), None, Transcript("", "en", 0.0))
    assert answer.uncertain
    assert {"short", "no_words"} <= set(answer.doubts)


def test_a_language_is_doubted_where_the_checkpoint_says_which_the_voice_knows(tmp_path: Path) -> None:
    mel = mel_of(waveform_of(speakers(1)[0]["path"]))
    classifier = calibrated(tmp_path / "small", sure_from={"voice": 0.0}, voice_languages=("en", "pl"))
    doubts = [
        classifier.classify(mel, states_of(mel), None, transcript).doubts
        for transcript in (Transcript("Dzień dobry", "pl", -0.2), Transcript("Guten Tag", "de", -0.2), None)
    ]
    assert doubts == [(), ("language",), ()]


def test_an_answer_that_is_no_number_is_an_error_and_not_an_emotion(classifier: EmotionClassifier) -> None:
    mel = mel_of(noise(1))
    with pytest.raises(ArithmeticError, match="answered"):
        classifier.classify(mel, np.full_like(states_of(mel), np.nan), None)
