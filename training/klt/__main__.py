"""`python -m training.klt --manifest FILE`: learn basis, scales and symbol tables of the codec `klt` from speech.

The manifest has the columns path, speaker and text, and may have `licence`. The tables are learnt from every third
speaker, in the order of names; the file says which, and `benchmarks.codec` leaves them out. Recordings that cannot be
used are left out, counted and named. Other tables are another codec: raise `BASIS_VERSION` too.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from amser.codecs.klt_tables import BASIS_VERSION, BLOCKS
from amser.features import Float32, log_mel
from training.corpora.manifest import Corpus, ManifestError, Record
from training.data.extraction import waveform_of
from training.data.screening import screen, summary_of
from training.klt.fitting import fit
from training.klt.sensitivity import measure
from training.outputs import RUNS, OutputExists, new_file

DEFAULT_OUTPUT = RUNS / "klt.npz"
ONE_OF = 3  # speakers


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    try:
        output = new_file(options.output, options.force)
    except OutputExists as error:
        print(f"training.klt: {error}", file=sys.stderr)
        return 2
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
    speakers = sorted({row["speaker"] for row in rows})[::ONE_OF]
    root = next((folder for folder in options.manifest.resolve().parents if (folder / rows[0]["path"]).is_file()), None)
    if root is None:
        print(f"training.klt: {rows[0]['path']} is not beside or above {options.manifest}", file=sys.stderr)
        return 2
    corpus = options.corpus or options.manifest.stem
    chosen = [row for row in rows if row["speaker"] in speakers]
    try:
        utterances = _utterances(corpus, chosen, root)
    except ManifestError as error:
        print(f"training.klt: {error}", file=sys.stderr)
        return 2
    sensitivity = measure(utterances, options.weights, max(BLOCKS), options.draws, options.seed)
    arrays = fit([mel for mel, _ in utterances], sensitivity)
    licences = dict.fromkeys(licence for row in chosen if (licence := (row.get("licence") or "").strip()))
    about = {
        "version": BASIS_VERSION,
        "corpus": corpus,
        "licence": options.licence or "; ".join(licences) or f"unknown: {corpus}",
        "readers": speakers,  # the name of the key in the tables that ship
        "frames": sum(mel.shape[1] for mel, _ in utterances),
        "words_by": options.weights,
    }
    _write(output, arrays, about)
    Console().print(f"{output}: {output.stat().st_size / 1e3:.0f} kB, from {len(utterances)} utterances")
    return 0


def _utterances(corpus: str, rows: Sequence[Mapping[str, str]], root: Path) -> list[tuple[Float32, str]]:
    """Log-Mel and text of every usable recording."""
    records = tuple(
        Record(row["path"], root / row["path"], "", row["speaker"], None, row["text"], None) for row in rows
    )
    screened = screen(Corpus(corpus, records, {}))
    if screened.unusable:
        print(f"training.klt: {summary_of(screened)}", file=sys.stderr)
    return [(log_mel(waveform_of(record)), _sentence_case(record.text)) for record in screened.records]


def _sentence_case(text: str) -> str:
    """LibriSpeech's capitals as Whisper would write them."""
    return text.capitalize() if text.isupper() else text


def _write(path: Path, arrays: dict[str, NDArray[Any]], about: dict[str, object]) -> None:
    text = np.frombuffer(json.dumps(about).encode(), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npz")
    np.savez_compressed(partial, allow_pickle=False, about=text, **arrays)
    partial.replace(path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.klt", description="Learn the tables of the codec klt.")
    parser.add_argument("--manifest", type=Path, required=True, help="tab-separated, with path, speaker and text")
    parser.add_argument("--corpus", help="its name (default: that of the manifest)")
    parser.add_argument("--licence", help="of the corpus (default: the manifest's column licence, or else unknown)")
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT, help="where to write (default: %(default)s)")
    parser.add_argument("--force", action="store_true", help="replace tables that exist")
    parser.add_argument("--weights", default="whisper-base", help="whose words are to survive (default: %(default)s)")
    parser.add_argument("--draws", type=int, default=2, help="of words for an utterance (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    return parser


if __name__ == "__main__":
    sys.exit(main())
