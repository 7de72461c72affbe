"""What each part of batching and flow control is worth: the same overload with it and without, and goodput by load.

    python -m benchmarks.flow --json FILE

Devices of the scenario `steady` speak at seeded Poisson arrivals, want an answer within the objective, say so in
`Amser-Deadline-Ms` and leave when it is over. Goodput counts the answers within the objective, a second.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks.composition import CONFIGS, cpu_seconds
from benchmarks.measuring.report import write_rows
from benchmarks.plots.flow import plot_goodput
from deployments.local_cluster import LocalCluster
from load_tests.fleet.run import run_scenario
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
    "one batch at once": {"recognizer": {"batches": 1}},
    "no limit of frames": {"recognizer": {"batch_frames": 1_000_000}},
}
CURVES: Final = ("all", "whole answers only", "none of the four")
COLUMNS: Final = ("variant", "rate", "goodput", "whole", "p99_ms", "late", "refused", "degraded", "cpu_ms_per_answer")


def measure(cluster: LocalCluster, rate: float, seconds: float, objective_ms: int, seed: int = 1) -> dict[str, Any]:
    """One rate against a running cluster, after a warm-up at half of it."""
    scenario = load_scenario("steady").model_copy(update={"objective_ms": objective_ms, "deadline_ms": objective_ms})
    patience_s = objective_ms / 1000
    run_scenario(scenario, cluster.url, rate=rate / 2, seconds=WARM_UP_S, seed=99, language="en")
    before = cpu_seconds(cluster)
    run = run_scenario(
        scenario, cluster.url, rate=rate, seconds=seconds, seed=seed, language="en", answer_timeout_s=patience_s
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


@contextmanager
def running(profile: str, overrides: Mapping[str, Any], log: Path) -> Iterator[LocalCluster]:
    """A cluster with some settings changed, ready."""
    with LocalCluster(CONFIGS[profile], log=log, http_port=0, num_gpus=0, overrides=overrides) as cluster:
        cluster.wait_until_ready()
        yield cluster


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    options = _parser().parse_args(arguments)
    console = Console()
    rows: list[dict[str, Any]] = []
    for variant in options.variants:
        rates = sorted({*options.rates, options.overload}) if variant in CURVES else [options.overload]
        with running(options.profile, VARIANTS[variant], options.log) as cluster:
            for rate in rates:
                row = measure(cluster, rate, options.seconds, options.objective_ms)
                rows.append({"variant": variant, **row})
                console.print(rows[-1])
                about = {"profile": options.profile, "objective_ms": options.objective_ms, "seconds": options.seconds}
                write_rows(options.json, rows, command="benchmarks.flow", **about)
    console.print(_table(rows))
    plot_goodput(rows, options.json.with_suffix(".png"))


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(*COLUMNS, title="Flow")
    for row in rows:
        table.add_row(*(str(row[column]) for column in COLUMNS))
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flow", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", type=Path, required=True, metavar="FILE", help="where the rows go; a plot beside it")
    parser.add_argument("--profile", choices=list(CONFIGS), default="fused", help="default: %(default)s")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS), metavar="NAME")
    parser.add_argument("--rates", type=float, nargs="+", default=[2, 4, 6, 8, 10], help="of the curves, a second")
    parser.add_argument("--overload", type=float, default=14, help="rate of every variant; about twice the capacity")
    parser.add_argument("--objective-ms", type=int, default=3000, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=40, help="of each rate (default: %(default)s)")
    parser.add_argument("--log", type=Path, default=Path("runs/flow.log"), help="what Ray prints")
    return parser


if __name__ == "__main__":
    main()
