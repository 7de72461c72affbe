"""What a run leaves behind: one row for each arrival, one for each snapshot of the cluster, and what it ran on.

Between the fleet, which writes it, and report, capacity search and prediction, which read it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

OK: Final = "ok"
DROPPED: Final = "dropped"  # never sent: the generator had as many requests in flight as it may have
RUN_FILE: Final = "run.json"


@dataclass(frozen=True, slots=True)
class Sample:
    """One arrival of the schedule and what became of it. Seconds count from the start of the schedule.

    Attributes:
        scheduled_s: when the schedule has it.
        sent_s: when the request left; None where it was dropped.
        done_s: when the answer was there, or was given up; None where it was dropped.
        status: of HTTP; 0 where there was no answer.
        outcome: `ok`, or why not in a few words that equal those of the same failure elsewhere.
        device: number of the device in its fleet.
        hardware: its name in edge_sim/devices.yaml.
        radio: its name in edge_sim/radios.yaml.
        behaviour: `good`, or which bad client it plays: what it must be answered differs.
        speech_s: seconds of speech in the request.
        bytes_up, bytes_down: over the radio, from the radio's model.
        joules: of the radio, from its model.
        degraded: what the answer left out.
        retry_after_s: that a refusal asked for; None where it asked for nothing.
        timings_ms: of the `Server-Timing` header; empty where there was none.
    """

    scheduled_s: float
    sent_s: float | None
    done_s: float | None
    status: int
    outcome: str
    device: int
    hardware: str
    radio: str
    behaviour: str = "good"
    speech_s: float = 0.0
    bytes_up: int = 0
    bytes_down: int = 0
    joules: float = 0.0
    degraded: tuple[str, ...] = ()
    retry_after_s: float | None = None
    timings_ms: Mapping[str, float] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return self.outcome == OK

    @property
    def latency_s(self) -> float | None:
        """From the scheduled time: a generator that is late hides nothing. None where nothing was sent."""
        return None if self.done_s is None else self.done_s - self.scheduled_s

    @property
    def service_s(self) -> float | None:
        """From the sending time."""
        return None if self.done_s is None or self.sent_s is None else self.done_s - self.sent_s


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The cluster and the generator at one moment.

    Attributes:
        at_s: since the start of the schedule.
        replicas: running ones of each deployment; empty where the dashboard was not asked or did not answer.
        in_flight: requests of the generator that wait for their answers.
        generator_cpu: cores that the generator's processes used since the snapshot before.
        memory_mb: resident, of the running replicas of each deployment together; empty as `replicas`.
    """

    at_s: float
    replicas: Mapping[str, int]
    in_flight: int
    generator_cpu: float
    memory_mb: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Run:
    """A run of one scenario.

    Attributes:
        scenario: its name.
        url: of the cluster.
        seed: of schedule and fleet.
        devices: in the fleet.
        seconds: of the schedule.
        objective_ms: latency that 99 of 100 answers are to keep; counted from the scheduled time.
        late_starts: requests that left more than 10 ms after their scheduled time.
        samples: in the order of their scheduled times.
        snapshots: in order.
        about: hardware, versions and the time.
    """

    scenario: str
    url: str
    seed: int
    devices: int
    seconds: float
    objective_ms: float
    late_starts: int
    samples: tuple[Sample, ...]
    snapshots: tuple[Snapshot, ...]
    about: Mapping[str, Any]


def write_run(run: Run, folder: Path) -> Path:
    """Writes `run.json` into a folder, which is made where it is missing; returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / RUN_FILE
    file.write_text(json.dumps(asdict(run)) + "\n", encoding="utf-8")
    return file


def read_run(file: Path) -> Run:
    """What `write_run` wrote; `file` may be the folder.

    Raises:
        OSError, ValueError: it cannot be read, or is no record of a run.
    """
    document = json.loads((file / RUN_FILE if file.is_dir() else file).read_text(encoding="utf-8"))
    try:
        samples = tuple(Sample(**{**each, "degraded": tuple(each["degraded"])}) for each in document.pop("samples"))
        snapshots = tuple(Snapshot(**each) for each in document.pop("snapshots"))
        return Run(**document, samples=samples, snapshots=snapshots)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{file} is no record of a run: {error}") from None
