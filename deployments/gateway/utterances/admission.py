"""Admission control: which requests are accepted, and how much of the pipeline runs for each.

The gateway knows which accepted requests have no answer yet, and how fast such work was finished of late: that predicts
how long the next request takes (Little's law, L = λ W, with L and λ measured in work). A request that would miss its
deadline is answered without its text branch, without its words, or refused at once. So is one of a client that holds
its share of the room already while others ask. docs/decisions/0007-answers-in-time.md has the reasons.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from math import ceil, exp, inf
from typing import Final

from deployments.autoscaling import SERVICE_S, SERVICE_SPEECH_S
from deployments.gateway.clients import RecentClients
from deployments.pipeline import Effort

# What every request costs beside its speech, in seconds of speech: 120 ms of CPU against 17 ms a second of it
FIXED_WORK: Final = 7.0
SHARE_WITHOUT_TEXT: Final = 0.8  # of the work; the text encoder does the rest
# Until something was measured: what one core takes for a piece of work, the least that a cluster has
WORDS_PRIOR_S: Final = sum(SERVICE_S.values()) / (FIXED_WORK + SERVICE_SPEECH_S)
VOICE_STAGES: Final = ("Ingress", "MelReconstruction", "FusionClassifier")
VOICE_PRIOR_S: Final = sum(SERVICE_S[stage] for stage in VOICE_STAGES) / (FIXED_WORK + SERVICE_SPEECH_S)
PRIOR_BUSY_S: Final = 1.0  # of measuring that the prior counts as
MEMORY_S: Final = 8.0  # of busy time, after which what was measured counts a third
KEPT: Final = 0.98  # share of the requests that is to be quicker than predicted
MARGIN_GAIN: Final = 0.1  # by which a miss widens the margin
FIRST_MARGIN, LEAST_MARGIN, MOST_MARGIN = 1.3, 1.0, 4.0
PROBE_AFTER_S, LONGEST_PROBE_AFTER_S = 2.0, 30.0  # that a lane learns nothing; twice as long after each failed probe
LEAST_PATIENCE_S: Final = 1.0  # of other clients: a single one that asks for less does not stop everybody else
LONGEST_RETRY_S: Final = 60

ROOM: Final = "room"  # why a request is refused: anybody would have been,
SHARE: Final = "share"  # or its client alone


class Overloaded(Exception):  # noqa: N818 - an error by its base class
    """No answer could be ready in time, or the client has its share of the room already.

    Attributes:
        retry_after_s: when one could, if no other request came in between.
        reason: `ROOM` or `SHARE`.
    """

    def __init__(self, retry_after_s: int, reason: str = ROOM) -> None:
        cause = "the cluster cannot answer in time"
        if reason == SHARE:
            cause = "this client has its share of the work in progress, and others wait"
        super().__init__(cause)
        self.retry_after_s, self.reason = retry_after_s, reason


@dataclass(eq=False, slots=True)
class Running:
    """An accepted request without an answer yet.

    Attributes:
        client: that sent it.
        work: as `Admission` counts it.
        is_probe: it was let in only to see whether the lane still is as slow as it was.
        started_s: on the clock of the lane.
        mean_s: seconds that were predicted, without the margin.
        pace_s: seconds a piece of work took when it started.
        share_s: of the lane's time: the part of the work in progress that it made up, over time.
        fell_short: set where the answer came without what the lane is for.
    """

    client: str
    work: float
    is_probe: bool
    started_s: float
    mean_s: float
    pace_s: float
    share_s: float = 0.0
    fell_short: bool = False


@dataclass(frozen=True, slots=True)
class LaneState:
    """What an operator sees of a lane.

    Attributes:
        requests, work: in progress.
        pace_s: seconds that a piece of work takes, those before it not counted.
        margin: predictions are multiplied by it.
    """

    requests: int
    work: float
    pace_s: float
    margin: float


class Lane:
    """Requests that wait for the same stages: how much work is in progress, and how fast it gets done.

    Args:
        clock: seconds, never going back.
        name: `words` or `voice`.
        prior_s: seconds a piece of work takes as long as nothing was measured.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, name: str = "words", prior_s: float = WORDS_PRIOR_S
    ) -> None:
        self.name: Final = name
        self._clock, self._prior_s = clock, prior_s
        self._now = self._busy_until = self._learnt_at = clock()
        # The requests in progress. Not the sum of their work: floats that are added and subtracted seldom end at 0
        self._in_progress: list[Running] = []
        self._busy, self._done = PRIOR_BUSY_S, PRIOR_BUSY_S / prior_s  # seconds, and the work done; fade with MEMORY_S
        self._margin = FIRST_MARGIN
        self._probe_after_s, self._probed_for = PROBE_AFTER_S, ""

    def state(self) -> LaneState:
        """Of now."""
        self._pass_time()
        return LaneState(len(self._in_progress), self._work_of(None), self._pace_s(), self._margin)

    def expected_s(self, work: float, client: str | None = None) -> float:
        """Seconds that so much work rarely exceeds if it is accepted now; with a client, as if it were alone."""
        self._pass_time()
        return self._margin * self._mean_s(work, client)

    def room_in_s(self, work: float, within_s: float, client: str | None = None) -> float:
        """Seconds until so much work would be done `within_s`, if no other request came in."""
        self._pass_time()
        return max(0.0, self._mean_s(work, client) - within_s / self._margin)

    def serves(self, client: str) -> bool:
        """Whether a request of the client is in progress."""
        return any(request.client == client for request in self._in_progress)

    def is_due_for_probe(self, work: float, within_s: float, client: str, others: bool) -> bool:
        """Whether a request is let in although it is expected to be late, since nothing else would be learnt from.

        Not where it would be late even at the pace of the prior; and not twice in a row of one client where others ask:
        one that always leaves teaches nothing.
        """
        learnt_nothing_s = self._clock() - self._learnt_at
        in_turn = client != self._probed_for or not others
        return learnt_nothing_s >= self._probe_after_s and in_turn and self._prior_s * work * FIRST_MARGIN <= within_s

    @contextmanager
    def occupied(self, work: float, client: str = "", is_probe: bool = False) -> Iterator[Running]:
        """The work is in progress.

        The time that it took is learnt from: an answer counts as its work, one that came too late (TimeoutError) or
        fell short as none. A request that failed or whose client left counts as the work that its share of the time was
        good for, at the pace of before: neither makes the lane look slower or faster than it is.
        """
        self._pass_time()
        request = Running(client, work, is_probe, self._now, self._mean_s(work), self._pace_s())
        self._in_progress.append(request)
        self._learnt_at = self._now
        if is_probe:
            self._probed_for = client
        try:
            yield request
        except TimeoutError:
            self._answered(request, 0.0)
            raise
        except BaseException:
            self._left(request)
            raise
        self._answered(request, 0.0 if request.fell_short else work)

    def _answered(self, request: Running, done: float) -> None:
        self._pass_time()
        self._in_progress.remove(request)
        if request.is_probe and done:
            # The lane is as good as new: what was measured before let nothing else in
            self._busy, self._done = PRIOR_BUSY_S + request.share_s, PRIOR_BUSY_S / self._prior_s
            self._margin, self._probe_after_s = FIRST_MARGIN, PROBE_AFTER_S
        elif request.is_probe:
            self._probe_after_s = min(LONGEST_PROBE_AFTER_S, 2 * self._probe_after_s)
        self._done += done
        if done:
            self._learnt_at = self._now
        self._set_margin(request, in_time=done > 0)

    def _left(self, request: Running) -> None:
        self._pass_time()
        self._in_progress.remove(request)
        self._done += min(request.work, request.share_s / request.pace_s) if request.pace_s else request.work
        self._set_margin(request, in_time=False)

    def _work_of(self, client: str | None) -> float:
        return sum(request.work for request in self._in_progress if client is None or request.client == client)

    def _mean_s(self, work: float, client: str | None = None) -> float:
        return (self._work_of(client) + work) * self._pace_s()

    def _pace_s(self) -> float:
        return self._busy / self._done if self._done else inf

    def _pass_time(self) -> None:
        """Only busy time counts: an idle cluster is not a slow one."""
        now = self._clock()
        elapsed, self._now = now - self._now, now
        if self._in_progress:
            kept = exp(-elapsed / MEMORY_S)
            self._done *= kept
            self._busy = self._busy * kept + elapsed
            self._busy_until = now
            work = self._work_of(None)
            for request in self._in_progress:
                request.share_s += elapsed * request.work / work
        elif now - self._busy_until > MEMORY_S and self._busy > PRIOR_BUSY_S:
            # Long idle: the next measurement counts more than those of before
            self._busy, self._done = PRIOR_BUSY_S, self._done * PRIOR_BUSY_S / self._busy

    def _set_margin(self, request: Running, in_time: bool) -> None:
        """Moves it to where the share KEPT is quicker (Robbins and Monro 1951); who left early says nothing."""
        late = self._now - request.started_s > self._margin * request.mean_s
        if late or in_time:
            self._margin *= 1 + MARGIN_GAIN * (KEPT if late else KEPT - 1)
            self._margin = min(MOST_MARGIN, max(LEAST_MARGIN, self._margin))


@dataclass(frozen=True, slots=True)
class Admitted:
    """An accepted request: run it while it is `running`."""

    effort: Effort
    lane: Lane
    work: float
    client: str
    is_probe: bool = False

    def running(self) -> AbstractContextManager[Running]:
        """The request is in progress (`Lane.occupied`)."""
        return self.lane.occupied(self.work, self.client, self.is_probe)


class Admission:
    """Accepts or refuses requests. One for each replica of the gateway, since each learns from its own requests.

    Args:
        degrade: whether less than the whole pipeline is an answer.
        clock: seconds, never going back.
        client_share: of the time that others give an answer, which the work of one client may fill while others ask;
            from 1 on it may fill all.
    """

    def __init__(
        self, degrade: bool = True, clock: Callable[[], float] = time.monotonic, client_share: float = 0.5
    ) -> None:
        self._degrade, self._client_share = degrade, client_share
        self._words, self._voice = Lane(clock), Lane(clock, "voice", VOICE_PRIOR_S)
        self._clients = RecentClients(clock)

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """For answers with words, and for those of the voice alone."""
        return self._words, self._voice

    def admit(self, speech_s: float, within_s: float, strict: bool = False, client: str = "") -> Admitted:
        """The most that can be answered in time.

        Args:
            speech_s: seconds of speech.
            within_s: seconds that the answer may take.
            strict: the whole pipeline or nothing.
            client: that asks (`deployments.gateway.clients.client_of`).

        Raises:
            Overloaded: not even the least can, or the client has its share.
        """
        self._clients.add(client, within_s)
        others_s = self._clients.patience_of_others_s(client)
        own_s = inf  # that the work of this client may take
        if others_s is not None and self._client_share < 1:
            own_s = self._client_share * min(within_s, max(LEAST_PATIENCE_S, others_s))

        soonest_s, reason = inf, ROOM
        for choice in self._choices(FIXED_WORK + speech_s, client, strict):
            lane, work = choice.lane, choice.work
            has_room = lane.expected_s(work) <= within_s
            in_share = not lane.serves(client) or lane.expected_s(work, client) <= own_s
            if has_room and in_share:
                return choice
            least_of_lane = choice.effort is not Effort.WHOLE or strict or not self._degrade
            if least_of_lane and in_share and lane.is_due_for_probe(work, within_s, client, others_s is not None):
                return replace(choice, is_probe=True)
            wait_s = lane.room_in_s(work, within_s)
            if has_room:
                wait_s, reason = lane.room_in_s(work, own_s, client), SHARE
            soonest_s = min(soonest_s, wait_s)
        raise Overloaded(max(1, ceil(min(LONGEST_RETRY_S, soonest_s))), reason)

    def _choices(self, work: float, client: str, strict: bool) -> Iterator[Admitted]:
        """From the most to the least."""
        yield Admitted(Effort.WHOLE, self._words, work, client)
        if self._degrade and not strict:
            yield Admitted(Effort.WORDS, self._words, SHARE_WITHOUT_TEXT * work, client)
            yield Admitted(Effort.VOICE, self._voice, work, client)
