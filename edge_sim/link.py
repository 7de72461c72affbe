# ruff: noqa: N818 - the names of the errors say what happened; their base class says that it is an error
"""Packets → when the radio transfers them: a link to the Internet, constant or replayed from a trace, BLE, LoRa."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol

Direction = Literal["up", "down"]

PACKET_OF_A_TRACE: Final = 1500  # bytes that one line of a mahimahi trace delivers
LARGEST_TRACE: Final = 16 * 1024 * 1024  # bytes
LONGEST_TRACE_MS: Final = 24 * 3600 * 1000
_ROUNDING_MS: Final = 1e-6  # a start that a float missed by less than this is on the millisecond


class TraceError(ValueError):
    """A file that is no mahimahi trace."""


class MalformedTrace(TraceError):
    """A line that is no whole millisecond, runs backwards, or a trace that never delivers."""


class TraceTooLarge(TraceError):
    """More bytes or hours than are read."""


@dataclass(frozen=True, slots=True)
class Burst:
    """Airtime: start and end of a transmission, in seconds."""

    start_s: float
    end_s: float


class Link(Protocol):
    """When packets that are ready are transferred."""

    @property
    def rtt_ms(self) -> float:
        """Round trip of a packet that is too small to count, without its airtime."""

    def trains(self, packets: Sequence[int]) -> Iterator[Sequence[int]]:
        """The packets in groups that follow each other without a gap; each entry is a packet's bytes."""

    def begin(self, ready_s: float, direction: Direction, last_sent: Burst | None) -> float:
        """The first second at which a train may start; `last_sent` is what the device sent before."""

    def end(self, start_s: float, train: Sequence[int], direction: Direction) -> float:
        """The second, after `start_s`, at which the last byte of a train is delivered."""


class _Internet:
    """A train is a whole flight, and may start at once."""

    def trains(self, packets: Sequence[int]) -> Iterator[Sequence[int]]:
        if packets:
            yield packets

    def begin(self, ready_s: float, direction: Direction, last_sent: Burst | None) -> float:  # noqa: ARG002
        return ready_s


@dataclass(frozen=True)
class ConstantLink(_Internet):
    """Constant throughput and round trip."""

    uplink_mbit_s: float
    downlink_mbit_s: float
    rtt_ms: float

    def end(self, start_s: float, train: Sequence[int], direction: Direction) -> float:
        rate = self.uplink_mbit_s if direction == "up" else self.downlink_mbit_s
        return start_s + 8e-6 * sum(train) / rate


@dataclass(frozen=True, slots=True)
class Trace:
    """When a link could deliver 1500 bytes: mahimahi's format, repeated for ever.

    Attributes:
        opportunities_ms: not decreasing; the last one is the trace's period and above 0.

    Raises:
        MalformedTrace: they are not.
    """

    opportunities_ms: tuple[int, ...]

    def __post_init__(self) -> None:
        times = self.opportunities_ms
        if not times or times[-1] <= 0:
            raise MalformedTrace("the trace never delivers: it needs a line above 0 ms")
        if times[0] < 0 or any(later < earlier for earlier, later in zip(times, times[1:], strict=False)):
            raise MalformedTrace("the trace runs backwards: milliseconds must not decrease")

    @property
    def mbit_s(self) -> float:
        """Mean throughput."""
        return 8e-3 * PACKET_OF_A_TRACE * len(self.opportunities_ms) / self.opportunities_ms[-1]

    def delivered(self, start_s: float, count: int) -> float:
        """The second at which `count` bytes, ready at `start_s`, have been delivered.

        An opportunity carries up to 1500 bytes of several packets, as in mahimahi; an unused one is lost.
        """
        if count == 0:
            return start_s
        period, lines = self.opportunities_ms[-1], len(self.opportunities_ms)
        ready_ms = max(0.0, 1000 * start_s - _ROUNDING_MS)
        rounds = max(0, math.ceil(ready_ms / period) - 1)  # the last line of a round is still of that round
        first = rounds * lines + bisect_left(self.opportunities_ms, ready_ms - rounds * period)
        rounds_after, line = divmod(first + math.ceil(count / PACKET_OF_A_TRACE) - 1, lines)
        return max(start_s, (rounds_after * period + self.opportunities_ms[line]) / 1000)


def read_trace(path: Path) -> Trace:
    """A mahimahi trace: on each line a millisecond at which the link can deliver 1500 bytes.

    Raises:
        OSError: the file cannot be read.
        TraceTooLarge: above 16 MiB or 24 hours.
        MalformedTrace: as named.
    """
    if path.stat().st_size > LARGEST_TRACE:
        raise TraceTooLarge(f"{path.name} has {path.stat().st_size} bytes; up to {LARGEST_TRACE} are read")
    times: list[int] = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        digits = line.strip()
        if not digits:
            continue
        if not digits.isdigit() or len(digits) > 12:
            raise MalformedTrace(f"{path.name}, line {number}: {digits[:20]!r} is no whole number of milliseconds")
        if times and int(digits) < times[-1]:
            raise MalformedTrace(f"{path.name}, line {number}: {int(digits)} ms come after {times[-1]} ms")
        if int(digits) > LONGEST_TRACE_MS:
            raise TraceTooLarge(f"{path.name}, line {number}: above {LONGEST_TRACE_MS} ms, 24 hours")
        times.append(int(digits))
    return Trace(tuple(times))


@dataclass(frozen=True)
class TraceLink(_Internet):
    """Throughput replayed from traces, constant round trip. A delivery takes a trace's resolution, 1 ms, at least."""

    uplink: Trace
    downlink: Trace
    rtt_ms: float

    def end(self, start_s: float, train: Sequence[int], direction: Direction) -> float:
        trace = self.uplink if direction == "up" else self.downlink
        return max(trace.delivered(start_s, sum(train)), start_s + 0.001)


@dataclass(frozen=True, slots=True)
class BleLink:
    """Bluetooth Low Energy, connected: packets leave at connection events only, a few at each."""

    connection_interval_ms: float
    packets_per_event: int
    phy_mbit_s: float
    inter_frame_space_us: float
    rtt_ms: float
    ack_bytes: int = 10

    def trains(self, packets: Sequence[int]) -> Iterator[Sequence[int]]:
        for first in range(0, len(packets), self.packets_per_event):
            yield packets[first : first + self.packets_per_event]

    def begin(self, ready_s: float, direction: Direction, last_sent: Burst | None) -> float:  # noqa: ARG002
        interval = self.connection_interval_ms / 1000
        return interval * math.ceil(ready_s / interval - 1e-9)

    def end(self, start_s: float, train: Sequence[int], direction: Direction) -> float:  # noqa: ARG002
        bits = 8 * (sum(train) + self.ack_bytes * len(train))
        return start_s + 1e-6 * (bits / self.phy_mbit_s + 2 * self.inter_frame_space_us * len(train))


@dataclass(frozen=True, slots=True)
class LoRaLink:
    """LoRaWAN class A: after each packet the device is silent until its duty cycle is kept; answers come in RX1.

    A cluster that answers later than RX1 would have to wait for the next uplink; here the gateway sends at once.
    """

    spreading_factor: int
    bandwidth_khz: float
    coding_rate: int
    preamble_symbols: int
    duty_cycle_percent: float
    receive_delay_ms: float
    rtt_ms: float

    def airtime_s(self, packet: int) -> float:
        """Seconds that a packet of so many bytes takes: explicit header, CRC (SX1276 data sheet, 4.1.1.7)."""
        symbol_s = (1 << self.spreading_factor) / (1000 * self.bandwidth_khz)
        low_rate = 2 if symbol_s > 0.016 else 0
        bits = 8 * packet - 4 * self.spreading_factor + 28 + 16
        blocks = max(0, math.ceil(bits / (4 * (self.spreading_factor - low_rate))))
        return symbol_s * (self.preamble_symbols + 4.25 + 8 + blocks * (self.coding_rate + 4))

    def trains(self, packets: Sequence[int]) -> Iterator[Sequence[int]]:
        for packet in packets:
            yield (packet,)

    def begin(self, ready_s: float, direction: Direction, last_sent: Burst | None) -> float:
        if last_sent is None:
            return ready_s
        if direction == "down":
            return max(ready_s, last_sent.end_s + self.receive_delay_ms / 1000)
        airtime = last_sent.end_s - last_sent.start_s
        return max(ready_s, last_sent.end_s + airtime * (100 / self.duty_cycle_percent - 1))

    def end(self, start_s: float, train: Sequence[int], direction: Direction) -> float:  # noqa: ARG002
        return start_s + sum(self.airtime_s(packet) for packet in train)
