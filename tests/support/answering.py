"""A stand-in for the cluster in a process of its own: answers after a delay, and reads envelopes as the cluster does.

    python tests/support/answering.py SECONDS STATUS IDLE_SECONDS

It prints its port. Bad bytes get 400, too many of them 413, a body that does not come within a second 408. `GET /`
gives what it saw: the connections, the headers of the last request, and how often each utterance came.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from amser.wire import Limits, WireError, unpack

BODY_WITHIN_S = 1.0
ANSWER = json.dumps(
    {
        "request_id": "e5fcc075-e301-4a07-887f-2d19d550fb42",
        "emotion": "angry",
        "probabilities": {"angry": 0.8312, "disgust": 0.0021, "fear": 0.1381, "happy": 0.0194, "neutral": 0.0013},
        "confidence": 0.8312,
        "uncertain": False,
        "doubts": [],
        "speech": "yes",
        "speech_probability": 0.9871,
        "transcript": {"text": "Kids are talking by the door.", "language": "en", "average_log_probability": -0.3112},
        "input": {"codec": "klt", "bytes": 985, "seconds": 4.104, "rank": 10},
        "timings_ms": {
            "queue": 33.52,
            "mel": 0.31,
            "asr": 190.91,
            "text_encoder": 59.81,
            "fusion": 4.93,
            "total": 290.1,
        },
        "models": {
            "asr": "whisper-base (onnxruntime)",
            "text_embedding": "spacy-en-core-web-md",
            "fusion": "amser-states",
        },
        "degraded": ["text_encoder"],
        "warnings": [],
    }
).encode()
TIMING = b"Server-Timing: queue;dur=33.52, asr;dur=190.91, total;dur=290.1\r\n"


class Answering:
    """The server."""

    def __init__(self, delay_s: float, status: int, idle_s: float) -> None:
        self._delay_s, self._status, self._idle_s = delay_s, status, idle_s
        self._connections = 0
        self._headers: list[dict[str, str]] = []
        self._attempts: Counter[str] = Counter()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self._connections += 1
        with suppress(asyncio.IncompleteReadError, ConnectionError, TimeoutError):
            while True:
                head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), self._idle_s)).decode()
                headers = dict(line.split(": ", 1) for line in head.lower().strip().split("\r\n")[1:])
                if head.startswith("GET"):
                    self._connections -= 1
                    seen = {"connections": self._connections, "headers": self._headers, "attempts": self._attempts}
                    writer.write(_response(200, json.dumps(seen).encode()))
                    break
                if not await self._post(headers, reader, writer):
                    break
        writer.close()

    async def _post(self, headers: dict[str, str], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        self._headers = [headers]
        self._attempts[headers["amser-utterance-id"]] += 1
        length = int(headers["content-length"])
        if length > Limits().max_bytes:
            writer.write(_response(413, b"{}"))
            return False
        try:
            body = await asyncio.wait_for(reader.readexactly(length), BODY_WITHIN_S)
        except TimeoutError:
            writer.write(_response(408, b"{}"))
            return False
        status = self._status
        try:
            unpack(body)
        except WireError:
            status = 400
        await asyncio.sleep(self._delay_s)
        writer.write(_response(status, ANSWER if status == 200 else b"{}"))
        return True


def _response(status: int, body: bytes) -> bytes:
    more = TIMING if status == 200 else b"Retry-After: 3\r\n"
    return b"HTTP/1.1 %d Any\r\nContent-Length: %d\r\n%s\r\n" % (status, len(body), more) + body


async def main(delay_s: float, status: int, idle_s: float) -> None:
    """Serves until it is ended."""
    server = await asyncio.start_server(Answering(delay_s, status, idle_s).serve, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def answering(delay_s: float = 0.05, status: int = 200, idle_s: float = 60.0) -> Iterator[str]:
    """The URL of a stand-in that answers so; it closes a connection on which nothing comes for so long."""
    root = str(Path(__file__).resolve().parents[2])
    process = subprocess.Popen(
        [sys.executable, __file__, str(delay_s), str(status), str(idle_s)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
    )
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait()


def seen(url: str) -> dict[str, Any]:
    """What a stand-in saw so far."""
    with urlopen(url) as response:
        document: dict[str, Any] = json.load(response)
    return document


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
