"""The same without an event loop of one's own."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress

from numpy.typing import ArrayLike

from amser.client.stream.asynchronous import StreamClient
from amser.client.stream.messages import Event, StreamSettings


def stream(pieces: Iterable[ArrayLike], settings: StreamSettings = StreamSettings()) -> Iterator[Event]:  # noqa: B008
    """What the cluster says of speech. Whoever stops reading ends the stream.

    Args:
        pieces: floating point, 16 kHz, as they are recorded; read in a thread. Their end is that of the utterance.
        settings: how.

    Raises:
        StreamFailed: the cluster has ended the stream, or cannot be reached.
        Exception: what `pieces` raises.
    """
    events: queue.Queue[Event | BaseException | None] = queue.Queue()
    running: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[None]]] = []

    async def run() -> None:
        task = asyncio.current_task()
        assert task is not None
        running.append((asyncio.get_running_loop(), task))
        async with StreamClient(settings) as client:
            speaking = asyncio.create_task(speak(client))
            async for event in client.events():
                events.put(event)
                if event.type != "partial" and speaking.done() and not client.waiting:
                    break
            await speaking

    async def speak(client: StreamClient) -> None:
        source = iter(pieces)
        try:
            while (piece := await asyncio.to_thread(next, source, None)) is not None:
                client.send(piece)
            if not client.end():
                client.stop()
        except BaseException:  # nothing more is to come, so nobody waits for it
            client.stop()
            raise

    def main() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:
            events.put(error)
        else:
            events.put(None)

    thread = threading.Thread(target=main, name="stream", daemon=True)
    thread.start()
    try:
        while (event := events.get()) is not None:
            if isinstance(event, BaseException):
                raise event
            yield event
    finally:
        if thread.is_alive() and running:
            loop, task = running[0]
            with suppress(RuntimeError):  # it has just ended
                loop.call_soon_threadsafe(task.cancel)
