# ruff: noqa: N818 - the names of the errors say what happened; their base class says that it is an error
"""What every codec offers, and what it refuses."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from amser.errors import SignalError

Float32 = NDArray[np.float32]

LARGEST_VALUE: Final = 16.0  # of a log-Mel cell; full-scale speech reaches about 1.8, silence −1.5


class CodecError(SignalError):
    """A log-Mel that cannot be encoded, or a payload that cannot be decoded."""


class UnknownCodec(CodecError):
    """No codec has this name or number."""


class MalformedPayload(CodecError):
    """The payload's length is not the one that its header, the bands and the frames call for."""


class RankTooHigh(CodecError):
    """More components than the receiver accepts, or than the matrix can have."""


class NotFinite(CodecError):
    """A log-Mel that holds NaN, infinity or a value beyond ±`LARGEST_VALUE`."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A log-Mel as bytes.

    Attributes:
        codec: name of the codec that wrote the payload; `mel-f16` where factors would not have been smaller.
        rank: number of components in the payload; None for a codec without factors.
        payload: what `decode` takes.
    """

    codec: str
    rank: int | None
    payload: bytes


@dataclass(frozen=True, slots=True)
class Setting:
    """How finely a codec writes. Each codec takes some of these (`Codec.takes`); None is its default.

    Attributes:
        rate: r / k in (0, 1], k = min(bands, frames), for codecs with factors.
        rank: number of components instead of a rate; more than k means k.
        step: of a quantiser: a name or an index, see `amser.codecs.klt`.
        factors: frames and bands a cell, for interpolation.
    """

    rate: float | None = None
    rank: int | None = None
    step: int | str | None = None
    factors: tuple[int, int] | None = None

    def given(self) -> frozenset[str]:
        """Names of those that are not None."""
        return frozenset(each.name for each in fields(self) if getattr(self, each.name) is not None)


class Codec(Protocol):
    """One way to write a log-Mel. Shapes are always (bands, frames); all numbers are little-endian."""

    @property
    def name(self) -> str:
        """What configurations and reports call it."""

    @property
    def number(self) -> int:
        """What the envelope calls it (`amser.wire`); never reused."""

    @property
    def takes(self) -> frozenset[str]:
        """Fields of `Setting` that it knows."""

    def read_setting(self, text: str) -> Setting:
        """The setting that stands behind a colon, as in `svd-f16:0.125`. Raises ValueError."""

    def pays_off(self, setting: Setting, bands: int, frames: int) -> bool:
        """Whether this codec takes fewer bytes than the Mel itself."""

    def encode(self, log_mel: Float32, setting: Setting) -> bytes:
        """The payload of a checked log-Mel. Raises CodecError for a setting out of range or bands it does not know."""

    def rank(self, payload: bytes) -> int | None:
        """The rank in the payload's header, not yet checked; None for a codec without. Raises MalformedPayload."""

    def check(self, payload: bytes, bands: int, frames: int, max_rank: int) -> None:
        """Refuses what cannot be decoded, before anything is allocated that the payload merely claims.

        Raises:
            MalformedPayload, RankTooHigh: as named.
        """

    def decode(self, payload: bytes, bands: int, frames: int) -> Float32:
        """The log-Mel of a payload that was checked; its values are not yet. May raise MalformedPayload."""


def check_length(name: str, payload: bytes, expected: int, bands: int, frames: int, detail: str = "") -> None:
    """Refuses a payload of any other length. Raises MalformedPayload."""
    if len(payload) != expected:
        what = f"{name} of {bands} bands and {frames} frames{detail}"
        raise MalformedPayload(f"the payload has {len(payload)} bytes", f"{expected} bytes for {what}")


def require_finite(log_mel: Float32) -> Float32:
    """The same log-Mel, if every value is one that a log-Mel can hold.

    Raises:
        NotFinite: as named.
    """
    largest = float(np.abs(log_mel).max())
    if not largest <= LARGEST_VALUE:  # written so that NaN, which compares false, is refused too
        raise NotFinite(f"the log-Mel reaches a magnitude of {largest}", f"finite, within ±{LARGEST_VALUE:g}")
    return log_mel
