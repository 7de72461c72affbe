"""Languages as people write them, against the list of Whisper's own package and the vocabulary of its base model."""

from __future__ import annotations

import itertools
import string
from contextlib import suppress

import pytest
from whisper.tokenizer import LANGUAGES

from amser.languages import UnknownLanguage, language_code
from models.weights import model_path
from models.whisper.vocabulary import languages


def test_every_code_of_whispers_stays_as_it_is() -> None:
    assert len(LANGUAGES) == 100
    assert {code: language_code(code) for code in LANGUAGES} == {code: code for code in LANGUAGES}
    assert languages(model_path("whisper-base")) <= set(LANGUAGES)


@pytest.mark.parametrize(
    ("written", "code"),
    [
        ("EN", "en"),
        (" en\n", "en"),
        ("en-US", "en"),
        ("en_GB.UTF-8", "en"),
        ("de_DE@euro", "de"),
        ("zh_CN", "zh"),
        ("zh-Hant-TW", "zh"),
        ("cmn", "zh"),
        ("yue", "yue"),
        ("eng", "en"),
        ("ger", "de"),
        ("deu", "de"),
        ("arb", "ar"),
        ("nb", "no"),
        ("nob", "no"),
        ("nn-NO", "nn"),
        ("iw", "he"),
        ("in", "id"),
        ("jv", "jw"),
        ("jav", "jw"),
        ("fil", "tl"),
        ("tgl", "tl"),
        ("tlh", "tlh"),  # a language that no Whisper model has
    ],
)
def test_a_language_is_understood_as_people_write_it(written: str, code: str) -> None:
    assert language_code(written) == code


@pytest.mark.parametrize("written", [None, "", "  ", "auto", "AUTO", "und"])
def test_no_language_and_auto_mean_detection(written: str | None) -> None:
    assert language_code(written) is None


def test_what_came_out_stays_as_it_is_and_fits_an_envelope() -> None:
    """Of all that two or three letters can be."""
    codes = set()
    for count in (2, 3):
        for written in itertools.product(string.ascii_lowercase, repeat=count):
            with suppress(UnknownLanguage):
                codes.add(language_code("".join(written)))
    assert set(LANGUAGES) < codes - {None}
    assert {code: language_code(code) for code in codes} == {code: code for code in codes}
    assert {len(code) for code in codes if code} == {2, 3}


@pytest.mark.parametrize(
    "written", ["English", "zz", "e1", "e", "en-", "en US", "ｅｎ", "x-private", "C", "en\0", "a" * 9999]
)
def test_what_names_no_language_is_refused_with_what_to_write(written: str) -> None:
    with pytest.raises(UnknownLanguage) as refused:
        language_code(written)
    assert refused.value.cause == f"the language is {written!r:.40}"
    assert refused.value.limit == "a code such as en or pt-BR; auto or nothing has it detected"
