"""What the gateway counts of its requests: for the autoscaler, for Prometheus, and for admission itself.

The gateway is the real one, without Serve around it; its stages answer, fail or hang as they are told.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ray.serve import metrics
from ray.serve.exceptions import BackPressureError
from recordings import envelope_of, silence
from starlette.responses import Response

from amser import wire
from deployments.autoscaling import ADMITTED, INSIDE, REFUSED
from deployments.gateway import ingress
from deployments.gateway.utterances.admission import VOICE_PRIOR_S, WORDS_PRIOR_S, Admission, Overloaded
from deployments.gateway.utterances.flow_metrics import FlowMetrics
from deployments.replica.calls import to_plain
from deployments.replica.execution import Timed
from deployments.settings import Settings
from deployments.telemetry.metrics import Instruments
from models.messages import Emotion, Mel, TokenFeatures, Transcript

GOOD = wire.pack(envelope_of(silence(1)))
STRICT = {"prefer": "handling=strict"}


def handles(**trouble: Exception | float) -> dict[str, Any]:
    """As of deployments that answer at once, but for those in `trouble`: an error, or seconds that they take."""
    said = TokenFeatures(("hello",), np.zeros((1, 300), np.float32))

    def stage(name: str, answer: Any) -> Any:
        async def call(*_: object) -> Any:
            happens = trouble.get(name, 0.0)
            if isinstance(happens, Exception):
                raise happens
            await asyncio.sleep(happens)
            return to_plain(Timed(answer, 1.0))

        # As a handle answers: with what can be cancelled
        remote = SimpleNamespace(remote=lambda *arguments: asyncio.ensure_future(call(*arguments)))
        return SimpleNamespace(call=remote, describe=remote)

    return {
        "mel": stage("mel", Mel(np.zeros((80, 100), np.float16), -1.0, 1.0, "en", "none", None)),
        "asr": stage("asr", Transcript("hello", "en", -0.1)),
        "text_embedding": stage("text_embedding", said),
        "text_encoder": stage("text_encoder", said),
        "fusion": stage("fusion", Emotion("happy", {"happy": 1.0}, 1.0)),
    }


class Asking:
    """As much of an HTTP request as the gateway reads."""

    def __init__(self, body: bytes, **headers: str) -> None:
        self._body = body
        self.query_params: dict[str, str] = {}
        # The same bytes come again and again: each is to be computed
        self.headers = {"content-type": wire.MEDIA_TYPE, "cache-control": "no-store", **headers}
        self.client = SimpleNamespace(host="192.0.2.1")

    async def stream(self) -> Any:
        yield self._body


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Builds a gateway in front of `handles`."""
    kind: Any = ingress.Ingress.func_or_class.__mro__[1]  # type: ignore[attr-defined]
    # Ray has pickled the class, so it has its own copy of the module's names; without the recogniser's weights, that is
    monkeypatch.setitem(kind.__init__.__globals__, "spoken_languages", lambda _: frozenset({"en"}))
    return lambda **trouble: kind(Settings(), handles(**trouble), False)


async def ask(gateway: Any, body: bytes = GOOD, **headers: str) -> tuple[int, dict[str, Any]]:
    response: Response = await gateway.emotion(Asking(body, **headers))
    return response.status_code, json.loads(bytes(response.body))


async def counts(gateway: Any) -> dict[str, float]:
    counted: dict[str, float] = await gateway.record_autoscaling_stats()
    return counted


async def test_an_answered_request_was_admitted(gateway: Any) -> None:
    here = gateway()
    for _ in range(3):
        assert (await ask(here))[0] == 200
    assert await counts(here) == {ADMITTED: 3, REFUSED: 0, INSIDE: 0}


@pytest.mark.parametrize(
    ("body", "refused"),
    [(b"", 400), (b"not an envelope", 415), (GOOD[:-9], 400), (GOOD[:-1] + bytes([GOOD[-1] ^ 1]), 400)],
)
async def test_malformed_requests_are_no_demand(gateway: Any, body: bytes, refused: int) -> None:
    """Fifty a second scaled the recogniser to its most replicas, with nothing served."""
    here = gateway()
    for _ in range(50):
        assert (await ask(here, body))[0] == refused
    assert await counts(here) == {ADMITTED: 0, REFUSED: 0, INSIDE: 0}


async def test_a_payload_that_only_the_first_stage_finds_malformed_is_no_demand(gateway: Any) -> None:
    here = gateway(mel=wire.Malformed("the payload is no log-Mel", ""))
    for _ in range(50):
        assert (await ask(here))[0] == 400
    assert await counts(here) == {ADMITTED: 0, REFUSED: 0, INSIDE: 0}
    assert here._answering._admission.lanes[0].state().pace_s == pytest.approx(WORDS_PRIOR_S, rel=0.1)


async def test_what_there_is_no_room_for_is_counted_apart(gateway: Any) -> None:
    here = gateway(asr=30.0)
    asked = [asyncio.create_task(ask(here, **STRICT, **{"amser-deadline-ms": "1000"})) for _ in range(10)]
    await asyncio.sleep(0.2)
    during = await counts(here)
    assert (during[ADMITTED], during[REFUSED], during[INSIDE]) == (3, 7, 3)  # 3 of 8 pieces of work fill a second
    statuses = sorted(status for status, _ in await asyncio.gather(*asked))
    assert statuses == [429] * 7 + [504] * 3
    assert await counts(here) == {ADMITTED: 3, REFUSED: 7, INSIDE: 0}


async def test_a_client_that_leaves_is_not_inside_any_more_and_shuts_nothing(gateway: Any) -> None:
    here = gateway(asr=30.0)
    words, _ = here._answering._admission.lanes
    for _ in range(20):
        asking = asyncio.create_task(ask(here))
        await asyncio.sleep(0.02)
        assert (words.state().requests, (await counts(here))[INSIDE]) == (1, 1)
        asking.cancel()
        with suppress(asyncio.CancelledError):
            await asking
    assert (words.state().requests, (await counts(here))[INSIDE]) == (0, 0)
    assert words.state().pace_s < 2 * WORDS_PRIOR_S


async def test_a_deadline_that_passes_shows_that_the_cluster_is_slow(gateway: Any) -> None:
    here = gateway(asr=30.0)
    assert (await ask(here, **STRICT, **{"amser-deadline-ms": "500"}))[0] == 504
    assert here._answering._admission.lanes[0].state().pace_s > 1.4 * WORDS_PRIOR_S


async def test_an_answer_without_the_words_is_no_work_of_the_recogniser(gateway: Any) -> None:
    here = gateway(asr=BackPressureError(num_queued_requests=2, max_queued_requests=1), fusion=0.05)
    for _ in range(5):
        status, document = await ask(here)
        assert (status, document["degraded"]) == (200, ["asr", "text"])
    assert here._answering._admission.lanes[0].state().pace_s > WORDS_PRIOR_S
    assert (await counts(here))[ADMITTED] == 5


async def test_without_admission_control_requests_are_counted_all_the_same(
    gateway: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = gateway()
    monkeypatch.setattr(here._answering, "_flow", Settings(flow={"admission": False}).flow)
    assert (await ask(here))[0] == 200
    assert await counts(here) == {ADMITTED: 1, REFUSED: 0, INSIDE: 0}


# --- Prometheus -------------------------------------------------------------------------------------------------------


@dataclass
class Exported:
    """What was handed to Ray: the sum of counters, and where gauges stand."""

    values: dict[tuple[str, str], float] = field(default_factory=dict)

    def inc(self, metric: Any, value: float = 1.0, tags: dict[str, str] | None = None) -> None:
        key = (metric.info["name"], *(tags or {}).values())
        self.values[key] = self.values.get(key, 0.0) + value

    def set(self, metric: Any, value: float, tags: dict[str, str] | None = None) -> None:
        self.values[(metric.info["name"], *(tags or {}).values())] = value


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> Exported:
    seen = Exported()
    monkeypatch.setattr(metrics.Counter, "inc", lambda *given, **more: seen.inc(*given, **more))
    monkeypatch.setattr(metrics.Gauge, "set", lambda *given, **more: seen.set(*given, **more))
    return seen


def test_the_state_of_admission_is_exported(exported: Exported) -> None:
    admission = Admission(True, lambda: 0.0)
    shown = FlowMetrics(admission, Instruments())
    values = exported.values
    assert values["amser_admission_predicted_seconds", "words"] == pytest.approx(1.3 * 11 * WORDS_PRIOR_S)
    assert values["amser_admission_predicted_seconds", "voice"] == pytest.approx(1.3 * 11 * VOICE_PRIOR_S)
    assert (values["amser_admission_margin", "words"], values["amser_admission_open_requests", "words"]) == (1.3, 0)
    with shown.running(admission.admit(3, 25)), shown.running(admission.admit(5, 25)):
        assert values["amser_admission_open_requests", "words"] == 2
        assert values["amser_admission_open_work", "words"] == 10 + 12
        assert values["amser_admission_predicted_seconds", "words"] == pytest.approx(1.3 * 33 * WORDS_PRIOR_S)
    assert values["amser_admission_open_requests", "words"] == values["amser_admission_open_work", "words"] == 0
    with shown.running(admission.admit(3, 0.1)):
        assert values["amser_admission_open_requests", "voice"] == 1
    for reason in ("room", "room", "share"):
        shown.refuse(Overloaded(1, reason))
    assert values["amser_requests_admitted", "whole"] == 2
    assert values["amser_requests_admitted", "voice"] == 1
    assert (values["amser_requests_refused", "room"], values["amser_requests_refused", "share"]) == (2, 1)
    assert shown.counts()[REFUSED] == 2  # what one client wants beyond its share is no demand
