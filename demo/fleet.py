"""Devices that all speak at once, each in a thread with a connection of its own."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from amser.client.device import Device, DeviceSettings
from amser.client.exchange.answer import Answer
from amser.client.exchange.failures import AnswerTimedOut, Refused, SendFailed, Unreachable
from edge_sim.conversation import SpokenTurn

LANGUAGE: Final = "en"  # of the sample conversation
PAUSE_AFTER_FAILURE_S: Final = 0.5
POLL_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Result:
    """One turn that one device sent.

    Attributes:
        device_id: who sent it.
        turn: its index in the conversation.
        answer: None where it failed.
        failure: why, in a few words that equal those of the same failure elsewhere; None where it did not fail.
    """

    device_id: str
    turn: int
    answer: Answer | None = None
    failure: str | None = None


def speak(
    conversation: Sequence[SpokenTurn],
    url: str,
    devices: int,
    seconds: float,
    progress: Callable[[Sequence[Result]], None],
) -> list[Result]:
    """Lets the devices cycle through the conversation for some seconds and waits for the last answers.

    Args:
        conversation: what is said; device i begins at turn i.
        url: of the cluster.
        devices: how many.
        seconds: after which no device begins another turn.
        progress: called about ten times a second, in this thread, with the results so far.
    """
    stop = threading.Event()
    arrived: queue.SimpleQueue[Result | BaseException] = queue.SimpleQueue()
    ends = time.monotonic() + seconds

    def device(number: int) -> None:
        settings = DeviceSettings(f"phone-{number + 1}", url, language=LANGUAGE)
        try:
            with Device(settings, stop) as phone:
                turn = number % len(conversation)
                while time.monotonic() < ends and not stop.is_set():
                    result = _speak_turn(phone, turn, conversation[turn])
                    arrived.put(result)
                    if result.failure is not None:
                        stop.wait(PAUSE_AFTER_FAILURE_S)
                    turn = (turn + 1) % len(conversation)
        except BaseException as error:  # raised again in the thread that waits
            arrived.put(error)

    # Daemons: after Ctrl-C the process does not wait for answers.
    threads = [threading.Thread(target=device, args=(number,), daemon=True) for number in range(devices)]
    results: list[Result] = []
    try:
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            time.sleep(POLL_S)
            results += _drain(arrived)
            progress(results)
    finally:
        stop.set()
    return results + _drain(arrived)


def _drain(arrived: queue.SimpleQueue[Result | BaseException]) -> list[Result]:
    results = []
    while not arrived.empty():
        result = arrived.get()
        if isinstance(result, BaseException):
            raise result
        results.append(result)
    return results


def _speak_turn(phone: Device, turn: int, speech: SpokenTurn) -> Result:
    try:
        answer = phone.send(phone.encode(speech.waveform, datetime.now(UTC)))
    except SendFailed as error:
        return Result(phone.settings.device_id, turn, failure=_reason(error))
    return Result(phone.settings.device_id, turn, answer)


def _reason(error: SendFailed) -> str:
    if isinstance(error, Refused):
        return f"{error.status} {error.title}"
    if isinstance(error, AnswerTimedOut):
        return "no answer in time"
    return "cluster not reachable" if isinstance(error, Unreachable) else str(error)
