"""WebM and Matroska: damage is found and taken out, so that it costs the blocks in it and no more.

FFmpeg goes on at the next cluster behind an element that it cannot read, and a browser writes clusters of many seconds.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from dataclasses import dataclass
from typing import BinaryIO, Final

MOST_ELEMENTS: Final = 1_000_000  # that are looked at, more than two hours have; behind them FFmpeg is on its own
MOST_CANDIDATES: Final = 100_000  # of places where the file might go on, over all its damage
LARGEST_BLOCK: Final = 1 << 22  # bytes
CHAIN: Final = 3  # elements that follow each other where a file goes on
SEARCHED_AT_ONCE: Final = 1 << 16  # bytes

_CLUSTER: Final = 0x1F43B675
_BLOCKS: Final = {0xA3, 0xA0}
_ENTERED: Final = {0x18538067, _CLUSTER}  # segment and cluster: their children follow
_SKIPPED: Final = _BLOCKS | {
    0x1A45DFA3, 0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1254C367, 0x1941A469, 0x1043A770,
    0xE7, 0xA7, 0xAB, 0x5854, 0xEC, 0xBF,
}  # fmt: skip
_BEGINNINGS: Final = re.compile(rb"[\xa3\xa0]|\x1f\x43\xb6\x75")
_HEAD: Final = 13  # bytes: an id, a size and the number of a block's track


@dataclass(frozen=True, slots=True)
class Damage:
    """Attributes:
    holes: begin and end, in bytes, of what cannot be read and has something readable behind it.
    is_cut: the last element is longer than the file.
    """

    holes: tuple[tuple[int, int], ...]
    is_cut: bool


def damage_of(file: BinaryIO, most: int = MOST_ELEMENTS) -> Damage:
    """Walks the elements of a file, which is seekable; so many at most."""
    size = file.seek(0, os.SEEK_END)
    holes: list[tuple[int, int]] = []
    at = before = candidates = 0
    for _ in range(min(most, MOST_ELEMENTS)):
        if at >= size:
            return Damage(tuple(holes), False)
        end = _end(file, at, size)
        if end is not None and end <= size:
            at, before = end, at
            continue
        resumed, tried = _resumption(file, before + 1, size, MOST_CANDIDATES - candidates)
        candidates += tried
        if resumed is None:
            return Damage(tuple(holes), end is not None)
        # An element whose size is damaged ends anywhere: it is taken out where the file goes on within it
        holes.append((at if resumed > at else before, resumed))
        at = before = resumed
    return Damage(tuple(holes), False)


class Mended:
    """A file whose holes read as elements that are void.

    Args:
        file: seekable.
        holes: of `damage_of`, in order.
    """

    def __init__(self, file: BinaryIO, holes: tuple[tuple[int, int], ...]) -> None:
        self._file = file
        self._voids = [(begin, _void(end - begin)) for begin, end in holes]
        self._begins = [begin for begin, _ in self._voids]
        self._at = 0

    def read(self, size: int) -> bytes:
        """Up to `size` bytes."""
        self._file.seek(self._at)
        content = self._file.read(size)
        begin, end = self._at, self._at + len(content)
        self._at = end
        first = max(0, bisect_right(self._begins, begin) - 1)
        if first >= len(self._voids) or self._begins[first] >= end:
            return content
        mended = bytearray(content)
        for place, void in self._voids[first:]:
            if place >= end:
                break
            low, high = max(begin, place), min(end, place + len(void))
            if low < high:
                mended[low - begin : high - begin] = void[low - place : high - place]
        return bytes(mended)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of any file."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at}.get(whence)
        self._at = offset + (self._file.seek(0, os.SEEK_END) if base is None else base)
        return self._at

    def tell(self) -> int:
        """The position, in bytes."""
        return self._at


def _void(length: int) -> bytes:
    """An element's head: id, and a size that covers the rest. A hole of one byte has no room for a size."""
    if length < 2:
        return b"\xec"
    width = next(width for width in range(1, 9) if length - 1 - width < (1 << 7 * width) - 1)
    return b"\xec" + ((1 << 7 * width) | (length - 1 - width)).to_bytes(width)


def _end(file: BinaryIO, at: int, size: int) -> int | None:
    """Where the element ends, or its children begin; None where none begins here."""
    file.seek(at)
    head = file.read(_HEAD)
    if not head or not head[0] & 0xF0:
        return None
    width = 9 - head[0].bit_length()
    name = int.from_bytes(head[:width])
    if name not in _SKIPPED and name not in _ENTERED:
        return None
    if len(head) <= width or not head[width]:
        return size + 1 if len(head) <= width else None
    length_width = 9 - head[width].bit_length()
    behind = at + width + length_width
    if name in _ENTERED:
        return behind
    length = int.from_bytes(head[width : width + length_width]) & ((1 << 7 * length_width) - 1)
    if name in _BLOCKS and not 4 <= length <= LARGEST_BLOCK:
        return None
    return behind + length


def _resumption(file: BinaryIO, at: int, size: int, candidates: int) -> tuple[int | None, int]:
    """Where elements follow each other again, or None; and how many places were tried, at most so many."""
    tried = 0
    while at < size:
        file.seek(at)
        window = file.read(SEARCHED_AT_ONCE + 3)
        for found in _BEGINNINGS.finditer(window):
            if found.start() >= SEARCHED_AT_ONCE:
                break
            tried += 1
            if tried > candidates:
                return None, tried
            if _goes_on(file, at + found.start(), size):
                return at + found.start(), tried
        at += SEARCHED_AT_ONCE
    return None, tried


def _goes_on(file: BinaryIO, at: int, size: int) -> bool:
    for place in range(CHAIN):
        if at == size:
            return place > 0
        end = _end(file, at, size)
        if end is None or end > size:
            return end is not None and place > 1
        at = end
    return True
