"""The rows of `benchmarks.emotion` as tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rich.table import Table

from benchmarks.measuring.console import table
from benchmarks.measuring.emotion.corpus_probe import WHICH_CORPUS
from benchmarks.measuring.emotion.cross import READINGS
from benchmarks.measuring.emotion.modalities import CONTEXT, VOICE, WORDS
from benchmarks.measuring.emotion.pairs import KINDS
from training.reports import LEFT_OUT

Row = dict[str, Any]


def tables(name: str, rows: Sequence[Row]) -> Iterator[Table]:
    """The rows as they are printed: a table for each corpus, protocol, set of inputs and set of utterances.

    Of left-out corpora, a table for each model and set of classes that they are judged among, and one of readings. Of
    subsets of modalities, a table for each model, with the papers' figures.
    """
    columns = ("model", "codec", "UA, 95 % by speaker", "macro\nF1", "ECE", "NLL", "surest\nhalf")
    kinds = [
        (*(each[key] for key in ("corpus", "protocol", "modalities", "n")), each.get("n_speakers")) for each in rows
    ]
    if name in OTHERWISE:
        yield from OTHERWISE[name](rows)
        return
    for kind in dict.fromkeys(kinds):
        corpus, protocol, modalities, n, speakers = kind
        judged = f"{n} utterances" + (f" of {speakers} speakers" if speakers else "")
        made = table(f"{name}: {corpus}, {protocol}, from {modalities.replace('+', ' + ')}; {judged}", columns, words=2)
        for each in (one for one, of in zip(rows, kinds, strict=True) if of == kind):
            codec = each["codec"] if each["rate"] is None else f"{each['codec']} {each['rate']:.2%}"
            ua = f"{each['ua']:.3f} [{_shown(each['ua_low'])}, {_shown(each['ua_high'])}]"
            figures = (_shown(each.get(figure)) for figure in ("macro_f1", "ece", "nll", "surest_half"))
            made.add_row(each["model"], codec, ua, *figures)
        yield made


def _shown(figure: float | None) -> str:
    """Three digits; a dash where a row has no such figure, and for the interval of a single speaker."""
    return "-" if figure is None else f"{figure:.3f}"


def _of_left_out(rows: Sequence[Row]) -> Iterator[Table]:
    columns = ("corpus", "codec", "UA, 95 % by speaker", "macro\nF1", "ECE", "NLL", "surest\nhalf", "AURC")
    kinds = [(each["model"], each["protocol"]) for each in rows]
    yield from _of_pairs(rows)
    for model, protocol in dict.fromkeys(kind for kind in kinds if kind[1].startswith(LEFT_OUT)):
        made = table(f"{model}: {protocol}", columns, words=2)
        for each in (one for one, kind in zip(rows, kinds, strict=True) if kind == (model, protocol)):
            values = (each[name] for name in ("macro_f1", "ece", "nll", "surest_half", "aurc"))
            made.add_row(each["corpus"], _codec(each), _ua(each), *(f"{value:.3f}" for value in values))
        yield made
    telling = [each for each in rows if each["protocol"] == WHICH_CORPUS]
    if telling:
        made = table(f"{WHICH_CORPUS}, by a linear probe", ("told", "left out", "UA, 95 % by speaker"), words=2)
        for each in telling:
            made.add_row(each["model"], each["corpus"], _ua(each))
        yield made
    readings = [each for each in rows if each["protocol"] == READINGS]
    if readings:
        shares = ("neutral", "neutral or\nuncertain", "other,\nsure", "other,\np > 0.7")
        made = table(f"{READINGS}: shares of the answers", ("corpus", "condition", "n", *shares), words=2)
        for each in readings:
            names = ("neutral", "neutral_or_uncertain", "emotional_and_sure", "emotional_above_0.7")
            figures = (f"{each[name]:.3f}" for name in names)
            made.add_row(each["corpus"], each["condition"], str(each["n"]), *figures)
        yield made


def _of_pairs(rows: Sequence[Row]) -> Iterator[Table]:
    for kind in KINDS:
        protocol = f"left out, {kind}"
        chosen = [each for each in rows if each["protocol"] == protocol]
        if not chosen:
            continue
        made = table(f"{protocol}: UA and ECE", ("corpus", *dict.fromkeys(each["model"] for each in chosen)), words=1)
        for corpus in dict.fromkeys(each["corpus"] for each in chosen):
            figures = (f"{each['ua']:.3f}, {each['ece']:.2f}" for each in chosen if each["corpus"] == corpus)
            made.add_row(corpus, *figures)
        yield made


def _of_subsets(rows: Sequence[Row]) -> Iterator[Table]:
    names = f"{WORDS} words, {CONTEXT} context, {VOICE} voice"
    columns = ("reads", "WA, IEMOCAP,\nthe papers", "WA, 95 %\nby speaker", "UA, 95 %\nby speaker")
    for model in dict.fromkeys(each["model"] for each in rows):
        chosen = [each for each in rows if each["model"] == model]
        first = chosen[0]
        about = f"{first['corpus']} with sentences of GoEmotions, {first['protocol']}, {_codec(first)}"
        title = f"{model}: {about}, {first['n']} pairs; {names}"
        made = table(title, (*columns, "macro\nF1", "weighted\nF1"), words=1)
        for each in chosen:
            figures = (f"{each[figure]:.3f}" for figure in ("macro_f1", "weighted_f1"))
            papers = f"{each['papers_iemocap_wa']:.3f}"
            made.add_row(each["subset"], papers, _interval(each, "wa"), _interval(each, "ua"), *figures)
        yield made


def _codec(row: Row) -> str:
    setting = row["step"] if row["rate"] is None else f"{row['rate']:g}"
    return str(row["codec"]) if setting is None else f"{row['codec']}:{setting}"


def _ua(row: Row) -> str:
    return _interval(row, "ua")


def _interval(row: Row, figure: str) -> str:
    bounds = (row.get(f"{figure}_{end}") for end in ("low", "high"))
    return f"{row[figure]:.3f} [{', '.join('-' if bound is None else f'{bound:.2f}' for bound in bounds)}]"


OTHERWISE: dict[str, Callable[[Sequence[Row]], Iterator[Table]]] = {"cross": _of_left_out, "modalities": _of_subsets}
