"""`klt` and what it was not made for: refused by name, with no memory and no time for mere claims."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import constriction
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from recordings import envelope_of, noise, speakers, waveform_of

from amser import codecs, wire
from amser.codecs import CodecError, MalformedPayload, check_payload, decode, encode, klt
from amser.codecs.klt import COARSEST, HEADER, MOST_FRAMES, PROFILES, STREAM, StreamEncoder
from amser.codecs.klt_tables import BANDS, BASIS_VERSION, Plan, plan
from amser.features import log_mel

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


@pytest.mark.parametrize("step", ["loud", "", "2.5", -1, COARSEST + 1, "-1", str(COARSEST + 1), 10**30])
def test_an_unknown_step_is_refused_with_the_known_ones(step: int | str) -> None:
    accepted = f"accepted: low, standard, robust, or an index from 0 to {COARSEST}"
    with pytest.raises(CodecError, match=f"klt has no step .*{accepted}"):
        encode(random_log_mel(), "klt", step=step)


def test_a_step_has_a_name_or_an_index() -> None:
    for name, index in PROFILES.items():
        payload = encode(random_log_mel(), "klt", step=name).payload
        assert payload[1] == index
        assert encode(random_log_mel(), "klt", step=index).payload == payload
        assert codecs.parse(f"klt:{name}") == codecs.parse(f"klt:{index}")


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
    with pytest.raises(MalformedPayload, match=f"step index {step}; accepted: 0 to {COARSEST}"):
        check_payload("klt", with_header(step=step), bands=BANDS, frames=FRAMES)


@pytest.mark.parametrize("frames", [10, 100, MOST_FRAMES])
@pytest.mark.parametrize("stream", [0, STREAM])
def test_frames_without_a_body_are_refused(frames: int, stream: int) -> None:
    blocks = bytes(-(-frames // klt.STREAMED)) if stream else b""  # of no bytes each
    for step in (0, *PROFILES.values(), COARSEST):
        with pytest.raises(MalformedPayload, match=r"the range coder has 0 bytes for \d+ frames of step"):
            decode("klt", with_header(BASIS_VERSION | stream, step, blocks), bands=BANDS, frames=frames)


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("step", PROFILES.values(), ids=PROFILES)
def test_a_body_that_is_cut_off_is_refused(kept: float, step: int) -> None:
    for row in speakers(8):
        mel = log_mel(waveform_of(row["path"]))
        payload = encode(mel, "klt", step=step).payload
        cut = payload[: HEADER + int(kept * (len(payload) - HEADER))]
        with pytest.raises(MalformedPayload, match="the range coder"):
            decode("klt", cut, bands=BANDS, frames=mel.shape[1])


@pytest.mark.parametrize("value", [-1.5, 0.0, 1.8])
def test_what_takes_the_fewest_bytes_is_read(value: float) -> None:
    """Silence, and a level that never changes: hardly a symbol is other than the likeliest."""
    for frames in (10, 32, 33, 1000, MOST_FRAMES):
        for step in range(0, COARSEST + 1, 8):
            payload = encode(np.full((BANDS, frames), value, np.float32), "klt", step=step).payload
            assert decode("klt", payload, bands=BANDS, frames=frames).shape == (BANDS, frames)


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
    encoder = StreamEncoder("low")
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

    ask()  # once for what Python keeps of a first call
    assert peak_bytes(ask) < 20_000


def test_a_stream_without_the_blocks_for_its_frames_allocates_nothing() -> None:
    def ask() -> None:
        with pytest.raises(MalformedPayload, match="has 3 blocks; accepted: 375"):
            decode("klt", with_header(BASIS_VERSION | STREAM, body=bytes(3)), bands=BANDS, frames=MOST_FRAMES)

    assert peak_bytes(ask) < 20_000


def with_every_symbol_passing_its_class(step: int) -> bytes:
    """The payload of most work: of all coefficients of 30 s the largest symbol and the largest excess."""
    order, count = plan(klt.WHOLE, step), -(-MOST_FRAMES // klt.WHOLE)
    encoder = constriction.stream.queue.RangeEncoder()
    for each, begin, end in order.runs:
        encoder.encode(np.full((end - begin) * count, 2 * each.largest, np.int32), each.model)
    for _ in range(len(order.order) * count):
        klt._write_excess(encoder, 2**16 - 2)
    return with_header(step=step, body=encoder.get_compressed().astype(">u4").tobytes())


def hostile_payloads() -> Iterator[bytes]:
    """Up to 1 MiB each, claiming what takes longest."""
    random = np.random.default_rng(0)
    most = 2**20 - 100  # what is left by an envelope
    for step in (0, 16, COARSEST):
        yield with_every_symbol_passing_its_class(step)
        for version in (BASIS_VERSION, BASIS_VERSION | STREAM):
            for body in (b"", bytes(375), bytes(most), random.bytes(most), bytes(1000) + random.bytes(most - 1000)):
                yield with_header(version, step, body)
        blocks = b"".join(b"\x80\x10" + random.bytes(2048) for _ in range(375))
        yield with_header(BASIS_VERSION | STREAM, step, blocks)


def test_no_payload_takes_more_than_a_second_or_a_few_log_mels_of_memory() -> None:
    for payload in hostile_payloads():

        def ask(payload: bytes = payload) -> None:
            with suppress(MalformedPayload):
                decode("klt", payload, bands=BANDS, frames=MOST_FRAMES)

        began = time.process_time()
        ask()
        assert time.process_time() - began < 1
        assert peak_bytes(ask) < 6 * 4 * BANDS * MOST_FRAMES


class CountingDecoder:
    """A range decoder that counts what is asked of it."""

    calls = 0
    symbols = 0

    def __init__(self, words: NDArray[np.uint32]) -> None:
        self._decoder = ORIGINAL_DECODER(words)

    def decode(self, model: Any, count: int | None = None) -> Any:
        CountingDecoder.calls += 1
        if count is None:  # a part of an excess
            return self._decoder.decode(model)
        CountingDecoder.symbols += count
        return self._decoder.decode(model, count)


ORIGINAL_DECODER = constriction.stream.queue.RangeDecoder


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> type[CountingDecoder]:
    queue = SimpleNamespace(RangeDecoder=CountingDecoder, RangeEncoder=constriction.stream.queue.RangeEncoder)
    monkeypatch.setattr(klt, "constriction", SimpleNamespace(stream=SimpleNamespace(queue=queue)))
    CountingDecoder.calls = CountingDecoder.symbols = 0
    return CountingDecoder


def passing(symbols: NDArray[np.int32], order: Plan) -> tuple[int, int]:
    """How many symbols have an excess, and how many of these have one above 0."""
    magnitudes = np.abs(symbols)
    return int((magnitudes >= order.largest).sum()), int((magnitudes > order.largest).sum())


@pytest.mark.parametrize("factor", [1, 8], ids=["like speech", "louder than any"])
@pytest.mark.parametrize("step", [0, PROFILES["robust"], PROFILES["low"]])
def test_decoding_asks_the_range_coder_once_a_class_and_twice_an_excess(
    counter: type[CountingDecoder], step: int, factor: int
) -> None:
    payload, order = encode(factor * random_log_mel(), "klt", step=step).payload, plan(klt.WHOLE, step)
    with_excess, above_zero = passing(klt._symbols(payload[HEADER:], order, 4), order)
    assert factor == 1 or above_zero > 0
    counter.calls = counter.symbols = 0
    decode("klt", payload, bands=BANDS, frames=FRAMES)
    assert counter.calls == len(order.runs) + with_excess + above_zero  # an excess of 0 has no digits to read
    assert counter.symbols == len(order.order) * 4  # blocks of 32 frames


@pytest.mark.parametrize("body", [b"", bytes(100_000)], ids=["none", "much"])
def test_decoding_asks_the_range_coder_for_as_many_symbols_as_the_frames_have(
    counter: type[CountingDecoder], body: bytes
) -> None:
    with pytest.raises(MalformedPayload, match=f"has {len(body)} bytes for 3008 frames"):
        decode("klt", with_header(step=0, body=body), bands=BANDS, frames=MOST_FRAMES)
    order = plan(klt.WHOLE, 0)
    assert counter.symbols == len(order.order) * 94  # blocks of 32 frames
    assert counter.calls <= len(order.runs) + 2 * counter.symbols


def test_decoding_a_stream_asks_the_range_coder_for_as_many_symbols_as_its_blocks_have(
    counter: type[CountingDecoder],
) -> None:
    encoder = StreamEncoder(0)
    payload = encoder.push(random_log_mel(MOST_FRAMES)) + encoder.finish()
    counter.calls = counter.symbols = 0
    decode("klt", payload, bands=BANDS, frames=MOST_FRAMES)
    order = plan(klt.STREAMED, 0)
    assert counter.symbols == 375 * len(order.order)
    assert counter.calls <= 375 * len(order.runs) + 2 * counter.symbols


def test_a_stream_of_too_many_blocks_is_not_decoded(counter: type[CountingDecoder]) -> None:
    with pytest.raises(MalformedPayload, match="has more than 375 blocks; accepted: 3000 frames at most"):
        decode("klt", with_header(BASIS_VERSION | STREAM, 0, bytes(1_000_000)), bands=BANDS, frames=MOST_FRAMES)
    assert counter.calls == 0


def test_encoding_looks_for_the_shortest_end_a_few_times_only(counter: type[CountingDecoder]) -> None:
    payload, order = encode(random_log_mel(), "klt", step=0).payload, plan(klt.WHOLE, 0)
    calls = counter.calls
    with_excess, above_zero = passing(klt._symbols(payload[HEADER:], order, 4), order)
    assert calls <= 3 * (len(order.runs) + with_excess + above_zero)
