"""Headers with which a client could steer or break Ray Serve's proxy do not reach it."""

from __future__ import annotations

import pytest
from ray.serve._private.http_util import parse_request_timeout_header
from starlette.types import Message, Receive, Scope, Send

from deployments.gateway.proxy import middlewares
from deployments.intake.serve_headers import WithoutServeHeaders

GOOD = [(b"content-type", b"application/vnd.amser.v1"), (b"x-request-id", b"7e1f"), (b"prefer", b"handling=strict")]


async def seen_behind(headers: list[tuple[bytes, bytes]], kind: str = "http") -> list[tuple[bytes, bytes]]:
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        del receive, send
        seen.append(scope)

    async def nothing(message: Message | None = None) -> Message:
        return message or {"type": "http.disconnect"}

    scope = {"type": kind, "method": "GET", "path": "/healthz", "headers": headers}
    await WithoutServeHeaders(app)(scope, nothing, nothing)  # type: ignore[arg-type]
    return list(seen[0]["headers"])


@pytest.mark.parametrize(
    "header",
    [
        (b"serve_multiplexed_model_id", b"!\x96\xf6"),  # the proxy answered 500
        (b"Serve-Multiplexed-Model-Id", b"a-model"),
        (b"x-session-id", b"\xff"),
        (b"x-request-id", b"\xff\xfe"),
        (b"x-request-disconnect-disabled", b"?1"),  # the work of a client that has left would go on
        (b"traceparent", b"\xfc"),
    ],
)
async def test_what_serve_would_take_for_its_own_is_taken_off(header: tuple[bytes, bytes]) -> None:
    assert await seen_behind([*GOOD, header]) == GOOD


async def test_all_others_pass() -> None:
    assert await seen_behind(GOOD) == GOOD


def test_the_proxy_runs_it() -> None:
    assert WithoutServeHeaders in [each.cls for each in middlewares()]


@pytest.mark.parametrize(("kind", "timeout_s"), [("http", 30.0), ("websocket", None)])
async def test_a_socket_is_no_request_whose_answer_is_late(kind: str, timeout_s: float | None) -> None:
    seen = await seen_behind([*GOOD, (b"X-Request-Timeout-Seconds", b"3")], kind)
    assert seen[: len(GOOD)] == GOOD
    assert parse_request_timeout_header(dict(seen), 30.0) == timeout_s
