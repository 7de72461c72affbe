"""Tokens with their times → words with theirs.

A token is heard where the decoder's cross-attention rests while it is written: dynamic time warping through the heads
that Whisper's authors found to follow the speech (openai-whisper, `timing`). Its path leaves no gaps, so the pauses
before and behind a word are taken off here, by its loudness. The time of the punctuation behind a word is searched for
its end too: the decoder turns to the full stop before the last sound is over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from amser.features import FRAMES_PER_SECOND
from amser.languages import WITHOUT_SPACES
from models.messages import Word
from models.whisper.engine import TokenTime

OPENING: Final = frozenset("([{«¿¡„「『（《")
QUOTES: Final = frozenset({'"', "'", "“", "‘"})  # opening behind a space, closing otherwise
QUIET: Final = 0.7  # of a word, below its loudest frame, in Whisper's scale: 28 dB
INCOMPLETE: Final = "\ufffd"  # in the text of tokens that hold a part of a character

Decode = Callable[[Sequence[int]], str]


def words_of(
    tokens: Sequence[int], times: Sequence[TokenTime], language: str, text_of: Decode, log_mel: NDArray[np.float16]
) -> tuple[Word, ...]:
    """The words of a text.

    Args:
        tokens: of the text.
        times: of the tokens.
        language: that is written, as Whisper's code.
        text_of: decodes tokens.
        log_mel: shape (bands, frames), of the speech.

    Returns:
        In order, and none overlaps the next; their texts, with the spaces before them, join to the text. Punctuation
        belongs to the word before it. In a language without spaces each piece of the vocabulary is a word.
    """
    pieces = _characters(tokens, text_of)
    groups = _grouped([text for text, _ in pieces], language not in WITHOUT_SPACES)
    loudness = log_mel.max(axis=0).astype(np.float32)
    words: list[Word] = []
    for group in groups:
        inside = [number for piece in group for number in pieces[piece][1]]
        spoken = [number for piece in group if _is_spoken(pieces[piece][0]) for number in pieces[piece][1]] or inside
        earliest = words[-1].end if words else 0.0
        start, end = _heard(loudness, max(earliest, times[spoken[0]].start), times[inside[-1]].end)
        text = "".join(pieces[piece][0] for piece in group)
        confidence = float(np.mean([times[number].probability for number in spoken]))
        words.append(Word(text if words else text.lstrip(), start, max(start, end), confidence))
    return tuple(words)


def _characters(tokens: Sequence[int], text_of: Decode) -> list[tuple[str, range]]:
    """The shortest runs of tokens that are whole characters, with their texts."""
    found, begin = [], 0
    for end in range(1, len(tokens) + 1):
        text = text_of(tokens[begin:end])
        if INCOMPLETE not in text or end == len(tokens):
            found.append((text, range(begin, end)))
            begin = end
    return found


def _grouped(texts: Sequence[str], has_spaces: bool) -> list[list[int]]:
    """Which pieces make a word: one may begin at a space, or where the language has none at every piece."""
    groups: list[list[int]] = []
    for number, text in enumerate(texts):
        may_begin = text[:1].isspace() or not has_spaces
        follows_a_word = bool(groups) and any(_is_spoken(texts[each]) for each in groups[-1])
        if not groups or (may_begin and follows_a_word and (_is_spoken(text) or _opens(text))):
            groups.append([number])
        else:
            groups[-1].append(number)
    return groups


def _is_spoken(text: str) -> bool:
    return any(character.isalnum() for character in text)


def _opens(text: str) -> bool:
    return text.strip()[-1:] in OPENING or (text[:1].isspace() and text.strip() in QUOTES)


def _heard(loudness: NDArray[np.float32], start: float, end: float) -> tuple[float, float]:
    """The part of a stretch in which it is loud; seconds."""
    first, last = round(start * FRAMES_PER_SECOND), round(end * FRAMES_PER_SECOND)
    stretch = loudness[first:last]
    if not stretch.size:
        return start, end
    loud = np.flatnonzero(stretch > stretch.max() - QUIET)
    return (first + int(loud[0])) / FRAMES_PER_SECOND, (first + int(loud[-1]) + 1) / FRAMES_PER_SECOND
