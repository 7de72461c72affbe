"""`run_scenario`: a scenario against a cluster, in this process, with Locust's events and statistics.

The capacity search and the benchmarks call it many times in one process. Importing Locust monkey-patches the process it
is imported into; here it is kept from that, since the fleet uses gevent's sockets by name. In a process that `locust`
itself started everything is patched already, and nothing changes.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import gevent
import gevent.hub

with patch.dict(os.environ, {"LOCUST_SKIP_MONKEY_PATCH": "1"}):
    from locust.env import Environment

from load_tests.fleet.client import DEFAULTS
from load_tests.fleet.connection import most_open_files
from load_tests.fleet.members import Fleet, radio_usage
from load_tests.fleet.open_loop import MOST_IN_FLIGHT, OpenLoop
from load_tests.fleet.payloads import Payloads, prepare, utterances
from load_tests.fleet.scenario import Scenario, load_scenario
from load_tests.fleet.watch import Watch
from load_tests.report.record import Run, Sample, Snapshot
from load_tests.report.summary import STOPPED

PROGRESS_EVERY_S: Final = 0.5
PACKAGES: Final = ("gevent", "geventhttpclient", "locust", "numpy")
INTERRUPTED: Final = STOPPED  # in Run.about


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
        environment: whose listeners hear of each request; None makes one with a local runner.

    Raises:
        load_tests.fleet.scenario.BadScenario, load_tests.fleet.connection.BadUrl: as named.
        load_tests.fleet.payloads.NobodySpeaks, amser.errors.SignalError, OSError: the audio cannot be used.
    """
    if isinstance(scenario, str):
        scenario = load_scenario(scenario)
    scenario = scenario.adjusted(rate=rate, seconds=seconds, devices=closed or devices)
    payloads = payloads_for(scenario, seed, audio, language)
    hears = environment or Environment()
    runner = None if environment else hears.create_local_runner()
    loop = OpenLoop(
        scenario,
        payloads,
        url,
        seed=seed,
        fire=hears.events.request.fire,
        most_in_flight=most_in_flight,
        answer_timeout_s=answer_timeout_s,
    )
    watch = Watch(loop, dashboard)
    gevent.get_hub().NOT_ERROR = (*gevent.hub.Hub.NOT_ERROR, KeyboardInterrupt)  # gevent would print its traceback
    try:
        finished = drive(watch, scenario, closed=closed, progress=progress)
    finally:
        if runner is not None:
            runner.quit()
    tally = loop.tally
    about = {"closed": closed, INTERRUPTED: not finished, "connections": loop.most_connections}
    return record(scenario, url, seed, tally.samples, watch.snapshots, tally.late_starts, about)


def payloads_for(scenario: Scenario, seed: int, audio: Sequence[Path], language: str | None) -> Payloads:
    """What the scenario's fleet says. The same files are encoded once a process. Raises as `run_scenario` does."""
    return _prepared(tuple(audio), Fleet(scenario, seed).codecs, language)


@cache
def _prepared(files: tuple[Path, ...], codecs: tuple[tuple[str, str], ...], language: str | None) -> Payloads:
    return prepare(utterances(files), codecs, language)


def drive(
    watch: Watch,
    scenario: Scenario,
    *,
    closed: int | None = None,
    wait_s: float = 0.0,
    progress: Callable[[Progress], None] | None = None,
) -> bool:
    """Runs the loop of a watch. Killed or stopped by Ctrl-C, it ends the loop at once.

    Returns:
        Whether it came to its end; False where Ctrl-C ended it.
    """
    loop = watch.loop
    with watch:
        walking = gevent.spawn(loop.converse, closed, wait_s) if closed else gevent.spawn(loop.walk, wait_s)
        try:
            while not walking.ready():
                walking.join(PROGRESS_EVERY_S)
                if progress is not None:
                    progress(_progress(watch, scenario))
        except KeyboardInterrupt:
            return False
        finally:
            walking.kill()
    walking.get()  # raises what it raised
    return True


def _progress(watch: Watch, scenario: Scenario) -> Progress:
    tally = watch.loop.tally
    dropped = len(tally.samples) - tally.answered
    return Progress(
        watch.loop.elapsed_s,
        scenario.seconds,
        tally.sent,
        tally.answered,
        tally.failed,
        dropped,
        tally.in_flight,
        watch.generator_cpu,
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
    """The record of a run, with what its exchanges cost on the air."""
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
        about={**environment_now(), "description": scenario.description, **about},
    )


def environment_now() -> dict[str, Any]:
    """Hardware, versions and the time, without anything that names this one machine."""
    return {
        "hardware": {"processor": platform.processor() or platform.machine(), "cores": len(os.sched_getaffinity(0))},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "most_open_files": most_open_files(),
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
    }
