"""`mel-f16`: the log-Mel itself in half precision, for comparison and where factors would not be smaller.

Payload: float16 (bands, frames), row by row. Rounding moves speech by at most 0.0005, which is 0.02 dB.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from amser.codecs.base import Float32, Setting, check_length

FLOAT16 = np.dtype("<f2")


@dataclass(frozen=True, slots=True)
class MelF16:
    """Two bytes for each cell; has no rank."""

    name: str = "mel-f16"
    number: int = 1
    takes: frozenset[str] = frozenset({"rate", "rank"})  # and ignores: it may take a factorised Mel's place

    def read_setting(self, text: str) -> Setting:
        raise ValueError(f"mel-f16 has no setting, but {text!r} was given")

    def pays_off(self, setting: Setting, bands: int, frames: int) -> bool:  # noqa: ARG002 - the Protocol's signature
        return True

    def encode(self, log_mel: Float32, setting: Setting) -> bytes:  # noqa: ARG002 - there is nothing to truncate
        return log_mel.astype(FLOAT16).tobytes()

    def rank(self, payload: bytes) -> int | None:  # noqa: ARG002 - the Protocol's signature
        return None

    def check(self, payload: bytes, bands: int, frames: int, max_rank: int) -> None:  # noqa: ARG002
        check_length(self.name, payload, FLOAT16.itemsize * bands * frames, bands, frames)

    def decode(self, payload: bytes, bands: int, frames: int) -> Float32:
        return np.frombuffer(payload, FLOAT16).reshape(bands, frames).astype(np.float32)
