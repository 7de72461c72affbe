"""Turns of recordings and what the cluster answered: the table, the totals and the JSON lines of the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from amser.client.exchange.answer import Answer

ALL_COLUMNS_FROM = 96  # columns of a terminal; a narrower one leaves the costs that --json has as well to it


@dataclass(frozen=True, slots=True)
class SentTurn:
    """One utterance of a recording and its outcome: an answer, a failure, or neither where there is no speech.

    Attributes:
        file: the recording.
        start_s, end_s: where in it.
        answer: of the cluster; None where it failed, or where the recording holds no speech.
        failure: why it failed; None where it did not.
    """

    file: Path
    start_s: float = 0.0
    end_s: float = 0.0
    answer: Answer | None = None
    failure: str | None = None


def report(turns: Sequence[SentTurn], width: int) -> Iterator[Table | Text | str]:
    """What is printed of turns on a terminal that is `width` columns wide: a table, the failures, the totals."""
    yield table(turns, width)
    yield from failures(turns)
    yield totals(turns)


def table(turns: Sequence[SentTurn], width: int) -> Table:
    """A row for each turn. Where the width is short, the words get what per cent and device time would take."""
    rows = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=True)
    rows.add_column("file", no_wrap=True, overflow="ellipsis", max_width=20 if width >= ALL_COLUMNS_FROM else 14)
    rows.add_column("turn (s)", justify="right", no_wrap=True)
    rows.add_column("words", ratio=1)
    rows.add_column("emotion", no_wrap=True)
    for name in costs_shown(width):
        rows.add_column(name, justify="right", no_wrap=True)
    for turn in turns:
        rows.add_row(Text(turn.file.name), _span(turn), *_cells(turn, width))
    return rows


def costs_shown(width: int) -> tuple[str, ...]:
    """The columns of a turn's costs that there is room for."""
    return ("bytes", "% of\nPCM", "device\nms", "answer\nms") if width >= ALL_COLUMNS_FROM else ("bytes", "answer\nms")


def costs(bytes_sent: int, pcm_bytes: int, device_ms: float, answer_ms: float, width: int) -> tuple[str, ...]:
    """The cells of `costs_shown`."""
    share, device = f"{100 * bytes_sent / pcm_bytes:.1f}", f"{device_ms:.1f}"
    between = (share, device) if width >= ALL_COLUMNS_FROM else ()
    return (f"{bytes_sent:,}", *between, f"{answer_ms:,.0f}")


def words(answer: Answer) -> Text:
    """The words, and what to know about them; where there are none, why."""
    nothing = "no speech" if answer.speech == "none" else "no words"
    shown = Text(answer.text) if answer.text else Text(nothing, style="dim")
    remarks = ["perhaps no speech"] if answer.speech == "doubtful" else []
    if "language_mismatch" in answer.warnings:
        remarks.append(f"heard {answer.language}")
    if answer.degraded:
        remarks.append(f"without {', '.join(answer.degraded)}")
    return shown.append(f" ({'; '.join(remarks)})", style="yellow") if remarks else shown


def emotion(answer: Answer) -> Text:
    """The emotion with its confidence; one that should not be acted upon is only named, as a question.

    Where nobody speaks it is "none".
    """
    if answer.emotion is None:
        return Text("none", style="dim")
    if answer.uncertain:
        return Text(f"unsure ({answer.emotion}?)", style="dim")
    return Text.assemble((answer.emotion, "bold"), f" {answer.confidence:.2f}")


def failures(turns: Sequence[SentTurn]) -> list[Text]:
    """A line for each turn that failed, with the reason: a cell of the table is too narrow for it."""
    return [
        Text.assemble((f"{turn.file.name} {_span(turn)}".rstrip() + ": ", "red"), turn.failure)
        for turn in turns
        if turn.failure is not None
    ]


def totals(turns: Sequence[SentTurn]) -> str:
    """One line over all turns."""
    answers = [turn.answer for turn in turns if turn.answer]
    failed = sum(turn.failure is not None for turn in turns)
    parts = [f"{len(answers)} answered", f"{failed} failed"]
    if answers:
        sent, pcm = sum(answer.bytes_sent for answer in answers), sum(answer.pcm_bytes for answer in answers)
        parts.append(f"{decimal(sent)} sent for {decimal(pcm)} of PCM ({100 * sent / pcm:.1f} %)")
    return " · ".join(parts)


def line(turn: SentTurn) -> Text:
    """A turn that is shown by itself, as it is answered."""
    where = f"{turn.file.name} {turn.start_s:.1f}–{turn.end_s:.1f}: "
    if turn.answer is None:
        return Text.assemble((where, "red"), turn.failure or "")
    return Text.assemble((where, "dim"), words(turn.answer), " · ", emotion(turn.answer))


def as_json(turn: SentTurn) -> str:
    """One line of JSON: where the turn is from, and the answer with its costs, or the failure."""
    where = {"file": str(turn.file), "start_s": round(turn.start_s, 3), "end_s": round(turn.end_s, 3)}
    if turn.answer is None:
        return json.dumps({**where, "failure": turn.failure, "emotion": None}, ensure_ascii=False)
    answer = turn.answer
    cost = {
        "bytes_sent": answer.bytes_sent,
        "pcm_bytes": answer.pcm_bytes,
        "device_ms": round(answer.device_ms, 3),
        "answer_ms": round(answer.answer_ms, 3),
        "attempts": answer.attempts,
    }
    return json.dumps({**where, **cost, **answer.raw}, ensure_ascii=False)


def _cells(turn: SentTurn, width: int) -> tuple[Text | str, ...]:
    if turn.failure is not None:
        return (Text("failed", style="red"),)
    if turn.answer is None:
        return (Text("no speech", style="dim"),)
    answer = turn.answer
    return (
        words(answer),
        emotion(answer),
        *costs(answer.bytes_sent, answer.pcm_bytes, answer.device_ms, answer.answer_ms, width),
    )


def _span(turn: SentTurn) -> str:
    return f"{turn.start_s:.1f}–{turn.end_s:.1f}" if turn.end_s else ""
