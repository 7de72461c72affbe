"""`svd-f16`: truncated SVD, factors in half precision. The codec of the AMSER papers.

Payload: uint16 rank, then float16 A (bands, rank), then float16 B (rank, frames), row by row. The factors need no
scale: cells within ±16 give √S below 90 for 30 s of speech, far from the 65,504 where float16 ends.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from amser.codecs.base import Float32, Setting, check_length
from amser.codecs.svd import RANK, TAKES, check_rank, components, element_ratio, factorise, read_rank

FLOAT16 = np.dtype("<f2")


@dataclass(frozen=True, slots=True)
class SvdF16:
    """Two bytes for each element of the factors."""

    name: str = "svd-f16"
    number: int = 2
    takes: frozenset[str] = TAKES

    def read_setting(self, text: str) -> Setting:
        return Setting(rate=float(text))

    def pays_off(self, setting: Setting, bands: int, frames: int) -> bool:
        rank = components(setting, bands, frames)
        return element_ratio(rank, bands, frames) < 1

    def encode(self, log_mel: Float32, setting: Setting) -> bytes:
        rank = components(setting, *log_mel.shape)
        a, b = factorise(log_mel, rank)
        return RANK.pack(rank) + a.astype(FLOAT16).tobytes() + b.astype(FLOAT16).tobytes()

    def rank(self, payload: bytes) -> int | None:
        return read_rank(payload)

    def check(self, payload: bytes, bands: int, frames: int, max_rank: int) -> None:
        rank = check_rank(payload, bands, frames, max_rank)
        check_length(self.name, payload, self.payload_length(rank, bands, frames), bands, frames, f" at rank {rank}")

    def payload_length(self, rank: int, bands: int, frames: int) -> int:
        """Bytes of a payload with this rank."""
        return RANK.size + FLOAT16.itemsize * rank * (bands + frames)

    def decode(self, payload: bytes, bands: int, frames: int) -> Float32:
        rank = read_rank(payload)
        factors = np.frombuffer(payload, FLOAT16, offset=RANK.size).astype(np.float32)
        a = factors[: bands * rank].reshape(bands, rank)
        b = factors[bands * rank :].reshape(rank, frames)
        return a @ b
