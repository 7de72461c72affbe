"""`inspect`: what an envelope says of itself, without decoding its payload."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from amser import codecs
from amser.client.commands.inputs import check_inputs, read_bytes, reason
from amser.client.commands.terminal import OK, columns, complain
from amser.client.exchange.utterances import PCM_BYTES_PER_SECOND
from amser.codecs.interpolation import Interpolation
from amser.codecs.klt import PROFILES
from amser.errors import SignalError
from amser.wire import Limits, unpack

DESCRIPTION = """\
Shows what envelopes (docs/wire.md) say of themselves: who sent what, when, how
it is compressed, and what that takes beside 16-bit PCM. An envelope that the
cluster would refuse before it decodes is refused here."""

EPILOG = """\
examples:
  python -m amser inspect call.amser
  python -m amser encode call.wav -o - | python -m amser inspect - --json

exit codes: 0 every envelope was read, 1 one was not, 2 wrong usage,
130 stopped by Ctrl-C"""

STEP_NAMES = {index: name for name, index in PROFILES.items()}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds those of `inspect`."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("files", nargs="+", type=Path, metavar="ENVELOPE", help="- is standard input")
    parser.add_argument("--json", action="store_true", help="one JSON object an envelope, a line each")


def run(options: argparse.Namespace) -> int:
    """Shows the envelopes; returns the exit code."""
    try:
        check_inputs(options.files)
    except ValueError as error:
        options.parser.error(str(error))
    console = Console(highlight=False, width=columns())
    code = OK
    for file in options.files:
        try:
            fields = described(read_bytes(file, Limits().max_bytes))
        except (OSError, SignalError) as error:
            code = complain(f"{file}: {reason(error)}")
            continue
        if options.json:
            print(json.dumps({"file": str(file), **fields}, ensure_ascii=False))
        else:
            console.print(_table(file, fields))
    return code


def described(data: bytes) -> dict[str, Any]:
    """What an envelope says, and its cost.

    Raises:
        amser.wire.WireError: what the cluster would refuse before it decodes.
    """
    envelope = unpack(data)
    codec = codecs.by_name(envelope.codec)
    return {
        "codec": envelope.codec,
        "rank": codecs.payload_rank(envelope.codec, envelope.payload),
        "step": codecs.payload_step(envelope.codec, envelope.payload),
        "cells": codec.factors(envelope.payload) if isinstance(codec, Interpolation) else None,
        "profile": envelope.profile,
        "bands": envelope.bands,
        "frames": envelope.frames,
        "seconds": round(envelope.seconds, 3),
        "unclamped": envelope.unclamped,
        "language": envelope.language,
        "device_id": envelope.device_id,
        "utterance_id": str(envelope.utterance_id),
        "captured_at": envelope.captured_at.isoformat(),
        "payload_bytes": len(envelope.payload),
        "envelope_bytes": len(data),
        "percent_of_pcm": round(100 * len(data) / (envelope.seconds * PCM_BYTES_PER_SECOND), 3),
    }


def _table(file: Path, fields: dict[str, Any]) -> Table:
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style="dim", no_wrap=True)
    rows.add_column(overflow="fold")
    for name, value in {
        "file": file,
        "codec": f"{fields['codec']}{_setting(fields)}",
        "log-Mel": f"{fields['bands']} bands × {fields['frames']} frames, profile {fields['profile']}",
        "duration": f"{fields['seconds']:.2f} s",
        "language": fields["language"] or "not given",
        "device": fields["device_id"],
        "utterance": fields["utterance_id"],
        "captured at": fields["captured_at"],
        "payload": f"{fields['payload_bytes']:,} bytes",
        "envelope": f"{fields['envelope_bytes']:,} bytes, {fields['percent_of_pcm']:.2f} % of 16-bit PCM",
    }.items():
        rows.add_row(name, Text(str(value)))
    return rows


def _setting(fields: dict[str, Any]) -> str:
    """What was turned to trade bytes for fidelity."""
    if fields["rank"] is not None:
        return f", rank {fields['rank']}"
    if fields["step"] is not None:
        name = STEP_NAMES.get(fields["step"])
        return f", step {fields['step']}" + (f" ({name})" if name else "")
    return ", cells of {} frames × {} bands".format(*fields["cells"]) if fields["cells"] else ""
