"""A recording → segments of speech, each as an envelope, one after another: whatever its length, a few are in memory.

A process of its own decodes and cuts (`cutting_worker`), with limits on memory, computing time and files. It goes on
as fast as its segments are taken.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

from amser import audio, wire
from amser.client.segmentation import default_model
from amser.features import FRAMES_PER_SECOND
from amser.wire import Envelope, Limits
from deployments.gateway.recordings import cutting_worker
from deployments.gateway.recordings.cutting_worker import GO_ON, HEAD
from deployments.gateway.uploads.decoding import DecoderUnavailable, post_mortem, refusal_in, worker_environment
from deployments.recording_settings import RecordingSettings

LONGEST_DOCUMENT: Final = 10_000  # bytes of JSON
LARGEST_ENVELOPE: Final = 1_000_000  # bytes; 30 s of `mel-f16` are 480,000
READ_AHEAD: Final = 65_536  # bytes of what the process says
ENDS_WITHIN_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of speech between two pauses.

    Attributes:
        start, end: seconds from the begin of the recording.
        envelope: of it, as a device would have sent it.
    """

    start: float
    end: float
    envelope: Envelope


class Cutting:
    """One recording in its process.

    Attributes:
        format: of the file, once it is decoded.
        seconds: of the recording, once it is decoded.
        warnings: of decoding.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], connection: socket.socket, settings: RecordingSettings
    ) -> None:
        self._process, self._connection, self._settings = process, connection, settings
        self._reader = self._writer = None  # type: Any
        self.format, self.seconds = "", 0.0
        self.warnings: tuple[str, ...] = ()

    async def decode(self) -> None:
        """Until the whole recording is decoded, so that its length is known.

        Raises:
            amser.features.AudioError: it is refused; `DecoderCrashed` where the process died of it.
            DecoderUnavailable: the process does not start.
        """
        self._reader, self._writer = await asyncio.open_connection(sock=self._connection, limit=READ_AHEAD)
        while "format" not in (said := (await self._said())[0]):
            pass
        self.format, self.seconds = str(said["format"]), float(said["seconds"])
        self.warnings = tuple(map(str, said.get("warnings", ())))

    async def pieces(self) -> AsyncIterator[Piece]:
        """The segments of a decoded recording, in order. Raises what `decode` raises."""
        self._writer.write(GO_ON)
        while said := await self._said():
            document, content = said
            if not document:
                return
            if content:
                envelope = wire.unpack(bytes(content), Limits(max_bytes=LARGEST_ENVELOPE))
                yield Piece(float(document["start"]), float(document["end"]), envelope)

    async def _said(self) -> tuple[dict[str, Any], bytes]:
        try:
            async with asyncio.timeout(self._settings.silent_s):
                document_size, size = HEAD.unpack(await self._reader.readexactly(HEAD.size))
                if document_size > LONGEST_DOCUMENT or size > LARGEST_ENVELOPE:
                    raise ValueError("it says more than it can have")
                document = json.loads(await self._reader.readexactly(document_size))
                content = await self._reader.readexactly(size)
        except TimeoutError:
            limit = f"{self._settings.silent_s:g} s without a sign"
            raise audio.AudioTooCostly("decoding the audio takes too long", limit) from None
        except (OSError, EOFError, ValueError) as error:
            raise await asyncio.to_thread(post_mortem, self._process, self._settings.cpu_s) from error
        if refused := refusal_in(document):
            raise refused
        return document, content

    async def end(self) -> None:
        """Kills the process."""
        if self._writer is not None:
            self._writer.close()  # not in a thread: a transport belongs to its event loop, and uvloop's crashes
        else:
            self._connection.close()
        await asyncio.to_thread(self._kill)

    def _kill(self) -> None:
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(ENDS_WITHIN_S)


@asynccontextmanager
async def cutting(recording: BinaryIO, settings: RecordingSettings) -> AsyncIterator[Cutting]:
    """The recording in its process, which ends with the context.

    Args:
        recording: an open file of the system; its position moves.
        settings: limits.

    Raises:
        DecoderUnavailable: the process cannot be started, or the voice activity detector is not on this machine.
    """
    with tempfile.TemporaryFile() as samples:
        under_way = await asyncio.to_thread(_start, recording, samples, settings)
        try:
            yield under_way
        finally:
            await asyncio.shield(under_way.end())


def _start(recording: BinaryIO, samples: BinaryIO, settings: RecordingSettings) -> Cutting:
    frames = round(settings.max_seconds * FRAMES_PER_SECOND)
    files = recording.fileno(), samples.fileno()
    ours, theirs = socket.socketpair()
    try:
        limits = settings.memory_mb << 20, settings.cpu_s, frames
        command = [sys.executable, "-P", "-m", cutting_worker.__name__]
        command += [*map(str, limits), str(default_model()), *map(str, files)]
        with theirs:
            process = subprocess.Popen(
                command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, env=worker_environment(), pass_fds=files
            )
    except OSError as error:
        ours.close()
        raise DecoderUnavailable(f"no process can be started that cuts recordings: {error}") from error
    return Cutting(process, ours, settings)
