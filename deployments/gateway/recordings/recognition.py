"""A recording → its answer: segments are recognised side by side, each under admission, as utterances of a client."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO, Final

from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from amser.audio import AudioTooLong
from deployments.gateway.preferences import Preferences
from deployments.gateway.problems import refusal_of
from deployments.gateway.recordings.cutting import Cutting, Piece, cutting
from deployments.gateway.recordings.documents import RecordingAnswer, Segment, Share, failed, recognized, whole
from deployments.gateway.utterances.admission import Overloaded
from deployments.gateway.utterances.answering import Answering
from deployments.gateway.utterances.answers import refusal
from deployments.replica.calls import OtherVersion
from deployments.replica.deadline import after, remaining
from deployments.replica.faults import told
from deployments.settings import Settings

logger = logging.getLogger("ray.serve")  # the logger that Serve writes to its files

# A stage without room, or that is being replaced: it costs patience and no attempt
AWAY: Final = (Overloaded, BackPressureError, RayActorError, DeploymentUnavailableError, OtherVersion)
LONGEST_PAUSE_S: Final = 5.0
CHARGED_S: Final = 30.0  # at a time
GIVE_UP_AFTER_S: Final = 600.0  # of waiting for room for one segment

Progress = Callable[[Share], Awaitable[None]]
Heard = Callable[[float], Awaitable[None]]


async def _unheard(share: Share) -> None:
    """Nobody asks how far it is."""


async def charge(heard: Heard, seconds: float) -> None:
    """Has a client pay for speech and silence alike, as in an upload; in parts, since a limit may be of less."""
    while seconds > 0:
        await heard(min(seconds, CHARGED_S))
        seconds -= CHARGED_S


async def unlimited(seconds: float) -> None:
    """No limits on the speech of a client."""


class Recordings:
    """Recognises recordings, in a replica of the gateway.

    Args:
        settings: of the whole application.
        answering: of utterances.
    """

    def __init__(self, settings: Settings, answering: Answering) -> None:
        self._settings, self._requests = settings.recordings, settings.requests
        self._answering = answering
        self._turns = asyncio.Semaphore(settings.recordings.at_once)

    async def recognize(
        self,
        recording: bytes | Path | BinaryIO,
        preferences: Preferences,
        client: str,
        language: str | None = None,
        progress: Progress = _unheard,
        *,
        heard: Heard = unlimited,
        known: Mapping[int, Segment] | None = None,
        longest_s: float | None = None,
    ) -> RecordingAnswer:
        """Words and emotion of a recording. It takes as long as it takes: cancel it where nobody waits any more.

        Args:
            recording: an audio file: its bytes, its path, or an open file of the system.
            preferences: for each segment; each has `requests.deadline_s`, and none more than their deadline leaves.
            client: for admission's fairness.
            language: that is spoken, a code that the recogniser knows; None has it detected segment by segment.
            progress: called for each segment that is ready, in whatever order.
            heard: awaited with the seconds of each segment, and of the silence before it, before it is recognised:
                limits of a key slow a recording down. What it raises ends the recording.
            known: segments that have been recognised before, by index.
            longest_s: seconds, where less than the settings allow are wanted here.

        Raises:
            amser.errors.SignalError: the recording cannot be used.
            deployments.gateway.uploads.decoding.DecoderUnavailable: no process starts that decodes.
        """
        async with self._turns, _opened(recording) as file, cutting(file, self._settings) as under_way:
            await under_way.decode()
            if longest_s is not None and under_way.seconds > longest_s:
                raise AudioTooLong(f"the recording has {under_way.seconds:.0f} s", f"up to {longest_s:g} s")

            async def recognized_segment(index: int, piece: Piece, silence_s: float) -> Segment:
                if known and index in known:
                    return known[index]
                await charge(heard, silence_s + piece.end - piece.start)
                return await self._segment(piece, preferences, client, language)

            segments = await self._segments(under_way, recognized_segment, progress, heard)
        return whole(segments, under_way.seconds, under_way.warnings, language)

    async def _segments(
        self,
        under_way: Cutting,
        recognize: Callable[[int, Piece, float], Awaitable[Segment]],
        progress: Progress,
        heard: Heard,
    ) -> list[Segment]:
        """Of all pieces; as many envelopes are in memory as are recognised at once, and one."""
        room = asyncio.Semaphore(self._settings.segments_at_once)
        ready: dict[int, Segment] = {}
        without_gap = 0  # segments from the begin that are ready

        async def one(index: int, piece: Piece, silence_s: float) -> None:
            nonlocal without_gap
            try:
                segment = await recognize(index, piece, silence_s)
            finally:
                room.release()
            ready[index] = segment
            while without_gap in ready:
                without_gap += 1
            end = ready[without_gap - 1].end if without_gap else 0.0
            await progress(Share(index, segment, min(1.0, end / under_way.seconds)))

        index, spoken_until_s = 0, 0.0
        try:
            async with asyncio.TaskGroup() as group:
                await room.acquire()
                async for piece in under_way.pieces():
                    group.create_task(one(index, piece, piece.start - spoken_until_s))
                    index, spoken_until_s = index + 1, piece.end
                    await room.acquire()
                await charge(heard, under_way.seconds - spoken_until_s)
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [ready[each] for each in range(index)]

    async def _segment(self, piece: Piece, preferences: Preferences, client: str, language: str | None) -> Segment:
        """Recognised; or what stood against it."""
        envelope = replace(piece.envelope, language=language)
        attempts, within_s = 0, self._requests.deadline_s
        loop = asyncio.get_running_loop()
        give_up = loop.time() + GIVE_UP_AFTER_S
        while True:
            # An answer without words is none for a recording; only the last attempt takes what there is
            strict = preferences.strict or attempts + 1 < self._settings.attempts
            deadline = min(after(within_s), preferences.deadline)
            wanted = replace(preferences, within_s=within_s, deadline=deadline, strict=strict)
            try:
                return recognized(piece.start, piece.end, await self._answering.recognize(envelope, wanted, client))
            except Exception as error:
                away = isinstance(error, AWAY)
                attempts += not away
                known = refusal(error, within_s, self._requests.retry_after_s)
                if known is None:
                    logger.error("a segment failed: %s", told(error))
                    known = refusal_of("internal", "the cluster failed; its log has the reason")
                is_final = known.status.value < 500 and not away
                pause_s = min(LONGEST_PAUSE_S, known.retry_after_s or self._requests.retry_after_s)
                is_late = loop.time() > give_up or pause_s >= remaining(preferences.deadline)
                if is_final or attempts >= self._settings.attempts or is_late:
                    return failed(piece.start, piece.end, known.problem(None))
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))


@asynccontextmanager
async def _opened(recording: bytes | Path | BinaryIO) -> AsyncIterator[BinaryIO]:
    if isinstance(recording, Path):
        with recording.open("rb") as file:
            yield file
    elif isinstance(recording, bytes):
        with TemporaryFile() as file:
            await asyncio.to_thread(file.write, recording)
            file.flush()
            yield file
    else:
        yield recording
