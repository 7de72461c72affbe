"""The order of the stages, written once.

Ray Serve, the fused replica, the benchmarks and the tests all run `recognize`; they differ in the stages they hand it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from ray.exceptions import RayActorError
from ray.serve.handle import DeploymentHandle

from amser.wire import Envelope
from deployments.execution import Timed
from deployments.messages import Emotion, Mel, TextFeatures, Transcript

Result = TypeVar("Result")

ATTEMPTS: Final = 3  # of a stage whose replica died under the request; every stage is pure, so asking again is harmless


class Stages(Protocol):
    """What the pipeline needs from whoever runs its models."""

    async def reconstruct(self, envelope: Envelope) -> Timed[Mel]: ...
    async def transcribe(self, mel: Mel) -> Timed[Transcript]: ...
    async def embed(self, text: str) -> Timed[TextFeatures]: ...
    async def contextualize(self, text: str) -> Timed[TextFeatures]: ...
    async def classify(
        self, mel: Mel, transcript: Transcript, words: TextFeatures, context: TextFeatures
    ) -> Timed[Emotion]: ...
    async def describe(self) -> dict[str, dict[str, str]]: ...


@dataclass(frozen=True, slots=True)
class Timings:
    """Milliseconds of one request. The stages compute; `queue` is the rest of `total`: waiting and travelling.

    The two text branches run side by side, so the stages and `queue` may add up to more than `total`.
    """

    queue: float
    mel: float
    asr: float
    text_embedding: float
    roberta: float
    fusion: float
    total: float


@dataclass(frozen=True, slots=True)
class Recognition:
    """Words and emotion of one utterance."""

    mel: Mel
    transcript: Transcript
    emotion: Emotion
    timings: Timings


async def recognize(envelope: Envelope, stages: Stages) -> Recognition:
    """Words and emotion of one utterance; the two text branches run side by side.

    Raises:
        amser.wire.WireError: the payload cannot be used.
    """
    started = time.perf_counter()
    mel = await stages.reconstruct(envelope)
    transcript = await stages.transcribe(mel.value)
    words, context = await asyncio.gather(
        stages.embed(transcript.value.text), stages.contextualize(transcript.value.text)
    )
    emotion = await stages.classify(mel.value, transcript.value, words.value, context.value)
    total = 1000 * (time.perf_counter() - started)
    computed = (
        mel.compute_ms + transcript.compute_ms + max(words.compute_ms, context.compute_ms) + emotion.compute_ms
    )
    timings = Timings(
        queue=max(0.0, total - computed),
        mel=mel.compute_ms,
        asr=transcript.compute_ms,
        text_embedding=words.compute_ms,
        roberta=context.compute_ms,
        fusion=emotion.compute_ms,
        total=total,
    )
    return Recognition(mel.value, transcript.value, emotion.value, timings)


@dataclass(frozen=True, slots=True)
class LocalStages:
    """All stages in this process: the objects that the deployments would be (the fused profile)."""

    mel_reconstruction: Any
    whisper_asr: Any
    text_embedding: Any
    roberta: Any
    fusion_classifier: Any

    async def reconstruct(self, envelope: Envelope) -> Timed[Mel]:
        return await _typed(self.mel_reconstruction.reconstruct(envelope))

    async def transcribe(self, mel: Mel) -> Timed[Transcript]:
        return await _typed(self.whisper_asr.transcribe(mel))

    async def embed(self, text: str) -> Timed[TextFeatures]:
        return await _typed(self.text_embedding.embed(text))

    async def contextualize(self, text: str) -> Timed[TextFeatures]:
        return await _typed(self.roberta.contextualize(text))

    async def classify(
        self, mel: Mel, transcript: Transcript, words: TextFeatures, context: TextFeatures
    ) -> Timed[Emotion]:
        return await _typed(self.fusion_classifier.classify(mel, transcript, words, context))

    async def describe(self) -> dict[str, dict[str, str]]:
        return {name: await getattr(self, name).describe() for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class ServeStages:
    """Each stage behind its deployment."""

    mel_reconstruction: DeploymentHandle
    whisper_asr: DeploymentHandle
    text_embedding: DeploymentHandle
    roberta: DeploymentHandle
    fusion_classifier: DeploymentHandle

    async def reconstruct(self, envelope: Envelope) -> Timed[Mel]:
        return await _asked(self.mel_reconstruction.reconstruct, envelope)

    async def transcribe(self, mel: Mel) -> Timed[Transcript]:
        return await _asked(self.whisper_asr.transcribe, mel)

    async def embed(self, text: str) -> Timed[TextFeatures]:
        return await _asked(self.text_embedding.embed, text)

    async def contextualize(self, text: str) -> Timed[TextFeatures]:
        return await _asked(self.roberta.contextualize, text)

    async def classify(
        self, mel: Mel, transcript: Transcript, words: TextFeatures, context: TextFeatures
    ) -> Timed[Emotion]:
        return await _asked(self.fusion_classifier.classify, mel, transcript, words, context)

    async def describe(self) -> dict[str, dict[str, str]]:
        handles = {name: getattr(self, name) for name in self.__slots__}
        answers = await asyncio.gather(*(_asked(handle.describe) for handle in handles.values()))
        return dict(zip(handles, answers, strict=True))


async def _typed(answer: Awaitable[Timed[Result]]) -> Timed[Result]:
    return await answer


async def _asked(method: Any, *arguments: object) -> Any:
    """The answer of a deployment; a replica that dies under the request is replaced by another one."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return await method.remote(*arguments)
        except RayActorError:
            if attempt == ATTEMPTS:
                raise
    raise AssertionError("unreachable")
