"""Recordings of two channels are recognised as if the voice had been recorded alone."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
from recordings import DATA, Waveform, mel_of, noise, speakers, waveform_of

from amser import audio
from amser.features import SAMPLE_RATE, to_mono
from models.weights import model_path
from models.whisper.onnx.engine import OnnxEngine
from models.whisper.recognizer import WhisperRecognizer


@pytest.fixture(scope="module")
def recognizer() -> WhisperRecognizer:
    return WhisperRecognizer(OnnxEngine(model_path("whisper-base-short")))


def text_of(recognizer: WhisperRecognizer, waveform: Waveform) -> str:
    return recognizer.transcribe([mel_of(waveform)])[0].text


def test_words_in_opposite_phase_are_recognised(recognizer: WhisperRecognizer) -> None:
    path = DATA / "cases" / "antiphase.flac"
    text = text_of(recognizer, audio.read(path))
    left, _ = soundfile.read(path, dtype="float32")[0].T
    assert text == text_of(recognizer, left)
    assert text.removeprefix("I ") == "had to read it over carefully."  # the first word is hardly audible


def test_noise_beside_the_words_takes_none_of_them(recognizer: WhisperRecognizer) -> None:
    clip = waveform_of(speakers(1)[0]["path"])
    beside = noise(len(clip) / SAMPLE_RATE, level=1.0)[: len(clip)]
    alone = text_of(recognizer, clip)
    assert len(alone.split()) > 3
    assert text_of(recognizer, to_mono(np.stack([beside, clip], axis=1))) == alone


def test_what_two_people_say_in_a_channel_each_is_recognised(recognizer: WhisperRecognizer) -> None:
    one, other = (waveform_of(row["path"]) for row in speakers(2))
    left = np.concatenate([one, np.zeros_like(other)])
    right = np.concatenate([np.zeros_like(one), other])
    text = text_of(recognizer, to_mono(np.stack([left, right], axis=1)))
    assert text == text_of(recognizer, left + right)
    assert len(text.split()) > 10
