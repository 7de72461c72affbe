"""OpenAI's routes: transcriptions, and the models that a request may name."""

# No `from __future__ import annotations` here: FastAPI reads the types of the routes.

from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi.responses import JSONResponse
from ray import serve

from deployments.gateway.openai.documents import ModelCard, ModelList, Transcription, VerboseTranscription, model_cards
from deployments.gateway.openai.parameters import FORMATS, GRANULARITIES, unknown_model
from deployments.gateway.openai.transcriptions import EVENTS, MEDIA_TYPES, ROUTE, Transcriptions
from deployments.gateway.problems import Refusal, documented, refusal_of
from deployments.gateway.readiness import Readiness
from deployments.gateway.reference.api import KEY, OPENAI
from deployments.gateway.reference.examples import EVENTS as EVENTS_SHOWN
from deployments.gateway.reference.examples import (
    JSON,
    MODEL,
    MODELS,
    SUBRIP,
    TEXT,
    TRANSCRIPTION,
    VERBOSE_TRANSCRIPTION,
    WEBVTT,
    answered,
)
from deployments.gateway.reference.parameters import LIMITS, Emotions, body, size
from deployments.gateway.uploads.bodies import FILE, FORM
from deployments.telemetry.request_ids import request_id

RETRY_AFTER_S: Final = LIMITS.retry_after_s

_PROBLEMS: Final = documented(
    (HTTPStatus(status) for status in (400, 401, 403, 404, 405, 408, 413, 415, 421, 422, 429, 431, 500, 503, 504)),
    openai=True,
)
_OF_MODELS: Final = documented((HTTPStatus(status) for status in (401, 403, 404, 421, 429, 503)), openai=True)


def _text(what: str, **more: Any) -> dict[str, Any]:
    return {"type": "string", "description": what, **more}


_FORM: Final = {
    "type": "object",
    "required": [FILE],
    "properties": {
        FILE: _text("The recording, in any format that is read; its first bytes tell which.", format="binary"),
        "model": _text("An id of `GET /v1/models`.", examples=["whisper-1"]),
        "language": _text("That is spoken, such as `en` or `pt-BR`; without it, it is detected.", examples=["en"]),
        "response_format": _text("Of the answer.", enum=list(FORMATS), default="json"),
        "timestamp_granularities[]": {
            "type": "array",
            "items": {"type": "string", "enum": list(GRANULARITIES)},
            "description": "What `verbose_json` lists with its times.",
        },
        "stream": {
            "type": "boolean",
            "default": False,
            "description": "Events in place of a document; with `json` and `text`.",
        },
        "temperature": {"type": "number", "enum": [0], "description": "0; others are refused."},
        "chunking_strategy": _text("Changes nothing; others are refused.", enum=["auto"]),
        "prompt": _text("Empty; others are refused, since the recogniser takes no text.", maxLength=0),
    },
    "additionalProperties": False,
}
_BODY: Final = body(
    f"A form with a `{FILE}` of up to {size(LIMITS.max_audio_bytes)} and what is wanted of it.",
    {FORM: {"schema": _FORM}},
)
_SHOWN: Final = {"text": f"{TEXT}\n", "srt": SUBRIP, "vtt": WEBVTT}
_JSON: Final = {"json": {"value": TRANSCRIPTION}, "verbose_json": {"value": VERBOSE_TRANSCRIPTION}}
_TRANSCRIBED: Final = {
    "description": "The transcription in the format that is asked for. `Server-Timing` has what each stage took.",
    "model": VerboseTranscription | Transcription,
    "content": {
        JSON: {"examples": _JSON},
        EVENTS: {"schema": {"type": "string"}, "example": EVENTS_SHOWN},
        **{
            MEDIA_TYPES[name].partition(";")[0]: {"schema": {"type": "string"}, "example": shown}
            for name, shown in _SHOWN.items()
        },
    },
}

router = APIRouter(tags=[OPENAI], dependencies=KEY)


class Served:
    """What the routes ask of a replica of the gateway.

    Args:
        transcriptions: answers for recordings.
        readiness: knows what the stages run.
    """

    def __init__(self, transcriptions: Transcriptions, readiness: Readiness) -> None:
        self.transcriptions, self.readiness = transcriptions, readiness


def _served() -> Served:
    served: Served = serve.get_replica_context().servable_object.openai
    return served


Named = Annotated[str, Path(description="An id of `GET /v1/models`.", examples=["whisper-1"])]
Here = Annotated[Served, Depends(_served)]


@router.post(
    ROUTE,
    summary="Words of an audio file, and how they sound, as OpenAI answers",
    response_model=None,
    responses={200: _TRANSCRIBED, **_PROBLEMS},
    openapi_extra=_BODY,
)
async def transcriptions(request: Request, served: Here, emotions: Emotions = None) -> Response:
    """OpenAI's transcriptions, with `emotion` in addition, of the whole and of each segment.

    What cannot be honoured is refused by its name: `prompt`, a temperature other than 0, `diarized_json`, `include`.
    """
    del emotions  # read by `Transcriptions`; named here for the documentation
    return await served.transcriptions.respond(request)


@router.head("/v1/models", include_in_schema=False)
@router.get(
    "/v1/models",
    summary="Names of the recogniser, and what each stage runs on which device",
    response_model=ModelList,
    responses=answered("The names, and the stages.", models=MODELS) | _OF_MODELS,
)
async def models(request: Request, served: Here) -> Response:
    """OpenAI's list of models; `stages` has the model of each stage, by role, and its device."""
    state = await served.readiness.state()
    if not state.stages:
        trouble = state.trouble or "the stages are busy and have not said yet what they run"
        return _refused(request, refusal_of("not-ready", trouble, retry_after_s=RETRY_AFTER_S))
    cards = model_cards(served.transcriptions.models)
    return JSONResponse(ModelList(data=cards, stages=state.stages).model_dump())


@router.head("/v1/models/{model}", include_in_schema=False)
@router.get(
    "/v1/models/{model}",
    summary="Whether requests may name a model",
    response_model=ModelCard,
    responses=answered("Requests may name it.", model=MODEL) | _OF_MODELS,
)
async def model(request: Request, model: Named, served: Here) -> Response:
    """OpenAI's description of a model."""
    known = served.transcriptions.models
    if model not in known:
        return _refused(request, unknown_model(model, known))
    (card,) = model_cards([model])
    return JSONResponse(card.model_dump())


def _refused(request: Request, refusal: Refusal) -> Response:
    return refusal.response(request_id(request.headers), path=request.scope["path"])
