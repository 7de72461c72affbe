"""The policy of `deployments.autoscaling` against Ray's own, simulated: who is late, and what the replicas cost.

    python -m benchmarks.autoscaling

Cluster and requests are simulated (load_tests/simulation); both policies are the code that Ray's controller calls, with
Ray's wrapper around it, Ray's context objects and the targets of serve_config.yaml. Its delays are 0, for the policy
over the whole application; Ray's own gets those that stood there before.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final
from unittest.mock import patch

import matplotlib as mpl
import numpy as np
import yaml
from matplotlib import pyplot
from numpy.typing import NDArray
from ray.serve._private.common import DeploymentID, ReplicaID, TimeStampedValue
from ray.serve.autoscaling_policy import (
    _apply_app_level_autoscaling_config,
    _apply_autoscaling_config,
    replica_queue_length_autoscaling_policy,
)
from ray.serve.config import AutoscalingConfig, AutoscalingContext
from rich.table import Table

from benchmarks.measuring import command
from benchmarks.measuring.console import output, progress, table
from benchmarks.measuring.report import write_rows
from deployments.accelerator import SHARES
from deployments.autoscaling import ADMITTED, INSIDE, SERVICE_S, SERVICE_SPEECH_S, WholeApplication
from deployments.local_cluster import DEFAULT_CONFIG
from deployments.replica.resources import NUM_CPUS
from load_tests.commands import count
from load_tests.fleet.arrivals import Burst, Diurnal, RateProfile, schedule
from load_tests.simulation.dag import ANSWERED, Dag, SimulationResult, StageState, simulate
from load_tests.simulation.stage import Deployment, Request, Service, Stage

mpl.use("Agg")
APPLICATION: Final = "amser"
COLUMNS: Final = {
    "late_percent": "late, %",
    "replica_s": "replica\nseconds",
    "share_s": "CPU share\nseconds",
    "time_to_capacity_s": "capacity\nafter, s",
}
NODES, CORES = 4, 8  # large enough that the policies decide, not the room
CLUSTER: Final = {"CPU": float(NODES * CORES), "GPU": 0.0}
GATEWAY: Final = "Ingress"
AFTER: Final = {
    "MelReconstruction": ("Ingress",),
    "WhisperASR": ("MelReconstruction",),
    "TextEmbedding": ("WhisperASR",),
    "Roberta": ("WhisperASR",),
    "FusionClassifier": ("TextEmbedding", "Roberta"),
}
BATCH_SIZE: Final = {"WhisperASR": 4, "Roberta": 8, "FusionClassifier": 8}
COLD_START_S: Final = {"WhisperASR": 8.0, "Roberta": 8.0, "FusionClassifier": 6.0}
COLD_START_OF_OTHERS_S: Final = 3.0
HOP_S: Final = 0.002  # of a core: router and serialisation
MEAN_SPEECH_S: Final = SERVICE_SPEECH_S
OBJECTIVE_S: Final = 3.0
REFUSED_FROM_S: Final = 8.0  # of predicted latency, for bounded queues
SETTLED_WINDOWS: Final = 4  # in a row that keep the objective, for the capacity to be there
WINDOW_S: Final = 5.0  # of the 95th percentile over time

# The base needs about 2 recognisers, the peak about 12. Chosen with the first; the second are what is reported.
TUNING: Final[Mapping[str, RateProfile]] = {
    "spike": Burst(seconds=600, rate=6.4, peak=40, at_s=250, for_s=100),
    "diurnal": Diurnal(seconds=600, rate=21, peak=1.9),
}
REPORTED: Final[Mapping[str, RateProfile]] = {
    "spike": Burst(seconds=600, rate=7, peak=43, at_s=180, for_s=140),
    "diurnal": Diurnal(seconds=720, rate=23, peak=1.85),
}
TUNING_SEEDS, FIRST_SEED = range(3), 100
MOST_REPLICAS: Final = 24  # of every stage: the need decides, not the bound
DECISION_EVERY_S: Final = 1.0  # figures are recorded and pushed once a second
REPORT_LAG_DECISIONS: Final = 1  # a figure is up to a second old when it is pushed, and up to another when it is read

Contexts = dict[DeploymentID, AutoscalingContext]
Decisions = dict[DeploymentID, int]
Decide = Callable[[Contexts], tuple[Decisions, dict[DeploymentID, dict[str, Any]]]]


def configs(target: float | None = None, **differing: float) -> dict[str, AutoscalingConfig]:
    """`autoscaling_config` of each deployment as in serve_config.yaml, but for the bound and what is given.

    `target` replaces `target_ongoing_requests` of every stage but the gateway, which has all requests all the time.
    """
    deployments = yaml.safe_load(DEFAULT_CONFIG.read_text(encoding="utf-8"))["applications"][0]["deployments"]
    built = {}
    for deployment in deployments:
        given = {**deployment["autoscaling_config"], "max_replicas": MOST_REPLICAS, **differing}
        if target is not None and deployment["name"] != GATEWAY:
            given["target_ongoing_requests"] = target
        built[deployment["name"]] = AutoscalingConfig(**given)
    return built


def by_deployment(contexts: Contexts) -> tuple[Decisions, dict[DeploymentID, dict[str, Any]]]:
    """Ray's default policy for each deployment on its own, as Ray wraps it."""
    policy = _apply_autoscaling_config(replica_queue_length_autoscaling_policy)
    decided = {deployment: policy(context) for deployment, context in contexts.items()}
    return {each: replicas for each, (replicas, _) in decided.items()}, {
        each: kept for each, (_, kept) in decided.items()
    }


@dataclass(slots=True)
class Controller:
    """What Ray's controller does around a policy: collects figures, keeps state, applies bounds. Of one run."""

    policy: Decide
    configs: Mapping[str, AutoscalingConfig]
    interval_s: float = DECISION_EVERY_S
    _before: dict[str, int] = field(default_factory=dict)
    _ongoing: dict[str, deque[int]] = field(default_factory=dict)
    _reported: dict[str, deque[dict[str, float]]] = field(default_factory=dict)
    _counted: dict[str, dict[str, float]] = field(default_factory=dict)
    _state: dict[DeploymentID, dict[str, Any]] = field(default_factory=dict)

    def decide(self, now_s: float, stages: Mapping[str, StageState]) -> dict[str, int]:
        """Wanted replicas of each stage."""
        total = {name: stage.ongoing + stage.queued for name, stage in stages.items()}
        served = {
            name: max(0, stage.arrivals - (total[name] - self._before.get(name, 0))) for name, stage in stages.items()
        }
        self._before = dict(total)
        # The simulation takes a request from one stage to the next; in Serve the gateway has it until it is answered
        total[GATEWAY] = sum(total.values()) - total["TextEmbedding"]
        contexts = {
            DeploymentID(name, APPLICATION): self._context(now_s, stage, total[name], served[name])
            for name, stage in stages.items()
        }
        with (
            patch("ray.serve.autoscaling_policy.time.time", return_value=now_s),
            patch("ray.cluster_resources", return_value=CLUSTER),
        ):
            decisions, self._state = self.policy(contexts)
        return {
            each.name: min(max(replicas, self.configs[each.name].min_replicas), self.configs[each.name].max_replicas)
            for each, replicas in decisions.items()
        }

    def _context(self, now_s: float, stage: StageState, total: int, served: int) -> AutoscalingContext:
        deployment, config = DeploymentID(stage.name, APPLICATION), self.configs[stage.name]
        decisions_kept = round(config.look_back_period_s / self.interval_s) + REPORT_LAG_DECISIONS
        ongoing = self._ongoing.setdefault(stage.name, deque([0], maxlen=decisions_kept))
        ongoing.append(total)
        counted = self._counted.get(stage.name, dict.fromkeys((ADMITTED, "served", "busy_s"), 0.0))
        new = {ADMITTED: stage.arrivals, "served": served, "busy_s": stage.busy_s}
        self._counted[stage.name] = {name: counted[name] + more for name, more in new.items()}
        reported = self._reported.setdefault(stage.name, deque([counted], maxlen=1 + REPORT_LAG_DECISIONS))
        reported.append(self._counted[stage.name])
        mean = sum(list(ongoing)[:-REPORT_LAG_DECISIONS]) / (len(ongoing) - REPORT_LAG_DECISIONS)
        replica = ReplicaID("all", deployment)
        return AutoscalingContext(
            deployment_id=deployment,
            deployment_name=stage.name,
            app_name=APPLICATION,
            current_num_replicas=stage.running,
            target_num_replicas=stage.running + stage.starting,
            running_replicas=[replica],
            total_num_requests=mean,
            total_queued_requests=float(stage.queued),
            aggregated_metrics={},
            raw_metrics={
                name: {replica: [TimeStampedValue(now_s, value)]}
                for name, value in {**reported[0], INSIDE: mean, NUM_CPUS: SHARES[stage.name].num_cpus}.items()
            },
            capacity_adjusted_min_replicas=config.min_replicas,
            capacity_adjusted_max_replicas=config.max_replicas,
            policy_state=dict(self._state.get(deployment, {})),
            last_scale_up_time=None,
            last_scale_down_time=None,
            current_time=now_s,
            config=config,
        )


RAYS_DELAYS: Final = {"upscale_delay_s": 2.0, "downscale_delay_s": 60.0}
POLICIES: Final[Mapping[str, Callable[[], Controller]]] = {
    "Ray's default": lambda: Controller(by_deployment, configs(**RAYS_DELAYS)),
    "Ray's, no delay up, target 1": lambda: Controller(
        by_deployment, configs(target=1, upscale_delay_s=0, downscale_delay_s=60)
    ),
    "Ray's, the same, target 0.7, 20 s down": lambda: Controller(
        by_deployment, configs(target=0.7, upscale_delay_s=0, downscale_delay_s=20)
    ),
    "whole application": lambda: Controller(_apply_app_level_autoscaling_config(WholeApplication()), configs()),
}


def served_in(name: str) -> Service:
    """Core-seconds of a batch: in proportion to its speech, with a fifth of noise. On a CPU a batch saves nothing."""

    def seconds(batch: Sequence[Request], random: Random) -> float:
        speech_s = sum(request.speech_s for request in batch)
        return SERVICE_S[name] * speech_s / MEAN_SPEECH_S * random.lognormvariate(0.0, 0.2)

    return seconds


def dag() -> Dag:
    """The application on a roomy cluster, one replica of each stage at first."""
    bounds = {
        each["name"]: each["max_ongoing_requests"]
        for each in yaml.safe_load(DEFAULT_CONFIG.read_text(encoding="utf-8"))["applications"][0]["deployments"]
    }
    deployments = tuple(
        Deployment(
            name=name,
            stages=(Stage(name, threads=1, batch_size=BATCH_SIZE.get(name, 1), service=served_in(name)),),
            cpus=SHARES[name].num_cpus,
            hop_s=HOP_S,
            cold_start_s=COLD_START_S.get(name, COLD_START_OF_OTHERS_S),
            max_ongoing=bounds[name],
        )
        for name in SERVICE_S
    )
    return Dag(deployments, AFTER, nodes=NODES, cores=CORES, admits_all=False)


def run(profile: RateProfile, seed: int, controller: Controller) -> SimulationResult:
    """One trace under one policy."""
    arrivals = schedule(profile, seed)
    speech = np.clip(np.random.default_rng(seed).lognormal(np.log(MEAN_SPEECH_S) - 0.08, 0.4, arrivals.size), 1, 15)
    return simulate(dag(), arrivals, speech, seed=seed, autoscaler=controller, deadline_s=REFUSED_FROM_S)


def is_late(result: SimulationResult) -> NDArray[np.bool_]:
    """Requests that missed the objective: answered after it, or never."""
    late: NDArray[np.bool_] = ~((result.status == ANSWERED) & (result.latency_s <= OBJECTIVE_S))
    return late


def p95_over_time(result: SimulationResult, seconds: float) -> NDArray[np.float64]:
    """95th percentile of latency of the arrivals of each window, seconds; what was not answered took REFUSED_FROM_S."""
    latency_s = np.nan_to_num(result.latency_s, nan=REFUSED_FROM_S)
    window = (result.arrival_s // WINDOW_S).astype(int)
    return np.array(
        [
            np.quantile(latency_s[window == each], 0.95) if np.any(window == each) else np.nan
            for each in range(int(seconds / WINDOW_S))
        ]
    )


def time_to_capacity_s(result: SimulationResult, profile: RateProfile) -> float | None:
    """From the step of a burst until p95 is back under the objective for SETTLED_WINDOWS; None without a step."""
    if not isinstance(profile, Burst):
        return None
    kept = (p95_over_time(result, profile.seconds) <= OBJECTIVE_S)[int(profile.at_s / WINDOW_S) :]
    late = [at for at in range(kept.size) if not kept[at]]
    settled = (at + 1 for at in late if kept[at + 1 : at + 1 + SETTLED_WINDOWS].all())
    return WINDOW_S * next(settled, kept.size if late else 0)


def figures(result: SimulationResult, profile: RateProfile) -> dict[str, float | None]:
    """What a row of the table says of one run."""
    late = is_late(result)
    return {
        "late": int(late.sum()),
        "late_percent": 100.0 * float(late.mean()),
        "replica_s": sum(result.replica_s.values()),
        "share_s": sum(SHARES[name].num_cpus * seconds for name, seconds in result.replica_s.items()),
        "time_to_capacity_s": time_to_capacity_s(result, profile),
    }


def row(trace: str, policy: str, runs: Sequence[Mapping[str, float | None]]) -> dict[str, Any]:
    """Mean, least and most of each figure."""
    summary: dict[str, Any] = {"trace": trace, "policy": policy, "runs": len(runs)}
    for name in runs[0]:
        values = [value for each in runs if (value := each[name]) is not None]
        if values:
            summary[name] = [round(float(np.mean(values)), 2), round(min(values), 2), round(max(values), 2)]
    return summary


def cell(summary: list[float] | None) -> str:
    """Mean, and below it least and most; empty where a trace has no such figure."""
    if summary is None:
        return ""
    mean, least, most = (f"{value:,.0f}" if value >= 100 else f"{value:.1f}" for value in summary)
    return f"{mean}\n({least}–{most})"


def plot(shown: Mapping[str, Mapping[str, SimulationResult]], traces: Mapping[str, RateProfile], file: Path) -> None:
    """A column for each trace: offered load, replicas of the recogniser, p95 over time."""
    figure, axes = pyplot.subplots(3, len(traces), figsize=(12, 8), sharex="col", layout="constrained", squeeze=False)
    for column, (trace, profile) in enumerate(traces.items()):
        load, replicas, latency = axes[:, column]
        at_s = np.linspace(0, profile.seconds, 500)
        load.plot(at_s, profile.rate_at(at_s), color="tab:gray")
        load.set(title=trace, ylabel="requests/s")
        starts = np.arange(int(profile.seconds / WINDOW_S)) * WINDOW_S
        for policy, result in shown[trace].items():
            steps = [*result.steps["WhisperASR"], (profile.seconds, result.steps["WhisperASR"][-1][1])]
            replicas.step([each[0] for each in steps], [each[1] for each in steps], where="post", label=policy)
            latency.plot(starts, p95_over_time(result, profile.seconds), label=policy)
        replicas.set(ylabel="replicas of WhisperASR", xlim=(0, profile.seconds))
        latency.axhline(OBJECTIVE_S, color="tab:gray", linestyle=":")
        latency.set(ylabel="p95 of latency, s", xlabel="s", yscale="log")
    axes[1, 0].legend(fontsize="small")
    figure.savefig(file, dpi=110)
    pyplot.close(figure)


def rows_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The rows as they are printed: means, and below them least and most."""
    made = table("Autoscaling: mean (least–most) of the runs", ("trace", "policy", *COLUMNS.values()), words=2)
    for each in rows:
        made.add_row(each["trace"], each["policy"], *(cell(each.get(name)) for name in COLUMNS))
    return made


@command.benchmark("autoscaling")
def main(arguments: Sequence[str] | None = None) -> None:
    """Every policy over every trace and seed."""
    parser = command.parser("autoscaling", __doc__, plot=True)
    parser.add_argument("--seeds", type=count, default=5, metavar="N", help="of each policy and trace (%(default)s)")
    parser.add_argument("--tuning", action="store_true", help="the traces and seeds that the policy was chosen with")
    options = command.parse(parser, arguments)
    traces = TUNING if options.tuning else REPORTED
    seeds = TUNING_SEEDS if options.tuning else range(FIRST_SEED, FIRST_SEED + options.seeds)
    rows, shown = [], dict[str, dict[str, SimulationResult]]()
    for (trace, profile), (policy, controller) in itertools.product(traces.items(), POLICIES.items()):
        results = [run(profile, seed, controller()) for seed in progress(seeds, f"{trace}, {policy}")]
        shown.setdefault(trace, {})[policy] = results[0]
        rows.append(row(trace, policy, [figures(result, profile) for result in results]))
        write_rows(options.json, rows, objective_s=OBJECTIVE_S)
    output().print(rows_table(rows))
    plot(shown, traces, options.json.with_suffix(".png"))


if __name__ == "__main__":
    main()
