"""Around the whole HTTP interface: Host, CORS, keys and limits, before a byte of a body is read.

What a request costs is drawn in two steps. Key, requests, concurrency and the announced bytes are looked at before the
body; seconds of audio and everything of the device once the envelope is read, before anything is computed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from math import ceil, inf
from typing import Final, Protocol

from ray.serve import metrics
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.access.cross_origin import CrossOrigin, Respond
from deployments.access.denied import Denied, no_key, no_scope
from deployments.access.headers import SecurityHeaders
from deployments.access.key_file import WatchedKeys
from deployments.access.keys import key_of
from deployments.access.limits import Buckets, Charge, Concurrency
from deployments.access.rules import PROBES, SCOPES, SOCKETS, Rule, path_of, rule_of
from deployments.access.settings import AuthSettings, CorsSettings, Limits, LimitSettings
from deployments.telemetry.request_ids import KEY_ID

LOOPBACK_NAMES: Final = ("localhost", "127.0.0.1", "::1")
WEBSOCKET_REFUSED: Final = 1008  # RFC 6455: policy violation
KEY_PROTOCOL: Final = "bearer."  # before the key, in Sec-WebSocket-Protocol
CONCURRENCY_RETRY_S: Final = 1  # nobody knows when one of the others ends
LONGEST_SIZE: Final = 18  # digits
UNITS: Final = {
    "requests": "requests a minute",
    "bytes": "bytes a minute",
    "speech": "s of speech a minute",
}
logger = logging.getLogger("ray.serve")  # the logger that Serve writes to its files


class Guarded(Protocol):
    """What a replica has to offer for `GateMiddleware`."""

    def guard(self, app: ASGIApp) -> ASGIApp:
        """The application behind this replica's gate."""


class GateMiddleware:
    """Puts an application behind the gate of its replica. FastAPI pickles it with its routes, before there is one.

    Args:
        app: everything behind it.
        replica: the object that Serve has made for the application.
    """

    def __init__(self, app: ASGIApp, replica: Callable[[], Guarded]) -> None:
        self._app, self._replica = app, replica
        self._guarded: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if self._guarded is None:
            self._guarded = self._replica().guard(self._app)
        await self._guarded(scope, receive, send)


@dataclass(slots=True)
class Visit:
    """A request that was let in.

    Attributes:
        client: for admission control: the key. None where there are no keys, and the address counts.
    """

    client: str | None = None
    _gate: Gate | None = None
    _caller: str = ""  # whose limits count: the key, or the address
    _limits: LimitSettings = field(default_factory=LimitSettings)
    _drawn: list[Charge] = field(default_factory=list)
    _entered: list[str] = field(default_factory=list)  # the device ids for which it counts as under way
    _requests: int = 0  # that it counts as beside the one that was drawn before its body

    async def hears(self, device_id: str | None, size: int, seconds: float) -> None:
        """Draws what is known once the body is read; None for the device id of an upload, which has none.

        Raises:
            Denied: it is more than the key, or its device, may ask now.
        """
        if self._gate is not None:
            await self._gate.hear(self, device_id, size, seconds)

    @contextmanager
    def item(self, *, is_first: bool) -> Iterator[Visit]:
        """An utterance of a request with several: it counts as a request of its own, and is refused by itself.

        Args:
            is_first: of them; it was counted with the request.
        """
        own = Visit(self.client, self._gate, self._caller, self._limits, _requests=0 if is_first else 1)
        try:
            yield own
        finally:
            if self._gate is not None:
                self._gate.leave(own)

    def side_by_side(self, most: int) -> int:
        """How many of its utterances may be computed at once: each counts as a request under way until this one ends.

        Args:
            most: 1 or more.
        """
        return most if self._gate is None else self._gate.enter_more(self, most)

    async def goes_on(self, size: int, seconds: float) -> None:
        """Draws what more has come of a stream, whose earlier parts are not to be drawn again.

        Raises:
            Denied: it is more than the key may ask now.
        """
        await self.hears(None, 0, seconds)
        if self._gate is not None:
            await self._gate.go_on(self, size)

    def named(self, device: str) -> str:
        """Whose limit it is, in words."""
        return f"device {device!r}" if device else "key" if self.client else "address"


_VISIT: ContextVar[Visit | None] = ContextVar("visit", default=None)


class Gate:
    """Lets requests in, or says why not. One for each replica of the gateway.

    Args:
        auth: None lets nobody in: an application that says nothing of keys does not start, see `deployments.app`.
        limits: of keys and devices.
        cors: origins of other sites.
        hosts: that requests may name; None are those of this machine where there are no keys, and all where there are.
        client_of: the remote address, where there are no keys.
        buckets: of the limits.

    Raises:
        deployments.access.key_file.KeyFileBroken: there is no file of keys that can be used.
    """

    def __init__(
        self,
        auth: AuthSettings | None,
        limits: LimitSettings,
        cors: CorsSettings,
        hosts: Sequence[str] | None,
        client_of: Callable[[HTTPConnection], str],
        buckets: Buckets,
    ) -> None:
        self._auth = auth
        self._keys = WatchedKeys(auth.file.expanduser()) if auth and auth.mode == "keys" else None
        self._limits, self._cors = limits, cors
        self._hosts = frozenset(map(str.lower, hosts or (("*",) if self._keys else LOOPBACK_NAMES)))
        self._client_of = client_of
        self._buckets = buckets
        self._concurrency = Concurrency()
        self._denied = metrics.Counter("amser_denied", "Requests without the right to be asked.", ("reason",))
        self._limited = metrics.Counter("amser_limited", "Requests over a limit.", ("limit", "by"))
        if auth and auth.mode == "none":
            logger.warning("auth: none: whoever reaches the port of this application may ask it")

    @staticmethod
    def visit() -> Visit:
        """The request that is being answered; outside of HTTP one that may do everything."""
        return _VISIT.get() or Visit()

    def around(self, app: ASGIApp, respond: Respond) -> ASGIApp:
        """The application behind this gate.

        Args:
            app: everything behind it.
            respond: makes a response of a refusal.
        """

        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            await self._let_in(app, respond, scope, receive, send)

        inner: ASGIApp = guarded
        if self._cors.origins:
            inner = CrossOrigin(inner, self._cors.origins, respond)

        async def known_host(scope: Scope, receive: Receive, send: Send) -> None:
            if denied := self._no_host(scope) or self._no_socket(scope):
                await respond(denied, HTTPConnection(scope))(scope, receive, send)
            else:
                await inner(scope, receive, send)

        return SecurityHeaders(_refusable(known_host))

    async def hear(self, visit: Visit, device_id: str | None, size: int, seconds: float) -> None:
        """See `Visit.hears`."""
        charges = _charges("", visit._limits.key, requests=visit._requests, speech=seconds)
        if device_id is not None:
            self._enter(visit, device_id, visit._limits.device)
            charges += _charges(device_id, visit._limits.device, requests=1, bytes=size, speech=seconds)
        await self._draw(visit, charges)

    async def go_on(self, visit: Visit, size: int) -> None:
        """See `Visit.goes_on`."""
        await self._draw(visit, _charges("", visit._limits.key, bytes=size))
        visit._drawn.clear()

    def enter_more(self, visit: Visit, most: int) -> int:
        """See `Visit.side_by_side`."""
        key, device = visit._limits.key.concurrency, visit._limits.device.concurrency
        most = min(most, device or most)
        if key is None:
            return most
        entered = 1
        while entered < most and self._concurrency.enter(visit._caller, "", key):
            visit._entered.append("")
            entered += 1
        return entered

    def leave(self, visit: Visit) -> None:
        """It is under way no longer."""
        for device in visit._entered:
            self._concurrency.leave(visit._caller, device)
        visit._entered.clear()

    async def _let_in(self, app: ASGIApp, respond: Respond, scope: Scope, receive: Receive, send: Send) -> None:
        rule = rule_of(path_of(scope))
        if rule == "open" or (rule == "docs" and self._auth is not None and self._auth.docs == "public"):
            await app(scope, receive, send)
            return
        visit = Visit()
        token = _VISIT.set(visit)
        try:
            try:
                self._identify(visit, rule, scope)
                receive = await self._begin(visit, scope, receive)
            except Denied as denied:
                await respond(denied, HTTPConnection(scope))(scope, receive, send)
                return
            await app(scope, receive, send)
        finally:
            _VISIT.reset(token)
            self.leave(visit)

    def _identify(self, visit: Visit, rule: Rule, scope: Scope) -> None:
        """Finds out who asks. Raises Denied."""
        visit._gate = self
        if self._keys is None:
            if self._auth is None:
                raise no_key()
            visit._caller, visit._limits = self._client_of(HTTPConnection(scope)), self._limits
            return
        shown = key_of(_authorization(scope), self._keys.ring())
        if shown.key is None or not shown.is_valid:
            self._denied.inc(1, {"reason": shown.trouble})
            raise no_key()
        key = shown.key
        if rule in SCOPES and rule not in key.scopes:
            self._denied.inc(1, {"reason": "scope"})
            raise no_scope(rule)
        scope.setdefault("state", {})[KEY_ID] = key.id  # for the line of the log
        visit.client = visit._caller = f"key {key.id}"
        visit._limits = key.limits_within(self._limits)

    async def _begin(self, visit: Visit, scope: Scope, receive: Receive) -> Receive:
        """Draws what is known before the body; returns what the application reads the body from. Raises Denied."""
        limits = visit._limits.key
        self._enter(visit, "", limits)
        headers = Headers(scope=scope)
        announced = headers.get("content-length", "0")
        is_size = announced.isdecimal() and len(announced) <= LONGEST_SIZE and "transfer-encoding" not in headers
        size = int(announced) if is_size else None
        await self._draw(visit, _charges("", limits, requests=1, bytes=size or 0))
        if size is not None or limits.bytes_per_minute is None:
            return receive

        async def counted() -> Message:
            message = await receive()
            await self._draw(visit, _charges("", limits, bytes=len(message.get("body", b""))))
            return message

        return counted

    def _enter(self, visit: Visit, device: str, limits: Limits) -> None:
        """Counts a request as under way. Raises Denied."""
        if limits.concurrency is None:
            return
        if not self._concurrency.enter(visit._caller, device, limits.concurrency):
            self._limited.inc(1, {"limit": "concurrency", "by": "device" if device else "key"})
            cause = f"this {visit.named(device)} has as many requests under way as it may"
            most = f"{limits.concurrency} at once"
            raise Denied(HTTPStatus.TOO_MANY_REQUESTS, "limit-concurrency", cause, most, CONCURRENCY_RETRY_S)
        visit._entered.append(device)

    async def _draw(self, visit: Visit, charges: list[Charge]) -> None:
        """Draws all, or raises Denied with the time until the whole request would pass."""
        verdict = await self._buckets.draw(visit._caller, charges)
        if verdict.charge is None:
            visit._drawn += charges
            return
        if visit._drawn:  # what it has drawn so far it will draw again
            whole = await self._buckets.draw(visit._caller, _summed([*visit._drawn, *charges]), only_ask=True)
            verdict = max(verdict, whole, key=lambda each: each.wait_s)
        over = verdict.charge
        assert over is not None
        self._limited.inc(1, {"limit": over.limit, "by": "device" if over.device else "key"})
        limit = f"{over.per_minute:g} {UNITS[over.limit]}"
        who = visit.named(over.device)
        if verdict.wait_s == inf:
            cause = f"this request alone is more than its {who} may ask in a minute"
            raise Denied(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too-large", cause, limit)
        cause = f"this {who} has asked for as much as it may"
        raise Denied(HTTPStatus.TOO_MANY_REQUESTS, f"limit-{over.limit}", cause, limit, ceil(verdict.wait_s))

    def _no_host(self, scope: Scope) -> Denied | None:
        if "*" in self._hosts or path_of(scope) in PROBES:
            return None
        if _host_name(Headers(scope=scope).get("host", "")) in self._hosts:
            return None
        self._denied.inc(1, {"reason": "host"})
        return Denied(HTTPStatus.MISDIRECTED_REQUEST, "host-not-allowed", "this cluster has no such host name")

    def _no_socket(self, scope: Scope) -> Denied | None:
        """A WebSocket where there is none, or of a page of another site: browsers do not ask first, as for requests."""
        if scope["type"] != "websocket":
            return None
        if path_of(scope) not in SOCKETS:
            return Denied(HTTPStatus.NOT_FOUND, "not-found", "this path takes no WebSocket")
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        if origin is None or origin in self._cors.origins or "*" in self._cors.origins:
            return None
        if origin.partition("://")[2] == headers.get("host"):
            return None
        self._denied.inc(1, {"reason": "origin"})
        return Denied(HTTPStatus.FORBIDDEN, "forbidden", "pages of this origin may not ask that")


def _charges(device: str, limits: Limits, **amounts: float) -> list[Charge]:
    """Of what is limited, and asked for at all."""
    rates = {
        "requests": limits.requests_per_minute,
        "bytes": limits.bytes_per_minute,
        "speech": limits.audio_s_per_minute,
    }
    return [
        Charge(name, device, rate, amount)
        for name, amount in amounts.items()
        if amount and (rate := rates[name]) is not None
    ]


def _summed(charges: Sequence[Charge]) -> list[Charge]:
    """One charge for each bucket."""
    together: dict[tuple[str, str], Charge] = {}
    for charge in charges:
        name = charge.device, charge.limit
        before = together.get(name)
        together[name] = replace(charge, amount=charge.amount + before.amount) if before else charge
    return list(together.values())


def _authorization(scope: Scope) -> str | None:
    """The header; of a page's WebSocket, which cannot have one, what stands for it among the protocols."""
    headers = Headers(scope=scope)
    if scope["type"] == "websocket" and "authorization" not in headers:
        for offered in scope.get("subprotocols", ()):
            if offered.startswith(KEY_PROTOCOL):
                return f"Bearer {offered.removeprefix(KEY_PROTOCOL)}"
    return headers.get("authorization")


def _refusable(app: ASGIApp) -> ASGIApp:
    """Closes a WebSocket whose server cannot send a response in its place."""

    async def refusable(scope: Scope, receive: Receive, send: Send) -> None:
        async def without_response(message: Message) -> None:
            if message["type"] == "websocket.http.response.start":
                await send({"type": "websocket.close", "code": WEBSOCKET_REFUSED})
            elif message["type"] != "websocket.http.response.body":
                await send(message)

        plain = scope["type"] == "websocket" and "websocket.http.response" not in scope.get("extensions", {})
        await app(scope, receive, without_response if plain else send)

    return refusable


def _host_name(host: str) -> str:
    """Of a Host header: without its port, and without the brackets of an IPv6 address."""
    return (host[1:].partition("]") if host.startswith("[") else host.partition(":"))[0].lower()
