"""Bodies of requests, and what a client is told of one that did not arrive, by Ray's proxy as by the gateway itself."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import BinaryIO, Final

from ray.serve import metrics
from starlette.requests import Request

from deployments.gateway.clients import client_of
from deployments.gateway.problems import Refusal, refusal_of
from deployments.intake.bodies import Bodies, BodyTooLarge, BodyTooSlow, TooManyBodies
from deployments.intake.limits import BodySettings

# Milliseconds that Ray's proxy held a request back until its body was there; the proxy sets it on every request
HELD_BACK_HEADER: Final = "Amser-Held-Back-Ms"
ROOM_AFTER_S: Final = 1

logger = logging.getLogger("ray.serve")  # the logger that Serve writes to its files


class RequestBodies:
    """Reads bodies in a replica of the gateway.

    Args:
        settings: their limits.
    """

    def __init__(self, settings: BodySettings) -> None:
        reading = metrics.Gauge("amser_bodies_reading", "Bodies that are on their way.", ("place",))
        self._settings = settings
        self._bodies = Bodies(settings, lambda count: reading.set(count, {"place": "replica"}))
        self._was_warned = False

    async def read(self, request: Request, largest: int) -> bytes:
        """The whole body, but never more than `largest` bytes of it in memory.

        Raises:
            Refusal: it has more, came too slowly, or too many are on their way.
            starlette.requests.ClientDisconnect: the client left.
        """
        self._warn_without_proxy(request)
        accepted = f"up to {largest} bytes"
        announced = request.headers.get("content-length", "")
        if announced.isdigit() and int(announced) > largest:
            raise refusal_of("too-large", f"the body has {announced} bytes", accepted)
        try:
            async with self._bodies.received(request.stream(), client_of(request), largest) as body:
                return bytes(body)
        except BodyTooLarge:
            raise refusal_of("too-large", f"the body has more than {largest} bytes", accepted) from None
        except (BodyTooSlow, TooManyBodies) as error:
            raise refusal_of_body(error, self._settings) from None

    def _warn_without_proxy(self, request: Request) -> None:
        if HELD_BACK_HEADER.lower() not in request.headers and not self._was_warned:
            self._was_warned = True
            logger.warning("nothing guards connections: set RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH (operations.md)")


class RecordingBodies:
    """Reads recordings in a replica of the gateway, into files.

    Args:
        settings: their limits.
    """

    def __init__(self, settings: BodySettings) -> None:
        reading = metrics.Gauge("amser_bodies_reading", "Bodies that are on their way.", ("place",))
        self._settings = settings
        self._bodies = Bodies(settings, lambda count: reading.set(count, {"place": "replica spool"}))

    @asynccontextmanager
    async def read(self, request: Request, largest: int) -> AsyncIterator[tuple[BinaryIO, int]]:
        """The whole body in a file without a name, which ends with the context; and its bytes. Raises as above."""
        accepted = f"up to {largest} bytes"
        announced = request.headers.get("content-length", "")
        if announced.isdigit() and int(announced) > largest:
            raise refusal_of("too-large", f"the body has {announced} bytes", accepted)
        async with AsyncExitStack() as held:
            spooling = self._bodies.spooled(request.stream(), client_of(request), largest)
            try:
                file = await held.enter_async_context(spooling)
            except BodyTooLarge:
                raise refusal_of("too-large", f"the body has more than {largest} bytes", accepted) from None
            except (BodyTooSlow, TooManyBodies) as error:
                raise refusal_of_body(error, self._settings) from None
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            yield file, size


def refusal_of_body(error: BodyTooSlow | TooManyBodies, settings: BodySettings) -> Refusal:
    """The problem, with what would have been in time."""
    if isinstance(error, TooManyBodies):
        return refusal_of("too-many-bodies", str(error), retry_after_s=ROOM_AFTER_S)
    within = f"{settings.pace} bytes a second after the first {settings.grace_s:g} s, and no pause longer than that"
    return refusal_of("body-too-slow", str(error), within)
