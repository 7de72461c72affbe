"""The recogniser as a stage: what it answers is what the plain class does, however its passes are queued."""

from __future__ import annotations

from typing import Any

import pytest
from recordings import mel_of, speakers, waveform_of

from amser.features import SAMPLE_RATE
from deployments.settings import RecognizerSettings
from deployments.stages.whisper_asr import WhisperASR
from models.messages import Mel
from models.resolve import wanted
from models.whisper.recognizer import WhisperRecognizer


@pytest.fixture(scope="module")
def stage() -> Any:
    name = RecognizerSettings().weights
    kind: Any = WhisperASR.func_or_class
    return kind(RecognizerSettings(), wanted(name), name, False)


def speech() -> Mel:
    return mel_of(waveform_of(speakers(1)[0]["path"])[: 3 * SAMPLE_RATE])


async def test_a_doubtful_utterance_is_one_request_that_waits_twice(stage: Any) -> None:
    recognizer: WhisperRecognizer = stage._recognizer
    sentence = waveform_of(speakers(1)[0]["path"])
    pieces = [mel_of(sentence[at : at + 3 * SAMPLE_RATE // 10]) for at in range(0, 3 * SAMPLE_RATE, SAMPLE_RATE // 2)]
    doubtful = next(mel for mel in pieces if recognizer.is_doubtful(recognizer.first_pass([mel])[0]))
    served = stage._batcher.work.counts["served"]
    answer = await stage.transcribe(doubtful)
    assert answer.value == recognizer.transcribe([doubtful])[0]
    assert stage._batcher.work.counts["served"] == served + 1


async def test_an_utterance_that_is_believed_waits_once(stage: Any) -> None:
    recognizer: WhisperRecognizer = stage._recognizer
    assert not recognizer.is_doubtful(recognizer.first_pass([speech()])[0])
    assert (await stage.transcribe(speech())).value == recognizer.transcribe([speech()])[0]
