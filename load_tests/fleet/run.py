"""`run_scenario`: a scenario against a cluster, in this process, with Locust's events and statistics.

The capacity search and the benchmarks call it many times in one process. Importing Locust monkey-patches the process it
is imported into; here it is kept from that, since the fleet uses gevent's sockets by name. In a process that `locust`
itself started everything is patched already, and nothing changes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import gevent
import gevent.hub

with patch.dict(os.environ, {"LOCUST_SKIP_MONKEY_PATCH": "1"}):
    from locust.env import Environment

from amser.errors import SignalError
from edge_sim.constants import BadConstants, UnknownName
from load_tests.fleet.client import DEFAULTS
from load_tests.fleet.connection import most_open_files
from load_tests.fleet.generator import MOST_IN_FLIGHT, LoadGenerator
from load_tests.fleet.members import Fleet, radio_usage
from load_tests.fleet.monitor import Monitor
from load_tests.fleet.payloads import NoSpeech, Payloads, prepare, utterances
from load_tests.fleet.scenario import Scenario, load_scenario
from load_tests.report.environment import environment as environment_now
from load_tests.report.record import Run, Sample, Snapshot
from load_tests.report.summary import STOPPED

PROGRESS_EVERY_S: Final = 0.5
INTERRUPTED: Final = STOPPED  # in Run.about
UNUSABLE_INPUT: Final = (SignalError, NoSpeech, OSError, BadConstants, UnknownName)  # audio, devices or the cluster


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run is.

    Attributes:
        elapsed_s, seconds: since the start of the schedule, and of the whole of it.
        sent, answered, failed, dropped, in_flight: requests.
        generator_cpu: cores.
    """

    elapsed_s: float
    seconds: float
    sent: int
    answered: int
    failed: int
    dropped: int
    in_flight: int
    generator_cpu: float

    def __str__(self) -> str:
        return (
            f"{self.elapsed_s:.0f} of {self.seconds:.0f} s · {self.sent:,} sent · {self.answered:,} answered · "
            f"{self.failed:,} failed · {self.in_flight:,} in flight · generator {self.generator_cpu:.2f} cores"
        )


def run_scenario(
    scenario: Scenario | str,
    url: str,
    *,
    rate: float | None = None,
    seconds: float | None = None,
    devices: int | None = None,
    seed: int = 0,
    dashboard: str | None = None,
    closed: int | None = None,
    audio: Sequence[Path] = (),
    language: str | None = None,
    most_in_flight: int = MOST_IN_FLIGHT,
    answer_timeout_s: float = DEFAULTS.answer_timeout_s,
    progress: Callable[[Progress], None] | None = None,
    environment: Environment | None = None,
) -> Run:
    """Runs a scenario until its last answer is there, or until Ctrl-C: then with what was measured before.

    Args:
        scenario: or its name, or the path of its file.
        url: of the cluster.
        rate, seconds, devices: in place of the scenario's (`Scenario.adjusted`).
        seed: of schedule and fleet.
        dashboard: URL of Ray's dashboard, for the replicas; None does not ask.
        closed: so many devices that wait for their answers, in place of the schedule.
        audio: what is said; the turns of the sample conversation where there is none.
        language: ISO 639 code that is spoken; None has it detected.
        most_in_flight: an arrival that meets so many requests waiting is dropped.
        answer_timeout_s: for everything until the last byte of an answer.
        progress: called twice a second.
        environment: whose listeners are told of each request; None makes one with a local runner.

    Raises:
        load_tests.fleet.scenario.BadScenario, load_tests.fleet.connection.BadUrl: as named.
        load_tests.fleet.payloads.NoSpeech, amser.errors.SignalError, OSError: the audio cannot be used.
    """
    if isinstance(scenario, str):
        scenario = load_scenario(scenario)
    scenario = scenario.adjusted(rate=rate, seconds=seconds, devices=closed or devices)
    payloads = payloads_for(scenario, seed, audio, language)
    told = environment or Environment()
    runner = None if environment else told.create_local_runner()
    generator = LoadGenerator(
        scenario,
        payloads,
        url,
        seed=seed,
        fire=told.events.request.fire,
        most_in_flight=most_in_flight,
        answer_timeout_s=answer_timeout_s,
    )
    monitor = Monitor(generator, dashboard)
    gevent.get_hub().NOT_ERROR = (*gevent.hub.Hub.NOT_ERROR, KeyboardInterrupt)  # gevent would print its traceback
    try:
        finished = drive(monitor, scenario, closed=closed, progress=progress)
    finally:
        if runner is not None:
            runner.quit()
    statistics = generator.statistics
    about = {"closed": closed, INTERRUPTED: not finished, "connections": generator.most_connections}
    return record(scenario, url, seed, statistics.samples, monitor.snapshots, statistics.late_starts, about)


def payloads_for(scenario: Scenario, seed: int, audio: Sequence[Path], language: str | None) -> Payloads:
    """What the scenario's fleet sends. The same files are encoded once a process. Raises as `run_scenario` does."""
    return _prepared(tuple(audio), Fleet(scenario, seed).codecs, language)


@cache
def _prepared(files: tuple[Path, ...], codecs: tuple[tuple[str, str], ...], language: str | None) -> Payloads:
    return prepare(utterances(files), codecs, language)


def drive(
    monitor: Monitor,
    scenario: Scenario,
    *,
    closed: int | None = None,
    wait_s: float = 0.0,
    progress: Callable[[Progress], None] | None = None,
) -> bool:
    """Runs a monitor and its load generator. Killed or stopped by Ctrl-C, it ends them at once.

    Returns:
        Whether it came to its end; False where Ctrl-C ended it.
    """
    generator = monitor.generator
    with monitor:
        if closed:
            running = gevent.spawn(generator.run_closed_loop, closed, wait_s)
        else:
            running = gevent.spawn(generator.run_open_loop, wait_s)
        try:
            while not running.ready():
                running.join(PROGRESS_EVERY_S)
                if progress is not None:
                    progress(_progress(monitor, scenario))
        except KeyboardInterrupt:
            return False
        finally:
            running.kill()
    running.get()  # raises what it raised
    return True


def _progress(monitor: Monitor, scenario: Scenario) -> Progress:
    statistics = monitor.generator.statistics
    dropped = len(statistics.samples) - statistics.answered
    return Progress(
        monitor.generator.elapsed_s,
        scenario.seconds,
        statistics.sent,
        statistics.answered,
        statistics.failed,
        dropped,
        statistics.in_flight,
        monitor.generator_cpu,
    )


def record(
    scenario: Scenario,
    url: str,
    seed: int,
    samples: Iterable[Sample],
    snapshots: Iterable[Snapshot],
    late_starts: int,
    about: dict[str, Any],
) -> Run:
    """The record of a run, with what its exchanges cost the radios."""
    ordered = sorted(radio_usage(samples), key=lambda sample: sample.scheduled_s)
    return Run(
        scenario=scenario.name,
        url=url,
        seed=seed,
        devices=scenario.devices,
        seconds=scenario.seconds,
        objective_ms=scenario.objective_ms,
        late_starts=late_starts,
        samples=tuple(ordered),
        snapshots=tuple(snapshots),
        about={
            **environment_now(),
            "most_open_files": most_open_files(),
            "description": scenario.description,
            **about,
        },
    )
