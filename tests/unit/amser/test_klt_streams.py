"""`klt` while the person still speaks: a block leaves with its 8th frame and is read when it arrives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from recordings import Waveform, envelope_of

from amser import wire
from amser.codecs import CodecError, MalformedPayload, NotFinite, decode
from amser.codecs.klt import COARSEST, HEADER, MOST_FRAMES, STREAM, STREAMED, StreamDecoder, StreamEncoder
from amser.codecs.klt_tables import BANDS, BASIS_VERSION
from amser.features import clamp_to_floor, log_mel

Matrix = NDArray[np.float32]

FRAMES = 50  # six blocks and a quarter
LONGEST_BLOCK = 4096  # bytes


def moving_waves(frames: int = FRAMES) -> Matrix:
    band, frame = np.arange(BANDS)[:, None], np.arange(frames)
    return (0.6 * np.sin(band / 9 + frame / 7) - 0.3 + frame / 100).astype(np.float32)


def streamed(mel: Matrix, step: int | str = "low", level: float = 1.2) -> bytes:
    encoder = StreamEncoder(step, level)
    return encoder.push(mel) + encoder.finish()


def with_blocks(*blocks: bytes) -> bytes:
    """A stream of blocks as they stand, lengths included."""
    return streamed(moving_waves())[:HEADER] + b"".join(blocks)


def pieces(whole: bytes, cuts: list[int]) -> list[bytes]:
    ends = [*sorted(cut % (len(whole) + 1) for cut in cuts), len(whole)]
    return [whole[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]


@pytest.fixture(scope="module")
def mel(speech: list[Waveform]) -> Matrix:
    return log_mel(speech[0], clamp=False)


# --- The device -------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, FRAMES), max_size=12))
def test_the_bytes_do_not_depend_on_how_many_frames_come_at_once(cuts: list[int]) -> None:
    encoder, waves = StreamEncoder("low"), moving_waves()
    parts = np.split(waves, sorted(cuts), axis=1)
    assert b"".join(map(encoder.push, parts)) + encoder.finish() == streamed(waves)


def test_the_bytes_do_not_depend_on_how_the_frames_lie_in_memory(mel: Matrix) -> None:
    assert streamed(np.asfortranarray(mel)) == streamed(mel)
    assert streamed(np.repeat(mel, 2, axis=1)[:, ::2]) == streamed(mel)


def test_frames_that_were_pushed_may_be_overwritten() -> None:
    encoder, waves, written = StreamEncoder("low"), moving_waves(), b""
    buffer = np.empty((BANDS, 5), np.float32)
    for begin in range(0, FRAMES, 5):
        buffer[:] = waves[:, begin : begin + 5]
        written += encoder.push(buffer)
        buffer[:] = 9
    assert written + encoder.finish() == streamed(waves)


def test_a_block_leaves_with_its_8th_frame() -> None:
    encoder, waves = StreamEncoder("low"), moving_waves()
    sizes = [len(encoder.push(waves[:, frame : frame + 1])) for frame in range(FRAMES)]
    assert [frame for frame, size in enumerate(sizes, 1) if size] == [8, 16, 24, 32, 40, 48]
    assert len(encoder.finish()) > 1


def test_the_header_comes_once_and_before_the_first_block() -> None:
    encoder = StreamEncoder("robust", level=0.5)
    assert encoder.push(np.zeros((BANDS, 7), np.float32)) == b""
    header = bytes((BASIS_VERSION | STREAM, *streamed(moving_waves(), "robust", 0.5)[1:HEADER]))
    assert encoder.push(moving_waves(1)).startswith(header)
    assert not encoder.push(moving_waves(8)).startswith(header[:1])


def test_finish_sends_what_is_left_and_nothing_twice() -> None:
    for frames in (3, 8, 9):
        encoder = StreamEncoder("low")
        begun = encoder.push(moving_waves(frames))
        assert bool(begun) == (frames >= STREAMED)
        assert bool(encoder.finish()) == bool(frames % STREAMED)
        assert encoder.finish() == b""


def test_an_utterance_without_frames_has_no_bytes() -> None:
    encoder = StreamEncoder("low")
    assert encoder.push(np.zeros((BANDS, 0), np.float32)) + encoder.finish() == b""


def test_an_encoder_is_as_new_after_finish() -> None:
    encoder, waves = StreamEncoder("low"), moving_waves()
    encoder.push(waves + 1)  # louder, so that its floor would show in the next utterance
    encoder.finish()
    assert encoder.push(waves) + encoder.finish() == streamed(waves)


def test_what_lies_under_the_floor_of_the_recording_takes_no_bits(mel: Matrix) -> None:
    loudest = mel.max()
    under = np.where(mel < loudest - 2, loudest - 4, mel)
    assert (mel < loudest - 2).any()
    after_the_loudest = np.concatenate((mel[:, [int(mel.max(0).argmax())] * STREAMED], under), axis=1)
    flat = np.maximum(after_the_loudest, loudest - np.float32(2))
    assert streamed(after_the_loudest) == streamed(flat)


def test_a_level_that_is_wrong_costs_bytes_and_no_words(mel: Matrix) -> None:
    near, far = (streamed(mel, "standard", level) for level in (float(mel.max()), float(mel.max()) + 1))
    assert len(near) < len(far) < 1.5 * len(near)
    for payload in (near, far):
        received = decode("klt", payload, bands=BANDS, frames=mel.shape[1])
        assert np.corrcoef(received.ravel(), clamp_to_floor(mel).ravel())[0, 1] > 0.9


@pytest.mark.parametrize("shape", [(128, 8), (79, 8), (80,), (1, 80, 8)])
def test_frames_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(CodecError, match=r"frames of shape \(.*accepted: \(80, n\)"):
        StreamEncoder("low").push(np.zeros(shape, np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 17.0])
def test_frames_that_no_log_mel_holds_are_refused_and_forgotten(value: float) -> None:
    encoder, waves = StreamEncoder("low"), moving_waves()
    wrong = waves[:, :9].copy()
    wrong[3, 4] = value
    with pytest.raises(NotFinite, match="within ±16"):
        encoder.push(wrong)
    assert encoder.push(waves) + encoder.finish() == streamed(waves)


def test_a_step_or_level_that_is_none_is_refused() -> None:
    for step in ("loud", -1, COARSEST + 1):
        with pytest.raises(CodecError, match="klt has no step"):
            StreamEncoder(step)
    for level in (np.nan, np.inf):
        with pytest.raises(NotFinite, match="the level is"):
            StreamEncoder(level=level)


# --- The cluster ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_once", [1, 2, 1000])
def test_frames_that_are_read_as_they_arrive_are_those_of_the_whole_stream(mel: Matrix, at_once: int) -> None:
    payload, decoder, frames = streamed(mel), StreamDecoder(), mel.shape[1]
    parts = [decoder.push(payload[begin : begin + at_once]) for begin in range(0, len(payload), at_once)]
    received = np.concatenate(parts, axis=1)
    assert received.shape == (BANDS, -(-frames // STREAMED) * STREAMED)
    assert received.dtype == np.float32
    whole = decode("klt", payload, bands=BANDS, frames=frames)
    np.testing.assert_allclose(clamp_to_floor(received[:, :frames]), whole, atol=1e-5)


@given(st.lists(st.integers(0, 1000), max_size=12))
def test_the_frames_do_not_depend_on_how_many_bytes_come_at_once(cuts: list[int]) -> None:
    payload, decoder = streamed(moving_waves()), StreamDecoder()
    received = np.concatenate([decoder.push(piece) for piece in pieces(payload, cuts)], axis=1)
    np.testing.assert_allclose(received, StreamDecoder().push(payload), atol=1e-5)


def test_a_block_can_be_read_when_its_last_byte_is_there() -> None:
    encoder, decoder, waves = StreamEncoder("robust"), StreamDecoder(), moving_waves()
    for begin in range(0, 48, STREAMED):
        block = encoder.push(waves[:, begin : begin + STREAMED])
        assert decoder.push(block[:-1]).shape == (BANDS, 0)
        received = decoder.push(block[-1:])
        assert received.shape == (BANDS, STREAMED)
        assert np.sqrt(np.mean((received - waves[:, begin : begin + STREAMED]) ** 2)) < 0.15


def test_a_stream_is_an_ordinary_payload_whose_floor_the_cluster_applies(speech: list[Waveform], mel: Matrix) -> None:
    payload = streamed(mel)
    envelope = replace(envelope_of(speech[0], "klt"), payload=payload, unclamped=True)
    received = wire.decode_mel(wire.unpack(wire.pack(envelope)))
    np.testing.assert_array_equal(received, decode("klt", payload, bands=BANDS, frames=mel.shape[1]))
    assert received.max() - received.min() <= 2 + 1e-6
    assert np.corrcoef(received.ravel(), clamp_to_floor(mel).ravel())[0, 1] > 0.9


# --- Bad bytes --------------------------------------------------------------------------------------------------------


def test_a_stream_that_is_cut_off_is_refused() -> None:
    payload = streamed(moving_waves())
    for length in range(HEADER, len(payload)):
        with pytest.raises(MalformedPayload, match="ends within a block|has . blocks; accepted: 7 for 50 frames"):
            decode("klt", payload[:length], bands=BANDS, frames=FRAMES)


@pytest.mark.parametrize("frames", [1, 48, 57, 3000])
def test_a_stream_of_another_length_is_refused(frames: int) -> None:
    with pytest.raises(MalformedPayload, match=f"has 7 blocks; accepted: {-(-frames // 8)} for {frames} frames"):
        decode("klt", streamed(moving_waves()), bands=BANDS, frames=frames)


@pytest.mark.parametrize(
    ("length", "message"),
    [
        (b"\x81\x20", "a block of 4097 bytes; accepted: 4096 at most"),
        (b"\xff\x7f", "a block of 16383 bytes; accepted: 4096 at most"),
        (b"\x80\x80\x80", "length of a block takes more than 2 bytes; accepted: 2 bytes, which hold 4096 at most"),
        (b"\x80\x80\x80\x80\x00", "length of a block takes more than 2 bytes"),
        (b"\xff\xff\xff\xff\x0f", "length of a block takes more than 2 bytes"),
        (b"\xff" * 1000, "length of a block takes more than 2 bytes"),
    ],
)
def test_a_block_of_absurd_length_is_refused_before_it_arrives(length: bytes, message: str) -> None:
    payload = with_blocks(length)
    with pytest.raises(MalformedPayload, match=message):
        decode("klt", payload, bands=BANDS, frames=8)
    with pytest.raises(MalformedPayload, match=message):
        StreamDecoder().push(payload)


@pytest.mark.parametrize(
    ("malformed", "message"), [(b"\xff\x7f", "a block of 16383 bytes"), (b"\x64" + b"\xff" * 100, "mean nothing")]
)
def test_the_blocks_before_a_malformed_one_are_read_and_the_next_push_refuses_it(
    malformed: bytes, message: str
) -> None:
    whole = streamed(moving_waves(16))
    decoder, expected = StreamDecoder(), StreamDecoder().push(whole)
    np.testing.assert_array_equal(decoder.push(whole + malformed + whole[HEADER:]), expected)
    for later in (b"", whole[HEADER:], b""):
        with pytest.raises(MalformedPayload, match=message):
            decoder.push(later)
    with pytest.raises(MalformedPayload, match=message):  # where nothing is before it, at once
        StreamDecoder().push(with_blocks(malformed))


def test_a_stream_of_more_than_30_seconds_is_not_decoded() -> None:
    decoder, most = StreamDecoder(), MOST_FRAMES // STREAMED
    endless = streamed(moving_waves(STREAMED))[HEADER:] * (most + 1)
    assert decoder.push(with_blocks(endless)).shape == (BANDS, MOST_FRAMES)
    with pytest.raises(MalformedPayload, match=f"more than {most} blocks; accepted: {MOST_FRAMES} frames at most"):
        decoder.push(b"")


def test_the_longest_block_is_awaited() -> None:
    decoder = StreamDecoder()
    assert decoder.push(with_blocks(b"\x80\x20" + bytes(LONGEST_BLOCK - 1))).shape == (BANDS, 0)
    assert decoder.push(b"\0").shape == (BANDS, STREAMED)


@pytest.mark.parametrize("block", [b"\0", b"\1\0", b"\2\0\0"])
def test_a_block_of_fewer_bytes_than_its_frames_take_is_refused(block: bytes) -> None:
    with pytest.raises(MalformedPayload, match=f"the range coder has {len(block) - 1} bytes for 8 frames of step"):
        StreamDecoder().push(with_blocks(block))


def test_every_shorter_block_of_a_stream_is_refused() -> None:
    whole = streamed(moving_waves(STREAMED))
    body = whole[HEADER + 1 :]
    assert whole[HEADER] == len(body) < 0x80  # one block, its length in one byte
    for kept in range(len(body) - 3):
        with pytest.raises(MalformedPayload):
            StreamDecoder().push(with_blocks(bytes([kept]) + body[:kept]))


def test_the_decoder_of_streams_refuses_what_is_none() -> None:
    whole = bytes((BASIS_VERSION, 20, 100)) + bytes(20)
    with pytest.raises(MalformedPayload, match="a whole utterance; accepted: a stream"):
        StreamDecoder().push(whole)
    with pytest.raises(MalformedPayload, match="basis version 127"):
        StreamDecoder().push(b"\xff\0\0")


@given(st.binary(max_size=300), st.integers(0, COARSEST), st.lists(st.integers(0, 300), max_size=4))
def test_any_bytes_are_frames_or_a_codec_error(body: bytes, step: int, cuts: list[int]) -> None:
    decoder = StreamDecoder()
    for piece in pieces(bytes((BASIS_VERSION | STREAM, step, 100)) + body, cuts):
        try:
            received = decoder.push(piece)
        except CodecError:
            return
        assert (received.shape[0], received.shape[1] % STREAMED) == (BANDS, 0)
        assert np.isfinite(received).all()
