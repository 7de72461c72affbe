"""Payload → log-Mel: the first stage (Amser+, IoT-J 2025, equation 5 backwards)."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

import numpy as np
from ray import serve

from amser import codecs
from amser.wire import Envelope, Limits
from deployments.replica.calls import RemoteStage
from deployments.replica.execution import ModelThread, Timed
from deployments.replica.health import HealthLimits
from models.mel import reconstruct
from models.messages import Mel
from models.sample import sample_mel


@serve.deployment
class MelReconstruction(RemoteStage):
    """The shell around `reconstruct`."""

    def __init__(self, limits: Limits, health: HealthLimits | None = None) -> None:
        self._limits = limits
        for codec in codecs.CODECS:
            reconstruct(_sample(codec), Limits())
        self._thread = ModelThread("mel", health)

    async def reconstruct(self, envelope: Envelope) -> Timed[Mel]:
        """See `reconstruct`."""
        return await self._thread.run(reconstruct, envelope, self._limits)

    async def check_health(self) -> None:
        """See `Health.check`; Ray asks for it."""
        self._thread.health.check()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """See `Work`; Ray asks for it."""
        return self._thread.work.counts

    async def describe(self) -> dict[str, str]:
        """Name and device of what runs here; also the sign that it runs."""
        return {"model": ", ".join(codecs.CODECS), "device": "cpu"}


def _sample(codec: str) -> Envelope:
    """Sound as a device sends it."""
    mel = sample_mel()
    encoded = codecs.encode(mel.values.astype(np.float32), codec)
    return Envelope(
        codec=encoded.codec,
        profile="whisper80",
        frames=mel.frames,
        seconds=mel.seconds,
        language=mel.language,
        device_id="warm-up",
        utterance_id=uuid.UUID(int=0),
        captured_at=datetime.fromtimestamp(0, UTC),
        payload=encoded.payload,
    )
