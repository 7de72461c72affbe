"""Half precision, as a GPU computes: every network that a GPU replica runs answers as it does in float32."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from recordings import mel_of, speakers, waveform_of

from models.emotion.checkpoint_info import DEFAULT_CHECKPOINT
from models.emotion.classifier import EmotionClassifier
from models.messages import Mel
from models.weights import model_path
from models.whisper.conversion import load_audio_encoder
from models.whisper.engine import LOWER_LAYERS
from models.whisper.openai_engine import OpenAIEngine
from models.whisper.recognizer import WhisperRecognizer
from models.whisper.voice import VoiceEncoder, narrow_products

DTYPES = (torch.float16, torch.bfloat16)
MOST_OFF = {torch.float16: 2e-3, torch.bfloat16: 2e-2}  # of a state, in deviations of all states


@pytest.fixture(scope="module")
def mels() -> list[Mel]:
    return [mel_of(waveform_of(row["path"])) for row in speakers(3)]


@pytest.fixture(scope="module")
def wide() -> VoiceEncoder:
    return VoiceEncoder(model_path("whisper-base"))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_voice_in_half_precision_gives_the_same_emotion(
    wide: VoiceEncoder, mels: list[Mel], dtype: torch.dtype
) -> None:
    half = VoiceEncoder(model_path("whisper-base"), dtype=dtype)
    classifier = EmotionClassifier(DEFAULT_CHECKPOINT, None)
    for mel in mels:
        expected, states = wide.encode(mel).astype(np.float32), half.encode(mel).astype(np.float32)
        assert np.sqrt(np.mean((states - expected) ** 2)) < MOST_OFF[dtype] * expected.std()
        answers = [classifier.classify(mel, encoder.encode(mel), None) for encoder in (wide, half)]
        assert answers[0].label == answers[1].label
        assert answers[0].probabilities == pytest.approx(answers[1].probabilities, abs=0.02)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_whisper_s_own_attention_computes_in_half_precision_too(dtype: torch.dtype) -> None:
    """A GPU keeps torch's fused kernel, where a CPU replaces it."""
    rows = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 50, 512)).astype(np.float32))
    encoder = load_audio_encoder(model_path("whisper-base"), LOWER_LAYERS)
    with torch.inference_mode():
        expected = encoder.blocks[0](rows)
        narrow_products(encoder, dtype, fused_attention=True)
        answer = encoder.blocks[0](rows.to(dtype))
    assert answer.dtype == dtype
    assert (answer.float() - expected).square().mean().sqrt() < 5 * MOST_OFF[dtype] * expected.std()


def test_the_norms_keep_the_width_that_whisper_computes_them_in() -> None:
    encoder = load_audio_encoder(model_path("whisper-base"), 1)
    narrow_products(encoder, torch.float16, fused_attention=True)
    wide = {name for name, value in encoder.named_parameters() if value.dtype == torch.float32}
    norms = ("blocks.0.attn_ln", "blocks.0.mlp_ln", "ln_post")
    assert wide == {f"{norm}.{part}" for norm in norms for part in ("weight", "bias")}


def test_the_reference_engine_writes_the_same_words_in_half_precision(
    mels: list[Mel], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = OpenAIEngine(model_path("whisper-base-short"))
    recognizer = WhisperRecognizer(engine)
    expected = [transcript.text for transcript in recognizer.transcribe(mels[:2])]
    monkeypatch.setattr(engine, "_half", True)
    assert [transcript.text for transcript in recognizer.transcribe(mels[:2])] == expected
