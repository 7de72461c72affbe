"""A server on a simulated clock behind the gateway's admission control: one piece of work after the other, in order.

What a client that leaves is waiting for is dropped; what is computed already is computed to the end, as a model thread
does.
"""

from __future__ import annotations

import heapq
from asyncio import CancelledError
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from math import inf

from deployments.gateway.utterances.admission import FIXED_WORK, Admission, Overloaded
from deployments.pipeline import Effort

COSTS = {Effort.WHOLE: 1.0, Effort.WORDS: 0.8, Effort.VOICE: 0.1}  # of the work of a request


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass(eq=False)
class Asked:
    """A request and what became of it.

    Attributes:
        client: that sent it.
        at: the moment.
        effort: that it was admitted with; None where it was refused.
        is_probe: as which it was admitted.
        refused: what a refused client is told.
        took_s: until the answer; None where there was none.
        ended: `answered`, `late`, `left` or `refused`; empty before.
        running: in the gateway's books.
        then: called once it has ended.
    """

    client: str
    at: float
    then: Callable[[Asked], None]
    effort: Effort | None = None
    is_probe: bool = False
    refused: Overloaded | None = None
    took_s: float | None = None
    ended: str = ""
    running: AbstractContextManager[object] = field(default_factory=nullcontext)

    @property
    def is_whole(self) -> bool:
        """Whether it was answered with everything."""
        return self.ended == "answered" and self.effort is Effort.WHOLE

    def end(self, ended: str, error: BaseException | None = None) -> None:
        """Once; whatever comes after is ignored."""
        if not self.ended:
            self.ended = ended
            with suppress(type(error)) if error else nullcontext():
                self.running.__exit__(type(error) if error else None, error, None)
            self.then(self)


@dataclass
class Server:
    """The server and its gateway.

    Args:
        work_per_s: that it does; may be changed while it runs, 0 is a standstill.
    """

    work_per_s: float
    degrade: bool = False
    client_share: float = 0.5
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.gateway = Admission(self.degrade, self.clock, self.client_share)
        self.asked: list[Asked] = []
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._order = count()
        self._waiting: deque[tuple[Asked, float]] = deque()
        self._is_busy = False

    def at(self, moment: float, event: Callable[[], object]) -> None:
        """Something happens at a moment."""
        heapq.heappush(self._events, (moment, next(self._order), event))

    def run(self, until: float = inf) -> None:
        """Up to a moment, or until nothing is left to happen."""
        while self._events and self._events[0][0] <= until:
            moment, _, event = heapq.heappop(self._events)
            self.clock.now = max(self.clock.now, moment)
            event()
        if until < inf:
            self.clock.now = until

    def ask(
        self,
        client: str,
        speech_s: float,
        within_s: float,
        *,
        leaves_after_s: float = inf,
        strict: bool = False,
        then: Callable[[Asked], None] = lambda _: None,
    ) -> Asked:
        """A request of now."""
        asked = Asked(client, self.clock.now, then)
        self.asked.append(asked)
        try:
            admitted = self.gateway.admit(speech_s, within_s, strict, client)
        except Overloaded as refused:
            asked.refused = refused
            asked.end("refused")
            return asked
        asked.effort, asked.is_probe, asked.running = admitted.effort, admitted.is_probe, admitted.running()
        asked.running.__enter__()
        self.at(self.clock.now + within_s, lambda: asked.end("late", TimeoutError()))
        if leaves_after_s < within_s:
            self.at(self.clock.now + leaves_after_s, lambda: asked.end("left", CancelledError()))
        self._waiting.append((asked, COSTS[admitted.effort] * (FIXED_WORK + speech_s)))
        self._start()
        return asked

    def resume(self, work_per_s: float) -> None:
        """The server goes on at another speed; what it computes already keeps its own."""
        self.work_per_s = work_per_s
        self._start()

    def _start(self) -> None:
        while self._waiting and not self._is_busy and self.work_per_s:
            asked, work = self._waiting.popleft()
            if not asked.ended:
                self._is_busy = True
                self.at(self.clock.now + work / self.work_per_s, partial(self._finish, asked))

    def _finish(self, asked: Asked) -> None:
        self._is_busy = False
        if not asked.ended:
            asked.took_s = self.clock.now - asked.at
            asked.end("answered")
        self._start()
