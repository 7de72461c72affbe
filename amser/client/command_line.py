"""The commands of `python -m amser`. Only the command that was asked for is imported, so that `--help` is quick."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from types import MappingProxyType
from typing import Final

from amser.client.commands.terminal import Parser, guarded

COMMANDS: Final = MappingProxyType(  # each a module of `amser.client.commands` with `add_arguments` and `run`
    {
        "send": "send audio files to the cluster, utterance by utterance, and print words and emotion",
        "batch": "send audio files together, all utterances in as few requests as they fit into",
        "listen": "send what is said into the microphone, turn by turn, and print words and emotion",
        "jobs": "upload recordings of any length, and show or cancel the jobs that they become",
        "stream": "send speech while it is spoken, and print words as they come",
        "deliver": "send what waits in a spool",
        "spool": "show what a spool holds",
        "encode": "compress an audio file into an envelope, the body of a request",
        "decode": "turn an envelope back into the log-Mel that the cluster gets",
        "inspect": "show what an envelope says of itself",
    }
)

DESCRIPTION = """\
The client of an AMSER cluster: compresses speech to a few hundred bytes a
second and sends it."""

EPILOG = """\
examples:
  python -m amser send call.wav
  python -m amser encode call.wav && python -m amser inspect call.amser
  python -m amser COMMAND --help

Where a command reads audio or envelopes, - is standard input.

exit codes: 0 all of it succeeded, 1 something failed, 2 wrong usage,
3 some is kept in the spool, 130 stopped by Ctrl-C"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    logging.basicConfig(format="amser: %(message)s")  # standard error
    return guarded(lambda: _run(given))


def _run(given: Sequence[str]) -> int:
    options = _parser(given).parse_args(given)
    return int(options.run(options))


def _parser(given: Sequence[str]) -> argparse.ArgumentParser:
    """Knows all commands by name, and the arguments of the one that is asked for."""
    form = argparse.RawDescriptionHelpFormatter
    parser = Parser(prog="python -m amser", description=DESCRIPTION, epilog=EPILOG, formatter_class=form)
    parser.add_argument("--version", action="version", version=f"amser {_version()}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    asked_for = next((argument for argument in given if not argument.startswith("-")), None)
    for name, what in COMMANDS.items():
        command = commands.add_parser(name, help=what, formatter_class=form)
        if name == asked_for:
            module = import_module(f"amser.client.commands.{name}")
            module.add_arguments(command)
            command.set_defaults(run=module.run, parser=command)
    return parser


def _version() -> str:
    try:
        return version("amser")
    except PackageNotFoundError:  # a checkout on the path
        return "(not installed)"
