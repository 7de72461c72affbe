"""Audio files: read as what they are, or refused for a reason that is written down."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from audio_bombs import film_without_sound
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import DATA, Waveform, audio_file, rows, speakers, waveform_of

from amser import audio
from amser.audio import DEMUXERS, AudioTooLong, DamagedAudio, UnknownFormat
from amser.features import HOP_LENGTH, SAMPLE_RATE, UnsupportedAudio
from edge_sim.transports import by_name

MAX_FRAMES = 3000
FORMATS = {  # what is uploaded: container and codec by PyAV's names, sampling rate
    "wav": ("wav", "pcm_s16le", 16_000),
    "wav-24-bit": ("wav", "pcm_s24le", 44_100),
    "flac": ("flac", "flac", 16_000),
    "mp3": ("mp3", "libmp3lame", 16_000),
    "ogg-opus": ("ogg", "libopus", 48_000),
    "m4a": ("ipod", "aac", 16_000),
    "aac": ("adts", "aac", 16_000),
    "webm": ("webm", "libopus", 48_000),
    "mkv": ("matroska", "aac", 16_000),
    "aiff": ("aiff", "pcm_s16be", 44_100),
    "aiff-floats": ("aiff", "pcm_f32be", 16_000),
    "caf": ("caf", "pcm_s24le", 44_100),
    "caf-alac": ("caf", "alac", 16_000),
    "m4a-alac": ("ipod", "alac", 44_100),
    "au": ("au", "pcm_mulaw", 16_000),
    "w64": ("w64", "pcm_s16le", 48_000),
}
NAMES = {
    "wav-24-bit": "wav", "ogg-opus": "ogg", "mkv": "webm", "aiff-floats": "aiff", "caf-alac": "caf", "m4a-alac": "m4a",
}  # fmt: skip


def decode(content: bytes, max_frames: int = MAX_FRAMES) -> tuple[Waveform, str]:
    heard = audio.decode(io.BytesIO(content), max_frames)
    return heard.waveform, heard.format


@pytest.fixture(scope="module")
def clip() -> Waveform:
    """Six seconds of one speaker."""
    return next(waveform_of(row["path"]) for row in speakers(20) if float(row["seconds"]) > 6)[: 6 * SAMPLE_RATE]


@pytest.fixture(scope="module")
def uploads(clip: Waveform) -> dict[str, bytes]:
    return {name: audio_file(clip, *made_with) for name, made_with in FORMATS.items()}


def correlation(decoded: Waveform, original: Waveform) -> float:
    """Of two waveforms at their best alignment: lossy codecs shift a little."""
    length = 1 << (len(decoded) + len(original)).bit_length()
    product = np.fft.rfft(decoded, length) * np.conj(np.fft.rfft(original, length))
    peak = np.fft.irfft(product).max()
    return float(peak / (np.linalg.norm(decoded) * np.linalg.norm(original)))


@pytest.mark.parametrize("upload", FORMATS)
def test_every_format_gives_back_the_speech_that_went_in(
    uploads: dict[str, bytes], clip: Waveform, upload: str
) -> None:
    decoded, name = decode(uploads[upload])
    assert name == NAMES.get(upload, upload)
    assert decoded.dtype == np.float32
    assert abs(len(decoded) - len(clip)) < 0.1 * SAMPLE_RATE  # AAC fills its last frame
    assert correlation(decoded, clip) > 0.95


def test_lossless_formats_give_back_every_sample(uploads: dict[str, bytes], clip: Waveform) -> None:
    for lossless in ("wav", "flac"):
        decoded, _ = decode(uploads[lossless])
        np.testing.assert_allclose(decoded, clip, atol=2 / 32768)


def test_an_ogg_vorbis_recording_is_read() -> None:
    path = rows("noise/esc10.tsv")[0]["path"]
    waveform, name = decode((DATA / path).read_bytes())
    assert name == "ogg"
    assert len(waveform) == pytest.approx(5 * SAMPLE_RATE, rel=0.01)  # ESC-50's clips have five seconds


MANY_CHANNELS = {  # container, codec, layout, by PyAV's names
    "wav stereo": ("wav", "pcm_s16le", "stereo"),
    "wav 5.1": ("wav", "pcm_s16le", "5.1"),
    "wav 7.1": ("wav", "pcm_s16le", "7.1"),
    "wav without a layout": ("wav", "pcm_s16le", "8 channels"),
    "wav of floats": ("wav", "pcm_f32le", "8 channels"),
    "wav of 32": ("wav", "pcm_s16le", "32 channels"),
    "flac 7.1": ("flac", "flac", "7.1"),
    "m4a 7.1": ("ipod", "aac", "7.1"),
    "aac 7.1": ("adts", "aac", "7.1"),
    "ogg opus 7.1": ("ogg", "libopus", "7.1"),
    "ogg flac 7.1": ("ogg", "flac", "7.1"),
    "webm opus 7.1": ("webm", "libopus", "7.1"),
}


def file_of_channels(channels: list[Waveform], container: str, codec: str, layout: str) -> bytes:
    """Waveforms side by side. Interleaved on the way: PyAV cannot hold eight planes."""
    content = io.BytesIO()
    with av.open(content, "w", format=container) as output:
        rate = 48_000 if codec == "libopus" else SAMPLE_RATE
        stream = output.add_stream(codec, rate=rate, layout=layout, bit_rate=64_000 * len(channels))
        interleaved = np.ascontiguousarray(np.stack(channels, axis=1).reshape(1, -1))
        frame = av.AudioFrame.from_ndarray(interleaved, "flt", layout)
        frame.sample_rate, frame.pts = SAMPLE_RATE, 0
        resampler = av.AudioResampler(stream.format, layout, rate, frame_size=stream.frame_size or 0)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            output.mux(stream.encode(piece))
        output.mux(stream.encode(None))
    return content.getvalue()


@pytest.mark.parametrize("made_with", MANY_CHANNELS.values(), ids=MANY_CHANNELS)
def test_speech_in_every_channel_is_mixed_down(clip: Waveform, made_with: tuple[str, str, str]) -> None:
    count = av.AudioLayout(made_with[2]).nb_channels
    decoded, _ = decode(file_of_channels([clip] * count, *made_with))
    assert abs(len(decoded) - len(clip)) < 0.1 * SAMPLE_RATE
    assert correlation(decoded, clip) > 0.95


@pytest.mark.parametrize("made_with", MANY_CHANNELS.values(), ids=MANY_CHANNELS)
def test_speech_in_one_channel_of_many_is_mixed_down(clip: Waveform, made_with: tuple[str, str, str]) -> None:
    count = av.AudioLayout(made_with[2]).nb_channels
    decoded, _ = decode(file_of_channels([clip, *[np.zeros_like(clip)] * (count - 1)], *made_with))
    assert correlation(decoded, clip) > 0.9


@pytest.mark.parametrize("count", [8, 9, 16])
def test_speech_in_many_channels_of_ogg_vorbis_is_mixed_down(clip: Waveform, count: int) -> None:
    content = io.BytesIO()
    soundfile.write(content, np.stack([clip] * count, axis=1), SAMPLE_RATE, format="OGG", subtype="VORBIS")
    decoded, _ = decode(content.getvalue())
    assert correlation(decoded, clip) > 0.95


# --- Headers that claim the impossible --------------------------------------------------------------------------------


def wav(rate: int = SAMPLE_RATE, channels: int = 1, chunks: bytes = b"", behind: bytes = b"") -> bytes:
    """A tenth of a second of zeros, 16 bits a sample."""
    samples = bytes(2 * SAMPLE_RATE // 10)
    wide = (2 * channels) & 0xFFFF
    fmt = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, channels, rate, rate * wide & 0xFFFF_FFFF, wide, 16)
    body = b"WAVE" + fmt + chunks + struct.pack("<4sI", b"data", len(samples)) + samples + behind
    return struct.pack("<4sI", b"RIFF", len(body)) + body


def flac(rate: int) -> bytes:
    """FFmpeg believes the rate in the frames, not the one in the file's header."""
    return audio_file(np.zeros(SAMPLE_RATE, np.float32), "flac", "flac", rate)


def ogg_vorbis(rate: int) -> bytes:
    """A file whose identification header claims a sample rate; its page has the checksum to match."""
    content = io.BytesIO()
    soundfile.write(content, np.zeros(SAMPLE_RATE, np.float32), SAMPLE_RATE, format="OGG", subtype="VORBIS")
    page = bytearray(content.getvalue())
    at = page.index(b"\x01vorbis") + 12
    page[at : at + 4] = rate.to_bytes(4, "little")
    length = 27 + page[26] + sum(page[27 : 27 + page[26]])
    page[22:26] = bytes(4)
    checksum = 0
    for byte in page[:length]:
        checksum ^= byte << 24
        for _ in range(8):
            checksum = (checksum << 1 ^ (0x04C1_1DB7 if checksum & 0x8000_0000 else 0)) & 0xFFFF_FFFF
    page[22:26] = checksum.to_bytes(4, "little")
    return bytes(page)


def m4a(rate: int) -> bytes:
    """PCM in an M4A's container: the rate of AAC is one of a table."""
    return audio_file(np.zeros(SAMPLE_RATE, np.float32), "mov", "pcm_s16le", rate)


def webm(rate: int) -> bytes:
    """A file whose track claims a sample rate, a float of eight bytes."""
    content = bytearray(audio_file(np.zeros(SAMPLE_RATE, np.float32), "matroska", "pcm_s16le"))
    at = content.index(b"\xb5\x88" + struct.pack(">d", SAMPLE_RATE)) + 2
    content[at : at + 8] = struct.pack(">d", rate)
    return bytes(content)


@pytest.mark.parametrize("container", [wav, flac, ogg_vorbis, m4a, webm])
def test_a_sample_rate_that_no_recording_has_is_refused(container: Callable[[int], bytes]) -> None:
    decoded, _ = decode(container(SAMPLE_RATE))
    assert decoded.size >= SAMPLE_RATE // 10
    for rate in (384_000, 500):
        with pytest.raises(UnsupportedAudio, match=f"the sample rate is {rate} Hz; accepted: 4000 to 192000 Hz"):
            decode(container(rate))


@pytest.mark.parametrize("channels", [0, 33, 64, 1_000, 65_535])
def test_more_channels_than_a_recorder_has_are_refused(channels: int) -> None:
    with pytest.raises(UnsupportedAudio, match=f"the audio has {channels} channels; accepted: 1 to 32"):
        decode(wav(channels=channels))


CLAIM = struct.pack("<4sI4s4sI", b"LIST", 0x7F00_0000, b"INFO", b"IART", 0x7EFF_FFF4) + b"abc\0"
EXPENSIVE = {
    "sample rate": wav(rate=200_000_000),
    "channels": wav(channels=65_535),
    "chunk before the samples": wav(chunks=CLAIM),
    "chunk of a big-endian file": b"RIFX" + bytes(4) + b"WAVELIST\x7f\0\0\0INFOIART\x7e\xff\xff\xf4abc\0",
    "chunk of a large file": b"RF64\xff\xff\xff\xffWAVE" + CLAIM,
    "ID3 tag": b"ID3\x04\0\0\x7f\x7f\x7f\x7fAPIC",
    "ogg sample rate": ogg_vorbis(200_000_000),
}
MEASURE = """
import io, resource, sys
from amser import audio
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    print(audio.decode(io.BytesIO(sys.stdin.buffer.read())).waveform.size)
except audio.UnreadableAudio as error:
    print(type(error).__name__)
except audio.decoding.AudioError as error:
    print(type(error).__name__)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def outcome_and_megabytes(content: bytes) -> tuple[str, float]:
    """What a process of its own makes of a file, and the memory that it takes for it."""
    child = subprocess.run([sys.executable, "-c", MEASURE], input=content, capture_output=True, check=True, timeout=60)
    outcome, kilobytes = child.stdout.decode().split()
    return outcome, int(kilobytes) / 1024


@pytest.mark.parametrize("content", EXPENSIVE.values(), ids=EXPENSIVE)
def test_what_a_header_claims_costs_no_memory(content: bytes) -> None:
    outcome, megabytes = outcome_and_megabytes(content)
    assert outcome in ("UnsupportedAudio", "DamagedAudio")
    assert megabytes < 20


def test_what_stands_behind_the_samples_of_a_wav_is_not_read() -> None:
    outcome, megabytes = outcome_and_megabytes(wav(behind=CLAIM))
    assert outcome == str(SAMPLE_RATE // 10)
    assert megabytes < 20


# --- Files as recorders and speech synthesisers write them ------------------------------------------------------------


@pytest.mark.parametrize("name", ["adts.aac", "mediarecorder.webm", "id3-tag.flac", "junk-after-last-frame.mp3"])
def test_the_same_sentence_is_read_from_every_container(name: str) -> None:
    decoded, _ = decode((DATA / "cases" / name).read_bytes())
    sentence = soundfile.read(DATA / "cases" / "antiphase.flac", dtype="float32")[0][:, 0]
    assert correlation(decoded, sentence) > 0.9


def test_eight_channels_of_one_sample_are_too_short_to_be_speech() -> None:
    decoded, name = decode((DATA / "cases" / "eight-channels-52-bytes.wav").read_bytes())
    assert (name, decoded.size) == ("wav", 1)


def test_a_chunk_that_claims_2_gb_is_damage() -> None:
    with pytest.raises(DamagedAudio, match=r"chunk b'LIST' claims 2130706432 bytes; accepted: the 28 that"):
        decode((DATA / "cases" / "list-chunk-claims-2GB.wav").read_bytes())


def test_channels_in_opposite_phase_do_not_cancel() -> None:
    both, rate = soundfile.read(DATA / "cases" / "antiphase.flac", dtype="float32")
    assert rate == SAMPLE_RATE
    assert np.abs(both.mean(axis=1)).max() < 1e-3
    decoded, _ = decode((DATA / "cases" / "antiphase.flac").read_bytes())
    assert correlation(decoded, both[:, 0]) > 0.999 or correlation(decoded, both[:, 1]) > 0.999


def test_a_file_that_changes_its_rate_is_read_to_its_end() -> None:
    decoded, _ = decode((DATA / "cases" / "rate-changes.mp3").read_bytes())
    first, second = decoded[: len(decoded) // 2], decoded[len(decoded) // 2 :]
    sentence = soundfile.read(DATA / "cases" / "antiphase.flac", dtype="float32")[0][:, 0]
    assert correlation(first, sentence) > 0.9
    assert correlation(second, sentence) > 0.9


@pytest.mark.parametrize("claimed", [0, 0x7FFF_F000, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF])
def test_a_wav_that_a_program_wrote_to_a_pipe_is_read(claimed: int) -> None:
    content = bytearray((DATA / "cases" / "espeak-stdout.wav").read_bytes())
    at = content.index(b"data") + 4
    seconds = (len(content) - at - 4) / 2 / 22_050
    content[at : at + 4] = claimed.to_bytes(4, "little")
    decoded, _ = decode(bytes(content))
    assert len(decoded) == pytest.approx(seconds * SAMPLE_RATE, abs=2)


@pytest.mark.parametrize("upload", FORMATS)
@pytest.mark.parametrize(
    "junk",
    [bytes(2000), b"TAG" + bytes(125), b"APETAGEX" + bytes(24) + bytes(range(256)) * 8, b"\xff" * 2000],
    ids=["zeros", "ID3v1", "APE", "ones"],
)
def test_what_stands_behind_the_last_frame_is_no_audio(
    uploads: dict[str, bytes], clip: Waveform, upload: str, junk: bytes
) -> None:
    decoded, _ = decode(uploads[upload] + junk)
    assert abs(len(decoded) - len(clip)) < 0.1 * SAMPLE_RATE
    assert correlation(decoded, clip) > 0.95


def test_what_was_skipped_is_logged(uploads: dict[str, bytes], caplog: pytest.LogCaptureFixture) -> None:
    decode(uploads["mp3"] + bytes(2000))
    assert "2000 bytes of the recording are no audio and were skipped" in caplog.text


@pytest.mark.parametrize(("upload", "head"), [("mp3", 4), ("aac", 7)])
def test_frames_of_which_none_can_be_decoded_are_damage(uploads: dict[str, bytes], upload: str, head: int) -> None:
    with pytest.raises(DamagedAudio):
        decode(uploads[upload][:head] + b"\xaa" * 2000)


@pytest.mark.parametrize("upload", ["flac", "mp3", "aac"])
def test_a_tag_in_front_does_not_hide_the_format(uploads: dict[str, bytes], upload: str) -> None:
    tag = b"ID3\x04\0\0\0\0\x01\x00" + bytes(128)
    plain, name = decode(uploads[upload])
    tagged, name_behind_tag = decode(tag + tag + uploads[upload])
    assert name_behind_tag == name
    np.testing.assert_allclose(tagged, plain)


def test_a_long_recording_is_mixed_in_parts(clip: Waveform) -> None:
    speech = np.concatenate([clip] * 12)
    decoded = audio.decode(io.BytesIO(file_of_channels([speech, speech], "wav", "pcm_f32le", "stereo"))).waveform
    np.testing.assert_allclose(decoded, speech, atol=1e-6)


# --- What is no audio -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"This is a letter, and somebody called it speech.wav.\n" * 40, id="text"),
        pytest.param(b"", id="nothing"),
        pytest.param(bytes(5000), id="zeros"),
        pytest.param(b"<html><body>404</body></html>", id="html"),
        pytest.param(b"RIFF\x24\x00\x00\x00AVI LIST" + bytes(40), id="avi"),
    ],
)
def test_what_is_no_audio_is_refused_as_unsupported(content: bytes) -> None:
    with pytest.raises(UnknownFormat) as refused:
        decode(content)
    assert refused.value.limit == "WAV, FLAC, MP3, OGG, M4A, AAC, WEBM, AMR, AIFF, CAF, W64, AU"


@pytest.mark.parametrize(("container", "codec"), [("avi", "pcm_s16le"), ("voc", "pcm_u8"), ("mpegts", "aac")])
def test_other_containers_stay_closed_though_ffmpeg_reads_them(clip: Waveform, container: str, codec: str) -> None:
    with pytest.raises(UnknownFormat):
        decode(audio_file(clip, container, codec))


def test_a_playlist_does_not_make_the_server_open_its_own_files(
    clip: Waveform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "private.wav").write_bytes(audio_file(clip, "wav", "pcm_s16le"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownFormat):
        decode(b"ffconcat version 1.0\nfile private.wav\n")


def test_a_film_without_sound_is_refused_as_unsupported() -> None:
    with pytest.raises(UnknownFormat, match="no audio in the M4A file"):
        decode(film_without_sound())


def test_an_m4a_without_its_tables_is_refused_as_broken(uploads: dict[str, bytes]) -> None:
    """They stand behind the samples, where nothing says otherwise."""
    content = uploads["m4a"]
    for kept in (60, len(content) // 2):
        with pytest.raises(DamagedAudio):
            decode(content[:kept])


@pytest.mark.parametrize("upload", ["flac", "mp3", "ogg-opus", "aac", "webm"])
def test_of_a_file_that_is_cut_off_its_head_is_needed(uploads: dict[str, bytes], upload: str) -> None:
    with pytest.raises(DamagedAudio):
        decode(uploads[upload][:60])


def test_a_wav_that_was_written_as_a_stream_has_no_length_to_hold_it_to(
    uploads: dict[str, bytes], clip: Waveform
) -> None:
    streamed = bytearray(uploads["wav"])
    data = streamed.index(b"data")
    streamed[4:8] = streamed[data + 4 : data + 8] = b"\xff\xff\xff\xff"
    decoded, _ = decode(bytes(streamed))
    assert decoded.shape == clip.shape


@pytest.mark.parametrize("upload", FORMATS)
def test_a_recording_over_the_limit_is_refused_and_the_limit_is_said(uploads: dict[str, bytes], upload: str) -> None:
    with pytest.raises(AudioTooLong) as refused:
        decode(uploads[upload], max_frames=500)
    assert refused.value.limit == "up to 5 s"


def test_a_recording_of_exactly_the_limit_is_read(clip: Waveform) -> None:
    decoded, _ = decode(audio_file(clip[: 5 * SAMPLE_RATE], "wav", "pcm_s16le"), max_frames=500)
    assert len(decoded) == 5 * SAMPLE_RATE


@pytest.mark.parametrize("bit_rate", ["24k", "32k"])
@pytest.mark.parametrize("seconds", [30.0, 29.9375, 1.0001])
def test_an_aac_recording_ends_where_its_container_says(bit_rate: str, seconds: float) -> None:
    """FFmpeg leaves up to 1,023 zeros that fill the last frame: 30 s would be too long."""
    speech = np.concatenate([waveform_of(row["path"]) for row in speakers(8)])[: round(seconds * SAMPLE_RATE)]
    decoded, name = decode(by_name("aac", bit_rate).encode(speech))
    assert (name, len(decoded)) == ("m4a", len(speech))
    assert correlation(decoded, speech) > 0.9


def test_an_aac_recording_of_more_than_the_limit_is_refused(clip: Waveform) -> None:
    content = by_name("aac", "32k").encode(clip[: 5 * SAMPLE_RATE + 2 * HOP_LENGTH])
    with pytest.raises(AudioTooLong):
        decode(content, max_frames=500)


def test_an_m4a_in_fragments_is_read_to_its_end(clip: Waveform) -> None:
    """Its first header states no length: each fragment adds its own."""
    content = io.BytesIO()
    options = {"movflags": "frag_keyframe+empty_moov", "frag_duration": "1000000"}
    with av.open(content, "w", format="ipod", options=options) as output:
        stream = output.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(clip[None], "fltp", "mono")
        frame.sample_rate, frame.pts = SAMPLE_RATE, 0
        output.mux([*stream.encode(frame), *stream.encode(None)])
    decoded, _ = decode(content.getvalue())
    assert 0 <= len(decoded) - len(clip) < 2048


def test_a_header_that_claims_hours_does_not_cost_hours() -> None:
    """96 kB of FLAC can hold hours of silence: decoding stops at the limit."""
    content = audio_file(np.zeros(600 * SAMPLE_RATE, np.float32), "flac", "flac")
    with pytest.raises(AudioTooLong):
        decode(content)


HEADS = [
    b"",
    b"RIFF\xff\xff\xff\xffWAVEfmt ",
    b"fLaC",
    b"OggS\x00\x02",
    b"ID3\x04",
    b"\xff\xfb\x90",
    b"\0\0\0\x20ftypM4A ",
    b"\xff\xf1\x60\x40",
    b"\x1a\x45\xdf\xa3",
    b"#!AMR\n",
    b"#!AMR-WB\n",
    b"FORM\0\0\xff\xffAIFFCOMM\0\0\0\x12\0\x01\0\0\0\0\0\x10\x40\x0c\xfa" + bytes(7) + b"SSND",
    b"caff\0\x01\0\0desc\0\0\0\0\0\0\0\x20",
    b".snd\0\0\0\x18\xff\xff\xff\xff\0\0\0\x03\0\0\x3e\x80\0\0\0\x01",
    b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\0\0",
]


@settings(max_examples=60)
@given(head=st.sampled_from(HEADS), body=st.binary(max_size=2000))
def test_random_bytes_only_raise_what_is_documented(head: bytes, body: bytes) -> None:
    try:
        waveform, name = decode(head + body)
    except (UnknownFormat, DamagedAudio, AudioTooLong, UnsupportedAudio):
        return
    assert waveform.dtype == np.float32
    assert name in DEMUXERS


@settings(max_examples=60)
@given(st.sampled_from(sorted(FORMATS)), st.integers(0, 2000), st.integers(1, 255))
def test_a_flipped_byte_only_raises_what_is_documented(
    uploads: dict[str, bytes], upload: str, position: int, flip: int
) -> None:
    content = bytearray(uploads[upload])
    content[position % len(content)] ^= flip
    try:
        waveform, _ = decode(bytes(content))
    except (UnknownFormat, DamagedAudio, AudioTooLong, UnsupportedAudio):
        return
    assert len(waveform) < 31 * SAMPLE_RATE
