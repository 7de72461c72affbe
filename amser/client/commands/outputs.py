"""Where a command that turns files into files writes them: beside the input, into a folder, to standard output."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from amser.client.commands.inputs import STANDARD_INPUT

STANDARD_OUTPUT: Final = Path("-")


def add_output_option(parser: argparse.ArgumentParser, suffix: str) -> None:
    """Adds `--output`."""
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="OUT",
        help=f"a file, an existing folder, or - for standard output (default: beside the input, ending in {suffix}; "
        "for standard input, standard output)",
    )


def destinations(files: Sequence[Path], output: Path | None, suffix: str) -> list[Path]:
    """The file that each input becomes.

    Args:
        files: inputs, `-` for standard input.
        output: of `--output`.
        suffix: of a file whose name is not given.

    Raises:
        ValueError: two would become one file, one would be written over an input, or bytes would go to a terminal.
    """
    found = [_destination(file, output, suffix) for file in files]
    for position, (file, each) in enumerate(zip(files, found, strict=True)):
        if each in found[:position]:
            other = files[found.index(each)]
            raise ValueError(f"{other} and {file} would both become {each}; name a folder for each with --output")
        if each == STANDARD_OUTPUT:
            if sys.stdout.isatty():
                raise ValueError("bytes are not written to a terminal; name a file with --output")
        elif any(_same(each, other) for other in files if other != STANDARD_INPUT):
            raise ValueError(f"{each} would be written over an input; name another file with --output")
    return found


def write(destination: Path, content: bytes) -> None:
    """Writes a file, or to standard output. Raises OSError."""
    if destination == STANDARD_OUTPUT:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
    else:
        destination.write_bytes(content)


def _destination(file: Path, output: Path | None, suffix: str) -> Path:
    if output is None:
        return STANDARD_OUTPUT if file == STANDARD_INPUT else file.with_suffix(suffix)
    if output != STANDARD_OUTPUT and output.is_dir():
        name = "stdin" if file == STANDARD_INPUT else file.stem
        return output / f"{name}{suffix}"
    return output


def _same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and os.path.samefile(one, other)
