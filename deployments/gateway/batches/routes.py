"""The route."""

# No `from __future__ import annotations` here: FastAPI reads the types of the routes.

from http import HTTPStatus
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request, Response
from ray import serve

from amser.batch import MEDIA_TYPE, Limits
from deployments.gateway.batches.answering import ROUTE, BatchAnswering
from deployments.gateway.batches.documents import BatchAnswer
from deployments.gateway.problems import documented
from deployments.gateway.reference.api import KEY, SPEECH
from deployments.gateway.reference.examples import BATCH, answered
from deployments.gateway.reference.parameters import Emotions, Words, binary, body, size

_PROBLEMS: Final = documented(
    HTTPStatus(status) for status in (400, 401, 403, 404, 405, 408, 413, 415, 421, 422, 429, 431, 500, 503, 504)
)
_LIMITS: Final = Limits()
_BODY: Final = body(
    f"Up to {_LIMITS.max_items} envelopes (docs/wire.md) and up to {size(_LIMITS.max_bytes)}, each behind its length.",
    binary(MEDIA_TYPE),
)

router = APIRouter(tags=[SPEECH], dependencies=KEY)


def _batches() -> BatchAnswering:
    batches: BatchAnswering = serve.get_replica_context().servable_object.batches
    return batches


@router.post(
    ROUTE,
    summary="Words and emotion of many utterances that a device compressed",
    response_model=BatchAnswer,
    responses=answered("An answer or a refusal for each.", batch=BATCH) | _PROBLEMS,
    openapi_extra=_BODY,
)
async def emotion_batch(
    request: Request,
    batches: Annotated[BatchAnswering, Depends(_batches)],
    emotions: Emotions = None,
    words: Words = None,
) -> Response:
    """Each envelope is answered or refused as `POST /v1/emotion` would have, and one that is bad spoils no other.

    The status is 200 where the batch itself could be read; each item has its own. `Amser-Deadline-Ms`, `Prefer`,
    `emotions` and `words` are for all of them. An item with 429, 503 or 504 is sent again, in another batch.
    """
    del emotions, words  # read by `Answering`; named here for the documentation
    return await batches.respond(request)
