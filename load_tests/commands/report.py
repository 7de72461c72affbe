"""`report`: writes the report of a run again, from its record."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from load_tests.commands import OK, complain
from load_tests.report.page import write_report
from load_tests.report.record import RUN_FILE, read_run

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

DESCRIPTION = f"""\
Reads {RUN_FILE} of a run and writes report.html, requests.csv and latency.csv beside it."""


def add_to(commands: Commands) -> None:
    """Makes `report` known."""
    report = commands.add_parser("report", help="write the report of a run again", description=DESCRIPTION)
    report.set_defaults(run=_report, parser=report)
    report.add_argument("folder", type=Path, metavar="DIR", help=f"that holds {RUN_FILE}, or that file")
    report.add_argument("--output", type=Path, metavar="DIR", help="where it goes (default: beside the record)")


def _report(options: argparse.Namespace) -> int:
    beside = options.folder if options.folder.is_dir() else options.folder.parent
    try:
        run = read_run(options.folder)
    except FileNotFoundError:
        return complain(f"{options.folder} holds no run", "Make one with: python -m load_tests run")
    except (OSError, ValueError) as error:
        return complain(f"{options.folder} cannot be read: {error}")
    try:
        print(write_report(run, options.output or beside))
    except OSError as error:
        return complain(f"the report cannot be written: {error}")
    return OK
