"""A burst of one client, and the requests of another beside it."""

from __future__ import annotations

import asyncio

from deployments.intake.turns import TURN_S, Turns

AT_ONCE = 4


async def started(turns: Turns, lane: str, began: list[str], until: asyncio.Event) -> None:
    async with turns.turn(lane):
        began.append(lane)
        await until.wait()


async def test_so_many_of_a_lane_begin_and_the_next_ones_wait_for_their_ends() -> None:
    turns, began, until = Turns(AT_ONCE), list[str](), asyncio.Event()
    tasks = [asyncio.create_task(started(turns, "burst", began, until)) for _ in range(10)]
    await asyncio.sleep(0)
    assert len(began) == AT_ONCE
    until.set()
    await asyncio.gather(*tasks)
    assert len(began) == 10


async def test_another_lane_does_not_wait() -> None:
    turns, began, until = Turns(AT_ONCE), list[str](), asyncio.Event()
    tasks = [asyncio.create_task(started(turns, "burst", began, until)) for _ in range(1000)]
    await asyncio.sleep(0)
    tasks.append(asyncio.create_task(started(turns, "neighbour", began, until)))
    await asyncio.sleep(0)
    assert began == ["burst"] * AT_ONCE + ["neighbour"]
    until.set()
    await asyncio.gather(*tasks)


async def test_what_takes_long_gives_its_turn_back_before_its_end() -> None:
    turns, began, until = Turns(AT_ONCE), list[str](), asyncio.Event()
    tasks = [asyncio.create_task(started(turns, "slow", began, until)) for _ in range(2 * AT_ONCE)]
    async with asyncio.timeout(50 * TURN_S):
        while len(began) < 2 * AT_ONCE:
            await asyncio.sleep(TURN_S / 5)
    until.set()
    await asyncio.gather(*tasks)


async def test_turns_are_given_back_once() -> None:
    """A turn that has run out is not given back a second time at the end: there would be one more than there are."""
    turns, began, ends, never = Turns(1), list[str](), asyncio.Event(), asyncio.Event()
    out_of_time = [asyncio.create_task(started(turns, "first", began, ends))]
    out_of_time.append(asyncio.create_task(started(turns, "first", began, ends)))
    async with asyncio.timeout(50 * TURN_S):
        while len(began) < 2:
            await asyncio.sleep(TURN_S / 5)
    await asyncio.sleep(2 * TURN_S)  # both turns have run out
    later = [asyncio.create_task(started(turns, "first", began, never)) for _ in range(3)]
    ends.set()
    await asyncio.gather(*out_of_time)
    assert len(began) == 3
    never.set()
    await asyncio.gather(*later)


async def test_a_request_that_is_given_up_while_it_waits_takes_no_turn() -> None:
    turns, began, until = Turns(1), list[str](), asyncio.Event()
    first = asyncio.create_task(started(turns, "lane", began, until))
    await asyncio.sleep(0)
    given_up = asyncio.create_task(started(turns, "lane", began, until))
    await asyncio.sleep(0)
    given_up.cancel()
    until.set()
    await asyncio.gather(first, given_up, return_exceptions=True)
    async with asyncio.timeout(5), turns.turn("lane"):
        pass
    assert not turns.lanes
