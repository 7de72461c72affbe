"""What the gateway admitted and refused, seen from outside: by Prometheus, and by the autoscaler.

Outside a replica the metrics go nowhere, so that the gateway can be tested without Ray.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from deployments.autoscaling import ADMITTED, INSIDE, REFUSED
from deployments.gateway.utterances.admission import FIXED_WORK, ROOM, Admission, Admitted, Lane, Overloaded, Running
from deployments.telemetry.metrics import OUTCOME_RATIOS, Instruments

PREDICTED_SPEECH_S: Final = 4.0  # of the utterance whose time the gauge predicts


class FlowMetrics:
    """Counters and gauges of one replica of the gateway. Prometheus gets them as `ray_amser_…`.

    Args:
        admission: whose state they show.
        make: their metrics.
    """

    def __init__(self, admission: Admission, make: Instruments) -> None:
        self._counts = {ADMITTED: 0.0, REFUSED: 0.0, INSIDE: 0.0}
        self._admitted = make.counter(
            "amser_requests_admitted", "Requests that admission control let in, by what runs for them.", ("effort",)
        )
        self._refused = make.counter(
            "amser_requests_refused", "Requests that it refused: no room, or the client has its share.", ("reason",)
        )
        lane = ("lane",)
        self._open = make.gauge("amser_admission_open_requests", "Requests let in without an answer yet.", lane)
        self._work = make.gauge("amser_admission_open_work", "Their work, in seconds of speech.", lane)
        self._predicted = make.gauge(
            "amser_admission_predicted_seconds", "What an answer to 4 s of speech would rarely exceed.", lane
        )
        self._margin = make.gauge("amser_admission_margin", "By which predictions are multiplied.", lane)
        self._ratio = make.histogram(
            "amser_admission_outcome_ratio", "Seconds of an admitted request, of those predicted.", lane, OUTCOME_RATIOS
        )
        self._lanes = admission.lanes
        self.refresh()

    def counts(self) -> dict[str, float]:
        """For `deployments.autoscaling`, which names them."""
        return dict(self._counts)

    def is_well_formed(self) -> None:
        """An admitted request turned out to hold an utterance: only those are demand."""
        self._counts[ADMITTED] += 1

    def refuse(self, refused: Overloaded) -> None:
        """Admission control refused a request. What one client wants beyond its share is no demand."""
        self._refused.inc(1, {"reason": refused.reason})
        self._counts[REFUSED] += refused.reason == ROOM

    @contextmanager
    def inside(self) -> Iterator[None]:
        """A request is in the pipeline."""
        self._counts[INSIDE] += 1
        try:
            yield
        finally:
            self._counts[INSIDE] -= 1

    @contextmanager
    def running(self, admitted: Admitted) -> Iterator[Running]:
        """The same of one that admission control let in."""
        self._admitted.inc(1, {"effort": admitted.effort.name.lower()})
        predicted_s, started = admitted.lane.expected_s(admitted.work), time.monotonic()
        comparable = True
        try:
            with self.inside(), admitted.running() as running:
                self.show(admitted.lane)
                yield running
        except TimeoutError:
            raise
        except BaseException:
            comparable = False  # it failed, or its client left: who knows how long it would have taken
            raise
        finally:
            self.show(admitted.lane)
            if comparable:
                self._ratio.observe((time.monotonic() - started) / predicted_s, {"lane": admitted.lane.name})

    def refresh(self) -> None:
        """The gauges stand where the lanes stand now, also where no request comes."""
        for lane in self._lanes:
            self.show(lane)

    def show(self, lane: Lane) -> None:
        """The gauges of a lane stand where it stands now."""
        state, tags = lane.state(), {"lane": lane.name}
        self._open.set(state.requests, tags)
        self._work.set(state.work, tags)
        self._predicted.set(lane.expected_s(FIXED_WORK + PREDICTED_SPEECH_S), tags)
        self._margin.set(state.margin, tags)
