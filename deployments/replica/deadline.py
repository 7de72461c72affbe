"""Until when an answer is of use. It travels down the pipeline with the request, so that no stage computes too late.

A deadline is a moment on the monotonic clock of this process. To another process goes what is left of it
(`deployments.replica.calls`): neither a clock that is set nor two that differ make an answer late.
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
    return time.monotonic() + seconds


def remaining(deadline: float) -> float:
    """Seconds until then; negative once it has passed."""
    return deadline - time.monotonic()
