"""The envelope: byte for byte what docs/wire.md says; bad bytes get the documented error and no memory."""

from __future__ import annotations

import pickle
import struct
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import google_crc32c
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from amser import codecs
from amser.features import PROFILES, clamp_to_floor, log_mel
from amser.wire import (
    MEDIA_TYPE,
    Envelope,
    Limits,
    Malformed,
    TooLarge,
    Unsupported,
    Unusable,
    WireError,
    decode_mel,
    pack,
    unpack,
)

FRAMES = 10
UTTERANCE = UUID("00112233-4455-6677-8899-aabbccddeeff")
CAPTURED = datetime(2025, 11, 22, 1, 2, 3, 456789, tzinfo=UTC)

# svd-i8 of rank 1: scale 2⁻¹⁴, A = 1 … 80, B = 10 … 1.
PAYLOAD = b"\x01\x00" + struct.pack("<f", 2.0**-14) + bytes(range(1, 81)) + bytes(range(10, 0, -1))
TINY = Envelope(
    codec="svd-i8",
    profile="whisper80",
    frames=FRAMES,
    seconds=0.10625,
    language="en",
    device_id="tele-7",
    utterance_id=UTTERANCE,
    captured_at=CAPTURED,
    payload=PAYLOAD,
    unclamped=True,
)
HEADER_AND_DEVICE = bytes.fromhex(
    "414d5352"  # AMSR
    "01"  # version 1
    "03"  # svd-i8
    "01"  # whisper80
    "01"  # unclamped
    "0a000000"  # 10 frames
    "9a99d93d"  # seconds
    "656e00"  # en
    "06"  # the device id has 6 bytes
    "00112233445566778899aabbccddeeff"
    "15b1687a24440600"  # 1,763,773,323,456,789 µs
    "60000000"  # the payload has 96 bytes
    "74656c652d37"  # tele-7
)
CRC_32C = bytes.fromhex("1b979d34")
GOLDEN = HEADER_AND_DEVICE + PAYLOAD + CRC_32C
OFFSETS = {"version": 4, "codec": 5, "profile": 6, "flags": 7, "frames": 8, "seconds": 12, "language": 16}
OFFSETS |= {"device id length": 19, "captured at": 36, "payload length": 44, "device id": 48}


def sealed(body: bytes) -> bytes:
    """With the right checksum: what a hostile device can always send."""
    return body + struct.pack("<I", google_crc32c.value(body))


def with_field(field: str, raw: bytes) -> bytes:
    body = bytearray(GOLDEN[:-4])
    body[OFFSETS[field] : OFFSETS[field] + len(raw)] = raw
    return sealed(bytes(body))


def envelope_of(encoded: codecs.Encoded, frames: int, profile: str = "whisper80") -> Envelope:
    return replace(
        TINY, codec=encoded.codec, profile=profile, payload=encoded.payload, frames=frames, seconds=frames / 100
    )


def peak_bytes(call: Callable[[], object]) -> int:
    """Most memory that was allocated at once, whether the call returns or refuses."""
    tracemalloc.start()
    try:
        with suppress(WireError):
            call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_the_checksum_is_crc_32c() -> None:
    assert google_crc32c.value(b"123456789") == 0xE3069283
    assert pack(TINY)[-4:] == struct.pack("<I", google_crc32c.value(pack(TINY)[:-4]))


def test_the_bytes_of_an_envelope_never_change() -> None:
    assert pack(TINY).hex() == GOLDEN.hex()
    assert MEDIA_TYPE == "application/vnd.amser.v1"


def test_the_golden_bytes_are_read_as_what_was_written() -> None:
    envelope = unpack(GOLDEN)
    assert envelope.seconds == pytest.approx(TINY.seconds)
    assert replace(envelope, seconds=TINY.seconds) == TINY
    assert pack(envelope) == GOLDEN


@pytest.mark.parametrize("buffer", [bytearray, memoryview, lambda data: memoryview(bytearray(data))])
def test_any_buffer_can_be_read(buffer: Callable[[bytes], memoryview]) -> None:
    assert unpack(buffer(GOLDEN)) == unpack(GOLDEN)


@st.composite
def envelopes(draw: st.DrawFn) -> Envelope:
    profile = draw(st.sampled_from(list(PROFILES)))
    frames = draw(st.integers(10, 60))
    mel = np.random.default_rng(frames).uniform(-1, 1, (PROFILES[profile].bands, frames))
    codec = draw(st.sampled_from([name for name in codecs.CODECS if name != "klt" or PROFILES[profile].bands == 80]))
    takes = codecs.by_name(codec).takes
    encoded = codecs.encode(
        mel,
        codec,
        rank=draw(st.integers(1, 60)) if "rank" in takes else None,
        step=draw(st.integers(0, 48)) if "step" in takes else None,
        factors=(draw(st.integers(1, 9)), 2) if "factors" in takes else None,
    )
    printable = st.characters(codec="utf-8", exclude_categories=("C", "Z"))
    return Envelope(
        codec=encoded.codec,
        profile=profile,
        frames=frames,
        seconds=draw(st.floats(frames / 100, (frames + 1) / 100)),
        language=draw(st.sampled_from([None, "en", "de", "yue", "haw"])),
        device_id=draw(st.text(printable, min_size=1, max_size=16)),
        utterance_id=draw(st.uuids()),
        captured_at=draw(st.datetimes(timezones=st.just(UTC))),
        payload=encoded.payload,
        unclamped=draw(st.booleans()),
    )


@given(envelopes())
def test_every_envelope_comes_back_as_it_was(envelope: Envelope) -> None:
    again = unpack(pack(envelope))
    assert again.seconds == np.float32(envelope.seconds)
    assert replace(again, seconds=envelope.seconds) == envelope


def test_a_capture_time_in_any_zone_is_the_same_moment() -> None:
    in_india = CAPTURED.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert pack(replace(TINY, captured_at=in_india)) == GOLDEN


def test_a_real_utterance_crosses_the_wire(speech: list[NDArray[np.float32]]) -> None:
    mel = log_mel(speech[0])
    envelope = replace(envelope_of(codecs.encode(mel), mel.shape[1]), seconds=speech[0].size / 16_000, unclamped=False)
    data = pack(envelope)
    assert len(data) == 52 + len("tele-7") + 2 + 2 * 10 * (80 + mel.shape[1])
    received = decode_mel(unpack(data))
    assert received.shape == mel.shape
    assert np.sqrt(np.mean((received - mel) ** 2)) < 0.15  # log10(power) / 4


# The documented error of every kind of damage


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (b"", Malformed, "cut off after 0 bytes; accepted: 52 or more"),
        (b"AMS", Malformed, "cut off after 3 bytes"),
        (GOLDEN[:51], Malformed, "cut off after 51 bytes"),
        (GOLDEN[:-1], Malformed, "has 153 bytes; accepted: the 154 that its header announces"),
        (GOLDEN + b"\0", Malformed, "has 155 bytes; accepted: the 154"),
        (GOLDEN[:-1] + b"\xff", Malformed, "corrupt"),
        (b"RIFF" + GOLDEN[4:], Unsupported, "begins with b'RIFF'"),
        (b"hello", Unsupported, "begins with b'hell'"),
        (with_field("version", b"\2"), Unsupported, "version 2; accepted: 1"),
        (b"AMSR\2", Unsupported, "version 2; accepted: 1"),
        (with_field("codec", b"\x09"), Unsupported, "no codec number 9"),
        (with_field("profile", b"\0"), Unsupported, r"no profile number 0; accepted: 1 \(whisper80\)"),
        (with_field("flags", b"\3"), Malformed, "flags are 0b00000011"),
        (with_field("flags", b"\x80"), Malformed, "flags"),
        (with_field("frames", struct.pack("<I", 3001)), TooLarge, "3001 frames; accepted: up to 3000"),
        (with_field("frames", struct.pack("<I", 2**32 - 1)), TooLarge, "4294967295 frames"),
        (with_field("frames", struct.pack("<I", 9)), Unusable, r"9 frames; accepted: 10 \(0.1 s\) or more"),
        (with_field("frames", struct.pack("<If", 11, 0.11)), Malformed, "96 bytes; accepted: 97 bytes for svd-i8"),
        (with_field("seconds", struct.pack("<f", 0.12)), Malformed, "do not match 10 frames"),
        (with_field("seconds", struct.pack("<f", -0.1)), Malformed, "do not match"),
        (with_field("seconds", struct.pack("<f", np.nan)), Malformed, "nan s do not match"),
        (with_field("seconds", struct.pack("<f", np.inf)), Malformed, "inf s do not match"),
        (with_field("language", b"EN\0"), Malformed, "language is 'EN'"),
        (with_field("language", b"e\0n"), Malformed, "language"),
        (with_field("language", b"\0en"), Malformed, "language"),
        (with_field("language", b"e\0\0"), Malformed, "language is 'e'"),
        (with_field("language", b"\xff\xff\0"), Malformed, "language .*accepted: UTF-8"),
        (with_field("device id", b"\xff"), Malformed, "device id .*accepted: UTF-8"),
        (with_field("device id", b"\n"), Malformed, "device id"),
        (with_field("captured at", struct.pack("<q", 2**63 - 1)), Malformed, "capture time"),
        (with_field("captured at", struct.pack("<q", -(2**63))), Malformed, "capture time"),
        (with_field("device id length", b"\x07"), Malformed, "154 bytes; accepted: the 155"),
        (with_field("payload length", b"\xff\xff\xff\xff"), Malformed, "accepted: the 4294967353"),
    ],
)
def test_damage_gets_its_documented_error(data: bytes, error: type[WireError], message: str) -> None:
    with pytest.raises(error, match=message):
        unpack(data)


@pytest.mark.parametrize("length", [0, 65])
def test_a_device_id_of_another_length_is_refused(length: int) -> None:
    body = GOLDEN[:19] + bytes([length]) + GOLDEN[20:48] + b"x" * length + PAYLOAD
    with pytest.raises(Malformed, match="1 to 64 bytes of printable UTF-8"):
        unpack(sealed(body))


def test_a_device_id_of_64_bytes_is_the_longest() -> None:
    assert unpack(pack(replace(TINY, device_id="é" * 32))).device_id == "é" * 32
    with pytest.raises(Malformed, match="1 to 64 bytes"):
        replace(TINY, device_id="é" * 33)


@pytest.mark.parametrize(
    ("limits", "error", "message"),
    [
        (Limits(max_bytes=153), TooLarge, "154 bytes; accepted: up to 153 bytes"),
        (Limits(max_frames=9), TooLarge, "10 frames; accepted: up to 9"),
        (Limits(max_rank=0), Unusable, "rank 1 "),
    ],
)
def test_a_receiver_can_set_its_own_limits(limits: Limits, error: type[WireError], message: str) -> None:
    with pytest.raises(error, match=message):
        unpack(GOLDEN, limits)
    assert unpack(GOLDEN, Limits(154, 10, 1)) == unpack(GOLDEN)


def test_30_seconds_at_the_limits_pass() -> None:
    mel = np.zeros((128, 3000), np.float32)
    envelope = envelope_of(codecs.encode(mel, "mel-f16"), 3000, "whisper128")
    assert decode_mel(unpack(pack(envelope))).shape == (128, 3000)


def test_a_rank_above_the_limit_is_unusable() -> None:
    encoded = codecs.encode(np.random.default_rng(1).uniform(-1, 1, (128, 3000)), rank=81)
    data = pack(envelope_of(encoded, 3000, "whisper128"))
    with pytest.raises(Unusable, match="rank 81 .*1 to 80"):
        unpack(data)
    assert unpack(data, Limits(max_rank=128)).codec == "svd-f16"


@pytest.mark.parametrize("scale", [np.nan, np.inf, 3e38, 1.0])
def test_a_payload_that_is_not_finite_is_unusable(scale: float) -> None:
    payload = PAYLOAD[:2] + struct.pack("<f", scale) + PAYLOAD[6:]
    envelope = unpack(pack(replace(TINY, payload=payload)))
    with pytest.raises(Unusable, match="magnitude.*within ±16"):
        decode_mel(envelope)


def test_decoding_holds_the_limits_too() -> None:
    with pytest.raises(TooLarge, match="10 frames; accepted: up to 9"):
        decode_mel(TINY, Limits(max_frames=9))
    with pytest.raises(Unusable, match="rank 1 "):
        decode_mel(TINY, Limits(max_rank=0))
    with pytest.raises(Malformed, match="95 bytes"):
        decode_mel(replace(TINY, payload=PAYLOAD[:-1]))


def test_the_receiver_applies_the_floor_that_a_streaming_device_could_not() -> None:
    mel = np.linspace(-1.5, 1.5, 800, dtype=np.float32).reshape(80, 10)
    streamed = envelope_of(codecs.encode(mel, "mel-f16"), 10)
    finished = replace(streamed, unclamped=False)
    assert decode_mel(finished).min() == -1.5
    np.testing.assert_array_equal(decode_mel(streamed), clamp_to_floor(decode_mel(finished)))
    assert decode_mel(streamed).min() == -0.5


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("codec", "mp3", Unsupported),
        ("profile", "mfcc", Unsupported),
        ("frames", 9, Unusable),
        ("seconds", 0.2, Malformed),
        ("language", "english", Malformed),
        ("language", "", Malformed),
        ("device_id", "", Malformed),
        ("device_id", "line\nbreak", Malformed),
        ("device_id", "\ud800", Malformed),
        ("captured_at", CAPTURED.replace(tzinfo=None), Malformed),
        ("payload", PAYLOAD + b"\0", Malformed),
    ],
)
def test_what_a_receiver_would_refuse_cannot_be_packed(field: str, value: object, error: type[WireError]) -> None:
    with pytest.raises(error):
        pack(replace(TINY, **{field: value}))  # type: ignore[arg-type]


def test_errors_say_cause_and_limit_and_survive_a_process_border() -> None:
    with pytest.raises(TooLarge) as caught:
        unpack(GOLDEN, Limits(max_bytes=100))
    error = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(error, TooLarge)
    assert (error.cause, error.limit) == ("the envelope has 154 bytes", "up to 100 bytes")
    assert str(error) == "the envelope has 154 bytes; accepted: up to 100 bytes"


# Any bytes: an envelope or a WireError, and never more memory than the limits allow


def test_every_truncation_is_refused() -> None:
    for length in range(len(GOLDEN)):
        with pytest.raises(Malformed):
            unpack(GOLDEN[:length])


def test_every_flipped_bit_is_refused() -> None:
    for bit in range(8 * len(GOLDEN)):
        flipped = bytearray(GOLDEN)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises((Malformed, Unsupported)):
            unpack(bytes(flipped))


@given(st.binary(max_size=400) | st.binary(max_size=400).map(lambda tail: b"AMSR\1" + tail))
def test_random_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        unpack(data)


@given(envelopes(), st.data())
def test_damage_behind_a_right_checksum_gets_nothing_but_wire_errors(envelope: Envelope, data: st.DataObject) -> None:
    body = bytearray(pack(envelope)[:-4])
    for _ in range(data.draw(st.integers(1, 4))):
        # Most of all the header, where the claims are, and the rank and scales behind it.
        at = data.draw(st.integers(0, min(len(body), 120) - 1) | st.integers(0, len(body) - 1))
        body[at] = data.draw(st.sampled_from([0x00, 0x7F, 0x80, 0xFF]) | st.integers(0, 255))
    try:
        mel = decode_mel(unpack(sealed(bytes(body))))
    except WireError:
        return
    assert mel.dtype == np.float32
    assert np.abs(mel).max() <= codecs.LARGEST_VALUE


@pytest.mark.parametrize(
    "data",
    [
        with_field("frames", b"\xff\xff\xff\xff"),
        with_field("payload length", b"\xff\xff\xff\xff"),
        sealed(GOLDEN[:54] + b"\xff\xff" + GOLDEN[56:-4]),  # rank 65,535
        sealed(GOLDEN[:8] + struct.pack("<If", 3000, 30.0) + GOLDEN[16:-4]),
    ],
    ids=["four billion frames", "four gigabytes", "rank 65,535", "30 s"],
)
def test_a_claim_without_the_bytes_for_it_allocates_nothing(data: bytes) -> None:
    with pytest.raises(WireError):
        unpack(data)
    assert peak_bytes(lambda: unpack(data)) < 20_000


def test_a_body_over_the_limit_is_not_even_copied() -> None:
    body = bytearray(64_000_000)
    with pytest.raises(TooLarge, match="64000000 bytes; accepted: up to 1048576 bytes"):
        unpack(body)
    assert peak_bytes(lambda: unpack(body)) < 20_000


def test_the_largest_log_mel_that_few_bytes_can_ask_for_stays_within_the_limits() -> None:
    encoded = codecs.encode(np.ones((128, 3000), np.float32), "svd-i8", rank=1)
    data = pack(envelope_of(encoded, 3000, "whisper128"))
    assert len(data) < 3_300
    decoded = 4 * 128 * 3000
    # The matrix, its magnitudes for the check of its values, and once more with the floor applied.
    assert decoded < peak_bytes(lambda: decode_mel(unpack(data))) < 2.2 * decoded


@given(st.binary(max_size=300), st.integers(0, 2**32 - 1))
def test_no_bytes_make_unpack_allocate_more_than_a_few_times_their_length(tail: bytes, frames: int) -> None:
    body = bytearray(GOLDEN[:48] + tail)
    struct.pack_into("<If", body, 8, frames, frames / 100)
    struct.pack_into("<I", body, 44, max(len(tail) - 6, 0))
    assert peak_bytes(lambda: unpack(sealed(bytes(body)))) < 50_000
