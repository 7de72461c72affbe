"""Headless Chromium for tests of the playground, with a recording as its microphone, and a site without models."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import JSONResponse
from starlette.websockets import WebSocketDisconnect

from amser import wire
from amser.features import FRAMES_PER_SECOND
from deployments.access.headers import SecurityHeaders
from deployments.gateway.playground import router

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
WHERE = "AMSER_TEST_BROWSER"  # a path, for browsers with another name
STAGES = {"queue": 0.4, "mel": 1.1, "asr": 182.0, "text_embedding": 0.3, "roberta": 21.0, "fusion": 4.2, "total": 209.0}
PROBABILITIES = {
    "angry": 0.03,
    "disgust": 0.02,
    "fear": 0.05,
    "happy": 0.61,
    "neutral": 0.17,
    "sad": 0.04,
    "surprise": 0.08,
}


def executable() -> str | None:
    """Where a browser is; None where there is none. One that playwright has installed for itself counts too."""
    if named := os.environ.get(WHERE):
        return named
    if found := next((path for name in NAMES if (path := shutil.which(name))), None):
        return found
    installed = Path.home() / ".cache" / "ms-playwright"
    return next(
        (str(path) for path in sorted(installed.glob("chromium*/chrome-linux*/*chrom*")) if path.is_file()), None
    )


@contextmanager
def chromium(microphone: Path | None = None) -> Iterator[Any]:
    """A browser of playwright; skips the test where none is installed.

    Args:
        microphone: a WAV that is played into it once.
    """
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install '.[dev]')")
    path = executable()
    if path is None:
        pytest.skip(f"no Chromium here: apt-get install chromium, or name one in {WHERE}")
    arguments = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
    if microphone is not None:
        arguments += ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
        arguments += [f"--use-file-for-fake-audio-capture={microphone}%noloop"]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Site:
    """A server of the playground, and what it was sent.

    Attributes:
        url: of the page, with a slash at the end.
        received: envelopes.
        keys: the Authorization header of each request, or None.
        refuse: status of the next answers, before one that succeeds.
        has_sockets: whether there is a route for speech while it is spoken.
        cuts: numbers of messages after which the link of a socket is cut.
        connections: sockets that were opened.
    """

    url: str = ""
    received: list[wire.Envelope] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    refuse: list[int] = field(default_factory=list)
    has_sockets: bool = True
    cuts: list[int] = field(default_factory=list)
    connections: int = 0


class Speaker:
    """Speaks docs/stream.md from the side of the cluster, of one session; its answers are made up."""

    def __init__(self, state: Site) -> None:
        self._state = state
        self._messages: list[bytes] = []  # of all utterances
        self._first = 0  # of the one under way
        self._utterance = 0

    async def serve(self, socket: WebSocket) -> None:
        """A socket, until the client closes it or it is cut."""
        start = await socket.receive_json()
        if "session" not in start:
            self._messages, self._first, self._utterance = [], 0, 0
        ready = {"type": "ready", "session": "one", "next": len(self._messages), "utterance": self._utterance}
        await socket.send_json(ready)
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if message.get("bytes") is None:
                said = json.loads(message["text"])
                if said["type"] == "end":
                    await self._end(socket, said, bytes.fromhex(start["header"]), start.get("language"))
                continue
            self._messages.append(message["bytes"])
            if self._state.cuts and len(self._messages) >= self._state.cuts[0]:
                self._state.cuts.pop(0)
                await socket.close(1012)
                return
            await socket.send_json({"type": "ack", "next": len(self._messages), "first": self._first})
            heard = {"stable": "So it ", "text": "So it was", "emotion": "happy", "confidence": 0.4, "uncertain": True}
            await socket.send_json({"type": "partial", "utterance": self._utterance, **heard})

    async def _end(self, socket: WebSocket, said: dict[str, Any], header: bytes, language: str | None) -> None:
        if said["at"] <= self._first:
            return
        payload = header + b"".join(self._messages[self._first : said["at"]])
        envelope = wire.Envelope(
            codec="klt", profile="whisper80", frames=said["frames"], seconds=said["frames"] / FRAMES_PER_SECOND,
            language=language, device_id="stream", utterance_id=uuid.uuid4(), captured_at=datetime.now(UTC),
            payload=payload, unclamped=True,
        )  # fmt: skip
        self._state.received.append(envelope)
        answer = answer_of(envelope, len(self._state.received))
        final = {"type": "final", "utterance": self._utterance, "reason": "client", "next": said["at"]}
        self._first, self._utterance = said["at"], self._utterance + 1
        await socket.send_json({**final, "answer": answer})


@contextmanager
def site(extra: Sequence[Any] = ()) -> Iterator[Site]:
    """The page as the gateway serves it, with answers that are made up: tests of the page alone need no model."""
    state = Site()
    app = FastAPI(routes=list(extra))
    app.include_router(router)

    @app.post("/v1/emotion")
    async def emotion(request: Request) -> JSONResponse:
        state.keys.append(request.headers.get("authorization"))
        envelope = wire.unpack(await request.body())
        if state.refuse:
            status = state.refuse.pop(0)
            detail = "this needs a valid key" if status == 401 else "not now"
            return JSONResponse({"detail": detail}, status, {"Retry-After": "0"}, "application/problem+json")
        state.received.append(envelope)
        timing = ", ".join(f"{name};dur={value:g}" for name, value in STAGES.items())
        return JSONResponse(answer_of(envelope, len(state.received)), headers={"Server-Timing": timing})

    speaker = Speaker(state)

    @app.websocket("/v1/stream")
    async def stream(socket: WebSocket) -> None:
        state.keys += [each for each in socket.scope["subprotocols"] if each.startswith("bearer.")]
        if not state.has_sockets:
            await socket.close()
            return
        state.connections += 1
        await socket.accept("amser.v1")
        with suppress(WebSocketDisconnect):
            await speaker.serve(socket)

    config = uvicorn.Config(SecurityHeaders(app), "127.0.0.1", 0, lifespan="off", log_config=None, access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    state.url = f"http://localhost:{server.servers[0].sockets[0].getsockname()[1]}/"
    try:
        yield state
    finally:
        server.should_exit = True
        thread.join(10)


def answer_of(envelope: wire.Envelope, count: int) -> dict[str, Any]:
    """What the cluster could say; every second answer is in doubt."""
    uncertain = count % 2 == 0
    return {
        "request_id": str(envelope.utterance_id),
        "emotion": "happy",
        "probabilities": PROBABILITIES,
        "confidence": 0.42 if uncertain else 0.78,
        "uncertain": uncertain,
        "doubts": ["low_confidence"] if uncertain else [],
        "speech": "yes",
        "speech_probability": 0.99,
        "transcript": {"text": f"Utterance {count} was heard.", "language": "en", "average_log_probability": -0.2},
        "input": {
            "codec": "klt",
            "bytes": len(envelope.payload),
            "seconds": envelope.seconds,
            "rank": None,
            "step": 23,
        },
        "timings_ms": STAGES,
        "models": {},
        "degraded": [],
        "warnings": [],
    }
