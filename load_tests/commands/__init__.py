"""The commands of `python -m load_tests`, and what they share."""

from __future__ import annotations

import argparse
import math
import sys

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130  # exit codes


def complain(what: str, advice: str = "", code: int = FAILED) -> int:
    """Says on standard error what is wrong and what helps; returns the exit code."""
    print(f"load_tests: {what}", file=sys.stderr)
    if advice:
        print(advice, file=sys.stderr)
    return code


def positive(text: str) -> float:
    """An option above 0. Raises argparse.ArgumentTypeError."""
    value = _number(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def not_negative(text: str) -> float:
    """An option from 0 on. Raises argparse.ArgumentTypeError."""
    value = _number(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not 0 or more")
    return value


def count(text: str) -> int:
    """A whole number from 1 on. Raises argparse.ArgumentTypeError."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is not a number") from None
