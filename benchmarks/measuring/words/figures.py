"""The figures of a row: what was heard, against what was said, or against the reference's text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from benchmarks.measuring.bootstrap import interval, word_errors
from benchmarks.measuring.words.listening import Heard
from benchmarks.measuring.words.scoring import english, loops, takes, units, without_grouping
from benchmarks.measuring.words.utterance import Utterance

Row = dict[str, Any]
LEAST_LOG_PROBABILITY: Final = -0.8  # of a reference that is worth agreeing with
ALL: Final = "all"


def of_words(utterances: Sequence[Utterance], heard: Sequence[Heard], level: Callable[[str], str] = english) -> Row:
    """Word errors, texts that are wholly right, and how utterances came out that are empty or loop.

    Args:
        utterances: with what is said in them.
        heard: of each.
        level: makes texts comparable.
    """
    pairs = [(level(each.text), level(one.text), each.speaker) for each, one in zip(utterances, heard, strict=True)]
    pairs = [pair for pair in pairs if pair[0]]
    exact = sum(reference == text for reference, text, _ in pairs)
    return {
        "utterances": len(utterances),
        **_errors("wer", [pair[0] for pair in pairs], [pair[1] for pair in pairs], [pair[2] for pair in pairs]),
        "exact": round(100 * exact / max(len(pairs), 1), 2),
        **_silent(heard),
        "loops": sum(loops(one.text) and not loops(each.text) for each, one in zip(utterances, heard, strict=True)),
    }


def of_sentences(utterances: Sequence[Utterance], heard: Sequence[Heard]) -> Row:
    """As `of_words`, whether numbers and spelled words are grouped or not."""
    return of_words(utterances, heard, without_grouping)


def of_repeats(utterances: Sequence[Utterance], heard: Sequence[Heard]) -> Row:
    """How many of the takes are written down; joined clips have none, only words."""
    row = of_words(utterances, heard)
    del row["loops"]  # of what was said several times, a loop is more takes than were said
    again = [(each, one) for each, one in zip(utterances, heard, strict=True) if each.takes > 1]
    if again:
        counts = [(each.takes, takes(one.text, each.sentence)) for each, one in again]
        row |= {
            "whole": sum(found == said for said, found in counts),
            "takes": sum(said for said, _ in counts),
            "takes_missing": sum(max(0, said - found) for said, found in counts),
            "too_many": sum(found > said for said, found in counts),
        }
    return row


def of_agreement(utterances: Sequence[Utterance], heard: Sequence[Heard], reference: Sequence[Heard]) -> Row:
    """How much of the reference's text is written too.

    `agreement` is over the clips whose reference is likely and does not loop; `agreement_of_all` over all with text.
    """
    together = list(zip(utterances, heard, reference, strict=True))
    with_text = [each for each in together if units(each[2].text, each[0].language)]
    sane = [each for each in with_text if is_sane(each[2])]
    main, all_of_them = _agreement("agreement", sane), _agreement("agreement_of_all", with_text)
    return {
        "utterances": len(together),
        "sane": len(sane),
        **main,
        "agreement_of_all": all_of_them["agreement_of_all"],
        **_silent([one for _, one, _ in sane]),
        "loops": sum(loops(one.text) for _, one, _ in sane),
        "loops_of_all": sum(loops(one.text) for _, one, _ in together),
        "reference_loops": sum(loops(one.text) for one in reference),
        "reference_empty": len(together) - len(with_text),
        "reference_unlikely": sum(
            one.transcript.average_log_probability < LEAST_LOG_PROBABILITY for _, _, one in with_text
        ),
    }


def is_sane(reference: Heard) -> bool:
    """Whether a reference's text is likely and does not loop."""
    return reference.transcript.average_log_probability >= LEAST_LOG_PROBABILITY and not loops(reference.text)


def of_sounds(heard: Sequence[Heard]) -> Row:
    """Text where nobody spoke."""
    invented = [one.text for one in heard if one.text]
    said = [one.transcript.speech for one in heard]
    return {
        "utterances": len(heard),
        "false_speech": len(invented),
        "false_speech_percent": round(100 * len(invented) / len(heard), 2),
        "surely": sum(bool(one.text) and one.transcript.speech == "yes" for one in heard),
        "most_words": max((len(text.split()) for text in invented), default=0),
        "most_characters": max(map(len, invented), default=0),
        "loops": sum(map(loops, invented)),
        "speech": {answer: said.count(answer) for answer in ("none", "doubtful", "yes")},
    }


def _silent(heard: Sequence[Heard]) -> Row:
    """Of utterances in which somebody speaks: how many have no text, or a doubtful one."""
    long = [one for one in heard if one.seconds > 1]
    return {
        "empty": sum(not one.text for one in heard),
        "over_a_second": len(long),
        "empty_over_a_second": sum(not one.text for one in long),
        "doubtful": sum(one.transcript.speech == "doubtful" for one in heard),
    }


def _errors(name: str, references: list[str], texts: list[str], speakers: list[str]) -> Row:
    """100 · errors / words with the limits of 95 %; None where there are no words."""
    if not references:
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"))
    errors, words = word_errors(references, texts)
    low, high = interval(errors, words, speakers)
    figures = (100 * float(errors.sum() / words.sum()), low, high)
    return {key: round(value, 2) for key, value in zip((name, f"{name}_low", f"{name}_high"), figures, strict=True)}


def _agreement(name: str, together: Sequence[tuple[Utterance, Heard, Heard]]) -> Row:
    references, texts = ([units(each[place].text, each[0].language) for each in together] for place in (2, 1))
    row = _errors(name, references, texts, [each[0].speaker for each in together])
    if not together:
        return row
    share = {key: round(100 - value, 2) for key, value in row.items()}
    low, high = f"{name}_low", f"{name}_high"
    return share | {low: share[high], high: share[low]}  # few errors are much agreement


def by_kind(utterances: Sequence[Utterance]) -> dict[str, list[int]]:
    """The places of each kind, in the order in which kinds appear."""
    places: dict[str, list[int]] = {}
    for place, each in enumerate(utterances):
        places.setdefault(each.kind, []).append(place)
    return places


def false_silence(rows: Sequence[Row]) -> list[Row]:
    """How much speech came out empty, by system: of utterances over a second, and of single words.

    Args:
        rows: of clean, uncompressed speech in its own language; those whose words are known, or agreed with.
    """
    made = []
    for system in dict.fromkeys((row["weights"], row["context"], row["hint"]) for row in rows):
        own = [row for row in rows if (row["weights"], row["context"], row["hint"]) == system]
        words = [row for row in own if row["set"] == "word"]
        long = [row for row in own if row["set"] != "word"]
        made.append(
            {
                **dict(zip(("weights", "context", "hint"), system, strict=True)),
                "over_a_second": sum(row["over_a_second"] for row in long),
                "empty_over_a_second": sum(row["empty_over_a_second"] for row in long),
                "single_words": sum(row["utterances"] for row in words),
                "empty_single_words": sum(row["empty"] for row in words),
            }
        )
    return made
