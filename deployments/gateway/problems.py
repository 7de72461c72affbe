"""Problem documents (RFC 9457): what a client gets in place of an answer.

Apart from `answers`, since Ray's proxy sends them too (`deployments.gateway.proxy`) and must not load more than this.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from pydantic import BaseModel

PROBLEM_TYPE: Final = "application/problem+json"


class Problem(BaseModel):
    """An RFC 9457 problem document; `parameter` is there where what a request asks for is wrong, not the utterance."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    limit: str | None = None
    parameter: str | None = None
    request_id: str | None = None


class Refusal(Exception):  # noqa: N818 - an error by its base class
    """A request that gets a problem document.

    Attributes:
        status: HTTP status.
        cause: what is wrong, in words for the client's developer.
        limit: what would have been accepted.
        parameter: the query parameter that is wrong, `language` for that of an envelope too; None where it is something
            else.
        retry_after_s: when to try again; None where that would not help.
        kind: of problem.
    """

    def __init__(
        self,
        status: HTTPStatus,
        cause: str,
        limit: str | None = None,
        retry_after_s: int | None = None,
        parameter: str | None = None,
        *,
        kind: str | None = None,
    ) -> None:
        super().__init__(cause)
        self.kind = kind
        self.status, self.cause, self.limit, self.retry_after_s = status, cause, limit, retry_after_s
        self.parameter = parameter

    def problem(self, request_id: str) -> Problem:
        """The document."""
        return Problem(
            title=self.status.phrase,
            status=self.status.value,
            detail=self.cause,
            limit=self.limit,
            parameter=self.parameter,
            request_id=request_id,
        )
