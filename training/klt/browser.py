"""`python -m training.klt.browser`: the tables that `web/` computes log-Mel and `klt` with.

An ES module with one string in base64, so that whoever imports `web/amser-codec.js` fetches nothing else.
`web/codec/tables.js` is part of the repository; a test holds that it is what this command writes.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from amser import features
from amser.codecs.klt import COARSEST
from amser.codecs.klt_tables import BASIS_VERSION, BLOCKS, step_of, tables

OUTPUT: Final = Path(__file__).resolve().parents[2] / "web" / "codec" / "tables.js"
ALIGNMENT: Final = 4  # bytes: typed arrays of JavaScript begin at multiples of their items
TYPES: Final = {"<f4": "Float32Array", "<i4": "Int32Array", "<i2": "Int16Array", "<u2": "Uint16Array"}


def arrays_for_browsers() -> dict[str, NDArray[Any]]:
    """By name, little-endian. Of symmetric frequencies and values, the half from zero upwards.

    `forward_n` and `inverse_n` (n, n) are the cosines with their weights. `mel_starts`, `mel_ends` int32 (80,) say
    which bins of the spectrum the filters take; `mel_weights` float32, with which weights, one filter after another.
    """
    known = tables()
    with (files("amser.codecs") / "klt.npz").open("rb") as file, np.load(file) as content:
        stored = dict(content)
    sizes = 2 * stored["classes"][:, 1] + 1
    splits = np.cumsum(sizes)[:-1]

    def upper_halves(name: str) -> NDArray[Any]:
        halves = [each[each.size // 2 :] for each in np.split(stored[name], splits)]
        return np.concatenate(halves)

    filters = features._mel_filters(features.PROFILES["whisper80"].bands)
    starts = (filters > 0).argmax(axis=1)
    ends = filters.shape[1] - (filters[:, ::-1] > 0).argmax(axis=1)
    weights = [row[start:end] for row, start, end in zip(filters, starts, ends, strict=True)]
    arrays: dict[str, NDArray[Any]] = {
        "window": features._window("hann"),
        "mel_starts": starts.astype(np.int32),
        "mel_ends": ends.astype(np.int32),
        "mel_weights": np.concatenate(weights),
        "mean": stored["mean"],
        "analysis": stored["analysis"],
        "synthesis": stored["synthesis"],
        "classes": stored["classes"],
        "frequencies": upper_halves("frequencies").astype(np.uint16),
        "values": upper_halves("values"),
        "thresholds": stored["thresholds"],
        "roundings": stored["roundings"],
        "steps": np.array([step_of(index) for index in range(COARSEST + 1)], np.float32),
    }
    for block in BLOCKS:
        arrays[f"forward_{block}"] = known.forward(block)
        arrays[f"inverse_{block}"] = known.inverse(block)
        arrays[f"scales_{block}"] = stored[f"scales_{block}"]
    return arrays


def module() -> str:
    """The content of `web/codec/tables.js`."""
    blob, places = bytearray(), {}
    for name, array in arrays_for_browsers().items():
        little_endian = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        blob += bytes(-len(blob) % ALIGNMENT)
        places[name] = [TYPES[little_endian.dtype.str], len(blob), little_endian.size]
        blob += little_endian.tobytes()
    listed = ",\n".join(f"  {name}: {json.dumps(place)}" for name, place in places.items())
    return (
        "// Written by `python -m training.klt.browser` from amser/codecs/klt.npz: do not edit.\n"
        f"export const BASIS_VERSION = {BASIS_VERSION};\n"
        "// By name: type, first byte, number of items.\n"
        f"export const PLACES = {{\n{listed},\n}};\n"
        f'export const BYTES =\n  "{base64.b64encode(blob).decode()}";\n'
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m training.klt.browser", description="Write the tables of the codec klt for browsers."
    )
    parser.add_argument("--output", type=Path, default=OUTPUT, help="where to write (default: %(default)s)")
    output: Path = parser.parse_args(arguments).output
    output.write_text(module(), encoding="utf-8")
    print(f"{output}: {output.stat().st_size / 1e3:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
