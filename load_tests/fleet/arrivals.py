"""Arrival processes: when requests arrive. Poisson with a rate that follows a profile, from a seed; or a replayed list.

Nothing here knows of requests: a schedule is an array of seconds that the dispatcher of `generator` follows.
"""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from pydantic.dataclasses import dataclass

Float64 = NDArray[np.float64]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Rate = Annotated[float, Field(ge=0, allow_inf_nan=False)]  # requests a second

MOST_ROWS: Final = 1_000_000  # of a replayed file
HALVINGS: Final = 52  # of an interval of float64: no bit is left to be found
_STRICT: Final = ConfigDict(extra="forbid")


class BadReplay(ValueError):  # noqa: N818 - an error by its base class
    """A file that cannot be replayed; the message has the line."""


class NoRate(ValueError):  # noqa: N818 - an error by its base class
    """The profile has no arrivals that could be scaled to a rate."""


class RateProfile(Protocol):
    """A rate over time.

    Attributes:
        seconds: how long it lasts.
        base: requests a second that stand for the whole: what `--rate` sets.
    """

    @property
    def seconds(self) -> float: ...
    @property
    def base(self) -> float: ...

    def rate_at(self, t: Float64) -> Float64:
        """Requests a second at each of these seconds."""

    def expected(self, t: Float64) -> Float64:
        """Mean number of arrivals until each of these seconds: the rate, integrated from 0."""

    def scaled(self, factor: float) -> Self:
        """The same shape with so many times the arrivals."""

    def lasting(self, seconds: float) -> Self:
        """The same shape, stretched or squeezed in time."""


@dataclass(frozen=True, slots=True, config=_STRICT)
class Constant:
    """One rate all the time."""

    seconds: Positive
    rate: Rate
    kind: Literal["constant"] = "constant"

    @property
    def base(self) -> float:
        return self.rate

    def rate_at(self, t: Float64) -> Float64:
        return np.full_like(t, self.rate)

    def expected(self, t: Float64) -> Float64:
        return self.rate * t

    def scaled(self, factor: float) -> Constant:
        return replace(self, rate=factor * self.rate)

    def lasting(self, seconds: float) -> Constant:
        return replace(self, seconds=seconds)


@dataclass(frozen=True, slots=True, config=_STRICT)
class Ramp:
    """From one rate to another in a straight line."""

    seconds: Positive
    first: Rate
    last: Rate
    kind: Literal["ramp"] = "ramp"

    @property
    def base(self) -> float:
        return (self.first + self.last) / 2

    def rate_at(self, t: Float64) -> Float64:
        return self.first + (self.last - self.first) * t / self.seconds

    def expected(self, t: Float64) -> Float64:
        return t * (self.first + self.rate_at(t)) / 2

    def scaled(self, factor: float) -> Ramp:
        return replace(self, first=factor * self.first, last=factor * self.last)

    def lasting(self, seconds: float) -> Ramp:
        return replace(self, seconds=seconds)


@dataclass(frozen=True, slots=True, config=_STRICT)
class Burst:
    """A rate, and another one from `at_s` on for `for_s` seconds."""

    seconds: Positive
    rate: Rate
    peak: Rate
    at_s: Rate
    for_s: Positive
    kind: Literal["burst"] = "burst"

    @property
    def base(self) -> float:
        return self.rate

    def rate_at(self, t: Float64) -> Float64:
        return np.where((t >= self.at_s) & (t < self.at_s + self.for_s), self.peak, self.rate)

    def expected(self, t: Float64) -> Float64:
        return self.rate * t + (self.peak - self.rate) * np.clip(t - self.at_s, 0, self.for_s)

    def scaled(self, factor: float) -> Burst:
        return replace(self, rate=factor * self.rate, peak=factor * self.peak)

    def lasting(self, seconds: float) -> Burst:
        stretch = seconds / self.seconds
        return replace(self, seconds=seconds, at_s=stretch * self.at_s, for_s=stretch * self.for_s)


@dataclass(frozen=True, slots=True, config=_STRICT)
class Diurnal:
    """A day squeezed into `seconds`: a sine around a mean rate, lowest at both ends, `peak` times the mean at noon."""

    seconds: Positive
    rate: Rate
    peak: Annotated[float, Field(ge=1, le=2)]
    kind: Literal["diurnal"] = "diurnal"

    @property
    def base(self) -> float:
        return self.rate

    def rate_at(self, t: Float64) -> Float64:
        return self.rate * (1 - (self.peak - 1) * np.cos(2 * math.pi * t / self.seconds))

    def expected(self, t: Float64) -> Float64:
        turn = 2 * math.pi / self.seconds
        return self.rate * (t - (self.peak - 1) / turn * np.sin(turn * t))

    def scaled(self, factor: float) -> Diurnal:
        return replace(self, rate=factor * self.rate)

    def lasting(self, seconds: float) -> Diurnal:
        return replace(self, seconds=seconds)


class Replay(BaseModel):
    """Arrivals from a CSV file with a column `seconds` and, where it is known, `device`. It is read when it is used.

    Attributes:
        file: the CSV file.
        stretch: how much slower it is replayed.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["replay"] = "replay"
    file: Path
    stretch: Positive = 1.0

    @cached_property
    def rows(self) -> tuple[Float64, NDArray[np.int64] | None]:
        """Seconds in order, and the device of each where the file has the column. Raises BadReplay, OSError."""
        return read_replay(self.file)

    @property
    def times(self) -> Float64:
        """Sorted seconds of the arrivals."""
        return self.rows[0] * self.stretch

    @property
    def seconds(self) -> float:
        return float(self.times[-1])

    @property
    def base(self) -> float:
        return self.times.size / self.seconds if self.seconds else 0.0

    def rate_at(self, t: Float64) -> Float64:
        """Arrivals in the second around each of these."""
        return self.expected(t + 0.5) - self.expected(t - 0.5)

    def expected(self, t: Float64) -> Float64:
        return np.searchsorted(self.times, t, "right").astype(np.float64)

    def scaled(self, factor: float) -> Replay:
        """As many arrivals, in less time."""
        return self.model_copy(update={"stretch": self.stretch / factor})

    def lasting(self, seconds: float) -> Replay:
        return self.model_copy(update={"stretch": self.stretch * seconds / self.seconds})


P = TypeVar("P", bound=RateProfile)
AnyRateProfile = Annotated[Constant | Ramp | Burst | Diurnal | Replay, Field(discriminator="kind")]


def at_rate(profile: P, rate: float) -> P:
    """The profile with another base rate; everything in it grows alike.

    Raises:
        NoRate: it has no arrivals to begin with.
    """
    if profile.base <= 0:
        raise NoRate("a profile without arrivals cannot be scaled to a rate")
    return profile.scaled(rate / profile.base)


def schedule(profile: RateProfile, seed: int) -> Float64:
    """Arrival times of a Poisson process with the rate of the profile, by inversion of the integrated rate.

    Given their number, the arrivals of a Poisson process are independent and uniform in expected arrivals (Lewis and
    Shedler, 1979). A replay is what it is and needs no seed.

    Returns:
        float64, sorted seconds in [0, profile.seconds].
    """
    if isinstance(profile, Replay):
        return profile.times
    rng = np.random.default_rng(seed)
    total = float(profile.expected(np.array([profile.seconds]))[0])
    wanted = np.sort(rng.uniform(0, total, rng.poisson(total)))
    low, high = np.zeros_like(wanted), np.full_like(wanted, profile.seconds)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        is_later = profile.expected(middle) < wanted
        low, high = np.where(is_later, middle, low), np.where(is_later, high, middle)
    return high


def read_replay(file: Path) -> tuple[Float64, NDArray[np.int64] | None]:
    """Seconds, sorted, and device numbers of a CSV file; no devices where the column is missing.

    Raises:
        OSError: it cannot be read.
        BadReplay: no column `seconds`, no row, too many, or a row that is no number from 0 on.
    """
    times: list[float] = []
    devices: list[int] = []
    with file.open(encoding="utf-8", newline="") as lines:
        table = csv.DictReader(lines)
        if "seconds" not in (table.fieldnames or ()):
            raise BadReplay(f"{file}, line 1: needs a column `seconds`")
        has_devices = "device" in (table.fieldnames or ())
        for row in table:
            if len(times) == MOST_ROWS:
                raise BadReplay(f"{file}, line {table.line_num}: more than {MOST_ROWS:,} rows")
            times.append(_number(row["seconds"], file, table.line_num))
            if has_devices:
                devices.append(_device(row["device"], file, table.line_num))
    if not times or max(times) <= 0:
        raise BadReplay(f"{file}: has no arrival after second 0")
    order = np.argsort(times, kind="stable")
    return np.array(times)[order], np.array(devices, np.int64)[order] if has_devices else None


def _number(text: str | None, file: Path, line: int) -> float:
    try:
        seconds = float(text or "")
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise BadReplay(f"{file}, line {line}: {text!r} is no number of seconds from 0 on")
    return seconds


def _device(text: str | None, file: Path, line: int) -> int:
    if text is None or not text.strip().isdecimal():
        raise BadReplay(f"{file}, line {line}: {text!r} is no number of a device")
    return int(text)
