"""Headers of every response: what a page may load, that nobody keeps an answer, and how to show a key."""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256
from http import HTTPStatus
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY: Final = "Content-Security-Policy"
NOTHING: Final = "default-src 'none'; frame-ancestors 'none'"
# Swagger UI sets styles by itself; ReDoc searches in a worker made from a blob
PAGE: Final = (
    "default-src 'none'; script-src 'self'{scripts}; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; worker-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
STARTS: Final = ("http.response.start", "websocket.http.response.start")  # the other of a WebSocket that is refused
HSTS: Final = "max-age=31536000"
STATIC: Final = "/static-offline-docs/"  # the scripts of the pages, the only thing here that may be kept
_INLINE_SCRIPT: Final = re.compile(rb"<script>(.*?)</script>", re.DOTALL)


class SecurityHeaders:
    """An ASGI application that adds them to the responses of another one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        page: Message | None = None  # the start of a page, which waits for its body

        async def with_headers(message: Message) -> None:
            nonlocal page
            if message["type"] in STARTS:
                headers = MutableHeaders(scope=message)
                if message["status"] == HTTPStatus.UNAUTHORIZED:
                    headers["WWW-Authenticate"] = 'Bearer realm="amser"'
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "no-referrer"
                if not scope["path"].startswith(STATIC):
                    headers.setdefault("Cache-Control", "no-store")
                if scope["scheme"] in ("https", "wss"):
                    headers["Strict-Transport-Security"] = HSTS
                if POLICY not in headers and headers.get("content-type", "").startswith("text/html"):
                    page = message
                    return
                headers.setdefault(POLICY, NOTHING)  # the playground brings its own
            elif page is not None and message["type"] == "http.response.body":
                MutableHeaders(scope=page)[POLICY] = _policy(message.get("body", b""))
                start, page = page, None
                await send(start)
            await send(message)

        await self._app(scope, receive, with_headers)


def _policy(page: bytes) -> str:
    """Of a page that comes in one piece: its own scripts by their hash, and files from here."""
    hashes = (b64encode(sha256(script).digest()).decode() for script in _INLINE_SCRIPT.findall(page))
    return PAGE.format(scripts="".join(f" 'sha256-{each}'" for each in hashes))
