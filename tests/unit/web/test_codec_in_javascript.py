"""`web/amser-codec.js` writes the bytes that Python writes: golden vectors, real speech, what no table has learnt."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from javascript import call, has_node
from numpy.typing import NDArray
from pages import ROOT, blocks
from recordings import Waveform

from amser import wire
from amser.codecs import decode, encode, klt
from amser.codecs.klt import COARSEST, PROFILES
from amser.codecs.klt_tables import BANDS
from amser.features import SAMPLE_RATE, log_mel, resample
from training.klt.browser import OUTPUT, module

Matrix = NDArray[np.float32]

GOLDEN_FILE = Path(__file__).parents[1] / "amser" / "klt_golden.json"
STEPS: tuple[int | str, ...] = (*PROFILES, 0, 8, 40, COARSEST)
CAPTURED_MS = 1_763_773_323_456
UTTERANCE = "00112233-4455-6677-8899-aabbccddeeff"
CUTS = (1, 100, 200, 201, 360, 361, 4000, 30_000)  # samples, around half a window and a hop

needs_node = pytest.mark.skipif(
    not has_node(), reason="node is not installed; test_page.py runs golden vectors in Chromium"
)


@pytest.fixture(scope="module")
def mels(speech: list[Waveform]) -> list[Matrix]:
    return [log_mel(waveform) for waveform in speech]


def golden_log_mel() -> Matrix:
    """That of `test_klt`."""
    band, frame = np.arange(BANDS)[:, None], np.arange(40)
    waves = 0.5 * np.sin(band / 9 + frame / 7) + 0.4 * np.sin(band / 23) * np.sin(frame / 3) + 0.2 * np.sin(0.9 * band)
    mel: Matrix = (waves - 0.2 - band / 200).astype(np.float32)
    return mel


def extremes() -> list[Matrix]:
    """Louder than any recording, so that symbols pass the tables; flat; a frame; noise as far as cells reach."""
    random = np.random.default_rng(14)
    return [
        6 * golden_log_mel(),
        -6 * golden_log_mel(),
        np.full((BANDS, 10), -1.5, np.float32),
        random.normal(0, 1, (BANDS, 1)).astype(np.float32),
        random.uniform(-16, 16, (BANDS, 77)).astype(np.float32),
    ]


def envelope(payload: bytes, frames: int, seconds: float, **of_envelope: Any) -> wire.Envelope:
    captured = datetime.fromtimestamp(CAPTURED_MS / 1000, UTC)
    fields: dict[str, Any] = {"language": None, "device_id": "web", "unclamped": False} | of_envelope
    return wire.Envelope(
        codec="klt", profile="whisper80", frames=frames, seconds=seconds, utterance_id=UUID(UTTERANCE),
        captured_at=captured, payload=payload, **fields,
    )  # fmt: skip


def test_the_tables_of_the_browser_are_those_of_python() -> None:
    assert module() == OUTPUT.read_text(encoding="utf-8"), "run `python -m training.klt.browser`"


@needs_node
def test_every_golden_payload_is_written_alike() -> None:
    golden = json.loads(GOLDEN_FILE.read_text(encoding="utf-8"))["payloads"]
    calls = [["encode", golden_log_mel(), name] for name in PROFILES]
    *whole, streamed = call([*calls, ["stream", golden_log_mel(), "low", klt.USUAL_LEVEL, []]])
    assert [each.hex() for each in whole] == [golden[name]["payload"] for name in PROFILES]
    assert streamed.hex() == golden["stream"]["payload"]


@needs_node
def test_every_payload_of_speech_is_written_alike(mels: list[Matrix]) -> None:
    given = [(mel, step) for mel in [*mels, *extremes()] for step in STEPS]
    written = call([["encode", mel, step] for mel, step in given])
    assert written == [encode(mel, "klt", step=step).payload for mel, step in given]


@needs_node
def test_every_stream_is_written_alike_however_it_is_cut(mels: list[Matrix]) -> None:
    given = [*mels, *extremes()]
    expected = []
    for mel in given:
        encoder = klt.StreamEncoder("robust", 0.9)
        expected.append(encoder.push(mel) + encoder.finish())
    for cuts in ([], [1], [1, 1, 1]):
        assert call([["stream", mel, "robust", 0.9, cuts if mel.shape[1] > 1 else []] for mel in given]) == expected


@needs_node
def test_payloads_and_streams_decode_to_the_same_log_mel(mels: list[Matrix]) -> None:
    given = [
        (encode(mel, "klt", step=step).payload, mel.shape[1]) for mel in [*mels, *extremes()] for step in (0, "low")
    ]
    for mel in mels:
        encoder = klt.StreamEncoder("standard")
        given.append((encoder.push(mel) + encoder.finish(), mel.shape[1]))
    read = call([["decode", payload, frames] for payload, frames in given])
    for found, (payload, frames) in zip(read, given, strict=True):
        expected = decode("klt", payload, bands=BANDS, frames=frames)
        np.testing.assert_allclose(found.reshape(-1, BANDS).T, expected, atol=1e-4)
    streamed = given[-1][0]
    (whole, cut) = call([["unstream", streamed, []], ["unstream", streamed, [1, 4, 5, 300, 301]]])
    np.testing.assert_array_equal(whole, cut)


@needs_node
def test_what_no_encoder_wrote_is_refused() -> None:
    payload = encode(golden_log_mel(), "klt").payload
    bad = [b"", b"\x02" + payload[1:], bytes((payload[0], COARSEST + 1)) + payload[2:], payload[:3] + b"\xff" * 40]
    for refused in call([["decode", each, 40] for each in bad]):
        assert refused["error"].startswith("MalformedPayload")
    wrong = [["encode", golden_log_mel(), "best"], ["encode", np.full((BANDS, 9), np.nan, np.float32), "low"]]
    for refused in call(wrong):
        assert refused["error"].startswith("RangeError")


@needs_node
def test_the_log_mel_of_speech_is_that_of_python_and_does_not_depend_on_cuts(speech: list[Waveform]) -> None:
    clamped = call([["logMel", waveform, True] for waveform in speech])
    for found, waveform in zip(clamped, speech, strict=True):
        np.testing.assert_allclose(found.reshape(-1, BANDS).T, log_mel(waveform), atol=1e-4)
    first = speech[0]
    for length in (0, 1600, 1601, first.size):
        cuts = [cut for cut in CUTS if cut < length]
        whole, cut = call([["logMel", first[:length], False], ["logMelInPieces", first[:length], cuts]])
        np.testing.assert_array_equal(whole, cut)
        assert whole.size == length // 160 * BANDS


@needs_node
@pytest.mark.parametrize("rate", [4000, 8000, 11_025, 22_050, 44_100, 48_000, 96_000, SAMPLE_RATE])
def test_any_rate_is_resampled_as_in_python(rate: int) -> None:
    waveform = np.random.default_rng(rate).normal(0, 0.1, rate // 2 + 7).astype(np.float32)
    whole, cut = call([["resample", waveform, rate], ["resampleInPieces", waveform, rate, [1, 3, 200, 900]]])
    np.testing.assert_array_equal(whole, cut)
    np.testing.assert_allclose(whole, resample(waveform, rate), atol=1e-6)


@needs_node
def test_an_envelope_is_written_and_read_alike() -> None:
    mel = golden_log_mel()
    payload = encode(mel, "klt").payload
    fields = {"payload": payload, "frames": 40, "seconds": 0.4034, "capturedAt": CAPTURED_MS, "utteranceId": UTTERANCE}
    for device, language, unclamped in (("web", None, False), ("küche-1", "yue", True)):
        own = {"deviceId": device, "language": language, "unclamped": unclamped}
        expected = envelope(payload, 40, 0.4034, device_id=device, language=language, unclamped=unclamped)
        packed = wire.pack(expected)
        assert call([["pack", fields | own]]) == [packed]
        (read,) = call([["unpack", packed]])
        assert read | {"seconds": 0.4034, "capturedAt": CAPTURED_MS} == fields | own
    damaged = packed[:60] + bytes((packed[60] ^ 1,)) + packed[61:]
    for refused in call([["unpack", damaged], ["unpack", packed[:-1]], ["pack", fields | own | {"seconds": 3.0}]]):
        assert refused["error"].startswith("WireError")


@needs_node
def test_nearly_every_envelope_of_a_waveform_is_the_same(speech: list[Waveform]) -> None:
    """Python's spectra are float32: of 360 utterances of LibriSpeech, one has a coefficient that rounds otherwise."""
    fields = {"deviceId": "web", "language": None, "utteranceId": UTTERANCE, "capturedAt": CAPTURED_MS}
    written = call([["envelopeOfWaveform", waveform, "standard", fields] for waveform in speech])
    same = 0
    for found, waveform in zip(written, speech, strict=True):
        mel = log_mel(waveform)
        payload = encode(mel, "klt", step="standard").payload
        same += found == wire.pack(envelope(payload, mel.shape[1], waveform.size / SAMPLE_RATE))
        expected = decode("klt", payload, bands=BANDS, frames=mel.shape[1])
        np.testing.assert_allclose(wire.decode_mel(wire.unpack(found)), expected, atol=1)
    assert same >= len(speech) - 1


@needs_node
def test_the_example_of_the_page_makes_an_envelope(speech: list[Waveform], tmp_path: Path) -> None:
    examples = [block.content for block in blocks("docs/browser.md") if block.language == "javascript"]
    (example,) = [each for each in examples if "pack(" in each]
    samples = resample(speech[0], SAMPLE_RATE, 48_000)
    (tmp_path / "samples").write_bytes(samples.astype("<f4").tobytes())
    around = (
        "import { readFileSync, writeFileSync } from 'node:fs';\n"
        "const samples = new Float32Array(new Uint8Array(readFileSync('samples')).buffer);\n"
        "globalThis.fetch = async (path, { body }) => writeFileSync('body', body);\n"
    )
    module_url = (ROOT / "web" / "amser-codec.js").as_uri()
    (tmp_path / "example.mjs").write_text(around + example.replace("./amser-codec.js", module_url))
    subprocess.run(["node", "example.mjs"], cwd=tmp_path, check=True)
    received = wire.unpack((tmp_path / "body").read_bytes())
    assert (received.device_id, received.language, received.codec) == ("kitchen", "en", "klt")
    np.testing.assert_allclose(received.seconds, speech[0].size / SAMPLE_RATE, atol=0.001)
