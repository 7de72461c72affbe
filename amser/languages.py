"""A language as people write it → the code that Whisper has for it. Devices and gateway read a hint here.

Which languages there are is langcodes' knowledge (ISO 639, BCP 47, CLDR); which of them a model decodes is asked of the
model (`models.whisper.vocabulary`), not of this file.
"""

from __future__ import annotations

import re
from typing import Final

from langcodes import Language

from amser.errors import SignalError

WITHOUT_SPACES: Final = frozenset({"bo", "ja", "km", "lo", "my", "th", "yue", "zh"})  # between words, when written
DETECT: Final = frozenset({"", "auto", "und"})  # `und` is ISO 639's code for a language that is not known

# Whisper's codes that are not those of today's standard
_WHISPERS: Final = {
    "fil": "tl",  # langcodes names Filipino, the standardised Tagalog; Whisper keeps Tagalog's code
    "jv": "jw",  # Whisper took a code of Javanese that ISO 639 withdrew
    "nb": "no",  # Whisper has Nynorsk apart (`nn`); what it calls Norwegian is Bokmål
}

# A BCP 47 tag or a POSIX locale. What follows the language is of no use to a recogniser, and langcodes keeps every
# tag that it has parsed: only the language goes there, so that strangers cannot fill the gateway's memory.
_TAG: Final = re.compile(r"([a-z]{2,3})([-_][a-z0-9]{1,8})*(\.[a-z0-9-]+)?(@[a-z0-9]+)?", re.ASCII)


class UnknownLanguage(SignalError):  # noqa: N818 - an error by its base class
    """Text that names no language."""


def language_code(written: str | None) -> str | None:
    """The code that Whisper has for a language, such as `en` for `EN`, `en-US`, `en_GB.UTF-8` and `eng`.

    A code of Whisper's own stays as it is. A language that no Whisper model has keeps its code of ISO 639.

    Args:
        written: a code of two or three letters (ISO 639-1, -2 or -3), a BCP 47 tag or a POSIX locale, in any case, with
            blanks around it.

    Returns:
        Two or three letters a to z; None for None, an empty text, `auto` and `und`: the language is to be detected.

    Raises:
        UnknownLanguage: it is none of these, or ISO 639 has no such code.
    """
    text = "" if written is None else written.strip().lower()
    if text in DETECT:
        return None
    tag = _TAG.fullmatch(text)
    language = Language.get(tag[1]).prefer_macrolanguage() if tag else None
    if language is None or language.language is None or not language.is_valid():
        raise UnknownLanguage(
            f"the language is {written!r:.40}", "a code such as en or pt-BR; auto or nothing has it detected"
        )
    return _WHISPERS.get(language.language, language.language)
