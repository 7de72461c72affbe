"""A recording through Ray's proxy: its body is a stream, its answer a job that outlives the request."""

from __future__ import annotations

import io
import time
from typing import Any

import httpx
import numpy as np
import soundfile
from over_http import assert_problem
from recordings import speakers, waveform_of

from amser.features import SAMPLE_RATE, Float32

WITHIN_S = 300
JOIN: Float32 = np.zeros(SAMPLE_RATE, np.float32)


def recording(minutes: float = 0) -> bytes:
    """Two sentences with a pause between them, and silence until it is so long, as WAV of 24 bits."""
    parts = [part for row in speakers(2) for part in (waveform_of(row["path"]), JOIN)]
    spoken = np.concatenate(parts)
    silent = np.zeros(max(0, round(minutes * 60 * SAMPLE_RATE) - spoken.size), np.float32)
    written = io.BytesIO()
    soundfile.write(written, np.concatenate([spoken, silent]), SAMPLE_RATE, format="WAV", subtype="PCM_24")
    return written.getvalue()


def ended(client: httpx.Client, location: str) -> dict[str, Any]:
    until = time.monotonic() + WITHIN_S
    while (job := client.get(location).json())["status"] not in ("done", "failed", "cancelled"):
        assert time.monotonic() < until, job
        time.sleep(0.5)
    return dict(job)


def test_a_body_beyond_that_of_other_routes_becomes_a_job(client: httpx.Client) -> None:
    content = recording(minutes=8)
    assert len(content) > 16_777_216  # what the proxy takes for other routes
    assert_problem(client.post("/v1/emotion/audio", content=content), 413)
    response = client.post("/v1/recordings?language=en", content=content, headers={"Prefer": "respond-async"})
    assert response.status_code == 202, response.text
    job = ended(client, response.headers["location"])
    assert job["status"] == "done", job
    assert job["result"]["seconds"] == 480
    assert len(job["result"]["segments"]) >= 2
    assert job["result"]["text"]
    assert client.delete(response.headers["location"]).status_code == 204


def test_a_short_one_is_answered_at_once_or_is_a_job(client: httpx.Client) -> None:
    response = client.post("/v1/recordings?language=en", content=recording())
    assert response.status_code in (200, 202), response.text
    answer = response.json() if response.status_code == 200 else ended(client, response.headers["location"])["result"]
    assert len(answer["segments"]) >= 2
    assert answer["emotion"]


def test_a_job_that_is_not_there_is_not_found(client: httpx.Client) -> None:
    assert_problem(client.get("/v1/jobs/no-such-job"), 404, None)
    assert_problem(client.delete("/v1/jobs/no-such-job"), 404, None)
