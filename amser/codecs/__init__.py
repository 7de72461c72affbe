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
    Setting,
    UnknownCodec,
    require_finite,
)
from amser.codecs.interpolation import Interpolation
from amser.codecs.klt import Klt
from amser.codecs.mel_f16 import MelF16
from amser.codecs.svd import DEFAULT_RATE, element_ratio, rank_for_rate, rank_ratio
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
    "Setting",
    "UnknownCodec",
    "by_name",
    "by_number",
    "check_payload",
    "decode",
    "element_ratio",
    "encode",
    "parse",
    "payload_rank",
    "payload_step",
    "rank_for_rate",
    "rank_ratio",
]

_MEL: Final = MelF16()
CODECS: Final = MappingProxyType({codec.name: codec for codec in (_MEL, SvdF16(), SvdI8(), Interpolation(), Klt())})
DEFAULT_CODEC: Final = "svd-f16"
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


def parse(text: str) -> tuple[str, Setting]:
    """A codec and its setting as people write them: `svd-f16:0.125`, `klt:low`, `interpolation:4x2`, `mel-f16`.

    Raises:
        UnknownCodec: as named.
        ValueError: the codec has no such setting.
    """
    name, colon, setting = text.partition(":")
    codec = by_name(name)
    return name, codec.read_setting(setting) if colon else Setting()


def encode(
    log_mel: ArrayLike,
    codec: str = DEFAULT_CODEC,
    *,
    rate: float | None = None,
    rank: int | None = None,
    step: int | str | None = None,
    factors: tuple[int, int] | None = None,
) -> Encoded:
    """A log-Mel as bytes.

    Where the codec's factors would be no smaller than the Mel itself, the Mel is sent: `Encoded.codec` says so.

    Args:
        log_mel: floating point, shape (bands, frames), within ±`LARGEST_VALUE`; unpadded frames.
        codec: a name in `CODECS`.
        rate, rank, step, factors: see `Setting`; `mel-f16` has no use for a rate or a rank.

    Raises:
        UnknownCodec, NotFinite: as named.
        CodecError: not a matrix, or a setting that is out of its range or that this codec does not have.
    """
    chosen = by_name(codec)
    setting = Setting(rate, rank, step, factors)
    if unknown := setting.given() - chosen.takes:
        raise CodecError(f"{codec} has no {', '.join(sorted(unknown))}", ", ".join(sorted(chosen.takes)) or "none")
    with np.errstate(over="ignore"):  # a float64 too large for float32 becomes infinite and is refused as such
        matrix = np.asarray(log_mel, np.float32)
    if matrix.ndim != 2 or matrix.size == 0:
        raise CodecError(f"the log-Mel has shape {matrix.shape}", "(bands, frames), neither of them 0")
    require_finite(matrix)
    if not chosen.pays_off(setting, *matrix.shape):
        chosen = _MEL
    payload = chosen.encode(matrix, setting)
    return Encoded(chosen.name, chosen.rank(payload), payload)


def payload_rank(codec: str, payload: bytes) -> int | None:
    """The rank that a payload claims, unchecked; None for a codec without factors.

    Raises:
        UnknownCodec: as named.
        MalformedPayload: the header is cut off.
    """
    return by_name(codec).rank(payload)


def payload_step(codec: str, payload: bytes) -> int | None:
    """The step index that a payload was written with; None for a codec without steps.

    Raises:
        UnknownCodec: as named.
        MalformedPayload: the header is cut off or of another version.
    """
    chosen = by_name(codec)
    return chosen.step(payload) if isinstance(chosen, Klt) else None


def check_payload(codec: str, payload: bytes, *, bands: int, frames: int, max_rank: int = MAXIMUM_RANK) -> None:
    """Refuses a payload whose rank or length cannot be right. Allocates nothing, so any claim may be asked about.

    Raises:
        UnknownCodec: as named.
        RankTooHigh: above `max_rank` or min(bands, frames).
        MalformedPayload: rank 0, or a length other than rank, bands and frames call for.
    """
    by_name(codec).check(payload, bands, frames, max_rank)


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
