"""`send`, as people call it: the table, JSON, pipes, and what is not lost where something fails.

The cluster is a real HTTP server on loopback that plays given responses.
"""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from recordings import DATA, rows
from stand_in import ANSWER, NO_SPEECH, Response, StandIn, stand_in
from tenacity import wait_none

from amser.client.command_line import main
from amser.client.exchange import retries
from amser.features import SAMPLE_RATE
from amser.wire import unpack
from models.weights import model_path

FILES = [str(DATA / row["path"]) for row in rows("speech/librispeech.tsv")[:3]]
LONG_WORDS = "He was in a fevered state of mind, owing to the blight his wife's action threatened to cast."


@pytest.fixture
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "BACKOFF", wait_none())


@pytest.fixture
def call(tmp_path: Path) -> Callable[..., int]:
    """Sends a tone of a second."""
    t = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    soundfile.write(tmp_path / "call.wav", 0.5 * np.sin(2 * np.pi * 440 * t), SAMPLE_RATE)
    return lambda url, *more: main(["send", str(tmp_path / "call.wav"), "--no-split", "--url", url, *more])


def unused_url() -> str:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def test_the_table_shows_words_emotion_and_costs(call: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    with stand_in() as cluster:
        assert call(cluster.url) == 0
    sent = len(cluster.received[0].body)
    row = next(line for line in capsys.readouterr().out.splitlines() if "call.wav" in line)
    assert row.split()[:7] == ["call.wav", "0.0–1.0", "Good", "morning.", "happy", "0.85", f"{sent:,}"]
    assert row.split()[7] == f"{100 * sent / 32_000:.1f}"


def test_an_emotion_not_to_be_acted_upon_is_shown_as_a_question(
    call: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    doubtful = Response(body={**ANSWER, "uncertain": True, "doubts": ["short"]})
    with stand_in(doubtful) as cluster:
        assert call(cluster.url) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if "call.wav" in line)
    assert "unsure (happy?)" in row
    assert "0.85" not in row


@pytest.mark.parametrize("columns", ["80", "120"])
@pytest.mark.parametrize(
    ("changed", "words", "emotion"),
    [
        (NO_SPEECH, "no speech", "none"),
        ({"transcript": {**ANSWER["transcript"], "text": ""}}, "no words", "happy 0.85"),
        (
            {"speech": "doubtful", "doubts": ["doubtful_speech"], "degraded": ["text"]},
            "Good morning. (perhaps no speech; without text)",
            "unsure (happy?)",
        ),
        ({"warnings": ["language_mismatch"]}, "Good morning. (heard en)", "happy 0.85"),
    ],
)
def test_the_table_says_where_nobody_speaks_and_what_is_doubtful(
    call: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    columns: str,
    changed: dict[str, Any],
    words: str,
    emotion: str,
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    with stand_in(Response(body=ANSWER | changed)) as cluster:
        assert call(cluster.url) == 0
    table = capsys.readouterr().out.split("1 answered")[0]
    row = next(line for line in table.splitlines() if "call.wav" in line)
    assert emotion in row
    assert "None" not in table
    shown = table.partition(row)[2].splitlines()  # the words go on below
    assert words.split() == [*_words_of(row, emotion), *" ".join(shown).split()]


def _words_of(row: str, emotion: str) -> list[str]:
    return row.partition("0.0–1.0")[2].partition(emotion)[0].split()


def test_json_has_no_emotion_where_nobody_speaks(call: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    with stand_in(Response(body=NO_SPEECH)) as cluster:
        assert call(cluster.url, "--json") == 0
    turn = json.loads(capsys.readouterr().out)
    assert (turn["speech"], turn["emotion"], turn["doubts"]) == ("none", None, ["no_speech"])
    assert turn["bytes_sent"] == len(cluster.received[0].body)


def test_the_emotions_to_choose_among_are_passed_on(call: Callable[..., int]) -> None:
    with stand_in() as cluster:
        assert call(cluster.url, "--emotions", "happy, sad") == 0
    assert cluster.received[0].path == "/v1/emotion?emotions=happy%2Csad"


def test_on_80_columns_the_words_have_room(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    answer = Response(body={**ANSWER, "transcript": {**ANSWER["transcript"], "text": LONG_WORDS}})
    with stand_in(answer) as cluster:
        assert main(["send", FILES[0], "--no-split", "--url", cluster.url]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "answer" in lines[1]
    assert "device" not in lines[1]
    words = next(line for line in lines if "He was" in line)
    assert len(words[words.index("He was") : words.index("happy")].strip()) > 16
    assert "of PCM (" in lines[-1]  # the totals have what a row leaves out


def test_json_has_a_line_for_each_turn(call: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    with stand_in() as cluster:
        assert call(cluster.url, "--json", "--codec", "svd-i8", "--rate", "0.5", "--language", "de") == 0
    (line,) = capsys.readouterr().out.splitlines()
    turn = json.loads(line)
    envelope = unpack(cluster.received[0].body)
    assert (envelope.codec, envelope.language) == ("svd-i8", "de")
    assert (turn["emotion"], turn["end_s"], turn["bytes_sent"]) == ("happy", 1.0, len(cluster.received[0].body))


def test_standard_input_is_sent_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(Path(FILES[0]).read_bytes())))
    with stand_in() as cluster:
        assert main(["send", "-", FILES[1], "--no-split", "--json", "--url", cluster.url]) == 0
    turns = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [turn["file"] for turn in turns] == ["-", FILES[1]]
    assert turns[0]["end_s"] == pytest.approx(soundfile.info(FILES[0]).duration, abs=0.001)


def test_a_recording_without_speech_is_said_to_have_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model_path("silero-vad")
    soundfile.write(tmp_path / "quiet.wav", np.zeros(2 * SAMPLE_RATE), SAMPLE_RATE)
    with stand_in() as cluster:
        assert main(["send", str(tmp_path / "quiet.wav"), "--url", cluster.url]) == 0
    assert cluster.received == []
    printed = capsys.readouterr().out
    assert "no speech" in printed
    assert "0 answered · 0 failed" in printed


# --- What is not lost -------------------------------------------------------------------------------------------------


def test_one_file_that_fails_does_not_keep_the_others_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.wav").write_text("not audio")
    files = [str(tmp_path / "notes.wav"), str(tmp_path / "gone.wav"), str(tmp_path), FILES[0]]
    with stand_in() as cluster:
        assert main(["send", *files, "--no-split", "--url", cluster.url]) == 1
    printed = capsys.readouterr().out
    assert "notes.wav: the file is no audio that can be read" in printed
    assert "gone.wav: No such file or directory" in printed
    assert f"{tmp_path.name}: Is a directory" in printed
    assert "1 answered · 3 failed" in printed


@pytest.mark.parametrize("spooled", [False, True])
def test_one_utterance_that_cannot_be_encoded_does_not_keep_the_others_back(
    spooled: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write(tmp_path / "long.wav", np.random.default_rng(0).standard_normal(31 * SAMPLE_RATE) / 10, SAMPLE_RATE)
    more = ["--spool", str(tmp_path / "a.spool")] if spooled else []
    with stand_in() as cluster:
        files = [str(tmp_path / "long.wav"), FILES[0]]
        assert main(["send", *files, "--no-split", "--json", "--url", cluster.url, *more]) == 1
    turns = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [turn["emotion"] for turn in turns] == [None, "happy"]
    assert "accepted: 3000 at most" in turns[0]["failure"]


@pytest.mark.parametrize(
    "trouble",
    [
        Response(422, {"title": "Unprocessable Content"}),
        Response(500, b"oops"),
        Response(200, b"<h1>Welcome to our hotel</h1>"),
        Response(200, b"no gzip", {"Content-Encoding": "gzip"}),
    ],
)
def test_one_utterance_that_gets_no_answer_does_not_keep_the_others_back(
    trouble: Response, capsys: pytest.CaptureFixture[str]
) -> None:
    with stand_in(Response(), trouble) as cluster:
        assert main(["send", *FILES, "--no-split", "--json", "--url", cluster.url]) == 1
    turns = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [turn["emotion"] for turn in turns] == ["happy", None, "happy"]


@pytest.mark.usefixtures("no_backoff")
def test_a_deadline_that_was_missed_once_is_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    with stand_in(Response(504, {"title": "Gateway Timeout"}), Response(408, b"")) as cluster:
        assert main(["send", FILES[0], "--no-split", "--json", "--url", cluster.url]) == 0
    assert json.loads(capsys.readouterr().out)["attempts"] == 3


def test_what_was_answered_before_ctrl_c_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    class Interrupting(StandIn):
        """Answers once; the second request finds the user out of patience."""

        def play(self, request: BaseHTTPRequestHandler) -> None:
            if self.received:
                os.kill(os.getpid(), signal.SIGINT)
            super().play(request)

    cluster = Interrupting([Response(), Response(after_s=5)])
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job may ignore it
    try:
        assert main(["send", *FILES, "--no-split", "--url", cluster.url]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
        cluster.close()
    printed = capsys.readouterr()
    assert "1 answered · 0 failed" in printed.out
    assert printed.err.splitlines()[-1] == "amser: stopped"


@pytest.mark.usefixtures("no_backoff")
def test_a_cluster_that_is_not_there_comes_with_the_command_that_starts_one(
    call: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    url = unused_url()
    assert call(url) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"amser: {url} cannot be reached: ")
    assert "python -m demo --keep" in told
    assert "--spool" in told


# --- Wrong usage ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong", [["--rate", "0"], ["--emotions", "happy"], ["--rate", "many"], ["--codec", "mp3"], ["--url", "somewhere"]]
)
def test_wrong_usage_has_exit_code_2(call: Callable[..., int], wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        call("http://127.0.0.1:1", *wrong)
    assert ended.value.code == 2


def test_without_a_detector_the_remedy_is_a_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AMSER_CACHE", str(tmp_path))
    assert main(["send", FILES[0]]) == 1
    told = capsys.readouterr().err
    assert told.startswith("amser: ")
    assert "python -m models.weights fetch silero-vad" in told
    assert "--no-split" in told
