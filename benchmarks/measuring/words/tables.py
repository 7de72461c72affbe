"""The rows of `benchmarks.words` as tables of 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from rich.table import Table

from benchmarks.measuring.console import table

Row = dict[str, Any]
SENTENCES, REPEATS, RECORDINGS, AGREEMENT, SOUNDS = PARTS = (
    *("sentences", "repeats", "recordings", "agreement", "sounds"),
)
FALSE_SILENCE: Final = "false silence"
TITLES: Final = {
    SENTENCES: "Sentences of a synthetic voice",
    REPEATS: "Said several times, and joined clips",
    RECORDINGS: "Recordings with transcripts",
    AGREEMENT: "Words (ja, zh: characters) as the padded reference writes them",
    SOUNDS: "Sounds without speech",
    FALSE_SILENCE: "False silence: clean speech that came out empty",
}
COLUMNS: Final = {
    SENTENCES: (("what", "hint"), ("WER %", "right\n%", "empty", "doubt-\nful", "of")),
    REPEATS: (("what",), ("WER %", "all takes", "takes\nmissing", "too\nmany", "empty")),
    RECORDINGS: (("what", "codec, condition, hint"), ("WER %", "95 %", "empty", "loops", "of")),
    AGREEMENT: (("what", "codec, hint"), ("equal %", "95 %", "empty", "loops", "of", "not sane")),
    SOUNDS: (("what", "hint"), ("texts", "said as\nsure", "most\nwords", "most char-\nacters", "of")),
    FALSE_SILENCE: (("hint",), ("over 1 s", "of", "single words", "of")),
}


def tables(rows: Sequence[Row]) -> Iterator[Table]:
    """A table for each part and system."""
    kinds = [(row["part"], row["weights"], row["context"]) for row in rows]
    for kind in dict.fromkeys(kinds):
        part, weights, context = kind
        words, numbers = COLUMNS[part]
        made = table(f"{TITLES[part]}: {weights}, {context}", (*words, *numbers), words=len(words))
        for row in (one for one, of in zip(rows, kinds, strict=True) if of == kind):
            made.add_row(*_cells(part, row))
        yield made


def _cells(part: str, row: Row) -> list[str]:
    if part == FALSE_SILENCE:
        long, words = row["over_a_second"], row["single_words"]
        return [row["hint"], str(row["empty_over_a_second"]), str(long), str(row["empty_single_words"]), str(words)]
    if part == SENTENCES:
        figures = (_shown(row["wer"]), _shown(row["exact"], 1), row["empty"], row["doubtful"], row["utterances"])
        return [row["set"], row["hint"], *map(str, figures)]
    if part == REPEATS:
        whole = f"{row['whole']} of {row['utterances']}" if "whole" in row else "-"
        missing = f"{row['takes_missing']} of {row['takes']}" if "takes" in row else "-"
        return [row["set"], _shown(row["wer"]), whole, missing, str(row.get("too_many", "-")), str(row["empty"])]
    if part == SOUNDS:
        names = ("false_speech", "surely", "most_words", "most_characters", "utterances")
        return [row["set"], row["hint"], *(str(row[name]) for name in names)]
    how = ", ".join(str(row[name]) for name in ("codec", "condition", "hint") if row[name] not in ("clean", "told"))
    if part == RECORDINGS:
        counts = (str(row[name]) for name in ("empty", "loops", "utterances"))
        return [row["set"], how, _shown(row["wer"]), _interval(row, "wer"), *counts]
    counts = (str(row[name]) for name in ("empty", "loops", "sane"))
    equal = _shown(row["agreement"])
    return [row["set"], how, equal, _interval(row, "agreement"), *counts, str(row["utterances"] - row["sane"])]


def _interval(row: Row, name: str) -> str:
    return "-" if row[name] is None else f"{row[f'{name}_low']:.1f}–{row[f'{name}_high']:.1f}"


def _shown(figure: float | None, digits: int = 2) -> str:
    return "-" if figure is None else f"{figure:.{digits}f}"
