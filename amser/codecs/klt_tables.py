"""What both ends of `klt` know beforehand: basis, scales and symbol tables, learnt once from speech (`training.klt`).

Everything that decides which bits a symbol takes is an integer here, so that any processor reads any other's bytes.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

import constriction
import numpy as np
from numpy.typing import NDArray
from scipy import fft

from amser.codecs.base import Float32

Integers = NDArray[np.int32]

BASIS_VERSION: Final = 1  # what decodes with another basis is another version
BANDS: Final = 80  # of the profile whisper80, which the basis was learnt from
BLOCKS: Final = (32, 8)  # frames that are transformed together: whole utterances, streams
FREQUENCY_BITS: Final = 16  # the symbols of a class have frequencies that add up to 2 to this
MODEL_ERROR: Final = np.float32(2**-23)  # of a probability, which the range coder counts in units of 2 to the -24
STEPS_PER_OCTAVE: Final = 8  # of the quantiser's step and of the coefficients' scales
SCALES_PER_CLASS: Final = 2  # neighbouring scales share a table
LOWEST_LEVEL: Final = -2.0  # of an utterance's loudest cell, in Whisper's scale
LEVELS_PER_UNIT: Final = 32  # 1.25 dB apart
FINEST_STEP: Final = 0.1  # in the basis's coordinates; step index 0


@dataclass(frozen=True, slots=True)
class SymbolClass:
    """How coefficients of about one scale, counted in steps, are rounded, written and read.

    Attributes:
        largest: magnitude; what it is passed by is written apart.
        model: of the range coder, for symbols 0 to 2 · largest.
        threshold: steps from which a magnitude is 1 and not 0.
        rounding: added to a magnitude above the threshold before its fraction is dropped.
        values: float32 (2 · largest + 1,), steps that a symbol stands for.
        bits: float32 (2 · largest + 1,), that a symbol takes at least.
    """

    largest: int
    model: Any
    threshold: float
    rounding: float
    values: Float32
    bits: Float32


@dataclass(frozen=True, slots=True)
class Plan:
    """In which order the coefficients of a block are written at one step, by class.

    Attributes:
        order: (n,) positions in the flat (bands, block) matrix of coefficients; those left out are zero.
        runs: class, and begin and end of its part of `order`.
        threshold, rounding: float32 (n, 1), those of the classes.
        largest: int32 (n, 1), likewise.
    """

    order: NDArray[np.intp]
    runs: tuple[tuple[SymbolClass, int, int], ...]
    threshold: Float32
    rounding: Float32
    largest: Integers


class Tables:
    """The content of `klt.npz`.

    Args:
        arrays: `mean` (80,), `analysis` and `synthesis` (80, 80), all float32; for each length of `BLOCKS`,
            `weights_n` float32 (n,), by which coefficients along time are divided, and `scales_n` int16 (80, n), in
            1 / `STEPS_PER_OCTAVE` octaves above `FINEST_STEP`; `classes` int32 (rows, 2), first scale of a class and
            its largest magnitude; `frequencies` int32, all classes' symbols one after another; `values` float32, as
            `frequencies`; `thresholds`, `roundings` float32 (rows,).
        about: version, corpus, speakers, licence.
    """

    def __init__(self, arrays: dict[str, NDArray[Any]], about: dict[str, Any]) -> None:
        self.about = about
        self.mean: Float32 = arrays["mean"][:, None]
        self.analysis: Float32 = arrays["analysis"]
        self.synthesis: Float32 = arrays["synthesis"]
        self._scales = {n: arrays[f"scales_{n}"].ravel().astype(np.int64) for n in BLOCKS}
        self._transforms = {n: _cosines(n) / arrays[f"weights_{n}"][:, None] for n in BLOCKS}
        self._inverses = {n: _cosines(n) * arrays[f"weights_{n}"][:, None] for n in BLOCKS}
        self._classes = _classes(arrays)
        self._first = int(arrays["classes"][0, 0])

    def forward(self, block: int) -> Float32:
        """(block, block): rows are the cosines, each divided by its weight."""
        matrix: Float32 = self._transforms[block]
        return matrix

    def inverse(self, block: int) -> Float32:
        """(block, block): rows are the cosines, each multiplied by its weight."""
        matrix: Float32 = self._inverses[block]
        return matrix

    def plan(self, block: int, step_index: int) -> Plan:
        """The order of a block's coefficients at a step."""
        relative = (self._scales[block] - step_index - self._first) // SCALES_PER_CLASS
        classes = np.minimum(relative, len(self._classes) - 1)
        order = np.argsort(-classes, kind="stable")[: int((classes >= 0).sum())]  # loudest first
        ordered = classes[order]
        begins = np.flatnonzero(np.diff(ordered, prepend=-1))
        ends = [*begins[1:].tolist(), len(order)]
        runs = tuple((self._classes[ordered[begin]], int(begin), end) for begin, end in zip(begins, ends, strict=True))

        def of_classes(name: str, dtype: type[np.generic]) -> NDArray[Any]:
            return np.array([getattr(each, name) for each in self._classes], dtype)[ordered][:, None]

        thresholds, roundings = of_classes("threshold", np.float32), of_classes("rounding", np.float32)
        return Plan(order, runs, thresholds, roundings, of_classes("largest", np.int32))


def step_of(index: int) -> float:
    """The quantiser's step, in the basis's coordinates."""
    return float(FINEST_STEP * 2 ** (index / STEPS_PER_OCTAVE))


def level_index(loudest: float) -> int:
    """The level of the loudest cell as a byte, so that loud and quiet recordings look alike to the basis."""
    return int(np.clip(round((loudest - LOWEST_LEVEL) * LEVELS_PER_UNIT), 0, 255))


def level_of(index: int) -> float:
    """The level that a byte means, in Whisper's scale."""
    return index / LEVELS_PER_UNIT + LOWEST_LEVEL


@cache
def tables() -> Tables:
    """The tables that come with Amser."""
    with (files("amser.codecs") / "klt.npz").open("rb") as file, np.load(file) as content:
        arrays = dict(content)
    return Tables(arrays, json.loads(bytes(arrays.pop("about")).decode()))


def digest() -> str:
    """SHA-256 of the tables that come with Amser, for what is kept of log-Mels that went through them."""
    return hashlib.sha256((files("amser.codecs") / "klt.npz").read_bytes()).hexdigest()


@cache
def plan(block: int, step_index: int) -> Plan:
    """`Tables.plan` of the tables that come with Amser."""
    return tables().plan(block, step_index)


def _cosines(length: int) -> Float32:
    matrix: Float32 = fft.dct(np.eye(length, dtype=np.float64), axis=0, norm="ortho").astype(np.float32)
    return matrix


def _classes(arrays: dict[str, NDArray[Any]]) -> list[SymbolClass]:
    classes, begin = [], 0
    for (_, largest), threshold, rounding in zip(
        arrays["classes"].tolist(), arrays["thresholds"].tolist(), arrays["roundings"].tolist(), strict=True
    ):
        end = begin + 2 * largest + 1
        # Multiples of 2^-16 are exact in float32 and so are their sums: every platform makes the same model of them.
        probabilities = arrays["frequencies"][begin:end].astype(np.float32) / np.float32(2**FREQUENCY_BITS)
        model = constriction.stream.model.Categorical(probabilities, perfect=False)
        bits = -np.log2(probabilities + MODEL_ERROR)
        classes.append(SymbolClass(largest, model, threshold, rounding, arrays["values"][begin:end], bits))
        begin = end
    return classes
