"""Real sounds that are no speech, or no speech that the voice knows, through the recogniser: never a sure emotion."""

from __future__ import annotations

import pytest
from recordings import mel_of, rows, waveform_of

from models.emotion.doubt import doubts_about
from models.messages import Doubt, Mel
from models.weights import model_path
from models.whisper.onnx.engine import OnnxEngine
from models.whisper.recognizer import WhisperRecognizer


@pytest.fixture(scope="module")
def recognizer() -> WhisperRecognizer:
    return WhisperRecognizer(OnnxEngine(model_path("whisper-base-short")), batch_size=4)


def doubts(recognizer: WhisperRecognizer, mels: list[Mel]) -> list[tuple[Doubt, ...]]:
    """About an emotion that the network would be certain of, from a voice that was taught English."""
    transcripts = recognizer.transcribe(mels)
    return [
        doubts_about(1.0, mel, transcript, sure_from=0.6, voice_languages=("en",))
        for mel, transcript in zip(mels, transcripts, strict=True)
    ]


@pytest.mark.parametrize("language", ["en", None])
def test_noise_is_never_sure(recognizer: WhisperRecognizer, language: str | None) -> None:
    mels = [mel_of(waveform_of(row["path"]), language) for row in rows("noise/esc10.tsv")]
    assert len(mels) == 20
    assert all(doubts(recognizer, mels))


@pytest.mark.slow
def test_hardly_a_laugh_or_a_sob_is_sure(recognizer: WhisperRecognizer) -> None:
    """The recogniser writes some as words, such as "Oh."."""
    mels = [mel_of(waveform_of(row["path"])) for row in rows("emotion/emogator.tsv")[::2]]
    found = doubts(recognizer, mels)
    assert sum(map(bool, found)) >= 0.75 * len(mels)


@pytest.mark.parametrize("name", ["german", "spanish"])
def test_speech_in_another_language_is_not_sure(recognizer: WhisperRecognizer, name: str) -> None:
    (path,) = (row["path"] for row in rows("cases.tsv") if name in row["path"])
    assert doubts(recognizer, [mel_of(waveform_of(path), None)]) == [("language",)]


def test_speech_that_the_voice_knows_is(recognizer: WhisperRecognizer) -> None:
    mels = [mel_of(waveform_of(row["path"]), None) for row in rows("speech/librispeech.tsv")[:6]]
    assert doubts(recognizer, mels) == [()] * 6
