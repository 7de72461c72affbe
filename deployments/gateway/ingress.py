"""The REST routes: parse, call the pipeline, answer.

Everything that a client controls has a limit here: the bytes of a body, the pace at which it comes, the time until the
answer, the requests under way. Whatever is refused gets an RFC 9457 problem document.
"""

# No `from __future__ import annotations` here: FastAPI could not find the types again after Ray has pickled the class.

from http import HTTPStatus
from typing import Any, Final

from fastapi import Request, Response, Security
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp

from amser import wire
from deployments.access.denied import Denied
from deployments.access.gate import Gate, GateMiddleware
from deployments.access.rules import path_of, route_of
from deployments.access.shared_limits import buckets
from deployments.gateway.clients import client_of
from deployments.gateway.preferences import DEADLINE_HEADER, PREFER_HEADER
from deployments.gateway.problems import documented, refusal_of
from deployments.gateway.problems.handlers import answer_with_problems
from deployments.gateway.readiness import Readiness
from deployments.gateway.uploads.decoding import Decoders
from deployments.gateway.utterances.answering import Answering, refused
from deployments.gateway.utterances.answers import Answer, denial
from deployments.gateway.utterances.reading import AudioReader, EnvelopeReader
from deployments.pipeline import serve_stages
from deployments.replica.resources import assigned
from deployments.settings import Settings
from deployments.stages.assembly import Models, build_local_stages, emotion_classes, model_names, spoken_languages
from deployments.telemetry.request_ids import request_id
from deployments.telemetry.requests import telemetry

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


_AUDIO: Final = tuple(
    f"audio/{name}" for name in ("wav", "flac", "mpeg", "ogg", "mp4", "aac", "webm", "amr", "aiff", "x-caf", "basic")
)
_FORM: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["file"],
    "properties": {
        "file": {"type": "string", "format": "binary"},
        "language": {"type": "string"},
        "emotions": {"type": "string"},
    },
}


def _binary_body(*media_types: str, form: bool = False) -> dict[str, Any]:
    content: dict[str, Any] = {name: {"schema": {"type": "string", "format": "binary"}} for name in media_types}
    if form:
        content["multipart/form-data"] = {"schema": _FORM}
    headers = [
        {"name": name, "in": "header", "schema": {"type": kind}, "description": what}
        for name, (kind, what) in _HEADERS.items()
    ]
    return {"requestBody": {"required": True, "content": content}, "parameters": headers}


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
        self._retry_after_s = settings.requests.retry_after_s
        shared = buckets(settings.idempotency.redis_url)
        self._gate = Gate(settings.auth, settings.limits, settings.cors, settings.hosts, client_of, shared)
        self._telemetry = telemetry(settings.telemetry)
        names = dict(models.names) if models else model_names(settings)
        languages = models.languages if models else spoken_languages(settings)
        emotions = models.emotions if models else emotion_classes(settings)
        self._stages = build_local_stages(settings, gpu, models) if stages is None else serve_stages(stages)
        self._answering = Answering(settings, self._stages, names, emotions, self._gate, self._telemetry)
        self._metrics = self._answering.metrics
        self._envelopes = EnvelopeReader(settings.requests, languages)
        decoders = Decoders(settings.decoding, settings.requests.max_frames)
        self._audio = AudioReader(settings.requests, languages, decoders)
        self._readiness = Readiness(self._stages.describe)

    def guard(self, app: ASGIApp) -> ASGIApp:
        """The routes behind keys and limits; `GateMiddleware` asks for it."""
        return self._gate.around(app, self._denied)

    def _denied(self, denied: Denied, request: HTTPConnection) -> Response:
        with self._telemetry.request(request, route_of(path_of(request.scope))) as record:
            return refused(denial(denied), record)

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
        del emotions  # read by `Answering`; named here for the documentation
        return await self._answering.respond(request, "/v1/emotion", self._envelopes)

    @api.post(
        "/v1/emotion/audio",
        response_model=Answer,
        dependencies=_KEY,
        responses=_PROBLEMS,
        openapi_extra=_binary_body(*_AUDIO, form=True),
    )
    async def emotion_of_audio(
        self, request: Request, language: str | None = None, emotions: str | None = None
    ) -> Response:
        """The same for an audio file of up to 30 s, for clients without the codec.

        WAV (RF64 and W64 too), FLAC, MP3, Ogg, M4A, 3GP, AAC (ADTS), WebM, Matroska, AMR, AIFF, CAF or AU; its first
        bytes tell which, not its content type. It is the body or a part of a form (`multipart/form-data`); either may
        be compressed with gzip (`Content-Encoding`). `language` is spoken, such as `en` or `pt-BR`; without it, or with
        `auto`, the language is detected. `emotions` restricts the answer to some classes, such as
        `angry,happy,neutral,sad`. Both may stand in the query or in the form.
        """
        del language, emotions  # read by `AudioReader` and `Answering`; named here for the documentation
        return await self._answering.respond(request, "/v1/emotion/audio", self._audio)

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
        problem = refusal_of("not-ready", trouble, retry_after_s=self._retry_after_s)
        return problem.response(request_id(request.headers))
