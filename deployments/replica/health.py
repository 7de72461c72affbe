"""Whether a replica still does its work: Ray Serve asks each one, and replaces one that says it does not.

A stage that fails every request answers fastest, so the router would send it more and more; a model thread that hangs
answers nothing, and its event loop goes on saying that the process lives. Both are seen here, from real requests.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from amser.errors import SignalError
from deployments.replica.deadline import DeadlinePassed
from deployments.telemetry.metrics import replica_memory

# Errors that say nothing of the replica: what a client sent is refused, or its time had passed
NOT_OF_THE_REPLICA: Final = (SignalError, DeadlinePassed)


class Unhealthy(RuntimeError):  # noqa: N818 - an error by its base class
    """The replica should be replaced."""


@dataclass(frozen=True, slots=True)
class HealthLimits:
    """When a replica is sick.

    Attributes:
        failures: requests in a row that failed.
        longest_batch_s: age of a batch that still computes.
    """

    failures: int = 5
    longest_batch_s: float = 60.0


class Health:
    """Counts what the model threads of one replica did. Safe to be used from all of them.

    Args:
        name: of the stage.
        limits: when it is sick.
        clock: seconds that never go back.
    """

    def __init__(
        self, name: str, limits: HealthLimits | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._name, self._limits, self._clock = name, limits or HealthLimits(), clock
        self._lock = threading.Lock()
        self._running: dict[object, float] = {}  # since when each batch computes
        self._failures = 0
        self._last_error = ""

    @contextmanager
    def batch(self, requests: int) -> Iterator[None]:
        """Around the computing of a batch, in its thread: waiting for a thread is no sign of a hang.

        A batch of several that fails counts for nothing, since its requests are then tried one by one.
        """
        batch = object()
        with self._lock:
            self._running[batch] = self._clock()
        try:
            yield
        except NOT_OF_THE_REPLICA:
            raise
        except Exception as error:
            if requests == 1:
                self._failed(error)
            raise
        else:
            with self._lock:
                self._failures = 0
        finally:
            with self._lock:
                del self._running[batch]

    def check(self) -> None:
        """Returns where the replica is well.

        Raises:
            Unhealthy: too many requests in a row failed, or a batch does not end.
        """
        replica_memory.show(self._name)
        with self._lock:
            failures, oldest = self._failures, min(self._running.values(), default=None)
        if failures >= self._limits.failures:
            raise Unhealthy(f"{self._name}: the last {failures} requests failed, the last one with {self._last_error}")
        if oldest is not None and (age_s := self._clock() - oldest) > self._limits.longest_batch_s:
            raise Unhealthy(f"{self._name}: a batch has been computing for {age_s:.0f} s")

    def _failed(self, error: Exception) -> None:
        with self._lock:
            self._failures += 1
            self._last_error = type(error).__name__  # its text may hold what somebody said
