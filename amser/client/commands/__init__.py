"""The commands of `python -m amser` beside `send`, and what they share with it."""

from __future__ import annotations

import sys
from typing import Final

OK, FAILED, USAGE, KEPT, INTERRUPTED = 0, 1, 2, 3, 130  # exit codes
WIDTH_OF_A_PIPE: Final = 100  # columns, where the output is no terminal


def complain(what: str, advice: str = "", code: int = FAILED) -> int:
    """Says on standard error what is wrong and what helps; returns the exit code."""
    print(f"edge_sim: {what}", file=sys.stderr)
    if advice:
        print(advice, file=sys.stderr)
    return code
