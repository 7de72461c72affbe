"""Requests to the application's routes, good ones and raw bytes, and what a refusal must say."""

from __future__ import annotations

import socket
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import httpx
from recordings import Waveform, speakers, waveform_of

from amser import wire
from amser.features import SAMPLE_RATE
from deployments.local_cluster import LocalCluster

CLASSES = {"angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"}


def two_seconds() -> Waveform:
    """Of a speaker."""
    return waveform_of(speakers(1)[0]["path"])[: 2 * SAMPLE_RATE]


def send(client: httpx.Client, body: bytes, media_type: str = wire.MEDIA_TYPE, **headers: str) -> httpx.Response:
    """The answer to an envelope. Each is computed anew, unless a test has `Cache-Control` say otherwise."""
    own = {"Content-Type": media_type, "Cache-Control": "no-store"}
    return client.post("/v1/emotion", content=body, headers=own | headers)


def send_audio(client: httpx.Client, body: bytes, query: str = "?language=en") -> httpx.Response:
    return client.post(f"/v1/emotion/audio{query}", content=body, headers={"Content-Type": "audio/wav"})


def assert_problem(response: httpx.Response, status: int, limit: str | None = "") -> dict[str, Any]:
    """A problem document of RFC 9457; `limit` is a part of what would have been accepted, None where nothing would."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    assert UUID(problem["request_id"])
    if limit is None:
        assert "limit" not in problem
    else:
        assert limit in problem["limit"]
    return problem


def raw_request(body_length: int, body: bytes) -> bytes:
    head = f"POST /v1/emotion HTTP/1.1\r\nHost: localhost\r\nContent-Type: {wire.MEDIA_TYPE}\r\n"
    return f"{head}Content-Length: {body_length}\r\n\r\n".encode() + body


def connect(cluster: LocalCluster) -> socket.socket:
    address = urlsplit(cluster.url)
    assert address.hostname is not None
    assert address.port is not None
    return socket.create_connection((address.hostname, address.port), timeout=60)
