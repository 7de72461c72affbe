"""The cluster as a target on the network sees it, and how an answer is judged."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from random import Random
from threading import Lock
from typing import Final
from urllib.parse import urlsplit

import httptools
from recordings import envelope_of, speakers, waveform_of

from amser import wire
from amser.features import SAMPLE_RATE
from tests.fuzz.findings import Findings, Verdict
from tests.fuzz.network.exchange import PROBLEM_TYPE, Answer, Closed, Connection, post
from tests.fuzz.state import State

FULL: Final = frozenset({429, 503})  # the cluster has no room: no fault, and no judgement of what was sent
UTTERANCE_S: Final = 2.0
LONGEST_LINE: Final = 65_535  # bytes of method and target that the parser takes
LEARNING: Final = 30  # attempts to get the right answer, once, before anything is tried
NO_HANDSHAKE: Final = b"Failed to open a WebSocket connection"


@dataclass(frozen=True, slots=True)
class Utterance:
    """A good request.

    Attributes:
        request: its bytes.
        text: the words of its right answer.
        emotion: of its right answer.
    """

    request: bytes
    text: str
    emotion: str


@dataclass(slots=True)
class Site:
    """Attributes:
    url: of the cluster.
    findings: where faults go.
    state: where progress goes.
    source: of randomness.
    deadline: of time.monotonic().
    """

    url: str
    findings: Findings
    state: State
    source: Random
    deadline: float
    _lock: Lock = field(default_factory=Lock)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        assert parts.port is not None
        return parts.hostname, parts.port

    @property
    def left_s(self) -> float:
        """Seconds until the target has to end."""
        return max(0.0, self.deadline - time.monotonic())

    @property
    def is_over(self) -> bool:
        return self.left_s <= 0

    def find(self, verdict: Verdict, cause: str, detail: str = "", data: bytes = b"") -> None:
        """Keeps a fault."""
        with self._lock:
            self.findings.add(verdict, cause, detail, data)

    def count(self, data: bytes, accepted: bool) -> None:
        """One more input was tried."""
        with self._lock:
            self.state.begin(data)
            self.state.end(accepted)

    def connect(self, timeout_s: float = 40.0) -> Connection:
        """A connection of its own."""
        return Connection(self.address, timeout_s)

    def ask(self, data: bytes, label: str, method: str = "GET") -> Answer | None:
        """Sends bytes on a connection of their own and judges what comes back; None where nothing did."""
        answer, why = None, ""
        try:
            with self.connect() as connection:
                answer = connection.ask(data, method)
        except TimeoutError:
            self.find("stall", f"{label}: no answer", "within 40 s", data)
        except (Closed, OSError, ValueError) as error:
            why = str(error)
        self.count(data, answer is not None and answer.status < 400)
        if answer is not None:
            self.judge(answer, label, data, method)
        elif why and is_http(data):
            self.find("refusal", f"{label}: closed without an answer", why, data)
        return answer

    def judge(self, answer: Answer, label: str, data: bytes, method: str = "GET") -> None:
        """Whether an answer is one that a client may get for a bad request."""
        said = f"{answer.status} {answer.headers.get('content-type')} {answer.body[:300]!r}"
        if answer.status == 500:
            self.find("crash", f"500: {_plain(answer.body)}", f"{label}: {said}", data)
            return
        wrong = no_problem(answer, method)
        if answer.status < 400 or not wrong:
            return
        if answer.status == 400 and answer.body.startswith(NO_HANDSHAKE):
            return  # the server's WebSocket library, before any application
        verdict: Verdict = "crash" if answer.status >= 500 else "refusal"
        if verdict == "crash" or is_http(data):
            self.find(verdict, f"{answer.status} {wrong}: {_plain(answer.body)}", f"{label}: {said}", data)

    def check(self, answer: Answer | None, good: Utterance, label: str) -> None:
        """Whether the answer to a good request is the right one, or a proper refusal for want of room."""
        if answer is None or answer.status in FULL or answer.status == 504:
            return
        document = answer.document()
        if answer.status != 200 or not isinstance(document, dict):
            said = f"{answer.status} {answer.body[:500]!r}"
            self.find("wrong", f"{label}: a good request got {answer.status}", said, good.request)
        elif not document["degraded"] and not is_right(document, good):
            self.find("wrong", f"{label}: a good request got another answer", str(document)[:2000], good.request)

    def utterance(self, number: int = 0) -> Utterance:
        """A good request, and what the cluster answers to it while it has time."""
        waveform = waveform_of(speakers(8)[number]["path"])[: int(UTTERANCE_S * SAMPLE_RATE)]
        return learn(self.address, post(wire.pack(envelope_of(waveform))))


def learn(address: tuple[str, int], data: bytes, source: str = "127.0.0.1") -> Utterance:
    """The right answer to a good request. Raises RuntimeError where none comes."""
    said = ""
    for _ in range(LEARNING):
        try:
            with Connection(address, source=source) as connection:
                answer = connection.ask(data, "POST")
            document = answer.document()
            if answer.status == 200 and not document["degraded"]:
                return Utterance(data, document["transcript"]["text"], document["emotion"])
            said = f"{answer.status} {answer.body[:200]!r}"
        except (Closed, OSError) as error:
            said = str(error)
        time.sleep(1)
    raise RuntimeError(f"the cluster does not answer a good request: {said}")


def is_right(document: dict[str, object], good: Utterance) -> bool:
    """Whether a whole answer says what it should."""
    transcript = document["transcript"]
    return isinstance(transcript, dict) and (transcript["text"], document["emotion"]) == (good.text, good.emotion)


def is_http(data: bytes) -> bool:
    """Whether the server's parser takes these bytes for a request. Others never reach the application."""
    if len(data.partition(b"\r\n")[0]) > LONGEST_LINE:
        return False
    try:
        httptools.HttpRequestParser(None).feed_data(data)
    except httptools.HttpParserUpgrade:
        return True
    except httptools.HttpParserError:
        return False
    return True


def no_problem(answer: Answer, method: str = "GET") -> str:
    """What keeps a refusal from being a problem document (RFC 9457); empty where it is one."""
    if answer.headers.get("content-type", "").partition(";")[0] != PROBLEM_TYPE:
        return f"is {answer.headers.get('content-type', 'of no type')}"
    if method == "HEAD":
        return ""
    document = answer.document()
    if not isinstance(document, dict):
        return "is no JSON object"
    if missing := {"type", "title", "status", "detail"} - document.keys():
        return f"lacks {', '.join(sorted(missing))}"
    return "" if document["status"] == answer.status else "names another status"


def _plain(body: bytes) -> str:
    """A body without what differs between requests."""
    return re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|\d+|'[^']*'", "#", body[:80].decode("latin-1"))
