"""Stages of the real application that fail: what can be spared is, the rest is said, and the replica reports sick."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from ray import serve
from recordings import envelope_of, speakers, waveform_of

from amser import wire
from amser.features import SAMPLE_RATE
from deployments.access.settings import AuthSettings
from deployments.app import build
from deployments.settings import FlowSettings, HealthSettings, IdempotencySettings, Settings
from deployments.stages import mel_reconstruction
from deployments.stages.assembly import stage_arguments
from models.emotion.classifier import EmotionClassifier
from models.text import context_encoder
from models.text.word_vectors import WordVectors
from models.whisper.recognizer import WhisperRecognizer

FAILURES = 2


class Body:
    """As much of a request as the ingress reads."""

    def __init__(self, content: bytes, **headers: str) -> None:
        self._content = content
        self.query_params: dict[str, str] = {}
        self.client = SimpleNamespace(host="192.0.2.1")
        self.headers = {"content-type": wire.MEDIA_TYPE, "content-length": str(len(content)), **headers}

    async def stream(self) -> Any:
        yield self._content


def broken(*_: object, **__: object) -> Any:
    raise RuntimeError("CUDA error: device-side assert triggered")


@pytest.fixture(scope="module")
def application() -> Any:
    # Every request is to be computed: the same bytes come again and again, some through a stage that fails
    settings = Settings(
        auth=AuthSettings(mode="none"),
        profile="fused",
        health=HealthSettings(failures=FAILURES),
        idempotency=IdempotencySettings(store="none"),
        flow=FlowSettings(admission=False),
    )
    return serve.run(build(settings), name="sick", _local_testing_mode=True)


@pytest.fixture(scope="module")
def envelope() -> bytes:
    return wire.pack(envelope_of(waveform_of(speakers(1)[0]["path"])[: 3 * SAMPLE_RATE]))


@pytest.fixture(autouse=True)
def well_again(application: Any, envelope: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test broke is whole again, and has answered, so that the next test finds a replica that is well."""
    yield
    monkeypatch.undo()
    assert ask(application, envelope)[1]["degraded"] == []
    assert is_well(application)


def ask(application: Any, envelope: bytes, **headers: str) -> tuple[int, dict[str, Any]]:
    response = application.emotion.remote(Body(envelope, **headers)).result()
    return response.status_code, json.loads(response.body)


def is_well(application: Any) -> bool:
    try:
        application.check_health.remote().result()
    except RuntimeError as error:
        if "the last 2 requests failed, the last one with RuntimeError" not in str(error):
            raise
        return False
    return True


BREAKABLE = {
    "words": (WordVectors, "embed", ["text"]),
    "context": (context_encoder, "TokenFeatures", ["text"]),
    "recogniser": (WhisperRecognizer, "first_pass", ["asr", "text"]),
}


@pytest.mark.parametrize(("owner", "name", "degraded"), BREAKABLE.values(), ids=BREAKABLE)
def test_a_stage_that_fails_is_left_out_and_makes_the_replica_sick(
    application: Any, envelope: bytes, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, degraded: list[str]
) -> None:
    monkeypatch.setattr(owner, name, broken)
    status, answer = ask(application, envelope)
    assert (status, answer["degraded"]) == (200, degraded)
    assert answer["emotion"] in answer["probabilities"]
    assert bool(answer["transcript"]["text"]) == ("asr" not in degraded)
    assert is_well(application)
    status, problem = ask(application, envelope, prefer="handling=strict")
    assert (status, problem["status"]) == (503, 503)
    assert problem["detail"] == f"a stage of the pipeline failed: {degraded[0]}"
    assert not is_well(application)


def test_without_the_last_stage_the_cluster_failed_and_the_replica_is_sick(
    application: Any, envelope: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EmotionClassifier, "classify", broken)
    assert [ask(application, envelope)[0] for _ in range(FAILURES)] == [500, 500]
    assert not is_well(application)


def test_what_clients_do_wrong_leaves_the_replica_well(application: Any, envelope: bytes) -> None:
    """Values that are not finite: only the stage that rebuilds the log-Mel sees them."""
    whole = wire.unpack(envelope, wire.Limits())
    not_finite = wire.pack(replace(whole, payload=whole.payload[:3] + b"\xff" * (len(whole.payload) - 3)))
    assert {ask(application, not_finite)[0] for _ in range(3 * FAILURES)} == {422}
    assert is_well(application)


STARTS_WITH = {
    "mel": (mel_reconstruction, "reconstruct"),
    "asr": (WhisperRecognizer, "transcribe"),
    "text_embedding": (WordVectors, "embed"),
    "text_encoder": (context_encoder.ContextEncoder, "encode"),
    "fusion": (EmotionClassifier, "classify"),
}


@pytest.mark.parametrize("stage", STARTS_WITH)
def test_a_replica_that_cannot_answer_does_not_start(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would say that it is there, and every request would fail."""
    deployment, arguments = stage_arguments(Settings(), gpu=False)[stage]
    monkeypatch.setattr(*STARTS_WITH[stage], broken)
    with pytest.raises(RuntimeError, match="device-side assert"):
        deployment.func_or_class(*arguments)
