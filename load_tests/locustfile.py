"""A closed-loop load: each Locust user is a device that sends its next utterance once the last one was answered.

    locust -f load_tests/locustfile.py --headless -u 8 -r 8 -t 20s --host http://127.0.0.1:8000

It tells what a number of patient devices get, not what the cluster can carry: for that, devices must not wait.
"""

from __future__ import annotations

import itertools
from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from locust import FastHttpUser, constant, events, task
from locust.env import Environment

from amser.errors import SignalError
from amser.features import SAMPLE_RATE
from amser.wire import MEDIA_TYPE, Envelope, pack, unpack
from edge_sim.audio import read
from edge_sim.device import ROUTE, UTTERANCE_HEADER, Device, DeviceSettings
from edge_sim.segmentation import SpeechDetector, default_model
from edge_sim.weights import stored

DEFAULTS: Final = DeviceSettings()
NUMBERS: Final = itertools.count(1)  # of the devices
utterances: list[Envelope] = []  # of this process: encoded once, so that the load is the cluster's and not ours


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def add_arguments(parser: ArgumentParser) -> None:
    """What is said, and in which language."""
    parser.add_argument("--audio", nargs="+", type=Path, env_var="AMSER_AUDIO", help="files (default: the sample)")
    parser.add_argument("--language", default="en", env_var="AMSER_LANGUAGE", help="empty: detected")


@events.init.add_listener  # type: ignore[untyped-decorator]
def prepare(environment: Environment, **_: Any) -> None:
    """Encodes every utterance of the files."""
    options = environment.parsed_options
    assert options is not None
    device = Device(DeviceSettings(language=options.language or None))
    try:
        detector = SpeechDetector(default_model())
        for file in options.audio or [stored("sample-conversation", "sample.wav")]:
            waveform = read(file)
            for start, end in detector.utterances(waveform):
                samples = waveform[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)]
                utterances.append(unpack(device.encode(samples, datetime.now(UTC)).envelope))
    except (OSError, SignalError) as error:
        raise SystemExit(f"locustfile: {error}") from None
    if not utterances:
        raise SystemExit("locustfile: nobody speaks in the audio")


class SpeakingDevice(FastHttpUser):
    """A device that speaks without a pause."""

    wait_time = constant(0)
    network_timeout = DEFAULTS.answer_timeout_s
    connection_timeout = DEFAULTS.connect_timeout_s

    def on_start(self) -> None:
        """Gives each device an id and its own place in the conversation."""
        number = next(NUMBERS)
        self._device_id = f"locust-{number}"
        self._next: Iterator[Envelope] = itertools.cycle(utterances)
        for _ in range(number % len(utterances)):
            next(self._next)

    @task
    def speak(self) -> None:
        """Sends an utterance as a new one; anything but an emotion is a failure."""
        envelope = replace(next(self._next), device_id=self._device_id, utterance_id=uuid4())
        headers = {"Content-Type": MEDIA_TYPE, UTTERANCE_HEADER: str(envelope.utterance_id)}
        body: Any = pack(envelope)  # Locust sends bytes; its annotation forgets them
        with self.client.post(ROUTE, data=body, headers=headers, catch_response=True) as response:
            try:
                answer = response.json() or {}
            except ValueError:
                answer = {}
            if response.status_code != 200:
                response.failure(f"{response.status_code} {answer.get('title', '')}".rstrip())
            elif not answer.get("emotion"):
                response.failure("200 without an emotion")
