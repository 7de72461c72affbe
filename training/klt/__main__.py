"""`python -m training.klt --manifest FILE`: learn basis, scales and symbol tables of the codec `klt` from speech.

The manifest has the columns path, speaker and text. Every third reader, in the order of their names, is learnt from;
the file says which, and `benchmarks.codec` leaves them out. Other tables are another codec: raise `BASIS_VERSION` too.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from rich.console import Console

from amser import codecs
from amser.codecs.klt_tables import BASIS_VERSION, BLOCKS
from amser.features import log_mel, resample, to_mono
from training.klt.fitting import fit
from training.klt.sensitivity import measure

DEFAULT_OUTPUT = Path(codecs.__file__).parent / "klt.npz"
ONE_OF = 3  # readers


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    try:
        with options.manifest.open(encoding="utf-8", newline="") as lines:
            rows = list(csv.DictReader(lines, delimiter="\t"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no UTF-8"
        print(f"training.klt: {options.manifest} cannot be read: {reason}", file=sys.stderr)
        return 2
    if not rows or not {"path", "speaker", "text"} <= rows[0].keys():
        print(f"training.klt: {options.manifest} needs columns path, speaker and text", file=sys.stderr)
        return 2
    readers = sorted({row["speaker"] for row in rows})[::ONE_OF]
    root = next((folder for folder in options.manifest.resolve().parents if (folder / rows[0]["path"]).is_file()), None)
    if root is None:
        print(f"training.klt: {rows[0]['path']} is not beside or above {options.manifest}", file=sys.stderr)
        return 2
    spoken = []
    for row in rows:
        if row["speaker"] in readers:
            samples, rate = soundfile.read(root / row["path"], dtype="float32", always_2d=True)
            spoken.append((log_mel(resample(to_mono(samples), rate)), _as_spoken(row["text"])))
    sensitivity = measure(spoken, options.weights, max(BLOCKS), options.draws, options.seed)
    arrays = fit([mel for mel, _ in spoken], sensitivity)
    about = {
        "version": BASIS_VERSION,
        "corpus": options.corpus,
        "licence": options.licence,
        "readers": readers,
        "frames": sum(mel.shape[1] for mel, _ in spoken),
        "words_by": options.weights,
    }
    _write(options.output, arrays, about)
    Console().print(f"{options.output}: {options.output.stat().st_size / 1e3:.0f} kB, from {len(spoken)} utterances")
    return 0


def _as_spoken(text: str) -> str:
    """LibriSpeech's capitals as Whisper would write them."""
    return text.capitalize() if text.isupper() else text


def _write(path: Path, arrays: dict[str, NDArray[Any]], about: dict[str, object]) -> None:
    text = np.frombuffer(json.dumps(about).encode(), np.uint8)
    partial = path.with_suffix(".partial.npz")
    np.savez_compressed(partial, allow_pickle=False, about=text, **arrays)
    partial.replace(path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.klt", description="Learn the tables of the codec klt.")
    parser.add_argument("--manifest", type=Path, required=True, help="tab-separated, with path, speaker and text")
    parser.add_argument("--corpus", default="LibriSpeech train-clean-5", help="its name (default: %(default)s)")
    parser.add_argument("--licence", default="CC BY 4.0", help="of the corpus (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT, help="default: the tables that come with Amser")
    parser.add_argument("--weights", default="whisper-base", help="whose words are to survive (default: %(default)s)")
    parser.add_argument("--draws", type=int, default=2, help="of words for an utterance (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    return parser


if __name__ == "__main__":
    sys.exit(main())
