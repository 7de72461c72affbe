"""One utterance from a device to its sample: good clients, bad ones, and links that break.

A bad client's outcome is `ok` where the cluster answers as it should: 400 to broken bytes, 413 to too many of them.
"""

from __future__ import annotations

import errno
import json
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http import HTTPStatus
from http.client import responses as PHRASES  # noqa: N812 - a constant of that module
from typing import Any, Final
from uuid import UUID, uuid4

import gevent
from geventhttpclient.response import HTTPConnectionClosed, HTTPParseError, HTTPSocketResponse

from amser.client.credentials import bearer
from amser.client.device import DeviceSettings
from amser.client.exchange.utterances import ROUTE, UTTERANCE_HEADER
from amser.wire import MEDIA_TYPE, Limits
from load_tests.fleet.connection import Connection, KeptConnections, Target
from load_tests.fleet.members import Member
from load_tests.fleet.payloads import Payloads, body
from load_tests.fleet.scenario import Misbehaviour, Scenario
from load_tests.report.record import OK, Sample
from load_tests.report.summary import GOOD

DEFAULTS: Final = DeviceSettings()
TRICKLE_S: Final = 12.0  # a slow client needs for its body; beyond 10 s one has to keep a pace (deployments/intake)
TRICKLED_PIECES: Final = 24
VANISHES_AFTER_S: Final = 0.1  # long enough for the request to be read
OVERSIZED: Final = Limits().max_bytes + 1  # bytes
REFUSED_WITHIN_S: Final = 0.5  # by a cluster that reads the header first; a client that is too large waits for it
FLOOD: Final = 16  # utterances that a flooding device sends at once
OTHER_LANGUAGE, NO_LANGUAGE = "de", "xx"  # that nobody speaks in the sample, and that nobody speaks
NO_DEADLINE: Final = "soon"
KEPT_BY_BROKEN_BYTES: Final = 5  # of the envelope, magic and version: what is broken after them is a 400, not a 415

_EXPECTED: Final[Mapping[str, frozenset[int]]] = {
    GOOD: frozenset({200}),
    Misbehaviour.BROKEN: frozenset({400}),
    Misbehaviour.SLOW: frozenset({200, 408}),
    Misbehaviour.OVERSIZED: frozenset({413}),
    Misbehaviour.MISLEADING: frozenset({200, 400, 422}),
    Misbehaviour.FLOODING: frozenset({200, 429}),
}
_NETWORK: Final[Mapping[int | None, str]] = {
    errno.ECONNREFUSED: "connection refused",
    errno.EMFILE: "too many open files",
    errno.ENETUNREACH: "network unreachable",
    errno.EHOSTUNREACH: "host unreachable",
    errno.EADDRNOTAVAIL: "no free local port",
}


@dataclass(frozen=True, slots=True)
class Arrival:
    """What the schedule asks of a device.

    Attributes:
        scheduled_s: since the start of the schedule.
        member: who speaks.
        turn: how many utterances the device said before.
        cuts: attempts of this utterance that the link breaks.
    """

    scheduled_s: float
    member: Member
    turn: int
    cuts: int = 0


class Clients:
    """All devices of a process, with their connections.

    Args:
        scenario: deadline, strictness and link.
        payloads: what is said.
        target: the cluster.
        kept: connections of earlier utterances.
        answer_timeout_s: for everything from opening the connection to the last byte of the answer.
    """

    def __init__(
        self,
        scenario: Scenario,
        payloads: Payloads,
        target: Target,
        kept: KeptConnections,
        answer_timeout_s: float = DEFAULTS.answer_timeout_s,
    ) -> None:
        self._link = scenario.link
        self._addresses = scenario.addresses
        self._payloads = payloads
        self._target = target
        self._kept = kept
        self._timeout_s = answer_timeout_s
        lines = [
            f"POST {target.path}{ROUTE} HTTP/1.1",
            f"Host: {target.host}",
            f"Content-Type: {MEDIA_TYPE}",
            *([f"Amser-Deadline-Ms: {scenario.deadline_ms}"] if scenario.deadline_ms else []),
            *(f"{name}: {value}" for name, value in bearer(target.key).items()),
            *(["Prefer: handling=strict"] if scenario.strict else []),
        ]
        self._header = "\r\n".join(lines)

    def send(self, arrival: Arrival, start_s: float, began_at: float) -> Sample:
        """Sends the next utterance of a device and waits for what becomes of it. Raises nothing.

        Args:
            arrival: who and when.
            start_s: of the schedule, by `time.monotonic`.
            began_at: the same, by `time.time`.
        """
        flood = FLOOD - 1 if arrival.member.behaviour == Misbehaviour.FLOODING else 0
        others = [gevent.spawn(self._send, arrival, start_s, began_at) for _ in range(flood)]
        sample = self._send(arrival, start_s, began_at)
        gevent.joinall(others)
        return next((each.value for each in others if each.value and not each.value.ok), sample)

    def _send(self, arrival: Arrival, start_s: float, began_at: float) -> Sample:
        member = arrival.member
        envelope = self._payloads.envelope(member.codec, member.place + arrival.turn)
        said_at = began_at + arrival.scheduled_s - envelope.seconds + member.clock_error_s
        utterance_id = uuid4()
        if member.behaviour == Misbehaviour.MISLEADING:
            envelope = replace(envelope, language=(OTHER_LANGUAGE, NO_LANGUAGE, envelope.language)[arrival.turn % 3])
        content = body(envelope, member.device_id, utterance_id, datetime.fromtimestamp(said_at, UTC))
        content = _corrupted(content, member.behaviour, arrival.turn)
        attempt = _Attempt(self, member, self._header_of(arrival, utterance_id, len(content)), content)
        sent_s = time.monotonic()
        try:
            with gevent.Timeout(self._timeout_s):
                for _ in range(arrival.cuts):
                    attempt.cut()
                    gevent.sleep(self._link.resend_after_s)
                attempt.run()
        except gevent.Timeout:
            attempt.outcome = "timeout"
        except HTTPConnectionClosed:
            attempt.outcome = "connection lost"
        except HTTPParseError:
            attempt.outcome = "no HTTP"
        except TimeoutError:  # of the connection: gevent.Timeout is none of these
            attempt.outcome = "connect timeout"
        except OSError as error:
            attempt.outcome = _NETWORK.get(error.errno, "connection lost")
        finally:
            attempt.end()
        return attempt.sample(arrival.scheduled_s, sent_s - start_s, time.monotonic() - start_s, envelope.seconds)

    def _header_of(self, arrival: Arrival, utterance_id: UUID, size: int) -> bytes:
        member = arrival.member
        lines = [self._header, f"{UTTERANCE_HEADER}: {utterance_id}", f"Content-Length: {size}"]
        if self._addresses:
            lines.append(f"X-Forwarded-For: {member.address}")
        if member.behaviour == Misbehaviour.MISLEADING and arrival.turn % 3 == 2:
            lines.append(f"Amser-Deadline-Ms: {NO_DEADLINE}")
        return "\r\n".join([*lines, "", ""]).encode()

    def open(self) -> Connection:
        """A new connection. Raises OSError."""
        return Connection(self._target, min(DEFAULTS.connect_timeout_s, self._timeout_s))

    def take(self, member: Member) -> Connection | None:
        """The one that the device kept."""
        return self._kept.take(member.number)

    def keep(self, member: Member, connection: Connection) -> None:
        """For its next utterance."""
        self._kept.keep(member.number, connection)


class _Attempt:
    """An utterance on its way: which connection it has, and what has become of it so far."""

    __slots__ = (
        "_body",
        "_clients",
        "_connection",
        "_content",
        "_header",
        "_is_cut_short",
        "_member",
        "_response",
        "_sent",
        "outcome",
    )

    def __init__(self, clients: Clients, member: Member, header: bytes, content: bytes) -> None:
        self._clients = clients
        self._member = member
        self._header = header
        self._content = content
        self._connection: Connection | None = None
        self._response: HTTPSocketResponse | None = None
        self._body = b""
        self._sent = 0  # bytes of the body
        self._is_cut_short = False  # answered before all of it was sent: what follows would be read as the rest of it
        self.outcome = ""

    def cut(self) -> None:
        """The link breaks in the middle of the body."""
        connection = self._connection = self._clients.take(self._member) or self._clients.open()
        half = self._content[: len(self._content) // 2]
        try:
            connection.send(self._header + half)
        except OSError:  # the cluster had closed a kept connection: broken either way
            half = b""
        connection.close()
        self._connection = None
        self._sent += len(half)

    def run(self) -> None:
        """Sends and receives; once more on a new connection where a kept one turns out to be closed."""
        connection = self._connection = self._clients.take(self._member) or self._clients.open()
        try:
            self._exchange(connection)
        except (HTTPConnectionClosed, ConnectionError):
            if not connection.is_used:
                raise
            connection.close()
            self._exchange(self._renewed())

    def end(self) -> None:
        """Keeps the connection, where it can be used again."""
        if self._connection is None:
            return
        if self._response is not None and not self._response.should_close() and not self._is_cut_short:
            self._clients.keep(self._member, self._connection)
        else:
            self._connection.close()

    def sample(self, scheduled_s: float, sent_s: float, done_s: float, speech_s: float) -> Sample:
        """What became of it; `bytes_up` and `bytes_down` are those of the bodies."""
        status, retry_after_s = 0, None
        degraded: tuple[str, ...] = ()
        timings_ms: Mapping[str, float] = {}
        if self._response is not None:
            status = self._response.status_code
            answer = _document(self._body) if status == HTTPStatus.OK else {}
            self.outcome = _outcome(status, self._member.behaviour, answer)
            degraded = tuple(map(str, answer.get("degraded") or ()))
            retry_after_s = _seconds(self._response.get("retry-after"))
            timings_ms = _timings_ms(self._response.get("server-timing"))
        return Sample(
            scheduled_s,
            sent_s,
            done_s,
            status,
            self.outcome,
            self._member.number,
            self._member.hardware,
            self._member.radio,
            self._member.behaviour,
            speech_s,
            self._sent,
            len(self._body),
            0.0,
            degraded,
            retry_after_s,
            timings_ms,
        )

    def _renewed(self) -> Connection:
        self._connection = None  # so that a connection that cannot be opened is not closed twice
        self._connection = self._clients.open()
        return self._connection

    def _exchange(self, connection: Connection) -> None:
        behaviour = self._member.behaviour
        if behaviour == Misbehaviour.SLOW:
            self._trickle(connection)
        elif behaviour == Misbehaviour.OVERSIZED:
            self._overflow(connection)
        else:
            connection.send(self._header + self._content)
            self._sent += len(self._content)
        if behaviour == Misbehaviour.VANISHING:
            gevent.sleep(VANISHES_AFTER_S)
            self.outcome = OK
            return
        self._response, self._body = connection.receive()

    def _trickle(self, connection: Connection) -> None:
        connection.send(self._header)
        size = -(-len(self._content) // TRICKLED_PIECES)
        for start in range(0, len(self._content), size):
            if connection.answers_within(TRICKLE_S / TRICKLED_PIECES):
                self._is_cut_short = True
                return
            piece = self._content[start : start + size]
            connection.send(piece)
            self._sent += len(piece)

    def _overflow(self, connection: Connection) -> None:
        """The cluster may refuse by `Content-Length` alone, and what it leaves unread would reset the connection."""
        connection.send(self._header)
        if connection.answers_within(REFUSED_WITHIN_S):
            self._is_cut_short = True
            return
        try:
            connection.send(self._content)
            self._sent += len(self._content)
        except ConnectionError:
            connection.is_used = False  # what is left to do is to read why; sending again would end alike


def _corrupted(content: bytes, behaviour: str, turn: int) -> bytes:
    """What a bad client makes of an envelope; others leave it as it is."""
    if behaviour == Misbehaviour.OVERSIZED:
        return content.ljust(OVERSIZED, b"\0")
    if behaviour != Misbehaviour.BROKEN:
        return content
    kept = content[:KEPT_BY_BROKEN_BYTES]
    match turn % 3:
        case 0:
            return kept + random.randbytes(len(content) - len(kept))
        case 1:
            return content[: random.randrange(len(kept), len(content))]
        case _:
            at = random.randrange(len(kept), len(content))
            return content[:at] + bytes([content[at] ^ (1 << random.randrange(8))]) + content[at + 1 :]


def _document(content: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(content)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _outcome(status: int, behaviour: str, answer: Mapping[str, Any]) -> str:
    if status not in _EXPECTED[behaviour]:
        if status == HTTPStatus.OK:
            return f"200 to a client that is {behaviour}"
        return f"{status} {PHRASES.get(status, 'unknown status')}"
    if status == HTTPStatus.OK and not answer.get("emotion") and answer.get("speech") != "none":
        return "200 without an emotion"
    return OK


def _seconds(text: str | list[str] | None) -> float | None:
    """Of `Retry-After`, in the form that the cluster uses."""
    return float(text) if isinstance(text, str) and text.strip().isdecimal() else None


def _timings_ms(header: str | list[str] | None) -> dict[str, float]:
    """`asr;dur=190.9, total;dur=290.1` (W3C Server Timing). What is written in another way is left out."""
    timings: dict[str, float] = {}
    for part in header.split(",") if isinstance(header, str) else ():
        name, _, duration = part.partition(";dur=")
        try:
            timings[name.strip()] = float(duration)
        except ValueError:
            continue
    return timings
