"""Low-rank changes to the matrices of a Whisper in CTranslate2's format: a few megabytes that make other weights of it.

A matrix W of an adapted model is W + U D, with D (rank, inputs) and U (outputs, rank). The file names them
`NAME.down` and `NAME.up`, by openai-whisper's names of the matrices.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from models.whisper.arrays import read_arrays, renamed, write_arrays


def adapt(model: Path, adapter: Path, output: Path) -> None:
    """Write the `model.bin` of an adapted model.

    Products are computed in double precision and rounded once, so that every machine writes the same bytes.

    Args:
        model: the `model.bin` that is changed.
        adapter: a safetensors file.
        output: the new `model.bin`.

    Raises:
        ValueError: the adapter changes what the model does not have, or has other sizes.
    """
    read = read_arrays(model)
    writable = {id(values): values.copy() for values in read.values()}  # once, where two names share an array
    arrays = {name: writable[id(values)] for name, values in read.items()}
    changes = load_file(adapter)
    matrices = dict(renamed(arrays))  # views: what is changed in them changes in `arrays`
    for name in sorted({name.rpartition(".")[0] for name in changes}):
        down, up = changes[f"{name}.down"], changes[f"{name}.up"]
        if name not in matrices or matrices[name].shape != (len(up), down.shape[1]) or up.shape[1] != len(down):
            raise ValueError(f"{adapter}: {name} is not a matrix of {model}, or of another size")
        matrices[name][:] = _sum(matrices[name], up, down)
    write_arrays(output, arrays)


def _sum(matrix: NDArray[np.generic], up: NDArray[np.generic], down: NDArray[np.generic]) -> NDArray[np.generic]:
    changed = matrix.astype(np.float64) + up.astype(np.float64) @ down.astype(np.float64)
    return changed.astype(matrix.dtype)
