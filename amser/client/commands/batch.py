"""`batch`: sends all utterances of audio files together, in as few requests as they fit into."""

from __future__ import annotations

import argparse
from dataclasses import replace

from rich.console import Console

from amser.client.commands.send import ADVICE_IF_UNREACHABLE, add_file_options, prepared, recorded_turns
from amser.client.commands.terminal import FAILED, OK, columns, complain
from amser.client.exchange.failures import Unreachable
from amser.client.sources import Samples
from amser.client.synchronous import Client
from amser.client.turns import SentTurn, as_json, report

DESCRIPTION = """\
Splits audio files at pauses, as `send` does, and sends all utterances
together, up to 64 in a request: over a mobile network a radio that wakes up
once takes a fraction of the energy (docs/app-developers.md). The answers come
when all are there; one that is bad spoils no other, and what the cluster has
no time for is sent again."""

EPILOG = """\
examples:
  python -m amser batch monday/*.flac
  python -m amser batch call.wav --step low --json | jq .emotion

exit codes: 0 every turn was answered, 1 something failed, 2 wrong usage,
130 stopped by Ctrl-C"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds those of `batch`."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    add_file_options(parser)


def run(options: argparse.Namespace) -> int:
    """Sends the files; returns the exit code."""
    ready = prepared(options)
    if isinstance(ready, int):
        return ready
    settings, detector = ready
    turns: list[SentTurn] = []
    spoken: list[int] = []  # positions of the turns that are sent
    sources: list[Samples] = []
    with Console(stderr=True).status("reading"):
        for turn, samples, _ in recorded_turns(options.files, detector):
            turns.append(turn)
            if samples is not None:
                spoken.append(len(turns) - 1)
                sources.append(samples)
    with Console(stderr=True).status("sending"), Client(settings) as client:
        outcomes = client.batch(sources)
    for position, outcome in zip(spoken, outcomes, strict=True):
        failure = None if outcome.failure is None else str(outcome.failure)
        turns[position] = replace(turns[position], answer=outcome.answer, failure=failure)
    if options.json:
        for turn in turns:
            print(as_json(turn))
    else:
        console = Console(highlight=False, width=columns())
        for part in report(turns, console.width):
            console.print(part)
    unreachable = next((each.failure for each in outcomes if isinstance(each.failure, Unreachable)), None)
    if unreachable is not None:
        return complain(str(unreachable), ADVICE_IF_UNREACHABLE)
    return FAILED if any(turn.failure for turn in turns) else OK
