"""Until when an answer is of use. It travels down the pipeline with the request, so that no stage computes too late.

A deadline is a moment on the wall clock, since stages may run on several nodes: keep their clocks together (NTP).
"""

from __future__ import annotations

import time
from math import inf
from typing import Final

NEVER: Final = inf


class DeadlinePassed(TimeoutError):  # noqa: N818 - an error by its base class
    """The deadline passed before the stage started; nothing was computed."""


def after(seconds: float) -> float:
    """The deadline so many seconds from now."""
    return time.time() + seconds


def remaining(deadline: float) -> float:
    """Seconds until then; negative once it has passed."""
    return deadline - time.time()
