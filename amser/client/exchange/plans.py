"""What takes several requests: a batch whose items are refused for now, and a job that is waited for.

A plan is a generator: it yields a `Call`, or seconds to wait, and is given what the call brought or thrown what it
raised. So the client for threads and the one for event loops run the same plans.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any, Final, TypeAlias, TypeVar

from amser import batch
from amser.client.exchange.answer import Answer
from amser.client.exchange.connection import Call
from amser.client.exchange.failures import Refused, SendFailed
from amser.client.exchange.recordings import Job, job_call
from amser.client.exchange.retries import BACKOFF_S, LONGEST_BACKOFF_S, Patience, is_worth_a_retry
from amser.client.exchange.utterances import AnsweredBatch, AnswerOptions, Utterance, batch_call
from amser.rate_hint import RateHint

T = TypeVar("T")
Plan: TypeAlias = Generator[Call[Any] | float, Any, T]

SOONEST_POLL_S: Final = 0.1


def one(call: Call[T]) -> Plan[T]:
    """A single request."""
    result: T = yield call
    return result


def answered_utterances(
    utterances: Sequence[Utterance], options: AnswerOptions, patience: Patience
) -> Plan[tuple[list[Answer | SendFailed], RateHint | None]]:
    """As many batches as it takes; what is refused for now goes into another one.

    Returns:
        The answer or the failure of each utterance, in their order, and the last hint.
    """
    began = time.perf_counter()
    found: dict[int, Answer | SendFailed] = {}
    hint: RateHint | None = None
    waiting = list(range(len(utterances)))
    for attempt in range(1, patience.attempts + 1):
        for part in batch.split([utterances[position].envelope for position in waiting]):
            positions = [waiting[each] for each in part]
            try:
                answered: AnsweredBatch = yield batch_call([utterances[each] for each in positions], options)
            except SendFailed as error:  # tried again by the call itself
                found |= dict.fromkeys(positions, error)
                continue
            found |= dict(zip(positions, answered.items, strict=True))
            hint = answered.hint or hint
        waiting = [position for position in waiting if _is_refused_for_now(found[position])]
        asked_s = max((_asked_s(found[position]) for position in waiting), default=0.0)
        wait_s = asked_s + random.uniform(0.0, min(LONGEST_BACKOFF_S, BACKOFF_S * 2.0 ** (attempt - 1)))
        if not waiting or time.perf_counter() - began + wait_s >= patience.give_up_s or attempt == patience.attempts:
            break
        yield wait_s
    return [found[position] for position in range(len(utterances))], hint


def ended_job(job: Job, poll_s: float, show: Callable[[Job], None]) -> Plan[Job]:
    """Asks how far a job is until it has ended.

    Args:
        job: that was submitted.
        poll_s: seconds between two questions.
        show: is called with each state of the job.
    """
    show(job)
    while not job.ended:
        yield max(SOONEST_POLL_S, poll_s)
        job = yield job_call(job.id)
        show(job)
    return job


def _is_refused_for_now(outcome: Answer | SendFailed) -> bool:
    # One that the whole batch got was tried again as often as it may
    return isinstance(outcome, Refused) and outcome.is_of_an_item and is_worth_a_retry(outcome)


def _asked_s(outcome: Answer | SendFailed) -> float:
    return (outcome.retry_after_s or 0.0) if isinstance(outcome, Refused) else 0.0
