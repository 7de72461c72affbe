"""Problem documents (RFC 9457): what a client gets in place of an answer. `catalogue` has their kinds.

Apart from `answers`, since Ray's proxy sends them too (`deployments.gateway.proxy`) and must not load more than this.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Final
from uuid import uuid4

from pydantic import BaseModel, Field
from starlette.responses import JSONResponse

from deployments.gateway.problems.catalogue import KINDS, LATER, Kind
from deployments.gateway.problems.openai_error import (
    RETRY_HEADER,
    OpenAIError,
    is_for_openai,
    openai_error,
    should_retry,
)
from deployments.gateway.problems.openai_error import ROUTES as OPENAI_ROUTES
from deployments.telemetry.request_ids import REQUEST_ID_HEADER

PROBLEM_TYPE: Final = "application/problem+json"
EXAMPLE_ID: Final = "46df0bd2-3c1f-4d0f-9b0e-5a3f1c2d4e5f"  # of a request, in the documentation

_RETRY_AFTER: Final = {"schema": {"type": "integer"}, "description": "Seconds; trying again sooner is of no use."}
_S: Final = HTTPStatus
_DEFAULTS: Final = {  # of a refusal that names no kind
    _S.BAD_REQUEST: "malformed",
    _S.UNAUTHORIZED: "unauthorized",
    _S.FORBIDDEN: "forbidden",
    _S.NOT_FOUND: "not-found",
    _S.METHOD_NOT_ALLOWED: "method-not-allowed",
    _S.REQUEST_TIMEOUT: "body-too-slow",
    _S.REQUEST_ENTITY_TOO_LARGE: "too-large",
    _S.MISDIRECTED_REQUEST: "host-not-allowed",
    _S.UNSUPPORTED_MEDIA_TYPE: "unsupported-media-type",
    _S.UNPROCESSABLE_ENTITY: "unusable",
    _S.TOO_MANY_REQUESTS: "overloaded",
    _S.REQUEST_HEADER_FIELDS_TOO_LARGE: "head-too-large",
    _S.SERVICE_UNAVAILABLE: "stage-unavailable",
    _S.GATEWAY_TIMEOUT: "deadline",
}


class Problem(BaseModel):
    """An RFC 9457 problem document; `parameter` is there where what a request asks for is wrong, not the utterance.

    `type` leads to the page of its kind on this server.
    """

    type: str = Field(json_schema_extra={"enum": [kind.uri for kind in KINDS.values()]})
    title: str
    status: int
    detail: str
    limit: str | None = None
    parameter: str | None = None
    request_id: str | None = None


class OpenAIProblem(Problem):
    """The same for clients of OpenAI, which read `error` alone."""

    error: OpenAIError


class Refusal(Exception):  # noqa: N818 - an error by its base class
    """A request that gets a problem document.

    Attributes:
        status: HTTP status.
        cause: what is wrong, in words for the client's developer.
        limit: what would have been accepted.
        parameter: the query parameter that is wrong, `language` for that of an envelope too; None where it is something
            else.
        retry_after_s: when to try again; None where that would not help.
        kind: in `KINDS`; None takes the one that is usual for the status.

    Raises:
        KeyError: the kind is not in the catalogue.
    """

    def __init__(
        self,
        status: HTTPStatus,
        cause: str,
        limit: str | None = None,
        retry_after_s: int | None = None,
        parameter: str | None = None,
        kind: str | None = None,
    ) -> None:
        super().__init__(cause)
        self.status, self.cause, self.limit, self.retry_after_s = status, cause, limit, retry_after_s
        self.parameter = parameter
        self.kind: Final = KINDS[kind or _DEFAULTS.get(status, "internal")]

    def problem(self, request_id: str | None) -> Problem:
        """The document; without an id where it is a part of an answer."""
        return Problem(
            type=self.kind.uri,
            title=self.kind.title,
            status=self.status.value,
            detail=self.cause,
            limit=self.limit,
            parameter=self.parameter,
            request_id=request_id,
        )

    def response(
        self, request_id: str | None = None, headers: dict[str, str] | None = None, path: str = ""
    ) -> JSONResponse:
        """The document as it is sent, under an id of its own where none is given.

        Args:
            request_id: of the request.
            headers: that it gets as well.
            path: that was asked for; those of OpenAI's API get OpenAI's `error` in the document.
        """
        request_id = request_id or str(uuid4())
        headers = {**(headers or {}), REQUEST_ID_HEADER: request_id}
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(self.retry_after_s)
        if self.kind.closes:
            headers["Connection"] = "close"
        document = self.problem(request_id).model_dump(exclude_none=True)
        if is_for_openai(path):
            document["error"] = openai_error(self.kind, self.cause, self.limit, self.parameter).model_dump()
            headers |= {RETRY_HEADER: should_retry(self.kind), "X-Request-Id": request_id}
        return JSONResponse(document, self.status.value, headers, media_type=PROBLEM_TYPE)


def refusal_of(slug: str, cause: str, limit: str | None = None, retry_after_s: int | None = None) -> Refusal:
    """A refusal with the status of its kind."""
    return Refusal(KINDS[slug].status, cause, limit, retry_after_s, kind=slug)


def raw(refused: Refusal) -> bytes:
    """The document as bytes on a connection, which ends with it: where no HTTP server is there to send it."""
    response = refused.response()
    head = [f"HTTP/1.1 {refused.status.value} {refused.status.phrase}".encode()]
    head += [name + b": " + value for name, value in response.raw_headers]
    return b"\r\n".join([*head, b"", bytes(response.body)])


def documented(statuses: Iterable[HTTPStatus], openai: bool = False) -> dict[int | str, dict[str, Any]]:
    """What OpenAPI says of refusals with these statuses; `problem_examples` has what it refers to.

    Args:
        statuses: that a route may answer with.
        openai: whether clients of OpenAI ask it, and get their `error` too.
    """
    schema = {"$ref": f"#/components/schemas/{(OpenAIProblem if openai else Problem).__name__}"}
    described: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        kinds = [kind for kind in KINDS.values() if kind.status == status]
        text = "\n".join(f"- `{kind.uri}`: {kind.meaning}" for kind in kinds)
        examples = {kind.slug: {"$ref": f"#/components/examples/{_example(kind, openai)}"} for kind in kinds}
        described[status.value] = {
            "description": text,
            "content": {PROBLEM_TYPE: {"schema": schema, "examples": examples}},
        }
        if all(kind.again == LATER for kind in kinds):
            described[status.value]["headers"] = {"Retry-After": _RETRY_AFTER}
    return described


def problem_examples() -> dict[str, Any]:
    """An example of every kind, as OpenAPI has it among its components, without and with OpenAI's `error`."""
    return {
        _example(kind, openai): {"summary": kind.title, "value": _shown(kind, openai)}
        for openai in (False, True)
        for kind in KINDS.values()
    }


def _example(kind: Kind, openai: bool) -> str:
    return f"openai.{kind.slug}" if openai else kind.slug


def _shown(kind: Kind, openai: bool) -> dict[str, Any]:
    refused = refusal_of(kind.slug, kind.meaning)
    path = OPENAI_ROUTES[0] if openai else ""
    shown: dict[str, Any] = json.loads(bytes(refused.response(EXAMPLE_ID, path=path).body))
    return shown
