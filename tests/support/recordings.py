"""Real recordings as the pipeline takes them: waveforms, log-Mels, envelopes. They lie in tests/data."""

from __future__ import annotations

import csv
import functools
import io
import uuid
from datetime import UTC, datetime
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from amser import codecs, wire
from amser.features import SAMPLE_RATE, log_mel, silence_value
from models.messages import Mel

DATA = Path(__file__).resolve().parents[1] / "data"
Waveform = NDArray[np.float32]

CAPTURED_AT = datetime(2026, 1, 1, tzinfo=UTC)
BIT_RATE = 64_000  # of the lossy formats; some encoders' own choice is a quarter of it


def rows(manifest: str) -> list[dict[str, str]]:
    """The lines of a manifest of tests/data, such as `speech/librispeech.tsv`."""
    with (DATA / manifest).open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines, delimiter="\t"))


@functools.cache
def waveform_of(path: str) -> Waveform:
    """A recording of tests/data, mono at 16 kHz."""
    resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
    with av.open(str(DATA / path)) as container:
        frames = [*container.decode(audio=0), None]
        return np.concatenate([piece.to_ndarray()[0] for frame in frames for piece in resampler.resample(frame)])


def speakers(count: int) -> list[dict[str, str]]:
    """One LibriSpeech utterance, of three to eight seconds, of as many speakers."""
    by_speaker: dict[str, dict[str, str]] = {}
    for row in rows("speech/librispeech.tsv"):
        if 3 < float(row["seconds"]) < 8:
            by_speaker.setdefault(row["speaker"], row)
    assert len(by_speaker) >= count
    return list(by_speaker.values())[:count]


def mel_of(waveform: Waveform, language: str | None = "en") -> Mel:
    """What `MelReconstruction` makes of an envelope that loses nothing."""
    values = log_mel(waveform)
    seconds = len(waveform) / SAMPLE_RATE
    return Mel(values.astype(np.float16), silence_value(values), seconds, language, "none", None)


def envelope_of(
    waveform: Waveform,
    codec: str = "svd-f16",
    language: str | None = "en",
    rate: float | None = None,
    profile: str = "whisper80",
    step: int | str | None = None,
) -> wire.Envelope:
    """What a device makes of a waveform."""
    values = log_mel(waveform, profile)
    encoded = codecs.encode(values, codec, rate=rate, step=step)
    return wire.Envelope(
        codec=encoded.codec,
        profile=profile,
        frames=values.shape[1],
        seconds=len(waveform) / SAMPLE_RATE,
        language=language,
        device_id="test",
        utterance_id=uuid.uuid4(),
        captured_at=CAPTURED_AT,
        payload=encoded.payload,
    )


def silence(seconds: float) -> Waveform:
    return np.zeros(int(seconds * SAMPLE_RATE), np.float32)


def noise(seconds: float, level: float = 0.1) -> Waveform:
    """White noise."""
    samples = np.random.default_rng(0).standard_normal(int(seconds * SAMPLE_RATE))
    return (level * samples).astype(np.float32)


def hum(seconds: float) -> Waveform:
    """Mains hum: 50 Hz and its harmonics."""
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    tones = [np.sin(2 * np.pi * 50 * harmonic * time) / harmonic for harmonic in (1, 2, 3)]
    return (0.1 * np.sum(tones, axis=0)).astype(np.float32)


def audio_file(waveform: Waveform, container: str, codec: str, rate: int = SAMPLE_RATE) -> bytes:
    """A waveform as the bytes of an audio file, by PyAV's names of container and codec."""
    content = io.BytesIO()
    with av.open(content, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate, layout="mono", bit_rate=BIT_RATE)
        frame = av.AudioFrame.from_ndarray(_as_int16(waveform), format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        resampler = av.AudioResampler(format=stream.format, layout="mono", rate=rate, frame_size=stream.frame_size or 0)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            output.mux(stream.encode(piece))
        output.mux(stream.encode(None))
    return content.getvalue()


def _as_int16(waveform: Waveform) -> NDArray[np.int16]:
    return (np.clip(waveform, -1, 1) * 32767).astype(np.int16)[None]
