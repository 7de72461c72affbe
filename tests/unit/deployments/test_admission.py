"""Admission control: predictions from measurements, refusals with a time to wait. The test sets the clock."""

from __future__ import annotations

import heapq
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.gateway.admission import FIXED_WORK, Admission, Lane, Overloaded
from deployments.pipeline import Effort


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Cluster:
    """A server that does one piece of work after the other, at a fixed speed, behind admission control."""

    work_per_s: float
    degrade: bool = False
    clock: Clock = field(default_factory=Clock)
    free_at: float = 0.0
    pending: list[tuple[float, int, AbstractContextManager[None]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.gateway = Admission(self.degrade, self.clock)

    def ask(self, at: float, speech_s: float, within_s: float) -> tuple[Effort, float] | int:
        """What runs and how long it takes; or the time to wait."""
        self.wait_until(at)
        try:
            admitted = self.gateway.admit(speech_s, within_s)
        except Overloaded as overloaded:
            return overloaded.retry_after_s
        occupied = admitted.lane.occupied(admitted.work)
        occupied.__enter__()
        costs = {Effort.WHOLE: 1.0, Effort.WORDS: 0.8, Effort.VOICE: 0.1}[admitted.effort]
        self.free_at = max(self.free_at, at) + costs * (FIXED_WORK + speech_s) / self.work_per_s
        heapq.heappush(self.pending, (self.free_at, len(self.pending), occupied))
        return admitted.effort, self.free_at - at

    def wait_until(self, moment: float) -> None:
        while self.pending and self.pending[0][0] <= moment:
            self.clock.now, _, occupied = heapq.heappop(self.pending)
            occupied.__exit__(None, None, None)
        self.clock.now = moment


def test_as_long_as_nothing_was_measured_every_request_is_accepted() -> None:
    cluster = Cluster(work_per_s=10)
    assert all(isinstance(cluster.ask(0, 3, within_s=0.001), tuple) for _ in range(50))


def test_below_capacity_no_request_is_refused() -> None:
    cluster = Cluster(work_per_s=50)  # five of these requests a second
    answers = [cluster.ask(0.25 * number, 3, within_s=2) for number in range(200)]
    assert all(isinstance(answer, tuple) for answer in answers)


@pytest.mark.parametrize("factor", [1.5, 2, 5])
def test_beyond_capacity_accepted_requests_are_in_time_and_no_capacity_is_wasted(factor: float) -> None:
    cluster = Cluster(work_per_s=50)
    seconds, within_s = 60, 2.0
    count = int(5 * factor * seconds)
    answers = [cluster.ask(number / (5 * factor), 3, within_s) for number in range(count)]
    taken = [answer[1] for answer in answers if isinstance(answer, tuple)]
    late = sum(seconds > within_s for seconds in taken)
    assert late <= 0.02 * len(taken)
    assert len(taken) >= 0.9 * 5 * seconds


def test_a_request_that_waits_as_told_is_accepted() -> None:
    cluster = Cluster(work_per_s=10)
    for number in range(6):
        cluster.ask(float(number), 3, within_s=100)
    cluster.wait_until(6.0)
    refused = [cluster.ask(6.0, 3, within_s=4.0) for _ in range(12)]
    waits = [answer for answer in refused if isinstance(answer, int)]
    assert waits
    assert isinstance(cluster.ask(6.0 + waits[-1], 3, within_s=4.0), tuple)
    assert min(waits) >= 1


def test_under_load_the_text_branch_is_left_out_first_and_then_the_words() -> None:
    cluster = Cluster(work_per_s=10, degrade=True)
    for number in range(6):
        cluster.ask(1.5 * number, 3, within_s=100)
    cluster.wait_until(12)
    efforts = [answer[0] for _ in range(12) if isinstance(answer := cluster.ask(12, 3, within_s=5.0), tuple)]
    assert efforts == sorted(efforts, reverse=True)
    assert set(efforts) == {Effort.WHOLE, Effort.WORDS, Effort.VOICE}


def test_a_strict_request_is_refused_where_others_are_degraded() -> None:
    clock = Clock()
    gateway = Admission(True, clock)
    admitted = gateway.admit(3, 1)
    with admitted.lane.occupied(admitted.work):
        clock.now = 5.0
    with pytest.raises(Overloaded):
        gateway.admit(3, 1, strict=True)
    assert gateway.admit(3, 1).effort is Effort.VOICE


def test_longer_speech_is_expected_to_take_longer() -> None:
    clock = Clock()
    lane = Lane(clock)
    with lane.occupied(10):
        clock.now = 1.0
    assert lane.expected_s(20) == pytest.approx(2 * lane.expected_s(10))


def test_an_idle_cluster_does_not_look_slow() -> None:
    clock = Clock()
    lane = Lane(clock)
    for _ in range(3):
        with lane.occupied(10):
            clock.now += 1.0
        clock.now += 5.0
    assert 1.0 <= lane.expected_s(10) < 1.5


def test_after_a_standstill_requests_are_accepted_again() -> None:
    clock = Clock()
    gateway = Admission(False, clock)
    admitted = gateway.admit(3, 2)
    with admitted.lane.occupied(admitted.work):
        clock.now = 30.0
    with pytest.raises(Overloaded):
        gateway.admit(3, 2)
    clock.now += 10.0
    assert gateway.admit(3, 2).effort is Effort.WHOLE


def test_a_request_that_failed_says_nothing_of_the_speed() -> None:
    clock = Clock()
    lane = Lane(clock)
    with lane.occupied(10):
        clock.now += 1.0
    before = lane.expected_s(10)
    with pytest.raises(KeyError), lane.occupied(10):
        raise KeyError
    assert lane.expected_s(10) == before


def test_a_cluster_that_gets_slower_is_noticed() -> None:
    clock = Clock()
    lane = Lane(clock)
    for took in [1.0] * 10 + [4.0] * 10:
        with lane.occupied(10):
            clock.now += took
    assert lane.expected_s(10) > 3.0


def test_requests_that_overlapped_leave_an_idle_cluster_behind() -> None:
    """2.0 s and 2.1 s of speech: (9.0 + 9.1) - 9.0 - 9.1 is 1.8e-15 in floats, not 0."""
    clock = Clock()
    gateway = Admission(True, clock)
    first, second = gateway.admit(2.0, 25), gateway.admit(2.1, 25)
    assert first.work + second.work - first.work - second.work > 0
    with second.lane.occupied(second.work):
        with first.lane.occupied(first.work):
            clock.now += 1.0
        clock.now += 1.0
    clock.now += 30.0
    assert gateway.admit(3.0, 3.0, strict=True).effort is Effort.WHOLE
    lane = second.lane
    with lane.occupied(10.0):
        clock.now += 1.0
    assert lane.expected_s(10.0) < 1.5  # 30 s of quiet were not taken for 30 s of work


@given(st.lists(st.floats(0.1, 30), min_size=2, max_size=12), st.randoms(use_true_random=False))
def test_a_cluster_is_idle_after_any_requests_in_any_order(speech_s: list[float], random: Random) -> None:
    clock = Clock()
    lane = Lane(clock)
    open_requests = [lane.occupied(FIXED_WORK + seconds) for seconds in speech_s]
    for request in open_requests:
        request.__enter__()
    random.shuffle(open_requests)
    for request in open_requests:
        clock.now += 1.0
        request.__exit__(None, None, None)
    assert lane.expected_s(10.0) > 0
    clock.now += 10.0
    assert lane.expected_s(10.0) == 0
