"""A run: the cluster, its neighbour, and everything that is tried beside them."""

from __future__ import annotations

import re
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import yaml
from recordings import envelope_of, speakers, waveform_of

from amser import wire
from amser.features import SAMPLE_RATE
from deployments.local_cluster import DEFAULT_CONFIG, LocalCluster
from tests.fuzz.child import Task
from tests.fuzz.findings import Findings
from tests.fuzz.lane import Lane, Tally
from tests.fuzz.memory import Memory, Series
from tests.fuzz.neighbour import Neighbour, Record
from tests.fuzz.network.exchange import post
from tests.fuzz.network.site import UTTERANCE_S
from tests.fuzz.targets.registry import IN_PROCESS

Profile = Literal["fused", "distributed"]
CONFIGS: Final = {"distributed": DEFAULT_CONFIG, "fused": DEFAULT_CONFIG.with_name("serve_config.fused.yaml")}
NETWORK: Final = ("openapi", "requests", "bodies", "framing", "bombs", "slow", "flood", "mix")
ALL: Final = (*IN_PROCESS, *NETWORK)
SPEAKER: Final = 5  # the neighbour; others send what other people say
POLL_S: Final = 1.0
SETTLE_S: Final = 5.0  # after the last target, so that what it left behind still counts
UNEXPECTED: Final = re.compile(
    r"request \S+ failed|exception was never retrieved|Segmentation fault|Fatal Python error"
)


@dataclass(frozen=True, slots=True)
class Plan:
    """Attributes:
    minutes: of trying; start and end of the cluster come on top.
    targets: names of `ALL`.
    seed: of everything that is random.
    folder: for findings, logs and the corpora that coverage collects.
    profile: of the cluster.
    coverage: whether atheris guides what is tried in process.
    """

    minutes: float
    targets: Sequence[str]
    seed: int
    folder: Path
    profile: Profile = "fused"
    coverage: bool = True


@dataclass(slots=True)
class Outcome:
    """Attributes:
    run: its name.
    seconds: that were tried.
    tallies: by target.
    record: of the neighbour; None without a cluster.
    memory: by kind of process.
    interrupted: whether it was ended before its time.
    """

    run: str
    seconds: float = 0.0
    tallies: dict[str, Tally] = field(default_factory=dict)
    record: Record | None = None
    memory: dict[str, Series] = field(default_factory=dict)
    interrupted: bool = False


class Run:
    """Carries a plan out.

    Args:
        plan: see there.

    Attributes:
        outcome: so far.
        status: what happens now.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.outcome = Outcome(time.strftime("%Y%m%dT%H%M%S"))
        self.status = "starting"
        self._lanes: list[Lane] = []
        self._log = plan.folder / "cluster.log"

    @property
    def left_s(self) -> float:
        """Of the time for trying."""
        return max(0.0, 60 * self.plan.minutes - self.outcome.seconds)

    def steps(self) -> Generator[None, None, None]:
        """Runs; gives the caller a turn about once a second. To be closed early, close the iterator.

        Raises:
            deployments.local_cluster.ClusterFailed: the cluster does not start.
        """
        plan = self.plan
        plan.folder.mkdir(parents=True, exist_ok=True)
        self._log.unlink(missing_ok=True)
        task = Task("", plan.folder, self.outcome.run, 0, plan.seed, coverage=plan.coverage)
        in_process = [target for target in plan.targets if target in IN_PROCESS]
        network = [target for target in plan.targets if target in NETWORK]
        try:
            with ExitStack() as stack:
                if in_process:
                    self._lanes.append(Lane(in_process, task, 60 * plan.minutes))
                if network:
                    yield from self._beside_a_cluster(stack, network)
                yield from self._tried(stack)
        finally:
            self._read_log()

    def _beside_a_cluster(self, stack: ExitStack, network: Sequence[str]) -> Iterator[None]:
        plan, outcome = self.plan, self.outcome
        self.status = f"starting a cluster, {plan.profile}"
        yield
        cluster = stack.enter_context(_cluster(plan, self._log))
        address = urlsplit(cluster.url)
        assert address.hostname is not None
        assert address.port is not None
        findings = Findings(plan.folder, outcome.run, "neighbour")
        stack.callback(findings.close)
        neighbour = Neighbour((address.hostname, address.port), findings)
        self.status = "learning what is normal"
        yield
        waveform = waveform_of(speakers(SPEAKER + 1)[SPEAKER]["path"])[: int(UTTERANCE_S * SAMPLE_RATE)]
        neighbour.learn(post(wire.pack(envelope_of(waveform))))
        of_cluster = Findings(plan.folder, outcome.run, "cluster")
        stack.callback(of_cluster.close)
        memory = stack.enter_context(Memory(cluster, of_cluster))
        outcome.record, outcome.memory = neighbour.record, memory.series
        stack.enter_context(neighbour)

        def says(target: str) -> None:
            neighbour.at_work = memory.at_work = target

        on_network = Task("", plan.folder, outcome.run, 0, plan.seed, url=cluster.url)
        self._lanes.append(Lane(network, on_network, 60 * plan.minutes, says))

    def _tried(self, stack: ExitStack) -> Iterator[None]:
        began = time.monotonic()
        self.status = "trying"
        for lane in self._lanes:
            stack.callback(lane.stop)
            self.outcome.tallies |= lane.tallies
            lane.start()
        while any(lane.is_alive for lane in self._lanes):
            self.outcome.seconds = time.monotonic() - began
            yield
            time.sleep(POLL_S)
        for lane in self._lanes:
            if lane.error is not None:
                raise lane.error
        if self.outcome.record is not None:
            time.sleep(SETTLE_S)
        self.status = "ending"

    def _read_log(self) -> None:
        """What clients did not get to see, since they had left."""
        if not self._log.exists():
            return
        findings = Findings(self.plan.folder, self.outcome.run, "log")
        for line in self._log.read_text(errors="replace").splitlines():
            if found := UNEXPECTED.search(line):
                findings.add("crash", re.sub(r"[0-9a-f-]{36}", "ID", found.group()), line[:1000])
        findings.close()


@contextmanager
def _cluster(plan: Plan, log: Path) -> Iterator[LocalCluster]:
    """One replica of each stage, which nothing but its death replaces."""
    config: dict[str, Any] = yaml.safe_load(CONFIGS[plan.profile].read_text())
    for deployment in config["applications"][0]["deployments"]:
        deployment.pop("autoscaling_config", None)
        deployment["num_replicas"] = 1
    path = plan.folder / "serve_config.yaml"
    path.write_text(yaml.safe_dump(config))
    overrides = {"idempotency": {"folder": str((plan.folder / "answers").resolve())}}
    with LocalCluster(path, log=log, num_gpus=0, http_port=0, overrides=overrides) as cluster:
        cluster.wait_until_ready()
        yield cluster
