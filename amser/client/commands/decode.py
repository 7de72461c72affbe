"""`decode`: envelope → the log-Mel that the cluster's recogniser gets, as NumPy's .npy."""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path
from typing import Final

import numpy as np

from amser.client.commands.inputs import check_inputs, read_bytes, reason
from amser.client.commands.outputs import STANDARD_OUTPUT, add_output_option, destinations, write
from amser.client.commands.terminal import OK, complain
from amser.errors import SignalError
from amser.features import Float32
from amser.wire import Limits, decode_mel, unpack

SUFFIX: Final = ".npy"

DESCRIPTION = """\
Turns envelopes (docs/wire.md) back into log-Mels, as the cluster does:
float32, bands × frames, 10 ms a frame, in Whisper's scale. What the cluster
would refuse is refused here."""

EPILOG = """\
examples:
  python -m amser decode call.amser
  python -m amser encode call.wav -o - | python -m amser decode - -o call.npy
  python -c 'import numpy; print(numpy.load("call.npy").shape)'

exit codes: 0 every envelope was decoded, 1 one was not, 2 wrong usage,
130 stopped by Ctrl-C"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds those of `decode`."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("files", nargs="+", type=Path, metavar="ENVELOPE", help="- is standard input")
    add_output_option(parser, SUFFIX)


def run(options: argparse.Namespace) -> int:
    """Decodes the envelopes; returns the exit code."""
    try:
        check_inputs(options.files)
        outputs = destinations(options.files, options.output, SUFFIX)
    except ValueError as error:
        options.parser.error(str(error))
    code = OK
    for file, output in zip(options.files, outputs, strict=True):
        try:
            log_mel = decode_mel(unpack(read_bytes(file, Limits().max_bytes)))
            write(output, _as_npy(log_mel))
        except (OSError, SignalError) as error:
            code = complain(f"{file}: {reason(error)}")
            continue
        bands, frames = log_mel.shape
        text = f"{file} → {output}: {bands} bands × {frames} frames"
        print(text, file=sys.stderr if output == STANDARD_OUTPUT else sys.stdout)
    return code


def _as_npy(log_mel: Float32) -> bytes:
    content = io.BytesIO()
    np.save(content, log_mel)
    return content.getvalue()
