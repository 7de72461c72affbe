"""Payload → log-Mel: the first stage (Amser+, IoT-J 2025, equation 5 backwards)."""

from __future__ import annotations

from ray import serve

from amser import codecs
from amser.wire import Envelope, Limits
from deployments.replica.execution import ModelThread, Timed
from models.mel import reconstruct
from models.messages import Mel


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
