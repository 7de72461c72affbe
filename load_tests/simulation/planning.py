"""How large a cluster has to be: replicas, nodes and what they cost, from measured service times and a simulation.

A cluster that is too large to be simulated is cut into equal cells: a random share of a Poisson process is one too. A
cell keeps enough replicas of the busiest stage for them to help each other out; the cluster is so many cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil, inf
from typing import Final

import numpy as np

from load_tests.simulation.application import DEPLOYMENTS, GPU_SPEED_UP, Profile, build
from load_tests.simulation.dag import ANSWERED, Dag, SimulationResult, simulate
from load_tests.simulation.service_times import ServiceTimes

CELL_CORES: Final = 64  # of a simulated cell, about: more would change percentiles by less than their noise
SECONDS: Final = 60.0  # of each trial: many times a latency, or a queue that grows for ever would pass
FEWEST: Final = 3_000  # requests of each trial
TYPICAL: Final = 500  # utterances, for the mean load
WARM_UP: Final = 0.1  # of the requests, left out: the cluster begins empty
FULL: Final = 0.95  # of cores and threads, where the search begins; batches make them less full
STEP: Final = 1.15  # what the bottleneck gains in a step, at least one
IMPROVED: Final = 0.95  # of p99: where more replicas alone bring it below that share, no node is added
TRIALS: Final = 40
SLOWEST: Final = 0.02  # of the answers: where they waited is the bottleneck


class NoPlan(ValueError):  # noqa: N818 - an error by its base class
    """No number of replicas keeps the objective."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What the cluster is to carry.

    Attributes:
        devices: in all.
        utterances_per_hour: of each, on average.
        speech_s: mean seconds of an utterance.
        peak_factor: of the busiest moment, against the average.
        slo_p99_ms: what 99 of 100 answers keep, at that moment.

    Raises:
        ValueError: one of them is not above zero.
    """

    devices: int
    utterances_per_hour: float
    speech_s: float
    slo_p99_ms: float
    peak_factor: float = 2.5

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above zero")

    @property
    def rate(self) -> float:
        """Requests a second at the peak."""
        return self.devices * self.utterances_per_hour / 3600.0 * self.peak_factor


@dataclass(frozen=True, slots=True)
class Offer:
    """What it is built from. The prices are examples: put in those that are paid.

    Attributes:
        cores_per_node: of the measured kind.
        gpus_per_node: 0 computes on cores.
        gpu_speed_up: by stage, against one core. Assumed, not measured.
        price_core_hour, price_gpu_hour: in the operator's money.

    Raises:
        ValueError: nodes without cores, fewer than no GPUs, or a speed-up that is none.
    """

    cores_per_node: int = 16
    gpus_per_node: int = 0
    gpu_speed_up: Mapping[str, float] | None = None
    price_core_hour: float = 0.04
    price_gpu_hour: float = 0.80

    def __post_init__(self) -> None:
        if (
            self.cores_per_node < 1
            or self.gpus_per_node < 0
            or not all(x > 0 for x in (self.gpu_speed_up or {}).values())
        ):
            raise ValueError("a node has a core at least, no or some GPUs, and a speed-up is above zero")


@dataclass(frozen=True, slots=True)
class Prediction:
    """LatencyHistogram and load of a simulated cluster.

    Attributes:
        p50_ms, p95_ms, p99_ms: of the answers, from arrival.
        answered: share of the requests.
        utilization: of the cores.
        busy: share of the time that a replica has work, by deployment.
        slowest_queue_ms: where the slowest answers waited, by deployment.
    """

    p50_ms: float
    p95_ms: float
    p99_ms: float
    answered: float
    utilization: float
    busy: Mapping[str, float]
    slowest_queue_ms: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Plan:
    """A cluster that keeps the objective, in the simulation.

    Attributes:
        rate: requests a second at the peak.
        replicas: by deployment.
        nodes, gpus: in all.
        prediction: at the peak.
        cost_per_hour: of nodes and GPUs, which stay for the peak all day.
        cost_per_million: utterances, at the average rate.
        cells: equal parts of the cluster; one of them was simulated.
        simulated: requests of the last trial.
        steps: of the search.
    """

    rate: float
    replicas: Mapping[str, int]
    nodes: int
    gpus: int
    prediction: Prediction
    cost_per_hour: float
    cost_per_million: float
    cells: int
    simulated: int
    steps: int


def predict(
    rate: float,
    seconds: float,
    profile: Profile,
    cores: int = 2,
    *,
    service_times: ServiceTimes,
    seed: int = 1,
    speech_s: float | None = None,
    deadline_s: float | None = None,
) -> Prediction:
    """What Poisson arrivals at a rate get from one node with one replica of each deployment.

    Args:
        rate: requests a second.
        seconds: how long they go on.
        profile: of the application.
        cores: of the node.
        service_times: measured.
        seed: of arrivals, speech and service.
        speech_s: mean seconds of an utterance; None takes that of the sample conversation.
        deadline_s: of a request.
    """
    dag = build(service_times, profile, cores=cores)
    result = _run(dag, service_times, rate, max(1, round(rate * seconds)), speech_s, seed, deadline_s)
    return _prediction(result, warm_up=0.0)


def plan(demand: Demand, offer: Offer, times: ServiceTimes, *, profile: Profile = "distributed", seed: int = 1) -> Plan:
    """A cluster that keeps the objective: the load's own, and then more of the bottleneck until p99 holds.

    Args:
        demand: what it is to carry.
        offer: what it is built from.
        times: measured.
        profile: of the application.
        seed: of arrivals, speech and service.

    Raises:
        NoPlan: an empty cluster would not keep the objective either, or the search did not end.
    """
    search = _Search(demand, offer, times, profile, seed)
    empty = search.trial(search.start, rate=search.rate / 1000.0, seconds=1.0)
    if empty.p99_ms > demand.slo_p99_ms:
        raise NoPlan(
            f"p99 of an empty cluster is {empty.p99_ms:.0f} ms: give --slo-p99-ms more, or shorter --speech-seconds"
        )
    cell, prediction = search.start, search.trial(search.start)
    for number in range(1, TRIALS + 1):
        if prediction.p99_ms <= demand.slo_p99_ms:
            prediction = search.trial(cell, seed=seed + 1, seconds=2 * SECONDS)  # not by luck
            if prediction.p99_ms <= demand.slo_p99_ms:
                return search.plan(cell, prediction, number)
        cell, prediction = search.more(cell, prediction)
    raise NoPlan(f"{TRIALS} steps were not enough; the last one has p99 {prediction.p99_ms:.0f} ms")


@dataclass(frozen=True, slots=True)
class _Cell:
    nodes: int
    gpus: int
    replicas: Mapping[str, int]


class _Search:
    def __init__(self, demand: Demand, offer: Offer, times: ServiceTimes, profile: Profile, seed: int) -> None:
        self._demand, self._offer, self._times, self._profile, self._seed = demand, offer, times, profile, seed
        self._faster = (offer.gpu_speed_up or GPU_SPEED_UP) if offer.gpus_per_node else {}
        core_s, thread_s = self._work()
        cores = demand.rate * core_s / FULL
        self._cells = max(1, round(cores / CELL_CORES))
        self.rate = demand.rate / self._cells
        replicas = {name: max(1, ceil(self.rate * seconds / FULL)) for name, seconds in thread_s.items()}
        nodes = max(1, ceil(cores / self._cells / offer.cores_per_node))
        self.start = self._with_gpus(_Cell(nodes, 0, replicas))

    def trial(
        self, cell: _Cell, *, rate: float | None = None, seed: int | None = None, seconds: float | None = None
    ) -> Prediction:
        dag = build(
            self._times,
            self._profile,
            nodes=cell.nodes,
            cores=self._offer.cores_per_node,
            gpus=cell.gpus,
            gpu_speed_up=self._faster,
            replicas=cell.replicas,
        )
        rate, seed = rate or self.rate, seed or self._seed
        count = max(FEWEST, round(rate * (seconds or SECONDS)))
        return _prediction(_run(dag, self._times, rate, count, self._demand.speech_s, seed), WARM_UP)

    def more(self, cell: _Cell, before: Prediction) -> tuple[_Cell, Prediction]:
        """More replicas of the deployment where the slowest wait, if that helps: they are cheap. Or a node, too."""
        name = max(before.slowest_queue_ms, key=lambda each: before.slowest_queue_ms[each])
        more_replicas = {**cell.replicas, name: _step(cell.replicas[name])}
        crowded = self._with_gpus(replace(cell, replicas=more_replicas))
        prediction = self.trial(crowded)
        if prediction.p99_ms < IMPROVED * before.p99_ms:
            return crowded, prediction
        gpus = _step(crowded.gpus) if crowded.gpus else 0
        larger = self._with_gpus(replace(crowded, nodes=_step(crowded.nodes), gpus=gpus))
        return larger, self.trial(larger)

    def plan(self, cell: _Cell, prediction: Prediction, steps: int) -> Plan:
        offer, demand = self._offer, self._demand
        nodes, gpus = cell.nodes * self._cells, cell.gpus * self._cells
        cost = nodes * offer.cores_per_node * offer.price_core_hour + gpus * offer.price_gpu_hour
        return Plan(
            rate=demand.rate,
            replicas={name: count * self._cells for name, count in cell.replicas.items()},
            nodes=nodes,
            gpus=gpus,
            prediction=prediction,
            cost_per_hour=cost,
            cost_per_million=1e6 * cost / (demand.devices * demand.utterances_per_hour),
            cells=self._cells,
            simulated=max(FEWEST, round(self.rate * 2 * SECONDS)),
            steps=steps,
        )

    def _work(self) -> tuple[float, dict[str, float]]:
        """Core-seconds of a request, and seconds of a replica by deployment: each utterance alone, every core busy."""
        times, fused = self._times, self._profile == "fused"
        speech = times.speech(TYPICAL, self._demand.speech_s, self._seed)
        spoken = [*zip(speech.tolist(), times.tokens(speech, self._seed).tolist(), strict=True)]
        core_s, thread_s = times.overhead_ms[self._profile] / 1000.0, dict[str, float]()
        for name, stage in times.stages.items():
            seconds = float(np.mean([stage.mean_ms(*utterance) for utterance in spoken])) / 1000.0
            seconds *= 1.0 / self._faster[name] if name in self._faster else times.contention
            core_s += 0.0 if name in self._faster else seconds
            where = "Ingress" if fused else DEPLOYMENTS[name]
            thread_s[where] = max(thread_s.get(where, 0.0), seconds / times.serving[name].threads)
        return core_s, thread_s

    def _with_gpus(self, cell: _Cell) -> _Cell:
        """As many GPUs as the replicas' shares need, and as many nodes as the GPUs need."""
        if not self._faster:
            return cell
        on_gpu = {DEPLOYMENTS[name]: int(1.0 / self._times.serving[name].gpu + 1e-9) for name in self._faster}
        gpus = max(cell.gpus, sum(ceil(cell.replicas[name] / on_each) for name, on_each in on_gpu.items()))
        return replace(cell, gpus=gpus, nodes=max(cell.nodes, ceil(gpus / self._offer.gpus_per_node)))


def _step(count: int) -> int:
    return max(count + 1, round(STEP * count))


def _run(
    dag: Dag,
    times: ServiceTimes,
    rate: float,
    count: int,
    speech_s: float | None,
    seed: int,
    deadline_s: float | None = None,
) -> SimulationResult:
    arrivals = np.cumsum(np.random.default_rng(seed).exponential(1.0 / rate, count))
    speech = times.speech(count, speech_s or times.mean_speech_s, seed)
    return simulate(dag, arrivals, speech, seed=seed, tokens=times.tokens(speech, seed), deadline_s=deadline_s)


def _prediction(result: SimulationResult, warm_up: float) -> Prediction:
    start = int(warm_up * result.status.size)
    answered = result.status[start:] == ANSWERED
    latency_ms = 1000.0 * result.latency_s[start:][answered]
    p50, p95, p99 = np.percentile(latency_ms, (50, 95, 99)).tolist() if latency_ms.size else (inf, inf, inf)
    slowest = latency_ms >= np.quantile(latency_ms, 1.0 - SLOWEST) if latency_ms.size else answered
    waits = dict[str, float]()
    for stage, queue_s in result.queue_s.items():
        where = DEPLOYMENTS[stage] if DEPLOYMENTS[stage] in result.busy_s else "Ingress"
        waits[where] = waits.get(where, 0.0) + 1000.0 * float(queue_s[start:][answered][slowest].mean())
    busy = {name: result.busy_s[name] / replica_s for name, replica_s in result.replica_s.items()}
    return Prediction(p50, p95, p99, float(answered.mean()), result.utilization, busy, waits)
