"""What a run found: a table for people, JSON, and the figures of docs/security.md.

    python -m tests.fuzz.report runs/fuzz/report.json

writes the figures of a report, or of several, into docs/security.md.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table

from tests.fuzz import ROOT
from tests.fuzz.findings import VERDICTS, of_run
from tests.fuzz.lane import Tally
from tests.fuzz.run import Outcome, Plan
from tests.fuzz.targets.registry import IN_PROCESS

PAGE: Final = ROOT / "docs" / "security.md"
BEGIN: Final = "<!-- figures of `python -m tests.fuzz.report`: begin -->"
END: Final = "<!-- figures: end -->"


def as_document(plan: Plan, outcome: Outcome) -> dict[str, Any]:
    """A run as JSON."""
    findings = list(of_run(plan.folder, outcome.run))
    found = Counter((each.target, each.verdict) for each in findings)
    record = outcome.record
    return {
        "run": outcome.run,
        "date": datetime.now(UTC).date().isoformat(),
        "minutes": round(outcome.seconds / 60, 1),
        "interrupted": outcome.interrupted,
        "profile": plan.profile if record else None,
        "seed": plan.seed,
        "processors": len(os.sched_getaffinity(0)),
        "load_average": os.getloadavg()[0],
        "targets": {
            name: {
                "where": "in process" if name in IN_PROCESS else "HTTP",
                "inputs": tally.all_tried,
                "accepted": tally.accepted,
                "seconds": round(tally.seconds, 1),
                "memory_mb": tally.memory >> 20 if name in IN_PROCESS else None,
                **{verdict: found[name, verdict] for verdict in VERDICTS},
            }
            for name, tally in outcome.tallies.items()
        },
        "neighbour": None
        if record is None
        else {
            "utterances": len(record.waits_s),
            "normal_s": round(record.normal_s, 3),
            "p99_s": round(record.p99_s, 3),
            "longest_stall_s": round(record.longest_stall_s, 3),
            "longest_healthz_s": round(record.longest_ping_s, 3),
            "wrong": record.wrong,
            "degraded": record.degraded,
            "refused": record.refused,
            "machine_lag_s": round(record.lag_s, 3),
        },
        "memory": {
            kind: {
                "most_mb": round(series.most),
                "growth": None if series.growth is None else round(series.growth, 4),
                "replaced": series.replaced,
                "processes": len(series.pids),
            }
            for kind, series in sorted(outcome.memory.items())
        },
        "findings": [
            {"name": each.name, "target": each.target, "verdict": each.verdict, "cause": each.cause,
             "detail": each.detail[-600:], "times": each.times, "bytes": each.size}
            for each in findings
        ],
    }  # fmt: skip


def print_report(console: Console, document: Mapping[str, Any]) -> None:
    """For people."""
    console.print(targets_table(document))
    neighbour = document["neighbour"]
    if neighbour:
        console.print(
            f"neighbour: {neighbour['utterances']} utterances, longest stall {neighbour['longest_stall_s']} s beyond"
            f" {neighbour['normal_s']} s, longest /healthz {neighbour['longest_healthz_s']} s,"
            f" {neighbour['wrong']} wrong, {neighbour['degraded']} with less, refused {neighbour['refused']} times"
        )
    for kind, series in document["memory"].items():
        growth = "" if series["growth"] is None else f", {series['growth']:+.1%} in the last half"
        console.print(f"{kind}: at most {series['most_mb']} MB{growth}, {series['replaced']} replaced")
    for found in document["findings"]:
        console.print(
            f"{found['verdict']:8} {found['target']}: {found['cause']} ({found['times']} times)", markup=False
        )


def targets_table(document: Mapping[str, Any]) -> Table:
    """Inputs and findings by target."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in ("target", "where", "inputs", "accepted", *VERDICTS):
        table.add_column(name, justify="left" if name in ("target", "where") else "right")
    for name, row in document["targets"].items():
        numbers = (f"{row[key]:,}" for key in ("inputs", "accepted", *VERDICTS))
        table.add_row(name, row["where"], *numbers)
    return table


def progress_table(tallies: Mapping[str, Tally]) -> Table:
    """Inputs so far, for the screen."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("target")
    table.add_column("inputs", justify="right")
    for name, tally in tallies.items():
        table.add_row(name, f"{tally.all_tried:,}", style="bold" if tally.now.tried else "")
    return table


def figures(document: Mapping[str, Any]) -> str:
    """The figures of docs/security.md, in Markdown."""
    rows = [
        "| target | where | inputs | accepted | crashes | stalls | wrong | refusals without a problem |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    kinds = ("inputs", "accepted", "crash", "stall", "wrong", "refusal")
    for name, row in document["targets"].items():
        rows.append(f"| `{name}` | {row['where']} | " + " | ".join(f"{row[kind]:,}" for kind in kinds) + " |")
    total = {kind: sum(row[kind] for row in document["targets"].values()) for kind in kinds}
    rows.append("| all | | " + " | ".join(f"{total[kind]:,}" for kind in kinds) + " |")
    of = f"profile `{document['profile']}`" if document["profile"] else "in process alone"
    ended = ", ended early" if document["interrupted"] else ""
    lines = [
        f"Measured {document['date']}: {document['minutes']:g} minutes{ended}, {of},"
        f" seed {document['seed']}, {document['processors']} processors, load average {document['load_average']:.1f}"
        " at the end. Crashes, stalls and so on count causes, not inputs.",
        "",
        *rows,
    ]
    if neighbour := document["neighbour"]:
        of_cluster = Counter(found["verdict"] for found in document["findings"] if found["target"] in OF_THE_CLUSTER)
        lines += [
            "",
            "| neighbour and cluster | |",
            "|---|---:|",
            f"| utterances of the neighbour | {neighbour['utterances']:,} |",
            f"| its slowest answer while it was alone | {neighbour['normal_s']:.2f} s |",
            f"| p99 of its waits | {neighbour['p99_s']:.2f} s |",
            f"| its longest stall, beyond that slowest answer | {neighbour['longest_stall_s']:.2f} s |",
            f"| longest `/healthz` | {neighbour['longest_healthz_s']:.2f} s |",
            f"| wrong answers to it | {neighbour['wrong']} |",
            f"| answers with less than the whole, refusals for want of room | {neighbour['degraded']},"
            f" {neighbour['refused']} |",
            f"| longest time for which the tool itself got no processor | {neighbour['machine_lag_s']:.2f} s |",
            f"| causes of crashes, stalls, growth found beside the targets | {of_cluster['crash']},"
            f" {of_cluster['stall']}, {of_cluster['memory']} |",
        ]
        for kind, series in document["memory"].items():
            growth = "too short to say" if series["growth"] is None else f"{series['growth']:+.1%} over the last half"
            lines.append(
                f"| memory of `{kind}`: most, trend, processes replaced | {series['most_mb']:,} MB, {growth},"
                f" {series['replaced']} |"
            )
    return "\n".join(lines)


OF_THE_CLUSTER: Final = frozenset({"neighbour", "cluster", "log"})


def write_figures(documents: Sequence[Mapping[str, Any]], page: Path = PAGE) -> None:
    """Puts the figures of reports into the page, in place of those that are there."""
    between = "\n\n".join(figures(document) for document in documents)
    text = page.read_text(encoding="utf-8")
    pattern = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    page.write_text(pattern.sub(lambda _: f"{BEGIN}\n\n{between}\n\n{END}", text), encoding="utf-8")


def main() -> None:
    """Writes the figures of the reports that the command line names."""
    reports = [Path(name) for name in sys.argv[1:]]
    if not reports or not all(report.is_file() for report in reports):
        print("usage: python -m tests.fuzz.report REPORT.json ...", file=sys.stderr)
        raise SystemExit(2)
    write_figures([json.loads(report.read_text()) for report in reports])


if __name__ == "__main__":
    main()
