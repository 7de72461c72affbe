"""Manifests: the tab-separated tables that name recordings, checked as a whole before anything is loaded.

Every benchmark that reads speech takes `--manifest` and `--root` from `add_options` and its recordings from
`recordings_of`. Without `--manifest` it is the one below the folder that the environment variable AMSER_DATA names.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from amser.audio import read
from amser.errors import SignalError
from amser.features import Float32
from training.data_folder import VARIABLE as DATA

SPEECH: Final = "speech/librispeech.tsv"  # of that folder
NOISE: Final = "noise/esc10.tsv"
PATH: Final = "path"
TEXT: Final = "text"


class ManifestError(ValueError):
    """A manifest that cannot be used, or a recording of it. One line says why."""


@dataclass(frozen=True, slots=True)
class Recording:
    """A line of a manifest.

    Attributes:
        path: the sound file.
        name: the path as the manifest has it.
        text: what is said; empty where the manifest does not say.
        speaker, language: None where the manifest does not say. The language is an ISO 639-1 code.
        seconds: of sound, as the manifest has it; None where it does not say.
    """

    path: Path
    name: str
    text: str = ""
    speaker: str | None = None
    language: str | None = None
    seconds: float | None = None

    def waveform(self) -> Float32:
        """float32, shape (samples,), 16 kHz. Raises ManifestError where it cannot be read."""
        return read_file(self.path)


def read_file(path: Path) -> Float32:
    """A sound file as float32, shape (samples,), 16 kHz. Raises ManifestError, which names the file."""
    try:
        return read(path)
    except (OSError, SignalError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ManifestError(f"{path} cannot be read: {why}") from None


def data_file(name: str) -> Path | None:
    """A file of the folder that AMSER_DATA names; None where the variable is not set."""
    folder = os.environ.get(DATA)
    return Path(folder) / name if folder else None


def add_options(
    parser: argparse.ArgumentParser, needs: Sequence[str] = (PATH,), better: Sequence[str] = (), default: str = SPEECH
) -> None:
    """`--manifest` and `--root`, whose recordings `recordings_of` reads.

    Args:
        parser: of the benchmark.
        needs: columns that the manifest must have.
        better: columns that are used where it has them.
        default: file of AMSER_DATA's folder.
    """
    parser.set_defaults(manifest_needs=tuple(needs), manifest_default=default)
    more = f", better also {' and '.join(better)}" if better else ""
    parser.add_argument(
        "--manifest",
        type=Path,
        metavar="TSV",
        help=f"tab-separated table with {_columns(needs)}{more} (default: {default} in the folder {DATA})",
    )
    parser.add_argument("--root", type=Path, metavar="DIR", help="what the paths are relative to (default: found)")


def recordings_of(options: argparse.Namespace) -> list[Recording]:
    """The recordings of the manifest that the options name; `options.manifest` is set where it was left out.

    Raises:
        ManifestError: there is no manifest, or it cannot be used.
    """
    needs: tuple[str, ...] = options.manifest_needs
    options.manifest = options.manifest or data_file(options.manifest_default)
    if options.manifest is None:
        raise ManifestError(
            f"no manifest: set {DATA} to a folder that holds {options.manifest_default}, or give --manifest TSV, a "
            f"tab-separated table with {_columns(needs)}"
        )
    return read_manifest(options.manifest, needs, options.root)


def read_manifest(manifest: Path, needs: Sequence[str] = (PATH,), root: Path | None = None) -> list[Recording]:
    """All recordings of a manifest, each of which is there.

    Args:
        manifest: tab-separated, UTF-8, with a header.
        needs: columns that it must have.
        root: what relative paths are relative to; by default the nearest folder above the manifest that has one.

    Raises:
        ManifestError: it cannot be read, lacks a column, a value or a recording.
    """
    rows = _rows(manifest, needs)
    folders = [root] if root else list(manifest.resolve().parents)
    folder = next((each for each in folders if any((each / row[PATH]).is_file() for row in rows)), None)
    if folder is None:
        where = f"below {root}" if root else "below a folder above it; give --root DIR"
        raise ManifestError(f"{manifest}: none of its {len(rows)} recordings, such as {rows[0][PATH]}, is {where}")
    if missing := [row[PATH] for row in rows if not (folder / row[PATH]).is_file()]:
        raise ManifestError(
            f"{manifest}: {len(missing)} of its {len(rows)} recordings are missing below {folder}, the first is "
            f"{missing[0]}"
        )
    return [_recording(manifest, line, folder, row) for line, row in enumerate(rows, 2)]


def _rows(manifest: Path, needs: Sequence[str]) -> list[dict[str, str]]:
    """The lines by column, once the columns and paths are there."""
    if not manifest.is_file():
        what = "is a folder, not a manifest" if manifest.is_dir() else "is not there"
        raise ManifestError(f"no manifest {manifest}: it {what}; set {DATA} or give --manifest TSV")
    try:
        with manifest.open(encoding="utf-8-sig", newline="") as lines:
            # Quotation marks in a transcript are only characters
            table = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE, restval="")
            rows, columns = list(table), list(table.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(f"{manifest} is no table in UTF-8: {error}") from None
    if missing := [name for name in (PATH, *needs) if name not in columns]:
        hint = "; columns are separated by tabs" if len(columns) <= 1 else ""
        raise ManifestError(
            f"{manifest}: needs {_columns(dict.fromkeys(missing))}; it has {', '.join(columns) or 'none'}{hint}"
        )
    if not rows:
        raise ManifestError(f"{manifest}: has no line below its header")
    if empty := [line for line, row in enumerate(rows, 2) if not row[PATH]]:
        raise ManifestError(f"{manifest}, line {empty[0]}: has no path")
    if TEXT in needs and not any(row[TEXT].strip() for row in rows):
        raise ManifestError(f"{manifest}: its column {TEXT} is empty")
    return rows


def _recording(manifest: Path, line: int, folder: Path, row: dict[str, str]) -> Recording:
    try:
        seconds = float(row["seconds"]) if row.get("seconds") else None
    except ValueError:
        seconds = math.nan
    if seconds is not None and not 0 < seconds < math.inf:
        raise ManifestError(f"{manifest}, line {line}: {row['seconds']!r} is no number of seconds above 0")
    speaker, language = row.get("speaker") or None, row.get("language") or None
    return Recording(folder / row[PATH], row[PATH], row.get(TEXT, ""), speaker, language, seconds)


def _columns(names: Sequence[str] | dict[str, None]) -> str:
    listed = list(names)
    return f"the column {listed[0]}" if len(listed) == 1 else f"the columns {' and '.join(listed)}"
