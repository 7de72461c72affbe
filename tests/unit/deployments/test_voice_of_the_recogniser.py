"""The emotion reads the voice that the recogniser has encoded, and encodes it where there is none."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from deployments.settings import Settings
from deployments.stages.assembly import stage_arguments
from models.messages import Mel, Transcript
from models.sample import sample_mel
from models.whisper.voice import VoiceEncoder

encoded: list[Mel] = []


@pytest.fixture(scope="module")
def stage() -> Any:
    deployment, arguments = stage_arguments(Settings(), gpu=False)["fusion"]
    return deployment.func_or_class(*arguments)


@pytest.fixture(autouse=True)
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    encode = VoiceEncoder.encode

    def counting(self: VoiceEncoder, mel: Mel) -> Any:
        encoded.append(mel)
        return encode(self, mel)

    encoded.clear()
    monkeypatch.setattr(VoiceEncoder, "encode", counting)


def emotion_of(stage: Any, transcript: Transcript | None) -> dict[str, float]:
    answer = asyncio.run(stage.classify(sample_mel(frames=200), None, transcript))
    probabilities: dict[str, float] = answer.value.probabilities
    return probabilities


def test_a_voice_that_comes_with_the_transcript_is_not_encoded_again(stage: Any) -> None:
    voices = np.random.default_rng(0).normal(size=(2, 25, stage._voice.width)).astype(np.float16)
    answers = [emotion_of(stage, Transcript("", "en", 0.0, voice=voice)) for voice in voices]
    assert encoded == []
    assert answers[0] != answers[1]


def test_without_a_recogniser_or_from_another_engine_it_is_encoded_here(stage: Any) -> None:
    alone, worded = emotion_of(stage, None), emotion_of(stage, Transcript("", "en", 0.0))
    assert len(encoded) == 2
    assert alone == worded
