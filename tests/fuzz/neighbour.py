"""A healthy client beside everything that is tried: real speech at a steady pace, from an address of its own."""

from __future__ import annotations

import statistics
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from tests.fuzz.findings import Findings
from tests.fuzz.network.exchange import Answer, Closed, Connection, request
from tests.fuzz.network.site import FULL, Utterance, is_right, learn

ADDRESS: Final = "127.0.0.2"  # clients are told apart by it; what is tried comes from 127.0.0.1
PACE_S: Final = 2.0  # between two utterances; a connection is kept for one and made anew for the next
PING_S: Final = 0.5  # between two looks at /healthz, each on a new connection
QUIET: Final = 10  # utterances before anything is tried, from which its normal comes
STALL_S: Final = 1.0  # beyond its normal
GIVES_UP_S: Final = 60.0
LONGEST_RETRY_AFTER_S: Final = 5.0


@dataclass(slots=True)
class Record:
    """Attributes:
    normal_s: the slowest of the answers while it was alone.
    waits_s: from when each utterance was due until its right answer came, refusals for want of room included.
    pings_s: of /healthz.
    wrong: answers that were not the right ones.
    degraded: answers that left something out.
    refused: for want of room, or of time; it asked again.
    lag_s: the longest that this process itself was kept waiting: a stall up to this long may be the machine's.
    """

    normal_s: float = 0.0
    waits_s: list[float] = field(default_factory=list)
    pings_s: list[float] = field(default_factory=list)
    wrong: int = 0
    degraded: int = 0
    refused: int = 0
    lag_s: float = 0.0

    @property
    def longest_stall_s(self) -> float:
        """Beyond its normal."""
        return max(0.0, max(self.waits_s, default=0.0) - self.normal_s)

    @property
    def longest_ping_s(self) -> float:
        return max(self.pings_s, default=0.0)

    @property
    def p99_s(self) -> float:
        """Of its waits."""
        return statistics.quantiles(self.waits_s, n=100)[98] if len(self.waits_s) > 1 else 0.0


class Neighbour:
    """A context manager; while it is entered, threads of its own send.

    Args:
        address: of the cluster.
        findings: where its faults go.
        at_work: called when something went wrong, for the names of what is tried at that moment.

    Attributes:
        record: of all that it saw.
    """

    def __init__(self, address: tuple[str, int], findings: Findings) -> None:
        self._address, self._findings = address, findings
        self.record = Record()
        self.at_work = ""
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._speak, self._ping, self._watch)]
        self._good: Utterance
        self._kept: Connection | None = None
        self._turn = 0

    def learn(self, data: bytes) -> None:
        """What is right and what is normal, while nothing is tried."""
        self._good = learn(self._address, data, ADDRESS)
        waits = []
        for _ in range(QUIET):
            began = time.monotonic()
            self._right_answer(began)
            waits.append(time.monotonic() - began)
        self.record.normal_s = max(waits)
        self.record.refused = self.record.degraded = 0

    def __enter__(self) -> Neighbour:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(GIVES_UP_S + 5)

    def _speak(self) -> None:
        due = time.monotonic()
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            at_work = self.at_work
            if not self._right_answer(due) and self._stop.is_set():
                return
            waited = time.monotonic() - due
            self.record.waits_s.append(waited)
            if waited - self.record.normal_s > STALL_S:
                why = f"{waited:.2f} s, normally {self.record.normal_s:.2f} s"
                self._findings.add("stall", f"the neighbour waited while {at_work} ran", why)
            due = max(due + PACE_S, time.monotonic())

    def _right_answer(self, began: float) -> bool:
        while time.monotonic() - began < GIVES_UP_S and not self._stop.is_set():
            answer = self._once()
            if answer is not None and answer.status == 200:
                document = answer.document()
                if document["degraded"]:
                    self.record.degraded += 1
                elif not is_right(document, self._good):
                    self.record.wrong += 1
                    self._findings.add("wrong", "the neighbour got another answer", str(document)[:2000])
                return True
            if answer is None or answer.status not in FULL | {504}:
                said = "closed" if answer is None else f"{answer.status} {answer.body[:300]!r}"
                self._findings.add("wrong", "the neighbour was refused", said)
            self.record.refused += 1
            asked = answer.headers.get("retry-after", "1") if answer is not None else "1"
            self._stop.wait(min(LONGEST_RETRY_AFTER_S, float(asked) if asked.isdecimal() else 1.0))
        return False

    def _once(self) -> Answer | None:
        self._turn += 1
        try:
            if self._kept is None or self._turn % 2:
                self._close()
                self._kept = Connection(self._address, GIVES_UP_S, ADDRESS)
            return self._kept.ask(self._good.request, "POST")
        except (Closed, OSError, ValueError):
            self._close()
            return None

    def _close(self) -> None:
        if self._kept is not None:
            with suppress(OSError):
                self._kept.socket.close()
        self._kept = None

    def _ping(self) -> None:
        data = request("GET", "/healthz", {"Connection": "close"})
        while not self._stop.wait(PING_S):
            at_work, began = self.at_work, time.monotonic()
            try:
                with Connection(self._address, GIVES_UP_S, ADDRESS) as connection:
                    status = connection.ask(data).status
            except (Closed, OSError, ValueError):
                status = 0
            took = time.monotonic() - began
            self.record.pings_s.append(took)
            if took > STALL_S:
                self._findings.add("stall", f"/healthz took long while {at_work} ran", f"{took:.2f} s")
            if status != 200 and not self._stop.is_set():
                self._findings.add("wrong", f"/healthz did not answer while {at_work} ran", f"status {status}")

    def _watch(self) -> None:
        """How long this process itself waits for a processor."""
        while not self._stop.is_set():
            began = time.monotonic()
            time.sleep(0.05)
            self.record.lag_s = max(self.record.lag_s, time.monotonic() - began - 0.05)
