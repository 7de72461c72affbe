"""A bad frame costs that frame, in every format; a recording says that it is damaged or cut."""

from __future__ import annotations

import io
import random
import time
from pathlib import Path

import av
import numpy as np
import pytest
from recordings import Waveform, audio_file, speakers, waveform_of

from amser import audio
from amser.audio import AudioTooLong, Recording
from amser.audio.matroska import damage_of
from amser.audio.mixing import MIXED_AT_ONCE, Mixer
from amser.features import SAMPLE_RATE

MADE_WITH = {  # container, codec, sampling rate; those in which FFmpeg can tell that a frame is damaged
    "flac": ("flac", "flac", 16_000),
    "mp3": ("mp3", "libmp3lame", 44_100),
    "ogg": ("ogg", "libopus", 48_000),
    "m4a": ("ipod", "aac", 44_100),
    "aac": ("adts", "aac", 44_100),
    "webm": ("webm", "libopus", 48_000),
    "mkv": ("matroska", "aac", 16_000),
    "amr": ("amr", "libopencore_amrnb", 8_000),
    "m4a-alac": ("ipod", "alac", 16_000),
}
WORST_S = {"ogg": 1.1, "m4a-alac": 0.6}  # a page, and frames of a quarter of a second
WORST_OTHERWISE_S = 0.4
CUT = [name for name in MADE_WITH if not name.startswith("m4a")]  # their tables stand at the end


@pytest.fixture(scope="module")
def clip() -> Waveform:
    return next(waveform_of(row["path"]) for row in speakers(20) if float(row["seconds"]) > 6)[: 6 * SAMPLE_RATE]


@pytest.fixture(scope="module")
def files(clip: Waveform) -> dict[str, bytes]:
    return {name: audio_file(clip, *made_with) for name, made_with in MADE_WITH.items()}


def decode(content: bytes) -> Recording:
    return audio.decode(io.BytesIO(content), 3000)


def differing_s(one: Waveform, other: Waveform) -> float:
    """Seconds, in tenths, in which what is loud in one waveform is not in the other, within a quarter of a second."""
    length, differing = SAMPLE_RATE // 10, 0
    parts = one[: len(one) // length * length].astype(np.float64).reshape(-1, length)
    energies = (parts**2).sum(axis=1)
    for place in np.flatnonzero(energies > 0.02 * energies.max()):
        begin = int(place) * length
        around = other[max(0, begin - 4000) : begin + length + 4000].astype(np.float64)
        if len(around) < length:
            return (differing + len(parts) - int(place)) / 10
        products = np.correlate(around, parts[place], "valid")
        levels = np.sqrt(np.convolve(around**2, np.ones(length), "valid") * energies[place])
        differing += (products / np.maximum(levels, 1e-9)).max() < 0.7
    return differing / 10


@pytest.mark.parametrize("damage", ["zeros", "random"])
@pytest.mark.parametrize("name", MADE_WITH)
def test_what_is_overwritten_costs_the_frames_in_it(files: dict[str, bytes], name: str, damage: str) -> None:
    content = bytearray(files[name])
    size, middle = min(300, len(content) // 40), len(content) // 2
    content[middle : middle + size] = bytes(size) if damage == "zeros" else random.Random(1).randbytes(size)
    whole, damaged = decode(files[name]), decode(bytes(content))
    assert whole.warnings == ()
    assert damaged.warnings == ("audio_damaged",)
    assert damaged.waveform.size == pytest.approx(whole.waveform.size, abs=0.1 * SAMPLE_RATE)  # words keep their times
    assert differing_s(whole.waveform, damaged.waveform) <= WORST_S.get(name, WORST_OTHERWISE_S)
    assert np.abs(damaged.waveform).max() < 1.5 * np.abs(whole.waveform).max()


@pytest.mark.parametrize("name", CUT)
def test_a_file_that_ends_early_is_read_as_far_as_it_goes(files: dict[str, bytes], name: str) -> None:
    whole = decode(files[name]).waveform
    heard = decode(files[name][: len(files[name]) // 2])
    assert heard.warnings == ("audio_cut",)
    assert 0.3 * len(whole) < len(heard.waveform) < 0.6 * len(whole)
    assert differing_s(heard.waveform, whole) <= 0.1


def test_an_m4a_with_its_tables_in_front_is_read_as_far_as_it_goes(clip: Waveform, tmp_path: Path) -> None:
    file = tmp_path / "speech.m4a"  # FFmpeg moves them in a file alone
    with av.open(str(file), "w", format="ipod", options={"movflags": "faststart"}) as output:
        stream = output.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(clip[None], "fltp", "mono")
        frame.sample_rate, frame.pts = SAMPLE_RATE, 0
        output.mux([*stream.encode(frame), *stream.encode(None)])
    whole = file.read_bytes()
    assert whole.index(b"moov") < whole.index(b"mdat")
    heard = decode(whole[: len(whole) // 2])
    assert heard.warnings == ("audio_cut",)
    assert 2 * SAMPLE_RATE < len(heard.waveform) < 4 * SAMPLE_RATE


@pytest.mark.parametrize("name", MADE_WITH)
@pytest.mark.parametrize("junk", [bytes(2000), b"TAG" + bytes(125), b"\xff" * 2000], ids=["zeros", "ID3v1", "ones"])
def test_what_stands_behind_the_end_is_no_damage(files: dict[str, bytes], name: str, junk: bytes) -> None:
    assert decode(files[name] + junk).warnings == ()


def test_a_damaged_head_of_a_webm_block_costs_few_blocks(files: dict[str, bytes]) -> None:
    """FFmpeg goes on at the next cluster, which a browser writes after many seconds."""
    content = bytearray(files["webm"])
    at = content.index(b"\xa3", len(content) // 2)
    while not damage_of(io.BytesIO(bytes(content[:at]) + b"\0\0\0" + bytes(content[at + 3 :]))).holes:
        at = content.index(b"\xa3", at + 1)
    content[at : at + 3] = bytes(3)
    ((begin, end),) = damage_of(io.BytesIO(bytes(content))).holes
    assert begin <= at < end < begin + 700
    whole, damaged = decode(files["webm"]), decode(bytes(content))
    assert damaged.warnings == ("audio_damaged",)
    assert differing_s(whole.waveform, damaged.waveform) <= 0.2


def test_blocks_that_look_like_others_are_searched_for_in_bounded_time() -> None:
    content = audio_file(np.zeros(1600, np.float32), "webm", "libopus", 48_000) + b"\xa3" * (4 << 20)
    began = time.process_time()
    damage_of(io.BytesIO(content))
    assert time.process_time() - began < 3


def test_rates_and_channels_change_midway(clip: Waveform) -> None:
    """As where files of several recorders were joined."""
    for container, codec in (("mp3", "libmp3lame"), ("adts", "aac"), ("ogg", "libopus")):
        parts = [_stereo(clip, container, codec, 48_000), audio_file(clip, container, codec, 24_000)]
        heard = decode(b"".join(parts)).waveform
        assert len(heard) == pytest.approx(2 * len(clip), abs=0.25 * SAMPLE_RATE), container
        for part in (heard[: len(heard) // 2], heard[len(heard) // 2 :]):
            assert differing_s(clip, np.pad(part, (0, SAMPLE_RATE))) <= 0.3, container


def _stereo(clip: Waveform, container: str, codec: str, rate: int) -> bytes:
    content = io.BytesIO()
    with av.open(content, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate, layout="stereo", bit_rate=96_000)
        frame = av.AudioFrame.from_ndarray(np.stack([clip, clip]), "fltp", "stereo")
        frame.sample_rate, frame.pts = SAMPLE_RATE, 0
        resampler = av.AudioResampler(stream.format, "stereo", rate, frame_size=stream.frame_size or 0)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            output.mux(stream.encode(piece))
        output.mux(stream.encode(None))
    return content.getvalue()


@pytest.mark.parametrize("name", ["mp3", "aac"])
def test_a_stream_recorded_from_its_middle_is_read(files: dict[str, bytes], name: str) -> None:
    """It begins within a frame, and ends within one; there is no header that says how long it is."""
    content, whole = files[name], decode(files[name])
    heard = decode(content[len(content) // 4 + 5 : -len(content) // 4])
    assert heard.format == name
    assert heard.warnings == ("audio_cut",)
    assert len(heard.waveform) == pytest.approx(len(whole.waveform) / 2, rel=0.1)


def test_no_more_is_read_than_the_limit_needs(clip: Waveform) -> None:
    class Counting(io.BytesIO):
        count = 0

        def read(self, size: int | None = -1, /) -> bytes:
            content = super().read(size)
            self.count += len(content)
            return content

    speech = np.tile(clip, 100)
    for name in ("flac", "ogg", "webm"):
        content = Counting(audio_file(speech, *MADE_WITH[name]))
        with pytest.raises(AudioTooLong):
            audio.decode(content, 100)
        assert content.count < 0.5 * len(content.getvalue()), name


def test_blocks_are_what_is_decoded(clip: Waveform) -> None:
    """Of an M4A too, which ends within its last frame."""
    speech = np.tile(clip, 12)
    for name in ("flac", "m4a", "ogg"):
        content = audio_file(speech, *MADE_WITH[name])
        parts = audio.blocks(io.BytesIO(content))
        blocks = list(parts)
        assert parts.format == name
        assert len(blocks) > 2
        assert max(block.size for block in blocks) < 32 * SAMPLE_RATE
        np.testing.assert_array_equal(np.concatenate(blocks), audio.decode(io.BytesIO(content)).waveform)
        assert sum(block.size for block in blocks) == pytest.approx(speech.size, abs=1100)


def test_silence_for_what_was_lost_has_its_length_wherever_a_block_ends() -> None:
    for samples in (SAMPLE_RATE, MIXED_AT_ONCE):
        mixer = Mixer()
        mixer.silence(1.0)  # before anything was heard
        frame = av.AudioFrame.from_ndarray(np.zeros((1, samples), np.float32), format="flt", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        mixer.push(frame)
        mixer.silence(1.0)
        mixer.silence(0.5)
        mixer.flush()
        assert sum(block.size for block in mixer.blocks()) == pytest.approx(samples + 1.5 * SAMPLE_RATE, abs=32)
