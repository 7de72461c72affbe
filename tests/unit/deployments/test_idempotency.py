"""A request that is sent again: one run of the pipeline, the first answer, and who is cancelled by whom.

The gateway is the real one, over ASGI; the pipeline behind it answers, waits or fails as a test says.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import numpy as np
import pytest
from ray.serve.context import _RequestContext, _serve_request_context
from recordings import envelope_of, silence
from starlette.requests import Request

from amser import wire
from deployments.gateway import ingress
from deployments.gateway.answer_store import EmbeddedStore, StoreUnavailable
from deployments.gateway.idempotency import Idempotency, Reply, idempotency
from deployments.gateway.preferences import Preferences
from deployments.pipeline import Stages, _wanted
from deployments.replica.deadline import after
from deployments.replica.execution import Timed
from deployments.settings import IdempotencySettings, Settings
from models.messages import Emotion, Mel, TokenFeatures, Transcript

ENVELOPE = envelope_of(silence(1))
PREFERENCES = Preferences(25.0, after(25), False)
SECRET = "I have not told anybody."
Compute = Callable[[], Awaitable[Reply]]


def store_in(folder: Path) -> EmbeddedStore:
    return EmbeddedStore(folder / "answers", ttl_s=60, max_answers=100, max_bytes=10**6)


@pytest.fixture
def resends(tmp_path: Path) -> Idempotency:
    return Idempotency(store_in(tmp_path), ttl_s=60)


class Pipeline:
    """Counts its runs. Each waits for `go`, then raises `error` or answers with its number."""

    def __init__(self) -> None:
        self.runs = self.cancelled = 0
        self.go = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self) -> Reply:
        self.runs += 1
        number, error = self.runs, self.error
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if error is not None:
            raise error
        return Reply(b'{"text": "%d"}' % number, {"Amser-Request-Id": str(number)})


async def turns(count: int = 20) -> None:
    """Lets everything go on that can."""
    for _ in range(count):
        await asyncio.sleep(0)


# --- Once -------------------------------------------------------------------------------------------------------------


async def test_a_resend_gets_the_first_answer_and_is_told_so(resends: Idempotency) -> None:
    pipeline = Pipeline()
    pipeline.go.set()
    first = await resends.once(b"key", pipeline)
    second = await resends.once(b"key", pipeline)
    other = await resends.once(b"other", pipeline)
    assert (first.replay, second.replay, other.replay) == (None, "stored", None)
    assert (second.body, second.headers) == (first.body, first.headers)
    assert pipeline.runs == 2


@pytest.mark.parametrize(
    "written", [b"[]\n{}", b"5\n", b"null\n", b'{"a": 5}\n', b'{"a": "b\\r\\nc: d"}\n', b'{"\\u0101": ""}\n', b"{"]
)
async def test_what_another_program_has_stored_is_computed_anew(resends: Idempotency, written: bytes) -> None:
    assert resends.store is not None
    await resends.store.put(b"key", written)
    pipeline = Pipeline()
    pipeline.go.set()
    reply = await resends.once(b"key", pipeline)
    assert (reply.replay, pipeline.runs) == (None, 1)


async def test_another_replica_of_the_node_has_the_answer_too(resends: Idempotency, tmp_path: Path) -> None:
    pipeline = Pipeline()
    pipeline.go.set()
    first = await resends.once(b"key", pipeline)
    second = await Idempotency(store_in(tmp_path), ttl_s=60).once(b"key", pipeline)
    assert (second.body, second.replay, pipeline.runs) == (first.body, "stored", 1)


async def test_one_under_way_is_joined_and_both_get_its_answer(resends: Idempotency) -> None:
    pipeline = Pipeline()
    both = [asyncio.create_task(resends.once(b"key", pipeline)) for _ in range(2)]
    await turns()
    pipeline.go.set()
    first, second = await asyncio.gather(*both)
    assert (pipeline.runs, first.replay, second.replay) == (1, None, "joined")
    assert first.body == second.body


async def test_the_first_client_that_leaves_takes_nothing_from_the_one_that_joined(resends: Idempotency) -> None:
    pipeline = Pipeline()
    first = asyncio.create_task(resends.once(b"key", pipeline))
    await turns()
    second = asyncio.create_task(resends.once(b"key", pipeline))
    await turns()
    first.cancel()
    await turns()
    assert (first.cancelled(), pipeline.cancelled) == (True, 0)
    pipeline.go.set()
    assert (await second).replay == "joined"
    assert (await resends.once(b"key", pipeline)).replay == "stored"
    assert pipeline.runs == 1


async def test_when_the_last_client_leaves_the_run_ends_and_a_resend_begins_anew(resends: Idempotency) -> None:
    pipeline = Pipeline()
    both = [asyncio.create_task(resends.once(b"key", pipeline)) for _ in range(2)]
    await turns()
    for each in both:
        each.cancel()
    await turns()
    assert pipeline.cancelled == 1
    pipeline.go.set()
    assert (await resends.once(b"key", pipeline)).replay is None
    assert pipeline.runs == 2


async def test_one_that_comes_in_the_moment_in_which_a_run_is_cancelled_does_not_join_it(resends: Idempotency) -> None:
    pipeline = Pipeline()
    first = asyncio.create_task(resends.once(b"key", pipeline))
    await turns()
    first.cancel()
    second = asyncio.create_task(resends.once(b"key", pipeline))
    pipeline.go.set()
    assert (await second).body
    assert pipeline.runs <= 2


async def test_errors_are_not_kept_and_one_that_joined_tries_by_itself(resends: Idempotency) -> None:
    pipeline = Pipeline()
    pipeline.error = TimeoutError("the first had little time")
    first = asyncio.create_task(resends.once(b"key", pipeline))
    await turns()
    pipeline.error = None
    second = asyncio.create_task(resends.once(b"key", pipeline))
    await turns()
    pipeline.go.set()
    with pytest.raises(TimeoutError, match="the first had little time"):
        await first
    assert ((await second).replay, pipeline.runs) == (None, 2)


async def test_the_run_has_an_id_of_its_own_by_which_serve_cancels(resends: Idempotency) -> None:
    """Serve cancels the stage calls of a request whose client leaves by this id."""
    seen: list[_RequestContext] = []

    async def run() -> Reply:
        seen.append(_serve_request_context.get())
        return Reply(b"{}", {})

    _serve_request_context.set(_RequestContext(route="/v1/emotion", _internal_request_id="of the first client"))
    await resends.once(b"key", run)
    assert seen[0].route == "/v1/emotion"
    assert seen[0]._internal_request_id not in ("", "of the first client")


async def test_a_stage_is_told_when_nobody_waits_for_it_any_longer() -> None:
    class Response:
        told = False

        def __await__(self) -> Any:
            return asyncio.Event().wait().__await__()

        def cancel(self) -> None:
            self.told = True

    response = Response()
    call = asyncio.create_task(_wanted(response))
    await turns()
    call.cancel()
    await turns()
    assert (call.cancelled(), response.told) == (True, True)


async def test_a_store_that_fails_costs_no_answer_and_is_left_alone_for_a_while(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken:
        asked = 0

        async def get(self, _: bytes) -> bytes | None:
            self.asked += 1
            raise StoreUnavailable("Redis does not answer: ConnectionError")

        async def put(self, _key: bytes, _value: bytes) -> None:
            raise AssertionError("not asked")

        def expire(self) -> int:
            return 0

    broken, pipeline = Broken(), Pipeline()
    pipeline.go.set()
    resends = Idempotency(broken, ttl_s=60)
    with caplog.at_level(logging.WARNING, "ray.serve"):
        for number in range(1, 4):
            assert (await resends.once(b"key", pipeline)).body == b'{"text": "%d"}' % number
    assert broken.asked == 1


async def test_what_is_kept_goes_although_no_request_comes_any_more(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path / "answers", ttl_s=0.1, max_answers=10, max_bytes=10**6)
    pipeline = Pipeline()
    pipeline.go.set()
    await Idempotency(store, ttl_s=0.1).once(b"key", pipeline)
    for _ in range(100):
        if store._db.execute("SELECT count(*) FROM answers").fetchone() == (0,):
            return
        await asyncio.sleep(0.05)
    pytest.fail("it is still there")


# --- Keys -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changed",
    [
        {"utterance_id": uuid4()},
        {"device_id": "another"},
        {"payload": ENVELOPE.payload[:-1] + b"?"},  # the same ids for something else
        {"language": None},
    ],
)
def test_another_id_or_another_body_is_another_request(resends: Idempotency, changed: dict[str, Any]) -> None:
    key = resends.key({}, ENVELOPE, PREFERENCES)
    assert key == resends.key({}, replace(ENVELOPE), replace(PREFERENCES, deadline=after(3), within_s=3))
    assert key != resends.key({}, replace(ENVELOPE, **changed), PREFERENCES)


def test_what_is_asked_for_is_part_of_the_key(resends: Idempotency) -> None:
    asked = [PREFERENCES, replace(PREFERENCES, strict=True), replace(PREFERENCES, emotions=("angry", "sad"))]
    assert len({resends.key({}, ENVELOPE, each) for each in asked}) == 3


def test_another_model_gives_another_answer(tmp_path: Path) -> None:
    own = IdempotencySettings(folder=tmp_path / "answers")
    both = [Settings(idempotency=own), Settings(idempotency=own, emotion_prior="conversation")]
    assert len({idempotency(each).key({}, ENVELOPE, PREFERENCES) for each in both}) == 2


def test_nothing_is_kept_for_a_client_that_says_so_nor_where_it_is_switched_off(resends: Idempotency) -> None:
    assert resends.key({"cache-control": "No-Store"}, ENVELOPE, PREFERENCES) is None
    off = idempotency(Settings(idempotency=IdempotencySettings(store="none")))
    assert off.key({}, ENVELOPE, PREFERENCES) is None


def test_a_store_that_cannot_be_opened_stops_no_gateway(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tmp_path.chmod(0o755)
    with caplog.at_level(logging.WARNING, "ray.serve"):
        opened = idempotency(Settings(idempotency=IdempotencySettings(folder=tmp_path)))
    assert opened.store is None


# --- Over HTTP --------------------------------------------------------------------------------------------------------


class Said:
    """Stages that hear the same of everybody; the recogniser waits for `go`, or fails."""

    def __init__(self) -> None:
        self.runs = 0
        self.go = asyncio.Event()
        self.error: Exception | None = None

    def stages(self) -> Stages:
        async def reconstruct(envelope: wire.Envelope) -> Timed[Mel]:
            return Timed(Mel(np.zeros((80, 100), np.float16), -1.0, envelope.seconds, "en", "none", None), 0.1)

        async def transcribe(_mel: Mel, _deadline: float) -> Timed[Transcript]:
            self.runs += 1
            await self.go.wait()
            if self.error is not None:
                raise self.error
            return Timed(Transcript(SECRET, "en", -0.1), 0.1)

        async def features(_text: str, *_: float) -> Timed[TokenFeatures]:
            return Timed(TokenFeatures(("I",), np.zeros((1, 300), np.float32)), 0.1)

        async def classify(*_: object) -> Timed[Emotion]:
            return Timed(Emotion("sad", {"sad": 0.8, "angry": 0.2}, 0.8, (), ()), 0.1)

        async def describe() -> dict[str, dict[str, str]]:
            return {}

        return Stages(reconstruct, transcribe, features, features, classify, describe)


@asynccontextmanager
async def gateway(said: Said, folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    """The application that Serve would run, without Serve."""
    deployment = ingress.Ingress.func_or_class.__mro__[1]  # beneath what `serve.ingress` puts around it
    monkeypatch.setitem(deployment.__init__.__globals__, "_local_stages", lambda *_: said.stages())
    settings = Settings(profile="fused", idempotency=IdempotencySettings(folder=folder / "answers"))
    instance = deployment(settings, None, False)

    async def call(scope: Any, receive: Any, send: Any) -> None:
        response = await instance.emotion(Request(scope, receive))
        await response(scope, receive, send)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(call), base_url="http://gateway") as client:
        yield client


async def post(client: httpx.AsyncClient, envelope: wire.Envelope = ENVELOPE, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await client.post(
        "/v1/emotion", content=wire.pack(envelope), headers={"Content-Type": wire.MEDIA_TYPE, **named}
    )


async def test_over_http_a_resend_is_the_same_answer_with_the_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    said = Said()
    said.go.set()
    with caplog.at_level(logging.DEBUG):
        async with gateway(said, tmp_path, monkeypatch) as client:
            first, second = await post(client), await post(client)
            anew = await post(client, Cache_Control="no-store")
            strict = await post(client, Prefer="handling=strict")
            another = await post(client, replace(ENVELOPE, utterance_id=uuid4()))
    assert [response.status_code for response in (first, second, anew, strict, another)] == [200] * 5
    assert first.json()["transcript"]["text"] == SECRET
    assert second.content == first.content
    replays = [response.headers.get("Amser-Replay") for response in (first, second, anew, strict, another)]
    assert replays == [None, "stored", None, None, None]
    own = ("content-length", "content-type", "server-timing")
    assert [second.headers[name] for name in own] == [first.headers[name] for name in own]
    assert first.headers["amser-request-id"] == json.loads(first.content)["request_id"]
    assert UUID(second.headers["amser-request-id"]) != UUID(first.headers["amser-request-id"])
    assert (first.headers.get("Preference-Applied"), strict.headers["Preference-Applied"]) == (None, "handling=strict")
    assert said.runs == 4
    assert SECRET not in caplog.text


async def test_over_http_the_first_client_hangs_up_and_the_second_gets_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = Said()
    async with gateway(said, tmp_path, monkeypatch) as client:
        first = asyncio.create_task(post(client))
        await asyncio.sleep(0.05)
        second = asyncio.create_task(post(client))
        await asyncio.sleep(0.05)
        first.cancel()
        await asyncio.sleep(0.05)
        said.go.set()
        response = await second
    assert (response.status_code, response.headers["Amser-Replay"], said.runs) == (200, "joined", 1)


async def test_over_http_refusals_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = Said()
    said.go.set()
    async with gateway(said, tmp_path, monkeypatch) as client:
        said.error = TimeoutError()
        assert (await post(client, Prefer="handling=strict")).status_code == 504
        said.error = None
        response = await post(client, Prefer="handling=strict")
    assert (response.status_code, response.headers.get("Amser-Replay"), said.runs) == (200, None, 2)
