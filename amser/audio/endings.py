"""Whether a file ends where its last frame does: what is cut off says so in a way of its own in each format."""

from __future__ import annotations

import os
from typing import BinaryIO, Final

OGG_TAIL: Final = 1 << 17  # bytes; a page has 65,307 at most
_END_OF_STREAM: Final = 4
_KBIT_S: Final = (  # of MP3's frames, by the number in their head: MPEG 1, and MPEG 2 and 2.5
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0),
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0),
)
_RATES: Final = (44_100, 48_000, 32_000, 0)  # Hz; half of it in MPEG 2, a quarter in 2.5
_XING_WITHIN: Final = 64  # bytes of the first frame


def ogg_is_cut(file: BinaryIO) -> bool:
    """Whether the last page is not whole, or not marked as the last."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - OGG_TAIL))
    tail = file.read(OGG_TAIL)
    at = tail.rfind(b"OggS")
    if at < 0 or len(tail) < at + 27:
        return True
    lacing = tail[at + 27 : at + 27 + tail[at + 26]]
    is_whole = at + 27 + tail[at + 26] + sum(lacing) <= len(tail)
    return not (is_whole and tail[at + 5] & _END_OF_STREAM)


def frame_bytes(head: bytes) -> int:
    """Bytes that a frame of MP3 or ADTS AAC has, by its head; 0 where it has none."""
    if len(head) < 7 or head[0] != 0xFF:
        return 0
    if head[1] & 0xF6 == 0xF0:
        return (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    if head[1] & 0xE6 != 0xE2:
        return 0
    version = head[1] >> 3 & 3  # 3 is MPEG 1, 2 is MPEG 2, 0 is MPEG 2.5
    rate = _RATES[head[2] >> 2 & 3] >> (0, 0, 1, 0)[version] >> (2 if version == 0 else 0)
    bits = _KBIT_S[version != 3][head[2] >> 4] * 1000
    return (144 if version == 3 else 72) * bits // rate + (head[2] >> 1 & 1) if rate and bits else 0


def stated_mp3_samples(file: BinaryIO, begin: int) -> int:
    """What the first frame says of all, in samples a channel; 0 where it says nothing."""
    file.seek(begin)
    head = file.read(_XING_WITHIN)
    at = max(head.find(b"Xing"), head.find(b"Info"))
    if at < 0 or len(head) < at + 12 or not head[at + 7] & 1:
        return 0
    return int.from_bytes(head[at + 8 : at + 12]) * (1152 if head[1] >> 3 & 3 == 3 else 576)
