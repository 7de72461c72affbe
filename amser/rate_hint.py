"""`Amser-Rate-Hint`: what the cluster would like of a device's next utterances. Both ends read and write it here.

The header is a Dictionary of RFC 9651, such as `step=22;reason=noise`. It is advice: one that cannot be read is no
error, it is as if it were not there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from amser.codecs.klt import COARSEST

HEADER: Final = "Amser-Rate-Hint"
LONGEST: Final = 256  # characters that are read

_KEY: Final = r"(?P<key>[a-z*][a-z0-9_.*-]*)"
# Of RFC 9651's bare items those that need no grammar of their own. A header with any other is not read.
_ITEM: Final = r"""
    (?P<item> -?[0-9]{1,12}\.[0-9]{1,3} | -?[0-9]{1,15}     # decimal, integer
    | [A-Za-z*][A-Za-z0-9!\#$%&'*+.^_`|~:/-]*               # token
    | "(?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\])*"          # string
    | \?[01] )                                              # boolean
"""
_MEMBER: Final = re.compile(rf"{_KEY}(?:={_ITEM})?", re.VERBOSE)
_PARAMETER: Final = re.compile(rf";[\ ]*{_KEY}(?:={_ITEM})?", re.VERBOSE)
_COMMA: Final = re.compile(r"[ \t]*,[ \t]*")
_INTEGER: Final = re.compile(r"-?[0-9]{1,15}")


class Reason(StrEnum):
    """Why a step is asked for."""

    NOISE = "noise"  # the words were hard to hear: this step or a finer one
    CLEAR = "clear"  # the words were heard well: a step as coarse as this one is enough
    BUSY = "busy"  # the cluster has much to do: this step or a coarser one


@dataclass(frozen=True, slots=True)
class RateHint:
    """A step of the codec `klt` that the cluster would like.

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
        return f"step={self.step}" + (f";reason={self.reason}" if self.reason else "")


def parse(value: str) -> RateHint | None:
    """The hint in a header's value; None where there is none that can be read.

    Members and parameters that are not known here are ignored, and so is a reason. All the rest must be as RFC 9651
    says: of a header that breaks its rules nothing is believed.

    Args:
        value: up to `LONGEST` characters.
    """
    members = _dictionary(value) if len(value) <= LONGEST else None
    if members is None or "step" not in members:
        return None
    step, parameters = members["step"]
    if step is None or not _INTEGER.fullmatch(step) or not 0 <= int(step) <= COARSEST:
        return None
    reason = parameters.get("reason")
    return RateHint(int(step), next((known for known in Reason if known == reason), None))


def _dictionary(value: str) -> dict[str, tuple[str | None, dict[str, str | None]]] | None:
    """Key → bare item as it is written (None: true) and parameters; None where the value is no such dictionary."""
    members: dict[str, tuple[str | None, dict[str, str | None]]] = {}
    text = value.strip(" ")
    at = 0
    while True:
        member = _MEMBER.match(text, at)
        if member is None:
            return None
        at = member.end()
        parameters: dict[str, str | None] = {}
        while parameter := _PARAMETER.match(text, at):
            parameters[parameter["key"]] = parameter["item"]
            at = parameter.end()
        members[member["key"]] = (member["item"], parameters)  # of a key that comes twice the last one counts
        if at == len(text):
            return members
        comma = _COMMA.match(text, at)
        if comma is None:
            return None
        at = comma.end()
