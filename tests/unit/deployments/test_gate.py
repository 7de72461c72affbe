"""The gate in front of an application: Host, CORS, limits by key and device, and what is refused before it costs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from access import add_key, bearer
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.types import Message, Receive, Scope, Send

from deployments.access import gate as gate_module
from deployments.access.denied import Denied
from deployments.access.gate import Gate
from deployments.access.limits import OwnBuckets
from deployments.access.settings import AuthSettings, CorsSettings, LimitSettings
from deployments.gateway.clients import client_of
from deployments.telemetry import requests

LOCAL = "http://127.0.0.1"
ROUTE = "/v1/emotion"
U = 1049  # bytes; a thousand of them are just more than the least that may be set


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def respond(denied: Denied, _: object = None) -> Response:
    headers = {"Retry-After": str(denied.retry_after_s)} if denied.retry_after_s is not None else {}
    content = {"kind": denied.kind, "detail": str(denied), "limit": denied.limit}
    return JSONResponse(content, denied.status.value, headers)


class Application:
    """Reads the whole body, then hears an utterance of as many seconds as it is told by headers."""

    def __init__(self) -> None:
        self.visits: list[str | None] = []
        self.bytes_read = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.entered = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if request.url.path == "/docs":
            page = HTMLResponse("<script>alert(1)</script><script src=x></script>")
            await page(scope, receive, send)
            return
        try:
            size = 0
            async for piece in request.stream():
                size += len(piece)
                self.bytes_read += len(piece)
            visit = Gate.visit()
            await visit.hears(request.headers.get("device"), size, float(request.headers.get("seconds", "0")))
            self.visits.append(visit.client)
            self.entered += 1
            await self.may_answer.wait()
            response: Response = PlainTextResponse("answer")
        except Denied as denied:
            response = respond(denied)
        await response(scope, receive, send)


Ask = Callable[..., Any]


def gate(auth: AuthSettings | None = None, *, clock: Clock | None = None, **settings: Any) -> tuple[Application, Ask]:
    """A gate in front of an application, and a function that asks it."""
    application = Application()
    buckets = OwnBuckets(clock or Clock())
    made = Gate(
        auth or AuthSettings(mode="none"),
        LimitSettings.model_validate(settings.get("limits", {})),
        CorsSettings(origins=settings.get("origins", ())),
        settings.get("hosts"),
        client_of,
        buckets,
    )
    transport = httpx.ASGITransport(app=made.around(application, respond), client=("192.0.2.1", 1))

    async def ask(path: str = ROUTE, *, method: str = "POST", base: str = LOCAL, **more: Any) -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url=base) as client:
            return await client.request(method, path, **more)

    return application, ask


async def pieces(*sizes: int) -> AsyncIterator[bytes]:
    for size in sizes:
        yield b"x" * size * U


def test_the_log_of_requests_finds_the_id_of_the_key() -> None:
    assert gate_module.KEY_ID == requests.KEY_ID


# --- Keys -------------------------------------------------------------------------------------------------------------


async def test_where_nothing_is_said_of_keys_nobody_gets_in() -> None:
    made = Gate(None, LimitSettings(), CorsSettings(), None, client_of, OwnBuckets())
    transport = httpx.ASGITransport(app=made.around(Application(), respond))
    async with httpx.AsyncClient(transport=transport, base_url=LOCAL) as client:
        assert (await client.post(ROUTE)).status_code == 401
        assert (await client.get("/docs")).status_code == 401
        assert (await client.get("/healthz")).status_code == 200


async def test_the_key_is_the_client_for_admission_and_addresses_are_where_there_are_none(tmp_path: Path) -> None:
    token = add_key(tmp_path / "keys.json")
    application, ask = gate(AuthSettings(mode="keys", file=tmp_path / "keys.json"))
    assert (await ask(headers=bearer(token))).status_code == 200
    assert application.visits == [f"key {token.split('_')[1]}"]
    application, ask = gate()
    assert (await ask()).status_code == 200
    assert application.visits == [None]


async def test_a_stranger_is_refused_before_the_body_is_read(tmp_path: Path) -> None:
    add_key(tmp_path / "keys.json")
    application, ask = gate(AuthSettings(mode="keys", file=tmp_path / "keys.json"))
    response = await ask(content=pieces(1000, 1000))
    assert response.status_code == 401
    assert response.json()["kind"] == "unauthorized"
    assert application.bytes_read == 0


async def test_pages_about_the_api_may_want_a_key_too(tmp_path: Path) -> None:
    token = add_key(tmp_path / "keys.json", "read")
    _, ask = gate(AuthSettings(mode="keys", file=tmp_path / "keys.json", docs="key"))
    assert (await ask("/docs", method="GET")).status_code == 401
    assert (await ask("/docs", method="GET", headers=bearer(token))).status_code == 200


@pytest.mark.parametrize("path", [ROUTE, "/v1/stream"])
@pytest.mark.parametrize("extensions", [{}, {"websocket.http.response": {}}])
async def test_a_websocket_that_may_not_be_is_refused(path: str, extensions: dict[str, Any]) -> None:
    made = Gate(AuthSettings(mode="none"), LimitSettings(), CorsSettings(), None, client_of, OwnBuckets())
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"host", b"localhost"), (b"origin", b"https://evil.example")]
    scope = {"type": "websocket", "path": path, "headers": headers, "scheme": "ws", "extensions": extensions}
    await made.around(Application(), respond)(scope, lambda: asyncio.sleep(0), send)  # type: ignore[arg-type]
    if extensions:
        assert sent[0]["type"] == "websocket.http.response.start"
        assert sent[0]["status"] == (404 if path == ROUTE else 403)
    else:
        assert sent == [{"type": "websocket.close", "code": 1008}]


async def test_a_page_shows_its_key_among_the_protocols(tmp_path: Path) -> None:
    token = add_key(tmp_path / "keys.json")
    auth = AuthSettings(mode="keys", file=tmp_path / "keys.json")
    made = Gate(auth, LimitSettings(), CorsSettings(), None, client_of, OwnBuckets())
    entered: list[str] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        del receive, send
        entered.append(scope["path"])

    async def send(message: Message) -> None: ...

    for protocol in ("amser.v1", f"bearer.{token}"):
        scope = {
            "type": "websocket", "path": "/v1/stream", "headers": [], "scheme": "ws", "subprotocols": [protocol],
        }  # fmt: skip
        await made.around(application, respond)(scope, lambda: asyncio.sleep(0), send)  # type: ignore[arg-type]
    assert entered == ["/v1/stream"]


# --- Host and CORS ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", ["http://127.0.0.1:8000", "http://localhost", "http://[::1]:8000", "http://LOCALHOST"])
async def test_without_keys_this_machine_may_be_asked_by_its_own_names(base: str) -> None:
    _, ask = gate()
    assert (await ask(base=base)).status_code == 200


@pytest.mark.parametrize(
    "base", ["http://evil.example", "http://127.0.0.1.evil.example", "http://localhost.evil", "http://[::2]"]
)
async def test_a_page_whose_name_points_here_may_not(base: str) -> None:
    application, ask = gate()
    response = await ask(base=base, content=b"x")
    assert (response.status_code, response.json()["kind"]) == (421, "host-not-allowed")
    assert application.bytes_read == 0
    assert (await ask("/healthz", method="GET", base=base)).status_code == 200


async def test_hosts_are_a_setting_and_with_keys_all_are_known(tmp_path: Path) -> None:
    _, ask = gate(hosts=("amser.example",))
    assert (await ask(base="http://amser.example:8000")).status_code == 200
    assert (await ask(base=LOCAL)).status_code == 421
    token = add_key(tmp_path / "keys.json")
    _, ask = gate(AuthSettings(mode="keys", file=tmp_path / "keys.json"))
    assert (await ask(base="http://anything.example", headers=bearer(token))).status_code == 200


PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}


async def test_pages_of_named_origins_may_ask(tmp_path: Path) -> None:
    token = add_key(tmp_path / "keys.json")
    _, ask = gate(AuthSettings(mode="keys", file=tmp_path / "keys.json"), origins=("https://app.example",))
    origin = {"Origin": "https://app.example"}
    preflight = await ask(method="OPTIONS", headers=PREFLIGHT | origin)  # a browser sends no key with it
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "https://app.example"
    answer = await ask(headers=bearer(token) | origin)
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    assert (await ask(headers=origin)).headers[
        "access-control-allow-origin"
    ] == "https://app.example"  # 401 is read too
    refused = await ask(method="OPTIONS", headers=PREFLIGHT | {"Origin": "https://evil.example"})
    assert (refused.status_code, refused.json()["kind"]) == (403, "forbidden")


async def test_by_default_no_page_of_another_site_may_ask() -> None:
    _, ask = gate()
    response = await ask(headers={"Origin": "https://app.example"})
    assert "access-control-allow-origin" not in response.headers


# --- Headers ----------------------------------------------------------------------------------------------------------


async def test_every_response_tells_browsers_to_be_careful() -> None:
    _, ask = gate()
    for response in (await ask(), await ask(base="http://evil.example")):
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["referrer-policy"] == "no-referrer"
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert "strict-transport-security" not in response.headers
    secure = await ask(base="https://localhost")
    assert secure.headers["strict-transport-security"] == "max-age=31536000"


async def test_a_page_runs_its_own_scripts_alone() -> None:
    _, ask = gate()
    policy = (await ask("/docs", method="GET")).headers["content-security-policy"]
    # echo -n 'alert(1)' | openssl dgst -sha256 -binary | base64
    assert "script-src 'self' 'sha256-bhHHL3z2vDgxUt0W3dWQOrprscmda2Y5pLsLg4GF+pI=';" in policy


# --- Limits -----------------------------------------------------------------------------------------------------------


async def test_requests_over_a_limit_pass_exactly_when_they_are_told() -> None:
    clock = Clock()
    _, ask = gate(clock=clock, limits={"key": {"requests_per_minute": 6}})
    assert [(await ask()).status_code for _ in range(6)] == [200] * 6
    refused = await ask()
    assert (refused.status_code, refused.json()["kind"]) == (429, "limit-requests")
    assert refused.json()["limit"] == "6 requests a minute"
    assert refused.json()["detail"] == "this address has asked for as much as it may"
    wait_s = int(refused.headers["retry-after"])
    assert wait_s == 10
    clock.now_s += wait_s - 0.5
    assert (await ask()).status_code == 429  # and being refused costs nothing
    clock.now_s += 0.5
    assert (await ask()).status_code == 200


async def test_bytes_that_are_announced_are_refused_unread() -> None:
    clock = Clock()
    application, ask = gate(clock=clock, limits={"key": {"bytes_per_minute": 1000 * U}})
    assert (await ask(content=b"x" * 900 * U)).status_code == 200
    refused = await ask(content=b"x" * 400 * U)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "18")
    never = await ask(content=b"x" * 1001 * U)
    assert (never.status_code, never.json()["kind"]) == (413, "too-large")
    assert "retry-after" not in never.headers
    assert application.bytes_read == 900 * U
    clock.now_s += 18
    assert (await ask(content=b"x" * 400 * U)).status_code == 200


async def test_bytes_that_are_not_announced_are_counted_as_they_come() -> None:
    application, ask = gate(limits={"key": {"bytes_per_minute": 1000 * U}})
    refused = await ask(content=pieces(400, 400, 400, 400))
    assert refused.status_code == 413  # so many never pass
    assert application.bytes_read == 800 * U
    later = await ask(content=pieces(100, 150))
    # Of U: 800 and 100 are drawn, and 250 are needed next time: 150 too many, at 1000 a minute
    assert (later.status_code, later.headers["retry-after"]) == (429, "9")


async def test_seconds_of_audio_are_refused_before_anything_is_computed() -> None:
    clock = Clock()
    application, ask = gate(clock=clock, limits={"key": {"audio_s_per_minute": 30, "requests_per_minute": 2}})
    assert (await ask(headers={"seconds": "20"})).status_code == 200
    refused = await ask(headers={"seconds": "20"})
    assert refused.status_code == 429
    assert application.entered == 1
    # 20 s of audio are back in 40 s, and would be let in after 20; a request, of which both are used, after 30
    assert refused.headers["retry-after"] == "30"
    clock.now_s += 30
    assert (await ask(headers={"seconds": "20"})).status_code == 200
    assert (await ask(headers={"seconds": "31"})).status_code == 429  # first a request
    clock.now_s += 30
    assert (await ask(headers={"seconds": "31"})).status_code == 413


async def test_a_device_has_limits_within_those_of_its_key() -> None:
    limits = {"key": {"requests_per_minute": 5}, "device": {"requests_per_minute": 2, "bytes_per_minute": 1000 * U}}
    _, ask = gate(limits=limits)
    kitchen = {"device": "kitchen"}
    assert [(await ask(headers=kitchen)).status_code for _ in range(2)] == [200, 200]
    refused = await ask(headers=kitchen)
    assert refused.status_code == 429
    assert refused.json()["detail"] == "this device 'kitchen' has asked for as much as it may"
    assert (await ask(headers={"device": "hall"}, content=b"x" * 1001 * U)).status_code == 413
    assert (await ask(headers={"device": "hall"})).status_code == 200
    assert (await ask(headers={"device": "cellar"})).json()["limit"] == "5 requests a minute"


async def test_requests_at_once_are_counted_and_let_go_however_they_end() -> None:
    application, ask = gate(limits={"key": {"concurrency": 2}, "device": {"concurrency": 1}})
    application.may_answer.clear()
    first = asyncio.create_task(ask(headers={"device": "a"}))
    while not application.entered:
        await asyncio.sleep(0)
    same_device = await ask(headers={"device": "a"})
    assert (same_device.status_code, same_device.json()["limit"]) == (429, "1 at once")
    second = asyncio.create_task(ask(headers={"device": "b"}))
    while application.entered < 2:
        await asyncio.sleep(0)
    third = await ask(headers={"device": "c"})
    assert (third.status_code, third.json()["limit"], third.headers["retry-after"]) == (429, "2 at once", "1")
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    application.may_answer.set()
    assert (await second).status_code == 200
    assert [(await ask(headers={"device": "a"})).status_code for _ in range(5)] == [200] * 5


async def test_a_key_has_limits_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    small, usual = add_key(path, requests_per_minute=1), add_key(path)
    _, ask = gate(AuthSettings(mode="keys", file=path), limits={"key": {"requests_per_minute": 3}})
    assert [(await ask(headers=bearer(small))).status_code for _ in range(2)] == [200, 429]
    assert [(await ask(headers=bearer(usual))).status_code for _ in range(4)] == [200, 200, 200, 429]
