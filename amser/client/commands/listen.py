"""`listen`: what somebody says into the microphone, turn by turn, as words and an emotion."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from amser.client.commands.codec_options import add_codec_options, device_settings
from amser.client.commands.deliver import add_cluster_options, cluster_options
from amser.client.commands.inputs import read_audio, reason
from amser.client.commands.send import ADVICE_IF_UNREACHABLE
from amser.client.commands.terminal import FAILED, KEPT, OK, columns, complain
from amser.client.delivery import is_final
from amser.client.exchange.failures import SendFailed, Unreachable
from amser.client.frontend import FrontendMissing
from amser.client.sources import BLOCK_S, Microphone, NoMicrophone, turns
from amser.client.spool_view import SpoolError
from amser.client.synchronous import Client
from amser.client.turns import SentTurn, as_json, line
from amser.client.weights import WeightsMissing
from amser.errors import SignalError
from amser.features import SAMPLE_RATE, Float32

DESCRIPTION = """\
Listens to the microphone until Ctrl-C. Each turn is compressed here and sent
once its pause is there, and printed as words and emotion. What nobody says is
not sent."""

EPILOG = """\
examples:
  python -m amser listen
  python -m amser listen --microphone 3 --language en --spool waiting.spool
  python -m amser listen --file call.wav --json | jq .transcript.text

Microphones are listed by: python -m sounddevice

exit codes: 0 all of a --file was answered, 1 something failed, 2 wrong usage,
3 some is kept in the spool, 130 stopped by Ctrl-C"""

MICROPHONE = Path("microphone")  # in place of a file's name


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds those of `listen`."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    add_cluster_options(parser)
    heard = parser.add_mutually_exclusive_group()
    heard.add_argument("--microphone", metavar="NAME", help="or its number (default: the system's choice)")
    heard.add_argument("--file", type=Path, metavar="FILE", help="in place of a microphone; - is standard input")
    parser.add_argument("--spool", type=Path, metavar="FILE", help="keep turns there until they are answered")
    parser.add_argument("--json", action="store_true", help="one JSON object a turn, a line each")
    add_codec_options(parser)


def run(options: argparse.Namespace) -> int:
    """Listens; returns the exit code."""
    try:
        settings = device_settings(options, **cluster_options(options))
    except ValueError as error:
        options.parser.error(str(error))
    except FrontendMissing as error:
        return complain(str(error))
    try:
        with Client(settings, spool=options.spool) as client, _blocks(options) as blocks:
            return _listen(options, client, blocks)
    except (NoMicrophone, WeightsMissing, SpoolError) as error:
        return complain(str(error))
    except (OSError, SignalError) as error:
        return complain(f"{options.file or MICROPHONE}: {reason(error)}")


def _listen(options: argparse.Namespace, client: Client, blocks: Iterator[Float32]) -> int:
    code = OK
    console = Console(highlight=False, width=columns())
    for turn in turns(blocks):
        done = SentTurn(options.file or MICROPHONE, turn.start_s, turn.end_s)
        try:
            done = SentTurn(done.file, done.start_s, done.end_s, client.recognize(turn.waveform))
        except (SignalError, SendFailed) as error:
            done = SentTurn(done.file, done.start_s, done.end_s, failure=str(error))
            if isinstance(error, Unreachable) and not options.spool:
                return complain(str(error), ADVICE_IF_UNREACHABLE)
            is_kept = options.spool and isinstance(error, SendFailed) and not is_final(error)
            code = max(code, KEPT if is_kept else FAILED)
        if options.json:
            print(as_json(done), flush=True)
        else:
            console.print(line(done))
    return code


@contextmanager
def _blocks(options: argparse.Namespace) -> Iterator[Iterator[Float32]]:
    """Of the microphone, or of a file in its place."""
    if options.file is not None:
        waveform, size = read_audio(options.file), round(BLOCK_S * SAMPLE_RATE)
        yield (waveform[at : at + size] for at in range(0, waveform.size, size))
        return
    name = options.microphone
    with Microphone(int(name) if name is not None and name.isdecimal() else name) as microphone:
        yield microphone.blocks()
