"""A replica that is not asked for its health any more is about to end."""

from __future__ import annotations

import pytest

from deployments.replica.ending import SILENCE_S, Ending


class Clock:
    """Seconds that a test sets."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


async def passes(ending: Ending, clock: Clock, seconds: float, asked_every_s: float | None) -> None:
    until, last = clock.now_s + seconds, clock.now_s
    while clock.now_s < until:
        clock.now_s += 1
        ending.look()
        if asked_every_s is not None and clock.now_s - last >= asked_every_s:
            ending.asked()
            last = clock.now_s


@pytest.mark.parametrize("period_s", [5, 30])
async def test_silence_is_the_end_and_a_period_is_not(period_s: float) -> None:
    told: list[float] = []
    clock = Clock()
    ending = Ending(lambda: told.append(clock.now_s), clock)
    await passes(ending, clock, 60, None)
    assert told == []  # it has never been asked: it only starts
    ending.asked()
    await passes(ending, clock, 10 * period_s, period_s)
    late = len(told)  # of a longer period, what is usual is learnt from the first one
    assert late <= 1
    await passes(ending, clock, 10 * period_s, period_s)
    assert len(told) == late
    ended_at = clock.now_s
    await passes(ending, clock, 300, None)
    assert len(told) == late + 1
    assert told[-1] - ended_at <= max(SILENCE_S, 2.5 * period_s) + 1


async def test_who_is_asked_again_has_not_ended() -> None:
    told: list[float] = []
    clock = Clock()
    ending = Ending(lambda: told.append(clock.now_s), clock)
    ending.asked()
    await passes(ending, clock, 60, None)
    ending.asked()
    await passes(ending, clock, 60, 5)
    assert len(told) == 1
    await passes(ending, clock, 60, None)
    assert len(told) == 2
