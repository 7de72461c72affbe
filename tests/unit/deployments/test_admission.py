"""Admission control: predictions from measurements, refusals with a time to wait. The test sets the clock."""

from __future__ import annotations

from asyncio import CancelledError
from contextlib import suppress
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated_server import Clock, Server

from deployments.gateway.utterances.admission import (
    FIRST_MARGIN,
    FIXED_WORK,
    LONGEST_PROBE_AFTER_S,
    PROBE_AFTER_S,
    VOICE_PRIOR_S,
    WORDS_PRIOR_S,
    Admission,
    Lane,
    Overloaded,
)
from deployments.pipeline import Effort

CLIENT = "192.0.2.1"


def measured(clock: Clock, *paces_s: float, work: float = 10.0) -> Lane:
    """A lane that has done one request after the other, each at its seconds for a piece of work."""
    lane = Lane(clock)
    for pace_s in paces_s:
        with lane.occupied(work):
            clock.now += work * pace_s
    return lane


def test_a_cold_gateway_admits_what_one_core_does_in_time() -> None:
    """2,000 requests before the first answer, where nothing is known but the times of the stages on one core."""
    server = Server(work_per_s=10, degrade=True)
    efforts = [server.ask(CLIENT, 3, within_s=3.0).effort for _ in range(2000)]
    work = FIXED_WORK + 3
    whole = int(3.0 / FIRST_MARGIN / WORDS_PRIOR_S / work)
    voice = int(3.0 / FIRST_MARGIN / VOICE_PRIOR_S / work)
    assert efforts[: whole + 1] == [Effort.WHOLE] * whole + [efforts[whole]]
    assert efforts.count(Effort.WHOLE) == whole
    assert efforts.count(Effort.VOICE) == voice
    assert efforts.count(None) == 2000 - whole - voice - efforts.count(Effort.WORDS)
    assert efforts.count(Effort.WORDS) <= 1


def test_a_cold_gateway_soon_knows_a_fast_cluster() -> None:
    server = Server(work_per_s=500)
    for number in range(400):
        server.at(0.04 * number, lambda: server.ask(CLIENT, 3, within_s=1.0))
    server.run()
    assert all(asked.is_whole for asked in server.asked)
    assert server.gateway.lanes[0].expected_s(10) < 0.05


def test_below_capacity_no_request_is_refused() -> None:
    server = Server(work_per_s=50)  # five of these requests a second
    for number in range(200):
        server.at(0.25 * number, lambda: server.ask(CLIENT, 3, within_s=2.0))
    server.run()
    assert all(asked.is_whole for asked in server.asked)


@pytest.mark.parametrize("factor", [1.5, 2, 5])
def test_beyond_capacity_accepted_requests_are_in_time_and_no_capacity_is_wasted(factor: float) -> None:
    server = Server(work_per_s=50)
    seconds, within_s = 60, 2.0
    for number in range(int(5 * factor * seconds)):
        server.at(number / (5 * factor), lambda: server.ask(CLIENT, 3, within_s))
    server.run()
    ended = [asked.ended for asked in server.asked]
    assert ended.count("late") <= 0.02 * len(ended)
    assert ended.count("answered") >= 0.9 * 5 * seconds


def test_a_request_that_waits_as_told_is_accepted() -> None:
    server = Server(work_per_s=10)
    for number in range(6):
        server.at(float(number), lambda: server.ask(CLIENT, 3, within_s=100))
    server.run(until=6.0)
    waits = [asked.refused.retry_after_s for _ in range(12) if (asked := server.ask(CLIENT, 3, within_s=4.0)).refused]
    assert waits
    assert min(waits) >= 1
    server.run(until=6.0 + waits[-1])
    assert server.ask(CLIENT, 3, within_s=4.0).refused is None


def test_under_load_the_text_branch_is_left_out_first_and_then_the_words() -> None:
    server = Server(work_per_s=10, degrade=True)
    for number in range(6):
        server.at(1.5 * number, lambda: server.ask(CLIENT, 3, within_s=100))
    server.run(until=12)
    within_s = server.gateway.lanes[0].expected_s(29.0)  # two whole answers, and one without the text stages
    efforts = [asked.effort for _ in range(12) if not (asked := server.ask(CLIENT, 3, within_s)).refused]
    assert efforts == sorted(efforts, reverse=True)
    assert set(efforts) == {Effort.WHOLE, Effort.WORDS, Effort.VOICE}


def test_a_strict_request_is_refused_where_others_are_degraded() -> None:
    clock = Clock()
    gateway = Admission(True, clock)
    admitted = gateway.admit(3, 1)
    with admitted.running():
        clock.now = 5.0
    with pytest.raises(Overloaded):
        gateway.admit(3, 1, strict=True)
    assert gateway.admit(3, 1).effort is Effort.VOICE


def test_longer_speech_is_expected_to_take_longer() -> None:
    lane = measured(Clock(), 0.1)
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
    with admitted.running():
        clock.now = 30.0
    with pytest.raises(Overloaded):
        gateway.admit(3, 2)
    clock.now += 10.0
    assert gateway.admit(3, 2).effort is Effort.WHOLE


@pytest.mark.parametrize("error", [KeyError, CancelledError])
def test_a_request_that_failed_or_was_left_says_nothing_of_the_speed(error: type[BaseException]) -> None:
    clock = Clock()
    lane = measured(clock, 0.1)
    before = lane.expected_s(10)
    for _ in range(50):
        clock.now += 0.5
        with suppress(error), lane.occupied(10):
            clock.now += 0.4
            raise error
    assert lane.expected_s(10) == pytest.approx(before)


def test_many_that_leave_at_once_do_not_make_the_cluster_look_fast() -> None:
    clock = Clock()
    lane = measured(clock, 0.1)
    before = lane.expected_s(10)
    for _ in range(20):
        leaving = [lane.occupied(37) for _ in range(30)]
        for request in leaving:
            request.__enter__()
        clock.now += 0.9
        for request in leaving:
            with suppress(CancelledError):
                request.__exit__(CancelledError, CancelledError(), None)
    assert lane.expected_s(10) == pytest.approx(before)


def test_clients_that_leave_later_than_was_predicted_show_that_the_cluster_is_slow() -> None:
    clock = Clock()
    lane = measured(clock, 0.1)
    for _ in range(5):
        with suppress(CancelledError), lane.occupied(10):
            clock.now += 5.0
            raise CancelledError
    assert lane.expected_s(10) > 3.0


def test_answers_that_are_not_ready_in_time_or_lack_the_words_show_that_the_cluster_is_slow() -> None:
    for fails in (True, False):
        clock = Clock()
        lane = measured(clock, 0.1)
        for _ in range(5):
            with suppress(TimeoutError), lane.occupied(10) as running:
                clock.now += 2.0
                running.fell_short = True
                if fails:
                    raise TimeoutError
        assert lane.expected_s(10) > 5.0


def test_a_cluster_that_gets_slower_is_noticed() -> None:
    assert measured(Clock(), *[0.1] * 10, *[0.4] * 10).expected_s(10) > 3.0


def test_requests_that_overlapped_leave_an_idle_cluster_behind() -> None:
    """2.0 s and 2.1 s of speech: (9.0 + 9.1) - 9.0 - 9.1 is 1.8e-15 in floats, not 0."""
    clock = Clock()
    gateway = Admission(True, clock)
    first, second = gateway.admit(2.0, 25), gateway.admit(2.1, 25)
    assert first.work + second.work - first.work - second.work > 0
    with second.running():
        with first.running():
            clock.now += 1.0
        clock.now += 1.0
    clock.now += 30.0
    assert gateway.admit(3.0, 3.0, strict=True).effort is Effort.WHOLE
    with second.lane.occupied(10.0):
        clock.now += 1.0
    assert second.lane.state().pace_s < 0.1  # 30 s of quiet were not taken for 30 s of work


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
    before = lane.state()
    assert (before.requests, before.work) == (0, 0)
    clock.now += 10.0
    assert lane.state().pace_s == pytest.approx(before.pace_s)
    with lane.occupied(10.0):
        pass
    assert lane.state().pace_s < before.pace_s  # no time passed for work


def test_what_was_learnt_of_a_fast_cluster_is_kept_while_it_is_idle() -> None:
    clock = Clock()
    lane = measured(clock, *[WORDS_PRIOR_S / 20] * 200)
    clock.now += 60.0
    assert lane.state().pace_s < WORDS_PRIOR_S / 5


def stalled(seconds: float = 25.0) -> Server:
    """A server that stood still under its requests, and whose gateway refuses them therefore. It works again."""
    server = Server(work_per_s=50, degrade=True)
    for number in range(20):
        server.at(0.5 * number, lambda: server.ask("a", 3, within_s=3.0))
    server.run(until=10.0)
    server.work_per_s = 0
    for number in range(int(10 * seconds)):
        server.at(10 + 0.1 * number, lambda: server.ask("a", 3, within_s=3.0))
    server.run(until=10.0 + seconds)
    assert server.ask("a", 3, within_s=3.0, strict=True).refused is not None
    server.resume(50)
    return server


def test_a_gateway_that_a_standstill_shut_is_open_again_within_seconds_under_load() -> None:
    """It is asked all the time, and never idle for long: only what it lets through to probe can teach it."""
    server = stalled()
    begins = server.clock.now
    for number in range(200):
        server.at(begins + 0.3 * number, lambda: server.ask("a", 3, within_s=3.0))
    server.run()
    opened = next(asked.at for asked in server.asked if asked.at >= begins and asked.is_whole)
    assert opened - begins <= LONGEST_PROBE_AFTER_S
    assert all(asked.is_whole for asked in server.asked if asked.at >= opened + 1.0)


def test_a_shut_lane_lets_one_request_through_to_probe_and_waits_longer_after_each_that_failed() -> None:
    clock = Clock()
    gateway = Admission(True, clock)
    admitted = gateway.admit(3, 3)
    with admitted.running():
        clock.now += 60.0  # the lane is shut
    probes = []
    for _ in range(1400):
        clock.now += 0.1
        admitted = gateway.admit(3, 3)
        if admitted.effort >= Effort.WORDS:
            assert admitted.is_probe
            probes.append(clock.now)
            with suppress(TimeoutError), admitted.running():
                assert gateway.admit(3, 3).effort is Effort.VOICE  # one at a time
                clock.now += 3.0
                raise TimeoutError
    pauses = [later - earlier for earlier, later in zip(probes, probes[1:], strict=False)]
    assert pauses[:5] == pytest.approx([4.0, 8.0, 16.0, 30.0, 30.0], abs=0.15)


def test_a_probe_that_is_answered_opens_the_lane() -> None:
    clock = Clock()
    gateway = Admission(True, clock)
    admitted = gateway.admit(3, 3)
    with admitted.running():
        clock.now += 60.0
    clock.now += PROBE_AFTER_S
    probe = gateway.admit(3, 3)
    with probe.running():
        clock.now += 0.3
    assert [probe.is_probe, gateway.admit(3, 3).effort] == [True, Effort.WHOLE]


def test_a_request_for_which_no_cluster_has_time_is_no_probe() -> None:
    clock = Clock()
    gateway = Admission(False, clock)
    clock.now += 100.0
    with pytest.raises(Overloaded):
        gateway.admit(3, 0.01)


def test_a_client_that_always_leaves_does_not_get_every_probe() -> None:
    server = stalled()
    begins = server.clock.now

    def leave() -> None:
        if server.clock.now < begins + 60:
            server.ask("leaver", 30, within_s=25.0, leaves_after_s=0.2)
            server.at(server.clock.now + 0.25, leave)

    server.at(begins, leave)
    for number in range(150):
        server.at(begins + 0.4 * number, lambda: server.ask("a", 3, within_s=3.0))
    server.run()
    whole = [asked.at for asked in server.asked if asked.client == "a" and asked.at >= begins and asked.is_whole]
    assert whole[0] - begins <= LONGEST_PROBE_AFTER_S
    assert len(whole) >= 75


@pytest.mark.parametrize("paces_s", [(), (1e-3,), (10.0,) * 3])
def test_a_lane_says_where_it_stands(paces_s: tuple[float, ...]) -> None:
    clock = Clock()
    lane = measured(clock, *paces_s)
    with lane.occupied(12.5, CLIENT), lane.occupied(7.5, CLIENT):
        state = lane.state()
        assert (state.requests, state.work) == (2, 20)
        assert lane.expected_s(10) == pytest.approx(30 * state.pace_s * state.margin)
