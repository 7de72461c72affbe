"""What an operator sees of a cluster whose stages are processes of their own: spans, log lines, and Ray's metrics."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import numpy as np
import pytest
from otlp import Receiver
from over_http import send, two_seconds
from prometheus_client.parser import text_string_to_metric_families
from recordings import envelope_of

from amser import wire
from deployments.local_cluster import LocalCluster

STAGES = {
    "mel": "MelReconstruction.reconstruct",
    "asr": "WhisperASR.transcribe",
    "text_embedding": "TextEmbedding.embed",
    "text_encoder": "Roberta.contextualize",
    "fusion": "FusionClassifier.classify",
}
SCRAPED_WITHIN_S = 30  # replicas report every 10 s


@pytest.fixture(scope="module")
def good() -> bytes:
    return wire.pack(envelope_of(two_seconds()))


def folder_of(cluster: LocalCluster) -> Path:
    return Path(cluster.environment["RAY_AUTH_TOKEN_PATH"]).parent


def logs(cluster: LocalCluster, name: str) -> str:
    """What the files of this name hold, of Serve's folder."""
    return "".join(file.read_text() for file in folder_of(cluster).glob(f"session_2*/logs/serve/{name}"))


def scraped(cluster: LocalCluster) -> dict[str, list[dict[str, str]]]:
    """The labels of each sample of ours, by its name, as Prometheus would find them."""
    found: dict[str, list[dict[str, str]]] = {}
    discovered = json.loads((folder_of(cluster) / "prom_metrics_service_discovery.json").read_text())
    for target in (target for group in discovered for target in group["targets"]):
        for family in text_string_to_metric_families(httpx.get(f"http://{target}/metrics", timeout=10).text):
            for sample in family.samples:
                if sample.name.startswith("ray_amser_"):
                    found.setdefault(sample.name, []).append(sample.labels)
    return found


def test_a_request_is_one_trace_through_all_processes(client: httpx.Client, collector: Receiver, good: bytes) -> None:
    trace, parent = uuid4().hex, "b7ad6b7169203331"
    assert send(client, good, traceparent=f"00-{trace}-{parent}-01").status_code == 200
    spans: dict[str, Any] = {}
    for name in ("POST /v1/emotion", *STAGES.values(), "asr batch", "text_encoder batch", "fusion batch"):
        spans |= {span.name: span for span in collector.wait_for(name, trace)}
    root = spans["POST /v1/emotion"]
    assert root.parent_span_id.hex() == parent
    for stage, name in STAGES.items():
        assert spans[stage].parent_span_id == root.span_id
        assert spans[name].parent_span_id == spans[stage].span_id
    for stage in ("asr", "text_encoder", "fusion"):
        assert spans[f"{stage} batch"].parent_span_id == spans[STAGES[stage]].span_id
    assert len(spans) == 1 + 2 * len(STAGES) + 3


def test_a_request_is_found_by_its_id_in_the_logs_of_gateway_and_stages(
    client: httpx.Client, cluster: LocalCluster, good: bytes
) -> None:
    whole, refused = f"whole-{uuid4()}", f"refused-{uuid4()}"
    answer = send(client, good, **{"Amser-Request-Id": whole})
    assert answer.headers["amser-request-id"] == answer.json()["request_id"] == whole
    envelope = envelope_of(two_seconds(), "mel-f16")
    broken = wire.pack(replace(envelope, payload=np.full(len(envelope.payload) // 2, np.nan, np.float16).tobytes()))
    problem = send(client, broken, **{"X-Request-Id": refused})
    assert (problem.status_code, problem.json()["request_id"]) == (422, refused)
    lines = {line["request_id"]: line for line in map(json.loads, logs(cluster, "requests_*.log").splitlines())}
    assert (lines[whole]["outcome"], lines[whole]["status"], lines[whole]["bytes"]) == ("whole", 200, len(good))
    assert lines[whole]["stages_ms"].keys() == STAGES.keys()
    assert (lines[refused]["outcome"], lines[refused]["status"]) == ("refused", 422)
    assert refused in logs(cluster, "replica_amser_MelReconstruction_*.log")  # which raised
    assert answer.json()["transcript"]["text"] not in logs(cluster, "*.log")


def test_prometheus_finds_every_metric_under_its_name(client: httpx.Client, cluster: LocalCluster, good: bytes) -> None:
    assert send(client, good).status_code == 200
    assert send(client, b"AMSR").status_code == 400
    expected = {
        "requests_total", "request_seconds_bucket", "stage_seconds_bucket", "stage_queue_seconds_bucket",
        "batch_size_bucket", "batch_frames_bucket", "speech_seconds_total", "body_bytes_total", "emotions_total",
        "admission_outcome_ratio_bucket", "replica_memory_bytes", "requests_admitted_total",
    }  # fmt: skip
    end = time.monotonic() + SCRAPED_WITHIN_S
    found = scraped(cluster)
    while time.monotonic() < end and not _complete(found, expected):
        time.sleep(1)
        found = scraped(cluster)
    assert {f"ray_amser_{name}" for name in expected} <= found.keys()
    outcomes = {(each["route"], each["outcome"]) for each in found["ray_amser_requests_total"]}
    assert {("/v1/emotion", "whole"), ("/v1/emotion", "refused")} <= outcomes
    assert {each["stage"] for each in found["ray_amser_stage_seconds_bucket"]} == set(STAGES)
    batches = {(each["deployment"], each["stage"]) for each in found["ray_amser_batch_size_bucket"]}
    assert batches == {("WhisperASR", "asr"), ("Roberta", "text_encoder"), ("FusionClassifier", "fusion")}
    memory = {each["deployment"]: each["stage"] for each in found["ray_amser_replica_memory_bytes"]}
    assert memory == {name.partition(".")[0]: stage for stage, name in STAGES.items()} | {"Ingress": "gateway"}


def _complete(found: dict[str, list[dict[str, str]]], expected: set[str]) -> bool:
    outcomes = {each["outcome"] for each in found.get("ray_amser_requests_total", [])}
    return {f"ray_amser_{name}" for name in expected} <= found.keys() and {"whole", "refused"} <= outcomes
