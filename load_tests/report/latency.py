"""LatencyHistogram in an HDR histogram (Gil Tene): three digits from a microsecond to an hour, merged without loss."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Self

from hdrh.histogram import HdrHistogram

SHORTEST_US: Final = 1
LONGEST_US: Final = 3_600_000_000  # an hour; what is longer counts as that
DIGITS: Final = 3


class LatencyHistogram:
    """How many took how long.

    Args:
        seconds: recorded at once.
    """

    def __init__(self, seconds: Iterable[float] = ()) -> None:
        self._histogram = HdrHistogram(SHORTEST_US, LONGEST_US, DIGITS)
        for each in seconds:
            self.record(each)

    def __len__(self) -> int:
        return int(self._histogram.get_total_count())

    def record(self, seconds: float) -> None:
        """One more."""
        self._histogram.record_value(min(max(round(1e6 * seconds), SHORTEST_US), LONGEST_US))

    def add(self, other: LatencyHistogram) -> None:
        """All of another's."""
        self._histogram.add(other._histogram)

    def percentile(self, percent: float) -> float:
        """Seconds that so many of 100 did not pass, to three digits; 0 where nothing was recorded."""
        return float(self._histogram.get_value_at_percentile(percent)) / 1e6

    def encoded(self) -> bytes:
        """The histogram in HdrHistogram's compressed V2 format, base64, which the tools of other languages read."""
        return bytes(self._histogram.encode())

    @classmethod
    def decoded(cls, encoded: bytes) -> Self:
        """What `encoded` made."""
        latencies = cls()
        latencies._histogram.decode_and_add(encoded)
        return latencies
