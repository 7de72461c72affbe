"""The fleet inside Locust: follows a schedule when Locust starts a test, in one process or as one worker of several.

`locustfile.py` is its entry point. Importing Locust, as this module does, monkey-patches the process.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import gevent
from locust.env import Environment
from locust.runners import STATE_RUNNING, STATE_SPAWNING, MasterRunner, Runner, WorkerRunner
from rich.console import Console

from load_tests.fleet.connection import DEFAULT_URL, BadUrl, Unreachable, check_reachable
from load_tests.fleet.distributed import (
    BEGIN,
    KEY,
    START_AFTER_S,
    Merged,
    Reporting,
    part_of,
    parts,
)
from load_tests.fleet.generator import LoadGenerator, Part
from load_tests.fleet.monitor import Monitor
from load_tests.fleet.payloads import Payloads
from load_tests.fleet.run import drive, record
from load_tests.fleet.scenario import Scenario
from load_tests.report.page import write_report
from load_tests.report.record import write_run
from load_tests.report.summary import summarise
from load_tests.report.table import table

WIDTH: Final = 80  # columns of the table, in Locust's log
CANCELLED_WITHIN_S: Final = 10.0  # where Locust does not begin the test that it announced
log: Final = logging.getLogger(__name__)


class LocustFleet:
    """A scenario between Locust's events. In each process there is one.

    Args:
        environment: of Locust; its runner says whether this is a master, a worker or both in one.
        scenario: what is run; in a closed loop its devices.
        payloads: what is said.
        seed: of schedule and fleet.
        closed: Locust's users are devices that wait for their answers; there is no schedule.
        folder: where record and report go; None writes none.
    """

    def __init__(
        self,
        environment: Environment,
        scenario: Scenario,
        payloads: Payloads,
        *,
        seed: int = 0,
        closed: bool = False,
        folder: Path | None = None,
    ) -> None:
        self.closed = closed
        self._environment = environment
        self._scenario = scenario
        self._payloads = payloads
        self._seed = seed
        self._folder = folder
        self._workers = 0
        self._prepared: set[str] = set()
        self._start_at = 0.0  # of the schedule, by the clock; 0 where it did not begin
        self._running: gevent.Greenlet | None = None
        self._reporting: Reporting | None = None
        self._merged = Merged()
        self._generator: LoadGenerator | None = None
        self._is_over = True
        self._numbers = itertools.count()
        events: Any = environment.events  # Locust leaves its listeners untyped
        events.test_start.add_listener(self._start)
        events.test_stop.add_listener(self._stop)
        if isinstance(environment.runner, MasterRunner):
            events.worker_report.add_listener(self._receive)
        elif isinstance(environment.runner, WorkerRunner):
            environment.runner.register_message(BEGIN, self._begin)
            events.report_to_master.add_listener(self._report)

    def number(self) -> int:
        """Of the next of Locust's users."""
        return next(self._numbers)

    def send_next(self, number: int) -> None:
        """The next utterance of a user in a closed loop; a pause where the test was refused."""
        if self._generator is None:
            gevent.sleep(1.0)
        else:
            self._generator.send_next(number)

    def _start(self, environment: Environment, **_: Any) -> None:
        self._merged, self._is_over, self._start_at = Merged(), False, 0.0
        runner = environment.runner
        if not isinstance(runner, WorkerRunner) and not self._can_start():
            self._is_over = True
            gevent.spawn(self._cancel, runner)
            return
        if not isinstance(runner, MasterRunner) and (self.closed or not isinstance(runner, WorkerRunner)):
            self._run(Part(), 0.0)

    @property
    def _url(self) -> str:
        return self._environment.host or DEFAULT_URL

    def _can_start(self) -> bool:
        """Whether there is a cluster; where there is none, Locust's log says so and its tables would stay empty."""
        try:
            check_reachable(self._url)
        except (BadUrl, Unreachable) as error:
            log.error(str(error))
            self._environment.process_exit_code = 1
            return False
        return True

    def _cancel(self, runner: Runner) -> None:
        """Stops a test that has no cluster once it runs: one that is stopped earlier starts its users all the same."""
        with gevent.Timeout(CANCELLED_WITHIN_S, False):
            while runner.state not in (STATE_SPAWNING, STATE_RUNNING):
                gevent.sleep(0.1)
        self._finish()

    def _tell_workers(self, runner: MasterRunner) -> None:
        """Once every worker has reported, and so has encoded what it is to say, they all begin at once."""
        workers = [client.id for client in runner.clients.all]
        if self._is_over or self._start_at or not self._prepared.issuperset(workers):
            return
        self._start_at, self._workers = time.time() + START_AFTER_S, len(workers)
        for worker, message in parts(workers, self._start_at).items():
            runner.send_message(BEGIN, message, worker)

    def _begin(self, msg: Any, **_: Any) -> None:
        if not self.closed:
            self._start_at = msg.data["start_at"]
            self._run(*part_of(msg.data))

    def _run(self, part: Part, wait_s: float) -> None:
        fire = self._environment.events.request.fire
        self._generator = LoadGenerator(
            self._scenario, self._payloads, self._url, seed=self._seed, part=part, fire=fire
        )
        if self.closed:
            self._generator.begin()
            return
        monitor = Monitor(self._generator)
        self._reporting = Reporting(self._generator, monitor.snapshots)
        self._running = gevent.spawn(drive, monitor, self._scenario, wait_s=wait_s)
        self._running.link_value(self._ended)

    def _ended(self, _: gevent.Greenlet) -> None:
        """The schedule is over. A worker goes on reporting; the master ends it."""
        if not isinstance(self._environment.runner, WorkerRunner):
            gevent.spawn(self._finish)

    def _finish(self) -> None:
        runner, options = self._environment.runner, self._environment.parsed_options
        assert runner is not None
        if options is not None and options.headless:
            runner.quit()
        else:
            runner.stop()

    def _report(self, client_id: str, data: dict[str, Any], **_: Any) -> None:  # noqa: ARG002 - Locust's names
        data[KEY] = {}
        if self._reporting is not None:
            over = self._running is None or self._running.ready()
            data[KEY] = {"start_at": self._start_at, "report": self._reporting.report(over)}

    def _receive(self, client_id: str, data: Mapping[str, Any], **_: Any) -> None:
        if KEY not in data:  # of a worker that still encodes
            return
        self._prepared.add(client_id)
        runner, told = self._environment.runner, data[KEY]
        if not self.closed and isinstance(runner, MasterRunner):
            self._tell_workers(runner)
        if told.get("start_at") != self._start_at or "report" not in told:
            return
        was_finished = self._merged.is_finished(self._workers)
        self._merged.add(client_id, told["report"])
        if not was_finished and self._merged.is_finished(self._workers):
            gevent.spawn(self._finish)

    def _stop(self, **_: Any) -> None:
        if self._is_over:  # Locust tells a master twice: once more when its last worker has left
            return
        self._is_over = True
        if self._running is not None:
            self._running.kill()
        if self._generator is not None:
            self._generator.end()
        if not self.closed and not isinstance(self._environment.runner, WorkerRunner):
            if self._reporting is not None:  # no workers: what would have been reported to a master
                self._merged.add("local", self._reporting.report(True))
            self._show()

    def _show(self) -> None:
        merged, about = self._merged, {"workers": self._workers or 1}
        run = record(self._scenario, self._url, self._seed, merged.samples, merged.snapshots, merged.late_starts, about)
        summary = summarise(run)
        console = Console(highlight=False, width=WIDTH)
        console.print(table(run, summary))
        for warning in summary.warnings:
            console.print(warning, markup=False)
        if self._folder is not None:
            write_run(run, self._folder)
            write_report(run, self._folder)
