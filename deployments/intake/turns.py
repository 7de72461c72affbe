"""Requests of one client begin in turns, so that a burst of one does not hold up the requests of another.

What a request costs Ray's proxy and the gateway's event loop, it costs at its beginning: some milliseconds each, in the
order of arrival. A thousand at once are seconds, for which every neighbour would wait.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

# A turn ends with the answer, or after so long: what takes longer waits for others, and costs the event loops nothing.
# So a client with slow answers is not held below the rate that a proxy can take on
TURN_S: Final = 0.1


@dataclass(slots=True)
class _Lane:
    """Attributes:
    turns: that are free.
    users: requests that have one or wait for one.
    """

    turns: asyncio.Semaphore
    users: int = 0


class Turns:
    """Used from one event loop.

    Args:
        of_a_client: requests of one lane that begin at once.
    """

    def __init__(self, of_a_client: int) -> None:
        self._lanes: dict[Hashable, _Lane] = defaultdict(lambda: _Lane(asyncio.Semaphore(of_a_client)))

    @property
    def lanes(self) -> int:
        """In which a request is under way or waits."""
        return len(self._lanes)

    @asynccontextmanager
    async def turn(self, lane: Hashable) -> AsyncIterator[None]:
        """Waits, behind those of the same lane alone, until the request may begin; it ends when the context is left.

        Args:
            lane: the client, or a part of what it asks for that must not wait for the rest.
        """
        it = self._lanes[lane]
        it.users += 1
        try:
            await it.turns.acquire()
            over = asyncio.get_running_loop().call_later(TURN_S, it.turns.release)
            try:
                yield
            finally:
                if over.when() > asyncio.get_running_loop().time():
                    over.cancel()
                    it.turns.release()
        finally:
            it.users -= 1
            if not it.users:
                del self._lanes[lane]
