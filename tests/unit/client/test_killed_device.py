"""A device that is killed at any moment: no utterance is lost, none has two results."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from spooled import asked
from stand_in import Response, stand_in

from amser.client.spool_view import SpoolView

pytest_plugins = ["spooled"]
KILLS = 30

# Importing takes longer than most lives of a device here: this process imports once and forks a device for each line
# that it reads. A device says which utterances are in its spool, each after `put` returned; the number in a line says
# where it goes on.
DEVICES = """
import itertools, os, sys
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID
from amser.client import delivery
from amser.client.device import DeviceSettings
from amser.client.exchange.utterances import Utterance
from amser.client.spool import Spool

delivery.BACKOFF_S = 0.01  # a killed device does not live long enough to be patient

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def live(path, url, first):
    with Spool(path) as spool, delivery.Delivery(DeviceSettings(url=url)) as sending:
        for number in itertools.count(first) if first >= 0 else ():
            spool.put(Utterance(os.urandom(3000), UUID(int=number), 1.0, 1.0), datetime.now(UTC), str(number))
            say("spooled", number)
            if number % 3 == 2:
                for _ in sending.until_empty(spool):
                    pass
        while spool.waiting():
            for _ in sending.until_empty(spool):
                pass
            sending.failures = 0

for line in sys.stdin:
    if (device := os.fork()) == 0:
        live(Path(sys.argv[1]), sys.argv[2], int(line))
        os._exit(0)
    say("device", device)
    say("ended", os.waitstatus_to_exitcode(os.waitpid(device, 0)[1]))
"""


def test_a_device_that_is_killed_again_and_again_loses_nothing_and_stores_nothing_twice(
    path: Path, record_property: Callable[[str, object], None]
) -> None:
    moments = random.Random(20251122)
    responses = [Response(after_s=moments.uniform(0, 0.01), hangs_up=moments.random() < 0.08) for _ in range(5000)]
    spooled: set[int] = set()
    started = time.monotonic()
    with (
        stand_in(*responses) as cluster,
        subprocess.Popen(
            [sys.executable, "-c", DEVICES, str(path), cluster.url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        ) as devices,
    ):
        try:
            for _ in range(KILLS):
                code = _live(devices, max(spooled, default=-1) + 1, spooled, kill_after_s=moments.uniform(0, 0.25))
                assert code == -signal.SIGKILL
            acknowledged = set(spooled)
            assert _live(devices, -1, spooled) == 0
        finally:
            devices.kill()
    took_s = time.monotonic() - started
    with SpoolView(path) as view:
        results, waiting, drops = view.results(), view.waiting(), view.drops()
    times = Counter(asked(cluster))
    stored = [int(result.note) for result in results]
    assert (waiting, drops) == ([], [])
    assert len(stored) == len(set(stored))
    assert acknowledged <= set(stored) <= {*acknowledged, len(acknowledged)}  # one was spooled and could not say so
    assert {result.utterance_id for result in results} == times.keys()
    assert all(result.answer is not None for result in results)
    assert len(stored) > KILLS
    resends = times.total() - len(times)
    broken = sum(response.hangs_up for response in responses[: times.total()])
    assert resends >= broken
    for name, value in {"utterances": len(stored), "resends": resends, "broken": broken, "seconds": took_s}.items():
        record_property(name, value)
    print(f"{KILLS} kills, {len(stored)} utterances, {resends} sent again ({broken} broken), {took_s:.1f} s")


def _live(devices: subprocess.Popen[str], first: int, spooled: set[int], kill_after_s: float | None = None) -> int:
    """One life of a device, from its start to its end; returns its exit code."""
    assert devices.stdin is not None
    assert devices.stdout is not None
    devices.stdin.write(f"{first}\n")
    for line in devices.stdout:
        what, number = line.split()
        if what == "device" and kill_after_s is not None:
            time.sleep(kill_after_s)
            os.kill(int(number), signal.SIGKILL)
        elif what == "spooled":
            spooled.add(int(number))
        elif what == "ended":
            return int(number)
    pytest.fail("the process that starts devices is gone")
