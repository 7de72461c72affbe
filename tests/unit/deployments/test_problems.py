"""Every way to be refused by the gateway: its status, its kind, and a document that a client can rely on.

The gateway is the real one with its routes, over ASGI and without Serve; the stages behind it do what a test says. What
Ray's proxy refuses before the gateway is in test_connections.py, keys and limits in the tests of `deployments.access`.
"""

from __future__ import annotations

import asyncio
import gzip
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import google_crc32c
import httpx
import numpy as np
import pytest
from audio_bombs import film_without_sound, matroska_of_one_byte_packets
from ray import serve
from ray.serve.exceptions import BackPressureError
from recordings import audio_file, envelope_of, silence

from amser import wire
from deployments.gateway import ingress
from deployments.gateway.problems import Refusal, refusal_of
from deployments.gateway.problems.catalogue import KINDS
from deployments.gateway.problems.pages import markdown
from deployments.gateway.uploads.decoding import DecoderUnavailable
from deployments.gateway.utterances.admission import SHARE, Overloaded
from deployments.gateway.utterances.answers import refusal
from deployments.pipeline import Stages
from deployments.replica.execution import Timed
from deployments.settings import Settings
from models.messages import Emotion, Mel, TokenFeatures, Transcript

ROOT = Path(__file__).resolve().parents[3]
ENVELOPE = envelope_of(silence(1))
GOOD = wire.pack(ENVELOPE)
STRICT = {"Prefer": "handling=strict"}
Trouble = dict[str, Any]
Gateway = Callable[..., Any]


def stages(trouble: Trouble) -> Stages:
    """That answer at once, but for those in `trouble`: an error, or seconds that they take."""

    def stage(name: str, answer: Any) -> Any:
        async def call(*_: object) -> Any:
            happens = trouble.get(name, 0.0)
            if isinstance(happens, BaseException):
                raise happens
            await asyncio.sleep(happens)
            return answer if name == "describe" else Timed(answer, 0.1)

        return call

    said = TokenFeatures(("hello",), np.zeros((1, 300), np.float32))
    return Stages(
        stage("mel", Mel(np.zeros((80, 100), np.float16), -1.0, 1.0, "en", "none", None)),
        stage("asr", Transcript("hello", "en", -0.1)),
        stage("text", said),
        stage("text", said),
        stage("fusion", Emotion("sad", {"sad": 0.8, "angry": 0.2}, 0.8, (), ())),
        stage("describe", {"asr": {"model": "whisper", "device": "cpu"}}),
    )


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Gateway:
    """A client of a gateway with some settings of requests, in front of stages with some trouble."""
    kind = ingress.Ingress.func_or_class.__mro__[1]  # type: ignore[attr-defined]

    @asynccontextmanager
    async def client(
        requests: dict[str, Any] | None = None, admission: bool = True, **trouble: Any
    ) -> AsyncIterator[httpx.AsyncClient]:
        names = kind.__init__.__globals__  # Ray has pickled the class, so it has its own copy of the module's names
        monkeypatch.setitem(names, "_local_stages", lambda *_: stages(trouble))
        monkeypatch.setitem(names, "spoken_languages", lambda _: frozenset({"en"}))
        flow = {"admission": admission}
        settings = Settings(
            auth="none", profile="fused", requests=requests or {}, flow=flow, idempotency={"store": "none"}
        )
        instance = kind(settings, None, False)
        monkeypatch.setattr(serve, "get_replica_context", lambda: SimpleNamespace(servable_object=instance))
        transport = httpx.ASGITransport(ingress.api, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=30) as opened:
            yield opened

    return client


def assert_problem(response: httpx.Response, kind: str) -> dict[str, Any]:
    """The whole of what every refusal has."""
    document: dict[str, Any] = response.json()
    assert document["type"] == f"/problems/{kind}", document
    assert (response.status_code, document["status"]) == (KINDS[kind].status, KINDS[kind].status)
    assert response.headers["content-type"] == "application/problem+json"
    assert UUID(response.headers["amser-request-id"]) == UUID(document["request_id"])
    assert document["title"] == KINDS[kind].title
    assert document["detail"]
    says_when = KINDS[kind].again == "yes, after Retry-After"
    assert ("retry-after" in response.headers) is says_when
    return document


def patched(offset: int, content: bytes) -> bytes:
    """The envelope with other bytes at one place, and the checksum to match."""
    body = GOOD[:offset] + content + GOOD[offset + len(content) : -4]
    return body + struct.pack("<I", google_crc32c.value(body))


async def slowly() -> AsyncIterator[bytes]:
    yield GOOD[:20]
    await asyncio.sleep(30)


def form(file: bytes | None, **fields: str) -> bytes:
    """The body of a form, as `curl -F file=@speech.wav` writes it."""
    parts = [
        f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'.encode()
        for name, text in fields.items()
    ]
    if file is not None:
        head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="speech.wav"\r\n\r\n'
        parts.append(head + file + b"\r\n")
    return b"".join(parts) + b"--x--\r\n"


WAV = audio_file(silence(1), "wav", "pcm_s16le")
QUICK = {"bodies": {"grace_s": 0.2}}
# What is asked: method, path, body, headers; settings; trouble of the stages
ENVELOPES: list[tuple[str, Any, dict[str, str], dict[str, Any], Trouble]] = [
    ("malformed", GOOD[:-9], {}, {}, {}),
    ("malformed", b"", {}, {}, {}),
    ("malformed", GOOD, {}, {}, {"mel": wire.Malformed("the payload is cut off", "")}),
    ("bad-preference", GOOD, {"Amser-Deadline-Ms": "soon"}, {}, {}),
    ("unsupported-media-type", GOOD, {"Content-Type": "application/json"}, {}, {}),
    ("unsupported-encoding", GOOD, {"Content-Encoding": "gzip"}, {}, {}),
    ("unsupported-envelope", b"no envelope, but long enough", {}, {}, {}),
    ("unsupported-envelope", patched(4, b"\x09"), {}, {}, {}),
    ("unsupported-envelope", wire.pack(envelope_of(silence(1), profile="whisper128", rate=0.1)), {}, {}, {}),
    ("too-large", bytes(2000), {}, {"max_bytes": 1000}, {}),
    ("too-long", GOOD, {}, {"max_frames": 50}, {}),
    ("unusable", patched(8, struct.pack("<I", 2)), {}, {}, {}),
    ("unusable", GOOD, {}, {}, {"mel": wire.Unusable("values are not finite", "")}),
    ("unknown-language", wire.pack(replace(ENVELOPE, language="zz")), {}, {}, {}),
    ("body-too-slow", slowly, {}, QUICK, {}),
    ("deadline", slowly, {"Amser-Deadline-Ms": "200"}, {}, {}),
    ("deadline", GOOD, STRICT, {"deadline_s": 2}, {"asr": 30.0}),
    ("overloaded", GOOD, {**STRICT, "Amser-Deadline-Ms": "5"}, {}, {}),
    ("queue-full", GOOD, {}, {}, {"fusion": BackPressureError(1, 1)}),
    ("stage-failed", GOOD, STRICT, {}, {"asr": RuntimeError("what somebody said")}),
    ("internal", GOOD, {}, {}, {"fusion": RuntimeError("what somebody said")}),
]
FORM = {"Content-Type": "multipart/form-data; boundary=x"}
GZIP = {"Content-Encoding": "gzip"}
AUDIO: list[tuple[str, bytes, str, dict[str, str]]] = [
    ("damaged-audio", WAV[:40], "", {}),
    ("unsupported-audio", b"Dear diary, " * 9, "", {}),
    ("unsupported-codec", audio_file(silence(1), "wav", "adpcm_ms"), "", {}),
    ("no-sound", film_without_sound(), "", {}),
    ("too-costly", matroska_of_one_byte_packets(), "", {}),
    ("too-long", audio_file(silence(31), "flac", "flac"), "", {}),
    ("unusable", audio_file(silence(0.02), "wav", "pcm_s16le"), "", {}),
    ("unknown-language", WAV, "?language=zz", {}),
    ("unknown-emotions", WAV, "?emotions=bored,sad", {}),
    ("unknown-language", form(WAV, language="zz"), "", FORM),
    ("unknown-emotions", form(WAV, emotions="bored,sad"), "", FORM),
    ("empty-body", b"", "", {}),
    ("empty-body", b"", "", GZIP),
    ("empty-body", form(b""), "", FORM),
    ("bad-form", WAV, "", FORM),
    ("bad-form", form(WAV), "", {"Content-Type": "multipart/form-data"}),
    ("bad-form", form(WAV).removesuffix(b"--x--\r\n") + form(WAV), "", FORM),
    ("bad-form", form(WAV, **{str(each): "" for each in range(40)}), "", FORM),
    ("no-file", form(None, language="en"), "", FORM),
    ("bad-encoding", WAV, "", GZIP),
    ("bad-encoding", gzip.compress(WAV)[:-9], "", GZIP),
    ("too-large", gzip.compress(bytes(12 << 20)), "", GZIP),
    ("unsupported-encoding", WAV, "", {"Content-Encoding": "br"}),
]
ELSEWHERE = {
    "test_streams": {"bad-message", "too-many-sockets"},  # tested where they are raised
    "recordings": {"bad-webhook", "jobs-full", "store-unavailable"},
    "test_connections.py": {
        "bad-http", "head-too-slow", "head-too-large", "too-many-connections", "replica-died",
    },
    "deployments.access": {
        "unauthorized", "forbidden", "host-not-allowed", "limit-requests", "limit-concurrency", "limit-bytes",
        "limit-speech",
    },
    "test_openai.py": {"bad-parameter"},
    "below": {
        "too-many-bodies", "share-used", "not-found", "unknown-model", "method-not-allowed", "not-ready",
        "stage-unavailable",
    },
}  # fmt: skip


@pytest.mark.parametrize(("kind", "body", "headers", "requests", "trouble"), ENVELOPES)
async def test_a_refused_envelope(
    gateway: Gateway, kind: str, body: Any, headers: dict[str, str], requests: dict[str, Any], trouble: Trouble
) -> None:
    async with gateway(requests, **trouble) as client:
        content = body() if callable(body) else body
        response = await client.post(
            "/v1/emotion", content=content, headers={"Content-Type": wire.MEDIA_TYPE, **headers}
        )
        document = assert_problem(response, kind)
        assert "somebody said" not in response.text
        assert ("parameter" in document) is (kind in ("unknown-language", "unknown-emotions"))


async def test_a_refused_audio_file(gateway: Gateway) -> None:
    async with gateway() as client:  # one for all, since it starts processes that decode
        for kind, body, query, headers in AUDIO:
            assert_problem(await client.post(f"/v1/emotion/audio{query}", content=body, headers=headers), kind)


async def test_a_gateway_with_all_that_it_takes_under_way_is_ready_and_refuses_the_rest(gateway: Gateway) -> None:
    async with gateway(admission=False, mel=30.0) as client:
        headers = {"Content-Type": wire.MEDIA_TYPE}
        asked = [
            asyncio.create_task(client.post("/v1/emotion", content=GOOD, headers=headers)) for _ in range(256 + 64)
        ]
        async with asyncio.timeout(20):
            while sum(each.done() for each in asked) < 64:
                await asyncio.sleep(0.05)
        waiting = [each for each in asked if not each.done()]
        assert len(waiting) == 256
        for each in asked:
            if each.done():
                assert_problem(each.result(), "queue-full")
        for path in ("/healthz", "/readyz"):
            assert (await asyncio.wait_for(client.get(path), 1)).status_code == 200
        for task in waiting:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def test_a_body_that_makes_room_for_another(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployments.intake.bodies.COUNTED_AFTER_S", 0)
    async with gateway({"bodies": {"at_once": 1, "grace_s": 5}}) as client:
        headers = {"Content-Type": wire.MEDIA_TYPE}
        slow = asyncio.create_task(client.post("/v1/emotion", content=slowly(), headers=headers))
        await asyncio.sleep(0.1)
        other = asyncio.create_task(client.post("/v1/emotion", content=slowly(), headers=headers))
        response = await slow
        other.cancel()
        assert_problem(response, "too-many-bodies")
        assert response.headers["connection"] == "close"


def test_kinds_of_refusals_that_admission_and_absent_stages_raise() -> None:
    for error, kind in (
        (Overloaded(3, SHARE), "share-used"),
        (DecoderUnavailable("none starts"), "stage-unavailable"),
    ):
        refused = refusal(error, 25, 1)
        assert refused is not None
        assert refused.kind.slug == kind


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("GET", "/nothing", "not-found"),
        ("GET", "/v1/nothing", "not-found"),
        ("POST", "/v1/emotion/", "not-found"),
        ("GET", "/problems/none", "not-found"),
        ("GET", "/v1/emotion", "method-not-allowed"),
        ("DELETE", "/v1/models", "method-not-allowed"),
        ("GET", "/v1/models/gpt-4o", "unknown-model"),
        ("GET", "/v1/audio/transcriptions", "method-not-allowed"),
        ("POST", "/healthz", "method-not-allowed"),
        ("BREW", "/v1/emotion", "method-not-allowed"),
    ],
)
async def test_what_is_no_route(gateway: Gateway, method: str, path: str, kind: str) -> None:
    async with gateway() as client:
        response = await client.request(method, path, follow_redirects=False)
        assert_problem(response, kind)
        if kind == "method-not-allowed":
            assert response.headers["allow"]


@pytest.mark.parametrize("path", ["/readyz", "/v1/models"])
async def test_a_stage_that_does_not_answer(gateway: Gateway, path: str) -> None:
    async with gateway(describe=RuntimeError("no")) as client:
        assert_problem(await client.get(path), "not-ready")


async def test_an_error_that_nobody_handles(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a middleware, or of a route itself; `/v1/models` answered a bare 500."""
    async with gateway() as client:

        def fails() -> Any:
            raise RuntimeError("what somebody said")

        monkeypatch.setattr(serve, "get_replica_context", fails)
        for path in ("/v1/models", "/readyz"):
            response = await client.get(path)
            assert_problem(response, "internal")
            assert "somebody" not in response.text


@pytest.mark.parametrize(
    "path", ["/healthz", "/readyz", "/v1/models", "/v1/models/whisper-1", "/problems", "/problems/malformed"]
)
async def test_head_is_answered_as_get_is(gateway: Gateway, path: str) -> None:
    async with gateway() as client:
        assert (await client.head(path)).status_code == (await client.get(path)).status_code == 200


async def test_every_type_leads_to_a_page_of_the_same_server(gateway: Gateway) -> None:
    async with gateway() as client:
        overview = (await client.get("/problems")).text
        for kind in KINDS.values():
            page = await client.get(kind.uri)
            assert page.status_code == 200
            assert kind.title in page.text
            assert f'href="{kind.uri}"' in overview


async def test_the_api_names_the_kinds_of_problems(gateway: Gateway) -> None:
    async with gateway() as client:
        api = (await client.get("/openapi.json")).json()
    assert set(api["components"]["schemas"]["Problem"]["properties"]["type"]["enum"]) == {
        kind.uri for kind in KINDS.values()
    }
    responses = api["paths"]["/v1/emotion"]["post"]["responses"]
    for kind in KINDS.values():
        assert kind.uri in responses[str(kind.status.value)]["description"]
    assert not any("head" in methods for methods in api["paths"].values())


def test_every_kind_is_tested_or_named() -> None:
    here = {kind for kind, *_ in ENVELOPES} | {kind for kind, *_ in AUDIO}
    assert here | set().union(*ELSEWHERE.values()) == set(KINDS)


def test_the_page_of_the_documentation_is_the_catalogue() -> None:
    """`python -m deployments.gateway.problems.pages > docs/problems.md` writes it."""
    assert (ROOT / "docs" / "problems.md").read_text(encoding="utf-8") == markdown()


def test_what_cannot_be_helped_by_trying_again_does_not_say_so() -> None:
    assert KINDS["body-too-slow"].again == "once the request is changed"
    for kind in KINDS.values():
        assert (kind.status in (429, 503)) is (kind.again == "yes, after Retry-After"), kind.slug


def test_a_refusal_without_a_kind_has_that_of_its_status() -> None:
    for kind in KINDS.values():
        assert Refusal(kind.status, "cause").kind.status == kind.status
    with pytest.raises(KeyError):
        refusal_of("unheard-of", "cause")
