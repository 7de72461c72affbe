"""What a child that tries inputs tells its parent, through a file that outlives it: how many, and which one now."""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.fuzz.findings import LARGEST

_HEAD: Final = struct.Struct("<QQQI")  # tried, accepted, most resident memory in bytes, length of the input at work


@dataclass(frozen=True, slots=True)
class Progress:
    """Attributes:
    tried: inputs that were begun.
    accepted: of them.
    memory: bytes, the most that the child has held.
    current: the input at work, the last one where the child died.
    """

    tried: int = 0
    accepted: int = 0
    memory: int = 0
    current: bytes = b""


class State:
    """The child's side: a few microseconds an input.

    Args:
        path: of the file, made anew.
    """

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(_HEAD.size))
        with path.open("r+b") as file:
            file.truncate(_HEAD.size + LARGEST)
            self._map = mmap.mmap(file.fileno(), _HEAD.size + LARGEST)
        self.tried = self.accepted = self.memory = 0

    def begin(self, data: bytes) -> None:
        """The next input."""
        self.tried += 1
        data = data[:LARGEST]
        self._map[_HEAD.size : _HEAD.size + len(data)] = data
        self._write(len(data))

    def end(self, accepted: bool) -> None:
        """What became of it."""
        self.accepted += accepted
        self._write(0)

    def _write(self, length: int) -> None:
        _HEAD.pack_into(self._map, 0, self.tried, self.accepted, self.memory, length)


def read(path: Path) -> Progress:
    """The parent's side."""
    if not path.exists():
        return Progress()
    with path.open("rb") as file:
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size:
            return Progress()
        tried, accepted, memory, length = _HEAD.unpack(head)
        return Progress(tried, accepted, memory, file.read(length))
