"""The serving DAG under a schedule of arrivals: who waits where, for how long, and what it takes.

Hook for autoscalers: they see each deployment at a fixed interval and say how many replicas they want.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from random import Random
from typing import Final, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from simpy import Environment, Event

from load_tests.simulation.machine import Machine
from load_tests.simulation.pool import Cluster, Pool
from load_tests.simulation.stage import Deployment, Node, Replica, Request

ANSWERED: Final = 0
REFUSED: Final = 1  # by admission control: it would not have been answered in time
EXPIRED: Final = 2  # dropped by a stage: its deadline had passed
SMOOTHING: Final = 0.1  # of the seconds that a stage takes, which admission predicts from

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Dag:
    """A cluster and what runs in it.

    Attributes:
        deployments: with every stage once.
        after: the stages that each stage waits for; those that wait for none begin.
        nodes: machines.
        cores: of each.
        gpus: in all.
        contention: see `Machine`.
        admits_all: False refuses what is predicted to pass its deadline.
    """

    deployments: tuple[Deployment, ...]
    after: Mapping[str, tuple[str, ...]]
    nodes: int = 1
    cores: int = 2
    gpus: int = 0
    contention: float = 1.0
    admits_all: bool = True


@dataclass(frozen=True, slots=True)
class StageState:
    """What an autoscaler sees of one deployment.

    Attributes:
        name: of the deployment.
        running, starting: replicas.
        queued: requests that wait in front of the replicas, each of which has all it may have.
        ongoing: requests that the replicas have, whether they run or wait there.
        arrivals: requests since the last decision.
        busy_s: replica-seconds of work since the last decision; a replica with half of its threads busy counts half.
    """

    name: str
    running: int
    starting: int
    queued: int
    ongoing: int
    arrivals: int
    busy_s: float


class Autoscaler(Protocol):
    """Says how many replicas there should be.

    Attributes:
        interval_s: between two decisions.
    """

    interval_s: float

    def decide(self, now_s: float, stages: Mapping[str, StageState]) -> Mapping[str, int]:
        """Wanted replicas by deployment; those that are not named stay as they are."""
        ...


@dataclass(frozen=True, slots=True)
class SimulationResult:
    """What became of the requests, each in its place among the arrivals, and what it took.

    Attributes:
        arrival_s, done_s: (n,); `done_s` is NaN where there was no answer.
        status: (n,) ANSWERED, REFUSED or EXPIRED.
        queue_s: (n,) by stage: waiting and travelling; NaN where the stage was not reached.
        compute_s: (n,) by stage: the batch that the request was in.
        replica_s: replica-seconds by deployment, cold starts included.
        busy_s: of these, at work.
        steps: (seconds, running replicas) at each change, by deployment.
        core_s: core-seconds that were used.
        utilization: of all cores, 0 to 1.
        seconds: from the start to the last answer.
    """

    arrival_s: Floats
    done_s: Floats
    status: NDArray[np.int8]
    queue_s: Mapping[str, Floats]
    compute_s: Mapping[str, Floats]
    replica_s: Mapping[str, float]
    busy_s: Mapping[str, float]
    steps: Mapping[str, tuple[tuple[float, int], ...]]
    core_s: float
    utilization: float
    seconds: float

    @property
    def latency_s(self) -> Floats:
        """(n,) from arrival to answer; NaN where there was none."""
        return self.done_s - self.arrival_s

    def percentile_ms(self, percent: float) -> float:
        """Of the answers' latencies; infinite where nothing was answered."""
        answered = self.latency_s[self.status == ANSWERED]
        return 1000.0 * float(np.percentile(answered, percent)) if answered.size else inf


def simulate(
    dag: Dag,
    arrivals: ArrayLike,
    speech: ArrayLike,
    *,
    seed: int,
    tokens: ArrayLike | None = None,
    autoscaler: Autoscaler | None = None,
    deadline_s: float | None = None,
) -> SimulationResult:
    """Runs the schedule until every request is settled.

    Args:
        dag: the cluster.
        arrivals: (n,) seconds, in order.
        speech: (n,) seconds of speech in each request.
        seed: of service times and router.
        tokens: (n,) of each text; without them three for each second of speech.
        autoscaler: changes the replicas; None leaves them as they are.
        deadline_s: from arrival; a stage drops what is older. None waits for ever.

    Raises:
        ValueError: the arrivals are none, not in order, or more or fewer than `speech` or `tokens`; a stage waits for
            one that does not exist, or for itself.
    """
    at, seconds = np.asarray(arrivals, float), np.asarray(speech, float)
    words = 3.0 * seconds if tokens is None else np.asarray(tokens, float)
    if not at.size or not at.shape == seconds.shape == words.shape:
        raise ValueError(f"{at.size} arrivals, {seconds.size} utterances and {words.size} texts: give each of them one")
    if at[0] < 0.0 or np.any(np.diff(at) < 0.0):
        raise ValueError("arrivals are seconds from the start, in order")
    run = _Run(dag, list(zip(at.tolist(), seconds.tolist(), words.tolist(), strict=True)), seed, deadline_s)
    return run.result(autoscaler)


@dataclass(slots=True)
class _Progress:
    """Requests in one stage."""

    entered: list[float]
    began: list[float]
    ended: list[float]
    inside: int = 0
    batch_s: float = 0.0  # lately
    item_s: float = 0.0
    follows: list[str] = field(default_factory=list)


class _Run:
    def __init__(
        self, dag: Dag, requests: list[tuple[float, float, float]], seed: int, deadline_s: float | None
    ) -> None:
        self._dag = dag
        self._requests = requests
        self._deadline_s = inf if deadline_s is None else deadline_s
        self._environment = environment = Environment()
        self._order = _order(dag)
        self._nodes = [Machine(environment, dag.cores, dag.contention) for _ in range(dag.nodes)]
        gpus = [Node(Machine(environment, 1)) for _ in range(dag.gpus)]
        cluster, random = Cluster([Node(machine) for machine in self._nodes], gpus), Random(seed)
        self._pools = {each.name: Pool(each, environment, cluster, random, self) for each in dag.deployments}
        self._pool_of = {stage.name: self._pools[each.name] for each in dag.deployments for stage in each.stages}
        self._threads = {stage.name: stage.threads for each in dag.deployments for stage in each.stages}
        count = len(requests)
        self._progress = {
            stage: _Progress([np.nan] * count, [np.nan] * count, [np.nan] * count) for stage in self._order
        }
        for stage, before in dag.after.items():
            for each in before:
                self._progress[each].follows.append(stage)
        self._missing = {stage: len(before) for stage, before in dag.after.items()}
        self._first = [stage for stage in self._order if not self._missing.get(stage)]
        self._done = [np.nan] * count
        self._status = [-1] * count
        self._unsettled = count
        self._over = environment.event()

    def result(self, autoscaler: Autoscaler | None) -> SimulationResult:
        environment = self._environment
        environment.process(self._arrive())
        if autoscaler is not None:
            environment.process(self._scale(autoscaler))
        environment.run(self._over)
        pools, core_s = self._pools, sum(node.busy_core_s for node in self._nodes)
        return SimulationResult(
            arrival_s=np.array([request[0] for request in self._requests]),
            done_s=np.array(self._done),
            status=np.array(self._status, np.int8),
            queue_s={name: np.subtract(each.began, each.entered) for name, each in self._progress.items()},
            compute_s={name: np.subtract(each.ended, each.began) for name, each in self._progress.items()},
            replica_s={name: pool.replica_s for name, pool in pools.items()},
            busy_s={name: pool.busy_s for name, pool in pools.items()},
            steps={name: tuple(pool.steps) for name, pool in pools.items()},
            core_s=core_s,
            utilization=core_s / (environment.now * self._dag.nodes * self._dag.cores),
            seconds=environment.now,
        )

    def ended(self, stage: str, batch: Sequence[Request], started_s: float, replica: Replica) -> None:
        """See `StageObserver`: the stages behind it begin, in the same replica where they are there."""
        now_s, progress, pool = self._environment.now, self._progress[stage], self._pool_of[stage]
        batch_s = now_s - started_s
        weight = SMOOTHING if progress.batch_s else 1.0
        progress.batch_s += weight * (batch_s - progress.batch_s)
        progress.item_s += weight * (batch_s / len(batch) - progress.item_s)
        progress.inside -= len(batch)
        for request in batch:
            number = request.number
            progress.began[number], progress.ended[number] = started_s, now_s
            if self._status[number] < 0:
                if not progress.follows:
                    self._settle(number, ANSWERED)
                for follower in progress.follows:
                    self._begin(follower, request, replica)
            pool.leave(replica, request)

    def expired(self, stage: str, request: Request, replica: Replica) -> None:
        """See `StageObserver`."""
        self._progress[stage].inside -= 1
        self._settle(request.number, EXPIRED)
        self._pool_of[stage].leave(replica, request)

    def _arrive(self) -> Generator[Event]:
        environment = self._environment
        for number, (at_s, speech_s, tokens) in enumerate(self._requests):
            if at_s > environment.now:
                yield environment.timeout(at_s - environment.now)
            if not self._dag.admits_all and self._predicted_s() > self._deadline_s:
                self._settle(number, REFUSED)
                continue
            request = Request(number, at_s, at_s + self._deadline_s, speech_s, tokens, dict(self._missing))
            for stage in self._first:
                self._begin(stage, request, None)

    def _begin(self, stage: str, request: Request, replica: Replica | None) -> None:
        missing = request.missing.get(stage, 0)
        if missing > 1:
            request.missing[stage] = missing - 1
            return
        progress = self._progress[stage]
        progress.entered[request.number] = self._environment.now
        progress.inside += 1
        if replica is not None and stage in replica.workers:
            replica.visits[request.number] += 1
            replica.workers[stage].enqueue(request)
        else:
            self._pool_of[stage].send(request, stage)

    def _settle(self, number: int, status: int) -> None:
        if self._status[number] >= 0:
            return
        self._status[number] = status
        if status == ANSWERED:
            self._done[number] = self._environment.now
        self._unsettled -= 1
        if not self._unsettled:
            self._over.succeed()

    def _predicted_s(self) -> float:
        """Seconds until an answer, along the longest path: each stage's backlog, and then a batch of it."""
        ends: dict[str, float] = {}
        for stage in self._order:
            progress = self._progress[stage]
            backlog = progress.inside / (self._pool_of[stage].running * self._threads[stage])
            before_s = max((ends[each] for each in self._dag.after.get(stage, ())), default=0.0)
            ends[stage] = before_s + backlog * progress.item_s + progress.batch_s
        return max(ends.values())

    def _scale(self, autoscaler: Autoscaler) -> Generator[Event]:
        busy_s = dict.fromkeys(self._pools, 0.0)
        while True:
            yield self._environment.timeout(autoscaler.interval_s)
            states = {}
            for name, pool in self._pools.items():
                now_busy_s = pool.busy_s
                states[name] = StageState(
                    name,
                    pool.running,
                    pool.starting,
                    pool.queued,
                    pool.ongoing,
                    pool.arrivals,
                    now_busy_s - busy_s[name],
                )
                busy_s[name], pool.arrivals = now_busy_s, 0
            for name, wanted in autoscaler.decide(self._environment.now, states).items():
                self._pools[name].resize(wanted)


def _order(dag: Dag) -> list[str]:
    """Every stage behind those that it waits for."""
    stages = [stage.name for each in dag.deployments for stage in each.stages]
    if unknown := {*dag.after, *(before for of in dag.after.values() for before in of)} - set(stages):
        raise ValueError(f"no deployment has the stages {', '.join(sorted(unknown))}")
    ordered: list[str] = []
    while ready := [each for each in stages if each not in ordered and {*dag.after.get(each, ())} <= {*ordered}]:
        ordered += ready
    if len(ordered) < len(stages):
        raise ValueError(f"stages wait for each other: {', '.join(sorted(set(stages) - set(ordered)))}")
    return ordered
