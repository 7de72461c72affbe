"""A scenario of the load tests as a step of a benchmark: with progress, and ended for good by Ctrl-C."""

from __future__ import annotations

from typing import Any

from benchmarks.measuring.console import status
from load_tests.fleet.run import INTERRUPTED, run_scenario
from load_tests.fleet.scenario import Scenario
from load_tests.report.record import Run


def run_load(label: str, scenario: Scenario | str, url: str, **options: Any) -> Run:
    """`run_scenario` with a line on standard error that says how far it is.

    Args:
        label: of that line.
        scenario, url, options: as `run_scenario` takes them.

    Raises:
        KeyboardInterrupt: Ctrl-C ended the run; what was measured until then says nothing.
    """
    with status(label) as shown:
        run = run_scenario(scenario, url, progress=lambda at: shown.update(f"{label}: {at}"), **options)
    if run.about[INTERRUPTED]:
        raise KeyboardInterrupt
    return run
