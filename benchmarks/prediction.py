"""Whether the simulation says what the cluster does: latencies predicted and measured, at shares of the capacity.

    python -m benchmarks.prediction --json FILE

The cluster's overhead (CPU of a request outside the stages, and what Ray spends when idle) is measured first, at one
client; the capacity with many. Then Poisson arrivals are sent to it, and the very same arrivals are simulated with the
service times of `benchmarks.service_times`, which gain the overhead. `python -m load_tests plan --validate FILE`
predicts the rows anew.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.composition import CONFIGS, cpu_seconds
from benchmarks.flow import running
from benchmarks.report import write_rows
from deployments.local_cluster import LocalCluster
from load_tests import service_times
from load_tests.record import Run
from load_tests.run import run_scenario
from load_tests.scenario import load_scenario
from load_tests.service_times import ServiceTimes
from load_tests.simulation.application import Profile, build
from load_tests.simulation.dag import simulate
from load_tests.summary import percentile

PERCENTILES: Final = (50, 95, 99)
IDLE_S: Final = 8.0
MANY: Final = 16  # clients that fill every batch
WHOLE_ANSWERS: Final = {"flow": {"degrade": False}}  # what is left out is not simulated
# Other shares of the capacity than those that are judged would do as well; these are the issue's
SHARES: Final = (0.5, 0.7, 0.85)


def overhead(cluster: LocalCluster, times: ServiceTimes, seconds: float) -> tuple[float, float]:
    """CPU milliseconds of a request outside the stages, and cores that an idle cluster uses."""
    time.sleep(IDLE_S / 2)
    before = cpu_seconds(cluster)
    time.sleep(IDLE_S)
    background = (cpu_seconds(cluster) - before) / IDLE_S
    before, started = cpu_seconds(cluster), time.perf_counter()
    run = run_scenario("steady", cluster.url, closed=1, seconds=seconds, language="en")
    spent = cpu_seconds(cluster) - before - background * (time.perf_counter() - started)
    stages_ms = sum(
        stage.mean_ms(*_turn(times, sample.speech_s)) for stage in times.stages.values() for sample in run.samples
    )
    return max(0.0, (1000 * spent - stages_ms) / len(run.samples)), background


def capacity(cluster: LocalCluster, seconds: float) -> float:
    """Answers a second with many clients."""
    run = run_scenario("steady", cluster.url, closed=MANY, seconds=seconds, language="en")
    return sum(sample.ok for sample in run.samples) / max(sample.done_s or 0.0 for sample in run.samples)


def simulated(run: Run, times: ServiceTimes, profile: Profile, background: float, seed: int = 1) -> list[float]:
    """Percentiles, in milliseconds, of the run's own arrivals."""
    arrivals = np.array([sample.scheduled_s for sample in run.samples])
    turns = [_turn(times, sample.speech_s) for sample in run.samples]
    speech, tokens = (np.array(column, float) for column in zip(*turns, strict=True))
    cores = len(os.sched_getaffinity(0))
    dag = build(times, profile, cores=cores)
    dag = replace(dag, contention=times.contention * cores / (cores - background))
    outcome = simulate(dag, arrivals, speech, seed=seed, tokens=tokens)
    return [float(value) for value in percentile(1000 * outcome.latency_s, PERCENTILES)]


def _turn(times: ServiceTimes, speech_s: float) -> tuple[float, int]:
    """The measured turn of this length."""
    return min(times.conversation, key=lambda turn: abs(turn[0] - speech_s))


def measure(
    profile: Profile, times: ServiceTimes, options: argparse.Namespace, console: Console
) -> list[dict[str, Any]]:
    """A row for each share of the capacity."""
    rows = []
    with running(profile, WHOLE_ANSWERS, options.log) as cluster:
        run_scenario("steady", cluster.url, closed=4, seconds=8, language="en")  # warm
        outside_ms, background = overhead(cluster, times, options.seconds / 4)
        most = capacity(cluster, options.seconds / 4)
        console.print(
            f"{profile}: {outside_ms:.0f} ms outside the stages, {background:.2f} cores idle, {most:.2f}/s at most"
        )
        here = replace(times, overhead_ms={**times.overhead_ms, profile: outside_ms})
        for share in options.shares:
            rate, scenario = share * most, load_scenario("steady")
            run = run_scenario(scenario, cluster.url, rate=rate, seconds=options.seconds, seed=7, language="en")
            latencies = [1000 * (sample.latency_s or 0.0) for sample in run.samples if sample.ok]
            row: dict[str, Any] = {
                "profile": profile,
                "share": share,
                "rate": round(rate, 3),
                "arrivals": len(run.samples),
                "unanswered": len(run.samples) - len(latencies),
                "overhead_ms": round(outside_ms, 1),
                "background_cores": round(background, 3),
            }
            predicted = simulated(run, here, profile, background)
            for q, of_cluster, of_simulation in zip(
                PERCENTILES, percentile(latencies, PERCENTILES), predicted, strict=True
            ):
                row[f"measured_p{q}_ms"] = round(float(of_cluster), 1)
                row[f"predicted_p{q}_ms"] = round(of_simulation, 1)
                row[f"error_p{q}_percent"] = round(100 * (of_simulation / float(of_cluster) - 1), 1)
            rows.append(row)
            console.print(row)
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    options = _parser().parse_args(arguments)
    console, times = Console(), service_times.read(options.service_times)
    rows: list[dict[str, Any]] = []
    for profile in options.profiles:
        rows += measure(profile, times, options, console)
        write_rows(options.json, rows, command="benchmarks.prediction", seconds=options.seconds)
    table = Table("profile", "load", "requests/s", *(f"p{q} measured → predicted, ms" for q in PERCENTILES))
    for row in rows:
        cells = [
            f"{row[f'measured_p{q}_ms']:.0f} → {row[f'predicted_p{q}_ms']:.0f} ({row[f'error_p{q}_percent']:+.0f} %)"
            for q in PERCENTILES
        ]
        table.add_row(row["profile"], f"{row['share']:.0%}", f"{row['rate']:.2f}", *cells)
    console.print(table)
    measured = {str(row["profile"]): float(row["overhead_ms"]) for row in rows}
    source = "CPU of a closed loop of one client, less the stages and what an idle cluster uses (benchmarks.prediction)"
    known = replace(times, overhead_ms={**times.overhead_ms, **measured}, overhead_source=source)
    service_times.write(known, options.service_times)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prediction", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", type=Path, required=True, metavar="FILE", help="where the rows go")
    parser.add_argument("--profiles", nargs="+", choices=list(CONFIGS), default=list(CONFIGS))
    parser.add_argument("--shares", type=float, nargs="+", default=list(SHARES), help="of the capacity")
    parser.add_argument("--seconds", type=float, default=120, help="of each rate (default: %(default)s)")
    parser.add_argument("--service-times", type=Path, default=service_times.MEASURED, metavar="FILE")
    parser.add_argument("--log", type=Path, default=Path("runs/prediction.log"), help="what Ray prints")
    return parser


if __name__ == "__main__":
    main()
