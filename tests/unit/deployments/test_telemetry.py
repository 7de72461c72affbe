"""What is seen of a request from outside: its id, its line in the log, its spans, its metrics.

The gateway is the real one and so are the calls to its stages, which are pickled as between processes; what the stages
compute is made up.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import pickle
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import httpx
import numpy as np
import pytest
from otlp import Receiver, receiver
from ray.serve import metrics
from recordings import envelope_of, silence
from starlette.requests import Request

from amser import codecs, wire
from deployments.gateway import ingress
from deployments.replica.batching import Batcher
from deployments.replica.calls import RemoteStage
from deployments.replica.deadline import NEVER
from deployments.replica.execution import Timed
from deployments.settings import Settings
from deployments.telemetry import traces
from deployments.telemetry.request_ids import request_id
from deployments.telemetry.settings import TraceSettings
from models.messages import Emotion, Mel, TokenFeatures, Transcript

DEVICE, KEY_ID, SAID = "the-device-of-somebody", "k3y", "nobody but me is to know"
GOOD = wire.pack(replace(envelope_of(silence(1)), device_id=DEVICE))
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=1"}
UNSAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
FEATURES = TokenFeatures(("nobody",), np.zeros((1, 300), np.float32))
STAGES = {"mel", "asr", "text_embedding", "text_encoder", "fusion"}


class Recogniser(RemoteStage):
    """The stages in one: their batches are real."""

    def __init__(self, error: Exception | None = None, takes_s: float = 0.0) -> None:
        self._error, self._takes_s = error, takes_s
        self._batcher = Batcher[Mel, Transcript]("asr", self._hear, batch_size=4, budget=6000, size=lambda m: m.frames)

    def _hear(self, mels: Sequence[Mel]) -> list[Transcript]:
        return [Transcript(SAID, "en", -0.1) for _ in mels]

    async def reconstruct(self, _: wire.Envelope) -> Timed[Mel]:
        return Timed(Mel(np.zeros((80, 100), np.float16), -1.0, 1.0, "en", "svd-f16", None), 0.5)

    async def transcribe(self, mel: Mel, deadline: float = NEVER) -> Timed[Transcript]:
        await asyncio.sleep(self._takes_s)
        if self._error is not None:
            raise self._error
        return await self._batcher.submit(mel, deadline)

    async def embed(self, _: str) -> Timed[TokenFeatures]:
        return Timed(FEATURES, 0.5)

    async def contextualize(self, _: str, deadline: float = NEVER) -> Timed[TokenFeatures]:
        del deadline
        return Timed(FEATURES, 0.5)

    async def classify(self, *_: Any, deadline: float = NEVER) -> Timed[Emotion]:
        del deadline
        return Timed(Emotion("sad", {"sad": 0.8, "angry": 0.2}, 0.8, ("short",)), 0.5)


def handle_of(stage: RemoteStage) -> Any:
    """As Serve's handles: the call is pickled, and nothing of the caller's context arrives with it."""

    def remote(method: str, call: Any) -> Any:
        arrived = pickle.loads(pickle.dumps(call))
        return asyncio.get_running_loop().create_task(stage.call(method, arrived), context=contextvars.Context())

    return SimpleNamespace(call=SimpleNamespace(remote=remote), describe=SimpleNamespace(remote=None))


@asynccontextmanager
async def gateway(
    monkeypatch: pytest.MonkeyPatch, stage: RemoteStage | None = None, **telemetry: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """The application that Serve would run, without Serve."""
    kind: Any = ingress.Ingress.func_or_class.__mro__[1]  # type: ignore[attr-defined]
    monkeypatch.setitem(kind.__init__.__globals__, "spoken_languages", lambda _: frozenset({"en"}))
    settings = Settings.model_validate({"idempotency": {"store": "none"}, "telemetry": telemetry})
    handle = handle_of(stage or Recogniser())
    instance = kind(settings, dict.fromkeys(STAGES, handle), False)

    async def application(scope: Any, receive: Any, send: Any) -> None:
        response = await instance.emotion(Request({**scope, "state": {"amser_key_id": KEY_ID}}, receive))
        await response(scope, receive, send)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://gateway") as client:
        yield client


async def post(client: httpx.AsyncClient, body: bytes = GOOD, **headers: str) -> httpx.Response:
    return await client.post("/v1/emotion", content=body, headers={"Content-Type": wire.MEDIA_TYPE, **headers})


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [json.loads(record.getMessage()) for record in caplog.records if record.name == "amser.requests"]


# --- Ids --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["amser-request-id", "x-request-id"])
@pytest.mark.parametrize("given", ["a", "46df-1", "Root=1-67891233-abcdef012345678912345678", "x" * 128])
def test_the_id_that_a_client_gives_is_kept(name: str, given: str) -> None:
    assert request_id({name: given}) == given


@pytest.mark.parametrize("given", ["", "x" * 129, "two words", 'q"', "a\nb", "\x1b[31m", "{}", "é", "-r", "<b>"])
def test_what_does_not_belong_into_a_log_is_no_id(given: str) -> None:
    assert UUID(request_id({"amser-request-id": given}))
    assert request_id({"amser-request-id": given, "x-request-id": "good"}) == "good"


async def test_an_id_is_returned_with_answers_and_problems_and_may_come_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    async with gateway(monkeypatch) as client:
        named = {"Amser-Request-Id": "mine-1", "X-Request-Id": "the proxy's"}
        answers = [await post(client, **named) for _ in range(2)]
        refused = await post(client, b"AMSR", **named)
    assert [(each.status_code, each.json()["request_id"]) for each in answers] == [(200, "mine-1")] * 2
    assert (refused.status_code, refused.json()["request_id"]) == (400, "mine-1")
    assert {each.headers["amser-request-id"] for each in (*answers, refused)} == {"mine-1"}


# --- The log ----------------------------------------------------------------------------------------------------------


async def test_a_request_is_one_line_that_says_what_came_of_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with gateway(monkeypatch) as client:
        await post(client, **{"Amser-Request-Id": "mine-1"}, **UNSAMPLED)
        await post(client, b"AMSR")
    whole, refused = lines(caplog)
    assert whole.keys() == {
        "time", "request_id", "trace_id", "route", "outcome", "status", "ms", "stages_ms", "queues_ms", "bytes",
        "codec", "seconds", "key_id",
    }  # fmt: skip
    assert datetime.fromisoformat(whole["time"]).utcoffset() is not None
    assert (whole["request_id"], whole["trace_id"], whole["key_id"]) == ("mine-1", TRACE, KEY_ID)
    assert (whole["route"], whole["outcome"], whole["status"]) == ("/v1/emotion", "whole", 200)
    assert (whole["bytes"], whole["codec"], whole["seconds"]) == (len(GOOD), codecs.DEFAULT_CODEC, 1.0)
    assert whole["stages_ms"].keys() == whole["queues_ms"].keys() == STAGES
    assert 0 < whole["ms"] < 60_000
    assert (refused["outcome"], refused["status"]) == ("refused", 400)
    assert refused["reason"]
    for secret in (DEVICE, SAID, "sad"):
        assert secret not in json.dumps(lines(caplog))


async def test_an_answer_without_its_words_and_a_failure_say_what_was_missing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with gateway(monkeypatch, Recogniser(RuntimeError("sick"))) as client:
        assert (await post(client)).json()["degraded"] == ["asr", "text"]
        assert (await post(client, Prefer="handling=strict")).status_code == 503
    degraded, failed = lines(caplog)
    assert (degraded["outcome"], degraded["reason"], degraded["degraded"]) == ("degraded", "asr", ["asr", "text"])
    assert (failed["outcome"], failed["status"]) == ("failed", 503)


async def test_a_client_that_leaves_is_told_apart(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with gateway(monkeypatch, Recogniser(takes_s=30)) as client:
        asked = asyncio.create_task(post(client))
        await asyncio.sleep(0.1)
        asked.cancel()
        with suppress(asyncio.CancelledError):
            await asked
    (line,) = lines(caplog)
    assert (line["outcome"], line["reason"], line["status"]) == ("left", "answer", 499)


async def test_the_lines_of_servers_logger_at_warning_do_not_silence_ours(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logging.getLogger("ray.serve"), "level", logging.WARNING)
    async with gateway(monkeypatch) as client:
        await post(client)
    assert len(lines(caplog)) == 1


async def test_without_the_log_there_is_no_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with gateway(monkeypatch, log=False) as client:
        assert (await post(client)).status_code == 200
    assert lines(caplog) == []


# --- Traces -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def collector() -> Iterator[Receiver]:
    with receiver() as running:
        yield running


def exported(collector: Receiver, sampling: float) -> list[Any]:
    """All spans, once this process has sent them."""
    traces.provider(collector.endpoint, sampling).force_flush()
    traces.provider(collector.endpoint, 1.0).force_flush()  # of what a stage in another process would have sent
    return collector.spans


def attributes(span: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}


async def test_a_request_is_one_tree_in_the_trace_of_its_client(
    monkeypatch: pytest.MonkeyPatch, collector: Receiver
) -> None:
    async with gateway(monkeypatch, traces={"endpoint": collector.endpoint, "sampling": 0}) as client:
        answer = await post(client, **SAMPLED, **{"Amser-Request-Id": "mine-1"})
        assert (await post(client)).status_code == 200  # without a context, and the share of those is 0
    spans = {span.name: span for span in exported(collector, 0.0)}
    methods = {
        "mel": "reconstruct", "asr": "transcribe", "text_embedding": "embed", "text_encoder": "contextualize",
        "fusion": "classify",
    }  # fmt: skip
    assert spans.keys() == {
        "POST /v1/emotion",
        "asr batch",
        *STAGES,
        *(f"Recogniser.{each}" for each in methods.values()),
    }
    assert {span.trace_id.hex() for span in spans.values()} == {TRACE}
    assert {span.trace_state for span in spans.values()} == {"vendor=1"}
    root = spans["POST /v1/emotion"]
    assert root.parent_span_id.hex() == PARENT
    for stage, method in methods.items():
        assert spans[stage].parent_span_id == root.span_id
        assert spans[f"Recogniser.{method}"].parent_span_id == spans[stage].span_id
        assert attributes(spans[stage]).keys() == {"amser.compute_ms", "amser.queue_ms"}
    assert spans["asr batch"].parent_span_id == spans["Recogniser.transcribe"].span_id
    assert attributes(spans["asr batch"]) == {"amser.batch_size": 1, "amser.batch_frames": 100}
    assert attributes(root) == {
        "http.request.method": "POST",
        "http.route": "/v1/emotion",
        "http.response.status_code": answer.status_code,
        "amser.request_id": "mine-1",
        "amser.outcome": "whole",
        "amser.codec": codecs.DEFAULT_CODEC,
        "amser.body_bytes": len(GOOD),
        "amser.seconds": 1.0,
    }
    for secret in (DEVICE, KEY_ID, SAID, "sad"):
        assert all(secret.encode() not in sent for sent in collector.raw)


async def test_requests_that_share_a_batch_have_links_to_each_other(
    monkeypatch: pytest.MonkeyPatch, collector: Receiver
) -> None:
    async with gateway(monkeypatch, traces={"endpoint": collector.endpoint, "sampling": 1}) as client:
        await asyncio.gather(*(post(client) for _ in range(3)))
    spans = exported(collector, 1.0)
    batches = {span.trace_id: span for span in spans if span.name == "asr batch"}
    stages = {span.trace_id: span for span in spans if span.name == "Recogniser.transcribe"}
    assert len(batches) == len(stages) == 3
    for trace, span in batches.items():
        assert span.parent_span_id == stages[trace].span_id
        assert attributes(span) == {"amser.batch_size": 3, "amser.batch_frames": 300}
        others = {other.span_id for trace_id, other in stages.items() if trace_id != trace}
        assert {link.span_id for link in span.links} == others


async def test_an_error_is_named_by_its_type_alone(monkeypatch: pytest.MonkeyPatch, collector: Receiver) -> None:
    setting = {"endpoint": collector.endpoint, "sampling": 1}
    async with gateway(monkeypatch, Recogniser(RuntimeError(SAID)), traces=setting) as client:
        await post(client)
    failed = {span.name: span.status for span in exported(collector, 1.0) if span.status.code}
    assert {name: status.message for name, status in failed.items()} == {
        "asr": "RuntimeError",
        "Recogniser.transcribe": "RuntimeError",
    }
    assert all(SAID.encode() not in sent for sent in collector.raw)


@pytest.mark.parametrize("header", ["", "00-0-0-01", "00-" + "0" * 32 + f"-{PARENT}-01", "x" * 8000])
async def test_a_context_that_is_none_is_ignored(
    monkeypatch: pytest.MonkeyPatch, collector: Receiver, header: str
) -> None:
    async with gateway(monkeypatch, traces={"endpoint": collector.endpoint, "sampling": 0}) as client:
        assert (await post(client, traceparent=header, tracestate="y" * 8000)).status_code == 200
    assert exported(collector, 0.0) == []


async def test_a_collector_that_is_away_costs_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "1")  # or the end of this process would wait for it
    with receiver() as gone:
        pass
    async with gateway(monkeypatch, traces={"endpoint": gone.endpoint, "sampling": 1}) as client:
        assert (await post(client)).status_code == 200


@pytest.mark.parametrize("endpoint", ["collector:4318", "ftp://collector", "http://user:secret@collector/v1/traces"])
def test_a_receiver_has_a_plain_address(endpoint: str) -> None:
    with pytest.raises(ValueError, match="endpoint"):
        TraceSettings(endpoint=endpoint)


# --- Metrics ----------------------------------------------------------------------------------------------------------


@dataclass
class Exported:
    """What was handed to Ray, by name and labels: the sums of counters, and how often histograms were told."""

    values: Counter[tuple[str, ...]] = field(default_factory=Counter)

    def add(self, metric: Any, value: float, tags: dict[str, str]) -> None:
        is_histogram = isinstance(metric, metrics.Histogram)
        self.values[(metric.info["name"], *tags.values())] += 1 if is_histogram else value


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, ...]]:
    seen = Exported()
    for kind, method in ((metrics.Counter, "inc"), (metrics.Histogram, "observe")):
        monkeypatch.setattr(kind, method, lambda *given: seen.add(*given))
    return seen.values


async def test_requests_are_counted_by_what_came_of_them(
    monkeypatch: pytest.MonkeyPatch, told: Counter[tuple[str, ...]]
) -> None:
    async with gateway(monkeypatch) as client:
        for _ in range(2):
            await post(client)
        await post(client, b"AMSR")
    route, codec = "/v1/emotion", codecs.DEFAULT_CODEC
    assert told["amser_requests", route, "whole", ""] == 2
    assert sum(many for key, many in told.items() if key[:3] == ("amser_requests", route, "refused")) == 1
    assert (told["amser_request_seconds", route, "whole"], told["amser_request_seconds", route, "refused"]) == (2, 1)
    assert {stage: told["amser_stage_seconds", stage] for stage in STAGES} == dict.fromkeys(STAGES, 2)
    assert {stage: told["amser_stage_queue_seconds", stage] for stage in STAGES} == dict.fromkeys(STAGES, 2)
    assert told["amser_body_bytes", codec] == 2 * len(GOOD)
    assert told["amser_speech_seconds", codec] == 2.0
    assert told["amser_emotions", "sad", "true"] == 2
    assert told["amser_admission_outcome_ratio", "words"] == 2
    assert told["amser_batch_size", "asr"] == told["amser_batch_frames", "asr"] == 2


async def test_what_was_missing_and_what_came_too_late_is_counted(
    monkeypatch: pytest.MonkeyPatch, told: Counter[tuple[str, ...]]
) -> None:
    async with gateway(monkeypatch, Recogniser(takes_s=30)) as client:
        partial = await post(client, **{"Amser-Deadline-Ms": "1500"})
        late = await post(client, Prefer="handling=strict", **{"Amser-Deadline-Ms": "1500"})
    assert (partial.json()["degraded"], late.status_code) == (["asr", "text"], 504)
    assert told["amser_requests", "/v1/emotion", "degraded", "asr"] == 1
    assert (told["amser_degraded", "asr"], told["amser_degraded", "text"]) == (1, 1)
    assert told["amser_deadline_missed", "asr"] == 2
    assert told["amser_admission_outcome_ratio", "words"] == 2  # how late it would have been is a part of the picture


async def test_no_label_carries_what_a_client_chose(
    monkeypatch: pytest.MonkeyPatch, told: Counter[tuple[str, ...]]
) -> None:
    chosen = {"Amser-Request-Id": "chosen-1", "X-Request-Id": "chosen-2", "User-Agent": "chosen-3", **SAMPLED}
    async with gateway(monkeypatch) as client:
        await post(client, **chosen)
        await post(client, b"chosen-4", **chosen)
        await post(client, **{**chosen, "Content-Type": "chosen/5"})
        await client.post("/v1/emotion?emotions=chosen-6", content=GOOD, headers=chosen)
    labels = {label for _, *labels in told for label in labels}
    assert not {label for label in labels if "chosen" in label or TRACE in label or DEVICE in label}


async def test_without_metrics_none_are_told(monkeypatch: pytest.MonkeyPatch, told: Counter[tuple[str, ...]]) -> None:
    async with gateway(monkeypatch, metrics=False) as client:
        assert (await post(client)).status_code == 200
    assert told == {}
