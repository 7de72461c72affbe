"""The judge of speech: its signs, what counts as lost, and what its numbers mean."""

from __future__ import annotations

import json
import math
import zlib
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest

from models.whisper.engine import MAXIMUM_TOKENS, Decoded
from models.whisper.judge import (
    FILE,
    OF_OTHER_WEIGHTS,
    Evidence,
    Judge,
    hears_short,
    is_lost,
    loops,
    most_tokens,
)

TEXT = "Turn off the light in the kitchen."
SENTENCE = tuple(range(100, 105))  # five tokens
SAID = Decoded(TEXT, tuple(range(8)), -0.2, 0.05)
NAMES = [field.name for field in fields(Evidence)]


@pytest.fixture(scope="module")
def judge() -> Judge:
    """That of weights which bring none."""
    return Judge.read(Path("a folder without a judge"))


def content(**changed: Any) -> dict[str, Any]:
    """A judge's file, with other parts."""
    parts = {"weights": dict.fromkeys(NAMES, 0.0), "bias": 0.0, "none_below": 0.3, "yes_from": 0.7}
    return {"hears_short": True, "judge": parts | changed}


def folder_with(folder: Path, written: dict[str, Any]) -> Path:
    (folder / FILE).write_text(json.dumps(written))
    return folder


def test_the_signs_of_a_sentence() -> None:
    evidence = Evidence.of(SAID, 2.0, 0.97)
    text = TEXT.encode()
    assert asdict(evidence) == pytest.approx(
        {
            "no_speech": math.log(0.05 / 0.95) / 4,
            "log_probability": -0.2,
            "tokens": math.log(9),
            "rate": 0.4,  # four tokens a second
            "compression": len(text) / len(zlib.compress(text)),
            "seconds": math.log(2),
            "language": 0.97,
            "empty": 0.0,
            "lost": 0.0,
        }
    )


def test_the_signs_of_no_text_are_finite() -> None:
    evidence = Evidence.of(Decoded("", (), -0.01, 1.0), 0.0, 1.0)
    assert (evidence.empty, evidence.tokens, evidence.compression, evidence.lost) == (1.0, 0.0, 0.0, 0.0)
    assert evidence.no_speech == pytest.approx(math.log(9999) / 4)
    assert evidence.seconds == pytest.approx(math.log(0.1))


def test_a_sign_is_bounded_where_a_decoder_goes_astray() -> None:
    evidence = Evidence.of(Decoded("word " * 200, tuple(range(200)), -9.0, 0.0), 0.2, 0.1)
    assert evidence.log_probability == -4.0
    assert evidence.rate == 3.0
    assert evidence.no_speech == pytest.approx(-math.log(9999) / 4)
    assert evidence.lost == 1.0


def test_what_repeats_compresses() -> None:
    once, often = (Evidence.of(replace(SAID, text=TEXT * times), 20.0, 1.0) for times in (1, 8))
    assert once.compression < 1.2
    assert often.compression > 5


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ([], False),
        (list(range(40)), False),
        ([5, 5, 5], False),  # "no, no, no" may be meant
        ([1, 2, *[5] * 7], False),
        ([1, 2, *[5] * 8], True),
        ([9, *[1, 2] * 3], False),
        ([9, *[1, 2] * 4], True),
        ([9, *[1, 2, 3] * 3], True),
        ([9, *[1, 2, 3] * 2], False),
        ([*[1, 2, 3] * 4, 9], False),  # it went on
        (list(range(24)) * 3, True),
        (list(range(25)) * 3, False),
    ],
)
def test_a_loop_is_what_a_text_ends_with_three_times_or_more(tokens: list[int], expected: bool) -> None:
    assert loops(tokens) is expected


@pytest.mark.parametrize(
    ("tokens", "seconds", "expected"),
    [
        (SENTENCE * 8, 17.0, False),  # somebody says it eight times
        (SENTENCE * 8, 2.0, True),  # nobody speaks that fast
        (tuple(range(40)), 2.0, False),  # as many tokens, without a repeat
        (SENTENCE * 3, 1.7, False),
        (SENTENCE * 3, 1.6, True),
        (SENTENCE * 2, 0.2, False),
        ((5,) * 8, 0.3, False),  # short clips count as a second: a stutter is no loop yet
        ((5,) * 10, 0.3, True),
        (tuple(range(60)), 2.0, True),  # no end
        (tuple(range(59)), 2.0, False),
    ],
)
def test_a_text_is_lost_without_an_end_or_in_a_loop_faster_than_speech(
    tokens: tuple[int, ...], seconds: float, expected: bool
) -> None:
    decoded = replace(SAID, tokens=tokens)
    assert is_lost(decoded, seconds) is expected
    assert Evidence.of(decoded, seconds, 1.0).lost == float(expected)


@pytest.mark.parametrize(("seconds", "tokens"), [(0.0, 10), (0.1, 13), (2.0, 60), (8.56, 224), (30.0, MAXIMUM_TOKENS)])
def test_a_text_may_have_more_tokens_where_there_is_more_to_hear(seconds: float, tokens: int) -> None:
    assert most_tokens(seconds) == tokens


def test_weights_bring_their_own_judge(tmp_path: Path) -> None:
    weights = dict.fromkeys(NAMES, 0.0) | {"language": 2.5}
    folder_with(tmp_path, content(weights=weights, bias=-1.0))
    assert Judge.read(tmp_path) == Judge(weights, -1.0, 0.3, 0.7)
    assert hears_short(tmp_path)


def test_weights_without_one_get_the_judge_of_the_package(tmp_path: Path) -> None:
    assert Judge.read(tmp_path) == Judge(**json.loads(OF_OTHER_WEIGHTS.read_text())["judge"])
    assert not hears_short(tmp_path)


def test_a_file_may_bring_a_judge_of_weights_that_need_the_whole_context(tmp_path: Path) -> None:
    assert not hears_short(folder_with(tmp_path, content() | {"hears_short": False}))


@pytest.mark.parametrize(
    "weights",
    [
        {},
        dict.fromkeys(NAMES[1:], 0.0),
        dict.fromkeys([*NAMES, "loudness"], 0.0),
        dict.fromkeys([*NAMES[1:], "loudness"], 0.0),
    ],
)
def test_a_judge_of_other_signs_is_refused(tmp_path: Path, weights: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=rf"{FILE}: its weights are not those of the evidence"):
        Judge.read(folder_with(tmp_path, content(weights=weights)))


def test_the_probability_is_the_logistic_function_of_the_weighted_signs() -> None:
    judge = Judge(dict.fromkeys(NAMES, 0.0) | {"rate": 2.0, "language": -1.0}, 0.5, 0.3, 0.7)
    evidence = Evidence.of(SAID, 2.0, 0.97)
    assert judge.probability(evidence) == pytest.approx(1 / (1 + math.exp(-(0.5 + 2 * 0.4 - 0.97))))
    assert Judge(judge.weights, -1e9, 0.3, 0.7).probability(evidence) == pytest.approx(0, abs=1e-12)
    assert Judge(judge.weights, 1e9, 0.3, 0.7).probability(evidence) == pytest.approx(1)


@pytest.mark.parametrize(
    ("likely", "less_likely"),
    [
        (SAID, replace(SAID, no_speech_probability=0.9)),
        (SAID, replace(SAID, average_log_probability=-1.2)),
        (SAID, replace(SAID, text="", tokens=())),
        (SAID, replace(SAID, tokens=(5,) * 30)),
    ],
    ids=["no speech is likelier", "the text is less likely", "no text", "a loop"],
)
def test_each_sign_against_speech_makes_it_less_likely(judge: Judge, likely: Decoded, less_likely: Decoded) -> None:
    assert judge.probability(Evidence.of(less_likely, 2.0, 0.97)) < judge.probability(Evidence.of(likely, 2.0, 0.97))


def test_the_judge_of_other_weights_believes_a_sure_text_and_no_empty_one(judge: Judge) -> None:
    assert judge.speech(judge.probability(Evidence.of(SAID, 2.0, 0.97))) == "yes"
    nothing = Decoded("", (), -1.5, 0.8)
    assert judge.speech(judge.probability(Evidence.of(nothing, 2.0, 0.3))) == "none"


@pytest.mark.parametrize(
    ("probability", "expected"),
    [(0.0, "none"), (0.29, "none"), (0.3, "doubtful"), (0.69, "doubtful"), (0.7, "yes"), (1.0, "yes")],
)
def test_between_two_probabilities_it_is_doubtful_whether_somebody_speaks(probability: float, expected: str) -> None:
    assert Judge({}, 0.0, 0.3, 0.7).speech(probability) == expected
