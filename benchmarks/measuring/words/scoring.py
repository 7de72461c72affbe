"""How right a text is: words as both sides would write them, takes of a sentence, loops, agreement.

Whisper's English normaliser turns number words into digits but keeps groups of them apart, drops the zero of "0123" and
leaves a lone "one"; spelled words come as "A-B-C" or "ABC". `without_grouping` levels those, on both sides alike.
"""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from functools import cache
from itertools import groupby
from math import ceil, floor
from typing import Final

from whisper.normalizers import BasicTextNormalizer, EnglishTextNormalizer

UNSPACED: Final = frozenset({"ja", "zh", "yue", "th", "lo", "my"})  # Whisper's languages written without blanks
SAME_SENTENCE: Final = 0.7  # similarity of the characters from which words are a take of a sentence
SHORTEST_TAKE, LONGEST_TAKE = 0.7, 1.5  # of the sentence's words
SHORTEST_LOOP: Final = 24  # characters in all the repeats
LOOP: Final = re.compile(r"(?P<unit>.{1,100}?)(?P=unit){2,}", re.DOTALL)  # three times or more in a row
BETWEEN_DIGITS: Final = re.compile(r"(?<=\d)[-–,\s]+(?=\d)")


@cache
def _english() -> EnglishTextNormalizer:
    return EnglishTextNormalizer()


@cache
def _basic() -> BasicTextNormalizer:
    return BasicTextNormalizer()


def english(text: str) -> str:
    """As Whisper's English normaliser levels it."""
    return str(_english()(text)).strip()


def without_grouping(text: str) -> str:
    """English in which digits that follow each other are one number, and letters that do are one word."""
    words = english(BETWEEN_DIGITS.sub("", text)).split()
    words = ["1" if word == "one" else word for word in words]
    joined: list[str] = []
    for kind, group in groupby(words, _kind):
        run = list(group)
        if kind == "digits":
            joined.append("".join(run).lstrip("0") or "0")
        else:
            joined += ["".join(run)] if kind == "letter" and len(run) > 1 else run
    return " ".join(joined)


def _kind(word: str) -> str:
    if word.isascii() and word.isdigit():
        return "digits"
    return "letter" if len(word) == 1 and word.isalpha() else "word"


def units(text: str, language: str) -> str:
    """What agreement counts, with blanks between: words, or characters of languages that are written without blanks."""
    plain = str(_basic()(text))
    return " ".join("".join(plain.split()) if language in UNSPACED else plain.split())


def loops(text: str) -> bool:
    """Whether a text says the same thing three times or more in a row, at some length."""
    plain = " ".join(text.lower().split()) + " "
    return any(len(match[0]) >= SHORTEST_LOOP for match in LOOP.finditer(plain))


def takes(text: str, sentence: str) -> int:
    """How often a text has a sentence: the most stretches of it, side by side, that are much the same."""
    words, wanted = without_grouping(text).split(), without_grouping(sentence)
    count = len(wanted.split())
    lengths = range(max(1, ceil(SHORTEST_TAKE * count)), max(1, floor(LONGEST_TAKE * count)) + 1)
    most = [0] * (len(words) + 1)  # in the words up to each place
    for end in range(1, len(words) + 1):
        most[end] = most[end - 1]
        for length in lengths:
            if length <= end and most[end - length] + 1 > most[end]:
                stretch = " ".join(words[end - length : end])
                if SequenceMatcher(None, wanted, stretch, autojunk=False).ratio() >= SAME_SENTENCE:
                    most[end] = most[end - length] + 1
    return most[-1]
