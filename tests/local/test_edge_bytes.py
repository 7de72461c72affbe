"""What each edge of the pipeline carries for five seconds of speech: bytes between processes are counted."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from recordings import Waveform, envelope_of, speakers, waveform_of

from amser import wire
from amser.features import SAMPLE_RATE
from deployments.local_cluster import LARGEST_INLINE
from deployments.replica.calls import Call, to_plain
from deployments.replica.execution import Timed
from models.mel import reconstruct
from models.messages import Emotion, Mel, TextFeatures, TokenFeatures, Transcript
from models.text.context_encoder import LONGEST_TEXT, ContextEncoder
from models.text.word_vectors import WordVectors
from models.weights import model_path
from models.whisper.engine import LOWER_LAYERS
from models.whisper.onnx.engine import OnnxEngine
from models.whisper.recognizer import WhisperRecognizer

FRAMES = 500
PCM = FRAMES * 160 * 2  # bytes of the same speech as 16-bit samples
AROUND = 1000  # bytes of names, types and lengths in a pickle
LARGEST_RESULT = 4_000_000  # what Serve's throughput mode refuses to carry between deployments


@pytest.fixture(scope="module")
def waveform() -> Waveform:
    """Exactly five seconds of a speaker."""
    row = next(row for row in speakers(20) if float(row["seconds"]) > 5)
    return waveform_of(row["path"])[: 5 * SAMPLE_RATE]


@pytest.fixture(scope="module")
def envelope(waveform: Waveform) -> wire.Envelope:
    return envelope_of(waveform, rate=0.125)


@pytest.fixture(scope="module")
def mel(envelope: wire.Envelope) -> Mel:
    return reconstruct(envelope, wire.Limits())


@pytest.fixture(scope="module")
def transcript(mel: Mel) -> Transcript:
    model = model_path("whisper-base-short")
    return WhisperRecognizer(OnnxEngine(model)).transcribe([mel])[0]


def carried(message: object) -> int:
    """Bytes of a message, as one process hands it to another."""
    return len(pickle.dumps(message if isinstance(message, Call) else to_plain(message), protocol=5))


def test_a_device_sends_less_than_a_tenth_of_the_samples(envelope: wire.Envelope) -> None:
    sent = len(wire.pack(envelope))
    assert sent < 0.1 * PCM
    assert sent == pytest.approx(10 * (80 + FRAMES) * 2, abs=200)  # ten components, float16


def test_the_envelope_crosses_as_its_payload(envelope: wire.Envelope) -> None:
    assert carried(envelope) < len(envelope.payload) + AROUND


def test_the_mel_crosses_at_160_bytes_a_frame(mel: Mel) -> None:
    assert mel.values.shape == (80, FRAMES)
    assert 160 * FRAMES <= carried(Timed(mel, 1.0)) < 160 * FRAMES + AROUND


def test_the_transcript_crosses_as_its_text_and_the_voice_at_38_kb_a_second(transcript: Transcript) -> None:
    assert transcript.text
    assert transcript.voice is not None
    assert transcript.voice.nbytes <= FRAMES / 8 * LOWER_LAYERS * 512 * 2 + 3072
    assert carried(Timed(transcript, 1.0)) < transcript.voice.nbytes + len(transcript.text) + AROUND


def test_the_text_stages_are_asked_with_the_text_alone(transcript: Transcript) -> None:
    assert carried(transcript.text) < 500


def test_word_vectors_cross_at_1200_bytes_a_word(transcript: Transcript) -> None:
    features = WordVectors(model_path("spacy-en-core-web-md")).embed(transcript.text)
    assert 3 < len(features.tokens) < 40
    assert carried(Timed(features, 1.0)) < (1200 + 30) * len(features.tokens) + AROUND


def test_token_states_cross_at_3072_bytes_a_token(transcript: Transcript) -> None:
    (features,) = ContextEncoder(model_path("all-minilm-l6-v2")).encode([transcript.text])
    assert 3 < len(features.tokens) < 60
    assert carried(Timed(features, 1.0)) < (3072 + 30) * len(features.tokens) + AROUND


def test_the_emotion_crosses_as_a_few_numbers() -> None:
    probabilities = dict.fromkeys(("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"), 0.1)
    emotion = Emotion("happy", probabilities, 0.1, ("low_confidence", "short", "no_words", "language"))
    assert carried(Timed(emotion, 1.0)) < 500


def test_what_the_classifier_is_given_for_30_s_stays_below_the_limits() -> None:
    """Of throughput mode; and of what a Ray that is set up as docs/operations.md says sends with the call."""
    mel = Mel(np.zeros((80, 3000), np.float16), -1.5, 30.0, "en", "svd-f16", 10)
    words = TokenFeatures(("word",) * 150, np.zeros((150, 300), np.float32))
    context = TokenFeatures(("word",) * LONGEST_TEXT, np.zeros((LONGEST_TEXT, 384), np.float32))
    voice = np.zeros((375, LOWER_LAYERS * 512), np.float16)
    transcript = Transcript("word " * 150, "en", 0.0, tokens=tuple(range(200)), voice=voice)
    call = Call([to_plain(mel), to_plain(TextFeatures("en", words, context)), to_plain(transcript)], 1e9)
    assert carried(call) < 0.6 * LARGEST_RESULT
    assert carried(call) < 0.8 * LARGEST_INLINE


def test_a_transcript_without_the_voice_crosses_at_the_cost_of_its_text(transcript: Transcript) -> None:
    transcript = replace(transcript, voice=None)
    asked = Call([to_plain(transcript), ("angry", "happy", "neutral", "sad")], 1e9)
    assert carried(asked) < len(transcript.text) + AROUND
