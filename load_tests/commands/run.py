"""`run`: a scenario against a cluster, with progress, a table of what came of it, and a report."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.markup import escape

from amser.client.commands.codec_options import spoken_language
from load_tests.commands import FAILED, INTERRUPTED, OK, complain, count, positive
from load_tests.fleet.connection import DEFAULT_URL, BadUrl, check_reachable
from load_tests.fleet.generator import MOST_IN_FLIGHT, is_failure
from load_tests.fleet.run import INTERRUPTED as WAS_INTERRUPTED
from load_tests.fleet.run import UNUSABLE_INPUT, Progress, run_scenario
from load_tests.fleet.scenario import BadScenario, load_scenario, scenario_names
from load_tests.report.output import check_writable
from load_tests.report.page import write_report
from load_tests.report.record import RUN_FILE, Run, write_run
from load_tests.report.summary import OBJECTIVE_PERCENTILE, Summary, summarise
from load_tests.report.table import table

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

OBJECTIVE_MISSED: Final = 3  # exit code

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
    add("--rate", type=positive, metavar="R", help="requests a second, base or mean; all of the shape grows alike")
    add("--seconds", type=positive, metavar="N", help="of the schedule, whose shape is stretched or squeezed")
    add("--devices", type=count, metavar="N", help="in the fleet")
    add("--seed", type=int, default=0, metavar="N", help="of schedule and fleet (default: %(default)s)")
    add("--dashboard", metavar="URL", help="Ray's dashboard, for the running replicas, such as http://127.0.0.1:8265")
    add("--closed", type=count, metavar="N", help="so many devices that wait for their answers; no schedule")
    add("--audio", type=Path, nargs="+", default=(), metavar="FILE", help="speech that is sent (default: the sample)")
    add("--language", type=spoken_language, default="en", metavar="CODE", help="spoken, or auto (default: %(default)s)")
    add("--most-in-flight", type=count, default=MOST_IN_FLIGHT, metavar="N", help="default: %(default)s")
    add("--json", action="store_true", help="one JSON object with the summary, instead of the table")


def _run(options: argparse.Namespace) -> int:
    console = Console(highlight=False)
    status = Console(stderr=True).status("encoding what the devices send")

    def show(progress: Progress) -> None:
        status.update(str(progress))

    try:
        scenario = load_scenario(options.scenario)
        check_reachable(options.url)
        if options.report:
            check_writable(options.report / RUN_FILE)
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
                language=options.language,
                most_in_flight=options.most_in_flight,
                progress=show,
            )
    except (BadScenario, BadUrl) as error:
        options.parser.error(str(error))
    except UNUSABLE_INPUT as error:
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
