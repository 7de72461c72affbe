"""`klt`: the same bytes on every machine, few of them, and as near to real speech as they can be.

Other tables or another order of the symbols are another format. Where that is meant, raise `BASIS_VERSION` and rewrite
`klt_golden.json`: `write_golden()`.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any

import constriction
import numpy as np
import pytest
from numpy.typing import NDArray
from recordings import Waveform, envelope_of, noise, silence
from scipy import fft

from amser import wire
from amser.codecs import MalformedPayload, decode, encode, klt
from amser.codecs.klt import COARSEST, HEADER, PROFILES, STREAM, StreamEncoder
from amser.codecs.klt_tables import (
    BANDS,
    BASIS_VERSION,
    BLOCKS,
    FREQUENCY_BITS,
    Plan,
    level_index,
    level_of,
    plan,
    step_of,
    tables,
)
from amser.features import SAMPLE_RATE, clamp_to_floor, log_mel

Matrix = NDArray[np.float32]
Arrays = dict[str, NDArray[Any]]

GOLDEN_FILE = Path(__file__).with_name("klt_golden.json")
FRAMES = 40  # of the golden log-Mel: a block and a quarter, or five of a stream
CELLS = np.ix_([0, 20, 40, 60, 79], [0, 13, 26, 39])  # whose values are written down
STREAM_NAME = "stream"  # of the default profile
NAMES = (*PROFILES, STREAM_NAME)
COARSER_AND_COARSER = (8, 14, 20, 28, 40)  # step indices


def golden_log_mel() -> Matrix:
    """Waves across bands and frames, in the range of speech."""
    band, frame = np.arange(BANDS)[:, None], np.arange(FRAMES)
    waves = 0.5 * np.sin(band / 9 + frame / 7) + 0.4 * np.sin(band / 23) * np.sin(frame / 3) + 0.2 * np.sin(0.9 * band)
    mel: Matrix = (waves - 0.2 - band / 200).astype(np.float32)
    return mel


def arrays_of_tables() -> Arrays:
    """`klt.npz` without what it says about itself."""
    with (files("amser.codecs") / "klt.npz").open("rb") as file, np.load(file) as content:
        return {name: content[name] for name in content.files if name != "about"}


def sha256_of(arrays: Arrays) -> str:
    """Of the numbers: the zip around them holds the time when it was made."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        little_endian = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        digest.update(f"{name} {little_endian.dtype.str} {array.shape}\n".encode() + little_endian.tobytes())
    return digest.hexdigest()


def payload_of(name: str) -> bytes:
    """The golden log-Mel at a profile, or streamed."""
    if name != STREAM_NAME:
        return encode(golden_log_mel(), "klt", step=name).payload
    encoder = StreamEncoder("low")
    return encoder.push(golden_log_mel()) + encoder.finish()


def symbols_of(payload: bytes) -> list[str]:
    """Of each body, in the order of writing: symbols less the largest of their class, without the zeros at the end."""
    streamed = bool(payload[0] & STREAM)
    block = klt.STREAMED if streamed else klt.WHOLE
    bodies = klt._streamed(payload) if streamed else [payload[HEADER:]]
    order, count = plan(block, payload[1]), 1 if streamed else -(-FRAMES // block)
    counted = [(klt._symbols(body, order, count) - order.largest).ravel() for body in bodies]
    return [" ".join(map(str, np.trim_zeros(each, "b"))) for each in counted]


def read_as_documented(body: bytes, order: Plan, count: int) -> NDArray[np.int64]:
    """The symbols of a body as docs/wire.md has it, one excess after another."""
    words = np.frombuffer(body + bytes(-len(body) % 4), ">u4").astype(np.uint32)
    decoder = constriction.stream.queue.RangeDecoder(words)
    uniform = constriction.stream.model.Uniform
    shares = [
        decoder.decode(each.model, (end - begin) * count).reshape(-1, count) - each.largest
        for each, begin, end in order.runs
    ]
    symbols = np.concatenate(shares).astype(np.int64)
    for row, column in np.argwhere(np.abs(symbols) == order.largest):
        further = int(decoder.decode(uniform(16)))  # digits after the first
        number = 2**further + (int(decoder.decode(uniform(2**further))) if further else 0)
        symbols[row, column] += np.sign(symbols[row, column]) * (number - 1)  # Elias gamma has no zero
    return symbols


def meaning(symbols: list[str], payload: bytes) -> NDArray[np.float64]:
    """The log-Mel of symbols, straight from the tables and in float64: another decoder than the one under test."""
    streamed, step_index = bool(payload[0] & STREAM), payload[1]
    block = klt.STREAMED if streamed else klt.WHOLE
    count = 1 if streamed else -(-FRAMES // block)
    arrays, order, parts = arrays_of_tables(), plan(block, step_index), []
    for body in symbols:
        counted = np.zeros(len(order.order) * count, np.int64)
        written = np.array(body.split(), np.int64)
        counted[: written.size] = written
        signed = counted.reshape(-1, count) + order.largest
        coefficients = np.zeros((BANDS * block, count))
        for each, begin, end in order.runs:
            of_class = signed[begin:end]
            excess = np.sign(of_class) * np.maximum(np.abs(of_class) - each.largest, 0)
            steps = each.values[of_class - excess + each.largest] + excess
            coefficients[order.order[begin:end]] = steps * step_of(step_index)
        cosines = coefficients.reshape(BANDS, block, count).transpose(0, 2, 1) * arrays[f"weights_{block}"]
        parts.append(fft.idct(cosines, axis=2, norm="ortho").reshape(BANDS, -1))
    rows = np.concatenate(parts, axis=1)[:, :FRAMES]
    mel: NDArray[np.float64] = arrays["synthesis"] @ rows + arrays["mean"][:, None] + level_of(payload[2])
    return mel


def write_golden() -> None:
    """What this version writes becomes what every later one has to: `import test_klt; test_klt.write_golden()`."""
    payloads = {}
    for name in NAMES:
        payload = payload_of(name)
        cells = decode("klt", payload, bands=BANDS, frames=FRAMES)[CELLS].ravel()
        payloads[name] = {
            "payload": payload.hex(),
            "symbols": symbols_of(payload),
            "cells": " ".join(f"{cell:.5f}" for cell in cells),
        }
    golden = {"basis_version": BASIS_VERSION, "tables": sha256_of(arrays_of_tables()), "payloads": payloads}
    GOLDEN_FILE.write_text(json.dumps(golden, indent=1) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(GOLDEN_FILE.read_text(encoding="utf-8"))
    return content


@pytest.fixture(scope="module")
def mels(speech: list[Waveform]) -> list[Matrix]:
    return [log_mel(waveform) for waveform in speech]


def round_trip(mel: Matrix, step: int | str) -> Matrix:
    return decode("klt", encode(mel, "klt", step=step).payload, bands=BANDS, frames=mel.shape[1])


# --- The format -------------------------------------------------------------------------------------------------------


def test_other_tables_are_another_version(golden: dict[str, Any]) -> None:
    same = golden["tables"] == sha256_of(arrays_of_tables())
    assert same, "klt.npz is another than before: raise BASIS_VERSION, then write_golden()"
    assert golden["basis_version"] == BASIS_VERSION == tables().about["version"]


@pytest.mark.parametrize("name", NAMES)
def test_the_bytes_of_a_payload_never_change(golden: dict[str, Any], name: str) -> None:
    assert payload_of(name).hex() == golden["payloads"][name]["payload"]


@pytest.mark.parametrize("name", NAMES)
def test_a_golden_payload_is_read_as_the_symbols_that_were_written(golden: dict[str, Any], name: str) -> None:
    stored = golden["payloads"][name]
    assert symbols_of(bytes.fromhex(stored["payload"])) == stored["symbols"]


@pytest.mark.parametrize("name", NAMES)
def test_a_golden_payload_decodes_to_what_its_symbols_mean(golden: dict[str, Any], name: str) -> None:
    stored = golden["payloads"][name]
    payload = bytes.fromhex(stored["payload"])
    mel = decode("klt", payload, bands=BANDS, frames=FRAMES)
    assert mel.dtype == np.float32
    np.testing.assert_allclose(mel[CELLS].ravel(), np.array(stored["cells"].split(), float), atol=1e-4)
    expected = clamp_to_floor(meaning(stored["symbols"], payload).astype(np.float32))
    np.testing.assert_allclose(mel, expected, atol=1e-4)
    assert np.sqrt(np.mean((mel - golden_log_mel()) ** 2)) < 0.2


def test_what_passes_the_tables_is_written_after_all_classes() -> None:
    loud = 6 * golden_log_mel()  # no recording is: 120 decibels between two cells
    for mel, step in ((golden_log_mel(), "robust"), (loud, "low"), (loud, 0), (-loud, COARSEST)):
        order, body = plan(klt.WHOLE, klt.step_index(step)), encode(mel, "klt", step=step).payload[HEADER:]
        symbols = read_as_documented(body, order, 2)
        np.testing.assert_array_equal(klt._symbols(body, order, 2), symbols)
        assert (np.abs(symbols) > order.largest).any()


@pytest.mark.parametrize("value", [-16.0, -1.5, 0.0, 6.5, 16.0])
@pytest.mark.parametrize(("step", "error"), [(0, 0.05), ("robust", 0.12), ("low", 0.3)])
def test_a_level_far_from_speech_comes_back(value: float, step: int | str, error: float) -> None:
    np.testing.assert_allclose(round_trip(np.full((BANDS, 40), value, np.float32), step), value, atol=error)


def test_the_header_says_version_step_and_level() -> None:
    level = level_index(float(golden_log_mel().max()))
    for name, index in PROFILES.items():
        assert tuple(payload_of(name)[:HEADER]) == (BASIS_VERSION, index, level)
    assert payload_of(STREAM_NAME)[0] == BASIS_VERSION | STREAM
    assert payload_of(STREAM_NAME)[1] == PROFILES["low"]
    assert encode(golden_log_mel(), "klt").payload == payload_of(klt.DEFAULT_PROFILE)


def test_no_byte_at_the_end_could_be_left_out() -> None:
    """Zeros follow the last byte that is sent; any other end would be another log-Mel, or none."""
    for step in range(0, COARSEST + 1, 4):
        payload = encode(golden_log_mel(), "klt", step=step).payload
        mel = decode("klt", payload, bands=BANDS, frames=FRAMES)
        np.testing.assert_array_equal(decode("klt", payload + b"\0", bands=BANDS, frames=FRAMES), mel)
        with suppress(MalformedPayload):
            assert not np.array_equal(decode("klt", payload[:-1], bands=BANDS, frames=FRAMES), mel)


# --- The tables -------------------------------------------------------------------------------------------------------


def test_the_frequencies_of_a_class_are_whole_symmetric_and_add_up() -> None:
    arrays = arrays_of_tables()
    sizes = 2 * arrays["classes"][:, 1] + 1
    assert arrays["frequencies"].size == arrays["values"].size == sizes.sum()
    for frequencies in np.split(arrays["frequencies"], np.cumsum(sizes)[:-1]):
        assert frequencies.dtype == np.int32
        assert frequencies.sum() == 2**FREQUENCY_BITS
        assert frequencies.min() >= 1
        np.testing.assert_array_equal(frequencies, frequencies[::-1])
        assert frequencies.argmax() == frequencies.size // 2 or frequencies.size > 9  # of small ones zero is likeliest


def test_the_values_of_a_class_rise_and_are_symmetric() -> None:
    arrays = arrays_of_tables()
    for values in np.split(arrays["values"], np.cumsum(2 * arrays["classes"][:, 1] + 1)[:-1]):
        assert (np.diff(values) > 0).all()
        np.testing.assert_array_equal(values, -values[::-1])


def test_synthesis_undoes_analysis() -> None:
    arrays = arrays_of_tables()
    np.testing.assert_allclose(arrays["synthesis"] @ arrays["analysis"], np.eye(BANDS), atol=1e-4)
    for block in BLOCKS:
        np.testing.assert_allclose(tables().forward(block) @ tables().inverse(block).T, np.eye(block), atol=1e-5)


def test_a_plan_writes_every_coefficient_once_and_the_loudest_first() -> None:
    for block in BLOCKS:
        written = [plan(block, index).order for index in range(COARSEST + 1)]
        for finer, coarser in zip(written, written[1:], strict=False):
            assert set(coarser) <= set(finer)
        for index, order in enumerate(written):
            assert len(set(order)) == len(order)
            runs = plan(block, index).runs
            assert [begin for _, begin, _ in runs] == [0, *(end for _, _, end in runs[:-1])]
            assert runs[-1][2] == len(order)
            sizes = [each.largest for each, _, _ in runs]
            assert sizes == sorted(sizes, reverse=True)


def test_the_tables_say_where_they_come_from() -> None:
    about = tables().about
    assert {"corpus", "licence", "readers"} <= about.keys()
    assert len(about["readers"]) > 1


def test_the_level_of_the_loudest_cell_fits_a_byte() -> None:
    assert [level_index(loudest) for loudest in (-16.0, -2.0, 1.2, 16.0)] == [0, 0, 102, 255]
    for index in range(256):
        assert level_index(level_of(index)) == index


# --- Real speech ------------------------------------------------------------------------------------------------------


def test_a_coarser_step_takes_fewer_bytes_and_is_farther_from_the_speech(mels: list[Matrix]) -> None:
    for mel in mels:
        sizes = [len(encode(mel, "klt", step=step).payload) for step in COARSER_AND_COARSER]
        errors = [float(np.square(round_trip(mel, step) - mel).mean()) for step in COARSER_AND_COARSER]
        assert sizes == sorted(sizes, reverse=True)
        assert errors == sorted(errors)
        assert sizes[0] > 8 * sizes[-1]
        assert np.corrcoef(round_trip(mel, "low").ravel(), mel.ravel())[0, 1] > 0.9


def test_the_profiles_go_from_few_bytes_to_few_errors(mels: list[Matrix]) -> None:
    assert list(PROFILES) == ["low", "standard", "robust"]
    sizes = [sum(len(encode(mel, "klt", step=name).payload) for mel in mels) for name in PROFILES]
    assert sizes == sorted(sizes)


def test_the_lowest_profile_takes_a_kilobit_and_a_half_each_second(speech: list[Waveform], mels: list[Matrix]) -> None:
    for waveform, mel in zip(speech, mels, strict=True):
        if waveform.size > 3 * SAMPLE_RATE:
            bits = 8 * len(encode(mel, "klt", step="low").payload)
            assert bits / (waveform.size / SAMPLE_RATE) == pytest.approx(1500, rel=0.25)


def test_the_lowest_profile_takes_a_tenth_of_svd_f16_at_most(speech: list[Waveform], mels: list[Matrix]) -> None:
    for waveform, mel in zip(speech, mels, strict=True):
        if waveform.size > 3 * SAMPLE_RATE:
            low = encode(mel, "klt", step="low").payload
            assert 10 * len(low) <= len(encode(mel, "svd-f16", rate=0.125).payload)


@pytest.mark.parametrize("gain", [0.1, 0.5, 2.0])
def test_the_loudness_of_a_recording_costs_nothing_and_is_kept(speech: list[Waveform], gain: float) -> None:
    for waveform in speech[:4]:
        mel, scaled = log_mel(waveform), log_mel(np.float32(gain) * waveform)
        payload, payload_of_scaled = (encode(each, "klt").payload for each in (mel, scaled))
        assert len(payload_of_scaled) == pytest.approx(len(payload), rel=0.02)
        louder = round_trip(scaled, "low") - round_trip(mel, "low")
        assert louder.mean() == pytest.approx(np.log10(gain**2) / 4, abs=0.01)
        assert louder.std() < 0.05


@pytest.mark.parametrize("waveform", [noise(2.0), silence(2.0)], ids=["noise", "silence"])
def test_a_finer_step_is_not_farther_from_what_is_no_speech_either(waveform: Waveform) -> None:
    mel = log_mel(waveform)
    errors = [float(np.sqrt(np.square(round_trip(mel, name) - mel).mean())) for name in PROFILES]
    assert errors == sorted(errors, reverse=True)


def test_what_the_device_pads_a_block_with_is_not_decoded(mels: list[Matrix]) -> None:
    for frames in (10, 31, 32, 33, 100):
        mel = mels[0][:, 100 : 100 + frames]
        assert round_trip(mel, 8).shape == mel.shape
        assert np.sqrt(np.mean((round_trip(mel, 8) - mel) ** 2)) < 0.15


def test_an_utterance_crosses_the_wire(speech: list[Waveform], mels: list[Matrix]) -> None:
    envelope = envelope_of(speech[0], "klt", step="robust")
    received = wire.decode_mel(wire.unpack(wire.pack(envelope)))
    np.testing.assert_array_equal(received, round_trip(mels[0], "robust"))
    assert received.max() - received.min() <= 2.0 + 1e-6  # the floor is applied
