"""Request preferences: until when a client waits, whether a partial answer will do, which emotions it may have, and
which language it says is spoken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Final

from amser.languages import UnknownLanguage, language_code
from deployments.gateway.bodies import HELD_BACK_HEADER
from deployments.gateway.problems import Refusal
from deployments.replica.deadline import after

DEADLINE_HEADER: Final = "Amser-Deadline-Ms"
PREFER_HEADER: Final = "Prefer"  # RFC 7240
APPLIED_HEADER: Final = "Preference-Applied"  # in the answer: nothing was left out for want of time or of a stage
STRICT: Final = "handling=strict"
EMOTIONS: Final = "emotions"  # query parameter
FEWEST_EMOTIONS: Final = 2
WORDS: Final = "words"  # query parameter
LANGUAGE: Final = "language"  # query parameter, and what an envelope's language is called in a problem document


@dataclass(frozen=True, slots=True)
class Preferences:
    """Attributes:
    within_s: seconds that the answer may take.
    deadline: the same as a moment (`deployments.replica.deadline`).
    strict: whether an answer that leaves something out is refused.
    emotions: classes that the answer is restricted to; empty for all.
    words: whether the answer is to have the words one by one, with their times; None where the query does not say.
    starts_with_head: the client named the time, so it counts from its request's first byte. That of the settings is for
        the answer, and begins when the body is here: a slow link does not use it up.
    """

    within_s: float
    deadline: float
    strict: bool
    emotions: tuple[str, ...] = ()
    words: bool | None = None
    starts_with_head: bool = False

    def from_body(self) -> Preferences:
        """The same at the moment at which the body is here."""
        return self if self.starts_with_head else replace(self, deadline=after(self.within_s))


def read_preferences(
    headers: Mapping[str, str], query: Mapping[str, str], *, longest_s: float, classes: Sequence[str]
) -> Preferences:
    """The preferences of a request; the names of `headers` are in lower case, or found in any.

    Args:
        headers: of the request, which has just arrived.
        query: its query parameters.
        longest_s: that any answer may take.
        classes: that the emotion network knows.

    Raises:
        Refusal: the deadline is no whole number of milliseconds above 0, the emotions are not two or more different
            ones of `classes`, or `words` is neither true nor false.
    """
    asked = headers.get(DEADLINE_HEADER.lower())
    within_s, held_back_s = longest_s, 0.0
    if asked is not None:
        asked_ms = milliseconds(asked)
        if not asked_ms:
            accepted = "a whole number of milliseconds above 0"
            raise Refusal(
                HTTPStatus.BAD_REQUEST, f"{DEADLINE_HEADER} is {asked!r:.40}", accepted, kind="bad-preference"
            )
        within_s = min(longest_s, asked_ms / 1000)
        held_back_s = (milliseconds(headers.get(HELD_BACK_HEADER.lower(), "")) or 0) / 1000
    preferences = headers.get(PREFER_HEADER.lower(), "").lower().replace(" ", "").split(",")
    deadline = after(within_s - held_back_s)
    emotions = _emotions(query.get(EMOTIONS), classes)
    words = _flag(WORDS, query.get(WORDS))
    return Preferences(within_s, deadline, STRICT in preferences, emotions, words, starts_with_head=asked is not None)


def with_fields(preferences: Preferences, fields: Mapping[str, str], classes: Sequence[str]) -> Preferences:
    """The same with what the fields of a form say and the query does not.

    Raises:
        Refusal: see `read_preferences`.
    """
    return replace(
        preferences,
        emotions=preferences.emotions or _emotions(fields.get(EMOTIONS), classes),
        words=_flag(WORDS, fields.get(WORDS)) if preferences.words is None else preferences.words,
    )


def milliseconds(written: str) -> int | None:
    """A whole number of them above 0, or None."""
    return (int(written) if written.isascii() and written.isdecimal() and len(written) <= 12 else 0) or None


def read_language(written: str | None, known: Set[str]) -> str | None:
    """The language that a client says is spoken, in the query or in an envelope; None where it is to be detected.

    Args:
        written: in any form that `amser.languages` reads.
        known: codes of the languages that the recogniser's model decodes.

    Raises:
        Refusal: it names no language, or one that is not in `known`.
    """
    try:
        code = language_code(written)
        cause = f"the recogniser does not know the language {written!r:.40}"
    except UnknownLanguage as error:
        code, cause = "", error.cause
    if code is None or code in known:
        return code
    limit = f"{', '.join(sorted(known))}; or none, to have it detected"
    raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, cause, limit, parameter=LANGUAGE, kind="unknown-language")


def _flag(name: str, asked: str | None) -> bool | None:
    if not asked:
        return None
    if asked.lower() in ("true", "false"):
        return asked.lower() == "true"
    cause = f"{name} is {asked!r:.40}"
    raise Refusal(HTTPStatus.BAD_REQUEST, cause, "true or false", parameter=name, kind="bad-parameter")


def _emotions(asked: str | None, classes: Sequence[str]) -> tuple[str, ...]:
    if asked is None:
        return ()
    names = tuple(name.strip() for name in asked.split(","))
    if len(names) < FEWEST_EMOTIONS or len(set(names)) < len(names) or not set(names) <= set(classes):
        limit = f"{FEWEST_EMOTIONS} or more, each once, of {', '.join(classes)}"
        cause = f"{EMOTIONS} is {asked!r:.100}"
        raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, cause, limit, parameter=EMOTIONS, kind="unknown-emotions")
    return names
