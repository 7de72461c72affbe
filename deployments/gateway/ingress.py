"""The REST routes: parse, call the pipeline, answer.

Everything that a client controls has a limit here: the bytes of a body, the time it takes to send it, the time until
the answer. What a client gets for a bad request is an RFC 9457 problem document.
"""

# No `from __future__ import annotations` here: FastAPI could not find the types again after Ray has pickled the class.

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from typing import Any, Final

from fastapi import Request, Response, Security
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp

from amser import codecs, wire
from amser.rate_hint import HEADER as RATE_HINT
from deployments.access.gate import Gate, GateMiddleware
from deployments.access.shared_limits import buckets
from deployments.gateway.admission import Admission, Overloaded
from deployments.gateway.answers import Answer, answer, denial, refusal, server_timing
from deployments.gateway.audio import envelope_of
from deployments.gateway.clients import client_of
from deployments.gateway.decoding import Decoders
from deployments.gateway.flow_metrics import FlowMetrics
from deployments.gateway.idempotency import REPLAY_HEADER, Reply, idempotency
from deployments.gateway.preferences import (
    APPLIED_HEADER,
    DEADLINE_HEADER,
    LANGUAGE,
    PREFER_HEADER,
    STRICT,
    Preferences,
    read_language,
    read_preferences,
)
from deployments.gateway.problems import PROBLEM_TYPE, Problem, Refusal
from deployments.gateway.rate_hint import rate_hint
from deployments.pipeline import Description, Effort, Recognition, Stages, recognize, serve_stages
from deployments.replica.deadline import NEVER, remaining
from deployments.replica.execution import ModelThread, Timed
from deployments.replica.faults import told
from deployments.settings import Settings
from deployments.stages.assembly import build_local_stages, emotion_classes, model_names, spoken_languages
from models.messages import Mel

logger = logging.getLogger("ray.serve")  # the logger that Serve writes to its files

MEL_BANDS: Final = 80  # of the recogniser and of the fusion network
JOINED_GRACE_S: Final = 0.1  # beyond the deadline, until who waits for another request's answer is told
READY_WITHIN_S: Final = 2.0  # a stage that does not describe itself by then is not ready

Read = tuple[wire.Envelope, str, int]  # with the name of the codec or audio format, and the bytes of the body
Reader = Callable[[Request], Awaitable[Read]]

api = FastAPIOffline(  # /docs with its scripts and styles from here: it works without the internet
    title="Amser",
    version="1",
    description="Words and emotion of an utterance, from compressed log-Mel (`application/vnd.amser.v1`) or audio.",
)

# For the documentation; the gate has looked at the key by then
_KEY: Final = [Security(HTTPBearer(scheme_name="key", auto_error=False, description="A key of the operator's"))]
api.add_middleware(GateMiddleware, lambda: serve.get_replica_context().servable_object)

_PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    status: {"model": Problem, "description": description, "content": {PROBLEM_TYPE: {}}}
    for status, description in {
        400: "Malformed: truncated or corrupt",
        401: "No valid key",
        403: "The key is not for this",
        408: "The body did not arrive in time",
        413: "Too many bytes, or too long an utterance",
        415: "Unknown media type, version, codec or audio format",
        421: "The Host is none of this cluster's",
        422: "Well-formed but unusable: too short, not finite, rank too high, unknown language or emotions",
        429: "The cluster is full or cannot answer in time, or a limit is reached: try again after Retry-After",
        503: "A stage is not available, or failed a strict request",
        504: "The answer was not ready in time",
    }.items()
}


_HEADERS: Final = {
    DEADLINE_HEADER: ("integer", "Milliseconds after which the answer is of no use"),
    PREFER_HEADER: ("string", "`handling=strict` refuses answers that leave something out"),
}


def _binary_body(*media_types: str) -> dict[str, Any]:
    content = {name: {"schema": {"type": "string", "format": "binary"}} for name in media_types}
    headers = [
        {"name": name, "in": "header", "schema": {"type": kind}, "description": what}
        for name, (kind, what) in _HEADERS.items()
    ]
    return {"requestBody": {"required": True, "content": content}, "parameters": headers}


def _problem(refused: Refusal, request_id: str) -> Response:
    headers = {"Amser-Request-Id": request_id}
    if refused.retry_after_s is not None:
        headers["Retry-After"] = str(refused.retry_after_s)
    document = refused.problem(request_id).model_dump(exclude_none=True)
    return JSONResponse(document, refused.status.value, headers, media_type=PROBLEM_TYPE)


# Ray pickles the class where it is defined: whatever it names of this module has to stand above it
@serve.deployment
@serve.ingress(api)
class Ingress:
    """The HTTP interface of the application: the gateway in front of the stages.

    Args:
        settings: of the whole application.
        stages: handles of the stages; None loads all of them into this replica (the fused profile).
        gpu: whether this replica was given a share of one.
    """

    def __init__(self, settings: Settings, stages: dict[str, DeploymentHandle] | None, gpu: bool) -> None:
        self._requests = settings.requests
        self._flow = settings.flow
        self._rate_hint = settings.rate_hint
        shared = buckets(settings.idempotency.redis_url)
        self._gate = Gate(settings.auth, settings.limits, settings.cors, settings.hosts, client_of, shared)
        self._admission = Admission(client_share=settings.flow.client_share)
        self._resends = idempotency(settings)
        self._metrics = FlowMetrics(self._admission)
        self._decoders = Decoders(settings.decoding, settings.requests.max_frames)
        self._log_mel = ModelThread("log-mel")
        self._names = model_names(settings)
        self._languages = spoken_languages(settings)
        self._emotions = emotion_classes(settings)
        self._stages = self._counted(build_local_stages(settings, gpu) if stages is None else serve_stages(stages))

    def guard(self, app: ASGIApp) -> ASGIApp:
        """The routes behind keys and limits; `GateMiddleware` asks for it."""
        return self._gate.around(app, lambda denied: _problem(denial(denied), str(uuid.uuid4())))

    @api.post(
        "/v1/emotion",
        response_model=Answer,
        dependencies=_KEY,
        responses=_PROBLEMS,
        openapi_extra=_binary_body(wire.MEDIA_TYPE),
    )
    async def emotion(self, request: Request, emotions: str | None = None) -> Response:
        """Words and emotion of an utterance that a device compressed (docs/wire.md has the format).

        `emotions` restricts the answer to some classes, such as `angry,happy,neutral,sad`.
        """
        del emotions  # read in `_answer`; named here for the documentation
        return await self._answer(request, self._from_envelope)

    @api.post(
        "/v1/emotion/audio",
        response_model=Answer,
        dependencies=_KEY,
        responses=_PROBLEMS,
        openapi_extra=_binary_body(
            "audio/wav", "audio/flac", "audio/mpeg", "audio/ogg", "audio/mp4", "audio/aac", "audio/webm"
        ),
    )
    async def emotion_of_audio(
        self, request: Request, language: str | None = None, emotions: str | None = None
    ) -> Response:
        """The same for an audio file of up to 30 s, for clients without the codec.

        WAV, FLAC, MP3, OGG, M4A, AAC (ADTS) or WebM; its first bytes tell which, not its content type. `language` is
        spoken, such as `en` or `pt-BR`; without it, or with `auto`, the language is detected. `emotions` restricts the
        answer to some classes, such as `angry,happy,neutral,sad`.
        """
        del language, emotions  # read in `_from_audio` and `_answer`; named here for the documentation
        return await self._answer(request, self._from_audio)

    @api.get(
        "/v1/models",
        dependencies=_KEY,
        response_model=dict[str, dict[str, str]],
        responses={status: _PROBLEMS[status] for status in (401, 403, 421, 429, 503)},
    )
    async def models(self) -> Response:
        """The model behind each stage, and the device that it runs on."""
        return await self._described(JSONResponse)

    @api.get("/healthz")
    async def healthz(self) -> dict[str, str]:
        """Whether this process answers."""
        return {"status": "ok"}

    @api.get("/readyz", response_model=dict[str, str], responses={503: _PROBLEMS[503]})
    async def readyz(self) -> Response:
        """Whether every stage answers."""
        return await self._described(lambda stages: JSONResponse({"status": "ready", "stages": str(len(stages))}))

    async def check_health(self) -> None:
        """Of the stages in this replica, where it is the fused profile; Ray asks for it."""
        await self._stages.check_health()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """What was admitted and refused, for `deployments.autoscaling`; Ray asks for it."""
        return self._metrics.counts()

    async def _described(self, answer: Callable[[dict[str, Description]], Response]) -> Response:
        """An answer from what every stage says of itself; 503 where one says nothing in time."""
        try:
            stages = await asyncio.wait_for(self._stages.describe(), READY_WITHIN_S)
        except Exception as error:  # whatever keeps a stage from answering, the client is told the same
            cause = f"a stage does not answer: {type(error).__name__}"
            retry_after_s = self._requests.retry_after_s
            return _problem(Refusal(HTTPStatus.SERVICE_UNAVAILABLE, cause, None, retry_after_s), str(uuid.uuid4()))
        return answer(stages)

    async def _answer(self, request: Request, read: Reader) -> Response:
        request_id = str(uuid.uuid4())
        within_s = self._requests.deadline_s
        try:
            preferences = read_preferences(
                request.headers, request.query_params, longest_s=within_s, classes=self._emotions
            )
            within_s = preferences.within_s
            async with asyncio.timeout(remaining(preferences.deadline)):
                envelope, codec, size = await read(request)
            # A request that computes ends itself at the deadline, so that admission learns why; one that waits for the
            # answer to another ends here. An audio file has no ids: its envelope was made here.
            device_id = envelope.device_id if read == self._from_envelope else None
            visit = self._gate.visit()
            await visit.hears(device_id, size, envelope.seconds)
            client = visit.client or client_of(request)
            key = self._resends.key(request.headers, envelope, preferences) if read == self._from_envelope else None
            compute = partial(self._reply, envelope, codec, size, preferences, request_id, client)
            async with asyncio.timeout(remaining(preferences.deadline) + JOINED_GRACE_S):
                reply = await self._resends.once(key, compute)
        except ClientDisconnect:
            logger.info("request %s: the client left before its body was here", request_id)
            return Response(status_code=HTTPStatus.BAD_REQUEST)
        except Refusal as refused:
            return _problem(refused, request_id)
        except Exception as error:
            known = refusal(error, within_s, self._requests.retry_after_s)
            if known is None:
                logger.error("request %s failed: %s", request_id, told(error))
                known = Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "the cluster failed; its log has the reason")
            return _problem(known, request_id)
        replay = {REPLAY_HEADER: reply.replay} if reply.replay else {}
        return Response(reply.body, headers={**reply.headers, **replay}, media_type=JSONResponse.media_type)

    async def _reply(
        self, envelope: wire.Envelope, codec: str, size: int, preferences: Preferences, request_id: str, client: str
    ) -> Reply:
        recognition = await self._recognize(envelope, preferences, client)
        step = codecs.payload_step(envelope.codec, envelope.payload)
        document = answer(recognition, request_id, codec=codec, received=size, step=step, models=self._names)
        timing = server_timing(document.timings_ms, recognition.queues)
        headers = {"Server-Timing": timing, "Amser-Request-Id": request_id}
        if hint := rate_hint(step, recognition.transcript, self._rate_hint):
            headers[RATE_HINT] = str(hint)
        if preferences.strict:
            headers[APPLIED_HEADER] = STRICT
        return Reply(document.model_dump_json().encode(), headers)

    def _counted(self, stages: Stages) -> Stages:
        """The stages; the first counts what is well-formed, which its payload shows there and not before."""

        async def reconstruct(envelope: wire.Envelope) -> Timed[Mel]:
            mel = await stages.reconstruct(envelope)
            self._metrics.is_well_formed()
            return mel

        return replace(stages, reconstruct=reconstruct)

    async def _from_envelope(self, request: Request) -> Read:
        media_type = request.headers.get("content-type", "").partition(";")[0].strip()
        if media_type != wire.MEDIA_TYPE:
            cause = f"the content type is {media_type or 'missing'!r:.100}"
            raise Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, cause, wire.MEDIA_TYPE)
        body = await self._body(request, self._requests.max_bytes)
        envelope = wire.unpack(body, self._requests.limits)
        envelope = replace(envelope, language=read_language(envelope.language, self._languages))
        return envelope, envelope.codec, len(body)

    async def _from_audio(self, request: Request) -> Read:
        language = read_language(request.query_params.get(LANGUAGE), self._languages)
        body = await self._body(request, self._requests.max_audio_bytes)
        waveform, name = await self._decoders.decode(body)
        envelope = (await self._log_mel.run(envelope_of, waveform, language, self._requests.max_frames)).value
        return envelope, name, len(body)

    async def _recognize(self, envelope: wire.Envelope, preferences: Preferences, client: str) -> Recognition:
        """Refuses what a stage cannot process, before it joins a batch with other requests."""
        if envelope.bands != MEL_BANDS:
            raise wire.Unsupported(f"this recogniser does not read profile {envelope.profile!r}", "whisper80, paper")
        strict = preferences.strict or not self._flow.degrade
        if not self._flow.admission:
            with self._metrics.inside():
                return await self._run(envelope, Effort.WHOLE, preferences, strict)
        try:
            admitted = self._admission.admit(envelope.seconds, remaining(preferences.deadline), strict, client)
        except Overloaded as refused:
            self._metrics.refuse(refused)
            raise
        with self._metrics.running(admitted) as running:
            recognition = await self._run(envelope, admitted.effort, preferences, strict)
            running.fell_short = admitted.effort >= Effort.WORDS and recognition.transcript is None
        return recognition

    async def _run(
        self, envelope: wire.Envelope, effort: Effort, preferences: Preferences, strict: bool
    ) -> Recognition:
        """The pipeline, until the deadline: admission learns that it passed, apart from a client that left."""
        recognition = recognize(
            envelope,
            self._stages,
            effort=effort,
            deadline=preferences.deadline if self._flow.deadlines else NEVER,
            strict=strict,
            emotions=preferences.emotions,
        )
        async with asyncio.timeout(remaining(preferences.deadline)):
            if self._flow.cancellation:
                return await recognition
            return await asyncio.shield(asyncio.ensure_future(recognition))

    async def _body(self, request: Request, limit: int) -> bytes:
        """The whole body, but never more than `limit` bytes of it in memory."""
        accepted = f"up to {limit} bytes"
        announced = request.headers.get("content-length", "")
        if announced.isdigit() and int(announced) > limit:
            cause = f"the body has {announced} bytes"
            raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, cause, accepted)
        body = bytearray()
        try:
            async with asyncio.timeout(self._requests.body_timeout_s):
                async for piece in request.stream():
                    body += piece
                    if len(body) > limit:
                        cause = f"the body has more than {limit} bytes"
                        raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, cause, accepted)
        except TimeoutError:
            limit_s = f"{self._requests.body_timeout_s:g} s"
            raise Refusal(HTTPStatus.REQUEST_TIMEOUT, "the body did not arrive in time", limit_s) from None
        return bytes(body)
