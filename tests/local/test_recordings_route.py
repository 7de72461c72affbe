"""Recordings over HTTP with the real models: at once, as jobs, cancelled, and told of by a webhook."""

from __future__ import annotations

import gzip
import io
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import jiwer
import numpy as np
import pytest
import soundfile
from over_http import assert_problem
from recordings import speakers, waveform_of
from served import serving

from amser.features import SAMPLE_RATE
from deployments.gateway.recordings.webhooks import sign
from deployments.settings import Settings

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
COUNT = 4
PAUSE_S = 1.2
WITHIN_S = 240


@pytest.fixture(scope="module")
def recording() -> bytes:
    """`COUNT` sentences with pauses between them, in noise, as FLAC."""
    noise = np.random.default_rng(5)
    pause = noise.normal(0, 1e-4, round(PAUSE_S * SAMPLE_RATE)).astype(np.float32)
    parts = [part for row in speakers(COUNT) for part in (pause, waveform_of(row["path"]))]
    written = io.BytesIO()
    soundfile.write(written, np.concatenate([*parts, pause]), SAMPLE_RATE, format="FLAC")
    return written.getvalue()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Any]]:
    folder: Path = tmp_path_factory.mktemp("store")
    folder.chmod(0o700)
    settings = {
        "auth": {"mode": "none"},
        "idempotency": {"folder": folder},
        "requests": {"deadline_s": 60},
        "recordings": {"webhook": {"secret": SECRET, "private": True, "pause_s": 0.2}, "max_seconds": 600},
    }
    with serving(Settings.model_validate(settings)) as served:
        yield served


@pytest.fixture(scope="module")
def client(server: tuple[str, Any]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server[0], timeout=WITHIN_S) as opened:
        yield opened


class Received:
    """A server of a client, which notes the messages; the first is refused."""

    def __init__(self) -> None:
        self.messages: list[tuple[dict[str, str], bytes]] = []
        received = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                received.messages.append(({name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(500 if len(received.messages) == 1 else 204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/ended"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def ended(client: httpx.Client, location: str) -> dict[str, Any]:
    until = time.monotonic() + WITHIN_S
    progress = 0.0
    while time.monotonic() < until:
        job: dict[str, Any] = client.get(location).json()
        assert job["progress"] >= progress
        progress = job["progress"]
        if job["status"] in ("done", "failed", "cancelled"):
            return job
        time.sleep(0.3)
    raise AssertionError(f"the job is {job['status']}")


def assert_is_answer(answer: dict[str, Any]) -> None:
    said = " ".join(row["text"] for row in speakers(COUNT)).lower()
    heard = "".join(letter for letter in answer["text"].lower() if letter.isalnum() or letter in " '")
    assert jiwer.wer(said, heard) < 0.25
    segments = answer["segments"]
    assert len(segments) >= COUNT
    times = [moment for segment in segments for moment in (segment["start"], segment["end"])]
    assert times == sorted(times)
    assert all(segment["end"] - segment["start"] <= 30 for segment in segments)
    assert answer["text"] == " ".join(segment["text"] for segment in segments if segment["text"])
    assert answer["language"] == "en"
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=0.01)
    assert answer["emotion"] == max(answer["probabilities"], key=answer["probabilities"].get)
    assert answer["warnings"] == []
    assert times[-1] <= answer["seconds"]


def test_a_recording_is_answered_as_segments_and_as_a_whole(client: httpx.Client, recording: bytes) -> None:
    response = client.post("/v1/recordings?language=en", content=recording)
    assert response.status_code == 200, response.text
    assert_is_answer(response.json())


def test_a_job_is_answered_later_and_its_end_is_told_and_signed(client: httpx.Client, recording: bytes) -> None:
    received = Received()
    response = client.post(
        "/v1/recordings",
        params={"language": "en", "webhook": received.url},
        content=recording,
        headers={"Prefer": "respond-async"},
    )
    assert response.status_code == 202, response.text
    assert response.headers["preference-applied"] == "respond-async"
    location = response.headers["location"]
    assert location == f"/v1/jobs/{response.json()['id']}"
    job = ended(client, location)
    assert job["status"] == "done"
    assert job["progress"] == 1
    assert_is_answer(job["result"])

    until = time.monotonic() + WITHIN_S
    while len(received.messages) < 2 and time.monotonic() < until:
        time.sleep(0.1)
    headers, body = received.messages[1]  # the first was answered with an error
    assert headers["webhook-id"] == job["id"]
    assert headers["webhook-signature"] == sign(SECRET, job["id"], int(headers["webhook-timestamp"]), body)
    assert json.loads(body)["data"] == {"id": job["id"], "status": "done"}
    assert job["result"]["text"] not in body.decode()

    assert client.delete(location).status_code == 204  # it had ended: it is forgotten
    assert_problem(client.get(location), 404, None)


def test_words_have_the_times_of_the_recording(client: httpx.Client, recording: bytes) -> None:
    segments = client.post("/v1/recordings?language=en&words=true", content=recording).json()["segments"]
    assert len(segments) >= COUNT
    for segment in filter(lambda each: each["text"], segments):
        assert " ".join(word["text"] for word in segment["words"]) == segment["text"]
        assert segment["start"] - 0.05 <= segment["words"][0]["start"]
        assert segment["words"][-1]["end"] <= segment["end"] + 0.05


def test_a_recording_may_come_in_a_form_and_compressed(client: httpx.Client, recording: bytes) -> None:
    request = client.build_request("POST", "/v1/recordings", files={"file": recording}, data={"words": "true"})
    headers = {"Content-Type": request.headers["content-type"], "Content-Encoding": "gzip"}
    answer = client.post("/v1/recordings", content=gzip.compress(request.read()), headers=headers).json()
    assert_is_answer(answer)
    assert all(segment["words"] for segment in answer["segments"] if segment["text"])


def test_a_cancelled_job_ends(client: httpx.Client, recording: bytes) -> None:
    response = client.post("/v1/recordings", content=recording, headers={"Prefer": "respond-async"})
    location = response.headers["location"]
    assert client.delete(location).status_code == 204
    assert ended(client, location)["status"] == "cancelled"


def test_what_cannot_be_used_is_refused_with_its_kind(client: httpx.Client, recording: bytes) -> None:
    assert assert_problem(client.post("/v1/recordings", content=b"no audio"), 415)["type"].endswith("unsupported-audio")
    assert assert_problem(client.post("/v1/recordings", content=b""), 400)["type"].endswith("empty-body")
    form = client.post("/v1/recordings", files={"file": recording}, data={"language": "nobody's"})
    assert assert_problem(form, 422)["parameter"] == "language"
    encoded = client.post("/v1/recordings", content=recording, headers={"Content-Encoding": "br"})
    assert assert_problem(encoded, 415)["type"].endswith("unsupported-encoding")
    words = client.post("/v1/recordings?words=maybe", content=recording)
    assert assert_problem(words, 400)["parameter"] == "words"
    hook = client.post("/v1/recordings?webhook=ftp://localhost/", content=recording)
    assert assert_problem(hook, 422)["parameter"] == "webhook"


def test_where_nobody_speaks_there_are_no_segments(client: httpx.Client) -> None:
    written = io.BytesIO()
    soundfile.write(written, np.zeros(5 * SAMPLE_RATE, np.float32), SAMPLE_RATE, format="WAV")
    answer = client.post("/v1/recordings", content=written.getvalue()).json()
    assert answer["segments"] == []
    assert answer["emotion"] is None
    assert answer["text"] == ""
    assert answer["seconds"] == pytest.approx(5)
