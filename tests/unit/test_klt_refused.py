"""`klt` and what it was not made for: refused by name, with no memory and no time for mere claims."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import constriction
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from recordings import envelope_of, noise

from amser import codecs, wire
from amser.codecs import CodecError, MalformedPayload, check_payload, decode, encode, klt
from amser.codecs.klt import COARSEST, HEADER, MOST_FRAMES, PROFILES, STREAM, StreamEncoder
from amser.codecs.klt_tables import BANDS, BASIS_VERSION, plan

Matrix = NDArray[np.float32]

FRAMES = 100
LEVEL = 100


def random_log_mel(frames: int = FRAMES, bands: int = BANDS) -> Matrix:
    return np.random.default_rng(0).uniform(-1.5, 1.8, (bands, frames)).astype(np.float32)


def with_header(version: int = BASIS_VERSION, step: int = 20, body: bytes = b"") -> bytes:
    return bytes((version, step, LEVEL)) + body


# --- What cannot be encoded -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bands", [1, 79, 81, 128])
def test_other_bands_than_the_basis_has_are_refused(bands: int) -> None:
    with pytest.raises(CodecError, match=f"klt was given {bands} bands; accepted: the 80 of the profile whisper80"):
        encode(random_log_mel(bands=bands), "klt")
    with pytest.raises(MalformedPayload, match=f"klt of {bands} bands .*accepted: 80 bands"):
        decode("klt", encode(random_log_mel(), "klt").payload, bands=bands, frames=FRAMES)


def test_30_seconds_are_the_most() -> None:
    payload = encode(random_log_mel(MOST_FRAMES), "klt", step=40).payload
    assert decode("klt", payload, bands=BANDS, frames=MOST_FRAMES).shape == (BANDS, MOST_FRAMES)
    with pytest.raises(CodecError, match="klt was given 3001 frames; accepted: 3000 at most"):
        encode(random_log_mel(MOST_FRAMES + 1), "klt")
    with pytest.raises(MalformedPayload, match="3001 frames"):
        decode("klt", payload, bands=BANDS, frames=MOST_FRAMES + 1)


@pytest.mark.parametrize("step", ["loud", "", "2.5", -1, COARSEST + 1, "-1", "49", 10**30])
def test_an_unknown_step_is_refused_with_the_known_ones(step: int | str) -> None:
    with pytest.raises(CodecError, match="klt has no step .*accepted: low, standard, robust, or an index from 0 to 48"):
        encode(random_log_mel(), "klt", step=step)


def test_a_step_has_a_name_or_an_index() -> None:
    for name, index in PROFILES.items():
        payload = encode(random_log_mel(), "klt", step=name).payload
        assert payload[1] == index
        assert encode(random_log_mel(), "klt", step=index).payload == payload
        assert codecs.parse(f"klt:{name}") == codecs.parse(f"klt:{index}")


@pytest.mark.parametrize("value", [-16.0, -1.5, 0.0, 6.5, 16.0])
def test_a_level_far_from_speech_is_finite_all_the_same(value: float) -> None:
    payload = encode(np.full((BANDS, 10), value, np.float32), "klt", step="low").payload
    mel = decode("klt", payload, bands=BANDS, frames=10)
    assert np.abs(mel).max() <= codecs.LARGEST_VALUE
    if -2 < value < 6.5:
        np.testing.assert_allclose(mel, value, atol=0.3)


# --- What cannot be decoded -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", [b"", b"\1", bytes((BASIS_VERSION, 20))])
def test_a_header_that_is_cut_off_is_refused(payload: bytes) -> None:
    with pytest.raises(MalformedPayload, match=f"has {len(payload)} bytes; accepted: 3 or more"):
        check_payload("klt", payload, bands=BANDS, frames=FRAMES)


@pytest.mark.parametrize("version", [0, BASIS_VERSION + 1, 127])
@pytest.mark.parametrize("stream", [0, STREAM])
def test_another_basis_is_refused(version: int, stream: int) -> None:
    with pytest.raises(MalformedPayload, match=f"basis version {version}; accepted: {BASIS_VERSION}"):
        check_payload("klt", with_header(version | stream), bands=BANDS, frames=FRAMES)


@pytest.mark.parametrize("step", [COARSEST + 1, 255])
def test_a_step_that_no_encoder_knows_is_refused(step: int) -> None:
    with pytest.raises(MalformedPayload, match=f"step index {step}; accepted: 0 to 48"):
        check_payload("klt", with_header(step=step), bands=BANDS, frames=FRAMES)


def test_without_a_body_zeros_are_read() -> None:
    for step in range(COARSEST + 1):
        empty, zeros = (decode("klt", with_header(step=step, body=b), bands=BANDS, frames=40) for b in (b"", bytes(9)))
        np.testing.assert_array_equal(empty, zeros)


def test_bytes_that_no_symbols_lead_to_are_refused() -> None:
    with pytest.raises(MalformedPayload, match="the range coder's bytes mean nothing"):
        decode("klt", with_header(body=b"\xff" * 200), bands=BANDS, frames=FRAMES)


def test_a_border_names_the_error_as_it_does_for_every_codec() -> None:
    envelope = envelope_of(noise(1.0), "klt")
    with pytest.raises(wire.Malformed, match="basis version"):
        wire.pack(replace(envelope, payload=b"\x7f" + envelope.payload[1:]))
    with pytest.raises(wire.Malformed, match="klt of 128 bands"):
        wire.pack(replace(envelope, profile="whisper128"))
    damaged = wire.unpack(wire.pack(replace(envelope, payload=envelope.payload[:HEADER] + b"\xff" * 200)))
    with pytest.raises(wire.Malformed, match="the range coder's bytes mean nothing"):
        wire.decode_mel(damaged)


@given(
    body=st.binary(max_size=300),
    step=st.integers(0, COARSEST),
    level=st.integers(0, 255),
    frames=st.integers(1, 70),
    stream=st.sampled_from([0, STREAM]),
)
def test_any_body_decodes_to_a_log_mel_or_to_a_codec_error(
    body: bytes, step: int, level: int, frames: int, stream: int
) -> None:
    assert_log_mel_or_codec_error(bytes((BASIS_VERSION | stream, step, level)) + body, frames)


@given(st.binary(max_size=60), st.integers(1, 70))
def test_any_bytes_decode_to_a_log_mel_or_to_a_codec_error(payload: bytes, frames: int) -> None:
    assert_log_mel_or_codec_error(payload, frames)


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), min_size=1, max_size=4), st.booleans())
def test_damage_to_a_payload_gives_a_log_mel_or_a_codec_error(damage: list[tuple[int, int]], streamed: bool) -> None:
    encoder = StreamEncoder()
    mel = random_log_mel(40)
    payload = bytearray(encoder.push(mel) + encoder.finish() if streamed else encode(mel, "klt").payload)
    for at, flip in damage:
        payload[at % len(payload)] ^= flip
    assert_log_mel_or_codec_error(bytes(payload), 40)


def assert_log_mel_or_codec_error(payload: bytes, frames: int) -> None:
    try:
        mel = decode("klt", payload, bands=BANDS, frames=frames)
    except CodecError:
        return
    assert mel.dtype == np.float32
    assert mel.shape == (BANDS, frames)
    assert np.abs(mel).max() <= codecs.LARGEST_VALUE


# --- Claims -----------------------------------------------------------------------------------------------------------


def peak_bytes(call: Callable[[], object]) -> int:
    """Most memory that was allocated at once."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("version", [BASIS_VERSION, BASIS_VERSION | STREAM])
@pytest.mark.parametrize("frames", [MOST_FRAMES + 1, 2**32 - 1])
def test_a_claim_of_too_many_frames_allocates_nothing(version: int, frames: int) -> None:
    def ask() -> None:
        with pytest.raises(MalformedPayload, match="3000 frames at most"):
            decode("klt", with_header(version, body=bytes(100)), bands=BANDS, frames=frames)

    assert peak_bytes(ask) < 20_000


def test_a_stream_without_the_blocks_for_its_frames_allocates_nothing() -> None:
    def ask() -> None:
        with pytest.raises(MalformedPayload, match="has 3 blocks; accepted: 375"):
            decode("klt", with_header(BASIS_VERSION | STREAM, body=bytes(3)), bands=BANDS, frames=MOST_FRAMES)

    assert peak_bytes(ask) < 20_000


def test_the_most_frames_that_few_bytes_can_ask_for_take_a_few_log_mels_of_memory() -> None:
    for step in (0, COARSEST):
        plan(klt.WHOLE, step)
        payload = with_header(step=step)
        decoded = 4 * BANDS * MOST_FRAMES
        peak = peak_bytes(lambda payload=payload: decode("klt", payload, bands=BANDS, frames=MOST_FRAMES))  # type: ignore[misc]
        assert peak < 6 * decoded


class CountingDecoder:
    """A range decoder that counts what is asked of it."""

    calls = 0
    symbols = 0

    def __init__(self, words: NDArray[np.uint32]) -> None:
        self._decoder = ORIGINAL_DECODER(words)

    def decode(self, model: Any, count: int) -> NDArray[np.int32]:
        CountingDecoder.calls += 1
        CountingDecoder.symbols += count
        symbols: NDArray[np.int32] = self._decoder.decode(model, count)
        return symbols


ORIGINAL_DECODER = constriction.stream.queue.RangeDecoder


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> type[CountingDecoder]:
    queue = SimpleNamespace(RangeDecoder=CountingDecoder, RangeEncoder=constriction.stream.queue.RangeEncoder)
    monkeypatch.setattr(klt, "constriction", SimpleNamespace(stream=SimpleNamespace(queue=queue)))
    CountingDecoder.calls = CountingDecoder.symbols = 0
    return CountingDecoder


@pytest.mark.parametrize("body", [b"", bytes(100_000)], ids=["none", "much"])
def test_decoding_asks_the_range_coder_for_as_many_symbols_as_the_frames_have(
    counter: type[CountingDecoder], body: bytes
) -> None:
    decode("klt", with_header(step=0, body=body), bands=BANDS, frames=MOST_FRAMES)
    assert counter.calls == len(plan(klt.WHOLE, 0).runs)
    assert counter.symbols <= BANDS * klt.WHOLE * 94  # blocks of 32 frames


def test_decoding_a_stream_asks_the_range_coder_a_few_times_a_block(counter: type[CountingDecoder]) -> None:
    decode("klt", with_header(BASIS_VERSION | STREAM, 0, bytes(375)), bands=BANDS, frames=MOST_FRAMES)
    assert counter.calls == 375 * len(plan(klt.STREAMED, 0).runs)
    assert counter.symbols <= BANDS * MOST_FRAMES


def test_a_stream_of_too_many_blocks_is_not_decoded(counter: type[CountingDecoder]) -> None:
    with pytest.raises(MalformedPayload, match="has 1000000 blocks"):
        decode("klt", with_header(BASIS_VERSION | STREAM, 0, bytes(1_000_000)), bands=BANDS, frames=MOST_FRAMES)
    assert counter.calls == 0


def test_encoding_looks_for_the_shortest_end_a_few_times_only(counter: type[CountingDecoder]) -> None:
    encode(random_log_mel(), "klt", step=0)
    assert counter.calls <= 3 * len(plan(klt.WHOLE, 0).runs)
