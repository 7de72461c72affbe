"""Of several sound tracks, the one that speaks is heard."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest
from recordings import Waveform, hum, noise, silence, speakers, waveform_of

from amser import audio
from amser.features import SAMPLE_RATE

SECONDS = 4


@pytest.fixture(scope="module")
def speech() -> list[Waveform]:
    """Four seconds of two speakers."""
    found = [waveform_of(row["path"]) for row in speakers(20) if float(row["seconds"]) > SECONDS]
    return [each[: SECONDS * SAMPLE_RATE] for each in found[:2]]


def file_of(tracks: list[Waveform], container: str, codec: str) -> bytes:
    content = io.BytesIO()
    with av.open(content, "w", format=container) as output:
        rate = 48_000 if codec == "libopus" else SAMPLE_RATE
        streams = [output.add_stream(codec, rate=rate, layout="mono") for _ in tracks]
        packets = []
        for stream, track in zip(streams, tracks, strict=True):
            frame = av.AudioFrame.from_ndarray(track[None], "fltp", "mono")
            frame.sample_rate, frame.pts = SAMPLE_RATE, 0
            resampler = av.AudioResampler(stream.format, "mono", rate, frame_size=stream.frame_size or 0)
            for piece in [*resampler.resample(frame), *resampler.resample(None)]:
                packets += stream.encode(piece)
            packets += stream.encode(None)
        for packet in sorted(packets, key=lambda packet: float((packet.pts or 0) * packet.time_base)):
            output.mux(packet)
    return content.getvalue()


def heard(content: bytes, among: list[Waveform]) -> int:
    """Which of the waveforms a file sounds like."""
    decoded = audio.decode(io.BytesIO(content)).waveform
    length = 1 << (2 * decoded.size).bit_length()
    spectrum = np.fft.rfft(decoded, length)
    peaks = [
        np.fft.irfft(spectrum * np.conj(np.fft.rfft(each, length))).max() / (np.linalg.norm(each) + 1e-9)
        for each in among
    ]
    return int(np.argmax(peaks))


@pytest.mark.parametrize(("container", "codec"), [("mp4", "aac"), ("matroska", "libopus"), ("mp4", "flac")])
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("others", ["silence", "noise", "hum", "clicks"])
def test_the_track_that_speaks_is_heard(
    speech: list[Waveform], container: str, codec: str, place: int, others: str
) -> None:
    clicks = silence(SECONDS)
    clicks[:: SAMPLE_RATE // 2] = 0.9
    other = {"silence": silence, "noise": noise, "hum": hum, "clicks": lambda _: clicks}[others](SECONDS)
    tracks = [other] * 3
    tracks[place] = speech[0]
    assert heard(file_of(tracks, container, codec), [speech[0], other]) == 0


def test_of_two_that_speak_the_first_is_heard(speech: list[Waveform]) -> None:
    """As in a film in two languages."""
    for order in (speech, speech[::-1]):
        assert heard(file_of(order, "mp4", "aac"), order) == 0


def test_crosstalk_does_not_speak(speech: list[Waveform]) -> None:
    assert heard(file_of([speech[0] * 1e-4, speech[1]], "matroska", "flac"), speech) == 1


def test_a_track_of_an_unknown_codec_is_passed_over(speech: list[Waveform]) -> None:
    content = io.BytesIO()
    with av.open(content, "w", format="matroska") as output:
        streams = [output.add_stream(codec, rate=48_000, layout="mono") for codec in ("ac3", "aac")]
        for stream in streams:
            frame = av.AudioFrame.from_ndarray(speech[0][None], "fltp", "mono")
            frame.sample_rate, frame.pts = SAMPLE_RATE, 0
            resampler = av.AudioResampler(stream.format, "mono", 48_000, frame_size=stream.frame_size)
            for piece in [*resampler.resample(frame), *resampler.resample(None)]:
                output.mux(stream.encode(piece))
            output.mux(stream.encode(None))
    assert heard(content.getvalue(), [speech[0], noise(SECONDS)]) == 0
