"""`deliver`: sends what waits in a spool. `send --spool` ends with the same."""

from __future__ import annotations

import argparse
import json
import logging
import shlex
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from amser.client.commands.terminal import FAILED, KEPT, OK, columns, complain
from amser.client.credentials import KEY_VARIABLE, given_key
from amser.client.delivery import Delivery, DeliverySettings
from amser.client.device import DeviceSettings
from amser.client.spool import Spool
from amser.client.spool_view import Result, SpoolError, SpoolView
from amser.client.turns import SentTurn, as_json, line, report

OWNERSHIP_WITHIN_S: Final = 30.0  # a `deliver --watch` lets go of the spool after each batch

DESCRIPTION = """\
Sends what waits in a spool, oldest first, and prints what came back. Without
a link it ends soon, and what is left stays in the spool; with --watch it goes
on until Ctrl-C.

Whole answers are asked for: where the cluster is too busy for one, or lacks a
stage, the utterance stays in the spool. A cluster that answers with less all
the same is asked five times before its answer counts; the table then says what
it is without ("without asr, text"), and --json has it in "degraded"."""

EPILOG = """\
examples:
  python -m amser deliver --spool call.spool
  python -m amser deliver --spool call.spool --url http://cluster:8000 --watch

exit codes: 0 nothing waits any longer, 1 something failed, 2 wrong usage,
3 some is kept in the spool, 130 stopped by Ctrl-C"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds those of `deliver`."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("--spool", type=Path, required=True, metavar="FILE", help="as `send --spool` made it")
    add_cluster_options(parser)
    add_partial_option(parser)
    parser.add_argument("--watch", action="store_true", help="go on: wait for the link and for what others spool")
    parser.add_argument("--json", action="store_true", help="one JSON object a turn, a line each, instead of the table")


def add_cluster_options(parser: argparse.ArgumentParser) -> None:
    """Adds those that say whom to send to, and what is asked there."""
    parser.add_argument("--url", default=DeviceSettings().url, help="of the cluster (default: %(default)s)")
    parser.add_argument(
        "--key-file", type=Path, metavar="FILE", help=f"that holds the key for the cluster (default: ${KEY_VARIABLE})"
    )
    parser.add_argument("--ca", type=Path, metavar="FILE", help="certificates that the cluster's is signed by (https)")
    parser.add_argument(
        "--emotions",
        type=lambda text: tuple(name.strip() for name in text.split(",")),
        default=(),
        metavar="LIST",
        help="choose among these alone, such as angry,happy,neutral,sad (default: all that the cluster knows)",
    )


def cluster_options(options: argparse.Namespace) -> dict[str, Any]:
    """What `add_cluster_options` made, as fields of `DeviceSettings`. Raises ValueError."""
    key = given_key(options.key_file)
    return {"url": options.url, "emotions": options.emotions, "key": key, "ca": options.ca}


def add_partial_option(parser: argparse.ArgumentParser) -> None:
    """Adds the one that says what a spool takes for an answer."""
    what = "take answers that leave something out, rather than keep the utterance until there is a whole one"
    parser.add_argument("--partial", action="store_true", help=what)


def run(options: argparse.Namespace) -> int:
    """Delivers what waits; returns the exit code."""
    try:
        settings = DeviceSettings(**cluster_options(options))
    except ValueError as error:
        options.parser.error(str(error))
    try:
        if options.watch:
            return _watch(options, settings)
        SpoolView(options.spool).close()  # a name with a typing error makes no new spool
        with Spool(options.spool, wait_s=OWNERSHIP_WITHIN_S) as spool:
            return deliver_waiting(spool, settings, [], options)
    except SpoolError as error:
        return complain(str(error))


def deliver_waiting(spool: Spool, settings: DeviceSettings, turns: list[SentTurn], options: argparse.Namespace) -> int:
    """Delivers until nothing waits or the link does not come back soon, and prints what came back.

    Args:
        spool: owned by this process.
        settings: whom to send to.
        turns: that are already known to fail, or to hold no speech; they are printed along.
        options: of the command: `json` for a line a turn instead of the table at the end, `partial`, `key_file`, `ca`.

    Returns:
        The exit code.
    """
    how = DeliverySettings(whole=not options.partial)
    try:
        with Console(stderr=True).status("delivering"), Delivery(settings, how) as delivery:
            for result in delivery.until_empty(spool):
                turns.append(_turn(result))
                if options.json:
                    print(as_json(turns[-1]), flush=True)
    finally:  # also after Ctrl-C: these results wait no longer
        if turns and not options.json:
            console = _console()
            for part in report(turns, console.width):
                console.print(part)
    if waiting := spool.waiting():
        count = "1 utterance is" if len(waiting) == 1 else f"{len(waiting)} utterances are"
        cause = delivery.trouble or f"the next attempt follows in {spool.next_due_s() or 0:,.0f} s"
        command = ["python", "-m", "amser", "deliver", "--spool", str(spool.path), "--url", settings.url]
        if settings.emotions:
            command += ["--emotions", ",".join(settings.emotions)]
        command += ["--key-file", str(options.key_file)] if options.key_file else []
        command += ["--ca", str(options.ca)] if options.ca else []
        command += ["--partial"] if options.partial else []
        return complain(f"{count} kept in the spool: {cause}", f"Deliver later with: {shlex.join(command)}", KEPT)
    return FAILED if any(turn.failure for turn in turns) else OK


def _watch(options: argparse.Namespace, settings: DeviceSettings) -> int:
    """Until Ctrl-C. Standard error says when the link is lost and when it is back."""
    logging.getLogger("amser").setLevel(logging.INFO)
    console = _console()
    with Delivery(settings, DeliverySettings(whole=not options.partial)) as delivery:
        for result in delivery.watch(lambda: Spool(options.spool, wait_s=OWNERSHIP_WITHIN_S)):
            turn = _turn(result)
            if options.json:
                print(as_json(turn), flush=True)
            else:
                console.print(line(turn))
    return OK


def _turn(result: Result) -> SentTurn:
    """A result as `send` shows it. One that another program spooled goes by its id."""
    try:
        file, start_s, end_s = json.loads(result.note)
        return SentTurn(Path(file), float(start_s), float(end_s), result.answer, result.failure)
    except (ValueError, TypeError):
        return SentTurn(Path(str(result.utterance_id)), 0.0, result.seconds, result.answer, result.failure)


def _console() -> Console:
    return Console(highlight=False, width=columns())
