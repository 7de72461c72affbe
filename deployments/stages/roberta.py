"""Token states of a contextual text encoder: the knowledge branch of AMSER and Amser+ (R11).

The papers take RoBERTa; any Hugging Face encoder does, and its width comes from its own configuration.
"""

from __future__ import annotations

from pathlib import Path

from ray import serve

from deployments.replica.batching import Batcher
from deployments.replica.deadline import NEVER
from deployments.replica.execution import Timed
from models.device import device, has_bfloat16
from models.messages import TokenFeatures
from models.text.context_encoder import ContextEncoder


@serve.deployment
class Roberta:
    """The shell around `ContextEncoder`: texts that wait together are encoded together, those of like length first."""

    def __init__(self, model: Path | str, name: str, gpu: bool, threads: int, batch_size: int) -> None:
        self._device = device(gpu)
        encoder = ContextEncoder(model, self._device, threads, narrow=has_bfloat16())
        encoder.encode(["warm up"])
        self._name = name
        self._batcher = Batcher("text_encoder", encoder.encode, batch_size=batch_size, size=len)

    async def contextualize(self, text: str, deadline: float = NEVER) -> Timed[TokenFeatures]:
        """See `ContextEncoder.encode`."""
        return await self._batcher.submit(text, deadline)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """See `Work`; Ray asks for it."""
        return self._batcher.work.counts

    async def describe(self) -> dict[str, str]:
        """Name and device of what runs here; also the sign that it runs."""
        return {"model": self._name, "device": self._device}
