"""`python -m edge_sim` on real speech: what an utterance costs by transport and radio, and what is no recording."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from recordings import DATA, rows

from amser.features import SAMPLE_RATE
from edge_sim.command_line import main
from edge_sim.hardware import hardware_names, load_hardware
from edge_sim.transports import TRANSPORTS

FILES = [str(DATA / row["path"]) for row in rows("speech/librispeech.tsv")[:2]]


def simulated(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    """The rows of a run with `--json`."""
    assert main([*FILES, "--json", *arguments]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_fewer_bytes_cost_less_radio_on_every_radio_of_the_device(capsys: pytest.CaptureFixture[str]) -> None:
    found = simulated(capsys, "--transport", "klt:standard", "opus:16k", "pcm:16-bit")
    assert [row["radio"] for row in found] == [radio for radio in ("lte", "wifi", "3g") for _ in range(3)]
    for radio in ("lte", "wifi", "3g"):
        klt, opus, pcm = (row for row in found if row["radio"] == radio)
        for cost in ("payload_bytes", "bytes_over_radio", "seconds"):
            assert klt[cost] < opus[cost] < pcm[cost]
        assert klt["radio_joules"] < pcm["radio_joules"]
        assert klt["payload_bytes"] < klt["bytes_over_radio"]


def test_a_row_is_the_mean_of_its_utterances_and_adds_up(capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = simulated(capsys, "--radio", "wifi", "--transport", "pcm")
    seconds = [soundfile.info(file).duration for file in FILES]
    assert row["utterances"] == 2
    assert row["seconds_of_speech"] == pytest.approx(np.mean(seconds), abs=0.001)
    assert row["payload_bytes"] == pytest.approx(2 * SAMPLE_RATE * np.mean(seconds), abs=100)
    states = row["radio_joules_by_state"]
    assert row["radio_joules"] == pytest.approx(sum(states.values()) - states["idle"])
    supply = load_hardware("phone").supply
    assert row["battery_share"] == pytest.approx((row["radio_joules"] + row["compute_joules"]) / supply.battery_joules)


def test_modes_and_connections_make_their_difference(capsys: pytest.CaptureFixture[str]) -> None:
    lte = ("--radio", "lte", "--transport", "klt:low")
    (alone,), (talk,), (new,) = (
        simulated(capsys, *lte, *more)
        for more in ([], ["--mode", "conversation"], ["--mode", "conversation", "--connection", "new"])
    )
    assert talk["radio_joules"] < alone["radio_joules"]  # the tail of one utterance is the start of the next
    assert talk["bytes_over_radio"] < new["bytes_over_radio"]
    assert (alone["connection"], new["connection"]) == ("keep-alive", "new")


def test_a_radio_with_a_gateway_has_no_connection_to_choose(capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = simulated(capsys, "--device", "ear-bud", "--transport", "klt:low", "--connection", "new")
    assert (row["radio"], row["connection"]) == ("ble", "gateway")


def test_a_transport_without_a_setting_is_all_of_its_settings(capsys: pytest.CaptureFixture[str]) -> None:
    found = simulated(capsys, "--radio", "wifi", "--transport", "interpolation")
    assert [row["setting"] for row in found] == list(TRANSPORTS["interpolation"].settings)


@pytest.mark.parametrize("device", hardware_names())
def test_the_table_of_every_device_fits_80_columns(
    device: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    transports = ["interpolation:8x4", "opus:32k-60ms", "pcm:16-bit", "klt:low"]
    assert main([*FILES, "--device", device, "--transport", *transports]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)
    for transport in transports:
        row = next(line.split() for line in lines if transport in line)
        assert len(row) == 8


def test_the_list_names_what_the_options_take(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["--list"]) == 0
    listed = capsys.readouterr().out
    assert set(hardware_names()) | set(TRANSPORTS) <= set(listed.split())
    assert {radio for name in hardware_names() for radio in load_hardware(name).radios} <= set(listed.split())
    assert max(map(len, listed.splitlines())) <= 80


def test_one_recording_that_is_none_does_not_keep_the_others_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.wav").write_text("not audio")
    soundfile.write(tmp_path / "long.wav", np.zeros(31 * SAMPLE_RATE), SAMPLE_RATE)
    files = [str(tmp_path / name) for name in ("notes.wav", "long.wav", "gone.wav")]
    assert main([*files, *FILES, "--radio", "wifi", "--transport", "klt:low", "--json"]) == 1
    printed = capsys.readouterr()
    assert json.loads(printed.out)["utterances"] == len(FILES)
    first, second, third = printed.err.splitlines()
    assert first.startswith(f"edge_sim: {files[0]}: the file is no audio that can be read")
    assert second == f"edge_sim: {files[1]}: the recording is longer than 30 s; accepted: up to 30 s"
    assert third == f"edge_sim: {files[2]}: No such file or directory"


def test_a_recording_may_come_through_a_pipe(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(Path(FILES[0]).read_bytes())))
    assert main(["-", "--radio", "wifi", "--transport", "klt:low", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["utterances"] == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no recordings: name them first"),
        ([FILES[0], "--device", "toaster"], "no device 'toaster'; there are phone, speaker"),
        ([FILES[0], "--radio", "ble"], "no phone radio 'ble'; there are lte, wifi, 3g"),
        ([FILES[0], "--transport", "fax"], "no transport 'fax'; accepted: pcm, flac"),
        ([FILES[0], "--transport", "mp3:7k"], "mp3 has no setting '7k'; accepted: 8k, 16k"),
        (["-", "-"], "can be read once only"),
    ],
)
def test_wrong_usage_is_one_line_and_names_the_help(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("edge_sim: ")
    assert said in first
    assert second == "See: python -m edge_sim --help"
