"""log-Mel ↔ bytes: one registry, one file a codec.

The device calls `encode` and puts the result into an envelope (`amser.wire`); the cluster calls `decode`.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from amser.codecs.base import (
    LARGEST_VALUE,
    Codec,
    CodecError,
    Encoded,
    Float32,
    MalformedPayload,
    NotFinite,
    RankTooHigh,
    UnknownCodec,
    require_finite,
)
from amser.codecs.mel_f16 import MelF16
from amser.codecs.svd import element_ratio, rank_for_rate, rank_ratio
from amser.codecs.svd_f16 import SvdF16
from amser.codecs.svd_i8 import SvdI8

__all__ = [
    "CODECS",
    "DEFAULT_CODEC",
    "DEFAULT_RATE",
    "LARGEST_VALUE",
    "MAXIMUM_RANK",
    "Codec",
    "CodecError",
    "Encoded",
    "MalformedPayload",
    "NotFinite",
    "RankTooHigh",
    "UnknownCodec",
    "by_name",
    "by_number",
    "check_payload",
    "decode",
    "element_ratio",
    "encode",
    "payload_rank",
    "rank_for_rate",
    "rank_ratio",
]

_MEL: Final = MelF16()
CODECS: Final = MappingProxyType({codec.name: codec for codec in (_MEL, SvdF16(), SvdI8())})
DEFAULT_CODEC: Final = "svd-f16"
DEFAULT_RATE: Final = 0.125  # the papers' operating point: rank 10 of 80
MAXIMUM_RANK: Final = 80


def by_name(name: str) -> Codec:
    """The codec of this name. Raises UnknownCodec."""
    try:
        return CODECS[name]
    except KeyError:
        raise UnknownCodec(f"no codec {name!r}", ", ".join(CODECS)) from None


def by_number(number: int) -> Codec:
    """The codec of this number on the wire. Raises UnknownCodec."""
    for codec in CODECS.values():
        if codec.number == number:
            return codec
    raise UnknownCodec(f"no codec number {number}", ", ".join(f"{c.number} ({c.name})" for c in CODECS.values()))


def encode(
    log_mel: ArrayLike, codec: str = DEFAULT_CODEC, *, rate: float | None = None, rank: int | None = None
) -> Encoded:
    """A log-Mel as bytes.

    Where the codec's factors would be no smaller than the Mel itself, the Mel is sent: `Encoded.codec` says so.

    Args:
        log_mel: floating point, shape (bands, frames), within ±`LARGEST_VALUE`; unpadded frames.
        codec: a name in `CODECS`. `mel-f16` has no use for a rate or a rank.
        rate: r / k in (0, 1] with k = min(bands, frames); `DEFAULT_RATE` if neither this nor `rank` is given.
        rank: number of components instead of a rate; more than k means k.

    Raises:
        UnknownCodec, NotFinite: as named.
        CodecError: not a matrix, or a rate or rank out of its range, or both given.
    """
    chosen = by_name(codec)
    with np.errstate(over="ignore"):  # a float64 too large for float32 becomes infinite and is refused as such
        matrix = np.asarray(log_mel, np.float32)
    if matrix.ndim != 2 or matrix.size == 0:
        raise CodecError(f"the log-Mel has shape {matrix.shape}", "(bands, frames), neither of them 0")
    require_finite(matrix)
    bands, frames = matrix.shape
    rank = _components(rate, rank, bands, frames)
    if not chosen.pays_off(rank, bands, frames):
        chosen = _MEL
    payload = chosen.encode(matrix, rank)
    return Encoded(chosen.name, chosen.rank(payload), payload)


def payload_rank(codec: str, payload: bytes) -> int | None:
    """The rank that a payload claims, unchecked; None for a codec without factors.

    Raises:
        UnknownCodec: as named.
        MalformedPayload: the header is cut off.
    """
    return by_name(codec).rank(payload)


def check_payload(codec: str, payload: bytes, *, bands: int, frames: int, max_rank: int = MAXIMUM_RANK) -> None:
    """Refuses a payload whose rank or length cannot be right. Allocates nothing, so any claim may be asked about.

    Raises:
        UnknownCodec: as named.
        RankTooHigh: above `max_rank` or min(bands, frames).
        MalformedPayload: rank 0, or a length other than rank, bands and frames call for.
    """
    chosen = by_name(codec)
    rank = chosen.rank(payload)
    if rank is not None:
        highest = min(bands, frames, max_rank)
        if rank < 1:
            raise MalformedPayload("the payload has rank 0", f"1 to {highest}")
        if rank > highest:
            raise RankTooHigh(f"the payload has rank {rank} for {bands} bands and {frames} frames", f"1 to {highest}")
    expected = chosen.payload_length(rank, bands, frames)
    if len(payload) != expected:
        what = f"{codec} of {bands} bands and {frames} frames" + ("" if rank is None else f" at rank {rank}")
        raise MalformedPayload(f"the payload has {len(payload)} bytes", f"{expected} bytes for {what}")


def decode(codec: str, payload: bytes, *, bands: int, frames: int, max_rank: int = MAXIMUM_RANK) -> Float32:
    """The log-Mel of a payload.

    Returns:
        float32, shape (bands, frames), within ±`LARGEST_VALUE`.

    Raises:
        UnknownCodec, RankTooHigh, MalformedPayload: see `check_payload`; nothing was allocated.
        NotFinite: NaN, infinity or absurd values.
    """
    check_payload(codec, payload, bands=bands, frames=frames, max_rank=max_rank)
    with np.errstate(over="ignore", invalid="ignore"):  # hostile factors: what they multiply to is checked instead
        return require_finite(by_name(codec).decode(payload, bands, frames))


def _components(rate: float | None, rank: int | None, bands: int, frames: int) -> int:
    if rank is not None:
        if rate is not None:
            raise CodecError("both a rate and a rank were given", "one of them")
        if rank < 1:
            raise CodecError(f"the rank is {rank}", "1 or more")
        return min(rank, bands, frames)
    rate = DEFAULT_RATE if rate is None else rate
    if not 0 < rate <= 1:
        raise CodecError(f"the rate is {rate}", "above 0, up to 1")
    return rank_for_rate(rate, bands, frames)
