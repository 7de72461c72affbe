"""A stand-in for the cluster: a real HTTP server in a thread that plays the responses it is given."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ANSWER: dict[str, Any] = {
    "request_id": "7e1f",
    "emotion": "happy",
    "probabilities": {"happy": 0.85, "neutral": 0.15},
    "confidence": 0.85,
    "uncertain": False,
    "doubts": [],
    "speech": "yes",
    "speech_probability": 0.98,
    "transcript": {"text": "Good morning.", "language": "en", "average_log_probability": -0.21},
    "input": {"codec": "svd-f16", "bytes": 1000, "seconds": 1.0, "rank": 10},
    "timings_ms": {"asr": 31.0, "total": 40.5},
    "models": {"asr": "whisper-base"},
    "degraded": [],
    "warnings": [],
}
NO_SPEECH: dict[str, Any] = ANSWER | {
    "emotion": None,
    "probabilities": {},
    "confidence": 0.0,
    "uncertain": True,
    "doubts": ["no_speech"],
    "speech": "none",
    "speech_probability": 0.02,
    "transcript": {"text": "", "language": "en", "average_log_probability": 0.0},
}


@dataclass
class Response:
    """What the server does with one request."""

    status: int = 200
    body: Any = field(default_factory=lambda: ANSWER)
    headers: dict[str, str] = field(default_factory=dict)
    after_s: float = 0.0
    hangs_up: bool = False


@dataclass
class Received:
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes
    at: float  # time.monotonic()
    connection: tuple[str, int]  # the client's address: the same for a connection that is kept
    method: str = "POST"


class StandIn:
    """Plays `responses` in order, then answers."""

    def __init__(self, responses: list[Response]) -> None:
        self.received: list[Received] = []
        self._responses = iter(responses)
        self._lock = threading.Lock()
        self._closing = threading.Event()
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # header and body in one packet

            def do_POST(self) -> None:  # noqa: N802 - http.server calls it by this name
                stand_in.play(self)

            do_GET = do_DELETE = do_POST  # noqa: N815 - the same

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64  # devices connect all at once

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def play(self, request: BaseHTTPRequestHandler) -> None:
        """Answers one request."""
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        with self._lock:
            sent = (request.path, dict(request.headers), body)
            arrived = Received(*sent, time.monotonic(), request.client_address, request.command)
            self.received.append(arrived)
            response = next(self._responses, Response())
        self._closing.wait(response.after_s)
        if response.hangs_up or self._closing.is_set():
            request.close_connection = True
            return
        content = response.body if isinstance(response.body, bytes) else json.dumps(response.body).encode()
        request.send_response(response.status)
        for name, value in {"Content-Type": "application/json", **response.headers}.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)

    def close(self) -> None:
        """Ends the server and whatever it still makes wait."""
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def stand_in(*responses: Response) -> Iterator[StandIn]:
    """A running stand-in."""
    server = StandIn(list(responses))
    try:
        yield server
    finally:
        server.close()
