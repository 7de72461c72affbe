"""The autoscaling of the whole application: `decide` on a fake clock, and its shell with Ray's own contexts."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pytest
from ray import cloudpickle
from ray.serve._private.common import DeploymentID, ReplicaID, TimeStampedValue
from ray.serve.autoscaling_policy import _apply_app_level_autoscaling_config
from ray.serve.config import AutoscalingConfig, AutoscalingContext

from deployments import autoscaling
from deployments.accelerator import SHARES, actor_options
from deployments.autoscaling import (
    Capacity,
    Load,
    Memory,
    Objective,
    StageLoad,
    WholeApplication,
    arrival_rate,
    decide,
    fits,
    staffing,
    wait_s,
    within,
)

SERVICE_S = autoscaling.SERVICE_S
OBJECTIVE = Objective()
ROOMY = Capacity()


def stage(name: str, **differing: Any) -> StageLoad:
    share = SHARES[name]
    load = StageLoad(1, 1, 40, prior_s=SERVICE_S[name], num_cpus=share.num_cpus, num_gpus=share.num_gpus)
    return replace(load, **differing)


@dataclass
class Replay:
    """One decision a second for an application that serves what enters: `rate` requests a second."""

    capacity: Capacity = ROOMY
    most: int = 40
    now_s: float = 0.0
    memory: Memory = Memory()

    def __post_init__(self) -> None:
        self.replicas = dict.fromkeys(SHARES, 1)

    def decide(self, arrivals: float, inside: float = 0.0, refused: float = 0.0) -> dict[str, int]:
        self.now_s += 1
        stages = {
            name: stage(name, target=count, most=self.most, served=arrivals, busy_s=arrivals * SERVICE_S[name])
            for name, count in self.replicas.items()
        }
        load = Load(arrivals, inside, stages, refused)
        self.replicas, self.memory = decide(load, OBJECTIVE, self.capacity, self.now_s, self.memory)
        return self.replicas

    def run(self, seconds: int, rate: Callable[[int], float]) -> list[dict[str, int]]:
        return [self.decide(rate(second)) for second in range(seconds)]


def test_a_step_is_answered_in_every_stage_at_the_same_decision() -> None:
    replay = Replay()
    (*_, before) = replay.run(60, lambda _: 4)
    rising = next(now for now in replay.run(5, lambda _: 400) if now != before)
    grown = {name for name in SHARES if rising[name] > before[name]}
    assert grown >= {"Ingress", "WhisperASR", "Roberta", "FusionClassifier"}
    assert rising["WhisperASR"] > 10 * before["WhisperASR"]


def test_a_step_is_answered_within_two_decisions() -> None:
    replay = Replay()
    replay.run(60, lambda _: 8)
    needed = math.ceil(48 * SERVICE_S["WhisperASR"])
    (_, second) = replay.run(2, lambda _: 48)
    assert second["WhisperASR"] >= needed


@pytest.mark.parametrize("rate", [4, 16, 60])
def test_poisson_noise_at_a_constant_load_does_not_flap(rate: int) -> None:
    draws = np.random.default_rng(7).poisson(rate, 900)
    replay = Replay()
    wanted = [now["WhisperASR"] for now in replay.run(900, lambda second: float(draws[second]))][60:]
    changes = sum(one != other for one, other in zip(wanted, wanted[1:], strict=False))
    assert changes <= 900 / OBJECTIVE.hold_s
    assert max(wanted) <= 1.5 * min(wanted) + 1


def test_replicas_end_only_when_the_need_has_been_over_for_the_hold() -> None:
    replay = Replay()
    (*_, high) = replay.run(60, lambda _: 40)
    falling = replay.run(120, lambda _: 4)
    ended = next(second for second, now in enumerate(falling) if now["WhisperASR"] < high["WhisperASR"])
    assert ended >= OBJECTIVE.hold_s
    assert falling[-1]["WhisperASR"] <= 4


def test_a_burst_of_a_second_is_over_after_the_hold() -> None:
    replay = Replay()
    (*_, before) = replay.run(60, lambda _: 8)
    assert replay.decide(120)["WhisperASR"] > before["WhisperASR"]
    (*_, after) = replay.run(math.ceil(OBJECTIVE.hold_s + OBJECTIVE.steady_s) + 2, lambda _: 8)
    assert after == before


def test_without_requests_every_stage_has_its_least() -> None:
    replay = Replay()
    replay.run(30, lambda _: 30)
    assert replay.run(120, lambda _: 0)[-1] == dict.fromkeys(SHARES, 1)


def test_what_waits_is_staffed_for_beside_what_arrives() -> None:
    calm, behind = Replay(), Replay()
    for replay in (calm, behind):
        replay.run(60, lambda _: 8)
    waiting = 100
    more = behind.decide(8, inside=waiting)["WhisperASR"] - calm.decide(8)["WhisperASR"]
    assert more >= 0.8 * waiting / OBJECTIVE.drain_s * SERVICE_S["WhisperASR"]


def test_the_bounds_of_a_stage_are_kept() -> None:
    stages = {"WhisperASR": stage("WhisperASR", least=3, most=5, target=3)}
    idle, _ = decide(Load(0, 0, stages), OBJECTIVE, ROOMY, 1.0, Memory())
    flooded, _ = decide(Load(5000, 900, stages), OBJECTIVE, ROOMY, 1.0, Memory())
    assert (idle, flooded) == ({"WhisperASR": 3}, {"WhisperASR": 5})


@pytest.mark.parametrize("num_cpus", [2, 4, 16])
def test_the_cpus_of_the_cluster_are_never_exceeded(num_cpus: int) -> None:
    wanted = Replay(Capacity(num_cpus, 0)).run(5, lambda _: 500)[-1]
    # without a GPU in the cluster, the shell gives stages no share of one; here every stage keeps its own
    assert sum(count * SHARES[name].num_cpus for name, count in wanted.items()) <= num_cpus


def test_shares_of_a_gpu_never_lie_across_two() -> None:
    """Five times 0.4 is 2.0, but two GPUs hold four of them."""
    stages = {"WhisperASR": stage("WhisperASR", num_gpus=0.4), "Roberta": stage("Roberta", num_gpus=0.2)}
    assert fits({"WhisperASR": 4, "Roberta": 2}, stages, Capacity(num_gpus=2))
    assert not fits({"WhisperASR": 5, "Roberta": 0}, stages, Capacity(num_gpus=2))
    assert within({"WhisperASR": 9, "Roberta": 1}, SERVICE_S, stages, Capacity(num_gpus=2)) == {
        "WhisperASR": 4,
        "Roberta": 1,
    }


def test_where_not_all_fits_the_bottleneck_is_as_wide_as_it_can_be() -> None:
    stages = {name: stage(name) for name in ("WhisperASR", "Roberta")}
    given = within({"WhisperASR": 16, "Roberta": 4}, SERVICE_S, stages, Capacity(num_cpus=8.6))
    assert given == {"WhisperASR": 8, "Roberta": 2}
    assert not fits({**given, "WhisperASR": 9}, stages, Capacity(num_cpus=8.6))


@pytest.mark.parametrize("has", ["WhisperASR", "Roberta"])
@pytest.mark.parametrize("slower", ["WhisperASR", "Roberta"])
def test_the_last_replica_that_fits_does_not_move_to_a_stage_that_seems_slower_by_a_hair(has: str, slower: str) -> None:
    replicas = {"WhisperASR": 2, "Roberta": 2} | {has: 3}
    stages = {name: stage(name, target=target, num_gpus=0.2) for name, target in replicas.items()}
    service_s = {"WhisperASR": 0.2, "Roberta": 0.2} | {slower: 0.2001}
    assert within({"WhisperASR": 3, "Roberta": 3}, service_s, stages, Capacity(num_gpus=1)) == replicas


def test_what_is_spare_finds_room_beside_whatever_is_wanted_as_far_as_the_least_allow() -> None:
    spare = {"WhisperASR": 1}
    for num_cpus in (4, 16):
        wanted = Replay(Capacity(num_cpus, spare=spare)).run(5, lambda _: 500)[-1]
        used = sum(count * SHARES[name].num_cpus for name, count in wanted.items())
        assert wanted["WhisperASR"] > 1
        assert num_cpus - 2 < used <= num_cpus - SHARES["WhisperASR"].num_cpus
    full = Replay(Capacity(2, spare=spare)).run(5, lambda _: 500)[-1]
    assert set(full.values()) == {1}
    stages = {"WhisperASR": stage("WhisperASR")}
    assert within({"WhisperASR": 9}, SERVICE_S, stages, Capacity(num_gpus=1, spare=spare)) == {"WhisperASR": 3}


@pytest.mark.parametrize(("num_cpus", "replicas"), [(1, 1), (2, 1), (3, 1), (4, 2), (16, 8)])
def test_replicas_that_fill_two_cores_and_reserve_one_get_one_for_two_and_leave_room(
    num_cpus: int, replicas: int
) -> None:
    fused = StageLoad(1, 1, 8, num_cpus=1.0, memory=2.3e9, cores=2)
    capacity = Capacity(num_cpus, memory=40e9, spare={"Ingress": 1})
    assert within({"Ingress": 8}, {"Ingress": 0.13}, {"Ingress": fused}, capacity) == {"Ingress": replicas}
    no_memory = replace(capacity, memory=2 * 2.3e9)
    assert within({"Ingress": 8}, {"Ingress": 0.13}, {"Ingress": fused}, no_memory) == {"Ingress": 1}


def test_the_waits_of_all_stages_together_keep_their_share_of_the_objective() -> None:
    stages = {name: stage(name) for name in SHARES}
    wanted = staffing(40, SERVICE_S, stages, OBJECTIVE)
    waits = [wait_s(40, SERVICE_S[name], wanted[name], OBJECTIVE.quantile) for name in stages]
    assert sum(waits) <= OBJECTIVE.latency_s * OBJECTIVE.wait_share
    assert sum(staffing(40, SERVICE_S, stages, replace(OBJECTIVE, latency_s=0.5)).values()) > sum(wanted.values())


def test_the_wait_is_that_of_a_simulated_queue() -> None:
    """M/M/3 at 80 %: the 95th percentile of 200 000 waits."""
    random = np.random.default_rng(3)
    arrived = np.cumsum(random.exponential(1 / 24, 200_000))
    works = random.exponential(0.1, 200_000)
    free, waits = [0.0] * 3, []
    for at_s, work in zip(arrived, works, strict=True):
        soonest = min(range(3), key=free.__getitem__)
        waits.append(max(0.0, free[soonest] - at_s))
        free[soonest] = at_s + waits[-1] + work
    assert wait_s(24, 0.1, 3, 0.95) == pytest.approx(float(np.quantile(waits, 0.95)), rel=0.05)
    assert wait_s(30, 0.1, 3, 0.95) > 3600


def test_a_rise_is_followed_ahead_and_noise_is_not() -> None:
    steady = [[float(at), at + 1.0, 10.0] for at in range(20)]
    rising = [*steady[:-3], *([float(at), at + 1.0, 30.0] for at in (17, 18, 19))]
    noisy = [*steady[:-3], *([float(at), at + 1.0, 12.0] for at in (17, 18, 19))]
    assert arrival_rate(steady, OBJECTIVE, 20) == pytest.approx(10)
    assert arrival_rate(noisy, OBJECTIVE, 20) == pytest.approx(10.3)
    assert arrival_rate(rising, OBJECTIVE, 20) == pytest.approx(30 + 20 / 10 * OBJECTIVE.ready_s)


def test_a_stage_that_turns_out_slower_gets_more() -> None:
    slower, wanted, memory = 2 * SERVICE_S["WhisperASR"], [], Memory()
    for now_s in range(1, 120):
        load = Load(16, 0, {"WhisperASR": stage("WhisperASR", served=16, busy_s=16 * slower)})
        replicas, memory = decide(load, OBJECTIVE, ROOMY, now_s, memory)
        wanted.append(replicas["WhisperASR"])
    assert wanted[0] < 16 * slower < wanted[-1]


def test_refused_requests_are_demand() -> None:
    first, second = Replay(), Replay()
    for _ in range(30):
        assert first.decide(10.0, refused=30.0) is not None
        wanted = second.decide(40.0)
    assert first.memory.arrivals == second.memory.arrivals
    assert wanted["WhisperASR"] > 10


def test_what_is_remembered_survives_json() -> None:
    """Ray may store the state as it likes."""
    replay, restored = Replay(), Replay()
    for second in range(90):
        rate = 8.0 if second < 50 else 60.0
        assert restored.decide(rate) == replay.decide(rate)
        restored.memory = Memory(**json.loads(json.dumps(asdict(restored.memory))))


# --- The shell, with Ray's own contexts and wrapper -------------------------------------------------------------------


class Controller:
    """Calls the policy as Ray's controller does: pickled by value, wrapped, ten times a second, with its own state."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        cpus: float = 32,
        gpus: float = 0,
        memory: float = 1e12,
        on_gpu: bool = True,
    ) -> None:
        monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": cpus, "GPU": gpus, "memory": memory})
        given = {name: actor_options(share, on_gpu and gpus > 0, memory=True) for name, share in SHARES.items()}
        self.resources: dict[str, dict[str, float]] = given
        self._policy = _apply_app_level_autoscaling_config(WholeApplication())
        self._state: dict[DeploymentID, dict[str, Any]] = {}
        self.targets = dict.fromkeys(SHARES, 1)
        self._now_s, self._counts = 1000.0, {"admitted": 0.0, "refused": 0.0}
        self._config = AutoscalingConfig(min_replicas=1, max_replicas=40, upscale_delay_s=0, downscale_delay_s=0)

    def run(
        self, seconds: float, rate: float, inside: float = 0, refused: float = 0, in_gateway: float = 0
    ) -> list[dict[str, int]]:
        """`rate` and `refused` a second; `in_gateway` are requests that it has, whatever they are."""
        history = []
        for _ in range(round(seconds * 10)):
            self._now_s += 0.1
            self._counts["admitted"] += rate / 10
            self._counts["refused"] += refused / 10
            contexts = {DeploymentID(name, "amser"): self._context(name, inside, in_gateway) for name in SHARES}
            decisions, self._state = self._policy(contexts)
            self.targets |= {deployment.name: replicas for deployment, replicas in decisions.items()}
            history.append(dict(self.targets))
        return history

    def _context(self, name: str, inside: float, in_gateway: float) -> AutoscalingContext:
        deployment = DeploymentID(name, "amser")
        replica = ReplicaID("one", deployment)
        counts = {**self._counts, "inside": inside} if name == "Ingress" else {}
        counted = {
            metric: {replica: [TimeStampedValue(self._now_s, value)]}
            for metric, value in {**counts, **self.resources[name]}.items()
        }
        return AutoscalingContext(
            deployment_id=deployment,
            deployment_name=name,
            app_name="amser",
            current_num_replicas=self.targets[name],
            target_num_replicas=self.targets[name],
            running_replicas=[replica],
            total_num_requests=lambda: in_gateway,
            total_queued_requests=lambda: 0.0,
            aggregated_metrics=dict,
            raw_metrics=lambda: counted,
            capacity_adjusted_min_replicas=1,
            capacity_adjusted_max_replicas=40,
            policy_state=dict(self._state.get(deployment, {})),
            last_scale_up_time=None,
            last_scale_down_time=None,
            current_time=self._now_s,
            config=self._config,
        )


def test_through_rays_wrapper_all_stages_grow_in_the_same_call(monkeypatch: pytest.MonkeyPatch) -> None:
    controller = Controller(monkeypatch)
    before = controller.run(40, 4)[-1]
    rising = next(now for now in controller.run(4, 400) if now != before)
    assert {name for name in SHARES if rising[name] > before[name]} >= {"Ingress", "WhisperASR", "Roberta"}


def test_malformed_and_stalled_requests_scale_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gateway has them, but admitted none: fifty malformed ones a second led to eight recognisers before."""
    controller = Controller(monkeypatch)
    assert controller.run(60, 0, in_gateway=256)[-1] == dict.fromkeys(SHARES, 1)


def test_what_is_refused_for_want_of_room_scales_up_as_if_it_was_admitted(monkeypatch: pytest.MonkeyPatch) -> None:
    admitted = Controller(monkeypatch).run(40, 40)[-1]
    refused = Controller(monkeypatch).run(40, 4, refused=36)[-1]
    assert refused == admitted
    assert refused["WhisperASR"] > Controller(monkeypatch).run(40, 4)[-1]["WhisperASR"]


def test_what_waits_inside_the_pipeline_scales_up(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Controller(monkeypatch).run(40, 4, inside=200)[-1]["WhisperASR"] > 5


def test_logical_gpus_of_the_cluster_bound_the_replicas(monkeypatch: pytest.MonkeyPatch) -> None:
    targets = Controller(monkeypatch, gpus=2).run(10, 400)[-1]
    assert 4 < targets["WhisperASR"] <= 7
    assert sum(count * SHARES[name].num_gpus for name, count in targets.items()) <= 2 + 1e-6


def test_replicas_without_a_share_of_a_gpu_are_not_counted_against_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """`accelerator: cpu` on a cluster that has GPUs: the policy had to be told the same, or it planned for them."""
    controller = Controller(monkeypatch, gpus=2, on_gpu=False)
    assert controller.run(10, 400)[-1] == Controller(monkeypatch, gpus=0).run(10, 400)[-1]
    assert controller.targets["WhisperASR"] > 10


def test_what_a_replica_says_it_was_given_counts_and_not_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator may set `ray_actor_options` of a deployment."""
    controller = Controller(monkeypatch, cpus=32)
    controller.resources["WhisperASR"] = {"num_cpus": 4.0}
    assert 1 < controller.run(10, 400)[-1]["WhisperASR"] <= 7


def test_memory_of_the_cluster_bounds_the_replicas(monkeypatch: pytest.MonkeyPatch) -> None:
    targets = Controller(monkeypatch, memory=20e9).run(10, 400)[-1]
    assert targets["WhisperASR"] > 4
    assert 17e9 < sum(count * SHARES[name].memory for name, count in targets.items()) <= 20e9


def test_a_stage_grows_once_a_replica_has_said_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    controller = Controller(monkeypatch)
    told, controller.resources["WhisperASR"] = controller.resources["WhisperASR"], {}
    assert controller.run(10, 400)[-1]["WhisperASR"] == 1
    controller.resources["WhisperASR"] = told
    assert controller.run(3, 400)[-1]["WhisperASR"] > 10


def test_a_second_passes_between_two_decisions(monkeypatch: pytest.MonkeyPatch) -> None:
    decisions: list[float] = []
    monkeypatch.setattr(
        autoscaling,
        "decide",
        lambda *given: decisions.append(given[3]) or decide(*given),  # type: ignore[func-returns-value]
    )
    Controller(monkeypatch).run(10, 4)
    assert len(decisions) in (9, 10)


def test_a_gateway_that_does_not_scale_is_named_once_and_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray calls from the loop of its controller, which an error would end for all applications."""
    warnings: list[tuple[str, ...]] = []
    monkeypatch.setattr(autoscaling.logger, "warning", lambda *said: warnings.append(said))
    policy = WholeApplication()
    assert [policy({DeploymentID("Roberta", "amser"): object()}) for _ in range(3)] == [({}, {})] * 3
    assert [each[1] for each in warnings] == ["Ingress"]
    assert WholeApplication()({}) == ({}, {})


def test_the_controller_of_ray_need_not_import_torch() -> None:
    """It unpickles the policy by value; whatever the policy names of other modules, it would import."""
    cloudpickle.register_pickle_by_value(autoscaling)
    try:
        pickled = cloudpickle.dumps(WholeApplication)
    finally:
        cloudpickle.unregister_pickle_by_value(autoscaling)
    assert b"deployments.accelerator" not in pickled
    policy = cloudpickle.loads(pickled)(objective={"latency_s": 1.0})
    assert policy._objective.latency_s == 1.0
