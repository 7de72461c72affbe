"""Every way to send speech: what comes back is the same speech, in time, and what is damaged is refused by name."""

from __future__ import annotations

import io
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from recordings import Waveform

from amser.audio import decode
from amser.client import frontend
from amser.codecs.base import Float32
from amser.errors import SignalError
from amser.features import HOP_LENGTH, SAMPLE_RATE, AudioError, log_mel
from amser.wire import MEDIA_TYPE, unpack
from edge_sim import transports
from edge_sim.transports import (
    TRANSPORTS,
    AudioTransport,
    Transport,
    UnknownSetting,
    UnknownTransport,
    UnreadableAudio,
)
from edge_sim.transports.features import Features

LOSSLESS = ("pcm", "flac")
LOSSY = ("mp3", "aac", "opus")
AUDIO = LOSSLESS + LOSSY
FEATURES = ("svd-f16", "svd-i8", "interpolation", "klt", "mel-f16")
EVERY = [pytest.param(each, id=f"{each.name}-{each.setting}") for each in transports.every()]
EVERY_AUDIO = [param for param in EVERY if isinstance(param.values[0], AudioTransport)]
ONE_OF_EACH = ["pcm 16-bit", "flac 5", "mp3 24k", "aac 24k", "opus 16k", "opus 16k-60ms"]
MAX_FRAMES = 3000
NARROW = 36  # bands, up to 1.4 kHz: the lowest bit rates of MP3 and AAC leave out what is above


def audio_transport(name: str, setting: str) -> AudioTransport:
    transport = transports.by_name(name, setting)
    assert isinstance(transport, AudioTransport)
    return transport


def lag(decoded: Float32, original: Float32) -> int:
    """Samples that the decoded waveform is late, at the peak of the cross-correlation."""
    length = 1 << (len(decoded) + len(original)).bit_length()
    product = np.fft.rfft(decoded, length) * np.conj(np.fft.rfft(original, length))
    peak = int(np.fft.irfft(product).argmax())
    return peak if peak < length // 2 else peak - length


def correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


@pytest.fixture(scope="module")
def clip(speech: list[Waveform]) -> Waveform:
    """One utterance of more than five seconds."""
    return next(waveform for waveform in speech if waveform.size > 5 * SAMPLE_RATE)


@pytest.mark.parametrize("transport", EVERY)
def test_the_recogniser_gets_a_log_mel_like_the_speech(transport: Transport, clip: Waveform) -> None:
    payload = transport.encode(clip)
    mel, original = transport.as_log_mel(payload), log_mel(clip)
    assert mel.dtype == np.float32
    assert mel.shape == original.shape
    assert correlation(mel[:NARROW], original[:NARROW]) > 0.8
    assert 0 < transport.elementary_bytes(payload) < len(payload)


@pytest.mark.parametrize("name", [*LOSSY, "svd-f16", "svd-i8", "interpolation", "klt"])
def test_more_bytes_bring_a_log_mel_nearer(name: str, speech: list[Waveform]) -> None:
    """In the mean over speakers: Opus at 6 and at 8 kbit/s ends at 4 kHz, and either may win on a single voice."""
    beginnings = [waveform[: 3 * SAMPLE_RATE] for waveform in speech]
    sizes, errors = [], []
    for setting in (each for each in TRANSPORTS[name].settings if "60ms" not in each):
        transport = transports.by_name(name, setting)
        payloads = [transport.encode(waveform) for waveform in beginnings]
        sizes.append(sum(map(len, payloads)))
        received = [transport.as_log_mel(payload) for payload in payloads]
        pairs = zip(received, beginnings, strict=True)
        errors.append(float(np.mean([np.square(mel - log_mel(waveform)).mean() for mel, waveform in pairs])))
    assert len(sizes) >= 5
    assert sizes == sorted(set(sizes))
    assert all(after < 1.02 * before for before, after in pairwise(errors)), errors
    assert errors[-1] < 0.25 * errors[0]


@pytest.mark.parametrize("bit_rate", ["16k", "24k", "32k"])
@pytest.mark.parametrize("name", LOSSY)
def test_a_bit_rate_is_kept_to_within_a_fifth(name: str, bit_rate: str, speech: list[Waveform]) -> None:
    transport = transports.by_name(name, bit_rate)
    for waveform in (each for each in speech if each.size > 5 * SAMPLE_RATE):
        bits = 8 * transport.elementary_bytes(transport.encode(waveform))
        nominal = int(bit_rate.removesuffix("k")) * 1000 * waveform.size / SAMPLE_RATE
        assert bits == pytest.approx(nominal, rel=0.2)


def test_longer_opus_frames_take_fewer_bytes(clip: Waveform) -> None:
    for bit_rate in ("6k", "16k", "32k"):
        short, long = (transports.by_name("opus", bit_rate + suffix) for suffix in ("", "-60ms"))
        assert len(long.encode(clip)) < len(short.encode(clip))


def test_containers_cost_what_their_formats_need(clip: Waveform) -> None:
    def overhead(name: str, setting: str) -> int:
        transport = transports.by_name(name, setting)
        payload = transport.encode(clip)
        return len(payload) - transport.elementary_bytes(payload)

    seconds = clip.size / SAMPLE_RATE
    assert overhead("pcm", "16-bit") == 44
    assert overhead("flac", "5") < 100
    assert overhead("mp3", "24k") < 200
    assert overhead("opus", "16k") < 150 + 1.2 * 50 * seconds
    assert overhead("opus", "16k-60ms") < 150 + 1.3 * 17 * seconds
    assert overhead("aac", "24k") < 800 + 4.2 * 16 * seconds
    assert overhead("svd-f16", "0.125") == 52 + len("device-1")


@pytest.mark.parametrize("transport", EVERY_AUDIO)
def test_decoded_audio_is_in_time_and_as_long_as_the_speech(transport: AudioTransport, clip: Waveform) -> None:
    decoded = transport.decode(transport.encode(clip))
    assert decoded.dtype == np.float32
    assert decoded.size == clip.size
    assert abs(lag(decoded, clip)) <= 0.002 * SAMPLE_RATE


@pytest.mark.parametrize("samples", [1600, 1601, 3000, 16_000, 50_007])
@pytest.mark.parametrize("chosen", ONE_OF_EACH)
def test_no_length_is_rounded_to_frames_of_the_codec(chosen: str, samples: int, clip: Waveform) -> None:
    transport = audio_transport(*chosen.split())
    assert transport.decode(transport.encode(clip[:samples])).size == samples


@pytest.mark.parametrize("name", LOSSLESS)
def test_a_lossless_transport_keeps_every_16_bit_sample(name: str, clip: Waveform) -> None:
    for setting in TRANSPORTS[name].settings:
        transport = audio_transport(name, setting)
        np.testing.assert_array_equal(transport.decode(transport.encode(clip)), np.rint(clip * 32_768) / 32_768)


@pytest.mark.parametrize("name", LOSSLESS)
def test_what_exceeds_full_scale_is_clipped_and_does_not_wrap(name: str) -> None:
    transport = audio_transport(name, TRANSPORTS[name].settings[0])
    waveform = np.linspace(-1.5, 1.5, 1600, dtype=np.float32)
    decoded = transport.decode(transport.encode(waveform))
    np.testing.assert_allclose(decoded, waveform.clip(-1, 1), atol=1 / 32_768)


@pytest.mark.parametrize("transport", EVERY_AUDIO)
def test_the_server_reads_what_the_device_sends(transport: AudioTransport, clip: Waveform) -> None:
    payload = transport.encode(clip)
    heard = decode(io.BytesIO(payload), MAX_FRAMES)
    received, format_name = heard.waveform, heard.format
    assert format_name == {"pcm": "wav", "aac": "m4a", "opus": "ogg"}.get(transport.name, transport.name)
    assert transport.route == "/v1/emotion/audio"
    assert transport.media_type in {"audio/wav", "audio/flac", "audio/mpeg", "audio/ogg", "audio/mp4"}
    assert 0 <= received.size - clip.size < 1024  # the server leaves in what fills the last frame of AAC
    np.testing.assert_allclose(received[: clip.size], transport.decode(payload), atol=1e-6)


@pytest.mark.parametrize("transport", EVERY_AUDIO)
def test_the_same_speech_gives_the_same_bytes(transport: AudioTransport, clip: Waveform) -> None:
    assert transport.encode(clip[:16_000]) == transport.encode(clip[:16_000].copy())


@pytest.mark.parametrize("name", FEATURES)
def test_features_are_sent_in_the_envelope_that_the_cluster_reads(name: str, clip: Waveform) -> None:
    transport = transports.by_name(name, TRANSPORTS[name].settings[-1])
    envelope = unpack(transport.encode(clip))
    assert (transport.route, transport.media_type) == ("/v1/emotion", MEDIA_TYPE)
    assert (envelope.codec, envelope.profile, envelope.frames) == (name, "whisper80", clip.size // HOP_LENGTH)
    assert not isinstance(transport, AudioTransport)


def test_mel_f16_is_the_log_mel_itself(clip: Waveform) -> None:
    transport = transports.by_name("mel-f16", "16-bit")
    received = transport.as_log_mel(transport.encode(clip))
    np.testing.assert_array_equal(received, frontend.log_mel(clip).astype(np.float16))
    np.testing.assert_allclose(received, log_mel(clip), atol=1e-3)


def test_every_transport_can_be_had_by_its_name_and_setting() -> None:
    assert set(TRANSPORTS) >= {*AUDIO, *FEATURES}
    for name, offer in TRANSPORTS.items():
        for setting in offer.settings:
            transport = transports.by_name(name, setting)
            assert (transport.name, transport.setting) == (name, setting)


def test_an_unknown_transport_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownTransport, match="no transport 'vorbis'; accepted: pcm, flac, mp3, aac, opus, svd-f16"):
        transports.by_name("vorbis", "16k")
    with pytest.raises(UnknownTransport, match="'opus'; accepted: svd-f16"):
        Features("opus", "16k")


@pytest.mark.parametrize(
    ("name", "setting", "message"),
    [
        ("mp3", "20k", "mp3 has no setting '20k'; accepted: 8k, 16k, 24k"),  # not one of MPEG-2's bit rates
        ("mp3", "", "mp3 has no setting ''"),
        ("aac", "8k", "aac has no setting '8k'; accepted: 12k, 16k"),
        ("opus", "16k-30ms", "opus has no setting '16k-30ms'; accepted: 6k, .*32k-60ms"),
        ("opus", "16000", "opus has no setting '16000'"),
        ("flac", "13", "flac has no setting '13'; accepted: 0, 2, 5, 8, 12"),
        ("pcm", "24-bit", "pcm has no setting '24-bit'; accepted: 16-bit"),
        ("svd-f16", "1.5", "svd-f16 has no setting '1.5'; accepted: 0.05, 0.0625, 0.125"),
    ],
)
def test_an_unknown_setting_is_refused_with_the_known_ones(name: str, setting: str, message: str) -> None:
    with pytest.raises(UnknownSetting, match=message):
        transports.by_name(name, setting)


@pytest.mark.parametrize(
    "waveform",
    [np.zeros(0, np.float32), np.zeros(1000, np.float32), np.full(16_000, np.nan, np.float32)],
    ids=["empty", "short", "nan"],
)
@pytest.mark.parametrize("name", TRANSPORTS)
def test_speech_that_cannot_be_used_is_refused(name: str, waveform: Waveform) -> None:
    with pytest.raises(AudioError):
        transports.by_name(name, TRANSPORTS[name].settings[0]).encode(waveform)


@pytest.mark.parametrize("chosen", ONE_OF_EACH)
def test_what_is_no_file_of_this_kind_is_refused(chosen: str, clip: Waveform) -> None:
    transport = audio_transport(*chosen.split())
    foreign = transports.by_name(*(("flac", "5") if transport.name != "flac" else ("pcm", "16-bit")))
    for payload in (b"", bytes(5000), b"This is a letter. " * 100, foreign.encode(clip)):
        with pytest.raises(UnreadableAudio):
            transport.as_log_mel(payload)


@pytest.mark.parametrize("chosen", ONE_OF_EACH)
def test_a_file_that_is_cut_off_is_refused_and_not_read_as_a_shorter_one(chosen: str, clip: Waveform) -> None:
    transport = audio_transport(*chosen.split())
    payload = transport.encode(clip)
    for kept in (30, 300, len(payload) // 2, len(payload) - 1500):
        with pytest.raises(UnreadableAudio):
            transport.decode(payload[:kept])


@pytest.mark.parametrize("name", FEATURES)
def test_a_damaged_envelope_is_refused(name: str, clip: Waveform) -> None:
    transport = transports.by_name(name, TRANSPORTS[name].settings[0])
    payload = transport.encode(clip)
    flipped = bytearray(payload)
    flipped[len(payload) // 2] ^= 1
    for damaged in (b"", payload[:50], payload[:-1], bytes(flipped)):
        with pytest.raises(SignalError):
            transport.as_log_mel(damaged)
        with pytest.raises(SignalError):
            transport.elementary_bytes(damaged)


@given(st.sampled_from(ONE_OF_EACH), st.integers(0, 2**20), st.integers(1, 255))
def test_a_flipped_byte_only_raises_what_is_documented(
    payloads: dict[str, bytes], chosen: str, position: int, flip: int
) -> None:
    payload = bytearray(payloads[chosen])
    payload[position % len(payload)] ^= flip
    transport = audio_transport(*chosen.split())
    try:
        assert transport.decode(bytes(payload)).size > 0
        transport.elementary_bytes(bytes(payload))
    except UnreadableAudio:
        return


@pytest.fixture(scope="module")
def payloads(clip: Waveform) -> dict[str, bytes]:
    return {chosen: audio_transport(*chosen.split()).encode(clip[: 2 * SAMPLE_RATE]) for chosen in ONE_OF_EACH}
