"""What a client is told of a body that did not arrive, by Ray's proxy as by the gateway itself."""

from __future__ import annotations

from typing import Final

from deployments.gateway.problems import Refusal, refusal_of
from deployments.intake.bodies import BodyTooSlow, TooManyBodies
from deployments.intake.limits import BodySettings

# Milliseconds that Ray's proxy held a request back until its body was there; the proxy sets it on every request
HELD_BACK_HEADER: Final = "Amser-Held-Back-Ms"
ROOM_AFTER_S: Final = 1


def refusal_of_body(error: BodyTooSlow | TooManyBodies, settings: BodySettings) -> Refusal:
    """The problem, with what would have been in time."""
    if isinstance(error, TooManyBodies):
        return refusal_of("too-many-bodies", str(error), retry_after_s=ROOM_AFTER_S)
    within = f"{settings.pace} bytes a second after the first {settings.grace_s:g} s, and no pause longer than that"
    return refusal_of("body-too-slow", str(error), within)
