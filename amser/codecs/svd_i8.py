"""`svd-i8`: truncated SVD, factors in 8-bit symbols; about half of `svd-f16`.

Payload: uint16 rank, then float32 scale (rank,), then int8 A (bands, rank), then int8 B (rank, frames), row by row.
f ≈ Σ scale·a bᵀ. A column of A and a row of B are each stretched to ±127, so one scale, their product, serves both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from amser.codecs.base import Float32, Setting, check_length
from amser.codecs.svd import RANK, TAKES, Float64, check_rank, components, factorise, read_rank

FLOAT32 = np.dtype("<f4")
LARGEST_SYMBOL = 127  # −128 stays unused, so that the symbols are symmetric


@dataclass(frozen=True, slots=True)
class SvdI8:
    """One byte for each element of the factors, four for each component."""

    name: str = "svd-i8"
    number: int = 3
    takes: frozenset[str] = TAKES

    def read_setting(self, text: str) -> Setting:
        return Setting(rate=float(text))

    def pays_off(self, setting: Setting, bands: int, frames: int) -> bool:
        rank = components(setting, bands, frames)
        return self.payload_length(rank, bands, frames) <= 2 * bands * frames  # bytes of mel-f16

    def encode(self, log_mel: Float32, setting: Setting) -> bytes:
        rank = components(setting, *log_mel.shape)
        a, b = factorise(log_mel, rank)
        a_step, b_step = _step(a, axis=0), _step(b, axis=1)
        scale = (a_step * b_step.T).ravel().astype(FLOAT32)
        return RANK.pack(rank) + scale.tobytes() + _symbols(a, a_step) + _symbols(b, b_step)

    def rank(self, payload: bytes) -> int | None:
        return read_rank(payload)

    def check(self, payload: bytes, bands: int, frames: int, max_rank: int) -> None:
        rank = check_rank(payload, bands, frames, max_rank)
        check_length(self.name, payload, self.payload_length(rank, bands, frames), bands, frames, f" at rank {rank}")

    def payload_length(self, rank: int, bands: int, frames: int) -> int:
        """Bytes of a payload with this rank."""
        return RANK.size + rank * (FLOAT32.itemsize + bands + frames)

    def decode(self, payload: bytes, bands: int, frames: int) -> Float32:
        rank = read_rank(payload)
        scale = np.frombuffer(payload, FLOAT32, count=rank, offset=RANK.size).astype(np.float32)
        symbols = np.frombuffer(payload, np.int8, offset=RANK.size + scale.nbytes).astype(np.float32)
        a = symbols[: bands * rank].reshape(bands, rank)
        a *= scale
        b = symbols[bands * rank :].reshape(rank, frames)
        return a @ b


def _step(factor: Float64, axis: int) -> Float64:
    """The value of one symbol, for each component; 0 for a component that is all zeros."""
    step: Float64 = np.abs(factor).max(axis=axis, keepdims=True) / LARGEST_SYMBOL
    return step


def _symbols(factor: Float64, step: Float64) -> bytes:
    return np.rint(factor / np.where(step > 0, step, 1.0)).astype(np.int8).tobytes()
