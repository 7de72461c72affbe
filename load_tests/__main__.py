"""`python -m load_tests`: a fleet of simulated devices against a cluster."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from load_tests.commands import INTERRUPTED, capacity, plan, report, run


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m load_tests", description="A fleet of simulated devices.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (run, capacity, plan, report):
        command.add_to(commands)
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options))
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
