"""Audio uploads are decoded in processes of their own, which may die of what strangers send.

A worker has limits on its address space, CPU time and wall time. What it dies of is one refused request: the next gets
another worker, and no other request is touched. Files and samples go through a socket, never through pickle, so that a
worker that was taken over cannot run code in the gateway.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Lock
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from amser import audio
from amser.features import HOP_LENGTH, AudioError, UnsupportedAudio
from deployments.gateway.uploads import decoding_worker
from deployments.gateway.uploads.decoding_worker import ANSWER, REQUEST
from deployments.settings import DecodingSettings

logger = logging.getLogger("ray.serve")  # the logger that Serve writes to its files

START_WITHIN_S: Final = 60.0
ENDS_WITHIN_S: Final = 5.0
LONGEST_DOCUMENT: Final = 10_000  # bytes of the JSON in an answer
ERRORS: Final = MappingProxyType(
    {
        kind.__name__: kind
        for kind in (
            audio.UnknownFormat,
            audio.UnknownCodec,
            audio.NoSound,
            audio.DamagedAudio,
            audio.AudioTooLong,
            audio.AudioTooCostly,
            UnsupportedAudio,
        )
    }
)


class DecoderCrashed(AudioError):  # noqa: N818 - an error by its base class
    """The worker died of this file."""


class DecoderUnavailable(RuntimeError):  # noqa: N818 - an error by its base class
    """No worker can be started. No fault of the file."""


class Decoders:
    """The workers of one gateway replica. They start when they are first needed.

    Args:
        settings: how many, and their limits.
        max_frames: of log-Mel in an utterance, 10 ms each.
    """

    def __init__(self, settings: DecodingSettings, max_frames: int) -> None:
        self._settings, self._max_frames = settings, max_frames
        # A thread a worker at most, since an upload is decoded in one call
        self._executor = ThreadPoolExecutor(settings.workers, thread_name_prefix="decoding")
        self._lock = Lock()
        self._idle: list[_Worker] = []

    async def decode(self, content: bytes) -> audio.Recording:
        """What is heard in an audio file: see `amser.audio.decode`.

        A caller that is cancelled leaves the queue; once its file is being decoded, the worker is free again when that
        has ended or its limits are reached.

        Raises:
            amser.features.AudioError: the file is refused, or is beyond the limits (`amser.audio.AudioTooCostly`), or
                the worker died of it (`DecoderCrashed`).
            DecoderUnavailable: no worker starts.
        """
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._decode, content)

    def pids(self) -> list[int]:
        """The processes that wait for work."""
        with self._lock:
            return [worker.pid for worker in self._idle]

    def close(self) -> None:
        """Ends the workers; one that is busy when it is done. They also end with this process, however it ends."""
        self._executor.shutdown(wait=True, cancel_futures=True)
        while self._idle:
            self._idle.pop().end()

    def _decode(self, content: bytes) -> audio.Recording:
        worker = self._take()
        try:
            return worker.decode(content)
        finally:
            self._give_back(worker)

    def _take(self) -> _Worker:
        with self._lock:
            worker = self._idle.pop() if self._idle else None
        if worker is not None and worker.is_spent():  # it died while it was idle
            worker.end()
            worker = None
        return worker or self._start()

    def _give_back(self, worker: _Worker) -> None:
        if worker.is_spent():
            worker.end()
            try:
                worker = self._start()  # now, so that it is ready when the next file comes
            except DecoderUnavailable as error:
                logger.error("%s", error)
                return
        with self._lock:
            self._idle.append(worker)

    def _start(self) -> _Worker:
        try:
            return _Worker(self._settings, self._max_frames)
        except OSError as error:
            raise DecoderUnavailable(f"no process can be started that decodes audio: {error}") from error


class _Worker:
    """One process, used by one thread at a time."""

    def __init__(self, settings: DecodingSettings, max_frames: int) -> None:
        self._settings = settings
        self._largest = 4 * HOP_LENGTH * (max_frames + 1)  # bytes of samples
        self._served = self._resident = 0
        self._is_ready = self._is_broken = False
        self._socket, theirs = socket.socketpair()
        limits = (settings.memory_mb << 20, settings.cpu_s, max_frames)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", decoding_worker.__name__, *map(str, limits)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env=worker_environment(),
            )
        self.pid = self._process.pid

    def is_spent(self) -> bool:
        """Whether it is dead, has served its time or holds on to too much memory."""
        settings = self._settings
        return (
            self._is_broken
            or self._process.poll() is not None
            or self._served >= settings.requests
            or self._resident > settings.resident_mb << 20
        )

    def end(self) -> None:
        """Kills it."""
        self._socket.close()
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(ENDS_WITHIN_S)

    def decode(self, content: bytes) -> audio.Recording:
        """See `Decoders.decode`."""
        self._wait_until_ready()
        self._served += 1
        deadline = time.monotonic() + self._settings.wall_s
        is_answered = False
        try:
            self._socket.settimeout(self._settings.wall_s)
            self._socket.sendall(REQUEST.pack(len(content)))
            self._socket.sendall(content)
            answer = self._receive(deadline)
            is_answered = True
        except TimeoutError:
            limit = f"{self._settings.wall_s:g} s"
            raise audio.AudioTooCostly("decoding the audio takes too long", limit) from None
        except (OSError, EOFError, ValueError) as error:
            raise post_mortem(self._process, self._settings.cpu_s) from error
        finally:
            self._is_broken = not is_answered  # also where the thread is interrupted: an answer would be the next one's
        return _read(*answer)

    def _wait_until_ready(self) -> None:
        if self._is_ready:
            return
        self._socket.settimeout(START_WITHIN_S)
        try:
            self._is_ready = self._socket.recv(1) == decoding_worker.READY
        except OSError as error:
            self._is_broken = True
            raise DecoderUnavailable(f"the process that decodes audio does not start: {error!r}") from error
        if not self._is_ready:
            self._is_broken = True
            raise DecoderUnavailable("the process that decodes audio ended before it began; its error is in the log")

    def _receive(self, deadline: float) -> tuple[dict[str, Any], bytearray]:
        document_size, samples_size = ANSWER.unpack(self._read_exactly(ANSWER.size, deadline))
        if document_size > LONGEST_DOCUMENT or samples_size > self._largest:
            raise ValueError("the worker answers more than it can have")
        document = json.loads(self._read_exactly(document_size, deadline))
        self._resident = int(document["resident"])
        return document, self._read_exactly(samples_size, deadline)

    def _read_exactly(self, size: int, deadline: float) -> bytearray:
        content = bytearray(size)
        view = memoryview(content)
        while view:
            self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            count = self._socket.recv_into(view)
            if not count:
                raise EOFError("the worker ended")
            view = view[count:]
        return content


def post_mortem(process: subprocess.Popen[bytes], cpu_s: float) -> AudioError:
    """Why a process did not answer for a file; it is ended.

    Args:
        process: that decoded.
        cpu_s: seconds of CPU time that it might take.
    """
    process.kill()
    with suppress(subprocess.TimeoutExpired):
        if -process.wait(ENDS_WITHIN_S) == signal.SIGXCPU:
            return audio.AudioTooCostly("decoding the audio takes too much computing time", f"{cpu_s} s")
    return DecoderCrashed("the decoder broke down on this file", "an intact file")


def refusal_in(document: Mapping[str, object]) -> AudioError | None:
    """The refusal that a process says of a file, if it does."""
    if (error := document.get("error")) is None:
        return None
    limit = document["limit"]
    return ERRORS.get(str(error), AudioError)(str(document["cause"]), None if limit is None else str(limit))


def _read(document: dict[str, Any], samples: bytearray) -> audio.Recording:
    if refused := refusal_in(document):
        raise refused
    waveform = np.frombuffer(samples, "<f4").astype(np.float32, copy=False)
    return audio.Recording(waveform, str(document["format"]), tuple(document["warnings"]))


def worker_environment() -> dict[str, str]:
    """What a worker needs: the packages, one thread, one heap. None of the gateway's secrets."""
    packages = [str(Path(__file__).resolve().parents[3]), *filter(None, sys.path)]
    ours = {"PYTHONPATH": os.pathsep.join(packages), "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    kept = ("PATH", "LD_LIBRARY_PATH", "LANG")
    return {**{name: os.environ[name] for name in kept if name in os.environ}, **ours}
