"""What every command line of the project shares: exit codes, errors in one line, and how wide a table may be."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import Final, NoReturn

OK, FAILED, USAGE, KEPT, INTERRUPTED = 0, 1, 2, 3, 130  # exit codes
WIDTH_OF_A_PIPE: Final = 100  # columns, where the output is no terminal and COLUMNS is not set


def complain(what: str, advice: str = "", code: int = FAILED, program: str = "amser") -> int:
    """Says on standard error what is wrong and what helps; returns the exit code."""
    print(f"{program}: {what}", file=sys.stderr)
    if advice:
        print(advice, file=sys.stderr)
    return code


def guarded(work: Callable[[], int], program: str = "amser") -> int:
    """Runs a command line; returns its exit code. Ctrl-C, a reader that has gone and a missing package are one line."""
    for stream in (sys.stdout, sys.stderr):  # a file's name need not be text in the terminal's encoding
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        return work()
    except KeyboardInterrupt:
        return complain("stopped", code=INTERRUPTED, program=program)
    except BrokenPipeError:  # the reader of the output, such as `head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in ("amser", program):
            raise
        extra = "microphone" if error.name == "sounddevice" else "edge"
        advice = f"Install it with: pip install 'amser[{extra}]'"
        return complain(f"the package {error.name} is not installed", advice, program=program)


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
