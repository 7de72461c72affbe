"""`send --spool`, `deliver` and `spool`, as people call them."""

from __future__ import annotations

import json
import os
import shlex
import signal
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
import soundfile
from spooled import GONE, POISONED, fill
from stand_in import Response, stand_in

from amser.client.command_line import main
from amser.client.exchange.utterances import Utterance
from amser.client.spool import Spool, SpoolLimits

pytest_plugins = ["spooled"]


@pytest.fixture
def send(tmp_path: Path, path: Path) -> Callable[..., int]:
    t = np.arange(16_000) / 16_000
    soundfile.write(tmp_path / "call.wav", 0.5 * np.sin(2 * np.pi * 440 * t), 16_000)
    file = str(tmp_path / "call.wav")
    return lambda url, *more: main(["send", file, "--no-split", "--spool", str(path), "--url", url, *more])


@pytest.mark.usefixtures("impatient")
def test_without_a_link_send_keeps_the_utterance_and_deliver_brings_its_answer(
    send: Callable[..., int], path: Path, port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"http://127.0.0.1:{port}"
    assert send(url) == 3
    told = capsys.readouterr().err
    assert f"1 utterance is kept in the spool: {url} cannot be reached" in told
    assert f"python -m amser deliver --spool {path} --url {url}" in told
    with stand_in():
        assert main(["deliver", "--spool", str(path), "--url", url]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if "call.wav" in line)
    assert row.split()[:6] == ["call.wav", "0.0–1.0", "Good", "morning.", "happy", "0.85"]
    assert main(["deliver", "--spool", str(path), "--url", url]) == 0  # nothing waits: no cluster is needed


@pytest.mark.usefixtures("impatient")
def test_the_command_that_is_advised_survives_a_shell(
    tmp_path: Path, send: Callable[..., int], port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "o'clock & 8.spool"
    assert send(f"http://127.0.0.1:{port}", "--spool", str(path)) == 3
    advice = capsys.readouterr().err.splitlines()[-1]
    command = shlex.split(advice.removeprefix("Deliver later with: "))
    assert command[:3] == ["python", "-m", "amser"]
    with stand_in():
        assert main(command[3:]) == 0


@pytest.mark.parametrize("exists", [False, True])
def test_a_spool_that_cannot_be_used_is_named_so_that_a_shell_takes_it(
    exists: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "my; calls.spool"
    if exists:
        path.write_text("no database " * 100)
    assert main(["spool", str(path)]) == 1
    told = capsys.readouterr().err
    assert told.startswith("amser: ")
    command = told.partition("with: ")[2].strip()
    assert str(path) in shlex.split(command)


@pytest.mark.usefixtures("impatient")
def test_emotions_that_the_cluster_does_not_know_cost_no_utterance(
    send: Callable[..., int], path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    problem = {"title": "Unprocessable Entity", "detail": "emotions is 'happy,bored'", "parameter": "emotions"}
    with stand_in(*[Response(422, problem)] * 9) as cluster:
        assert send(cluster.url, "--emotions", "happy,bored") == 3
    told = capsys.readouterr().err
    assert "1 utterance is kept in the spool: 422 Unprocessable Entity; emotions is 'happy,bored'" in told
    assert f"--url {cluster.url} --emotions happy,bored" in told
    with stand_in() as cluster:
        assert main(["deliver", "--spool", str(path), "--url", cluster.url, "--emotions", "happy,sad"]) == 0
    assert cluster.received[0].path == "/v1/emotion?emotions=happy%2Csad"


def test_what_another_program_spooled_goes_by_its_id(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    utterances = [Utterance(b"AMSR", uuid4(), 1.0, 1.5) for _ in range(4)]
    with Spool(path) as spool:
        for utterance, note in zip(utterances, ("", "call 7", "[1]", '{"file": "a"}'), strict=True):
            spool.put(utterance, datetime.now(UTC), note)
    with stand_in() as cluster:
        assert main(["deliver", "--spool", str(path), "--url", cluster.url, "--json"]) == 0
    shown = [json.loads(line)["file"] for line in capsys.readouterr().out.splitlines()]
    assert shown == [str(utterance.utterance_id) for utterance in utterances]


def test_with_a_link_send_prints_the_same_through_a_spool(
    send: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    with stand_in() as cluster:
        assert send(cluster.url, "--json") == 0
    turn = json.loads(capsys.readouterr().out)
    assert (turn["emotion"], turn["end_s"], turn["bytes_sent"]) == ("happy", 1.0, len(cluster.received[0].body))
    assert turn["file"].endswith("call.wav")


@pytest.mark.usefixtures("impatient")
def test_a_watch_prints_what_comes_until_it_is_interrupted(
    path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with Spool(path) as spool:
        fill(spool, 2)
    with stand_in(GONE) as cluster:
        # A shell starts background jobs with interrupts ignored, and so a test run in one of them.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
            assert main(["deliver", "--spool", str(path), "--url", cluster.url, "--watch"]) == 130
        finally:
            signal.signal(signal.SIGINT, before)
    printed = capsys.readouterr()
    assert [line.split(": ")[1] for line in printed.out.splitlines()] == ["Good morning. · happy 0.85"] * 2
    assert printed.err.splitlines()[-1] == "amser: stopped"
    assert caplog.messages[0].startswith(f"{cluster.url} cannot be reached: ")
    assert caplog.messages[1] == "the link is back"


def test_an_utterance_that_is_refused_makes_the_command_fail_and_stays_visible(
    send: Callable[..., int], path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with stand_in(POISONED) as cluster:
        assert send(cluster.url) == 1
    assert "call.wav 0.0–1.0: 400 Bad Request; the bytes are corrupt" in capsys.readouterr().out
    assert main(["spool", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "0 waiting (0 bytes, 0.0 s of speech) · 0 answered · 1 failed" in shown
    assert "the bytes are corrupt" in shown


def test_the_spool_is_shown_while_another_process_owns_it(
    spool: Spool, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoken = fill(spool, 25)
    spool.postpone(spoken[-1], 60)
    assert main(["spool", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "25 waiting (5.0 kB, 25.0 s of speech) · 0 answered · 0 failed" in shown
    assert "the newest 20 of 25; --json has all" in shown
    assert str(spoken[-1])[:8] in shown
    assert str(spoken[0])[:8] not in shown
    assert main(["spool", str(path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [each["utterance_id"] for each in document["waiting"]] == [str(each) for each in spoken]
    assert (document["waiting"][-1]["attempts"], document["results"], document["drops"]) == (1, [], [])


def test_drops_are_shown(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Spool(path, SpoolLimits(max_count=2)) as spool:
        fill(spool, 5)
    assert main(["spool", str(path)]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if line.split()[:1] == ["count"])
    assert row.split()[:4] == ["count", "3", "600", "3.0"]


@pytest.mark.parametrize("command", [["deliver", "--spool"], ["spool"]])
def test_a_spool_that_is_not_there_is_not_made(
    command: list[str], path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, str(path)]) == 1
    assert f"there is no spool at {path}" in capsys.readouterr().err
    assert not path.exists()


def test_deliver_refuses_a_url_that_is_none(path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["deliver", "--spool", str(path), "--url", "somewhere"])
    assert ended.value.code == 2
