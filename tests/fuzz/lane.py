"""Targets one after the other, each for its share of the time, in child processes that may die."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from tests.fuzz import ROOT
from tests.fuzz.child import Task
from tests.fuzz.findings import Findings
from tests.fuzz.state import Progress, read

TURN_S: Final = 60.0  # the longest that one target runs before it is another's turn
WEIGHTS: Final[Mapping[str, float]] = {"slow": 2.0, "mix": 2.0}  # slow connections show nothing in half a minute
POLL_S: Final = 0.5
HANGS_S: Final = 90.0  # on one input, or until the first
GRACE_S: Final = 45.0  # after its time: a request under way may take until the cluster's deadline


@dataclass(slots=True)
class Tally:
    """What a target has done so far.

    Attributes:
        tried: inputs.
        accepted: of them.
        memory: bytes that its process held at most.
        turns: in which it ran.
    """

    tried: int = 0
    accepted: int = 0
    memory: int = 0
    turns: int = 0
    seconds: float = 0.0
    now: Progress = field(default_factory=Progress)

    @property
    def all_tried(self) -> int:
        """With those of the turn that is under way."""
        return self.tried + self.now.tried


def turns(targets: Sequence[str], seconds: float) -> dict[str, float]:
    """How long each target runs at a time, so that all of them have run when the time is over."""
    weight = sum(WEIGHTS.get(target, 1.0) for target in targets)
    rounds = max(1, round(seconds / (weight * TURN_S)))
    return {target: seconds * WEIGHTS.get(target, 1.0) / (weight * rounds) for target in targets}


class Lane:
    """A thread that gives each of its targets its turn.

    Args:
        targets: their names, in order.
        task: what they have in common.
        seconds: of the whole run.
        says: called with the name of each target as it begins.

    Attributes:
        tallies: by target.
        error: that ended the thread; None where it is well.
    """

    def __init__(
        self, targets: Sequence[str], task: Task, seconds: float, says: Callable[[str], None] = lambda _: None
    ) -> None:
        self.tallies = {target: Tally() for target in targets}
        self.error: Exception | None = None
        self._task, self._seconds, self._says = task, seconds, says
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begins."""
        self._deadline = time.monotonic() + self._seconds
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        """Ends the child and the thread."""
        self._stop.set()
        if self._child is not None:
            self._child.terminate()
        self._thread.join(GRACE_S)

    def _run(self) -> None:
        lengths = turns(list(self.tallies), self._seconds)
        seeds = random.Random(self._task.seed)
        first = True
        try:
            while True:
                for target, length in lengths.items():
                    left = self._deadline - time.monotonic()
                    if left < 2 or self._stop.is_set():
                        return
                    self._says(target)
                    task = replace(
                        self._task,
                        target=target,
                        seconds=min(length, left),
                        began=time.monotonic(),
                        seed=seeds.getrandbits(31),
                        replay=first,
                    )
                    self._turn(task)
                first = False
        except Exception as error:
            self.error = error

    def _turn(self, task: Task) -> None:
        tally = self.tallies[task.target]
        task.state.unlink(missing_ok=True)
        log = task.folder / f"{task.target}.log"
        began = moved = time.monotonic()
        with log.open("ab") as output:
            self._child = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "tests.fuzz.child", task.to_json()],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        why = ""
        while self._child.poll() is None:
            self._stop.wait(POLL_S)
            if self._stop.is_set() and not why:
                self._child.terminate()
            before, tally.now = tally.now.tried, read(task.state)
            now = time.monotonic()
            if tally.now.tried != before:
                moved = now
            if not task.url and now - moved > HANGS_S:
                why = "hangs"
            if not why and tally.now.tried and now - began > task.seconds + GRACE_S + HANGS_S:
                why = "does not end"
            if why:
                self._child.kill()
                self._child.wait(10)
        with suppress(OSError):
            tally.now = read(task.state)
        self._post_mortem(task, tally.now, self._child.returncode, why, log)
        tally.tried += tally.now.tried
        tally.accepted += tally.now.accepted
        tally.memory = max(tally.memory, tally.now.memory)
        tally.turns += 1
        tally.seconds += time.monotonic() - began
        tally.now = Progress()
        _cut(log)

    def _post_mortem(self, task: Task, last: Progress, code: int, why: str, log: Path) -> None:
        if self._stop.is_set() or (code == 0 and not why):
            return
        findings = Findings(task.folder, task.run, task.target)
        tail = log.read_text(errors="replace")[-2000:]
        if why:
            findings.add("stall", f"one input {why}", tail, last.current)
        else:
            findings.add("crash", f"the process ended with {code}", tail, last.current)


def _cut(log: Path, kept: int = 100_000) -> None:
    """Keeps the end of a log: what is tried for an hour warns of much."""
    if log.stat().st_size > kept:
        log.write_bytes(log.read_bytes()[-kept:])
