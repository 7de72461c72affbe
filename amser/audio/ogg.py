"""Ogg: recordings that were joined, whose codec, rate and channels may differ; pages whose checksum does not fit.

FFmpeg stops where a second recording begins that is not like the first, and leaves out a whole page, a second or more,
where one byte of it is wrong.
"""

from __future__ import annotations

import math
import os
import zlib
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import BinaryIO, Final

from amser.features import RESAMPLED_FROM

MOST_LINKS: Final = 200  # recordings in a file; each is opened
MOST_PAGES: Final = 100_000  # that are looked at, a day of speech; behind them FFmpeg is on its own
HIGHEST_RATE: Final = RESAMPLED_FROM[1]  # of the samples that a page counts
SEARCHED_AT_ONCE: Final = 1 << 16  # bytes
_MAGIC: Final = b"OggS\0"
_HEAD: Final = 27  # bytes of a page in front of the sizes of its segments
_TIME: Final = 6  # where the time of its last sample stands in a page, in eight bytes
_CHECKSUM: Final = 22  # where it stands in a page, in four bytes
_NO_TIME: Final = 1 << 63  # and above: no packet ends in the page
_BEGIN_OF_STREAM, _END_OF_STREAM = 2, 4
_REVERSED: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass(frozen=True, slots=True)
class Pages:
    """Attributes:
    links: begin and end in bytes of each recording.
    patches: bytes to be read in place of those in the file, by where they begin; in order.
    is_damaged: there are pages with a wrong checksum, or such that cannot be told.
    is_cut: the last page is not whole, or not marked as the last.
    """

    links: tuple[tuple[int, int], ...]
    patches: tuple[tuple[int, bytes], ...]
    is_damaged: bool
    is_cut: bool


def pages_of(file: BinaryIO, begin: int, latest_s: float = math.inf) -> Pages:
    """Walks the pages of a file.

    Args:
        file: seekable.
        begin: where it begins behind ID3 tags, in bytes.
        latest_s: no more is looked at than has to be for so many seconds; what stands behind that is left as it is.
    """
    size = file.seek(0, os.SEEK_END)
    begins, patches, end = [begin], list[tuple[int, bytes]](), size
    at, flags, time, is_damaged, is_whole = begin, _BEGIN_OF_STREAM, 0, False, True
    for _ in range(MOST_PAGES):
        if at >= size:
            break
        file.seek(at)
        page = file.read(_HEAD + 255)
        length = page_bytes(page)
        page += file.read(max(0, length + len(_MAGIC) - len(page)))
        is_whole, resumed = 0 < length <= len(page), None
        if not is_whole or page[length : length + len(_MAGIC)] not in (b"", _MAGIC):
            resumed = _next_page(file, at + 1, size)
        if not is_whole and resumed is None:
            is_whole = not page.startswith(_MAGIC)  # it stands behind the last page
            if rest := _begin_of_page(page, time):
                patches.append((at, rest))
                end = at + len(rest)
            break
        is_damaged |= resumed is not None
        if not is_whole:
            at = resumed or size
            continue
        if resumed is None and page[_CHECKSUM : _CHECKSUM + 4] != (right := checksum(page[:length])):
            patches.append((at + _CHECKSUM, right))
            is_damaged = True
        # Streams may begin together, as the pictures and the sound of a film
        if page[5] & _BEGIN_OF_STREAM and not flags & _BEGIN_OF_STREAM and len(begins) < MOST_LINKS:
            begins.append(at)
        at, flags, time = resumed or at + length, page[5], int.from_bytes(page[_TIME : _TIME + 8], "little")
        if HIGHEST_RATE * latest_s < time < _NO_TIME:
            is_whole, flags = True, _END_OF_STREAM  # it is not known
            break
    else:
        is_whole, flags = True, _END_OF_STREAM  # it is not known
    is_cut = not (is_whole and flags & _END_OF_STREAM)
    return Pages(tuple(zip(begins, [*begins[1:], end], strict=True)), tuple(patches), is_damaged, is_cut)


class Link:
    """A recording of a file, as a file, with the patches.

    Args:
        file: seekable.
        pages: of it.
        link: one of its `links`.
    """

    def __init__(self, file: BinaryIO, pages: Pages, link: tuple[int, int]) -> None:
        self._file, self._patches = file, pages.patches
        self._begin, self._end = link
        self._at = self._begin

    def read(self, size: int) -> bytes:
        """Up to `size` bytes."""
        self._file.seek(self._at)
        content = self._file.read(max(0, min(size, self._end - self._at)))
        begin, self._at = self._at, self._at + len(content)
        touched = self._patches[
            max(0, bisect_right(self._patches, (begin,)) - 1) : bisect_left(self._patches, (self._at,))
        ]
        if not touched:
            return content
        mended = bytearray(content)
        for place, patch in touched:
            low, high = max(place, begin), min(place + len(patch), self._at)
            if low < high:
                mended[low - begin : high - begin] = patch[low - place : high - place]
        return bytes(mended)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of any file."""
        self._at = {os.SEEK_SET: self._begin, os.SEEK_CUR: self._at, os.SEEK_END: self._end}[whence] + offset
        return self.tell()

    def tell(self) -> int:
        """The position, in bytes."""
        return self._at - self._begin


def page_bytes(page: bytes) -> int:
    """What a page has by its head; 0 where it is none."""
    if not page.startswith(_MAGIC) or len(page) < _HEAD:
        return 0
    segments = page[_HEAD - 1]
    return _HEAD + segments + sum(page[_HEAD : _HEAD + segments])


def checksum(page: bytes) -> bytes:
    """Of a page, whatever checksum it has (RFC 3533): the CRC that zlib has, with the bits of every byte reversed."""
    blank = page[:_CHECKSUM] + bytes(4) + page[_CHECKSUM + 4 :]
    register = zlib.crc32(blank.translate(_REVERSED), 0xFFFF_FFFF) ^ 0xFFFF_FFFF
    return register.to_bytes(4, "little").translate(_REVERSED)[::-1]


def _begin_of_page(page: bytes, before: int) -> bytes:
    """A page that is cut off, with the packets that are there; empty where there is none.

    Args:
        page: what there is of it.
        before: time of the last sample in the page before.
    """
    segments = page[_HEAD : _HEAD + page[_HEAD - 1]] if page.startswith(_MAGIC) and len(page) > _HEAD else b""
    start = _HEAD + len(segments)
    ends = [count + 1 for count, size in enumerate(segments) if size < 255]  # of packets
    whole = [count for count in ends if sum(segments[:count]) <= len(page) - start]
    if not whole:
        return b""
    kept, time = segments[: whole[-1]], int.from_bytes(page[_TIME : _TIME + 8], "little")
    if before < time:  # FFmpeg counts back from it
        time = before + (time - before) * len(whole) // len(ends)
    head = page[:5] + bytes([page[5] & ~_END_OF_STREAM]) + time.to_bytes(8, "little") + page[_TIME + 8 : _HEAD - 1]
    short = head + bytes([len(kept)]) + kept + page[start : start + sum(kept)]
    return short[:_CHECKSUM] + checksum(short) + short[_CHECKSUM + 4 :]


def _next_page(file: BinaryIO, at: int, size: int) -> int | None:
    while at < size:
        file.seek(at)
        window = file.read(SEARCHED_AT_ONCE + _HEAD)
        if (found := window.find(_MAGIC)) >= 0:
            return at + found
        at += SEARCHED_AT_ONCE
    return None
