"""Speech that arrives in messages: what is kept of an utterance, and its envelope up to the end of any message.

The envelope of an utterance is the one that the envelope route or the upload would get for it. `klt` is read while it
comes, so that its log-Mel, the same bit for bit, is ready at the end.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Final, Protocol

import numpy as np

from amser import wire
from amser.codecs.base import MalformedPayload, require_finite
from amser.codecs.klt import STREAMED, StreamDecoder
from amser.features import FRAMES_PER_SECOND, HOP_LENGTH, LOG_SCALE, POWER_FLOOR, Float32
from deployments.gateway.uploads.envelopes import envelope_of
from deployments.replica.execution import ModelThread, Timed
from models.mel import mel_of
from models.messages import Mel

DEVICE_ID: Final = "stream"
PCM_SCALE: Final = np.float32(1 / 32768)

Utterance = tuple[wire.Envelope, Timed[Mel] | None]  # the log-Mel where it is known


class Speech(Protocol):
    """Of one utterance.

    Attributes:
        codec: as answers name it.
        messages: that hold it.
        frames: of log-Mel at the end of each message.
    """

    codec: str
    messages: list[bytes]
    frames: list[int]

    def append(self, message: bytes) -> Float32:
        """Takes a message; returns how loud each of its frames is, in the unit of a log-Mel.

        Raises:
            amser.errors.SignalError: it cannot be read, or the utterance would pass 30 s. Nothing is taken.
        """

    async def until(self, count: int, frames: int | None, language: str | None) -> Utterance:
        """The utterance that the first messages hold.

        Args:
            count: of messages, 1 or more.
            frames: of log-Mel, where the last block has fewer than eight; None for all.
            language: code of the one that is spoken.

        Raises:
            amser.errors.SignalError: it cannot be used.
        """


class KltSpeech:
    """Blocks of `klt` in stream form; each message has whole ones."""

    codec = "klt"

    def __init__(self, header: bytes, limits: wire.Limits, thread: ModelThread) -> None:
        self.messages: list[bytes] = []
        self.frames: list[int] = []
        self._header, self._limits, self._thread = header, limits, thread
        self._decoder = StreamDecoder()
        self._push(header)

    def append(self, message: bytes) -> Float32:
        """See `Speech`."""
        read = self._push(message)
        if self._decoder.held or not read.size:
            raise wire.Malformed("a message ends within a block", "whole blocks of klt in stream form")
        before = self.frames[-1] if self.frames else 0
        if before + read.shape[1] > self._limits.max_frames + STREAMED - 1:
            raise wire.TooLarge("the utterance is too long", f"{self._limits.max_frames} frames")
        self.messages.append(message)
        self.frames.append(before + read.shape[1])
        loudness: Float32 = read.max(axis=0)
        return loudness

    async def until(self, count: int, frames: int | None, language: str | None) -> Utterance:
        """See `Speech`."""
        whole = min(self.frames[count - 1], self._limits.max_frames)
        if frames is not None and not whole - STREAMED < frames <= self.frames[count - 1]:
            raise wire.Malformed(f"{frames} frames in blocks of {whole}", f"{max(1, whole - STREAMED + 1)} to {whole}")
        chosen = whole if frames is None else frames
        envelope = wire.Envelope(
            codec="klt",
            profile="whisper80",
            frames=chosen,
            seconds=chosen / FRAMES_PER_SECOND,
            language=language,
            device_id=DEVICE_ID,
            utterance_id=uuid.uuid4(),
            captured_at=datetime.now(UTC),
            payload=self._header + b"".join(self.messages[:count]),
        )
        return envelope, await self._thread.run(self._mel, envelope)

    def _push(self, received: bytes) -> Float32:
        try:
            return self._decoder.push(received)
        except MalformedPayload as error:
            raise wire.Malformed(error.cause, error.limit) from None

    def _mel(self, envelope: wire.Envelope) -> Mel:
        return mel_of(envelope, require_finite(self._decoder.whole(envelope.frames)))


class PcmSpeech:
    """16-bit PCM, little-endian, mono, 16 kHz."""

    codec = "pcm16"

    def __init__(self, limits: wire.Limits, thread: ModelThread) -> None:
        self.messages: list[bytes] = []
        self.frames: list[int] = []
        self._samples = 0
        self._limits, self._thread = limits, thread

    def append(self, message: bytes) -> Float32:
        """See `Speech`."""
        if len(message) % 2 or not message:
            raise wire.Malformed(f"a message of {len(message)} bytes", "whole samples of 16 bits")
        samples = self._samples + len(message) // 2
        if samples // HOP_LENGTH > self._limits.max_frames:
            raise wire.TooLarge("the utterance is too long", f"{self._limits.max_frames} frames")
        self._samples = samples
        self.messages.append(message)
        self.frames.append(samples // HOP_LENGTH)
        waveform = _waveform(message)
        hops = waveform[: max(HOP_LENGTH, waveform.size // HOP_LENGTH * HOP_LENGTH)]
        powers = np.square(hops.reshape(-1, min(HOP_LENGTH, hops.size))).mean(axis=1)
        loudness: Float32 = np.log10(np.maximum(powers, POWER_FLOOR)) / LOG_SCALE
        return loudness

    async def until(self, count: int, frames: int | None, language: str | None) -> Utterance:
        """See `Speech`."""
        del frames  # samples say it all
        content = b"".join(self.messages[:count])
        envelope = await self._thread.run(_envelope, content, language, self._limits.max_frames)
        return envelope.value, None


def _waveform(content: bytes) -> Float32:
    waveform: Float32 = np.frombuffer(content, "<i2").astype(np.float32) * PCM_SCALE
    return waveform


def _envelope(content: bytes, language: str | None, max_frames: int) -> wire.Envelope:
    return envelope_of(_waveform(content), language, max_frames)
