"""`batch`, `listen` and `jobs`, as people call them; the microphone is a file, or a stand-in for PortAudio."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from recordings import Waveform, noise, silence, speakers, waveform_of
from stand_in import ANSWER, Response, stand_in
from tenacity import wait_none

from amser import batch, wire
from amser.client import Client, Microphone, NoMicrophone
from amser.client.command_line import main
from amser.client.exchange import plans, retries
from amser.client.sources import BLOCK_S, turns
from amser.client.spool_view import SpoolView
from amser.features import SAMPLE_RATE, Float32

NOWHERE = "http://127.0.0.1:9"
PROBLEM = {"type": "/problems/unusable", "title": "Unusable speech", "status": 422, "detail": "too short"}
RESULT = {
    "text": "Good morning.",
    "language": "en",
    "seconds": 3723.4,
    "segments": [
        {
            "start": 3700.5,
            "end": 3701.5,
            "text": "Good morning, [bold]everybody, and thank you for coming to this rather long sentence[/bold].",
            "language": "en",
            "emotion": "happy",
            "confidence": 0.9,
            "probabilities": {"happy": 0.9},
        }
    ],
    "emotion": "happy",
    "confidence": 0.9,
    "probabilities": {"happy": 0.9},
    "warnings": ["audio_damaged"],
}


@pytest.fixture(autouse=True)
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "BACKOFF", wait_none())
    monkeypatch.setattr(plans, "SOONEST_POLL_S", 0.001)


@pytest.fixture(scope="module")
def conversation() -> Waveform:
    """The same words twice with a pause of 1.5 s between them."""
    words = waveform_of(speakers(1)[0]["path"])[: round(2.5 * SAMPLE_RATE)]
    return np.concatenate([silence(1), words, silence(1.5), words, silence(1)])


@pytest.fixture
def file(tmp_path: Path, conversation: Waveform) -> str:
    soundfile.write(tmp_path / "call.wav", conversation, SAMPLE_RATE)
    return str(tmp_path / "call.wav")


# --- batch ------------------------------------------------------------------------------------------------------------


def answered(*statuses: int) -> Response:
    found = [{"status": each, **({"answer": ANSWER} if each == 200 else {"problem": PROBLEM})} for each in statuses]
    return Response(body={"items": found})


def test_all_turns_of_all_files_go_in_one_request(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write(tmp_path / "quiet.wav", silence(2), SAMPLE_RATE)
    with stand_in(answered(200, 422)) as cluster:
        code = main(
            ["batch", file, str(tmp_path / "quiet.wav"), str(tmp_path / "none.wav"), "--url", cluster.url, "--json"]
        )
    assert code == 1
    (received,) = cluster.received
    assert len(batch.unpack(received.body)) == 2
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line.get("emotion") for line in lines] == ["happy", None, None, None]
    assert [line.get("failure") for line in lines[1:]] == [
        "422 Unusable speech; too short",
        None,
        "No such file or directory",
    ]
    assert lines[0]["end_s"] < lines[1]["start_s"]


def test_the_table_of_a_batch_fits_80_columns(
    file: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with stand_in(answered(200)) as cluster:
        assert main(["batch", file, "--no-split", "--url", cluster.url]) == 0
    shown = capsys.readouterr().out
    assert "Good morning." in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_a_batch_that_reaches_nobody_says_what_helps(
    file: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amser.client.exchange.retries.LONGEST_BACKOFF_S", 0.01)
    assert main(["batch", file, "--no-split", "--url", NOWHERE]) == 1
    assert "Start a cluster on this machine with: python -m demo --keep" in capsys.readouterr().err


# --- listen -----------------------------------------------------------------------------------------------------------


def blocks_of(waveform: Waveform, size: int) -> Iterator[Float32]:
    return (waveform[at : at + size] for at in range(0, waveform.size, size))


@pytest.mark.parametrize("size", [4000, 1600, 20_000])
def test_turns_are_cut_at_pauses_as_they_come(conversation: Waveform, size: int) -> None:
    fed = 0

    def heard() -> Iterator[Float32]:
        nonlocal fed
        for block in blocks_of(conversation, size):
            fed += block.size
            yield block

    found, after = [], []
    for turn in turns(heard()):
        found.append(turn)
        after.append(fed / SAMPLE_RATE - turn.end_s)
    assert len(found) == 2
    assert found[0].start_s == pytest.approx(1, abs=0.5)
    first, second = found
    assert 1 < second.start_s - first.end_s < 2.5
    assert after[0] < 1.5 + size / SAMPLE_RATE  # it was there while the other one was yet to come
    for turn in found:
        start = round(turn.start_s * SAMPLE_RATE)
        np.testing.assert_array_equal(turn.waveform, conversation[start : start + turn.waveform.size])


def test_noise_and_silence_hold_no_turn() -> None:
    heard = np.concatenate([silence(20), noise(20, 0.02)])
    assert list(turns(blocks_of(heard, 4000))) == []


def test_somebody_who_does_not_pause_is_cut_at_30_s() -> None:
    speech = waveform_of(speakers(1)[0]["path"])
    heard = np.tile(speech[4000:-4000], 20)[: 70 * SAMPLE_RATE]
    found = list(turns(blocks_of(heard, 4000)))
    assert sum(each.waveform.size for each in found) > 50 * SAMPLE_RATE
    assert max(each.waveform.size for each in found) <= 30.5 * SAMPLE_RATE
    assert all(one.end_s <= other.start_s + 1e-3 for one, other in pairwise(found))


def test_listening_to_a_file_prints_each_turn(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    with stand_in(Response(), Response(422, PROBLEM)) as cluster:
        assert main(["listen", "--file", file, "--url", cluster.url]) == 1
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("Good morning. · happy 0.85")
    assert second.endswith("422 Unusable speech; too short")
    assert [wire.unpack(each.body).codec for each in cluster.received] == ["klt", "klt"]


def test_what_is_heard_without_a_link_is_kept_in_the_spool(file: str, tmp_path: Path) -> None:
    spool = tmp_path / "waiting.spool"
    with stand_in(*[Response(503, {}, {"Retry-After": "70"})] * 2) as cluster:
        assert main(["listen", "--file", file, "--url", cluster.url, "--spool", str(spool)]) == 3
    with SpoolView(spool) as view:
        assert len(view.waiting()) == 2


def test_without_a_link_listening_ends(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["listen", "--file", file, "--url", NOWHERE]) == 1
    assert "cannot be reached" in capsys.readouterr().err


class PortAudio:
    """As much of sounddevice as is used: its stream plays a recording."""

    PortAudioError = RuntimeError

    def __init__(self, recording: Waveform | None) -> None:
        self.recording, self.asked = recording, SimpleNamespace()

    def InputStream(self, **asked: Any) -> SimpleNamespace:  # noqa: N802 - sounddevice has this name
        if self.recording is None:
            raise self.PortAudioError("Error querying device -1")
        self.asked = SimpleNamespace(**asked)
        return SimpleNamespace(start=self._play, close=lambda: None)

    def _play(self) -> None:
        assert self.recording is not None
        for block in blocks_of(self.recording, self.asked.blocksize):
            self.asked.callback(block[:, None], block.size, None, None)


def test_a_microphone_is_listened_to_until_the_pause(conversation: Waveform, monkeypatch: pytest.MonkeyPatch) -> None:
    portaudio = PortAudio(conversation)
    monkeypatch.setitem(sys.modules, "sounddevice", portaudio)
    with stand_in() as cluster, Client(cluster.url) as client:
        assert client.recognize(Microphone("desk")).text == "Good morning."
    asked = portaudio.asked
    assert (asked.samplerate, asked.channels, asked.device) == (16_000, 1, "desk")
    assert asked.blocksize == BLOCK_S * SAMPLE_RATE
    spoken = wire.unpack(cluster.received[0].body).seconds
    assert spoken == pytest.approx(2.5, abs=0.7)


def test_a_machine_without_a_microphone_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", PortAudio(None))
    with pytest.raises(NoMicrophone, match="cannot be opened: Error querying device"), Microphone():
        pass
    assert main(["listen", "--microphone", "3", "--url", NOWHERE]) == 1
    assert "the microphone 3 cannot be opened" in capsys.readouterr().err


def test_a_microphone_without_its_package_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    assert main(["listen", "--url", NOWHERE]) == 1
    assert "pip install 'amser[microphone]'" in capsys.readouterr().err


# --- jobs -------------------------------------------------------------------------------------------------------------


def job(status: str, **more: Any) -> Response:
    return Response(body={"id": "0f1a", "status": status, "progress": 0.25, **more})


def test_a_recording_is_submitted_waited_for_and_shown_within_80_columns(
    file: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    submitted = Response(202, {"id": "0f1a", "status": "queued", "progress": 0})
    with stand_in(submitted, job("done", result=RESULT)) as cluster:
        assert main(["jobs", "--submit", file, "--wait", "--url", cluster.url]) == 0
    assert [each.method for each in cluster.received] == ["POST", "GET"]
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert "3,700.5–3,701.5" in shown
    assert "[bold]" in shown
    assert "3,723.4 s, en, happy (audio_damaged)" in shown


def test_a_job_is_shown_as_json_and_cancelled(capsys: pytest.CaptureFixture[str]) -> None:
    with stand_in(job("running"), Response(204, b"")) as cluster:
        assert main(["jobs", "0f1a", "--json", "--url", cluster.url]) == 0
        assert main(["jobs", "0f1a", "--cancel", "--json", "--url", cluster.url]) == 0
    running, cancelled = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (running["status"], running["progress"], cancelled["status"]) == ("running", 0.25, "cancelled")


def test_a_job_that_failed_or_is_not_known_fails_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    unknown = Response(404, {"type": "/problems/not-found", "title": "No such route", "status": 404})
    with stand_in(unknown, job("failed", problem=PROBLEM)) as cluster:
        assert main(["jobs", "ffff", "0f1a", "--url", cluster.url]) == 1
    said = capsys.readouterr()
    assert "amser: ffff: 404 No such route" in said.err
    assert "Unusable speech: too short" in said.out


@pytest.mark.parametrize("arguments", [[], ["--cancel", "--submit", "x.wav"], ["a", "--cancel", "--wait"]])
def test_jobs_wants_to_know_which(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["jobs", *arguments])
    assert ended.value.code == 2
