"""Request preferences: until when a client waits for its answer, and whether a partial answer will do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from deployments.gateway.problems import Refusal
from deployments.replica.deadline import after

DEADLINE_HEADER: Final = "Amser-Deadline-Ms"
PREFER_HEADER: Final = "Prefer"  # RFC 7240
STRICT: Final = "handling=strict"


@dataclass(frozen=True, slots=True)
class Preferences:
    """Attributes:
    within_s: seconds that the answer may take.
    deadline: the same as a moment (`deployments.replica.deadline`).
    strict: whether an answer that leaves something out is refused.
    """

    within_s: float
    deadline: float
    strict: bool


def read_preferences(headers: Mapping[str, str], longest_s: float) -> Preferences:
    """The preferences in a request's headers; the names of `headers` are in lower case, or found in any.

    Args:
        headers: of the request, which has just arrived.
        longest_s: that any answer may take.

    Raises:
        Refusal: the deadline is no whole number of milliseconds above 0.
    """
    asked = headers.get(DEADLINE_HEADER.lower())
    within_s = longest_s
    if asked is not None:
        milliseconds = int(asked) if asked.isascii() and asked.isdecimal() and len(asked) <= 12 else 0
        if milliseconds <= 0:
            raise Refusal(
                HTTPStatus.BAD_REQUEST, f"{DEADLINE_HEADER} is {asked!r:.40}", "a whole number of milliseconds above 0"
            )
        within_s = min(longest_s, milliseconds / 1000)
    preferences = headers.get(PREFER_HEADER.lower(), "").lower().replace(" ", "").split(",")
    return Preferences(within_s, after(within_s), STRICT in preferences)
