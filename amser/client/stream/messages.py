"""How a stream is sent, what the cluster says on it, and what ends it (docs/stream.md)."""

from __future__ import annotations

import json
import ssl
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from websockets.exceptions import InvalidStatus

from amser.codecs.klt import DEFAULT_PROFILE

Ends = Literal["client", "cluster"]


class StreamFailed(Exception):  # noqa: N818 - an error by its base class
    """The cluster has ended the stream, or cannot be reached. `problem` is what it said, if it did."""

    def __init__(self, text: str, problem: dict[str, Any] | None = None) -> None:
        super().__init__(text)
        self.problem = problem


class Busy(Exception):  # noqa: N818 - caught by the client
    """The cluster has closed the socket and says when to come back."""

    def __init__(self, problem: dict[str, Any], again_s: float) -> None:
        super().__init__(_said(problem))
        self.problem, self.again_s = problem, again_s


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """How a stream is sent.

    Attributes:
        url: of the cluster, such as `http://localhost:8000`.
        key: of the operator's.
        format: `klt` sends about 3 kbit/s, `pcm16` 256.
        step: of klt: a name or an index, see `amser.codecs.klt`.
        ends: who says that an utterance has ended; the cluster does after a pause.
        language: that is spoken; None has it detected.
        emotions: classes that answers are restricted to.
        words: whether answers have the words one by one, with their times.
        frontend: of the log-Mel, see `amser.client.frontend`.
        give_up_s: without a connection, after which the stream fails.
        trusted: certificates of a cluster with TLS.
    """

    url: str = "http://localhost:8000"
    key: str | None = None
    format: Literal["klt", "pcm16"] = "klt"
    step: int | str = DEFAULT_PROFILE
    ends: Ends = "client"
    language: str | None = None
    emotions: str | None = None
    words: bool = False
    frontend: str = "asrfront"
    give_up_s: float = 60.0
    trusted: ssl.SSLContext | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """What the cluster says."""

    type: str  # `partial`, `final` or `failed` (an utterance that cannot be used)
    utterance: int
    text: str  # so far, or of the whole utterance
    stable: str  # the part of a partial text that does not change any more
    emotion: str | None  # None where it is not known, or nobody speaks
    confidence: float  # calibrated probability that it is right
    document: dict[str, Any]  # everything; of a final, `answer` is that of the upload route


class End(NamedTuple):
    """Of an utterance: the number of the message after it, and frames of log-Mel in it."""

    at: int
    frames: int | None


def event_of(message: dict[str, Any], text: str, stable: str, of: dict[str, Any]) -> Event:
    """An event of a message. `of` has the emotion: the message, or the answer in it."""
    return Event(
        message["type"], message["utterance"], text, stable, of.get("emotion"), of.get("confidence", 0.0), message
    )


def ended(message: dict[str, Any]) -> Exception:
    """What a message of the type `error` means: `Busy`, or the end of the stream."""
    problem = message["problem"]
    if (again_s := message.get("again_s")) is not None:
        return Busy(problem, float(again_s))
    return StreamFailed(_said(problem), problem)


def _said(problem: dict[str, Any]) -> str:
    return f"{problem['title']}: {problem['detail']}"


def given_up(error: Exception) -> StreamFailed:
    """After too long without a connection: the last thing that stood against one."""
    if isinstance(error, Busy):
        return StreamFailed(str(error), error.problem)
    return StreamFailed(f"the cluster cannot be reached: {type(error).__name__}")


def refused(error: InvalidStatus) -> StreamFailed:
    """What a refused handshake says."""
    try:
        problem = json.loads(error.response.body or b"")
        return StreamFailed(_said(problem), problem)
    except (ValueError, KeyError, TypeError):
        return StreamFailed(f"the cluster answered {error.response.status_code}")
