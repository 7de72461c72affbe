"""The order of the stages, written once.

Ray Serve, the fused replica, the benchmarks and the tests all run `recognize`; they differ in the stages they hand it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from math import isinf
from typing import Any, Final, TypeVar

from ray.exceptions import RayActorError, TaskCancelledError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from amser.errors import SignalError
from amser.wire import Envelope
from deployments.replica.calls import Call, OtherVersion, from_plain, to_plain
from deployments.replica.deadline import NEVER, after, remaining
from deployments.replica.execution import Timed
from deployments.replica.faults import told
from deployments.replica.resources import CORES
from deployments.telemetry.requests import asking, carrier, missed_deadline
from models.messages import Emotion, Mel, TextFeatures, TokenFeatures, Transcript

ATTEMPTS: Final = 3  # of a stage whose replica died under the request; every stage is pure, so asking again is harmless
# While a new version is rolled out: about what it takes until a replica of our version is there
OTHER_VERSION_S: Final = 5.0
OTHER_VERSION_PAUSE_S: Final = 0.1
# Of the time that is left, what stays for the stages after one that can be left out
RESERVE_AFTER_WORDS: Final = 0.2
RESERVE_AFTER_TEXT: Final = 0.1
UNAVAILABLE: Final = (RayActorError, DeploymentUnavailableError, BackPressureError, OtherVersion, TimeoutError)
# What ends the request, whichever stage raises it: its input is refused, or its client has left
ENDS_THE_REQUEST: Final = (SignalError, TaskCancelledError)

logger = logging.getLogger("ray.serve")  # the logger that Serve writes to its files

Description = dict[str, str]
Result = TypeVar("Result")


class StageFailed(RuntimeError):  # noqa: N818 - an error by its base class
    """A stage that answers can do without failed, and the client wants all or nothing."""


class Effort(IntEnum):
    """How much of the pipeline runs."""

    VOICE = 0
    """The emotion of the voice alone: no words are recognised."""
    WORDS = 1
    """Words, and the emotion of the voice alone."""
    WHOLE = 2
    """Words, and the emotion of voice and words."""


async def _well() -> None:
    """The health of a process without stages."""


async def _no_counts() -> dict[str, float]:
    """The counts of a process without stages."""
    return {}


@dataclass(frozen=True, slots=True)
class Stages:
    """What the pipeline calls: objects in this process, or deployments behind handles.

    Stages that may have to wait are told the deadline. `check_health` raises where one in this process is sick, and
    `counts` is the work of those in this process for the autoscaling policy; deployments are asked by Serve itself.
    """

    reconstruct: Callable[[Envelope], Awaitable[Timed[Mel]]]
    transcribe: Callable[[Mel, float], Awaitable[Timed[Transcript]]]
    embed: Callable[[str], Awaitable[Timed[TokenFeatures]]]
    contextualize: Callable[[str, float], Awaitable[Timed[TokenFeatures]]]
    classify: Callable[[Mel, TextFeatures | None, Transcript | None, tuple[str, ...], float], Awaitable[Timed[Emotion]]]
    describe: Callable[[], Awaitable[dict[str, Description]]]
    check_health: Callable[[], Awaitable[None]] = _well
    counts: Callable[[], Awaitable[dict[str, float]]] = _no_counts


@dataclass(frozen=True, slots=True)
class Timings:
    """Milliseconds of one request. The stages compute; `queue` is the rest of `total`: waiting and travelling.

    The two text branches run side by side, so the stages and `queue` may add up to more than `total`. A stage that was
    left out has 0.
    """

    queue: float
    mel: float
    asr: float
    text_embedding: float
    text_encoder: float
    fusion: float
    total: float


@dataclass(frozen=True, slots=True)
class Recognition:
    """Words and emotion of one utterance.

    Attributes:
        mel: the speech.
        transcript: None where the recogniser was left out.
        emotion: of voice and words, or of the voice alone; None where nobody speaks.
        left_out: what the answer had to do without: `text`, or `asr` and `text`.
        timings: of computing, and of waiting in all.
        queues: milliseconds of waiting and travelling, by stage.
    """

    mel: Mel
    transcript: Transcript | None
    emotion: Emotion | None
    left_out: tuple[str, ...]
    timings: Timings
    queues: Mapping[str, float]


async def recognize(
    envelope: Envelope,
    stages: Stages,
    *,
    effort: Effort = Effort.WHOLE,
    deadline: float = NEVER,
    strict: bool = False,
    emotions: tuple[str, ...] = (),
    word_times: bool = False,
    draft: tuple[int, ...] = (),
) -> Recognition:
    """Words and emotion of one utterance; the two text branches run side by side.

    A stage that can be left out is, where it fails, is not available or would make the answer come too late. Where
    nobody speaks, none runs after the recogniser. Where that is doubtful, the words may be invented and the voice alone
    is classified.

    Args:
        envelope: what a device sent.
        stages: that compute.
        effort: the most that is to run.
        deadline: when the answer comes too late (`deployments.replica.deadline`).
        strict: what cannot be done fails in place of being left out.
        emotions: classes that the answer is restricted to; empty for all.
        word_times: whether the words are to have their times.
        draft: tokens of a transcript of the first part of the utterance, which the recogniser verifies at once.

    Raises:
        amser.wire.WireError: the payload cannot be used.
        TimeoutError: the deadline passed.
        StageFailed: a stage that could be left out failed, and the request is strict.
    """
    timer = _StageTimer()
    optional = _OptionalStages(strict, deadline)
    mel = await timer.over("mel", stages.reconstruct(envelope))
    mel = replace(mel, word_times=word_times, draft=draft)
    transcript = text_features = None
    if effort >= Effort.WORDS:
        words_by = optional.until(RESERVE_AFTER_WORDS)
        transcript = await optional.run("asr", timer.over("asr", stages.transcribe(mel, words_by)), words_by)
    if transcript is not None and transcript.speech == "none":
        return Recognition(mel, transcript, None, (), timer.timings(), timer.queues)
    if transcript is not None and transcript.speech == "yes" and effort is Effort.WHOLE:
        text_by = optional.until(RESERVE_AFTER_TEXT)
        text_features = await optional.run("text", _text_features(transcript, stages, timer, text_by), text_by)
    emotion = await timer.over("fusion", stages.classify(mel, text_features, transcript, emotions, deadline))
    missing = _left_out(transcript, text_features, emotion)
    return Recognition(mel, transcript, emotion, missing, timer.timings(), timer.queues)


def _left_out(transcript: Transcript | None, text_features: TextFeatures | None, emotion: Emotion) -> tuple[str, ...]:
    """See `Recognition`. Where there are no words, none are left out."""
    if transcript is None:
        return ("asr", "text")
    if transcript.speech == "doubtful" and not transcript.text:
        return ()
    return ("text",) if text_features is None else emotion.left_out


async def _text_features(transcript: Transcript, stages: Stages, timer: _StageTimer, deadline: float) -> TextFeatures:
    words = asyncio.ensure_future(timer.over("text_embedding", stages.embed(transcript.text)))
    context = asyncio.ensure_future(timer.over("text_encoder", stages.contextualize(transcript.text, deadline)))
    try:
        return TextFeatures(transcript.language, *await asyncio.gather(words, context))
    finally:
        for each in (words, context):  # where one failed, nobody waits for the other
            each.cancel()


@dataclass(frozen=True, slots=True)
class _OptionalStages:
    """Stages that an answer can do without."""

    strict: bool
    deadline: float

    def until(self, reserve: float) -> float:
        """The moment that leaves a share of the time for the stages that follow."""
        if self.strict or isinf(self.deadline):
            return self.deadline
        return self.deadline - reserve * max(0.0, remaining(self.deadline))

    async def run(self, name: str, stage: Awaitable[Result], deadline: float) -> Result | None:
        """What the stage answers; None where it does not in time, is not there, or fails."""
        try:
            async with asyncio.timeout(None if isinf(deadline) else remaining(deadline)):
                return await stage
        except ENDS_THE_REQUEST:
            raise
        except UNAVAILABLE as error:
            if self.strict:
                raise
            if isinstance(error, TimeoutError):
                missed_deadline()
            logger.info("answering without %s: %s", name, type(error).__name__)
            return None
        except Exception as error:
            logger.error("%s failed: %s", name, told(error))  # a fault of ours, unlike being full or late
            if self.strict:
                raise StageFailed(name) from None
            return None


@dataclass(slots=True)
class _StageTimer:
    """Milliseconds of each stage that has run: computing, and from asking to the answer."""

    started: float = field(default_factory=time.perf_counter)
    computed: dict[str, float] = field(default_factory=dict)
    queues: dict[str, float] = field(default_factory=dict)

    async def over(self, stage: str, answer: Awaitable[Timed[Result]]) -> Result:
        with asking(stage) as asked:
            timed = await answer
            asked.compute_ms = timed.compute_ms
        self.computed[stage], self.queues[stage] = timed.compute_ms, asked.queue_ms
        return timed.value

    def timings(self) -> Timings:
        total = 1000 * (time.perf_counter() - self.started)
        computed = {
            stage: self.computed.get(stage, 0.0) for stage in ("mel", "asr", "text_embedding", "text_encoder", "fusion")
        }
        in_a_row = computed | {"text": max(computed["text_embedding"], computed["text_encoder"])}
        busy = sum(in_a_row[stage] for stage in ("mel", "asr", "text", "fusion"))
        return Timings(queue=max(0.0, total - busy), **computed, total=total)


def local_stages(members: Mapping[str, Any], cores: float = 0.0) -> Stages:
    """Stages in this process (the fused profile): the objects that the deployments would be, by name.

    The recogniser's threads are what such a replica runs out of first, so their work counts as that of the whole.

    Args:
        members: the stages.
        cores: that they compute on when they are busy.
    """

    async def check_health() -> None:
        for member in members.values():
            await member.check_health()

    async def counts() -> dict[str, float]:
        return {**await members["asr"].record_autoscaling_stats(), CORES: cores}

    stages = _stages(members, getattr, lambda member: member.describe())
    return replace(stages, check_health=check_health, counts=counts)


def serve_stages(handles: Mapping[str, DeploymentHandle]) -> Stages:
    """Each stage behind its deployment, by name."""
    return _stages(handles, _elsewhere, lambda handle: _asked(handle.describe.remote))


def _stages(
    members: Mapping[str, Any],
    method: Callable[[Any, str], Callable[..., Awaitable[Any]]],
    described: Callable[[Any], Awaitable[Description]],
) -> Stages:
    async def describe() -> dict[str, Description]:
        answers = await asyncio.gather(*(described(member) for member in members.values()))
        return dict(zip(members, answers, strict=True))

    return Stages(
        reconstruct=method(members["mel"], "reconstruct"),
        transcribe=_until(method(members["asr"], "transcribe")),
        embed=method(members["text_embedding"], "embed"),
        contextualize=_until(method(members["text_encoder"], "contextualize")),
        classify=_until(method(members["fusion"], "classify")),
        describe=describe,
    )


def _until(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """The method with its deadline as the last argument."""
    return lambda *arguments: method(*arguments[:-1], deadline=arguments[-1])


def _elsewhere(handle: DeploymentHandle, method: str) -> Callable[..., Awaitable[Any]]:
    """A method of a stage in another process: what every such call is wrapped in."""

    async def call(*arguments: object, deadline: float = NEVER) -> Any:
        wrapped = Call([to_plain(argument) for argument in arguments], deadline, carrier())
        return from_plain(await _asked(lambda: handle.call.remote(method, wrapped)))

    return call


async def _asked(ask: Callable[[], Any]) -> Any:
    """The answer of a deployment. A replica that dies under the request, or is of another version, is asked anew:
    another one answers, or the one that replaces it.
    """
    deaths, give_up = 0, after(OTHER_VERSION_S)
    while True:
        try:
            return await _wanted(ask())
        except RayActorError:
            deaths += 1
            if deaths == ATTEMPTS:
                raise
        except OtherVersion:
            if remaining(give_up) <= 0:
                raise
            await asyncio.sleep(OTHER_VERSION_PAUSE_S)


async def _wanted(response: Any) -> Any:
    """The result of a call; where nobody waits for it any longer, the stage is told."""
    try:
        return await response
    except asyncio.CancelledError:
        response.cancel()
        raise
