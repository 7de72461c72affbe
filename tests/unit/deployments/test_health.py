"""When a replica says that it is sick: failures of requests in a row, and batches that do not end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import pytest

from amser.wire import Malformed
from deployments.pipeline import local_stages
from deployments.replica.batching import Batcher
from deployments.replica.deadline import DeadlinePassed
from deployments.replica.execution import ModelThread
from deployments.replica.faults import ModelFailed
from deployments.replica.health import Health, HealthLimits, Unhealthy
from deployments.settings import HealthSettings, Settings

LIMITS = HealthLimits(failures=3, longest_batch_s=10.0)


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def computed(health: Health, error: BaseException | None = None, requests: int = 1) -> None:
    """A batch that ends with this error, or well."""
    with nullcontext() if error is None else pytest.raises(type(error)), health.batch(requests):
        if error is not None:
            raise error


def is_well(health: Health) -> bool:
    try:
        health.check()
    except Unhealthy:
        return False
    return True


def test_a_replica_that_has_done_nothing_is_well() -> None:
    Health("test").check()


def test_so_many_failures_in_a_row_are_a_sickness() -> None:
    health = Health("whisper", LIMITS)
    for _ in range(2):
        computed(health, RuntimeError("CUDA error: an illegal memory access was encountered"))
    health.check()
    computed(health, ZeroDivisionError())
    with pytest.raises(Unhealthy, match="^whisper: the last 3 requests failed, the last one with ZeroDivisionError$"):
        health.check()


def test_what_a_request_said_is_not_told() -> None:
    health = Health("text", HealthLimits(failures=1))
    computed(health, ValueError("cannot read 'my secret'"))
    with pytest.raises(Unhealthy) as caught:
        health.check()
    assert "secret" not in str(caught.value)


def test_a_request_that_succeeds_ends_the_row() -> None:
    health = Health("test", LIMITS)
    for error in (RuntimeError(), RuntimeError(), None, RuntimeError(), RuntimeError()):
        computed(health, error)
    assert is_well(health)


@pytest.mark.parametrize("error", [Malformed("truncated"), DeadlinePassed("late"), asyncio.CancelledError()], ids=repr)
def test_what_a_client_does_makes_no_replica_sick_and_none_well(error: BaseException) -> None:
    health = Health("test", LIMITS)
    for _ in range(50):
        computed(health, error)
    assert is_well(health)
    for _ in range(3):
        computed(health, RuntimeError())
        computed(health, error)
    assert not is_well(health)


def test_a_batch_of_several_that_fails_counts_for_nothing() -> None:
    health = Health("test", LIMITS)
    for _ in range(50):
        computed(health, RuntimeError(), requests=8)
    assert is_well(health)


def test_the_oldest_batch_that_computes_must_not_be_too_old() -> None:
    clock = Clock()
    health = Health("whisper", LIMITS, clock)
    with health.batch(1):
        clock.now_s += 6
        with health.batch(4):
            clock.now_s += 4
            assert is_well(health)
            clock.now_s += 1
            with pytest.raises(Unhealthy, match="^whisper: a batch has been computing for 11 s$"):
                health.check()
    clock.now_s += 1000
    assert is_well(health)


def test_a_batch_that_fails_computes_no_longer() -> None:
    clock = Clock()
    health = Health("test", LIMITS, clock)
    computed(health, RuntimeError())
    clock.now_s += 1000
    assert is_well(health)


def test_the_settings_have_the_same_limits() -> None:
    assert Settings().health.limits == HealthLimits()
    assert HealthSettings(failures=3, longest_batch_s=10).limits == LIMITS
    assert Settings().health.longest_batch_s > 2 * Settings().requests.deadline_s


# --- In the replicas --------------------------------------------------------------------------------------------------


def failing(items: Sequence[int]) -> list[int]:
    """A model that has lost its device, but for the number 0."""
    if any(items):
        raise RuntimeError("no device")
    return list(items)


async def test_a_batcher_counts_each_request_of_a_failed_batch_once() -> None:
    batcher = Batcher("test", failing, batch_size=2, limits=LIMITS)
    await asyncio.gather(batcher.submit(1), batcher.submit(2), return_exceptions=True)
    assert is_well(batcher.health)
    with pytest.raises(ModelFailed, match="^RuntimeError at "):
        await batcher.submit(3)
    assert not is_well(batcher.health)


async def test_one_poisoned_request_among_good_ones_leaves_a_replica_in_service() -> None:
    batcher = Batcher("test", failing, batch_size=4, limits=LIMITS)
    for _ in range(5):
        await asyncio.gather(*(batcher.submit(item) for item in (0, 1, 0)), return_exceptions=True)
        assert is_well(batcher.health)


def hanging(gate: threading.Event) -> Callable[[Sequence[int]], list[int]]:
    def run(items: Sequence[int]) -> list[int]:
        gate.wait(30)
        return list(items)

    return run


async def comes_true(condition: Callable[[], bool]) -> bool:
    """Whether it does, within ten seconds: on a busy machine a thread may start late."""
    for _ in range(1000):
        if condition():
            return True
        await asyncio.sleep(0.01)
    return False


async def test_a_model_that_hangs_is_seen_though_its_clients_have_left() -> None:
    gate = threading.Event()
    batcher = Batcher("test", hanging(gate), batch_size=1, limits=HealthLimits(longest_batch_s=0.05))
    thread = ModelThread("test", HealthLimits(longest_batch_s=0.05))
    asked = [asyncio.create_task(batcher.submit(1)), asyncio.create_task(thread.run(gate.wait, 30))]
    assert await comes_true(lambda: not is_well(batcher.health) and not is_well(thread.health))
    for task in asked:
        task.cancel()
    await asyncio.wait(asked)
    assert not is_well(batcher.health)
    assert not is_well(thread.health)
    gate.set()
    assert await comes_true(lambda: is_well(batcher.health) and is_well(thread.health))


async def test_waiting_for_a_thread_is_no_hang() -> None:
    gate = threading.Event()
    thread = ModelThread("test", LIMITS)
    clock = Clock()
    thread.health = Health("test", LIMITS, clock)
    started = threading.Event()

    def wait() -> None:
        started.set()
        gate.wait(30)

    asked = [asyncio.create_task(thread.run(wait)) for _ in range(3)]
    assert await comes_true(started.is_set)
    clock.now_s += 9
    gate.set()
    await asyncio.gather(*asked)
    clock.now_s += 9
    assert is_well(thread.health)


class Member:
    """A stage of the fused profile that is well or sick, and has nothing else."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error

    def __getattr__(self, name: str) -> object:
        return None

    async def record_autoscaling_stats(self) -> dict[str, float]:
        return {"served": 3.0, "busy_s": 0.5}

    async def check_health(self) -> None:
        if self._error is not None:
            raise self._error


async def test_the_fused_replica_counts_the_work_of_its_recogniser() -> None:
    stages = local_stages({name: Member() for name in ("mel", "asr", "text_embedding", "text_encoder", "fusion")}, 2)
    assert await stages.counts() == {"served": 3.0, "busy_s": 0.5, "cores": 2}


async def test_the_fused_replica_is_as_well_as_its_stages() -> None:
    names = ("mel", "asr", "text_embedding", "text_encoder", "fusion")
    await local_stages({name: Member() for name in names}).check_health()
    for sick in names:
        members = {name: Member(Unhealthy(name) if name == sick else None) for name in names}
        with pytest.raises(Unhealthy, match=sick):
            await local_stages(members).check_health()
