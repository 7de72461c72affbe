"""The averaged log-Mel: exact where nothing varies, cells as they are defined, closed to bad bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from recordings import Waveform

from amser.codecs import decode
from amser.codecs.base import CodecError, MalformedPayload, Setting
from amser.codecs.interpolation import LARGEST_FACTOR, Interpolation, average, interpolate
from amser.features import log_mel

Matrix = NDArray[np.float32]

CODEC = Interpolation()
FACTORS = st.tuples(st.integers(1, LARGEST_FACTOR), st.integers(1, LARGEST_FACTOR))
SIZES = st.tuples(st.integers(1, 90), st.integers(1, 90))


def random_matrix(bands: int, frames: int) -> Matrix:
    return np.random.default_rng(0).uniform(-1.5, 1.8, (bands, frames)).astype(np.float32)


def encode(matrix: Matrix, factors: tuple[int, int] | None = None) -> bytes:
    return CODEC.encode(matrix, Setting(factors=factors))


def round_trip(matrix: Matrix, factors: tuple[int, int]) -> Matrix:
    return CODEC.decode(encode(matrix, factors), *matrix.shape)


@given(FACTORS, SIZES, st.floats(-16, 16, width=16))
def test_a_constant_log_mel_comes_back_exactly(factors: tuple[int, int], size: tuple[int, int], value: float) -> None:
    matrix = np.full(size, value, np.float32)
    np.testing.assert_array_equal(round_trip(matrix, factors), matrix)


@given(SIZES)
def test_cells_of_one_by_one_are_the_log_mel_in_float16(size: tuple[int, int]) -> None:
    matrix = random_matrix(*size)
    np.testing.assert_array_equal(round_trip(matrix, (1, 1)), matrix.astype(np.float16))


@given(FACTORS, SIZES)
def test_a_cell_is_the_mean_of_its_bands_and_frames_also_at_the_edge(
    factors: tuple[int, int], size: tuple[int, int]
) -> None:
    matrix, (time, frequency) = random_matrix(*size), factors
    expected = [
        [matrix[band : band + frequency, frame : frame + time].mean() for frame in range(0, size[1], time)]
        for band in range(0, size[0], frequency)
    ]
    np.testing.assert_allclose(average(matrix, factors), expected, atol=1e-6)


@given(FACTORS, SIZES)
def test_expanding_is_numpys_interp_along_each_axis(factors: tuple[int, int], size: tuple[int, int]) -> None:
    (time, frequency), (bands, frames) = factors, size

    def centres(count: int, factor: int) -> list[float]:
        groups = np.split(np.arange(count), np.arange(factor, count, factor))
        return [float(group.mean()) for group in groups]

    over_bands, over_time = centres(bands, frequency), centres(frames, time)
    cells = random_matrix(len(over_bands), len(over_time))
    rows = np.array([np.interp(np.arange(bands), over_bands, column) for column in cells.T]).T
    expected = np.array([np.interp(np.arange(frames), over_time, row) for row in rows])
    expanded = interpolate(cells, factors, bands, frames)
    assert expanded.dtype == np.float32
    np.testing.assert_allclose(expanded, expected, atol=2e-6)


def test_a_ramp_comes_back_between_the_outermost_centres_and_is_held_beyond() -> None:
    ramp = np.arange(12, dtype=np.float32)[None] / 8
    np.testing.assert_array_equal(round_trip(ramp, (4, 1))[0, 2:10], ramp[0, 2:10])
    np.testing.assert_array_equal(round_trip(ramp, (4, 1))[0, [0, 1, 10, 11]] * 8, [1.5, 1.5, 9.5, 9.5])


def test_detail_finer_than_a_cell_is_lost_wherever_it_lies() -> None:
    checkers = np.indices((80, 100)).sum(axis=0).astype(np.float32) % 2
    np.testing.assert_array_equal(round_trip(checkers, (4, 2)), np.full((80, 100), 0.5))


def test_coarser_cells_are_farther_from_real_speech(speech: list[Waveform]) -> None:
    for waveform in speech:
        mel = log_mel(waveform)
        errors = [float(np.sqrt(((round_trip(mel, f) - mel) ** 2).mean())) for f in ((1, 1), (2, 1), (4, 2), (8, 4))]
        assert errors == sorted(errors)
        assert errors[0] < 0.001
        assert np.corrcoef(round_trip(mel, (4, 2)).ravel(), mel.ravel())[0, 1] > 0.9


def test_the_default_is_an_eighth_of_the_cells() -> None:
    payload = encode(random_matrix(80, 500))
    assert CODEC.factors(payload) == (4, 2)
    assert len(payload) == 2 + 2 * 40 * 125


@given(FACTORS, SIZES)
def test_the_length_is_known_from_the_header(factors: tuple[int, int], size: tuple[int, int]) -> None:
    payload = encode(random_matrix(*size), factors)
    assert CODEC.factors(payload) == factors
    assert CODEC.payload_length(factors, *size) == len(payload)


def test_the_bytes_of_a_payload_never_change() -> None:
    matrix = np.array([[1.0, 0.5, -1.0], [-3.0, -1.5, 2.5], [4.0, 2.5, -3.5]], np.float32)
    assert encode(matrix, (2, 2)).hex() == "0202" + "00ba003a804200c3"  # −0.75 0.75 / 3.25 −3.5
    assert (CODEC.name, CODEC.number) == ("interpolation", 4)


@pytest.mark.parametrize("factors", [(0, 1), (1, 0), (17, 2), (4, 300), (-1, 1)])
def test_factors_out_of_range_are_not_encoded(factors: tuple[int, int]) -> None:
    with pytest.raises(CodecError, match=f"factors are {factors[0]} × {factors[1]}; accepted: 1 to 16 each"):
        encode(random_matrix(8, 8), factors)


@pytest.mark.parametrize("header", [b"\0\1", b"\1\0", b"\x11\1", b"\xff\xff"])
def test_factors_out_of_range_are_not_decoded(header: bytes) -> None:
    with pytest.raises(MalformedPayload, match="1 to 16 each"):
        decode("interpolation", header + bytes(128), bands=8, frames=8)


@pytest.mark.parametrize("payload", [b"", b"\4"])
def test_a_header_that_is_cut_off_is_refused(payload: bytes) -> None:
    with pytest.raises(MalformedPayload, match="too few for its header"):
        CODEC.factors(payload)


@pytest.mark.parametrize("cut", [1, 2, 50])
def test_a_payload_of_another_length_is_refused(cut: int) -> None:
    payload = encode(random_matrix(80, 100))
    for wrong in (payload[:-cut], payload + bytes(cut)):
        with pytest.raises(MalformedPayload, match=f"{len(wrong)} bytes; accepted: {len(payload)} bytes for interp"):
            decode("interpolation", wrong, bands=80, frames=100)
    with pytest.raises(MalformedPayload):
        decode("interpolation", payload, bands=80, frames=2**32 - 1)
