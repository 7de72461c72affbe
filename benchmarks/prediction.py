"""Whether the simulation says what the cluster does: latencies predicted and measured, at shares of the capacity.

    python -m benchmarks.prediction

The cluster's overhead (CPU of a request outside the stages, and what Ray spends when idle) is measured first, at one
client; the capacity with many, from which follows how much busy cores hinder each other. Then Poisson arrivals are sent
to it, and the very same arrivals are simulated with the service times of `benchmarks.service_times`; `--update` writes
both into them.
`python -m load_tests plan --validate FILE` predicts the rows anew, with other arrivals.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from benchmarks.measuring import command
from benchmarks.measuring.cluster import CONFIGS, cpu_seconds, require_models, running
from benchmarks.measuring.command import require_weights
from benchmarks.measuring.console import output, run_status, status, table
from benchmarks.measuring.report import write_rows
from deployments.local_cluster import LocalCluster
from load_tests.commands import positive
from load_tests.fleet.arrivals import schedule
from load_tests.fleet.members import Fleet
from load_tests.fleet.run import payloads_for, run_scenario
from load_tests.fleet.scenario import load_scenario
from load_tests.report.output import check_writable
from load_tests.report.summary import percentile
from load_tests.simulation import service_times
from load_tests.simulation.application import Profile, build
from load_tests.simulation.dag import SimulationResult, simulate
from load_tests.simulation.service_times import ServiceTimes

PERCENTILES: Final = (50, 95, 99)
SEED: Final = 7
LANGUAGE: Final = "en"
BACKLOG: Final = 400  # requests whose backlog tells how fast the simulation is at most
LARGEST_CONTENTION: Final = 2.0
CONTENTION_PRECISION: Final = 0.005
IDLE_S: Final = 8.0
MANY: Final = 16  # clients that fill every batch
WHOLE_ANSWERS: Final = {"flow": {"degrade": False}}  # what is left out is not simulated
SHARES: Final = (0.5, 0.7, 0.85)


Row = dict[str, Any]
Floats = NDArray[np.float64]


def overhead(cluster: LocalCluster, times: ServiceTimes, seconds: float) -> tuple[float, float]:
    """CPU milliseconds of a request outside the stages, and cores that an idle cluster uses."""
    time.sleep(IDLE_S / 2)
    before = cpu_seconds(cluster)
    time.sleep(IDLE_S)
    background = (cpu_seconds(cluster) - before) / IDLE_S
    before, started = cpu_seconds(cluster), time.perf_counter()
    run = run_scenario("steady", cluster.url, closed=1, seconds=seconds, language=LANGUAGE)
    spent = cpu_seconds(cluster) - before - background * (time.perf_counter() - started)
    stages_ms = sum(
        stage.mean_ms(*_turn(times, sample.speech_s)) for stage in times.stages.values() for sample in run.samples
    )
    return max(0.0, (1000 * spent - stages_ms) / len(run.samples)), background


def capacity(cluster: LocalCluster, seconds: float) -> float:
    """Answers a second with many clients."""
    run = run_scenario("steady", cluster.url, closed=MANY, seconds=seconds, language=LANGUAGE)
    return sum(sample.ok for sample in run.samples) / max(sample.done_s or 0.0 for sample in run.samples)


def trace(rate: float, seconds: float) -> tuple[Floats, list[float]]:
    """Arrivals and seconds of speech of the run at this rate, which its seed decides."""
    scenario = load_scenario("steady").adjusted(rate=rate, seconds=seconds)
    arrivals, fleet = schedule(scenario.arrivals, SEED), Fleet(scenario, SEED)
    payloads, turns = payloads_for(scenario, SEED, (), LANGUAGE), Counter[int]()
    speech = []
    for number in fleet.speakers(arrivals.size):
        member = fleet[int(number)]
        speech.append(payloads.envelope(member.codec, member.place + turns[member.number]).seconds)
        turns[member.number] += 1
    return arrivals, speech


def simulated(
    arrivals: Floats, speech: Sequence[float], times: ServiceTimes, profile: Profile, contention: float
) -> SimulationResult:
    """What the simulation makes of a run's own arrivals."""
    turns = np.array([_turn(times, seconds) for seconds in speech], float)
    dag = replace(build(times, profile, cores=len(os.sched_getaffinity(0))), contention=contention)
    return simulate(dag, arrivals, turns[:, 0], seed=1, tokens=turns[:, 1])


def contention(times: ServiceTimes, profile: Profile, most: float) -> float:
    """How much longer a CPU second takes with every core busy: where the simulation is as fast as the cluster at most.

    Cores share caches and memory, and Ray's own work; the clients and this process want a core now and then too.
    """
    _, speech = trace(most, BACKLOG / most)
    least, largest = 1.0, LARGEST_CONTENTION
    while largest - least > CONTENTION_PRECISION:
        middle = (least + largest) / 2
        result = simulated(np.zeros(len(speech)), speech, times, profile, middle)
        if len(speech) / float(result.done_s.max()) > most:
            least = middle
        else:
            largest = middle
    return (least + largest) / 2


def _turn(times: ServiceTimes, speech_s: float) -> tuple[float, int]:
    """The measured turn of this length."""
    return min(times.conversation, key=lambda turn: abs(turn[0] - speech_s))


def measure(profile: Profile, times: ServiceTimes, options: argparse.Namespace) -> list[Row]:
    """A row for each share of the capacity: what was measured."""
    rows = []
    with running(profile, options.log, overrides=WHOLE_ANSWERS, num_gpus=0) as cluster:
        with status(f"{profile}: overhead and capacity"):
            run_scenario("steady", cluster.url, closed=4, seconds=8, language=LANGUAGE)  # warm
            outside_ms, background = overhead(cluster, times, options.seconds / 4)
            most = capacity(cluster, options.seconds / 4)
        for share in options.shares:
            rate = round(share * most, 3)
            with run_status(f"{profile}, {rate:g} a second") as show:
                run = run_scenario(
                    "steady",
                    cluster.url,
                    rate=rate,
                    seconds=options.seconds,
                    seed=SEED,
                    language=LANGUAGE,
                    progress=show,
                )
            latencies = [1000 * (sample.latency_s or 0.0) for sample in run.samples if sample.ok]
            row: Row = {
                "profile": profile,
                "share": share,
                "rate": rate,
                "seconds": options.seconds,
                "capacity": round(most, 3),
                "arrivals": len(run.samples),
                "unanswered": len(run.samples) - len(latencies),
                "overhead_ms": round(outside_ms, 1),
                "background_cores": round(background, 3),
            }
            for q, milliseconds in zip(PERCENTILES, percentile(latencies, PERCENTILES), strict=True):
                row[f"measured_p{q}_ms"] = round(float(milliseconds), 1)
            rows.append(row)
            output().print(f"{profile}, {rate:g} a second: p99 {row['measured_p99_ms']:.0f} ms measured")
    return rows


def predict(rows: Sequence[Row], times: ServiceTimes) -> list[Row]:
    """The same rows with what the simulation says of them."""
    slower: dict[str, float] = {}
    predicted = []
    for row in rows:
        profile = row["profile"]
        here = replace(times, overhead_ms={**times.overhead_ms, profile: row["overhead_ms"]})
        if profile not in slower:
            slower[profile] = contention(here, profile, row["capacity"])
        result = simulated(*trace(row["rate"], row["seconds"]), here, profile, slower[profile])
        columns: Row = {"contention": round(slower[profile], 3)}
        for q, milliseconds in zip(PERCENTILES, percentile(1000 * result.latency_s, PERCENTILES), strict=True):
            columns[f"predicted_p{q}_ms"] = round(float(milliseconds), 1)
            columns[f"error_p{q}_percent"] = round(100 * (float(milliseconds) / row[f"measured_p{q}_ms"] - 1), 1)
        predicted.append({**row, **columns})
    return predicted


def rows_table(rows: Sequence[Row]) -> Table:
    """The rows as they are printed."""
    columns = ("profile", "load", "requests\na second", *(f"p{q} measured\n→ predicted, ms" for q in PERCENTILES))
    made = table("Prediction", columns)
    for row in rows:
        cells = [
            f"{row[f'measured_p{q}_ms']:.0f} → {row[f'predicted_p{q}_ms']:.0f}\n({row[f'error_p{q}_percent']:+.0f} %)"
            for q in PERCENTILES
        ]
        made.add_row(row["profile"], f"{row['share']:.0%}", f"{row['rate']:.2f}", *cells)
    return made


def read_measured(file: Path) -> list[Row]:
    """The rows of an earlier run. Raises CannotBegin where they are none."""
    try:
        rows: list[Row] = json.loads(file.read_text(encoding="utf-8"))
        for row in rows:
            row["profile"], row["rate"], row["seconds"], row["capacity"], row["overhead_ms"]  # noqa: B018 - must be there
        return rows
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise command.CannotBegin(f"--measured {file}: no rows of this benchmark: {error}") from None


@command.benchmark("prediction")
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    options = command.parse(_parser(), arguments)
    try:
        times = service_times.read(options.service_times)
        if options.update:
            check_writable(options.service_times)
    except (OSError, ValueError) as error:
        raise command.CannotBegin(f"--service-times: {error}") from None
    require_weights([command.CONVERSATION])
    rows: list[Row] = []
    if options.measured:
        rows = read_measured(options.measured)
    else:
        require_models()
        for profile in options.profiles:
            rows += measure(profile, times, options)
    with status("simulating the same arrivals"):
        rows = predict(rows, times)
    write_rows(options.json, rows)
    output().print(rows_table(rows))
    if options.update:
        update(options.service_times, times, rows)


def update(file: Path, times: ServiceTimes, rows: Sequence[Row]) -> None:
    """Writes service times again, with the overhead and the contention of these rows."""
    measured = {str(row["profile"]): float(row["overhead_ms"]) for row in rows}
    source = "CPU of a closed loop of one client, less the stages and what an idle cluster uses (benchmarks.prediction)"
    known = replace(
        times,
        overhead_ms={**times.overhead_ms, **measured},
        overhead_source=source,
        contention=round(float(np.mean([row["contention"] for row in rows])), 3),
    )
    service_times.write(known, file)


def _parser() -> argparse.ArgumentParser:
    parser = command.parser("prediction", __doc__)
    add = parser.add_argument
    add("--profiles", nargs="+", choices=list(CONFIGS), default=list(CONFIGS), help="default: both")
    add("--shares", type=positive, nargs="+", default=list(SHARES), metavar="S", help="of the capacity")
    add("--seconds", type=positive, default=120, metavar="S", help="of each rate (default: %(default)s)")
    add(
        "--service-times",
        type=Path,
        default=service_times.MEASURED,
        metavar="FILE",
        help="of each stage (default: what the planner reads)",
    )
    add("--update", action="store_true", help="write overhead and contention into the file of --service-times")
    add("--measured", type=Path, metavar="FILE", help="predict the rows of an earlier run anew")
    command.add_log(parser, "prediction")
    return parser


if __name__ == "__main__":
    main()
