"""`spool`: shows what a spool holds, also while another process owns it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from amser.client.commands.terminal import OK, columns, complain
from amser.client.spool_view import Dropped, Result, SpoolError, SpoolView, Waiting
from amser.client.turns import emotion, words

ROWS: Final = 20  # of each table: the newest; --json has all

DESCRIPTION = """\
Shows what waits in a spool, the results, and what was dropped. Another process
may own the spool meanwhile. Each table has the newest 20 rows; --json has all."""

EPILOG = """\
examples:
  python -m amser spool call.spool
  python -m amser spool call.spool --json | jq '.waiting | length'

exit codes: 0 it was shown, 1 there is no such spool, or it is damaged,
2 wrong usage"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds those of `spool`."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("spool", type=Path, metavar="FILE", help="as `send --spool` made it")
    parser.add_argument("--json", action="store_true", help="one JSON object with all of it, instead of the tables")


def run(options: argparse.Namespace) -> int:
    """Shows the spool; returns the exit code."""
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
    console = Console(highlight=False, width=columns())
    for part in _tables(waiting, results, drops):
        console.print(part)
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
                rows.add_row(*where, words(result.answer), emotion(result.answer))
        yield rows
    if drops:
        rows = _rows(drops, "dropped for", "count", "bytes", "speech\ns", "last")
        for drop in drops:
            rows.add_row(drop.reason, f"{drop.count:,}", f"{drop.bytes:,}", f"{drop.seconds:,.1f}", _time(drop.last_at))
        yield rows


def _rows(records: list[Any], *headings: str) -> Table:
    caption = f"the newest {ROWS} of {len(records):,}; --json has all" if len(records) > ROWS else None
    return Table(*headings, box=box.SIMPLE_HEAD, pad_edge=False, caption=caption, caption_justify="left")


def _short(record: Waiting | Result) -> str:
    return str(record.utterance_id)[:8]


def _time(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
