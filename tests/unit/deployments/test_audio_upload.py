"""Audio files from clients without the codec: read as what they are, or refused for a reason that is written down."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import DATA, Waveform, audio_file, rows, speakers, waveform_of

from amser.features import HOP_LENGTH, SAMPLE_RATE
from deployments.gateway.audio import AudioTooLong, BrokenAudio, UndecodableAudio, decode
from edge_sim.transports import by_name

MAX_FRAMES = 3000
FORMATS = {  # what is uploaded: container and codec by PyAV's names, sampling rate
    "wav": ("wav", "pcm_s16le", 16_000),
    "wav-24-bit": ("wav", "pcm_s24le", 44_100),
    "flac": ("flac", "flac", 16_000),
    "mp3": ("mp3", "libmp3lame", 16_000),
    "ogg-opus": ("ogg", "libopus", 48_000),
    "m4a": ("ipod", "aac", 16_000),
}
NAMES = {"wav-24-bit": "wav", "ogg-opus": "ogg"}


@pytest.fixture(scope="module")
def clip() -> Waveform:
    """Six seconds of one reader."""
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
    decoded, name = decode(uploads[upload], MAX_FRAMES)
    assert name == NAMES.get(upload, upload)
    assert decoded.dtype == np.float32
    assert abs(len(decoded) - len(clip)) < 0.1 * SAMPLE_RATE  # AAC fills its last frame
    assert correlation(decoded, clip) > 0.95


def test_lossless_formats_give_back_every_sample(uploads: dict[str, bytes], clip: Waveform) -> None:
    for lossless in ("wav", "flac"):
        decoded, _ = decode(uploads[lossless], MAX_FRAMES)
        np.testing.assert_allclose(decoded, clip, atol=2 / 32768)


def test_an_ogg_vorbis_recording_is_read() -> None:
    path = rows("noise/esc10.tsv")[0]["path"]
    waveform, name = decode((DATA / path).read_bytes(), MAX_FRAMES)
    assert name == "ogg"
    assert len(waveform) == pytest.approx(5 * SAMPLE_RATE, rel=0.01)  # ESC-50's clips have five seconds


def test_two_channels_are_mixed(clip: Waveform) -> None:
    content = io.BytesIO()
    stereo = np.stack([clip, np.zeros_like(clip)])
    with av.open(content, "w", format="wav") as output:
        stream = output.add_stream("pcm_s16le", rate=SAMPLE_RATE, layout="stereo")
        samples = (stereo * 32767).astype(np.int16).T.reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="s16", layout="stereo")
        frame.sample_rate = SAMPLE_RATE
        output.mux([*stream.encode(frame), *stream.encode(None)])
    decoded, _ = decode(content.getvalue(), MAX_FRAMES)
    assert decoded.shape == clip.shape
    assert correlation(decoded, clip) > 0.999


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
    with pytest.raises(UndecodableAudio) as refused:
        decode(content, MAX_FRAMES)
    assert refused.value.limit == "WAV, FLAC, MP3, OGG, M4A"


@pytest.mark.parametrize(("container", "codec"), [("aiff", "pcm_s16be"), ("adts", "aac"), ("au", "pcm_s16be")])
def test_other_containers_stay_closed_though_ffmpeg_reads_them(clip: Waveform, container: str, codec: str) -> None:
    with pytest.raises(UndecodableAudio):
        decode(audio_file(clip, container, codec), MAX_FRAMES)


def test_a_playlist_does_not_make_the_server_open_its_own_files(
    clip: Waveform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "private.wav").write_bytes(audio_file(clip, "wav", "pcm_s16le"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UndecodableAudio):
        decode(b"ffconcat version 1.0\nfile private.wav\n", MAX_FRAMES)


def test_a_film_without_sound_is_refused_as_unsupported() -> None:
    content = io.BytesIO()
    with av.open(content, "w", format="mp4") as output:
        stream = output.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for _ in range(5):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
        output.mux(stream.encode(None))
    with pytest.raises(UndecodableAudio, match="no audio in the M4A file"):
        decode(content.getvalue(), MAX_FRAMES)


@pytest.mark.parametrize("upload", ["wav", "flac", "m4a"])
def test_a_file_that_is_cut_off_is_refused_as_broken(uploads: dict[str, bytes], upload: str) -> None:
    content = uploads[upload]
    for kept in (60, len(content) // 2):
        with pytest.raises(BrokenAudio):
            decode(content[:kept], MAX_FRAMES)


@pytest.mark.parametrize("upload", ["mp3", "ogg-opus"])
def test_a_stream_that_ends_early_is_read_as_far_as_it_goes(uploads: dict[str, bytes], upload: str) -> None:
    """MP3 and OGG are made to be cut anywhere; only their heads are needed."""
    content = uploads[upload]
    decoded, _ = decode(content[: len(content) // 2], MAX_FRAMES)
    assert SAMPLE_RATE < len(decoded) < 5 * SAMPLE_RATE
    with pytest.raises(BrokenAudio):
        decode(content[:60], MAX_FRAMES)


def test_a_wav_that_was_written_as_a_stream_has_no_length_to_hold_it_to(
    uploads: dict[str, bytes], clip: Waveform
) -> None:
    streamed = bytearray(uploads["wav"])
    data = streamed.index(b"data")
    streamed[4:8] = streamed[data + 4 : data + 8] = b"\xff\xff\xff\xff"
    decoded, _ = decode(bytes(streamed), MAX_FRAMES)
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
    decoded, name = decode(by_name("aac", bit_rate).encode(speech), MAX_FRAMES)
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
    decoded, _ = decode(content.getvalue(), MAX_FRAMES)
    assert 0 <= len(decoded) - len(clip) < 2048


def test_a_header_that_claims_hours_does_not_cost_hours() -> None:
    """96 kB of FLAC can hold hours of silence: decoding stops at the limit."""
    content = audio_file(np.zeros(600 * SAMPLE_RATE, np.float32), "flac", "flac")
    with pytest.raises(AudioTooLong):
        decode(content, MAX_FRAMES)


HEADS = [
    b"",
    b"RIFF\xff\xff\xff\xffWAVEfmt ",
    b"fLaC",
    b"OggS\x00\x02",
    b"ID3\x04",
    b"\xff\xfb\x90",
    b"\0\0\0\x20ftypM4A ",
]


@settings(max_examples=60)
@given(head=st.sampled_from(HEADS), body=st.binary(max_size=2000))
def test_random_bytes_only_raise_what_is_documented(head: bytes, body: bytes) -> None:
    try:
        waveform, name = decode(head + body, MAX_FRAMES)
    except (UndecodableAudio, BrokenAudio, AudioTooLong):
        return
    assert waveform.dtype == np.float32
    assert name in ("wav", "flac", "ogg", "mp3", "m4a")


@settings(max_examples=60)
@given(st.sampled_from(sorted(FORMATS)), st.integers(0, 2000), st.integers(1, 255))
def test_a_flipped_byte_only_raises_what_is_documented(
    uploads: dict[str, bytes], upload: str, position: int, flip: int
) -> None:
    content = bytearray(uploads[upload])
    content[position % len(content)] ^= flip
    try:
        waveform, _ = decode(bytes(content), MAX_FRAMES)
    except (UndecodableAudio, BrokenAudio, AudioTooLong):
        return
    assert len(waveform) < 31 * SAMPLE_RATE
