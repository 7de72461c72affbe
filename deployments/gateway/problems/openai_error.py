"""A refusal as clients of OpenAI read it: an `error` beside the members of the problem document.

Only on the routes that OpenAI's API has, so that devices do not pay for it.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from pydantic import BaseModel

from deployments.gateway.problems.catalogue import AT_ONCE, LATER, Kind

# A prefix of the application may stand before them
ROUTES: Final = ("/v1/audio/", "/v1/models")
RETRY_HEADER: Final = "X-Should-Retry"  # clients of OpenAI obey it; without, they try each 408 and 5xx again

# The codes that OpenAI has for the same; the others are the end of `type`
_CODES: Final = {
    "unauthorized": "invalid_api_key",
    "unknown-model": "model_not_found",
    "limit-requests": "rate_limit_exceeded",
    "limit-concurrency": "rate_limit_exceeded",
    "limit-bytes": "rate_limit_exceeded",
    "limit-speech": "rate_limit_exceeded",
}


class OpenAIError(BaseModel):
    """The `error` of OpenAI's reference."""

    message: str
    type: str
    param: str | None
    code: str


def is_for_openai(path: str) -> bool:
    """Whether a path is one of OpenAI's."""
    return any(route in path for route in ROUTES)


def openai_error(kind: Kind, cause: str, limit: str | None, parameter: str | None) -> OpenAIError:
    """The error for a problem: its message has the cause and what would have been accepted."""
    message = f"{cause}; accepted: {limit}" if limit else cause
    return OpenAIError(message=message, type=_type(kind.status), param=parameter, code=_CODES.get(kind.slug, kind.slug))


def should_retry(kind: Kind) -> str:
    """Of `RETRY_HEADER`."""
    return "true" if kind.again in (AT_ONCE, LATER) else "false"


def _type(status: HTTPStatus) -> str:
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return "rate_limit_exceeded"
    return "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
