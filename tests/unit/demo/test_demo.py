"""The demo: turns of the conversation, devices that speak at once, the numbers, and an orderly end."""

from __future__ import annotations

import argparse
import io
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from stand_in import Response, StandIn, stand_in

from amser.client.exchange.answer import Answer
from amser.wire import unpack
from demo.__main__ import main
from demo.fleet import Result, speak
from demo.report import summarize, turns_table
from deployments.local_cluster import ClusterFailed
from edge_sim.conversation import SpokenTurn, Turn, load_conversation, read_rttm, whole_turns
from models.weights import model_path


@pytest.fixture(scope="module")
def conversation() -> list[SpokenTurn]:
    return load_conversation(model_path("sample-conversation"))


@pytest.fixture(autouse=True)
def sigterm() -> Iterator[None]:
    """Takes back the handler that the demo installs."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def answered(turn: int, answer_ms: float) -> Result:
    answer = Answer("sad", {"sad": 0.9}, 0.9, (), "Well.", "en", 1_000, 10_000, 2.0, answer_ms, 1, {}, (), {})
    return Result("phone-1", turn, answer)


# --- Turns ------------------------------------------------------------------------------------------------------------


def test_rttm_lines_are_turns() -> None:
    text = ";; comment\nSPEAKER call 1 6.690 0.430 <NA> <NA> anna <NA> <NA>\n\n"
    assert read_rttm(text) == [Turn("anna", 6.69, 7.12)]
    with pytest.raises(ValueError, match="line 1 is no SPEAKER line"):
        read_rttm("SPEAKER call 1 now 0.4")


def test_a_speaker_who_pauses_briefly_has_one_turn_even_if_the_other_speaks_meanwhile() -> None:
    turns = [Turn("anna", 0.0, 1.0), Turn("ben", 0.9, 1.5), Turn("anna", 1.2, 2.0), Turn("anna", 2.5, 3.0)]
    assert whole_turns(turns) == [Turn("anna", 0.0, 2.0), Turn("ben", 0.9, 1.5), Turn("anna", 2.5, 3.0)]


def test_a_turn_within_another_of_the_same_speaker_does_not_shorten_it() -> None:
    assert whole_turns([Turn("anna", 0.0, 3.0), Turn("anna", 1.0, 2.0)]) == [Turn("anna", 0.0, 3.0)]


def test_turns_without_a_word_are_left_out() -> None:
    assert whole_turns([Turn("anna", 0.0, 0.39), Turn("ben", 1.0, 1.41)]) == [Turn("ben", 1.0, 1.41)]


def test_the_sample_conversation_has_nine_turns(conversation: list[SpokenTurn]) -> None:
    assert len(conversation) == 9
    assert {speech.turn.speaker for speech in conversation} == {"speaker90", "speaker91"}
    for speech in conversation:
        assert speech.waveform.size == pytest.approx(16_000 * speech.turn.seconds, abs=1)


# --- Numbers ----------------------------------------------------------------------------------------------------------


def test_percentiles_are_times_that_were_measured(conversation: list[SpokenTurn]) -> None:
    order = np.random.default_rng(0).permutation(100) + 1
    summary = summarize([answered(0, float(ms)) for ms in order], conversation, 10.0)
    assert [summary.percentile(percent) for percent in (50, 95, 99)] == [50, 95, 99]
    assert summarize([answered(0, 7.0)], conversation, 1.0).percentile(99) == 7


def test_the_summary_counts_answers_failures_speech_and_bytes(conversation: list[SpokenTurn]) -> None:
    full = Result("phone-2", 0, failure="429 Too Many Requests")
    results = [answered(0, 10.0), answered(1, 20.0), full, full, Result("phone-3", 2, failure="no answer in time")]
    summary = summarize(results, conversation, 5.0)
    assert summary.answered == 2
    assert summary.failures == {"429 Too Many Requests": 2, "no answer in time": 1}
    assert summary.speech_seconds == pytest.approx(conversation[0].turn.seconds + conversation[1].turn.seconds)
    assert (summary.bytes_sent, summary.pcm_bytes) == (2_000, 20_000)


def test_a_turn_that_nobody_should_act_upon_says_so(conversation: list[SpokenTurn]) -> None:
    sure = answered(0, 10.0)
    assert sure.answer is not None
    nobody = replace(sure.answer, emotion=None, doubts=("no_speech",), text="", speech="none")
    results = [
        sure,
        replace(sure, turn=1, answer=replace(sure.answer, doubts=("no_words",), text="")),
        replace(sure, turn=2, answer=nobody),
    ]
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(turns_table(results, conversation, 100))
    rows = [line for line in console.export_text().splitlines() if "speaker9" in line]
    assert "sad 0.90" in rows[0]
    assert "no words" in rows[1]
    assert "unsure (sad?)" in rows[1]
    assert "no speech" in rows[2]
    assert "none" in rows[2]


# --- Devices ----------------------------------------------------------------------------------------------------------


def test_each_device_has_its_own_name_connection_and_first_turn(conversation: list[SpokenTurn]) -> None:
    with stand_in(*[Response(after_s=1.0)] * 3) as cluster:
        results = speak(conversation, cluster.url, devices=3, seconds=0.5, progress=lambda _: None)
    assert sorted((result.device_id, result.turn) for result in results) == [
        ("phone-1", 0),
        ("phone-2", 1),
        ("phone-3", 2),
    ]
    assert {unpack(request.body).device_id for request in cluster.received} == {"phone-1", "phone-2", "phone-3"}
    assert len({request.connection for request in cluster.received}) == 3


def test_a_failure_is_counted_and_the_device_goes_on(conversation: list[SpokenTurn]) -> None:
    refusal = Response(413, {"title": "Content Too Large", "detail": "differs each time"})
    with stand_in(refusal, Response(after_s=0.5)) as cluster:
        results = speak(conversation, cluster.url, devices=1, seconds=0.8, progress=lambda _: None)
    assert [(result.turn, result.failure) for result in results[:2]] == [(0, "413 Content Too Large"), (1, None)]


# --- The whole of it --------------------------------------------------------------------------------------------------


class StandInCluster:
    """Looks like a `LocalCluster`: two deployments that become healthy, and a server behind its URL."""

    def __init__(self, server: StandIn, ready: Callable[[], None]) -> None:
        self.url = server.url
        self._ready = ready

    def wait_until_ready(
        self, timeout_s: float = 180, progress: Callable[[dict[str, str]], None] | None = None
    ) -> None:
        assert timeout_s > 0
        assert progress is not None
        progress({})
        progress({"Ingress": "HEALTHY", "WhisperASR": "UPDATING"})
        self._ready()


@pytest.fixture
def run(conversation: list[SpokenTurn], tmp_path: Path) -> Callable[..., tuple[int, list[str]]]:
    """Runs the demo with a stand-in cluster: its exit code, and whether the cluster was ended."""
    assert conversation, "the demo reads it again"

    def demo(*arguments: str, ready: Callable[[], None] = lambda: None) -> tuple[int, list[str]]:
        events: list[str] = []

        @contextmanager
        def cluster(_: argparse.Namespace) -> Iterator[StandInCluster]:
            with stand_in(*[Response(after_s=0.02)] * 1000) as server:
                try:
                    yield StandInCluster(server, ready)
                finally:
                    events.append("ended")

        return main(["--seconds", "1", "--log", str(tmp_path / "ray.log"), *arguments], start=cluster), events

    return demo


def test_the_demo_prints_each_turn_once_and_the_numbers(
    run: Callable[..., tuple[int, list[str]]], conversation: list[SpokenTurn], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--devices", str(len(conversation))) == (0, ["ended"])
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    assert max(map(len, lines)) <= 100
    for speech in conversation:
        span = f"{speech.turn.start_s:.1f}–{speech.turn.end_s:.1f}"
        (row,) = [line for line in lines if line.split()[:1] == [span]]
        assert "Good morning." in row
        assert "happy 0.85" in row
    for expected in ("requests/s", "p50", "p95", "p99", "of PCM", "/docs", "ray.log"):
        assert expected in printed


def test_on_80_columns_every_cell_can_be_read(
    run: Callable[..., tuple[int, list[str]]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run("--devices", "2") == (0, ["ended"])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)
    assert any("speaker90" in line and "Good morning." in line and "happy 0.85" in line for line in lines)


def test_what_the_demo_prints_becomes_a_picture_that_fetches_nothing(
    run: Callable[..., tuple[int, list[str]]], tmp_path: Path
) -> None:
    file = tmp_path / "demo.svg"
    assert run("--svg", str(file)) == (0, ["ended"])
    picture = file.read_text(encoding="utf-8")
    assert "Good&#160;morning." in picture
    assert "requests/s" in picture
    assert "url(http" not in picture


def test_ctrl_c_ends_the_cluster_with_a_calm_line(
    run: Callable[..., tuple[int, list[str]]], capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted() -> None:
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job may ignore it
    try:
        assert run(ready=interrupted) == (130, ["ended"])
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1] == "Stopped. The cluster has ended."
    assert "Traceback" not in printed.out + printed.err


def test_sigterm_ends_the_cluster_too(run: Callable[..., tuple[int, list[str]]]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(ready=lambda: signal.raise_signal(signal.SIGTERM))
    assert ended.value.code == 143


def test_a_cluster_that_does_not_start_is_told_with_the_end_of_its_log(
    run: Callable[..., tuple[int, list[str]]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        (tmp_path / "ray.log").write_text("\n".join(f"line {number}" for number in range(100)))
        raise ClusterFailed("DEPLOY_FAILED\n" + "a frame of a traceback\n" * 50 + "no room")

    assert run(ready=fail) == (1, ["ended"])
    printed = capsys.readouterr().out
    assert "no room" in printed
    assert "line 99" in printed
    assert "line 80" not in printed
    assert len(printed.splitlines()) < 40
    assert "DEPLOY_FAILED" in (tmp_path / "ray.log").read_text()  # nothing of the reason is lost


@pytest.mark.parametrize("wrong", [["--seconds", "0"], ["--devices", "65"], ["--devices", "some"]])
def test_options_out_of_bounds_are_wrong_usage(wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(wrong)
    assert ended.value.code == 2
