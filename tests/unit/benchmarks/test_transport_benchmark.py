"""The rows of `benchmarks.transport`, for one transport and synthetic CPU times."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fastapi.responses import JSONResponse

from amser.features import SAMPLE_RATE
from benchmarks.transport import main, row, rows_of
from deployments.gateway.utterances.answers import Answer, server_timing
from edge_sim.conversation import read_rttm
from edge_sim.costs import Encoded
from edge_sim.exchange import Exchange, simulate
from edge_sim.hardware import hardware_names, load_hardware
from edge_sim.protocol import ANSWER_BODY, ANSWER_HEADER
from edge_sim.transports import by_name
from models.weights import model_path

ENCODED = Encoded(by_name("svd-f16", "0.125"), (4.0, 6.0), (9000, 13_000), (0.002, 0.004))


def test_an_utterance_alone_pays_for_radio_and_computing_apart() -> None:
    phone = load_hardware("phone")
    made = row(ENCODED, phone, phone.radio("lte"), "alone", "keep-alive")
    assert made["payload_bytes"] == 11_000
    assert made["compute_joules"] == pytest.approx(0.003 * 2 * 2)  # CPU seconds × slowdown × watts
    assert made["radio_joules"] > 11.576 * 1.060  # at least its tail
    assert sum(made["radio_joules_by_state"].values()) > made["radio_joules"]  # idle is left out of it


def test_in_a_batch_the_tail_is_paid_once_and_the_cluster_is_not_waited_for() -> None:
    phone = load_hardware("phone")
    made = row(ENCODED, phone, phone.radio("lte"), "batch", "keep-alive")
    session = simulate(
        phone.radio("lte"), [Exchange(at_s, size, 700) for at_s, size in ((0.004, 9000), (0.012, 13_000))]
    )
    assert made["radio_joules"] == pytest.approx(session.radio_joules / 2, rel=0.01)
    assert made["seconds_per_utterance"] == pytest.approx(session.outcomes[-1].answered_s / 2, rel=0.01)


def test_the_connection_makes_its_difference_on_every_radio_that_has_one() -> None:
    rows = {(each["radio"], each["mode"], each["connection"]): each for each in rows_of(ENCODED, ("phone", "ear-bud"))}
    assert {radio for radio, _, _ in rows} == {"lte", "wifi", "3g", "ble"}
    for radio in ("lte", "wifi", "3g"):
        kept, new = (rows[radio, "alone", connection] for connection in ("keep-alive", "new"))
        assert kept["bytes_on_air"] < new["bytes_on_air"]
        assert kept["seconds_per_utterance"] < new["seconds_per_utterance"]
    assert ("ble", "alone", "gateway") in rows
    assert ("ble", "alone", "new") not in rows


def test_a_radio_that_cannot_keep_up_shows_in_the_queue_and_not_in_the_seconds() -> None:
    sensor, phone = load_hardware("lora-sensor"), load_hardware("phone")
    slow = row(ENCODED, sensor, sensor.radio(), "conversation", "gateway")
    assert slow["queued_seconds"] > 500
    alone = row(ENCODED, sensor, sensor.radio(), "alone", "gateway")
    assert slow["seconds_per_utterance"] == pytest.approx(alone["seconds_per_utterance"], rel=0.01)
    assert row(ENCODED, phone, phone.radio(), "conversation", "keep-alive")["queued_seconds"] == 0


def test_every_device_carries_a_codec_that_there_is() -> None:
    for name in hardware_names():
        assert by_name(*load_hardware(name).codec)


def test_the_answer_that_is_counted_is_one_that_the_cluster_could_give() -> None:
    answer = Answer.model_validate_json(ANSWER_BODY)
    assert JSONResponse(answer.model_dump()).body == ANSWER_BODY
    queues = {"mel": 0.41, "asr": 31.27, "text_embedding": 0.52, "text_encoder": 0.67, "fusion": 0.73}
    assert f"server-timing: {server_timing(answer.timings_ms, queues)}\r\n".encode() in ANSWER_HEADER
    assert f"amser-request-id: {answer.request_id}\r\n".encode() in ANSWER_HEADER


def test_the_command_writes_rows_and_a_plot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sample = model_path("sample-conversation")
    manifest, out = tmp_path / "made.tsv", tmp_path / "out.json"
    manifest.write_text(f"path\n{sample / 'sample.wav'}\n")
    main(["--manifest", str(manifest), "--json", str(out), "--device", "speaker", "--transport", "pcm:16-bit"])
    rows = json.loads(out.read_text())
    turns = read_rttm((sample / "sample.rttm").read_text())
    assert rows[0]["seconds_of_speech"] >= turns[-1].end_s
    assert rows[0]["payload_bytes"] == pytest.approx(2 * SAMPLE_RATE * rows[0]["seconds_of_speech"], rel=0.001)
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "Amser+, 22366 files" in printed
    assert "about 50 W" in printed
