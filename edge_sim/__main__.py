"""`python -m edge_sim send FILE…`: a device on the command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from amser import codecs
from amser.errors import SignalError
from amser.features import SAMPLE_RATE, Float32
from edge_sim.audio import FORMATS, read
from edge_sim.device import Device, DeviceSettings, SendFailed, Unreachable
from edge_sim.report import Turn, as_json, failures, table, totals
from edge_sim.segmentation import Span, SpeechDetector, default_model
from edge_sim.weights import WeightsMissing

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130  # exit codes
WIDTH_OF_A_PIPE = 100  # columns, where the output is no terminal

DESCRIPTION = """\
Splits audio files at pauses, compresses each utterance, sends it to the cluster and prints what
came back: words, emotion, bytes against 16-bit PCM, time on the device, time to the answer."""

EPILOG = """\
examples:
  python -m edge_sim send call.wav
  python -m edge_sim send *.flac --codec svd-i8 --rate 0.25 --language en
  python -m edge_sim send call.m4a --json | jq .emotion

exit codes: 0 every turn was answered, 1 something failed, 2 wrong usage, 130 stopped by Ctrl-C"""

ADVICE_IF_UNREACHABLE = """\
Start a cluster on this machine with: python -m demo --keep
Or name another one with --url. One that is still starting is ready when its /readyz says so."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        settings = DeviceSettings(
            options.device_id, options.url, options.codec, options.rate, language=options.language
        )
        detector = None if options.no_split else SpeechDetector(options.vad or default_model())
    except ValueError as error:
        options.parser.error(str(error))
    except FileNotFoundError as error:
        return _complain(
            str(error), "Or send whole files with --no-split." if isinstance(error, WeightsMissing) else ""
        )
    try:
        return _send(options, settings, detector)
    except KeyboardInterrupt:
        return _complain("stopped", "", INTERRUPTED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m edge_sim", description="A simulated device.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    send = commands.add_parser(
        "send",
        help="send audio files to the cluster, utterance by utterance",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    send.set_defaults(parser=send)
    defaults = DeviceSettings()
    send.add_argument("files", nargs="+", type=Path, metavar="FILE", help=FORMATS)
    send.add_argument("--url", default=defaults.url, help="of the cluster (default: %(default)s)")
    send.add_argument("--codec", default=defaults.codec, choices=list(codecs.CODECS), help="default: %(default)s")
    send.add_argument(
        "--rate",
        type=_rate,
        default=codecs.DEFAULT_RATE,
        metavar="R",
        help="components kept, above 0, up to 1 (default: %(default)s); mel-f16 has no use for it",
    )
    send.add_argument("--language", metavar="CODE", help="that is spoken, such as en (default: detected)")
    send.add_argument("--device-id", default=defaults.device_id, metavar="ID", help="default: %(default)s")
    send.add_argument("--no-split", action="store_true", help="send each file as one utterance, 30 s at most")
    send.add_argument("--vad", type=Path, metavar="ONNX", help="Silero VAD model (default: that of the weight store)")
    send.add_argument("--json", action="store_true", help="one JSON object a turn, a line each, instead of the table")
    return parser


def _rate(text: str) -> float:
    rate = float(text)
    if not 0 < rate <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and up to 1")
    return rate


def _send(options: argparse.Namespace, settings: DeviceSettings, detector: SpeechDetector | None) -> int:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDTH_OF_A_PIPE
    turns, unreachable = [], None
    status = Console(stderr=True).status("listening")
    with status, Device(settings) as device:
        try:
            for turn in _turns(options.files, detector, device):
                status.update(f"{escape(turn.file.name)}: {turn.end_s:.1f} s")
                turns.append(turn)
                if options.json:
                    print(as_json(turn), flush=True)
        except Unreachable as error:
            unreachable = error
    if turns and not options.json:
        console.print(table(turns))
        for line in failures(turns):
            console.print(line)
        console.print(totals(turns))
    if unreachable:
        return _complain(str(unreachable), ADVICE_IF_UNREACHABLE)
    return FAILED if any(turn.failure for turn in turns) else OK


def _turns(files: Sequence[Path], detector: SpeechDetector | None, device: Device) -> Iterator[Turn]:
    """What became of every utterance of every file. An unreachable cluster ends it: the others would fare no better."""
    for file in files:
        try:
            waveform = read(file)
        except SignalError as error:
            yield Turn(file, failure=str(error))
            continue
        except OSError as error:
            yield Turn(file, failure=error.strerror or str(error))
            continue
        duration = waveform.size / SAMPLE_RATE
        spans = [(0.0, duration)] if detector is None else detector.utterances(waveform)
        if not spans:
            yield Turn(file, 0.0, duration)
        began = datetime.now(UTC) - timedelta(seconds=duration)  # as if it had been recorded until now
        for span in spans:
            yield _turn(file, span, waveform, began, device)


def _turn(file: Path, span: Span, waveform: Float32, began: datetime, device: Device) -> Turn:
    start, end = span
    samples = waveform[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)]
    try:
        answer = device.send(device.encode(samples, began + timedelta(seconds=start)))
    except Unreachable:
        raise
    except (SignalError, SendFailed) as error:
        return Turn(file, start, end, failure=str(error))
    return Turn(file, start, end, answer)


def _complain(what: str, advice: str, code: int = FAILED) -> int:
    print(f"edge_sim: {what}", file=sys.stderr)
    if advice:
        print(advice, file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
