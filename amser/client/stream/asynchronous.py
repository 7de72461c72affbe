"""Speech to the cluster while it is spoken, and what it says meanwhile (docs/stream.md is the protocol).

`StreamClient` sends, keeps what has no answer yet, and after a cut connects again and sends what is missing: the
cluster takes every message once, also where another replica answers.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Final, NoReturn

import numpy as np
from numpy.typing import ArrayLike
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from amser.client.credentials import bearer
from amser.client.frontend import StreamingLogMel
from amser.client.stream.messages import (
    Busy,
    End,
    Event,
    StreamFailed,
    StreamSettings,
    ended,
    event_of,
    given_up,
    refused,
)
from amser.codecs.klt import HEADER, STREAM, USUAL_LEVEL, StreamEncoder, step_index
from amser.codecs.klt_tables import BASIS_VERSION, level_index
from amser.features import AudioError

PROTOCOL: Final = "amser.v1"
MESSAGE_SAMPLES: Final = 5120  # 320 ms: fewer messages cost fewer bytes, and words come a little later
FIRST_PAUSE_S: Final = 0.1  # between two attempts to connect; twice as long each time
LONGEST_PAUSE_S: Final = 5.0
LIVES_S: Final = 10.0  # between two signs of life, also in a pause
WINDOW: Final = 32  # messages that may be on their way: more would only fill buffers of a proxy
FULL_SCALE: Final = 32767


class StreamClient:
    """One speaker: an asynchronous context. `send` and `end` from one task, iterate `events` in another."""

    def __init__(self, settings: StreamSettings) -> None:
        self._settings = settings
        self._log_mel = StreamingLogMel(frontend=settings.frontend)
        self._encoder = StreamEncoder(settings.step)
        self._begun, self._frames = False, 0  # of the encoder's utterance
        self._samples = np.zeros(0, np.float32)  # that make no message yet
        self._kept: deque[bytes] = deque()  # messages that may be wanted again
        self._first = 0  # number of the first of them
        self._sent = 0  # number of the next message that goes out over this connection
        self._acknowledged = 0  # number of the first message that may still be on its way
        self._ends: deque[End] = deque()  # of utterances without an answer
        self._end_sent = False  # that of the first; a second one would hide it where there was no room for the first
        self._ended_at = 0
        self._utterance = 0  # whose answer comes next
        self._session: str | None = None
        self._connection: ClientConnection | None = None
        self.last_cut = ""  # what ended the last connection
        self._events: asyncio.Queue[Event | BaseException | None] = asyncio.Queue()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._goes_on = False  # something was taken over this connection
        self.bytes_sent = 0
        self.connections = 0

    async def __aenter__(self) -> StreamClient:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing = True
        if self._connection is not None:
            await self._connection.close()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    @property
    def waiting(self) -> bool:
        """Whether an utterance that was ended has no answer yet."""
        return bool(self._ends)

    def send(self, samples: ArrayLike) -> None:
        """More speech: floating point, shape (samples,), 16 kHz, full scale ±1; any number of them."""
        self._samples = np.concatenate((self._samples, np.asarray(samples, np.float32)))
        while self._samples.size >= MESSAGE_SAMPLES:
            piece, self._samples = np.split(self._samples, [MESSAGE_SAMPLES])
            self._put(self._encoded(piece))

    def end(self) -> bool:
        """The utterance ends here; its answer is the next `final`. False where nothing was said since the last one."""
        if self._samples.size:
            self._put(self._encoded(self._samples))
            self._samples = self._samples[:0]
        frames = None
        if self._settings.format == "klt":
            with suppress(AudioError):  # too short: the cluster says so
                last = self._log_mel.finish()
                self._frames += last.shape[1]
                self._put(self._without_header(self._encoder.push(last)))
            self._put(self._without_header(self._encoder.finish()))
            frames, self._frames, self._begun = self._frames or None, 0, False
        at = self._first + len(self._kept)
        if at == self._ended_at:
            return False
        self._ended_at = at
        self._ends.append(End(at, frames))
        self._wake.set()
        return True

    def cut(self) -> None:
        """Cuts the link, as a dead spot does; the stream goes on over another one."""
        if self._connection is not None:
            self._connection.transport.abort()

    def stop(self) -> None:
        """Ends `events`, where no answer is to come."""
        self._events.put_nowait(None)

    async def events(self) -> AsyncIterator[Event]:
        """What the cluster says, until the stream is closed.

        Raises:
            StreamFailed: it has ended the stream, or cannot be reached.
        """
        while (event := await self._events.get()) is not None:
            if isinstance(event, BaseException):
                raise event
            yield event

    async def final(self) -> Event:
        """The next final answer; what comes before it is passed over. Raises StreamFailed."""
        async for event in self.events():
            if event.type != "partial":
                return event
        raise StreamFailed("the stream is closed")

    def _encoded(self, samples: Any) -> bytes:
        if self._settings.format == "pcm16":
            return bytes(
                np.clip(np.rint(samples * (FULL_SCALE + 1)), -FULL_SCALE - 1, FULL_SCALE).astype("<i2").tobytes()
            )
        frames = self._log_mel.push(samples)
        self._frames += frames.shape[1]
        return self._without_header(self._encoder.push(frames))

    def _without_header(self, blocks: bytes) -> bytes:
        if blocks and not self._begun:
            self._begun = True
            return blocks[HEADER:]
        return blocks

    def _put(self, message: bytes) -> None:
        if message:
            self._kept.append(message)
            self._wake.set()

    async def _run(self) -> None:
        try:
            await self._connected()
        except Exception as error:  # whoever waits for events is told, whatever it is
            self._events.put_nowait(error)

    async def _connected(self) -> None:
        loop = asyncio.get_running_loop()
        pause_s, lost_at = FIRST_PAUSE_S, loop.time()
        while not self._closing:
            error: Exception
            again_s, began, self._goes_on = 0.0, False, False
            try:
                async with connect(
                    self._address(),
                    additional_headers=bearer(self._settings.key),
                    subprotocols=[PROTOCOL],  # type: ignore[list-item]
                    ssl=self._settings.trusted,
                    compression=None,
                    max_size=1 << 20,
                ) as self._connection:
                    self.connections += 1
                    await self._started(self._connection)
                    began = True
                    await self._exchange(self._connection)
            except InvalidStatus as denied:
                again = denied.response.headers.get("Retry-After")
                if again is None and denied.response.status_code < 500:
                    self._events.put_nowait(refused(denied))
                    return
                error, again_s = denied, float(again or 0)
            except Busy as busy:
                error, self.last_cut, again_s, began = busy, str(busy), busy.again_s, self._goes_on
            except (OSError, ConnectionClosed, InvalidHandshake, TimeoutError) as cut:
                error, self.last_cut = cut, f"{type(cut).__name__}: {cut}"
            if began:
                pause_s, lost_at = FIRST_PAUSE_S, loop.time()
            if loop.time() + again_s - lost_at > self._settings.give_up_s:
                self._events.put_nowait(given_up(error))
                return
            await asyncio.sleep(max(again_s, min(pause_s, LONGEST_PAUSE_S)))
            pause_s *= 2
        self._events.put_nowait(None)

    def _address(self) -> str:
        return "ws" + self._settings.url.removeprefix("http").rstrip("/") + "/v1/stream"

    async def _started(self, connection: ClientConnection) -> None:
        chosen = self._settings
        start: dict[str, Any] = {"type": "start", "format": chosen.format, "ends": chosen.ends}
        if chosen.format == "klt":
            start["header"] = bytes((BASIS_VERSION | STREAM, step_index(chosen.step), level_index(USUAL_LEVEL))).hex()
        optional = {
            "language": chosen.language,
            "emotions": chosen.emotions,
            "words": chosen.words or None,
            "session": self._session,
        }
        start |= {name: value for name, value in optional.items() if value is not None}
        if self._first or self._utterance:
            start |= {"first": self._first, "utterance": self._utterance}
        await self._write(connection, json.dumps(start, separators=(",", ":")))
        ready = json.loads(await asyncio.wait_for(connection.recv(), self._settings.give_up_s))
        if ready["type"] == "error":
            raise ended(ready)
        self._session, self._sent, self._end_sent = ready["session"], ready["next"], False
        self._acknowledged = self._sent

    async def _exchange(self, connection: ClientConnection) -> NoReturn:
        """Until the connection ends; raises ConnectionClosed then."""
        writing = asyncio.create_task(self._write_on(connection))
        try:
            async for text in connection:
                self._read(json.loads(text))
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)  # it fails of the cut too, which is told below
        raise ConnectionClosed(connection.protocol.close_rcvd, connection.protocol.close_sent)

    async def _write_on(self, connection: ClientConnection) -> None:
        while True:
            self._wake.clear()
            while self._next_due() is not None:
                due = self._next_due()
                if isinstance(due, End):
                    end: dict[str, Any] = {"type": "end", "at": due.at}
                    await self._write(
                        connection,
                        json.dumps(end | ({"frames": due.frames} if due.frames else {}), separators=(",", ":")),
                    )
                    self._end_sent = True
                elif due is not None:
                    self._sent += 1
                    await self._write(connection, due)
            try:
                await asyncio.wait_for(self._wake.wait(), LIVES_S)
            except TimeoutError:
                await self._write(connection, '{"type":"ping"}')

    def _next_due(self) -> bytes | End | None:
        if self._ends and not self._end_sent and self._ends[0].at <= self._sent:
            return self._ends[0]
        if self._sent >= self._acknowledged + WINDOW:
            return None
        at = self._sent - self._first
        return self._kept[at] if 0 <= at < len(self._kept) else None

    async def _write(self, connection: ClientConnection, message: str | bytes) -> None:
        self.bytes_sent += len(message) + (6 if len(message) < 126 else 8)  # with the head of the frame
        await connection.send(message)

    def _read(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "ack":
            self._acknowledged, self._goes_on = message["next"], True
            self._drop(message["first"])
            self._wake.set()
        elif kind == "partial":
            self._events.put_nowait(event_of(message, message["text"], message["stable"], message))
        elif kind in ("final", "failed"):
            if message["utterance"] != self._utterance:
                return
            self._utterance += 1
            self._goes_on = True
            while self._ends and self._ends[0].at <= message["next"]:
                self._ends.popleft()
            self._drop(message["next"])
            self._end_again()
            answer = message.get("answer", {})
            text = answer.get("transcript", {}).get("text", "")
            self._events.put_nowait(event_of(message, text, text, answer))
        elif kind == "refused":
            asyncio.get_running_loop().call_later(message["again_s"], self._end_again)
        elif kind == "error":
            raise ended(message)

    def _end_again(self) -> None:
        self._end_sent = False
        self._wake.set()

    def _drop(self, first: int) -> None:
        while self._kept and self._first < first:
            self._kept.popleft()
            self._first += 1
