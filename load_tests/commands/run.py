"""`run`: a scenario against a cluster, with progress, a table of what came of it, and a report."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from amser.errors import SignalError
from edge_sim.constants import BadConstants, UnknownName
from load_tests.commands import FAILED, INTERRUPTED, OK, WIDTH_OF_A_PIPE, complain
from load_tests.fleet.connection import BadUrl
from load_tests.fleet.open_loop import MOST_IN_FLIGHT, is_failure
from load_tests.fleet.payloads import NobodySpeaks
from load_tests.fleet.run import INTERRUPTED as WAS_INTERRUPTED
from load_tests.fleet.run import Progress, run_scenario
from load_tests.fleet.scenario import BadScenario, load_scenario, scenario_names
from load_tests.report.page import write_report
from load_tests.report.record import Run, write_run
from load_tests.report.summary import OBJECTIVE_PERCENTILE, Percentiles, Summary, summarise

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

OBJECTIVE_MISSED: Final = 3  # exit code
DEFAULT_URL: Final = "http://127.0.0.1:8000"
USABLE: Final = (SignalError, NobodySpeaks, OSError, BadConstants, UnknownName)  # what audio or devices may be not

DESCRIPTION = """\
Runs a scenario against a cluster. Requests leave when the schedule says so, whatever the answers
do, and latency counts from the scheduled time. With --closed devices wait for their answers."""

EPILOG = """\
exit codes: 0 answered as it should be (a refusal of a full cluster is an answer), 1 something
failed, 2 wrong usage, 3 the objective was missed, 130 stopped by Ctrl-C"""


def add_to(commands: Commands) -> None:
    """Makes `run` known."""
    run = commands.add_parser(
        "run",
        help="run a scenario against a cluster",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.set_defaults(run=_run, parser=run)
    add = run.add_argument
    add("scenario", help=f"{', '.join(scenario_names())}, or the path of a YAML file")
    add("--url", default=DEFAULT_URL, help="of the cluster (default: %(default)s)")
    add("--report", type=Path, metavar="DIR", help="write the record and the report there")
    add("--rate", type=_positive, metavar="R", help="requests a second, base or mean; all of the shape grows alike")
    add("--seconds", type=_positive, metavar="N", help="of the schedule, whose shape is stretched or squeezed")
    add("--devices", type=_count, metavar="N", help="in the fleet")
    add("--seed", type=int, default=0, metavar="N", help="of schedule and fleet (default: %(default)s)")
    add("--dashboard", metavar="URL", help="Ray's dashboard, for the running replicas, such as http://127.0.0.1:8265")
    add("--closed", type=_count, metavar="N", help="so many devices that wait for their answers; no schedule")
    add("--audio", type=Path, nargs="+", default=(), metavar="FILE", help="what is said (default: the sample)")
    add("--language", default="en", metavar="CODE", help="that is spoken; empty: detected (default: %(default)s)")
    add("--most-in-flight", type=_count, default=MOST_IN_FLIGHT, metavar="N", help="default: %(default)s")
    add("--json", action="store_true", help="one JSON object with the summary, instead of the table")


def _run(options: argparse.Namespace) -> int:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDTH_OF_A_PIPE
    status = Console(stderr=True).status("listening to what the devices say")

    def show(progress: Progress) -> None:
        status.update(line(progress))

    try:
        scenario = load_scenario(options.scenario)
        with status:
            run = run_scenario(
                scenario,
                options.url,
                rate=options.rate,
                seconds=options.seconds,
                devices=options.devices,
                seed=options.seed,
                dashboard=options.dashboard,
                closed=options.closed,
                audio=options.audio,
                language=options.language or None,
                most_in_flight=options.most_in_flight,
                progress=show,
            )
    except (BadScenario, BadUrl) as error:
        options.parser.error(str(error))
    except USABLE as error:
        return complain(str(error))
    summary = summarise(run)
    if options.json:
        print(as_json(run, summary))
    else:
        console.print(table(run, summary))
        for warning in summary.warnings:
            console.print(f"[yellow]{escape(warning)}[/]")
    if options.report and (code := _report(run, options.report, console)):
        return code
    return exit_code(run, summary)


def _report(run: Run, folder: Path, console: Console) -> int:
    try:
        write_run(run, folder)
        page = write_report(run, folder)
    except OSError as error:
        return complain(f"the report cannot be written: {error}")
    console.file.flush()
    Console(stderr=True, highlight=False).print(f"report: {escape(str(page))}", soft_wrap=True)
    return OK


def exit_code(run: Run, summary: Summary) -> int:
    """What the run says to a script."""
    if run.about.get(WAS_INTERRUPTED):
        return INTERRUPTED
    if any(map(is_failure, run.samples)):
        return FAILED
    return OBJECTIVE_MISSED if summary.latency.p99 > run.objective_ms else OK


def line(progress: Progress) -> str:
    """Where a run is, in one line."""
    return (
        f"{progress.elapsed_s:.0f} of {progress.seconds:.0f} s · {progress.sent:,} sent · "
        f"{progress.answered:,} answered · {progress.failed:,} failed · {progress.in_flight:,} in flight · "
        f"generator {progress.generator_cpu:.2f} cores"
    )


def table(run: Run, summary: Summary) -> Table:
    """A run in a table of two columns."""
    rows = Table(box=box.SIMPLE_HEAD, show_header=False, title=escape(f"{run.scenario}, {run.url}"), pad_edge=False)
    rows.add_column(style="dim", no_wrap=True)
    rows.add_column()
    for name, value in _rows(run, summary):
        rows.add_row(name, escape(value))
    return rows


def _rows(run: Run, summary: Summary) -> Iterator[tuple[str, str]]:
    yield "arrivals", f"{summary.arrivals:,} in {run.seconds:g} s from {run.devices:,} devices, seed {run.seed}"
    yield "answered", f"{summary.ok:,}, {summary.throughput:.2f} a second"
    kept = f"{summary.within:,} within {run.objective_ms:g} ms"
    yield "goodput", f"{summary.goodput:.2f} a second of {summary.offered:.2f} offered; {kept}"
    yield "from scheduled", _percentiles(summary.latency)
    yield "from sent", _percentiles(summary.service)
    yield "refused", _counts(summary.refusals)
    yield "failed", _counts(summary.failures)
    yield "dropped", f"{summary.drops:,}"
    yield "late starts", f"{summary.late_starts:,}"
    yield "degraded", _counts(summary.degraded)
    if summary.misbehaved:
        bad = {f"{behaviour}: {outcome}": count for (behaviour, outcome), count in summary.misbehaved.items()}
        yield "bad clients", _counts(bad)
    for (hardware, radio), cost in summary.costs.items():
        speech = f"{cost.bytes_up / max(cost.requests, 1):,.0f} B up, {cost.joules / max(cost.requests, 1):.3f} J each"
        yield f"{hardware}, {radio}", f"{cost.requests:,} requests, {speech}"
    yield "generator", f"{summary.generator_mean:.2f} cores, at most {summary.generator_max:.2f}"


def _percentiles(of: Percentiles) -> str:
    parts = (("p50", of.p50), ("p95", of.p95), ("p99", of.p99), ("p99.9", of.p999))
    return " · ".join(f"{name} {value:,.0f} ms" for name, value in parts) if not math.isnan(of.p50) else "no answer"


def _counts(of: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in of.items()) or "none"


def as_json(run: Run, summary: Summary) -> str:
    """The summary as one JSON object; what was not measured is null."""
    document: dict[str, Any] = {
        "scenario": run.scenario,
        "url": run.url,
        "seed": run.seed,
        "devices": run.devices,
        "seconds": run.seconds,
        "objective_ms": run.objective_ms,
        "objective_percentile": OBJECTIVE_PERCENTILE,
        "about": run.about,
        **asdict(summary),
    }
    document["misbehaved"] = {" ".join(key): count for key, count in summary.misbehaved.items()}
    document["costs"] = {" ".join(key): asdict(cost) for key, cost in summary.costs.items()}
    return json.dumps(_finite(document), ensure_ascii=False)


def _finite(value: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value
