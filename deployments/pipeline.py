"""The order of the stages, written once.

Ray Serve, the fused replica, the benchmarks and the tests all run `recognize`; they differ in the stages they hand it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from ray.exceptions import RayActorError
from ray.serve.handle import DeploymentHandle

from amser.wire import Envelope
from deployments.execution import Timed
from deployments.messages import Emotion, Mel, TextFeatures, Transcript

ATTEMPTS: Final = 3  # of a stage whose replica died under the request; every stage is pure, so asking again is harmless


Description = dict[str, str]


@dataclass(frozen=True, slots=True)
class Stages:
    """What the pipeline calls, whoever runs the models: objects in this process, or deployments behind handles."""

    reconstruct: Callable[[Envelope], Awaitable[Timed[Mel]]]
    transcribe: Callable[[Mel], Awaitable[Timed[Transcript]]]
    embed: Callable[[str], Awaitable[Timed[TextFeatures]]]
    contextualize: Callable[[str], Awaitable[Timed[TextFeatures]]]
    classify: Callable[[Mel, Transcript, TextFeatures, TextFeatures], Awaitable[Timed[Emotion]]]
    describe: Callable[[], Awaitable[dict[str, Description]]]


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
    computed = mel.compute_ms + transcript.compute_ms + max(words.compute_ms, context.compute_ms) + emotion.compute_ms
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


def local_stages(members: Mapping[str, Any]) -> Stages:
    """Stages in this process (the fused profile): the objects that the deployments would be, by name."""
    return _stages(members, lambda method: method)


def serve_stages(handles: Mapping[str, DeploymentHandle]) -> Stages:
    """Each stage behind its deployment, by name."""
    return _stages(handles, _asked)


def _stages(members: Mapping[str, Any], caller: Callable[[Any], Callable[..., Awaitable[Any]]]) -> Stages:
    async def describe() -> dict[str, Description]:
        answers = await asyncio.gather(*(caller(member.describe)() for member in members.values()))
        return dict(zip(members, answers, strict=True))

    return Stages(
        reconstruct=caller(members["mel_reconstruction"].reconstruct),
        transcribe=caller(members["whisper_asr"].transcribe),
        embed=caller(members["text_embedding"].embed),
        contextualize=caller(members["roberta"].contextualize),
        classify=caller(members["fusion_classifier"].classify),
        describe=describe,
    )


def _asked(method: Any) -> Callable[..., Awaitable[Any]]:
    """A call of a deployment's method; a replica that dies under the request is replaced by another one."""

    async def call(*arguments: object) -> Any:
        for _ in range(ATTEMPTS - 1):
            with suppress(RayActorError):
                return await method.remote(*arguments)
        return await method.remote(*arguments)

    return call
