"""`send`: splits audio files at pauses and sends each utterance to the cluster, or puts it into a spool first."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from amser.audio import FORMATS
from amser.client.commands.codec_options import add_codec_options, device_settings
from amser.client.commands.deliver import (
    OWNERSHIP_WITHIN_S,
    add_cluster_options,
    add_partial_option,
    cluster_options,
    deliver_waiting,
)
from amser.client.commands.inputs import check_inputs, read_audio, reason
from amser.client.commands.terminal import FAILED, OK, columns, complain
from amser.client.device import Device, DeviceSettings
from amser.client.exchange.failures import SendFailed, Unreachable
from amser.client.frontend import FrontendMissing
from amser.client.spool import Spool
from amser.client.spool_view import SpoolError
from amser.client.turns import SentTurn, as_json, report
from amser.client.weights import WeightsMissing
from amser.errors import SignalError
from amser.features import SAMPLE_RATE, Float32

if TYPE_CHECKING:
    from amser.client.segmentation import SpeechDetector

DESCRIPTION = """\
Splits audio files at pauses, compresses each utterance, sends it to the
cluster and prints what came back: words, emotion, bytes against 16-bit PCM,
time on the device, time to the answer. An emotion that should not be acted
upon is shown as "unsure (neutral?)"; --json has the reasons. Where nobody
speaks, the words are "no speech" and the emotion is "none". On a terminal
under 96 columns the table leaves out per cent and device time; --json has
them."""

EPILOG = """\
examples:
  python -m amser send call.wav
  python -m amser send *.flac --codec svd-i8 --rate 0.25 --language en
  python -m amser send call.wav --codec klt --step auto
  python -m amser send call.m4a --json | jq .emotion
  python -m amser send call.wav --spool call.spool
  arecord -d 5 -r 16000 -f S16_LE | python -m amser send -

exit codes: 0 every turn was answered, 1 something failed, 2 wrong usage,
3 some is kept in the spool, 130 stopped by Ctrl-C"""

ADVICE_IF_UNREACHABLE = """\
Start a cluster on this machine with: python -m demo --keep
Or name another one with --url, or keep what is said for later with --spool.
A cluster that is still starting is ready when its /readyz says so."""

Recorded = tuple[SentTurn, Float32 | None, datetime]  # None: nothing to send. When it was said


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds those of `send`."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    add_file_options(parser)
    parser.add_argument("--spool", type=Path, metavar="FILE", help="keep utterances there until a whole answer comes")
    add_partial_option(parser)


def add_file_options(parser: argparse.ArgumentParser) -> None:
    """Adds those of files that are split and sent."""
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help=f"{FORMATS}; - is standard input")
    add_cluster_options(parser)
    parser.add_argument("--no-split", action="store_true", help="send each file as one utterance, 30 s at most")
    parser.add_argument("--vad", type=Path, metavar="ONNX", help="Silero VAD model (default: that of the weight store)")
    parser.add_argument("--json", action="store_true", help="one JSON object a turn, a line each, instead of the table")
    add_codec_options(parser)


def run(options: argparse.Namespace) -> int:
    """Sends the files; returns the exit code."""
    ready = prepared(options)
    if isinstance(ready, int):
        return ready
    settings, detector = ready
    recorded = recorded_turns(options.files, detector)
    return _spool(options, settings, recorded) if options.spool else _send(options, settings, recorded)


def prepared(options: argparse.Namespace) -> tuple[DeviceSettings, SpeechDetector | None] | int:
    """Settings and detector for files that are given, or the exit code where something stands against them."""
    try:
        check_inputs(options.files)
        settings = device_settings(options, **cluster_options(options))
        detector = _detector_of(options)
    except ValueError as error:
        options.parser.error(str(error))
    except FrontendMissing as error:
        return complain(str(error))
    except FileNotFoundError as error:
        return complain(str(error), "Or send whole files with --no-split." if isinstance(error, WeightsMissing) else "")
    return settings, detector


def _detector_of(options: argparse.Namespace) -> SpeechDetector | None:
    """Of pauses; None where files are not split. Raises FileNotFoundError."""
    from amser.client.segmentation import SpeechDetector, default_model  # onnxruntime: not where it is not wanted

    return None if options.no_split else SpeechDetector(options.vad or default_model())


def _send(options: argparse.Namespace, settings: DeviceSettings, recorded: Iterator[Recorded]) -> int:
    """Sends utterance by utterance. A cluster that is unreachable ends it: the others would fare no better."""
    turns: list[SentTurn] = []
    unreachable: Unreachable | None = None
    status = Console(stderr=True).status("reading")
    try:
        with status, Device(settings) as device:
            for turn, samples, captured_at in recorded:
                done = turn if samples is None else _answered(turn, samples, captured_at, device)
                status.update(f"{escape(done.file.name)}: {done.end_s:.1f} s")
                turns.append(done)
                if options.json:
                    print(as_json(done), flush=True)
    except Unreachable as error:
        unreachable = error
    finally:  # also after Ctrl-C: what was answered was paid for
        if turns and not options.json:
            console = Console(highlight=False, width=columns())
            for part in report(turns, console.width):
                console.print(part)
    if unreachable is not None:
        return complain(str(unreachable), ADVICE_IF_UNREACHABLE)
    return FAILED if any(turn.failure for turn in turns) else OK


def _spool(options: argparse.Namespace, settings: DeviceSettings, recorded: Iterator[Recorded]) -> int:
    """Puts utterances into the spool, then delivers all that waits there."""
    device, failed = Device(settings), []
    try:
        with Spool(options.spool, wait_s=OWNERSHIP_WITHIN_S) as spool:
            for turn, samples, captured_at in recorded:
                done = turn if samples is None else _spooled(turn, samples, captured_at, device, spool)
                if done is not None:
                    failed.append(done)
                    if options.json:
                        print(as_json(done), flush=True)
            return deliver_waiting(spool, settings, failed, options)
    except SpoolError as error:
        return complain(str(error))


def _spooled(turn: SentTurn, samples: Float32, captured_at: datetime, device: Device, spool: Spool) -> SentTurn | None:
    """Puts an utterance into the spool; the turn, where it cannot be encoded."""
    try:
        utterance = device.encode(samples, captured_at)
    except SignalError as error:
        return replace(turn, failure=str(error))
    spool.put(utterance, captured_at, json.dumps([str(turn.file), turn.start_s, turn.end_s]))
    return None


def _answered(turn: SentTurn, samples: Float32, captured_at: datetime, device: Device) -> SentTurn:
    try:
        answer = device.send(device.encode(samples, captured_at))
    except Unreachable:
        raise
    except (SignalError, SendFailed) as error:
        return replace(turn, failure=str(error))
    return replace(turn, answer=answer)


def recorded_turns(files: Sequence[Path], detector: SpeechDetector | None) -> Iterator[Recorded]:
    """Every utterance of every file. A file that cannot be read, or holds no speech, is one turn without samples."""
    for file in files:
        now = datetime.now(UTC)
        try:
            waveform = read_audio(file)
        except (OSError, SignalError) as error:
            yield SentTurn(file, failure=reason(error)), None, now
            continue
        duration = waveform.size / SAMPLE_RATE
        spans = [(0.0, duration)] if detector is None else detector.utterances(waveform)
        if not spans:
            yield SentTurn(file, 0.0, duration), None, now
            continue
        began = now - timedelta(seconds=duration)  # as if it had been recorded until now
        for start, end in spans:
            samples = waveform[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)]
            yield SentTurn(file, start, end), samples, began + timedelta(seconds=start)
