"""Batches: which items are computed together, which are dropped, and which fail."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from deployments.replica.batching import Batcher
from deployments.replica.deadline import DeadlinePassed, after
from deployments.replica.faults import ModelFailed


class Model:
    """Doubles numbers, one batch after the other, each when it is told to."""

    def __init__(self, poison: int | None = None) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Semaphore(0)
        self._poison = poison

    def run(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        self.gate.acquire()
        if self._poison in items:
            raise ValueError("poison")
        return [2 * item for item in items]

    def open(self, batches: int = 100) -> None:
        self.gate.release(batches)


async def submitted(batcher: Batcher[int, int], items: Sequence[int]) -> list[asyncio.Task[int]]:
    """The first computes, the others wait, in this order."""

    async def value(item: int) -> int:
        return (await batcher.submit(item)).value

    first = asyncio.create_task(value(items[0]))
    await asyncio.sleep(0.02)
    others = [asyncio.create_task(value(item)) for item in items[1:]]
    await asyncio.sleep(0.02)
    return [first, *others]


async def test_a_request_alone_starts_at_once() -> None:
    model = Model()
    model.open()
    answer = await Batcher("test", model.run, batch_size=4).submit(21)
    assert answer.value == 42
    assert answer.compute_ms >= 0
    assert model.batches == [[21]]


async def test_items_that_arrive_together_are_computed_together() -> None:
    model = Model()
    model.open()
    batcher = Batcher("test", model.run, batch_size=3)
    await asyncio.gather(*(batcher.submit(item) for item in (1, 2, 3, 4)))
    assert model.batches == [[1, 2, 3], [4]]


async def test_what_waits_while_a_batch_computes_is_the_next_batch() -> None:
    model = Model()
    tasks = await submitted(Batcher("test", model.run, batch_size=3), [1, 2, 3, 4, 5])
    model.open()
    assert await asyncio.gather(*tasks) == [2, 4, 6, 8, 10]
    assert model.batches == [[1], [2, 3, 4], [5]]


async def test_long_items_leave_a_thread_to_short_ones() -> None:
    model = Model()
    batcher = Batcher("test", model.run, batch_size=1, size=lambda item: item, express=10)
    tasks = await submitted(batcher, [100, 200, 5, 6])
    assert model.batches == [[100], [5]]  # the second long one waits for the first, the second short one for either
    model.open()
    assert await asyncio.gather(*tasks) == [200, 400, 10, 12]


async def test_short_items_have_one_thread_more_and_not_that_of_a_long_one_that_ended() -> None:
    """Two of three threads were theirs as long as any long one computed, so long ones were computed one by one."""
    model = Model()
    batcher = Batcher("test", model.run, batch_size=1, threads=2, express=50, size=lambda item: item)
    waiting = await submitted(batcher, [60, 61, 1, 62, 2, 3, 4])
    assert model.batches == [[60], [61], [1]]
    model.open(1)
    await asyncio.sleep(0.05)
    assert model.batches[3:] == [[62]]
    model.open()
    await asyncio.gather(*waiting)


async def test_short_items_alone_have_no_thread_more() -> None:
    model = Model()
    batcher = Batcher("test", model.run, batch_size=1, size=lambda item: item, express=10)
    tasks = await submitted(batcher, [1, 2])
    assert model.batches == [[1]]
    model.open()
    await asyncio.gather(*tasks)


async def test_more_work_for_a_request_is_not_counted_as_another() -> None:
    model = Model()
    model.open()
    batcher = Batcher("test", model.run, batch_size=4, counts=lambda item: item < 10)
    await asyncio.gather(*(batcher.submit(item) for item in (1, 2, 30)))
    assert batcher.work.counts["served"] == 2


async def test_what_is_to_be_alone_joins_nobody_and_is_joined_by_nobody() -> None:
    """Five second passes in one batch were answered after the last: 7 s each in place of one after the other."""
    model = Model()
    model.open()
    batcher = Batcher("test", model.run, batch_size=4, alone=lambda item: item > 50)
    answers = await asyncio.gather(*await submitted(batcher, [1, 60, 2, 61, 3]))
    assert model.batches == [[1], [60], [2, 3], [61]]
    assert answers == [2, 120, 4, 122, 6]


async def test_short_items_are_not_joined_by_long_ones() -> None:
    model = Model()
    batcher = Batcher("test", model.run, batch_size=4, size=lambda item: item, express=10)
    tasks = await submitted(batcher, [1, 2, 100, 3, 200, 4])
    model.open()
    await asyncio.gather(*tasks)
    assert model.batches == [[1], [2, 3, 4], [100, 200]]


async def test_the_oldest_item_comes_first_and_is_joined_by_those_most_like_it_in_size() -> None:
    model = Model()
    batcher = Batcher("test", model.run, batch_size=2, size=lambda item: item)
    tasks = await submitted(batcher, [1, 100, 7, 90, 8])
    model.open()
    await asyncio.gather(*tasks)
    assert model.batches == [[1], [100, 90], [7, 8]]


async def test_a_batch_keeps_to_its_budget_but_for_one_large_item() -> None:
    model = Model()
    batcher = Batcher("test", model.run, batch_size=8, budget=10, size=lambda item: item)
    tasks = await submitted(batcher, [1, 30, 6, 4, 3])
    model.open()
    await asyncio.gather(*tasks)
    assert model.batches == [[1], [30], [6, 4], [3]]


async def test_as_many_batches_run_at_once_as_there_are_threads() -> None:
    model = Model()
    tasks = await submitted(Batcher("test", model.run, batch_size=1, threads=2), [1, 2, 3])
    assert model.batches == [[1], [2]]
    model.open()
    assert await asyncio.gather(*tasks) == [2, 4, 6]


async def test_what_no_client_waits_for_is_never_computed() -> None:
    model = Model()
    batcher = Batcher("test", model.run, batch_size=4)
    tasks = await submitted(batcher, [1, 2, 3])
    tasks[1].cancel()
    model.open()
    assert await asyncio.gather(tasks[0], tasks[2]) == [2, 6]
    assert model.batches == [[1], [3]]


async def test_what_comes_too_late_is_told_and_not_computed() -> None:
    model = Model()
    batcher = Batcher("test", model.run, batch_size=4)
    tasks = await submitted(batcher, [1])
    late = asyncio.create_task(batcher.submit(2, after(0.01)))
    await asyncio.sleep(0.05)
    model.open()
    assert await tasks[0] == 2
    with pytest.raises(DeadlinePassed):
        await late
    assert model.batches == [[1]]


async def test_one_poisoned_item_fails_alone() -> None:
    model = Model(poison=3)
    tasks = await submitted(Batcher("test", model.run, batch_size=4), [1, 2, 3, 4])
    model.open()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [answers[0], answers[1], answers[3]] == [2, 4, 8]
    assert isinstance(answers[2], ModelFailed)
    assert model.batches == [[1], [2, 3, 4], [2], [3], [4]]


async def test_a_retry_leaves_out_what_no_client_waits_for_any_more() -> None:
    model = Model(poison=3)
    batcher = Batcher("test", model.run, batch_size=8)
    tasks = await submitted(batcher, [1, 2, 3, 4, 5])
    late = asyncio.create_task(batcher.submit(6, after(0.1)))
    await asyncio.sleep(0.02)
    model.open(1)
    await asyncio.sleep(0.15)  # the batch of five waits in `run` while one client leaves and one deadline passes
    tasks[1].cancel()
    model.open()
    answers = await asyncio.gather(*tasks, late, return_exceptions=True)
    assert [answers[0], answers[3], answers[4]] == [2, 8, 10]
    assert isinstance(answers[1], asyncio.CancelledError)
    assert isinstance(answers[2], ModelFailed)
    assert isinstance(answers[5], DeadlinePassed)
    assert model.batches == [[1], [2, 3, 4, 5, 6], [3], [4], [5]]


async def test_after_a_failure_the_next_one_is_computed() -> None:
    model = Model(poison=1)
    model.open()
    batcher = Batcher("test", model.run, batch_size=1)
    with pytest.raises(ModelFailed, match="^ValueError at .* run "):
        await batcher.submit(1)
    assert (await batcher.submit(2)).value == 4


async def test_the_work_is_counted_for_the_autoscaler() -> None:
    model = Model()
    batcher = Batcher("test", model.run, batch_size=2, threads=2)
    tasks = await submitted(batcher, [1, 2, 3, 4])
    model.open()
    await asyncio.gather(*tasks)
    assert batcher.work.counts["served"] == 4
    assert 0 < batcher.work.counts["busy_s"] < 10
