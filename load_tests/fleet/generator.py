"""The load generator. In an open loop one dispatcher follows a schedule and starts a greenlet for each arrival.

Nothing waits for an answer before it sends the next request, and latency counts from the scheduled time: a cluster that
slows down cannot slow the load down (no coordinated omission). In a closed loop devices do wait for their answers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import gevent
import numpy as np
from gevent.pool import Group

from amser.client.exchange.utterances import ROUTE
from load_tests.fleet.arrivals import Replay, schedule
from load_tests.fleet.client import DEFAULTS, Arrival, Clients
from load_tests.fleet.connection import KeptConnections, Target
from load_tests.fleet.members import Fleet
from load_tests.fleet.payloads import Payloads
from load_tests.fleet.scenario import Scenario
from load_tests.report.latency import LatencyHistogram
from load_tests.report.record import DROPPED, Sample
from load_tests.report.summary import GOOD, Outcome, outcome_of

MOST_IN_FLIGHT: Final = 2000
LATE_S: Final = 0.010
MOST_CUTS: Final = DEFAULTS.attempts - 1  # then a device gives up; here its last attempt goes through
PAUSE_S: Final = 0.5  # of a device in a closed loop that was refused and not told how long to wait

Fire = Callable[..., Any]  # locust.event.EventHook.fire


class Unanswered(Exception):  # noqa: N818 - an error by its base class
    """How Locust is told of a request that failed; equal texts are counted together."""


@dataclass(frozen=True, slots=True)
class Part:
    """Which devices of the fleet are this process's: of every `of`, the one with this index."""

    index: int = 0
    of: int = 1


@dataclass(slots=True)
class Statistics:
    """Requests so far.

    Attributes:
        samples: in the order in which they were done.
        latencies: of good devices that were answered, from the scheduled time.
        sent, in_flight, failed, late_starts: of requests. A refusal (429, 503) is an answer, no failure.
    """

    samples: list[Sample] = field(default_factory=list)
    latencies: LatencyHistogram = field(default_factory=LatencyHistogram)
    sent: int = 0
    in_flight: int = 0
    failed: int = 0
    late_starts: int = 0

    @property
    def answered(self) -> int:
        return self.sent - self.in_flight

    def add(self, sample: Sample) -> None:
        """One more that is done, or was dropped."""
        self.samples.append(sample)
        self.failed += is_failure(sample)
        if sample.ok and sample.behaviour == GOOD and sample.latency_s is not None:
            self.latencies.record(sample.latency_s)


def is_failure(sample: Sample) -> bool:
    """Whether it was not answered as it should be. A full cluster that says so (429, 503) did what it should."""
    return outcome_of(sample) in (Outcome.FAILED, Outcome.DROPPED)


class LoadGenerator:
    """A fleet that sends requests at the moments of a schedule, or in a closed loop.

    Args:
        scenario: what to do.
        payloads: what is said, in every codec setting of the fleet.
        url: of the cluster.
        seed: of schedule, fleet and link.
        part: of the fleet; another process has the rest.
        fire: Locust's `events.request.fire`, or any that takes its keywords; None reports to none.
        most_in_flight: an arrival that meets so many requests waiting is dropped, and counted.
        answer_timeout_s: for everything until the last byte of an answer.

    Raises:
        load_tests.fleet.connection.BadUrl: as named.

    Attributes:
        statistics: of the requests so far.
    """

    def __init__(
        self,
        scenario: Scenario,
        payloads: Payloads,
        url: str,
        *,
        seed: int = 0,
        part: Part = Part(),  # noqa: B008 - frozen
        fire: Fire | None = None,
        most_in_flight: int = MOST_IN_FLIGHT,
        answer_timeout_s: float = DEFAULTS.answer_timeout_s,
    ) -> None:
        self.statistics = Statistics()
        self._scenario = scenario
        self._seed = seed
        self._part = part
        self._fire = fire
        self._most_in_flight = most_in_flight
        self._fleet = Fleet(scenario, seed)
        self._kept = KeptConnections()
        self._clients = Clients(scenario, payloads, Target.of(url), self._kept, answer_timeout_s)
        self._turns: dict[int, int] = {}
        self._greenlets = Group()
        self._start_s = self._began_at = 0.0

    @property
    def elapsed_s(self) -> float:
        """Since the start of the schedule."""
        return time.monotonic() - self._start_s

    @property
    def most_connections(self) -> int:
        """That were kept at once."""
        return self._kept.most

    def begin(self, wait_s: float = 0.0) -> None:
        """The schedule starts so many seconds from now, or has started where they are negative."""
        self._start_s, self._began_at = time.monotonic() + wait_s, time.time() + wait_s
        self._kept.open()

    def end(self) -> None:
        """Gives up what is on its way, and closes all connections."""
        self._greenlets.kill()
        self._kept.close()

    def run_open_loop(self, wait_s: float = 0.0) -> None:
        """Sends the whole schedule, then waits for the outstanding answers. Killed, it leaves those out."""
        arrivals = list(self._arrivals())
        self.begin(wait_s)
        try:
            for arrival in arrivals:
                self._wait_until(arrival.scheduled_s)
                if self.statistics.in_flight >= self._most_in_flight:
                    self.statistics.add(_dropped(arrival))
                    continue
                self._count_sent()
                self._greenlets.start(gevent.Greenlet(self._send, self._in_turn(arrival)))
            self._greenlets.join()
        finally:
            self.end()

    def run_closed_loop(self, devices: int, wait_s: float = 0.0) -> None:
        """The first `devices` of the fleet, each of which sends once its last request was answered."""
        self.begin(wait_s)
        try:
            self._wait_until(0.0)
            for number in range(self._part.index, min(devices, len(self._fleet)), self._part.of):
                self._greenlets.start(gevent.Greenlet(self._send_in_turn, number))
            self._greenlets.join()
        finally:
            self.end()

    def send_next(self, number: int) -> Sample:
        """Sends a device's next utterance now; a device that was refused then waits as long as it was told to."""
        self._count_sent()
        arrival = Arrival(self.elapsed_s, self._fleet[number % len(self._fleet)], 0)
        sample = self._send(self._in_turn(arrival))
        if not sample.ok:
            gevent.sleep(sample.retry_after_s or PAUSE_S)
        return sample

    def _arrivals(self) -> Iterator[Arrival]:
        """Those of this part. All parts draw the same numbers, so that a fleet does the same in any number of them."""
        profile, link = self._scenario.arrivals, self._scenario.link
        times = schedule(profile, self._seed)
        devices = profile.rows[1] if isinstance(profile, Replay) else None
        speakers = self._fleet.speakers(times.size) if devices is None else devices % len(self._fleet)
        cuts = np.random.default_rng([self._seed, 3]).geometric(1 - link.loss, times.size) - 1
        mine = np.flatnonzero(speakers % self._part.of == self._part.index)
        for index in mine:
            number = int(speakers[index])
            yield Arrival(float(times[index]), self._fleet[number], 0, int(min(cuts[index], MOST_CUTS)))

    def _in_turn(self, arrival: Arrival) -> Arrival:
        turn = self._turns.get(arrival.member.number, 0)
        self._turns[arrival.member.number] = turn + 1
        return Arrival(arrival.scheduled_s, arrival.member, turn, arrival.cuts)

    def _send(self, arrival: Arrival) -> Sample:
        try:
            sample = self._clients.send(arrival, self._start_s, self._began_at)
        finally:
            self.statistics.in_flight -= 1
        assert sample.sent_s is not None
        self.statistics.late_starts += sample.sent_s - sample.scheduled_s > LATE_S
        self.statistics.add(sample)
        if self._fire is not None:
            self._fire_event(sample)
        return sample

    def _send_in_turn(self, number: int) -> None:
        while self.elapsed_s < self._scenario.seconds:
            self.send_next(number)

    def _wait_until(self, at_s: float) -> None:
        """Not earlier, and one turn of gevent's loop at least. Its timers count from its last turn, not from now."""
        gevent.sleep(max(0.0, at_s - self.elapsed_s))
        while (left_s := at_s - self.elapsed_s) > 0:
            gevent.sleep(left_s)

    def _count_sent(self) -> None:
        self.statistics.in_flight += 1
        self.statistics.sent += 1

    def _fire_event(self, sample: Sample) -> None:
        assert self._fire is not None
        good = sample.behaviour == GOOD
        self._fire(
            request_type="POST",
            name=ROUTE if good else f"{ROUTE} ({sample.behaviour})",
            response_time=1000 * (sample.latency_s or 0.0),
            response_length=sample.bytes_down,
            exception=None if sample.ok else Unanswered(sample.outcome),
            context={},
        )


def _dropped(arrival: Arrival) -> Sample:
    member = arrival.member
    return Sample(
        arrival.scheduled_s, None, None, 0, DROPPED, member.number, member.hardware, member.radio, member.behaviour
    )
