"""`send --spool`, `deliver` and `spool`: utterances that survive a lost link, on the command line."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich import box
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from amser.client.commands import FAILED, KEPT, OK, WIDTH_OF_A_PIPE, complain
from amser.client.delivery import Delivery
from amser.client.device import Device, DeviceSettings
from amser.client.spool import Spool
from amser.client.spool_view import Dropped, Result, SpoolError, SpoolView, Waiting
from amser.client.turns import Turn, as_json, emotion, failures, table, totals
from amser.errors import SignalError
from amser.features import Float32

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

OWNERSHIP_WITHIN_S: Final = 30.0  # a `deliver --watch` lets go of the spool after each batch
ROWS: Final = 20  # of each table: the newest; --json has all

DELIVER = """\
Sends what waits in a spool, oldest first, and prints what came back. Without a link it ends soon,
and what is left stays in the spool; with --watch it goes on until Ctrl-C."""

DELIVER_EPILOG = """\
exit codes: 0 nothing waits any longer, 1 something failed, 2 wrong usage, 3 some is kept in the
spool, 130 stopped by Ctrl-C"""

SPOOL = "Shows what waits in a spool, what became of the rest, and what was dropped. Another process may own it."


def add_to(commands: Commands) -> None:
    """Makes `deliver` and `spool` known."""
    deliver = commands.add_parser(
        "deliver",
        help="send what waits in a spool",
        description=DELIVER,
        epilog=DELIVER_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    deliver.set_defaults(run=_deliver, parser=deliver)
    deliver.add_argument("--spool", type=Path, required=True, metavar="FILE", help="as `send --spool` made it")
    deliver.add_argument("--url", default=DeviceSettings().url, help="of the cluster (default: %(default)s)")
    deliver.add_argument("--watch", action="store_true", help="go on: wait for the link and for what others spool")
    deliver.add_argument(
        "--json", action="store_true", help="one JSON object a turn, a line each, instead of the table"
    )
    show = commands.add_parser("spool", help="show what a spool holds", description=SPOOL)
    show.set_defaults(run=_show, parser=show)
    show.add_argument("spool", type=Path, metavar="FILE", help="as `send --spool` made it")
    show.add_argument("--json", action="store_true", help="one JSON object with all of it, instead of the tables")


def send_spooled(
    options: argparse.Namespace, settings: DeviceSettings, heard: Iterable[tuple[Turn, Float32 | None, datetime]]
) -> int:
    """Puts utterances into the spool, then delivers all that waits there.

    Args:
        options: of `send`.
        settings: of the device.
        heard: each turn, its samples where it is to be sent, and when it was said.
    """
    device, turns = Device(settings), []
    try:
        with Spool(options.spool, wait_s=OWNERSHIP_WITHIN_S) as spool:
            for turn, samples, captured_at in heard:
                failed = turn if samples is None else _spooled(turn, samples, captured_at, device, spool)
                if failed is not None:
                    turns.append(failed)
                    if options.json:
                        print(as_json(failed), flush=True)
            return _emptied(options, settings, spool, turns)
    except SpoolError as error:
        return complain(str(error))


def _spooled(turn: Turn, samples: Float32, captured_at: datetime, device: Device, spool: Spool) -> Turn | None:
    """Puts an utterance into the spool; the turn, where it cannot be encoded."""
    try:
        utterance = device.encode(samples, captured_at)
    except SignalError as error:
        return replace(turn, failure=str(error))
    spool.put(utterance, captured_at, json.dumps([str(turn.file), turn.start_s, turn.end_s]))
    return None


def _deliver(options: argparse.Namespace) -> int:
    try:
        settings = DeviceSettings(url=options.url)
    except ValueError as error:
        options.parser.error(str(error))
    try:
        if options.watch:
            return _watch(options, settings)
        SpoolView(options.spool).close()  # a name with a typing error makes no new spool
        with Spool(options.spool, wait_s=OWNERSHIP_WITHIN_S) as spool:
            return _emptied(options, settings, spool, [])
    except SpoolError as error:
        return complain(str(error))


def _emptied(options: argparse.Namespace, settings: DeviceSettings, spool: Spool, turns: list[Turn]) -> int:
    """Delivers until nothing waits or the link does not come back; prints `turns` and those that were settled."""
    with Console(stderr=True).status("delivering"), Delivery(settings) as delivery:
        for result in delivery.until_empty(spool):
            turns.append(_turn(result))
            if options.json:
                print(as_json(turns[-1]), flush=True)
    if turns and not options.json:
        console = _console()
        console.print(table(turns))
        for line in failures(turns):
            console.print(line)
        console.print(totals(turns))
    if waiting := spool.waiting():
        count = "1 utterance is" if len(waiting) == 1 else f"{len(waiting)} utterances are"
        cause = delivery.trouble or f"the next attempt follows at {_time(min(each.not_before for each in waiting))}"
        advice = f"Deliver later with: python -m amser deliver --spool {options.spool} --url {settings.url}"
        return complain(f"{count} kept in the spool: {cause}", advice, KEPT)
    return FAILED if any(turn.failure for turn in turns) else OK


def _watch(options: argparse.Namespace, settings: DeviceSettings) -> int:
    logging.basicConfig(format="%(message)s")  # standard error
    logging.getLogger("edge_sim").setLevel(logging.INFO)
    console = _console()
    with Delivery(settings) as delivery:
        for result in delivery.watch(lambda: Spool(options.spool, wait_s=OWNERSHIP_WITHIN_S)):
            turn = _turn(result)
            if options.json:
                print(as_json(turn), flush=True)
            else:
                console.print(_line(turn))
    return OK


def _turn(result: Result) -> Turn:
    """A result as `send` shows it. One that something else than `send` spooled goes by its id."""
    file, start_s, end_s = json.loads(result.note) if result.note else (result.utterance_id, 0.0, result.seconds)
    return Turn(Path(str(file)), start_s, end_s, result.answer, result.failure)


def _line(turn: Turn) -> Text:
    where = f"{turn.file.name} {turn.start_s:.1f}–{turn.end_s:.1f}: "
    if turn.answer is None:
        return Text.assemble((where, "red"), turn.failure or "")
    return Text.assemble((where, "dim"), turn.answer.text or "no words", " · ", emotion(turn.answer))


def _show(options: argparse.Namespace) -> int:
    try:
        with SpoolView(options.spool) as spool:
            waiting, results, drops = spool.waiting(), spool.results(), spool.drops()
    except SpoolError as error:
        return complain(str(error))
    if options.json:
        lists: dict[str, Sequence[Waiting | Result | Dropped]] = {
            "waiting": waiting,
            "results": results,
            "drops": drops,
        }
        print(json.dumps({name: [_plain(each) for each in found] for name, found in lists.items()}, ensure_ascii=False))
        return OK
    console = _console()
    for line in _tables(waiting, results, drops):
        console.print(line)
    return OK


def _plain(record: Waiting | Result | Dropped) -> dict[str, Any]:
    fields = asdict(record)
    return fields if isinstance(record, Dropped) else {**fields, "utterance_id": str(record.utterance_id)}


def _tables(waiting: list[Waiting], results: list[Result], drops: list[Dropped]) -> Iterator[Table | str]:
    refused = sum(result.answer is None for result in results)
    size, seconds = sum(each.bytes for each in waiting), sum(each.seconds for each in waiting)
    speech = f"{decimal(size)}, {seconds:,.1f} s of speech"
    yield f"{len(waiting)} waiting ({speech}) · {len(results) - refused} answered · {refused} failed"
    if waiting:
        rows = _rows(waiting, "waiting", "captured", "speech\ns", "bytes", "attempts", "not before")
        for each in waiting[-ROWS:]:
            not_before = _time(each.not_before) if each.not_before else ""
            costs = (f"{each.seconds:.1f}", f"{each.bytes:,}", str(each.attempts), not_before)
            rows.add_row(_short(each), _time(each.captured_at), *costs)
        yield rows
    if results:
        rows = _rows(results, "result", "captured", "words", "emotion")
        for result in results[-ROWS:]:
            where = (_short(result), _time(result.captured_at))
            if result.answer is None:
                rows.add_row(*where, Text(result.failure or "", style="red"), "")
            else:
                rows.add_row(*where, Text(result.answer.text or "no words"), emotion(result.answer))
        yield rows
    if drops:
        rows = _rows(drops, "dropped for", "count", "bytes", "speech\ns", "last")
        for drop in drops:
            rows.add_row(drop.reason, f"{drop.count:,}", f"{drop.bytes:,}", f"{drop.seconds:,.1f}", _time(drop.last_at))
        yield rows


def _rows(records: list[Any], *columns: str) -> Table:
    caption = f"the newest {ROWS} of {len(records):,}; --json has all" if len(records) > ROWS else None
    return Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False, caption=caption, caption_justify="left")


def _short(record: Waiting | Result) -> str:
    return str(record.utterance_id)[:8]


def _time(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _console() -> Console:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDTH_OF_A_PIPE
    return console
