"""Devices that keep talking while something breaks: an open loop of `amser.client` devices.

Half of them try again for a minute, with the pauses of `amser.client`; the others are bare clients that send once and
take what comes. A share of the answered sends the same utterance again, as a device does that lost the answer: it
should get the same one.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from queue import Empty, LifoQueue
from types import TracebackType
from typing import Final
from uuid import uuid4

import numpy as np

from amser.client.device import Device, DeviceSettings
from amser.client.exchange.answer import Answer
from amser.client.exchange.failures import Refused, SendFailed
from amser.client.exchange.utterances import Utterance
from load_tests.fleet.payloads import Payloads, body, prepare, utterances
from load_tests.report.summary import percentile

CODEC: Final = ("klt", "standard")
MOST_AT_ONCE: Final = 96  # threads: far above what waits while a gateway is replaced
PATIENT_ATTEMPTS: Final = 100  # within the minute after which a device gives up, or leaves it to its spool
AGAIN: Final = 4  # every so many answered utterances are sent again
AGAIN_AFTER_S: Final = 0.5
ANSWERED: Final = "answered"
MIXED_UP: Final = "another's answer"


class Again(StrEnum):
    """What an utterance gets that is sent again after its answer."""

    SAME = "same"  # the first answer
    COMPUTED = "computed"  # another one that says the same, or leaves something out
    CONTRADICTS = "contradicts"  # other words, or another emotion


@dataclass(frozen=True, slots=True)
class Exchange:
    """What became of one utterance.

    Attributes:
        scheduled_s, done_s: by `time.monotonic`.
        bare: whether the client sends once, whatever comes.
        outcome: `answered`, `another's answer`, or what the client was told at last.
        attempts: requests that it took; 0 where nobody counted.
        degraded: what the answer left out.
        again: what the same utterance got that was sent again; None where it was not, or was refused then.
    """

    scheduled_s: float
    done_s: float
    bare: bool
    outcome: str
    attempts: int
    degraded: tuple[str, ...]
    again: Again | None

    @property
    def seconds(self) -> float:
        """Until the answer, from the scheduled time: a late generator hides nothing."""
        return self.done_s - self.scheduled_s


class OpenLoop:
    """A context manager: Poisson arrivals from entering on, until it is left; then the outstanding answers are awaited.

    Args:
        url: of the cluster.
        rate: utterances a second.
        seed: of the arrivals.
        payloads: what is said; None encodes the sample conversation.
    """

    def __init__(self, url: str, rate: float, seed: int = 0, payloads: Payloads | None = None) -> None:
        self._payloads = payloads or conversation()
        attempts = {True: 1, False: PATIENT_ATTEMPTS}
        self._settings = {bare: DeviceSettings(url=url, attempts=most) for bare, most in attempts.items()}
        self._rate, self._random = rate, np.random.default_rng(seed)
        self._stop = threading.Event()
        self._idle: dict[bool, LifoQueue[Device]] = {True: LifoQueue(), False: LifoQueue()}
        self._exchanges: list[Exchange] = []
        self._open = ExitStack()
        self._pool = ThreadPoolExecutor(MOST_AT_ONCE)
        self._dispatcher = threading.Thread(target=self._dispatch, daemon=True)
        self.sent = 0

    def __enter__(self) -> OpenLoop:
        self._dispatcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._dispatcher.join()
        self._pool.shutdown(wait=error is None, cancel_futures=error is not None)
        self._open.close()

    @property
    def exchanges(self) -> Sequence[Exchange]:
        """Those that are done, in the order of their ends; all of them once the context was left."""
        return self._exchanges

    def _dispatch(self) -> None:
        due = time.monotonic()
        while True:
            due += self._random.exponential(1 / self._rate)
            if self._stop.wait(max(0.0, due - time.monotonic())):
                return
            self._pool.submit(self._say, self.sent, due)
            self.sent += 1

    def _say(self, number: int, scheduled_s: float) -> None:
        bare = bool(number % 2)
        envelope = self._payloads.envelope(CODEC, number // 2)
        utterance_id = uuid4()
        packed = body(envelope, f"drill-{number}", utterance_id, datetime.now(UTC))
        utterance = Utterance(packed, utterance_id, envelope.seconds, 0.0)
        with self._device(bare) as device:
            try:
                answer = device.send(utterance)
            except SendFailed as error:
                done = Exchange(scheduled_s, time.monotonic(), bare, reason(error), 0, (), None)
            else:
                done_s = time.monotonic()
                again = None
                if number % AGAIN == 0 and not self._stop.wait(AGAIN_AFTER_S):
                    again = _again(device, utterance, answer)
                outcome = ANSWERED if answer.raw["input"]["bytes"] == len(packed) else MIXED_UP
                done = Exchange(scheduled_s, done_s, bare, outcome, answer.attempts, answer.degraded, again)
        self._exchanges.append(done)

    @contextmanager
    def _device(self, bare: bool) -> Iterator[Device]:
        """One with a connection that is kept, where there is one."""
        try:
            device = self._idle[bare].get_nowait()
        except Empty:
            device = self._open.enter_context(Device(self._settings[bare]))
        yield device
        self._idle[bare].put(device)


def _again(device: Device, utterance: Utterance, first: Answer) -> Again | None:
    try:
        second = device.send(utterance)
    except SendFailed:
        return None
    if second.raw["request_id"] == first.raw["request_id"]:
        return Again.SAME
    both_whole = not first.degraded and not second.degraded
    says_the_same = (second.text, second.emotion) == (first.text, first.emotion)
    return Again.COMPUTED if says_the_same or not both_whole else Again.CONTRADICTS


def conversation() -> Payloads:
    """The turns of the sample conversation, as devices send them by default."""
    return prepare(utterances(), [CODEC], "en")


def reason(error: SendFailed) -> str:
    """What a client was told: status and kind of problem, or how the connection ended."""
    return f"{error.status} {error.title}" if isinstance(error, Refused) else type(error).__name__


def p99_ms(exchanges: Sequence[Exchange]) -> float:
    """Of those that were answered; NaN where none was."""
    seconds = [each.seconds for each in exchanges if each.outcome == ANSWERED]
    return float(1000 * percentile(seconds, 99.0))


def outcomes(exchanges: Sequence[Exchange]) -> dict[str, int]:
    """How many ended in each way, beside those that were answered."""
    return dict(Counter(each.outcome for each in exchanges if each.outcome != ANSWERED).most_common())
