"""What every command line of the project shares: exit codes, errors in one line, and how wide a table may be."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Final, NoReturn

OK, FAILED, USAGE, KEPT, INTERRUPTED = 0, 1, 2, 3, 130  # exit codes
WIDTH_OF_A_PIPE: Final = 100  # columns, where the output is no terminal and COLUMNS is not set


def complain(what: str, advice: str = "", code: int = FAILED, program: str = "amser") -> int:
    """Says on standard error what is wrong and what helps; returns the exit code."""
    print(f"{program}: {what}", file=sys.stderr)
    if advice:
        print(advice, file=sys.stderr)
    return code


def columns() -> int | None:
    """Columns of a table; None where the terminal itself says how many it has."""
    return None if sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdecimal() else WIDTH_OF_A_PIPE


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line and names the help, instead of printing all of the usage.

    `prog` is `python -m PROGRAM`, with a command behind it or not.
    """

    def error(self, message: str) -> NoReturn:
        """Ends the program with exit code 2."""
        complain(message, f"See: {self.prog} --help", program=self.prog.split()[2])
        self.exit(USAGE)
