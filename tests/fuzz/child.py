"""One target for a while, in a process that may die of it: `python -m tests.fuzz.child '{"target": …}'`.

Targets in process are guided by coverage where atheris is installed (it is made for Linux), and mutate seeds blindly
otherwise. FFmpeg, SQLite and the entropy coder are compiled: what guides there is the code of ours around them.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from types import FrameType
from typing import Final

from tests.fuzz.findings import Finding, Findings, cause_of, earlier, smaller, stack
from tests.fuzz.mutations import LARGEST
from tests.fuzz.state import State

NICENESS: Final = 10  # what is tried must not take the processor from the cluster and its neighbour
INSTRUMENTED: Final = ("amser", "deployments.gateway", "models.mel")


@dataclass(frozen=True, slots=True)
class Task:
    """Attributes:
    target: a name in either registry.
    folder: of the run.
    run: its name.
    seconds: after which the child ends.
    began: of time.monotonic(), from which they count; None for once everything is imported.
    seed: of all randomness.
    url: of the cluster; empty for targets in process.
    replay: try first what failed once.
    inputs: after which a target in process ends; None for no such limit.
    coverage: whether atheris guides.
    """

    target: str
    folder: Path
    run: str
    seconds: float
    seed: int
    url: str = ""
    replay: bool = False
    inputs: int | None = None
    coverage: bool = True
    began: float | None = None

    @property
    def deadline(self) -> float:
        """Of time.monotonic(), which all processes of a machine share."""
        return (time.monotonic() if self.began is None else self.began) + self.seconds

    @property
    def state(self) -> Path:
        """The file of its progress."""
        return self.folder / f"{self.target}.state"

    def to_json(self) -> str:
        """For a command line."""
        return json.dumps({**asdict(self), "folder": str(self.folder)})

    @classmethod
    def from_json(cls, text: str) -> Task:
        """What `to_json` made."""
        fields = json.loads(text)
        return cls(**{**fields, "folder": Path(fields["folder"])})


class Trial:
    """Tries inputs of a target in this process, and keeps what fails."""

    def __init__(self, task: Task) -> None:
        from tests.fuzz.targets.registry import kind_of  # after atheris has its hooks in

        self.task = task
        self.state = State(task.state)
        self.findings = Findings(task.folder, task.run, task.target)
        files = task.folder / "files"
        files.mkdir(parents=True, exist_ok=True)
        self.target = kind_of(task.target)(files)
        self.seeds = tuple(self.target.seeds())
        self.source = Random(task.seed)
        self.deadline = task.deadline

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self.deadline or (
            self.task.inputs is not None and self.state.tried >= self.task.inputs
        )

    def one(self, data: bytes) -> None:
        """Tries an input."""
        self.state.begin(data)
        accepted = False
        began = time.process_time()
        error = self._error(data)
        took_s = time.process_time() - began
        self.state.memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
        if error is None:
            accepted = self._accepted
            if took_s > self.target.slowest_s:
                self.findings.add("stall", "computes too long", f"{took_s:.1f} s for {len(data)} bytes", data)
        else:
            self._keep(data, error)
        self.state.end(accepted)

    def _error(self, data: bytes) -> BaseException | None:
        self._accepted = False
        try:
            self._accepted = self.target.accepts(data)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a panic of Rust is no Exception
            return error
        return None

    def _keep(self, data: bytes, error: BaseException) -> None:
        cause = cause_of(error)
        verdict: Final = "wrong" if isinstance(error, AssertionError) else "crash"
        if isinstance(error, AssertionError):
            cause = f"{cause}: {str(error)[:100]}"
        if not self.findings.add(verdict, cause, stack(error), data):
            return

        def fails(candidate: bytes) -> bool:
            other = self._error(candidate)
            return other is not None and cause_of(other) == cause_of(error)

        least = smaller(data, fails)
        if len(least) < len(data):
            self.findings.replace_input(verdict, cause, least)

    def known(self) -> None:
        """Seeds, and what failed once."""
        if self.task.replay:
            for data in earlier(self.task.folder, self.task.target):
                self.one(data)
        for data in self.seeds:
            self.one(data)

    def mutated(self) -> None:
        """Mutates seeds until the time is over."""
        while not self.is_over:
            seed = self.source.choice(self.seeds)
            self.one(self.target.mutated(seed, self.source, self.seeds))

    def close(self) -> None:
        self.findings.close()
        self.target.close()


def _limited(trial: Trial) -> Trial:
    """The same, in a process with the target's limits."""
    if (limit := trial.target.address_space) is not None:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    return trial


def in_process(task: Task) -> None:
    """Runs a target in process. Where atheris guides, this does not return: libFuzzer ends the process."""
    try:
        import atheris  # type: ignore[import-untyped]
    except ImportError:
        atheris = None
    if atheris is None or not task.coverage:
        trial = _limited(Trial(task))
        try:
            trial.known()
            trial.mutated()
        finally:
            trial.close()
        return
    with atheris.instrument_imports(include=list(INSTRUMENTED), enable_loader_override=False):
        trial = _limited(Trial(task))
    trial.known()
    corpus = task.folder / "corpus" / task.target
    corpus.mkdir(parents=True, exist_ok=True)
    if not any(corpus.iterdir()):
        for number, data in enumerate(trial.seeds):
            if len(data) <= LARGEST:
                (corpus / f"seed-{number:03}").write_bytes(data)

    def one(data: bytes) -> None:
        if trial.is_over:
            trial.close()
            os._exit(0)
        trial.one(data)

    def change(data: bytes, largest: int, seed: int) -> bytes:
        source = Random(seed)
        if source.random() < 0.25:
            return bytes(atheris.Mutate(data, largest))
        return trial.target.mutated(data, source, trial.seeds)[:largest]

    options = [
        sys.argv[0], str(corpus), f"-seed={task.seed % 2**31 or 1}", f"-max_len={LARGEST}", "-timeout=60",
        "-rss_limit_mb=6000", f"-artifact_prefix={task.folder}/", "-verbosity=0", "-handle_segv=0", "-handle_abrt=0",
        "-handle_int=0", "-handle_term=0", f"-max_total_time={max(1, round(trial.deadline - time.monotonic()))}",
    ]  # fmt: skip
    atheris.Setup(options, one, custom_mutator=change)
    atheris.Fuzz()


def main() -> None:
    """Runs the task of the command line."""
    task = Task.from_json(sys.argv[1])
    os.nice(NICENESS)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the parent ends this process
    signal.signal(signal.SIGTERM, _ended)
    if task.url:
        from tests.fuzz.network.attempt import on_the_network

        on_the_network(task)
    else:
        in_process(task)


def _ended(number: int, frame: FrameType | None) -> None:
    del number, frame
    os._exit(0)


__all__ = ["Finding", "Task", "Trial", "in_process"]

if __name__ == "__main__":
    main()
