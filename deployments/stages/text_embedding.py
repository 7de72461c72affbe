"""Word vectors of a transcript: the word branch of Amser+ (IoT-J 2025, R10).

Stands between the recogniser, which writes the text, and the fusion classifier, which reads the vectors.
"""

from __future__ import annotations

from pathlib import Path

from ray import serve

from deployments.replica.calls import RemoteStage
from deployments.replica.execution import ModelThread, Timed
from deployments.replica.health import HealthLimits
from deployments.replica.weights import on_this_node
from models.messages import TokenFeatures
from models.resolve import Wanted
from models.sample import TEXT
from models.text.word_vectors import WordVectors


@serve.deployment
class TextEmbedding(RemoteStage):
    """The shell around `WordVectors`."""

    def __init__(self, model: Wanted, name: str, health: HealthLimits | None = None) -> None:
        self._vectors = WordVectors(Path(on_this_node(model)))
        self._vectors.embed(TEXT)
        self._name = name
        self._thread = ModelThread("text_embedding", health)

    async def embed(self, text: str) -> Timed[TokenFeatures]:
        """See `WordVectors.embed`."""
        return await self._thread.run(self._vectors.embed, text)

    async def check_health(self) -> None:
        """See `Health.check`; Ray asks for it."""
        self._thread.health.check()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """See `Work`; Ray asks for it."""
        return self._thread.work.counts

    async def describe(self) -> dict[str, str]:
        """Name and device of what runs here; also the sign that it runs."""
        return {"model": self._name, "device": "cpu"}
