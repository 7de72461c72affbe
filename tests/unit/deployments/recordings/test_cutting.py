"""Cutting: in its process, in order, the same as in one piece, and without the length in memory."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from recordings import speakers, waveform_of

from amser import audio
from amser.client import segmentation
from amser.client.segmentation import SpeechDetector, default_model
from amser.features import SAMPLE_RATE, Float32
from deployments.gateway.recordings.cutting import Cutting, Piece, cutting
from deployments.gateway.recordings.cutting_worker import PAUSES
from deployments.recording_settings import RecordingSettings

SETTINGS = RecordingSettings(max_seconds=120)


@pytest.fixture(scope="module")
def waveform() -> Float32:
    pause = np.zeros(SAMPLE_RATE, np.float32)
    parts = [part for row in speakers(5) for part in (waveform_of(row["path"]), pause)]
    return np.concatenate(parts)


async def all_of(under_way: Cutting) -> list[Piece]:
    await under_way.decode()
    return [piece async for piece in under_way.pieces()]


def file_of(waveform: Float32, folder: Path) -> Path:
    path = folder / "recording.flac"
    soundfile.write(path, waveform, SAMPLE_RATE)
    return path


def test_utterances_are_found_in_blocks_as_in_one_piece(waveform: Float32, monkeypatch: pytest.MonkeyPatch) -> None:
    detector = SpeechDetector(default_model())
    monkeypatch.setattr(segmentation, "WINDOWS_AT_ONCE", 10_000)
    in_one = detector.utterances(waveform, PAUSES)
    monkeypatch.setattr(segmentation, "WINDOWS_AT_ONCE", 50)
    np.testing.assert_allclose(detector.utterances(waveform, PAUSES), in_one)
    assert len(in_one) >= 5


def test_speech_without_a_pause_does_not_wait_for_its_end(waveform: Float32, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segmentation, "WINDOWS_AT_ONCE", 50)
    monkeypatch.setattr(segmentation, "LONGEST_PENDING", 100)
    spoken = SpeechDetector(default_model()).utterances(waveform, PAUSES)
    assert all(end - start <= PAUSES.longest_s for start, end in spoken)
    assert all(earlier[1] <= later[0] for earlier, later in zip(spoken, spoken[1:], strict=False))


async def test_no_thread_touches_the_event_loop(waveform: Float32, tmp_path: Path) -> None:
    """uvloop, which Serve runs, crashed of a transport that was closed in a thread; asyncio says so where it debugs."""
    asyncio.get_running_loop().set_debug(True)
    with file_of(waveform, tmp_path).open("rb") as file:
        async with cutting(file, SETTINGS) as under_way:
            await under_way.decode()


async def test_a_recording_becomes_envelopes_in_order(waveform: Float32, tmp_path: Path) -> None:
    with file_of(waveform, tmp_path).open("rb") as file:
        async with cutting(file, SETTINGS) as under_way:
            pieces = await all_of(under_way)
            assert under_way.seconds == pytest.approx(waveform.size / SAMPLE_RATE)
            assert under_way.format == "flac"
    expected = SpeechDetector(default_model()).utterances(waveform, PAUSES)
    np.testing.assert_allclose([(piece.start, piece.end) for piece in pieces], expected, atol=0.05)
    for piece in pieces:
        assert piece.envelope.seconds == pytest.approx(piece.end - piece.start, abs=0.02)
        assert piece.envelope.frames <= 3000


async def test_what_is_too_long_or_no_audio_is_refused(waveform: Float32, tmp_path: Path) -> None:
    with file_of(waveform, tmp_path).open("rb") as file:
        async with cutting(file, RecordingSettings(max_seconds=5)) as under_way:
            with pytest.raises(audio.AudioTooLong):
                await under_way.decode()
    nothing = tmp_path / "nothing"
    nothing.write_bytes(b"no audio at all")
    with nothing.open("rb") as file:
        async with cutting(file, SETTINGS) as under_way:
            with pytest.raises(audio.UnknownFormat):
                await under_way.decode()


async def test_a_process_that_runs_out_of_time_is_one_refused_recording(waveform: Float32, tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    with soundfile.SoundFile(path, "w", SAMPLE_RATE, 1, subtype="PCM_16") as file:
        for _ in range(60):
            file.write(waveform)
    settings = RecordingSettings(max_seconds=7200, cpu_s=1)
    with path.open("rb") as recording:
        async with cutting(recording, settings) as under_way:
            with pytest.raises(audio.AudioTooCostly):
                await all_of(under_way)


def test_blocks_are_the_waveform(waveform: Float32, tmp_path: Path) -> None:
    content = file_of(waveform, tmp_path).read_bytes()
    blocks = audio.blocks(io.BytesIO(content))
    assert blocks.format == "flac"
    np.testing.assert_array_equal(np.concatenate(list(blocks)), audio.decode(io.BytesIO(content)).waveform)
