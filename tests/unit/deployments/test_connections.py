"""Connections to Ray's proxy: a real uvicorn, started as Ray starts it, with what the gateway puts into that process.

The application behind it is a stand-in for Serve's proxy; everything before it is real.
"""

from __future__ import annotations

import asyncio
import errno
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import uvicorn
import uvloop
from ray.util.metrics import Counter
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http import auto
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from deployments.gateway.proxy import middlewares
from deployments.intake import accepting
from deployments.intake.accepting import AcceptingServer
from deployments.intake.limits import ENVIRONMENT

HELLO = b"GET /healthz HTTP/1.1\r\nHost: amser\r\n\r\n"
ELSEWHERE = "127.0.0.2"  # an address of loopback that uvicorn does not take for a reverse proxy
LATE_S = 8.0  # on a busy machine; without limits it would be 60 s, or for ever
QUICK = {"connections": {"head_s": 0.4, "unread_s": 0.4}, "bodies": {"grace_s": 0.4, "pace": 10_000}}

Serve = Callable[..., Any]
Open = Callable[..., Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


class ServeProxy:
    """What stands behind the middlewares: echoes what arrived, or answers as Serve's proxy does by itself."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        body = await request.body()
        self.seen.append({"bytes": len(body), "client": scope["client"][0], **dict(request.headers)})
        response = PlainTextResponse("fine")
        match scope["path"]:
            case "/nowhere":
                response = PlainTextResponse("Path '/nowhere' not found. Ping http://.../-/routes", 404)
            case "/burst":
                await asyncio.sleep(0.005)
            case "/full":
                response = PlainTextResponse("queue", 429, {"Retry-After": "7"})
            case "/late":
                response = PlainTextResponse("Request … timed out after 30s.", 408)
            case "/draining" | "/-/healthz":
                response = PlainTextResponse("This node is being drained.", 503)
            case "/died":
                return
            case "/large":
                response = PlainTextResponse("x" * 20_000_000)
        await response(scope, receive, send)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Starts a server on loopback with settings in its environment, and yields how to connect, and what it saw."""

    @asynccontextmanager
    async def started(**settings: dict[str, float]) -> AsyncIterator[tuple[Open, ServeProxy]]:
        monkeypatch.setenv(
            ENVIRONMENT, json.dumps({name: QUICK.get(name, {}) | settings.get(name, {}) for name in QUICK})
        )
        monkeypatch.setattr(auto, "AutoHTTPProtocol", auto.AutoHTTPProtocol)  # put back afterwards
        monkeypatch.setattr(uvicorn, "Server", uvicorn.Server)
        proxy = ServeProxy()
        app: ASGIApp = proxy
        for middleware in middlewares():  # as Ray wraps them
            app = middleware.cls(app, *middleware.args, **middleware.kwargs)
        server = uvicorn.Server(
            uvicorn.Config(
                lambda: app,
                factory=True,
                port=0,
                timeout_keep_alive=60,
                lifespan="off",
                log_level=None,
                log_config=None,
            )
        )
        server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        running = asyncio.create_task(server._serve())
        while not server.started:
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]

        opened = []  # a writer that nobody holds is closed

        async def connect(host: str = "127.0.0.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            opened.append(await asyncio.open_connection("127.0.0.1", port, local_addr=(host, 0)))
            return opened[-1]

        try:
            yield connect, proxy
        finally:
            for _, writer in opened:
                writer.close()
            await asyncio.sleep(0)
            server.should_exit = server.force_exit = True
            await running

    return started


def seconds() -> float:
    return asyncio.get_running_loop().time()


async def all_of(reader: asyncio.StreamReader) -> bytes:
    """Until the other end closes."""
    with suppress(ConnectionError):
        return await asyncio.wait_for(reader.read(), 20)
    return b""


def problem(answer: bytes) -> tuple[int, str]:
    """Status and kind of a refusal, which has to be whole."""
    head, _, document = answer.partition(b"\r\n\r\n")
    lines = head.decode().lower()
    assert "content-type: application/problem+json" in lines
    assert "amser-request-id: " in lines
    content = json.loads(document)
    assert content["status"] == int(lines.split()[1])
    return content["status"], content["type"]


def post(length: int, *headers: str, path: str = "/v1/emotion") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: amser", f"Content-Length: {length}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def trickle(writer: asyncio.StreamWriter, content: bytes, every_s: float = 0.02) -> None:
    with suppress(ConnectionError):
        for byte in content:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(every_s)


# --- Heads ------------------------------------------------------------------------------------------------------------


async def test_a_connection_on_which_nothing_is_asked_is_closed(serve: Serve) -> None:
    async with serve() as (connect, _):
        reader, _writer = await connect()
        started = seconds()
        assert await all_of(reader) == b""
        assert 0.3 < seconds() - started < LATE_S


@pytest.mark.parametrize("begins", [b"G", b"GET /healthz HTTP/1.1\r\nHost: amser\r\nX-", HELLO[:-1]])
async def test_a_head_that_stalls_is_refused(serve: Serve, begins: bytes) -> None:
    async with serve() as (connect, _):
        reader, writer = await connect()
        started = seconds()
        writer.write(begins)
        assert problem(await all_of(reader)) == (408, "/problems/head-too-slow")
        assert 0.3 < seconds() - started < LATE_S


async def test_a_head_that_trickles_is_refused(serve: Serve) -> None:
    """Every byte would put off a limit of idle time."""
    async with serve() as (connect, _):
        reader, writer = await connect()
        started = seconds()
        trickling = asyncio.create_task(trickle(writer, b"GET / HTTP/1.1\r\n" + b"X-Slow: 1\r\n" * 100))
        assert problem(await all_of(reader)) == (408, "/problems/head-too-slow")
        assert seconds() - started < LATE_S
        await trickling


@pytest.mark.parametrize("second", [b"G", b"\r\n"])
async def test_a_second_head_has_the_same_time_as_the_first(serve: Serve, second: bytes) -> None:
    async with serve() as (connect, _):
        reader, writer = await connect()
        writer.write(HELLO)
        assert b"fine" in await reader.readuntil(b"fine")
        await asyncio.sleep(0.6)  # uvicorn's own time between two requests is longer
        writer.write(HELLO)
        await reader.readuntil(b"fine")
        writer.write(second)
        started = seconds()
        await all_of(reader)
        assert seconds() - started < LATE_S


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\n" + b"X-A: 1\r\n" * 65,
        b"GET / HTTP/1.1\r\nX-A: " + b"a" * 20_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 20_000,
        b"GET / HTTP/1.1\r\nX-A: " + b"a" * 200_000,
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"X-A: 1\r\n" * 65,
    ],
    ids=["many", "long", "long-path", "endless", "trailers"],
)
async def test_a_head_that_is_too_large_is_refused(serve: Serve, head: bytes) -> None:
    async with serve() as (connect, _):
        reader, writer = await connect()
        writer.write(head)
        await writer.drain()
        await asyncio.sleep(0.05)
        with suppress(ConnectionError):
            writer.write(b"a")
        answer = await all_of(reader)
        if answer.startswith(b"HTTP/1.1 431"):
            assert problem(answer) == (431, "/problems/head-too-large")
        else:  # in the middle of another answer nothing can be said
            assert b"trailers" in head or b"chunked" in head


async def test_what_is_no_http_is_refused(serve: Serve) -> None:
    async with serve() as (connect, _):
        reader, writer = await connect()
        writer.write(b"\x16\x03\x01\x02\x00 is a TLS hello\r\n\r\n")
        assert problem(await all_of(reader)) == (400, "/problems/bad-http")


async def test_a_client_that_leaves_its_answer_unread_is_cut_off(serve: Serve) -> None:
    async with serve() as (connect, _):
        reader, writer = await connect()
        writer.write(b"GET /large HTTP/1.1\r\n\r\n")
        await asyncio.sleep(2)
        assert len(await all_of(reader)) < 20_000_000


# --- How many ---------------------------------------------------------------------------------------------------------


async def test_an_address_has_so_many_connections_and_the_idle_ones_make_room(serve: Serve) -> None:
    async with serve(connections={"of_a_client": 4, "head_s": 5}) as (connect, _):
        first = [await connect(ELSEWHERE) for _ in range(4)]
        reader, writer = await connect(ELSEWHERE)
        assert await all_of(first[0][0]) == b""  # it waited for longest
        writer.write(HELLO)
        await reader.readuntil(b"fine")
        for each_reader, each in first[1:]:
            each.write(HELLO)
            await each_reader.readuntil(b"fine")


async def test_where_all_connections_are_at_work_a_further_one_is_refused(serve: Serve) -> None:
    async with serve(connections={"of_a_client": 2}, bodies={"grace_s": 5}) as (connect, _):
        for _ in range(2):
            _, writer = await connect(ELSEWHERE)
            writer.write(post(1000) + b"1")
        await asyncio.sleep(0.1)
        reader, _ = await connect(ELSEWHERE)
        assert problem(await all_of(reader)) == (503, "/problems/too-many-connections")
        reader, writer = await connect()  # others are not concerned
        writer.write(HELLO)
        await reader.readuntil(b"fine")


async def test_a_reverse_proxy_that_is_trusted_has_as_many_as_all(serve: Serve) -> None:
    async with serve(connections={"of_a_client": 2}) as (connect, _):
        for _ in range(10):
            reader, writer = await connect()
            writer.write(HELLO)
            await reader.readuntil(b"fine")


async def test_an_address_with_many_idle_connections_makes_room_for_others(serve: Serve) -> None:
    async with serve(connections={"at_once": 20, "of_a_client": 20, "head_s": 5}) as (connect, _):
        kept = await connect()
        kept[1].write(HELLO)
        await kept[0].readuntil(b"fine")
        flood = [await connect(ELSEWHERE) for _ in range(60)]
        await asyncio.sleep(0.1)
        assert sum(reader.at_eof() for reader, _ in flood) == 60 - 19
        kept[1].write(HELLO)  # it has waited for longest of all
        await kept[0].readuntil(b"fine")


async def test_a_burst_of_one_address_does_not_come_before_all_requests_of_another(serve: Serve) -> None:
    async with serve() as (connect, proxy):
        burst = [await connect() for _ in range(200)]
        reader, writer = await connect(ELSEWHERE)
        for _, one in burst:
            one.write(b"GET /burst HTTP/1.1\r\nHost: amser\r\n\r\n")
        writer.write(HELLO)
        await reader.readuntil(b"fine")
        await asyncio.gather(*(each.readuntil(b"fine") for each, _ in burst))
        assert [seen["client"] for seen in proxy.seen].index(ELSEWHERE) < 100


def test_connections_that_wait_are_accepted_together() -> None:
    """uvloop, which Ray's proxy runs on, accepts one in each turn of its loop."""

    async def turns_to_accept(connections: int) -> int:
        listening = socket.create_server(("127.0.0.1", 0), backlog=connections)
        server = AcceptingServer(uvicorn.Config(ServeProxy(), lifespan="off", log_config=None, http=HttpToolsProtocol))
        running = asyncio.create_task(server._serve([listening]))
        while not server.started:
            await asyncio.sleep(0.01)
        clients = [socket.create_connection(listening.getsockname()) for _ in range(connections)]
        turns = 0
        while len(server.server_state.connections) < connections:
            await asyncio.sleep(0)
            turns += 1
        for client in clients:
            client.close()
        server.should_exit = True
        await running
        return turns

    assert uvloop.run(turns_to_accept(200)) < 40


async def test_a_process_without_files_pauses_before_it_accepts_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its socket is readable all the time."""

    class Socket(socket.socket):
        attempts = 0

        def accept(self) -> Any:
            Socket.attempts += 1
            if Socket.attempts == 1:
                raise OSError(errno.EMFILE, "too many open files")
            return super().accept()

    monkeypatch.setattr(accepting, "PAUSE_S", 0.3)
    server = AcceptingServer(uvicorn.Config(ServeProxy(), lifespan="off", log_config=None, http=HttpToolsProtocol))
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    with Socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        listening.setblocking(False)
        server._watched.append(listening)
        server._watch(listening)
        _, writer = await asyncio.open_connection(*listening.getsockname())
        await asyncio.sleep(0.1)
        assert Socket.attempts == 1
        async with asyncio.timeout(LATE_S):
            while not server.server_state.connections:
                await asyncio.sleep(0.01)
        writer.close()
        server._watched.clear()
        asyncio.get_running_loop().remove_reader(listening)


# --- Bodies -----------------------------------------------------------------------------------------------------------


async def test_a_body_reaches_the_application_whole_and_with_its_time(serve: Serve) -> None:
    async with serve() as (connect, proxy):
        reader, writer = await connect()
        writer.write(post(40, "Amser-Held-Back-Ms: 99999", "Connection: close"))
        await trickle(writer, bytes(40), 0.005)
        assert b"fine" in await all_of(reader)
        (seen,) = proxy.seen
        assert seen["bytes"] == 40
        assert 150 < int(seen["amser-held-back-ms"]) < 5_000


async def test_a_slow_body_never_reaches_the_application(serve: Serve) -> None:
    async with serve() as (connect, proxy):
        reader, writer = await connect()
        writer.write(post(1000) + b"1")
        answer = await all_of(reader)  # the connection is closed, too
        assert problem(answer) == (408, "/problems/body-too-slow")
        assert "10000 bytes a second" in json.loads(answer.partition(b"\r\n\r\n")[2])["limit"]
        assert proxy.seen == []


async def test_a_deadline_counts_while_the_body_comes(serve: Serve) -> None:
    async with serve(bodies={"grace_s": 5}) as (connect, proxy):
        reader, writer = await connect()
        started = seconds()
        writer.write(post(1000, "Amser-Deadline-Ms: 300") + b"1")
        assert problem(await all_of(reader)) == (504, "/problems/deadline")
        assert seconds() - started < LATE_S
        assert proxy.seen == []


async def test_slow_bodies_make_room_for_the_next(serve: Serve) -> None:
    async with serve(bodies={"at_once": 4, "grace_s": 5}) as (connect, _):
        slow = []
        for _ in range(12):
            reader, writer = await connect()
            writer.write(post(1000) + b"1")
            slow.append(reader)
            await asyncio.sleep(0.01)
        for reader in slow[:8]:
            assert problem(await all_of(reader)) == (429, "/problems/too-many-bodies")
        reader, writer = await connect()
        writer.write(post(3, "Connection: close") + b"all")
        assert b"fine" in await all_of(reader)


CHUNK = b"100000\r\n" + bytes(0x100000) + b"\r\n"


@pytest.mark.parametrize(
    "request_bytes",
    [
        post(17_000_000, "Connection: close") + bytes(17_000_000),
        post(17_000_000, "Connection: close", "Expect: 100-continue"),
        b"PUT /readyz HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + 17 * CHUNK + b"0\r\n\r\n",
    ],
    ids=["announced", "waits for leave", "in chunks, on another route"],
)
async def test_a_body_larger_than_what_is_held_back_is_refused_and_its_client_told(
    serve: Serve, request_bytes: bytes
) -> None:
    async with serve() as (connect, proxy):
        reader, writer = await connect()
        writer.write(request_bytes)
        assert problem(await all_of(reader)) == (413, "/problems/too-large")
        assert proxy.seen == []


async def test_trailers_are_limited_as_heads_are(serve: Serve) -> None:
    """A trailer without an end took memory as fast as the link brought it."""
    async with serve() as (connect, _):
        reader, writer = await connect()
        writer.write(b"POST /v1/emotion HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ")
        with suppress(ConnectionError):
            for _ in range(64):
                writer.write(bytes([97]) * 65_536)
                await writer.drain()
                await asyncio.sleep(0)
        with suppress(ConnectionError):
            await all_of(reader)
        assert reader.at_eof() or reader.exception() is not None


async def test_a_client_that_vanishes_reaches_nobody(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[Any] = []
    monkeypatch.setattr(Counter, "inc", lambda *given: counted.append(given))
    async with serve() as (connect, proxy):
        _, writer = await connect()
        writer.write(post(1000) + b"1")
        await asyncio.sleep(0.05)
        writer.close()
        reader, writer = await connect()
        writer.write(HELLO.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert b"fine" in await all_of(reader)
        assert len(proxy.seen) == 1
        assert counted == []  # as refused


# --- What Serve answers by itself -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status", "kind", "retry_after"),
    [
        ("/nowhere", 404, "not-found", None),
        ("/full", 429, "queue-full", "7"),
        ("/late", 504, "deadline", None),
        ("/draining", 503, "not-ready", "1"),
        ("/died", 503, "replica-died", "1"),
    ],
)
async def test_what_serve_refuses_is_a_problem_document(
    serve: Serve, path: str, status: int, kind: str, retry_after: str | None
) -> None:
    async with serve() as (connect, _):
        reader, writer = await connect()
        writer.write(f"GET {path} HTTP/1.1\r\nConnection: close\r\n\r\n".encode())
        answer = await all_of(reader)
        assert problem(answer) == (status, f"/problems/{kind}")
        assert (f"retry-after: {retry_after}".encode() in answer.lower()) == (retry_after is not None)


async def test_serves_own_routes_stay_as_its_tools_read_them(serve: Serve) -> None:
    async with serve() as (connect, _):
        reader, writer = await connect()
        writer.write(b"GET /-/healthz HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert b"This node is being drained." in await all_of(reader)
