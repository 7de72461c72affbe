"""Who is let in, and how much of the pipeline runs for them: answers in time, or a refusal at once.

The door knows what it let in and has not yet seen leave, and how fast such work has been leaving of late: that predicts
how long the next request takes (Little's law, L = λ W, with L and λ measured in work). A request that would miss its
deadline is answered without its text branch, without its words, or not at all.
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
        retry_after_s: when one could, if nobody else came in between.
    """

    def __init__(self, retry_after_s: int) -> None:
        super().__init__("the cluster cannot answer in time")
        self.retry_after_s = retry_after_s


class Lane:
    """Requests that wait for the same stages: how much work is under way, and how fast it gets done.

    Args:
        clock: seconds, never going back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._now = clock()
        self._under_way = 0.0
        self._done = self._busy = 0.0  # work, and the seconds that it took, fading with MEMORY_S
        self._margin = FIRST_MARGIN

    def expected_s(self, work: float) -> float:
        """How long so much work will hardly ever take if it comes in now; 0 as long as nothing was measured."""
        if self._is_long_idle():
            return 0.0  # what was slow once, such as a stage that stood still, is not to keep the door shut for good
        return self._margin * self._mean_s(work)

    def room_in_s(self, work: float, within_s: float) -> float:
        """Seconds until so much work would be done `within_s`, if nothing else came in."""
        return max(0.0, self._mean_s(work) - within_s / self._margin)

    @contextmanager
    def occupied(self, work: float) -> Iterator[None]:
        """The work is under way; one that ends well is learnt from."""
        self._pass_time()
        mean_s, started = self._mean_s(work), self._now
        self._under_way += work
        try:
            yield
        except BaseException:
            self._pass_time()
            self._leave(work)
            raise
        self._pass_time()
        self._leave(work)
        self._done += work
        if mean_s:
            self._learn(late=self._now - started > self._margin * mean_s)

    def _mean_s(self, work: float) -> float:
        return (self._under_way + work) * self._busy / self._done if self._done else 0.0

    def _leave(self, work: float) -> None:
        self._under_way = max(0.0, self._under_way - work)

    def _pass_time(self) -> None:
        """Only busy time counts: an idle cluster is no slow one."""
        now = self._clock()
        if self._under_way > 0:
            elapsed = now - self._now
            kept = exp(-elapsed / MEMORY_S)
            self._done *= kept
            self._busy = self._busy * kept + elapsed
        elif self._is_long_idle():
            self._done = self._busy = 0.0
        self._now = now

    def _is_long_idle(self) -> bool:
        return self._under_way <= 0 and self._clock() - self._now > MEMORY_S

    def _learn(self, late: bool) -> None:
        """Moves the margin to where the share KEPT is quicker (Robbins and Monro 1951)."""
        self._margin *= 1 + MARGIN_GAIN * (KEPT if late else KEPT - 1)
        self._margin = min(MOST_MARGIN, max(LEAST_MARGIN, self._margin))


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request that was let in: run it while `lane.occupied(work)`."""

    effort: Effort
    lane: Lane
    work: float


class Admission:
    """The door's judgement. One for each replica of the door: each learns what its own requests get of the cluster.

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
