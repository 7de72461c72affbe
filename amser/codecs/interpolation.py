"""`interpolation`: the log-Mel averaged down over time and frequency, in half precision. A baseline of the papers.

Payload: uint8 frames a cell, uint8 bands a cell, then float16 (cells over frequency, cells over time), row by row. What
is lost does not depend on the speech: detail finer than a cell goes, wherever it lies.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from amser.codecs.base import CodecError, Float32, MalformedPayload, Setting, check_length

FLOAT16 = np.dtype("<f2")
FACTORS = struct.Struct("<BB")
LARGEST_FACTOR: Final = 16  # frames or bands a cell
DEFAULT_FACTORS: Final = (4, 2)  # 40 ms and 2 of 80 bands: an eighth of the numbers

Factors = tuple[int, int]  # frames a cell, bands a cell


@dataclass(frozen=True, slots=True)
class Interpolation:
    """Two bytes for each cell of frames × bands; linear between the cells' centres."""

    name: str = "interpolation"
    number: int = 4
    takes: frozenset[str] = frozenset({"factors"})

    def read_setting(self, text: str) -> Setting:
        time, frequency = text.split("x")
        return Setting(factors=(int(time), int(frequency)))

    def pays_off(self, setting: Setting, bands: int, frames: int) -> bool:  # noqa: ARG002 - the Protocol's signature
        return True

    def encode(self, log_mel: Float32, setting: Setting) -> bytes:
        factors = setting.factors or DEFAULT_FACTORS
        if not _in_range(factors):
            raise CodecError(f"the factors are {factors[0]} × {factors[1]}", f"1 to {LARGEST_FACTOR} each")
        return FACTORS.pack(*factors) + average(log_mel, factors).astype(FLOAT16).tobytes()

    def factors(self, payload: bytes) -> Factors:
        """Frames and bands a cell, from the header. Raises MalformedPayload if it is cut off or out of range."""
        if len(payload) < FACTORS.size:
            cause = f"the payload has {len(payload)} bytes, too few for its header"
            raise MalformedPayload(cause, f"{FACTORS.size} or more")
        time, frequency = FACTORS.unpack_from(payload)
        if not _in_range((time, frequency)):
            raise MalformedPayload(f"the payload has factors {time} × {frequency}", f"1 to {LARGEST_FACTOR} each")
        return time, frequency

    def payload_length(self, factors: Factors, bands: int, frames: int) -> int:
        """Bytes of a payload with these factors."""
        time, frequency = factors
        return FACTORS.size + FLOAT16.itemsize * _cells(bands, frequency) * _cells(frames, time)

    def rank(self, payload: bytes) -> int | None:  # noqa: ARG002 - the Protocol's signature
        return None

    def check(self, payload: bytes, bands: int, frames: int, max_rank: int) -> None:  # noqa: ARG002
        time, frequency = self.factors(payload)
        expected = self.payload_length((time, frequency), bands, frames)
        check_length(self.name, payload, expected, bands, frames, f" at {time} × {frequency}")

    def decode(self, payload: bytes, bands: int, frames: int) -> Float32:
        time, frequency = self.factors(payload)
        cells = np.frombuffer(payload, FLOAT16, offset=FACTORS.size).astype(np.float32)
        return interpolate(cells.reshape(_cells(bands, frequency), -1), (time, frequency), bands, frames)


def average(log_mel: Float32, factors: Factors) -> NDArray[np.float64]:
    """The mean of each cell. The last cell of an axis is the mean of what is left of it.

    Args:
        log_mel: shape (bands, frames).
        factors: frames a cell, bands a cell.

    Returns:
        float64, shape (⌈bands / bands a cell⌉, ⌈frames / frames a cell⌉).
    """
    means = log_mel.astype(np.float64)  # holds every sum of equal cells exactly, so that a constant stays one
    for axis, factor in enumerate(reversed(factors)):
        size = log_mel.shape[axis]
        starts = np.arange(0, size, factor)
        lengths = np.diff(starts, append=size)
        means = np.add.reduceat(means, starts, axis=axis) / np.expand_dims(lengths, 1 - axis)
    return means


def interpolate(cells: Float32, factors: Factors, bands: int, frames: int) -> Float32:
    """Linear between the centres of the cells; held constant from the outermost centres to the edges.

    Args:
        cells: shape (⌈bands / bands a cell⌉, ⌈frames / frames a cell⌉).
        factors: frames a cell, bands a cell.

    Returns:
        float32, shape (bands, frames).
    """
    time, frequency = factors
    below, above, weight = _neighbours(bands, frequency)
    rows = cells[below] + (cells[above] - cells[below]) * weight[:, None]  # (bands, cells over time)
    before, after, weight = _neighbours(frames, time)
    left = rows[:, before]
    log_mel: Float32 = left + (rows[:, after] - left) * weight
    return log_mel


def _neighbours(size: int, factor: int) -> tuple[NDArray[np.intp], NDArray[np.intp], Float32]:
    """For each of `size` samples the cell whose centre is before it, the one after, and the latter's weight."""
    starts = np.arange(0, size, factor)
    centres = (starts + np.append(starts[1:], size) - 1) / 2
    cell = np.interp(np.arange(size), centres, np.arange(starts.size))  # a fraction of the way to the next
    before = cell.astype(np.intp)
    after = np.minimum(before + 1, starts.size - 1)
    return before, after, (cell - before).astype(np.float32)


def _cells(size: int, factor: int) -> int:
    return -(-size // factor)


def _in_range(factors: Factors) -> bool:
    return all(1 <= factor <= LARGEST_FACTOR for factor in factors)
