# ruff: noqa: N818 - the names of the errors say what happened; their base class says that it is an error
"""What every codec offers, and what it refuses."""

from __future__ import annotations

from dataclasses import dataclass
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


class Codec(Protocol):
    """One way to write a log-Mel. Shapes are always (bands, frames); all numbers are little-endian.

    Lengths are checked before `decode` is called, so that a codec allocates only what the payload itself pays for.
    """

    @property
    def name(self) -> str:
        """What configurations and reports call it."""

    @property
    def number(self) -> int:
        """What the envelope calls it (`amser.wire`); never reused."""

    def pays_off(self, rank: int, bands: int, frames: int) -> bool:
        """Whether this codec is worth it, against sending the Mel itself."""

    def encode(self, log_mel: Float32, rank: int) -> bytes:
        """The payload of a checked log-Mel; `rank` is between 1 and min(bands, frames)."""

    def rank(self, payload: bytes) -> int | None:
        """The rank in the payload's header, not yet checked. Raises MalformedPayload if the header is cut off."""

    def payload_length(self, rank: int | None, bands: int, frames: int) -> int:
        """Bytes of a payload with this rank."""

    def decode(self, payload: bytes, bands: int, frames: int) -> Float32:
        """The log-Mel of a payload of the right length; its values are not yet checked."""


def require_finite(log_mel: Float32) -> Float32:
    """The same log-Mel, if every value is one that a log-Mel can hold.

    Raises:
        NotFinite: as named.
    """
    largest = float(np.abs(log_mel).max())
    if not largest <= LARGEST_VALUE:  # written so that NaN, which compares false, is refused too
        raise NotFinite(f"the log-Mel reaches a magnitude of {largest}", f"finite, within ±{LARGEST_VALUE:g}")
    return log_mel
