"""Readiness: a busy stage is ready, a dead one is not, and the answer never waits behind the work of a stage."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from ray import serve
from ray.serve._private.common import DeploymentStatusTrigger, ReplicaState
from ray.serve.exceptions import BackPressureError
from ray.serve.schema import DeploymentStatus, DeploymentStatusOverview

from deployments.gateway import readiness
from deployments.gateway.readiness import Readiness

STAGES = {"asr": {"model": "whisper", "device": "cpu"}}


class Asked:
    """Stages that answer after a while, and the deployments without a replica."""

    def __init__(self) -> None:
        self.times = 0
        self.takes_s = 0.0
        self.error: Exception | None = None
        self.missing: list[str] = []

    async def describe(self) -> dict[str, dict[str, str]]:
        self.times += 1
        await asyncio.sleep(self.takes_s)
        if self.error is not None:
            raise self.error
        return STAGES

    def look_up(self) -> list[str]:
        return self.missing


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    for name, seconds in {"ANSWERS_WITHIN_S": 0.2, "FRESH_S": 0.1, "WAIT_S": 0.05, "OLDEST_S": 1.0}.items():
        monkeypatch.setattr(readiness, name, seconds)
    return Asked()


@pytest.fixture
def ready(asked: Asked) -> Readiness:
    return Readiness(asked.describe, asked.look_up)


async def test_stages_that_answer_are_ready(ready: Readiness) -> None:
    state = await ready.state()
    assert (state.trouble, state.stages) == (None, STAGES)


async def test_what_is_fresh_is_not_asked_again(asked: Asked, ready: Readiness) -> None:
    for _ in range(50):
        await ready.state()
    assert asked.times == 1
    await asyncio.sleep(0.15)
    await ready.state()
    assert asked.times == 2


async def test_a_busy_stage_is_ready_and_keeps_nobody_waiting(asked: Asked, ready: Readiness) -> None:
    """The question stands in its queue, behind requests: it was not ready when it had most to do."""
    await ready.state()
    asked.takes_s = 30
    started = asyncio.get_running_loop().time()
    for _ in range(10):
        await asyncio.sleep(0.1)
        before = asyncio.get_running_loop().time()
        state = await ready.state()
        assert asyncio.get_running_loop().time() - before < 1
        assert (state.trouble, state.stages) == (None, STAGES)
    assert asyncio.get_running_loop().time() - started < 10


@pytest.mark.parametrize("error", [None, BackPressureError(1, 1)])
async def test_a_stage_that_is_busy_from_the_beginning_is_ready(
    asked: Asked, ready: Readiness, error: Exception | None
) -> None:
    asked.takes_s, asked.error = (0, error) if error else (30, None)
    state = await ready.state()
    assert (state.trouble, state.stages) == (None, {})


async def test_a_stage_of_which_no_replica_runs_is_not_ready_and_comes_back(asked: Asked, ready: Readiness) -> None:
    await ready.state()
    asked.takes_s, asked.missing = 30, ["WhisperASR"]
    started = asyncio.get_running_loop().time()
    while (await ready.state()).trouble is None:
        await asyncio.sleep(0.05)
    assert asyncio.get_running_loop().time() - started < 8
    assert (await ready.state()).trouble == "no replica of WhisperASR runs"
    asked.takes_s, asked.missing = 0, []
    await asyncio.sleep(0.4)
    await ready.state()
    await asyncio.sleep(0.4)
    assert (await ready.state()).trouble is None


async def test_a_stage_that_fails_is_not_ready(asked: Asked, ready: Readiness) -> None:
    asked.error = RuntimeError("what somebody said")
    assert (await ready.state()).trouble == "a stage does not answer: RuntimeError"


async def test_what_is_known_for_long_counts_for_nothing_and_news_are_waited_for(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An idle cluster whose stages take a while to answer was told to be not ready."""
    monkeypatch.setattr(readiness, "ANSWERS_WITHIN_S", 30)
    ready = Readiness(asked.describe, asked.look_up)
    await ready.state()
    asked.takes_s = 0.3
    await asyncio.sleep(1.1)
    state = await ready.state()
    assert (state.trouble, state.stages) == (None, STAGES)
    assert state.age_s < 0.3
    assert asked.times == 2


async def test_one_that_asks_and_leaves_stops_nobody(asked: Asked, ready: Readiness) -> None:
    asked.takes_s = 0.1
    leaves = asyncio.create_task(ready.state())
    await asyncio.sleep(0.02)
    leaves.cancel()
    assert (await ready.state()).trouble is None
    assert asked.times == 1


def test_a_deployment_without_a_serving_replica_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def deployed(**replicas: int) -> DeploymentStatusOverview:
        states = {ReplicaState(name): count for name, count in replicas.items()}
        return DeploymentStatusOverview(DeploymentStatus.HEALTHY, DeploymentStatusTrigger.UNSPECIFIED, states, "")

    there = {
        "Ingress": deployed(RUNNING=2),
        "WhisperASR": deployed(STARTING=1, STOPPING=1),
        "Roberta": deployed(PENDING_MIGRATION=1),
        "FusionClassifier": deployed(),
    }
    of_serve = SimpleNamespace(applications={"amser": SimpleNamespace(deployments=there)})
    monkeypatch.setattr(serve, "status", lambda: of_serve)
    monkeypatch.setattr(serve, "get_replica_context", lambda: SimpleNamespace(app_name="amser"))
    assert readiness.deployments_without_replica() == ["WhisperASR", "FusionClassifier"]
