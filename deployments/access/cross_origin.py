"""What pages of other origins may ask, send and read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Final

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp

from deployments.access.denied import Denied

Respond = Callable[[Denied, HTTPConnection], Response]

# What a page of another origin may send and read
CORS_METHODS: Final = ("GET", "HEAD", "POST", "DELETE")
CORS_HEADERS: Final = (
    "Authorization", "Content-Type", "Prefer", "Amser-Deadline-Ms", "Amser-Utterance-Id", "Amser-Request-Id",
    "X-Request-Id", "Cache-Control", "traceparent", "tracestate",
    # What clients of OpenAI say of themselves, in pages too
    "X-Stainless-Lang", "X-Stainless-Package-Version", "X-Stainless-OS", "X-Stainless-Arch", "X-Stainless-Runtime",
    "X-Stainless-Runtime-Version", "X-Stainless-Retry-Count", "X-Stainless-Timeout", "OpenAI-Organization",
    "OpenAI-Project",
)  # fmt: skip
CORS_EXPOSED: Final = (
    "Amser-Request-Id", "Amser-Replay", "Amser-Rate-Hint", "Location", "Preference-Applied", "Retry-After",
    "Server-Timing", "X-Request-Id", "X-Should-Retry",
)  # fmt: skip


class CrossOrigin(CORSMiddleware):
    """Starlette's, with a problem document for what it refuses."""

    def __init__(self, app: ASGIApp, origins: Sequence[str], respond: Respond) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=CORS_METHODS,
            allow_headers=CORS_HEADERS,
            expose_headers=CORS_EXPOSED,
        )
        self._respond = respond

    def preflight_response(self, request_headers: Headers) -> Response:
        """Of a request that a browser asks for before it sends it."""
        response = super().preflight_response(request_headers)
        if response.status_code == HTTPStatus.OK:
            return response
        denied = Denied(HTTPStatus.FORBIDDEN, "forbidden", "pages of this origin may not ask that")
        asked = HTTPConnection({"type": "http", "path": "", "headers": request_headers.raw})
        return self._respond(denied, asked)
