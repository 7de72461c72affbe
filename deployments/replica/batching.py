"""Requests that wait at the same stage are computed together, beside the event loop of its replica.

A batch starts as soon as a model thread is free, with the items that wait then: delaying it to fill it up would cost
time, and items gather anyway while the batch before it is computed. The item that has waited longest comes first and is
joined by those most like it in size, since a batch takes as long as its largest item. Items that no client waits for
any more (it left, or the deadline passed) are dropped before they are computed. An item that cannot be computed fails
alone. Where long items hold a thread, short ones have one more, and batches of their own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from deployments.replica.deadline import NEVER, DeadlinePassed, remaining
from deployments.replica.execution import Timed, Work, timed
from deployments.replica.faults import ModelFailed, told
from deployments.replica.health import NOT_OF_THE_REPLICA, Health, HealthLimits
from deployments.telemetry.requests import BatchMember, batch_member, note_batch

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(eq=False, slots=True)
class _Waiting(Generic[Item, Result]):
    item: Item
    size: int
    deadline: float
    member: BatchMember = field(default_factory=batch_member)
    done: asyncio.Future[Timed[Result]] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def is_wanted(self) -> bool:
        """Whether a client still waits for it; fails it where its deadline has passed."""
        if not self.done.done() and remaining(self.deadline) <= 0:
            self.done.set_exception(DeadlinePassed("the deadline passed before a model was free"))
        return not self.done.done()


class Batcher(Generic[Item, Result]):
    """Runs a model for one replica. `work` counts what it did, `health` how it went.

    Args:
        name: of the stage.
        run: computes a batch: a result for each item, in order. Called in a thread.
        batch_size: items at once, at most.
        budget: sizes of a batch, added up, at most; a single item may be larger. None has no such limit.
        size: of an item, such as its frames.
        counts: whether an item is a request, and not more work for one that was counted.
        alone: whether an item is a batch of its own, since `run` computes it no faster beside others.
        threads: batches at once; `run` must be safe to be called from as many.
        express: larger items are long: while one computes, the others have one thread more. None: no item is.
        limits: when the replica is sick.
    """

    def __init__(
        self,
        name: str,
        run: Callable[[Sequence[Item]], Sequence[Result]],
        *,
        batch_size: int,
        budget: int | None = None,
        size: Callable[[Item], int] = lambda _: 1,
        counts: Callable[[Item], bool] = lambda _: True,
        alone: Callable[[Item], bool] = lambda _: False,
        threads: int = 1,
        express: int | None = None,
        limits: HealthLimits | None = None,
    ) -> None:
        self._name, self._run, self._size, self._counts, self._alone = name, run, size, counts, alone
        self._batch_size, self._budget, self._express = batch_size, budget, express
        self._threads, self._running, self._running_long = threads, 0, 0  # batches
        self._has_express = False  # whether short items compute on the thread that they have more
        self._executor = ThreadPoolExecutor(threads + (express is not None), thread_name_prefix=name)
        self.work = Work(threads)
        self.health = Health(name, limits)
        self._waiting: list[_Waiting[Item, Result]] = []
        self._batches: set[asyncio.Task[None]] = set()  # a task without a reference may be collected

    async def submit(self, item: Item, deadline: float = NEVER) -> Timed[Result]:
        """The result for an item, with the milliseconds that its batch computed.

        Raises:
            deployments.replica.deadline.DeadlinePassed: it could not start in time.
            deployments.replica.faults.ModelFailed: `run` raised something for this very item; what is in
                `deployments.replica.health.NOT_OF_THE_REPLICA` is raised as it is.
        """
        waiting = _Waiting[Item, Result](item, self._size(item), deadline)
        self._waiting.append(waiting)
        # Items that the stage before answered together arrive in one turn of the loop, and are computed together
        asyncio.get_running_loop().call_soon(self._start_batches)
        return await waiting.done  # cancelled where the client leaves, and then left out of every batch

    def _start_batches(self) -> None:
        while True:
            self._waiting = [each for each in self._waiting if each.is_wanted()]
            startable = self._waiting
            is_express = self._running == self._threads
            if is_express:  # a thread that an ordinary batch leaves is for whoever waits longest, long items too
                is_open = self._running_long and not self._has_express
                startable = [each for each in self._waiting if is_open and not self._is_long(each)]
            if not startable:
                return
            batch = self._batch_of(startable)
            self._count(batch, 1, is_express)
            task = asyncio.get_running_loop().create_task(self._compute(batch, is_express))
            self._batches.add(task)
            task.add_done_callback(self._batches.discard)

    def _batch_of(self, startable: Sequence[_Waiting[Item, Result]]) -> list[_Waiting[Item, Result]]:
        first, *others = startable
        batch, total = [first], first.size
        like_it = [
            each
            for each in ([] if self._alone(first.item) else others)
            if self._is_long(each) == self._is_long(first) and not self._alone(each.item)
        ]
        for each in sorted(like_it, key=lambda each: abs(each.size - first.size)):
            if len(batch) == self._batch_size:
                break
            if self._budget is None or total + each.size <= self._budget:
                batch.append(each)
                total += each.size
        self._waiting = [each for each in self._waiting if each not in batch]
        return batch

    def _is_long(self, item: _Waiting[Item, Result]) -> bool:
        return self._express is not None and item.size > self._express

    async def _compute(self, batch: Sequence[_Waiting[Item, Result]], is_express: bool) -> None:
        try:
            await self._answer(batch)
        finally:
            self._count(batch, -1, is_express)
            self._start_batches()

    def _count(self, batch: Sequence[_Waiting[Item, Result]], change: int, is_express: bool) -> None:
        if is_express:
            self._has_express = change > 0
            return
        self._running += change
        self._running_long += change * self._is_long(batch[0])

    async def _answer(self, batch: Sequence[_Waiting[Item, Result]]) -> None:
        loop, started_ns = asyncio.get_running_loop(), time.time_ns()
        try:
            answer = await loop.run_in_executor(self._executor, self._watched, [each.item for each in batch])
        except Exception as error:
            if len(batch) > 1:  # one item is to blame: each is tried by itself, if its client still waits by then
                for each in batch:
                    if each.is_wanted():
                        await self._answer([each])
            elif not batch[0].done.done():
                known = isinstance(error, NOT_OF_THE_REPLICA)
                batch[0].done.set_exception(error if known else ModelFailed(told(error)))
            return
        self.work.add(sum(self._counts(each.item) for each in batch), answer.compute_ms)
        total = sum(each.size for each in batch) if self._budget is not None else None
        note_batch(self._name, [each.member for each in batch], started_ns, total)
        for each, result in zip(batch, answer.value, strict=True):
            if not each.done.done():
                each.done.set_result(Timed(result, answer.compute_ms))

    def _watched(self, items: Sequence[Item]) -> Timed[Sequence[Result]]:
        with self.health.batch(len(items)):
            return timed(self._run, items)
