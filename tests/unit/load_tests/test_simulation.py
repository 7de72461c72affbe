"""The simulation against queueing theory, and what its replicas do with requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import factorial
from random import Random

import numpy as np
import pytest
from simpy import Environment

from load_tests.simulation.dag import ANSWERED, EXPIRED, REFUSED, Dag, SimulationResult, StageState, simulate
from load_tests.simulation.machine import Machine
from load_tests.simulation.pool import Cluster
from load_tests.simulation.stage import Deployment, Node, Request, Service, Stage

SERVICE_S = 1.0  # mean
COUNT = 80_000
BATCHES = 30  # of consecutive requests, whose means are nearly independent
NEVER_BUSY = 10_000  # threads


def exponential(_: object, random: Random) -> float:
    return random.expovariate(1.0 / SERVICE_S)


def constant(seconds: float) -> Service:
    return lambda _batch, _random: seconds


def poisson(rate: float, count: int = COUNT, seed: int = 5) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.cumsum(np.random.default_rng(seed).exponential(1.0 / rate, count))


def one_stage(service: Service, *, threads: int = 1, cores: int = 1, **more: float) -> Dag:
    return Dag((Deployment("Only", (Stage("only", threads, 1, service),)),), {}, cores=cores, **more)  # type: ignore[arg-type]


def agrees(measured: np.ndarray[tuple[int], np.dtype[np.float64]], expected: float) -> bool:
    """Whether the mean is within four standard errors, from the means of batches since neighbours hang together."""
    means = np.array([batch.mean() for batch in np.array_split(measured[COUNT // 20 :], BATCHES)])
    error = means.std(ddof=1) / np.sqrt(BATCHES)
    assert error < 0.1 * expected, "too few requests to tell"
    return bool(abs(means.mean() - expected) < 4 * error)


def run(dag: Dag, rate: float, **more: float) -> SimulationResult:
    return simulate(dag, poisson(rate), np.ones(COUNT), seed=7, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("load", [0.3, 0.7])
def test_one_server_waits_as_in_m_m_1(load: float) -> None:
    assert agrees(run(one_stage(exponential), load).queue_s["only"], load / (1 - load))


def test_four_servers_wait_as_erlang_c_says() -> None:
    servers, offered = 4, 3.0
    below = sum(offered**k / factorial(k) for k in range(servers))
    full = offered**servers / factorial(servers) * servers / (servers - offered)
    expected = full / (below + full) / (servers - offered)
    result = run(one_stage(exponential, threads=servers, cores=servers), offered)
    assert agrees(result.queue_s["only"], expected)
    assert result.utilization == pytest.approx(offered / servers, rel=0.02)


def test_constant_service_waits_half_as_long_as_in_m_m_1() -> None:
    load = 0.7
    assert agrees(run(one_stage(constant(SERVICE_S)), load).queue_s["only"], load / (1 - load) / 2)


@pytest.mark.parametrize("service", [exponential, constant(SERVICE_S)])
def test_shared_cores_take_as_long_as_in_m_g_1_ps_whatever_the_spread(service: Service) -> None:
    """Kleinrock 1967: the mean of processor sharing hangs on the mean service alone."""
    load = 0.6
    result = run(one_stage(service, threads=NEVER_BUSY), load)
    assert agrees(result.latency_s, SERVICE_S / (1 - load))
    assert result.queue_s["only"].max() == 0


def test_jobs_that_share_two_cores_end_when_the_arithmetic_says() -> None:
    """Three jobs of 2 s at once on two cores: each at two thirds; a fourth of 1 s comes after 1.5 s."""
    durations = iter([2.0, 2.0, 2.0, 1.0])
    dag = one_stage(lambda _batch, _random: next(durations), threads=4, cores=2)
    result = simulate(dag, [0, 0, 0, 1.5], np.ones(4), seed=1)
    # At 1.5 s, 1 s of each is left: four jobs at one half end together at 3.5 s
    assert result.done_s == pytest.approx([3.5, 3.5, 3.5, 3.5])
    assert result.core_s == pytest.approx(7.0)


def test_cores_that_hinder_each_other_are_slower_when_all_are_busy() -> None:
    dag = one_stage(constant(1.0), threads=2, cores=2, contention=1.5)
    result = simulate(dag, [0, 0, 10], np.ones(3), seed=1)
    assert result.latency_s == pytest.approx([1.5, 1.5, 1.0])


def test_a_batch_takes_the_oldest_and_those_most_like_it_within_its_budget() -> None:
    batches: list[list[float]] = []

    def service(batch: list[Request], _: Random) -> float:
        batches.append([request.speech_s for request in batch])
        return 1.0

    stage = Stage("only", 1, 3, service, budget_s=10.0)  # type: ignore[arg-type]
    dag = Dag((Deployment("Only", (stage,)),), {})
    speech = [1.0, 4.0, 9.0, 4.5, 1.0, 3.0]
    result = simulate(dag, [0, 0.1, 0.2, 0.3, 0.4, 0.5], speech, seed=1)
    assert batches == [[1.0], [4.0, 4.5, 1.0], [9.0], [3.0]]
    assert sorted(sum(batches, [])) == sorted(speech)
    assert (result.status == ANSWERED).all()


def test_a_second_pass_waits_anew_alone_and_holds_nobody_of_its_batch() -> None:
    def service(_: list[Request], __: Random) -> float:
        return 1.0

    doubtful = 0.5
    stage = Stage("only", 1, 4, service, second_pass=lambda request: 3.0 if request.speech_s == doubtful else 0.0)  # type: ignore[arg-type]
    dag = Dag((Deployment("Only", (stage,)),), {})
    result = simulate(dag, [0, 0, 0.5, 1.5], [doubtful, 2.0, doubtful, 2.0], seed=1)
    # 0 to 1 the first two; 1 to 2 the third, which came before the second pass of the first; then both second passes,
    # and the last one, which came between them
    assert result.done_s == pytest.approx([5.0, 1.0, 9.0, 6.0])
    assert (result.status == ANSWERED).all()


def test_every_request_goes_through_every_stage_once_and_the_last_waits_for_both_branches() -> None:
    seen: dict[str, list[int]] = {}

    def stage(name: str, seconds: float) -> Stage:
        def service(batch: list[Request], _: Random) -> float:
            seen.setdefault(name, []).extend(request.number for request in batch)
            return seconds

        return Stage(name, 1, 4, service)  # type: ignore[arg-type]

    stages = (stage("first", 0.01), stage("left", 0.02), stage("right", 0.05), stage("last", 0.01))
    after = {"left": ("first",), "right": ("first",), "last": ("left", "right")}
    count = 500
    for deployments in (
        tuple(Deployment(each.name, (each,), replicas=2, hop_s=0.001) for each in stages),
        (Deployment("fused", stages, replicas=2),),
    ):
        seen.clear()
        result = simulate(Dag(deployments, after, cores=4), poisson(15, count), np.ones(count), seed=1)
        assert (result.status == ANSWERED).all()
        assert {name: sorted(numbers) for name, numbers in seen.items()} == {
            each.name: list(range(count)) for each in stages
        }
        slower = np.maximum(*(result.queue_s[name] + result.compute_s[name] for name in ("left", "right")))
        total = slower + sum(result.queue_s[name] + result.compute_s[name] for name in ("first", "last"))
        assert result.latency_s == pytest.approx(total)


def test_hops_cost_cores_and_hold_no_thread() -> None:
    dag = Dag((Deployment("Only", (Stage("only", 1, 1, constant(1.0)),), hop_s=0.5),), {}, cores=2)
    result = simulate(dag, [0, 0], [1, 1], seed=1)
    assert result.done_s == pytest.approx([1.5, 2.5])
    assert result.core_s == pytest.approx(3.0)


def test_the_same_seed_gives_the_same_outcome() -> None:
    dag = Dag((Deployment("Only", (Stage("only", 1, 1, exponential),), replicas=5),), {}, cores=4)

    def latencies(seed: int) -> list[float]:
        return list(simulate(dag, poisson(3, 2000), np.ones(2000), seed=seed).latency_s)

    assert latencies(1) == latencies(1)
    assert latencies(1) != latencies(2)


def test_two_choices_wait_less_than_one_replica_that_chance_names() -> None:
    """Mitzenmacher 2001; one choice among ten at 0.8 would be M/M/1 and wait four services."""
    dag = Dag((Deployment("Only", (Stage("only", 1, 1, exponential),), replicas=10),), {}, cores=10)
    assert 0.5 < run(dag, 8.0).queue_s["only"].mean() < 2.0


def test_what_is_late_is_dropped_by_the_stage_and_refused_by_admission_control_where_that_is_asked() -> None:
    arrivals, speech = np.arange(200) * 0.5, np.ones(200)
    dropping = simulate(one_stage(constant(1.0)), arrivals, speech, seed=1, deadline_s=5.0)
    refusing = simulate(one_stage(constant(1.0), admits_all=False), arrivals, speech, seed=1, deadline_s=5.0)
    assert set(dropping.status) == {ANSWERED, EXPIRED}
    assert set(refusing.status) == {ANSWERED, REFUSED}
    assert np.nanmax(refusing.latency_s) <= 5.0
    assert np.isnan(refusing.done_s[refusing.status == REFUSED]).all()


@dataclass(slots=True)
class Wanted:
    """Wants so many replicas from these moments on, and keeps what it saw."""

    steps: Mapping[float, int]
    interval_s: float = 1.0
    seen: list[tuple[float, StageState]] = field(default_factory=list)

    def decide(self, now_s: float, stages: Mapping[str, StageState]) -> Mapping[str, int]:
        self.seen.append((now_s, stages["Only"]))
        due = [count for at_s, count in self.steps.items() if at_s <= now_s]
        return {"Only": due[-1]} if due else {}


def scaled(service_s: float, replicas: int, cold_start_s: float = 3.0, max_ongoing: int | None = None) -> Dag:
    stage = Stage("only", 1, 1, constant(service_s))
    only = Deployment("Only", (stage,), replicas, cold_start_s=cold_start_s, max_ongoing=max_ongoing)
    return Dag((only,), {}, cores=8)


def test_a_wanted_replica_takes_requests_after_its_cold_start_and_costs_from_the_decision_on() -> None:
    scaler = Wanted({2.0: 2})
    result = simulate(scaled(1.0, 1, max_ongoing=1), np.zeros(10), np.ones(10), seed=1, autoscaler=scaler)
    assert result.steps["Only"] == ((0.0, 1), (5.0, 2))
    assert result.done_s == pytest.approx([1, 2, 3, 4, 5, 6, 6, 7, 7, 8])  # five alone, then two by two
    assert result.replica_s["Only"] == pytest.approx(8 + 6)
    assert result.busy_s["Only"] == pytest.approx(10)
    first = scaler.seen[0][1]
    assert (first.running, first.starting, first.arrivals) == (1, 0, 10)
    assert scaler.seen[2][1].starting == 1


def test_a_removed_replica_finishes_its_work_and_takes_no_more() -> None:
    scaler = Wanted({2.0: 1})
    result = simulate(scaled(5.0, 2), [0, 0, 0, 0, 3.0], np.ones(5), seed=1, autoscaler=scaler)
    assert (result.status == ANSWERED).all()
    assert result.steps["Only"] == ((0.0, 2), (2.0, 1))
    assert sorted(result.done_s) == pytest.approx([5, 5, 10, 10, 15])  # the one that stays has three
    assert result.replica_s["Only"] == pytest.approx(15 + 10)


def test_an_autoscaler_sees_the_work_since_its_last_decision() -> None:
    scaler = Wanted({}, interval_s=2.0)
    simulate(scaled(2.9, 1), [0.0, 2.5], np.ones(2), seed=1, autoscaler=scaler)
    assert [state.busy_s for _, state in scaler.seen] == pytest.approx([2, 2])
    assert [state.arrivals for _, state in scaler.seen] == [1, 1]
    assert [state.ongoing for _, state in scaler.seen] == [1, 1]


def test_an_idle_cluster_has_done_no_work_however_its_threads_were_shared() -> None:
    """Three thirds of a replica, added and taken away again, must leave nothing; nor may a replica that ends."""
    stage = Stage("only", 3, 1, lambda _, random: random.uniform(0.1, 1.3))
    scaler = Wanted({0.5: 3, 6.0: 1})
    dag = Dag((Deployment("Only", (stage,), 2, cold_start_s=0.1),), {}, cores=8)
    arrivals = np.append(np.sort(np.random.default_rng(1).uniform(0, 3, 60)), 20.0)
    simulate(dag, arrivals, np.ones(61), seed=1, autoscaler=scaler)
    idle = [state for at_s, state in scaler.seen if 10 < at_s < 20]
    assert [state.ongoing for state in idle] == [0] * 9
    assert [state.busy_s for state in idle] == [0.0] * 9
    assert scaler.seen[0][1].busy_s > 1


def test_a_node_that_everything_has_left_is_as_empty_as_a_new_one() -> None:
    environment = Environment()
    nodes, gpu = [Node(Machine(environment, 2)) for _ in range(2)], Node(Machine(environment, 1))
    cluster = Cluster(nodes, [gpu])
    deployments = [Deployment(str(cpus), (), cpus=cpus, gpu=0.1) for cpus in (0.1, 0.2, 0.7, 0.4, 1.1)]
    placed = [(each, place) for each in deployments if (place := cluster.place(each)) is not None]
    for deployment, place in placed:
        cluster.release(deployment, place)
    assert [each.reserved for each in (*nodes, gpu)] == [0.0, 0.0, 0.0]
    tenths = Deployment("tenths", (), gpu=0.1)
    assert sum(cluster.place(tenths) is not None for _ in range(12)) == 10


@pytest.mark.parametrize(
    ("arrivals", "speech", "after", "said"),
    [
        ([], [], {}, "0 arrivals"),
        ([0, 1], [1], {}, "2 arrivals, 1 utterances"),
        ([1, 0], [1, 1], {}, "in order"),
        ([0], [1], {"only": ("other",)}, "stages other"),
        ([0], [1], {"only": ("only",)}, "wait for each other: only"),
    ],
)
def test_what_cannot_be_simulated_is_said(
    arrivals: list[float], speech: list[float], after: dict[str, tuple[str, ...]], said: str
) -> None:
    dag = Dag((Deployment("Only", (Stage("only", 1, 1, constant(1.0)),)),), after)
    with pytest.raises(ValueError, match=said):
        simulate(dag, arrivals, speech, seed=1)
