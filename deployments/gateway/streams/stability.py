"""Words that do not flicker: LocalAgreement-2 (Liu et al. 2020; Macháček et al. 2023).

Words on which two looks one after the other agree are stable. The last word of a look never is, since the look may have
cut it. A stable prefix only grows; what later looks think of it shows in the final answer.
"""

from __future__ import annotations

import re
from typing import Final

from amser.languages import WITHOUT_SPACES

_WORD: Final = re.compile(r"\S+\s*")
_NO_LETTER: Final = re.compile(r"[\W_]+")


class StablePrefix:
    """Of the texts of one utterance."""

    def __init__(self) -> None:
        self._stable: list[str] = []
        self._before: list[str] = []

    def look(self, text: str, language: str) -> tuple[str, str]:
        """The stable prefix after another look, and the whole text that begins with it.

        Args:
            text: of everything so far.
            language: code; decides what a word is.
        """
        words = list(text) if language in WITHOUT_SPACES else _WORD.findall(text)
        known = agreed = len(self._stable)
        for one, other in zip(self._before[known:], words[known:-1], strict=False):
            if _spelt(one) != _spelt(other):
                break
            agreed += 1
        self._before = words
        self._stable += words[known:agreed]
        stable = "".join(self._stable)
        return stable, stable + "".join(words[len(self._stable) :])


def _spelt(word: str) -> str:
    """Without what a later look may change around it."""
    return _NO_LETTER.sub("", word).casefold()
