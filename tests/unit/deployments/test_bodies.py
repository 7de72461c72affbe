"""Bodies on their way: slow ones are cut off for their pace, too many for their number; fast ones are not refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from deployments.intake.bodies import Bodies, BodyTooLarge, BodyTooSlow, TooManyBodies
from deployments.intake.limits import BodySettings

CLIENT = "192.0.2.1"
LARGEST = 100_000


@pytest.fixture(autouse=True)
def counted_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployments.intake.bodies.COUNTED_AFTER_S", 0)


async def comes(piece: int, every_s: float, pieces: int) -> AsyncIterator[bytes]:
    """A body of so many pieces, with a pause before each."""
    for _ in range(pieces):
        await asyncio.sleep(every_s)
        yield bytes(piece)


async def read(bodies: Bodies, pieces: AsyncIterator[bytes], client: str = CLIENT) -> int:
    """The size of a body."""
    async with bodies.received(pieces, client, LARGEST) as body:
        assert bodies.held_bytes >= len(body)
        return len(body)


def seconds() -> float:
    return asyncio.get_running_loop().time()


def bodies_with(**limits: float) -> Bodies:
    return Bodies(BodySettings.model_validate({"grace_s": 0.2, "pace": 10_000, **limits}))


async def test_a_body_that_keeps_the_pace_may_take_many_times_the_grace() -> None:
    """Ten seconds for a whole body meant that a large file over a slow link never arrived."""
    started = seconds()
    assert await read(bodies_with(), comes(600, 0.03, 40)) == 24_000
    assert seconds() - started > 5 * 0.2


async def test_a_body_below_the_pace_is_cut_off_when_its_grace_is_used_up() -> None:
    started = seconds()
    with pytest.raises(BodyTooSlow) as caught:
        await read(bodies_with(), comes(100, 0.02, 1000))  # half the pace: 0.4 s of grace
    assert 0.3 < seconds() - started < 5
    assert caught.value.received < 4_000


async def test_a_small_body_may_be_slower_than_the_pace_within_the_grace() -> None:
    assert await read(bodies_with(), comes(1, 0.03, 5)) == 5


async def test_a_stall_is_cut_off_however_much_came_before() -> None:
    started = seconds()

    async def stalls() -> AsyncIterator[bytes]:
        yield bytes(90_000)  # nine seconds' worth
        await asyncio.sleep(30)

    bodies = bodies_with()
    with pytest.raises(BodyTooSlow, match="90000 bytes"):
        await read(bodies, stalls())
    assert seconds() - started < 5
    assert (bodies.reading, bodies.held_bytes) == (0, 0)


async def test_a_body_beyond_its_size_is_not_kept_whole() -> None:
    bodies = bodies_with()
    with pytest.raises(BodyTooLarge):
        await read(bodies, comes(60_000, 0, 100))
    assert bodies.held_bytes == 0


async def opened(bodies: Bodies, count: int, client: str = CLIENT) -> list[asyncio.Task[int]]:
    """So many bodies of which one byte has come."""

    async def begins() -> AsyncIterator[bytes]:
        yield b"1"
        await asyncio.sleep(30)

    tasks = [asyncio.create_task(read(bodies, begins(), client)) for _ in range(count)]
    await asyncio.sleep(0.02)
    return tasks


async def outcomes(tasks: list[asyncio.Task[int]]) -> list[type]:
    for task in tasks:
        if not task.done():
            task.cancel()
    return [type(each) for each in await asyncio.gather(*tasks, return_exceptions=True)]


async def test_the_slowest_makes_room_and_fast_ones_are_read() -> None:
    bodies = bodies_with(grace_s=5, at_once=8)
    slow = await opened(bodies, 7)
    steady = asyncio.create_task(read(bodies, comes(1_000, 0.01, 50)))
    await asyncio.sleep(0.1)
    for _ in range(20):
        assert await read(bodies, comes(2_000, 0.002, 5), "198.51.100.7") == 10_000
    assert bodies.reading <= 8
    assert await steady == 50_000  # older than all the others, and faster than the slow ones
    assert (await outcomes(slow)).count(TooManyBodies) == 1  # as many as had to
    assert (bodies.reading, bodies.held_bytes) == (0, 0)


async def test_thousands_of_slow_bodies_never_hold_more_than_their_room() -> None:
    bodies = bodies_with(grace_s=5, at_once=16)
    slow = await opened(bodies, 500)
    assert bodies.reading == 16
    assert await read(bodies, comes(500, 0.005, 10), "198.51.100.7") == 5_000
    assert (await outcomes(slow)).count(TooManyBodies) >= 484


async def test_a_client_with_many_bodies_makes_room_among_its_own() -> None:
    bodies = bodies_with(grace_s=5, of_a_client=4)
    other = await opened(bodies, 2, "198.51.100.7")
    own = await opened(bodies, 10)
    assert bodies.reading == 6
    assert not any(task.done() for task in other)
    assert (await outcomes(own)).count(TooManyBodies) == 6
    await outcomes(other)


async def test_held_bytes_are_limited_and_the_slowest_is_let_go() -> None:
    bodies = bodies_with(grace_s=5, held_bytes=150_000)

    async def half() -> AsyncIterator[bytes]:
        yield bytes(60_000)
        await asyncio.sleep(30)

    waiting = [asyncio.create_task(read(bodies, half())) for _ in range(2)]
    await asyncio.sleep(1)
    assert await read(bodies, comes(10_000, 0.001, 9), "198.51.100.7") == 90_000
    assert bodies.held_bytes <= 150_000
    assert TooManyBodies in await outcomes(waiting)
    assert bodies.held_bytes == 0


async def test_where_all_bytes_are_in_use_a_further_body_is_refused() -> None:
    bodies = bodies_with(held_bytes=150_000)
    async with bodies.received(comes(90_000, 0, 1), CLIENT, LARGEST):
        with pytest.raises(TooManyBodies):
            await read(bodies, comes(90_000, 0, 1))
    assert await read(bodies, comes(90_000, 0, 1)) == 90_000


async def test_a_client_that_leaves_leaves_nothing_behind() -> None:
    bodies = bodies_with(grace_s=5)
    assert set(await outcomes(await opened(bodies, 3))) == {asyncio.CancelledError}
    assert (bodies.reading, bodies.held_bytes) == (0, 0)


async def test_the_number_of_bodies_is_shown() -> None:
    shown: list[int] = []
    bodies = Bodies(BodySettings(), shown.append)
    await asyncio.gather(*(read(bodies, comes(10, 0.01, 2)) for _ in range(3)))
    assert (max(shown), shown[-1]) == (3, 0)


async def test_bodies_that_come_at_once_push_none_out_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """320 clients behind one address lost two thirds of their requests, though every body was there in a moment."""
    monkeypatch.setattr("deployments.intake.bodies.COUNTED_AFTER_S", 5)
    shown: list[int] = []
    bodies = Bodies(BodySettings(of_a_client=4, at_once=4), shown.append)
    sizes = await asyncio.gather(*(read(bodies, comes(1_000, 0.01, 3)) for _ in range(100)))
    assert sizes == [3_000] * 100
    assert (shown, bodies.held_bytes) == ([], 0)
