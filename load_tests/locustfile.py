"""The fleet for Locust: its web UI, its CSV files, its workers.

    locust -f load_tests/locustfile.py --headless --scenario steady
    locust -f load_tests/locustfile.py --headless -u 8 -r 8 -t 20s

Without `--host` the cluster is that of this machine, http://127.0.0.1:8000.

With a scenario its schedule is followed in an open loop, and `-u` says nothing; `--processes 2` shares the fleet out.
Without one it is a closed loop: each user is a device that sends its next utterance once the last one was answered.
That tells what a number of patient devices get, not what the cluster can carry: for that, devices must not wait.
"""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any, Final

import gevent
from locust import User, constant, events, task
from locust.env import Environment
from locust.runners import LocalRunner

from amser.client.commands.codec_options import spoken_language
from load_tests.fleet.connection import DEFAULT_URL, BadUrl, check_reachable
from load_tests.fleet.locust_fleet import LocustFleet
from load_tests.fleet.run import UNUSABLE_INPUT, payloads_for
from load_tests.fleet.scenario import BadScenario, load_scenario, scenario_names

PATIENT: Final = "steady"  # whose devices a closed loop has
MOST_USERS: Final = 10_000  # of a closed loop that are devices of their own
fleets: list[LocustFleet] = []  # of this process: one


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def add_arguments(parser: ArgumentParser) -> None:
    """Which speech is sent, in which language, and when."""
    add = parser.add_argument
    add("--scenario", env_var="AMSER_SCENARIO", help=f"{', '.join(scenario_names())}, or a YAML file")
    add("--rate", type=float, env_var="AMSER_RATE", help="of the scenario: requests a second, base or mean")
    add("--seed", type=int, default=0, env_var="AMSER_SEED", help="of schedule and fleet")
    add("--report", type=Path, env_var="AMSER_REPORT", help="folder for record and report of a scenario")
    add("--audio", nargs="+", type=Path, default=(), env_var="AMSER_AUDIO", help="files (default: the sample)")
    add("--language", type=spoken_language, default="en", env_var="AMSER_LANGUAGE", help="spoken, or auto")


@events.init.add_listener  # type: ignore[untyped-decorator]
def prepare(environment: Environment, **_: Any) -> None:
    """Encodes every utterance of the files, before the first request."""
    options = environment.parsed_options
    assert options is not None
    closed = not options.scenario
    environment.host = environment.host or DEFAULT_URL  # a worker's comes from its master once the test starts
    try:
        if options.headless and isinstance(environment.runner, LocalRunner):  # a master has workers, and asks later
            check_reachable(environment.host)
        scenario = load_scenario(options.scenario or PATIENT)
        scenario = scenario.adjusted(rate=options.rate, devices=MOST_USERS if closed else None)
        payloads = payloads_for(scenario, options.seed, options.audio or (), options.language)
    except (BadScenario, BadUrl, *UNUSABLE_INPUT) as error:
        raise SystemExit(f"locustfile: {error}") from None
    gevent.sleep(0)  # its clock stood still during the encoding, and `-t` would count from before it
    folder = Path(options.report) if options.report else None
    fleets.append(LocustFleet(environment, scenario, payloads, seed=options.seed, closed=closed, folder=folder))


class SpeakingDevice(User):
    """A device that speaks without a pause; with a scenario the schedule sends, and this only waits."""

    host = DEFAULT_URL
    wait_time = constant(0)

    def on_start(self) -> None:
        """Which device it is."""
        self._number = fleets[-1].number()

    @task
    def speak(self) -> None:
        """Sends an utterance as a new one; anything but an emotion is a failure."""
        if fleets[-1].closed:
            fleets[-1].send_next(self._number)
        else:
            gevent.sleep(1.0)
