"""From the spool to the cluster: in batches while there is a link, with growing pauses while there is none.

A request that breaks or times out may have been worked on. It is sent again all the same: the utterance keeps its id,
and a spool holds one result an id. What the cluster refuses for its language is sent again without: no recording is
given up for a hint.

Whole answers are asked for: a cluster that has no time for one, or lacks a stage, refuses, and the utterance stays in
the spool. A cluster that does not know how to refuse answers with less all the same; a few times that is no result.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Final

import httpx

from amser.client.device import Device, DeviceSettings
from amser.client.exchange.answer import Answer
from amser.client.exchange.failures import Refused, SendFailed
from amser.client.exchange.retries import BACKOFF_S, WORTH_A_RETRY
from amser.client.exchange.utterances import LANGUAGE, Utterance
from amser.client.spool import LONGEST_WAIT_S, Spool
from amser.client.spool_view import Result, Waiting
from amser.wire import WireError, pack, unpack

LONGEST_LINK_PAUSE_S: Final = 60.0  # a link that is back is noticed within a minute
LONGEST_OWN_PAUSE_S: Final = 900.0  # of an utterance whose requests keep failing: it gets out of the others' way
HIGHEST_EXPONENT: Final = 32  # beyond it a bound is above the longest pause, and at some point above any float
IDLE_S: Final = 1.0  # how often a watch looks into an empty spool
YIELD_S: Final = 0.1  # how long a watch lets go of the spool between batches: others ask for it every 0.05 s

NEVER_CONNECTED: Final = (httpx.ConnectError, httpx.ConnectTimeout)
CLIENT_ERRORS: Final = range(400, 500)
# Answers about the address or the credentials, not about the utterance: it is accepted once those are right
NOT_THE_UTTERANCE: Final = frozenset({401, 403, 404, 405, 407, 421, 431})
NOT_THE_UTTERANCE_KINDS: Final = frozenset({"bad-preference", "bad-http", "host-not-allowed"})  # with whatever status
RETRIED: Final = NOT_THE_UTTERANCE | WORTH_A_RETRY

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DeliverySettings:
    """How a spool is emptied.

    Attributes:
        batch: utterances in a row on one connection, before too old ones are looked for and others get at the spool.
        failures: of the link in a row after which `until_empty` leaves the rest in the spool.
        longest_wait_s: `until_empty` leaves the rest in the spool where the next attempt is further away.
        whole: ask for whole answers. Otherwise what comes is the result, whatever it had to leave out.
        partial_answers: that an utterance gets before it makes do with such a one, where whole ones were asked for.
    """

    batch: int = 16
    failures: int = 3
    longest_wait_s: float = 30.0
    whole: bool = True
    partial_answers: int = 5


class PartialAnswer(SendFailed):
    """An answer with less than was asked for, from a cluster that does not refuse where it cannot give a whole one."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"the cluster answered without {', '.join(answer.degraded)}, though a whole answer was wanted")


def backoff_s(failures: int, source: random.Random, longest_s: float = LONGEST_LINK_PAUSE_S) -> float:
    """Exponential back-off with full jitter: devices that lost the link together do not come back together.

    Args:
        failures: in a row, 1 or more.
        source: of randomness.
        longest_s: no pause is longer.

    Returns:
        Seconds, uniform between 0 and `BACKOFF_S` doubled with each failure after the first.
    """
    return source.uniform(0.0, min(longest_s, BACKOFF_S * 2.0 ** min(failures - 1, HIGHEST_EXPONENT)))


class Delivery:
    """Empties a spool over one keep-alive connection. A context manager; used by one thread at a time.

    All waiting happens here: the device makes one attempt. A failure pauses the link, then the oldest is first again.
    An utterance that fails more than once after the cluster may have seen it also waits for a time of its own, up to a
    quarter of an hour: one that breaks every exchange, never gets its answer by the deadline, or is always too long for
    a whole answer in time, holds back no other. It is tried until the spool drops it for its age.

    Args:
        device: who sends, and where to; its `attempts` and `whole` are not used.
        settings: how much at once, how long.
        stop: once set, a pause ends at once and nothing more is sent; a request under way still gets its answer.
        source: of randomness.

    Attributes:
        failures: of the link, in a row.
        trouble: the last of them; None while it works.
    """

    def __init__(
        self,
        device: DeviceSettings,
        settings: DeliverySettings = DeliverySettings(),  # noqa: B008 - frozen
        stop: threading.Event | None = None,
        source: random.Random | None = None,
    ) -> None:
        self.settings = settings
        self.failures = 0
        self.trouble: SendFailed | None = None
        self._device = Device(replace(device, attempts=1, whole=settings.whole))
        self._stop = stop or threading.Event()
        self._source = source or random.Random()
        self._resume_at = 0.0  # of time.monotonic()

    def __enter__(self) -> Delivery:
        self._device.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._device.__exit__(kind, error, trace)

    def until_empty(self, spool: Spool) -> Iterator[Result]:
        """Sends until nothing waits, or the link does not come back soon; yields each result once it is stored."""
        while not self._stop.is_set() and (wait_s := self.wait_s(spool)) is not None:
            if self.failures >= self.settings.failures or wait_s > self.settings.longest_wait_s:
                return
            if not self._stop.wait(wait_s):
                yield from self.batch(spool)

    def watch(self, own: Callable[[], Spool]) -> Iterator[Result]:
        """Sends whatever comes to wait, until `stop`. Between batches and in pauses another process may own the spool.

        Args:
            own: opens the spool.

        Raises:
            amser.client.spool_view.SpoolError: from `own`.
        """
        while not self._stop.wait(max(0.0, self._resume_at - time.monotonic())):
            with own() as spool:
                yield from self.batch(spool)
                wait_s = self.wait_s(spool)
            self._stop.wait(max(YIELD_S, min(IDLE_S, IDLE_S if wait_s is None else wait_s)))

    def batch(self, spool: Spool) -> Iterator[Result]:
        """Sends what is due, oldest first, up to the first failure; yields each result once it is stored."""
        spool.expire()
        for waiting in spool.due(self.settings.batch):
            if self._stop.is_set():
                return
            utterance = spool.utterance(waiting.utterance_id)
            if utterance is None:  # dropped meanwhile
                continue
            try:
                answer = self._device.send(utterance)
            except SendFailed as error:
                unhinted = _without_language(utterance) if _is_about_the_language(error) else None
                if unhinted is not None:
                    _log.warning("%s: %s; it is sent again without its language", utterance.utterance_id, error)
                    spool.replace(unhinted)  # due at once, in the next batch
                    result = None
                elif is_final(error):
                    result = spool.refuse(waiting.utterance_id, str(error))
                else:
                    self._pause(spool, waiting, error)
                    return
            else:
                if self.settings.whole and answer.partial and self._may_wait_for_more(spool, waiting):
                    self._pause(spool, waiting, PartialAnswer(answer))
                    return
                result = spool.settle(waiting.utterance_id, replace(answer, attempts=waiting.attempts + 1))
            if self.failures:
                _log.info("the link is back")
            self.failures, self.trouble = 0, None
            if result is not None:
                yield result

    def wait_s(self, spool: Spool) -> float | None:
        """Seconds until the next attempt; None where nothing waits."""
        next_due_s = spool.next_due_s()
        return None if next_due_s is None else max(next_due_s, self._resume_at - time.monotonic(), 0.0)

    def _may_wait_for_more(self, spool: Spool, waiting: Waiting) -> bool:
        return spool.partials(waiting.utterance_id) + 1 < self.settings.partial_answers

    def _pause(self, spool: Spool, waiting: Waiting, error: SendFailed) -> None:
        self.failures += 1
        self.trouble = error
        asked_s = min(error.retry_after_s or 0.0, LONGEST_WAIT_S) if isinstance(error, Refused) else 0.0
        pause_s = asked_s + backoff_s(self.failures, self._source)
        self._resume_at = time.monotonic() + pause_s
        _log.info("%s; the next attempt follows in %.1f s", error, pause_s)
        if isinstance(error.__cause__, NEVER_CONNECTED):
            return  # says nothing about the utterance, and a long outage writes nothing to disk
        wait_s = asked_s
        if waiting.attempts and not _is_about_every_utterance(error):  # beyond the link's pause: another one is next
            wait_s = pause_s + backoff_s(waiting.attempts, self._source, LONGEST_OWN_PAUSE_S)
        spool.postpone(waiting.utterance_id, wait_s, partial=isinstance(error, PartialAnswer))


def _is_about_the_language(error: SendFailed) -> bool:
    """Whether the cluster refused the language that an envelope names, or may have.

    Clusters older than 0.5 do not say what they refuse with 422. Sent without the language, the utterance is answered,
    or is refused once more for what is wrong with it.
    """
    if not isinstance(error, Refused) or error.status != httpx.codes.UNPROCESSABLE_ENTITY:
        return False
    is_other = error.kind not in ("", "unknown-language")  # such as unusable speech
    return bool(error.problem.get("parameter", LANGUAGE) == LANGUAGE) and not is_other


def _without_language(utterance: Utterance) -> Utterance | None:
    """The same utterance under the same id, its language left to the cluster; None where it names none."""
    try:
        envelope = unpack(utterance.envelope)
    except WireError:
        return None
    if envelope.language is None:
        return None
    return replace(utterance, envelope=pack(replace(envelope, language=None)))


def is_final(error: SendFailed) -> bool:
    """Whether the cluster will never take this utterance."""
    if not isinstance(error, Refused) or _is_about_every_utterance(error):
        return False
    return error.status in CLIENT_ERRORS and error.status not in RETRIED


def _is_about_every_utterance(error: SendFailed) -> bool:
    """Whether every other one would have failed too.

    So with redirects, where a captive portal wants a login first, and where a parameter of the request is wrong. Not so
    where the cluster is full: whether it has time depends on how long an utterance is.
    """
    return isinstance(error, Refused) and (
        error.status in NOT_THE_UTTERANCE
        or error.kind in NOT_THE_UTTERANCE_KINDS
        or error.status < CLIENT_ERRORS.start
        or "parameter" in error.problem
    )
