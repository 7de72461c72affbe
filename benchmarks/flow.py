"""What each part of batching and flow control changes: the same overload with it and without, and goodput by load.

    python -m benchmarks.flow

Devices of the scenario `steady` speak at seeded Poisson arrivals, want an answer within the objective, say so in
`Amser-Deadline-Ms` and leave when it is over. Goodput counts the answers within the objective, a second.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from rich.table import Table

from benchmarks.measuring import command
from benchmarks.measuring.cluster import CONFIGS, cpu_seconds, require_models, running
from benchmarks.measuring.console import output, run_status, table
from benchmarks.measuring.report import write_rows
from benchmarks.plots.flow import plot_goodput
from deployments.local_cluster import LocalCluster
from load_tests.commands import count, positive
from load_tests.fleet.run import Progress, run_scenario
from load_tests.fleet.scenario import load_scenario
from load_tests.report.summary import keeps_objective, summarise

WARM_UP_S: Final = 12.0
NO_ADMISSION: Final = {"flow": {"admission": False}}
VARIANTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "all": {},
    "whole answers only": {"flow": {"degrade": False}},
    "no admission": NO_ADMISSION,
    "no admission, no deadlines": {"flow": {"admission": False, "deadlines": False}},
    "no admission, no cancellation": {"flow": {"admission": False, "cancellation": False}},
    "none of the four": {"flow": dict.fromkeys(("admission", "degrade", "deadlines", "cancellation"), False)},
    "no batches": {"recognizer": {"batch_size": 1}, "text_encoder": {"batch_size": 1}},
    "one batch at once": {"recognizer": {"batches": 1, "express_frames": None}},
    "no limit of frames": {"recognizer": {"batch_frames": 1_000_000}},
}
CURVES: Final = ("all", "whole answers only", "none of the four")
COLUMNS: Final = {
    "variant": "variant",
    "rate": "rate",
    "goodput": "goodput",
    "whole": "of it\nwhole",
    "p99_ms": "p99 ms",
    "late": "late",
    "refused": "refused",
    "degraded": "degraded",
    "cpu_ms_per_answer": "CPU ms",
}


def measure(
    cluster: LocalCluster,
    rate: float,
    seconds: float,
    objective_ms: int,
    progress: Callable[[Progress], None] | None = None,
    seed: int = 1,
) -> dict[str, Any]:
    """One rate against a running cluster, after a warm-up at half of it."""
    scenario = load_scenario("steady").model_copy(update={"objective_ms": objective_ms, "deadline_ms": objective_ms})
    patience_s = objective_ms / 1000
    run_scenario(scenario, cluster.url, rate=rate / 2, seconds=WARM_UP_S, seed=99, language="en", progress=progress)
    before = cpu_seconds(cluster)
    run = run_scenario(
        scenario,
        cluster.url,
        rate=rate,
        seconds=seconds,
        seed=seed,
        language="en",
        answer_timeout_s=patience_s,
        progress=progress,
    )
    cpu = cpu_seconds(cluster) - before
    summary = summarise(run)
    whole = sum(keeps_objective(sample, objective_ms) and not sample.degraded for sample in run.samples)
    return {
        "rate": rate,
        "arrivals": summary.arrivals,
        "goodput": round(summary.goodput, 2),
        "whole": round(whole / run.seconds, 2),
        "p99_ms": round(summary.latency.p99, 0),
        "late": summary.ok - summary.within + summary.failed,
        "refused": summary.refused,
        "degraded": sum(bool(sample.degraded) for sample in run.samples),
        "failures": dict(summary.failures),
        "cpu_ms_per_answer": round(1000 * cpu / max(1, summary.within)),
        "generator_cores": round(summary.generator_mean, 2),
    }


def rows_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The rows as they are printed."""
    made = table("Flow: answers in time, with parts of flow control and without", tuple(COLUMNS.values()))
    for row in rows:
        made.add_row(*(str(row[column]) for column in COLUMNS))
    return made


@command.benchmark("flow")
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    options = command.parse(_parser(), arguments)
    require_models(command.CONVERSATION)
    console, rows = output(), list[dict[str, Any]]()
    about = {"profile": options.profile, "objective_ms": options.objective_ms, "seconds": options.seconds}
    for variant in options.variants:
        rates = sorted({*options.rates, options.overload}) if variant in CURVES else [options.overload]
        with running(options.profile, options.log, overrides=VARIANTS[variant], num_gpus=0) as cluster:
            for rate in rates:
                with run_status(f"{variant}, {rate:g} a second") as show:
                    row = measure(cluster, rate, options.seconds, options.objective_ms, show)
                rows.append({"variant": variant, **row})
                console.print(f"{variant}, {rate:g} a second: {row['goodput']:g} answers a second in time")
                write_rows(options.json, rows, **about)
    console.print(rows_table(rows))
    plot_goodput(rows, options.json.with_suffix(".png"))


def _parser() -> argparse.ArgumentParser:
    parser = command.parser("flow", __doc__, plot=True)
    add = parser.add_argument
    add("--profile", choices=list(CONFIGS), default="fused", help="default: %(default)s")
    add("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS), metavar="NAME", help="default: all")
    add("--rates", type=positive, nargs="+", default=[2, 4, 6, 8, 10], metavar="R", help="of the curves, a second")
    add("--overload", type=positive, default=14, metavar="R", help="of every variant; about twice the capacity")
    add("--objective-ms", type=count, default=3000, metavar="N", help="default: %(default)s")
    add("--seconds", type=positive, default=40, metavar="S", help="of each rate (default: %(default)s)")
    command.add_log(parser, "flow")
    return parser


if __name__ == "__main__":
    main()
