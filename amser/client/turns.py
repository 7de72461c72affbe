"""What the command line prints of the turns that a device sent."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from amser.client.device import Answer


@dataclass(frozen=True, slots=True)
class Turn:
    """One utterance of a file and what became of it.

    Attributes:
        file: where it is from.
        start_s, end_s: where in the file.
        answer: None where it failed, or where nobody speaks in the file.
        failure: why; None where it did not fail.
    """

    file: Path
    start_s: float = 0.0
    end_s: float = 0.0
    answer: Answer | None = None
    failure: str | None = None


def table(turns: Sequence[Turn]) -> Table:
    """A row for each turn."""
    rows = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=True)
    rows.add_column("file", no_wrap=True, overflow="ellipsis", max_width=20)
    rows.add_column("turn (s)", justify="right", no_wrap=True)
    rows.add_column("words", ratio=1)
    rows.add_column("emotion", no_wrap=True)
    for name in ("bytes", "% of\nPCM", "device\nms", "answer\nms"):
        rows.add_column(name, justify="right", no_wrap=True)
    for turn in turns:
        rows.add_row(Text(turn.file.name), _span(turn), *_cells(turn))
    return rows


def _cells(turn: Turn) -> tuple[Text | str, ...]:
    if turn.failure is not None:
        return (Text("failed", style="red"),)
    if turn.answer is None:
        return (Text("nobody speaks", style="dim"),)
    answer = turn.answer
    words = Text(answer.text) if answer.text else Text("no words", style="dim")
    if answer.degraded:
        words.append(f" (without {', '.join(answer.degraded)})", style="yellow")
    return (words, emotion(answer), *costs(answer))


def failures(turns: Sequence[Turn]) -> list[Text]:
    """A line for each turn that failed, with the reason: a cell of the table is too narrow for it."""
    return [
        Text.assemble((f"{turn.file.name} {_span(turn)}".rstrip() + ": ", "red"), turn.failure)
        for turn in turns
        if turn.failure is not None
    ]


def _span(turn: Turn) -> str:
    return f"{turn.start_s:.1f}–{turn.end_s:.1f}" if turn.end_s else ""


def emotion(answer: Answer) -> Text:
    """The emotion with its probability."""
    return Text.assemble((answer.emotion, "bold"), f" {answer.probabilities.get(answer.emotion, 0.0):.2f}")


def costs(answer: Answer) -> tuple[str, str, str, str]:
    """Bytes, per cent of PCM, milliseconds on the device, milliseconds to the answer."""
    share = f"{100 * answer.bytes_sent / answer.pcm_bytes:.1f}"
    return (f"{answer.bytes_sent:,}", share, f"{answer.device_ms:.1f}", f"{answer.answer_ms:,.0f}")


def totals(turns: Sequence[Turn]) -> str:
    """One line over all turns."""
    answers = [turn.answer for turn in turns if turn.answer]
    failed = sum(turn.failure is not None for turn in turns)
    parts = [f"{len(answers)} answered", f"{failed} failed"]
    if answers:
        sent, pcm = sum(answer.bytes_sent for answer in answers), sum(answer.pcm_bytes for answer in answers)
        parts.append(f"{decimal(sent)} sent for {decimal(pcm)} of PCM ({100 * sent / pcm:.1f} %)")
    return " · ".join(parts)


def as_json(turn: Turn) -> str:
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
