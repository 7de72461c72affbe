"""An answer leaves out what it must, in order, and says so. The stages here answer, fail or hang as they are told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

import numpy as np
import pytest
from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError, RequestCancelledError
from recordings import envelope_of, silence

from amser.wire import Unusable
from deployments.gateway.utterances.answers import refusal
from deployments.pipeline import Effort, Recognition, StageFailed, Stages, recognize
from deployments.replica.deadline import DeadlinePassed, after
from deployments.replica.execution import Timed
from models.messages import Emotion, Mel, TextFeatures, TokenFeatures, Transcript

MEL = Mel(np.zeros((80, 100), np.float16), -1.0, 1.0, "en", "none", None)
SAID = Transcript("hello", "en", -0.1)
TEXT = TokenFeatures(("hello",), np.zeros((1, 300), np.float32))
DIED = RayActorError()
FULL = BackPressureError(num_queued_requests=2, max_queued_requests=1)
BROKEN = KeyError("a fault of the stage")
BEHIND_A_HANDLE = RayTaskError("classify", "…", KeyError("a fault of the stage")).as_instanceof_cause()
TROUBLE = {
    "died": DIED,
    "full": FULL,
    "late": DeadlinePassed("late"),
    "hangs": 5.0,
    "broken": BROKEN,
    "broken elsewhere": BEHIND_A_HANDLE,
}


class Cluster:
    """Stages that answer at once, but for those in `trouble`: an error, or seconds that they take."""

    def __init__(self, said: Transcript = SAID, **trouble: Exception | float) -> None:
        self.asked: list[str] = []
        self.read: TextFeatures | None = None
        self.told: tuple[Transcript | None, tuple[str, ...]] = (None, ())
        self._said = said
        self._trouble = trouble

    def stages(self) -> Stages:
        async def describe() -> dict[str, dict[str, str]]:
            return {}

        async def classify(
            _: Mel,
            text_features: TextFeatures | None,
            transcript: Transcript | None,
            emotions: tuple[str, ...],
            __: float,
        ) -> Timed[Emotion]:
            self.read, self.told = text_features, (transcript, emotions)
            return await self._stage("fusion", Emotion("happy", {"happy": 1.0}, 1.0))()

        return Stages(
            reconstruct=self._stage("mel", MEL),
            transcribe=self._stage("asr", self._said),
            embed=self._stage("embedding", TEXT),
            contextualize=self._stage("text_encoder", TEXT),
            classify=classify,
            describe=describe,
        )

    def _stage(self, name: str, answer: Any) -> Callable[..., Awaitable[Timed[Any]]]:
        async def call(*_: object) -> Timed[Any]:
            self.asked.append(name)
            trouble = self._trouble.get(name)
            if isinstance(trouble, Exception):
                raise trouble
            await asyncio.sleep(trouble or 0)
            return Timed(answer, 1.0)

        return call


async def ask(cluster: Cluster, within_s: float = 0.5, **options: Any) -> Recognition:
    return await recognize(envelope_of(silence(1)), cluster.stages(), deadline=after(within_s), **options)


async def test_a_cluster_in_health_leaves_nothing_out() -> None:
    cluster = Cluster()
    answer = await ask(cluster)
    assert answer.left_out == ()
    assert answer.transcript is not None
    assert cluster.read == TextFeatures("en", TEXT, TEXT)
    assert cluster.told == (SAID, ())
    assert answer.queues.keys() == {"mel", "asr", "text_embedding", "text_encoder", "fusion"}


@pytest.mark.parametrize("trouble", TROUBLE.values(), ids=TROUBLE)
@pytest.mark.parametrize("stage", ["embedding", "text_encoder"])
async def test_without_a_text_branch_the_words_stay(stage: str, trouble: Exception | float) -> None:
    cluster = Cluster(**{stage: trouble})
    answer = await ask(cluster)
    assert answer.left_out == ("text",)
    assert answer.transcript is not None
    assert answer.transcript.text == "hello"
    assert cluster.read is None
    assert cluster.told == (SAID, ())  # whether words were said, and in which language, is known all the same


@pytest.mark.parametrize("trouble", TROUBLE.values(), ids=TROUBLE)
async def test_without_a_recogniser_the_emotion_is_of_the_voice_alone(trouble: Exception | float) -> None:
    cluster = Cluster(asr=trouble)
    answer = await ask(cluster)
    assert answer.left_out == ("asr", "text")
    assert answer.transcript is None
    assert cluster.told == (None, ())
    assert answer.emotion is not None
    assert answer.emotion.label == "happy"
    assert answer.timings.asr == 0
    assert "text_encoder" not in cluster.asked


@pytest.mark.parametrize(
    ("effort", "asked", "left_out"),
    [
        (Effort.VOICE, ["mel", "fusion"], ("asr", "text")),
        (Effort.WORDS, ["mel", "asr", "fusion"], ("text",)),
    ],
)
async def test_under_pressure_stages_are_not_even_asked(
    effort: Effort, asked: list[str], left_out: tuple[str, ...]
) -> None:
    cluster = Cluster()
    answer = await ask(cluster, effort=effort)
    assert cluster.asked == asked
    assert answer.left_out == left_out


@pytest.mark.parametrize("stage", ["asr", "text_encoder"])
async def test_all_or_nothing_is_nothing(stage: str) -> None:
    with pytest.raises(RayActorError):
        await ask(Cluster(**{stage: DIED}), strict=True)


@pytest.mark.parametrize("stage", ["mel", "fusion"])
async def test_without_the_first_or_the_last_stage_there_is_no_answer(stage: str) -> None:
    with pytest.raises(RayActorError):
        await ask(Cluster(**{stage: DIED}))


@pytest.mark.parametrize("stage", ["asr", "embedding", "text_encoder"])
@pytest.mark.parametrize("trouble", [BROKEN, BEHIND_A_HANDLE], ids=["here", "elsewhere"])
async def test_a_stage_that_fails_a_strict_request_is_503_and_named(stage: str, trouble: Exception) -> None:
    with pytest.raises(StageFailed) as caught:
        await ask(Cluster(**{stage: trouble}), strict=True)
    refused = refusal(caught.value, 25.0, 2)
    assert refused is not None
    assert refused.status == HTTPStatus.SERVICE_UNAVAILABLE
    assert refused.cause == f"a stage of the pipeline failed: {'asr' if stage == 'asr' else 'text'}"
    assert refused.retry_after_s == 2


@pytest.mark.parametrize("stage", ["mel", "fusion"])
async def test_a_stage_that_no_answer_can_do_without_fails_it(stage: str) -> None:
    with pytest.raises(KeyError):
        await ask(Cluster(**{stage: BROKEN}))


@pytest.mark.parametrize("error", [Unusable("not finite"), RequestCancelledError()], ids=["refused", "cancelled"])
@pytest.mark.parametrize("strict", [False, True])
async def test_input_that_a_stage_refuses_and_clients_that_have_left_end_the_request(
    error: Exception, strict: bool
) -> None:
    cluster = Cluster(asr=error)
    with pytest.raises(type(error)):
        await ask(cluster, strict=strict)
    assert cluster.asked == ["mel", "asr"]


async def test_the_classes_that_a_client_asks_for_reach_the_classifier() -> None:
    cluster = Cluster()
    await ask(cluster, emotions=("happy", "sad"))
    assert cluster.told == (SAID, ("happy", "sad"))


@pytest.mark.parametrize("effort", [Effort.WORDS, Effort.WHOLE])
@pytest.mark.parametrize("strict", [False, True])
async def test_where_nobody_speaks_nothing_runs_after_the_recogniser(effort: Effort, strict: bool) -> None:
    nobody = Transcript("", "en", 0.0, "none", 0.01)
    cluster = Cluster(nobody)
    answer = await ask(cluster, effort=effort, strict=strict)
    assert cluster.asked == ["mel", "asr"]
    assert answer.transcript == nobody
    assert answer.emotion is None
    assert answer.left_out == ()
    assert (answer.timings.text_embedding, answer.timings.text_encoder, answer.timings.fusion) == (0, 0, 0)
    assert answer.queues.keys() == {"mel", "asr"}
    assert (answer.timings.mel, answer.timings.asr) == (1, 1)


@pytest.mark.parametrize(("text", "left_out"), [("Thank you.", ("text",)), ("", ())])
@pytest.mark.parametrize("effort", [Effort.WORDS, Effort.WHOLE])
async def test_where_speech_is_doubtful_the_voice_alone_is_classified(
    effort: Effort, text: str, left_out: tuple[str, ...]
) -> None:
    doubtful = Transcript(text, "en", -0.7, "doubtful", 0.4)
    cluster = Cluster(doubtful)
    answer = await ask(cluster, effort=effort)
    assert cluster.asked == ["mel", "asr", "fusion"]
    assert cluster.read is None
    assert cluster.told == (doubtful, ())
    assert answer.transcript == doubtful
    assert answer.emotion is not None
    assert answer.left_out == left_out


async def test_speech_without_words_is_classified_as_before() -> None:
    cluster = Cluster(Transcript("", "en", 0.0, "yes", 0.9))
    answer = await ask(cluster)
    assert cluster.read == TextFeatures("en", TEXT, TEXT)
    assert answer.left_out == ()


async def test_a_stage_that_hangs_leaves_time_for_those_after_it() -> None:
    started = asyncio.get_running_loop().time()
    answer = await ask(Cluster(asr=5.0, fusion=0.05), within_s=0.5)
    assert answer.left_out == ("asr", "text")
    assert asyncio.get_running_loop().time() - started < 0.5
