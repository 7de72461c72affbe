"""The bodies of requests, while they are being read: how many, how large, how slow.

What is limited is the pace and not the time: a large file over a slow link arrives, a stalled one is cut off soon.
Where there are too many bodies, the slowest makes room, so that the next fast one is not refused.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from math import exp
from tempfile import TemporaryFile
from typing import BinaryIO, Final

from deployments.intake.limits import BodySettings

# The slowest is the one of which least came lately: what it sent counts a third after so long. A new body counts as if
# so much of it had come just now, so that it has its chance; one that keeps its pace has more to its name soon
MEMORY_S: Final = 2.0
# A body counts as being on its way after so long: one that comes at once does not push out another, however many there
# are. Its bytes count from the first
COUNTED_AFTER_S: Final = 0.25
HEAD_START: Final = 16_384  # bytes


class BodyTooSlow(Exception):  # noqa: N818 - an error by its base class
    """A body paused for too long, or comes too slowly.

    Attributes:
        received: bytes.
        took_s: seconds.
    """

    def __init__(self, received: int, took_s: float) -> None:
        super().__init__(f"{received} bytes of the body came in {took_s:.1f} s, and then too little")
        self.received, self.took_s = received, took_s


class TooManyBodies(Exception):  # noqa: N818 - an error by its base class
    """A body made room for others, since it was the slowest; or there was no room to be made."""

    def __init__(self) -> None:
        super().__init__("more bodies are on their way than are read at once, and this one was the slowest")


class BodyTooLarge(Exception):  # noqa: N818 - an error by its base class
    """A body has more bytes than it may have."""


@dataclass(eq=False, slots=True)
class _Body:
    """Attributes:
    client: that sends it.
    due: when it is cut off if nothing more comes. A byte puts it off by 1 / pace, up to the grace from now.
    limit: that ends the reading then.
    at: moment of the last piece, on the loop's clock.
    size: bytes.
    lately: bytes, fading with `MEMORY_S`.
    """

    client: str
    due: float
    limit: asyncio.Timeout
    at: float
    size: int = 0
    lately: float = HEAD_START
    dropped: bool = False

    def came_lately(self, now: float) -> float:
        """What has faded until now."""
        return self.lately * exp((self.at - now) / MEMORY_S)


class Bodies:
    """All bodies that one process reads. Used from one event loop.

    Args:
        settings: how many, how slow.
        show: called with the number of bodies being read whenever it changes, for metrics.
    """

    def __init__(self, settings: BodySettings, show: Callable[[int], None] | None = None) -> None:
        self._settings, self._show = settings, show or (lambda _: None)
        self._reading: set[_Body] = set()
        self._of_clients: Counter[str] = Counter()
        self._held = 0  # bytes: of bodies being read, and of those not given back yet

    @property
    def reading(self) -> int:
        """Bodies that are not here yet."""
        return len(self._reading)

    @property
    def held_bytes(self) -> int:
        """Of bodies being read, and of those in use."""
        return self._held

    @asynccontextmanager
    async def received(self, pieces: AsyncIterator[bytes], client: str, largest: int) -> AsyncIterator[bytearray]:
        """The whole body; its bytes count until the context is left.

        Args:
            pieces: of the body, as they come.
            client: that sends it.
            largest: bytes that it may have.

        Raises:
            BodyTooSlow: it pauses or trickles.
            TooManyBodies: it had to make room, being the slowest.
            BodyTooLarge: it goes on beyond `largest`.
        """
        content = bytearray()
        size = await self._read(pieces, client, largest, content.extend)
        try:
            yield content
        finally:
            self._held -= size

    @asynccontextmanager
    async def spooled(self, pieces: AsyncIterator[bytes], client: str, largest: int) -> AsyncIterator[BinaryIO]:
        """The same in a file that has no name and ends with the context; it stands at its begin."""
        with TemporaryFile() as file:
            size = await self._read(pieces, client, largest, file.write)
            try:
                file.seek(0)
                yield file
            finally:
                self._held -= size

    async def _read(
        self, pieces: AsyncIterator[bytes], client: str, largest: int, keep: Callable[[bytes], object]
    ) -> int:
        """Its bytes, which are counted in `_held` when this returns, and not where it raises."""
        began = asyncio.get_running_loop().time()
        due = began + self._settings.grace_s
        limit = asyncio.timeout_at(due)
        body = _Body(client, due, limit, began)
        entering = asyncio.get_running_loop().call_later(COUNTED_AFTER_S, self._enter, body)
        try:
            async with limit:
                async for piece in pieces:
                    keep(piece)
                    self._arrived(body, len(piece))
                    if body.size > largest and not body.dropped:
                        raise BodyTooLarge
        except BaseException as error:
            if not body.dropped:
                self._held -= body.size
            if isinstance(error, TimeoutError) and limit.expired():
                if body.dropped:
                    raise TooManyBodies from None
                raise BodyTooSlow(body.size, asyncio.get_running_loop().time() - began) from None
            raise
        finally:
            entering.cancel()
            self._leave(body)
        if body.dropped:  # its last piece came with the decision
            raise TooManyBodies
        return body.size

    def _enter(self, body: _Body) -> None:
        if self._of_clients[body.client] >= self._settings.of_a_client:
            self._drop_slowest(other for other in self._reading if other.client == body.client)
        if len(self._reading) >= self._settings.at_once:
            self._drop_slowest(self._reading)
        self._reading.add(body)
        self._of_clients[body.client] += 1
        self._show(len(self._reading))

    def _leave(self, body: _Body) -> None:
        if body in self._reading:
            self._reading.remove(body)
            self._of_clients[body.client] -= 1
            if not self._of_clients[body.client]:
                del self._of_clients[body.client]
            self._show(len(self._reading))

    def _arrived(self, body: _Body, count: int) -> None:
        """Puts off the moment at which the body is cut off, and makes room for its bytes."""
        if body.dropped:
            return
        now = asyncio.get_running_loop().time()
        body.lately = body.came_lately(now) + count
        body.at = now
        body.size += count
        self._held += count
        body.due = min(now + self._settings.grace_s, body.due + count / self._settings.pace)
        body.limit.reschedule(body.due)
        while self._held > self._settings.held_bytes and any(other.size for other in self._reading):
            self._drop_slowest(other for other in self._reading if other.size)
        if self._held > self._settings.held_bytes:  # all of it is in use
            self._drop(body)

    def _drop_slowest(self, among: Iterable[_Body]) -> None:
        now = asyncio.get_running_loop().time()
        self._drop(min(among, key=lambda body: body.came_lately(now)))

    def _drop(self, body: _Body) -> None:
        body.dropped = True
        self._held -= body.size
        self._leave(body)
        if not body.limit.expired():
            body.limit.reschedule(asyncio.get_running_loop().time())
