"""Voice and words → emotion, as a deployment: the last stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from ray import serve

from deployments.replica.batching import Batcher
from deployments.replica.calls import RemoteStage
from deployments.replica.deadline import NEVER
from deployments.replica.execution import Timed
from deployments.replica.health import HealthLimits
from deployments.replica.weights import on_this_node
from models.device import device, has_bfloat16
from models.emotion.classifier import EmotionClassifier
from models.messages import Emotion, Mel, TextFeatures, Transcript
from models.resolve import Wanted
from models.sample import sample_mel, sample_text_features
from models.whisper.voice import VoiceEncoder

Question = tuple[Mel, TextFeatures | None, Transcript | None, tuple[str, ...]]


@serve.deployment
class FusionClassifier(RemoteStage):
    """The shell around `EmotionClassifier`, and `VoiceEncoder` for voices that the recogniser has not encoded."""

    def __init__(
        self,
        network: Wanted,
        encoders: Mapping[str, str],
        whisper: Wanted,
        gpu: bool,
        prior: Mapping[str, float],
        health: HealthLimits | None = None,
    ) -> None:
        self._device = device(gpu)
        self._voice = VoiceEncoder(Path(on_this_node(whisper)), self._device, narrow=has_bfloat16())
        self._classifier = EmotionClassifier(Path(on_this_node(network)), encoders, self._device, expected=prior)
        sizes, mel = self._classifier.info.config, sample_mel()
        words = sample_text_features(sizes.word_width, sizes.context_width)
        self._classify_all([(mel, words, None, ()), (mel, None, None, ())])
        self._batcher = Batcher("fusion", self._classify_all, batch_size=1, limits=health)

    async def classify(
        self,
        mel: Mel,
        text_features: TextFeatures | None,
        transcript: Transcript | None,
        emotions: tuple[str, ...] = (),
        deadline: float = NEVER,
    ) -> Timed[Emotion]:
        """See `EmotionClassifier.classify`; without text features the voice alone is classified."""
        return await self._batcher.submit((mel, text_features, transcript, emotions), deadline)

    def _classify_all(self, questions: Sequence[Question]) -> list[Emotion]:
        return [
            self._classifier.classify(mel, self._heard(mel, transcript), text_features, transcript, emotions)
            for mel, text_features, transcript, emotions in questions
        ]

    def _heard(self, mel: Mel, transcript: Transcript | None) -> NDArray[np.float16]:
        """The states of the voice: the recogniser's, where it has given them."""
        given = None if transcript is None else transcript.voice
        return self._voice.encode(mel) if given is None else given

    async def check_health(self) -> None:
        """See `Health.check`; Ray asks for it."""
        self._batcher.health.check()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """See `Work`; Ray asks for it."""
        return self._batcher.work.counts

    async def describe(self) -> dict[str, str]:
        """Name and device of what runs here; also the sign that it runs."""
        return {"model": self._classifier.info.name, "device": self._device}
