"""What the heads of frames say of MP3 and AAC: how long a frame is, and how many there are."""

from __future__ import annotations

from typing import BinaryIO, Final

_KBIT_S: Final = (  # of MP3's frames, by the number in their head: MPEG 1, and MPEG 2 and 2.5
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0),
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0),
)
_RATES: Final = (44_100, 48_000, 32_000, 0)  # Hz; half of it in MPEG 2, a quarter in 2.5
_XING_WITHIN: Final = 64  # bytes of the first frame


def frame_bytes(head: bytes) -> int:
    """Bytes that a frame of MP3 or ADTS AAC has, by its head; 0 where it has none."""
    if len(head) < 7 or head[0] != 0xFF:
        return 0
    if head[1] & 0xF6 == 0xF0:
        return (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    if head[1] & 0xE6 != 0xE2:
        return 0
    is_first = head[1] >> 3 & 3 == 3  # MPEG 1
    rate, bits = _rate(head), _KBIT_S[not is_first][head[2] >> 4] * 1000
    return (144 if is_first else 72) * bits // rate + (head[2] >> 1 & 1) if rate and bits else 0


def _rate(head: bytes) -> int:
    """Of an MP3's frame, in Hz; 0 for none."""
    return _RATES[head[2] >> 2 & 3] >> (2, 0, 1, 0)[head[1] >> 3 & 3] if len(head) > 2 else 0


def stated_mp3_seconds(file: BinaryIO, begin: int) -> float:
    """How long the first frame says that all are; 0 where it says nothing."""
    file.seek(begin)
    head = file.read(_XING_WITHIN)
    at = max(head.find(b"Xing"), head.find(b"Info"))
    rate = _rate(head)
    if at < 0 or len(head) < at + 12 or not head[at + 7] & 1 or not rate:
        return 0.0
    return int.from_bytes(head[at + 8 : at + 12]) * (1152 if head[1] >> 3 & 3 == 3 else 576) / rate
