"""Payload → log-Mel: the first stage (Amser+, IoT-J 2025, equation 5 backwards)."""

from __future__ import annotations

import numpy as np
from ray import serve

from amser import codecs
from amser.features import silence_value
from amser.wire import Envelope, Limits, decode_mel
from deployments.execution import ModelThread, Timed
from deployments.messages import Mel


def reconstruct(envelope: Envelope, limits: Limits) -> Mel:
    """The log-Mel that a device compressed, with the level at which Whisper expects it to be padded.

    Raises:
        amser.wire.WireError: the payload holds impossible values or passes a limit.
    """
    values = decode_mel(envelope, limits)
    return Mel(
        values=values.astype(np.float16),
        silence=silence_value(values),
        seconds=envelope.seconds,
        language=envelope.language,
        codec=envelope.codec,
        rank=codecs.payload_rank(envelope.codec, envelope.payload),
    )


@serve.deployment
class MelReconstruction:
    """The shell around `reconstruct`."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._thread = ModelThread("mel")

    async def reconstruct(self, envelope: Envelope) -> Timed[Mel]:
        """See `reconstruct`."""
        return await self._thread.run(reconstruct, envelope, self._limits)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """See `Work`; Ray asks for it."""
        return self._thread.work.counts

    async def describe(self) -> dict[str, str]:
        """Name and device of what runs here; also the sign that it runs."""
        return {"model": ", ".join(codecs.CODECS), "device": "cpu"}
