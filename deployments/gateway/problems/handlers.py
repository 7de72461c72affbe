"""What FastAPI and Starlette refuse by themselves, and what nobody handled, as problem documents too."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.access.headers import SecurityHeaders
from deployments.gateway.problems import Refusal, refusal_of
from deployments.gateway.problems.catalogue import KINDS, PAGES
from deployments.gateway.problems.pages import overview, page
from deployments.replica.faults import told
from deployments.telemetry.request_ids import request_id

logger = logging.getLogger("ray.serve")  # the logger that Serve writes to its files

CAUSES: Final = {
    HTTPStatus.NOT_FOUND: "there is no such route",
    HTTPStatus.METHOD_NOT_ALLOWED: "the route does not take this method",
}


class Unhandled:
    """Answers what an application raises. The outermost middleware, so that it sees the others' errors."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        started = False

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception as error:
            if started or scope["type"] != "http":
                raise
            answer = failure(error, request_id(Headers(scope=scope)), scope["path"])
            await SecurityHeaders(answer)(scope, receive, send)


def failure(error: Exception, known_as: str, path: str) -> Response:
    """What a client is told of an error of ours. The log has it, under the same id."""
    logger.error("request %s failed: %s", known_as, told(error))
    return refusal_of("internal", "the cluster failed; its log has the reason").response(known_as, path=path)


def answer_with_problems(api: FastAPI) -> None:
    """Has an application refuse with problem documents alone, and serve the pages that they lead to."""
    api.add_exception_handler(HTTPException, _http_error)
    api.add_exception_handler(RequestValidationError, _invalid)
    api.add_middleware(Unhandled)
    for route, show in ((PAGES, _overview), (PAGES + "/{slug}", _page)):
        api.add_api_route(route, show, methods=["GET", "HEAD"], include_in_schema=False)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    headers = dict(error.headers or {})
    refused = Refusal(status, CAUSES.get(status, str(error.detail)), headers.get("Allow"))
    return refused.response(request_id(request.headers), headers, request.scope["path"])


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    wrong = ", ".join(".".join(str(part) for part in each["loc"]) for each in error.errors())
    return refusal_of("bad-preference", f"cannot be read: {wrong:.200}").response(
        request_id(request.headers), path=request.scope["path"]
    )


async def _overview() -> Response:
    return HTMLResponse(overview())


async def _page(request: Request, slug: str) -> Response:
    kind = KINDS.get(slug)
    if kind is None:
        unknown = refusal_of("not-found", "there is no such kind of problem", f"see {PAGES}")
        return unknown.response(request_id(request.headers))
    return HTMLResponse(page(kind))
