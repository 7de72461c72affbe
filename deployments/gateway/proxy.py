"""What runs in Ray's proxy, in front of the application: bodies are read and connections are guarded there.

Ray takes it from `RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=deployments.gateway.proxy:middlewares`. A request goes on
to a replica when its body is here, so that a slow one takes no replica's time or room. What Serve itself refuses (no
room, no such route, a replica that died under the request) becomes a problem document.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from http import HTTPStatus
from typing import Final

from ray.util.metrics import Counter, Gauge
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.access.denied import Denied
from deployments.access.headers import SecurityHeaders
from deployments.access.proxy import KeysFirst
from deployments.access.rules import PROBES
from deployments.gateway.bodies import HELD_BACK_HEADER, refusal_of_body
from deployments.gateway.clients import client_of
from deployments.gateway.preferences import DEADLINE_HEADER, milliseconds
from deployments.gateway.problems import Refusal, raw, refusal_of
from deployments.gateway.problems.catalogue import KINDS, LATER
from deployments.intake.bodies import Bodies, BodyTooLarge, BodyTooSlow, TooManyBodies
from deployments.intake.connections import guard
from deployments.intake.handing import hand_on
from deployments.intake.limits import ProxySettings, proxy_settings
from deployments.intake.serve_headers import WithoutServeHeaders
from deployments.intake.turns import Turns
from deployments.telemetry.request_ids import request_id

RECORDINGS: Final = "/v1/recordings"  # bodies that are kept in files
SERVES_OWN: Final = "/-/"  # routes of Serve, which its own tools read
RETRY_AFTER_S: Final = 1
DISCARDED_S: Final = 2.0
CLOSES: Final = {"Connection": "close"}  # the rest of the body is not read
# What Serve's proxy answers by itself, in plain text: the kind that it becomes, and what is said of it. Its 408 is not
# about the client: the application had not answered within `request_timeout_s`
OF_SERVE: Final = {
    HTTPStatus.NOT_FOUND: ("not-found", "no application has a route for this path"),
    HTTPStatus.REQUEST_TIMEOUT: ("deadline", "the application did not answer in time"),
    HTTPStatus.TOO_MANY_REQUESTS: ("queue-full", "the cluster has as many requests as it can queue"),
    HTTPStatus.SERVICE_UNAVAILABLE: ("not-ready", "no replica of the application takes requests at the moment"),
}

Count = Callable[[str], None]


class HoldBodies:
    """Lets a request go on once its body is here, within limits, and those of one client in turns.

    Args:
        app: that it goes on to.
        settings: the limits.
        count: called with the kind of each refusal.
    """

    def __init__(self, app: ASGIApp, settings: ProxySettings, count: Count) -> None:
        self._app, self._settings, self._count = app, settings, count
        gauge = Gauge("amser_bodies_reading", "Bodies that are on their way.", ("place",))
        self.bodies = Bodies(settings.bodies, lambda reading: gauge.set(reading, {"place": "proxy"}))
        self._recordings = Bodies(settings.recordings, lambda reading: gauge.set(reading, {"place": "proxy spool"}))
        self._turns = Turns(settings.begin_at_once)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        if scope["type"] == "http":
            headers = MutableHeaders(scope=scope)
            del headers[HELD_BACK_HEADER]
            if not scope["path"].startswith(SERVES_OWN):
                await self._held_back(headers, scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _held_back(self, headers: MutableHeaders, scope: Scope, receive: Receive, send: Send) -> None:
        announced = headers.get("content-length", "")
        is_recording = scope["path"].endswith(RECORDINGS)  # a prefix may stand before it
        largest = self._settings.largest_recording if is_recording else self._settings.largest_body
        if announced.isdigit() and int(announced) > largest:
            if "expect" not in headers:  # such a client waits for leave to send it
                await _discard(receive)
            await self._refuse(BodyTooLarge(), largest, None)(scope, receive, send)
            return
        started = time.monotonic()
        asked_ms = milliseconds(headers.get(DEADLINE_HEADER, ""))  # None for one that the application will refuse
        client = client_of(HTTPConnection(scope))
        async with AsyncExitStack() as held:
            try:
                async with asyncio.timeout(asked_ms / 1000 if asked_ms else None):
                    if is_recording:
                        spooling = self._recordings.spooled(_pieces(receive), client, largest)
                        again = hand_on(await held.enter_async_context(spooling), receive)
                    else:
                        reading = self.bodies.received(_pieces(receive), client, largest)
                        again = _again(await held.enter_async_context(reading), receive)
                    is_probe = scope["path"].endswith(PROBES)  # a prefix may stand before them
                    await held.enter_async_context(self._turns.turn((client, is_probe)))
            except ClientDisconnect:
                return
            except (BodyTooLarge, BodyTooSlow, TooManyBodies, TimeoutError) as error:
                if isinstance(error, BodyTooLarge):
                    await _discard(receive)
                await self._refuse(error, largest, asked_ms)(scope, receive, send)
                return
            headers[HELD_BACK_HEADER] = str(round(1000 * (time.monotonic() - started)))
            await self._app(scope, again, send)

    def _refuse(self, error: Exception, largest: int, asked_ms: int | None) -> ASGIApp:
        if isinstance(error, BodyTooLarge):
            refused = refusal_of("too-large", "the body is too large", f"up to {largest} bytes")
        elif isinstance(error, BodyTooSlow | TooManyBodies):
            refused = refusal_of_body(error, self._settings.bodies)
        else:
            refused = refusal_of(
                "deadline", "the request had not begun by the deadline", f"{(asked_ms or 0) / 1000:g} s"
            )
        self._count(refused.kind.slug)
        return _sent(refused, CLOSES)


class AnswerForServe:
    """Gives what Serve refuses by itself the form of a problem document.

    Args:
        app: Serve's proxy.
        count: called with the kind of each refusal.
    """

    def __init__(self, app: ASGIApp, count: Count) -> None:
        self._app, self._count = app, count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        if scope["type"] != "http" or scope["path"].startswith(SERVES_OWN):
            await self._app(scope, receive, send)
            return
        started = replaced = left = False

        async def noted() -> Message:
            nonlocal left
            message = await receive()
            left = left or message["type"] == "http.disconnect"
            return message

        async def answer(message: Message) -> None:
            nonlocal started, replaced
            if message["type"] == "http.response.start":
                started = True
                if refused := _of_serve(message):
                    replaced = True
                    self._count(refused.kind.slug)
                    await _sent(refused)(scope, receive, send)
            if not replaced:
                await send(message)

        await self._app(scope, noted, answer)
        if not started and not left:
            refused = refusal_of("replica-died", "the replica that had the request has died", None, RETRY_AFTER_S)
            self._count(refused.kind.slug)
            await _sent(refused)(scope, receive, send)


def middlewares() -> list[Middleware]:
    """That Ray's proxy runs around every request; the last one is the outermost.

    Raises:
        deployments.intake.limits.ProxyMisconfigured: the environment has settings that are none.
    """
    settings = proxy_settings()
    refused = Counter("amser_proxy_refused", "Requests and connections that Ray's proxy refused.", ("reason",))

    def count(slug: str) -> None:
        refused.inc(1, {"reason": slug})

    def refuse(slug: str) -> bytes:
        count(slug)
        return raw(refusal_of(slug, KINDS[slug].meaning, None, _retry_after_s(slug)))

    guard(settings.connections, refuse)

    def deny(denied: Denied) -> ASGIApp:
        count(denied.kind)
        return _sent(Refusal(denied.status, denied.cause, kind=denied.kind), CLOSES)

    return [
        Middleware(WithoutServeHeaders),
        Middleware(HoldBodies, settings, count),
        Middleware(KeysFirst, deny),
        Middleware(AnswerForServe, count),
    ]


def _sent(refused: Refusal, headers: dict[str, str] | None = None) -> ASGIApp:
    """The problem document as an answer to whatever request it is called for, under that request's id."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        response = refused.response(request_id(Headers(scope=scope)), headers, scope["path"])
        await SecurityHeaders(response)(scope, receive, send)

    return answer


def _of_serve(message: Message) -> Refusal | None:
    """What a plain answer of Serve becomes; None for an answer of the application."""
    status, headers = message["status"], Headers(raw=message["headers"])
    if status not in OF_SERVE or not headers.get("content-type", "").startswith("text/plain"):
        return None
    slug, cause = OF_SERVE[status]
    asked = headers.get("retry-after", "")
    retry_after_s = int(asked) if asked.isdigit() else RETRY_AFTER_S
    return refusal_of(slug, cause, None, _retry_after_s(slug) and retry_after_s)


def _retry_after_s(slug: str) -> int | None:
    """Where the kind promises one."""
    return RETRY_AFTER_S if KINDS[slug].again == LATER else None


async def _discard(receive: Receive) -> None:
    """Reads on for a while and keeps nothing: a client that still sends when the connection closes loses its answer."""
    with suppress(TimeoutError):
        async with asyncio.timeout(DISCARDED_S):
            while (await receive()).get("more_body"):
                pass


async def _pieces(receive: Receive) -> AsyncIterator[bytes]:
    """Of a body, as they come.

    Raises:
        ClientDisconnect: the client has left.
    """
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        if message.get("body"):
            yield message["body"]
        if not message.get("more_body"):
            return


def _again(content: bytearray, receive: Receive) -> Receive:
    """Hands the body on; what comes after it, that the client leaves, comes from the client."""
    first: Message | None = {"type": "http.request", "body": bytes(content), "more_body": False}
    content.clear()  # held once

    async def handed_on() -> Message:
        nonlocal first
        if first is None:
            return await receive()
        message, first = first, None
        return message

    return handed_on
