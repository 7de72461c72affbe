"""What stands in the simulated cluster: stages, and deployments of replicas that hold them.

A stage has model threads and a queue. A thread that is free takes what waits, the oldest first and then those most
alike in length, and never waits for more: the batching of the cluster's own stages.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import fsum, inf
from random import Random
from typing import Protocol

from simpy import Environment

from load_tests.simulation.machine import Machine


@dataclass(slots=True, eq=False)
class Request:
    """One utterance on its way.

    Attributes:
        number: its place among the arrivals.
        arrival_s: when it was sent.
        deadline_s: after which the answer is of no use.
        speech_s: seconds of speech.
        tokens: of its text.
        missing: stages that have to end before each stage may begin; those that were begun are gone.
    """

    number: int
    arrival_s: float
    deadline_s: float
    speech_s: float
    tokens: float
    missing: dict[str, int]


Service = Callable[[Sequence[Request], Random], float]  # CPU seconds of a batch
SecondPass = Callable[[Request], float]  # CPU seconds; 0 where a request has none


@dataclass(frozen=True, slots=True)
class Stage:
    """One model.

    Attributes:
        name: of the stage.
        threads: batches that a replica runs side by side.
        batch_size: utterances that a batch holds at most.
        service: CPU seconds of a batch, or seconds of a GPU.
        budget_s: seconds of speech in a batch, added up, at most; a single utterance may have more.
        second_pass: that a request waits for anew, alone.
    """

    name: str
    threads: int
    batch_size: int
    service: Service
    budget_s: float = inf
    second_pass: SecondPass = lambda _: 0.0


@dataclass(frozen=True, slots=True)
class Deployment:
    """Replicas that are started and ended together with all their stages.

    Attributes:
        name: as Serve knows it.
        stages: in each replica.
        replicas: at the start.
        cpus: share of a node's cores that a replica is placed by; it limits nothing, as in Ray.
        hop_s: CPU seconds of the cluster for each request that comes in: proxy, router, serialisation.
        cold_start_s: from asking for a replica to its first request.
        max_ongoing: requests of a replica; more wait in front of all replicas.
        gpu: share of a GPU that a replica needs; 0 runs on cores.
    """

    name: str
    stages: tuple[Stage, ...]
    replicas: int = 1
    cpus: float = 1.0
    hop_s: float = 0.0
    cold_start_s: float = 0.0
    max_ongoing: int | None = None
    gpu: float = 0.0


class StageObserver(Protocol):
    """Is told what the stages do."""

    def ended(self, stage: str, batch: Sequence[Request], started_s: float, replica: Replica) -> None:
        """A batch is done."""

    def expired(self, stage: str, request: Request, replica: Replica) -> None:
        """A request was not begun in time."""


@dataclass(slots=True, eq=False)
class Node:
    """A node's cores, or a GPU, and the shares of it that replicas have reserved.

    The shares are kept and summed anew: a total that is added to and subtracted from would keep a rounding error when
    everything is released, and the emptiest node would be another one than before.
    """

    machine: Machine
    shares: list[float] = field(default_factory=list)

    @property
    def reserved(self) -> float:
        """Of the node's cores, or of the GPU; 0 exactly where nothing is reserved."""
        return fsum(self.shares)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a replica runs: hops on the node's cores, stages on these too or on a GPU."""

    node: Node
    gpu: Node | None

    @property
    def device(self) -> Machine:
        return (self.gpu or self.node).machine


class StageWorker:
    """A stage in a replica: its queue and its threads."""

    def __init__(self, stage: Stage, replica: Replica, device: Machine) -> None:
        self.stage = stage
        self.running = 0
        self._replica = replica
        self._device = device
        self._queue: deque[Request] = deque()
        self._second: set[int] = set()  # numbers of requests in their second pass

    @property
    def queued(self) -> int:
        return len(self._queue)

    def enqueue(self, request: Request) -> None:
        """Those who come at one moment are computed together, as in `deployments.replica.batching`."""
        self._queue.append(request)
        if self.running == self.stage.threads:
            return
        if self.stage.batch_size == 1:
            self._start()
        elif len(self._queue) == 1:
            self._replica.environment.timeout(0).callbacks.append(lambda _: self._start())

    def _start(self) -> None:
        replica = self._replica
        while self._queue and self.running < self.stage.threads:
            batch = self._take(replica.environment.now)
            if not batch:
                return
            replica.note_work()
            self.running += 1
            again = batch[0].number in self._second
            seconds = self.stage.second_pass(batch[0]) if again else self.stage.service(batch, replica.random)
            self._device.run(seconds, partial(self._end, batch, replica.environment.now))

    def _take(self, now_s: float) -> list[Request]:
        """The oldest one and those most like it; what is late by now is dropped on the way."""
        queue, room = self._queue, self.stage.batch_size
        while queue and queue[0].deadline_s <= now_s:
            self._replica.observer.expired(self.stage.name, queue.popleft(), self._replica)
        if room == 1 or len(queue) < 2:
            return [queue.popleft()] if queue else []
        oldest = queue.popleft()
        if oldest.number in self._second:
            return [oldest]
        batch, left_s = [oldest], self.stage.budget_s - oldest.speech_s
        for other in sorted(queue, key=lambda each: abs(each.speech_s - oldest.speech_s)):
            if len(batch) == room:
                break
            if other.speech_s <= left_s and other.number not in self._second:
                batch.append(other)
                left_s -= other.speech_s
        taken = {request.number for request in batch}
        self._queue = deque(request for request in queue if request.number not in taken)
        return batch

    def _end(self, batch: Sequence[Request], started_s: float) -> None:
        replica = self._replica
        replica.note_work()
        self.running -= 1
        done = [request for request in batch if request.number in self._second or not self.stage.second_pass(request)]
        self._second.difference_update(request.number for request in done)
        again = [request for request in batch if request not in done]
        self._second.update(request.number for request in again)
        self._queue.extend(again)
        if done:
            replica.observer.ended(self.stage.name, done, started_s, replica)
        self._start()


class Replica:
    """A process with its stages.

    Args:
        deployment: whose stages it holds.
        environment: whose time passes.
        place: where it runs.
        random: of its service times.
        observer: is told what its stages do.

    Attributes:
        visits: stages of this replica that each request is in, by its number.
    """

    def __init__(
        self, deployment: Deployment, environment: Environment, place: Place, random: Random, observer: StageObserver
    ) -> None:
        self.environment = environment
        self.place = place
        self.random = random
        self.observer = observer
        self.visits: dict[int, int] = {}
        self.workers = {stage.name: StageWorker(stage, self, place.device) for stage in deployment.stages}
        self._busy_s = 0.0
        self._since_s = 0.0

    @property
    def busy_s(self) -> float:
        """Seconds of work: one in which every thread of a stage was busy counts as one, however many stages were."""
        load = sum(worker.running / worker.stage.threads for worker in self.workers.values())
        return self._busy_s + min(1.0, load) * (self.environment.now - self._since_s)

    def note_work(self) -> None:
        """Counts the seconds of work until now; to be called before a worker's running batches change."""
        self._busy_s, self._since_s = self.busy_s, self.environment.now
