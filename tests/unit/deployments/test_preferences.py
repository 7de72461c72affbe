"""How a client says until when it waits, whether a partial answer will do, and which emotions it may have."""

from __future__ import annotations

import pytest

from deployments.gateway.preferences import Preferences, read_language, read_preferences, with_fields
from deployments.gateway.problems import Refusal
from deployments.replica.deadline import remaining
from models.weights import model_path
from models.whisper.vocabulary import languages

CLASSES = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")


def read(headers: dict[str, str], **query: str) -> Preferences:
    return read_preferences(headers, query, longest_s=25, classes=CLASSES)


def test_without_a_header_an_answer_may_take_as_long_as_any() -> None:
    preferences = read({})
    assert preferences.within_s == 25
    assert remaining(preferences.deadline) == pytest.approx(25, abs=1)
    assert not preferences.strict


@pytest.mark.parametrize(("asked", "seconds"), [("3000", 3), ("1", 0.001), ("900000", 25)])
def test_a_deadline_can_be_nearer_and_never_further(asked: str, seconds: float) -> None:
    preferences = read({"amser-deadline-ms": asked})
    assert preferences.within_s == seconds
    assert remaining(preferences.deadline) == pytest.approx(seconds, abs=0.5)


@pytest.mark.parametrize("asked", ["0", "-1", "2.5", "soon", "", "9" * 5000, "１２"])
def test_a_deadline_that_is_none_is_refused(asked: str) -> None:
    with pytest.raises(Refusal) as refused:
        read({"amser-deadline-ms": asked})
    assert refused.value.status == 400
    assert refused.value.limit == "a whole number of milliseconds above 0"


@pytest.mark.parametrize(
    ("asked", "strict"),
    [
        ("handling=strict", True),
        ("respond-async, Handling=Strict", True),
        ("handling=lenient", False),
        ("handling=stricter", False),
    ],
)
def test_a_client_may_prefer_all_or_nothing(asked: str, strict: bool) -> None:
    assert read({"prefer": asked}).strict is strict


def test_without_the_parameter_all_emotions_are_possible() -> None:
    assert read({}).emotions == ()


@pytest.mark.parametrize(
    ("asked", "emotions"),
    [("angry,happy,neutral,sad", ("angry", "happy", "neutral", "sad")), ("sad, angry", ("sad", "angry"))],
)
def test_a_client_may_restrict_the_emotions(asked: str, emotions: tuple[str, ...]) -> None:
    assert read({}, emotions=asked).emotions == emotions


@pytest.mark.parametrize(
    "asked", ["", "angry", "angry,angry", "angry,happy,angry", "angry,bored", "angry,,sad", "Angry,sad"]
)
def test_emotions_that_leave_no_choice_or_are_not_known_are_refused(asked: str) -> None:
    with pytest.raises(Refusal) as refused:
        read({}, emotions=asked)
    assert refused.value.status == 422
    assert refused.value.cause == f"emotions is {asked!r}"
    assert refused.value.problem("id").parameter == "emotions"  # and not the body: another one fares no better
    assert refused.value.limit == "2 or more, each once, of angry, disgust, fear, happy, neutral, sad, surprise"


@pytest.mark.parametrize(
    ("asked", "words"), [(None, None), ("", None), ("true", True), ("True", True), ("false", False)]
)
def test_words_are_asked_for_in_the_query_and_then_in_the_form(asked: str | None, words: bool | None) -> None:
    preferences = read({}, **({} if asked is None else {"words": asked}))
    assert preferences.words is words
    assert with_fields(preferences, {"words": "true"}, CLASSES).words is (True if words is None else words)


def test_words_are_asked_for_or_not() -> None:
    with pytest.raises(Refusal) as refused:
        read({}, words="maybe")
    assert (refused.value.status, refused.value.parameter, refused.value.limit) == (400, "words", "true or false")


@pytest.mark.parametrize(
    ("written", "code"),
    [
        ("en", "en"),
        ("EN", "en"),
        ("eng", "en"),
        ("pt-BR", "pt"),
        ("jv", "jw"),
        (None, None),
        ("", None),
        ("auto", None),
    ],
)
def test_a_language_becomes_the_code_of_the_model(written: str | None, code: str | None) -> None:
    assert read_language(written, languages(model_path("whisper-base"))) == code


@pytest.mark.parametrize(
    ("written", "cause"),
    [
        ("yue", "the recogniser does not know the language 'yue'"),  # large-v3 does
        ("tlh", "the recogniser does not know the language 'tlh'"),
        ("English", "the language is 'English'"),
    ],
)
def test_a_language_that_the_model_lacks_is_refused_with_those_that_it_has(written: str, cause: str) -> None:
    known = languages(model_path("whisper-base"))
    with pytest.raises(Refusal) as refused:
        read_language(written, known)
    problem = refused.value.problem("id")
    assert (problem.status, problem.detail, problem.parameter) == (422, cause, "language")
    assert problem.limit == f"{', '.join(sorted(known))}; or none, to have it detected"


def test_whether_there_is_cantonese_is_asked_of_the_model() -> None:
    assert read_language("yue-HK", {"yue", "zh"}) == "yue"
