"""Cores that running jobs share: the processor sharing that an operating system's scheduler comes close to.

All jobs progress alike, so each needs one number: the virtual time at which it ends (as in fair queueing, Demers,
Keshav and Shenker 1989). What is next stands on top of a heap; nothing is counted down.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Final

from simpy import Environment, Event

EARLIEST_S: Final = 1e-9  # of work left that counts as none: far above the rounding, far below what is measured


class Machine:
    """A node's cores, or with `cores=1` a GPU in time slices.

    Each of n jobs progresses at min(1, cores / n), and slower where busy cores hinder each other.

    Args:
        environment: whose time passes.
        cores: that jobs share; a job uses one at most.
        contention: CPU seconds that a job costs while every core is busy, against those it costs alone; between the
            two it grows evenly with the busy cores.
    """

    def __init__(self, environment: Environment, cores: int, contention: float = 1.0) -> None:
        self._environment = environment
        self._cores = cores
        slower = (contention - 1.0) / max(1, cores - 1)
        self._speed = [1.0, *(1.0 / (1.0 + slower * (busy - 1)) for busy in range(1, cores + 1))]
        self._jobs: list[tuple[float, int, Callable[[], None]]] = []  # (virtual end, number, what to call then)
        self._number = 0
        self._virtual_s = 0.0
        self._rate = 1.0
        self._updated_s = 0.0
        self._timer: Event | None = None
        self._timer_s = 0.0
        self._is_ending = False
        self._busy_core_s = 0.0

    @property
    def busy_core_s(self) -> float:
        """Core-seconds that jobs were running, until now."""
        self._advance()
        return self._busy_core_s

    def run(self, work_s: float, done: Callable[[], None]) -> None:
        """Starts a job of so many CPU seconds; `done` is called when they are over."""
        self._advance()
        self._number += 1
        heappush(self._jobs, (self._virtual_s + work_s, self._number, done))
        self._share()

    def _advance(self) -> None:
        now_s = self._environment.now
        passed_s = now_s - self._updated_s
        if passed_s > 0.0:
            self._virtual_s += self._rate * passed_s
            self._busy_core_s += min(len(self._jobs), self._cores) * passed_s
            self._updated_s = now_s

    def _share(self) -> None:
        """Sets a timer for the end of the first job. A timer that fires too early costs less than cancelling one."""
        if self._is_ending or not self._jobs:
            return
        running = len(self._jobs)
        self._rate = self._speed[running] if running <= self._cores else self._speed[-1] * self._cores / running
        delay_s = max(0.0, self._jobs[0][0] - self._virtual_s) / self._rate
        due_s = self._environment.now + delay_s
        if self._timer is None or due_s < self._timer_s:
            self._timer, self._timer_s = self._environment.timeout(delay_s), due_s
            self._timer.callbacks.append(self._on_timer)

    def _on_timer(self, timer: Event) -> None:
        if timer is not self._timer:  # another one was due before it
            return
        self._timer = None
        self._advance()
        self._is_ending = True  # jobs that follow are counted once, below
        while self._jobs and self._jobs[0][0] - self._virtual_s <= EARLIEST_S:
            heappop(self._jobs)[2]()
        self._is_ending = False
        self._share()
