"""The REST routes: parse, call the pipeline, answer.

Everything that a client controls has a limit here: the bytes of a body, the pace at which it comes, the time until the
answer, the requests under way. Whatever is refused gets an RFC 9457 problem document.
"""

# No `from __future__ import annotations` here: FastAPI could not find the types again after Ray has pickled the class.

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
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
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.types import ASGIApp

from amser import codecs, wire
from amser.rate_hint import HEADER as RATE_HINT
from deployments.access.denied import Denied
from deployments.access.gate import Gate, GateMiddleware
from deployments.access.rules import path_of, route_of
from deployments.access.shared_limits import buckets
from deployments.gateway.admission import Admission, Overloaded
from deployments.gateway.answers import Answer, answer, denial, refusal, server_timing
from deployments.gateway.audio import envelope_of
from deployments.gateway.bodies import RequestBodies
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
from deployments.gateway.problems import Refusal, documented, refusal_of
from deployments.gateway.problems.handlers import answer_with_problems
from deployments.gateway.rate_hint import rate_hint
from deployments.gateway.readiness import Readiness
from deployments.pipeline import Effort, Recognition, Stages, recognize, serve_stages
from deployments.replica.deadline import NEVER, remaining
from deployments.replica.execution import ModelThread, Timed
from deployments.replica.faults import told
from deployments.replica.resources import assigned
from deployments.settings import Settings
from deployments.stages.assembly import Models, build_local_stages, emotion_classes, model_names, spoken_languages
from deployments.telemetry.request_ids import REQUEST_ID_HEADER, request_id
from deployments.telemetry.requests import RequestRecord, telemetry
from models.messages import Mel

logger = logging.getLogger("ray.serve")  # the logger that Serve writes to its files

MEL_BANDS: Final = 80  # of the recogniser and of the fusion network
JOINED_GRACE_S: Final = 0.1  # beyond the deadline, until who waits for another request's answer is told

Read = tuple[wire.Envelope, str]  # with the name of the codec or audio format
Reader = Callable[[Request, bytes], Awaitable[Read]]

api = FastAPIOffline(  # /docs with its scripts and styles from here: it works without the internet
    title="Amser",
    redirect_slashes=False,  # a redirect would name the host that the client says this is
    version="1",
    description="Words and emotion of an utterance, from compressed log-Mel (`application/vnd.amser.v1`) or audio.",
)

# For the documentation; the gate has looked at the key by then
_KEY: Final = [Security(HTTPBearer(scheme_name="key", auto_error=False, description="A key of the operator's"))]
api.add_middleware(GateMiddleware, lambda: serve.get_replica_context().servable_object)
answer_with_problems(api)  # after it, so that errors of the gate are answered too

_PROBLEMS: Final = documented(
    HTTPStatus(status) for status in (400, 401, 403, 404, 405, 408, 413, 415, 421, 422, 429, 431, 500, 503, 504)
)
_OF_MODELS: Final = documented(HTTPStatus(status) for status in (401, 403, 421, 429, 503))
_NOT_READY: Final = documented([HTTPStatus.SERVICE_UNAVAILABLE])

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


def _check_media_type(request: Request) -> None:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip()
    if media_type != wire.MEDIA_TYPE:
        cause = f"the content type is {media_type or 'missing'!r:.100}"
        raise refusal_of("unsupported-media-type", cause, wire.MEDIA_TYPE)


def _refused(refusal: Refusal, record: RequestRecord) -> Response:
    record.refused(refusal.status.value, refusal.kind.slug)
    return refusal.response(record.request_id)


# Ray pickles the class where it is defined: whatever it names of this module has to stand above it
@serve.deployment
@serve.ingress(api)
class Ingress:
    """The HTTP interface of the application: the gateway in front of the stages.

    Args:
        settings: of the whole application.
        stages: handles of the stages; None loads all of them into this replica (the fused profile).
        gpu: whether this replica was given a share of one.
        models: that the application was built with; None takes those that this node has.
    """

    def __init__(
        self,
        settings: Settings,
        stages: dict[str, DeploymentHandle] | None,
        gpu: bool,
        models: Models | None = None,
    ) -> None:
        self._requests = settings.requests
        self._flow = settings.flow
        self._rate_hint = settings.rate_hint
        shared = buckets(settings.idempotency.redis_url)
        self._gate = Gate(settings.auth, settings.limits, settings.cors, settings.hosts, client_of, shared)
        self._admission = Admission(client_share=settings.flow.client_share)
        self._resends = idempotency(settings)
        self._telemetry = telemetry(settings.telemetry)
        self._metrics = FlowMetrics(self._admission, self._telemetry.instruments)
        self._bodies = RequestBodies(settings.requests.bodies)
        self._inside = 0  # requests whose body is here and that have no answer yet
        self._decoders = Decoders(settings.decoding, settings.requests.max_frames)
        self._log_mel = ModelThread("log-mel")
        self._names = dict(models.names) if models else model_names(settings)
        self._languages = models.languages if models else spoken_languages(settings)
        self._emotions = models.emotions if models else emotion_classes(settings)
        own = build_local_stages(settings, gpu, models) if stages is None else serve_stages(stages)
        self._stages = self._counted(own)
        self._readiness = Readiness(self._stages.describe)

    def guard(self, app: ASGIApp) -> ASGIApp:
        """The routes behind keys and limits; `GateMiddleware` asks for it."""
        return self._gate.around(app, self._denied)

    def _denied(self, denied: Denied, request: HTTPConnection) -> Response:
        with self._telemetry.request(request, route_of(path_of(request.scope))) as record:
            return _refused(denial(denied), record)

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
        return await self._answer(request, "/v1/emotion", self._from_envelope, self._requests.max_bytes)

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
        return await self._answer(request, "/v1/emotion/audio", self._from_audio, self._requests.max_audio_bytes)

    @api.head("/v1/models", dependencies=_KEY, include_in_schema=False)
    @api.get(
        "/v1/models",
        dependencies=_KEY,
        response_model=dict[str, dict[str, str]],
        responses=_OF_MODELS,
    )
    async def models(self, request: Request) -> Response:
        """The model behind each stage, and the device that it runs on."""
        state = await self._readiness.state()
        if not state.stages:
            return self._not_ready(request, state.trouble or "the stages are busy and have not said yet what they run")
        return JSONResponse(state.stages)

    @api.head("/healthz", include_in_schema=False)
    @api.get("/healthz")
    async def healthz(self) -> dict[str, str]:
        """Whether this process answers."""
        return {"status": "ok"}

    @api.head("/readyz", include_in_schema=False)
    @api.get("/readyz", response_model=dict[str, str], responses=_NOT_READY)
    async def readyz(self, request: Request) -> Response:
        """Whether every stage can answer, be it busy; `Age` is of what is known, in seconds."""
        state = await self._readiness.state()
        if state.trouble:
            return self._not_ready(request, state.trouble)
        ready = {"status": "ready", "stages": str(len(state.stages))}
        return JSONResponse(ready, headers={"Age": str(round(state.age_s)), "Cache-Control": "no-store"})

    async def check_health(self) -> None:
        """Of the stages in this replica, where it is the fused profile; Ray asks for it."""
        self._telemetry.check()
        self._metrics.refresh()
        await self._stages.check_health()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """What was admitted and refused, and resources, for `deployments.autoscaling`; Ray asks for it."""
        return self._metrics.counts() | assigned()

    def _not_ready(self, request: Request, trouble: str) -> Response:
        refused = refusal_of("not-ready", trouble, retry_after_s=self._requests.retry_after_s)
        return refused.response(request_id(request.headers))

    async def _answer(self, request: Request, route: str, read: Reader, largest: int) -> Response:
        with self._telemetry.request(request, route) as record:
            return await self._answered(request, read, largest, record)

    async def _answered(self, request: Request, read: Reader, largest: int, record: RequestRecord) -> Response:
        within_s = self._requests.deadline_s
        try:
            preferences = read_preferences(
                request.headers, request.query_params, longest_s=within_s, classes=self._emotions
            )
            within_s = preferences.within_s
            if read == self._from_envelope:
                _check_media_type(request)
            named_s = remaining(preferences.deadline) if preferences.starts_with_head else None
            async with asyncio.timeout(named_s):
                body = await self._bodies.read(request, largest)
            preferences = preferences.from_body()
            with self._one_inside():
                async with asyncio.timeout(remaining(preferences.deadline)):
                    envelope, codec = await read(request, body)
                size = len(body)
                record.received(codec, size)
                visit = self._gate.visit()
                await visit.hears(envelope.device_id if read == self._from_envelope else None, size, envelope.seconds)
                client = visit.client or client_of(request)
                # A request that computes ends itself at the deadline, so that admission learns why; one that waits for
                # the answer to another ends here. An audio file has no ids: its envelope was made here.
                key = self._resends.key(request.headers, envelope, preferences) if read == self._from_envelope else None
                compute = partial(self._reply, envelope, codec, size, preferences, record, client)
                async with asyncio.timeout(remaining(preferences.deadline) + JOINED_GRACE_S):
                    reply = await self._resends.once(key, compute)
        except ClientDisconnect:
            record.left("body")
            return Response(status_code=HTTPStatus.BAD_REQUEST)
        except Refusal as refused:
            return _refused(refused, record)
        except Exception as error:
            if isinstance(error, TimeoutError):
                record.missed_deadline()
            known = refusal(error, within_s, self._requests.retry_after_s)
            if known is None:
                logger.error("request %s failed: %s", record.request_id, told(error))
                known = refusal_of("internal", "the cluster failed; its log has the reason")
            return _refused(known, record)
        record.answered(reply.degraded, reply.replay)
        replay = {REPLAY_HEADER: reply.replay} if reply.replay else {}
        own = {REQUEST_ID_HEADER: record.request_id}  # a kept answer has the id of the request that it was computed for
        return Response(reply.body, headers={**reply.headers, **own, **replay}, media_type=JSONResponse.media_type)

    async def _reply(
        self,
        envelope: wire.Envelope,
        codec: str,
        size: int,
        preferences: Preferences,
        record: RequestRecord,
        client: str,
    ) -> Reply:
        recognition = await self._recognize(envelope, preferences, client)
        step = codecs.payload_step(envelope.codec, envelope.payload)
        document = answer(recognition, record.request_id, codec=codec, received=size, step=step, models=self._names)
        timing = server_timing(document.timings_ms, recognition.queues)
        record.recognized(document.emotion, document.uncertain, recognition.mel.seconds, recognition.left_out)
        headers = {"Server-Timing": timing, REQUEST_ID_HEADER: record.request_id}
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

    async def _from_envelope(self, request: Request, body: bytes) -> Read:
        del request  # an envelope says it all
        envelope = wire.unpack(body, self._requests.limits)
        envelope = replace(envelope, language=read_language(envelope.language, self._languages))
        return envelope, envelope.codec

    async def _from_audio(self, request: Request, body: bytes) -> Read:
        language = read_language(request.query_params.get(LANGUAGE), self._languages)
        waveform, name = await self._decoders.decode(body)
        envelope = (await self._log_mel.run(envelope_of, waveform, language, self._requests.max_frames)).value
        return envelope, name

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

    @contextmanager
    def _one_inside(self) -> Iterator[None]:
        """A request is under way. Serve counts bodies on their way too, and so leaves room for readiness."""
        if self._inside >= self._requests.at_once:
            cause = f"{self._inside} requests are under way"
            raise refusal_of("queue-full", cause, retry_after_s=self._requests.retry_after_s)
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1
