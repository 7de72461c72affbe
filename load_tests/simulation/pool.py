"""A deployment's replicas while time passes: where they are placed, who gets a request, how they come and go."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import partial
from math import fsum
from random import Random
from typing import Final

from simpy import Environment, Event

from load_tests.simulation.stage import Deployment, Node, Place, Replica, Request, StageObserver

CHOICES: Final = 2  # replicas that the router compares (Mitzenmacher 2001), as Serve's does


class GpusFull(ValueError):  # noqa: N818 - an error by its base class
    """A deployment's first replicas do not fit on the GPUs."""


class Cluster:
    """Nodes and GPUs, and where the next replica goes: to whichever has the least reserved.

    Args:
        nodes: whose cores are shared.
        gpus: that are shared.
    """

    def __init__(self, nodes: Sequence[Node], gpus: Sequence[Node]) -> None:
        self._nodes, self._gpus = nodes, gpus

    def place(self, deployment: Deployment) -> Place | None:
        """A place, now reserved; None where no GPU has room."""
        gpu = None
        if deployment.gpu:
            gpu = min(self._gpus, key=lambda each: each.reserved, default=None)
            if gpu is None or gpu.reserved + deployment.gpu > 1.0 + 1e-9:
                return None
            gpu.shares.append(deployment.gpu)
        node = min(self._nodes, key=lambda each: each.reserved)
        node.shares.append(deployment.cpus)
        return Place(node, gpu)

    def release(self, deployment: Deployment, place: Place) -> None:
        """The replica there is gone."""
        place.node.shares.remove(deployment.cpus)
        if place.gpu:
            place.gpu.shares.remove(deployment.gpu)


class Pool:
    """The replicas of a deployment, and the router in front of them.

    Args:
        deployment: what each replica is.
        environment: whose time passes.
        cluster: where replicas are placed.
        random: of the router and of service times.
        observer: is told what the stages do.

    Attributes:
        arrivals: requests since they were last counted.
        steps: (seconds, running replicas) at each change.

    Raises:
        GpusFull: the replicas of the start do not fit.
    """

    def __init__(
        self,
        deployment: Deployment,
        environment: Environment,
        cluster: Cluster,
        random: Random,
        observer: StageObserver,
    ) -> None:
        self.deployment = deployment
        self.arrivals = 0
        self.steps: list[tuple[float, int]] = []
        self._environment = environment
        self._cluster = cluster
        self._random = random
        self._observer = observer
        self._starting: list[tuple[Event, Place, float]] = []
        self._running: list[Replica] = []
        self._draining: list[Replica] = []
        self._waiting: deque[tuple[Request, str]] = deque()
        self._began_s: dict[Replica, float] = {}
        self._gone_s = 0.0  # replica-seconds of those that are gone
        self._gone_busy_s: list[float] = []
        for _ in range(deployment.replicas):
            place = cluster.place(deployment)
            if place is None:
                raise GpusFull(f"{deployment.replicas} replicas of {deployment.name} need more GPUs than there are")
            self._add(place, environment.now)
        self._note()

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def starting(self) -> int:
        return len(self._starting)

    @property
    def queued(self) -> int:
        """Requests that wait in front of the replicas."""
        return len(self._waiting)

    @property
    def ongoing(self) -> int:
        """Requests that replicas have."""
        return sum(len(replica.visits) for replica in (*self._running, *self._draining))

    @property
    def busy_s(self) -> float:
        """Replica-seconds of work, until now. Does not change by a rounding error when a replica ends."""
        return fsum((*self._gone_busy_s, *(replica.busy_s for replica in self._began_s)))

    @property
    def replica_s(self) -> float:
        """Replica-seconds from asking for each replica to its end, until now."""
        now_s = self._environment.now
        starting = sum(now_s - requested_s for _, _, requested_s in self._starting)
        return self._gone_s + starting + sum(now_s - began_s for began_s in self._began_s.values())

    def send(self, request: Request, stage: str) -> None:
        """To the less loaded of two replicas that chance names; to none yet, where both have enough."""
        self.arrivals += 1
        replica = None if self._waiting else self._choose()
        if replica is None:
            self._waiting.append((request, stage))
        else:
            self._assign(replica, request, stage)

    def leave(self, replica: Replica, request: Request) -> None:
        """A request has left a stage of a replica; the replica has it no longer once it left the last one."""
        left = replica.visits[request.number] - 1
        if left:
            replica.visits[request.number] = left
            return
        del replica.visits[request.number]
        self._assign_waiting()
        if self._draining and not replica.visits and replica in self._draining:
            self._draining.remove(replica)
            self._end(replica)

    def resize(self, wanted: int) -> None:
        """As many replicas as are wanted, one at least; those in the way end when their work is done."""
        wanted = max(1, wanted)
        while self.running + self.starting > wanted and self._starting:
            _, place, requested_s = self._starting.pop()
            self._gone_s += self._environment.now - requested_s
            self._cluster.release(self.deployment, place)
        while self.running > wanted:
            replica = min(self._running, key=lambda each: len(each.visits))
            self._running.remove(replica)
            self._note()
            if replica.visits:
                self._draining.append(replica)
            else:
                self._end(replica)
        while self.running + self.starting < wanted:
            place_or_none = self._cluster.place(self.deployment)
            if place_or_none is None:
                return
            timer = self._environment.timeout(self.deployment.cold_start_s)
            self._starting.append((timer, place_or_none, self._environment.now))
            timer.callbacks.append(self._ready)

    def _ready(self, timer: Event) -> None:
        for position, (own, place, requested_s) in enumerate(self._starting):
            if own is timer:
                del self._starting[position]
                self._add(place, requested_s)
                self._note()
                self._assign_waiting()
                return

    def _add(self, place: Place, requested_s: float) -> None:
        replica = Replica(self.deployment, self._environment, place, self._random, self._observer)
        self._running.append(replica)
        self._began_s[replica] = requested_s

    def _end(self, replica: Replica) -> None:
        self._gone_s += self._environment.now - self._began_s.pop(replica)
        self._gone_busy_s.append(replica.busy_s)
        self._cluster.release(self.deployment, replica.place)

    def _note(self) -> None:
        self.steps.append((self._environment.now, self.running))

    def _choose(self) -> Replica | None:
        running, most = self._running, self.deployment.max_ongoing
        if len(running) <= CHOICES:
            chosen = min(running, key=lambda replica: len(replica.visits))
        else:
            first = int(self._random.random() * len(running))
            second = int(self._random.random() * (len(running) - 1))
            one, other = running[first], running[second + (second >= first)]
            chosen = one if len(one.visits) <= len(other.visits) else other
        return chosen if most is None or len(chosen.visits) < most else None

    def _assign_waiting(self) -> None:
        while self._waiting and (replica := self._choose()):
            self._assign(replica, *self._waiting.popleft())

    def _assign(self, replica: Replica, request: Request, stage: str) -> None:
        replica.visits[request.number] = 1
        enqueue = replica.workers[stage].enqueue
        if self.deployment.hop_s:
            replica.place.node.machine.run(self.deployment.hop_s, partial(enqueue, request))
        else:
            enqueue(request)
