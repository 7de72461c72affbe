"""`capacity`: searches the highest rate that a cluster carries within an objective."""

from __future__ import annotations

import argparse
import itertools
import json
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from amser.client.commands.codec_options import spoken_language
from load_tests.capacity import (
    CONFIDENCE,
    PERCENTILE,
    PRECISION,
    Capacity,
    Decision,
    Probe,
    Slice,
    Terms,
    Trial,
    find_capacity,
)
from load_tests.commands import OK, complain, count, not_negative, positive
from load_tests.fleet.arrivals import Constant
from load_tests.fleet.connection import DEFAULT_URL, BadUrl, check_reachable
from load_tests.fleet.run import INTERRUPTED, UNUSABLE_INPUT, run_scenario
from load_tests.fleet.scenario import BadScenario, Scenario, load_scenario
from load_tests.report.environment import environment
from load_tests.report.output import check_writable
from load_tests.report.record import Run, Sample
from load_tests.report.summary import GOOD, keeps_objective, summarise

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

DESCRIPTION = """\
Searches the highest Poisson rate at which 99 of 100 requests are answered within the objective,
counted from their scheduled times: doubles until it breaks, then bisects. A rate holds when the
confidence bound says so; refusals, failures and degraded answers are violations."""

EPILOG = """\
exit codes: 0 found, 1 no rate holds or the search failed, 2 wrong usage, 130 stopped by Ctrl-C"""

LATE: Final = "later than the objective"
DEGRADED: Final = "without "
MARKS: Final = {
    Decision.HOLDS: ("o", "#0072b2"),
    Decision.BREAKS: ("X", "#d55e00"),
    Decision.UNDECIDED: ("s", "#e69f00"),
}
STYLES: Final = {Decision.HOLDS: "green", Decision.BREAKS: "red", Decision.UNDECIDED: "yellow"}


def add_to(commands: Commands) -> None:
    """Makes `capacity` known."""
    capacity = commands.add_parser(
        "capacity",
        help="search the highest rate that keeps an objective",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    capacity.set_defaults(run=_capacity, parser=capacity)
    terms = Terms()
    add = capacity.add_argument
    add("--url", default=DEFAULT_URL, help="of the cluster (default: %(default)s)")
    add(
        "--slo-p99-ms",
        type=positive,
        required=True,
        metavar="N",
        help="the objective: latency from the scheduled time",
    )
    add("--percentile", type=float, default=PERCENTILE, metavar="P", help="that keeps it (default: %(default)g)")
    add("--scenario", default="steady", metavar="NAME", help="its devices; not its arrivals (default: %(default)s)")
    add("--devices", type=count, metavar="N", help="in the fleet (default: those of the scenario)")
    add("--language", type=spoken_language, default="en", metavar="CODE", help="spoken, or auto (default: %(default)s)")
    add("--allow-degraded", action="store_true", help="an answer that left a stage out is no violation")
    add("--confidence", type=float, default=CONFIDENCE, metavar="C", help="default: %(default)g")
    add("--precision", type=float, default=PRECISION, metavar="R", help="share of the rate (default: %(default)g)")
    add("--start", type=positive, default=1.0, metavar="RATE", help="first rate, a second (default: %(default)g)")
    add("--max-rate", type=float, default=terms.max_rate, metavar="RATE", help="default: %(default)g")
    add(
        "--min-seconds",
        type=float,
        default=terms.min_seconds,
        metavar="S",
        help="of a rate that holds (default: %(default)g)",
    )
    add("--max-seconds", type=float, default=terms.max_seconds, metavar="S", help="of a rate (default: %(default)g)")
    add(
        "--slice-seconds",
        type=positive,
        default=30.0,
        metavar="S",
        help="of each run at a rate (default: %(default)g)",
    )
    add("--warm-up", type=not_negative, default=5.0, metavar="S", help="before each slice (default: %(default)g)")
    add("--seed", type=int, default=0, help="of the first slice (default: %(default)s)")
    add("--json", type=Path, metavar="FILE", help="write the result there")
    add("--plot", type=Path, metavar="FILE", help="write a plot there: .svg, .png or .pdf")


def measure(run: Run, after_s: float, allow_degraded: bool) -> Slice:
    """What a run says of its rate. Bad clients load the cluster, and are not counted.

    Args:
        run: of a constant rate.
        after_s: arrivals before that are the warm-up.
        allow_degraded: whether an answer that left a stage out is as good as a whole one.
    """
    counted = [each for each in run.samples if each.behaviour == GOOD and each.scheduled_s >= after_s]
    why = [_violation(each, run.objective_ms, allow_degraded) for each in counted]
    reasons = Counter(reason for reason in why if reason)
    return Slice([bool(reason) for reason in why], run.seconds - after_s, reasons, summarise(run).warnings)


def _violation(sample: Sample, objective_ms: float, allow_degraded: bool) -> str:
    """Why an arrival violates; empty where it does not."""
    if not sample.ok:
        return sample.outcome
    if not keeps_objective(sample, objective_ms):
        return LATE
    return DEGRADED + ", ".join(sample.degraded) if sample.degraded and not allow_degraded else ""


def plot(found: Capacity, file: Path) -> None:
    """Share of violations with its bounds against the rate, in the format that the file's name ends with.

    Raises:
        OSError, ValueError: it cannot be written; there is no such format.
    """
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for decision, (marker, colour) in MARKS.items():
        trials = [each for each in found.trials if each.decision is decision and each.arrivals]
        share = [100 * each.share for each in trials]
        bars = (
            [100 * (each.share - each.lower) for each in trials],
            [100 * (each.upper - each.share) for each in trials],
        )
        rates = [each.rate for each in trials]
        if trials:
            axes.errorbar(
                rates, share, bars, fmt=marker, color=colour, capsize=3, ms=6, clip_on=False, label=decision.value
            )
    allowed = 100 * found.terms.allowed
    axes.axhline(allowed, color="black", lw=1, ls="--", label=f"{allowed:.3g} % allowed")
    if found.rate and found.above is not None:
        axes.axvspan(found.rate, found.above, color="black", alpha=0.08, lw=0, label="the capacity is here")
    axes.set_xscale("log")
    axes.set_yscale("symlog", linthresh=allowed)
    axes.set(xlabel="arrivals a second", ylabel="violations, %", ylim=(0, 120))
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.grid(alpha=0.2)
    axes.legend(frameon=False, fontsize="small")
    figure.savefig(file, dpi=160)


def as_json(found: Capacity, url: str, objective_ms: float) -> str:
    """One JSON object: the rate, what did not hold above it, the terms, every trial, and what it was measured on."""
    trials = [{**asdict(each), "share": each.share if each.arrivals else None} for each in found.trials]
    whole = {"url": url, "objective_ms": objective_ms, **asdict(found), "trials": trials, "undecided": found.undecided}
    return json.dumps({**whole, "warnings": found.warnings, **environment()}, ensure_ascii=False, indent=2)


def sentence(found: Capacity, objective_ms: float) -> str:
    """The result, and what is known above it."""
    terms = found.terms
    holds = f"{found.rate:.4g} a second with {terms.percentile:g} % within {objective_ms:g} ms"
    if found.above is None:
        return f"carries {holds}, the highest rate that --max-rate allows: the capacity may be higher"
    end = "is not shown to hold: --max-seconds ended it undecided" if found.undecided else "breaks"
    return f"carries {holds} ({terms.confidence:.0%} confidence); {found.above:.4g} {end}"


def nothing_holds(found: Capacity) -> tuple[str, str]:
    """What is wrong, and what helps, where no rate holds."""
    lowest = min(found.trials, key=lambda trial: trial.rate)
    why = "; ".join(f"{reason} ({times:,})" for reason, times in list(lowest.reasons.items())[:3])
    of_them = f"Of {lowest.arrivals:,} arrivals: {why or 'no violation'}"
    what = f"the cluster carries nothing: not even {lowest.rate:.4g} a second holds. {of_them}"
    if lowest.decision is Decision.UNDECIDED:
        return what, "Nothing was decided in time: raise --max-seconds, which also lets a lower rate be tried."
    return what, "Is it ready? Its /readyz says so. Or raise --slo-p99-ms, or --max-seconds to try a lower rate."


def _capacity(options: argparse.Namespace) -> int:
    try:
        terms = Terms(
            options.percentile,
            options.confidence,
            options.precision,
            options.min_seconds,
            options.max_seconds,
            options.max_rate,
        )
        scenario = load_scenario(options.scenario).model_copy(update={"objective_ms": options.slo_p99_ms})
        check_reachable(options.url)
    except (BadScenario, BadUrl, ValueError) as error:
        options.parser.error(str(error))
    except OSError as error:
        return complain(str(error))
    if (suffix := options.plot and options.plot.suffix[1:]) and suffix not in Figure().canvas.get_supported_filetypes():
        options.parser.error(f"--plot {options.plot}: .svg, .png or .pdf")
    try:
        for file in filter(None, (options.json, options.plot)):
            check_writable(file)
    except OSError as error:
        return complain(f"the result cannot be written: {error}")
    console = Console(highlight=False)
    rows = _table()
    with Live(rows, console=console) as live:

        def report(trial: Trial) -> None:
            rows.add_row(*_cells(trial))
            rows.caption = None
            live.refresh()

        def tell(words: str) -> None:
            rows.caption = words
            live.refresh()

        try:
            found = find_capacity(_probe(scenario, options, tell), terms, options.start, report)
        except (BadScenario, BadUrl) as error:
            options.parser.error(str(error))
        except UNUSABLE_INPUT as error:
            return complain(str(error))
    for warning in found.warnings:
        console.print(Text(f"not to be trusted at {warning}", style="yellow"))
    try:
        if options.json:
            options.json.write_text(as_json(found, options.url, options.slo_p99_ms) + "\n", encoding="utf-8")
        if options.plot:
            plot(found, options.plot)
    except (OSError, ValueError) as error:
        return complain(f"the result cannot be written: {error}")
    if not found.rate:
        return complain(*nothing_holds(found))
    console.print(Text(sentence(found, options.slo_p99_ms), style="bold"))
    return OK


def _probe(scenario: Scenario, options: argparse.Namespace, tell: Callable[[str], None]) -> Probe:
    """Slices of a rate: each is a run with a seed of its own, and begins with a warm-up as its queue begins empty."""
    seeds = itertools.count(options.seed)

    def probe(rate: float) -> Generator[Slice, None, None]:
        arrivals, violations = 0, 0
        lasting = Constant(options.warm_up + options.slice_seconds, rate)
        at_rate = scenario.model_copy(update={"arrivals": lasting})
        while True:
            tell(f"{rate:.4g}/s: {arrivals:,} arrivals, {violations:,} violations so far")
            run = run_scenario(
                at_rate, options.url, devices=options.devices, seed=next(seeds), language=options.language
            )
            if run.about[INTERRUPTED]:
                raise KeyboardInterrupt  # what is left of the slice says nothing of its rate
            part = measure(run, options.warm_up, options.allow_degraded)
            arrivals, violations = arrivals + len(part.violating), violations + sum(part.violating)
            yield part

    return probe


def _table() -> Table:
    rows = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("a second", "arrivals", "violations", "share", "bounds"):
        rows.add_column(name, justify="right", no_wrap=True)
    rows.add_column("", no_wrap=True)
    rows.add_column("mostly")
    return rows


def _cells(trial: Trial) -> tuple[str | Text, ...]:
    return (
        f"{trial.rate:.4g}",
        f"{trial.arrivals:,}",
        f"{trial.violations:,}",
        f"{trial.share:.2%}",
        f"{trial.lower:.2%}–{trial.upper:.2%}",
        Text(trial.decision.value, style=STYLES[trial.decision]),
        Text(next(iter(trial.reasons), "")),
    )
