"""log-Mel ↔ bytes: as near as a matrix of the rank can be, the same bytes every time, closed to bad bytes."""

from __future__ import annotations

import tracemalloc
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from amser import codecs
from amser.codecs import (
    CODECS,
    CodecError,
    MalformedPayload,
    NotFinite,
    RankTooHigh,
    Setting,
    UnknownCodec,
    check_payload,
    decode,
    element_ratio,
    encode,
    parse,
    payload_rank,
    rank_for_rate,
    rank_ratio,
)
from amser.codecs.interpolation import Interpolation
from amser.codecs.svd_f16 import SvdF16
from amser.codecs.svd_i8 import SvdI8
from amser.features import log_mel

Matrix = NDArray[np.float32]

FLOAT16_ROUNDING = 2.0**-11  # relative, at most
FACTORISED = ("svd-f16", "svd-i8")
OF_KNOWN_LENGTH = ("mel-f16", *FACTORISED, "interpolation")  # bands, frames and header say how many bytes there are


def random_matrix(bands: int, frames: int, seed: int = 0) -> Matrix:
    return np.random.default_rng(seed).uniform(-1.5, 1.8, (bands, frames)).astype(np.float32)


@st.composite
def matrices_and_ranks(draw: st.DrawFn) -> tuple[Matrix, int]:
    bands, frames = draw(st.integers(1, 40)), draw(st.integers(1, 60))
    inner = draw(st.integers(1, min(bands, frames)))  # often below full rank, as speech nearly is
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    matrix = rng.uniform(-1, 1, (bands, inner)) @ rng.uniform(-1, 1, (inner, frames))
    matrix *= draw(st.sampled_from([1e-3, 0.3]))
    return matrix.astype(np.float32), draw(st.integers(1, min(bands, frames)))


def singular_values(matrix: Matrix) -> NDArray[np.float64]:
    return np.asarray(np.linalg.svd(matrix.astype(np.float64), compute_uv=False))


def error_norm(matrix: Matrix, approximation: Matrix) -> float:
    return float(np.linalg.norm(matrix.astype(np.float64) - approximation))


def round_trip(matrix: Matrix, codec: str, rank: int) -> Matrix:
    """Through the codec itself, also where `encode` would rather send the Mel."""
    chosen = codecs.by_name(codec)
    payload = chosen.encode(matrix, Setting(rank=rank))
    return decode(codec, payload, bands=matrix.shape[0], frames=matrix.shape[1])


def assert_as_good_as_truncated_svd(matrix: Matrix, rank: int) -> None:
    """Eckart–Young: no matrix of this rank is nearer than the truncated SVD; ours is as near, but for float16."""
    values = singular_values(matrix)
    best = float(np.sqrt((values[rank:] ** 2).sum()))
    actual = error_norm(matrix, round_trip(matrix, "svd-f16", rank))
    # ‖A‖² = ‖B‖² = ΣS, and each factor is rounded once; entries too small for a normal float16 add a little.
    slack = 2.02 * FLOAT16_ROUNDING * values[:rank].sum() + 1e-5
    assert best - 1e-4 <= actual <= best + slack


@given(matrices_and_ranks())
def test_svd_f16_is_as_near_as_numpys_truncated_svd(matrix_and_rank: tuple[Matrix, int]) -> None:
    assert_as_good_as_truncated_svd(*matrix_and_rank)


@pytest.mark.parametrize("rank", [1, 10, 20, 40])
def test_svd_f16_is_as_near_as_numpys_truncated_svd_on_real_speech(speech: list[Matrix], rank: int) -> None:
    for waveform in speech:
        assert_as_good_as_truncated_svd(log_mel(waveform), rank)


@pytest.mark.parametrize("matrix", [np.zeros((80, 100)), np.full((80, 100), -1.5), np.eye(80, 100)])
@pytest.mark.parametrize("codec", FACTORISED)
def test_a_matrix_without_sorted_distinct_singular_values_is_no_trouble(codec: str, matrix: Matrix) -> None:
    values = singular_values(matrix)
    best = float(np.sqrt((values[10:] ** 2).sum()))
    assert error_norm(matrix, round_trip(matrix, codec, 10)) == pytest.approx(best, abs=0.1)


@given(matrices_and_ranks())
def test_svd_i8_stays_within_half_a_symbol_of_each_factor(matrix_and_rank: tuple[Matrix, int]) -> None:
    matrix, rank = matrix_and_rank
    u, s, vt = np.linalg.svd(matrix.astype(np.float64), full_matrices=False)
    truncated = (u[:, :rank] * s[:rank]) @ vt[:rank]
    best = np.linalg.norm(matrix - truncated)
    # A component whose peak is p has symbols up to 127·127 = p / scale, and (127 + ½)² − 127² = 127.25 are in doubt.
    peaks = s[:rank] * np.abs(u[:, :rank]).max(axis=0) * np.abs(vt[:rank]).max(axis=1)
    doubt = 127.25 / 127**2 * peaks.sum() * np.sqrt(matrix.size)
    assert error_norm(matrix, round_trip(matrix, "svd-i8", rank)) <= best + doubt + 1e-5


def test_svd_i8_costs_little_over_svd_f16_on_real_speech(speech: list[Matrix]) -> None:
    for waveform in speech:
        mel = log_mel(waveform)
        i8, f16 = (error_norm(mel, round_trip(mel, codec, 10)) for codec in ("svd-i8", "svd-f16"))
        assert f16 < i8 < 1.02 * f16


@given(matrices_and_ranks())
def test_mel_f16_keeps_every_cell_to_float16_precision(matrix_and_rank: tuple[Matrix, int]) -> None:
    matrix, rank = matrix_and_rank
    np.testing.assert_allclose(round_trip(matrix, "mel-f16", rank), matrix, rtol=FLOAT16_ROUNDING, atol=2.0**-25)


@pytest.mark.parametrize("codec", CODECS)
def test_the_same_log_mel_gives_the_same_bytes_however_it_lies_in_memory(codec: str) -> None:
    mel = random_matrix(80, 300)
    payload = encode(mel, codec).payload
    assert encode(mel.copy(), codec).payload == payload
    assert encode(np.asfortranarray(mel), codec).payload == payload
    assert encode(np.repeat(mel, 2, axis=1)[:, ::2], codec).payload == payload


@pytest.mark.parametrize(("bands", "frames"), [(80, 300), (80, 40)])
def test_the_largest_entry_of_each_left_vector_is_positive(bands: int, frames: int) -> None:
    rank = 6
    payload = encode(random_matrix(bands, frames), rank=rank).payload
    a = np.frombuffer(payload, "<f2", offset=2, count=bands * rank).reshape(bands, rank).astype(np.float32)
    b = np.frombuffer(payload, "<f2", offset=2 + 2 * bands * rank).reshape(rank, frames).astype(np.float32)
    assert (a[np.abs(a).argmax(axis=0), np.arange(rank)] > 0).all()
    # Σ is folded in evenly, strongest first: both factors have the norms √S.
    np.testing.assert_allclose(np.linalg.norm(a, axis=0), np.linalg.norm(b, axis=1), rtol=1e-3)
    assert (np.diff(np.linalg.norm(a, axis=0)) < 0).all()


@pytest.mark.parametrize(("rate", "rank"), [(0.125, 10), (0.1875, 15), (0.25, 20), (0.5, 40), (1.0, 80), (0.001, 1)])
def test_the_rates_of_the_papers_are_these_ranks_of_80(rate: float, rank: int) -> None:
    assert rank_for_rate(rate, 80, 500) == rank
    assert encode(random_matrix(80, 500), rate=rate).rank == (None if rate == 1.0 else rank)


def test_an_utterance_shorter_than_the_bands_counts_its_frames() -> None:
    assert encode(random_matrix(80, 40), rate=0.125).rank == 5
    assert rank_ratio(5, 80, 40) == 0.125
    assert element_ratio(5, 80, 40) == pytest.approx(5 * 121 / 3200)


def test_the_default_is_svd_f16_at_one_eighth() -> None:
    encoded = encode(random_matrix(80, 300))
    assert (encoded.codec, encoded.rank, len(encoded.payload)) == ("svd-f16", 10, 2 + 2 * 10 * (80 + 300))


def test_svd_f16_sends_the_mel_itself_from_the_rank_where_nothing_is_saved() -> None:
    mel = random_matrix(80, 300)  # 24,000 cells; 63 · 381 = 24,003
    assert (encode(mel, rank=62).codec, encode(mel, rank=62).rank) == ("svd-f16", 62)
    assert (encode(mel, rank=63).codec, encode(mel, rank=63).rank) == ("mel-f16", None)
    assert len(encode(mel, rank=63).payload) == 48_000


def test_svd_i8_sends_the_mel_itself_only_where_that_is_smaller() -> None:
    assert encode(random_matrix(80, 300), "svd-i8", rank=80).codec == "svd-i8"  # 30,722 bytes against 48,000
    assert encode(random_matrix(80, 100), "svd-i8", rank=80).codec == "svd-i8"  # 14,722 against 16,000
    assert encode(random_matrix(80, 80), "svd-i8", rank=80).codec == "mel-f16"  # 13,122 against 12,800


@pytest.mark.parametrize(("codec", "sent_as"), [("svd-f16", ("mel-f16", None)), ("svd-i8", ("svd-i8", 12))])
def test_a_rank_above_what_the_matrix_has_means_all_of_it(codec: str, sent_as: tuple[str, int | None]) -> None:
    mel = random_matrix(80, 12)
    encoded = encode(mel, codec, rank=40)
    assert (encoded.codec, encoded.rank) == sent_as
    decoded = decode(encoded.codec, encoded.payload, bands=80, frames=12)
    np.testing.assert_allclose(decoded, mel, atol=1e-3 if encoded.rank is None else 0.1)


# Two components, singular values about 12.6 and 1.1, of three; the bytes pin layout, order, signs and rounding.
GOLDEN = np.array([[1.0, 0.5, -1.0, 2.0, 0.25], [-3.0, -1.5, 2.5, -6.0, -1.0], [4.0, 2.5, -3.5, 7.5, 3.0]], np.float32)
GOLDEN_PAYLOADS = {
    "mel-f16": "003c003800bc0040003400c200be004100c600bc0044004100c380470042",
    "svd-f16": "020098393eb521c0393a9c413c39be3da13af8bc8541c13ae8a848340ba4d1b5bd3b",
    "svd-i8": "0200fe95fb3975ac433820cba27f7f6b4226c77f27fb23fed07f",
}


@pytest.mark.parametrize("codec", GOLDEN_PAYLOADS)
def test_the_bytes_of_a_payload_never_change(codec: str) -> None:
    assert codecs.by_name(codec).encode(GOLDEN, Setting(rank=2)).hex() == GOLDEN_PAYLOADS[codec]


@pytest.mark.parametrize("codec", GOLDEN_PAYLOADS)
def test_a_golden_payload_decodes_to_its_matrix(codec: str) -> None:
    mel = decode(codec, bytes.fromhex(GOLDEN_PAYLOADS[codec]), bands=3, frames=5)
    assert mel.dtype == np.float32
    np.testing.assert_allclose(mel, GOLDEN, atol={"mel-f16": 0, "svd-f16": 0.2, "svd-i8": 0.2}[codec])


def test_names_and_numbers_of_the_codecs_are_fixed() -> None:
    numbers = {"mel-f16": 1, "svd-f16": 2, "svd-i8": 3, "interpolation": 4, "klt": 5}
    assert {codec.name: codec.number for codec in CODECS.values()} == numbers
    assert {codecs.by_number(number).name: number for number in numbers.values()} == numbers


def test_an_unknown_codec_is_refused_with_the_known_ones() -> None:
    for call in (encode, lambda _, name: payload_rank(name, b""), lambda _, name: parse(f"{name}:0.125")):
        with pytest.raises(UnknownCodec, match="'mp3'; accepted: mel-f16, svd-f16, svd-i8, interpolation, klt"):
            call(GOLDEN, "mp3")
    with pytest.raises(UnknownCodec, match=r"number 6; accepted: 1 \(mel-f16\)"):
        codecs.by_number(6)


@pytest.mark.parametrize(
    ("text", "codec", "setting"),
    [
        ("mel-f16", "mel-f16", Setting()),
        ("svd-f16:0.125", "svd-f16", Setting(rate=0.125)),
        ("svd-i8:0.25", "svd-i8", Setting(rate=0.25)),
        ("interpolation:4x2", "interpolation", Setting(factors=(4, 2))),
        ("klt:7", "klt", Setting(step=7)),
        ("klt", "klt", Setting()),
    ],
)
def test_a_codec_and_its_setting_are_read_as_people_write_them(text: str, codec: str, setting: Setting) -> None:
    assert parse(text) == (codec, setting)
    assert setting.given() <= CODECS[codec].takes


@pytest.mark.parametrize(
    "text", ["mel-f16:0.5", "svd-f16:", "svd-i8:much", "interpolation:4", "interpolation:4x2x1", "klt:loud", "klt:"]
)
def test_a_setting_that_cannot_be_read_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - its words are Python's
        parse(text)


@pytest.mark.parametrize(
    ("codec", "setting", "message"),
    [
        ("svd-f16", Setting(step=3), "svd-f16 has no step; accepted: rank, rate"),
        ("svd-i8", Setting(factors=(4, 2)), "svd-i8 has no factors; accepted: rank, rate"),
        ("mel-f16", Setting(step="low"), "mel-f16 has no step; accepted: rank, rate"),
        ("interpolation", Setting(rate=0.5, rank=3), "interpolation has no rank, rate; accepted: factors"),
        ("klt", Setting(rate=0.5), "klt has no rate; accepted: step"),
    ],
)
def test_a_setting_of_another_codec_is_refused(codec: str, setting: Setting, message: str) -> None:
    with pytest.raises(CodecError, match=message):
        encode(random_matrix(80, 100), codec, **asdict(setting))


def test_a_codec_without_factors_has_no_rank() -> None:
    for codec in ("mel-f16", "interpolation", "klt"):
        encoded = encode(random_matrix(80, 100), codec)
        assert (encoded.codec, encoded.rank, payload_rank(codec, encoded.payload)) == (codec, None, None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rate": 0.0}, "the rate is 0.0"),
        ({"rate": 1.01}, "the rate is 1.01"),
        ({"rate": float("nan")}, "the rate is nan"),
        ({"rank": 0}, "the rank is 0"),
        ({"rank": 4, "rate": 0.5}, "both a rate and a rank"),
    ],
)
def test_a_rate_or_rank_out_of_its_range_is_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(CodecError, match=message):
        encode(GOLDEN, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(80,), (80, 0), (0, 10), (2, 80, 10)])
def test_what_is_no_matrix_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(CodecError, match="shape"):
        encode(np.zeros(shape, np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 17.0, 1e300])
@pytest.mark.parametrize("codec", CODECS)
def test_a_value_that_no_log_mel_holds_is_not_encoded(codec: str, value: float) -> None:
    mel = random_matrix(80, 100).astype(np.float64)
    mel[3, 4] = value
    with pytest.raises(NotFinite, match="within ±16"):
        encode(mel, codec)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 60_000.0])
@pytest.mark.parametrize("codec", ["mel-f16", "svd-f16"])
def test_a_payload_that_decodes_to_no_log_mel_is_refused(codec: str, value: float) -> None:
    payload = bytearray(encode(random_matrix(80, 100), codec).payload)
    payload[-2:] = np.array(value, "<f2").tobytes()
    with pytest.raises(NotFinite, match="within ±16"):
        decode(codec, bytes(payload), bands=80, frames=100)


@pytest.mark.parametrize("scale", [np.nan, np.inf, 3e38])
def test_an_absurd_scale_in_svd_i8_is_refused(scale: float) -> None:
    payload = bytearray(encode(random_matrix(80, 100), "svd-i8").payload)
    payload[2:6] = np.array(scale, "<f4").tobytes()
    with pytest.raises(NotFinite, match="within ±16"):
        decode("svd-i8", bytes(payload), bands=80, frames=100)


@pytest.mark.parametrize("codec", OF_KNOWN_LENGTH)
@pytest.mark.parametrize("cut", [1, 2, 100])
def test_a_payload_of_another_length_is_refused(codec: str, cut: int) -> None:
    payload = encode(random_matrix(80, 100), codec).payload
    for wrong in (payload[:-cut], payload + bytes(cut)):
        with pytest.raises(MalformedPayload, match=f"{len(wrong)} bytes; accepted: {len(payload)} bytes for {codec}"):
            decode(codec, wrong, bands=80, frames=100)


@pytest.mark.parametrize("codec", FACTORISED)
def test_the_rank_is_held_to_the_receivers_limit_and_to_the_matrix(codec: str) -> None:
    payload = encode(random_matrix(80, 100), codec, rank=20).payload
    assert payload_rank(codec, payload) == 20
    assert decode(codec, payload, bands=80, frames=100, max_rank=20).shape == (80, 100)
    with pytest.raises(RankTooHigh, match="rank 20 .*1 to 19"):
        decode(codec, payload, bands=80, frames=100, max_rank=19)
    with pytest.raises(RankTooHigh, match="rank 20 .*1 to 15"):
        check_payload(codec, payload, bands=80, frames=15)
    with pytest.raises(MalformedPayload, match="rank 0"):
        check_payload(codec, b"\0\0", bands=80, frames=100)
    for header in (b"", b"\1"):
        with pytest.raises(MalformedPayload, match="too few for its header"):
            payload_rank(codec, header)


@pytest.mark.parametrize("codec", CODECS)
def test_a_claim_of_four_billion_frames_allocates_nothing(codec: str) -> None:
    payload = {"interpolation": b"\4\2", "klt": encode(random_matrix(80, 8), "klt").payload}.get(codec, b"\x50\0")
    payload += bytes(100)
    tracemalloc.start()
    try:
        with pytest.raises(MalformedPayload):
            decode(codec, payload, bands=80, frames=2**32 - 1)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20_000


@given(
    codec=st.sampled_from(OF_KNOWN_LENGTH),
    bands=st.integers(1, 8),
    frames=st.integers(1, 8),
    data=st.data(),
)
def test_any_bytes_decode_to_a_log_mel_or_to_a_codec_error(
    codec: str, bands: int, frames: int, data: st.DataObject
) -> None:
    header, length = data.draw(headers_and_lengths(codec, bands, frames))
    length = max(0, length + data.draw(st.sampled_from([0, 0, 0, -1, 1])))
    body = data.draw(st.binary(min_size=length, max_size=length))
    try:
        mel = decode(codec, (header + body[len(header) :])[:length], bands=bands, frames=frames)
    except CodecError:
        return
    assert mel.shape == (bands, frames)
    assert np.abs(mel).max() <= codecs.LARGEST_VALUE


@st.composite
def headers_and_lengths(draw: st.DrawFn, codec: str, bands: int, frames: int) -> tuple[bytes, int]:
    """The first bytes of a payload, and how long they say that it is."""
    if codec == "mel-f16":
        return b"", 2 * bands * frames
    if codec == "interpolation":
        time, frequency = draw(st.tuples(st.integers(0, 17), st.integers(0, 17)))
        factors = max(1, time), max(1, frequency)
        return bytes((time, frequency)), Interpolation().payload_length(factors, bands, frames)
    rank = draw(st.integers(0, 9))
    factorised = SvdF16() if codec == "svd-f16" else SvdI8()
    return rank.to_bytes(2, "little"), factorised.payload_length(rank, bands, frames)
