"""Looks at the words so far, while somebody speaks: at most one of a socket at a time, and few of a replica.

A look is a whole recognition. The one whose speech is all of the utterance's is the final answer already.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

from deployments.pipeline import Recognition
from deployments.replica.faults import told
from deployments.settings import StreamSettings

logger = logging.getLogger("ray.serve")  # the logger that Serve writes to its files

LEAST_S: Final = 0.6  # of speech: less is not understood
MORE_S: Final = 0.3  # of speech since the last look

Recognize = Callable[[int], Awaitable[Recognition]]


class Looks:
    """Of one socket.

    Args:
        settings: how often.
        turns: of the replica.
        recognize: the utterance up to the end of a message, counted from its first.
        show: what a look has heard.
    """

    def __init__(
        self,
        settings: StreamSettings,
        turns: asyncio.Semaphore,
        recognize: Recognize,
        show: Callable[[Recognition], Awaitable[None]],
    ) -> None:
        self._settings, self._turns, self._recognize, self._show = settings, turns, recognize, show
        self._task: asyncio.Task[Recognition | None] | None = None
        self._count = 0  # messages that the last look has heard, or hears
        self._heard_s = 0.0
        self._not_before = 0.0
        self._begun = False

    def consider(self, count: int, seconds: float, paused: bool) -> None:
        """Has a look where it is time for one, or where a pause may be the end of the utterance.

        Args:
            count: messages of the utterance so far.
            seconds: of speech in them.
            paused: whether somebody has just stopped speaking.
        """
        running = self._task is not None and not self._task.done()
        if running and not (paused and not self._begun):
            return
        due = time.monotonic() >= self._not_before and seconds - self._heard_s >= MORE_S
        if seconds < LEAST_S or count == self._count or not (due or paused):
            return
        if self._task is not None:
            self._task.cancel()
        self._count, self._heard_s, self._begun = count, seconds, False
        self._task = asyncio.create_task(self._look(count))

    async def take(self, count: int) -> Recognition | None:
        """What a look has heard of exactly these messages, once it is done; None where no look has begun to.

        Whatever other look there was is given up, and the next utterance begins.
        """
        task, covers = self._task, self._count == count and (self._begun)
        self._task, self._count, self._heard_s = None, 0, 0.0
        if task is None:
            return None
        if not covers:
            task.cancel()
            return None
        recognition = await task
        return None if recognition is None or recognition.left_out else recognition

    def close(self) -> None:
        """No look is wanted any longer."""
        if self._task is not None:
            self._task.cancel()

    async def _look(self, count: int) -> Recognition | None:
        wanted = time.monotonic()
        recognition = None
        try:
            async with self._turns:
                self._begun = True
                recognition = await self._recognize(count)
        except Exception as error:  # no room, or nothing to hear in it: the final answer says which
            logger.debug("a look has heard nothing: %s", told(error))
        took_s = time.monotonic() - wanted
        self._not_before = wanted + max(self._settings.look_every_s, took_s / self._settings.look_load)
        if recognition is not None and self._task is asyncio.current_task():
            await self._show(recognition)
        return recognition
