"""Words with their times → SubRip and WebVTT, in captions that can be read while they stand.

Captions end where a sentence or a pause does, and are never longer than subtitlers make them (two lines of 42
characters, 7 s: Netflix Timed Text Style Guide). Without times of words a segment is one caption.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

MOST_CHARACTERS: Final = 84
MOST_SECONDS: Final = 7.0
PAUSE_S: Final = 0.7  # between words, that ends a caption
SHORTEST_S: Final = 1.0  # before the end of a sentence ends a caption
SENTENCE_ENDS: Final = (".", "?", "!", "…", "。", "？", "！")
_ARROW: Final = "-->"  # stands between the times of a caption, and in no text


class TimedWord(Protocol):
    """A word, in seconds from the beginning of the recording."""

    @property
    def text(self) -> str: ...

    @property
    def start(self) -> float: ...

    @property
    def end(self) -> float: ...


class TimedText(TimedWord, Protocol):
    """A piece of speech with its words; without any where their times are not known."""

    @property
    def words(self) -> Sequence[TimedWord]: ...


@dataclass(frozen=True, slots=True)
class Caption:
    """Text that is shown for a while; seconds from the beginning of the recording."""

    start: float
    end: float
    text: str


def captions(segments: Iterable[TimedText]) -> Iterator[Caption]:
    """The captions of a recording, in order; segments without text have none."""
    for segment in segments:
        if segment.words:
            yield from _of_words(segment.words)
        elif segment.text.strip():
            yield Caption(segment.start, segment.end, _line(segment.text))


def srt(segments: Iterable[TimedText]) -> str:
    """SubRip, as players read it."""
    return "".join(
        f"{number}\n{_clock(each.start, ',')} {_ARROW} {_clock(each.end, ',')}\n{each.text}\n\n"
        for number, each in enumerate(captions(segments), 1)
    )


def vtt(segments: Iterable[TimedText]) -> str:
    """WebVTT (W3C)."""
    shown = (
        f"{_clock(each.start, '.')} {_ARROW} {_clock(each.end, '.')}\n{_escaped(each.text)}\n\n"
        for each in captions(segments)
    )
    return "WEBVTT\n\n" + "".join(shown)


def _of_words(words: Sequence[TimedWord]) -> Iterator[Caption]:
    begin = 0
    for index in range(1, len(words) + 1):
        if index == len(words) or _ends(words[begin:index], words[index]):
            shown = words[begin:index]
            if text := _joined(shown):
                yield Caption(shown[0].start, shown[-1].end, text)
            begin = index


def _ends(shown: Sequence[TimedWord], following: TimedWord) -> bool:
    """Whether a caption ends before the word that follows."""
    too_long = len(_joined([*shown, following])) > MOST_CHARACTERS
    too_late = following.end - shown[0].start > MOST_SECONDS
    pause = following.start - shown[-1].end >= PAUSE_S
    is_sentence = shown[-1].text.rstrip().endswith(SENTENCE_ENDS) and shown[-1].end - shown[0].start >= SHORTEST_S
    return too_long or too_late or pause or is_sentence


def _joined(words: Sequence[TimedWord]) -> str:
    """The words as a text. The blank before a word is a part of it, in languages that have blanks."""
    return _line("".join(word.text for word in words))


def _line(text: str) -> str:
    return " ".join(text.replace(_ARROW, "->").split())


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _clock(seconds: float, point: str) -> str:
    thousandths = round(1000 * max(0.0, seconds))
    minutes, thousandths = divmod(thousandths, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{thousandths // 1000:02}{point}{thousandths % 1000:03}"
