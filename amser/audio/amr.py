"""AMR: frames without a mark between them, each as long as the number in its first byte says. One that is damaged puts
FFmpeg out of step, so that frames are looked for here: where three follow each other, the file goes on.
"""

from __future__ import annotations

import os
from types import MappingProxyType
from typing import BinaryIO, Final

from amser.audio.containers import UnknownCodec

MAGICS: Final = MappingProxyType(  # with the bytes of a frame, by the number in its head; 0 is none
    {
        b"#!AMR\n": (13, 14, 16, 18, 20, 21, 27, 32, 6, 0, 0, 0, 0, 0, 0, 1),
        b"#!AMR-WB\n": (18, 24, 33, 37, 41, 47, 51, 59, 61, 6, 0, 0, 0, 0, 1, 1),
    }
)
CHAIN: Final = 3  # frames
NO_DATA: Final = b"\x7c"  # a frame in which nothing is said, in place of one that is lost
MOST_LOST: Final = 250  # frames in a row in whose place one stands, 5 s
READ_AT_ONCE: Final = 1 << 16  # bytes
LONGEST_FRAME: Final = 61
_MARKED: Final = 0x87  # bits of a head: this one good, the others 0
_GOOD: Final = 4


class Frames:
    """The magic and the good frames of a file, to be read once.

    Args:
        file: seekable.
        begin: where its magic is, in bytes.

    Attributes:
        is_damaged: something between two frames was left out.
        is_cut: the last frame is not whole.

    Raises:
        UnknownCodec: it has several channels, which FFmpeg does not read.
    """

    def __init__(self, file: BinaryIO, begin: int) -> None:
        file.seek(begin)
        head = file.read(9)
        self._magic = next((magic for magic in MAGICS if head.startswith(magic)), b"")
        if not self._magic:
            raise UnknownCodec(f"the AMR file begins with {head!r}", "AMR-NB and AMR-WB of one channel")
        self._sizes = MAGICS[self._magic]
        self._file, self._at, self._end = file, begin + len(self._magic), file.seek(0, os.SEEK_END)
        self._ready = self._magic
        self._lost, self._usual = 0, LONGEST_FRAME  # bytes that were left out; of the last good frame
        self.is_damaged = self.is_cut = False

    def read(self, size: int) -> bytes:
        """Up to `size` bytes."""
        while not self._ready and self._at < self._end:
            self._ready = self._frames()
        ready, self._ready = self._ready[:size], self._ready[size:]
        return ready

    def _frames(self) -> bytes:
        """The good frames of the next stretch."""
        self._file.seek(self._at)
        window = self._file.read(READ_AT_ONCE + CHAIN * LONGEST_FRAME)
        good, at = bytearray(), 0
        while at < min(len(window), READ_AT_ONCE):
            size = self._size(window, at)
            behind = at + size
            if not size or (self._lost and not self._follows(window, at)):
                self._lost += 1
                at += 1
                continue
            if behind > len(window):  # READ_AT_ONCE is far from the end of the window: it is that of the file
                self.is_cut, at = True, len(window)
                break
            if self._lost:
                self.is_damaged = True
                good += NO_DATA * min(MOST_LOST, max(1, round(self._lost / self._usual)))
            good += window[at:behind]
            at, self._lost, self._usual = behind, 0, size
        self._at += at
        return bytes(good)

    def _size(self, window: bytes, at: int) -> int:
        return self._sizes[window[at] >> 3 & 15] if window[at] & _MARKED == _GOOD else 0

    def _follows(self, window: bytes, at: int) -> bool:
        """Whether frames follow each other from here on, or up to the end of the file."""
        for _ in range(CHAIN):
            if at >= len(window):
                return True
            size = self._size(window, at)
            if not size:
                return False
            at += size
        return True
