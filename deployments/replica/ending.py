"""Notices that Serve is ending a replica: one that is to end is not asked for its health any more.

Serve waits for the requests of such a replica before it tells the replica anything, and a socket is a request that does
not end by itself. Where nobody asks because the controller is down, the same is done, which costs nobody an answer.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Callable
from typing import Final

SILENCE_S: Final = 12.0  # more than two periods of the shipped configurations, less than half of the time to end in
PERIODS: Final = 2.5  # the same for those with a longer period: the last one counts


class Ending:
    """Of this replica.

    Args:
        begins: called when nobody has asked for a while; again, where somebody asks after that and stops once more.
        clock: seconds, of a clock that only goes forwards.
    """

    def __init__(self, begins: Callable[[], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._begins, self._clock = begins, clock
        self._asked_at: float | None = None
        self._period_s = 0.0
        self._is_told = False
        self._watching: asyncio.Task[None] | None = None

    def asked(self) -> None:
        """Serve has asked for the health; call it on the event loop."""
        now = self._clock()
        if self._asked_at is not None:
            self._period_s = now - self._asked_at
        self._asked_at, self._is_told = now, False
        if self._watching is None or self._watching.done():
            # In no request's context: Serve cancels what a request has begun when its client leaves
            self._watching = asyncio.get_running_loop().create_task(self._watch(), context=contextvars.Context())

    def look(self) -> None:
        """Calls `begins` if it is time."""
        silent_s = max(SILENCE_S, PERIODS * self._period_s)
        if self._asked_at is not None and not self._is_told and self._clock() - self._asked_at > silent_s:
            self._is_told = True
            self._begins()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(1)
            self.look()
