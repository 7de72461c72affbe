"""What a log may say of an error: its type and where it was raised, not its text, which may hold what somebody said."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Final

from ray.exceptions import RayTaskError

FRAMES: Final = 6  # the innermost


class ModelFailed(RuntimeError):  # noqa: N818 - an error by its base class
    """A model raised something. Ray writes what leaves a replica to its log, so the text says only what and where."""


def told(error: BaseException) -> str:
    """An error in one line, for a log."""
    if isinstance(error, RayTaskError):  # raised in another process; what it raised is inside
        return told(error.cause)
    if isinstance(error, ModelFailed):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)[-FRAMES:]
    where = " < ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in reversed(frames))
    return type(error).__qualname__ + (f" at {where}" if where else "")
