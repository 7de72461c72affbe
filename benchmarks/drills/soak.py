"""A soak with bad clients: is every good request answered, and does any replica's memory grow?

    python -m benchmarks.drills.soak --minutes 30

The scenario is `soak-bad-clients` of load_tests: malformed and oversized bodies, slow ones, clients that leave, wrong
hints, floods from one address. The memory of every replica and decoder is read every few seconds.
"""

from __future__ import annotations

import argparse
import signal
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from statistics import median
from types import TracebackType
from typing import Any, Final

import psutil
from rich.table import Table

from benchmarks.drills.processes import replicas
from benchmarks.measuring import command
from benchmarks.measuring.cluster import CONFIGS, require_models, running
from benchmarks.measuring.console import output, run_status, table
from benchmarks.measuring.report import write_rows
from deployments.local_cluster import LocalCluster
from load_tests.commands import positive
from load_tests.fleet.run import run_scenario
from load_tests.fleet.scenario import load_scenario
from load_tests.report.record import Run
from load_tests.report.summary import GOOD, summarise

SCENARIO: Final = "soak-bad-clients"
SAMPLE_EVERY_S: Final = 2.0
FLAT: Final = 0.05  # of the memory: what it may grow by over the last half
LEAST_SAMPLES: Final = 8  # of a process in the last half, or nothing is said about it


class MemoryWatch:
    """A context manager: reads the resident memory of every replica and its children, in a thread.

    Attributes:
        megabytes: (seconds since it was entered, resident MB) of each process, by the name of its deployment and its
            process id. A replica's decoders count with it: they are replaced now and then.
    """

    def __init__(self, cluster: LocalCluster) -> None:
        self.megabytes: dict[str, list[tuple[float, float]]] = {}
        self._cluster = cluster
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        at_s = 0.0
        while not self._stop.wait(SAMPLE_EVERY_S):
            at_s += SAMPLE_EVERY_S
            for replica in replicas(self._cluster):
                with suppress(psutil.NoSuchProcess):
                    deployment = replica.cmdline()[0].split(":")[4].partition(".")[0]
                    resident = sum(each.memory_info().rss for each in (replica, *replica.children(recursive=True)))
                    name = f"{deployment} {replica.pid}"
                    self.megabytes.setdefault(name, []).append((at_s, resident / 1e6))


def growth(samples: Sequence[tuple[float, float]]) -> float | None:
    """By how much of itself memory grew over the last half of a run: the median of the last quarter against the one
    before. None where there are too few samples.

    Args:
        samples: (seconds, MB) of a process, in order.
    """
    half = [megabytes for at_s, megabytes in samples if at_s > samples[-1][0] / 2]
    if len(half) < LEAST_SAMPLES:
        return None
    middle = len(half) // 2
    return median(half[middle:]) / median(half[:middle]) - 1


def verdict(run: Run, memory: Mapping[str, Sequence[tuple[float, float]]]) -> dict[str, Any]:
    """The row of a soak."""
    summary = summarise(run)
    bad = Counter(each.behaviour for each in run.samples if each.behaviour != GOOD)
    wrong = {f"{kind}: {outcome}": n for (kind, outcome), n in summary.misbehaved.items() if outcome != "ok"}
    grown = {name: growth(samples) for name, samples in memory.items()}
    return {
        "seconds": run.seconds,
        "rate": round(summary.offered, 2),
        "good": summary.arrivals,
        "good_answered": summary.ok,
        "good_refused": dict(summary.refusals),
        "good_failed": dict(summary.failures),
        "degraded": sum(bool(each.degraded) for each in run.samples if each.behaviour == GOOD),
        "p50_ms": round(summary.latency.p50),
        "p99_ms": round(summary.latency.p99),
        "bad": dict(bad),
        "bad_answered_wrongly": wrong,
        "memory_mb": {name: [round(samples[0][1]), round(samples[-1][1])] for name, samples in memory.items()},
        "memory_growth_percent": {name: None if each is None else round(100 * each, 1) for name, each in grown.items()},
        "is_flat": all(each is None or each <= FLAT for each in grown.values()),
        "warnings": list(summary.warnings),
    }


def row_table(row: Mapping[str, Any]) -> Table:
    """The row as it is printed."""
    made = table(f"Soak of {row['seconds']:.0f} s, {row['rate']} good requests a second", ("", "of it", ""), words=1)
    made.add_row("good requests answered", str(row["good_answered"]), f"of {row['good']}")
    made.add_row("refused", str(sum(row["good_refused"].values())), ", ".join(row["good_refused"]))
    made.add_row("failed", str(sum(row["good_failed"].values())), ", ".join(row["good_failed"]))
    made.add_row("answered with less", str(row["degraded"]), "")
    made.add_row("p50, p99", f"{row['p50_ms']} ms", f"{row['p99_ms']} ms")
    bad = sum(row["bad"].values())
    made.add_row(
        "bad clients answered as they should be", str(bad - sum(row["bad_answered_wrongly"].values())), f"of {bad}"
    )
    for name, (first, last) in row["memory_mb"].items():
        grown = row["memory_growth_percent"][name]
        made.add_row(f"memory of {name}", f"{first} → {last} MB", "too short" if grown is None else f"{grown:+.1f} %")
    return made


@command.benchmark("drills.soak")
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line. Exit code 1: a good request was not answered, or memory grew."""
    options = command.parse(_parser(), arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a run that `timeout` ends takes its cluster with it
    require_models(command.CONVERSATION)
    scenario = load_scenario(SCENARIO).adjusted(rate=options.rate, seconds=60 * options.minutes)
    kept = {"idempotency": {"store": "embedded"}}  # as in service: what it keeps belongs to the memory
    with (
        running(options.profile, options.log, overrides=kept, num_gpus=0) as cluster,
        MemoryWatch(cluster) as memory,
        run_status("soak") as show,
    ):
        run = run_scenario(scenario, cluster.url, seed=options.seed, language="en", progress=show)
    row = {"profile": options.profile, **verdict(run, memory.megabytes)}
    write_rows(options.json, [row])
    console = output()
    console.print(row_table(row))
    for warning in row["warnings"]:
        console.print(warning)
    if row["good_answered"] < row["good"] or row["bad_answered_wrongly"] or not row["is_flat"]:
        raise SystemExit(command.FAILED)


def _parser() -> argparse.ArgumentParser:
    parser = command.parser("soak", __doc__)
    parser.prog = "python -m benchmarks.drills.soak"
    add = parser.add_argument
    add("--profile", choices=list(CONFIGS), default="fused", help="default: %(default)s")
    add("--minutes", type=positive, default=30, metavar="N", help="default: %(default)s")
    add("--rate", type=positive, metavar="R", help="requests a second (default: the scenario's, 70 %% of 7)")
    add("--seed", type=int, default=1, metavar="N", help="of schedule and fleet (default: %(default)s)")
    command.add_log(parser, "soak")
    return parser


if __name__ == "__main__":
    main()
