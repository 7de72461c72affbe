"""What Ray's proxy says where the door died under a request: a problem document in place of a bare 500.

Ray takes it from `RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=deployments.gateway.proxy:middlewares`. No request is sent
again here: its body is gone by then. The client may, since every stage is pure.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final
from uuid import uuid4

from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.gateway.problems import PROBLEM_TYPE, Refusal

RETRY_AFTER_S: Final = 1


class Unanswered:
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
    """Around Ray's proxy."""
    return [Middleware(Unanswered)]
