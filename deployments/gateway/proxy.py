"""What Ray's proxy answers where the gateway died during a request: a problem document in place of a bare 500.

Ray takes it from `RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=deployments.gateway.proxy:middlewares`. The
request is not repeated here, since its body is gone by then. The client may repeat it: every stage is pure.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final
from uuid import uuid4

from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.access.denied import Denied
from deployments.access.proxy import KeysFirst
from deployments.gateway.problems import PROBLEM_TYPE, Refusal

RETRY_AFTER_S: Final = 1


class AnswerForDeadReplica:
    """Answers 503 where the application behind it ended without an answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        started = False

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        await self._app(scope, receive, noted)
        if scope["type"] == "http" and not started:
            cause = "the replica that had the request has died"
            refused = Refusal(HTTPStatus.SERVICE_UNAVAILABLE, cause, retry_after_s=RETRY_AFTER_S)
            await _response(refused)(scope, receive, send)


def middlewares() -> list[Middleware]:
    """That Ray's proxy runs around every request; the last one is the outermost."""
    return [Middleware(KeysFirst, _denial), Middleware(AnswerForDeadReplica)]


def _denial(denied: Denied) -> JSONResponse:
    return _response(Refusal(denied.status, denied.cause, denied.limit, denied.retry_after_s, kind=denied.kind))


def _response(refused: Refusal) -> JSONResponse:
    request_id = str(uuid4())
    headers = {"Amser-Request-Id": request_id}
    if refused.retry_after_s is not None:
        headers["Retry-After"] = str(refused.retry_after_s)
    document = refused.problem(request_id).model_dump(exclude_none=True)
    return JSONResponse(document, refused.status.value, headers, PROBLEM_TYPE)
