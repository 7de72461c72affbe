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

from deployments.gateway.problems import PROBLEM_TYPE, Refusal
from deployments.gateway.serve_headers import WithoutServeHeaders

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
            request_id = str(uuid4())
            refused = Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "the replica that had the request has died")
            headers = {"Retry-After": str(RETRY_AFTER_S), "Amser-Request-Id": request_id}
            document = refused.problem(request_id).model_dump(exclude_none=True)
            await JSONResponse(document, refused.status.value, headers, PROBLEM_TYPE)(scope, receive, send)


def middlewares() -> list[Middleware]:
    """That Ray's proxy runs around every request."""
    return [Middleware(WithoutServeHeaders), Middleware(AnswerForDeadReplica)]
