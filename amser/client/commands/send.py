"""`python -m amser send FILE…`: a device on the command line. `deliver` and `spool` are in `amser.client.commands`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from amser import codecs
from amser.client.audio import FORMATS, read
from amser.client.commands import FAILED, INTERRUPTED, OK, WIDTH_OF_A_PIPE, complain
from amser.client.commands.spool import add_to, send_spooled
from amser.client.device import AUTO, Device, DeviceSettings, SendFailed, Unreachable
from amser.client.segmentation import SpeechDetector, default_model
from amser.client.turns import Turn, as_json, failures, table, totals
from amser.client.weights import WeightsMissing
from amser.codecs.interpolation import DEFAULT_FACTORS, LARGEST_FACTOR
from amser.codecs.klt import COARSEST, DEFAULT_PROFILE, PROFILES
from amser.errors import SignalError
from amser.features import SAMPLE_RATE, Float32

DESCRIPTION = """\
Splits audio files at pauses, compresses each utterance, sends it to the cluster and prints what
came back: words, emotion, bytes against 16-bit PCM, time on the device, time to the answer."""

EPILOG = """\
examples:
  python -m amser send call.wav
  python -m amser send *.flac --codec svd-i8 --rate 0.25 --language en
  python -m amser send call.wav --codec klt --step auto
  python -m amser send call.m4a --json | jq .emotion
  python -m amser send call.wav --spool call.spool

exit codes: 0 every turn was answered, 1 something failed, 2 wrong usage, 3 some is kept in the
spool, 130 stopped by Ctrl-C"""

ADVICE_IF_UNREACHABLE = """\
Start a cluster on this machine with: python -m demo --keep
Or name another one with --url. One that is still starting is ready when its /readyz says so."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except KeyboardInterrupt:
        return complain("stopped", code=INTERRUPTED)


def _run_send(options: argparse.Namespace) -> int:
    try:
        settings = DeviceSettings(
            options.device_id,
            options.url,
            _codec(options),
            options.rate,
            options.step,
            options.cells,
            language=options.language,
        )
        detector = None if options.no_split else SpeechDetector(options.vad or default_model())
    except ValueError as error:
        options.parser.error(str(error))
    except FileNotFoundError as error:
        return complain(str(error), "Or send whole files with --no-split." if isinstance(error, WeightsMissing) else "")
    if options.spool:
        return send_spooled(options, settings, _heard(options.files, detector))
    return _send(options, settings, detector)


def _codec(options: argparse.Namespace) -> str:
    """The codec that was named, or the one whose setting was."""
    if options.codec:
        return str(options.codec)
    if options.rate is not None:
        return codecs.DEFAULT_CODEC
    return "interpolation" if options.cells else DeviceSettings().codec


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m amser", description="A simulated device.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    send = commands.add_parser(
        "send",
        help="send audio files to the cluster, utterance by utterance",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    send.set_defaults(run=_run_send, parser=send)
    defaults = DeviceSettings()
    send.add_argument("files", nargs="+", type=Path, metavar="FILE", help=FORMATS)
    send.add_argument("--url", default=defaults.url, help="of the cluster (default: %(default)s)")
    send.add_argument(
        "--codec",
        choices=list(codecs.CODECS),
        help=f"default: {defaults.codec}; with --rate {codecs.DEFAULT_CODEC}, with --cells interpolation",
    )
    send.add_argument(
        "--rate",
        type=_rate,
        metavar="R",
        help=f"of an SVD: components kept, above 0, up to 1 (default: {codecs.DEFAULT_RATE})",
    )
    send.add_argument(
        "--step",
        metavar="S",
        help=f"of klt: {', '.join(PROFILES)}, {AUTO}, or 0 to {COARSEST}, finest first (default: {DEFAULT_PROFILE})",
    )
    send.add_argument(
        "--cells",
        type=_cells,
        metavar="TxF",
        help="of interpolation: frames and bands averaged (default: {}x{})".format(*DEFAULT_FACTORS),
    )
    send.add_argument("--language", metavar="CODE", help="that is spoken, such as en (default: detected)")
    send.add_argument("--device-id", default=defaults.device_id, metavar="ID", help="default: %(default)s")
    send.add_argument("--no-split", action="store_true", help="send each file as one utterance, 30 s at most")
    send.add_argument("--vad", type=Path, metavar="ONNX", help="Silero VAD model (default: that of the weight store)")
    send.add_argument("--spool", type=Path, metavar="FILE", help="keep utterances there until they are answered")
    send.add_argument("--json", action="store_true", help="one JSON object a turn, a line each, instead of the table")
    add_to(commands)
    return parser


def _rate(text: str) -> float:
    rate = float(text)
    if not 0 < rate <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and up to 1")
    return rate


def _cells(text: str) -> tuple[int, int]:
    try:
        factors = codecs.by_name("interpolation").read_setting(text).factors
    except ValueError:
        factors = None
    if factors is None or not all(1 <= factor <= LARGEST_FACTOR for factor in factors):
        raise argparse.ArgumentTypeError(f"{text} is not two numbers from 1 to {LARGEST_FACTOR}, such as 4x2")
    return factors


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
        return complain(str(unreachable), ADVICE_IF_UNREACHABLE)
    return FAILED if any(turn.failure for turn in turns) else OK


def _turns(files: Sequence[Path], detector: SpeechDetector | None, device: Device) -> Iterator[Turn]:
    """What became of every utterance of every file. An unreachable cluster ends it: the others would fare no better."""
    for turn, samples, captured_at in _heard(files, detector):
        yield turn if samples is None else _sent(turn, samples, captured_at, device)


def _heard(files: Sequence[Path], detector: SpeechDetector | None) -> Iterator[tuple[Turn, Float32 | None, datetime]]:
    """Every utterance of every file, with its samples where there is something to send, and when it was said."""
    for file in files:
        now = datetime.now(UTC)
        try:
            waveform = read(file)
        except SignalError as error:
            yield Turn(file, failure=str(error)), None, now
            continue
        except OSError as error:
            yield Turn(file, failure=error.strerror or str(error)), None, now
            continue
        duration = waveform.size / SAMPLE_RATE
        spans = [(0.0, duration)] if detector is None else detector.utterances(waveform)
        if not spans:
            yield Turn(file, 0.0, duration), None, now
        began = now - timedelta(seconds=duration)  # as if it had been recorded until now
        for start, end in spans:
            samples = waveform[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)]
            yield Turn(file, start, end), samples, began + timedelta(seconds=start)


def _sent(turn: Turn, samples: Float32, captured_at: datetime, device: Device) -> Turn:
    try:
        answer = device.send(device.encode(samples, captured_at))
    except Unreachable:
        raise
    except (SignalError, SendFailed) as error:
        return replace(turn, failure=str(error))
    return replace(turn, answer=answer)


if __name__ == "__main__":
    sys.exit(main())
