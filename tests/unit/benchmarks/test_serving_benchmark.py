"""The benchmark of serving: which clips are taken, what a closed loop counts, and the reference server's HTTP."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile
from fastapi.testclient import TestClient
from recordings import audio_file, speakers, waveform_of

from amser.features import SAMPLE_RATE
from benchmarks.measuring.closed_loop import (
    Pass,
    Reply,
    Send,
    agreement,
    figures,
    measure,
    memory_mb,
    wer,
    word_errors,
)
from benchmarks.measuring.command import NothingMeasured
from benchmarks.measuring.manifest import read_manifest
from benchmarks.measuring.reference_server import READY, ROUTE, Arrangement, build
from benchmarks.serving import CORES, NOTHING, Clip, comparisons, read_clips, row, spread, wer_above
from models.weights import model_path

REFERENCES = ("GOOD DAY MY FRIEND", "RAIN FALLS ON ROOFS")
REPLIES = {0: Reply("good day my friend", "happy"), 1: Reply("Rain, falls: in roofs.", "sad")}
DONE = Pass(elapsed_s=4.0, latencies_ms=(1000.0, 3000.0), replies=REPLIES, cpu_s=3.0, memory_mb=500.0)


class ThisProcess:
    """The server whose CPU time and memory are read here."""

    url = ""

    def processes(self) -> list[psutil.Process]:
        return [psutil.Process()]


def test_clips_are_spread_over_lengths_and_speakers() -> None:
    clips = [("ann" if position % 3 else "bob", float(position)) for position in range(30)]
    chosen = spread(clips, 10)
    assert sorted(position // 3 for position in chosen) == list(range(10))  # one of every tenth by length
    assert sum(clips[position][0] == "bob" for position in chosen) == 5
    assert chosen == spread(clips, 10)
    assert chosen != sorted(chosen)


def test_no_more_clips_are_taken_than_there_are() -> None:
    assert sorted(spread([("ann", 2.0), ("bob", 1.0)], 40)) == [0, 1]


def test_a_clip_is_its_file_its_waveform_and_its_words(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", np.full(SAMPLE_RATE, 0.25), SAMPLE_RATE)
    manifest = tmp_path / "manifest.tsv"
    manifest.write_text("path\tspeaker\tseconds\ttext\na.flac\tann\t1.0\tGOOD DAY\n")
    (clip,) = read_clips(read_manifest(manifest, ("path", "text")), 40)
    assert clip.reference == "GOOD DAY"
    assert clip.audio == (tmp_path / "a.flac").read_bytes()
    assert clip.seconds == 1.0
    np.testing.assert_allclose(clip.waveform, 0.25)


def test_clients_share_the_clips_and_each_waits_for_its_answer() -> None:
    sent: list[int] = []
    running, most = 0, 0
    lock = threading.Lock()

    def send(clip: int) -> Reply:
        nonlocal running, most
        with lock:
            sent.append(clip)
            running += 1
            most = max(most, running)
        time.sleep(0.05)
        with lock:
            running -= 1
        return Reply(failure="full") if clip == 2 else Reply("words", "happy")

    @contextmanager
    def connect() -> Iterator[Send]:
        yield send

    done = measure(ThisProcess(), connect, range(9), clients=3)
    assert sorted(sent) == list(range(9))
    assert most == 3
    assert done.replies[2] == Reply(failure="full")
    assert len(done.latencies_ms) == 8
    assert min(done.latencies_ms) >= 50
    assert 0.15 <= done.elapsed_s < 0.45  # not one after the other


def test_the_cpu_time_of_the_server_is_counted() -> None:
    def send(_: int) -> Reply:
        until = time.process_time() + 0.2
        while time.process_time() < until:
            pass
        return Reply("words", "happy")

    @contextmanager
    def connect() -> Iterator[Send]:
        yield send

    assert measure(ThisProcess(), connect, [0], clients=1).cpu_s == pytest.approx(0.2, abs=0.1)


def test_memory_counts_a_process_once_with_its_share_of_what_it_has_in_common() -> None:
    process = psutil.Process()
    assert process.memory_full_info().uss / 1e6 <= memory_mb([process]) * 1.01
    assert memory_mb([process]) <= process.memory_info().rss * 1.01 / 1e6


def test_words_are_compared_without_case_and_punctuation() -> None:
    assert wer(REFERENCES, ["Good day. My friend!", "rain falls, in roofs"]) == pytest.approx(100 / 8)


def test_a_row_says_what_a_pass_was() -> None:
    made = figures(DONE, REFERENCES, (2.0, 6.0))
    assert made["requests_per_second"] == 0.5
    assert made["seconds_of_speech_per_second"] == 2.0
    assert made["p50_ms"] == 2000.0
    assert made["cpu_seconds_per_request"] == 1.5
    assert made["wer"] == pytest.approx(100 / 8)
    assert (made["failures"], made["degraded"]) == (0, 0)


def test_an_answer_that_failed_gives_no_throughput_and_counts_with_all_its_words() -> None:
    failed = Pass(4.0, (1000.0,), {**REPLIES, 1: Reply(failure="full")}, 3.0, 500.0)
    made = figures(failed, REFERENCES, (2.0, 6.0))
    assert made["requests_per_second"] == 0.25
    assert made["seconds_of_speech_per_second"] == 0.5
    assert made["wer"] == 50.0
    assert made["failures"] == 1


def test_without_any_answer_the_benchmark_ends_with_the_reason() -> None:
    with pytest.raises(NothingMeasured, match="connection refused"):
        figures(Pass(1.0, (), {0: Reply(failure="connection refused")}, 0.0, 0.0), REFERENCES, (2.0, 6.0))


def test_emotions_are_compared_where_both_answered() -> None:
    reference = {0: Reply("", "happy"), 1: Reply("", "angry"), 2: Reply("", "sad")}
    assert agreement({**REPLIES, 2: Reply(failure="full")}, reference) == 0.5
    assert agreement({0: Reply("", None)}, {0: Reply("", None)}) == 1  # nobody speaks
    assert np.isnan(agreement({}, reference))


CLIPS = [Clip(text, b"", np.zeros(4 * SAMPLE_RATE, np.float32)) for text in REFERENCES]


def test_a_row_is_the_median_of_its_rounds_and_adds_up_what_is_missing() -> None:
    partly = {0: REPLIES[0], 1: Reply("rain falls on roofs", "sad", degraded=True)}
    rounds = [DONE, Pass(2.0, (500.0, 600.0), partly, 3.0, 500.0), Pass(1.0, (500.0, 600.0), partly, 3.0, 500.0)]
    made = row("librispeech", "fused", 8, {None: rounds}, CLIPS, NOTHING)
    assert made["requests_per_second"] == 1.0
    assert made["degraded"] == 2
    assert made["emotion_agreement"] is None
    assert made["requests_per_second_by_round"] == [0.5, 1.0, 2.0]
    assert made["price_of_a_speech_hour"] == pytest.approx(CORES * 0.04 / 4, abs=1e-5)  # a core-hour costs 0.04


def test_a_reference_system_is_shown_in_the_arrangement_that_was_fastest() -> None:
    slower, faster = Arrangement(1, 2), Arrangement(2, 1)
    made = row(
        "librispeech",
        "faster-whisper-monolith",
        8,
        {slower: [DONE], faster: [replace(DONE, elapsed_s=2.0)]},
        CLIPS,
        DONE,
    )
    assert made["requests_per_second"] == 1.0
    assert made["arrangement"].startswith("2 × 1")
    assert list(made["requests_per_second_by_arrangement"].values()) == [0.5, 1.0]
    assert made["emotion_agreement"] == 1.0


def test_throughput_and_words_are_compared_for_each_number_of_clients() -> None:
    fused = {"speech": "short", "system": "fused", "clients": 8, "degraded": 0}
    fused |= {"requests_per_second_by_round": [5.0, 6.0, 5.0]}
    fused |= {"errors_by_clip": [2, 0, 1], "words_by_clip": [10, 20, 20]}
    rows = [
        fused,
        {**fused, "system": "openai-whisper-monolith", "errors_by_clip": [1, 0, 1]}
        | {"requests_per_second_by_round": [1.0, 1.0, 1.25]},
        {**fused, "system": "distributed", "requests_per_second_by_round": [4.0, 4.8, 4.0], "degraded": 1},
        {**fused, "system": "distributed", "clients": 1},
        {**fused, "system": "distributed", "speech": "long"},
    ]
    faster, slower = comparisons(rows)
    assert faster.startswith(
        "short, 8 clients: fused / openai-whisper-monolith = 5.00 (4.00 to 6.00) × throughput, WER +2.00 ± "
    )
    assert slower == (
        "short, 8 clients: distributed / fused = 0.80 (0.80 to 0.80) × throughput, WER +0.00 ± 0.00 points; "
        "NOT THE SAME WORK: 1 answer degraded"
    )


def test_words_are_compared_clip_by_clip_though_rounds_differ_in_number() -> None:
    one = {"errors_by_clip": [2, 0, 2], "words_by_clip": [20, 40, 40]}  # two rounds
    other = {"errors_by_clip": [1, 0, 0], "words_by_clip": [10, 20, 20]}
    more, error = wer_above(one, other)
    assert more == pytest.approx(2.0)
    assert 0 < error < 4


def test_where_nothing_is_said_no_words_count() -> None:
    errors, words = word_errors(["", "rain falls"], ["noise", "rain fell"])
    assert (errors.tolist(), words.tolist()) == ([0, 1], [0, 2])


def test_the_reference_server_answers_a_file_with_words_and_emotion_and_refuses_other_bytes() -> None:
    for name in ("whisper-base", "all-minilm-l6-v2", "spacy-en-core-web-md"):
        model_path(name)
    clip = speakers(2)[1]
    content = audio_file(waveform_of(clip["path"]), "flac", "flac")
    with TestClient(build("faster-whisper", beam_size=1)) as client:
        assert client.get(READY).is_success
        answer = client.post(ROUTE, params={"language": "en"}, content=content).json()
        broken = client.post(ROUTE, content=b"no audio")
    assert wer([clip["text"]], [answer["transcript"]["text"]]) <= 10
    assert answer["probabilities"][answer["emotion"]] == max(answer["probabilities"].values())
    assert sum(answer["probabilities"].values()) == pytest.approx(1.0)
    assert broken.status_code == 400
    assert "send WAV or FLAC" in broken.json()["detail"]
