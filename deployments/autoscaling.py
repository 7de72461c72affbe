"""How many replicas each stage gets: one policy over the whole application, in place of one for each deployment.

A request that enters visits every stage, so the arrivals at the gateway predict the load of all stages before the queue
has moved down to them. `decide` is the policy, a pure function; `WholeApplication` is the shell that Ray calls
(`autoscaling_policy` of serve_config.yaml). docs/decisions/0006-autoscaling.md compares it with Ray's own.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import ray

from deployments.replica.execution import BUSY_S, SERVED
from deployments.replica.resources import CORES, MEMORY, NUM_CPUS, NUM_GPUS

logger = logging.getLogger("ray.serve")  # the logger that Serve writes to its files

DECISION_EVERY_S: Final = 1.0  # between decisions: figures come once a second, Ray calls ten times
GATEWAY: Final = "Ingress"
# What the gateway counts (record_autoscaling_stats): requests admitted and well-formed, requests refused for want of
# room, both ever rising, and those in the pipeline now
ADMITTED, REFUSED, INSIDE = "admitted", "refused", "inside"
RESOURCES: Final = (NUM_CPUS, NUM_GPUS, MEMORY, CORES)  # of a replica, as it says itself

SERVICE_S: Final = {  # of a replica for one request, on one core: what is believed before any was seen
    "Ingress": 0.01,
    "MelReconstruction": 0.003,
    "WhisperASR": 0.25,
    "TextEmbedding": 0.002,
    "Roberta": 0.03,
    "FusionClassifier": 0.015,
}
SERVICE_SPEECH_S: Final = 4.0  # of that request
UNKNOWN_SERVICE_S: Final = 0.05  # of a stage that is not in the table
PRIOR_REQUESTS: Final = 20.0  # that the table counts as, against what was seen
FORGETTING_S: Final = 60.0  # after which what was seen counts 1/e


@dataclass(frozen=True, slots=True)
class Objective:
    """What is to be kept, and how eagerly.

    Attributes:
        latency_s: that answers are to keep.
        quantile: of them.
        wait_share: of `latency_s` that may be spent waiting in all stages together; the rest is computing.
        recent_s: over which a rise is looked for.
        steady_s: over which the rate is taken where nothing rises.
        significance: standard deviations of a Poisson count, from which a rise is no noise.
        ready_s: until a new replica serves; a rise is followed that far ahead.
        drain_s: within which requests that wait too long are to be through.
        hold_s: that a need must be over before replicas end (the stabilisation window of Kubernetes' autoscaler).
        margin: of the flow, which replicas that end must leave.
    """

    latency_s: float = 3.0
    quantile: float = 0.95
    wait_share: float = 0.5
    recent_s: float = 3.0
    steady_s: float = 20.0
    significance: float = 2.5
    ready_s: float = 8.0
    drain_s: float = 10.0
    hold_s: float = 20.0
    margin: float = 0.1


@dataclass(frozen=True, slots=True)
class StageLoad:
    """One stage at one decision.

    Attributes:
        target: replicas that serve or were asked for.
        least, most: replicas that it may have.
        served: requests since the decision before.
        busy_s: replica-seconds of computing since the decision before.
        prior_s: replica-seconds a request takes, as far as is known without having seen any.
        num_cpus, num_gpus, memory: of one replica; memory in bytes. `cores` where it computes on more than its share.
    """

    target: int
    least: int
    most: int
    served: float = 0.0
    busy_s: float = 0.0
    prior_s: float = UNKNOWN_SERVICE_S
    num_cpus: float = 0.0
    num_gpus: float = 0.0
    memory: float = 0.0
    cores: float = 0.0


@dataclass(frozen=True, slots=True)
class Load:
    """The application at one decision.

    Attributes:
        admitted: requests let in since the decision before.
        inside: requests in the pipeline now.
        stages: that they visit.
        refused: requests that there was no room for since the decision before. They are demand too: with more replicas
            they would be admitted. One that comes again is refused again and counts each time.
    """

    admitted: float
    inside: float
    stages: Mapping[str, StageLoad]
    refused: float = 0.0


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the cluster has for replicas: logical CPUs, whole GPUs, bytes. A share of a GPU never lies across two.

    Attributes:
        num_cpus, num_gpus, memory: as named.
        spare: replicas of each stage that must still find room: an upgrade starts a successor before it stops anything.
    """

    num_cpus: float = math.inf
    num_gpus: float = math.inf
    memory: float = math.inf
    spare: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Memory:
    """What a decision leaves to the next: numbers, strings and lists alone, so that `asdict` goes through JSON and
    pickle.

    Attributes:
        decided_s: when the last decision was made; None before the first.
        arrivals: [from, to, requests] of the decisions of `steady_s`; seconds.
        needs: [seconds, replicas of each stage] of the decisions of `hold_s`: what was needed, with the margin.
        seen: requests and replica-seconds of each stage, older ones forgotten by degrees.
    """

    decided_s: float | None = None
    arrivals: list[list[float]] = field(default_factory=list)
    needs: list[list[Any]] = field(default_factory=list)
    seen: dict[str, list[float]] = field(default_factory=dict)


def decide(
    load: Load, objective: Objective, capacity: Capacity, now_s: float, memory: Memory
) -> tuple[dict[str, int], Memory]:
    """Wanted replicas of every stage, and what to remember.

    One flow is asked of all stages at once: the arrivals that are to be expected when a new replica serves, and what
    waits already. Up to what it takes at once; down to what it took at most in the last `hold_s`, a margin included.
    """
    since_s = objective.recent_s if memory.decided_s is None else max(now_s - memory.decided_s, 1e-3)
    arrivals = [*memory.arrivals, [now_s - since_s, now_s, load.admitted + load.refused]]
    arrivals = [each for each in arrivals if each[1] > now_s - objective.steady_s]
    seen = {name: _learn(memory.seen.get(name), stage, since_s) for name, stage in load.stages.items()}
    service_s = {name: busy_s / served for name, (served, busy_s) in seen.items()}

    expected = arrival_rate(arrivals, objective, now_s)
    waiting = max(0.0, load.inside - expected * objective.latency_s * objective.wait_share)
    flow = expected + waiting / objective.drain_s
    needed = staffing(flow, service_s, load.stages, objective)
    with_margin = staffing(flow * (1 + objective.margin), service_s, load.stages, objective)

    needs = [[at_s, need] for at_s, need in memory.needs if at_s > now_s - objective.hold_s]
    needs.append([now_s, with_margin])
    wanted = {
        name: max(needed[name], min(stage.target, max(need.get(name, stage.least) for _, need in needs)))
        for name, stage in load.stages.items()
    }
    fitting = within(wanted, service_s, load.stages, capacity)
    return fitting, Memory(now_s, arrivals, needs, seen)


def _learn(seen: list[float] | None, stage: StageLoad, since_s: float) -> list[float]:
    """Requests and replica-seconds: their quotient is the work of a request, at the batch sizes that there were."""
    served, busy_s = seen or [PRIOR_REQUESTS, PRIOR_REQUESTS * stage.prior_s]
    kept = math.exp(-since_s / FORGETTING_S)
    faded = max(served * kept, PRIOR_REQUESTS)  # quiet times do not make one request count for everything
    return [faded + stage.served, busy_s * faded / served + stage.busy_s]


def arrival_rate(arrivals: list[list[float]], objective: Objective, now_s: float) -> float:
    """Requests a second to be expected `ready_s` from now.

    Args:
        arrivals: [from, to, requests] of each decision, seconds.
        objective: its windows.
        now_s: the end of the last decision.
    """
    recent = [each for each in arrivals if each[1] > now_s - objective.recent_s]
    before = [each for each in arrivals if each[1] <= now_s - objective.recent_s]
    overall = _rate(arrivals)
    if not before:
        return overall
    rate, rate_before = _rate(recent), _rate(before)
    noise = math.sqrt(max(overall, 1 / objective.steady_s) * (1 / _seconds(recent) + 1 / _seconds(before)))
    if rate - rate_before < objective.significance * noise:
        return overall
    slope = (rate - rate_before) / ((_seconds(recent) + _seconds(before)) / 2)
    return rate + slope * objective.ready_s


def _seconds(arrivals: list[list[float]]) -> float:
    return sum(to_s - from_s for from_s, to_s, _ in arrivals)


def _rate(arrivals: list[list[float]]) -> float:
    return sum(requests for _, _, requests in arrivals) / _seconds(arrivals)


def staffing(
    flow: float, service_s: Mapping[str, float], stages: Mapping[str, StageLoad], objective: Objective
) -> dict[str, int]:
    """The cheapest replicas with which the waits of all stages together keep their share of the objective.

    Marginal allocation (Fox, Operations Research 14, 1966): from the least that is stable, one replica at a time where
    it saves most waiting for its cost. Waits are those of M/M/c queues, and their quantiles are added up: more than
    there will be, since the slow moments of two stages seldom meet.

    Args:
        flow: requests a second through every stage.
        service_s: replica-seconds of a request, of each stage.
        stages: their bounds, which are kept even where the objective is not.
        objective: latency and quantile.
    """
    wanted, waits = {}, {}
    for name, stage in stages.items():
        wanted[name] = min(max(math.floor(flow * service_s[name]) + 1, stage.least, 1), stage.most)
        waits[name] = wait_s(flow, service_s[name], wanted[name], objective.quantile)
    while sum(waits.values()) > objective.latency_s * objective.wait_share:
        best, best_wait, best_gain = "", 0.0, 0.0
        for name, stage in stages.items():
            if wanted[name] < stage.most:
                wait = wait_s(flow, service_s[name], wanted[name] + 1, objective.quantile)
                gain = (waits[name] - wait) / max(stage.num_cpus + stage.num_gpus, 1e-3)
                if gain > best_gain:
                    best, best_wait, best_gain = name, wait, gain
        if not best:
            break
        wanted[best] += 1
        waits[best] = best_wait
    return wanted


def wait_s(rate: float, service_s: float, replicas: int, quantile: float) -> float:
    """The quantile of the wait in an M/M/c queue (Erlang's C formula), seconds; a day where it is not stable."""
    erlangs = rate * service_s
    if erlangs >= replicas:
        return 86_400.0
    blocked = 1.0  # Erlang's B, by its recursion over the replicas
    for count in range(1, replicas + 1):
        blocked = erlangs * blocked / (count + erlangs * blocked)
    waits = blocked / (1 - erlangs / replicas * (1 - blocked))
    return max(0.0, service_s / (replicas - erlangs) * math.log(max(waits, 1e-300) / (1 - quantile)))


def within(
    wanted: Mapping[str, int], service_s: Mapping[str, float], stages: Mapping[str, StageLoad], capacity: Capacity
) -> dict[str, int]:
    """As many of the wanted replicas as the cluster has room for: one that waits for room serves no request.

    The stage that lacks most of what it needs goes first, so that the bottleneck is as wide as it can be. Of two that
    lack the same, one that has the replica goes first: service times that differ in their last digits would otherwise
    end a replica of one stage for one of the other at every decision.
    """
    given = {name: min(stage.least, wanted[name]) for name, stage in stages.items()}
    growing = {name for name in stages if given[name] < wanted[name]}
    while growing:
        narrowest = min(
            sorted(growing),
            key=lambda name: (given[name] / wanted[name], given[name] >= stages[name].target, -service_s[name]),
        )
        more = {**given, narrowest: given[narrowest] + 1}
        if fits(more, stages, capacity):
            given = more
        if given is not more or given[narrowest] == wanted[narrowest]:
            growing.remove(narrowest)
    return given


def fits(replicas: Mapping[str, int], stages: Mapping[str, StageLoad], capacity: Capacity) -> bool:
    """Whether the shares fit, what is spare included: CPUs and memory by their sum, GPUs one by one, the largest first.
    Cores without what is spare: a successor computes when the replica before it has ended."""
    cores = sum(count * stages[name].cores for name, count in replicas.items())
    replicas = {name: count + capacity.spare.get(name, 0) for name, count in replicas.items()}
    num_cpus = sum(count * stages[name].num_cpus for name, count in replicas.items())
    memory = sum(count * stages[name].memory for name, count in replicas.items())
    if max(cores, num_cpus) > capacity.num_cpus + 1e-6 or memory > capacity.memory:
        return False
    gpus: list[float] = []
    shares = sorted((stages[name].num_gpus for name, count in replicas.items() for _ in range(count)), reverse=True)
    for share in filter(None, shares):
        place = next((index for index, used in enumerate(gpus) if used + share <= 1 + 1e-6), None)
        if place is None:
            gpus.append(share)
        else:
            gpus[place] += share
    return len(gpus) <= capacity.num_gpus


class WholeApplication:
    """The shell that Ray calls: contexts of all deployments → wanted replicas and state.

    Ray still applies each deployment's bounds, delays and factors to what this returns: both delays are to be 0, since
    `decide` waits by itself. State is kept in Ray's controller, in memory, and is gone when that restarts.

    Args:
        objective: fields of `Objective` that differ from its defaults.
        service_s: the same of `SERVICE_S`.
        elastic: nodes can be added, so that replicas without room are a reason to add one.
        spare: replicas that are not started until an upgrade needs their room (`max_surge_percent`); one of the
            largest stage is enough, since each old replica makes room for the next.
    """

    def __init__(
        self,
        objective: Mapping[str, float] | None = None,
        service_s: Mapping[str, float] | None = None,
        elastic: bool = False,
        spare: Mapping[str, int] | None = None,
    ) -> None:
        self._objective = Objective(**(objective or {}))
        self._service_s = {**SERVICE_S, **(service_s or {})}
        self._elastic, self._spare = elastic, dict(spare or {})
        self._has_warned = False

    def __call__(self, contexts: Mapping[Any, Any]) -> tuple[dict[Any, int], dict[Any, dict[str, Any]]]:
        """Decisions by `DeploymentID`, none between two decisions; and the state, kept with the gateway's."""
        ids = {deployment.name: deployment for deployment in contexts}
        if GATEWAY not in ids:  # raising here would stop the controller's loop, for other applications too
            if contexts and not self._has_warned:
                logger.warning("%s has no autoscaling_config, so nobody counts requests: no stage is scaled", GATEWAY)
                self._has_warned = True
            return {}, {}
        gateway = contexts[ids[GATEWAY]]
        now_s, state = gateway.current_time, gateway.policy_state
        memory = Memory(**state["memory"]) if "memory" in state else Memory()
        if memory.decided_s is not None and now_s - memory.decided_s < DECISION_EVERY_S:
            return {}, {ids[GATEWAY]: state}
        before, counters = state.get("counters", {}), dict[str, float]()
        stages = {
            name: self._stage_load(name, contexts[deployment], before, counters) for name, deployment in ids.items()
        }
        admitted, refused = (sum(_risen(name, gateway, before, counters)) for name in (ADMITTED, REFUSED))
        load = Load(admitted, sum(_means(INSIDE, gateway)), stages, refused)
        wanted, memory = decide(load, self._objective, self._capacity(), now_s, memory)
        kept = {"memory": asdict(memory), "counters": counters}
        return {ids[name]: replicas for name, replicas in wanted.items()}, {ids[GATEWAY]: kept}

    def _stage_load(
        self, name: str, context: Any, before: Mapping[str, float], counters: dict[str, float]
    ) -> StageLoad:
        target, least = context.target_num_replicas, context.capacity_adjusted_min_replicas
        resources = {resource: max(_latest(resource, context), default=0.0) for resource in RESOURCES}
        # No replica has said yet what a replica takes: until one has, nobody knows whether another finds room
        most = context.capacity_adjusted_max_replicas if any(resources.values()) else max(target, least)
        return StageLoad(
            target=target,
            least=least,
            most=most,
            served=sum(_risen(SERVED, context, before, counters)),
            busy_s=sum(_risen(BUSY_S, context, before, counters)),
            prior_s=self._service_s.get(name, UNKNOWN_SERVICE_S),
            **resources,
        )

    def _capacity(self) -> Capacity:
        if self._elastic:
            return Capacity()
        cluster = ray.cluster_resources()
        memory = cluster.get("memory", 0.0)
        return Capacity(cluster.get("CPU", 0.0), cluster.get("GPU", 0.0), memory, self._spare)


def _risen(metric: str, context: Any, before: Mapping[str, float], counters: dict[str, float]) -> Iterator[float]:
    """By how much a counter of each replica rose since the decision before; `counters` gets where they stand."""
    for replica, series in ((context.raw_metrics or {}).get(metric) or {}).items():
        if series:
            name = f"{metric} {replica.to_full_id_str()}"
            counters[name] = series[-1].value
            yield max(0.0, series[-1].value - before.get(name, series[0].value))


def _latest(metric: str, context: Any) -> Iterator[float]:
    """What each replica reported last."""
    for series in ((context.raw_metrics or {}).get(metric) or {}).values():
        if series:
            yield series[-1].value


def _means(metric: str, context: Any) -> Iterator[float]:
    """Of what each replica reported in Ray's look-back period."""
    for series in ((context.raw_metrics or {}).get(metric) or {}).values():
        if series:
            yield sum(report.value for report in series) / len(series)
