"""What the recogniser is given: sound, what is said in it, and by whom."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np

from amser.features import SAMPLE_RATE, Float32

LONGEST_SECONDS: Final = 30.0  # that a request may last
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Utterance:
    """Sound with or without speech.

    Attributes:
        kind: rows are made for each kind of a set.
        load: brings the waveform, float32 (n,), 16 kHz.
        text: what is said, as the reference has it; empty where it is not known or nothing is said.
        speaker: who is heard; intervals draw speakers with all their utterances.
        language: ISO 639-1 code.
        sentence: what is said several times; empty where nothing is said again.
        takes: how often it is said.
        name: of the recording, as its manifest has it.
    """

    kind: str
    load: Callable[[], Float32]
    text: str
    speaker: str
    language: str = "en"
    sentence: str = ""
    takes: int = 1
    name: str = ""


def joined(pieces: Sequence[Float32], pauses: Sequence[float]) -> Float32:
    """Waveforms with digital silence between them.

    Args:
        pieces: float32 (n,), 16 kHz.
        pauses: seconds, one less than there are pieces.
    """
    parts = [pieces[0]]
    for pause, piece in zip(pauses, pieces[1:], strict=True):
        parts += [np.zeros(round(pause * SAMPLE_RATE), np.float32), piece]
    return np.concatenate(parts)


def thinned(items: Sequence[Item], most: int | None) -> list[Item]:
    """Every k-th of them, `most` at most; all of them for None."""
    return list(items[:: -(-len(items) // most)]) if most and items else list(items)
