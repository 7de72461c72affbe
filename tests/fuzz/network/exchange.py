"""Raw bytes to the cluster and what comes back, read strictly: a client library would not send half of them."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

ANSWER_WITHIN_S: Final = 40.0  # the cluster's own deadline is 25 s
LONGEST_ANSWER: Final = 4 << 20  # bytes
PIECE: Final = 65_536
MEDIA_TYPE: Final = "application/vnd.amser.v1"
PROBLEM_TYPE: Final = "application/problem+json"


class Closed(Exception):  # noqa: N818 - an error by its base class
    """The connection ended before an answer was complete."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Attributes:
    status: of HTTP.
    headers: names in lower case.
    body: without its framing.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    def document(self) -> Any:
        """The JSON in it; None where there is none."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None


class Connection:
    """A socket to the cluster. A context manager.

    Args:
        address: of the cluster.
        timeout_s: for each piece.
        source: the address to come from.
    """

    def __init__(self, address: tuple[str, int], timeout_s: float = ANSWER_WITHIN_S, source: str = "127.0.0.1") -> None:
        self.socket = socket.create_connection(address, timeout_s, (source, 0))
        self._read = b""

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Sends all of it. Raises Closed where the cluster has had enough; it may have answered before."""
        try:
            self.socket.sendall(data)
        except (ConnectionError, BrokenPipeError) as error:
            raise Closed(str(error)) from error

    def ask(self, data: bytes, method: str = "GET") -> Answer:
        """Sends a request and reads its answer, also where the cluster does not want all of the request."""
        with suppress(Closed):
            self.send(data)
        return self.answer(method)

    def answer(self, method: str = "GET") -> Answer:
        """The next answer.

        Raises:
            Closed: none came, or half of one.
            TimeoutError: nothing came for too long.
        """
        head = self._until(b"\r\n\r\n")
        first, *lines = head.split(b"\r\n")
        parts = first.split(b" ", 2)
        if len(parts) < 2 or not parts[0].startswith(b"HTTP/1.") or not parts[1].isdigit():
            raise Closed(f"no HTTP: {first[:80]!r}")
        pairs = (line.partition(b":") for line in lines)
        headers = {name.strip().lower().decode("latin-1"): value.strip().decode("latin-1") for name, _, value in pairs}
        status = int(parts[1])
        if 100 <= status < 200:
            return self.answer(method)
        if method == "HEAD" or status in (204, 304):
            return Answer(status, headers, b"")
        if headers.get("transfer-encoding", "").lower() == "chunked":
            return Answer(status, headers, self._chunks())
        if "content-length" in headers:
            return Answer(status, headers, self._exactly(int(headers["content-length"])))
        return Answer(status, headers, self.rest())

    def rest(self) -> bytes:
        """Everything until the cluster closes the connection."""
        with suppress(Closed):
            while len(self._read) < LONGEST_ANSWER:
                self._more()
        rest, self._read = self._read, b""
        return rest

    def is_closed(self, within_s: float) -> bool:
        """Whether the cluster has closed it, or does within so many seconds."""
        self.socket.settimeout(within_s)
        try:
            while True:
                self._more()
        except Closed:
            return True
        except TimeoutError:
            return False

    def hang_up(self) -> None:
        """Ends it with a reset, as a phone does that leaves its network."""
        with suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self._until(b"\r\n").split(b";")[0], 16):
            body += self._exactly(size)
            self._exactly(2)
        self._until(b"\r\n")
        return body

    def _until(self, end: bytes) -> bytes:
        while end not in self._read:
            self._more()
        found, _, self._read = self._read.partition(end)
        return found

    def _exactly(self, size: int) -> bytes:
        while len(self._read) < size:
            self._more()
        found, self._read = self._read[:size], self._read[size:]
        return found

    def _more(self) -> None:
        try:
            piece = self.socket.recv(PIECE)
        except ConnectionError as error:
            raise Closed(str(error)) from error
        if not piece:
            raise Closed("the cluster closed the connection")
        if len(self._read) > LONGEST_ANSWER:
            raise Closed("the answer does not end")
        self._read += piece


def request(
    method: str, target: str | bytes, headers: Mapping[str, str | bytes] | None = None, body: bytes | None = None
) -> bytes:
    """A request as bytes; nothing in it is checked or escaped."""
    raw = target.encode() if isinstance(target, str) else target
    lines = [method.encode() + b" " + raw + b" HTTP/1.1", b"Host: 127.0.0.1"]
    fields = dict(headers or {})
    if body is not None:
        fields.setdefault("Content-Length", str(len(body)))
    for name, value in fields.items():
        written = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
        lines.append(name.encode("latin-1") + b": " + written)
    return b"\r\n".join(lines) + b"\r\n\r\n" + (body or b"")


def post(body: bytes, target: str = "/v1/emotion", media_type: str = MEDIA_TYPE, **headers: str) -> bytes:
    """A request with an utterance; its answer is computed anew."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return request("POST", target, {"Content-Type": media_type, "Cache-Control": "no-store", **fields}, body)
