"""The routes."""

# No `from __future__ import annotations` here: FastAPI reads the types of the routes.

from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from ray import serve

from deployments.access.rules import JOB
from deployments.gateway.problems import EXAMPLE_ID, documented
from deployments.gateway.recordings.answering import ROUTE, RecordingAnswering
from deployments.gateway.recordings.documents import JobAnswer, RecordingAnswer
from deployments.gateway.reference.api import KEY, SPEECH
from deployments.gateway.reference.examples import JOB as JOB_EXAMPLE
from deployments.gateway.reference.examples import RECORDING, answered, with_status
from deployments.gateway.reference.parameters import IN_A_FORM, Emotions, Language, Words, binary, body, size
from deployments.recording_settings import RecordingSettings

_PROBLEMS: Final = documented(
    HTTPStatus(status) for status in (400, 401, 403, 404, 405, 408, 413, 415, 421, 422, 429, 431, 500, 503, 504)
)
_OF_JOBS: Final = documented(HTTPStatus(status) for status in (401, 403, 404, 421, 429, 503))
_LIMITS: Final = RecordingSettings()  # an operator may set others
_BODY: Final = body(
    f"An audio file of up to {size(_LIMITS.max_bytes)} and up to {_LIMITS.max_seconds / 3600:g} h; its first bytes "
    "tell which format it has. It is the body or a part of a form; either may be compressed with gzip. "
    "`Prefer: respond-async` makes a job of it.",
    binary("application/octet-stream") | IN_A_FORM,
)
_ACCEPTED: Final = with_status(
    202, "A job, under `Location`: it was asked for, or the answer was not ready in time.", job=JOB_EXAMPLE
)
_ACCEPTED[202]["model"] = JobAnswer
_GONE: Final[dict[int | str, dict[str, Any]]] = {204: {"description": "It is cancelled, or forgotten."}, **_OF_JOBS}
Id = Annotated[str, Path(description="Of a job, as `Location` has it.", examples=[EXAMPLE_ID])]
Webhook = Annotated[
    str | None,
    Query(
        description="A public https address that is told of the end of a job.", examples=["https://example.com/ended"]
    ),
]

router = APIRouter(tags=[SPEECH], dependencies=KEY)


def _answering() -> RecordingAnswering:
    answering: RecordingAnswering = serve.get_replica_context().servable_object.recordings
    return answering


Here = Annotated[RecordingAnswering, Depends(_answering)]


@router.post(
    ROUTE,
    summary="Words and emotion of a recording of any length",
    response_model=RecordingAnswer,
    responses=answered("Its segments, and the whole.", recording=RECORDING) | _ACCEPTED | _PROBLEMS,
    openapi_extra=_BODY,
)
async def recording(
    request: Request,
    answering: Here,
    language: Language = None,
    emotions: Emotions = None,
    words: Words = None,
    webhook: Webhook = None,
) -> Response:
    """The recording is cut at its pauses; each segment has its times, words and emotion, and the whole has them too.

    What is not ready by the deadline becomes a job (202). `webhook` is told when a job has ended; its messages are
    signed as standardwebhooks.com says.
    """
    del language, emotions, words, webhook  # read by `RecordingAnswering`; named here for the documentation
    return await answering.respond(request)


@router.get(
    JOB,
    summary="How far a job is",
    response_model=JobAnswer,
    responses=answered("Its state, and what is ready.", job=JOB_EXAMPLE) | _OF_JOBS,
)
async def job(id: Id, request: Request, answering: Here) -> Response:  # noqa: A002
    """`segments` has those that are ready, `result` the answer once the job is done. Only its own client sees a job."""
    return await answering.show(request, id)


@router.delete(
    JOB,
    summary="Cancel a job, or forget one that has ended",
    status_code=204,
    responses={204: {"description": "It is cancelled, or forgotten."}, **_OF_JOBS},
)
async def cancel(id: Id, request: Request, answering: Here) -> Response:  # noqa: A002
    """Its recording goes at once; a job that had ended is not there any more."""
    return await answering.cancel(request, id)
