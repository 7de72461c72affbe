"""What went wrong, with the input that did it: kept in a folder, one a cause, and tried again in the next run."""

from __future__ import annotations

import hashlib
import json
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Final, Literal

from tests.fuzz import ROOT

KEPT: Final = ROOT / "tests" / "data" / "fuzz"  # inputs that once failed, in the repository; tried first
FOUND: Final = "found"  # folder of a run's own
LARGEST: Final = 4 << 20  # bytes of an input that are kept
MINIMISING: Final = 300  # attempts

Verdict = Literal["crash", "stall", "memory", "wrong", "refusal"]
"""crash: a process died or was replaced, an error that nobody expected, a 500. stall: somebody had to wait too long.
memory: it grows. wrong: an answer that is not the right one. refusal: one that is no problem document."""
VERDICTS: Final[tuple[Verdict, ...]] = ("crash", "stall", "memory", "wrong", "refusal")


@dataclass(frozen=True, slots=True)
class Finding:
    """Attributes:
    target: who found it.
    verdict: see `Verdict`.
    cause: the same for every input that shows the same fault.
    detail: of the first such input, for whoever repairs it.
    run: which run has seen it last.
    times: in that run.
    size: bytes of the input; 0 where it is a sequence of events.
    """

    target: str
    verdict: Verdict
    cause: str
    detail: str = ""
    run: str = ""
    times: int = 1
    size: int = 0

    @property
    def name(self) -> str:
        """Of its files."""
        digest = hashlib.sha256(f"{self.verdict} {self.cause}".encode("utf-8", "replace")).hexdigest()
        return f"{self.target}-{self.verdict}-{digest[:10]}"


class Findings:
    """The findings of one target in a folder.

    Args:
        folder: of the run; a file of JSON and one with the input for each.
        run: its name.
        target: that finds.
    """

    def __init__(self, folder: Path, run: str, target: str) -> None:
        self._folder, self._run, self.target = folder / FOUND, run, target
        self._seen: dict[str, Finding] = {}

    def __len__(self) -> int:
        return len(self._seen)

    def add(self, verdict: Verdict, cause: str, detail: str = "", data: bytes = b"") -> bool:
        """Keeps the first input of each cause, and counts. Returns whether it is the first."""
        data = data[:LARGEST]
        new = Finding(self.target, verdict, cause[:400], detail[-4000:], self._run, 1, len(data))
        known = self._seen.get(new.name)
        found = self._seen[new.name] = new if known is None else replace(known, times=known.times + 1)
        self._folder.mkdir(parents=True, exist_ok=True)
        if known is None and data:
            (self._folder / f"{found.name}.bin").write_bytes(data)
        if known is None or found.times & (found.times - 1) == 0:  # powers of two: some causes come by the thousand
            self._write(found)
        return known is None

    def close(self) -> None:
        """Writes how often each was seen."""
        for found in self._seen.values():
            self._write(found)

    def replace_input(self, verdict: Verdict, cause: str, data: bytes) -> None:
        """Keeps a smaller input of a cause that is known."""
        name = Finding(self.target, verdict, cause[:400]).name
        if name in self._seen:
            self._seen[name] = replace(self._seen[name], size=len(data))
            (self._folder / f"{name}.bin").write_bytes(data)

    def _write(self, found: Finding) -> None:
        (self._folder / f"{found.name}.json").write_text(json.dumps(asdict(found), indent=1, ensure_ascii=True))


def earlier(folder: Path, target: str) -> list[bytes]:
    """Inputs of a target that failed once: those of the repository, then those of the folder."""
    return [
        path.read_bytes()
        for place in (KEPT, folder / FOUND)
        for path in sorted(place.glob(f"{target}-*"))
        if path.suffix != ".json"
    ]


def of_run(folder: Path, run: str) -> Iterator[Finding]:
    """All that a run has found."""
    for path in sorted((folder / FOUND).glob("*.json")):
        found = Finding(**json.loads(path.read_text()))
        if found.run == run:
            yield found


def cause_of(error: BaseException) -> str:
    """The kind of an error and where it was raised last in code of ours."""
    place = "elsewhere"
    for frame in traceback.extract_tb(error.__traceback__):
        path = Path(frame.filename)
        if path.is_relative_to(ROOT) and ".venv" not in path.parts:
            place = f"{path.relative_to(ROOT)}:{frame.name}"
    return f"{type(error).__name__} in {place}"


def smaller(data: bytes, fails: Callable[[bytes], bool]) -> bytes:
    """A shorter input that fails in the same way: pieces are left out, large ones first, as long as it still fails."""
    left = MINIMISING
    piece = len(data) // 2
    while piece and left > 0:
        at = 0
        while at < len(data) and left > 0:
            left -= 1
            candidate = data[:at] + data[at + piece :]
            if fails(candidate):
                data = candidate
            else:
                at += piece
        piece //= 2
    return data


def stack(error: BaseException) -> str:
    """The traceback, its end if it is long."""
    trace: TracebackType | None = error.__traceback__
    return "".join(traceback.format_exception(type(error), error, trace))[-4000:]
