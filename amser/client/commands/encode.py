"""`encode`: audio file → envelope, the body of a request to `/v1/emotion`."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from amser.audio import FORMATS, AudioTooLong
from amser.client.commands.codec_options import add_codec_options, device_settings
from amser.client.commands.inputs import check_inputs, read_audio, reason
from amser.client.commands.outputs import STANDARD_OUTPUT, add_output_option, destinations, write
from amser.client.commands.terminal import OK, complain
from amser.client.device import Device
from amser.client.exchange.utterances import Utterance
from amser.client.frontend import FrontendMissing
from amser.errors import SignalError
from amser.features import SAMPLE_RATE
from amser.wire import Limits

SUFFIX: Final = ".amser"

DESCRIPTION = """\
Compresses audio files, each to one envelope (docs/wire.md), as a device would
send it, and prints what that takes. An envelope holds 30 s at most; `send`
splits longer recordings at pauses."""

EPILOG = """\
examples:
  python -m amser encode call.wav
  python -m amser encode *.flac --codec svd-i8 --rate 0.25 -o envelopes/
  arecord -d 5 -r 16000 -f S16_LE | python -m amser encode - -o call.amser
  python -m amser encode call.wav -o - |
    curl -H 'Content-Type: application/vnd.amser.v1' --data-binary @- \\
      http://127.0.0.1:8000/v1/emotion

exit codes: 0 every file was encoded, 1 one was not, 2 wrong usage,
130 stopped by Ctrl-C"""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A file and its envelope."""

    file: Path
    output: Path
    utterance: Utterance

    @property
    def kbit_s(self) -> float:
        """Of the whole envelope, for a second of speech."""
        return 8e-3 * len(self.utterance.envelope) / self.utterance.seconds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds those of `encode`."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help=f"{FORMATS}; - is standard input")
    add_output_option(parser, SUFFIX)
    add_codec_options(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object a file, a line each")


def run(options: argparse.Namespace) -> int:
    """Encodes the files; returns the exit code."""
    try:
        check_inputs(options.files)
        outputs = destinations(options.files, options.output, SUFFIX)
        device = Device(device_settings(options))
    except ValueError as error:
        options.parser.error(str(error))
    except FrontendMissing as error:
        return complain(str(error))
    code = OK
    for file, output in zip(options.files, outputs, strict=True):
        try:
            encoded = _encode(file, output, device)
        except (OSError, SignalError) as error:
            split = "Split it at its pauses with: python -m amser send" if isinstance(error, AudioTooLong) else ""
            code = complain(f"{file}: {reason(error)}", split)
            continue
        line = _as_json(encoded) if options.json else _as_text(encoded)
        print(line, file=sys.stderr if output == STANDARD_OUTPUT else sys.stdout)
    return code


def _encode(file: Path, output: Path, device: Device) -> Encoded:
    waveform = read_audio(file, Limits().max_frames)
    began = datetime.now(UTC) - timedelta(seconds=waveform.size / SAMPLE_RATE)  # as if recorded until now
    utterance = device.encode(waveform, began)
    write(output, utterance.envelope)
    return Encoded(file, output, utterance)


def _as_text(encoded: Encoded) -> str:
    size, seconds = len(encoded.utterance.envelope), encoded.utterance.seconds
    return f"{encoded.file} → {encoded.output}: {size:,} bytes, {seconds:.2f} s, {encoded.kbit_s:.2f} kbit/s"


def _as_json(encoded: Encoded) -> str:
    utterance = encoded.utterance
    fields = {
        "file": str(encoded.file),
        "output": str(encoded.output),
        "utterance_id": str(utterance.utterance_id),
        "bytes": len(utterance.envelope),
        "pcm_bytes": utterance.pcm_bytes,
        "seconds": round(utterance.seconds, 3),
        "kbit_s": round(encoded.kbit_s, 3),
        "device_ms": round(utterance.device_ms, 3),
    }
    return json.dumps(fields, ensure_ascii=False)
