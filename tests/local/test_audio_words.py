"""The words of a recording do not depend on the file that it is in, nor on a bad frame or two."""

from __future__ import annotations

import io
import random

import pytest
from recordings import DATA, Waveform, audio_file, mel_of, rows, speakers, waveform_of

from amser import audio
from amser.features import SAMPLE_RATE
from models.weights import model_path
from models.whisper.onnx.engine import OnnxEngine
from models.whisper.recognizer import WhisperRecognizer

FORMATS = {
    "wav": ("wav", "pcm_s16le", 44_100),
    "flac": ("flac", "flac", 16_000),
    "mp3": ("mp3", "libmp3lame", 44_100),
    "ogg": ("ogg", "libopus", 48_000),
    "m4a": ("ipod", "aac", 44_100),
    "alac": ("ipod", "alac", 44_100),
    "aac": ("adts", "aac", 16_000),
    "webm": ("webm", "libopus", 48_000),
    "mkv": ("matroska", "aac", 44_100),
    "aiff": ("aiff", "pcm_s16be", 44_100),
    "caf": ("caf", "pcm_s16le", 44_100),
    "au": ("au", "pcm_s16be", 16_000),
    "w64": ("w64", "pcm_s16le", 16_000),
}


@pytest.fixture(scope="module")
def recognizer() -> WhisperRecognizer:
    return WhisperRecognizer(OnnxEngine(model_path("whisper-base-short")))


@pytest.fixture(scope="module")
def clip() -> Waveform:
    return next(waveform_of(row["path"]) for row in speakers(20) if float(row["seconds"]) > 6)


def words_of(recognizer: WhisperRecognizer, waveform: Waveform) -> list[str]:
    text = recognizer.transcribe([mel_of(waveform)])[0].text
    return "".join(letter for letter in text.lower() if letter.isalnum() or letter == " ").split()


@pytest.mark.parametrize(
    "row", [row for row in rows("cases.tsv") if "carefully" in row["text"]], ids=lambda r: r["path"]
)
def test_the_words_of_every_small_file(recognizer: WhisperRecognizer, row: dict[str, str]) -> None:
    heard = audio.decode(io.BytesIO((DATA / row["path"]).read_bytes()))
    said = words_of(recognizer, heard.waveform)
    assert heard.warnings == ()
    assert " ".join(said).count("had to read it over carefully") == row["text"].count("carefully")


@pytest.mark.parametrize("name", FORMATS)
def test_a_bad_frame_costs_a_word_or_two(recognizer: WhisperRecognizer, clip: Waveform, name: str) -> None:
    content = audio_file(clip, *FORMATS[name])
    said = words_of(recognizer, clip)
    assert len(said) > 8
    assert words_of(recognizer, audio.decode(io.BytesIO(content)).waveform) == said
    damaged = bytearray(content)
    damaged[len(content) // 2 : len(content) // 2 + 200] = random.Random(3).randbytes(200)
    heard = audio.decode(io.BytesIO(bytes(damaged)))
    assert abs(heard.waveform.size - clip.size) < 0.3 * SAMPLE_RATE
    words = words_of(recognizer, heard.waveform)
    assert len(set(said) - set(words)) <= 2
