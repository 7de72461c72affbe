"""`python -m tests.fuzz --minutes 60`: everything that takes input from strangers is tried, beside a healthy neighbour.

Exit codes: 0 nothing was found, 1 something was, 2 wrong usage or the cluster does not start, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from deployments.local_cluster import ClusterFailed
from models.weights import UnknownModel, WeightsMissing
from tests.fuzz.report import as_document, print_report, progress_table
from tests.fuzz.run import ALL, Plan, Run

FOUND, USAGE, INTERRUPTED = 1, 2, 130
EVERY_S: Final = 30.0  # between two lines where there is no terminal


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m tests.fuzz", description=(__doc__ or "").split("\n")[0])
    made.add_argument("--minutes", type=_minutes, required=True, help="of trying; the cluster's start comes on top")
    made.add_argument(
        "--targets", nargs="+", choices=ALL, default=list(ALL), metavar="NAME", help=f"some of {', '.join(ALL)}"
    )
    made.add_argument("--seed", type=int, default=None, help="of everything that is random (default: the time)")
    made.add_argument(
        "--profile", choices=("fused", "distributed"), default="fused", help="of the cluster (%(default)s)"
    )
    made.add_argument(
        "--folder", type=Path, default=Path("runs/fuzz"), help="findings of this run and earlier ones (%(default)s)"
    )
    made.add_argument("--json", type=Path, default=None, metavar="FILE", help="the report (FOLDER/report.json)")
    made.add_argument("--no-coverage", action="store_true", help="mutate blindly, also where atheris is installed")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs it; returns the exit code."""
    options = parser().parse_args(arguments)
    seed = int(time.time()) if options.seed is None else options.seed
    plan = Plan(options.minutes, options.targets, seed, options.folder, options.profile, not options.no_coverage)
    file = options.json or options.folder / "report.json"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        print(f"tests.fuzz: {error}", file=sys.stderr)
        return USAGE
    run = Run(plan)
    code = 0
    try:
        with closing(run.steps()) as steps:
            _show(run, steps)
    except KeyboardInterrupt:
        run.outcome.interrupted = True
        code = INTERRUPTED
    except (ClusterFailed, WeightsMissing, UnknownModel, RuntimeError) as error:
        print(f"tests.fuzz: {error}", file=sys.stderr)
        return USAGE
    document = as_document(plan, run.outcome)
    file.write_text(json.dumps(document, indent=1))
    print_report(Console(highlight=False), document)
    print(f"the report is {file}; inputs that failed are in {plan.folder / 'found'}")
    return code or (FOUND if document["findings"] else 0)


def _show(run: Run, steps: Iterator[None]) -> None:
    console = Console(stderr=True)
    if not console.is_terminal:
        said = 0.0
        for _ in steps:
            if time.monotonic() - said > EVERY_S:
                said = time.monotonic()
                tried = sum(tally.all_tried for tally in run.outcome.tallies.values())
                console.print(f"{run.status}: {tried:,} inputs, {run.left_s:.0f} s left")
        return
    bar = Progress(TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(), console=console)
    task = bar.add_task("", total=60 * run.plan.minutes)
    with Live(bar, console=console, transient=True, refresh_per_second=2) as live:
        for _ in steps:
            bar.update(task, completed=run.outcome.seconds, description=run.status)
            live.update(Group(bar, progress_table(run.outcome.tallies)))


def _minutes(text: str) -> float:
    minutes = float(text)
    if not 0 < minutes <= 24 * 60:
        raise argparse.ArgumentTypeError("above 0, up to a day")
    return minutes


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell's background job ignores the first
        signal.signal(number, signal.default_int_handler)
    raise SystemExit(main())
