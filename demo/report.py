"""What the demo prints in the end: each turn once, and the numbers of the whole run."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from rich import box
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from amser.client.exchange.answer import Answer
from amser.client.turns import costs, costs_shown, emotion, words
from demo.fleet import Result
from edge_sim.conversation import SpokenTurn


@dataclass(frozen=True, slots=True)
class Summary:
    """The whole run.

    Attributes:
        answered: requests that got an answer.
        failures: how many requests failed for each reason.
        seconds: from the first request to the last answer.
        speech_seconds: duration of the speech that was answered.
        answer_ms: time to answer of every answered request.
        bytes_sent, pcm_bytes: of the answered requests: what was sent, and what 16-bit PCM would have been.
    """

    answered: int
    failures: Counter[str]
    seconds: float
    speech_seconds: float
    answer_ms: tuple[float, ...]
    bytes_sent: int
    pcm_bytes: int

    def percentile(self, percent: float) -> float:
        """Milliseconds within which `percent` of the answers came; a value that was measured, not one between two."""
        return float(np.percentile(self.answer_ms, percent, method="inverted_cdf"))


def summarize(results: Sequence[Result], conversation: Sequence[SpokenTurn], seconds: float) -> Summary:
    """The numbers of a run that took that many seconds."""
    answered = [(result.turn, result.answer) for result in results if result.answer is not None]
    return Summary(
        answered=len(answered),
        failures=Counter(result.failure for result in results if result.failure is not None),
        seconds=seconds,
        speech_seconds=sum(conversation[turn].turn.seconds for turn, _ in answered),
        answer_ms=tuple(answer.answer_ms for _, answer in answered),
        bytes_sent=sum(answer.bytes_sent for _, answer in answered),
        pcm_bytes=sum(answer.pcm_bytes for _, answer in answered),
    )


def turns_table(results: Sequence[Result], conversation: Sequence[SpokenTurn], width: int) -> Table:
    """A row for each turn; its times are medians over all devices that spoke it. Fits a terminal of `width` columns."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=True)
    table.add_column("from–to\n(s)", justify="right", no_wrap=True)
    table.add_column("speaker", no_wrap=True)
    table.add_column("words", ratio=1)
    table.add_column("emotion", no_wrap=True)
    for name in costs_shown(width):
        table.add_column(name, justify="right", no_wrap=True)
    for index, speech in enumerate(conversation):
        turn = speech.turn
        answers = [result.answer for result in results if result.turn == index and result.answer is not None]
        table.add_row(f"{turn.start_s:.1f}–{turn.end_s:.1f}", turn.speaker, *_cells(answers, width))
    return table


def _cells(answers: Sequence[Answer], width: int) -> tuple[Text | str, ...]:
    if not answers:
        return (Text("no answer", style="dim"),)
    answer = answers[0]
    return (
        words(answer),
        emotion(answer),
        *costs(
            answer.bytes_sent,
            answer.pcm_bytes,
            median(answer.device_ms for answer in answers),
            median(answer.answer_ms for answer in answers),
            width,
        ),
    )


def summary_table(summary: Summary, devices: int, docs: str, log: Path) -> Table:
    """The numbers of a run, and where to go from here."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("answered", f"{summary.answered} requests of {devices} devices in {summary.seconds:.1f} s")
    for reason, count in summary.failures.most_common():
        table.add_row("failed", Text(f"{count} × {reason}", style="red"))
    if summary.answered:
        rate, speech = summary.answered / summary.seconds, summary.speech_seconds / summary.seconds
        table.add_row("throughput", f"{rate:.1f} requests/s · {speech:.1f} s of speech each second")
        marks = (f"p{percent} {summary.percentile(percent):,.0f} ms" for percent in (50, 95, 99))
        table.add_row("time to answer", " · ".join(marks))
        sent, pcm = decimal(summary.bytes_sent), decimal(summary.pcm_bytes)
        saved = 100 * (1 - summary.bytes_sent / summary.pcm_bytes)
        table.add_row("bytes", f"{sent} sent in place of {pcm} of PCM: {saved:.1f} % saved")
    table.add_row("API", docs)
    table.add_row("log", Text(_from_home(log)))
    return table


def picture(console: Console) -> str:
    """What a recording console has printed so far, as an SVG that fetches nothing: without rich's web fonts."""
    drawn = console.export_svg(title="make demo", clear=False)
    return re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL).replace("Fira Code, monospace", "monospace")


def _from_home(file: Path) -> str:
    """A path with `~` for the home folder, which is shorter and says nothing about whose it is."""
    return f"~/{file.relative_to(Path.home())}" if file.is_relative_to(Path.home()) else str(file)
