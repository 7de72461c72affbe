"""In Ray's proxy: a request without a valid key is refused before its body is read there.

The proxy does not see the `args` of an application: `AMSER_KEYS` in its environment names the file of keys. Without
it, or where the file cannot be read, requests go on to the gate of the application, which refuses the same ones later.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from deployments.access.denied import Denied, no_key
from deployments.access.key_file import KeyFileBroken, WatchedKeys
from deployments.access.keys import key_of
from deployments.access.rules import RULES

VARIABLE: Final = "AMSER_KEYS"
WITH_BODIES: Final = tuple(
    path for path, rule in RULES.items() if rule == "recognize"
)  # a prefix may stand before them
TRIED_EVERY_S: Final = 1.0

logger = logging.getLogger("ray.serve")  # the logger that Serve writes to its files


class KeysFirst:
    """An ASGI application that lets requests with a body go on where their key is valid.

    Args:
        app: that they go on to.
        respond: makes a response of a refusal.
        path: of the file of keys; None takes that in `AMSER_KEYS`.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        app: ASGIApp,
        respond: Callable[[Denied], ASGIApp],
        path: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        named = os.environ.get(VARIABLE)
        self._app, self._respond, self._clock = app, respond, clock
        self._path = path or (Path(named).expanduser() if named else None)
        self._keys: WatchedKeys | None = None
        self._try_at = clock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        if self._path and scope["type"] == "http" and _has_speech(scope):
            keys = self._watched(self._path)
            if keys is not None and not key_of(Headers(scope=scope).get("authorization"), keys.ring()).is_valid:
                await self._respond(no_key())(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _watched(self, path: Path) -> WatchedKeys | None:
        if self._keys is None and self._clock() >= self._try_at:
            try:
                self._keys = WatchedKeys(path, self._clock)
            except KeyFileBroken as error:
                self._try_at = self._clock() + TRIED_EVERY_S
                logger.error("%s; the application looks at keys by itself", error)
        return self._keys


def _has_speech(scope: Scope) -> bool:
    path = scope["path"].removesuffix("\n")  # as `rule_of`
    return bool(scope["method"] == "POST" and path.endswith(WITH_BODIES))
