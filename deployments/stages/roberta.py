"""Token states of a contextual text encoder: the knowledge branch of AMSER and Amser+ (R11).

The papers take RoBERTa; any Hugging Face encoder does, and its width comes from its own configuration.
"""

from __future__ import annotations

from ray import serve

from deployments.replica.batching import Batcher
from deployments.replica.calls import RemoteStage
from deployments.replica.deadline import NEVER
from deployments.replica.execution import Timed
from deployments.replica.health import HealthLimits
from deployments.replica.weights import on_this_node
from deployments.settings import TextEncoderSettings
from models.device import device
from models.messages import TokenFeatures
from models.resolve import Wanted
from models.sample import TEXT
from models.text.context_encoder import ContextEncoder


@serve.deployment
class Roberta(RemoteStage):
    """The shell around `ContextEncoder`: texts that wait together are encoded together, those of like length first."""

    def __init__(
        self,
        model: Wanted,
        name: str,
        gpu: bool,
        settings: TextEncoderSettings,
        health: HealthLimits | None = None,
    ) -> None:
        self._device = device(gpu)
        encoder = ContextEncoder(on_this_node(model), self._device, settings.threads)
        batch_size = settings.gpu_batch_size if self._device == "cuda" else settings.batch_size
        encoder.encode([TEXT] * (batch_size if self._device == "cuda" else 1))
        self._name = name
        self._batcher = Batcher("text_encoder", encoder.encode, batch_size=batch_size, size=len, limits=health)

    async def contextualize(self, text: str, deadline: float = NEVER) -> Timed[TokenFeatures]:
        """See `ContextEncoder.encode`."""
        return await self._batcher.submit(text, deadline)

    async def check_health(self) -> None:
        """See `Health.check`; Ray asks for it."""
        self._batcher.health.check()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """See `Work`; Ray asks for it."""
        return self._batcher.work.counts

    async def describe(self) -> dict[str, str]:
        """Name and device of what runs here; also the sign that it runs."""
        return {"model": self._name, "device": self._device}
