"""Headers that only Ray Serve's own parts may send are taken off a request before Serve's proxy reads them.

The proxy decodes some as UTF-8 and answers a bare 500 where they are not, routes by others, and one keeps a request
running after its client has left. No header that the application reads holds anything but ASCII.

One is put on: Serve would cut a socket after `request_timeout_s`, as if it were a request whose answer is late. The
application has limits of its own for sockets.
"""

from __future__ import annotations

from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

OF_SERVE: Final = frozenset(
    {b"serve_multiplexed_model_id", b"x_session_id", b"x_request_disconnect_disabled", b"x_request_timeout_seconds"}
)
WITHOUT_END: Final = (b"x-request-timeout-seconds", b"0")


class WithoutServeHeaders:
    """Takes Serve's own headers off each request, and those whose value is no ASCII; sockets may stay open.

    Args:
        app: that the request goes on to.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        if "headers" in scope:  # Serve takes - and _ for the same, in any case
            kept = [
                (name, value)
                for name, value in scope["headers"]
                if value.isascii() and name.lower().replace(b"-", b"_") not in OF_SERVE
            ]
            scope = {**scope, "headers": [*kept, WITHOUT_END] if scope["type"] == "websocket" else kept}
        await self._app(scope, receive, send)
