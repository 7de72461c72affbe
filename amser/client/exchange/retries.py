"""Which requests are sent again, when, and for how long: the same for devices and applications."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any, Final

import httpx
from tenacity import RetryCallState, retry_if_exception, stop_after_attempt, wait_random_exponential
from tenacity.stop import stop_base

from amser.client.exchange.failures import Refused, Unreachable

# The body came too late, the cluster is full, a stage is down, or there was no answer by the deadline (docs/api.md)
WORTH_A_RETRY: Final = frozenset({408, 429, 503, 504})
TOO_SLOW: Final = "body-too-slow"  # the kind of a 408 that the same body gets again over the same link
NEVER_CONNECTED: Final = (httpx.ConnectError, httpx.ConnectTimeout)
BACKOFF_S: Final = 0.5  # the first wait is random below this, and the bound doubles with each attempt
LONGEST_BACKOFF_S: Final = 8.0
SHORTEST_TIMEOUT_S: Final = 0.05  # 0 would mean: do not wait at all
BACKOFF = wait_random_exponential(multiplier=BACKOFF_S, max=LONGEST_BACKOFF_S)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long one request is worth waiting for.

    Attributes:
        connect_timeout_s: for one connection.
        answer_timeout_s: for one answer.
        attempts: at most.
        give_up_s: no further attempt begins after this, nor one that would end after it as the last one did: with 504.
    """

    connect_timeout_s: float
    answer_timeout_s: float
    attempts: int
    give_up_s: float

    def within(self, seconds: float | None) -> Patience:
        """The same, but for the time that all attempts may take together, where it is named."""
        return self if seconds is None else replace(self, give_up_s=seconds)


class Attempts:
    """The attempts of one request, from the first on.

    Args:
        patience: how many, how long.
        repeatable: whether it does no harm where it arrives twice. One that is not is tried again only where it cannot
            have begun: no connection came about, or the cluster refused it.
    """

    def __init__(self, patience: Patience, repeatable: bool = True) -> None:
        self._patience, self._repeatable = patience, repeatable
        self._began = time.perf_counter()

    @property
    def passed_s(self) -> float:
        """Since the first attempt began."""
        return time.perf_counter() - self._began

    @property
    def left_s(self) -> float:
        """Until it is given up; negative where that has been."""
        return self._patience.give_up_s - self.passed_s

    def timeout(self) -> httpx.Timeout:
        """Of the next attempt."""
        answer_s = max(SHORTEST_TIMEOUT_S, min(self._patience.answer_timeout_s, self.left_s))
        return httpx.Timeout(answer_s, connect=min(self._patience.connect_timeout_s, answer_s))

    def policy(self) -> dict[str, Any]:
        """Arguments of tenacity's `Retrying` and `AsyncRetrying`."""
        return {
            "retry": retry_if_exception(self._worth_a_retry),
            "wait": wait_s,
            "stop": stop_after_attempt(self._patience.attempts) | _OutOfTime(self._patience.give_up_s),
            "reraise": True,
        }

    def _worth_a_retry(self, error: BaseException) -> bool:
        if isinstance(error, Refused):
            return is_worth_a_retry(error)
        return isinstance(error, Unreachable) and (self._repeatable or isinstance(error.__cause__, NEVER_CONNECTED))


def is_worth_a_retry(refused: Refused) -> bool:
    """Whether the same request may be answered later."""
    return refused.status in WORTH_A_RETRY and refused.kind != TOO_SLOW


def wait_s(state: RetryCallState) -> float:
    """Seconds until the next attempt: what the server asked for, and some more that differs between devices."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after_s if isinstance(error, Refused) else None
    return (asked or 0.0) + BACKOFF(state)


class _OutOfTime(stop_base):
    """Whether the next attempt would begin too late; or end too late, where the last ran into the cluster's deadline.

    Such an attempt would be cut off by the device itself, and its reason lost.
    """

    def __init__(self, give_up_s: float) -> None:
        self._give_up_s = give_up_s

    def __call__(self, state: RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        needed_s = error.took_s if isinstance(error, Refused) and error.status == httpx.codes.GATEWAY_TIMEOUT else 0.0
        return (state.seconds_since_start or 0.0) + state.upcoming_sleep + needed_s >= self._give_up_s
