"""`Client` and `AsyncClient` against a server that plays given responses: retries, deadlines, batches, jobs, spool."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recordings import DATA, audio_file, noise, speakers
from stand_in import ANSWER, Response, stand_in
from tenacity import wait_none

from amser import batch, wire
from amser.audio import AudioTooLong
from amser.client import (
    Answer,
    AnswerTimedOut,
    AsyncClient,
    Client,
    DeviceSettings,
    JobCancelled,
    Outcome,
    RecordingAnswer,
    Refused,
    Unreachable,
)
from amser.client.exchange import plans, retries
from amser.features import SAMPLE_RATE

SPEECH = DATA / speakers(1)[0]["path"]
SECOND = noise(1)
PROBLEM = {"type": "/problems/overloaded", "title": "No time for an answer", "status": 429, "detail": "it is full"}
FULL = Response(429, PROBLEM, {"Retry-After": "0"})
RECORDING: dict[str, Any] = {
    "text": "Good morning. Good night.",
    "language": "en",
    "seconds": 61.5,
    "segments": [
        {
            "start": 0.5,
            "end": 1.5,
            "text": "Good morning.",
            "language": "en",
            "emotion": "happy",
            "confidence": 0.9,
            "probabilities": {"happy": 0.9, "sad": 0.1},
        }
    ],
    "emotion": "happy",
    "confidence": 0.9,
    "probabilities": {"happy": 0.9, "sad": 0.1},
    "warnings": ["audio_cut"],
}


def item(status: int, **more: Any) -> dict[str, Any]:
    return {
        "status": status,
        **({"answer": ANSWER} if status == 200 else {"problem": {**PROBLEM, "status": status}}),
        **more,
    }


@pytest.fixture(autouse=True)
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "BACKOFF", wait_none())
    monkeypatch.setattr(plans, "BACKOFF_S", 0.001)
    monkeypatch.setattr(plans, "SOONEST_POLL_S", 0.001)


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Any:
    """Calls a method of either client, and returns what it returns."""

    def synchronous(
        cluster: str | DeviceSettings, method: str, *values: Any, spool: Path | None = None, **named: Any
    ) -> Any:
        with Client(cluster, spool=spool) as client:
            return getattr(client, method)(*values, **named)

    def asynchronous(
        cluster: str | DeviceSettings, method: str, *values: Any, spool: Path | None = None, **named: Any
    ) -> Any:
        async def ask_it() -> Any:
            async with AsyncClient(cluster, spool=spool) as client:
                return await getattr(client, method)(*values, **named)

        return asyncio.run(ask_it())

    return synchronous if request.param == "sync" else asynchronous


@pytest.mark.parametrize(
    ("source", "rate", "seconds"),
    [
        (str(SPEECH), SAMPLE_RATE, float(speakers(1)[0]["seconds"])),
        (audio_file(SECOND, "flac", "flac"), SAMPLE_RATE, 1),
        (np.tile(SECOND, 3), 48_000, 1),
        ((np.stack([SECOND, SECOND], 1) * 32_767).astype(np.int16), SAMPLE_RATE, 1),
    ],
    ids=["path", "bytes", "48 kHz", "int16 stereo"],
)
def test_whatever_holds_speech_is_compressed_and_sent(ask: Any, source: Any, rate: int, seconds: float) -> None:
    with stand_in() as cluster:
        answer = ask(cluster.url, "recognize", source, rate=rate)
    (received,) = cluster.received
    envelope = wire.unpack(received.body)
    assert received.path == "/v1/emotion"
    assert envelope.codec == "klt"
    assert envelope.seconds == pytest.approx(seconds, abs=0.02)
    assert (answer.emotion, answer.text, answer.bytes_sent) == ("happy", "Good morning.", len(received.body))


def test_an_upload_is_the_file_itself(ask: Any) -> None:
    with stand_in() as cluster:
        answer = ask(cluster.url, "transcribe", SPEECH, language="eng")
    (received,) = cluster.received
    assert received.path == "/v1/emotion/audio?language=en"
    assert received.body == SPEECH.read_bytes()
    assert received.headers["Content-Length"] == str(len(received.body))
    assert (answer.bytes_sent, answer.pcm_bytes) == (len(received.body), 32_000)


def test_a_file_is_read_again_for_each_attempt(ask: Any) -> None:
    with stand_in(FULL, Response(hangs_up=True)) as cluster:
        assert ask(cluster.url, "transcribe", SPEECH).attempts == 3
    assert {each.body for each in cluster.received} == {SPEECH.read_bytes()}


def test_the_key_of_the_environment_is_shown(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMSER_KEY", "amser_k3f9a2b1_secret")
    with stand_in() as cluster:
        ask(cluster.url, "recognize", SECOND)
    assert cluster.received[0].headers["Authorization"] == "Bearer amser_k3f9a2b1_secret"


def test_what_the_cluster_refuses_has_the_type_of_the_problem(ask: Any) -> None:
    problem = {
        "type": "/problems/unusable",
        "title": "Unusable speech",
        "status": 422,
        "detail": "too short",
        "limit": "0.1 s",
    }
    with stand_in(Response(422, problem)) as cluster, pytest.raises(Refused) as refused:
        ask(cluster.url, "recognize", SECOND)
    error = refused.value
    assert (error.status, error.type, error.kind, error.limit) == (422, "/problems/unusable", "unusable", "0.1 s")
    assert str(error) == "422 Unusable speech; too short; accepted: 0.1 s"


def test_a_full_cluster_is_asked_again_no_sooner_than_it_says(ask: Any) -> None:
    with stand_in(Response(429, PROBLEM, {"Retry-After": "1"})) as cluster:
        assert ask(cluster.url, "recognize", SECOND).attempts == 2
    first, second = cluster.received
    assert second.at - first.at >= 1
    assert first.body == second.body  # under the same utterance id


def test_a_deadline_is_for_all_attempts_and_the_cluster_is_told_what_is_left(ask: Any) -> None:
    with stand_in(FULL, Response(429, PROBLEM, {"Retry-After": "30"})) as cluster, pytest.raises(Refused):
        ask(cluster.url, "recognize", SECOND, within_s=8.0)
    first, second = (int(each.headers["Amser-Deadline-Ms"]) for each in cluster.received)
    assert 8000 >= first > second > 0  # and no third: it would be 30 s later


def test_a_cluster_that_says_nothing_by_the_deadline_is_given_up(ask: Any) -> None:
    with stand_in(Response(after_s=20)) as cluster, pytest.raises(AnswerTimedOut):
        ask(cluster.url, "recognize", SECOND, within_s=0.5)


def test_nobody_listens(ask: Any) -> None:
    with pytest.raises(Unreachable):
        ask(DeviceSettings(url="http://127.0.0.1:9", attempts=2), "recognize", SECOND)


def test_a_recording_that_is_too_long_for_one_utterance_is_refused_here(ask: Any) -> None:
    with stand_in() as cluster, pytest.raises(AudioTooLong):
        ask(cluster.url, "recognize", audio_file(np.zeros(31 * SAMPLE_RATE, np.float32), "flac", "flac"))
    assert cluster.received == []


# --- Batches ----------------------------------------------------------------------------------------------------------


def test_a_batch_is_one_request_and_one_bad_item_spoils_nothing(ask: Any, tmp_path: Path) -> None:
    answers = {"items": [item(200), item(422), item(200)]}
    with stand_in(Response(body=answers)) as cluster:
        outcomes = ask(cluster.url, "batch", [SECOND, tmp_path / "missing.wav", SECOND, b"no audio", SECOND])
    (received,) = cluster.received
    assert (received.path, received.headers["Content-Type"]) == ("/v1/emotion:batch", batch.MEDIA_TYPE)
    assert len({wire.unpack(each).utterance_id for each in batch.unpack(received.body)}) == 3
    assert [isinstance(each.answer, Answer) for each in outcomes] == [True, False, False, False, True]
    assert isinstance(outcomes[1].failure, FileNotFoundError)
    assert outcomes[2].failure.status == 422
    assert "no audio" in str(outcomes[3].failure)


def test_items_that_are_refused_for_now_are_sent_again_by_themselves(ask: Any) -> None:
    first = Response(body={"items": [item(200), item(429, retry_after_s=0), item(504)]})
    second = Response(body={"items": [item(503, retry_after_s=0), item(200)]})
    with stand_in(first, second, Response(body={"items": [item(200)]})) as cluster:
        outcomes = ask(cluster.url, "batch", [SECOND] * 3)
    assert all(each.answer for each in outcomes)
    sent = [batch.unpack(each.body) for each in cluster.received]
    assert [len(each) for each in sent] == [3, 2, 1]
    assert sent[1] == sent[0][1:]
    assert sent[2] == sent[1][:1]


def test_a_batch_that_cannot_be_sent_is_a_failure_of_each_item(ask: Any) -> None:
    outcomes = ask(DeviceSettings(url="http://127.0.0.1:9", attempts=1), "batch", [SECOND] * 2)
    assert [type(each.failure) for each in outcomes] == [Unreachable, Unreachable]


def test_more_than_64_utterances_are_several_batches(ask: Any) -> None:
    bodies = [Response(body={"items": [item(200)] * count}) for count in (64, 6)]
    with stand_in(*bodies) as cluster:
        outcomes = ask(cluster.url, "batch", [SECOND] * 70)
    assert len(outcomes) == 70
    assert [len(batch.unpack(each.body)) for each in cluster.received] == [64, 6]


def test_a_batch_of_nothing_asks_nothing(ask: Any) -> None:
    with stand_in() as cluster:
        assert ask(cluster.url, "batch", []) == []
    assert cluster.received == []


@pytest.mark.parametrize("body", [{"items": []}, {"items": [1]}, [], {"items": [{"status": 200}]}, b"<html>"])
def test_another_document_is_no_answer_to_a_batch(ask: Any, body: Any) -> None:
    with stand_in(Response(body=body)) as cluster:
        (outcome,) = ask(cluster.url, "batch", [SECOND])
    assert "something else than was asked for" in str(outcome.failure)


# --- Recordings and jobs ----------------------------------------------------------------------------------------------


def job(status: str, progress: float, **more: Any) -> dict[str, Any]:
    return {"id": "0f1a", "status": status, "progress": progress, **more}


def test_a_recording_becomes_a_job_that_is_waited_for(ask: Any) -> None:
    states: list[tuple[float, int]] = []
    play = [
        Response(202, job("queued", 0), {"Location": "/v1/jobs/0f1a"}),
        Response(body=job("running", 0.5, segments=RECORDING["segments"])),
        FULL,
        Response(body=job("done", 1, result=RECORDING)),
    ]
    with stand_in(*play) as cluster:
        answer = ask(
            cluster.url,
            "recording",
            SPEECH,
            poll_s=0,
            show=lambda now: states.append((now.progress, len(now.segments))),
        )
    assert [(each.method, each.path) for each in cluster.received] == [
        ("POST", "/v1/recordings"),
        *[("GET", "/v1/jobs/0f1a")] * 3,
    ]
    assert cluster.received[0].headers["Prefer"] == "respond-async"
    assert states == [(0, 0), (0.5, 1), (1, 0)]
    assert isinstance(answer, RecordingAnswer)
    assert (answer.seconds, answer.warnings, answer.segments[0].end_s) == (61.5, ("audio_cut",), 1.5)


def test_a_recording_that_is_answered_at_once_is_a_job_that_has_ended(ask: Any) -> None:
    with stand_in(Response(body=RECORDING)) as cluster:
        assert ask(cluster.url, "recording", SPEECH).text == "Good morning. Good night."


def test_a_job_that_fails_is_a_refusal(ask: Any) -> None:
    failed = job("failed", 0.2, problem={**PROBLEM, "type": "/problems/stage-failed", "status": 503})
    with stand_in(Response(202, job("queued", 0)), Response(body=failed)) as cluster, pytest.raises(Refused) as refused:
        ask(cluster.url, "recording", SPEECH, poll_s=0)
    assert (refused.value.kind, refused.value.status) == ("stage-failed", 503)


def test_a_job_is_asked_for_and_cancelled_by_its_id(ask: Any) -> None:
    with stand_in(Response(body=job("running", 0.5)), Response(204, b"")) as cluster:
        assert ask(cluster.url, "job", "0f1a").progress == 0.5
        cancelled = ask(cluster.url, "cancel", "0f1a")
    assert [each.method for each in cluster.received] == ["GET", "DELETE"]
    assert cancelled.ended
    with pytest.raises(JobCancelled):
        cancelled.answer()


@pytest.mark.parametrize("job_id", ["", "../models", "a b", "ä"])
def test_an_id_that_leads_elsewhere_is_none(ask: Any, job_id: str) -> None:
    with pytest.raises(ValueError, match="no id of a job"):
        ask("http://127.0.0.1:9", "job", job_id)


def test_a_recording_that_may_have_arrived_is_not_uploaded_twice(ask: Any) -> None:
    with stand_in(Response(hangs_up=True)) as cluster, pytest.raises(Unreachable):
        ask(cluster.url, "submit", SPEECH)
    assert len(cluster.received) == 1


# --- Spool ------------------------------------------------------------------------------------------------------------


def test_a_spool_keeps_what_got_no_answer_and_delivers_it_later(ask: Any, tmp_path: Path) -> None:
    spool = tmp_path / "waiting.spool"
    with pytest.raises(Unreachable) as failed:
        ask(DeviceSettings(url="http://127.0.0.1:9", attempts=1), "recognize", SECOND, spool=spool)
    assert failed.value.__notes__ == [f"The utterance is kept in {spool}; Client.deliver() sends it."]
    with stand_in() as cluster:
        (result,) = ask(cluster.url, "deliver", spool=spool)
        assert ask(cluster.url, "deliver", spool=spool) == []
    assert result.answer.text == "Good morning."


def test_what_is_answered_or_refused_for_good_does_not_wait(ask: Any, tmp_path: Path) -> None:
    spool = tmp_path / "waiting.spool"
    with stand_in(Response(), Response(422, {"type": "/problems/unusable"})) as cluster:
        ask(cluster.url, "recognize", SECOND, spool=spool)
        with pytest.raises(Refused):
            ask(cluster.url, "recognize", SECOND, spool=spool)
        assert ask(cluster.url, "deliver", spool=spool) == []
    assert len(cluster.received) == 2


# --- What it takes along ----------------------------------------------------------------------------------------------


def test_the_client_takes_neither_torch_nor_ray_along() -> None:
    code = (
        "import sys, amser.client as c; [getattr(c, name) for name in c.__all__];"
        "print([m for m in ('torch', 'ray', 'onnxruntime', 'fastapi', 'sounddevice') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_outcome_is_frozen() -> None:
    with pytest.raises(AttributeError):
        Outcome().answer = None  # type: ignore[misc]


async def test_calls_of_an_async_client_run_side_by_side() -> None:
    with stand_in(*[Response(after_s=0.5) for _ in range(4)]) as cluster:
        async with AsyncClient(cluster.url) as client:
            answers = await asyncio.gather(*(client.transcribe(b"audio") for _ in range(4)))
    assert len(answers) == 4
    first, *_, last = sorted(each.at for each in cluster.received)
    assert last - first < 0.5


def test_the_answer_of_a_client_can_be_kept_as_json() -> None:
    with stand_in() as server, Client(server.url) as client:
        assert json.loads(json.dumps(client.recognize(SECOND).raw))["emotion"] == "happy"
