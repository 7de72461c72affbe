"""Ogg: recordings that were joined, whose codec, rate and channels may differ, and whether the last page is there."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import BinaryIO, Final

MOST_LINKS: Final = 200  # recordings in a file; each is opened
SEARCHED_AT_ONCE: Final = 1 << 20  # bytes
TAIL: Final = 1 << 17  # bytes; a page has 65,307 at most
_HEAD: Final = 27  # bytes of a page in front of the sizes of its segments
_FIRST: Final = re.compile(rb"OggS\0[\x02\x06]")  # a page that begins a stream
_END_OF_STREAM: Final = 4


@dataclass(frozen=True, slots=True)
class Links:
    """Attributes:
    parts: begin and end in bytes of each recording.
    is_cut: the last page is not whole, or not marked as the last.
    """

    parts: tuple[tuple[int, int], ...]
    is_cut: bool


def links_of(file: BinaryIO, begin: int) -> Links:
    """The recordings in a file, which is seekable, from `begin` on."""
    size = file.seek(0, os.SEEK_END)
    begins, behind, at = [begin], begin, begin
    while at < size and len(begins) < MOST_LINKS:
        file.seek(at)
        window = file.read(SEARCHED_AT_ONCE + _HEAD + 255)
        for found in _FIRST.finditer(window):
            place = found.start()
            if place >= SEARCHED_AT_ONCE:
                break
            if at + place > behind:  # else streams that begin together, as the pictures and the sound of a film
                begins.append(at + place)
            behind = at + place + _page_bytes(window[place : place + _HEAD + 255])
        at += SEARCHED_AT_ONCE
    return Links(tuple(zip(begins, [*begins[1:], size], strict=True)), _is_cut(file, size))


class Part:
    """A part of a file, as a file.

    Args:
        file: seekable.
        begin, end: in bytes.
    """

    def __init__(self, file: BinaryIO, begin: int, end: int) -> None:
        self._file, self._begin, self._end, self._at = file, begin, end, begin

    def read(self, size: int) -> bytes:
        """Up to `size` bytes."""
        self._file.seek(self._at)
        content = self._file.read(max(0, min(size, self._end - self._at)))
        self._at += len(content)
        return content

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of any file."""
        self._at = {os.SEEK_SET: self._begin, os.SEEK_CUR: self._at, os.SEEK_END: self._end}[whence] + offset
        return self.tell()

    def tell(self) -> int:
        """The position, in bytes."""
        return self._at - self._begin


def _page_bytes(head: bytes) -> int:
    segments = head[_HEAD - 1] if len(head) >= _HEAD else 0
    return _HEAD + segments + sum(head[_HEAD : _HEAD + segments])


def _is_cut(file: BinaryIO, size: int) -> bool:
    file.seek(max(0, size - TAIL))
    tail = file.read(TAIL)
    at = tail.rfind(b"OggS")
    if at < 0 or len(tail) < at + _HEAD:
        return True
    return at + _page_bytes(tail[at : at + _HEAD + 255]) > len(tail) or not tail[at + 5] & _END_OF_STREAM
