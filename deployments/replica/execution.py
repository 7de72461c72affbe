"""Runs a model beside the event loop of its replica, and says how long it took.

A loop that computes cannot answer health checks or take the next request, so every model runs in a thread of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Generic, ParamSpec, TypeVar

from deployments.replica.faults import ModelFailed, told
from deployments.replica.health import NOT_OF_THE_REPLICA, Health, HealthLimits
from deployments.replica.resources import assigned

SERVED, BUSY_S = "served", "busy_s"

Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")


@dataclass(frozen=True, slots=True)
class Timed(Generic[Result]):
    """What a stage made and the milliseconds that it computed: waiting and travelling are not in it."""

    value: Result
    compute_ms: float


def timed(function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs) -> Timed[Result]:
    """The function's result and how long it took."""
    started = time.perf_counter()
    result = function(*args, **kwargs)
    return Timed(result, 1000 * (time.perf_counter() - started))


class Work:
    """What a replica has done since it started: `deployments.autoscaling` reads it.

    Args:
        threads: that compute side by side.
    """

    def __init__(self, threads: int = 1) -> None:
        self._threads = threads
        # Requests, and seconds in which the whole replica was busy; and what Ray gave it, which does not change
        self.counts = {SERVED: 0.0, BUSY_S: 0.0, **assigned()}

    def add(self, requests: int, compute_ms: float) -> None:
        """A batch is done."""
        self.counts[SERVED] += requests
        self.counts[BUSY_S] += compute_ms / 1000 / self._threads


class ModelThread:
    """One thread, since one model is run by one caller at a time. `work` counts what it did, `health` how it went."""

    def __init__(self, name: str, limits: HealthLimits | None = None) -> None:
        self.work = Work()
        self.health = Health(name, limits)
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    async def run(
        self, function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Timed[Result]:
        """The function's result.

        Raises:
            ModelFailed: it raised something that is not in `NOT_OF_THE_REPLICA`; those are raised here.
        """
        call = partial(self._watched, partial(timed, function, *args, **kwargs))
        try:
            answer = await asyncio.get_running_loop().run_in_executor(self._executor, call)
        except NOT_OF_THE_REPLICA:
            raise
        except Exception as error:
            raise ModelFailed(told(error)) from None
        self.work.add(1, answer.compute_ms)
        return answer

    def _watched(self, call: Callable[[], Timed[Result]]) -> Timed[Result]:
        with self.health.batch(1):
            return call()
