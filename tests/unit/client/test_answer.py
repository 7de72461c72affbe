"""What is read of an answer's JSON, of this version's clusters and of older ones."""

from __future__ import annotations

from typing import Any

import pytest
from stand_in import ANSWER, NO_SPEECH

from amser.client.exchange.answer import Answer, read_answer


def read(raw: Any) -> Answer:
    return read_answer(raw, bytes_sent=100, pcm_bytes=32_000, device_ms=1.5, answer_ms=40.0, attempts=1)


def test_an_answer_says_whether_somebody_speaks() -> None:
    answer = read(ANSWER)
    assert (answer.speech, answer.speech_probability, answer.warnings) == ("yes", 0.98, ())


def test_where_nobody_speaks_there_is_no_emotion() -> None:
    answer = read(NO_SPEECH)
    assert (answer.speech, answer.speech_probability) == ("none", 0.02)
    assert (answer.emotion, answer.probabilities, answer.confidence, answer.text) == (None, {}, 0.0, "")
    assert (answer.uncertain, answer.doubts) == (True, ("no_speech",))


def test_a_language_that_the_speech_contradicts_is_a_warning() -> None:
    answer = read({**ANSWER, "warnings": ["language_mismatch"]})
    assert answer.warnings == ("language_mismatch",)


def test_without_the_recogniser_speech_is_not_known() -> None:
    answer = read({**ANSWER, "speech": None, "speech_probability": None, "degraded": ["asr", "text"]})
    assert (answer.speech, answer.speech_probability, answer.emotion) == (None, None, "happy")


def test_an_older_cluster_does_not_say_whether_somebody_speaks() -> None:
    older = {name: value for name, value in ANSWER.items() if name not in ("speech", "speech_probability", "warnings")}
    answer = read(older)
    assert (answer.speech, answer.speech_probability, answer.warnings) == (None, None, ())
    assert (answer.emotion, answer.text, answer.raw) == ("happy", "Good morning.", older)


@pytest.mark.parametrize("wrong", [{"speech_probability": "likely"}, {"warnings": 7}, {"probabilities": None}])
def test_a_field_of_another_type_is_no_answer(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Error: "):
        read({**ANSWER, **wrong})


def nested(levels: int) -> Any:
    return [nested(levels - 1)] if levels else "deep"


@pytest.mark.parametrize(
    "wrong",
    [
        {"confidence": 10**400},
        {"probabilities": {"happy": 10**400}},
        {"transcript": {"text": "half of a pair: \ud800", "language": "en"}},
        {"transcript": {"text": {"said": "Good morning."}, "language": "en"}},
        {"emotion": ["happy"]},
        {"degraded": 5},
        {"something": nested(400)},
    ],
)
def test_what_cannot_be_stored_or_printed_is_no_answer(wrong: dict[str, Any]) -> None:
    """Each came out of a machine that made answers up, and ended a delivery."""
    with pytest.raises(ValueError, match="Error: "):
        read({**ANSWER, **wrong})


def test_a_field_of_a_later_version_may_have_levels_of_its_own() -> None:
    later = {**ANSWER, "later": nested(20)}
    assert read(later).raw == later
