"""Devices that each speak from a spool of their own while something breaks, and the count of what became of it all.

Spool, delivery and device are the real ones (`amser.client`); only the pauses between attempts are shorter.
"""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Final
from uuid import UUID

from recordings import Waveform, speakers, waveform_of

from amser.client.delivery import Delivery
from amser.client.device import Device, DeviceSettings
from amser.client.exchange.failures import Refused, SendFailed
from amser.client.spool import Spool
from amser.client.spool_view import Result
from amser.features import SAMPLE_RATE

DEVICES: Final = 12
UTTERANCES: Final = 2  # of each device
ANSWER_WITHIN_S: Final = 60.0  # longer than the proxy's own limit: a request that hangs is told from a slow one
HANGS: Final = "no answer at all"
CLOSED: Final = "closed connection"
NO_REASON: Final = "without a reason"
# What the application says of itself: an RFC 9457 problem with a reason, which a device may try again
CLEAR: Final = re.compile(rf"(429|503|504) (?!{NO_REASON})")
POLL_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of a drill.

    Attributes:
        sent: utterances that were spoken.
        results: of the spools, each with the bytes of the envelope that it answers.
        errors: exchanges that brought no result, by what the device was told.
        seconds: from the first request to the last result.
    """

    sent: Sequence[UUID]
    results: Sequence[tuple[Result, int]]
    errors: Counter[str]
    seconds: float

    @property
    def degraded(self) -> Counter[tuple[str, ...]]:
        """What answers had to do without."""
        left_out = (result.answer.degraded for result, _ in self.results if result.answer is not None)
        return Counter(each for each in left_out if each)

    @property
    def resends(self) -> int:
        """Requests beyond the first of each utterance, as far as the cluster may have seen them."""
        return sum(result.attempts - 1 for result, _ in self.results)

    def assert_each_has_one_answer(self) -> None:
        """Every utterance has one result, which is an answer, and the answer is its own."""
        assert Counter(result.utterance_id for result, _ in self.results) == Counter(self.sent)
        answers = [(result.answer, size) for result, size in self.results]
        assert [result.failure for result, _ in self.results if result.failure] == []
        assert all(answer is not None and answer.raw["input"]["bytes"] == size for answer, size in answers)
        assert self.degraded.keys() <= {("text",), ("asr", "text")}
        # One that the cluster gave twice would be read by the next request on the same connection
        assert len({answer.raw["request_id"] for answer, _ in answers if answer is not None}) == len(self.sent)

    def __str__(self) -> str:
        left_out = ", ".join(f"{'+'.join(names)} {count}" for names, count in sorted(self.degraded.items()))
        errors = ", ".join(f"{reason} {count}" for reason, count in sorted(self.errors.items()))
        return (
            f"{len(self.results)} of {len(self.sent)} answered in {self.seconds:.1f} s; degraded: {left_out or 'none'};"
            f" errors: {errors or 'none'}; resends: {self.resends}"
        )


@dataclass(slots=True)
class _Speaker:
    """One device: its spool, what it said, and what it was told."""

    spool: Spool
    sizes: dict[UUID, int] = field(default_factory=dict)
    answered: int = 0
    errors: Counter[str] = field(default_factory=Counter)


class Fleet:
    """A context manager: the devices speak from entering it on, all at once, until their spools are empty.

    Args:
        url: of the cluster, or of the link to it.
        folder: for the spools.
        utterances: of each device.
    """

    def __init__(self, url: str, folder: Path, utterances: int = UTTERANCES) -> None:
        self._settings = DeviceSettings(url=url, answer_timeout_s=ANSWER_WITHIN_S, language="en")
        self._stop = threading.Event()
        self._speakers = [_Speaker(Spool(folder / f"{number}.spool")) for number in range(DEVICES)]
        encoder = Device(self._settings)
        for number, clip in enumerate(clips(utterances * DEVICES)):
            speaker = self._speakers[number % DEVICES]
            utterance = encoder.encode(clip, datetime.now(UTC))
            speaker.spool.put(utterance, datetime.now(UTC))
            speaker.sizes[utterance.utterance_id] = len(utterance.envelope)
        self._threads = [threading.Thread(target=self._speak, args=(each,), daemon=True) for each in self._speakers]

    def __enter__(self) -> Fleet:
        self._started = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(ANSWER_WITHIN_S)
        for speaker in self._speakers:
            speaker.spool.close()

    @property
    def size(self) -> int:
        """Utterances in all."""
        return sum(len(speaker.sizes) for speaker in self._speakers)

    @property
    def answered(self) -> int:
        """Utterances that have a result by now."""
        return sum(speaker.answered for speaker in self._speakers)

    def wait_for(self, results: int, within_s: float = 120) -> None:
        """Returns once so many utterances have a result.

        Raises:
            AssertionError: they have not in time.
        """
        deadline = time.monotonic() + within_s
        while self.answered < results:
            assert time.monotonic() < deadline, f"{self.answered} of {results} results within {within_s:g} s"
            time.sleep(POLL_S)

    def tally(self, within_s: float = 180) -> Tally:
        """What became of everything, once every utterance has a result."""
        self.wait_for(self.size, within_s)
        seconds = time.monotonic() - self._started
        for thread in self._threads:
            thread.join(POLL_S)
        results = [
            (result, speaker.sizes[result.utterance_id])
            for speaker in self._speakers
            for result in speaker.spool.results()
        ]
        sent = [utterance_id for speaker in self._speakers for utterance_id in speaker.sizes]
        return Tally(sent, results, sum((speaker.errors for speaker in self._speakers), Counter()), seconds)

    def _speak(self, speaker: _Speaker) -> None:
        with Delivery(self._settings, stop=self._stop) as sending:
            told: SendFailed | None = None
            while not self._stop.is_set() and (wait_s := sending.wait_s(speaker.spool)) is not None:
                if self._stop.wait(wait_s):
                    return
                for _ in sending.batch(speaker.spool):
                    speaker.answered += 1
                if sending.trouble is not None and sending.trouble is not told:  # a batch ends with the first failure
                    told = sending.trouble
                    speaker.errors[reason(told)] += 1


def reason(error: SendFailed) -> str:
    """What a device was told: the status with what the problem says, or how the connection ended."""
    if isinstance(error, Refused):
        return f"{error.status} {error.detail or NO_REASON}"
    return {"Unreachable": CLOSED, "AnswerTimedOut": HANGS}.get(type(error).__name__, str(error))


def reasonless(tally: Tally, *allowed: str) -> Counter[str]:
    """Errors that say nothing a device could act on, beside those that are allowed."""
    return Counter({what: n for what, n in tally.errors.items() if not CLEAR.match(what) and what not in allowed})


def clips(count: int) -> list[Waveform]:
    """Pieces of one to two seconds, of twelve speakers."""
    spoken = [waveform_of(row["path"]) for row in speakers(DEVICES)]
    lengths = [1 + (number * 7 % 11) / 10 for number in range(count)]
    starts = [number // DEVICES * SAMPLE_RATE // 2 for number in range(count)]
    return [
        spoken[number % len(spoken)][start : start + int(seconds * SAMPLE_RATE)]
        for number, (start, seconds) in enumerate(zip(starts, lengths, strict=True))
    ]
