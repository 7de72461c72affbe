"""Batches: `batch.unpack`, and every envelope that it finds."""

from __future__ import annotations

import struct
from random import Random
from typing import ClassVar, Final

from amser import batch, wire
from tests.fuzz.targets.base import Target
from tests.fuzz.targets.envelope import LIMITS, Envelopes, envelopes

MOST: Final = batch.Limits()


class Batches(Target):
    """A body is taken apart into what packs to the same bytes, or is refused; its envelopes are read as any other."""

    name: ClassVar[str] = "batch"
    tokens: ClassVar[tuple[bytes, ...]] = (*Envelopes.tokens, bytes(4), b"\xff" * 4, struct.pack("<I", 1))

    def seeds(self) -> list[bytes]:
        made = envelopes()
        return [
            batch.pack(made[:1]),
            batch.pack(made[:5]),
            batch.pack([b"", made[0], b"AMSR"]),
            batch.pack([b"x"] * 65),
        ]

    def accepts(self, data: bytes) -> bool:
        try:
            found = batch.unpack(data, MOST)
        except wire.WireError:
            return False
        assert 1 <= len(found) <= MOST.max_items
        assert batch.pack(found) == data, "what is unpacked does not pack to the same bytes"
        for each in found:
            try:
                envelope = wire.unpack(each, LIMITS)
            except wire.WireError:
                continue
            assert wire.pack(envelope) == each
        return True

    def mutated(self, data: bytes, source: Random, others: tuple[bytes, ...]) -> bytes:
        """Mostly with lengths that hold, so that what lies behind them is read."""
        changed = super().mutated(data, source, others)
        return batch.pack([changed[:at], changed[at:]]) if (at := source.randrange(len(changed) + 1)) % 2 else changed
