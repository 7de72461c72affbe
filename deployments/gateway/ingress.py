"""The REST routes: parse, call the pipeline, answer.

Everything that a client controls has a limit here: the bytes of a body, the pace at which it comes, the time until the
answer, the requests under way. Whatever is refused gets an RFC 9457 problem document.
"""

# No `from __future__ import annotations` here: FastAPI could not find the types again after Ray has pickled the class.

from http import HTTPStatus
from typing import Final

from fastapi import Request, Response, WebSocket
from fastapi.responses import JSONResponse
from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp

from amser import wire
from amser.audio import FORMATS
from deployments.access.denied import Denied
from deployments.access.gate import Gate, GateMiddleware
from deployments.access.rules import path_of, route_of
from deployments.access.shared_limits import buckets
from deployments.gateway.batches.answering import BatchAnswering
from deployments.gateway.batches.routes import router as batch_router
from deployments.gateway.clients import client_of
from deployments.gateway.openai.routes import Served
from deployments.gateway.openai.routes import router as openai_router
from deployments.gateway.openai.transcriptions import Transcriptions
from deployments.gateway.playground import router as playground
from deployments.gateway.problems import documented, refusal_of
from deployments.gateway.problems.handlers import answer_with_problems
from deployments.gateway.readiness import Readiness
from deployments.gateway.recordings.answering import RecordingAnswering
from deployments.gateway.recordings.routes import router as recordings
from deployments.gateway.reference.api import CLUSTER, KEY, SPEECH, described_api
from deployments.gateway.reference.examples import ALIVE, ANSWER, READY, answered
from deployments.gateway.reference.parameters import LIMITS, UPLOAD, Emotions, Language, Words, binary, body, size
from deployments.gateway.streams.streams import Streams
from deployments.gateway.uploads.decoding import Decoders
from deployments.gateway.utterances.answering import Answering, refused
from deployments.gateway.utterances.answers import Answer, denial
from deployments.gateway.utterances.reading import AudioReader, EnvelopeReader
from deployments.pipeline import Stages, serve_stages
from deployments.replica.ending import Ending
from deployments.replica.resources import assigned
from deployments.settings import Settings
from deployments.stages.served import Models, emotion_classes, model_names, spoken_languages
from deployments.telemetry.request_ids import request_id
from deployments.telemetry.requests import telemetry

api = described_api(  # /docs with its scripts and styles from here: it works without the internet
    title="Amser",
    redirect_slashes=False,  # a redirect would name the host that the client says this is
    version="1",
    description="Words and emotion of speech, from compressed log-Mel (`application/vnd.amser.v1`) or audio.\n\n"
    "Every refusal is a problem document of RFC 9457, whose `type` leads to a page of this server. An answer comes "
    f"within {LIMITS.deadline_s:g} s, or within the time that a request names. The limits that are named here are "
    "those of a cluster whose operator has set no others; `limit` of a problem has the one that applies.",
)

api.add_middleware(GateMiddleware, lambda: serve.get_replica_context().servable_object)
api.include_router(batch_router)
api.include_router(openai_router)
api.include_router(recordings)
answer_with_problems(api)  # after it, so that errors of the gate are answered too
api.include_router(playground)

_PROBLEMS: Final = documented(
    HTTPStatus(status) for status in (400, 401, 403, 404, 405, 408, 413, 415, 421, 422, 429, 431, 500, 503, 504)
)
_NOT_READY: Final = documented([HTTPStatus.SERVICE_UNAVAILABLE])

_ENVELOPE: Final = body(
    f"An envelope (docs/wire.md) of up to {size(LIMITS.max_bytes)}, 0.1 to 30 s of speech.", binary(wire.MEDIA_TYPE)
)
_AUDIO: Final = body(
    f"An audio file of up to {size(LIMITS.max_audio_bytes)}, 0.1 to 30 s: {FORMATS}. Its first bytes tell which, not "
    "its content type. It is the body or a part of a form; either may be compressed with gzip.",
    UPLOAD,
)
_ANSWERED: Final = answered("Words and emotion. `Server-Timing` has what each stage took.", answer=ANSWER)


# Ray pickles the class where it is defined: whatever it names of this module has to stand above it
def _local_stages(settings: Settings, gpu: bool, models: Models | None) -> Stages:
    """All stages in this process. A gateway whose stages are elsewhere loads no library of theirs."""
    from deployments.stages.assembly import build_local_stages

    return build_local_stages(settings, gpu, models)


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
        names = dict(models.names) if models else model_names(settings, gpu)
        languages = models.languages if models else spoken_languages(settings)
        emotions = models.emotions if models else emotion_classes(settings)
        self._stages = _local_stages(settings, gpu, models) if stages is None else serve_stages(stages)
        self._answering = Answering(settings, self._stages, names, emotions, self._gate, self._telemetry)
        self.recordings = RecordingAnswering(
            settings, self._answering, languages, emotions, self._gate, self._telemetry
        )
        self._metrics = self._answering.metrics
        self._envelopes = EnvelopeReader(settings.requests, languages)
        self.batches = BatchAnswering(settings.requests, self._answering, self._envelopes, self._telemetry)
        decoders = Decoders(settings.decoding, settings.requests.max_frames)
        self._audio = AudioReader(settings.requests, languages, decoders)
        self._streams = Streams(settings, self._answering, self._gate, self._telemetry, languages, emotions)
        self._ending = Ending(self._streams.drain)
        self._readiness = Readiness(self._stages.describe)
        of_openai = Transcriptions(settings, self._answering, self._audio, self.recordings.recordings, languages)
        self.openai = Served(of_openai, self._readiness)

    def guard(self, app: ASGIApp) -> ASGIApp:
        """The routes behind keys and limits; `GateMiddleware` asks for it."""
        return self._gate.around(app, self._denied)

    def _denied(self, denied: Denied, request: HTTPConnection) -> Response:
        with self._telemetry.request(request, route_of(path_of(request.scope))) as record:
            return refused(denial(denied), record, request.scope["path"])

    @api.post(
        "/v1/emotion",
        tags=[SPEECH],
        summary="Words and emotion of an utterance that a device compressed",
        response_model=Answer,
        dependencies=KEY,
        responses=_ANSWERED | _PROBLEMS,
        openapi_extra=_ENVELOPE,
    )
    async def emotion(self, request: Request, emotions: Emotions = None, words: Words = None) -> Response:
        """What a device has compressed to log-Mel, a hundredth of the audio's bytes.

        The same envelope, sent again within 15 minutes, gets the first answer.
        """
        del emotions, words  # read by `Answering`; named here for the documentation
        return await self._answering.respond(request, "/v1/emotion", self._envelopes)

    @api.post(
        "/v1/emotion/audio",
        tags=[SPEECH],
        summary="Words and emotion of an audio file of up to 30 s",
        response_model=Answer,
        dependencies=KEY,
        responses=_ANSWERED | _PROBLEMS,
        openapi_extra=_AUDIO,
    )
    async def emotion_of_audio(
        self, request: Request, language: Language = None, emotions: Emotions = None, words: Words = None
    ) -> Response:
        """The same for clients without the codec."""
        del language, emotions, words  # read by `AudioReader` and `Answering`; named here for the documentation
        return await self._answering.respond(request, "/v1/emotion/audio", self._audio)

    @api.websocket("/v1/stream")
    async def stream(self, websocket: WebSocket) -> None:
        """Words and emotion while somebody speaks (docs/stream.md)."""
        await self._streams.serve(websocket)

    @api.head("/healthz", include_in_schema=False)
    @api.get(
        "/healthz",
        tags=[CLUSTER],
        summary="Whether this process answers",
        responses=answered("It does.", alive=ALIVE),
    )
    async def healthz(self) -> dict[str, str]:
        """For load balancers."""
        return {"status": "ok"}

    @api.head("/readyz", include_in_schema=False)
    @api.get(
        "/readyz",
        tags=[CLUSTER],
        summary="Whether every stage can answer, be it busy; `Age` is of what is known, in seconds",
        response_model=dict[str, str],
        responses=answered("Every stage can.", ready=READY) | _NOT_READY,
    )
    async def readyz(self, request: Request) -> Response:
        """For load balancers."""
        state = await self._readiness.state()
        if state.trouble:
            return self._not_ready(request, state.trouble)
        ready = {"status": "ready", "stages": str(len(state.stages))}
        return JSONResponse(ready, headers={"Age": str(round(state.age_s)), "Cache-Control": "no-store"})

    async def check_health(self) -> None:
        """Of the stages in this replica, where it is the fused profile; Ray asks for it."""
        self._ending.asked()
        self._telemetry.check()
        self._metrics.refresh()
        self.recordings.start()  # here, where the event loop of the replica runs
        await self._stages.check_health()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """What was admitted, refused and done, and resources, for `deployments.autoscaling`; Ray asks for it."""
        return self._metrics.counts() | await self._stages.counts() | assigned()

    def _not_ready(self, request: Request, trouble: str) -> Response:
        problem = refusal_of("not-ready", trouble, retry_after_s=self._retry_after_s)
        return problem.response(request_id(request.headers))
