"""`Amser-Rate-Hint`: what is read of the header, and when the cluster sends which."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from amser.codecs.klt import COARSEST, PROFILES
from amser.rate_hint import LONGEST, RateHint, Reason, parse
from deployments.gateway.utterances.rate_hint import rate_hint
from deployments.settings import RateHintSettings
from models.messages import Speech, Transcript

LOW, STANDARD, ROBUST = (PROFILES[name] for name in ("low", "standard", "robust"))
SETTINGS = RateHintSettings()

# --- The header -------------------------------------------------------------------------------------------------------


@given(st.builds(RateHint, st.integers(0, COARSEST), st.sampled_from([*Reason, None])))
def test_what_is_written_is_read(hint: RateHint) -> None:
    assert parse(str(hint)) == hint


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("step=14;reason=noise", RateHint(14, Reason.NOISE)),
        ("step=14; reason=clear", RateHint(14, Reason.CLEAR)),
        (" step=0 ", RateHint(0)),
        ("step=14;reason=rain", RateHint(14)),
        ('step=14;reason="noise"', RateHint(14)),  # a string is no token
        ("step=14;reason", RateHint(14)),
        ('codec="klt, or none";x, step=14;until=12.5;reason=busy;*a , new=?1', RateHint(14, Reason.BUSY)),
        ("step=14, list=(1 2);x, at=@1659578233, bytes=:aGk=:", RateHint(14)),
        ("step=3, step=4;reason=noise;reason=clear", RateHint(4, Reason.CLEAR)),  # the last one counts
    ],
)
def test_what_is_not_known_is_ignored(value: str, hint: RateHint) -> None:
    assert parse(value) == hint


@pytest.mark.parametrize(
    "value",
    [
        "",
        "14",
        "step",
        "step=low",
        "step=14.0",
        "step=-1",
        f"step={COARSEST + 1}",
        "step=9999999999999999",
        "step=١٤",
        "Step=14",
        "step = 14",
        "step=14 ;reason=noise",
        "step=14,",
        "step=14;",
        "step=14 reason=noise",
        'step=14, text="unfinished',
        "step=?1",
        "step=(14)",
        "step=14;at=@99999999999999",  # a date that no calendar has
        "step=14, list=(1 2",
        "step=14\n",
        "step=14" + ", x" * LONGEST,
    ],
)
def test_what_breaks_the_rules_is_ignored(value: str) -> None:
    assert parse(value) is None


@given(st.text(max_size=300) | st.text('step=14;reason,noise "\\?*-.', max_size=40))
def test_no_header_raises(value: str) -> None:
    parse(value)


def test_a_hint_names_a_step_that_there_is() -> None:
    with pytest.raises(ValueError, match=f"klt has no step {COARSEST + 1}; accepted: 0 to {COARSEST}"):
        RateHint(COARSEST + 1)


# --- The cluster's side -----------------------------------------------------------------------------------------------


def transcript_of(text: str, average_log_probability: float) -> Transcript:
    return Transcript(text, "en", average_log_probability)


DOUBTFUL, SURE = transcript_of("the frame leaves at eighty", -0.8), transcript_of("the train leaves at eight", -0.1)
IN_BETWEEN = transcript_of("the train leaves at eight", -0.3)


@pytest.mark.parametrize(
    ("step", "transcript", "hint"),
    [
        (LOW, DOUBTFUL, RateHint(LOW - 8, Reason.NOISE)),
        (STANDARD, DOUBTFUL, RateHint(max(STANDARD - 8, ROBUST), Reason.NOISE)),
        (ROBUST, DOUBTFUL, None),
        (ROBUST - 4, DOUBTFUL, None),
        (LOW, transcript_of("", 0.0), RateHint(LOW - 8, Reason.NOISE)),  # noise can hide all words
        (ROBUST, transcript_of("", 0.0), None),
        (ROBUST, SURE, RateHint(ROBUST + 4, Reason.CLEAR)),
        (LOW - 1, SURE, RateHint(LOW, Reason.CLEAR)),
        (LOW, SURE, None),
        (LOW + 8, SURE, None),
        (ROBUST, transcript_of("yes", -0.05), None),
        (LOW, IN_BETWEEN, None),
        (ROBUST, IN_BETWEEN, None),
        (None, DOUBTFUL, None),
        (None, SURE, None),
    ],
)
def test_doubt_asks_for_a_finer_step_and_certainty_for_a_coarser_one(
    step: int | None, transcript: Transcript, hint: RateHint | None
) -> None:
    assert rate_hint(step, transcript, SETTINGS) == hint


@pytest.mark.parametrize("text", ["", "Thank you."])
@pytest.mark.parametrize("speech", ["none", "doubtful"])
def test_a_finer_step_is_not_asked_for_to_hear_noise_better(speech: Speech, text: str) -> None:
    assert rate_hint(LOW, Transcript(text, "en", -0.8, speech, 0.3), SETTINGS) is None
    assert rate_hint(ROBUST, Transcript(text, "en", -0.1, speech, 0.3), SETTINGS) is None


@given(st.integers(0, COARSEST), st.floats(-3, 0), st.sampled_from(["", "yes", "the train leaves"]))
def test_a_hint_moves_towards_the_bounds_and_never_beyond(step: int, certainty: float, text: str) -> None:
    hint = rate_hint(step, transcript_of(text, certainty), SETTINGS)
    if hint is not None:
        assert SETTINGS.finest <= hint.step <= SETTINGS.coarsest
        assert hint.step < step if hint.reason is Reason.NOISE else hint.step > step


def test_hints_can_be_switched_off() -> None:
    assert rate_hint(LOW, DOUBTFUL, RateHintSettings(enabled=False)) is None


@pytest.mark.parametrize(
    "wrong", [{"doubtful_below": -0.1}, {"finest": LOW + 1}, {"coarsest": COARSEST + 1}, {"certain_from": 0.5}]
)
def test_settings_that_would_make_a_device_alternate_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        RateHintSettings(**wrong)  # type: ignore[arg-type]
