"""`Amser-Rate-Hint`: which step the cluster asks of a device for its next utterances. Both ends read and write it here.

The header is a Dictionary of RFC 9651, such as `step=22;reason=noise`. It is advice: one that cannot be read is no
error, it is as if it were not there.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import http_sf

from amser.codecs.klt import COARSEST

HEADER: Final = "Amser-Rate-Hint"
LONGEST: Final = 256  # characters that are read


class Reason(StrEnum):
    """Why a step is asked for."""

    NOISE = "noise"  # the recogniser was in doubt: this step or a finer one
    CLEAR = "clear"  # the recogniser was certain: a step as coarse as this one is enough
    BUSY = "busy"  # the cluster is overloaded: this step or a coarser one


@dataclass(frozen=True, slots=True)
class RateHint:
    """A step of the codec `klt` that the cluster asks for.

    Attributes:
        step: index, 0 (finest) to `COARSEST`.
        reason: None where the header gives none that is known.

    Raises:
        ValueError: there is no such step.
    """

    step: int
    reason: Reason | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.step <= COARSEST:
            raise ValueError(f"klt has no step {self.step}; accepted: 0 to {COARSEST}")

    def __str__(self) -> str:
        """The value of the header."""
        parameters = {"reason": http_sf.Token(self.reason)} if self.reason else {}
        members: Any = {"step": (self.step, parameters)}
        return http_sf.ser(members)


def parse(value: str) -> RateHint | None:
    """The hint in a header's value; None where there is none that can be read.

    Members and parameters that are not known here are ignored, and so is a reason. A header that breaks the rules of
    RFC 9651 is ignored as a whole.

    Args:
        value: up to `LONGEST` characters.
    """
    if len(value) > LONGEST:
        return None
    try:
        members: Any = http_sf.parse(value.encode(), tltype="dictionary")
    except ValueError:
        return None
    step, parameters = members.get("step", (None, {}))
    if type(step) is not int or not 0 <= step <= COARSEST:  # a bool is an int too
        return None
    reason = parameters.get("reason")
    is_known = isinstance(reason, http_sf.Token) and str(reason) in list(Reason)
    return RateHint(step, Reason(str(reason)) if is_known else None)
