"""What `benchmarks.codec` prints: its rows as tables, and the lowest bit rates at which words are still right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import exp, log
from typing import Any, Final

from rich.table import Table

from benchmarks.measuring.console import table
from benchmarks.measuring.noise import CLEAN
from edge_sim.transports.opus import LONG

Row = dict[str, Any]
UNCOMPRESSED: Final = "pcm"
PCM_KBPS: Final = 256.0  # 16 bits, 16 kHz
PAPERS: Final = ("svd-f16", "0.125")  # the papers' operating point
TOLERANCE: Final = {CLEAN: 0.3}  # points of WER above uncompressed
TOLERANCE_IN_NOISE: Final = 1.0
OURS, COMPARED_WITH = "klt", "opus"
HOW: Final = (
    "Lowest kbit/s (without container): linear interpolation of WER on log kbit/s between measured settings, at the "
    "first crossing from the coarsest setting on. ≤: the coarsest setting is within the limit already; *: a finer "
    "setting is above it again; –: no setting is within it."
)


@dataclass(frozen=True, slots=True)
class Threshold:
    """The lowest bit rate at which a limit on the WER is met.

    Attributes:
        kbps: None where no measured setting meets it.
        at_most: it is met by the coarsest setting: the true threshold is there or below.
        holds: every finer setting meets it too.
    """

    kbps: float | None
    at_most: bool = False
    holds: bool = True

    def __str__(self) -> str:
        if self.kbps is None:
            return "–"
        return f"{'≤ ' if self.at_most else ''}{self.kbps:.2f}{'' if self.holds else '*'}"


def threshold(points: Sequence[tuple[float, float]], limit: float) -> Threshold:
    """Of (kbit/s, WER) in any order, the lowest kbit/s whose WER is at most `limit`."""
    ordered = sorted(points)
    first = next((index for index, (_, wer) in enumerate(ordered) if wer <= limit), None)
    if first is None:
        return Threshold(None)
    holds = all(wer <= limit for _, wer in ordered[first:])
    kbps, wer = ordered[first]
    if first == 0:
        return Threshold(kbps, at_most=True, holds=holds)
    coarser, worse = ordered[first - 1]
    share = (worse - limit) / (worse - wer)
    return Threshold(exp(log(coarser) + share * (log(kbps) - log(coarser))), holds=holds)


def line_of(row: Row) -> str:
    """Settings of a transport that follow each other on one line: Opus has two, by the length of its frames."""
    return f"{row['transport']}{LONG}" if row["setting"].endswith(LONG) else str(row["transport"])


def lines(rows: Sequence[Row], rate: str = "kbps") -> dict[str, list[Row]]:
    """The rows of every transport but the uncompressed one, from the lowest bit rate to the highest."""
    names = dict.fromkeys(line_of(row) for row in rows if row["transport"] != UNCOMPRESSED)
    return {name: sorted((row for row in rows if line_of(row) == name), key=lambda row: row[rate]) for name in names}


def measured(rows: Sequence[Row], figure: str) -> list[Row]:
    """Those rows that have it."""
    return [row for row in rows if row[figure] is not None]


def tables(rows: Sequence[Row]) -> Iterator[Table]:
    """All figures, of words and of emotions a table a condition. Errors are standard errors."""
    judged = measured(rows, "wer")
    for condition in dict.fromkeys(row["condition"] for row in judged):
        here = [row for row in judged if row["condition"] == condition]
        columns = ("transport", "kbit/s", "% of PCM", "WER, %", "above PCM")
        made = table(f"{condition}, {here[0]['utterances']} utterances", columns)
        for row in here:
            rates = (f"{row['kbps']:.2f}", f"{row['percent_of_pcm']:.2f}")
            wer = f"{row['wer']:.2f} ± {row['wer_se']:.2f}"
            delta = f"{row['wer_delta']:+.2f} ± {row['wer_delta_se']:.2f}"
            made.add_row(f"{row['transport']}:{row['setting']}", *rates, wer, delta)
        yield made
    emotions = measured(rows, "ua")
    for condition in dict.fromkeys(row["condition"] for row in emotions):
        here = [row for row in emotions if row["condition"] == condition]
        about = f"{here[0]['ua_corpus']}, {condition}, {here[0]['ua_utterances']} utterances, by {here[0]['ua_by']}"
        made = table(f"emotions of {about}", ("transport", "kbit/s", "UA", "95 %", "above PCM"))
        for row in here:
            interval = f"{row['ua_low']:.3f} to {row['ua_high']:.3f}"
            delta = f"{row['ua_delta']:+.3f} ± {row['ua_delta_se']:.3f}"
            figures = (f"{row['ua_kbps']:.2f}", f"{row['ua']:.3f}", interval, delta)
            made.add_row(f"{row['transport']}:{row['setting']}", *figures)
        yield made


def limits(rows: Sequence[Row], condition: str) -> dict[str, float]:
    """What the WER may be in a condition, by what it says."""
    judged = [row for row in measured(rows, "wer") if row["condition"] == condition]
    found = {}
    for row in judged:
        if row["transport"] == UNCOMPRESSED:
            points = TOLERANCE.get(condition, TOLERANCE_IN_NOISE)
            found[f"uncompressed + {points:g}"] = row["wer"] + points
        if (row["transport"], row["setting"]) == PAPERS:
            found[f"that of {':'.join(PAPERS)}"] = row["wer"]
    return found


def thresholds(rows: Sequence[Row], condition: str, limit: float) -> dict[str, Threshold]:
    """The lowest bit rate of every transport in a condition."""
    here = [row for row in measured(rows, "wer") if row["condition"] == condition]
    return {
        name: threshold([(row["kbps"], row["wer"]) for row in points], limit) for name, points in lines(here).items()
    }


def summary(rows: Sequence[Row]) -> Iterator[Table | str]:
    """The lowest bit rates, and how many times ours is lower than Opus."""
    for condition in dict.fromkeys(row["condition"] for row in measured(rows, "wer")):
        allowed = limits(rows, condition)
        found = {what: thresholds(rows, condition, limit) for what, limit in allowed.items()}
        heads = [f"WER ≤ {what}\n({limit:.2f} %)" for what, limit in allowed.items()]
        made = table(f"{condition}: lowest kbit/s", ("transport", *heads))
        for name in next(iter(found.values()), {}):
            made.add_row(name, *(str(column[name]) for column in found.values()))
        yield made
        for what, column in found.items():
            yield from ratios(condition, what, column)
    yield HOW


def ratios(condition: str, what: str, found: dict[str, Threshold]) -> Iterator[str]:
    """A sentence for each framing of Opus."""
    ours = found.get(OURS)
    for name, theirs in found.items():
        if name.startswith(COMPARED_WITH) and ours is not None and ours.kbps and theirs.kbps:
            sign = "≥ " if ours.at_most and not theirs.at_most else "≤ " if theirs.at_most and not ours.at_most else ""
            unclear = " (both at their coarsest setting: no threshold)" if ours.at_most and theirs.at_most else ""
            yield f"{condition}, WER ≤ {what}: {name} / {OURS} = {sign}{theirs.kbps / ours.kbps:.2f}{unclear}"
