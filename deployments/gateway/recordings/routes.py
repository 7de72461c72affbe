"""The routes."""

# No `from __future__ import annotations` here: FastAPI reads the types of the routes.

from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request, Response, Security
from fastapi.security import HTTPBearer
from ray import serve

from deployments.access.rules import JOB
from deployments.gateway.problems import documented
from deployments.gateway.recordings.answering import ROUTE, RecordingAnswering
from deployments.gateway.recordings.documents import JobAnswer, RecordingAnswer

_PROBLEMS: Final = documented(
    HTTPStatus(status) for status in (400, 401, 403, 404, 405, 408, 413, 415, 421, 422, 429, 431, 500, 503, 504)
)
_OF_JOBS: Final = documented(HTTPStatus(status) for status in (401, 403, 404, 421, 429, 503))
_BODY: Final = {
    "required": True,
    "description": "An audio file, as it is; its first bytes tell which format it has.",
    "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
}
_HEADERS: Final = [
    {
        "name": "Prefer",
        "in": "header",
        "schema": {"type": "string"},
        "description": "`respond-async` makes a job; `handling=strict` wants all of a segment or a problem",
    }
]
_ACCEPTED: Final[dict[int | str, dict[str, Any]]] = {
    202: {
        "model": JobAnswer,
        "description": "A job, under `Location`: it was asked for, or the answer was not ready in time.",
    }
}
_KEY: Final = [Security(HTTPBearer(scheme_name="key", auto_error=False, description="A key of the operator's"))]

router = APIRouter(dependencies=_KEY)


def _answering() -> RecordingAnswering:
    answering: RecordingAnswering = serve.get_replica_context().servable_object.recordings
    return answering


Here = Annotated[RecordingAnswering, Depends(_answering)]


@router.post(
    ROUTE,
    summary="Words and emotion of a recording of any length",
    response_model=RecordingAnswer,
    responses={**_ACCEPTED, **_PROBLEMS},
    openapi_extra={"requestBody": _BODY, "parameters": _HEADERS},
)
async def recording(
    request: Request,
    answering: Here,
    language: str | None = None,
    emotions: str | None = None,
    webhook: str | None = None,
) -> Response:
    """The recording is cut at its pauses; each segment has its times, words and emotion, and the whole has them too.

    What is not ready by the deadline becomes a job (202). `webhook` is told when a job has ended; its messages are
    signed as standardwebhooks.com says.
    """
    del language, emotions, webhook  # read by `RecordingAnswering`; named here for the documentation
    return await answering.respond(request)


@router.get(JOB, summary="How far a job is", response_model=JobAnswer, responses=_OF_JOBS)
async def job(id: str, request: Request, answering: Here) -> Response:  # noqa: A002
    """`segments` has those that are ready, `result` the answer once the job is done. Only its own client sees a job."""
    return await answering.show(request, id)


@router.delete(JOB, summary="Cancel a job, or forget one that has ended", status_code=204, responses=_OF_JOBS)
async def cancel(id: str, request: Request, answering: Here) -> Response:  # noqa: A002
    """Its recording goes at once; a job that had ended is not there any more."""
    return await answering.cancel(request, id)
