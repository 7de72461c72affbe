"""Admission control: which requests are accepted, and how much of the pipeline runs for each.

The gateway knows which accepted requests have no answer yet, and how fast such work was finished of late: that predicts
how long the next request takes (Little's law, L = λ W, with L and λ measured in work). A request that would miss its
deadline is answered without its text branch, without its words, or refused at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil, exp
from typing import Final

from deployments.pipeline import Effort

# What every request costs beside its speech, in seconds of speech: 120 ms of CPU against 17 ms a second of it
FIXED_WORK: Final = 7.0
SHARE_WITHOUT_TEXT: Final = 0.8  # of the work; the text encoder does the rest
MEMORY_S: Final = 8.0  # of busy time, after which what was measured counts a third
KEPT: Final = 0.98  # share of the requests that is to be quicker than predicted
MARGIN_GAIN: Final = 0.1  # by which a miss widens the margin
FIRST_MARGIN, LEAST_MARGIN, MOST_MARGIN = 1.3, 1.0, 4.0
LONGEST_RETRY_S: Final = 60


class Overloaded(Exception):  # noqa: N818 - an error by its base class
    """No answer could be ready in time.

    Attributes:
        retry_after_s: when one could, if no other request came in between.
    """

    def __init__(self, retry_after_s: int) -> None:
        super().__init__("the cluster cannot answer in time")
        self.retry_after_s = retry_after_s


class Lane:
    """Requests that wait for the same stages: how much work is in progress, and how fast it gets done.

    Args:
        clock: seconds, never going back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._now = clock()
        # The work of each request in progress. Not their sum: floats that are added and subtracted seldom end at 0
        self._in_progress: list[float] = []
        self._done = self._busy = 0.0  # work, and the seconds that it took, fading with MEMORY_S
        self._margin = FIRST_MARGIN

    def expected_s(self, work: float) -> float:
        """Seconds that so much work rarely exceeds if it is accepted now; 0 as long as nothing was measured."""
        if self._is_long_idle():
            return 0.0  # a stage that stood still once must not lead to refusals for good
        return self._margin * self._mean_s(work)

    def room_in_s(self, work: float, within_s: float) -> float:
        """Seconds until so much work would be done `within_s`, if no other request came in."""
        return max(0.0, self._mean_s(work) - within_s / self._margin)

    @contextmanager
    def occupied(self, work: float) -> Iterator[None]:
        """The work is in progress. The time it took is learnt from, unless it failed."""
        self._pass_time()
        mean_s, started = self._mean_s(work), self._now
        self._in_progress.append(work)
        try:
            yield
        except BaseException:
            self._pass_time()
            self._in_progress.remove(work)
            raise
        self._pass_time()
        self._in_progress.remove(work)
        self._done += work
        if mean_s:
            self._learn(late=self._now - started > self._margin * mean_s)

    def _mean_s(self, work: float) -> float:
        return (sum(self._in_progress) + work) * self._busy / self._done if self._done else 0.0

    def _pass_time(self) -> None:
        """Only busy time counts: an idle cluster is not a slow one."""
        now = self._clock()
        if self._in_progress:
            elapsed = now - self._now
            kept = exp(-elapsed / MEMORY_S)
            self._done *= kept
            self._busy = self._busy * kept + elapsed
        elif self._is_long_idle():
            self._done = self._busy = 0.0
        self._now = now

    def _is_long_idle(self) -> bool:
        return not self._in_progress and self._clock() - self._now > MEMORY_S

    def _learn(self, late: bool) -> None:
        """Moves the margin to where the share KEPT is quicker (Robbins and Monro 1951)."""
        self._margin *= 1 + MARGIN_GAIN * (KEPT if late else KEPT - 1)
        self._margin = min(MOST_MARGIN, max(LEAST_MARGIN, self._margin))


@dataclass(frozen=True, slots=True)
class Admitted:
    """An accepted request: run it while `lane.occupied(work)`."""

    effort: Effort
    lane: Lane
    work: float


class Admission:
    """Accepts or refuses requests. One for each replica of the gateway, since each learns from its own requests.

    Args:
        degrade: whether less than the whole pipeline is an answer.
        clock: seconds, never going back.
    """

    def __init__(self, degrade: bool = True, clock: Callable[[], float] = time.monotonic) -> None:
        self._degrade = degrade
        self._words, self._voice = Lane(clock), Lane(clock)

    def admit(self, speech_s: float, within_s: float, strict: bool = False) -> Admitted:
        """The most that can be answered in time.

        Args:
            speech_s: seconds of speech.
            within_s: seconds that the answer may take.
            strict: the whole pipeline or nothing.

        Raises:
            Overloaded: not even the least can.
        """
        work = FIXED_WORK + speech_s
        choices = [
            Admitted(Effort.WHOLE, self._words, work),
            Admitted(Effort.WORDS, self._words, SHARE_WITHOUT_TEXT * work),
            Admitted(Effort.VOICE, self._voice, work),
        ][: None if self._degrade and not strict else 1]
        for choice in choices:
            if choice.lane.expected_s(choice.work) <= within_s:
                return choice
        soonest = min(choice.lane.room_in_s(choice.work, within_s) for choice in choices)
        raise Overloaded(min(LONGEST_RETRY_S, max(1, ceil(soonest))))
